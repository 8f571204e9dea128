/** Who answers the guest's ports: claims, and the policy for what nobody claimed. */

import { integer, invalid, oneOf, options } from './check.ts';
import { ConsoleReader, type DebugConsole } from './console.ts';
import { call, TypevisorError } from './errors.ts';
import { guard, KEY } from './handle.ts';
import type { NativeVm } from './native.ts';

/** A device that can be put on a port. */
export type PortDevice = DebugConsole;

/** What happens to accesses that nobody claimed. */
export interface UnclaimedOptions {
  /**
   * `'exit'`: they are exits of the vCPU, and reads want an answer. `'ones'`: reads give ones and writes go nowhere, as
   * on a PC with nothing behind the port. Default `'exit'`.
   */
  readonly ports?: 'exit' | 'ones';
}

/** One past the last I/O port of x86. */
const PORTS = 0x1_0000;

/** The bus as its VM sees it. */
export interface BusDoor {
  readonly bus: Bus;
  /** Hands on all console output. */
  readonly drain: () => void;
  /** The VM is closed: hands on the rest and forgets the claims. */
  readonly end: () => void;
}

/** For vm.ts alone. */
export let busFrom: (native: NativeVm) => BusDoor;

/**
 * The bus of one VM, `vm.bus`: what stands on it is served in Rust and never seen by `run`.
 *
 * @example
 * using vm = Vm.create();
 * vm.bus.port(0x402, 1, debugConsole(chunk => console.log(chunk.length)));
 * vm.bus.unclaimed({ ports: 'ones' });
 */
export class Bus {
  readonly #native: NativeVm;
  readonly #consoles = new Set<ConsoleReader>();
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
        drain: () => bus.#consoles.forEach(reader => reader.drain()),
        end: () => {
          bus.#ended = true;
          bus.#consoles.forEach(reader => reader.end());
          bus.#consoles.clear();
        },
      };
    };
  }

  /**
   * Gives I/O ports to a device.
   *
   * @param base - First port.
   * @param count - How many; a debug console has one.
   * @param device - What answers, as {@link debugConsole}.
   * @returns The claim: disposing of it gives the ports back. It ends with the VM.
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT` (also where a port is claimed already), `ERR_OUT_OF_RANGE`,
   *   `ERR_CLOSED`.
   */
  port(base: number, count: number, device: PortDevice): Disposable {
    const port = integer(base, 'base', 0, PORTS - 1);
    integer(count, 'count', 1, PORTS - port);
    if (typeof device !== 'object' || device?.device !== 'debug-console') {
      throw invalid('device', 'what debugConsole() gives', device);
    }
    if (count !== 1) throw invalid('count', '1, as a debug console has one port', count);
    this.#check();
    const reader = new ConsoleReader(device.sink, id => this.#native.debugConsole(port, id));
    this.#consoles.add(reader);
    return {
      [Symbol.dispose]: () => {
        if (this.#consoles.delete(reader)) reader.release();
      },
    };
  }

  /**
   * Says what happens to accesses that nobody claimed. What is left out stays as it is.
   *
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`.
   */
  unclaimed(policy: UnclaimedOptions): void {
    const { ports } = options<UnclaimedOptions>(policy, 'unclaimed policy', ['ports']);
    if (ports === undefined) return;
    const word = oneOf(ports, 'ports', ['exit', 'ones']);
    this.#check();
    call(() => this.#native.setUnclaimed({ ports: word }));
  }

  #check(): void {
    if (this.#ended) throw new TypevisorError('ERR_CLOSED', 'the VM is closed');
  }
}
