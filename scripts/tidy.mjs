#!/usr/bin/env node
// node scripts/tidy.mjs
//
// Rules of the house that no linter knows, over every file that git tracks or would track: no path of one machine, no
// registry host, no unfinished code without its issue, no file beyond 400 lines (tests and generated ones
// apart), catch_unwind on every function that the addon exports, no download address in package-lock.json.
// The rules are in scripts/lib/tidy.mjs. Prints file:line: what is wrong; exit code 1 if anything is.
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './lib/paths.mjs';
import { output } from './lib/run.mjs';
import { Stop, main } from './lib/say.mjs';
import { problemsOf } from './lib/tidy.mjs';

/** Beyond this a file is data, not text that people write. */
const MAX_BYTES = 1 << 20;

await main(import.meta.url, () => {
  const listed = output('git', ['ls-files', '--cached', '--others', '--exclude-standard', '-z']);
  if (listed === undefined) throw new Stop('tidy: this is no git checkout');
  let count = 0;
  const files = listed.split('\0').filter(Boolean);
  for (const file of files) {
    for (const { line, message } of problemsIn(file)) {
      console.log(`${file}${line ? `:${line}` : ''}: ${message}`);
      count += 1;
    }
  }
  console.log(`tidy: ${files.length} files, ${count} problems`);
  return count > 0 ? 1 : 0;
});

function problemsIn(file) {
  const stat = statSync(join(ROOT, file), { throwIfNoEntry: false });
  if (!stat?.isFile() || stat.size > MAX_BYTES) return [];
  const text = readFileSync(join(ROOT, file), 'utf8');
  return text.includes('\0') ? [] : problemsOf(file, text);
}
