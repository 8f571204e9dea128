/** Argument checks at the door: each says what was expected and what came. The core is only asked what can be right. */

import { types } from 'node:util';
import { TypevisorError } from './errors.ts';

/** The buffer of a typed array, whatever a property of its own by that name says. */
const BUFFER = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), 'buffer');

/** Largest value of a 64-bit register. */
const UINT64_MAX = 0xffff_ffff_ffff_ffffn;

/** A value for a message: short, on one line, never calling into user code. */
export function show(value: unknown): string {
  if (typeof value === 'string') {
    return `the string ${JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value)}`;
  }
  if (typeof value === 'bigint') return `the bigint ${value}n`;
  if (typeof value === 'number' || typeof value === 'boolean') return `the ${typeof value} ${value}`;
  if (typeof value !== 'object') return value === undefined ? 'undefined' : `a ${typeof value}`;
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : `an object (${className(value)})`;
}

function className(value: object): string {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === null) return 'without prototype';
  const descriptor = Object.getOwnPropertyDescriptor(prototype, 'constructor');
  const constructor: unknown = descriptor?.value;
  return typeof constructor === 'function' && constructor.name !== '' ? constructor.name : 'Object';
}

/** The error for an argument of the wrong type or form. */
export function invalid(name: string, expected: string, value: unknown): TypevisorError {
  return new TypevisorError('ERR_INVALID_ARGUMENT', `${name} must be ${expected}; got ${show(value)}`);
}

function outOfRange(name: string, expected: string, value: unknown): TypevisorError {
  return new TypevisorError('ERR_OUT_OF_RANGE', `${name} must be ${expected}; got ${show(value)}`);
}

/** An integer from `min` to `max`, both included. */
export function integer(value: unknown, name: string, min: number, max: number): number {
  if (typeof value !== 'number') throw invalid(name, 'a number', value);
  if (!Number.isInteger(value) || value < min || value > max) {
    throw outOfRange(name, `an integer from ${min} to ${max}`, value);
  }
  return value;
}

/** An address, size or offset in bytes: a safe integer, not negative. */
export function bytes(value: unknown, name: string): number {
  if (typeof value !== 'number') throw invalid(name, 'a number of bytes', value);
  if (!Number.isSafeInteger(value) || value < 0) {
    throw outOfRange(name, 'a whole number of bytes, from 0 to 2^53 - 1', value);
  }
  return value;
}

/** A 64-bit unsigned value as a `bigint`. */
export function uint64(value: unknown, name: string): bigint {
  if (typeof value !== 'bigint') throw invalid(name, `a bigint${bigintHint(value)}`, value);
  if (value < 0n || value > UINT64_MAX) throw outOfRange(name, 'from 0n to 2n ** 64n - 1n', value);
  return value;
}

function bigintHint(value: unknown): string {
  return typeof value === 'number' && Number.isSafeInteger(value) ? ` (write ${value}n)` : '';
}

/** `true` or `false`. */
export function boolean(value: unknown, name: string): boolean {
  if (typeof value !== 'boolean') throw invalid(name, 'true or false', value);
  return value;
}

/** A string. */
export function string(value: unknown, name: string): string {
  if (typeof value !== 'string') throw invalid(name, 'a string', value);
  return value;
}

/** One of the given strings. */
export function oneOf<T extends string>(value: unknown, name: string, allowed: readonly T[]): T {
  const found = allowed.find(candidate => candidate === value);
  if (found === undefined) throw invalid(name, allowed.map(word => `'${word}'`).join(' or '), value);
  return found;
}

/** A list of some of the given strings. */
export function someOf<T extends string>(value: unknown, name: string, allowed: readonly T[]): T[] {
  if (!Array.isArray(value)) throw invalid(name, 'an array', value);
  return Array.from(value, (word: unknown, index) => oneOf(word, `${name}[${index}]`, allowed));
}

/** Bytes: a `Uint8Array`, a `Buffer` being one. A proxy of one, or a mere heir of its prototype, has none. */
export function byteArray(value: unknown, name: string): Uint8Array {
  if (!types.isUint8Array(value)) throw invalid(name, 'a Uint8Array', value);
  return value;
}

/** Whether it is memory that others may write to meanwhile: a guest, where it is a slot's. Rust must not make a slice of it. */
export function isShared(array: Uint8Array): boolean {
  return types.isSharedArrayBuffer(BUFFER?.get?.call(array));
}

/** Bytes that nobody writes to while the addon reads them: the same ones, or a copy of those that are shared. */
export function quiet(array: Uint8Array): Uint8Array {
  return isShared(array) ? copied(array) : array;
}

/** A copy. @throws {TypevisorError} As {@link allocate}. */
export function copied(array: Uint8Array): Uint8Array {
  return fresh(() => new Uint8Array(array), array.byteLength);
}

/** A fresh array of that many bytes, which is more than there can be in an array where the argument was wrong. */
export function allocate(size: number): Uint8Array {
  return fresh(() => new Uint8Array(size), size);
}

function fresh(make: () => Uint8Array, size: number): Uint8Array {
  try {
    return make();
  } catch (cause) {
    throw new TypevisorError('ERR_OUT_OF_RANGE', `no array can hold ${size} bytes: ask for less at once`, { cause });
  }
}

/** An `AbortSignal`, or nothing. */
export function abortSignal(value: unknown, name: string): AbortSignal | undefined {
  if (value === undefined || value instanceof AbortSignal) return value;
  throw invalid(name, 'an AbortSignal', value);
}

/**
 * An options object: absent is empty; a key that is not in `known` is refused, as it is most likely misspelt and would
 * else be ignored in silence.
 */
export function options<T extends object>(value: T | undefined, name: string, known: readonly string[]): Partial<T> {
  if (value === undefined) return {};
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(name, 'an object', value);
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue;
    throw new TypevisorError('ERR_INVALID_ARGUMENT', `${name} has no '${key}'; it has ${known.join(', ')}`);
  }
  return value;
}
