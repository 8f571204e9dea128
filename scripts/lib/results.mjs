// What a whole run came to: machines × suites, as the lines at its end.
import { skipLine } from './skips.mjs';
import { emptyTally, sum } from './tally.mjs';

/** What was skipped as a whole. */
export function skipped(title, reason) {
  return { ...emptyTally(), skips: [{ title, reason }] };
}

/** A machine that cannot be had: a skip, or a failure where `TYPEVISOR_REQUIRE` says that the lab has to be there. */
export function notThere(id, reason, env) {
  const title = `every test in machine ${id}`;
  const required = env.TYPEVISOR_REQUIRE === 'lab';
  const tally = required ? { ...emptyTally(), failed: 1, problem: `${title}: ${reason}` } : skipped(title, reason);
  return { machine: id, results: [['lab', tally]], differences: [], testedKvm: false };
}

/** `[{ machine, results: [[suite, tally]], differences: [line] }]` to the total, differences counted as failures. */
export function totalOf(runs) {
  const total = sum(runs.flatMap(({ results }) => results.map(([, tally]) => tally)));
  total.failed += runs.flatMap(({ differences }) => differences).length;
  return total;
}

/** All skips of one run, as they stand in lists. */
export function skipLines({ results }) {
  return results.flatMap(([suite, { skips }]) => skips.map(skip => skipLine(suite, skip)));
}

/** What failed in one run: tests by title, suites and machines that died, skips that the machine's list does not expect. */
export function failureLines({ results, differences }) {
  return [
    ...results.flatMap(([suite, { failures }]) => failures.map(title => `${suite}: ${title}`)),
    ...results.flatMap(([suite, { problem }]) => (problem ? [`${suite}: ${problem}`] : [])),
    ...differences,
  ];
}

/** The table's columns that hold numbers. */
const NUMBERS = new Set([1, 2, 3, 4]);

/** The table machine × passed, failed, skipped and why, with the time each took. */
export function table(runs) {
  const rows = runs.map(run => {
    const total = totalOf([run]);
    return [run.machine, total.passed, total.failed, total.skipped, seconds(run.seconds), reasons(run)].map(String);
  });
  const all = [['machine', 'passed', 'failed', 'skipped', 'seconds', 'skipped because'], ...rows];
  const widths = all[0].map((_, column) => Math.max(...all.map(row => row[column].length)));
  const aligned = (cell, column) => (NUMBERS.has(column) ? cell.padStart(widths[column]) : cell.padEnd(widths[column]));
  return all.map(row => row.map(aligned).join('  ').trimEnd());
}

function seconds(value) {
  return value === undefined ? '-' : value.toFixed(0);
}

/** `needs x86_64 (97), needs SMM (2)`, the most frequent first. */
function reasons({ results }) {
  const counts = new Map();
  for (const { reason } of results.flatMap(([, { skips }]) => skips)) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  const sorted = [...counts].toSorted(([, a], [, b]) => b - a);
  return sorted.map(([reason, count]) => `${reason} (${count})`).join(', ');
}
