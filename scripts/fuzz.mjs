#!/usr/bin/env node
// npm run fuzz, or node scripts/fuzz.mjs [--seconds N] [TARGET…]
//
// Runs each target of fuzz/ (or those named) under libFuzzer and AddressSanitizer for N seconds (default 60), from the
// committed corpus and what earlier runs have found (target/fuzz/corpus). Needs a nightly Rust, cargo-fuzz and a C++ compiler, and
// says how to get what is missing. An input that breaks something lies in fuzz/artifacts; exit code 1.
import { mkdirSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { ROOT } from './lib/paths.mjs';
import { output, run } from './lib/run.mjs';
import { Stop, main } from './lib/say.mjs';
import { cargoEnv } from './lib/toolchain.mjs';

const TARGET_DIR = 'target/fuzz';
/** A first build takes a minute or two; past it, it hangs. */
const BUILD_MS = 20 * 60_000;

await main(import.meta.url, async args => {
  const { values, positionals } = parsed(args);
  const seconds = Number(values.seconds);
  if (!Number.isInteger(seconds) || seconds < 1) throw new Stop('fuzz: --seconds wants a number from 1 on', 2);
  const targets = chosen(positionals);
  Object.assign(process.env, cargoEnv(), { CARGO_TARGET_DIR: join(ROOT, TARGET_DIR) });
  checkTools();
  const failed = [];
  for (const target of targets) if (!(await fuzz(target, seconds))) failed.push(target);
  console.log(
    `fuzz: ${targets.length - failed.length} passed, ${failed.length} failed${failed.map(name => ` ${name}`).join('')}`,
  );
  return failed.length > 0 ? 1 : 0;
});

function parsed(args) {
  try {
    return parseArgs({ args, allowPositionals: true, options: { seconds: { type: 'string', default: '60' } } });
  } catch (error) {
    throw new Stop(`fuzz: ${error.message}`, 2);
  }
}

function chosen(names) {
  const all = readdirSync(join(ROOT, 'fuzz/fuzz_targets')).map(file => basename(file, '.rs'));
  const unknown = names.find(name => !all.includes(name));
  if (unknown !== undefined) throw new Stop(`fuzz: there is no ${unknown}; there are: ${all.join(', ')}`, 2);
  return names.length > 0 ? names : all;
}

function checkTools() {
  if (output('cargo', ['+nightly', '--version'], { stdio: ['ignore', 'pipe', 'ignore'] }) === undefined)
    throw new Stop('fuzz: a nightly Rust is needed. Run: rustup toolchain install nightly', 69);
  if (output('cargo', ['fuzz', '--version'], { stdio: ['ignore', 'pipe', 'ignore'] }) === undefined)
    throw new Stop('fuzz: cargo-fuzz is needed. Run: cargo install --locked cargo-fuzz', 69);
}

async function fuzz(target, seconds) {
  const found = join(ROOT, TARGET_DIR, 'corpus', target);
  mkdirSync(found, { recursive: true });
  const args = ['+nightly', 'fuzz', 'run', target, found, join(ROOT, 'fuzz/corpus', target)];
  const limits = [`-max_total_time=${seconds}`, '-timeout=10', '-rss_limit_mb=1024', '-print_final_stats=1'];
  const { status } = await run('cargo', [...args, '--', ...limits], { timeoutMs: BUILD_MS + seconds * 1000 });
  return status === 0;
}
