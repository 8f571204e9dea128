#!/usr/bin/env node
// npm run check -- [NAME…], or node scripts/check.mjs [NAME…]
//
// Sets the clone up, then runs every check (or those named), one after the other, warnings as errors, and says at the
// end how each went. A check whose tool cannot be had is skipped with the reason; with CI=true that is a failure.
// --list names the checks. Exit code 1 if any failed.
import { TARGET, aarch64Compiler } from './lib/aarch64.mjs';
import { TARGETS } from './lib/broken.mjs';
import { run } from './lib/run.mjs';
import { Stop, main, say } from './lib/say.mjs';
import { cargoEnv } from './lib/toolchain.mjs';

const DENY = { RUSTFLAGS: '-D warnings', RUSTDOCFLAGS: '-D warnings' };
/** The code as the model of kicks and holds has it. */
const model = { env: { RUSTFLAGS: `${TARGETS.loom.env.RUSTFLAGS} ${DENY.RUSTFLAGS}` } };
const bin = name => `node_modules/.bin/${name}`;

/** Each check gives `{ status }`, as `run` does, or `{ skipped: reason }`. */
const CHECKS = {
  rustfmt: () => run('cargo', ['fmt', '--all', '--check']),
  clippy: () => run('cargo', ['clippy', '--workspace', '--all-targets', '--all-features', '--', '-D', 'warnings']),
  rustdoc: () => run('cargo', ['doc', '--workspace', '--no-deps', '--document-private-items'], { env: DENY }),
  model: () =>
    run('cargo', ['check', '-p', 'typevisor', ...TARGETS.loom.args, '--target-dir', TARGETS.loom.folder], model),
  aarch64,
  format: () => run(bin('oxfmt'), ['--check', '.']),
  lint: () => run('npm', ['run', '--silent', 'lint']),
  types: () => run(bin('tsc'), ['--noEmit', '-p', 'tsconfig.json']),
  package: () => run(bin('publint'), ['--strict']),
  licences: () => run('node', ['scripts/licences.mjs']),
  tidy: () => run('node', ['scripts/tidy.mjs']),
};

await main(import.meta.url, async args => {
  if (args.includes('--list')) return console.log(Object.keys(CHECKS).join('\n'));
  const names = args.length > 0 ? args : Object.keys(CHECKS);
  const unknown = names.find(name => !Object.hasOwn(CHECKS, name));
  if (unknown) throw new Stop(`unknown check: ${unknown} (--list names them)`, 2);
  const { status } = await run('node', ['scripts/ensure.mjs', 'rust', 'npm', 'native', 'ts']);
  if (status !== 0) throw new Stop('check: the set-up failed', status ?? 1);
  Object.assign(process.env, cargoEnv());
  const results = [];
  for (const name of names) results.push({ name, ...(await check(name)) });
  console.log('');
  for (const { name, verdict, detail } of results) console.log(`${verdict.padEnd(7)}  ${name}${detail}`);
  return results.some(({ verdict }) => verdict === 'FAILED') ? 1 : 0;
});

async function check(name) {
  say(`\n── ${name}`);
  const started = performance.now();
  const { status, skipped } = await CHECKS[name]();
  const seconds = ` (${((performance.now() - started) / 1000).toFixed(1)} s)`;
  if (skipped === undefined) return { verdict: status === 0 ? 'ok' : 'FAILED', detail: seconds };
  return { verdict: process.env.CI === 'true' ? 'FAILED' : 'skipped', detail: `: ${skipped}` };
}

/** Compiles everything but guests for the other architecture, in a target folder of its own. */
async function aarch64() {
  const { env, reason } = await aarch64Compiler();
  if (reason) return { skipped: reason };
  const args = ['check', '--workspace', '--all-targets', '--all-features', `--target=${TARGET}`];
  return run('cargo', args, { env: { ...env, ...DENY, CARGO_TARGET_DIR: 'target/aarch64' } });
}
