import { AsyncLocalStorage } from 'node:async_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Vcpu } from '../../ts/index.ts';
import {
  byteOf,
  claim,
  ENTRY,
  forever,
  get,
  machine,
  put,
  set,
  start,
  STOP,
  STOPPED,
  told,
} from '../helpers/guests.ts';
import { onKvm as test, x86 } from '../helpers/needs.ts';
import { scaled } from '../helpers/scale.ts';
import { rejectsCode, throwsCode, wrong } from '../helpers/throws.ts';

/** Both ways to run, each until the guest halts. */
const WAYS = [
  ['run', (vcpu: Vcpu) => vcpu.run()],
  ['runSync', async (vcpu: Vcpu) => vcpu.runSync()],
] as const;

const DOUBLE = [...set(21), ...put(0x10), ...get(0x10), ...put(0x42), ...STOP];
const ASK = [...get(0x10), ...STOP];

for (const [way, run] of WAYS) {
  test(`bus.port: a device answers under ${way}, and no exit reaches the program`, async t => {
    using guest = machine(DOUBLE);
    const seen: unknown[] = [];
    let value = 0;
    claim(guest.vm, 0x10, {
      read: (...args) => (seen.push(['read', ...args]), value * 2),
      write: (...args) => void (seen.push(['write', ...args]), (value = args[2])),
    });
    const exit = await run(guest.vcpu);
    t.deepEqual(exit, told(0x42, 42));
    t.deepEqual(seen, [
      ['write', 0, 1, 21],
      ['read', 0, 1],
    ]);
  });

  x86(`bus.port: string instructions reach the device element by element under ${way}`, async t => {
    // mov si, 0x2000; mov di, 0x3000; mov dx, 0x10; mov cx, 3; cld; rep outsb; mov cx, 3; rep insb; hlt
    const code = [
      0xbe, 0, 0x20, 0xbf, 0, 0x30, 0xba, 0x10, 0, 0xb9, 3, 0, 0xfc, 0xf3, 0x6e, 0xb9, 3, 0, 0xf3, 0x6c, 0xf4,
    ];
    using guest = machine(code);
    guest.vm.memory.write(0x2000, Uint8Array.of(1, 2, 3));
    const written: number[] = [];
    guest.vm.bus.port(0x10, 1, {
      write: (_offset, _size, value) => void written.push(value),
      read: () => written.shift() ?? 0,
    });
    t.like(await run(guest.vcpu), { kind: 'hlt' });
    t.deepEqual(guest.vm.memory.read(0x3000, 3), Uint8Array.of(1, 2, 3));
  });

  x86(`bus.mmio: a device sees offsets, sizes and values under ${way}; one part of it reads ones`, async t => {
    // mov ax, 0x9000; mov ds, ax; mov word [4], 0x1234; mov ax, [8]; hlt
    using guest = machine([0xb8, 0, 0x90, 0x8e, 0xd8, 0xc7, 6, 4, 0, 0x34, 0x12, 0xa1, 8, 0, 0xf4]);
    const writes: unknown[] = [];
    guest.vm.bus.mmio(0x9_0000, 16, { write: (...args) => void writes.push(args) });
    t.like(await run(guest.vcpu), { kind: 'hlt' });
    t.deepEqual(writes, [[4, 2, 0x1234]]);
    t.is(BigInt.asUintN(16, rax(guest.vcpu)), 0xffffn, 'a device without read');
  });

  test(`bus.port: what a device throws ends ${way} with that very error, and the access stays unanswered`, async t => {
    using guest = machine(ASK);
    const error = new Error('broken');
    const claimed = claim(guest.vm, 0x10, {
      read() {
        throw error;
      },
    });
    t.is(await t.throwsAsync(async () => run(guest.vcpu)), error);
    await rejectsCode(t, 'ERR_EXIT_UNANSWERED', run(guest.vcpu));
    claimed[Symbol.dispose]();
    guest.vcpu.answer(5);
    t.deepEqual(await run(guest.vcpu), STOPPED);
    t.is(byteOf(guest.vcpu), 5);
  });

  test(`bus.port: answers that do not fit are refused under ${way}`, async t => {
    for (const [given, code] of [
      [256, 'ERR_OUT_OF_RANGE'],
      [-1, 'ERR_OUT_OF_RANGE'],
      [1.5, 'ERR_OUT_OF_RANGE'],
      ['1', 'ERR_INVALID_ARGUMENT'],
      [undefined, 'ERR_INVALID_ARGUMENT'],
    ] as const) {
      using guest = machine(ASK);
      claim(guest.vm, 0x10, { read: () => wrong(given) });
      await rejectsCode(t, code, run(guest.vcpu));
    }
  });

  test(`bus.port: closing the VM from inside a device under ${way} is ERR_CLOSED when it returns`, async t => {
    using guest = machine(ASK);
    claim(guest.vm, 0x10, { read: () => (guest.vm.close(), 1) });
    await rejectsCode(t, 'ERR_CLOSED', run(guest.vcpu));
  });

  test(`bus.port: a device keeps the AsyncLocalStorage context it was claimed in under ${way}`, async t => {
    const storage = new AsyncLocalStorage<string>();
    using guest = machine(ASK);
    const seen: unknown[] = [];
    storage.run('claim', () => claim(guest.vm, 0x10, { read: () => (seen.push(storage.getStore()), 1) }));
    await storage.run('run', () => run(guest.vcpu));
    t.deepEqual(seen, ['claim']);
  });
}

test('bus.port: a device may take its time on a vCPU’s own thread, and not under runSync', async t => {
  using guest = machine(ASK);
  claim(guest.vm, 0x10, { read: async () => sleep(1, 7) });
  throwsCode(t, 'ERR_ASYNC_HANDLER', () => guest.vcpu.runSync());
  guest.vcpu.answer(0);
  await guest.vcpu.settle();
  start(guest.vcpu);
  t.like(await guest.vcpu.run(), STOPPED);
  t.is(byteOf(guest.vcpu), 7);
});

test('bus.port: an abort does not wait for a device, and the next run goes on with it', async t => {
  using guest = machine(ASK);
  const controller = new AbortController();
  const reason = new Error('enough');
  let [calls, reply]: [number, (value: number) => void] = [0, () => undefined];
  claim(guest.vm, 0x10, {
    read() {
      calls += 1;
      controller.abort(reason);
      return new Promise<number>(resolve => {
        reply = resolve;
      });
    },
  });
  t.is(await t.throwsAsync(guest.vcpu.run({ signal: controller.signal })), reason);
  throwsCode(t, 'ERR_EXIT_UNANSWERED', () => guest.vcpu.runSync());
  const next = guest.vcpu.run();
  reply(9);
  t.like(await next, STOPPED);
  t.is(byteOf(guest.vcpu), 9);
  t.is(calls, 1);
});

test('bus.port: aborts at any moment leave a guest whose device answers at once fit to run on', async t => {
  using guest = machine(forever(get(0x10)));
  claim(guest.vm, 0x10, { read: () => 7 });
  for (let round = 0; round < scaled(60); round += 1) {
    const controller = new AbortController();
    setTimeout(() => controller.abort(new Error('enough')), round % 4);
    await t.throwsAsync(guest.vcpu.run({ signal: controller.signal }), { message: 'enough' });
  }
});

x86('vcpu.settle: what it brings goes to the device that claimed it', async t => {
  // In long mode: mov [0x20ffe], eax, over a page border into one claim; then out 0x42, al
  using guest = machine([0x89, 0x04, 0x25, 0xfe, 0x0f, 2, 0, 0xe6, 0x42]);
  guest.vcpu.boot({ mode: 'long', privilege: 'user', entry: ENTRY });
  const seen: number[] = [];
  guest.vm.bus.mmio(0x2_0000, 0x2000, {
    write(offset) {
      seen.push(offset);
      if (seen.length === 1) throw new Error('once');
    },
  });
  await t.throwsAsync(guest.vcpu.run(), { message: 'once' });
  t.is(await guest.vcpu.settle(), undefined);
  t.deepEqual(seen, [0xffe, 0x1000]);
});

test('asyncDispose: from inside a device, and before a runSync, is ERR_CLOSED and hangs nothing', async t => {
  using inside = machine(ASK);
  let disposed: Promise<void> | undefined;
  claim(inside.vm, 0x10, { read: () => ((disposed = inside.vcpu[Symbol.asyncDispose]()), 1) });
  throwsCode(t, 'ERR_CLOSED', () => inside.vcpu.runSync());
  await disposed;
  using before = machine(ASK);
  const closing = before.vcpu[Symbol.asyncDispose]();
  throwsCode(t, 'ERR_CLOSED', () => before.vcpu.runSync());
  await closing;
  using whole = machine(ASK);
  const ending = whole.vm[Symbol.asyncDispose]();
  throwsCode(t, 'ERR_CLOSED', () => whole.vcpu.runSync());
  await ending;
});

x86('bus.mmio: 8 bytes arrive as two accesses of 4, or whole where the device is wide', async t => {
  // movq [0x20000], mm0 after mov eax, …: in long mode, mov rax, imm64; mov [0x20000], rax; mov rbx, [0x20000]; out 0x42, al
  const code = [
    0x48, 0xb8, 8, 7, 6, 5, 4, 3, 2, 1, 0x48, 0x89, 0x04, 0x25, 0, 0, 2, 0, 0x48, 0x8b, 0x1c, 0x25, 0, 0, 2, 0, 0xe6,
    0x42,
  ];
  using guest = machine(code);
  const seen: unknown[] = [];
  const write = (...args: unknown[]): void => void seen.push(args);
  guest.vcpu.boot({ mode: 'long', privilege: 'user', entry: ENTRY });
  const narrow = guest.vm.bus.mmio(0x2_0000, 8, { write, read: offset => 0x10 + offset });
  t.like(guest.vcpu.runSync(), { kind: 'io', port: 0x42 });
  t.deepEqual(seen.splice(0), [
    [0, 4, 0x0506_0708],
    [4, 4, 0x0102_0304],
  ]);
  t.is(rbx(guest.vcpu), 0x14_0000_0010n);
  narrow[Symbol.dispose]();
  await guest.vcpu.settle();
  guest.vcpu.boot({ mode: 'long', privilege: 'user', entry: ENTRY });
  guest.vm.bus.mmio(0x2_0000, 8, { width: 64, write, read: () => 0xfedc_ba98_7654_3210n });
  t.like(await guest.vcpu.run(), { kind: 'io', port: 0x42 });
  t.deepEqual(seen, [[0, 8, 0x0102_0304_0506_0708n]]);
  t.is(rbx(guest.vcpu), 0xfedc_ba98_7654_3210n);
});

x86('bus.port: what is no device is ERR_INVALID_ARGUMENT', t => {
  using guest = machine(ASK);
  for (const device of [
    undefined,
    null,
    5,
    {},
    { read: 1 },
    { write: () => 1, posted: () => 1 },
    { width: 16, read: () => 1 },
  ]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vm.bus.port(0x10, 1, wrong(device)));
  }
  guest.vm.bus.port(0x10, 4, { read: () => 1 });
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => guest.vm.bus.port(0x13, 1, { read: () => 1 }));
});

function rax(vcpu: Vcpu): bigint {
  const registers = vcpu.getRegisters();
  return registers.arch === 'x86_64' ? registers.rax : 0n;
}

function rbx(vcpu: Vcpu): bigint {
  const registers = vcpu.getRegisters();
  return registers.arch === 'x86_64' ? registers.rbx : 0n;
}
