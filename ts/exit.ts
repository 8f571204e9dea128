/** Why a vCPU stopped, as plain frozen data. The addon keeps what the kernel said; here it gets its public form. */

import { errnoName } from './errors.ts';
import type { NativeExit } from './native.ts';

/** Names of the kernel's header (`KVM_SYSTEM_EVENT_*`), in kebab-case. */
const SYSTEM_EVENTS = ['shutdown', 'reset', 'crash', 'wakeup', 'suspend', 'sev-term', 'tdx-fatal'] as const;

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

/**
 * KVM could not go on: `suberror` 1 is an instruction its emulator does not know, whose bytes are in `instruction`
 * where the kernel gives them. `data` holds the kernel's words as they came.
 */
export interface InternalErrorExit {
  readonly kind: 'internal-error';
  readonly suberror: number;
  readonly data: readonly bigint[];
  readonly instruction?: Uint8Array;
}

/**
 * The guest asked for power-off or reset, or reported a crash: by PSCI on aarch64 (with the vCPU feature `'psci-0.2'`),
 * by the Hyper-V MSRs on x86_64.
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

/** An exit newer than this version of Typevisor: `reason` is the kernel's number, `bytes` its part of the exit page. */
export interface UnknownExit {
  readonly kind: 'unknown';
  readonly reason: number;
  readonly bytes: Uint8Array;
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
  | RunFailedExit
  | UnknownExit;

/** The public form of what the addon delivered. */
export function decode(exit: NativeExit): Exit {
  return Object.freeze(publicForm(exit));
}

function publicForm(exit: NativeExit): Exit {
  switch (exit.kind) {
    case 'io': {
      const { kind, port, size, count, data } = exit;
      return exit.out
        ? { kind, direction: 'out', port, size, count, data }
        : { kind, direction: 'in', port, size, count };
    }
    case 'mmio': {
      const { kind, gpa, size, data } = exit;
      return exit.write ? { kind, direction: 'write', gpa, size, data } : { kind, direction: 'read', gpa, size };
    }
    case 'internal-error': {
      const { kind, suberror, instruction } = exit;
      const data = Object.freeze(exit.data);
      return instruction === null ? { kind, suberror, data } : { kind, suberror, data, instruction };
    }
    case 'system-event': {
      const { kind, type, flags } = exit;
      const event = SYSTEM_EVENTS.find(name => name === exit.event) ?? 'unknown';
      const data = Object.freeze(exit.data);
      return flags === null ? { kind, event, type, data } : { kind, event, type, data, flags };
    }
    case 'hlt':
    case 'intr':
    case 'shutdown':
      return { kind: exit.kind };
    case 'fail-entry':
      return { kind: exit.kind, reason: exit.reason, cpu: exit.cpu };
    case 'run-failed':
      return { kind: exit.kind, errno: exit.errno, errnoName: errnoName(exit.errno) };
    case 'unknown':
      return { kind: exit.kind, reason: exit.reason, bytes: exit.bytes };
    default:
      return exit satisfies never;
  }
}
