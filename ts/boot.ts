/** Where a guest starts: what a program asks for and gets. What the modes mean in registers is the core's to know. */

import { bytes, oneOf, options } from './check.ts';
import type { GpaRange } from './memory.ts';
import type { NativeBoot, NativeBootOptions, NativeRange } from './native.ts';

/** Where a guest starts. Addresses are linear (on aarch64: virtual), which at the start are guest physical ones. */
export interface BootOptions {
  /**
   * x86_64: `'real'`: 16-bit code. `'protected'`: 32-bit code, flat segments, no paging, no GDT. `'long'`: 64-bit code,
   * the first 4 GiB mapped to themselves by tables that the host makes.
   *
   * aarch64: `'el1'`: EL1 with its own stack pointer, exceptions masked, MMU and caches on. All addresses that the VM
   * has (40 bits, or what the processor has, `arm-vm-ipa-size`) are mapped to themselves: in pieces of 2 MiB, normal
   * write-back memory where slots are when it boots, device memory elsewhere: unaligned accesses and `dc zva` fault
   * there, and exclusives need not work. So map first, and after mapping more, boot again. `wfi` never exits: it sleeps in
   * the kernel until a kick.
   *
   * A mode of the other architecture is `ERR_INVALID_ARGUMENT`.
   */
  readonly mode: 'real' | 'protected' | 'long' | 'el1';
  /**
   * `'kernel'`: ring 0, or EL1. `'user'`: ring 3, where ports work and instructions of kernel mode, `hlt` among them, end
   * in a `shutdown`; not in real mode, not on aarch64. Default `'kernel'`.
   */
  readonly privilege?: 'kernel' | 'user' | undefined;
  /**
   * The first instruction. x86_64: below 4 GiB; in real mode at most 0x10_ffef. aarch64: a multiple of 4 that the VM's
   * addresses reach.
   */
  readonly entry: number;
  /**
   * Where the stack begins, downward: a multiple of 16. x86_64: at most 4 GiB; in real mode even, at most 64 KiB.
   * Default 0.
   */
  readonly stack?: number | undefined;
  /**
   * Where the tables of long mode and EL1 lie: 128 KiB in a slot of their own, where nothing is mapped; a multiple of
   * 4 KiB. Default: where they lay at this vCPU's last boot, else the highest free place below 0xe000_0000.
   */
  readonly tables?: number | undefined;
}

/** What {@link Vcpu.boot} made. */
export interface Boot {
  /** The slot that holds the host's tables, in long mode and at EL1: whatever lies in it is rewritten by the next boot. */
  readonly tables?: GpaRange;
  /**
   * At EL1: where an exception shows for which the guest has set no vectors of its own (`vbarEl1`), instead of looping
   * in silence. Vector `n`, from 0 to 15 (4: synchronous, 7: SError, both of EL1 itself), writes `ESR_EL1`, 8 bytes, to
   * `gpa + 8 * n`: an `mmio` exit, again at every further run. Look at `elrEl1`, `farEl1` and `spsrEl1` then; `x0` and
   * `x1` are in `tpidrEl1` and `tpidrroEl0`. It is the last page of the VM's addresses, 0xff_ffff_f000 where they have
   * 40 bits; no slot may lie there. One that is mapped there later takes the writes, and the loop is silent again.
   */
  readonly exceptions?: GpaRange;
}

const FIELDS = ['mode', 'privilege', 'entry', 'stack', 'tables'];

/** What the addon is asked for. */
export function bootRequest(where: BootOptions): NativeBootOptions {
  const { mode, privilege = 'kernel', entry, stack, tables } = options<BootOptions>(where, 'boot options', FIELDS);
  return {
    mode: oneOf(mode, 'mode', ['real', 'protected', 'long', 'el1']),
    user: oneOf(privilege, 'privilege', ['kernel', 'user']) === 'user',
    entry: bytes(entry, 'entry'),
    stack: stack === undefined ? null : bytes(stack, 'stack'),
    tables: tables === undefined ? null : bytes(tables, 'tables'),
  };
}

/** What the addon made, frozen. */
export function bootMade({ tables, exceptions }: NativeBoot): Boot {
  return Object.freeze({
    ...(tables === null ? {} : { tables: frozen(tables) }),
    ...(exceptions === null ? {} : { exceptions: frozen(exceptions) }),
  });
}

function frozen({ gpa, size }: NativeRange): GpaRange {
  return Object.freeze({ gpa, size });
}
