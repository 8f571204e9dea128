/** What vCPUs of x86_64 answer to the instruction CPUID. Which entries go together is the core's to say. */

import { integer, invalid, options } from './check.ts';
import type { NativeCpuidEntry } from './native-vcpu.ts';

/**
 * One answer of CPUID: what a guest gets that asks for a leaf (`eax` when it executes `cpuid`) and, where the entry has an
 * `index`, for a subleaf (`ecx`). All are 32 bits wide. (`struct kvm_cpuid_entry2`, api.rst 4.46; what the leaves mean: Intel
 * SDM, volume 2, "CPUID", and AMD APM, volume 3, appendix E)
 */
export interface CpuidEntry {
  /** The leaf. */
  readonly function: number;
  /** The subleaf, of a leaf that has them. Absent: the entry answers whatever `ecx` is. */
  readonly index?: number | undefined;
  /** What the guest gets in `eax`. */
  readonly eax: number;
  /** What it gets in `ebx`. */
  readonly ebx: number;
  /** What it gets in `ecx`. */
  readonly ecx: number;
  /** What it gets in `edx`. */
  readonly edx: number;
}

const FIELDS = ['function', 'index', 'eax', 'ebx', 'ecx', 'edx'];
const UINT32_MAX = 2 ** 32 - 1;

/** Frozen copies of what the addon delivered. */
export function cpuidFrom(entries: readonly NativeCpuidEntry[]): readonly CpuidEntry[] {
  return Object.freeze(
    entries.map(({ index, ...entry }) => Object.freeze(index === null ? entry : { ...entry, index })),
  );
}

/** What the addon is given. */
export function cpuidRequest(value: unknown): NativeCpuidEntry[] {
  if (!Array.isArray(value)) throw invalid('cpuid', 'an array', value);
  return Array.from(value, (entry: CpuidEntry, at) => entryRequest(entry, `cpuid[${at}]`));
}

function entryRequest(value: CpuidEntry, name: string): NativeCpuidEntry {
  const given = options<CpuidEntry>(value, name, FIELDS);
  const number = (field: keyof CpuidEntry): number => integer(given[field], `${name}.${field}`, 0, UINT32_MAX);
  return {
    function: number('function'),
    index: given.index === undefined ? null : number('index'),
    eax: number('eax'),
    ebx: number('ebx'),
    ecx: number('ecx'),
    edx: number('edx'),
  };
}
