import { inspect } from 'node:util';
import { fixture } from '../helpers/child.ts';
import { slotIoctl, STOPPED, told } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';

test('observe: NODE_DEBUG=typevisor prints one line for each event, on stderr', async t => {
  const { code, stdout, stderr } = await fixture('debug', { env: { NODE_DEBUG: 'typevisor' } });
  t.deepEqual([code, stdout], [0, '']);
  t.deepEqual(stderr.replaceAll(/^TYPEVISOR \d+: /gmu, '').split('\n'), [
    'vm 1: create',
    'vm 1: KVM_CREATE_VM { irqchip: false }',
    `vm 1: ${slotIoctl()} { slot: 0, gpa: 0, size: 65536, readonly: false }`,
    'vm 1: KVM_CREATE_VCPU { id: 0 }',
    `vm 1 vcpu 0: exit ${onOneLine(told(0x80, 65))}`,
    `vm 1 vcpu 0: exit ${onOneLine(STOPPED)}`,
    'vm 1: close',
    '',
  ]);
});

test('observe: without NODE_DEBUG nothing is printed', async t => {
  const { code, stdout, stderr } = await fixture('debug', { env: { NODE_DEBUG: '' } });
  t.deepEqual([code, stdout, stderr], [0, '', '']);
});

function onOneLine(exit: object): string {
  return inspect(exit, { breakLength: Infinity });
}
