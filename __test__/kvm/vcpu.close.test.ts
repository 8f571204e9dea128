import { machine, REGISTER, SPIN, start, STOP, STOPPED } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { rejectsCode, throwsCode } from '../helpers/throws.ts';

test('vcpu.close: stops an endless guest, whose run rejects with ERR_CLOSED', async t => {
  using guest = machine(SPIN);
  const running = guest.vcpu.run();
  guest.vcpu.close();
  await rejectsCode(t, 'ERR_CLOSED', running);
});

test('vcpu.close: twice is harmless, everything else is ERR_CLOSED afterwards', async t => {
  using guest = machine(STOP);
  const { vcpu } = guest;
  vcpu.close();
  vcpu.close();
  vcpu[Symbol.dispose]();
  await vcpu[Symbol.asyncDispose]();
  await rejectsCode(t, 'ERR_CLOSED', vcpu.run());
  await rejectsCode(t, 'ERR_CLOSED', vcpu.settle());
  throwsCode(t, 'ERR_CLOSED', () => vcpu.runSync());
  throwsCode(t, 'ERR_CLOSED', () => vcpu.kick());
  throwsCode(t, 'ERR_CLOSED', () => vcpu.answer(1));
  throwsCode(t, 'ERR_CLOSED', () => vcpu.getRegisters());
  throwsCode(t, 'ERR_CLOSED', () => vcpu.setRegisters({ [REGISTER]: 1n }));
  throwsCode(t, 'ERR_CLOSED', () => start(vcpu));
  t.is(vcpu.id, 0);
});

test('vcpu.close: the VM and its other vCPUs go on; the id stays taken', async t => {
  using guest = machine(STOP);
  guest.vcpu.close();
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vm.createVcpu({ id: 0 }));
  await using other = guest.vm.createVcpu();
  t.is(other.id, 1);
  start(other);
  t.deepEqual(await other.run(), STOPPED);
});
