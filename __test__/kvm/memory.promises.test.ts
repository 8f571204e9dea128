import { KiB, MiB, type MemorySlot, TypevisorError, Vm } from '../../ts/index.ts';
import { fixture } from '../helpers/child.ts';
import { COUNT, counting, load, machine, untilItCounts } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { scaled } from '../helpers/scale.ts';
import { rejectsCode, throwsCode, wrong } from '../helpers/throws.ts';

/** What takes its time to fill. */
const LARGE = scaled(64) * MiB;

const GPA = 0x8_0000;

test('memory.promises: do what the others do', async t => {
  using vm = Vm.create();
  const { memory } = vm;
  const { promises } = memory;
  t.is(memory.promises, promises);
  const slot = await promises.map({ gpa: 0, size: 64 * KiB, backing: 'memfd' });
  t.like(slot, { gpa: 0, size: 64 * KiB, backing: 'memfd' });
  t.is(memory.slotAt(0), slot);
  await promises.write(10, Buffer.from('hello'));
  await promises.fill(12, 2, 0x4c);
  const read = await promises.read(10, 5);
  t.true(read.constructor === Uint8Array);
  t.is(Buffer.from(read).toString(), 'heLLo');
  await promises.move(slot, 1 * MiB);
  t.is(slot.gpa, 1 * MiB);
  const [other, ...none] = await promises.change(tx => {
    tx.unmap(slot);
    tx.map({ gpa: 1 * MiB, size: 4 * KiB });
  });
  t.deepEqual(none, []);
  t.deepEqual(memory.slots, [other]);
  if (other === undefined) throw new Error('nothing was mapped');
  await promises.unmap(other);
  await promises.unmap(other);
  await promises.unmap(slot);
  t.deepEqual(memory.slots, []);
});

test('memory.promises: are done in the order asked for', async t => {
  using vm = Vm.create();
  const { promises } = vm.memory;
  const ended: number[] = [];
  const jobs = [
    promises.map({ gpa: 0, size: 64 * KiB }),
    promises.fill(0, 64 * KiB, 1),
    promises.write(5, Uint8Array.of(2)),
    promises.read(4, 3),
    promises.fill(0, 64 * KiB, 3),
    promises.read(4, 3),
  ].map(async (job: Promise<unknown>, at) => {
    const value = await job;
    ended.push(at);
    return value;
  });
  const values = await Promise.all(jobs);
  t.deepEqual([values[3], values[5]], [Uint8Array.of(1, 2, 1), Uint8Array.of(3, 3, 3)]);
  t.deepEqual(ended, [0, 1, 2, 3, 4, 5]);
});

test('memory.promises.write: takes the bytes as they are when it is called', async t => {
  using vm = Vm.create();
  vm.memory.map({ gpa: 0, size: 64 * KiB });
  const source = Uint8Array.of(1, 2, 3);
  const writing = vm.memory.promises.write(0, source);
  source.fill(9);
  await writing;
  t.deepEqual([...vm.memory.read(0, 3)], [1, 2, 3]);
});

test('memory.promises: what fails rejects with the error of the others, and those behind it are done', async t => {
  using vm = Vm.create();
  using other = Vm.create();
  const { promises } = vm.memory;
  const slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
  const foreign = other.memory.map({ gpa: 0, size: 4 * KiB });
  await Promise.all([
    rejectsCode(t, 'ERR_SLOT_OVERLAP', promises.map({ gpa: 0, size: 4 * KiB })),
    rejectsCode(t, 'ERR_IO', promises.map({ gpa: 1 * MiB, size: 4 * KiB, backing: { file: '/no/such/file' } })),
    rejectsCode(t, 'ERR_UNALIGNED', promises.move(slot, 5)),
    rejectsCode(t, 'ERR_MEMORY_HOLE', promises.read(0, 8 * KiB)),
    rejectsCode(t, 'ERR_MEMORY_HOLE', promises.write(4 * KiB, Uint8Array.of(1))),
    rejectsCode(t, 'ERR_MEMORY_HOLE', promises.fill(0, 8 * KiB)),
    rejectsCode(
      t,
      'ERR_SLOT_OVERLAP',
      promises.change(tx => {
        tx.unmap(slot);
        tx.map({ gpa: 0, size: 4 * KiB });
        tx.map({ gpa: 0, size: 4 * KiB });
      }),
    ),
    // Arguments of a wrong type are a rejection as well, and no exception.
    rejectsCode(t, 'ERR_INVALID_ARGUMENT', promises.map(wrong({ gpa: 0 }))),
    rejectsCode(t, 'ERR_INVALID_ARGUMENT', promises.unmap(wrong({}))),
    rejectsCode(t, 'ERR_INVALID_ARGUMENT', promises.move(wrong(undefined), 0)),
    rejectsCode(t, 'ERR_INVALID_ARGUMENT', promises.write(0, wrong('x'))),
    rejectsCode(t, 'ERR_INVALID_ARGUMENT', promises.change(wrong(5))),
    rejectsCode(
      t,
      'ERR_INVALID_ARGUMENT',
      promises.change(tx => tx.unmap(foreign)),
    ),
    rejectsCode(t, 'ERR_OUT_OF_RANGE', promises.read(0, 2 ** 52)),
    rejectsCode(t, 'ERR_OUT_OF_RANGE', promises.fill(0, 1, 256)),
    t.notThrowsAsync(promises.fill(0, 4 * KiB, 1)),
  ]);
  t.deepEqual(vm.memory.slots, [slot]);
  t.is(vm.memory.getUint8(0), 1);
});

test('memory.promises: a slot of another VM is refused, and stays as it is, closed though this VM may be', async t => {
  const vm = Vm.create();
  using other = Vm.create();
  const slot = other.memory.map({ gpa: 0, size: 4 * KiB });
  for (const end of [() => undefined, () => vm.close()]) {
    end();
    await rejectsCode(t, 'ERR_INVALID_ARGUMENT', vm.memory.promises.unmap(slot));
    await rejectsCode(t, 'ERR_INVALID_ARGUMENT', vm.memory.promises.move(slot, 1 * MiB));
  }
  t.deepEqual([other.memory.slots, slot.gpa], [[slot], 0]);
  slot.unmap();
  t.deepEqual(other.memory.slots, []);
});

test('memory.promises.map: gives the handle that was found meanwhile', async t => {
  using vm = Vm.create();
  const mapping = vm.memory.promises.map({ gpa: 0, size: 4 * KiB });
  const found = whenThere(vm);
  t.is(await mapping, found);
  t.is(vm.memory.slotAt(0), found);
});

test('memory.promises.map: a slot that is gone when the word of it comes takes no other’s place', async t => {
  using vm = Vm.create();
  const { memory } = vm;
  const mapping = memory.promises.map({ gpa: 0, size: 4 * KiB });
  whenThere(vm).unmap();
  const next = memory.map({ gpa: 0, size: 4 * KiB });
  const late = await mapping;
  t.is(late.slot, next.slot);
  t.not(late, next);
  t.is(memory.slotAt(0), next);
  t.deepEqual(memory.slots, [next]);
  late.unmap();
  t.is(memory.slotAt(0), next);
  t.deepEqual(memory.slots, [next]);
});

test('memory.promises: when the VM is closed, what is not done rejects with ERR_CLOSED, and nothing stays pending', async t => {
  const vm = Vm.create();
  const { promises } = vm.memory;
  const slot: MemorySlot = vm.memory.map({ gpa: 0, size: LARGE });
  const jobs = Array.from({ length: 500 }, () => promises.fill(0, LARGE, 1));
  const unmapping = promises.unmap(slot);
  const file = { gpa: LARGE, size: 4 * KiB, backing: { file: '/no/such/file' } };
  const unopened = [
    rejectsCode(t, 'ERR_CLOSED', promises.map(file)),
    rejectsCode(
      t,
      'ERR_CLOSED',
      promises.change(tx => tx.map(file)),
    ),
  ];
  vm.close();
  const late = rejectsCode(t, 'ERR_CLOSED', promises.fill(0, 1));
  const ends = await Promise.allSettled(jobs);
  const codes = ends.map(end => (end.status === 'fulfilled' ? 'done' : codeOf(end.reason)));
  t.deepEqual(
    codes.filter(code => code !== 'done' && code !== 'ERR_CLOSED'),
    [],
  );
  t.deepEqual(codes, codes.toSorted().toReversed(), 'first those that are done');
  t.is(codes.at(-1), 'ERR_CLOSED');
  await Promise.all(unopened);
  await t.notThrowsAsync(unmapping, 'what is gone with its VM is unmapped');
  await late;
  await rejectsCode(t, 'ERR_CLOSED', promises.map({ gpa: 0, size: 4 * KiB }));
  await rejectsCode(
    t,
    'ERR_CLOSED',
    promises.change(tx => tx.map({ gpa: 0, size: 4 * KiB })),
  );
  await t.notThrowsAsync(promises.unmap(slot));
});

test('memory.promises: closing with await using leaves no rejection unhandled', async t => {
  const pending: Promise<unknown>[] = [];
  const unhandled: unknown[] = [];
  // ava itself forgives one that gets its handler later.
  const listen = (reason: unknown, promise: Promise<unknown>): void => {
    if (pending.includes(promise)) unhandled.push(reason);
  };
  process.on('unhandledRejection', listen);
  using other = Vm.create();
  other.memory.map({ gpa: 0, size: 4 * KiB });
  {
    await using vm = Vm.create();
    vm.memory.map({ gpa: 0, size: LARGE });
    // Nobody has a handler on any of them before the block has ended.
    for (let job = 0; job < 100; job += 1) pending.push(vm.memory.promises.fill(0, LARGE, 1));
  }
  await other.memory.promises.fill(0, 1); // what threads deliver keeps its order: now all of it is
  process.off('unhandledRejection', listen);
  t.deepEqual(unhandled, []);
  const ends = await Promise.allSettled(pending);
  const codes = new Set(ends.map(end => (end.status === 'fulfilled' ? 'done' : codeOf(end.reason))));
  codes.delete('done');
  t.deepEqual([...codes], ['ERR_CLOSED']);
});

test('memory.promises: a running guest is not disturbed', async t => {
  using guest = machine(counting(load(GPA)));
  const { memory } = guest.vm;
  memory.map({ gpa: COUNT, size: 4 * KiB });
  const slot = memory.map({ gpa: GPA, size: 4 * KiB });
  const running = guest.vcpu.run();
  for (let round = 0; round < 20; round += 1) {
    untilItCounts(guest.vm);
    await memory.promises.change(tx =>
      tx.setReadonly(slot, round % 2 === 0 && guest.vm.capabilities.has('readonly-mem')),
    );
  }
  guest.vcpu.kick();
  t.deepEqual(await running, { kind: 'intr' });
});

test('memory.promises: sync calls made meanwhile are not behind them, and see what is done', async t => {
  using vm = Vm.create();
  const { memory } = vm;
  const mapping = memory.promises.map({ gpa: 0, size: 4 * KiB });
  const slot = memory.map({ gpa: 64 * KiB, size: 4 * KiB });
  t.true(memory.slots.includes(slot));
  t.true(memory.slots.length <= 2);
  throwsCode(t, 'ERR_MEMORY_HOLE', () => memory.read(1 * MiB, 1));
  const mapped = await mapping;
  t.true(memory.slots.includes(mapped));
});

for (const [way, what, expected] of [
  ['alive', 'Node stays alive for one that is pending', 'done\n'],
  ['unref', 'but not after vm.unref', ''],
  ['exit', 'process.exit() ends under those that are pending', 'bye\n'],
  ['throw', 'so does an exception that nobody catches', ''],
  ['worker', 'a worker that is terminated under its own leaves nothing', 'same fds, threads and mappings: true\n'],
] as const) {
  test(`memory.promises: ${what}`, async t => {
    t.timeout(240_000);
    const { code, signal, stdout } = await fixture('memory-promises', { args: [way] });
    t.deepEqual([signal, stdout], [null, expected]);
    t.is(code, way === 'throw' ? 1 : 0);
  });
}

/** Waits on this thread, so that no word of it arrives before. */
function whenThere({ memory }: Vm): MemorySlot {
  for (const end = Date.now() + 60_000; Date.now() < end;) {
    const slot = memory.slotAt(0);
    if (slot !== undefined) return slot;
  }
  throw new Error('nothing was mapped within a minute');
}

function codeOf(error: unknown): string {
  return error instanceof TypevisorError ? error.code : String(error);
}
