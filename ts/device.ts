/** Devices of JavaScript's on the bus: what they are asked, and how their answers are checked. */

import { AsyncResource } from 'node:async_hooks';
import { invalid, show } from './check.ts';
import { TypevisorError } from './errors.ts';
import type { NativeExit } from './native.ts';

/** One write of a guest's. `offset` and `size` in bytes. */
export interface PostedWrite {
  readonly offset: number;
  readonly size: number;
  readonly value: number;
}

/**
 * A device whose accesses are answered in JavaScript while the vCPU waits. `offset` counts bytes from the start of the
 * claim, `size` is 1, 2 or 4 bytes; 8 bytes at once arrive as two accesses of 4, low half first. What has no function reads
 * ones and ignores writes. Handlers keep the AsyncLocalStorage context they were claimed in. One that throws rejects the
 * run with that very error and leaves the access unanswered. On a vCPU's own thread a handler may return a promise; under
 * `runSync` that is `ERR_ASYNC_HANDLER`. An abort does not wait for it: the next `run` or `settle` goes on with it first.
 * A `write` that throws counts as done for the guest, which runs on behind it.
 */
export interface Device {
  /** Default 32. With 64, an access of 8 bytes arrives whole, as a `bigint`: see {@link WideDevice}. */
  readonly width?: 32 | undefined;
  /** @returns What the guest reads: an integer from 0 to 2^(8 * size) - 1. */
  read?(offset: number, size: number): number | Promise<number>;
  write?(offset: number, size: number, value: number): void | Promise<void>;
  readonly posted?: undefined;
}

/** As {@link Device}, and accesses of 8 bytes (MMIO) arrive whole. Their values are `bigint`, all others `number`. */
export interface WideDevice {
  readonly width: 64;
  read?(offset: number, size: number): number | bigint | Promise<number | bigint>;
  write?(offset: number, size: number, value: number | bigint): void | Promise<void>;
  readonly posted?: undefined;
}

/**
 * A device whose writes may wait: they gather, in order, in a queue of 8,192 (then the vCPU waits), and are handed over
 * before any later exit of that vCPU's, and any later access that JavaScript or Rust answers. Where the VM has
 * `coalesced-mmio`, for ports `coalesced-pio`, KVM gathers them by itself, a page at a time (169 where pages have 4 KiB): most
 * of them do not even stop the guest, whose last ones are handed over within milliseconds while it runs on. What the guest
 * says meanwhile without an exit, by an {@link eventfd} that KVM rings or in memory, may be seen before:
 * {@link PostedClaim.flush} has them handed over at once. See {@link PostedClaim} for what they cost. A function that
 * throws makes an uncaught exception, as an event listener's would, and later writes go on.
 */
export interface PostedDevice {
  readonly width?: 32 | undefined;
  posted(writes: readonly PostedWrite[]): void;
  read?(offset: number, size: number): number | Promise<number>;
  readonly write?: undefined;
}

/** A claim of a {@link PostedDevice}. */
export interface PostedClaim extends Disposable {
  /**
   * Whether KVM gathers the writes. It does not without its capability, on addresses among which its own interrupt
   * controllers stand (`irqchip`), and for more than 2 GiB of MMIO: every write is an exit then, and nothing that the guest
   * says later is seen before it. `false` once disposed of.
   */
  readonly kernel: boolean;
  /** What the writes have cost so far. */
  readonly stats: PostedStats;
  /**
   * Hands over all that the guest has written until now, before it returns. Nothing once disposed of.
   *
   * @example
   * using vm = Vm.create();
   * const ring = vm.bus.port(0x60, 4, { posted: writes => console.log(writes.length) });
   * const bell = eventfd();
   * vm.bus.port(0x64, 4, bell);
   * // … whoever finds bell.fd readable:
   * ring.flush(); // what the guest wrote to 0x60 before it rang
   */
  flush(): void;
}

/** What posted writes have cost. */
export interface PostedStats {
  /** Writes of the guest's that were put into the queue. */
  readonly writes: number;
  /** Times that the guest was stopped for one of them: each time, or where KVM gathers them, when its ring was full. */
  readonly exits: number;
}

/** Any device of JavaScript's. */
export type ProgramDevice = Device | WideDevice | PostedDevice;

type Value = number | bigint;
type Read = (offset: number, size: number) => unknown;
type Write = (offset: number, size: number, value: Value) => unknown;

const NAMES = ['read', 'write', 'posted'] as const;

/** Whether it has the shape of a device; throws where it has, and something is wrong with it. */
export function isProgramDevice(device: unknown): device is ProgramDevice {
  if (typeof device !== 'object' || device === null) return false;
  const functions = NAMES.filter(name => Reflect.get(device, name) !== undefined);
  if (functions.length === 0) return false;
  for (const name of functions) {
    const value: unknown = Reflect.get(device, name);
    if (typeof value !== 'function') throw invalid(`device.${name}`, 'a function', value);
  }
  if (functions.includes('posted') && functions.includes('write')) {
    throw invalid('device', 'one of write and posted, not both', device);
  }
  const width: unknown = Reflect.get(device, 'width');
  if (width !== undefined && width !== 32 && width !== 64) throw invalid('device.width', '32 or 64', width);
  return true;
}

/** A device as the vCPU asks it: in the context it was claimed in, with its answers checked. */
export class Served {
  readonly #read: Read | undefined;
  readonly #write: Write | undefined;
  readonly #base: number;
  readonly #wide: boolean;
  readonly #device: ProgramDevice;
  readonly #scope = new AsyncResource('TypevisorDevice');

  constructor(device: ProgramDevice, base: number) {
    this.#base = base;
    this.#device = device;
    this.#wide = device.width === 64;
    this.#read = bind(device, 'read');
    this.#write = bind(device, 'write');
  }

  /** One access of at most 4 bytes, or 8 where the device is wide; the answer, or a promise of it. */
  one(write: boolean, offset: number, size: number, value: Value): unknown {
    if (write) return this.#write && this.#scope.runInAsyncScope(this.#write, this.#device, offset, size, value);
    if (this.#read === undefined) return ones(size);
    return this.#scope.runInAsyncScope(this.#read, this.#device, offset, size);
  }

  /** Whether an access of that size is one for the device. */
  whole(size: number): boolean {
    return size <= 4 || (this.#wide && size === 8);
  }

  /**
   * Any access, in as many parts as it takes, one after the other; where it reads, the bytes. A promise where a part is
   * one; it ends early, with `ERR_CLOSED`, where `stands` says that there is nobody to answer any more.
   */
  all(exit: NativeExit, stands: () => boolean): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    const access = describe(exit, this.#base);
    const answer = access.write ? undefined : new Uint8Array(access.size * access.count);
    const rest = parts(access, this.whole(access.size));
    for (const part of rest) {
      const given = this.#ask(access, part);
      if (isThenable(given)) return this.#later(access, answer, part, given, stands);
      if (answer !== undefined) put(answer, part, checked(given, part.size));
    }
    return answer;
  }

  async #later(
    access: Access,
    answer: Uint8Array | undefined,
    first: Part,
    pending: PromiseLike<unknown>,
    stands: () => boolean,
  ): Promise<Uint8Array | undefined> {
    let given: unknown = await pending;
    if (answer !== undefined) put(answer, first, checked(given, first.size));
    for (const part of parts(access, this.whole(access.size))) {
      if (part.at <= first.at) continue;
      if (!stands()) throw new TypevisorError('ERR_CLOSED', 'the claim or its VM is closed');
      given = await this.#ask(access, part);
      if (answer !== undefined) put(answer, part, checked(given, part.size));
    }
    return answer;
  }

  #ask(access: Access, part: Part): unknown {
    return this.one(access.write, part.offset, part.size, access.write ? get(access.data, part) : 0);
  }

  /** The same at once. */
  allSync(exit: NativeExit): Uint8Array | undefined {
    return this.parts(describe(exit, this.#base));
  }

  /** The same, from an access that was described already. */
  parts(access: Access): Uint8Array | undefined {
    const answer = new Uint8Array(access.size * access.count);
    for (const part of parts(access, this.whole(access.size))) {
      const given = this.#ask(access, part);
      refusePromise(given);
      if (!access.write) put(answer, part, checked(given, part.size));
    }
    return access.write ? undefined : answer;
  }
}

function bind(device: ProgramDevice, name: 'read' | 'write'): ((...args: unknown[]) => unknown) | undefined {
  const handler: unknown = Reflect.get(device, name);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- called with what the device's own type takes
  return typeof handler === 'function' ? (handler as (...args: unknown[]) => unknown) : undefined;
}

/** Whether a device, or a handler, wants to be waited for. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}

/** @throws {TypevisorError} `ERR_ASYNC_HANDLER`. */
export function refusePromise(given: unknown): void {
  if (!isThenable(given)) return;
  // Its rejection is nobody's: the error says why it is not awaited.
  if (given instanceof Promise) given.catch(() => undefined);
  throw new TypevisorError(
    'ERR_ASYNC_HANDLER',
    'a device answered with a promise under runSync, where nobody can wait',
  );
}

/**
 * What a device gave for a read.
 *
 * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`.
 */
export function checked(given: unknown, size: number): Value {
  const fits =
    typeof given === 'number'
      ? Number.isSafeInteger(given) && given >= 0 && given < 2 ** (8 * size)
      : typeof given === 'bigint' && given >= 0n && given >> BigInt(8 * size) === 0n;
  if (fits) return given as Value; // oxlint-disable-line typescript/no-unsafe-type-assertion -- checked above
  const expected = `an integer of ${size} bytes, from 0 on`;
  if (typeof given !== 'number' && typeof given !== 'bigint') throw invalid("a device's answer", expected, given);
  throw new TypevisorError('ERR_OUT_OF_RANGE', `a device's answer must be ${expected}, not ${show(given)}`);
}

function ones(size: number): Value {
  return size === 8 ? 0xffff_ffff_ffff_ffffn : 2 ** (8 * size) - 1;
}

/** Any access. `offset` is in the claim; all elements are at the same. */
export interface Access {
  readonly write: boolean;
  readonly offset: number;
  readonly size: number;
  readonly count: number;
  readonly data: Uint8Array;
}

interface Part {
  /** Of the device. */
  readonly offset: number;
  /** Of the bytes. */
  readonly at: number;
  readonly size: number;
}

function describe(exit: NativeExit, base: number): Access {
  if (exit.kind === 'io') {
    return { write: exit.out, offset: exit.port - base, size: exit.size, count: exit.count, data: exit.data };
  }
  if (exit.kind === 'mmio') {
    return { write: exit.write, offset: exit.gpa - base, size: exit.size, count: 1, data: exit.data };
  }
  throw new TypevisorError('ERR_INTERNAL', `an access arrived as ${exit.kind}; please report it`);
}

/** Elements one after the other; of those that are too wide, halves of 4 bytes and what is left in powers of two. */
function* parts({ offset, size, count }: Access, whole: boolean): Generator<Part> {
  for (let element = 0; element < count; element += 1) {
    const start = element * size;
    if (whole && size !== 3) {
      yield { offset, at: start, size };
      continue;
    }
    for (let done = 0; done < size;) {
      const left = size - done;
      const part = left >= 4 ? 4 : left >= 2 ? 2 : 1;
      yield { offset: offset + done, at: start + done, size: part };
      done += part;
    }
  }
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function get(bytes: Uint8Array, { at, size }: Part): Value {
  const data = view(bytes);
  if (size === 8) return data.getBigUint64(at, true);
  if (size === 4) return data.getUint32(at, true);
  return size === 2 ? data.getUint16(at, true) : data.getUint8(at);
}

function put(bytes: Uint8Array, { at, size }: Part, value: Value): void {
  const data = view(bytes);
  if (size === 8) data.setBigUint64(at, BigInt(value), true);
  else if (size === 4) data.setUint32(at, Number(value), true);
  else if (size === 2) data.setUint16(at, Number(value), true);
  else data.setUint8(at, Number(value));
}
