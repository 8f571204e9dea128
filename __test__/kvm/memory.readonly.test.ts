import { KiB } from '../../ts/index.ts';
import { byteOf, load, machine, mark, set, STOP, STOPPED } from '../helpers/guests.ts';
import { needs } from '../helpers/needs.ts';

const ROM = 0x8_0000;

const test = needs('readonly-mem');

test('memory.map: a write to a read-only slot is an mmio exit with its bytes, and memory stays as it is', async t => {
  using guest = machine(set(0x12), mark(ROM + 2), load(ROM), STOP);
  const { vm, vcpu } = guest;
  const slot = vm.memory.map({ gpa: ROM, size: 4 * KiB, readonly: true });
  t.true(slot.readonly);
  vm.memory.write(ROM, Uint8Array.of(0xcd)); // the host may
  const data = Uint8Array.of(0x12);
  t.deepEqual(await vcpu.run(), { kind: 'mmio', direction: 'write', gpa: ROM + 2, size: 1, data });
  t.deepEqual(await vcpu.run(), STOPPED);
  t.is(byteOf(vcpu), 0xcd);
  t.is(vm.memory.getUint8(ROM + 2), 0);
});
