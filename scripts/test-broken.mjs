#!/usr/bin/env node
// npm run test:broken, or node scripts/test-broken.mjs [NAME…] [--list]
//
// Breaks the subtle rules one by one, each by a cfg of test builds (`--cfg broken="NAME"`), and demands that tests turn
// red. First every demanded test runs with nothing broken, and has to pass. Then comes a build for each rule, in which
// each of the rule's tests has to fail; one that hangs is ended and counts as failed.
//
//   NAME      breaks that rule alone; may be repeated
//   --list    the rules, what breaks them and the tests that must see it
//
// A test that cannot run here is a skip with its reason; those of the lab's machines run where these are ready
// (npm run lab -- prepare). A line a verdict; the last line is `N passed, N failed, N skipped`, and the exit code is 0
// only if nothing failed. The rules are in scripts/lib/broken.mjs; what is built lies in target/broken and target/loom.
import { parseArgs } from 'node:util';
import { RULES, compilerThatBreaks, demandName, demandsOf } from './lib/broken.mjs';
import { Builds } from './lib/broken-runs.mjs';
import { run } from './lib/run.mjs';
import { Stop, main } from './lib/say.mjs';
import { closingLine } from './lib/tally.mjs';
import { Verdicts } from './lib/verdicts.mjs';

/** What a broken test may take before it counts as hung: this, and so many times what it took unbroken. */
const HUNG_MS = 20_000;
const TIMES_UNBROKEN = 10;

await main(import.meta.url, async args => {
  const { rules, list } = chosen(args);
  if (list) return console.log(rules.flatMap(listed).join('\n'));
  const { status } = await run('node', ['scripts/ensure.mjs', 'rust']);
  if (status !== 0) throw new Stop('test:broken: the set-up failed, no test was run', status ?? 1);
  const verdicts = new Verdicts();
  const unbroken = await runUnbroken(demandsOf(rules), verdicts);
  for (const rule of rules) await runBroken(rule, unbroken, verdicts);
  console.log('');
  for (const line of verdicts.failures) console.log(`failed   ${line}`);
  console.log(closingLine(verdicts));
  return verdicts.failed > 0 ? 1 : 0;
});

function chosen(args) {
  let parsed;
  try {
    parsed = parseArgs({ args, options: { list: { type: 'boolean' } }, allowPositionals: true });
  } catch (error) {
    throw new Stop(`test:broken: ${error.message} (see --help)`, 2);
  }
  const { values, positionals: names } = parsed;
  const unknown = names.find(name => !RULES.some(rule => rule.name === name));
  if (unknown !== undefined)
    throw new Stop(`test:broken: there is no ${unknown}; there are: ${RULES.map(({ name }) => name).join(', ')}`, 2);
  const rules = names.length > 0 ? RULES.filter(({ name }) => names.includes(name)) : RULES;
  return { rules, list: values.list };
}

function listed({ name, breaks, red }) {
  return [`${name}: ${breaks}`, ...red.map(demand => `    ${demandName(demand)}`)];
}

/** Gives what each demanded test came to, by its name. */
async function runUnbroken(demands, verdicts) {
  console.log('── unbroken');
  const builds = new Builds();
  const results = new Map();
  for (const demand of demands) {
    const result = await builds.runOne(demand, 10 * 60_000);
    results.set(demandName(demand), result);
    if (result.colour === 'green') verdicts.ok(`${demandName(demand)}: passed${took(result)}`);
    else if (result.colour === 'none') verdicts.skip(demandName(demand), result.how);
    else verdicts.fail(`${demandName(demand)}: ${result.how}, with nothing broken`, result.lines);
  }
  return results;
}

async function runBroken({ name, breaks, red }, unbroken, verdicts) {
  console.log(`\n── ${name}: ${breaks}`);
  const builds = new Builds({ RUSTC_WORKSPACE_WRAPPER: compilerThatBreaks(name) });
  for (const demand of red) {
    const title = `${name} › ${demandName(demand)}`;
    const before = unbroken.get(demandName(demand));
    if (before.colour === 'none') verdicts.skip(title, before.how);
    else if (before.colour !== 'green') verdicts.fail(`${title}: says nothing, as it is not green unbroken`);
    else judge(title, await builds.runOne(demand, HUNG_MS + TIMES_UNBROKEN * before.ms), verdicts);
  }
}

function judge(title, result, verdicts) {
  if (result.colour === 'red') verdicts.ok(`${title}: ${result.how}, as it must${took(result)}`);
  else if (result.colour === 'green') verdicts.fail(`${title}: passed, though the rule is broken`);
  else verdicts.fail(`${title}: ${result.how}`, result.lines);
}

function took({ ms }) {
  return ` (${(ms / 1000).toFixed(1)} s)`;
}
