#!/usr/bin/env node
// node scripts/complete-lock.mjs [package-lock.json]
//
// To be run after each `npm install` where the registry lists only this platform's packages: npm then writes a lockfile
// without the optional dependencies of the other platforms, and `npm ci` refuses it. Adds the missing entries.
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { completeLock } from './lib/complete-lock.mjs';
import { ROOT } from './lib/paths.mjs';
import { main } from './lib/say.mjs';

await main(import.meta.url, ([name = 'package-lock.json']) => {
  const file = resolve(ROOT, name);
  const { lock, added } = completeLock(JSON.parse(readFileSync(file, 'utf8')));
  if (added.length > 0) writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
  console.log(`complete-lock: ${added.length} entries added`);
});
