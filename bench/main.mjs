#!/usr/bin/env node
// npm run bench -- [NAME…] [--pairs N] [--json] [--list] [--as-built]
//
// Runs the benchmarks (all, or those named), each beside its C reference, and prints what one operation costs on both
// sides. bench/README.md says what is measured and how to read it.
//
//   --pairs N    how often reference and code under test take turns; 10 or more (default 20)
//   --json       the results as one JSON object on stdout
//   --list       the benchmarks and what they measure; runs nothing
//   --as-built   measures what is built, without setting the clone up
//
// Exit code 2 for an unknown name or option, 77 where this machine cannot measure what was named.
import { availableParallelism, cpus as processorModels, loadavg, release } from 'node:os';
import { parseArgs } from 'node:util';
import { kvmProblem } from '../scripts/lib/kvm.mjs';
import { run } from '../scripts/lib/run.mjs';
import { Stop, main, say } from '../scripts/lib/say.mjs';
import { BENCHMARKS } from './lib/list.mjs';
import { measure } from './lib/measure.mjs';
import { processors } from './lib/processors.mjs';
import { table } from './lib/report.mjs';

/** By convention of claims/: "this machine cannot show it". */
const NOT_HERE = 77;
const FEWEST_PAIRS = 10;

await main(import.meta.url, async args => {
  const { values, names, pairs } = parse(args);
  if (values.list) return list(names, values.json);
  const problem = kvmProblem();
  if (problem) throw new Stop(problem, NOT_HERE);
  if (process.arch !== 'x64') throw new Stop('the benchmarks so far have x86_64 guests', NOT_HERE);
  if (!values['as-built']) await setUp();
  const cpus = processors();
  const machine = describe(cpus);
  const results = {};
  for (const name of names)
    results[name] = await measure(BENCHMARKS[name], { pairs, cpus, onRound: progress(name, pairs) });
  clearProgress();
  const missing = Object.values(results).filter(({ available }) => !available);
  if (missing.length === names.length) throw new Stop(missing[0].reason, NOT_HERE);
  if (values.json) console.log(JSON.stringify({ schemaVersion: 1, machine, results }, null, 2));
  else print(machine, results);
  return 0;
});

function parse(args) {
  const flag = { type: 'boolean', default: false };
  const options = { json: flag, list: flag, 'as-built': flag, pairs: { type: 'string', default: '20' } };
  let parsed;
  try {
    parsed = parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    throw new Stop(`${error.message} (see --help)`, 2);
  }
  const { values, positionals } = parsed;
  const unknown = positionals.find(name => !Object.hasOwn(BENCHMARKS, name));
  if (unknown) throw new Stop(`no such benchmark: ${unknown} (--list shows them all)`, 2);
  const pairs = Number(values.pairs);
  if (!Number.isInteger(pairs) || pairs < FEWEST_PAIRS) throw new Stop(`--pairs: ${FEWEST_PAIRS} or more`, 2);
  return { values, pairs, names: positionals.length > 0 ? positionals : Object.keys(BENCHMARKS) };
}

function list(names, json) {
  const shown = Object.fromEntries(names.map(name => [name, BENCHMARKS[name].what]));
  if (json) console.log(JSON.stringify({ schemaVersion: 1, benchmarks: shown }, null, 2));
  else for (const [name, what] of Object.entries(shown)) console.log(`${name}: ${what}`);
}

async function setUp() {
  const { status } = await run('node', ['scripts/ensure.mjs', 'native', 'ts']);
  if (status !== 0) throw new Stop('bench: the set-up failed', status ?? 1);
}

/** What the figures belong to. */
function describe({ pinned, guest, other }) {
  return {
    kernel: release(),
    processor: processorModels()[0]?.model ?? 'unknown',
    processors: availableParallelism(),
    node: process.version,
    load: loadavg()[0],
    pinned,
    guestProcessor: guest,
    otherProcessor: other ?? null,
  };
}

/** A line on a terminal's stderr that is written over. */
function progress(name, pairs) {
  return round => {
    if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${name}: pair ${round + 1} of ${pairs}`);
  };
}

function clearProgress() {
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
}

function print(machine, results) {
  const { processor, kernel, node, pinned, guestProcessor, load } = machine;
  const where = pinned ? `guests on processor ${guestProcessor} (taskset)` : 'not pinned: no taskset here';
  console.log(`${processor}, Linux ${kernel}, Node.js ${node}; ${where}; median (min to max)\n`);
  for (const line of table(results)) console.log(line);
  if (!pinned) say('bench: without taskset (util-linux) the figures jump');
  if (load > machine.processors / 2) say(`bench: this machine was busy (load ${load.toFixed(1)}): measure again`);
}
