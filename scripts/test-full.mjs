#!/usr/bin/env node
// npm run test:full, or node scripts/test-full.mjs [NAME…]
//
// Tier full: what takes minutes, and is for the nightly run. `npm test` has the same tests in short.
//
//   properties   the slot map, and what stands on it, against naive models: 100,000 sequences each
//   stress       vCPUs touch memory while slots are added, moved, flagged, replaced and removed
//   asan         unit tests under AddressSanitizer, which looks for leaks too (with a nightly Rust, else a skip)
//   asan kvm     the tests that run guests, exits, kicks, aborts, pauses and closes among them, under it in fewer rounds
//   asan stress  the stress tests under it
//   cases        the lists of the kernel's selftests' cases against its source (where that is in the cache, else a skip)
//   loom         the protocol of runs, kicks, holds and pauses through all its interleavings, up to a bound
//   broken       each subtle rule broken: tests must turn red (npm run test:broken)
//
// NAME runs that one alone. At the end stand the skips with their reasons, and everything that failed. The last line is
// `N passed, N failed, N skipped`; the exit code is 0 only if nothing failed.
import { fullSuites } from './lib/full.mjs';
import { failureLines, skipLines, skipped, totalOf } from './lib/results.mjs';
import { runSuite } from './lib/run-suite.mjs';
import { run } from './lib/run.mjs';
import { Stop, main } from './lib/say.mjs';
import { closingLine } from './lib/tally.mjs';

/** A first build and minutes of tests, several times over; past it, it hangs. */
const SUITE_TIMEOUT_MS = 60 * 60_000;

await main(import.meta.url, async names => {
  const suites = chosen(names);
  const { status } = await run('node', ['scripts/ensure.mjs', 'rust']);
  if (status !== 0) throw new Stop('test:full: the set-up failed, no test was run', status ?? 1);
  const results = [];
  for (const suite of suites) {
    const tally = suite.why ? skipped('all of its tests', suite.why) : await runSuite(suite, SUITE_TIMEOUT_MS);
    results.push([suite.name, tally]);
  }
  return report({ results, differences: [] });
});

function chosen(names) {
  const all = fullSuites();
  const unknown = names.find(name => !all.some(suite => suite.name === name));
  if (unknown !== undefined)
    throw new Stop(`test:full: there is no ${unknown}; there are: ${all.map(({ name }) => name).join(', ')}`, 2);
  return names.length > 0 ? all.filter(({ name }) => names.includes(name)) : all;
}

function report(found) {
  console.log('');
  for (const line of skipLines(found)) console.log(`skipped  ${line}`);
  for (const line of failureLines(found)) console.log(`failed   ${line}`);
  const total = totalOf([found]);
  console.log(closingLine(total));
  return total.failed > 0 ? 1 : 0;
}
