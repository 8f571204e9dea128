import { fixture } from '../helpers/child.ts';
import { needs } from '../helpers/needs.ts';

const test = needs('x86_64', 'user-memory2');

test('observe: NODE_DEBUG=typevisor prints one line for each event, on stderr', async t => {
  const { code, stdout, stderr } = await fixture('debug', { env: { NODE_DEBUG: 'typevisor' } });
  t.deepEqual([code, stdout], [0, '']);
  t.deepEqual(stderr.replaceAll(/^TYPEVISOR \d+: /gmu, '').split('\n'), [
    'vm 1: create',
    'vm 1: KVM_CREATE_VM { irqchip: false }',
    'vm 1: KVM_SET_USER_MEMORY_REGION2 { slot: 0, gpa: 0, size: 65536, readonly: false }',
    'vm 1: KVM_CREATE_VCPU { id: 0 }',
    "vm 1 vcpu 0: exit { kind: 'io', direction: 'out', port: 128, size: 1, count: 1, data: Uint8Array(1) [ 65 ] }",
    "vm 1 vcpu 0: exit { kind: 'hlt' }",
    'vm 1: close',
    '',
  ]);
});

test('observe: without NODE_DEBUG nothing is printed', async t => {
  const { code, stdout, stderr } = await fixture('debug', { env: { NODE_DEBUG: '' } });
  t.deepEqual([code, stdout, stderr], [0, '', '']);
});
