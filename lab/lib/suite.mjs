// The suite in one machine: built here, run there (lab/suite/run.mjs), its output told apart by section and counted.
import { StringDecoder } from 'node:string_decoder';
import { Stop } from '../../scripts/lib/say.mjs';
import { settle, tallyCargo, tallyTap, tapForPeople } from '../../scripts/lib/tally.mjs';
import { defaultMachine } from '../machines.mjs';
import { buildSuite } from '../suite/build.mjs';
import { runInMachine } from './boot.mjs';

/** What lab/suite/run.mjs prints under `── NAME`, and how it counts. */
const SECTIONS = { core: tallyCargo, ava: tallyTap };
/** No machine takes nearly as long; past it something hangs. */
const LIMIT_S = 900;

/**
 * Runs it, showing each test as it ends; gives `{ results, again }`: `[suite, tally]` pairs, and where there were two
 * tries a sentence that says so. What cannot be built or booted is a failure. `noKvmHere` says that there is no other KVM than the
 * lab's; `only` asks for the part that fits a regular expression.
 */
export async function testMachine(machine, how) {
  try {
    await buildSuite(machine.arch);
    return await twiceIfItDies(() => runThere(machine, how));
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    return { results: [['machine', { ...nothing(), failed: 1, problem: error.message }]] };
  }
}

/**
 * A machine whose kernel panics, or dies under the tests, gets one more try: emulated ones do so now and then (docs/design/lab.md).
 * It is never silent, and a second death is a failure, as are a test that failed before the first, and all else at once.
 */
export async function twiceIfItDies(attempt, say = line => console.log(line)) {
  const first = await attempt();
  const failed = first.results.some(([, { failures }]) => failures.length > 0);
  if (!first.died || failed) return { results: first.results };
  const again = 'its kernel died, as emulated ones do now and then; this is the second try';
  say(`── once more: ${again}`);
  return { results: (await attempt()).results, again };
}

async function runThere(machine, { noKvmHere, only }) {
  const except = only === undefined ? leftOut(machine, noKvmHere) : undefined;
  const options = [...(only ? ['--only', only] : []), ...(except ? ['--except', except] : [])];
  const sections = new Sections(line => console.log(line));
  const ended = await runInMachine(machine, ['node', 'lab/suite/run.mjs', ...options], {
    timeoutS: LIMIT_S,
    onOutput: (bytes, stream) => sections.take(bytes, stream),
  });
  sections.flush();
  if (ended.detail) console.log(ended.detail);
  return { results: tallies(sections.lines, ended, only), died: ended.died === true };
}

/** What says nothing about a kernel or a processor; it runs on this machine, or in the default one where here is no KVM. */
const HERE = ['cli\\.', 'vm\\.unref', 'examples'];
/** The same, in the default machine as well. */
const DEFAULT = ['bad-input', 'observe\\.debug'];
/** What says little about a kernel; it runs in the default machine, and in the newest of the other processor. */
const NEWEST = ['worker', 'forgotten', 'memory\\.shared-buffer'];

/**
 * Tests of the command line, of the examples, of arguments that are refused, of what keeps Node alive and of how its
 * workers, its collector and its environment end a VM make up half of the time, as each starts processes.
 */
function leftOut(machine, noKvmHere) {
  if (machine === defaultMachine()) return noKvmHere ? undefined : files(HERE);
  return files([...HERE, ...DEFAULT, ...(machine.id === 'aarch64-newest' ? [] : NEWEST)]);
}

function files(names) {
  return `^kvm › (${names.join('|')})`;
}

/** Each section's tally; a machine that died, and a section that never came (unless a part was asked for), are failures. */
export function tallies(lines, { code, problem }, only) {
  const wanted = Object.entries(SECTIONS).filter(([name]) => only === undefined || lines[name] !== undefined);
  const results = wanted.map(([name, count]) => {
    const tally = count(lines[name] ?? []);
    // The exit code is that of all sections together: only one without a failed test needs it explained.
    return [name, settle(tally, { status: tally.failed > 0 ? 1 : 0, signal: null, timedOut: false })];
  });
  const failed = results.some(([, tally]) => tally.failed > 0);
  if (problem !== undefined) results.push(['machine', { ...nothing(), failed: 1, problem }]);
  else if (code !== 0 && !failed)
    results.push(['machine', { ...nothing(), failed: 1, problem: `exit code ${code} with no failed test` }]);
  return results;
}

function nothing() {
  return { passed: 0, failed: 0, failures: [], skips: [], finished: true };
}

/** Splits output into lines, and stdout's lines into sections. */
export class Sections {
  lines = {};
  #show;
  #filter = tapForPeople();
  #current;
  #rest = { stdout: '', stderr: '' };
  /** Bytes come as they were written, which may be in the middle of a character. */
  #decoders = { stdout: new StringDecoder('utf8'), stderr: new StringDecoder('utf8') };

  constructor(show) {
    this.#show = show;
  }

  take(bytes, stream) {
    const lines = (this.#rest[stream] + this.#decoders[stream].write(bytes)).split('\n');
    this.#rest[stream] = lines.pop();
    for (const line of lines) this.#line(line, stream);
  }

  flush() {
    for (const stream of ['stdout', 'stderr']) if (this.#rest[stream] !== '') this.take(Buffer.from('\n'), stream);
  }

  #line(line, stream) {
    const section = stream === 'stdout' && /^── (\w+)$/.exec(line)?.[1];
    if (section) {
      this.#current = this.lines[section] ??= [];
      this.#show(line);
    } else if (stream === 'stdout' && this.#current) {
      this.#current.push(line);
      const shown = this.#current === this.lines.ava ? this.#filter(line) : line;
      if (shown !== undefined) this.#show(shown);
    } else this.#show(line);
  }
}
