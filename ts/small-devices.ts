/** Small devices in Rust: a latch and an eventfd. An access to them never wakes JavaScript. */

import { integer, options, uint64 } from './check.ts';
import { TypevisorError } from './errors.ts';
import type { NativeClaim } from './native.ts';

/** A latch to claim with: see {@link latch}. */
export interface Latch {
  readonly device: 'latch';
  /** What was written last, up to 8 bytes, little-endian; 0 before. */
  readonly value: bigint;
}

/** An eventfd to claim with: see {@link eventfd}. */
export interface Eventfd {
  readonly device: 'eventfd';
  /**
   * The number of the fd while the device stands on the bus; it is closed with the claim.
   *
   * @throws {TypevisorError} `ERR_CLOSED`.
   */
  readonly fd: number;
  /**
   * Whether KVM itself rings it, without an exit, while it stands on the bus: for writes at the first address of its claim,
   * with a value to match of up to 4 bytes, where the VM has the capability `ioeventfd`. All others, and all without it, on
   * addresses among which KVM's own interrupt controllers stand (`irqchip`), or beside 1,000 claims of posted writes, are rung
   * in Rust.
   */
  readonly kernel: boolean;
}

/** How an eventfd is rung. */
export interface EventfdOptions {
  /** The one value by which it is rung, whatever the size of the write; others go nowhere. Default: any. */
  readonly match?: number | bigint | undefined;
}

/** For bus.ts alone: the claims of devices. */
export const claims: WeakMap<Latch | Eventfd, NativeClaim> = new WeakMap();

/** For bus.ts alone: by which value an eventfd is rung, where it is one. */
export const matches: WeakMap<Latch | Eventfd, bigint> = new WeakMap();

/**
 * A latch: holds what the guest wrote last, whatever the offset, and reads as it. One claim at a time.
 *
 * @example
 * using vm = Vm.create();
 * const progress = latch();
 * vm.bus.port(0x80, 1, progress); // where PC firmware shows how far it got
 * console.log(progress.value); // 0n
 */
export function latch(): Latch {
  const device: Latch = {
    device: 'latch',
    get value() {
      return claims.get(device)?.value() ?? 0n;
    },
  };
  return Object.freeze(device);
}

/**
 * An eventfd (eventfd(2); non-blocking, close-on-exec): every write of the guest's adds 1 to it; reads give 0. For whoever
 * waits on fds outside of JavaScript. KVM rings it by itself where it can: posted writes that came before may then be handed
 * over after, see {@link PostedClaim.flush}. One claim at a time.
 *
 * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`.
 * @example
 * using vm = Vm.create();
 * const bell = eventfd();
 * vm.bus.mmio(0xd000_0000, 4, bell);
 * console.log(bell.fd > 2); // true
 * const start = eventfd({ match: 1 }); // rung by a write of 1, and by no other
 */
export function eventfd(given?: EventfdOptions): Eventfd {
  const { match } = options<EventfdOptions>(given, 'options', ['match']);
  const device: Eventfd = {
    device: 'eventfd',
    get fd() {
      const fd = claims.get(device)?.fd() ?? -1;
      if (fd < 0) throw new TypevisorError('ERR_CLOSED', 'the eventfd stands on no bus');
      return fd;
    },
    get kernel() {
      return claims.get(device)?.kernel() ?? false;
    },
  };
  if (match !== undefined) matches.set(device, valueOf(match));
  return Object.freeze(device);
}

function valueOf(match: unknown): bigint {
  if (typeof match === 'bigint') return uint64(match, 'match');
  return BigInt(integer(match, 'match', 0, Number.MAX_SAFE_INTEGER));
}
