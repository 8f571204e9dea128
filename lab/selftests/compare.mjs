// One of the kernel's selftests beside our port of it (crates/core/tests/kvm/NAME.rs), machine by machine: where the C test
// passes, every case of ours must that is of that processor.
import { run } from '../../scripts/lib/run.mjs';
import { say } from '../../scripts/lib/say.mjs';
import { settle, tallyCargo } from '../../scripts/lib/tally.mjs';
import { runInMachine } from '../lib/boot.mjs';
import { ARCHITECTURES, hostArch } from '../machines.mjs';
import { buildKvmTests } from '../suite/build.mjs';
import { PORTS, caseLines, readCases, sourceOf } from './cases.mjs';
import { textTable } from './report.mjs';

/** Nothing is scaled down, as the C test does not: all 32,764 slots take a minute or two under emulation. */
const ENV = { TYPEVISOR_TEST_SCALE: '1' };

/**
 * Prints the table machine × verdict of C × ours, and what either had to say; gives the exit code. `machines` are those of
 * the lab, or 'host'; `inC(machine)` gives the result of the C test.
 */
export async function compare(name, machines, timeoutS, inC) {
  const results = [];
  for (const machine of machines) {
    const c = await inC(machine);
    const ours = judge(await portOn(machine, PORTS[name], timeoutS));
    const id = machine.id ?? machine;
    say(`${id}: ${name}: C ${c.verdict}, ours ${ours.verdict}`);
    results.push({ machine: id, c, ours });
  }
  const listed = listProblem(name);
  console.log(
    [...reportLines(results), ...(listed.problem ? [listed.problem] : []), closing(name, results, listed)].join('\n'),
  );
  return listed.problem || results.some(differs) ? 1 : 0;
}

/** Whether the committed list of cases is that of the source, where that is in the cache. */
function listProblem(name) {
  const source = sourceOf(name);
  if (!source) return { said: 'cases not compared: the source is not in the cache' };
  const same = caseLines(source.text).join('\n') === readCases(name).join('\n');
  const said = `cases as in ${source.version}`;
  return same ? { said } : { problem: `not the ${said}: run scripts/extract-selftest-cases.mjs` };
}

/** Runs our port: its tally. */
async function portOn(machine, filter, timeoutS) {
  const program = await buildKvmTests(machine.arch ?? hostArch());
  return machine.id === undefined ? onHost(program, filter, timeoutS) : inLab(machine, [program, filter], timeoutS);
}

async function onHost(program, filter, timeoutS) {
  const lines = [];
  const onLine = (line, stream) => stream === 'stdout' && lines.push(line);
  const end = await run(program, [filter], { env: ENV, onLine, timeoutMs: timeoutS * 1000 });
  return settle(tallyCargo(lines), end);
}

async function inLab(machine, words, timeoutS) {
  const parts = [];
  const onOutput = (bytes, stream) => stream === 'stdout' && parts.push(bytes);
  const { code, problem } = await runInMachine(machine, words, { env: ENV, timeoutS, onOutput });
  const tally = tallyCargo(Buffer.concat(parts).toString().split('\n'));
  return problem ? { ...tally, problem } : settle(tally, { status: code, signal: null, timedOut: false });
}

/** A tally as a verdict: 'partly' where a test was skipped that this processor could run. */
export function judge({ passed, failures, skips, problem }) {
  const here = skips.filter(({ reason }) => !ARCHITECTURES.includes(reason.replace(/^needs /, '')));
  const failed = [...failures, ...(problem ? [problem] : [])];
  if (failed.length > 0) return { verdict: 'fail', passed, said: failed.join('; ') };
  if (here.length === 0 && passed > 0) return { verdict: 'pass', passed, said: '' };
  return {
    verdict: passed > 0 ? 'partly' : 'skip',
    passed,
    said: here.map(({ title, reason }) => `${title} (${reason})`).join('; '),
  };
}

function differs({ c, ours }) {
  return c.verdict === 'pass' && ours.verdict !== 'pass';
}

/** The table, and a line for each that did not pass. */
export function reportLines(results) {
  const rows = results.map(result => {
    const { machine, c, ours } = result;
    return [machine, c.verdict, ours.verdict, String(ours.passed), differs(result) ? 'differs' : ''];
  });
  const said = results.flatMap(({ machine, c, ours }) => [
    ...(c.verdict === 'pass' ? [] : [`${machine}: C: ${c.verdict}: ${c.said}`]),
    ...(ours.verdict === 'pass' ? [] : [`${machine}: ours: ${ours.verdict}: ${ours.said}`]),
  ]);
  return [textTable([['machine', 'C', 'ours', 'cases', ''], ...rows]), '', ...said];
}

/** The last line. */
function closing(name, results, { said = 'cases differ' }) {
  const passes = results.filter(({ c }) => c.verdict === 'pass').length;
  const ours = results.filter(result => result.ours.verdict === 'pass').length;
  const differ = results.filter(differs).length;
  return `${name}: C passes on ${passes} of ${results.length} machines, ours on ${ours}; ${differ} differ; ${said}`;
}
