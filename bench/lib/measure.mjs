// One benchmark: starts its programs, runs them in turn, gives the figures.
import { Child } from './child.mjs';
import { pinnedTo, separate } from './processors.mjs';
import { command } from './programs.mjs';
import { figures, order } from './statistics.mjs';

/** How long the reference's batch should take: long against a timer tick, short against drift. */
const BATCH_NS = 30e6;
/** Operations by which the reference's speed is found. */
const PROBE = 500;
/** Operations in a batch at least. */
const FEWEST = 50;
/** Batches before the first that counts: by then the compilers of V8 are done. */
const WARM_UP = 4;

/** Runs `benchmark`; `{ available: false, reason }` where this machine cannot. */
export async function measure(benchmark, { pairs, cpus, onRound }) {
  const two = benchmark.processors > 1;
  const reason = await lacking(benchmark, cpus);
  if (reason) return { available: false, reason };
  const [reference, subject] = [await command(benchmark.reference), await command(benchmark.subject)];
  const cut = benchmark.cut ?? 1;
  const started = [];
  const start = async (name, allowed, what) => {
    const child = await Child.start(name, pinnedTo(allowed, what, cpus));
    started.push(child);
    return child;
  };
  try {
    const sides = {
      reference: await start('the reference', [cpus.guest], reference),
      again: await start('the reference', [cpus.guest], reference),
      subject: await start('Typevisor', two ? [cpus.other, cpus.guest] : [cpus.guest], subject),
    };
    const batch = await warmUp(sides, BATCH_NS / cut, two ? cpus : undefined);
    const measured = await rounds(sides, batch, pairs * cut, round => onRound(Math.floor(round / cut)));
    return { available: true, batch, ...figures(measured), exitsPerWrite: sides.subject.exits ?? null };
  } finally {
    await Promise.all(started.map(child => child.close()));
  }
}

/** Why this machine cannot run it; nothing where it can. */
async function lacking({ processors, slots = 0 }, cpus) {
  if (processors > 1 && (cpus.other === undefined || !cpus.pinned)) return 'needs two processors, and taskset';
  if (slots === 0) return undefined;
  const { Kvm } = await import('../../dist/index.js'); // not before the clone is set up
  const kvm = Kvm.open();
  const has = kvm.capabilities.value('nr-memslots');
  kvm.close();
  return has < slots ? `needs ${slots} slots, and KVM has ${has} here` : undefined;
}

/** Gives how many operations make a batch of `batchNs`. `apart`: the processors on which the vCPU and the rest go apart. */
async function warmUp(sides, batchNs, apart) {
  await sides.subject.run(PROBE);
  if (apart) separate(sides.subject.pid, apart); // the vCPU's thread began with its first run
  await sides.reference.run(PROBE);
  const batch = Math.max(FEWEST, Math.round(batchNs / (await sides.reference.run(PROBE))));
  for (let round = 0; round < WARM_UP * (BATCH_NS / batchNs); round += 1)
    for (const side of order(round)) await sides[side].run(batch);
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
