// The code under test of the exit benchmarks: the guest's port writes, taken in one of several ways.
//
// exits.mjs HOW CODE ENTRY COUNT_AT SLOT_SIZE    HOW is a key of WAYS; the rest is as in bench/c/exits.c
import { Vm, latch } from '../../dist/index.js';
import { PORT } from '../lib/guests.mjs';
import { serve } from './child.mjs';

/** No batch takes nearly as long, in the slowest lab. */
const TIMEOUT_MS = 120_000;

let seen = 0;
let sum = 0;
const count = () => seen;

/**
 * Each way puts what it needs on the bus; gives a function that runs the guest until it halts, one that tells how many
 * writes were seen by then (none where Rust keeps them to itself), and one that tells how many exits they have cost so far
 * (none where each costs one).
 */
const WAYS = {
  'rust-device': vm => {
    vm.bus.port(PORT, 1, latch());
    return { run: runSync };
  },
  'js-sync': vm => {
    vm.bus.port(PORT, 1, { write: take });
    return { run: runSync, count };
  },
  'await-run': () => ({ run: awaitRun, count }),
  posted: vm => ({ ...posted(vm), run: runSync }),
  'posted-run': vm => ({ ...posted(vm), run: vcpu => vcpu.run() }),
};

function take(_offset, _size, value) {
  seen += 1;
  sum += value;
}

function posted(vm) {
  const claim = vm.bus.port(PORT, 1, { posted: writes => (seen += writes.length) });
  return { count, exits: () => claim.stats.exits };
}

const runSync = vcpu => vcpu.runSync({ timeoutMs: TIMEOUT_MS });

async function awaitRun(vcpu) {
  for (;;) {
    const exit = await vcpu.run();
    if (exit.kind !== 'io' || exit.direction !== 'out') return exit;
    seen += 1;
    sum += exit.data[0];
  }
}

const [how, hex, ...numbers] = process.argv.slice(2);
const [entry, countAt, slotSize] = numbers.map(Number);

const vm = Vm.create();
vm.memory.map({ gpa: 0, size: slotSize });
vm.memory.write(entry, Buffer.from(hex, 'hex'));
const vcpu = vm.createVcpu();
vcpu.boot({ mode: 'real', entry });
const { run, count: total, exits } = WAYS[how](vm);
await serve(async writes => {
  seen = 0;
  const exitsBefore = exits?.();
  vm.memory.write(countAt, new Uint8Array(Uint32Array.of(writes).buffer));
  const start = performance.now();
  const exit = await run(vcpu);
  const ns = ((performance.now() - start) * 1e6) / writes;
  if (exit.kind !== 'hlt' || (total && total() !== writes))
    throw new Error(`${exit.kind} exit after ${seen} of ${writes} writes`);
  return { ns, exits: exits && (exits() - exitsBefore) / writes };
});
vm.close();
if (Number.isNaN(sum)) process.exitCode = 1; // keeps the sum alive
