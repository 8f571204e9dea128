/** `--stats`: how often each kind of exit came, and where the time went. */

import type { Exit } from '../exit.ts';

/** One kind of exit: how many, and the milliseconds that the guest ran before them and that their handling took. */
export interface ExitStatistics {
  readonly count: number;
  readonly guestMs: number;
  readonly handlerMs: number;
}

/** Counts exits. Guest time is from entry to delivery: a change of threads and what Rust serves meanwhile are in it. */
export class Statistics {
  readonly #byKind = new Map<Exit['kind'], { count: number; guestMs: number; handlerMs: number }>();

  /** One more exit. */
  add(kind: Exit['kind'], guestMs: number, handlerMs: number): void {
    const sum = this.#byKind.get(kind) ?? { count: 0, guestMs: 0, handlerMs: 0 };
    this.#byKind.set(kind, sum);
    sum.count += 1;
    sum.guestMs += guestMs;
    sum.handlerMs += handlerMs;
  }

  /** By kind, the most frequent first; times to the microsecond. */
  byKind(): Readonly<Record<string, ExitStatistics>> {
    const sorted = [...this.#byKind].toSorted(([, a], [, b]) => b.count - a.count);
    return Object.fromEntries(
      sorted.map(([kind, { count, guestMs, handlerMs }]) => [
        kind,
        { count, guestMs: toMicroseconds(guestMs), handlerMs: toMicroseconds(handlerMs) },
      ]),
    );
  }

  /** The same as a table, with its sum. */
  lines(): string[] {
    const rows = Object.entries(this.byKind());
    const sum = (of: (row: ExitStatistics) => number): number => rows.reduce((total, [, row]) => total + of(row), 0);
    const total = {
      count: sum(row => row.count),
      guestMs: sum(row => row.guestMs),
      handlerMs: sum(row => row.handlerMs),
    };
    const named: [string, ExitStatistics][] = [...rows, ['all', total]];
    const width = Math.max(...named.map(([kind]) => kind.length), 'exit'.length);
    const cells = named.map(([kind, { count, guestMs, handlerMs }]) => {
      const times = [guestMs, handlerMs].map(ms => `${ms.toFixed(3)} ms`.padStart(16));
      return `${kind.padEnd(width)}${String(count).padStart(10)}${times.join('')}`;
    });
    return [`${'exit'.padEnd(width)}     count        in guest      in handler`, ...cells];
  }
}

function toMicroseconds(milliseconds: number): number {
  return Math.round(milliseconds * 1000) / 1000;
}
