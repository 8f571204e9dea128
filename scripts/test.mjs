#!/usr/bin/env node
// npm test, or node scripts/test.mjs [--matrix | --machine ID…] [--no-host [--only PATTERN]]
//
// Sets the clone up (scripts/ensure.mjs), runs cargo's, ava's and the scripts' own tests here, then the tests of KVM again
// in the lab: real KVM of another kernel, in an emulated machine (npm run lab -- list).
//
//   --matrix        in every machine of the lab (npm run test:matrix), not only in the one with most features
//   --machine ID    in this machine; may be repeated
//   --no-host       only in the lab
//   --only PATTERN  there only files whose name this regular expression fits; the lists of skips are not compared then
//
// At the end stand all skips of this machine with their reasons, everything that failed, and a table machine × passed,
// failed, skipped. The last line is `N passed, N failed, N skipped`; the exit code is 0 only if nothing failed.
//
// A capability that a machine lacks is a skip with its reason; each machine of the lab is held to its list of them
// (scripts/machines/ID.txt). One whose kernel dies is tried once more, and the end of the run says so. Without a usable
// /dev/kvm the tests that need it are one skip here, and run in the lab; where there is no lab either nothing was tested
// on KVM, and the exit code is 1.
//
// TYPEVISOR_MACHINE=NAME   fail unless just the skips of scripts/machines/NAME.txt occur here
// TYPEVISOR_REQUIRE=lab    fail where the lab is not to be had, instead of skipping it
// TYPEVISOR_LAB=stock      in the lab Debian's newest kernel, not our own (which is built once, if it is nowhere found)
import { parseArgs } from 'node:util';
import { MACHINES, byId, defaultMachine } from '../lab/machines.mjs';
import { labMachines } from '../lab/lib/ready.mjs';
import { testMachine } from '../lab/lib/suite.mjs';
import { ELSEWHERE } from '../lab/suite/elsewhere.mjs';
import { kvmProblem } from './lib/kvm.mjs';
import { failureLines, notThere, skipLines, skipped, table, totalOf } from './lib/results.mjs';
import { runSuite } from './lib/run-suite.mjs';
import { run } from './lib/run.mjs';
import { Stop, main } from './lib/say.mjs';
import { differences, readList } from './lib/skips.mjs';
import { suites } from './lib/suites.mjs';
import { closingLine } from './lib/tally.mjs';

/** No suite takes nearly as long, a first build included; past it, it hangs. */
const SUITE_TIMEOUT_MS = 30 * 60_000;

await main(import.meta.url, async args => {
  const { machines, withHost, only } = chosen(args);
  const name = process.env.TYPEVISOR_MACHINE;
  const expected = name ? readList(name) : undefined;
  for (const { id } of machines) readList(id); // before an hour of tests, not after
  await setUp();
  const noKvm = kvmProblem();
  const there = await labMachines(machines); // before the tests here: the lab's own boot one, too
  const runs = withHost ? [await testHere(noKvm, expected)] : [];
  for (const { wanted, machine, reason } of there)
    runs.push(
      machine
        ? await testThere(machine, { noKvmHere: noKvm !== undefined, only })
        : notThere(wanted.id, reason, process.env),
    );
  return report(runs, noKvm);
});

function chosen(args) {
  const options = {
    matrix: { type: 'boolean' },
    machine: { type: 'string', multiple: true },
    'no-host': { type: 'boolean' },
    only: { type: 'string' },
  };
  let values;
  try {
    ({ values } = parseArgs({ args, options }));
  } catch (error) {
    throw new Stop(`npm test: ${error.message} (see --help)`, 2);
  }
  const withHost = !values['no-host'];
  if (withHost && values.only !== undefined) throw new Stop('npm test: --only goes with --no-host (see --help)', 2);
  const named = values.machine?.map(byId);
  return { machines: named ?? (values.matrix ? MACHINES : [defaultMachine()]), withHost, only: values.only };
}

async function setUp() {
  const { status } = await run('node', ['scripts/ensure.mjs', 'rust', 'npm', 'native', 'hooks', 'ts', 'firmware']);
  if (status !== 0) throw new Stop('npm test: the set-up failed, no test was run', status ?? 1);
}

/** This machine's suites: `{ machine, results, differences, seconds }`. */
async function testHere(noKvm, expected) {
  const started = performance.now();
  const results = [];
  for (const suite of suites(!noKvm)) results.push([suite.name, await runSuite(suite, SUITE_TIMEOUT_MS)]);
  if (noKvm) results.push(['host', skipped('every test that runs a guest', noKvm)]);
  const found = { machine: 'host', results, differences: [], seconds: since(started), testedKvm: !noKvm };
  if (expected) found.differences = differences(expected, skipLines(found));
  return found;
}

/** The suite in one machine of the lab, likewise. */
async function testThere(machine, how) {
  const started = performance.now();
  console.log(`\n══ lab: ${machine.id}`);
  const expected = readList(machine.id);
  const { results, again } = await testMachine(machine, how);
  const found = { machine: machine.id, results, again, differences: [], seconds: since(started), testedKvm: true };
  if (how.only === undefined)
    found.differences = differences(
      expected,
      skipLines(found).filter(line => !line.endsWith(`(${ELSEWHERE})`)),
    );
  return found;
}

function since(started) {
  return (performance.now() - started) / 1000;
}

/** Prints this machine's skips, all that failed, the table and the closing line; gives the exit code. */
function report(runs, noKvm) {
  console.log('');
  for (const found of runs) {
    const unlisted = found.machine === 'host' || found.results.some(([name]) => name === 'lab');
    if (unlisted) for (const line of skipLines(found)) console.log(`skipped  ${found.machine}: ${line}`);
    for (const line of failureLines(found)) console.log(`failed   ${found.machine}: ${line}`);
    if (found.again) console.log(`again    ${found.machine}: ${found.again}`);
  }
  console.log('');
  for (const line of table(runs)) console.log(line);
  const tested = runs.some(({ testedKvm }) => testedKvm);
  if (!tested)
    console.log(
      `no KVM tested: ${noKvm ?? 'no machine of the lab ran'} (node dist/cli/main.js doctor says what to do)`,
    );
  const total = totalOf(runs);
  console.log(closingLine(total));
  return total.failed > 0 || !tested ? 1 : 0;
}
