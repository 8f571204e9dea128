import {
  ASK,
  asked,
  attachConsole,
  byteOf,
  CONSOLE,
  machine,
  printer,
  REGISTER,
  SPIN,
  start,
  STOPPED,
} from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { rejectsCode, throwsCode } from '../helpers/throws.ts';

test('vcpu: while a run is pending, whatever else drives or reads it is ERR_BUSY', async t => {
  using guest = machine(SPIN);
  const { vcpu } = guest;
  const running = vcpu.run();
  await rejectsCode(t, 'ERR_BUSY', vcpu.run());
  await rejectsCode(t, 'ERR_BUSY', vcpu.settle());
  throwsCode(t, 'ERR_BUSY', () => vcpu.runSync());
  throwsCode(t, 'ERR_BUSY', () => vcpu.getRegisters());
  throwsCode(t, 'ERR_BUSY', () => vcpu.setRegisters({ [REGISTER]: 0n }));
  throwsCode(t, 'ERR_BUSY', () => start(vcpu));
  throwsCode(t, 'ERR_BUSY', () => vcpu.answer(1));
  vcpu.kick();
  t.deepEqual(await running, { kind: 'intr' });
});

test('vcpu: a run is pending until its promise has settled, however fast the guest is', async t => {
  using guest = machine(ASK);
  const { vcpu } = guest;
  const running = vcpu.run();
  // The exit comes while this thread does not let the event loop turn.
  const end = performance.now() + 50;
  while (performance.now() < end);
  throwsCode(t, 'ERR_BUSY', () => vcpu.answer(7));
  throwsCode(t, 'ERR_BUSY', () => vcpu.runSync());
  throwsCode(t, 'ERR_BUSY', () => vcpu.getRegisters());
  throwsCode(t, 'ERR_BUSY', () => vcpu.setRegisters({ [REGISTER]: 0n }));
  throwsCode(t, 'ERR_BUSY', () => start(vcpu));
  await rejectsCode(t, 'ERR_BUSY', vcpu.run());
  t.deepEqual(await running, asked());
  vcpu.answer(7);
  t.deepEqual(await vcpu.run(), STOPPED);
  t.is(byteOf(vcpu), 7);
});

test('vcpu: runSync from within a console of a pending run is ERR_BUSY', async t => {
  using guest = machine(printer(CONSOLE, 'text'));
  const { vm, vcpu } = guest;
  let calls = 0;
  const sink = (): void => {
    calls += 1;
    throwsCode(t, 'ERR_BUSY', () => vcpu.runSync());
  };
  attachConsole(vm, sink);
  t.deepEqual(await vcpu.run(), STOPPED);
  t.true(calls > 0);
});

test('vcpu: closed while a run is pending, it is ERR_CLOSED at once', async t => {
  using guest = machine(SPIN);
  const { vcpu } = guest;
  const running = vcpu.run();
  vcpu.close();
  throwsCode(t, 'ERR_CLOSED', () => vcpu.getRegisters());
  await rejectsCode(t, 'ERR_CLOSED', vcpu.run());
  await rejectsCode(t, 'ERR_CLOSED', running);
});
