import { KiB } from '../../ts/index.ts';
import { machine } from '../helpers/guests.ts';
import { needs } from '../helpers/needs.ts';

const test = needs('x86_64', 'readonly-mem');

test('memory.map: a write to a read-only slot is an mmio exit with its bytes, and memory stays as it is', async t => {
  // mov bx, 0x8000; mov ds, bx; mov ax, [0]; mov word [2], 0x1234; hlt
  using guest = machine([0xbb, 0, 0x80, 0x8e, 0xdb, 0xa1, 0, 0, 0xc7, 0x06, 2, 0, 0x34, 0x12, 0xf4]);
  const { vm, vcpu } = guest;
  const slot = vm.memory.map({ gpa: 0x8_0000, size: 4 * KiB, readonly: true });
  t.true(slot.readonly);
  vm.memory.write(0x8_0000, Uint8Array.of(0xcd, 0xab)); // the host may
  const data = Uint8Array.of(0x34, 0x12);
  t.deepEqual(await vcpu.run(), { kind: 'mmio', direction: 'write', gpa: 0x8_0002, size: 2, data });
  t.deepEqual(await vcpu.run(), { kind: 'hlt' });
  t.is((vcpu.getRegisters().rax ?? 0n) & 0xffffn, 0xabcdn);
  t.is(vm.memory.getUint16(0x8_0002), 0);
});
