/** Numbers in guest memory, by the names of `DataView`: little-endian, as both guests are. */

import { integer, invalid, uint64 } from './check.ts';
import { TypevisorError } from './errors.ts';

/** What `vm.memory` can do with numbers, on top of what reads and writes bytes. */
export abstract class NumberAccess {
  readonly #scratch = new DataView(new ArrayBuffer(8));

  /** Copies out of the guest until `target` is full. */
  abstract readInto<T extends Uint8Array>(gpa: number, target: T): T;

  /** Copies `source` into the guest. */
  abstract write(gpa: number, source: Uint8Array): void;

  /** 1 byte, unsigned. @throws {TypevisorError} As {@link GuestMemory.read}. */
  getUint8(gpa: number): number {
    return this.#load(gpa, 1).getUint8(0);
  }

  /** 2 bytes, unsigned, little-endian. @throws {TypevisorError} As {@link GuestMemory.read}. */
  getUint16(gpa: number): number {
    return this.#load(gpa, 2).getUint16(0, true);
  }

  /** 4 bytes, unsigned, little-endian. @throws {TypevisorError} As {@link GuestMemory.read}. */
  getUint32(gpa: number): number {
    return this.#load(gpa, 4).getUint32(0, true);
  }

  /** 8 bytes, unsigned, little-endian. @throws {TypevisorError} As {@link GuestMemory.read}. */
  getBigUint64(gpa: number): bigint {
    return this.#load(gpa, 8).getBigUint64(0, true);
  }

  /** 1 byte, signed. @throws {TypevisorError} As {@link GuestMemory.read}. */
  getInt8(gpa: number): number {
    return this.#load(gpa, 1).getInt8(0);
  }

  /** 2 bytes, signed, little-endian. @throws {TypevisorError} As {@link GuestMemory.read}. */
  getInt16(gpa: number): number {
    return this.#load(gpa, 2).getInt16(0, true);
  }

  /** 4 bytes, signed, little-endian. @throws {TypevisorError} As {@link GuestMemory.read}. */
  getInt32(gpa: number): number {
    return this.#load(gpa, 4).getInt32(0, true);
  }

  /** 8 bytes, signed, little-endian. @throws {TypevisorError} As {@link GuestMemory.read}. */
  getBigInt64(gpa: number): bigint {
    return this.#load(gpa, 8).getBigInt64(0, true);
  }

  /** 4 bytes, IEEE 754, little-endian. @throws {TypevisorError} As {@link GuestMemory.read}. */
  getFloat32(gpa: number): number {
    return this.#load(gpa, 4).getFloat32(0, true);
  }

  /** 8 bytes, IEEE 754, little-endian. @throws {TypevisorError} As {@link GuestMemory.read}. */
  getFloat64(gpa: number): number {
    return this.#load(gpa, 8).getFloat64(0, true);
  }

  /** 1 byte, unsigned. @throws {TypevisorError} As {@link GuestMemory.write}; `ERR_OUT_OF_RANGE` for a value that does not fit. */
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

  /** 4 bytes, IEEE 754, little-endian; rounded to what fits. @throws {TypevisorError} As {@link GuestMemory.write}. */
  setFloat32(gpa: number, value: number): void {
    this.#scratch.setFloat32(0, float(value, 'value'), true);
    this.#store(gpa, 4);
  }

  /** 8 bytes, IEEE 754, little-endian. @throws {TypevisorError} As {@link GuestMemory.write}. */
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
