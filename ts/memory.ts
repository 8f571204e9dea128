/** Guest memory: slots, and the host's reads and writes across them. The core owns both; this file names them. */

import { boolean, byteArray, bytes, integer, invalid, options, uint64 } from './check.ts';
import { call, TypevisorError } from './errors.ts';
import { guard, KEY } from './handle.ts';
import type { NativeSlotInfo, NativeVm } from './native.ts';
import { type MemorySlot, slotFrom } from './slot.ts';

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
  readonly readonly?: boolean;
  /** KVM's number for the slot. Default: the lowest that is free. */
  readonly slot?: number;
}

/** Slot numbers KVM has room for in its request; how many there are says the capability `nr-memslots`. */
const SLOT_NUMBER_MAX = 0xffff;

/** For vm.ts alone. */
export let memoryFrom: (native: NativeVm) => GuestMemory;

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
  /** The one handle of each slot, by number, so that `slotAt` and `map` give the same object. */
  readonly #handles = new Map<number, MemorySlot>();
  readonly #scratch = new DataView(new ArrayBuffer(8));

  private constructor(key: symbol, native: NativeVm) {
    guard(this, key, 'vm.memory');
    this.#native = native;
  }

  static {
    memoryFrom = native => new GuestMemory(KEY, native);
  }

  /**
   * Gives the guest zeroed memory of its own.
   *
   * @throws {TypevisorError} `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_SLOT_OVERLAP`, `ERR_SLOT_LIMIT`, `ERR_LIMIT`,
   *   `ERR_CLOSED`; `ERR_CAPABILITY_MISSING` for `readonly` where `readonly-mem` is absent; `ERR_IO` where the host has
   *   no such amount of memory.
   */
  map(range: MapOptions): MemorySlot {
    const given = options<MapOptions>(range, 'map options', ['gpa', 'size', 'readonly', 'slot']);
    const request = {
      gpa: bytes(given.gpa, 'gpa'),
      size: bytes(given.size, 'size'),
      readonly: boolean(given.readonly ?? false, 'readonly'),
      slot: given.slot === undefined ? null : integer(given.slot, 'slot', 0, SLOT_NUMBER_MAX),
    };
    const native = call(() => this.#native.map(request));
    return this.#handle(native.info().slot, native);
  }

  /**
   * All slots by address, those of a firmware included.
   *
   * @throws {TypevisorError} `ERR_CLOSED`.
   */
  get slots(): readonly MemorySlot[] {
    const infos = call(() => this.#native.slots());
    return Object.freeze(
      infos.flatMap(({ slot, gpa }: NativeSlotInfo) => this.#handles.get(slot) ?? this.slotAt(gpa) ?? []),
    );
  }

  /**
   * The slot behind an address, if there is one.
   *
   * @throws {TypevisorError} `ERR_OUT_OF_RANGE`, `ERR_CLOSED`.
   */
  slotAt(gpa: number): MemorySlot | undefined {
    const address = bytes(gpa, 'gpa');
    const native = call(() => this.#native.slotAt(address));
    return native === null ? undefined : this.#handle(native.info().slot, native);
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
    const address = bytes(gpa, 'gpa');
    byteArray(target, 'target');
    call(() => this.#native.read(address, target));
    return target;
  }

  /**
   * Copies `source` into the guest, read-only slots included.
   *
   * @throws {TypevisorError} `ERR_MEMORY_HOLE`, `ERR_OUT_OF_RANGE`, `ERR_CLOSED`.
   */
  write(gpa: number, source: Uint8Array): void {
    const address = bytes(gpa, 'gpa');
    byteArray(source, 'source');
    call(() => this.#native.write(address, source));
  }

  /**
   * Sets `size` bytes from `gpa` on to `byte`.
   *
   * @throws {TypevisorError} `ERR_MEMORY_HOLE`, `ERR_OUT_OF_RANGE`, `ERR_CLOSED`.
   */
  fill(gpa: number, size: number, byte = 0): void {
    const address = bytes(gpa, 'gpa');
    const length = bytes(size, 'size');
    const value = integer(byte, 'byte', 0, 0xff);
    call(() => this.#native.fill(address, length, value));
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

  #handle(slot: number, native: Parameters<typeof slotFrom>[0]): MemorySlot {
    const known = this.#handles.get(slot);
    if (known !== undefined) return known;
    const handle = slotFrom(native, gone => this.#handles.delete(gone));
    this.#handles.set(slot, handle);
    return handle;
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
