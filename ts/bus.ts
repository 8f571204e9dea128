/** Who answers the guest's ports and MMIO: claims, and the policy for what nobody claimed. */

import { integer, invalid, oneOf, options } from './check.ts';
import { ConsoleReader, type DebugConsole, lines, type SerialConsole, toSink } from './console.ts';
import {
  type Device,
  isProgramDevice,
  type PostedClaim,
  type PostedDevice,
  type ProgramDevice,
  Served,
  type WideDevice,
} from './device.ts';
import { call, TypevisorError } from './errors.ts';
import { guard, KEY } from './handle.ts';
import { nextId } from './mailbox.ts';
import type { NativeClaim, NativeVm } from './native.ts';
import { hex, printable } from './observe.ts';
import { PostedReader, type Reader } from './reader.ts';
import { claims as smallClaims, type Eventfd, type Latch, matches } from './small-devices.ts';

/** A device that can be put on ports or MMIO: one of JavaScript's, or one in Rust. */
export type BusDevice = ProgramDevice | DebugConsole | SerialConsole | Latch | Eventfd;

/** What happens to accesses that nobody claimed. */
export interface UnclaimedOptions {
  /**
   * `'exit'`: they are exits of the vCPU, and reads want an answer. `'ones'`: reads give ones and writes go nowhere, as
   * on a PC with nothing behind the port. Default `'exit'`.
   */
  readonly ports?: 'exit' | 'ones' | undefined;
}

/** One past the last I/O port of x86. */
const PORTS = 0x1_0000;

/** One past the last guest physical address. */
const GPA_END = 2 ** 52;

/** The bus as its VM sees it. */
export interface BusDoor {
  readonly bus: Bus;
  /** The devices of JavaScript's by the number of their claim. */
  readonly served: ReadonlyMap<number, Served>;
  /** Hands on all that waits in queues. */
  readonly drain: () => void;
  /** Hands on posted writes: before any later access of that vCPU's. */
  readonly flush: () => void;
  /** The VM is closed: hands on the rest and forgets the claims. */
  readonly end: () => void;
}

/** For vm.ts alone. */
export let busFrom: (native: NativeVm) => BusDoor;

/** Which addresses. */
interface Place {
  readonly mmio: boolean;
  readonly base: number;
  readonly size: number;
}

/** How many ports a device of Rust's has, where that is fixed. */
const PORTS_OF: Readonly<Record<string, number>> = { 'debug-console': 1, 'serial-console': 8 };

/**
 * The bus of one VM, `vm.bus`: what a device on it answers is never seen by `run`. Devices in Rust do not even wake
 * JavaScript.
 *
 * @example
 * using vm = Vm.create();
 * vm.bus.port(0x402, 1, debugConsole(chunk => console.log(chunk.length)));
 * vm.bus.port(0x60, 1, { read: () => 0x2a });
 * vm.bus.unclaimed({ ports: 'ones' });
 */
export class Bus {
  readonly #native: NativeVm;
  readonly #readers = new Set<Reader>();
  /** Those of them with posted writes. */
  readonly #posted = new Set<Reader>();
  readonly #served = new Map<number, Served>();
  /** Those without a reader. */
  readonly #others = new Map<NativeClaim, () => void>();
  /** What is claimed, for people. */
  readonly #places = new Set<Place>();
  #ended = false;

  private constructor(key: symbol, native: NativeVm) {
    guard(this, key, 'vm.bus');
    this.#native = native;
  }

  static {
    busFrom = native => {
      const bus = new Bus(KEY, native);
      return {
        bus,
        served: bus.#served,
        drain: () => bus.#readers.forEach(reader => reader.drain()),
        flush: () => {
          if (bus.#posted.size > 0) bus.#posted.forEach(reader => reader.drain());
        },
        end: () => bus.#end(),
      };
    };
    printable(this, bus => {
      if (bus.#ended) return { closed: true };
      const ranges = (mmio: boolean): object[] => [...bus.#places].filter(place => place.mmio === mmio).map(shown);
      return { ports: ranges(false), mmio: ranges(true) };
    });
  }

  /**
   * Gives I/O ports to a device.
   *
   * @param base - First port.
   * @param count - How many: 1 for a debug console, 8 for a serial one.
   * @param device - What answers: an object with `read`, `write` or `posted`, or one in Rust such as
   *   {@link debugConsole}.
   * @returns The claim: disposing of it gives the ports back. It ends with the VM. That of posted writes says what they
   *   cost.
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT` (also where a port is claimed already), `ERR_OUT_OF_RANGE`,
   *   `ERR_LIMIT` (KVM has room for 1,000 claims of posted writes; for an eventfd where no fd is left), `ERR_IO` (posted
   *   writes: no thread is left to look after them), `ERR_IOCTL` (KVM refused for a reason of its own), `ERR_CLOSED`,
   *   `ERR_FORKED`.
   */
  port(base: number, count: number, device: Device): Disposable;
  port(base: number, count: number, device: WideDevice): Disposable;
  port(base: number, count: number, device: PostedDevice): PostedClaim;
  port(base: number, count: number, device: BusDevice): Disposable;
  port(base: number, count: number, device: BusDevice): Disposable {
    const first = integer(base, 'base', 0, PORTS - 1);
    return this.#claim({ mmio: false, base: first, size: integer(count, 'count', 1, PORTS - first) }, device);
  }

  /**
   * Gives guest physical addresses to a device. It sees accesses that no slot serves, writes to read-only slots among
   * them.
   *
   * @param gpa - First address.
   * @param size - Bytes.
   * @param device - As with {@link port}; consoles stand on ports only.
   * @returns The claim: disposing of it gives the addresses back. It ends with the VM.
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT` (also where an address is claimed already), `ERR_OUT_OF_RANGE`,
   *   `ERR_LIMIT`, `ERR_IO` and `ERR_IOCTL` as with {@link port}, `ERR_CLOSED`, `ERR_FORKED`.
   */
  mmio(gpa: number, size: number, device: Device): Disposable;
  mmio(gpa: number, size: number, device: WideDevice): Disposable;
  mmio(gpa: number, size: number, device: PostedDevice): PostedClaim;
  mmio(gpa: number, size: number, device: BusDevice): Disposable;
  mmio(gpa: number, size: number, device: BusDevice): Disposable {
    const first = integer(gpa, 'gpa', 0, GPA_END - 1);
    return this.#claim({ mmio: true, base: first, size: integer(size, 'size', 1, GPA_END - first) }, device);
  }

  /**
   * Says what happens to accesses that nobody claimed. What is left out stays as it is.
   *
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`.
   */
  unclaimed(policy: UnclaimedOptions): void {
    const native = this.#native;
    if (policy === undefined) throw invalid('unclaimed policy', 'an object', policy);
    const { ports } = options<UnclaimedOptions>(policy, 'unclaimed policy', ['ports']);
    if (ports === undefined) return;
    const word = oneOf(ports, 'ports', ['exit', 'ones']);
    this.#check();
    call(() => native.setUnclaimed({ ports: word }));
  }

  #claim(place: Place, device: BusDevice): Disposable {
    this.#check();
    return this.#put(place, device);
  }

  #put(place: Place, device: BusDevice): Disposable {
    if (isProgramDevice(device)) return this.#program(place, device);
    const given: unknown = device;
    if (typeof given !== 'object' || given === null || !('device' in given)) throw noDevice(given);
    switch (device.device) {
      case 'debug-console':
      case 'serial-console':
        return this.#console(place, device);
      case 'latch':
      case 'eventfd':
        return this.#small(place, device);
      default:
        throw noDevice(device satisfies never);
    }
  }

  #program(place: Place, device: ProgramDevice): Disposable {
    const served = new Served(device, place.base);
    if (device.posted !== undefined) {
      const reader = new PostedReader(device, id => this.#ask(place, 'posted', id));
      this.#served.set(reader.id, served);
      this.#posted.add(reader);
      return postedClaim(reader, this.#reading(place, reader));
    }
    const id = nextId();
    const claim = this.#ask(place, 'program', id);
    this.#served.set(id, served);
    return this.#other(place, claim, () => this.#served.delete(id));
  }

  #console(place: Place, device: DebugConsole | SerialConsole): Disposable {
    const ports = PORTS_OF[device.device] ?? 1;
    if (place.mmio) throw invalid('device', 'one that stands on MMIO: consoles stand on ports', device);
    if (place.size !== ports) throw invalid('count', `${ports}, as a ${device.device} has`, place.size);
    const reader = new ConsoleReader(toSink(device.sink), id => this.#ask(place, device.device, id));
    if (device.device === 'serial-console') lines.set(device, reader.native);
    return this.#reading(place, reader);
  }

  #small(place: Place, device: Latch | Eventfd): Disposable {
    if (standing.has(device)) throw elsewhere(device);
    const claim = this.#ask(place, device.device, nextId(), matches.get(device));
    smallClaims.set(device, claim);
    standing.add(device);
    return this.#other(place, claim, () => standing.delete(device));
  }

  #other(place: Place, claim: NativeClaim, forgetIt: () => void): Disposable {
    this.#others.set(claim, forgetIt);
    this.#places.add(place);
    return {
      [Symbol.dispose]: () => {
        this.#places.delete(place);
        if (!this.#others.delete(claim)) return;
        forgetIt();
        call(() => claim.release());
      },
    };
  }

  #reading(place: Place, reader: Reader): Disposable {
    this.#readers.add(reader);
    this.#places.add(place);
    return {
      [Symbol.dispose]: () => {
        this.#places.delete(place);
        this.#served.delete(reader.id);
        this.#posted.delete(reader);
        if (this.#readers.delete(reader)) reader.release();
      },
    };
  }

  #ask({ mmio, base, size }: Place, owner: string, id: number, value: bigint | null = null): NativeClaim {
    const native = this.#native;
    return call(() => native.claim({ mmio, base, size, owner, id, value }));
  }

  #check(): void {
    if (this.#ended) throw new TypevisorError('ERR_CLOSED', 'the VM is closed');
  }

  #end(): void {
    this.#ended = true;
    this.#readers.forEach(reader => reader.release());
    this.#others.forEach((forgetIt, claim) => {
      forgetIt();
      call(() => claim.release());
    });
    this.#others.clear();
    this.#readers.clear();
    this.#posted.clear();
    this.#served.clear();
  }
}

/** A claim of posted writes, which goes on telling what they have cost when it is over. */
function postedClaim(reader: PostedReader, claim: Disposable): PostedClaim {
  const { native } = reader;
  return {
    get kernel() {
      return call(() => native.kernel());
    },
    get stats() {
      return Object.freeze(call(() => native.stats()));
    },
    flush() {
      call(() => native.flush());
      reader.drain();
    },
    [Symbol.dispose]: () => claim[Symbol.dispose](),
  };
}

function shown({ base, size }: Place): object {
  return { base: hex(base), size };
}

/** Devices that have one claim at a time, and have it. */
const standing = new WeakSet<Latch | Eventfd>();

function elsewhere(device: Latch | Eventfd): TypevisorError {
  return invalid('device', 'one that stands nowhere else: it has one claim at a time', device);
}

function noDevice(given: unknown): TypevisorError {
  return invalid('device', 'an object with read, write or posted, or a device in Rust', given);
}
