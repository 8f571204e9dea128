#!/usr/bin/env node
// npm test, or node scripts/test.mjs
//
// Sets the clone up (scripts/ensure.mjs), then runs cargo's, ava's and the scripts' own tests and adds them up. At the
// end stand all skips with their reasons, and the titles of all that failed, by suite. The last line is `N passed, N failed, N skipped`; the exit code is 0 only if nothing failed.
//
// Without a usable /dev/kvm the tests that need none still run, the rest is one skip, and the exit code is 1: nothing
// was tested on KVM. A capability that the machine lacks is a skip with its reason.
//
// TYPEVISOR_MACHINE=NAME   fail unless just the skips of scripts/machines/NAME.txt occur
import { kvmProblem } from './lib/kvm.mjs';
import { run } from './lib/run.mjs';
import { Stop, main } from './lib/say.mjs';
import { differences, readList, skipLine } from './lib/skips.mjs';
import { suites } from './lib/suites.mjs';
import { closingLine, emptyTally, settle, sum } from './lib/tally.mjs';

/** No suite takes nearly as long, a first build included; past it, it hangs. */
const SUITE_TIMEOUT_MS = 30 * 60_000;

await main(import.meta.url, async args => {
  if (args.length > 0) throw new Stop(`unknown argument: ${args[0]} (see --help)`, 2);
  const machine = process.env.TYPEVISOR_MACHINE;
  const expected = machine ? readList(machine) : undefined;
  await setUp();
  const noKvm = kvmProblem();
  const results = [];
  for (const suite of suites(!noKvm)) results.push([suite.name, await runSuite(suite)]);
  if (noKvm)
    results.push(['host', { ...emptyTally(), skips: [{ title: 'every test that runs a guest', reason: noKvm }] }]);
  return report(results, expected && { name: machine, expected }, noKvm);
});

async function setUp() {
  const { status } = await run('node', ['scripts/ensure.mjs', 'rust', 'npm', 'native', 'hooks', 'ts', 'firmware']);
  if (status !== 0) throw new Stop('npm test: the set-up failed, no test was run', status ?? 1);
}

/** Runs one suite, showing its output as it comes; gives its tally. */
async function runSuite({ name, command, args, env, tally, show }) {
  console.log(`\n── ${name}`);
  const lines = [];
  const onLine = (line, stream) => {
    if (stream === 'stdout') lines.push(line);
    const shown = stream === 'stdout' ? show(line) : line;
    if (shown !== undefined) console.log(shown);
  };
  const end = await run(command, args, { env, onLine, timeoutMs: SUITE_TIMEOUT_MS });
  return settle(tally(lines), end);
}

/** Prints the skips, what went wrong with whole suites, and the closing line; gives the exit code. */
function report(results, machine, noKvm) {
  const skips = results.flatMap(([name, { skips: all }]) => all.map(skip => skipLine(name, skip)));
  const total = sum(results.map(([, tally]) => tally));
  console.log('');
  for (const line of skips) console.log(`skipped  ${line}`);
  for (const [name, { failures }] of results) for (const title of failures) console.log(`failed   ${name}: ${title}`);
  for (const [name, { problem }] of results) if (problem) console.log(`failed   ${name}: ${problem}`);
  if (machine) {
    const found = differences(machine.expected, skips);
    total.failed += found.length;
    for (const line of found) console.log(`failed   TYPEVISOR_MACHINE=${machine.name}: ${line}`);
  }
  if (noKvm) console.log(`no KVM tested: ${noKvm} (node dist/cli/main.js doctor says what to do)`);
  console.log(closingLine(total));
  return total.failed > 0 || noKvm ? 1 : 0;
}
