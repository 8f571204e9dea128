import { KiB, Vm } from 'typevisor';

/** Where firmware lies, and where a PC's chipset lets it make RAM of itself. */
const ROM = 0xf_0000;

using vm = Vm.create();
vm.memory.map({ gpa: 0, size: 64 * KiB });
const rom = vm.memory.map({ gpa: ROM, size: 64 * KiB, readonly: true });
vm.memory.write(ROM, new TextEncoder().encode('rom'));
// oxfmt-ignore
vm.memory.write(0x1000, Uint8Array.of(
  0xb8, 0x00, 0xf0,             // mov ax, 0xf000
  0x8e, 0xd8,                   // mov ds, ax
  0xc6, 0x06, 0x01, 0x00, 0x61, // mov byte [1], 'a'
  0xe6, 0x92,                   // out 0x92, al: unlock
  0xc6, 0x06, 0x01, 0x00, 0x61, // mov byte [1], 'a'
  0xe6, 0x93,                   // out 0x93, al: lock, and swap the upper half
  0xa0, 0x00, 0x80,             // mov al, [0x8000]
  0xe6, 0x80,                   // out 0x80, al
  0xf4,                         // hlt
));
const text = (): string => new TextDecoder().decode(vm.memory.read(ROM, 3));

vm.bus.port(0x92, 1, { write: () => rom.setReadonly(false) });
vm.bus.port(0x93, 1, {
  write() {
    // All of it at once: no vCPU sees the moment in which there is no ROM.
    const [lower, upper] = vm.memory.change(tx => {
      tx.unmap(rom);
      tx.map({ gpa: ROM, size: 32 * KiB, readonly: true, backing: { share: rom } });
      tx.map({ gpa: ROM + 32 * KiB, size: 32 * KiB });
    });
    console.log(`two slots: ${lower?.size} bytes of ROM, ${upper?.size} bytes of RAM`);
    vm.memory.setUint8(ROM + 32 * KiB, 42);
  },
});

const vcpu = vm.createVcpu();
vcpu.boot({ mode: 'real', entry: 0x1000 });
for (let exit = await vcpu.run(); exit.kind !== 'hlt'; exit = await vcpu.run()) {
  if (exit.kind === 'mmio') console.log(`a write to ROM arrives here, and changes nothing: ${text()}`);
  else if (exit.kind === 'io') console.log(`the guest read ${exit.direction === 'out' ? exit.data[0] : ''}`);
}
console.log(`a write to RAM changes it: ${text()}`);
