// One benchmark: starts its programs, runs them in turn, gives the figures.
import { Child } from './child.mjs';
import { pinnedTo, separate } from './processors.mjs';
import { command } from './programs.mjs';
import { figures, order } from './statistics.mjs';

/** How long the reference's batch should take: long against a timer tick, short against drift. */
const BATCH_NS = 30e6;
/** Operations by which threads come to be that are to be moved; before that they may be in each other's way. */
const FIRST = 10;
/** Operations by which the reference's speed is found. */
const PROBE = 500;
/** Operations in a batch at least. */
const FEWEST = 50;
/** Batches before the first that counts: by then the compilers of V8 are done. */
const WARM_UP = 4;

/** Runs `benchmark`; `{ available: false, reason }` where this machine cannot. */
export async function measure(benchmark, { pairs, cpus, onRound }) {
  const reason = await lacking(benchmark, cpus);
  if (reason) return { available: false, reason };
  const [reference, subject] = [await command(benchmark.reference), await command(benchmark.subject)];
  const cut = benchmark.cut ?? 1;
  const started = [];
  const start = async (name, { processors }, what) => {
    const two = processors > 1;
    const child = await Child.start(name, pinnedTo(two ? [cpus.other, cpus.guest] : [cpus.guest], what, cpus));
    started.push(child);
    if (two) {
      await child.run(FIRST); // a vCPU's thread begins with its first run
      separate(child.pid, cpus);
    }
    return child;
  };
  try {
    const sides = {
      reference: await start('the reference', benchmark.reference, reference),
      again: await start('the reference', benchmark.reference, reference),
      subject: await start('Typevisor', benchmark.subject, subject),
    };
    const batch = await warmUp(sides, BATCH_NS / cut);
    const { times, tails } = await rounds(sides, batch, pairs * cut, round => onRound(Math.floor(round / cut)));
    return {
      available: true,
      batch,
      ...figures(times),
      p99: tails.length > 0 ? figures(tails) : null,
      exitsPerWrite: sides.subject.more.exits ?? null,
    };
  } finally {
    await Promise.all(started.map(child => child.close()));
  }
}

/** Why this machine cannot run it; nothing where it can. */
async function lacking({ subject, slots = 0 }, cpus) {
  if (subject.processors > 1 && (cpus.other === undefined || !cpus.pinned)) return 'needs two processors, and taskset';
  if (slots === 0) return undefined;
  const { Kvm } = await import('../../dist/index.js'); // not before the clone is set up
  const kvm = Kvm.open();
  const has = kvm.capabilities.value('nr-memslots');
  kvm.close();
  return has < slots ? `needs ${slots} slots, and KVM has ${has} here` : undefined;
}

/** Gives how many operations make a batch of `batchNs`. */
async function warmUp(sides, batchNs) {
  await sides.subject.run(PROBE);
  await sides.reference.run(PROBE);
  const batch = Math.max(FEWEST, Math.round(batchNs / (await sides.reference.run(PROBE))));
  for (let round = 0; round < WARM_UP * (BATCH_NS / batchNs); round += 1)
    for (const side of order(round)) await sides[side].run(batch);
  return batch;
}

/** `{ times, tails }`: the pairs, and those of the p99s, none where the children don't tell. */
async function rounds(sides, batch, pairs, onRound) {
  const [times, tails] = [[], []];
  for (let round = 0; round < pairs; round += 1) {
    onRound(round);
    const [time, tail] = [{}, {}];
    for (const side of order(round)) {
      time[side] = await sides[side].run(batch);
      tail[side] = sides[side].more.p99;
    }
    times.push(time);
    if (tail.reference !== undefined && tail.subject !== undefined) tails.push(tail);
  }
  return { times, tails };
}
