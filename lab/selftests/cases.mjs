// The cases of one of the kernel's selftests, from its C source: the static functions `test_*` that `main` calls. Pure,
// but for `sourceOf`. Our ports are compared with the lists made of them (crates/core/selftests).
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../../scripts/lib/paths.mjs';
import { cachedSource } from '../lib/source.mjs';

/** The selftests that are ported, and how the titles of our tests begin. */
export const PORTS = { set_memory_region_test: 'set_memory_region: ' };

/** The cases in the order of their first call: `{ name, arch }`, `arch` where only that processor has it. */
export function casesOf(source) {
  const text = source.replaceAll(/\/\*[^]*?\*\//g, ' ').replaceAll(/\/\/.*/g, '');
  const functions = new Set([...text.matchAll(/^static\s+\w+\s+(test_\w+)\s*\(/gm)].map(([, name]) => name));
  const [, body] = /^int main\([^)]*\)\s*\{$([^]*?)^\}/m.exec(text) ?? [];
  if (body === undefined) throw new Error('the source has no main');
  const cases = new Map();
  const conditions = [];
  for (const line of body.split('\n')) {
    if (/^\s*#/.test(line)) follow(line, conditions);
    for (const [, name] of line.matchAll(/\b(test_\w+)\s*\(/g))
      if (functions.has(name) && !cases.has(name)) cases.set(name, { name, arch: conditions.at(-1) });
  }
  return [...cases.values()];
}

/** Conditions of the preprocessor that are not just one processor would need a thought. */
function follow(line, conditions) {
  const processor = /^\s*#\s*ifdef\s+__(x86_64|aarch64)__\s*$/.exec(line)?.[1];
  if (processor) conditions.push(processor);
  else if (!/^\s*#\s*endif\b/.test(line) || conditions.pop() === undefined)
    throw new Error(`in main: ${line.trim()} is not understood`);
}

/** One line a case, as they stand in a list. */
export function caseLines(source) {
  return casesOf(source).map(({ name, arch }) => (arch ? `${name} ${arch}` : name));
}

/** Where a test's list is. */
export function listOf(name) {
  return join(ROOT, 'crates/core/selftests', `${name}.txt`);
}

/** A list's lines, comments apart. */
export function readCases(name) {
  return readFileSync(listOf(name), 'utf8')
    .split('\n')
    .filter(line => line !== '' && !line.startsWith('#'));
}

/** A test's C source in the cache: `{ version, text }`, or undefined. */
export function sourceOf(name, found = cachedSource()) {
  const file = found && join(found.dir, 'tools/testing/selftests/kvm', `${name}.c`);
  return file && existsSync(file) ? { version: found.version, text: readFileSync(file, 'utf8') } : undefined;
}
