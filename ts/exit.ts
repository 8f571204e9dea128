/**
 * Why a vCPU stopped, as plain frozen data: the kinds that every architecture has, and the union of all. Those of one alone
 * are in exit-x86.ts and exit-aarch64.ts.
 */

import type { ArmLdst64bExit, ArmNisvExit, ArmSeaExit } from './exit-aarch64.ts';
import type {
  ApResetHoldExit,
  BusLockExit,
  ExceptionExit,
  HypervExit,
  IoapicEoiExit,
  IrqWindowOpenExit,
  NmiExit,
  NotifyExit,
  RdmsrExit,
  SetTprExit,
  SnpReqCertsExit,
  TdxExit,
  TprAccessExit,
  WrmsrExit,
  XenExit,
} from './exit-x86.ts';

/** Names of the kernel's header (`KVM_SYSTEM_EVENT_*`), in kebab-case. */
export const SYSTEM_EVENTS = ['shutdown', 'reset', 'crash', 'wakeup', 'suspend', 'sev-term', 'tdx-fatal'] as const;

/** What a guest asked of its machine. `'unknown'`: a number that this version of Typevisor does not know. */
export type SystemEvent = (typeof SYSTEM_EVENTS)[number] | 'unknown';

/**
 * The guest wrote to I/O ports (x86), or wants to read from them.
 *
 * `size` is the width of one access in bytes (1, 2 or 4), `count` how many a string instruction makes at once, and
 * `data` all of them, `size * count` bytes, little-endian. A read wants an answer of that many bytes:
 * `vcpu.answer(value)`.
 */
export type IoExit =
  | {
      readonly kind: 'io';
      readonly direction: 'out';
      readonly port: number;
      readonly size: number;
      readonly count: number;
      readonly data: Uint8Array;
    }
  | {
      readonly kind: 'io';
      readonly direction: 'in';
      readonly port: number;
      readonly size: number;
      readonly count: number;
    };

/**
 * The guest reached for an address behind which there is no memory, or wrote to a read-only slot.
 *
 * `gpa` and `size` (1 to 8) in bytes; `data` is `size` bytes, little-endian. A read wants an answer.
 *
 * On aarch64 the access is a load or store of one general register without writeback. Others (`ldp`, `stp`, SIMD) the
 * processor does not describe: they end in {@link RunFailedExit}.
 */
export type MmioExit =
  | {
      readonly kind: 'mmio';
      readonly direction: 'write';
      readonly gpa: number;
      readonly size: number;
      readonly data: Uint8Array;
    }
  | { readonly kind: 'mmio'; readonly direction: 'read'; readonly gpa: number; readonly size: number };

/**
 * The guest executed `hlt` (x86). With an in-kernel interrupt controller KVM waits instead, and so it does at a `wfi`
 * of aarch64, which never exits: without an interrupt controller it sleeps until a kick.
 */
export interface HltExit {
  readonly kind: 'hlt';
}

/** A kick stopped the vCPU; nothing happened in the guest. */
export interface IntrExit {
  readonly kind: 'intr';
}

/** The guest met a triple fault, or asked to be shut down (x86). */
export interface ShutdownExit {
  readonly kind: 'shutdown';
}

/** The processor refused to enter the guest. `reason` is the hardware's own word, `cpu` where it happened. */
export interface FailEntryExit {
  readonly kind: 'fail-entry';
  readonly reason: bigint;
  readonly cpu: number;
}

/** Names of the kernel's header (`KVM_INTERNAL_ERROR_*`), in kebab-case. */
export const INTERNAL_ERRORS = ['emulation', 'simul-ex', 'delivery-ev', 'unexpected-exit-reason'] as const;

/** Why KVM gave up. `'unknown'`: a number that this version of Typevisor does not know. */
export type InternalErrorName = (typeof INTERNAL_ERRORS)[number] | 'unknown';

/**
 * KVM could not go on. `suberror` is the kernel's number, `name` its name:
 *
 * - `'emulation'`: an instruction that its emulator does not know. From Linux 5.14 on `flags` says what of `data` is a
 *   promise (bit 0: the instruction's bytes), and `instruction` has those bytes, at most 15.
 * - `'simul-ex'`: an exception while another one was delivered, of which KVM can deliver neither.
 * - `'delivery-ev'`: an exit in the middle of delivering an event, as on an interrupt table without memory.
 * - `'unexpected-exit-reason'`: the processor left the guest for a reason that KVM does not know.
 *
 * `data` holds the kernel's words as they came, at most 16; but for `flags` and the instruction they are not an interface.
 * (api.rst section 5; `struct emulation_failure` in linux/kvm.h)
 *
 * @example
 * using vm = Vm.create();
 * vm.memory.map({ gpa: 0xffff_f000, size: 4 * KiB });
 * // pmaddwd mm0, cs:[0]: no memory is there, and KVM's emulator does not know the instruction
 * vm.memory.write(0xffff_fff0, Uint8Array.of(0x2e, 0x0f, 0xf5, 0x06, 0x00, 0x00));
 * const exit = await vm.createVcpu().run();
 * if (exit.kind === 'internal-error') console.log(exit.name, exit.instruction?.subarray(0, 6));
 */
export interface InternalErrorExit {
  readonly kind: 'internal-error';
  readonly suberror: number;
  readonly name: InternalErrorName;
  readonly data: readonly bigint[];
  readonly flags?: bigint;
  readonly instruction?: Uint8Array;
}

/**
 * The guest asked for power-off or reset, or reported a crash: by PSCI on aarch64 (with the vCPU feature `'psci-0.2'`),
 * by the Hyper-V MSRs on x86_64 (where the vCPU's `cpuid` has Hyper-V's leaves).
 *
 * - `'shutdown'`: PSCI `SYSTEM_OFF`.
 * - `'reset'`: PSCI `SYSTEM_RESET` and `SYSTEM_RESET2`, the Hyper-V reset MSR.
 * - `'crash'`: the Hyper-V crash MSRs.
 * - `'wakeup'`, `'suspend'`: a suspended vCPU has a reason to wake; PSCI `SYSTEM_SUSPEND` (aarch64).
 * - `'sev-term'`, `'tdx-fatal'`: an AMD SEV guest asked to be ended, an Intel TDX guest met a fatal error.
 * - `'unknown'`: newer than this version of Typevisor; `type` tells.
 *
 * `type` is the kernel's number of the event. `data` holds the words that the kernel announced, from Linux 5.18 on
 * (capability `system-event-data`): on aarch64 one, of which 1 says PSCI `SYSTEM_RESET2` (or `SYSTEM_OFF2`), on x86_64
 * none for Hyper-V. Before 5.18 it is empty, and on aarch64 `flags` is the one word that such a kernel writes. (api.rst
 * section 5, `KVM_EXIT_SYSTEM_EVENT`)
 *
 * After a power-off or reset on aarch64 the vCPUs are switched off: running on waits in the kernel until a kick, and
 * `vcpu.boot` starts a vCPU anew.
 *
 * @example aarch64
 * using vm = Vm.create();
 * vm.memory.map({ gpa: 0x4000_0000, size: 2 * MiB });
 * // movz w0, #8; movk w0, #0x8400, lsl #16: PSCI SYSTEM_OFF; hvc #0
 * vm.memory.write(0x4000_0000, new Uint8Array(Uint32Array.of(0x5280_0100, 0x72b0_8000, 0xd400_0002).buffer));
 * const vcpu = vm.createVcpu();
 * vcpu.boot({ mode: 'el1', entry: 0x4000_0000 });
 * const exit = await vcpu.run();
 * if (exit.kind === 'system-event') console.log(exit.event, exit.data); // shutdown [ 0n ]
 */
export interface SystemEventExit {
  readonly kind: 'system-event';
  readonly event: SystemEvent;
  readonly type: number;
  readonly data: readonly bigint[];
  readonly flags?: bigint;
}

/**
 * The guest made a hypercall that was made an exit: on x86_64 by `KVM_CAP_EXIT_HYPERCALL` (Linux 5.14), on aarch64 by an
 * SMCCC filter (`KVM_ARM_SMCCC_FILTER`, Linux 6.4). (api.rst section 5, `KVM_EXIT_HYPERCALL`)
 *
 * - `arch: 'x86_64'`: `nr` and as many `args` as the call has (three for 12, `KVM_HC_MAP_GPA_RANGE`; of a number not known here six,
 *   of which KVM may have left some stale); bit 0 of `flags` says that it runs 64-bit code. Wants the result as its answer, 8 bytes; a failure is `BigInt.asUintN(64, -1000n)`.
 * - `arch: 'aarch64'`: `nr` is the SMCCC function. Arguments are in the guest's registers, and there the result goes; the
 *   program counter is behind the call. Bit 0 of `flags`: by `smc` and not by `hvc`; bit 1: by a 16-bit instruction. Wants
 *   no answer.
 */
export type HypercallExit =
  | {
      readonly kind: 'hypercall';
      readonly arch: 'x86_64';
      readonly nr: bigint;
      readonly args: readonly bigint[];
      readonly flags: bigint;
    }
  | { readonly kind: 'hypercall'; readonly arch: 'aarch64'; readonly nr: bigint; readonly flags: bigint };

/**
 * A breakpoint, watchpoint or single step of `KVM_SET_GUEST_DEBUG`. (api.rst section 5, `KVM_EXIT_DEBUG`)
 *
 * - `arch: 'x86_64'`: `exception` 1 is #DB, 3 is #BP (`int3`); `pc` is the instruction's linear address. `dr6` and `dr7` come
 *   with exception 1. After a single step that KVM interpreted `dr7` is that of an earlier exit.
 * - `arch: 'aarch64'`: `hsr` is `ESR_EL2`, whose upper half older kernels do not give; `far` the address that the guest
 *   reached for, at a watchpoint.
 */
export type DebugExit =
  | {
      readonly kind: 'debug';
      readonly arch: 'x86_64';
      readonly exception: number;
      readonly pc: bigint;
      readonly dr6?: bigint;
      readonly dr7?: bigint;
    }
  | { readonly kind: 'debug'; readonly arch: 'aarch64'; readonly hsr: bigint; readonly far?: bigint };

/**
 * The vCPU's dirty ring is full: it has to be collected before the guest runs on (capability `dirty-log-ring` or
 * `dirty-log-ring-acq-rel`, Linux 5.11; api.rst section 8, "KVM_CAP_DIRTY_LOG_RING").
 */
export interface DirtyRingFullExit {
  readonly kind: 'dirty-ring-full';
}

/** What Typevisor makes of a memory fault. */
export const FAULT_CAUSES = ['conversion', 'poison'] as const;

/** Why an access failed, as far as it can be told; see {@link MemoryFaultExit}. */
export type FaultCause = (typeof FAULT_CAUSES)[number] | 'unknown';

/**
 * `KVM_RUN` failed over memory that it could not give the guest, and says which: `gpa` and `size` in bytes. (Linux 6.8,
 * capability `memory-fault-info`, though aarch64 does so without; api.rst section 5, `KVM_EXIT_MEMORY_FAULT`)
 *
 * - `flags` are the kernel's (`KVM_MEMORY_EXIT_FLAG_*`), `access` is what they say of the half of memory that was meant.
 * - `rwx` is what the guest was about to do, where a kernel says that: not mainline's.
 * - `errno` is negative, `errnoName` its name: `'EFAULT'` or `'EHWPOISON'`.
 * - `cause` is Typevisor's inference: `'conversion'` (the guest wants the memory to be private), `'poison'` (the host's
 *   memory is broken there) or `'unknown'`.
 *
 * Running on meets the same fault until its cause is gone.
 */
export interface MemoryFaultExit {
  readonly kind: 'memory-fault';
  readonly gpa: number;
  readonly size: number;
  readonly flags: bigint;
  readonly access: 'private' | 'shared';
  readonly rwx?: 'read' | 'write' | 'exec';
  readonly errno: number;
  readonly errnoName: string;
  readonly cause: FaultCause;
}

/**
 * `KVM_RUN` failed without a payload. `errno` is negative, as everywhere in Node, and `errnoName` its name: `'EFAULT'`.
 *
 * `'ENOSYS'` on aarch64: the guest reached for an address without memory by an instruction that the processor does not
 * describe, as `ldp`, `stp`, SIMD or writeback. It stands at that instruction, and every further run fails as this one
 * (api.rst section 5, `KVM_EXIT_ARM_NISV`).
 */
export interface RunFailedExit {
  readonly kind: 'run-failed';
  readonly errno: number;
  readonly errnoName: string;
}

/**
 * An exit newer than this version of Typevisor, or one that makes no sense: `reason` is the kernel's number, `bytes` its part
 * of the exit page. With reason 0 the processor left the guest for a reason that KVM does not know: `hardwareReason`.
 * (api.rst section 5, `KVM_EXIT_UNKNOWN`)
 */
export interface UnknownExit {
  readonly kind: 'unknown';
  readonly reason: number;
  readonly bytes: Uint8Array;
  readonly hardwareReason?: bigint;
}

/**
 * Why a vCPU stopped: told apart by `kind`, which is the kernel's name in kebab-case. Frozen plain data that can be
 * logged, compared and posted; bytes are a copy and yours. New kinds come in minor releases, so end a `switch` in
 * `default`.
 *
 * @example
 * using vm = Vm.create();
 * vm.memory.map({ gpa: 0xffff_f000, size: 4 * KiB });
 * vm.memory.write(0xffff_fff0, Uint8Array.of(0xe6, 0x80, 0xf4)); // out 0x80, al; hlt
 * const exit = await vm.createVcpu().run();
 * if (exit.kind === 'io' && exit.direction === 'out') console.log(exit.port, exit.data); // 128 Uint8Array(1) [ 0 ]
 */
export type Exit =
  | IoExit
  | MmioExit
  | HltExit
  | IntrExit
  | ShutdownExit
  | FailEntryExit
  | InternalErrorExit
  | SystemEventExit
  | HypercallExit
  | DebugExit
  | ExceptionExit
  | IrqWindowOpenExit
  | SetTprExit
  | TprAccessExit
  | NmiExit
  | IoapicEoiExit
  | HypervExit
  | XenExit
  | RdmsrExit
  | WrmsrExit
  | DirtyRingFullExit
  | BusLockExit
  | ApResetHoldExit
  | NotifyExit
  | MemoryFaultExit
  | ArmNisvExit
  | ArmLdst64bExit
  | ArmSeaExit
  | TdxExit
  | SnpReqCertsExit
  | RunFailedExit
  | UnknownExit;
