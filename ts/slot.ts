/** One memory slot of a VM, as a handle: what it says is asked of the addon, which owns it. */

import { boolean, bytes, invalid } from './check.ts';
import { call, TypevisorError } from './errors.ts';
import { guard, KEY } from './handle.ts';
import type { Failure, NativeSlot, NativeSlotInfo } from './native.ts';
import { hex, ioctlsAreWatched, printable, tellIoctl } from './observe.ts';

/** What stands behind a slot, by name. */
export type BackingName = 'anonymous' | 'memfd' | 'hugetlb' | 'file' | 'buffer' | 'guest-memfd';

/** What the facade's own files share of a slot. */
export interface SlotParts {
  readonly native: NativeSlot;
  /** The number of its VM. */
  readonly vm: number;
  /** What KVM names it by, as its address space and number; other slots may have had it, and get it again. */
  readonly id: number;
  /** Of no other slot, and greater than that of any before it. */
  readonly serial: number;
  /** Its bytes, where they are a SharedArrayBuffer's. */
  bytes: Uint8Array | undefined;
  /** Told when the slot is gone. */
  readonly forget: (parts: SlotParts) => void;
  gone: boolean;
}

/** For slots.ts alone. */
export let slotFrom: (parts: SlotParts) => MemorySlot;
/** What is behind a handle that came as the argument `name`; for the facade's own files alone. */
export let slotParts: (slot: unknown, name: string) => SlotParts;

/**
 * The same of one that has to be a slot of the VM with that number.
 *
 * @throws {TypevisorError} `ERR_INVALID_ARGUMENT` for anything else, gone or not.
 */
export function ownSlot(slot: unknown, vm: number): SlotParts {
  const parts = slotParts(slot, 'slot');
  if (parts.vm === vm) return parts;
  throw new TypevisorError('ERR_INVALID_ARGUMENT', 'slot is another VM’s: ask the memory of its own VM');
}

/** What there is to tell of a slot. */
type Told = Omit<NativeSlotInfo, 'serial' | 'backing'>;

/** Tells those who watch what KVM was asked to make of a slot; of size 0, it was removed. */
export function tellSlot(vm: number, { ioctl, slot, gpa, size, readonly, addressSpace, dirtyLog }: Told): void {
  const rest = { ...(addressSpace === 0 ? {} : { addressSpace }), ...(dirtyLog ? { dirtyLog } : {}) };
  tellIoctl(vm, ioctl, { slot, gpa, size, readonly, ...rest });
}

/**
 * The same of a change, `before` being there unless it was added. What is as it was, KVM was not asked for; a slot that
 * becomes read-only, or writable, was removed and added again.
 */
export function tellSlotChange(vm: number, before: Told | undefined, after: Told): void {
  if (before !== undefined && TOLD.every(field => before[field] === after[field])) return;
  if (before !== undefined && before.readonly !== after.readonly) tellSlot(vm, { ...before, size: 0 });
  tellSlot(vm, after);
}

const TOLD = ['gpa', 'readonly', 'dirtyLog'] as const;

/** The slot is unmapped: its handle knows, and so does whoever found it by its number. */
export function endSlot(parts: SlotParts): void {
  parts.gone = true;
  parts.forget(parts);
}

/** Runs an unmapping. What its VM has taken with it, or somebody else unmapped, is as good as unmapped. */
export function unlessGone(error: unknown): void {
  if (!(error instanceof TypevisorError) || error.code !== 'ERR_CLOSED') throw error;
}

/**
 * Guest memory in one slot of KVM. Comes from `vm.memory.map`; ends by `unmap()`, by `using`, or with its VM. What it
 * says of itself (`slot`, `gpa`, `size`, …) is then what was so last.
 */
export class MemorySlot implements Disposable {
  readonly #parts: SlotParts;

  private constructor(key: symbol, parts: SlotParts) {
    guard(this, key, 'vm.memory.map()');
    this.#parts = parts;
  }

  static {
    slotFrom = parts => new MemorySlot(KEY, parts);
    slotParts = (slot, name) => {
      if (typeof slot !== 'object' || slot === null || !(#parts in slot)) throw invalid(name, 'a MemorySlot', slot);
      return slot.#parts;
    };
    printable(this, self => {
      const { slot, gpa, size, readonly, backing, addressSpace } = self.#info();
      return {
        slot,
        gpa: hex(gpa),
        size,
        backing,
        readonly: readonly || undefined,
        addressSpace: addressSpace === 0 ? undefined : addressSpace,
        unmapped: self.#parts.gone || undefined,
      };
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

  /** What stands behind it; for a share, what stands behind the slot that is shared. */
  get backing(): BackingName {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a test holds the core's names against the type
    return this.#info().backing as BackingName;
  }

  /** The address space it appears in: 0, or 1 for system management mode. */
  get addressSpace(): number {
    return this.#info().addressSpace;
  }

  /** Whether KVM writes down which pages the guest has written to. */
  get dirtyLog(): boolean {
    return this.#info().dirtyLog;
  }

  /** The ioctl KVM was given: `KVM_SET_USER_MEMORY_REGION2` where there is one (Linux 6.8), else the older one. */
  get ioctl(): string {
    return this.#info().ioctl;
  }

  /**
   * The memory itself, where it is a `SharedArrayBuffer`'s: a fresh array over the very bytes that the guest sees. They are
   * the program's, and stay when the slot is gone.
   *
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT` for any other backing: use `vm.memory.read` and `write`.
   * @example
   * using vm = Vm.create();
   * const buffer = new SharedArrayBuffer(64 * KiB, { maxByteLength: 64 * KiB });
   * const slot = vm.memory.map({ gpa: 0, size: 64 * KiB, backing: { buffer } });
   * vm.memory.setUint8(0x1000, 42);
   * console.log(slot.view()[0x1000], slot.view().buffer === buffer); // 42 true
   */
  view(): Uint8Array {
    const { bytes: own } = this.#parts;
    if (own !== undefined) return new Uint8Array(own.buffer, own.byteOffset, own.length);
    throw new TypevisorError(
      'ERR_INVALID_ARGUMENT',
      `only the memory of a SharedArrayBuffer can be viewed, and this slot's is '${this.backing}': use vm.memory.read`,
    );
  }

  /**
   * Moves the slot to another guest physical address; its content stays. One ioctl (api.rst 4.35): vCPUs may be running.
   * For a moment it may be at neither place, which a guest that reaches for it meets as an `mmio` exit;
   * `vm.memory.change` moves it with the vCPUs held out.
   * KVM waits for each of them that is inside the kernel: long, where one sleeps in a missing page. `vm.memory.promises.move`
   * waits off this thread.
   *
   * @param gpa - The new first address in bytes, a multiple of 4 KiB.
   * @throws {TypevisorError} `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_SLOT_OVERLAP`, `ERR_INVALID_ARGUMENT` on guest_memfd,
   *   `ERR_IOCTL` where KVM refuses (the slot is as it was), `ERR_POISONED`, `ERR_CLOSED`.
   * @example
   * using vm = Vm.create();
   * const slot = vm.memory.map({ gpa: 0, size: 64 * KiB });
   * vm.memory.setUint8(5, 42);
   * slot.move(1 * MiB);
   * console.log(vm.memory.getUint8(1 * MiB + 5)); // 42
   */
  move(gpa: number): void {
    const { native } = this.#parts;
    const to = bytes(gpa, 'gpa');
    this.#change(() => native.move(to));
  }

  /**
   * Makes ROM of RAM, or RAM of ROM: content, place and number stay. KVM has to remove the slot and add it again, so vCPUs
   * are held out meanwhile: none of them sees the hole. It waits until each has left the kernel: long, where one sleeps in a
   * missing page. `vm.memory.promises.change` waits off this thread.
   *
   * A dirty log begins anew, as KVM keeps it with the slot that it removes: what it held is lost.
   *
   * @throws {TypevisorError} `ERR_CAPABILITY_MISSING` for `true` where `readonly-mem` (Linux 3.7) is absent, `ERR_INVALID_ARGUMENT` on
   *   guest_memfd, and for `false` on a shared file that is not open for writing; `ERR_IOCTL` where KVM refuses (the slot is as it was), `ERR_POISONED`, `ERR_CLOSED`.
   * @example
   * using vm = Vm.create();
   * const bios = vm.memory.map({ gpa: 0xf_0000, size: 64 * KiB });
   * vm.memory.write(0xf_0000, new TextEncoder().encode('BIOS'));
   * bios.setReadonly(true);
   * console.log(bios.readonly); // true: from here on the guest's writes are exits
   */
  setReadonly(readonly: boolean): void {
    const { native } = this.#parts;
    const wanted = boolean(readonly, 'readonly');
    this.#change(() => native.setReadonly(wanted));
  }

  /**
   * Has KVM write down which pages the guest writes to, or stops that (`KVM_MEM_LOG_DIRTY_PAGES`, api.rst 4.35). One ioctl:
   * vCPUs may be running; KVM waits for those inside the kernel, as with {@link move}. Huge pages of the slot are mapped as
   * small ones meanwhile. There is no way yet to collect what was written down.
   *
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT` on guest_memfd, `ERR_IOCTL`, `ERR_POISONED`, `ERR_CLOSED`.
   * @example
   * using vm = Vm.create();
   * const slot = vm.memory.map({ gpa: 0, size: 64 * KiB });
   * slot.setDirtyLog(true);
   * console.log(slot.dirtyLog); // true
   */
  setDirtyLog(on: boolean): void {
    const { native } = this.#parts;
    const wanted = boolean(on, 'on');
    this.#change(() => native.setDirtyLog(wanted));
  }

  /**
   * Takes the memory away from the guest and gives it back to the host. Twice is harmless, as is after its VM. KVM waits for
   * vCPUs inside the kernel, as with {@link move}; `vm.memory.promises.unmap` waits off this thread.
   *
   * @throws {TypevisorError} `ERR_IOCTL` where KVM refuses, `ERR_POISONED`.
   */
  unmap(): void {
    const { native, vm, gone } = this.#parts;
    if (gone) return;
    try {
      call(() => native.unmap());
      if (ioctlsAreWatched()) tellSlot(vm, { ...this.#info(), size: 0 });
    } catch (error) {
      unlessGone(error);
    }
    endSlot(this.#parts);
  }

  /** The same as {@link unmap}. */
  [Symbol.dispose](): void {
    this.unmap();
  }

  #change(make: () => Failure | null): void {
    const before = ioctlsAreWatched() ? this.#info() : undefined;
    call(make);
    if (before !== undefined) tellSlotChange(this.#parts.vm, before, this.#info());
  }

  #info(): NativeSlotInfo {
    const { native } = this.#parts;
    return call(() => native.info());
  }
}
