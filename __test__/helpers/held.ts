/** What this process holds that a VM may leave behind. */

import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';

/** Counts of it. */
export interface Held {
  readonly fds: number;
  readonly threads: number;
  /** Mappings: of KVM's own, and of the sizes asked for. Those of V8 and the allocator are theirs. */
  readonly kvm: number;
}

/** Counts; a mapping of just `size` bytes is guest memory. */
export function held(size: number): Held {
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return {
    fds: readdirSync('/proc/self/fd').length,
    threads: readdirSync('/proc/self/task').length,
    kvm: maps.filter(line => line.includes('kvm') || sizeOf(line) === size).length,
  };
}

/** What `count` gives when it has given the same for 200 ms: see `settled`. */
export async function steady<T>(count: () => T): Promise<T> {
  let last = count();
  for (let same = 0, tries = 0; same < 10 && tries < 100; tries += 1) {
    await setTimeout(20);
    const now = count();
    same = isDeepStrictEqual(now, last) ? same + 1 : 0;
    last = now;
  }
  return last;
}

/**
 * What `count` gives when it has come back to `before`, or what it gives two seconds later. A thread that was joined is
 * still in /proc/self/task for a moment: the kernel wakes who waits for it before it takes it off the list.
 */
export async function settled<T>(before: T, count: () => T): Promise<T> {
  for (let tries = 0; tries < 100 && !isDeepStrictEqual(count(), before); tries += 1) await setTimeout(20);
  return count();
}

function sizeOf(line: string): number {
  const [from = '0', to = '0'] = (line.split(' ')[0] ?? '').split('-');
  return Number.parseInt(to, 16) - Number.parseInt(from, 16);
}
