// Child processes: each in a process group of its own, ended with everything it started when this script ends.
import { spawn, spawnSync } from 'node:child_process';
import { constants } from 'node:os';
import { ROOT } from './paths.mjs';
import { say } from './say.mjs';

const live = new Set();
const lastWords = new Set();
let guarded = false;
let stopping = false;
/** How long an interrupted child may take to tidy up. */
const GRACE_MS = 5000;

/** Sends `signal` to a child and all it started. */
export function signalGroup(child, signal) {
  try {
    process.kill(-child.pid, signal);
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

/** From the first child on, a signal that ends this script ends its children too. */
function guard() {
  if (guarded) return;
  guarded = true;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, stop);
  process.on('exit', () => {
    for (const child of live) signalGroup(child, 'SIGKILL');
  });
}

/** Says `text` on stderr if a signal ends this script; gives what takes that back. Signals are seen to from now on. */
export function onInterrupt(text) {
  guard();
  lastWords.add(text);
  return () => lastWords.delete(text);
}

/** Ends the children politely, then for certain; a second signal does not wait. */
function stop(signal) {
  if (!stopping) for (const text of lastWords) say(text);
  const exit = () => process.exit(128 + constants.signals[signal]);
  if (live.size === 0 || stopping) exit();
  stopping = true;
  for (const child of live) {
    signalGroup(child, 'SIGTERM');
    child.once('close', () => live.size === 0 && exit());
  }
  setTimeout(exit, GRACE_MS);
}

/**
 * Starts `command` and resolves when it has ended: `{ status, signal, timedOut, tail }`. `status` is null where a signal
 * ended it or it could not be started. `env` adds to this script's environment, `bareEnv` replaces it. `onLine(line, stream)` gets each line; without it the output goes to stderr. An aborted `signal` ends it, and all it started.
 */
export function run(command, args, { env, bareEnv, cwd = ROOT, onLine, timeoutMs, signal: abort } = {}) {
  guard();
  const child = spawn(command, args, {
    cwd,
    env: bareEnv ?? { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  if (child.pid) live.add(child);
  const tail = [];
  const take = stream => line => {
    tail.push(line);
    if (tail.length > 200) tail.shift();
    if (onLine) onLine(line, stream);
    else say(line);
  };
  const flushes = [eachLine(child.stdout, take('stdout')), eachLine(child.stderr, take('stderr'))];
  return new Promise(settle => {
    let timedOut = false;
    const kill = () => signalGroup(child, 'SIGKILL');
    const timer = timeoutMs && setTimeout(() => ((timedOut = true), kill()), timeoutMs);
    abort?.addEventListener('abort', kill);
    const end = (status, signal) => {
      clearTimeout(timer);
      abort?.removeEventListener('abort', kill);
      live.delete(child);
      for (const flush of flushes) flush();
      settle({ status, signal, timedOut, tail });
    };
    child.once('error', error => {
      tail.push(`${command}: ${error.code === 'ENOENT' ? 'command not found' : error.message}`);
      end(null, null);
    });
    child.once('exit', () => signalGroup(child, 'SIGKILL')); // what it left behind would keep the pipes open
    child.once('close', end);
  });
}

/** Splits a stream into lines; returns a function that hands over an unfinished last line. */
function eachLine(stream, take) {
  let rest = '';
  stream.setEncoding('utf8');
  stream.on('data', text => {
    const lines = (rest + text).split('\n');
    rest = lines.pop();
    for (const line of lines) take(line);
  });
  return () => {
    if (rest !== '') take(rest);
    rest = '';
  };
}

/** What a short command prints, trimmed; undefined where it fails or does not exist. */
export function output(command, args, options) {
  const { status, stdout } = spawnSync(command, args, { encoding: 'utf8', cwd: ROOT, ...options });
  return status === 0 ? stdout.trim() : undefined;
}
