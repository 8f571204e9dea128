import { setImmediate } from 'node:timers/promises';
import { KiB, MiB, type MemoryChange, type MemorySlot, Vm } from '../../ts/index.ts';
import {
  COUNT,
  counting,
  handlers,
  load,
  machine,
  mark,
  put,
  set,
  STOP,
  STOPPED,
  untilItCounts,
} from '../helpers/guests.ts';
import { needs, onKvm as test } from '../helpers/needs.ts';
import { scaled } from '../helpers/scale.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const GPA = 0x8_0000;

test('memory.change: makes all of it, and gives the slots of its maps in order', t => {
  using vm = Vm.create();
  const { memory } = vm;
  const [first, second] = [memory.map({ gpa: 0, size: 64 * KiB }), memory.map({ gpa: 64 * KiB, size: 64 * KiB })];
  memory.setUint8(64 * KiB, 22);
  const made = memory.change(tx => {
    tx.unmap(first);
    tx.move(second, 0);
    tx.map({ gpa: 1 * MiB, size: 4 * KiB });
    tx.map({ gpa: 64 * KiB, size: 8 * KiB, slot: 9 });
  });
  t.true(Object.isFrozen(made));
  t.deepEqual(
    made.map(({ slot, gpa, size }) => [slot, gpa, size]),
    [
      [first.slot, 1 * MiB, 4 * KiB],
      [9, 64 * KiB, 8 * KiB],
    ],
  );
  t.is(memory.getUint8(0), 22);
  t.deepEqual(memory.slots, [second, made[1], made[0]]);
  t.is(memory.slotAt(1 * MiB), made[0]);
});

test('memory.change: what it unmapped is gone, and may be unmapped again', t => {
  using vm = Vm.create();
  const slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
  const [again] = vm.memory.change(tx => {
    tx.unmap(slot);
    tx.map({ gpa: 0, size: 4 * KiB });
  });
  t.is(again?.slot, slot.slot, 'the number is free again');
  slot.unmap();
  t.deepEqual(vm.memory.slots, [again]);
  throwsCode(t, 'ERR_CLOSED', () => slot.move(64 * KiB));
  throwsCode(t, 'ERR_CLOSED', () => vm.memory.change(tx => tx.unmap(slot)));
  t.deepEqual(vm.memory.slots, [again]);
});

test('memory.change: nothing to do is nothing done', t => {
  using vm = Vm.create();
  t.deepEqual(
    vm.memory.change(() => undefined),
    [],
  );
});

/** Ways to fail, each after a removal that must not happen. */
const FAILING: readonly [string, Parameters<typeof throwsCode>[1], (tx: MemoryChange, vm: Vm) => unknown][] = [
  ['an overlap', 'ERR_SLOT_OVERLAP', tx => tx.map({ gpa: 1 * MiB, size: 4 * KiB })],
  ['an overlap among its own maps', 'ERR_SLOT_OVERLAP', tx => [0, 0].map(gpa => tx.map({ gpa, size: 4 * KiB }))],
  ['a number that is taken', 'ERR_INVALID_ARGUMENT', tx => tx.map({ gpa: 0, size: 4 * KiB, slot: 1 })],
  ['a place off a page', 'ERR_UNALIGNED', (tx, vm) => vm.memory.slots.slice(1).map(slot => tx.move(slot, 5))],
  ['a file that is not there', 'ERR_IO', tx => tx.map({ gpa: 0, size: 4 * KiB, backing: { file: '/no/such/file' } })],
  ['a slot of another VM', 'ERR_INVALID_ARGUMENT', tx => tx.unmap(foreign())],
  ['no slot', 'ERR_INVALID_ARGUMENT', tx => tx.setReadonly(wrong({}), true)],
  ['a wrong type', 'ERR_INVALID_ARGUMENT', tx => tx.map(wrong({ gpa: 0n, size: 4 * KiB }))],
  ['an unknown option', 'ERR_INVALID_ARGUMENT', tx => tx.map(wrong({ gpa: 0, size: 4 * KiB, backed: 'memfd' }))],
];

/** Of a VM that is gone again. */
function foreign(): MemorySlot {
  using vm = Vm.create();
  return vm.memory.map({ gpa: 0, size: 4 * KiB });
}

for (const [what, code, act] of FAILING) {
  test(`memory.change: with ${what} it is ${code}, and none of it is done`, t => {
    using vm = Vm.create();
    const slots = [vm.memory.map({ gpa: 0, size: 8 * KiB }), vm.memory.map({ gpa: 1 * MiB, size: 4 * KiB })] as const;
    vm.memory.setUint8(0, 7);
    throwsCode(t, code, () =>
      vm.memory.change(tx => {
        tx.unmap(slots[0]);
        tx.map({ gpa: 2 * MiB, size: 4 * KiB });
        act(tx, vm);
      }),
    );
    t.deepEqual(vm.memory.slots, slots);
    t.is(vm.memory.getUint8(0), 7);
    slots[0].move(64 * KiB);
    t.is(slots[0].gpa, 64 * KiB);
  });
}

test('memory.change: what its function throws is thrown on, and nothing is done', t => {
  using vm = Vm.create();
  const slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
  const error = new Error('changed my mind');
  const thrown = t.throws(() =>
    vm.memory.change(tx => {
      tx.unmap(slot);
      throw error;
    }),
  );
  t.is(thrown, error);
  t.deepEqual(vm.memory.slots, [slot]);
});

test('memory.change: a function that returns a promise is refused, and nothing is done', t => {
  using vm = Vm.create();
  const slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
  for (const given of [Promise.resolve(), Promise.reject(new Error('nobody hears of it'))]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () =>
      vm.memory.change(tx => {
        tx.unmap(slot);
        return wrong(given);
      }),
    );
  }
  t.deepEqual(vm.memory.slots, [slot]);
});

test('memory.change: what is no function is ERR_INVALID_ARGUMENT', t => {
  using vm = Vm.create();
  for (const value of [undefined, null, {}, []]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.memory.change(wrong(value)));
  }
});

test('memory.change: its object is of no use once its function has returned, or thrown', t => {
  using vm = Vm.create();
  const slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
  const kept: MemoryChange[] = [];
  vm.memory.change(tx => void kept.push(tx));
  t.throws(() =>
    vm.memory.change(tx => {
      kept.push(tx);
      throw new Error('enough');
    }),
  );
  t.is(kept.length, 2);
  for (const tx of kept) {
    throwsCode(t, 'ERR_CLOSED', () => tx.map({ gpa: 1 * MiB, size: 4 * KiB }));
    throwsCode(t, 'ERR_CLOSED', () => tx.unmap(slot));
    throwsCode(t, 'ERR_CLOSED', () => tx.move(slot, 1 * MiB));
    throwsCode(t, 'ERR_CLOSED', () => tx.setReadonly(slot, true));
  }
  t.deepEqual(vm.memory.slots, [slot]);
});

test('memory.change: a running guest sees the one slot or the other, and no exit comes of it', async t => {
  using guest = machine(counting(load(GPA)));
  const { vm, vcpu } = guest;
  vm.memory.map({ gpa: COUNT, size: 4 * KiB });
  let slot = vm.memory.map({ gpa: GPA, size: 4 * KiB });
  const running = vcpu.run();
  for (let round = 0; round < scaled(200); round += 1) {
    if (round % 10 === 0) untilItCounts(vm); // it runs all the while
    const [next = slot] = vm.memory.change(tx => {
      tx.unmap(slot);
      tx.map({ gpa: GPA, size: 4 * KiB });
    });
    slot = next;
  }
  vcpu.kick();
  t.deepEqual(await running, { kind: 'intr' });
});

test('memory.change: not as one, the same is seen by the guest', async t => {
  t.timeout(240_000);
  using guest = machine(counting(load(GPA)));
  const { vm, vcpu } = guest;
  vm.memory.map({ gpa: COUNT, size: 4 * KiB });
  let slot = vm.memory.map({ gpa: GPA, size: 4 * KiB });
  const running = vcpu.run();
  const state = { over: false };
  const seen = running.finally(() => (state.over = true));
  untilItCounts(vm);
  while (!state.over) {
    slot.unmap();
    slot = vm.memory.map({ gpa: GPA, size: 4 * KiB });
    await setImmediate();
  }
  t.deepEqual(await seen, { kind: 'mmio', direction: 'read', gpa: GPA, size: 1 });
});

test('memory.change: from within a device of JavaScript’s, on either thread, it waits for nobody', async t => {
  for (const way of ['run', 'runSync'] as const) {
    using guest = machine(set(1), put(0x60), load(GPA), STOP);
    const { vm, vcpu } = guest;
    const slot = vm.memory.map({ gpa: GPA, size: 4 * KiB });
    const device = {
      write: (): void => {
        vm.memory.change(tx => {
          tx.unmap(slot);
          tx.map({ gpa: GPA, size: 8 * KiB });
        });
      },
    };
    if (process.arch === 'arm64') vm.bus.mmio(0x9_0060, 1, device);
    else vm.bus.port(0x60, 1, device);
    t.deepEqual(await vcpu[way](), STOPPED);
    t.is(vm.memory.slotAt(GPA)?.size, 8 * KiB);
  }
});

test('memory.change: from within a handler of serve it waits for nobody', async t => {
  using guest = machine(set(1), put(0x60), load(GPA), STOP);
  const { vm, vcpu } = guest;
  const access = (): void => void vm.memory.change(tx => tx.map({ gpa: GPA, size: 4 * KiB }));
  t.deepEqual(await vcpu.serve(handlers({ access })), STOPPED);
});

needs('readonly-mem')('slot.setReadonly: ROM becomes RAM and back under a running guest, without an exit', async t => {
  using guest = machine(counting(load(GPA)));
  const { vm, vcpu } = guest;
  vm.memory.map({ gpa: COUNT, size: 4 * KiB });
  const slot = vm.memory.map({ gpa: GPA, size: 4 * KiB, readonly: true });
  vm.memory.setUint8(GPA, 0xaa);
  const running = vcpu.run();
  for (let round = 0; round < scaled(200); round += 1) {
    if (round % 10 === 0) untilItCounts(vm); // it runs all the while
    if (round % 2 === 0) slot.setReadonly(!slot.readonly);
    else vm.memory.change(tx => tx.setReadonly(slot, !slot.readonly));
  }
  vcpu.kick();
  t.deepEqual(await running, { kind: 'intr' });
  t.like(slot, { readonly: true, gpa: GPA, size: 4 * KiB });
  t.is(vm.memory.getUint8(GPA), 0xaa);
});

needs('readonly-mem')('slot.setReadonly: is what the guest meets from then on', async t => {
  using guest = machine(set(5), mark(GPA), put(0x60), mark(GPA + 1), STOP);
  const { vm, vcpu } = guest;
  const slot = vm.memory.map({ gpa: GPA, size: 4 * KiB });
  const access = (): void => slot.setReadonly(true);
  const exit = await vcpu.serve({
    io: access,
    mmio: written => (written.gpa === GPA + 1 ? 'stop' : access()),
  });
  t.deepEqual(exit, { kind: 'mmio', direction: 'write', gpa: GPA + 1, size: 1, data: Uint8Array.of(5) });
  t.deepEqual([...vm.memory.read(GPA, 2)], [5, 0]);
  for (const value of [1, undefined, 'true']) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => slot.setReadonly(wrong(value)));
  }
});

test('slot.setDirtyLog: is a flag of a slot that stays where it is', t => {
  using vm = Vm.create();
  const slot = vm.memory.map({ gpa: 0, size: 64 * KiB });
  vm.memory.setUint8(5, 55);
  t.false(slot.dirtyLog);
  for (const on of [true, true, false, false, true]) {
    slot.setDirtyLog(on);
    t.is(slot.dirtyLog, on);
  }
  slot.move(1 * MiB);
  t.true(slot.dirtyLog);
  t.is(vm.memory.getUint8(1 * MiB + 5), 55);
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => slot.setDirtyLog(wrong(1)));
});
