import { KiB, Kvm, MiB, Vm } from '../../ts/index.ts';
import { machine } from '../helpers/guests.ts';
import { needs, x86 } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const test = needs();

test('memory.map: a slot says what it is, and is found by its addresses', t => {
  using vm = Vm.create();
  const slot = vm.memory.map({ gpa: 64 * KiB, size: 8 * KiB });
  t.like(slot, { slot: 0, gpa: 64 * KiB, size: 8 * KiB, readonly: false });
  t.is(vm.memory.slotAt(64 * KiB), slot);
  t.is(vm.memory.slotAt(72 * KiB - 1), slot);
  t.is(vm.memory.slotAt(72 * KiB), undefined);
  t.is(vm.memory.slotAt(64 * KiB - 1), undefined);
});

test('slot.ioctl: is the new one just where the VM has it, and the old one where it has not or it is hidden', t => {
  using vm = Vm.create();
  const [old, recent] = ['KVM_SET_USER_MEMORY_REGION', 'KVM_SET_USER_MEMORY_REGION2'];
  const expected = vm.capabilities.has('user-memory2') ? recent : old;
  const slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
  t.is(slot.ioctl, expected);
  slot.move(64 * KiB);
  t.is(slot.ioctl, expected);
  vm.memory.setUint32(64 * KiB, 7);
  t.is(vm.memory.getUint32(64 * KiB), 7);
  using kvm = Kvm.open({ hide: ['user-memory2'] });
  using hidden = Vm.create({ kvm });
  t.is(hidden.memory.map({ gpa: 0, size: 4 * KiB }).ioctl, old);
});

test('memory.slots: are in order of address, whatever their numbers', t => {
  using vm = Vm.create();
  const high = vm.memory.map({ gpa: 1 * MiB, size: 4 * KiB });
  const low = vm.memory.map({ gpa: 0, size: 4 * KiB, slot: 7 });
  t.deepEqual(
    vm.memory.slots.map(({ slot }) => slot),
    [7, 0],
  );
  t.is(vm.memory.slots[0], low);
  t.is(vm.memory.slots[1], high);
  t.true(Object.isFrozen(vm.memory.slots));
});

test('memory.map: fresh memory reads zeros', t => {
  using vm = Vm.create();
  vm.memory.map({ gpa: 0, size: 64 * KiB });
  t.true(vm.memory.read(0, 64 * KiB).every(byte => byte === 0));
});

test('slot.unmap: takes the memory away; its number and addresses are free again', t => {
  using vm = Vm.create();
  const slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
  slot.unmap();
  slot.unmap();
  t.deepEqual(vm.memory.slots, []);
  throwsCode(t, 'ERR_MEMORY_HOLE', () => vm.memory.getUint8(0));
  throwsCode(t, 'ERR_CLOSED', () => slot.move(0x1000));
  const again = vm.memory.map({ gpa: 0, size: 4 * KiB });
  t.is(again.slot, 0);
  t.is(vm.memory.slotAt(0), again);
  t.not(again, slot);
});

test('slot: using unmaps it', t => {
  using vm = Vm.create();
  {
    using slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
    t.is(vm.memory.slots.length, slot.slot + 1);
  }
  t.deepEqual(vm.memory.slots, []);
});

test('slot.move: the content goes along, the old place is free', t => {
  using vm = Vm.create();
  const slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
  vm.memory.setUint32(8, 0xdead_beef);
  slot.move(1 * MiB);
  t.is(slot.gpa, 1 * MiB);
  t.is(vm.memory.getUint32(1 * MiB + 8), 0xdead_beef);
  t.is(vm.memory.slotAt(0), undefined);
  t.is(vm.memory.slotAt(1 * MiB), slot);
});

test('slot.move: a place that is taken or off a page is refused, and the slot stays', t => {
  using vm = Vm.create();
  const slot = vm.memory.map({ gpa: 0, size: 8 * KiB });
  vm.memory.map({ gpa: 64 * KiB, size: 4 * KiB });
  throwsCode(t, 'ERR_SLOT_OVERLAP', () => slot.move(60 * KiB));
  throwsCode(t, 'ERR_UNALIGNED', () => slot.move(100));
  throwsCode(t, 'ERR_OUT_OF_RANGE', () => slot.move(2 ** 52));
  throwsCode(t, 'ERR_OUT_OF_RANGE', () => slot.move(-4096));
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => slot.move(wrong('0')));
  t.is(slot.gpa, 0);
});

const BAD: readonly [string, unknown, Parameters<typeof throwsCode>[1]][] = [
  ['a misaligned address', { gpa: 100, size: 4 * KiB }, 'ERR_UNALIGNED'],
  ['a misaligned size', { gpa: 0, size: 100 }, 'ERR_UNALIGNED'],
  ['no size', { gpa: 0, size: 0 }, 'ERR_OUT_OF_RANGE'],
  ['an end past 52 bits', { gpa: 2 ** 52 - 4096, size: 8 * KiB }, 'ERR_OUT_OF_RANGE'],
  ['an overlap', { gpa: 1 * MiB, size: 4 * KiB }, 'ERR_SLOT_OVERLAP'],
  ['an overlap at the end', { gpa: 1 * MiB - 4096, size: 8 * KiB }, 'ERR_SLOT_OVERLAP'],
  ['a slot number that is taken', { gpa: 0, size: 4 * KiB, slot: 0 }, 'ERR_INVALID_ARGUMENT'],
  ['a slot number past all', { gpa: 0, size: 4 * KiB, slot: 2 ** 32 }, 'ERR_OUT_OF_RANGE'],
  ['a fraction', { gpa: 0.5, size: 4 * KiB }, 'ERR_OUT_OF_RANGE'],
  ['a negative address', { gpa: -4096, size: 4 * KiB }, 'ERR_OUT_OF_RANGE'],
  ['a bigint', { gpa: 0n, size: 4 * KiB }, 'ERR_INVALID_ARGUMENT'],
  ['a missing size', { gpa: 0 }, 'ERR_INVALID_ARGUMENT'],
  ['a misspelt option', { gpa: 0, size: 4 * KiB, readOnly: true }, 'ERR_INVALID_ARGUMENT'],
  ['readonly as a number', { gpa: 0, size: 4 * KiB, readonly: 1 }, 'ERR_INVALID_ARGUMENT'],
  ['nothing', undefined, 'ERR_INVALID_ARGUMENT'],
];

for (const [title, range, code] of BAD) {
  test(`memory.map: ${title} is ${code}, and nothing is mapped`, t => {
    using vm = Vm.create();
    const slot = vm.memory.map({ gpa: 1 * MiB, size: 4 * KiB });
    throwsCode(t, code, () => vm.memory.map(wrong(range)));
    t.deepEqual(vm.memory.slots, [slot]);
  });
}

test('slot: says what it was when it is gone', t => {
  using vm = Vm.create();
  const slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
  slot.unmap();
  t.like(slot, { slot: 0, gpa: 0, size: 4 * KiB });
  const other = vm.memory.map({ gpa: 64 * KiB, size: 8 * KiB });
  vm.close();
  t.like(other, { slot: 0, gpa: 64 * KiB, size: 8 * KiB });
});

x86('memory.map: a number that the core used before for a slot of its own brings a handle of its own', t => {
  using guest = machine();
  const { memory } = guest.vm;
  guest.vcpu.boot({ mode: 'long', entry: 0x1000 });
  const tables = memory.slots.find(({ gpa }) => gpa !== 0);
  guest.vcpu.boot({ mode: 'real', entry: 0x1000 });
  const slot = memory.map({ gpa: 1 * MiB, size: 4 * KiB });
  t.deepEqual([slot.slot], [tables?.slot]);
  t.not(slot, tables);
  t.like(slot, { gpa: 1 * MiB, size: 4 * KiB });
  t.is(memory.slotAt(1 * MiB), slot);
  t.is(memory.slots[1], slot);
  slot.unmap();
  t.is(memory.slots.length, 1);
  throwsCode(t, 'ERR_MEMORY_HOLE', () => memory.getUint8(1 * MiB));
});

test('slot: what is asked of one that is unmapped is refused, and says that it is', t => {
  using vm = Vm.create();
  const slot = vm.memory.map({ gpa: 0, size: 4 * KiB });
  slot.unmap();
  vm.memory.map({ gpa: 0, size: 4 * KiB }); // has its number now
  const asked = [
    () => slot.move(64 * KiB),
    () => slot.setReadonly(true),
    () => slot.setDirtyLog(true),
    () => vm.memory.change(tx => tx.move(slot, 64 * KiB)),
    () => vm.memory.map({ gpa: 64 * KiB, size: 4 * KiB, backing: { share: slot } }),
  ];
  for (const ask of asked) t.regex(throwsCode(t, 'ERR_CLOSED', ask)?.message ?? '', /^the memory slot was unmapped/u);
  vm.close();
  t.regex(throwsCode(t, 'ERR_CLOSED', () => slot.move(0))?.message ?? '', /^the VM is closed/u);
});

test('memory.map: a KVM that does not say how many slots it has has 32', t => {
  using kvm = Kvm.open({ hide: ['nr-memslots'] });
  using vm = Vm.create({ kvm });
  for (let n = 0; n < 32; n += 1) vm.memory.map({ gpa: n * 8 * KiB, size: 4 * KiB });
  const more = { gpa: 1 * MiB, size: 4 * KiB };
  t.is(
    throwsCode(t, 'ERR_SLOT_LIMIT', () => vm.memory.map(more))?.message,
    'this VM has 32 memory slots and all are taken',
  );
  throwsCode(t, 'ERR_OUT_OF_RANGE', () => vm.memory.map({ ...more, slot: 32 }));
  t.is(vm.memory.slots.length, 32);
});
