/**
 * Registers by name, for both architectures. The addon gives and takes lists; its names are the same words, in Rust's
 * spelling: `apic_base` there is `apicBase` here.
 */

import { integer, invalid, options, uint64 } from './check.ts';
import { TypevisorError } from './errors.ts';
import type { NativeRegisters, NativeScalar, NativeSegment, NativeTable } from './native.ts';

/** 64-bit registers of x86_64: general, control, and the two model-specific ones that decide the mode. */
// oxfmt-ignore
const X86_SCALARS = [
  'rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rsp', 'rbp', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15',
  'rip', 'rflags', 'cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer', 'apicBase',
] as const;

/** Segment registers of x86_64, hidden parts included. */
const X86_SEGMENTS = ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr', 'ldt'] as const;

/** Descriptor tables of x86_64. */
const X86_TABLES = ['gdt', 'idt'] as const;

/**
 * Registers of aarch64: the core group of KVM_GET_ONE_REG, `sp` being that of EL0, and of the system registers those
 * that a boot sets or an exception leaves.
 */
// oxfmt-ignore
const AARCH64_SCALARS = [
  'x0', 'x1', 'x2', 'x3', 'x4', 'x5', 'x6', 'x7', 'x8', 'x9', 'x10', 'x11', 'x12', 'x13', 'x14', 'x15', 'x16', 'x17',
  'x18', 'x19', 'x20', 'x21', 'x22', 'x23', 'x24', 'x25', 'x26', 'x27', 'x28', 'x29', 'x30', 'sp', 'pc', 'pstate',
  'spEl1', 'elrEl1', 'spsrEl1', 'spsrAbt', 'spsrUnd', 'spsrIrq', 'spsrFiq',
  'sctlrEl1', 'cpacrEl1', 'ttbr0El1', 'ttbr1El1', 'tcrEl1', 'mairEl1', 'vbarEl1', 'esrEl1', 'farEl1',
  'tpidrEl0', 'tpidrroEl0', 'tpidrEl1',
] as const;

/** A segment register of x86_64 with its hidden part, as `struct kvm_segment` has it. */
export interface Segment {
  readonly base: bigint;
  /** Bytes, minus one. */
  readonly limit: number;
  readonly selector: number;
  readonly type: number;
  readonly present: boolean;
  /** Privilege level, 0 to 3. */
  readonly dpl: number;
  readonly db: boolean;
  readonly s: boolean;
  readonly l: boolean;
  readonly g: boolean;
  readonly avl: boolean;
  readonly unusable: boolean;
}

/** A descriptor table of x86_64. */
export interface DescriptorTable {
  readonly base: bigint;
  /** Bytes, minus one. */
  readonly limit: number;
}

type X86Scalars = Readonly<Record<(typeof X86_SCALARS)[number], bigint>>;
type X86Segments = Readonly<Record<(typeof X86_SEGMENTS)[number], Segment>>;
type X86Tables = Readonly<Record<(typeof X86_TABLES)[number], DescriptorTable>>;
type Aarch64Scalars = Readonly<Record<(typeof AARCH64_SCALARS)[number], bigint>>;

/** Names of the other architecture are known to be absent: `registers.rax` reads as `bigint | undefined`. */
type Absent<T> = { readonly [Name in keyof T]?: never };

interface Common<Arch extends string> {
  /** Tells the two apart. */
  readonly arch: Arch;
  /**
   * The last exit is not completed: an `in` or an MMIO read whose value is not in its register yet, a string
   * instruction half done. Values are raw then; `await vcpu.settle()` first where that matters.
   */
  readonly pending: boolean;
}

/** Registers of an x86_64 vCPU. */
export type X86Registers = Common<'x86_64'> & X86Scalars & X86Segments & X86Tables & Absent<Aarch64Scalars>;

/** Registers of an aarch64 vCPU. */
export type Aarch64Registers = Common<'aarch64'> & Aarch64Scalars & Absent<X86Scalars & X86Segments & X86Tables>;

/** Registers of a vCPU, told apart by `arch`; values are `bigint`. */
export type Registers = X86Registers | Aarch64Registers;

/** Any of these; `undefined` is as good as absent. */
type Some<T> = { readonly [Name in keyof T]?: T[Name] | undefined };

/** What to change in an x86_64 vCPU: of a segment or table only the parts that change. */
export type X86RegistersUpdate = Some<Common<'x86_64'> & X86Scalars> & {
  readonly [Name in keyof X86Segments]?: Some<Segment> | undefined;
} & { readonly [Name in keyof X86Tables]?: Some<DescriptorTable> | undefined };

/**
 * What to change in a vCPU. All that `getRegisters` gives is accepted; `arch` has to match, `pending` is ignored, and
 * what is `undefined` stays as it is.
 */
export type RegistersUpdate = X86RegistersUpdate | Some<Common<'aarch64'> & Aarch64Scalars>;

type Named = Readonly<Record<string, unknown>>;

/** Largest value of each number in a segment; the rest is `base` and flags. */
const SEGMENT_LIMITS: Readonly<Record<string, number>> = { limit: 0xffff_ffff, selector: 0xffff, type: 15, dpl: 3 };
const SEGMENT_FLAGS: readonly string[] = ['present', 'db', 's', 'l', 'g', 'avl', 'unusable'];
const SEGMENT_FIELDS: readonly string[] = ['base', ...Object.keys(SEGMENT_LIMITS), ...SEGMENT_FLAGS];
const TABLE_LIMITS: Readonly<Record<string, number>> = { limit: 0xffff };

/** The public form of what the addon read, frozen to the last segment. */
export function fromNative(native: NativeRegisters): Registers {
  const nested = [...native.segments, ...native.tables].map(({ name, ...fields }) => [name, Object.freeze(fields)]);
  const scalars = native.scalars.map(({ name, value }) => [camelCase(name), value]);
  const arch = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
  const registers = { arch, pending: native.pending, ...Object.fromEntries(scalars), ...Object.fromEntries(nested) };
  return Object.freeze(registers);
}

/**
 * What the addon is to set. `current` is asked only where a segment or table is changed in part.
 *
 * @throws {TypevisorError} `ERR_INVALID_ARGUMENT` for a register this architecture does not have or a value of the
 *   wrong type, `ERR_OUT_OF_RANGE` for one that does not fit.
 */
export function toNative(update: RegistersUpdate, current: () => NativeRegisters): NativeRegisters {
  const onArm = process.arch === 'arm64';
  const scalarNames: readonly string[] = onArm ? AARCH64_SCALARS : X86_SCALARS;
  const segmentNames: readonly string[] = onArm ? [] : X86_SEGMENTS;
  const tableNames: readonly string[] = onArm ? [] : X86_TABLES;
  const all = ['arch', 'pending', ...scalarNames, ...segmentNames, ...tableNames];
  const entries = given(update, 'registers', all);
  refuseOtherArch(update, onArm ? 'aarch64' : 'x86_64');
  const pick = (names: readonly string[]): [string, unknown][] => entries.filter(([name]) => names.includes(name));
  const scalars = pick(scalarNames).map(([name, value]): NativeScalar => ({
    name: snakeCase(name),
    value: uint64(value, name),
  }));
  const segments = pick(segmentNames).map(([name, value]) => checkFields(name, value, SEGMENT_FIELDS, SEGMENT_LIMITS));
  const tables = pick(tableNames).map(([name, value]) => checkFields(name, value, ['base', 'limit'], TABLE_LIMITS));
  if (segments.length === 0 && tables.length === 0) return { scalars, segments: [], tables: [], pending: false };
  const now = current();
  return { scalars, segments: merge(now.segments, segments), tables: merge(now.tables, tables), pending: false };
}

function camelCase(name: string): string {
  return name.replaceAll(/_(\w)/gu, (_, letter: string) => letter.toUpperCase());
}

function snakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/gu, letter => `_${letter.toLowerCase()}`);
}

function refuseOtherArch(update: RegistersUpdate, arch: string): void {
  if (update.arch === undefined || update.arch === arch) return;
  throw new TypevisorError('ERR_INVALID_ARGUMENT', `these are registers of ${update.arch}, and this vCPU is ${arch}`);
}

/** What is given of those fields, read once. */
function given(value: unknown, name: string, fields: readonly string[]): [string, unknown][] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(name, 'an object', value);
  const entries = Object.entries(options<Named>({ ...value }, name, fields));
  return entries.filter(([, part]) => part !== undefined);
}

/** The changed parts of a segment or table, each checked. */
function checkFields(
  register: string,
  value: unknown,
  fields: readonly string[],
  limits: Readonly<Record<string, number>>,
): Named {
  const changed = given(value, register, fields);
  for (const [field, part] of changed) {
    const name = `${register}.${field}`;
    const max = limits[field];
    if (field === 'base') uint64(part, name);
    else if (max !== undefined) integer(part, name, 0, max);
    else if (typeof part !== 'boolean') throw invalid(name, 'true or false', part);
  }
  return { name: register, ...Object.fromEntries(changed) };
}

function merge<T extends NativeSegment | NativeTable>(current: readonly T[], changes: readonly Named[]): T[] {
  return changes.flatMap(change => {
    const before = current.find(({ name }) => name === change['name']);
    return before === undefined ? [] : [{ ...before, ...change }];
  });
}
