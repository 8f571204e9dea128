import { debugConsole } from '../../ts/index.ts';
import { ASK, machine, printer, SPIN } from '../helpers/guests.ts';
import { x86 as test } from '../helpers/needs.ts';
import { rejectsCode, throwsCode } from '../helpers/throws.ts';

test('vcpu: while a run is pending, whatever else drives or reads it is ERR_BUSY', async t => {
  using guest = machine(SPIN);
  const { vcpu } = guest;
  const running = vcpu.run();
  await rejectsCode(t, 'ERR_BUSY', vcpu.run());
  await rejectsCode(t, 'ERR_BUSY', vcpu.settle());
  throwsCode(t, 'ERR_BUSY', () => vcpu.runSync());
  throwsCode(t, 'ERR_BUSY', () => vcpu.getRegisters());
  throwsCode(t, 'ERR_BUSY', () => vcpu.setRegisters({ rax: 0n }));
  throwsCode(t, 'ERR_BUSY', () => vcpu.boot({ mode: 'real', entry: 0x1000 }));
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
  throwsCode(t, 'ERR_BUSY', () => vcpu.setRegisters({ rax: 0n }));
  throwsCode(t, 'ERR_BUSY', () => vcpu.boot({ mode: 'real', entry: 0x1000 }));
  await rejectsCode(t, 'ERR_BUSY', vcpu.run());
  t.like(await running, { kind: 'io', direction: 'in' });
  vcpu.answer(7);
  t.deepEqual(await vcpu.run(), { kind: 'hlt' });
  t.is((vcpu.getRegisters().rax ?? 0n) & 0xffn, 7n);
});

test('vcpu: runSync from within a console of a pending run is ERR_BUSY', async t => {
  using guest = machine(printer(0x402, 'text'));
  const { vm, vcpu } = guest;
  let calls = 0;
  const sink = (): void => {
    calls += 1;
    throwsCode(t, 'ERR_BUSY', () => vcpu.runSync());
  };
  vm.bus.port(0x402, 1, debugConsole(sink));
  t.deepEqual(await vcpu.run(), { kind: 'hlt' });
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
