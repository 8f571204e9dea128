import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type FileBacking, KiB, type MemorySlot, TypevisorError, Vm } from '../../ts/index.ts';
import { fixture } from '../helpers/child.ts';
import { files, pages } from '../helpers/files.ts';
import { load, machine, STOP } from '../helpers/guests.ts';
import { needs, onKvm as test } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const { make, folder } = files();

function map(vm: Vm, backing: FileBacking, readonly = false): MemorySlot {
  return vm.memory.map({ gpa: 0, size: 8 * KiB, backing, readonly });
}

test('backing, file: a path, a file: URL and a descriptor name the same', t => {
  const path = make(pages(3));
  const fd = openSync(path, 'r');
  for (const file of [path, pathToFileURL(path), fd]) {
    using vm = Vm.create();
    map(vm, { file, offset: 4 * KiB });
    t.deepEqual([...vm.memory.read(4 * KiB - 1, 2)], [2, 3], String(file));
  }
  closeSync(fd);
});

test('backing, file: a descriptor may be closed as soon as it was taken', t => {
  using vm = Vm.create();
  const fd = openSync(make(pages(2)), 'r+');
  map(vm, { file: fd, mode: 'shared' });
  closeSync(fd);
  vm.memory.setUint8(0, 9);
  t.deepEqual([...vm.memory.read(0, 2)], [9, 1]);
});

test('backing, file: a private one never changes the file, a shared one does, as others see at once', t => {
  const file = make(pages(2));
  using vm = Vm.create();
  const slot = map(vm, { file });
  vm.memory.fill(0, 8 * KiB, 0xee);
  t.deepEqual(new Uint8Array(readFileSync(file)), pages(2));
  slot.unmap();
  map(vm, { file, mode: 'shared' });
  t.is(vm.memory.getUint8(0), 1);
  vm.memory.setUint8(4 * KiB, 0xee);
  t.is(readFileSync(file)[4 * KiB], 0xee);
});

test('backing, file: none of its descriptors reaches a program that is started', t => {
  const file = make(pages(2));
  using vm = Vm.create();
  map(vm, { file, mode: 'shared' });
  const { stdout, status } = spawnSync('ls', ['-l', '/proc/self/fd'], { encoding: 'utf8' });
  t.is(status, 0);
  t.false(stdout.includes(file), stdout);
});

test('backing, file: no descriptor is left, whether it was taken or refused', t => {
  const file = make(pages(2));
  const open = (): number => readdirSync('/proc/self/fd').filter(fd => linkOf(fd) === file).length;
  using vm = Vm.create();
  const slot = map(vm, { file });
  throwsCode(t, 'ERR_SLOT_OVERLAP', () => map(vm, { file }));
  const further = { gpa: 64 * KiB, size: 8 * KiB, backing: { file, offset: 4 * KiB } };
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.memory.map(further));
  t.true(open() <= 1);
  slot.unmap();
  t.is(open(), 0);
});

const BAD: readonly [string, (file: string) => unknown, string, string?][] = [
  ['one that is not there', () => join(folder, 'none'), 'ERR_IO', 'ENOENT'],
  ['a folder', () => folder, 'ERR_INVALID_ARGUMENT'],
  ['one that is too short', () => make(pages(1)), 'ERR_INVALID_ARGUMENT'],
  ['an empty one', () => make(new Uint8Array()), 'ERR_INVALID_ARGUMENT'],
  ['a device', () => '/dev/null', 'ERR_INVALID_ARGUMENT'],
  ['a FIFO, without waiting for its other end', fifo, 'ERR_INVALID_ARGUMENT'],
  ['a path with a null byte', file => `${file}\0`, 'ERR_INVALID_ARGUMENT'],
  ['a URL of the web', () => new URL('https://example.org/'), 'ERR_INVALID_ARGUMENT'],
  ['a descriptor that is closed', closed, 'ERR_IO', 'EBADF'],
  ['a descriptor below all', () => -1, 'ERR_OUT_OF_RANGE'],
  ['a descriptor past all', () => 2 ** 31, 'ERR_OUT_OF_RANGE'],
  ['nothing', () => undefined, 'ERR_INVALID_ARGUMENT'],
];

for (const [what, file, code, errnoName] of BAD) {
  test(`backing, file: ${what} is ${code}, and nothing is mapped`, t => {
    using vm = Vm.create();
    const error = t.throws(() => map(vm, { file: wrong(file(make(pages(2)))) }), { instanceOf: TypevisorError });
    t.like(error, { code, ...(errnoName === undefined ? {} : { errnoName }) }, error?.message);
    t.deepEqual(vm.memory.slots, []);
  });
}

test('backing, file: a shared one has to be open for writing, unless the slot is read-only', t => {
  using vm = Vm.create();
  const fd = openSync(make(pages(2)), 'r');
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => map(vm, { file: fd, mode: 'shared' }));
  if (vm.capabilities.has('readonly-mem')) {
    t.is(map(vm, { file: fd, mode: 'shared' }, true).backing, 'file');
    t.is(vm.memory.getUint8(0), 1);
    throwsCode(t, 'ERR_HOST_ACCESS', () => vm.memory.setUint8(0, 2));
  }
  closeSync(fd);
});

needs('readonly-mem')('backing, file: ROM on a shared one by path can be written by the host, and become RAM', t => {
  using vm = Vm.create();
  const file = make(pages(2));
  const rom = map(vm, { file, mode: 'shared' }, true);
  vm.memory.setUint8(0, 9);
  t.is(readFileSync(file)[0], 9);
  rom.setReadonly(false);
  t.false(rom.readonly);
});

needs('readonly-mem')('backing, file: ROM on a shared one by path that may not be written stays ROM', async t => {
  const { code, stdout, stderr } = await fixture('rom-file');
  t.deepEqual([code, stderr], [0, '']);
  const refused = { asRam: 'ERR_IO', write: 'ERR_HOST_ACCESS', becomeRam: 'ERR_INVALID_ARGUMENT' };
  t.deepEqual(JSON.parse(stdout), { ...refused, read: 2, readonly: true });
});

test('backing, file: an offset off a page is ERR_UNALIGNED', t => {
  using vm = Vm.create();
  throwsCode(t, 'ERR_UNALIGNED', () => map(vm, { file: make(pages(4)), offset: 100 }));
});

test('backing, file: one that is cut short is ERR_HOST_ACCESS for the host, a failed run for the guest, and no SIGBUS', async t => {
  const file = make(pages(16));
  using guest = machine(load(0x8_0000 + 0x2000), STOP);
  const { memory } = guest.vm;
  memory.map({ gpa: 0x8_0000, size: 64 * KiB, backing: { file, mode: 'shared' } });
  truncateSync(file, 4 * KiB);
  t.is(memory.getUint8(0x8_0000), 1);
  for (const act of [
    () => memory.read(0x8_1000, 1),
    () => memory.getUint32(0x8_1ffe),
    () => memory.setUint8(0x8_2000, 1),
    () => memory.fill(0x8_0000, 64 * KiB, 1),
    () => memory.search(0x8_0000, 64 * KiB, Uint8Array.of(7)),
  ]) {
    throwsCode(t, 'ERR_HOST_ACCESS', act);
  }
  const exit = await guest.vcpu.run();
  // Where KVM interprets the instruction, what it cannot read is a device to it.
  if (exit.kind === 'mmio') t.deepEqual(exit, { kind: 'mmio', direction: 'read', gpa: 0x8_2000, size: 1 });
  else t.like(exit, { kind: 'run-failed', errnoName: 'EFAULT' });
  truncateSync(file, 64 * KiB);
  t.is(memory.getUint8(0x8_2000), 0, 'it is there again');
});

test('backing, file: a private one that is cut short loses what was written past its new end', t => {
  const file = make(pages(2));
  using vm = Vm.create();
  map(vm, { file });
  vm.memory.fill(0, 8 * KiB, 0xee);
  truncateSync(file, 4 * KiB);
  throwsCode(t, 'ERR_HOST_ACCESS', () => vm.memory.getUint8(4 * KiB));
  truncateSync(file, 8 * KiB);
  t.deepEqual([vm.memory.getUint8(4 * KiB - 1), vm.memory.getUint8(4 * KiB)], [0xee, 0]);
});

function fifo(): string {
  const path = join(folder, 'fifo');
  spawnSync('mkfifo', [path]);
  return path;
}

function closed(file: string): number {
  const fd = openSync(file, 'r');
  closeSync(fd);
  return fd;
}

function linkOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return ''; // closed by now, as that of the folder that was read
  }
}
