import { debugConsole, KiB, Vm } from '../../ts/index.ts';
import { fixture } from '../helpers/child.ts';
import {
  attachConsole,
  type Code,
  CONSOLE,
  machine,
  MARK,
  mark,
  printer,
  put,
  set,
  SPIN,
  start,
  STOPPED,
  STOP,
  times,
} from '../helpers/guests.ts';
import { needs, onKvm as test } from '../helpers/needs.ts';
import { patiently } from '../helpers/scale.ts';
import { rejectsCode, throwsCode } from '../helpers/throws.ts';

/** Prints one byte less than a console holds: mov cx, 0xffff; cld; mov dx, CONSOLE; rep outsb · 8,191 posted writes. */
const FILL: Code =
  process.arch === 'arm64' ? times(8_191, put(CONSOLE)) : [0xb9, 0xff, 0xff, 0xfc, 0xba, CONSOLE, 0, 0xf3, 0x6e];

test('vm.close: stops every vCPU, whose runs reject with ERR_CLOSED', async t => {
  using guest = machine(SPIN);
  const second = guest.vm.createVcpu();
  start(second);
  const [running, alsoRunning] = [guest.vcpu.run(), second.run()];
  guest.vm.close();
  await Promise.all([rejectsCode(t, 'ERR_CLOSED', running), rejectsCode(t, 'ERR_CLOSED', alsoRunning)]);
});

test('vm.close: twice is harmless, everything else is ERR_CLOSED afterwards', async t => {
  const vm = Vm.create();
  const slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
  const vcpu = vm.createVcpu();
  vm.close();
  vm.close();
  vm[Symbol.dispose]();
  await vm[Symbol.asyncDispose]();
  throwsCode(t, 'ERR_CLOSED', () => vm.createVcpu());
  throwsCode(t, 'ERR_CLOSED', () => vm.resume());
  await rejectsCode(t, 'ERR_CLOSED', vm.pause());
  throwsCode(t, 'ERR_CLOSED', () => vm.loadFirmware(new Uint8Array(64 * KiB).fill(0xf4)));
  throwsCode(t, 'ERR_CLOSED', () => vm.memory.map({ gpa: 0, size: 4 * KiB }));
  throwsCode(t, 'ERR_CLOSED', () => vm.memory.slots);
  throwsCode(t, 'ERR_CLOSED', () => vm.memory.slotAt(0));
  throwsCode(t, 'ERR_CLOSED', () => vm.memory.read(0, 1));
  throwsCode(t, 'ERR_CLOSED', () => vm.memory.write(0, Uint8Array.of(1)));
  throwsCode(t, 'ERR_CLOSED', () => vm.memory.fill(0, 1));
  throwsCode(t, 'ERR_CLOSED', () => vm.memory.getUint8(0));
  throwsCode(t, 'ERR_CLOSED', () => vm.memory.search(0, 1, Uint8Array.of(1)));
  throwsCode(t, 'ERR_CLOSED', () => vm.memory.change(tx => tx.map({ gpa: 0, size: 4 * KiB })));
  throwsCode(t, 'ERR_CLOSED', () => slot.setReadonly(false));
  throwsCode(t, 'ERR_CLOSED', () => slot.setDirtyLog(true));
  throwsCode(t, 'ERR_CLOSED', () =>
    vm.bus.port(
      0x402,
      1,
      debugConsole(() => undefined),
    ),
  );
  throwsCode(t, 'ERR_CLOSED', () => vm.bus.unclaimed({ ports: 'ones' }));
  throwsCode(t, 'ERR_CLOSED', () => slot.move(0x1000));
  throwsCode(t, 'ERR_CLOSED', () => vcpu.getRegisters());
  await rejectsCode(t, 'ERR_CLOSED', vcpu.run());
  t.notThrows(() => slot.unmap(), 'what is gone already can be unmapped');
  vcpu.close();
});

test('vm.close: hands on what was printed and not taken yet', async t => {
  using guest = machine(printer(CONSOLE, 'last words'));
  let text = '';
  attachConsole(guest.vm, chunk => (text += Buffer.from(chunk).toString()));
  const running = guest.vcpu.run();
  t.deepEqual(await running, STOPPED);
  guest.vm.close();
  t.is(text, 'last words');
});

needs('speed')('vm.close: releases a guest that waits for room in its console', async t => {
  // Behind a full console lies at most a ring of KVM's (docs/design/bus.md), of 2,730 writes on the largest pages.
  using guest = machine(FILL, set(1), mark(), times(9_000, put(CONSOLE)), mark(MARK + 1), SPIN);
  attachConsole(guest.vm, () => undefined);
  const running = guest.vcpu.run();
  // This thread does not let the event loop turn, so nobody takes what is printed.
  const { memory } = guest.vm;
  for (const end = performance.now() + 60_000; memory.getUint8(MARK) === 0 && performance.now() < end;);
  t.is(memory.getUint8(MARK), 1, 'the next access fills the console');
  for (const end = performance.now() + patiently(50); performance.now() < end;);
  t.is(memory.getUint8(MARK + 1), 0, 'and waits');
  guest.vm.close();
  await rejectsCode(t, 'ERR_CLOSED', running);
});

test('vm.close: from within its own console function is as good as from elsewhere', async t => {
  using guest = machine(printer(CONSOLE, 'enough'));
  let calls = 0;
  attachConsole(guest.vm, () => {
    calls += 1;
    guest.vm.close();
  });
  await t.throwsAsync(
    async () => {
      for (;;) await guest.vcpu.run();
    },
    { code: 'ERR_CLOSED' },
  );
  t.true(calls > 0);
});

test('vm: await using closes it', async t => {
  let vm: Vm;
  {
    await using inner = Vm.create();
    vm = inner;
  }
  throwsCode(t, 'ERR_CLOSED', () => vm.createVcpu());
});

test('vm: a vCPU, a slot and the memory keep working when only they are held on to', async t => {
  const { code, stdout, stderr } = await fixture('held-on-to', { nodeArgs: ['--expose-gc'] });
  t.deepEqual([code, stderr], [0, '']);
  t.is(stdout, `vm collected: true\n${STOPPED.kind} 4096 ${STOP[0]}\n`);
});
