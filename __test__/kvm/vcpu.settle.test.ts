import { ASK, byteOf, ENTRY, get, machine, OTHER_REGISTER, placeOf, STOP, STOPPED } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { throwsCode } from '../helpers/throws.ts';

test('vcpu.settle: completes the answer without running on', async t => {
  using guest = machine(ASK);
  await guest.vcpu.run();
  t.true(guest.vcpu.getRegisters().pending);
  guest.vcpu.answer(0x2a);
  throwsCode(t, 'ERR_BUSY', () => guest.vcpu.setRegisters({ [OTHER_REGISTER]: 1n }));
  t.is(await guest.vcpu.settle(), undefined);
  const { pending } = guest.vcpu.getRegisters();
  const next = BigInt(ENTRY + get(0x60).length);
  t.deepEqual([byteOf(guest.vcpu), placeOf(guest.vcpu), pending], [0x2a, next, false]);
  guest.vcpu.setRegisters({ [OTHER_REGISTER]: 1n });
  t.deepEqual(await guest.vcpu.run(), STOPPED);
});

test('vcpu.settle: with nothing pending it does nothing', async t => {
  using guest = machine(STOP);
  t.is(await guest.vcpu.settle(), undefined);
  t.is(placeOf(guest.vcpu), BigInt(ENTRY));
});
