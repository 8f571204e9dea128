/** Several changes of a VM's slots that are made together: what a program asks for, collected and checked for its types. */

import { mapRequest, type MapOptions } from './backing.ts';
import { boolean, bytes, invalid } from './check.ts';
import { isThenable } from './device.ts';
import { TypevisorError } from './errors.ts';
import { guard, KEY } from './handle.ts';
import type { NativeChange, NativeDone, NativeSlotInfo } from './native.ts';
import { printable } from './observe.ts';
import { endSlot, type MemorySlot, ownSlot, type SlotParts, tellSlot, tellSlotChange } from './slot.ts';
import type { SlotHandles } from './slots.ts';

/**
 * Makes the changes: called at once, with what it makes them by. It returns nothing, and above all no promise: a type that
 * says `void` alone would let one pass.
 */
export type MakeChanges = (tx: MemoryChange) => void | undefined;

/** One of the changes. */
interface Step {
  readonly change: NativeChange;
  /** Of a slot that was there before. */
  readonly parts?: SlotParts;
  /** Of a map: the bytes that JavaScript has. */
  readonly bytes?: Uint8Array | undefined;
}

/** Calls `make` and gives what it asked for, for the VM of that number. */
export let collectChanges: (vm: number, make: MakeChanges) => CollectedChanges;

/**
 * What `vm.memory.change` collects. Nothing is done before the function that it is given to has returned, and nothing at
 * all where that throws. It is of no use afterwards (`ERR_CLOSED`).
 *
 * @example
 * using vm = Vm.create();
 * const [low, high] = [vm.memory.map({ gpa: 0, size: 64 * KiB }), vm.memory.map({ gpa: 1 * MiB, size: 64 * KiB })];
 * vm.memory.change(tx => {
 *   tx.unmap(low);
 *   tx.move(high, 0);
 *   tx.setReadonly(high, true);
 *   tx.map({ gpa: 1 * MiB, size: 4 * KiB });
 * });
 * console.log(vm.memory.slots.map(({ gpa, size }) => [gpa, size])); // [ [ 0, 65536 ], [ 1048576, 4096 ] ]
 */
export class MemoryChange {
  readonly #vm: number;
  readonly #steps: Step[] = [];
  #over = false;

  private constructor(key: symbol, vm: number) {
    guard(this, key, 'vm.memory.change()');
    this.#vm = vm;
  }

  static {
    collectChanges = (vm, make) => {
      if (typeof make !== 'function') throw invalid('change', 'a function', make);
      const tx = new MemoryChange(KEY, vm);
      try {
        refusePromise(make(tx));
      } finally {
        tx.#over = true;
      }
      return new CollectedChanges(vm, tx.#steps);
    };
    printable(this, tx => ({ changes: tx.#steps.length, over: tx.#over || undefined }));
  }

  /**
   * Maps, where room is after the removals and moves of the same change.
   *
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`, `ERR_CLOSED`.
   */
  map(options: MapOptions): void {
    this.#check();
    const { request, bytes: own } = mapRequest(options);
    this.#steps.push({ change: { kind: 'map', options: request }, bytes: own });
  }

  /**
   * Unmaps a slot.
   *
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`, also for the slot of another VM; `ERR_CLOSED`.
   */
  unmap(slot: MemorySlot): void {
    const parts = this.#own(slot);
    this.#steps.push({ change: { kind: 'unmap', slot: parts.native }, parts });
  }

  /**
   * Moves a slot to another guest physical address.
   *
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`, also for the slot of another VM; `ERR_OUT_OF_RANGE`, `ERR_CLOSED`.
   */
  move(slot: MemorySlot, gpa: number): void {
    const parts = this.#own(slot);
    this.#steps.push({ change: { kind: 'move', slot: parts.native, gpa: bytes(gpa, 'gpa') }, parts });
  }

  /**
   * Makes ROM of RAM, or RAM of ROM.
   *
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`, also for the slot of another VM; `ERR_CLOSED`.
   */
  setReadonly(slot: MemorySlot, readonly: boolean): void {
    const parts = this.#own(slot);
    const change = { kind: 'set-readonly', slot: parts.native, readonly: boolean(readonly, 'readonly') } as const;
    this.#steps.push({ change, parts });
  }

  #own(slot: MemorySlot): SlotParts {
    this.#check();
    return ownSlot(slot, this.#vm);
  }

  #check(): void {
    if (!this.#over) return;
    throw new TypevisorError('ERR_CLOSED', 'this change is over: it was made when its function returned, or threw');
  }
}

function refusePromise(given: unknown): void {
  if (!isThenable(given)) return;
  if (given instanceof Promise) given.catch(() => undefined); // its rejection is nobody's: the error says why
  throw new TypevisorError(
    'ERR_INVALID_ARGUMENT',
    'the function given to change() returned a promise: it has to be synchronous. Nothing was changed',
  );
}

/** Changes that are asked for, and not made yet. */
export class CollectedChanges {
  readonly #vm: number;
  readonly #steps: readonly Step[];

  constructor(vm: number, steps: readonly Step[]) {
    this.#vm = vm;
    this.#steps = steps;
  }

  /** What the addon is asked for. */
  get request(): NativeChange[] {
    return this.#steps.map(({ change }) => change);
  }

  /** They were made: gives the handles of what was mapped, in order. */
  made({ slots, infos }: NativeDone, handles: SlotHandles): readonly MemorySlot[] {
    const maps = this.#steps.filter(({ change }) => change.kind === 'map');
    for (const { change, parts } of this.#steps) if (change.kind === 'unmap' && parts !== undefined) endSlot(parts);
    this.#tell(infos);
    return Object.freeze(slots.map((slot, at) => handles.of(slot, maps[at]?.bytes)));
  }

  /** Step by step, as the core makes them; nothing where nobody watched when they were asked for. */
  #tell(infos: readonly NativeSlotInfo[]): void {
    const slots = new Map<SlotParts, NativeSlotInfo>();
    for (const [at, info] of infos.entries()) {
      const step = this.#steps[at];
      if (step?.parts === undefined) tellSlot(this.#vm, info);
      else slots.set(step.parts, this.#told(step.change, slots.get(step.parts) ?? info));
    }
  }

  /** Tells of a change of a slot that was there, and gives the slot after it. */
  #told(change: NativeChange, before: NativeSlotInfo): NativeSlotInfo {
    const after = changed(before, change);
    if (change.kind === 'unmap') tellSlot(this.#vm, { ...after, size: 0 });
    else tellSlotChange(this.#vm, before, after);
    return after;
  }
}

function changed(before: NativeSlotInfo, change: NativeChange): NativeSlotInfo {
  if (change.kind === 'move') return { ...before, gpa: change.gpa };
  return change.kind === 'set-readonly' ? { ...before, readonly: change.readonly } : before;
}
