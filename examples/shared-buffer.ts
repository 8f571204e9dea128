import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { KiB, Vm } from 'typevisor';

// Growable, so that it begins at a page, as KVM wants it.
const buffer = new SharedArrayBuffer(4 * KiB, { maxByteLength: 64 * KiB });

using vm = Vm.create();
vm.memory.map({ gpa: 0x1000, size: 4 * KiB });
const slot = vm.memory.map({ gpa: 0x2000, size: 4 * KiB, backing: { buffer } });
// oxfmt-ignore
vm.memory.write(0x1000, Uint8Array.of(
  0x80, 0x3e, 0x00, 0x20, 0x00, // wait: cmp byte [0x2000], 0
  0x74, 0xf9,                   // je wait
  0xa0, 0x00, 0x20,             // mov al, [0x2000]
  0xf6, 0xe0,                   // mul al
  0xa3, 0x04, 0x20,             // mov [0x2004], ax
  0xf4,                         // hlt
));

const vcpu = vm.createVcpu();
vcpu.boot({ mode: 'real', entry: 0x1000 });
const running = vcpu.run(); // waits for a number in the buffer

// Another thread has the same memory: nothing is copied, and nobody is called.
const code = "Atomics.store(require('node:worker_threads').workerData, 0, 12)";
const worker = new Worker(code, { eval: true, workerData: new Uint8Array(buffer) });
await once(worker, 'exit');

console.log((await running).kind);
console.log(`12 * 12 = ${new DataView(slot.view().buffer).getUint16(4, true)}`);
