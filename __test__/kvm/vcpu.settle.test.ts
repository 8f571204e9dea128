import { ASK, HLT, machine } from '../helpers/guests.ts';
import { x86 as test } from '../helpers/needs.ts';
import { throwsCode } from '../helpers/throws.ts';

test('vcpu.settle: completes the answer without running on', async t => {
  using guest = machine(ASK);
  await guest.vcpu.run();
  t.true(guest.vcpu.getRegisters().pending);
  guest.vcpu.answer(0x2a);
  throwsCode(t, 'ERR_BUSY', () => guest.vcpu.setRegisters({ rbx: 1n }));
  t.is(await guest.vcpu.settle(), undefined);
  const { rax = 0n, rip, pending } = guest.vcpu.getRegisters();
  t.deepEqual([rax & 0xffn, rip, pending], [0x2an, 0x1002n, false]);
  guest.vcpu.setRegisters({ rbx: 1n });
  t.deepEqual(await guest.vcpu.run(), { kind: 'hlt' });
});

test('vcpu.settle: with nothing pending it does nothing', async t => {
  using guest = machine(HLT);
  t.is(await guest.vcpu.settle(), undefined);
  t.is(guest.vcpu.getRegisters().rip, 0x1000n);
});
