import { ASK, machine } from '../helpers/guests.ts';
import { x86 as test } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

test('bus.unclaimed: ones answer reads and swallow writes, without an exit', async t => {
  // out 0x80, al; in ax, 0x60; hlt
  using guest = machine([0xe6, 0x80, 0xe5, 0x60, 0xf4]);
  guest.vm.bus.unclaimed({ ports: 'ones' });
  t.deepEqual(await guest.vcpu.run(), { kind: 'hlt' });
  t.is((guest.vcpu.getRegisters().rax ?? 0n) & 0xffffn, 0xffffn);
});

test('bus.unclaimed: exit is the default, and can be had back', async t => {
  using guest = machine(ASK);
  guest.vm.bus.unclaimed({ ports: 'ones' });
  guest.vm.bus.unclaimed({});
  guest.vm.bus.unclaimed({ ports: 'exit' });
  t.like(await guest.vcpu.run(), { kind: 'io', direction: 'in' });
});

test('bus.unclaimed: a policy that there is not is ERR_INVALID_ARGUMENT', t => {
  using guest = machine();
  for (const policy of [null, 'ones', { ports: 'zeros' }, { port: 'ones' }]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vm.bus.unclaimed(wrong(policy)));
  }
});
