/** One memory slot of a VM, as a handle: what it says is asked of the addon, which owns it. */

import { bytes } from './check.ts';
import { call, TypevisorError } from './errors.ts';
import { guard, KEY } from './handle.ts';
import type { NativeSlot, NativeSlotInfo } from './native.ts';
import { hex, ioctlsAreWatched, printable, tellIoctl } from './observe.ts';

/** Wraps what the addon gave to VM number `vm`; `forget` is told when the slot is gone. For memory.ts alone. */
export let slotFrom: (native: NativeSlot, vm: number, forget: () => void) => MemorySlot;

/** Tells those who watch what KVM was asked to make of a slot; of size 0, it was removed. */
export function tellSlot(vm: number, { ioctl, slot, gpa, size, readonly }: Omit<NativeSlotInfo, 'serial'>): void {
  tellIoctl(vm, ioctl, { slot, gpa, size, readonly });
}

/**
 * Guest memory in one slot of KVM. Comes from `vm.memory.map`; ends by `unmap()`, by `using`, or with its VM. What it
 * says of itself (`slot`, `gpa`, `size`, …) is then what was so last.
 */
export class MemorySlot implements Disposable {
  readonly #native: NativeSlot;
  readonly #vm: number;
  readonly #forget: () => void;
  #gone = false;

  private constructor(key: symbol, native: NativeSlot, vm: number, forget: () => void) {
    guard(this, key, 'vm.memory.map()');
    this.#native = native;
    this.#vm = vm;
    this.#forget = forget;
  }

  static {
    slotFrom = (native, vm, forget) => new MemorySlot(KEY, native, vm, forget);
    printable(this, self => {
      const { slot, gpa, size, readonly } = self.#info();
      return { slot, gpa: hex(gpa), size, readonly: readonly || undefined, unmapped: self.#gone || undefined };
    });
  }

  /** KVM's number of the slot. Numbers of unmapped slots are used again. */
  get slot(): number {
    return this.#info().slot;
  }

  /** First guest physical address, in bytes. */
  get gpa(): number {
    return this.#info().gpa;
  }

  /** Length in bytes. */
  get size(): number {
    return this.#info().size;
  }

  /** Whether the guest cannot write to it: its writes are `mmio` exits. The host can. */
  get readonly(): boolean {
    return this.#info().readonly;
  }

  /** The ioctl KVM was given: `KVM_SET_USER_MEMORY_REGION2` where there is one (Linux 6.8), else the older one. */
  get ioctl(): string {
    return this.#info().ioctl;
  }

  /**
   * Moves the slot to another guest physical address; its content stays. One ioctl: vCPUs may be running.
   *
   * @param gpa - The new first address in bytes, a multiple of 4 KiB.
   * @throws {TypevisorError} `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_SLOT_OVERLAP`, `ERR_CLOSED`.
   */
  move(gpa: number): void {
    const native = this.#native;
    const to = bytes(gpa, 'gpa');
    call(() => native.move(to));
    if (ioctlsAreWatched()) tellSlot(this.#vm, this.#info());
  }

  /**
   * Takes the memory away from the guest and gives it back to the host. Twice is harmless, as is after its VM.
   *
   * @throws {TypevisorError} `ERR_IOCTL` where KVM refuses.
   */
  unmap(): void {
    const native = this.#native;
    if (this.#gone) return;
    try {
      call(() => native.unmap());
      if (ioctlsAreWatched()) tellSlot(this.#vm, { ...this.#info(), size: 0 });
    } catch (error) {
      if (!(error instanceof TypevisorError) || error.code !== 'ERR_CLOSED') throw error; // closed: it is gone already
    }
    this.#gone = true;
    this.#forget();
  }

  /** The same as {@link unmap}. */
  [Symbol.dispose](): void {
    this.unmap();
  }

  #info(): NativeSlotInfo {
    const native = this.#native;
    return call(() => native.info());
  }
}
