// The slice of ava that our tests use, for machines in which ava itself takes a quarter of a minute to load: the
// compiled tests import it under ava's name (lab/suite/build.mjs). `node ava.mjs TITLE FILE [TITLE FILE]…` runs those files in this
// process, one after the other, test by test in the order of the file, and prints TAP with titles `TITLE › test`. What is
// not here is a TypeError, and so a failure.
import { realpathSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { inspect } from 'node:util';
import { context } from './assertions.mjs';

/** No test of ours takes as long, in the slowest machine; `t.timeout(ms)` gives another limit. */
const TEST_TIMEOUT_MS = Number(process.env.TYPEVISOR_TEST_TIMEOUT_MS ?? 60_000);

/** What a test takes from here on is worth a line: a machine's time is short. */
const SLOW_MS = 2000;

/** Of the file that is run. */
let tests = [];
let hooks = { before: [], after: [], always: [] };
let prefix = '';
let points = 0;
let failures = 0;
/** Where the run is: a process that ends before all is done has lost a test. */
let at = 'the file is loaded';

/** `test(title, implementation | macro, …args)`. */
export default function test(title, implementation, ...args) {
  add({ title, implementation, args });
}

test.serial = test; // all are: the machines have two processors, and two files run at a time
test.skip = title => add({ title, skip: true });
test.macro = macro => (typeof macro === 'function' ? { exec: macro } : macro);
test.before = implementation => hooks.before.push(implementation);
test.after = implementation => hooks.after.push(implementation);
test.after.always = implementation => hooks.always.push(implementation);

function add({ title, implementation, args = [], skip = false }) {
  const exec = typeof implementation === 'function' ? implementation : implementation?.exec;
  if (typeof title !== 'string' || title === '') throw new TypeError('a test needs a title');
  if (!skip && typeof exec !== 'function') throw new TypeError(`"${title}" has no implementation`);
  if (tests.some(other => other.title === title)) throw new Error(`there are two tests titled "${title}"`);
  tests.push({ title, exec, args, skip });
}

/** Runs one test with its time limit and its teardowns; gives what went wrong, or nothing. */
async function runTest({ title, exec, args }) {
  const state = { assertions: 0, teardowns: [], limit: undefined };
  let timer;
  const timeout = new Promise((_, reject) => {
    state.limit = ms => {
      clearTimeout(timer);
      timer = setTimeout(() => reject(new Error(`timed out after ${ms} ms`)), ms).unref();
    };
    state.limit(TEST_TIMEOUT_MS);
  });
  const problems = [];
  const attempt = async act => {
    try {
      await act();
    } catch (error) {
      problems.push(error);
    }
  };
  await attempt(() => Promise.race([(async () => exec(context(title, state), ...args))(), timeout]));
  if (problems.length === 0 && state.assertions === 0) problems.push(new Error('it made no assertion'));
  for (const teardown of state.teardowns) await attempt(teardown);
  clearTimeout(timer);
  return problems;
}

function point(title, problems, skip = false) {
  points += 1;
  console.log(`${problems.length > 0 ? 'not ok' : 'ok'} ${points} - ${title}${skip ? ' # SKIP' : ''}`);
  if (problems.length > 0) failures += 1;
  for (const problem of problems) {
    const text = problem instanceof Error ? (problem.stack ?? String(problem)) : inspect(problem);
    console.log(text.replaceAll(/^/gm, '    '));
  }
}

/** What belongs to no test, or to one that is over. */
function stray(what) {
  return error => {
    point(`${prefix}: ${what} while ${at}`, [error]);
    process.exitCode = 1;
  };
}

async function hook(name, act) {
  const problem = await act().then(
    () => undefined,
    error => ({ error }),
  );
  if (problem) point(`${prefix} › ${name}`, [problem.error]);
  return !problem;
}

function watch() {
  process.on('uncaughtException', stray('an exception nobody caught'));
  process.on('unhandledRejection', stray('a rejection nobody handled'));
  process.on('exit', () => {
    if (at !== '') point(`${prefix}: the process ended while ${at}`, [new Error('it waited for nothing any more')]);
    console.log(`1..${points}`);
    if (failures > 0) process.exitCode = 1;
  });
}

async function runFile(title, file) {
  [prefix, tests, hooks, at] = [title, [], { before: [], after: [], always: [] }, 'the file is loaded'];
  const failed = failures;
  await import(pathToFileURL(file).href);
  if (tests.length === 0) throw new Error('there is no test in it');
  let ready = true;
  for (const act of hooks.before) ready &&= await hook('before', async () => act());
  for (const { title: name, skip, ...one } of ready ? tests : []) {
    at = `"${name}" ran`;
    const began = performance.now();
    point(`${prefix} › ${name}`, skip ? [] : await runTest({ title: name, ...one }), skip);
    const ms = performance.now() - began;
    if (ms > SLOW_MS) console.log(`# took ${seconds(ms)}`);
  }
  at = 'it was tidied up';
  for (const act of failures === failed ? hooks.after : []) await hook('after', async () => act());
  for (const act of hooks.always) await hook('after.always', async () => act());
}

/** Files as TITLE FILE TITLE FILE …; one that cannot be run does not keep the others from it. */
async function runAll([title, file, ...more]) {
  const began = performance.now();
  await runFile(title, file).catch(error => point(`${title}: could not be run`, [error]));
  console.log(`# ${title}: ${seconds(performance.now() - began)}`);
  if (more.length > 0) await runAll(more);
  else at = '';
}

function seconds(ms) {
  return `${(ms / 1000).toFixed(1)} s`;
}

const [, main, ...files] = process.argv;
if (main && realpathSync(main) === realpathSync(new URL(import.meta.url))) {
  watch();
  // Not awaited here: the files import this module, which is to be complete by then.
  void runAll(files);
}
