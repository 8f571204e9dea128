import { KiB, Vm } from 'typevisor';

using vm = Vm.create();
vm.memory.map({ gpa: 0x1000, size: 4 * KiB });
// mov dx, 0x3f8; mov al, 'H'; out dx, al; mov al, 'i'; out dx, al; hlt
vm.memory.write(0x1000, Uint8Array.of(0xba, 0xf8, 0x03, 0xb0, 0x48, 0xee, 0xb0, 0x69, 0xee, 0xf4));

const vcpu = vm.createVcpu();
vcpu.boot({ mode: 'real', entry: 0x1000 });
for (let exit = await vcpu.run(); exit.kind !== 'hlt'; exit = await vcpu.run()) {
  if (exit.kind !== 'io' || exit.direction !== 'out') throw new Error(`an exit this guest cannot make: ${exit.kind}`);
  console.log(`out 0x${exit.port.toString(16)}: '${String.fromCharCode(...exit.data)}'`);
}
console.log('hlt');
