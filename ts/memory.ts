/** Guest memory: slots, and the host's reads and writes across them. The core owns both; this file names them. */

import { NumberAccess } from './accessors.ts';
import { ADDRESS_SPACE_MAX, mapRequest, type MapOptions } from './backing.ts';
import { collectChanges, type MakeChanges } from './change.ts';
import { allocate, byteArray, bytes, integer, isShared, quiet } from './check.ts';
import { call } from './errors.ts';
import { guard, KEY } from './handle.ts';
import type { Life } from './life.ts';
import { type MemoryPromises, promisesFrom } from './memory-promises.ts';
import type { Failure, NativeMapOptions, NativeMemory, NativeSlot, NativeSlotInfo } from './native.ts';
import { ioctlsAreWatched, printable } from './observe.ts';
import { searchRequest, type SearchOptions } from './search.ts';
import { type MemorySlot, tellSlot } from './slot.ts';
import { SlotHandles } from './slots.ts';

/** A range of guest physical addresses, in bytes. */
export interface GpaRange {
  readonly gpa: number;
  readonly size: number;
}

/** What the memory of one VM has in common, whichever address space it is seen through. */
interface Shared {
  readonly life: Life;
  readonly handles: SlotHandles;
  readonly spaces: Map<number, GuestMemory>;
}

/** For vm.ts alone. */
export let memoryFrom: (native: NativeMemory, life: Life) => GuestMemory;

/**
 * The memory of one VM, `vm.memory`. Addresses are guest physical, in bytes. An access may run over the borders of
 * slots that touch; where any byte of it has no memory, nothing is copied (`ERR_MEMORY_HOLE`).
 *
 * An aligned word of up to 8 bytes is never torn where the host reaches the memory directly, which its {@link Backing}
 * says. Where the kernel copies, and cannot (a file that was cut short), that is `ERR_HOST_ACCESS`: what was read is of no
 * use then, and part of what was to be written may have been.
 *
 * The numbered accessors have the names of `DataView`'s, and are little-endian, as both guests are.
 *
 * @example
 * using vm = Vm.create();
 * vm.memory.map({ gpa: 0, size: 64 * KiB });
 * vm.memory.write(0x1000, new TextEncoder().encode('hello'));
 * vm.memory.setUint32(0x2000, 0x12345678);
 * console.log(vm.memory.getUint8(0x2000)); // 0x78
 */
export class GuestMemory extends NumberAccess {
  readonly #native: NativeMemory;
  readonly #shared: Shared;
  readonly #promises: MemoryPromises;

  private constructor(key: symbol, native: NativeMemory, shared: Shared) {
    super();
    guard(this, key, 'vm.memory');
    this.#native = native;
    this.#shared = shared;
    this.#promises = promisesFrom(native, shared.life, shared.handles);
  }

  static {
    memoryFrom = (native, life) => {
      const shared = { life, handles: new SlotHandles(life), spaces: new Map<number, GuestMemory>() };
      const memory = new GuestMemory(KEY, native, shared);
      shared.spaces.set(0, memory);
      return memory;
    };
    printable(this, ({ slots }) => ({ slots }));
  }

  /**
   * Gives the guest memory: zeroed memory of its own, or what {@link MapOptions.backing} says. One ioctl (api.rst 4.35 and
   * 4.140): vCPUs may be running. It waits behind a change that is under way; to wait off this thread, use
   * {@link promises}, which also opens files there.
   *
   * @throws {TypevisorError} `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_SLOT_OVERLAP`, `ERR_SLOT_LIMIT`,
   *   `ERR_INVALID_ARGUMENT`, `ERR_POISONED`, `ERR_CLOSED`; `ERR_CAPABILITY_MISSING` for `readonly` where `readonly-mem`
   *   (Linux 3.7) is absent, for `'guest-memfd'` without `guest-memfd-flags` (6.18), and for an address space without
   *   `multi-address-space` (4.2, x86_64); `ERR_LIMIT` where the host has no such amount of memory, or of huge pages, or no
   *   mapping or descriptor left; `ERR_IO` for a file that cannot be opened; `ERR_IOCTL` where KVM refuses.
   * @example
   * using vm = Vm.create();
   * const ram = vm.memory.map({ gpa: 0, size: 64 * KiB, backing: 'memfd' });
   * vm.memory.map({ gpa: 1 * MiB, size: 4 * KiB, backing: { share: ram, offset: 4 * KiB } });
   * vm.memory.setUint8(0x1000, 42);
   * console.log(vm.memory.getUint8(1 * MiB)); // 42: the same byte at another address
   */
  map(range: MapOptions): MemorySlot {
    const memory = this.#native;
    const { life, handles } = this.#shared;
    const { request, bytes: own } = mapRequest(range);
    const native = call(() => mapBy(memory, request));
    if (ioctlsAreWatched())
      tellSlot(
        life.id,
        call(() => native.info()),
      );
    return handles.of(native, own);
  }

  /**
   * Makes several changes as one: all of them, or none. vCPUs are held out of the guest meanwhile, whatever they do: none
   * of them sees anything in between, and no exit comes of it.
   *
   * What is unmapped or moved away by a change makes room for what the same change maps.
   *
   * It waits until every vCPU has left the kernel: long, where one sleeps in a missing page. `promises.change` waits off this
   * thread.
   *
   * @param make - Says what is to be changed, by what it is given: called at once, and synchronous. Where it throws,
   *   nothing is done, and that is thrown on.
   * @returns The slots that it mapped, in order.
   * @throws {TypevisorError} As {@link map} and {@link MemorySlot.move}, with nothing changed; `ERR_INVALID_ARGUMENT` where
   *   `make` returns a promise; `ERR_IOCTL` where KVM refuses a change, with those before it taken back; `ERR_POISONED` where KVM refused a change and then to take back those before it: the VM
   *   can only be closed.
   * @example
   * using vm = Vm.create();
   * const ram = vm.memory.map({ gpa: 0, size: 64 * KiB });
   * const [more] = vm.memory.change(tx => {
   *   tx.move(ram, 1 * MiB);
   *   tx.map({ gpa: 0, size: 128 * KiB });
   * });
   * console.log(ram.gpa, more?.size); // 1048576 131072
   */
  change(make: MakeChanges): readonly MemorySlot[] {
    const memory = this.#native;
    const { life, handles } = this.#shared;
    const changes = collectChanges(life.id, make);
    const watched = ioctlsAreWatched();
    const done = call(() => memory.change(changes.request, watched));
    return changes.made(done, handles);
  }

  /** The same off this thread, for what may take its time: in the order asked for, on a thread of the VM's. */
  get promises(): MemoryPromises {
    return this.#promises;
  }

  /**
   * The memory as another address space has it: its slots, and the host's access through it. 0 is what vCPUs see, 1 on
   * x86_64 what they see in system management mode (api.rst 4.35).
   *
   * @throws {TypevisorError} `ERR_CAPABILITY_MISSING` where there is one alone (`multi-address-space`, Linux 4.2),
   *   `ERR_OUT_OF_RANGE`, `ERR_POISONED`, `ERR_CLOSED`.
   * @example
   * using vm = Vm.create();
   * if (vm.capabilities.has('multi-address-space')) {
   *   const management = vm.memory.addressSpace(1);
   *   management.map({ gpa: 640 * KiB, size: 128 * KiB });
   *   console.log(management.slots.length, vm.memory.slots.length); // 1 0
   * }
   */
  addressSpace(id: number): GuestMemory {
    const native = this.#native;
    const { spaces } = this.#shared;
    const number = integer(id, 'id', 0, ADDRESS_SPACE_MAX);
    const found = call(() => native.addressSpace(number));
    const known = spaces.get(number);
    if (known !== undefined) return known;
    const memory = new GuestMemory(KEY, found, this.#shared);
    spaces.set(number, memory);
    return memory;
  }

  /**
   * All slots by address, those of a firmware included.
   *
   * @throws {TypevisorError} `ERR_POISONED`, `ERR_CLOSED`.
   */
  get slots(): readonly MemorySlot[] {
    const native = this.#native;
    const { handles } = this.#shared;
    const infos = call(() => native.slots());
    return Object.freeze(infos.flatMap(info => handles.known(info) ?? this.#found(info) ?? []));
  }

  /**
   * The slot behind an address, if there is one.
   *
   * @throws {TypevisorError} `ERR_OUT_OF_RANGE`, `ERR_POISONED`, `ERR_CLOSED`.
   */
  slotAt(gpa: number): MemorySlot | undefined {
    const memory = this.#native;
    const address = bytes(gpa, 'gpa');
    const native = call(() => memory.slotAt(address));
    return native === null ? undefined : this.#shared.handles.of(native);
  }

  /** A slot that was listed and has no handle yet, unless another thread has put another one there since. */
  #found({ gpa, serial }: NativeSlotInfo): MemorySlot | undefined {
    const memory = this.#native;
    const native = call(() => memory.slotAt(gpa));
    if (native === null || call(() => native.serial()) !== serial) return undefined;
    return this.#shared.handles.of(native);
  }

  /**
   * Copies `size` bytes out of the guest.
   *
   * @throws {TypevisorError} `ERR_MEMORY_HOLE`, `ERR_HOST_ACCESS`, `ERR_OUT_OF_RANGE`, `ERR_POISONED`, `ERR_CLOSED`.
   */
  read(gpa: number, size: number): Uint8Array {
    return this.readInto(gpa, allocate(bytes(size, 'size')));
  }

  /**
   * Copies out of the guest until `target` is full, and gives `target` back. That may be over memory of a guest's, as
   * `slot.view()` is, also where both overlap.
   *
   * @throws {TypevisorError} `ERR_MEMORY_HOLE`, `ERR_HOST_ACCESS`, `ERR_OUT_OF_RANGE`, `ERR_POISONED`, `ERR_CLOSED`.
   */
  override readInto<T extends Uint8Array>(gpa: number, target: T): T {
    const native = this.#native;
    const address = bytes(gpa, 'gpa');
    byteArray(target, 'target');
    const into = isShared(target) ? allocate(target.length) : target;
    call(() => native.read(address, into));
    if (into !== target) target.set(into);
    return target;
  }

  /**
   * Copies `source` into the guest, read-only slots included: but for those on a shared file that may not be written.
   * `source` may be over memory of a guest's, also where both overlap.
   *
   * @throws {TypevisorError} `ERR_MEMORY_HOLE`, `ERR_HOST_ACCESS`, `ERR_OUT_OF_RANGE`, `ERR_POISONED`, `ERR_CLOSED`.
   */
  override write(gpa: number, source: Uint8Array): void {
    const native = this.#native;
    const address = bytes(gpa, 'gpa');
    const from = quiet(byteArray(source, 'source'));
    call(() => native.write(address, from));
  }

  /**
   * Sets `size` bytes from `gpa` on to `byte`.
   *
   * @throws {TypevisorError} `ERR_MEMORY_HOLE`, `ERR_HOST_ACCESS`, `ERR_OUT_OF_RANGE`, `ERR_POISONED`, `ERR_CLOSED`.
   */
  fill(gpa: number, size: number, byte = 0): void {
    const native = this.#native;
    const address = bytes(gpa, 'gpa');
    const length = bytes(size, 'size');
    const value = integer(byte, 'byte', 0, 0xff);
    call(() => native.fill(address, length, value));
  }

  /**
   * Where in `size` bytes from `gpa` on the bytes of `pattern` begin, lowest first, also where they overlap or run over the
   * border of slots. A guest that runs may write meanwhile.
   *
   * @throws {TypevisorError} `ERR_MEMORY_HOLE` where any of these bytes has no memory; `ERR_HOST_ACCESS`, `ERR_OUT_OF_RANGE`,
   *   `ERR_POISONED`, `ERR_CLOSED`; `ERR_INVALID_ARGUMENT` for an empty pattern.
   * @example
   * using vm = Vm.create();
   * vm.memory.map({ gpa: 0, size: 64 * KiB });
   * vm.memory.write(0x1234, Buffer.from('RSD PTR '));
   * console.log(vm.memory.search(0, 64 * KiB, Buffer.from('RSD PTR '))); // [ 4660 ]
   */
  search(gpa: number, size: number, pattern: Uint8Array, how?: SearchOptions): number[] {
    const native = this.#native;
    const { gpa: address, size: length, pattern: wanted, limit } = searchRequest(gpa, size, pattern, how);
    return call(() => native.search(address, length, quiet(wanted), limit));
  }
}

/** What most programs map crosses the bridge as a few values: that is measured in microseconds. */
function mapBy(memory: NativeMemory, request: NativeMapOptions): Failure | NativeSlot {
  const { gpa, size, readonly, transparentHugePages, backing, slot, addressSpace } = request;
  if (backing.kind !== 'anonymous' || slot !== null || addressSpace !== null) return memory.map(request);
  return memory.mapPlain(gpa, size, readonly, transparentHugePages);
}
