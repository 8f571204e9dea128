/** Guest memory: slots, and the host's reads and writes across them. The core owns both; this file names them. */

import { boolean, byteArray, bytes, integer, invalid, options, uint64 } from './check.ts';
import { call, TypevisorError } from './errors.ts';
import { guard, KEY } from './handle.ts';
import type { NativeSlot, NativeSlotInfo, NativeVm } from './native.ts';
import { ioctlsAreWatched, printable } from './observe.ts';
import { type MemorySlot, slotFrom, tellSlot } from './slot.ts';

/** A range of guest physical addresses, in bytes. */
export interface GpaRange {
  readonly gpa: number;
  readonly size: number;
}

/** What to map. */
export interface MapOptions extends GpaRange {
  /** First guest physical address in bytes, a multiple of 4 KiB. */
  readonly gpa: number;
  /** Bytes, a multiple of 4 KiB. */
  readonly size: number;
  /** The guest cannot write to it: its writes are `mmio` exits. Default `false`. */
  readonly readonly?: boolean | undefined;
  /** KVM's number for the slot. Default: the lowest that is free. */
  readonly slot?: number | undefined;
}

/** Slot numbers KVM has room for in its request; how many there are says the capability `nr-memslots`. */
const SLOT_NUMBER_MAX = 0xffff;

/** A handle, and the serial of the slot it is of. */
interface Known {
  readonly serial: number;
  readonly handle: MemorySlot;
}

/** For vm.ts alone. */
export let memoryFrom: (native: NativeVm, vm: number) => GuestMemory;

/**
 * The memory of one VM, `vm.memory`. Addresses are guest physical, in bytes. An access may run over the borders of
 * slots that touch; where any byte of it has no memory, nothing is copied (`ERR_MEMORY_HOLE`).
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
export class GuestMemory {
  readonly #native: NativeVm;
  readonly #vm: number;
  /** The one handle of each slot, by number, so that `slotAt` and `map` give the same object. */
  readonly #handles = new Map<number, Known>();
  readonly #scratch = new DataView(new ArrayBuffer(8));

  private constructor(key: symbol, native: NativeVm, vm: number) {
    guard(this, key, 'vm.memory');
    this.#native = native;
    this.#vm = vm;
  }

  static {
    memoryFrom = (native, vm) => new GuestMemory(KEY, native, vm);
    printable(this, ({ slots }) => ({ slots }));
  }

  /**
   * Gives the guest zeroed memory of its own.
   *
   * @throws {TypevisorError} `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_SLOT_OVERLAP`, `ERR_SLOT_LIMIT`, `ERR_LIMIT`,
   *   `ERR_CLOSED`; `ERR_CAPABILITY_MISSING` for `readonly` where `readonly-mem` is absent. `ERR_LIMIT` also where the
   *   host has no such amount of memory.
   */
  map(range: MapOptions): MemorySlot {
    const vm = this.#native;
    const given = options<MapOptions>(range, 'map options', ['gpa', 'size', 'readonly', 'slot']);
    const { gpa, size, readonly = false, slot } = given;
    const request = {
      gpa: bytes(gpa, 'gpa'),
      size: bytes(size, 'size'),
      readonly: boolean(readonly, 'readonly'),
      slot: slot === undefined ? null : integer(slot, 'slot', 0, SLOT_NUMBER_MAX),
    };
    const native = call(() => vm.map(request));
    if (ioctlsAreWatched()) tellSlot(this.#vm, native.info());
    return this.#handle(native);
  }

  /**
   * All slots by address, those of a firmware included.
   *
   * @throws {TypevisorError} `ERR_CLOSED`.
   */
  get slots(): readonly MemorySlot[] {
    const native = this.#native;
    const infos = call(() => native.slots());
    return Object.freeze(infos.flatMap(info => this.#known(info) ?? this.slotAt(info.gpa) ?? []));
  }

  /**
   * The slot behind an address, if there is one.
   *
   * @throws {TypevisorError} `ERR_OUT_OF_RANGE`, `ERR_CLOSED`.
   */
  slotAt(gpa: number): MemorySlot | undefined {
    const address = bytes(gpa, 'gpa');
    const vm = this.#native;
    const native = call(() => vm.slotAt(address));
    return native === null ? undefined : this.#handle(native);
  }

  /**
   * Copies `size` bytes out of the guest.
   *
   * @throws {TypevisorError} `ERR_MEMORY_HOLE`, `ERR_OUT_OF_RANGE`, `ERR_CLOSED`.
   */
  read(gpa: number, size: number): Uint8Array {
    return this.readInto(gpa, allocate(bytes(size, 'size')));
  }

  /**
   * Copies out of the guest until `target` is full, and gives `target` back.
   *
   * @throws {TypevisorError} `ERR_MEMORY_HOLE`, `ERR_OUT_OF_RANGE`, `ERR_CLOSED`.
   */
  readInto<T extends Uint8Array>(gpa: number, target: T): T {
    const native = this.#native;
    const address = bytes(gpa, 'gpa');
    byteArray(target, 'target');
    call(() => native.read(address, target));
    return target;
  }

  /**
   * Copies `source` into the guest, read-only slots included.
   *
   * @throws {TypevisorError} `ERR_MEMORY_HOLE`, `ERR_OUT_OF_RANGE`, `ERR_CLOSED`.
   */
  write(gpa: number, source: Uint8Array): void {
    const native = this.#native;
    const address = bytes(gpa, 'gpa');
    byteArray(source, 'source');
    call(() => native.write(address, source));
  }

  /**
   * Sets `size` bytes from `gpa` on to `byte`.
   *
   * @throws {TypevisorError} `ERR_MEMORY_HOLE`, `ERR_OUT_OF_RANGE`, `ERR_CLOSED`.
   */
  fill(gpa: number, size: number, byte = 0): void {
    const native = this.#native;
    const address = bytes(gpa, 'gpa');
    const length = bytes(size, 'size');
    const value = integer(byte, 'byte', 0, 0xff);
    call(() => native.fill(address, length, value));
  }

  /** 1 byte, unsigned. @throws {TypevisorError} As {@link read}. */
  getUint8(gpa: number): number {
    return this.#load(gpa, 1).getUint8(0);
  }

  /** 2 bytes, unsigned, little-endian. @throws {TypevisorError} As {@link read}. */
  getUint16(gpa: number): number {
    return this.#load(gpa, 2).getUint16(0, true);
  }

  /** 4 bytes, unsigned, little-endian. @throws {TypevisorError} As {@link read}. */
  getUint32(gpa: number): number {
    return this.#load(gpa, 4).getUint32(0, true);
  }

  /** 8 bytes, unsigned, little-endian. @throws {TypevisorError} As {@link read}. */
  getBigUint64(gpa: number): bigint {
    return this.#load(gpa, 8).getBigUint64(0, true);
  }

  /** 1 byte, signed. @throws {TypevisorError} As {@link read}. */
  getInt8(gpa: number): number {
    return this.#load(gpa, 1).getInt8(0);
  }

  /** 2 bytes, signed, little-endian. @throws {TypevisorError} As {@link read}. */
  getInt16(gpa: number): number {
    return this.#load(gpa, 2).getInt16(0, true);
  }

  /** 4 bytes, signed, little-endian. @throws {TypevisorError} As {@link read}. */
  getInt32(gpa: number): number {
    return this.#load(gpa, 4).getInt32(0, true);
  }

  /** 8 bytes, signed, little-endian. @throws {TypevisorError} As {@link read}. */
  getBigInt64(gpa: number): bigint {
    return this.#load(gpa, 8).getBigInt64(0, true);
  }

  /** 4 bytes, IEEE 754, little-endian. @throws {TypevisorError} As {@link read}. */
  getFloat32(gpa: number): number {
    return this.#load(gpa, 4).getFloat32(0, true);
  }

  /** 8 bytes, IEEE 754, little-endian. @throws {TypevisorError} As {@link read}. */
  getFloat64(gpa: number): number {
    return this.#load(gpa, 8).getFloat64(0, true);
  }

  /** 1 byte, unsigned. @throws {TypevisorError} As {@link write}; `ERR_OUT_OF_RANGE` for a value that does not fit. */
  setUint8(gpa: number, value: number): void {
    this.#scratch.setUint8(0, integer(value, 'value', 0, 0xff));
    this.#store(gpa, 1);
  }

  /** 2 bytes, unsigned, little-endian. @throws {TypevisorError} As {@link setUint8}. */
  setUint16(gpa: number, value: number): void {
    this.#scratch.setUint16(0, integer(value, 'value', 0, 0xffff), true);
    this.#store(gpa, 2);
  }

  /** 4 bytes, unsigned, little-endian. @throws {TypevisorError} As {@link setUint8}. */
  setUint32(gpa: number, value: number): void {
    this.#scratch.setUint32(0, integer(value, 'value', 0, 0xffff_ffff), true);
    this.#store(gpa, 4);
  }

  /** 8 bytes, unsigned, little-endian. @throws {TypevisorError} As {@link setUint8}. */
  setBigUint64(gpa: number, value: bigint): void {
    this.#scratch.setBigUint64(0, uint64(value, 'value'), true);
    this.#store(gpa, 8);
  }

  /** 1 byte, signed. @throws {TypevisorError} As {@link setUint8}. */
  setInt8(gpa: number, value: number): void {
    this.#scratch.setInt8(0, integer(value, 'value', -0x80, 0x7f));
    this.#store(gpa, 1);
  }

  /** 2 bytes, signed, little-endian. @throws {TypevisorError} As {@link setUint8}. */
  setInt16(gpa: number, value: number): void {
    this.#scratch.setInt16(0, integer(value, 'value', -0x8000, 0x7fff), true);
    this.#store(gpa, 2);
  }

  /** 4 bytes, signed, little-endian. @throws {TypevisorError} As {@link setUint8}. */
  setInt32(gpa: number, value: number): void {
    this.#scratch.setInt32(0, integer(value, 'value', -0x8000_0000, 0x7fff_ffff), true);
    this.#store(gpa, 4);
  }

  /** 8 bytes, signed, little-endian. @throws {TypevisorError} As {@link setUint8}. */
  setBigInt64(gpa: number, value: bigint): void {
    this.#scratch.setBigInt64(0, int64(value, 'value'), true);
    this.#store(gpa, 8);
  }

  /** 4 bytes, IEEE 754, little-endian; rounded to what fits. @throws {TypevisorError} As {@link write}. */
  setFloat32(gpa: number, value: number): void {
    this.#scratch.setFloat32(0, float(value, 'value'), true);
    this.#store(gpa, 4);
  }

  /** 8 bytes, IEEE 754, little-endian. @throws {TypevisorError} As {@link write}. */
  setFloat64(gpa: number, value: number): void {
    this.#scratch.setFloat64(0, float(value, 'value'), true);
    this.#store(gpa, 8);
  }

  #load(gpa: number, size: number): DataView {
    this.readInto(gpa, new Uint8Array(this.#scratch.buffer, 0, size));
    return this.#scratch;
  }

  #store(gpa: number, size: number): void {
    this.write(gpa, new Uint8Array(this.#scratch.buffer, 0, size));
  }

  #handle(native: NativeSlot): MemorySlot {
    const info = native.info();
    const known = this.#known(info);
    if (known !== undefined) return known;
    const { slot, serial } = info;
    const handle = slotFrom(native, this.#vm, () => {
      if (this.#handles.get(slot)?.serial === serial) this.#handles.delete(slot);
    });
    this.#handles.set(slot, { serial, handle });
    return handle;
  }

  /** Numbers are used again, also by the core for slots of its own; serials are not. */
  #known({ slot, serial }: NativeSlotInfo): MemorySlot | undefined {
    const known = this.#handles.get(slot);
    return known?.serial === serial ? known.handle : undefined;
  }
}

function allocate(size: number): Uint8Array {
  try {
    return new Uint8Array(size);
  } catch (cause) {
    throw new TypevisorError('ERR_OUT_OF_RANGE', `no array can hold ${size} bytes: read less at once`, { cause });
  }
}

function int64(value: unknown, name: string): bigint {
  if (typeof value !== 'bigint') throw invalid(name, 'a bigint', value);
  if (BigInt.asIntN(64, value) === value) return value;
  throw new TypevisorError('ERR_OUT_OF_RANGE', `${name} must be from -(2n ** 63n) to 2n ** 63n - 1n; got ${value}n`);
}

function float(value: unknown, name: string): number {
  if (typeof value !== 'number') throw invalid(name, 'a number', value);
  return value;
}
