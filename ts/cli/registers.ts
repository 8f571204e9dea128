/** Registers as text, for a guest that ended where it should not. */

import type { Registers } from '../registers.ts';

const PER_LINE = 3;

/** 64-bit registers three a line, then segments; at most 80 columns. */
export function registerLines(registers: Readonly<Registers>): string[] {
  const all = Object.entries(registers);
  const words = all.flatMap(([name, value]) =>
    typeof value === 'bigint' ? [`${name.padStart(8)} ${digits(value)}`] : [],
  );
  const segments = all.flatMap(([name, value]) =>
    typeof value === 'object' && 'selector' in value
      ? [`${name.padStart(8)} ${value.selector.toString(16).padStart(4, '0')} base ${digits(value.base)}`]
      : [],
  );
  return [...inLines(words, PER_LINE), ...inLines(segments, 2)];
}

function digits(value: bigint): string {
  return value.toString(16).padStart(16, '0');
}

function inLines(cells: readonly string[], count: number): string[] {
  return cells.flatMap((_, index) => (index % count === 0 ? [cells.slice(index, index + count).join(' ')] : []));
}
