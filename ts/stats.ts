/** What a VM or a vCPU has cost, as plain frozen data. What is counted, and how, is the core's. */

import type { Exit } from './exit.ts';
import type { NativeExitCount, NativeStat, NativeStats } from './native-stats.ts';

const UNITS = ['none', 'bytes', 'seconds', 'cycles', 'boolean'] as const;

/** What a statistic counts; `'none'`: events, or what its name says. `'unknown'`: this version does not know it. */
export type KvmStatUnit = (typeof UNITS)[number] | 'unknown';

const BASES = [2, 10] as const;

interface Scaled {
  readonly unit: KvmStatUnit;
  /** The unit is scaled by `base ** exponent`; absent where this version does not know it. */
  readonly base?: (typeof BASES)[number];
  readonly exponent: number;
}

/**
 * One of KVM's statistics. Its unit is `unit` times `base ** exponent`: seconds, 10 and -9 are nanoseconds.
 *
 * - `'cumulative'` only grows, `'instant'` is as it is now, `'peak'` is the highest so far: one value.
 * - `'linear-hist'`: a histogram, one value a bucket, each the number of its samples. A bucket is `bucketSize` wide, in the
 *   statistic's unit; the last has no end.
 * - `'log-hist'`: the same with samples below 1, below 2, below 4 and so on.
 * - `'unknown'`: a kind that this version of Typevisor does not know, with all its values.
 *
 * (api.rst 4.133, `struct kvm_stats_desc`)
 */
export type KvmStat =
  | (Scaled & { readonly kind: 'cumulative' | 'instant' | 'peak'; readonly value: bigint })
  | (Scaled & { readonly kind: 'linear-hist'; readonly bucketSize: number; readonly value: readonly bigint[] })
  | (Scaled & { readonly kind: 'log-hist' | 'unknown'; readonly value: readonly bigint[] });

/** A number for each kind of exit that there has been; one that has not been is absent. */
export type ByExitKind = { readonly [kind in Exit['kind']]?: number };

/** Where the time went, in milliseconds. */
export interface ExitTime {
  /** In `KVM_RUN`: in the guest, and in the kernel on its behalf. An entry adds its time when it ends. */
  readonly guestMs: number;
  /**
   * From exits to the entries that followed, whoever dealt with them: a device in Rust, JavaScript, or the program between
   * two runs; a pause or a change of memory that the entry waited for counts with it. A run that was stopped is no exit to deal with.
   */
  readonly handlerMs: number;
  /** The same by the kind of the exit. */
  readonly handlerMsByKind: ByExitKind;
}

/** What a VM or a vCPU has cost so far: {@link Vm.stats}, {@link Vcpu.stats}. */
export interface Stats {
  /**
   * KVM's own statistics by the kernel's name of them, as `exits`, `halt_wait_ns` or `blocking` of a vCPU. Which there are
   * depends on the kernel and its architecture; they are no interface of Typevisor's. `undefined` where KVM has none: they
   * need Linux 5.14 (capability `binary-stats-fd`, api.rst 4.133).
   */
  readonly kvm?: Readonly<Record<string, KvmStat>>;
  /**
   * Every exit that `KVM_RUN` brought, whoever dealt with it: a device in Rust, one in JavaScript, a handler, the program. What
   * KVM does by itself is none: posted writes that it gathers, eventfds, its interrupt controllers. `intr` counts runs that
   * were stopped, by a kick, an abort or a time limit.
   */
  readonly exits: ByExitKind;
  /** Only where the VM was made with `timing: true`. */
  readonly time?: ExitTime;
}

/** As the program gets it. */
export function statsFrom({ kvm, exits, guestMs }: NativeStats): Stats {
  return Object.freeze<Stats>({
    ...(kvm === null ? {} : { kvm: Object.freeze(Object.fromEntries(kvm.map(stat => [stat.name, statFrom(stat)]))) }),
    exits: Object.freeze(Object.fromEntries(exits.map(({ kind, count }) => [kind, count]))),
    ...(guestMs === null ? {} : { time: timeFrom(guestMs, exits) }),
  });
}

function timeFrom(guestMs: number, exits: readonly NativeExitCount[]): ExitTime {
  const times = exits.map(({ kind, handlerMs }) => [kind, handlerMs ?? 0] as const);
  return Object.freeze<ExitTime>({
    guestMs,
    handlerMs: times.reduce((sum, [, time]) => sum + time, 0),
    handlerMsByKind: Object.freeze(Object.fromEntries(times)),
  });
}

function statFrom({ kind, unit, base, exponent, bucketSize, values }: NativeStat): KvmStat {
  const known = BASES.find(one => one === base);
  const scaled: Scaled = {
    unit: UNITS.find(one => one === unit) ?? 'unknown',
    ...(known === undefined ? {} : { base: known }),
    exponent,
  };
  const [value] = values;
  if (value !== undefined && (kind === 'cumulative' || kind === 'instant' || kind === 'peak')) {
    return Object.freeze<KvmStat>({ kind, ...scaled, value });
  }
  const all = Object.freeze(values);
  if (kind === 'linear-hist' && bucketSize !== null) {
    return Object.freeze<KvmStat>({ kind, ...scaled, bucketSize, value: all });
  }
  return Object.freeze<KvmStat>({ kind: kind === 'log-hist' ? kind : 'unknown', ...scaled, value: all });
}
