/** The one handle of each slot of a VM, so that `map`, `slots` and `slotAt` give the same object for the same slot. */

import { call } from './errors.ts';
import type { Life } from './life.ts';
import type { NativeSlot, NativeSlotInfo } from './native.ts';
import { type MemorySlot, slotFrom, slotParts, type SlotParts } from './slot.ts';

/** Handles by KVM's number of their slot. Numbers are used again, also by the core for slots of its own; serials are not. */
export class SlotHandles {
  readonly #vm: number;
  /**
   * A slot that is gone leaves its number behind with nothing: V8 keeps deleted entries in the chain of their hash until
   * the whole table is made anew, so that the same number taken and given back among 16,384 others would search
   * thousands of them. There are at most as many numbers as KVM has slots.
   */
  readonly #known = new Map<number, MemorySlot | undefined>();
  readonly #forget = (parts: SlotParts): void => {
    if (this.#find(parts.id, parts.serial) !== undefined) this.#known.set(parts.id, undefined);
  };

  /** Of the VM with that life, at whose end they are forgotten: what they hold of JavaScript's memory is let go. */
  constructor(life: Life) {
    this.#vm = life.id;
    life.onClose(() => this.#known.clear());
  }

  /**
   * The handle of a slot; `bytes` are what JavaScript has of its memory, which only who maps it knows: a slot that another
   * thread maps may have been found by its address before. It may also be gone again, and its number another slot's:
   * then it gets a handle, and the other keeps its own.
   */
  of(native: NativeSlot, bytes?: Uint8Array): MemorySlot {
    const [id, serial] = [call(() => native.id()), call(() => native.serial())];
    const known = this.#known.get(id);
    const latest = known === undefined ? 0 : slotParts(known, 'slot').serial;
    if (known !== undefined && latest === serial) {
      if (bytes !== undefined) slotParts(known, 'slot').bytes = bytes;
      return known;
    }
    const handle = slotFrom({ native, vm: this.#vm, id, serial, bytes, forget: this.#forget, gone: false });
    if (latest < serial) this.#known.set(id, handle);
    return handle;
  }

  /** The handle of a slot, if it has one already. */
  known({ slot, addressSpace, serial }: NativeSlotInfo): MemorySlot | undefined {
    return this.#find(addressSpace * 0x1_0000 + slot, serial);
  }

  #find(id: number, serial: number): MemorySlot | undefined {
    const known = this.#known.get(id);
    return known !== undefined && slotParts(known, 'slot').serial === serial ? known : undefined;
  }
}
