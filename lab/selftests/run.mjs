#!/usr/bin/env node
// Runs the kernel's selftests on the KVM of the machine that this runs on: here, or in a machine of the lab.
//
// node lab/selftests/run.mjs FOLDER TIMEOUT NAME…
//
// FOLDER holds the built tests. Each gets TIMEOUT seconds. Lines of JSON: `{ kernel }`, then `{ start }` when a test
// starts and `{ name, verdict, seconds, said }` when it has ended: who reads them knows what ran when the machine died.
import { existsSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Stop, main } from '../../scripts/lib/say.mjs';
import { runSession } from './session.mjs';
import { lastWords, verdictOf } from './verdict.mjs';

/** Runs one test; `{ name, verdict, seconds, said }`. */
export async function runTest(folder, name, timeoutS) {
  const began = Date.now();
  const ended = await runSession(join(folder, name), { cwd: tmpdir(), timeoutMs: timeoutS * 1000 });
  const verdict = verdictOf(ended);
  return { name, verdict, seconds: (Date.now() - began) / 1000, said: lastWords(ended.lines, verdict) };
}

function tell(object) {
  process.stdout.write(`${JSON.stringify(object)}\n`);
}

async function runAll([folder, timeout, ...names]) {
  const timeoutS = Number(timeout);
  if (!(timeoutS > 0)) throw new Stop(`selftests: a time limit in seconds is wanted, not ${timeout}`, 2);
  const missing = names.find(name => !existsSync(join(folder, name)));
  if (missing) throw new Stop(`selftests: there is no ${missing} in ${folder}`, 2);
  tell({ kernel: release() });
  for (const name of names) {
    tell({ start: name });
    tell(await runTest(resolve(folder), name, timeoutS));
  }
  return 0;
}

if (process.argv[1] === import.meta.filename) await main(import.meta.url, runAll);
