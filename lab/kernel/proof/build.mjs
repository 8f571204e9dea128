#!/usr/bin/env node
// node lab/kernel/proof/build.mjs
//
// Builds the proof that a kernel is the lab's (main.c), and prints its path. It is static and runs in any x86_64 machine:
// npm run lab -- --kernel lab -- target/lab/proof
import { mkdirSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ROOT } from '../../../scripts/lib/paths.mjs';
import { run } from '../../../scripts/lib/run.mjs';
import { Stop, main } from '../../../scripts/lib/say.mjs';
import { Stamp, filesBelow, fingerprint } from '../../../scripts/lib/stale.mjs';
import { compilerFor } from '../../lib/hold.mjs';

const FOLDER = 'lab/kernel/proof';
const PROGRAM = 'target/lab/proof';
const FLAGS = ['-O2', '-std=gnu11', '-Wall', '-Wextra', '-Werror', '-static', '-pthread'];

/** The program's path; built if its sources have changed. */
export async function proofProgram() {
  const stamp = new Stamp('lab-proof', PROGRAM);
  const inputs = fingerprint([FOLDER]);
  if (!stamp.isFresh(inputs)) {
    mkdirSync(dirname(join(ROOT, PROGRAM)), { recursive: true });
    const sources = filesBelow([FOLDER]).filter(file => file.endsWith('.c'));
    const { status } = await run(await compilerFor('x86_64'), [...FLAGS, '-o', `${PROGRAM}.new`, ...sources]);
    if (status !== 0) throw new Stop(`lab: ${FOLDER} could not be built`);
    renameSync(join(ROOT, `${PROGRAM}.new`), join(ROOT, PROGRAM));
    stamp.write(inputs);
  }
  return join(ROOT, PROGRAM);
}

async function build() {
  console.log(await proofProgram());
  return 0;
}

if (process.argv[1] === import.meta.filename) await main(import.meta.url, build);
