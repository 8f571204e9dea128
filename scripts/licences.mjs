#!/usr/bin/env node
// node scripts/licences.mjs
//
// Every dependency must leave a permissive choice of licence: the crates of Cargo.lock, and the npm packages of
// package-lock.json, which all serve development alone. Prints what does not; exit code 1 if anything does not.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isPermissive } from './lib/licences.mjs';
import { ROOT } from './lib/paths.mjs';
import { output } from './lib/run.mjs';
import { Stop, main } from './lib/say.mjs';

/** Used while developing and never shipped, so that these do as well. */
const FOR_TOOLS = new Set(['CC-BY-4.0', 'MPL-2.0', 'PSF-2.0', 'Python-2.0']);

await main(import.meta.url, () => {
  const all = [...crates(), ...npmPackages()];
  const bad = all.filter(({ allowed }) => !allowed);
  for (const { name, licence } of bad) console.log(`${name}: ${licence ?? 'no licence given'}`);
  console.log(`licences: ${all.length} dependencies, ${bad.length} not permissive`);
  return bad.length > 0 ? 1 : 0;
});

function crates() {
  const text = output('cargo', ['metadata', '--format-version=1', '--locked'], { maxBuffer: 64 << 20 });
  if (text === undefined) throw new Stop('licences: cargo metadata --locked failed; run it to see why');
  const external = JSON.parse(text).packages.filter(({ source }) => source !== null);
  return external.map(({ name, version, license }) => ({
    name: `crate ${name} ${version}`,
    licence: license,
    allowed: license !== null && isPermissive(license),
  }));
}

/** An entry that scripts/complete-lock.mjs added has no licence of its own: its sibling for this platform has. */
function npmPackages() {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8'));
  const entries = Object.entries(packages).filter(([at, entry]) => at !== '' && !(entry.optional && !entry.integrity));
  return entries.map(([at, { version, license, dev, devOptional }]) => ({
    name: `npm ${at.slice(at.lastIndexOf('node_modules/') + 'node_modules/'.length)} ${version}`,
    licence: license,
    allowed:
      license !== undefined && (isPermissive(license) || (Boolean(dev || devOptional) && FOR_TOOLS.has(license))),
  }));
}
