/** Names that are written down twice, in the facade's types and in the core: the two lists are one. */

import { readFileSync } from 'node:fs';
import test from 'ava';
import { path } from '../helpers/child.ts';

/** The strings of a list in the facade. */
function ofFacade(file: string, list: string): string[] {
  const text = readFileSync(path(file), 'utf8');
  return strings(new RegExp(`const ${list} = \\[([^\\]]*)\\] as const`, 'u').exec(text)?.[1], /'([^']+)'/gu);
}

/** The names in a table of the core: what is in a line's first quotes. */
function ofCore(file: string, macro: string): string[] {
  const text = readFileSync(path(file), 'utf8');
  return strings(new RegExp(`^${macro}! \\{\\n([^]*?)^\\}`, 'mu').exec(text)?.[1], /^ {4}\w+(?: = \d+)?, "([^"]+)"/gmu);
}

function strings(text: string | undefined, each: RegExp): string[] {
  return Array.from((text ?? '').matchAll(each), ([, name = '']) => name).toSorted();
}

test('features of a vCPU are those that the core knows', t => {
  const names = ofFacade('ts/vcpu-options.ts', 'FEATURES');
  t.deepEqual(names, ofCore('crates/core/src/vcpu/features.rs', 'features'));
  t.true(names.includes('psci-0.2') && names.length === 6, 'the lists were found');
});

test('system events are those that the core knows', t => {
  const names = ofFacade('ts/exit.ts', 'SYSTEM_EVENTS');
  t.deepEqual(names, ofCore('crates/core/src/exit/system_event.rs', 'events'));
  t.true(names.includes('shutdown') && names.length === 7, 'the lists were found');
});
