import { KiB, Vm } from 'typevisor';

/** A calculator behind two 16-bit ports: operands are written to the first, their product is read from the second. */
const OPERAND = 0x10;
const PRODUCT = 0x12;
let operands: number[] = [];

using vm = Vm.create();
vm.memory.map({ gpa: 0x1000, size: 8 * KiB });
// oxfmt-ignore
vm.memory.write(0x1000, Uint8Array.of(
  0xb8, 0x06, 0x00, // mov ax, 6
  0xe7, OPERAND,    // out OPERAND, ax
  0xb8, 0x07, 0x00, // mov ax, 7
  0xe7, OPERAND,    // out OPERAND, ax
  0xe5, PRODUCT,    // in ax, PRODUCT
  0xa3, 0x00, 0x20, // mov [0x2000], ax
  0xf4,             // hlt
));
vm.bus.port(OPERAND, 2, {
  write(_offset, _size, value) {
    console.log(`operand ${value}`);
    operands.push(value);
  },
});
vm.bus.port(PRODUCT, 2, {
  read() {
    const product = operands.reduce((a, b) => a * b, 1) & 0xffff; // the port has 16 bits
    console.log(`product ${product}`);
    operands = [];
    return product;
  },
});

const vcpu = vm.createVcpu();
vcpu.boot({ mode: 'real', entry: 0x1000 });
const exit = await vcpu.run(); // the calculator's exits never come here
console.log(exit.kind);
console.log(`the guest stored ${vm.memory.getUint16(0x2000)}`);
