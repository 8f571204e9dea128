import { KiB, Vm } from 'typevisor';

/** A counter in 4 bytes of memory: a write sets it, each read gives the next number. */
class Counter {
  #next = 0;

  write(_offset: number, _size: number, value: number): void {
    this.#next = value;
    console.log(`set to ${value}`);
  }

  read(): number {
    console.log(`read ${this.#next}`);
    return this.#next++;
  }
}

using vm = Vm.create();
vm.memory.map({ gpa: 0x1000, size: 8 * KiB });
// oxfmt-ignore
vm.memory.write(0x1000, Uint8Array.of(
  0xbb, 0x00, 0x00, 0x00, 0xd0,       // mov ebx, 0xd0000000
  0xc7, 0x03, 0x64, 0x00, 0x00, 0x00, // mov dword [ebx], 100
  0x8b, 0x03,                         // mov eax, [ebx]
  0x03, 0x03,                         // add eax, [ebx]
  0x03, 0x03,                         // add eax, [ebx]
  0xa3, 0x00, 0x20, 0x00, 0x00,       // mov [0x2000], eax
  0xf4,                               // hlt
));
vm.bus.mmio(0xd000_0000, 4, new Counter());

const vcpu = vm.createVcpu();
vcpu.boot({ mode: 'protected', entry: 0x1000 });
const exit = await vcpu.run(); // the counter's exits never come here
console.log(exit.kind);
console.log(`the guest stored ${vm.memory.getUint32(0x2000)}`);
