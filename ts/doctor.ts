/** What works on this machine, what does not, why, and the command that would fix it. */

import { invalid } from './check.ts';
import { call, TypevisorError } from './errors.ts';
import { native } from './loader.ts';
import type { NativeDoctorReport } from './native.ts';

/** One thing the doctor looked at. */
export interface DoctorCheck {
  /** Stable, for programs: `'device'`. */
  readonly id: string;
  readonly title: string;
  /**
   * `'missing'`: this kernel, processor or machine does not have it. `'limited'`: it is there, with less than there
   * could be. `'failed'`: it should work and does not.
   */
  readonly status: 'ok' | 'missing' | 'limited' | 'failed';
  /** What was found. */
  readonly detail: string;
  /** What to do about it; a command where there is one. */
  readonly remedy?: string;
}

/** What {@link doctor} found: plain frozen data. */
export interface DoctorReport {
  /** Whether VMs can be made and run here. */
  readonly usable: boolean;
  /** Kernel, processor and the like, in the order to show them. */
  readonly facts: readonly { readonly name: string; readonly value: string }[];
  readonly checks: readonly DoctorCheck[];
}

/**
 * Looks at this machine. Whatever is wrong with it is a finding, an addon that cannot be loaded too.
 *
 * @param path - The device to look at. Default `/dev/kvm`.
 * @throws {TypevisorError} `ERR_INVALID_ARGUMENT` for a path that is no string, and nothing else.
 * @example
 * const { usable, checks } = doctor();
 * if (!usable) for (const { title, detail, remedy } of checks) console.log(title, detail, remedy);
 */
export function doctor(path?: string): DoctorReport {
  if (path !== undefined && typeof path !== 'string') throw invalid('path', 'a string', path);
  return freeze(examine(path ?? null));
}

function examine(path: string | null): NativeDoctorReport {
  try {
    const addon = native();
    return call(() => addon.doctor(path));
  } catch (error) {
    if (!(error instanceof TypevisorError)) throw error;
    const addon = { id: 'addon', title: 'native addon', status: 'failed', detail: error.message, remedy: null };
    return { usable: false, facts: [], checks: [addon] };
  }
}

function freeze({ usable, facts, checks }: NativeDoctorReport): DoctorReport {
  const report = {
    usable,
    facts: Object.freeze(facts.map(fact => Object.freeze({ ...fact }))),
    checks: Object.freeze(
      checks.map(({ remedy, ...check }) => Object.freeze(remedy === null ? check : { ...check, remedy })),
    ),
  };
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- `status` is one of four words in the core's enum
  return Object.freeze(report) as DoctorReport;
}
