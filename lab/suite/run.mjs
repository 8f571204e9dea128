#!/usr/bin/env node
// node lab/suite/run.mjs [--only PATTERN] [--except PATTERN] [--limit SECONDS]
//
// Runs, in a machine of the lab, what lab/suite/build.mjs built for its processor: Rust's unit and KVM tests of the
// core, then those of ava's tests that say something about a kernel or a processor: all of __test__/kvm, and of
// __test__/unit the files named below, whose subject the processor decides. The rest of __test__/unit is about sources
// and words, which are the same everywhere.
//
// Prints `── core` in cargo's format and `── ava` as TAP with a plan; the exit code is 1 where something failed. Files run
// by some in a process, those that take long in one of their own, and are a failure by name if they take too long.
//
// --only PATTERN    a regular expression: only files and test binaries whose name it fits
// --except PATTERN  files of ava's that are not run here: each is one skip that says so
// --limit SECONDS   how long a file or a test binary may take (300): longer, and it hangs
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ROOT } from '../../scripts/lib/paths.mjs';
import { run } from '../../scripts/lib/run.mjs';
import { Stop, main } from '../../scripts/lib/say.mjs';
import { settle, tallyCargo, tallyTap } from '../../scripts/lib/tally.mjs';
import { ELSEWHERE } from './elsewhere.mjs';

const SUITE = join(ROOT, 'target/lab/suite');
const JS = join(SUITE, 'js');
const ARCH = { x64: 'x86_64', arm64: 'aarch64' }[process.arch];
/** Named, and not looked for: asking for the C library, which the search does, takes 0.3 s a process in a machine. */
const NATIVE = process.env.TYPEVISOR_NATIVE_PATH || join(SUITE, String(ARCH), 'typevisor.node');
/** Rust's test binaries. */
const CORE = ['core-unit', 'core-kvm'];
/** Registers and the exit's form differ by processor. */
const UNIT = new Set(['exit', 'registers']);
/** These take longest, so they begin first: none is begun when the others are done. */
const LONGEST = [
  'cli.run',
  'cli.tour',
  'worker',
  'vm.unref',
  'memory.promises',
  'examples',
  'memory.shared-buffer',
  'endless',
];
/** Those, and whatever looks at the whole process. */
const ALONE = new Set([...LONGEST, 'bad-input', 'leaks', 'memory.fork', 'vcpu.abort-thousand', 'observe.debug']);
/** One more than a machine has processors: many wait for the collector, or for a process to end. */
const AT_ONCE = 3;
/** To start a process and load the addon takes longer in a machine than what most files have to test. */
const FILES_A_PROCESS = 6;

await main(import.meta.url, async args => {
  const { only, except, limit } = options(args);
  if (!existsSync(JS)) throw new Stop('the suite is not built: npm run lab builds it');
  const began = performance.now();
  if (![...CORE, ...testFiles().map(({ title }) => title)].some(only)) throw new Stop('nothing has such a name', 2);
  const core = await runCore(only, limit);
  const between = performance.now();
  const ava = await runAva(only, except, limit);
  console.log(`# core ${seconds(between - began)} s, ava ${seconds(performance.now() - between)} s`);
  return core && ava ? 0 : 1;
});

function seconds(ms) {
  return (ms / 1000).toFixed(1);
}

function options(args) {
  try {
    const text = { type: 'string' };
    const { values } = parseArgs({ args, options: { only: text, except: text, limit: text } });
    const limit = Number(values.limit ?? 300);
    if (!(limit > 0)) throw new Error(`--limit wants seconds; got ${values.limit}`);
    const only = new RegExp(values.only ?? '');
    const except = new RegExp(values.except ?? '^$');
    return { only: name => only.test(name), except: name => except.test(name), limit: limit * 1000 };
  } catch (error) {
    throw new Stop(`${error.message} (see --help)`, 2);
  }
}

/** Rust's test binaries, one after the other; whether all passed. */
async function runCore(only, timeoutMs) {
  const names = CORE.filter(only);
  if (names.length > 0) console.log('\n── core');
  let good = true;
  for (const name of names) {
    const lines = [];
    const onLine = (line, stream) => {
      if (stream === 'stdout') lines.push(line);
      console.log(line);
    };
    const end = await run(join(SUITE, ARCH, name), [], { onLine, timeoutMs });
    const { failed, problem } = settle(tallyCargo(lines), end);
    if (problem) console.log(`test ${name} ... FAILED\n${name}: ${problem}\n\nrunning 1 test\n${failure()}`);
    good &&= failed === 0;
  }
  return good;
}

/** What a test binary that gave no result would have said. */
function failure() {
  return 'test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out';
}

/** The compiled test files, in the order in which they begin: `{ title, file }`. */
function testFiles() {
  return ['kvm', 'unit'].flatMap(folder => {
    const names = readdirSync(join(JS, '__test__', folder)).filter(name => name.endsWith('.test.js'));
    return names
      .map(name => ({ base: name.replace(/\.test\.js$/, ''), file: join(JS, '__test__', folder, name) }))
      .filter(({ base }) => folder === 'kvm' || UNIT.has(base))
      .toSorted((a, b) => rank(a) - rank(b))
      .map(({ base, file }) => ({ title: `${folder} › ${base}`, file }));
  });
}

function rank({ base }) {
  const place = LONGEST.indexOf(base);
  return place < 0 ? LONGEST.length : place;
}

async function runAva(only, except, timeoutMs) {
  const files = testFiles().filter(({ title }) => only(title));
  if (files.length === 0) return true;
  console.log('\n── ava\nTAP version 13');
  const total = { points: 0, failed: 0 };
  for (const { title } of files.filter(file => except(file.title)))
    console.log(`ok ${(total.points += 1)} - ${title} # SKIP ${ELSEWHERE}`);
  const waiting = groups(files.filter(({ title }) => !except(title)))[Symbol.iterator]();
  const worker = async () => {
    for (const some of waiting) await runSome(some, total, timeoutMs);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  console.log(`1..${total.points}`);
  return total.failed === 0;
}

/** What runs in one process. */
function groups(files) {
  const alone = files.filter(isAlone);
  const together = files.filter(file => !isAlone(file));
  // Dealt out: what is alphabetically near is of one subject, and takes as long.
  const dealt = Array.from({ length: Math.ceil(together.length / FILES_A_PROCESS) }, () => []);
  for (const [index, file] of together.entries()) dealt[index % dealt.length].push(file);
  return [...alone.map(file => [file]), ...dealt];
}

function isAlone({ title }) {
  return ALONE.has(title.replace('kvm › ', ''));
}

/** Runs files in a process, and prints their points under running numbers when it is done: those of two do not mix. */
async function runSome(files, total, timeoutMs) {
  const lines = [];
  const errors = [];
  const onLine = (line, stream) => (stream === 'stdout' ? lines : errors).push(line);
  const args = files.flatMap(({ title, file }) => [title, file]);
  const end = await run(process.execPath, [join(JS, 'node_modules/ava/ava.mjs'), ...args], {
    cwd: JS,
    env: { TYPEVISOR_NATIVE_PATH: NATIVE },
    onLine,
    timeoutMs,
  });
  const { failed, problem } = settle(tallyTap(lines), end);
  for (const line of lines) {
    const [, ok, rest] = /^((?:not )?ok) \d+( - .*)$/.exec(line) ?? [];
    if (ok) console.log(`${ok} ${(total.points += 1)}${rest}`);
    else if (!/^1\.\.\d+$/.test(line)) console.log(line);
  }
  // The file at which it stood is the one behind the last that said how long it took.
  const done = lines.filter(line => files.some(({ title }) => line.startsWith(`# ${title}: `))).length;
  const [{ title }] = files.slice(Math.min(done, files.length - 1));
  if (problem) console.log(`not ok ${(total.points += 1)} - ${title}: ${problem}`);
  if (failed > 0) for (const line of errors) console.log(`    ${line}`);
  total.failed += failed;
}
