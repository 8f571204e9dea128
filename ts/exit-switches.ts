/** Which exits a VM is made with beyond those of every VM, and which it does without. */

import { boolean, byteArray, integer, invalid, oneOf, options, quiet, someOf } from './check.ts';
import { MSR_REASONS } from './exit-x86.ts';
import type { NativeExitSwitches, NativeMsrExits, NativeMsrRange } from './native-switches.ts';

/**
 * What becomes an exit that KVM would deal with by itself, and what the guest does without any. Each needs a capability of
 * the VM, and without it is `ERR_CAPABILITY_MISSING`, with the first kernel that has it in `since`. All is checked before KVM
 * is told of anything.
 *
 * @example
 * // mov ecx, 0x12345678 (a register that KVM does not know); rdmsr; hlt
 * const code = [0x66, 0xb9, 0x78, 0x56, 0x34, 0x12, 0x0f, 0x32, 0xf4];
 * using vm = Vm.create({ exits: { msr: true } });
 * vm.memory.map({ gpa: 0x1000, size: 4 * KiB });
 * vm.memory.write(0x1000, Uint8Array.from(code));
 * const vcpu = vm.createVcpu();
 * vcpu.boot({ mode: 'real', entry: 0x1000 });
 * await vcpu.run(); // { kind: 'rdmsr', reason: 'unknown', reasonBits: 2, index: 0x1234_5678 }
 * vcpu.answer(42n);
 * await vcpu.run(); // { kind: 'hlt' }, and rax is 42
 */
export interface ExitSwitches {
  /**
   * Accesses to model-specific registers that KVM refuses are `rdmsr` and `wrmsr` exits, and no `#GP` of the guest's. `true`
   * for all that it refuses by itself. Capability `x86-user-space-msr` (Linux 5.10, x86_64; api.rst 7.21). Default `false`.
   */
  readonly msr?: boolean | MsrExits | undefined;
  /**
   * Hypercalls that are `hypercall` exits; the guest gets `-KVM_ENOSYS` otherwise. Capability `exit-hypercall` (Linux 5.14,
   * x86_64; api.rst 7.40), whose value has a bit for each by its number. Default none.
   */
  readonly hypercalls?: readonly ExitingHypercall[] | undefined;
  /**
   * An instruction in user mode that KVM cannot emulate is an `internal-error` with its bytes, as it is in kernel mode
   * anyway, and no `#UD` of the guest's. Capability `exit-on-emulation-failure` (Linux 5.14, x86_64; api.rst 7.27). Default
   * `false`.
   */
  readonly emulationFailure?: boolean | undefined;
  /**
   * What the guest does alone, for vCPUs with a processor of their own, which they keep from others. Capability
   * `x86-disable-exits` (x86_64; api.rst 7.13), whose value says which of them there are. Default none.
   */
  readonly disable?: readonly DisabledExit[] | undefined;
  /**
   * A guest that locks the bus makes a `bus-lock` exit. On Intel the instruction is done then, on AMD it is to come.
   * Capability `x86-bus-lock-exit` (Linux 5.12, x86_64, where the processor tells; api.rst 7.22). Default `false`.
   */
  readonly busLock?: boolean | undefined;
  /**
   * A guest that keeps all events out for too long makes a `notify` exit. Capability `x86-notify-vmexit` (Linux 6.0, Intel;
   * api.rst 7.33). Default: the processor stays with the guest.
   */
  readonly notify?: NotifyWindow | undefined;
  /**
   * Hypercalls of Xen's are `xen` exits: all that the guest makes, KVM's own with them. Capability `xen-hvm` with bit 1 of its value
   * (Linux 5.12, x86_64; api.rst 4.28). Default: none is.
   */
  readonly xen?: XenHypercalls | undefined;
  /**
   * An access to an address without memory by an instruction that the processor does not describe (`ldp`, `stp`, SIMD,
   * writeback) is an `arm-nisv` exit, and no `run-failed`. Capability `arm-nisv-to-user` (Linux 5.5, aarch64; api.rst section
   * 5, `KVM_EXIT_ARM_NISV`). Default `false`.
   */
  readonly nisv?: boolean | undefined;
}

/** Which accesses to model-specific registers are exits. */
export interface MsrExits {
  /**
   * Why KVM refuses those that are: an invalid value (`'inval'`), a register that it does not know (`'unknown'`), the filter
   * (`'filter'`). Others are a `#GP` of the guest's. Default all three.
   */
  readonly reasons?: readonly ('inval' | 'unknown' | 'filter')[] | undefined;
  /**
   * What is refused besides, or allowed: up to 16 ranges, of which no two say something of the same access. Capability
   * `x86-msr-filter` (Linux 5.10; api.rst 4.97). KVM never filters the registers of the x2APIC, 0x800 to 0x8ff, nor what an
   * instruction does on the side (`rdpid`, `sysenter`). Default: no filter.
   */
  readonly filter?: readonly MsrFilterRange[] | undefined;
  /** What becomes of the registers in none of the ranges; `'deny'` needs at least one. Default `'allow'`. */
  readonly others?: 'allow' | 'deny' | undefined;
}

/** Some model-specific registers in a row, and what becomes of accesses to them. */
export interface MsrFilterRange {
  /** The first register. */
  readonly base: number;
  /** How many: 1 to 12,288, of which the last is numbered 2^32 - 2 at most. */
  readonly count: number;
  /** This is about reads. Default `true`. */
  readonly read?: boolean | undefined;
  /** This is about writes. Default `true`. */
  readonly write?: boolean | undefined;
  /**
   * Whether they are KVM's to deal with, or refused. As bytes: for each register one bit, lowest first, and as many bytes as
   * they need. Default `false`.
   */
  readonly allow?: boolean | Uint8Array | undefined;
}

/** For how long a guest may keep all events out. */
export interface NotifyWindow {
  /** Ticks of the processor's crystal clock, to which the processor adds some of its own: 0 is fine. Up to 2^32 - 1. */
  readonly window: number;
}

/** How a Xen guest finds its hypercalls. */
export interface XenHypercalls {
  /**
   * The model-specific register by which it has KVM write a page of them, 0x4000_0000 to 0x4fff_ffff. Guests read its number in
   * the CPUID leaf 0x4000_0002, which is the program's to give (`createVcpu({ cpuid })`).
   */
  readonly msr: number;
}

const HYPERCALLS = ['map-gpa-range'] as const;

/**
 * A hypercall of KVM's own (`KVM_HC_*`) that can be an exit.
 *
 * - `'map-gpa-range'`: number 12; the guest, in kernel mode, wants memory to be private or shared. Its arguments are the guest
 *   physical address, a number of pages of 4 KiB, and attributes.
 */
export type ExitingHypercall = (typeof HYPERCALLS)[number];

const DISABLED = ['mwait', 'hlt', 'pause', 'cstate', 'aperfmperf'] as const;

/**
 * What a guest can be let to do alone, after `KVM_X86_DISABLE_EXITS_*` of the kernel's header.
 *
 * - `'mwait'`: `monitor` and `mwait`.
 * - `'hlt'`: the processor waits in the guest, and no `hlt` exit comes.
 * - `'pause'`: a guest that spins is not told to make room for others.
 * - `'cstate'`: reading how long the processor has slept (Intel).
 * - `'aperfmperf'`: reading `IA32_APERF` and `IA32_MPERF`, the host's own (Linux 6.17).
 */
export type DisabledExit = (typeof DISABLED)[number];

const FIELDS = ['msr', 'hypercalls', 'emulationFailure', 'disable', 'busLock', 'notify', 'xen', 'nisv'];
const MSR_FIELDS = ['reasons', 'filter', 'others'];
const RANGE_FIELDS = ['base', 'count', 'read', 'write', 'allow'];
const UINT32_MAX = 2 ** 32 - 1;

/** What the addon is asked for. Which of it goes together, and goes here, is the core's to say. */
export function exitRequest(value: ExitSwitches | undefined): NativeExitSwitches {
  const given = options<ExitSwitches>(value, 'exits', FIELDS);
  const { msr = false, hypercalls = [], emulationFailure = false, disable = [], busLock = false, nisv = false } = given;
  return {
    msr: msrExits(msr),
    hypercalls: someOf(hypercalls, 'exits.hypercalls', HYPERCALLS),
    emulationFailure: boolean(emulationFailure, 'exits.emulationFailure'),
    disable: someOf(disable, 'exits.disable', DISABLED),
    busLock: boolean(busLock, 'exits.busLock'),
    notify: given.notify === undefined ? null : notifyWindow(given.notify),
    xen: given.xen === undefined ? null : xenRegister(given.xen),
    nisv: boolean(nisv, 'exits.nisv'),
  };
}

function msrExits(value: boolean | MsrExits): NativeMsrExits | null {
  if (value === false) return null;
  const given = options<MsrExits>(value === true ? {} : value, 'exits.msr', MSR_FIELDS);
  const { reasons = MSR_REASONS, filter, others = 'allow' } = given;
  const denyOthers = oneOf(others, 'exits.msr.others', ['allow', 'deny']) === 'deny';
  return {
    reasons: someOf(reasons, 'exits.msr.reasons', MSR_REASONS),
    // Denying others is a filter, too, if one that the core refuses.
    filter: filter === undefined && !denyOthers ? null : filterRanges(filter ?? []),
    denyOthers,
  };
}

function filterRanges(value: unknown): NativeMsrRange[] {
  if (!Array.isArray(value)) throw invalid('exits.msr.filter', 'an array', value);
  return Array.from(value, (range: MsrFilterRange, index) => filterRange(range, `exits.msr.filter[${index}]`));
}

function filterRange(value: MsrFilterRange, name: string): NativeMsrRange {
  const { base, count, read = true, write = true, allow = false } = options<MsrFilterRange>(value, name, RANGE_FIELDS);
  return {
    base: integer(base, `${name}.base`, 0, UINT32_MAX),
    count: integer(count, `${name}.count`, 0, UINT32_MAX),
    read: boolean(read, `${name}.read`),
    write: boolean(write, `${name}.write`),
    allow: allow === true,
    bitmap: typeof allow === 'boolean' ? null : quiet(byteArray(allow, `${name}.allow`)),
  };
}

function xenRegister(value: XenHypercalls): number {
  const { msr } = options<XenHypercalls>(value, 'exits.xen', ['msr']);
  return integer(msr, 'exits.xen.msr', 0, UINT32_MAX);
}

function notifyWindow(value: NotifyWindow): number {
  const { window } = options<NotifyWindow>(value, 'exits.notify', ['window']);
  return integer(window, 'exits.notify.window', 0, UINT32_MAX);
}
