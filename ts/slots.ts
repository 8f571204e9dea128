/** The one handle of each slot of a VM, so that `map`, `slots` and `slotAt` give the same object for the same slot. */

import type { Life } from './life.ts';
import type { NativeSlot, NativeSlotInfo } from './native.ts';
import { type MemorySlot, slotFrom, slotParts } from './slot.ts';

/** A handle, and the serial of the slot it is of. */
interface Known {
  readonly serial: number;
  readonly handle: MemorySlot;
}

/** Handles by KVM's number of their slot. Numbers are used again, also by the core for slots of its own; serials are not. */
export class SlotHandles {
  readonly #vm: number;
  readonly #known = new Map<number, Known>();

  /** Of the VM with that life, at whose end they are forgotten: what they hold of JavaScript's memory is let go. */
  constructor(life: Life) {
    this.#vm = life.id;
    life.onClose(() => this.#known.clear());
  }

  /**
   * The handle of a slot; `bytes` are what JavaScript has of its memory, which only who maps it knows: a slot that another
   * thread maps may have been found by its address before.
   */
  of(native: NativeSlot, info: NativeSlotInfo, bytes?: Uint8Array): MemorySlot {
    const known = this.known(info);
    if (known !== undefined) {
      if (bytes !== undefined) slotParts(known, 'slot').bytes = bytes;
      return known;
    }
    const { serial } = info;
    const id = idOf(info);
    const forget = (): void => {
      if (this.#known.get(id)?.serial === serial) this.#known.delete(id);
    };
    const handle = slotFrom({ native, vm: this.#vm, bytes, forget, gone: false });
    this.#known.set(id, { serial, handle });
    return handle;
  }

  /** The handle of a slot, if it has one already. */
  known(info: NativeSlotInfo): MemorySlot | undefined {
    const known = this.#known.get(idOf(info));
    return known?.serial === info.serial ? known.handle : undefined;
  }
}

/** As KVM has it: the address space in the upper 16 bits. */
function idOf({ slot, addressSpace }: NativeSlotInfo): number {
  return addressSpace * 0x1_0000 + slot;
}
