/** What this process holds that a VM may leave behind. */

import { readdirSync, readFileSync } from 'node:fs';

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

function sizeOf(line: string): number {
  const [from = '0', to = '0'] = (line.split(' ')[0] ?? '').split('-');
  return Number.parseInt(to, 16) - Number.parseInt(from, 16);
}
