// A machine's list of expected skips (scripts/machines/NAME.txt): with it, a skip too many or too few is a failure.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './paths.mjs';
import { Stop } from './say.mjs';

const FOLDER = join(ROOT, 'scripts/machines');

/** One skip as it is printed, and as it stands in a list: `suite: title (reason)`. */
export function skipLine(suite, { title, reason }) {
  return `${suite}: ${title} (${reason})`;
}

/** A list's lines; comments and blank lines are for people, `@NAME` stands for all lines of another list. */
export function parseList(text, readOther = readList) {
  const lines = text.split('\n').map(line => line.trim());
  const said = lines.filter(line => line !== '' && !line.startsWith('#'));
  return said.flatMap(line => (line.startsWith('@') ? readOther(line.slice(1)) : [line]));
}

/** Where what was skipped differs from the list: one line each, empty where they agree. */
export function differences(expected, actual) {
  const [wanted, got] = [new Set(expected), new Set(actual)];
  return [
    ...actual.filter(line => !wanted.has(line)).map(line => `skipped, but not in the list: ${line}`),
    ...expected.filter(line => !got.has(line)).map(line => `in the list, but not skipped: ${line}`),
  ];
}

/** The list of the machine called `name`. */
export function readList(name) {
  try {
    return parseList(readFileSync(join(FOLDER, `${name}.txt`), 'utf8'));
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    const known = readdirSync(FOLDER).map(file => file.replace(/\.txt$/, ''));
    throw new Stop(`scripts/machines/${name}.txt: no such list of skips (there are: ${known.join(', ')})`, 2);
  }
}
