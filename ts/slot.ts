/** One memory slot of a VM, as a handle: what it says is asked of the addon, which owns it. */

import { bytes } from './check.ts';
import { call, TypevisorError } from './errors.ts';
import { guard, KEY } from './handle.ts';
import type { NativeSlot } from './native.ts';

/** Wraps what the addon gave; `forget` is told when the slot is gone. For memory.ts alone. */
export let slotFrom: (native: NativeSlot, forget: (slot: number) => void) => MemorySlot;

/** Guest memory in one slot of KVM. Comes from `vm.memory.map`; ends by `unmap()`, by `using`, or with its VM. */
export class MemorySlot implements Disposable {
  readonly #native: NativeSlot;
  readonly #forget: (slot: number) => void;
  #gone = false;

  private constructor(key: symbol, native: NativeSlot, forget: (slot: number) => void) {
    guard(this, key, 'vm.memory.map()');
    this.#native = native;
    this.#forget = forget;
  }

  static {
    slotFrom = (native, forget) => new MemorySlot(KEY, native, forget);
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
    const to = bytes(gpa, 'gpa');
    call(() => this.#native.move(to));
  }

  /**
   * Takes the memory away from the guest and gives it back to the host. Twice is harmless, as is after its VM.
   *
   * @throws {TypevisorError} `ERR_IOCTL` where KVM refuses.
   */
  unmap(): void {
    if (this.#gone) return;
    try {
      call(() => this.#native.unmap());
    } catch (error) {
      if (!(error instanceof TypevisorError) || error.code !== 'ERR_CLOSED') throw error; // closed: it is gone already
    }
    this.#gone = true;
    this.#forget(this.slot);
  }

  /** The same as {@link unmap}. */
  [Symbol.dispose](): void {
    this.unmap();
  }

  #info(): ReturnType<NativeSlot['info']> {
    return call(() => this.#native.info());
  }
}
