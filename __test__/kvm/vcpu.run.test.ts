import { ASK, machine, printer, STOPPED, told } from '../helpers/guests.ts';
import { onKvm as test, x86 } from '../helpers/needs.ts';

test('vcpu.run: every exit arrives whole and in order', async t => {
  using guest = machine(printer(0x80, 'Hi'));
  const exits = [await guest.vcpu.run(), await guest.vcpu.run(), await guest.vcpu.run()];
  t.deepEqual(exits, [told(0x80, 0x48), told(0x80, 0x69), STOPPED]);
});

x86('vcpu.run: a string instruction is one exit for all its elements, and takes as many bytes', async t => {
  // cld; mov di, 0x2000; mov cx, 3; mov dx, 0x80; rep insw; hlt
  using guest = machine([0xfc, 0xbf, 0x00, 0x20, 0xb9, 0x03, 0x00, 0xba, 0x80, 0x00, 0xf3, 0x6d, 0xf4]);
  t.deepEqual(await guest.vcpu.run(), { kind: 'io', direction: 'in', port: 0x80, size: 2, count: 3 });
  guest.vcpu.answer(Uint8Array.of(1, 2, 3, 4, 5, 6));
  t.deepEqual(await guest.vcpu.run(), { kind: 'hlt' });
  t.deepEqual([...guest.vm.memory.read(0x2000, 7)], [1, 2, 3, 4, 5, 6, 0]);
});

x86('vcpu.run: an access where no memory is arrives as mmio, with the value of a write', async t => {
  // mov word [0xf123], 0xbeef, 64 KiB of RAM being taken away first; mov ax, [0xf124]
  using guest = machine([0xc7, 0x06, 0x23, 0xf1, 0xef, 0xbe, 0xa1, 0x24, 0xf1]);
  guest.vm.memory.slotAt(0)?.unmap();
  guest.vm.memory.map({ gpa: 0, size: 0x2000 });
  guest.vm.memory.write(0x1000, Uint8Array.of(0xc7, 0x06, 0x23, 0xf1, 0xef, 0xbe, 0xa1, 0x24, 0xf1));
  const data = Uint8Array.of(0xef, 0xbe);
  t.deepEqual(await guest.vcpu.run(), { kind: 'mmio', direction: 'write', gpa: 0xf123, size: 2, data });
  t.deepEqual(await guest.vcpu.run(), { kind: 'mmio', direction: 'read', gpa: 0xf124, size: 2 });
});

test('vcpu.run: exits are frozen', async t => {
  using guest = machine(ASK);
  const exit = await guest.vcpu.run();
  t.true(Object.isFrozen(exit));
  t.throws(() => Object.assign(exit, { size: 2 }), { instanceOf: TypeError });
});
