import { readdirSync, readFileSync, readlinkSync, truncateSync } from 'node:fs';
import { inspect } from 'node:util';
import { type Backing, type BackingName, KiB, MiB, type MemorySlot, Vm } from '../../ts/index.ts';
import { files, pages } from '../helpers/files.ts';
import { INCREMENT, load, machine, mark, STOP, STOPPED } from '../helpers/guests.ts';
import { needs, onKvm, type Tester } from '../helpers/needs.ts';
import { throwsCode } from '../helpers/throws.ts';

/** Where the slot lies: within the first 2 MiB, which a guest of aarch64 has to have mapped when it boots. */
const GPA = 0x8_0000;
const SIZE = 64 * KiB;

const { make } = files();

/** A page-aligned buffer of JavaScript's. */
function buffer(): SharedArrayBuffer {
  return new SharedArrayBuffer(SIZE, { maxByteLength: SIZE });
}

const BACKINGS: readonly [string, BackingName, Tester, () => Backing | undefined][] = [
  ['none chosen', 'anonymous', onKvm, () => undefined],
  ['anonymous', 'anonymous', onKvm, () => 'anonymous'],
  ['memfd', 'memfd', onKvm, () => 'memfd'],
  ['a private file', 'file', onKvm, () => ({ file: make(pages(16)) })],
  ['a shared file', 'file', onKvm, () => ({ file: make(pages(16)), mode: 'shared' })],
  ['a SharedArrayBuffer', 'buffer', onKvm, () => ({ buffer: buffer() })],
  ['guest-memfd', 'guest-memfd', needs('guest-memfd-flags'), () => 'guest-memfd'],
];

for (const [title, name, test, backing] of BACKINGS) {
  test(`backing, ${title}: guest and host see the same bytes`, async t => {
    using guest = machine(load(GPA + 1), INCREMENT, mark(GPA + 2), STOP);
    const { vm, vcpu } = guest;
    const slot = vm.memory.map({ gpa: GPA, size: SIZE, backing: backing() });
    t.is(slot.backing, name);
    t.regex(inspect(slot, { breakLength: 200 }), new RegExp(`size: ${SIZE}, backing: '${name}' \\}$`, 'u'));
    t.is(vm.memory.getUint8(GPA), name === 'file' ? 1 : 0);
    vm.memory.setUint8(GPA + 1, 0x41);
    t.deepEqual(await vcpu.run(), STOPPED);
    t.is(vm.memory.getUint8(GPA + 2), 0x42);
  });

  test(`backing, ${title}: host accesses run over its border, whole`, t => {
    using vm = Vm.create();
    vm.memory.map({ gpa: 0, size: SIZE, backing: backing() });
    vm.memory.map({ gpa: SIZE, size: SIZE });
    const text = new TextEncoder().encode('across the border');
    vm.memory.write(SIZE - 5, text);
    t.deepEqual(vm.memory.read(SIZE - 5, text.length), text);
    vm.memory.fill(SIZE - 2, 4, 0x5a);
    t.deepEqual(
      [...vm.memory.read(SIZE - 3, 6)],
      [...text.subarray(2, 3), 0x5a, 0x5a, 0x5a, 0x5a, ...text.subarray(7, 8)],
    );
    throwsCode(t, 'ERR_MEMORY_HOLE', () => vm.memory.fill(0, 2 * SIZE + 1, 1));
    t.is(vm.memory.getUint8(8), name === 'file' ? 1 : 0);
  });

  test(`backing, ${title}: a share of it is the same memory, whichever goes first`, t => {
    using vm = Vm.create();
    const { memory } = vm;
    const slot = memory.map({ gpa: 0, size: SIZE, backing: backing() });
    const share = memory.map({ gpa: 1 * MiB, size: 8 * KiB, backing: { share: slot, offset: 4 * KiB } });
    t.is(share.backing, name);
    memory.setUint32(0x1000, 0xdead_beef);
    t.is(memory.getUint32(1 * MiB), 0xdead_beef);
    slot.unmap();
    throwsCode(t, 'ERR_MEMORY_HOLE', () => memory.getUint8(0x1000));
    memory.setUint32(1 * MiB + 4, 7);
    t.is(memory.getUint32(1 * MiB), 0xdead_beef);
    const again = memory.map({ gpa: 0, size: 4 * KiB, backing: { share } });
    t.deepEqual([memory.getUint32(0), memory.getUint32(4)], [0xdead_beef, 7]);
    share.unmap();
    again.unmap();
    t.deepEqual(memory.slots, []);
  });
}

onKvm('backing, memfd: it is sealed, and no child of this process gets it', t => {
  using vm = Vm.create();
  vm.memory.map({ gpa: 0, size: SIZE, backing: 'memfd' });
  const fds = readdirSync('/proc/self/fd').filter(name => linkOf(name).includes('memfd:'));
  t.true(fds.length > 0);
  for (const fd of fds) {
    const [, flags = ''] = /^flags:\s+(\d+)$/mu.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? [];
    t.not(Number.parseInt(flags, 8) & 0o2000000, 0, 'O_CLOEXEC');
    t.throws(() => truncateSync(`/proc/self/fd/${fd}`, 0), { code: 'EPERM' });
  }
});

/** What a descriptor is; nothing where it is gone by now, as that of the folder that was read. */
function linkOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}

onKvm('backing, share: the slot of another VM can be shared, and outlives that VM', t => {
  const first = Vm.create();
  using second = Vm.create();
  const slot = first.memory.map({ gpa: 0, size: SIZE });
  second.memory.map({ gpa: 0, size: SIZE, backing: { share: slot } });
  first.memory.setUint8(5, 55);
  t.is(second.memory.getUint8(5), 55);
  first.close();
  second.memory.setUint8(6, 66);
  t.deepEqual([...second.memory.read(5, 2)], [55, 66]);
});

onKvm('backing, share: what is past the slot, off a page or gone is refused', t => {
  using vm = Vm.create();
  const slot: MemorySlot = vm.memory.map({ gpa: 0, size: 8 * KiB });
  const share = (offset: number, size: number) => () =>
    vm.memory.map({ gpa: 1 * MiB, size, backing: { share: slot, offset } });
  throwsCode(t, 'ERR_INVALID_ARGUMENT', share(4 * KiB, 8 * KiB));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', share(2 ** 52, 4 * KiB));
  throwsCode(t, 'ERR_UNALIGNED', share(100, 4 * KiB));
  throwsCode(t, 'ERR_OUT_OF_RANGE', share(-4096, 4 * KiB));
  slot.unmap();
  throwsCode(t, 'ERR_CLOSED', share(0, 4 * KiB));
  t.deepEqual(vm.memory.slots, []);
});

onKvm('backing, hugetlb: it is had where as many pages are free, else ERR_LIMIT says how to reserve them', t => {
  const sizes = readdirSync('/sys/kernel/mm/hugepages').map(name => Number(/\d+/u.exec(name)?.[0]) * KiB);
  t.true(sizes.length > 0);
  for (const hugetlb of sizes) {
    using vm = Vm.create();
    const folder = `/sys/kernel/mm/hugepages/hugepages-${hugetlb / KiB}kB`;
    const [free, reserved] = ['free', 'resv'].map(name => Number(readFileSync(`${folder}/${name}_hugepages`, 'utf8')));
    const map = (): MemorySlot => vm.memory.map({ gpa: 0, size: hugetlb, backing: { hugetlb } });
    if ((free ?? 0) > (reserved ?? 0)) {
      t.like(map(), { backing: 'hugetlb', size: hugetlb });
      vm.memory.setUint32(hugetlb - 4, 42);
      t.is(vm.memory.getUint32(hugetlb - 4), 42);
    } else {
      t.regex(throwsCode(t, 'ERR_LIMIT', map)?.message ?? '', /nr_hugepages/u);
      t.deepEqual(vm.memory.slots, []);
    }
  }
});

onKvm('backing, hugetlb: a size of pages that the machine does not have is ERR_INVALID_ARGUMENT', t => {
  using vm = Vm.create();
  for (const hugetlb of [0, 4 * KiB, 3 * MiB]) {
    throwsCode(t, 'ERR_INVALID_ARGUMENT', () => vm.memory.map({ gpa: 0, size: 6 * MiB, backing: { hugetlb } }));
  }
});

needs('guest-memfd-flags')('backing, guest-memfd: what KVM has not for it is refused', t => {
  using vm = Vm.create();
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () =>
    vm.memory.map({ gpa: 0, size: SIZE, backing: 'guest-memfd', readonly: true }),
  );
  const slot = vm.memory.map({ gpa: 0, size: SIZE, backing: 'guest-memfd' });
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => slot.setReadonly(true));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => slot.setDirtyLog(true));
  t.like(slot, { readonly: false, dirtyLog: false });
});

onKvm('memory.map: transparent huge pages can be had or not, and change no byte', t => {
  for (const transparentHugePages of [true, false]) {
    for (const backing of ['anonymous', 'memfd'] as const) {
      using vm = Vm.create();
      vm.memory.map({ gpa: 6 * MiB - 4 * KiB, size: 4 * MiB + 4 * KiB, backing, transparentHugePages });
      vm.memory.setUint32(6 * MiB - 2, 0xdead_beef);
      t.is(vm.memory.getUint32(6 * MiB - 2), 0xdead_beef);
      t.is(vm.memory.getUint8(10 * MiB - 1), 0);
    }
  }
});
