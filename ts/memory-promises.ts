/** Work on guest memory that may take its time, off the JavaScript thread: on the VM's control thread. */

import { mapRequest, type MapOptions } from './backing.ts';
import { collectChanges, type MakeChanges } from './change.ts';
import { allocate, byteArray, bytes, copied, integer } from './check.ts';
import { call, TypevisorError, unwrap } from './errors.ts';
import { guard, KEY } from './handle.ts';
import type { Life } from './life.ts';
import { nextId, request } from './mailbox.ts';
import type { NativeDone, NativeExit, NativeJob, NativeMemory } from './native.ts';
import { ioctlsAreWatched, printable } from './observe.ts';
import { searchRequest, type SearchOptions } from './search.ts';
import { endSlot, type MemorySlot, ownSlot, tellSlot, tellSlotChange, unlessGone } from './slot.ts';
import type { SlotHandles } from './slots.ts';

/** For memory.ts alone. */
export let promisesFrom: (native: NativeMemory, life: Life, handles: SlotHandles) => MemoryPromises;

/**
 * `vm.memory.promises`: what `vm.memory` does, on a thread of the VM's own. Jobs are done one after the other, in the order
 * asked for. While one is pending Node stays alive, unless `vm.unref()` said otherwise. When the VM is closed, which waits
 * for the one under way, the others reject with `ERR_CLOSED`.
 *
 * @example
 * using vm = Vm.create();
 * const slot = await vm.memory.promises.map({ gpa: 0, size: 64 * KiB });
 * await Promise.all([vm.memory.promises.fill(0, 64 * KiB, 0xff), vm.memory.promises.move(slot, 1 * MiB)]);
 * console.log((await vm.memory.promises.read(1 * MiB, 1))[0]); // 255
 */
export class MemoryPromises {
  readonly #native: NativeMemory;
  readonly #life: Life;
  readonly #handles: SlotHandles;

  private constructor(key: symbol, native: NativeMemory, life: Life, handles: SlotHandles) {
    guard(this, key, 'vm.memory.promises');
    this.#native = native;
    this.#life = life;
    this.#handles = handles;
  }

  static {
    promisesFrom = (native, life, handles) => new MemoryPromises(KEY, native, life, handles);
    printable(this, self => ({ vm: self.#life.id }));
  }

  /**
   * As `vm.memory.map`; a file is opened on that thread, too.
   *
   * @throws {TypevisorError} As {@link GuestMemory.map}.
   * @example
   * using vm = Vm.create();
   * const slot = await vm.memory.promises.map({ gpa: 0, size: 64 * KiB, backing: 'memfd' });
   * console.log(slot.backing); // memfd
   */
  map(range: MapOptions): Promise<MemorySlot> {
    return this.#hold(async () => {
      const { request: options, bytes: own } = mapRequest(range);
      const { slots, infos } = await this.#change({ kind: 'map', options });
      for (const info of infos) tellSlot(this.#life.id, info);
      const [native] = slots;
      if (native === undefined) throw new TypevisorError('ERR_INTERNAL', 'a map without a slot; please report it');
      return this.#handles.of(native, own);
    });
  }

  /**
   * As `slot.unmap`: of a slot that is gone, with its VM or before, it is harmless.
   *
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`, also for the slot of another VM; `ERR_IOCTL`, `ERR_POISONED`.
   * @example
   * using vm = Vm.create();
   * const slot = vm.memory.map({ gpa: 0, size: 64 * KiB });
   * await vm.memory.promises.unmap(slot);
   * console.log(vm.memory.slots); // []
   */
  unmap(slot: MemorySlot): Promise<void> {
    return this.#hold(async () => {
      const parts = ownSlot(slot, this.#life.id);
      if (parts.gone) return;
      try {
        const { infos } = await this.#change({ kind: 'unmap', slot: parts.native });
        for (const info of infos) tellSlot(parts.vm, { ...info, size: 0 });
      } catch (error) {
        unlessGone(error);
      }
      endSlot(parts);
    });
  }

  /**
   * As `slot.move`.
   *
   * @throws {TypevisorError} As {@link MemorySlot.move}; `ERR_INVALID_ARGUMENT`, also for the slot of another VM.
   * @example
   * using vm = Vm.create();
   * const slot = vm.memory.map({ gpa: 0, size: 64 * KiB });
   * await vm.memory.promises.move(slot, 1 * MiB);
   * console.log(slot.gpa); // 1048576
   */
  move(slot: MemorySlot, gpa: number): Promise<void> {
    return this.#hold(async () => {
      const { native, vm } = ownSlot(slot, this.#life.id);
      const to = bytes(gpa, 'gpa');
      const { infos } = await this.#change({ kind: 'move', slot: native, gpa: to });
      for (const before of infos) tellSlotChange(vm, before, { ...before, gpa: to });
    });
  }

  /**
   * As `vm.memory.change`: `make` is called at once, and what it asked for is made on that thread.
   *
   * @throws {TypevisorError} As {@link GuestMemory.change}.
   * @example
   * using vm = Vm.create();
   * const slot = vm.memory.map({ gpa: 0, size: 64 * KiB });
   * const [made] = await vm.memory.promises.change(tx => {
   *   tx.unmap(slot);
   *   tx.map({ gpa: 0, size: 128 * KiB });
   * });
   * console.log(made?.size); // 131072
   */
  change(make: MakeChanges): Promise<readonly MemorySlot[]> {
    return this.#hold(async () => {
      const changes = collectChanges(this.#life.id, make);
      return changes.made(await this.#change({ kind: 'change', changes: changes.request }), this.#handles);
    });
  }

  /**
   * As `vm.memory.read`.
   *
   * @throws {TypevisorError} As {@link GuestMemory.read}.
   * @example
   * using vm = Vm.create();
   * vm.memory.map({ gpa: 0, size: 64 * KiB });
   * console.log((await vm.memory.promises.read(0, 64 * KiB)).length); // 65536
   */
  read(gpa: number, size: number): Promise<Uint8Array> {
    return this.#hold(async () => {
      const address = bytes(gpa, 'gpa');
      const target = allocate(bytes(size, 'size'));
      await this.#do({ kind: 'read', gpa: address, target });
      return target;
    });
  }

  /**
   * As `vm.memory.write`, with the bytes that `source` has now.
   *
   * @throws {TypevisorError} As {@link GuestMemory.write}.
   * @example
   * using vm = Vm.create();
   * vm.memory.map({ gpa: 0, size: 64 * KiB });
   * await vm.memory.promises.write(0x1000, new TextEncoder().encode('hello'));
   */
  write(gpa: number, source: Uint8Array): Promise<void> {
    return this.#hold(async () => {
      const address = bytes(gpa, 'gpa');
      await this.#do({ kind: 'write', gpa: address, bytes: copied(byteArray(source, 'source')) });
    });
  }

  /**
   * As `vm.memory.fill`.
   *
   * @throws {TypevisorError} As {@link GuestMemory.fill}.
   * @example
   * using vm = Vm.create();
   * vm.memory.map({ gpa: 0, size: 64 * KiB });
   * await vm.memory.promises.fill(0, 64 * KiB, 0xff);
   */
  fill(gpa: number, size: number, byte = 0): Promise<void> {
    return this.#hold(async () => {
      const range = { gpa: bytes(gpa, 'gpa'), size: bytes(size, 'size') };
      await this.#do({ kind: 'fill', ...range, byte: integer(byte, 'byte', 0, 0xff) });
    });
  }

  /**
   * As `vm.memory.search`, for the bytes that `pattern` has now.
   *
   * @throws {TypevisorError} As {@link GuestMemory.search}.
   * @example
   * using vm = Vm.create();
   * vm.memory.map({ gpa: 0, size: 64 * KiB });
   * vm.memory.write(0x1234, Buffer.from('RSD PTR '));
   * console.log(await vm.memory.promises.search(0, 64 * KiB, Buffer.from('RSD PTR '))); // [ 4660 ]
   */
  search(gpa: number, size: number, pattern: Uint8Array, how?: SearchOptions): Promise<number[]> {
    return this.#hold(async () => {
      const wanted = searchRequest(gpa, size, pattern, how);
      const { found } = await this.#done({ kind: 'search', ...wanted, pattern: copied(wanted.pattern) });
      return found;
    });
  }

  #hold<T>(work: () => Promise<T>): Promise<T> {
    return this.#life.hold(this, work);
  }

  /** A job that changes slots. What there is to tell of it is known to the thread that does it, and to no other. */
  #change(job: NativeJob): Promise<NativeDone> {
    return this.#done(job, ioctlsAreWatched());
  }

  /** A job that has something to say. */
  async #done(job: NativeJob, watched = false): Promise<NativeDone> {
    const done = await this.#do(job, watched);
    if (done !== null && 'slots' in done) return done;
    throw new TypevisorError('ERR_INTERNAL', 'a job that says nothing; please report it');
  }

  async #do(job: NativeJob, watched = false): Promise<NativeExit | NativeDone | null> {
    const native = this.#native;
    const id = nextId();
    const { payload } = await request(id, () => call(() => native.start(id, job, watched)), this.#life.liveness);
    return unwrap(payload);
  }
}
