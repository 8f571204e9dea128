/**
 * A run of a vCPU, with the accesses that devices of JavaScript's answer in between: from the first entry to the exit that
 * nobody on the bus takes.
 */

import { onAbort } from './abort.ts';
import type { BusDoor } from './bus.ts';
import { checked, refusePromise, type Served } from './device.ts';
import { call, TypevisorError, unwrap } from './errors.ts';
import type { Liveness, Payload } from './mailbox.ts';
import { nextId, request } from './mailbox.ts';
import type { NativeExit, NativeVcpu } from './native.ts';
import type { Seat } from './seat.ts';

/** What a run needs. */
export interface Runner {
  readonly native: NativeVcpu;
  readonly door: BusDoor;
  readonly seat: Seat;
  readonly liveness: Liveness;
  /** Where the addon leaves an access: write, size, count, offset (low, high), value (low, high). */
  readonly mail: Uint32Array;
}

/** Numbers in {@link Runner.mail}. */
export const MAIL_WORDS = 7;

const HIGH = 2 ** 32;

/** Runs on the vCPU's own thread. */
export async function drive(runner: Runner, signal: AbortSignal | undefined): Promise<NativeExit> {
  signal?.throwIfAborted();
  let ticket = 0;
  const cancel = (): void => runner.native.cancel(ticket); // the entry under way only; nothing once it has returned
  const stopListening = onAbort(signal, cancel);
  try {
    for (;;) {
      ticket = nextId();
      const { payload, claim } = await request(ticket, () => call(() => runner.native.start(ticket)), runner.liveness);
      runner.door.flush();
      const exit = outcome(payload);
      const served = claim === 0 ? undefined : runner.door.served.get(claim);
      if (served === undefined) {
        if (exit.kind === 'intr') signal?.throwIfAborted(); // any other exit won the race: hand it over
        return exit;
      }
      await answer(runner, served, exit, signal);
      signal?.throwIfAborted();
    }
  } finally {
    stopListening();
  }
}

async function answer(
  runner: Runner,
  served: Served,
  exit: NativeExit,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { liveness, native, seat } = runner;
  liveness.hold();
  try {
    const bytes = await seat.wait(served.all(exit), signal);
    if (bytes instanceof Uint8Array) call(() => native.answer(bytes));
  } finally {
    liveness.release();
  }
}

/** A delivery under a run's number is an exit; `null` is for wake-ups alone. */
function outcome(payload: Payload): NativeExit {
  const exit = unwrap(payload);
  if (exit === null) throw new TypevisorError('ERR_INTERNAL', 'a run ended without an exit; please report it');
  return exit;
}

/** Runs on this thread, for `timeoutMs` in all. */
export function driveSync(runner: Runner, timeoutMs: number): NativeExit {
  const { native, door } = runner;
  call(() => native.syncBegin(timeoutMs));
  try {
    let claim = call(() => native.syncStep());
    for (;;) {
      if (claim > 0) {
        claim = single(runner, door.served.get(claim));
        continue;
      }
      const exit = call(() => native.syncOutcome());
      if (exit === null) {
        door.drain(); // a queue is full, and nobody but this thread can empty it
        claim = call(() => native.syncStep());
        continue;
      }
      const served = door.served.get(-claim);
      if (served === undefined) return exit;
      door.flush();
      const bytes = served.allSync(exit);
      claim = call(() => (bytes === undefined ? native.syncStep() : native.syncAnswerBytes(bytes)));
    }
  } finally {
    call(() => native.syncEnd());
    door.drain();
  }
}

/** One access, from the mail to its answer, without an object for it. */
function single({ native, door, mail }: Runner, served: Served | undefined): number {
  const [write = 0, size = 0, , low = 0, high = 0, value = 0, valueHigh = 0] = mail;
  const offset = high * HIGH + low;
  door.flush();
  if (served?.whole(size) !== true || size === 3)
    return halves(native, served, write !== 0, offset, size, value, valueHigh);
  if (write !== 0) {
    refusePromise(served.one(true, offset, size, size === 8 ? wide(value, valueHigh) : value));
    return call(() => native.syncStep());
  }
  const given = served.one(false, offset, size, 0);
  refusePromise(given);
  return reply(native, checked(given, size));
}

/** An access wider than the device, as parts of at most 4 bytes. A claim that was released meanwhile reads ones. */
function halves(
  native: NativeVcpu,
  served: Served | undefined,
  write: boolean,
  offset: number,
  size: number,
  value: number,
  valueHigh: number,
): number {
  const bytes = new Uint8Array(size).fill(0xff);
  const data = new Uint8Array(new Uint32Array([value, valueHigh]).buffer, 0, size);
  if (served !== undefined) {
    bytes.set(served.parts({ write, offset, size, count: 1, data }) ?? []);
  }
  return call(() => (write ? native.syncStep() : native.syncAnswerBytes(bytes)));
}

function reply(native: NativeVcpu, value: number | bigint): number {
  if (typeof value === 'number') {
    if (value < HIGH) return call(() => native.syncAnswer(value, 0));
    return call(() => native.syncAnswer(value % HIGH, Math.floor(value / HIGH)));
  }
  return call(() => native.syncAnswer(Number(value & 0xffff_ffffn), Number(value >> 32n)));
}

function wide(low: number, high: number): bigint {
  return (BigInt(high) << 32n) | BigInt(low);
}
