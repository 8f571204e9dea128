import { inspect } from 'node:util';
import { KiB, Kvm, MiB, Vm } from '../../ts/index.ts';
import { needs, onKvm } from '../helpers/needs.ts';
import { throwsCode } from '../helpers/throws.ts';

const test = needs('multi-address-space');

test('memory.addressSpace: is the same VM’s memory, with slots and bytes of its own', t => {
  using vm = Vm.create();
  const { memory } = vm;
  const management = memory.addressSpace(1);
  t.is(memory.addressSpace(0), memory);
  t.is(management.addressSpace(1), management);
  t.is(management.addressSpace(0), memory);
  const ordinary = memory.map({ gpa: 640 * KiB, size: 64 * KiB });
  const hidden = management.map({ gpa: 640 * KiB, size: 64 * KiB });
  t.deepEqual([ordinary.addressSpace, hidden.addressSpace, ordinary.slot, hidden.slot], [0, 1, 0, 0]);
  management.setUint8(640 * KiB, 11);
  t.deepEqual([memory.getUint8(640 * KiB), management.getUint8(640 * KiB)], [0, 11]);
  t.deepEqual([memory.slots, management.slots], [[ordinary], [hidden]]);
  t.is(management.slotAt(640 * KiB), hidden);
  t.regex(inspect(hidden, { breakLength: 200 }), /backing: 'anonymous', addressSpace: 1 \}$/u);
  hidden.unmap();
  throwsCode(t, 'ERR_MEMORY_HOLE', () => management.getUint8(640 * KiB));
  t.is(memory.getUint8(640 * KiB), 0);
});

test('memory.map: can name the address space, as can a change; a share may be in the other', t => {
  using vm = Vm.create();
  const { memory } = vm;
  const ram = memory.map({ gpa: 0, size: 64 * KiB });
  const mirror = memory.map({ gpa: 0, size: 64 * KiB, addressSpace: 1, backing: { share: ram } });
  memory.setUint8(5, 55);
  const management = memory.addressSpace(1);
  t.is(management.getUint8(5), 55);
  const [back, own] = management.change(tx => {
    tx.unmap(mirror);
    tx.map({ gpa: 1 * MiB, size: 4 * KiB, addressSpace: 0 });
    tx.map({ gpa: 1 * MiB, size: 4 * KiB });
  });
  t.deepEqual([back?.addressSpace, own?.addressSpace], [0, 1]);
  t.deepEqual([memory.slots, management.slots], [[ram, back], [own]]);
});

test('memory.addressSpace: one that there is not is refused', t => {
  using vm = Vm.create();
  const spaces = vm.capabilities.value('multi-address-space');
  throwsCode(t, 'ERR_OUT_OF_RANGE', () => vm.memory.addressSpace(Math.max(spaces, 2)));
  throwsCode(t, 'ERR_OUT_OF_RANGE', () => vm.memory.map({ gpa: 0, size: 4 * KiB, addressSpace: 0x1_0000 }));
});

onKvm('memory.addressSpace: where there is but one, the missing capability is named', t => {
  using kvm = Kvm.open({ hide: ['multi-address-space'] });
  using vm = Vm.create({ kvm });
  throwsCode(t, 'ERR_OUT_OF_RANGE', () => vm.memory.addressSpace(-1));
  t.is(vm.memory.addressSpace(0), vm.memory);
  const error = throwsCode(t, 'ERR_CAPABILITY_MISSING', () => vm.memory.addressSpace(1));
  t.like(error, { capability: 'multi-address-space', since: '4.2' });
  vm.close();
  throwsCode(t, 'ERR_CLOSED', () => vm.memory.addressSpace(0));
});
