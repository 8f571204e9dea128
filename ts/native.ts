// The shape of the addon, field by field in the order of `crates/node`, as a test demands. It converts and decides nothing:
// failures travel as values, absent is `null`, and every argument has been checked before it gets here.

import type { NativeStats } from './native-stats.ts';
import type { NativeExitSwitches } from './native-switches.ts';
import type { NativeCpuidEntry, NativeRunFlags, NativeVcpuOptions } from './native-vcpu.ts';

/** Why a call failed. {@link unwrap} in errors.ts is the only door from here to `TypevisorError`. */
export interface Failure {
  failed: boolean;
  code: string;
  message: string;
  /** Negative, as Node has it. */
  errno: number | null;
  syscall: string | null;
  capability: string | null;
  since: string | null;
}

/** A range of guest physical addresses, in bytes. */
export interface NativeRange {
  gpa: number;
  size: number;
}

export interface NativeCapability {
  name: string;
  number: number;
  value: number;
  meaning: string;
  since: string;
}

export interface NativeCheck {
  id: string;
  title: string;
  status: string;
  detail: string;
  remedy: string | null;
}

export interface NativeDoctorReport {
  usable: boolean;
  /** Name and value, in the order to show them. */
  facts: NativeFact[];
  checks: NativeCheck[];
}

export interface NativeFact {
  name: string;
  value: string;
}

export type NativeExit =
  | { kind: 'io'; out: boolean; port: number; size: number; count: number; data: Uint8Array }
  | { kind: 'mmio'; write: boolean; gpa: number; size: number; data: Uint8Array }
  | { kind: 'hlt' }
  | { kind: 'intr' }
  | { kind: 'shutdown' }
  | { kind: 'fail-entry'; reason: bigint; cpu: number }
  | {
      kind: 'internal-error';
      suberror: number;
      name: string;
      data: bigint[];
      flags: bigint | null;
      instruction: Uint8Array | null;
    }
  | { kind: 'system-event'; event: string; type: number; data: bigint[]; flags: bigint | null }
  | { kind: 'hypercall'; nr: bigint; args: bigint[] | null; flags: bigint }
  | { kind: 'debug'; exception: number; pc: bigint; dr6: bigint | null; dr7: bigint | null }
  | { kind: 'debug-arm'; hsr: bigint; far: bigint | null }
  | { kind: 'exception'; exception: number; errorCode: number }
  | { kind: 'irq-window-open' }
  | { kind: 'set-tpr'; cr8: bigint }
  | { kind: 'tpr-access'; rip: bigint; write: boolean }
  | { kind: 'nmi' }
  | { kind: 'ioapic-eoi'; vector: number }
  | { kind: 'hyperv-synic'; msr: number; control: bigint; evtPage: bigint; msgPage: bigint }
  | { kind: 'hyperv-hcall'; input: bigint; params: bigint[] }
  | { kind: 'hyperv-syndbg'; msr: number; control: bigint; sendPage: bigint; recvPage: bigint; pendingPage: bigint }
  | { kind: 'hyperv-unknown'; number: number; bytes: Uint8Array }
  | { kind: 'xen-hcall'; longmode: boolean; cpl: number; input: bigint; params: bigint[] }
  | { kind: 'xen-unknown'; number: number; bytes: Uint8Array }
  | { kind: 'rdmsr'; reason: string; reasonBits: number; index: number }
  | { kind: 'wrmsr'; reason: string; reasonBits: number; index: number; data: bigint }
  | { kind: 'dirty-ring-full' }
  | { kind: 'bus-lock' }
  | { kind: 'ap-reset-hold' }
  | { kind: 'notify'; flags: number; contextInvalid: boolean }
  | {
      kind: 'memory-fault';
      gpa: number;
      size: number;
      flags: bigint;
      private: boolean;
      rwx: string | null;
      errno: number;
      cause: string;
    }
  | { kind: 'arm-nisv'; wide: boolean; esrIss: bigint; faultIpa: number }
  | { kind: 'arm-sea'; flags: bigint; esr: bigint; gva: bigint | null; gpa: number | null }
  | { kind: 'tdx'; flags: bigint; nr: bigint; ret: bigint; data: bigint[] }
  | { kind: 'snp-req-certs'; gpa: bigint; npages: bigint }
  | { kind: 'run-failed'; errno: number }
  | { kind: 'unknown'; reason: number; bytes: Uint8Array; hardwareReason: bigint | null };

export interface NativeScalar {
  name: string;
  value: bigint;
}

export interface NativeSegment {
  name: string;
  base: bigint;
  limit: number;
  selector: number;
  type: number;
  present: boolean;
  dpl: number;
  db: boolean;
  s: boolean;
  l: boolean;
  g: boolean;
  avl: boolean;
  unusable: boolean;
}

export interface NativeTable {
  name: string;
  base: bigint;
  limit: number;
}

/** Registers as lists; on aarch64 the last two are empty. To set: only what changes. */
export interface NativeRegisters {
  scalars: NativeScalar[];
  segments: NativeSegment[];
  tables: NativeTable[];
  /** The last exit is not completed: values are raw. Ignored when setting. */
  pending: boolean;
}

export interface NativeSlotInfo {
  slot: number;
  addressSpace: number;
  gpa: number;
  size: number;
  readonly: boolean;
  backing: string;
  dirtyLog: boolean;
  ioctl: string;
  /** Never used twice in a VM, as the slot's number is. */
  serial: number;
}

/** What was done to slots. */
export interface NativeDone {
  /** Those that were made, in order. */
  slots: NativeSlot[];
  /** Where it was asked for (`watched`), one for each step: the slot as it was made, or as it was before. */
  infos: NativeSlotInfo[];
  /** Where bytes were searched for: the places. */
  found: number[];
}

/** One per environment (main thread or worker). */
export interface Binding {
  /** Of the addon; it has to be that of the package. */
  version(): string;
  /** Every code the core can give. */
  errorCodes(): string[];
  /** What works on this machine, and why not. Never fails. */
  doctor(path: string | null): NativeDoctorReport;
  /** `deliver` is called on this thread with the number under which somebody waits: exits, jobs done, and wake-ups. */
  attach(
    deliver: (id: number, payload: Failure | NativeExit | NativeDone | null, claim: number) => void,
  ): Failure | NativeEnvironment;
}

export interface NativeEnvironment {
  openKvm(options: OpenOptions): Failure | NativeKvm;
}

export interface OpenOptions {
  path: string | null;
  hide: string[];
}

export interface NativeKvm {
  capabilities(): Failure | NativeCapability[];
  supportedCpuid(): Failure | NativeCpuidEntry[];
  supportedHypervCpuid(): Failure | NativeCpuidEntry[];
  createVm(options: VmOptions): Failure | NativeVm;
  close(): void;
}

export interface VmOptions {
  irqchip: boolean;
  timing: boolean;
  exits: NativeExitSwitches;
}

export interface NativeVm {
  capabilities(): NativeCapability[];
  memory(): NativeMemory;
  loadFirmware(image: Uint8Array): Failure | NativeFirmware;
  createVcpu(options: NativeVcpuOptions, mail: Uint32Array): Failure | NativeVcpu;
  setUnclaimed(options: NativeUnclaimed): Failure | null;
  /** Claims part of the bus. */
  claim(options: NativeClaimOptions): Failure | NativeClaim;
  /** Brings the vCPUs out of the guest; that they are is delivered under `id`, with `null`, or why not. */
  pause(id: number): Failure | null;
  /** Lets them go on. */
  resume(): Failure | null;
  stats(): Failure | NativeStats;
  close(): null;
  /** The same on another thread. */
  closeAsync(): Promise<null>;
}

export interface NativeMemory {
  map(options: NativeMapOptions): Failure | NativeSlot;
  /** The same where all but these has its default. */
  mapPlain(gpa: number, size: number, readonly: boolean, transparentHugePages: boolean): Failure | NativeSlot;
  /** All of it or nothing. */
  change(changes: NativeChange[], watched: boolean): Failure | NativeDone;
  slots(): Failure | NativeSlotInfo[];
  slotAt(gpa: number): Failure | NativeSlot | null;
  read(gpa: number, target: Uint8Array): Failure | null;
  write(gpa: number, bytes: Uint8Array): Failure | null;
  fill(gpa: number, size: number, byte: number): Failure | null;
  /** Where the bytes of `pattern` begin, the first `limit` of these places. */
  search(gpa: number, size: number, pattern: Uint8Array, limit: number): Failure | number[];
  /** The same memory through another address space. */
  addressSpace(id: number): Failure | NativeMemory;
  /** Does it on the VM's control thread; what it did to slots, or `null`, or why it failed is delivered under `id`. */
  start(id: number, job: NativeJob, watched: boolean): Failure | null;
}

export interface NativeMapOptions {
  gpa: number;
  size: number;
  readonly: boolean;
  slot: number | null;
  addressSpace: number | null;
  transparentHugePages: boolean;
  backing: NativeBacking;
}

export type NativeBacking =
  | { kind: 'anonymous' }
  | { kind: 'memfd' }
  | { kind: 'guest-memfd' }
  | { kind: 'hugetlb'; pageSize: number }
  | { kind: 'path'; path: string; offset: number; shared: boolean }
  | { kind: 'fd'; fd: number; offset: number; shared: boolean }
  | { kind: 'buffer'; bytes: Uint8Array }
  | { kind: 'share'; slot: NativeSlot; offset: number };

export type NativeChange =
  | { kind: 'map'; options: NativeMapOptions }
  | { kind: 'unmap'; slot: NativeSlot }
  | { kind: 'move'; slot: NativeSlot; gpa: number }
  | { kind: 'set-readonly'; slot: NativeSlot; readonly: boolean };

/** `target` is filled while the job lasts: nobody else may have it until then. */
export type NativeJob =
  | { kind: 'map'; options: NativeMapOptions }
  | { kind: 'unmap'; slot: NativeSlot }
  | { kind: 'move'; slot: NativeSlot; gpa: number }
  | { kind: 'change'; changes: NativeChange[] }
  | { kind: 'read'; gpa: number; target: Uint8Array }
  | { kind: 'write'; gpa: number; bytes: Uint8Array }
  | { kind: 'fill'; gpa: number; size: number; byte: number }
  | { kind: 'search'; gpa: number; size: number; pattern: Uint8Array; limit: number };

export interface NativeFirmware {
  rom: NativeRange;
  shadow: NativeRange;
}

export interface NativeUnclaimed {
  ports: string;
}

export interface NativeSlot {
  /** What KVM names it by: the address space in the upper 16 bits, its number in the lower. Numbers are used again. */
  id(): number;
  /** Never used twice, and greater than that of any slot before it. */
  serial(): number;
  info(): NativeSlotInfo;
  move(gpa: number): Failure | null;
  setReadonly(readonly: boolean): Failure | null;
  setDirtyLog(on: boolean): Failure | null;
  unmap(): Failure | null;
}

/** What to claim for whom; `id` is delivered (with `null`) when there is something to take, and names a program's claim. */
export interface NativeClaimOptions {
  mmio: boolean;
  base: number;
  size: number;
  owner: string;
  id: number;
  /** By which value an eventfd is rung. */
  value: bigint | null;
}

/** What posted writes have cost. */
export interface NativeClaimStats {
  writes: number;
  exits: number;
}

export interface NativeClaim {
  /** Bytes of a console since the last call. */
  takeBytes(): Uint8Array;
  /** Posted writes since the last call: offset, size, low and high half of the value, for each. */
  takeWrites(): Float64Array;
  /** Posted writes: with `true` no wake-up comes until `false`, after which the reader has to look once more. */
  look(quiet: boolean): void;
  /** Sends bytes to a serial console; gives how many it took. */
  send(bytes: Uint8Array): number;
  /** What a latch holds. */
  value(): bigint;
  /** What posted writes have cost so far; zeros for any other claim. */
  stats(): NativeClaimStats;
  /** Posted writes: puts what KVM has gathered so far where `takeWrites` finds it. */
  flush(): void;
  /** Whether KVM does what it can of it: gathers posted writes, rings an eventfd; not once released. */
  kernel(): boolean;
  /** The number of an eventfd; -1 once it is closed. */
  fd(): number;
  /** Gives the addresses back. What was written and not taken stays to be taken. */
  release(): void;
}

export interface NativeVcpu {
  id(): number;
  /** Runs on the vCPU's own thread; the outcome is delivered under `ticket`, which also names the run to `cancel`. */
  start(ticket: number): Failure | null;
  /** Completes the pending exit on the vCPU's thread; delivers a further exit, or `null` where nothing is pending. */
  settle(ticket: number): Failure | null;
  /** Stops that run and no other. */
  cancel(ticket: number): void;
  /** Begins a run on this thread, for that long in all; `syncEnd` has to follow. */
  syncBegin(timeoutMs: number): Failure | null;
  /**
   * A function that runs on, where it is given low and high half of an answer after answering the access in the mail. The
   * number of the claim whose access lies in the mail; 0, or the number negated: see `syncOutcome`.
   */
  syncStepper(): (low?: number, high?: number) => number;
  /** Answers an access of several elements, and runs on. */
  syncAnswerBytes(bytes: Uint8Array): number;
  /** After 0: what ends the run, or `null` where a queue is full. After a negative number: an access of several elements. */
  syncOutcome(): Failure | NativeExit | null;
  /** Ends the run where it stands. */
  syncEnd(): void;
  kick(): Failure | null;
  answer(value: bigint | Uint8Array): Failure | null;
  /** Makes the guest's instruction fault. */
  answerFault(): Failure | null;
  /** Beside the exit that was delivered last. */
  runFlags(): NativeRunFlags;
  registers(): Failure | NativeRegisters;
  setRegisters(some: NativeRegisters): Failure | null;
  boot(options: NativeBootOptions): Failure | NativeBoot;
  stats(): Failure | NativeStats;
  close(): null;
  /** The same on another thread. */
  closeAsync(): Promise<null>;
}

export interface NativeBootOptions {
  mode: string;
  user: boolean;
  entry: number;
  stack: number | null;
  tables: number | null;
}

export interface NativeBoot {
  tables: NativeRange | null;
  exceptions: NativeRange | null;
}
