// One benchmark: starts its programs, runs them in turn, gives the figures.
import { Child } from './child.mjs';
import { commands } from './list.mjs';
import { pinnedTo, separate } from './processors.mjs';
import { reference } from './reference.mjs';
import { figures, order } from './statistics.mjs';

/** How long the reference's batch should take: long against a timer tick, short against drift. */
const BATCH_NS = 30e6;
/** Operations by which the reference's speed is found. */
const PROBE = 500;
/** Batches before the first that counts: by then the compilers of V8 are done. */
const WARM_UP = 4;

/** Runs `benchmark`; `{ available: false, reason }` where this machine cannot. */
export async function measure(benchmark, { pairs, cpus, onRound }) {
  const two = benchmark.processors > 1;
  if (two && (cpus.other === undefined || !cpus.pinned))
    return { available: false, reason: 'needs two processors, and taskset' };
  const command = commands(benchmark, await reference(benchmark.reference));
  const started = [];
  const start = async (name, allowed, what) => {
    const child = await Child.start(name, pinnedTo(allowed, what, cpus));
    started.push(child);
    return child;
  };
  try {
    const sides = {
      reference: await start('the reference', [cpus.guest], command.reference),
      again: await start('the reference', [cpus.guest], command.reference),
      subject: await start('Typevisor', two ? [cpus.other, cpus.guest] : [cpus.guest], command.subject),
    };
    const batch = await warmUp(sides, two ? cpus : undefined);
    const measured = await rounds(sides, batch, pairs, onRound);
    return { available: true, batch, ...figures(measured), exitsPerWrite: sides.subject.exits ?? null };
  } finally {
    await Promise.all(started.map(child => child.close()));
  }
}

/** Gives how many operations make a batch. `apart`: the processors on which the vCPU and the rest go apart. */
async function warmUp(sides, apart) {
  await sides.subject.run(PROBE);
  if (apart) separate(sides.subject.pid, apart); // the vCPU's thread began with its first run
  await sides.reference.run(PROBE);
  const batch = Math.max(PROBE, Math.round(BATCH_NS / (await sides.reference.run(PROBE))));
  for (let round = 0; round < WARM_UP; round += 1) for (const side of order(round)) await sides[side].run(batch);
  return batch;
}

async function rounds(sides, batch, pairs, onRound) {
  const measured = [];
  for (let round = 0; round < pairs; round += 1) {
    onRound(round);
    const pair = {};
    for (const side of order(round)) pair[side] = await sides[side].run(batch);
    measured.push(pair);
  }
  return measured;
}
