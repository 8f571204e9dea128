import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { KiB, MiB, Vm } from '../../ts/index.ts';
import { fixture } from '../helpers/child.ts';
import { forever, INCREMENT, load, machine, mark, STOP, STOPPED } from '../helpers/guests.ts';
import { onKvm as test } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const GPA = 0x8_0000;
const SIZE = 64 * KiB;

function growable(size = SIZE, maxByteLength = size): SharedArrayBuffer {
  return new SharedArrayBuffer(size, { maxByteLength });
}

test('slot.view: is the buffer itself: what either side writes the other sees', async t => {
  using guest = machine(load(GPA), INCREMENT, mark(GPA + 1), STOP);
  const buffer = growable();
  const slot = guest.vm.memory.map({ gpa: GPA, size: SIZE, backing: { buffer } });
  const view = slot.view();
  t.is(view.buffer, buffer);
  t.is(view.length, SIZE);
  new Uint8Array(buffer)[0] = 0x41;
  t.deepEqual(await guest.vcpu.run(), STOPPED);
  t.is(view[1], 0x42);
  t.is(guest.vm.memory.getUint16(GPA), 0x4241);
});

test('slot.view: may be copied into the memory that it is, out of it and found in it', t => {
  using vm = Vm.create();
  const { memory } = vm;
  const view = memory.map({ gpa: 0, size: SIZE, backing: { buffer: growable() } }).view();
  const bytes = Uint8Array.from({ length: 100 }, (_, at) => at + 1);
  for (const distance of [1, 3, 8, -1, -8]) {
    memory.write(0x1000, bytes);
    memory.write(0x1000 + distance, view.subarray(0x1000, 0x1064));
    t.deepEqual(memory.read(0x1000 + distance, 100), bytes, `write, ${distance}`);
    memory.write(0x1000, bytes);
    const target = view.subarray(0x1000 + distance, 0x1064 + distance);
    t.is(memory.readInto(0x1000, target), target);
    t.deepEqual(memory.read(0x1000 + distance, 100), bytes, `readInto, ${distance}`);
  }
  memory.write(0x8000, bytes);
  t.deepEqual(memory.search(0x7000, SIZE - 0x7000, view.subarray(0x8000, 0x8010)), [0x8000]);
});

test('slot.view: of a share shows its part, and what moves takes its bytes along', t => {
  using vm = Vm.create();
  const buffer = growable();
  const slot = vm.memory.map({ gpa: 0, size: SIZE, backing: { buffer } });
  const share = vm.memory.map({ gpa: 1 * MiB, size: 4 * KiB, backing: { share: slot, offset: 8 * KiB } });
  vm.memory.setUint8(8 * KiB + 5, 55);
  t.deepEqual([share.view().length, share.view().byteOffset, share.view()[5]], [4 * KiB, 8 * KiB, 55]);
  slot.move(2 * MiB);
  slot.view()[8 * KiB + 6] = 66;
  t.deepEqual([vm.memory.getUint8(2 * MiB + 8 * KiB + 6), vm.memory.getUint8(1 * MiB + 6)], [66, 66]);
  t.is(vm.memory.slotAt(1 * MiB)?.view()[6], 66);
});

test('slot.view: of any other memory is ERR_INVALID_ARGUMENT', t => {
  using vm = Vm.create();
  const slot = vm.memory.map({ gpa: 0, size: SIZE });
  t.regex(
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => slot.view())?.message ?? '',
    /'anonymous': use vm\.memory\.read/u,
  );
});

test('backing, buffer: a worker that has the buffer writes what the guest sees', async t => {
  using guest = machine(load(GPA), mark(GPA + 1), STOP);
  const buffer = growable();
  guest.vm.memory.map({ gpa: GPA, size: SIZE, backing: { buffer } });
  const code = "require('worker_threads').workerData[0] = 0x5a";
  const worker = new Worker(code, { eval: true, workerData: new Uint8Array(buffer) });
  await once(worker, 'exit');
  t.deepEqual(await guest.vcpu.run(), STOPPED);
  t.is(guest.vm.memory.getUint8(GPA + 1), 0x5a);
});

test('backing, buffer: it may grow under a running guest, and the rest of it be mapped then', async t => {
  using guest = machine(forever(load(GPA)));
  const { memory } = guest.vm;
  const buffer = growable(SIZE, 2 * SIZE);
  const slot = memory.map({ gpa: GPA, size: SIZE, backing: { buffer } });
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => memory.map({ gpa: 1 * MiB, size: 2 * SIZE, backing: { buffer } }));
  const running = guest.vcpu.run();
  buffer.grow(2 * SIZE);
  memory.map({ gpa: 1 * MiB, size: 2 * SIZE, backing: { buffer } });
  memory.setUint8(1 * MiB + SIZE, 7);
  t.is(new Uint8Array(buffer)[SIZE], 7);
  t.is(slot.view().length, SIZE);
  guest.vcpu.kick();
  t.deepEqual(await running, { kind: 'intr' });
});

test('backing, buffer: two VMs can have the same, and each gives it back by itself', t => {
  const buffer = growable();
  const first = Vm.create();
  using second = Vm.create();
  first.memory.map({ gpa: 0, size: SIZE, backing: { buffer } });
  second.memory.map({ gpa: 1 * MiB, size: SIZE, backing: { buffer } });
  first.memory.setUint8(3, 33);
  t.is(second.memory.getUint8(1 * MiB + 3), 33);
  first.close();
  new Uint8Array(buffer)[4] = 44;
  t.is(second.memory.getUint8(1 * MiB + 4), 44);
});

test('backing, buffer: one of fixed length is refused, with the reason and what to do, wherever it lies', t => {
  using vm = Vm.create();
  for (let round = 0; round < 100; round += 1) {
    const backing = { buffer: new SharedArrayBuffer(SIZE) };
    const error = throwsCode(t, 'ERR_UNALIGNED', () => vm.memory.map({ gpa: 0, size: SIZE, backing }));
    t.regex(error?.message ?? '', /begin at a page.*new SharedArrayBuffer\(n, \{ maxByteLength: n \}\)$/u);
    throwsCode(t, 'ERR_UNALIGNED', () => vm.memory.change(tx => tx.map({ gpa: 0, size: SIZE, backing })));
  }
  t.deepEqual(vm.memory.slots, []);
});

test('backing, buffer: what is no SharedArrayBuffer, or too short, is ERR_INVALID_ARGUMENT', t => {
  using vm = Vm.create();
  for (const buffer of [
    new ArrayBuffer(SIZE),
    Reflect.construct(ArrayBuffer, [SIZE, { maxByteLength: SIZE }]),
    new Uint8Array(growable()),
    Object.create(SharedArrayBuffer.prototype),
    new Proxy(growable(), {}),
    undefined,
    null,
    growable(SIZE - 4096, SIZE),
    growable(0, SIZE),
    Object.defineProperty(growable(4096), 'byteLength', { value: SIZE }),
  ]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () =>
      vm.memory.map({ gpa: 0, size: SIZE, backing: { buffer: wrong(buffer) } }),
    );
  }
  t.deepEqual(vm.memory.slots, []);
});

for (const [order, what] of [
  ['vm', 'the handles of its VM and slot are collected, and a vCPU runs'],
  ['buffer', 'the program lets go of the buffer first'],
  ['unmap', 'the slot is unmapped'],
  ['close', 'the VM is closed'],
  ['collect', 'the VM is collected'],
] as const) {
  test(`backing, buffer: it lives as long as a VM has it, and no longer: ${what}`, async t => {
    t.timeout(240_000);
    const { code, stdout, stderr } = await fixture('buffer-life', { args: [order], nodeArgs: ['--expose-gc'] });
    t.deepEqual([code, stderr], [0, '']);
    t.is(stdout, 'kept while mapped: true\ncollected in the end: true\n');
  });
}

test('backing, buffer: the addon keeps it by itself, whatever JavaScript lets go of', async t => {
  t.timeout(240_000);
  const { code, stdout, stderr } = await fixture('buffer-native', { nodeArgs: ['--expose-gc'] });
  t.deepEqual([code, stderr], [0, '']);
  t.is(stdout, 'kept while mapped: true\nwritten by the guest: 1\ncollected in the end: true\n');
});
