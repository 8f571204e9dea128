#!/usr/bin/env node
// node scripts/ensure.mjs [STEP…]
//
// Brings a clone to a state in which it can run; does nothing, in well under a second, where that is done already.
// `npm start`, `npm test`, `npm run check` and .ci/run all come through here.
//
// Steps (none named: npm native ts firmware):
//   rust      cargo and rustc, new enough
//   npm       the npm packages of package-lock.json
//   native    the addon, built from crates/
//   hooks     the same in target/hooks, with the hooks that only tests use (a panic on demand)
//   ts        dist/, built from ts/
//   firmware  SeaBIOS, in the cache where it is not installed; its absence is a note, not a failure
//
// What the machine lacks is installed where this runs as root on Debian or Ubuntu (TYPEVISOR_SETUP=off prevents it),
// else named with the command that installs it. Downloads go to ${XDG_CACHE_HOME:-~/.cache}/typevisor.
import { rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { HOW_TO_GET, fetchFirmware, findFirmware } from './lib/firmware.mjs';
import { withLock } from './lib/lock.mjs';
import { ROOT, shown } from './lib/paths.mjs';
import { run } from './lib/run.mjs';
import { Stop, main, say } from './lib/say.mjs';
import { Stamp, filesBelow, fingerprint } from './lib/stale.mjs';
import { cargoEnv, compiler, node, rust } from './lib/toolchain.mjs';

const OFFLINE =
  /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|Could not resolve host|Could(n't| not) connect to server|network failure|spurious network error/i;

/** Each step: what it found, in a few words; a `Stop` where the clone cannot run without it. */
const STEPS = {
  rust,
  npm: packages,
  native: () => addon('native', 'native'),
  hooks: () => addon('hooks', 'target/hooks'),
  ts: facade,
  firmware,
};

await main(import.meta.url, async args => {
  const names = args.length > 0 ? args : ['npm', 'native', 'ts', 'firmware'];
  const builds = names.some(name => ['native', 'hooks', 'ts'].includes(name));
  if (builds && !names.includes('npm')) names.unshift('npm'); // the builders are npm packages
  const unknown = names.filter(name => !Object.hasOwn(STEPS, name));
  if (unknown.length > 0)
    throw new Stop(`unknown step: ${unknown.join(', ')} (there are: ${Object.keys(STEPS).join(', ')})`, 2);
  const found = [node()];
  await withLock(ROOT, sayWaiting, async () => {
    for (const name of names) found.push(await STEPS[name]());
  });
  say(`set-up: ${found.join(' · ')}`);
});

function sayWaiting() {
  say('set-up: waiting for another set-up of this clone');
}

/** Runs one command of the set-up with its output on stderr; stops where it fails. */
async function must(title, command, args, env) {
  say(`set-up: ${title}`);
  const { status, signal, tail } = await run(command, args, { env });
  if (status === 0) return;
  if (OFFLINE.test(tail.join('\n')))
    throw new Stop(`set-up: ${title}: needs the registry once, and it cannot be reached`);
  throw new Stop(`set-up: ${title}: failed (${signal ?? status ?? tail.at(-1)}): ${command} ${args.join(' ')}`);
}

async function packages() {
  if (mtime('node_modules/.package-lock.json') < mtime('package-lock.json')) {
    const quiet = ['--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'];
    const patience = ['--fetch-retry-mintimeout=1000', '--fetch-retry-maxtimeout=5000'];
    await must('npm packages', 'npm', ['ci', ...quiet, ...patience]);
  }
  return 'npm packages';
}

function mtime(path) {
  return statSync(join(ROOT, path), { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

/** An addon in `folder`, built from crates/ by the npm script `build:NAME`. */
async function addon(name, folder) {
  const inputs = fingerprint(['crates', 'Cargo.toml', 'Cargo.lock', 'package.json']);
  const file = builtAddon(folder);
  if (!file || !new Stamp(name, file).isFresh(inputs)) {
    await rust();
    await compiler();
    await must(`addon (${name})`, 'npm', ['run', '--silent', `build:${name}`], cargoEnv());
    if (!builtAddon(folder))
      throw new Stop(`set-up: addon (${name}): built, but ${folder}/typevisor.linux-*.node is not there`);
    new Stamp(name, builtAddon(folder)).write(inputs);
  }
  return builtAddon(folder);
}

/** The addon for this processor, whichever C library it was built with. */
function builtAddon(folder) {
  const mark = `.linux-${process.arch}-`;
  return filesBelow([folder]).find(name => name.endsWith('.node') && name.includes(mark));
}

async function facade() {
  const inputs = fingerprint([
    'ts',
    'native/binding.d.cts',
    'tsconfig.json',
    'tsconfig.build.json',
    'package-lock.json',
  ]);
  const stamp = new Stamp('ts', 'dist/index.js');
  if (!stamp.isFresh(inputs)) {
    rmSync(join(ROOT, 'dist'), { recursive: true, force: true }); // no output outlives its source
    await must('TypeScript', 'npm', ['run', '--silent', 'build:ts']);
    stamp.write(inputs);
  }
  return 'dist';
}

async function firmware() {
  if (process.arch !== 'x64') return 'no firmware for this architecture';
  const file = findFirmware() ?? (process.env.TYPEVISOR_FIRMWARE ? undefined : await fetchFirmware());
  if (file) return `SeaBIOS ${shown(file)}`;
  say(`set-up: ${HOW_TO_GET}`);
  return 'no firmware';
}
