import { existsSync, readFileSync } from 'node:fs';
import test from 'ava';
import { path } from '../helpers/child.ts';

/** What napi-rs declares for the functions of the module is a class of our own making in ts/native.ts. */
const MODULE = 'Binding';

/** Members of each interface, class or union, in the order of the files, whitespace and comments aside. */
function declarations(...files: readonly string[]): Map<string, string[]> {
  const text = files
    .map(file => readFileSync(path(file), 'utf8'))
    .join('\n')
    .replaceAll(/\/\*[^]*?\*\//gu, '')
    .replaceAll(/\(\n\s+(.*?),?\n\s*\)/gsu, '($1)') // what the formatter broke into lines
    .replaceAll(
      /\| \{\n([^{}]*?);?\n\s+\}/gu,
      (_, fields: string) => `| { ${fields.trim().split(/\n\s+/u).join(' ')} }`,
    );
  const found = new Map<string, string[]>();
  for (const [, name = '', body = ''] of text.matchAll(/export (?:declare class|interface) (\w+) \{\n([^]*?)\n\}/gu)) {
    found.set(
      name,
      body
        .split('\n')
        .filter(line => line.trim() !== '')
        .map(normal),
    );
  }
  for (const [, name = '', body = ''] of text.matchAll(/export type (\w+) =((?:\s*\|.*)+)/gu)) {
    found.set(name, body.trim().split('\n').map(normal));
  }
  const functions = Array.from(text.matchAll(/export declare function (.*)/gu), ([, line = '']) => normal(line));
  if (functions.length > 0) found.set(MODULE, functions);
  return found;
}

/** One spelling for what both sides spell differently. */
function normal(line: string): string {
  return line
    .trim()
    .replace(/;$/u, '')
    .replaceAll(/Outcome<(Array<\w+>|\w+)>/gu, 'Failure | $1')
    .replaceAll(/Array<(\w+)>/gu, '$1[]')
    .replaceAll('path?: string | undefined | null', 'path: string | null');
}

const OURS = ['ts/native.ts', 'ts/native-stats.ts', 'ts/native-switches.ts', 'ts/native-vcpu.ts'];
const GENERATED = 'native/binding.d.cts';
const title = 'native: ts/native.ts and its parts declare what the addon does, member by member and in order';

if (existsSync(path(GENERATED))) {
  test(title, t => {
    const [ours, generated] = [declarations(...OURS), declarations(GENERATED)];
    t.deepEqual([...ours.keys()].toSorted(), [...generated.keys()].toSorted());
    for (const [name, members] of ours) {
      if (name !== MODULE) t.deepEqual(members, generated.get(name), name);
    }
    // Functions come in alphabetical order, and a test build has hooks besides.
    const functions = generated.get(MODULE)?.filter(line => !line.startsWith('panic'));
    t.deepEqual(ours.get(MODULE)?.toSorted(), functions?.toSorted());
  });
} else {
  test.skip(`${title} (needs ${GENERATED})`, t => t.pass());
}
