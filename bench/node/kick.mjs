// A kick in TypeScript's place: what bench/c/kick.c does, but that the end is seen by JavaScript, on another thread than
// the vCPU's.
//
// kick.mjs CODE ENTRY COUNT_AT SLOT_SIZE    as in bench/c/kick.c
import { Vm } from '../../dist/index.js';
import { serve } from './child.mjs';

const [hex, ...numbers] = process.argv.slice(2);
const [entry, countAt, slotSize] = numbers.map(Number);

const vm = Vm.create();
vm.memory.map({ gpa: 0, size: slotSize });
vm.memory.write(entry, Buffer.from(hex, 'hex'));
const vcpu = vm.createVcpu();
vcpu.boot({ mode: 'long', privilege: 'user', entry });

/** From a kick of the guest that counts to the end of `await`, in milliseconds. */
async function kick() {
  const running = vcpu.run();
  const before = vm.memory.getUint32(countAt);
  while (vm.memory.getUint32(countAt) === before) {} // on its way into the guest
  const start = performance.now();
  vcpu.kick();
  const exit = await running;
  const ms = performance.now() - start;
  if (exit.kind !== 'intr') throw new Error(`${exit.kind} exit, where a kick was to end the run`);
  return ms;
}

await serve(async count => {
  const took = new Float64Array(count);
  for (let n = 0; n < count; n += 1) took[n] = (await kick()) * 1e6;
  took.sort();
  return { ns: took[Math.floor(count / 2)], p99: took[Math.floor((count * 99) / 100)] };
});
vm.close();
