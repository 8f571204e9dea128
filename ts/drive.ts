/**
 * A run of a vCPU, with the accesses that devices of JavaScript's answer in between: from the first entry to the exit that
 * nobody on the bus takes.
 */

import { onAbort } from './abort.ts';
import type { BusDoor } from './bus.ts';
import { checked, refusePromise, type Served } from './device.ts';
import { call, TypevisorError, unwrap } from './errors.ts';
import type { Delivery, Liveness, Payload } from './mailbox.ts';
import { nextId, request } from './mailbox.ts';
import type { NativeExit, NativeVcpu } from './native.ts';
import type { Seat } from './seat.ts';

/** Takes a step of a run on this thread, the answer to the one before first. */
type Step = ReturnType<NativeVcpu['syncStepper']>;

/** What a run needs. */
export interface Runner {
  readonly native: NativeVcpu;
  readonly step: Step;
  readonly door: BusDoor;
  readonly seat: Seat;
  readonly liveness: Liveness;
  /** A device that was still at work when its run was stopped: the next run waits for it first. */
  unfinished: Promise<Uint8Array | undefined> | undefined;
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
    if (runner.unfinished !== undefined) await finish(runner, runner.unfinished, signal);
    for (;;) {
      ticket = nextId();
      const entry = await request(ticket, () => call(() => runner.native.start(ticket)), runner.liveness);
      const exit = await unclaimed(runner, entry, signal);
      if (exit === undefined) {
        runner.seat.checkOpen(); // by the device itself, say
        signal?.throwIfAborted();
        continue;
      }
      if (exit.kind === 'intr') signal?.throwIfAborted(); // any other exit won the race: hand it over
      return exit;
    }
  } finally {
    stopListening();
  }
}

/** Completes the pending exit; a further one that nobody claimed, or nothing. */
export async function settle(runner: Runner): Promise<NativeExit | undefined> {
  if (runner.unfinished !== undefined) await finish(runner, runner.unfinished, undefined);
  for (;;) {
    const ticket = nextId();
    const entry = await request(ticket, () => call(() => runner.native.settle(ticket)), runner.liveness);
    if (unwrap(entry.payload) === null) {
      runner.door.flush();
      return undefined;
    }
    const exit = await unclaimed(runner, entry, undefined);
    if (exit !== undefined) return exit;
  }
}

/** Has the device answer whose access it is; gives any other exit back. */
async function unclaimed(
  runner: Runner,
  { payload, claim }: Delivery,
  signal: AbortSignal | undefined,
): Promise<NativeExit | undefined> {
  runner.door.flush();
  const exit = outcome(payload);
  const served = claim === 0 ? undefined : runner.door.served.get(claim);
  if (served === undefined) return exit;
  // One that answers at once has answered, abort or not: nobody else could.
  const bytes = served.all(exit, () => runner.door.served.get(claim) === served);
  if (bytes instanceof Promise) await finish(runner, bytes, signal);
  else if (bytes !== undefined) call(() => runner.native.answer(bytes));
  return undefined;
}

/** Waits for a device; where the wait is cut short, the next run goes on with it. */
async function finish(
  runner: Runner,
  pending: Promise<Uint8Array | undefined>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { liveness, native, seat } = runner;
  runner.unfinished = pending;
  const over = (): void => {
    if (runner.unfinished === pending) runner.unfinished = undefined;
  };
  let failed = false;
  pending.catch(() => {
    failed = true;
  });
  liveness.hold();
  try {
    const bytes = await seat.wait(pending, signal);
    over();
    if (bytes instanceof Uint8Array) call(() => native.answer(bytes));
  } catch (error) {
    if (failed) over(); // its access stays unanswered
    throw error;
  } finally {
    liveness.release();
  }
}

/** A delivery under a run's number is an exit; `null` is for wake-ups alone, what was done to slots for jobs. */
function outcome(payload: Payload): NativeExit {
  const exit = unwrap(payload);
  if (exit === null || 'slots' in exit)
    throw new TypevisorError('ERR_INTERNAL', 'a run ended without an exit; please report it');
  return exit;
}

/** Runs on this thread, for `timeoutMs` in all. */
export function driveSync(runner: Runner, timeoutMs: number): NativeExit {
  const { native, door, step } = runner;
  call(() => native.syncBegin(timeoutMs));
  runner.unfinished = undefined;
  try {
    let claim = call(step);
    for (;;) {
      if (claim > 0) {
        claim = single(runner, claim);
        continue;
      }
      const exit = call(() => native.syncOutcome());
      if (exit === null) {
        door.drain(); // a queue is full, and nobody but this thread can empty it
        claim = call(step);
        continue;
      }
      door.flush();
      const served = door.served.get(-claim);
      if (served === undefined) return exit;
      const bytes = served.allSync(exit);
      runner.seat.checkOpen();
      claim = call(() => (bytes === undefined ? step() : native.syncAnswerBytes(bytes)));
    }
  } finally {
    call(() => native.syncEnd());
    door.drain();
  }
}

/** One access, from the mail to its answer, without an object for it. */
function single(runner: Runner, claim: number): number {
  const { door, mail, seat, step } = runner;
  const word = (index: number): number => mail[index] ?? 0; // quicker than by an iterator
  const [isWrite, size, offset] = [word(0) !== 0, word(1), word(4) * HIGH + word(3)];
  door.flush();
  const served = door.served.get(claim);
  if (served?.whole(size) !== true || size === 3)
    return halves(runner, served, isWrite, offset, size, word(5), word(6));
  if (isWrite) {
    refusePromise(served.one(true, offset, size, size === 8 ? wide(word(5), word(6)) : word(5)));
    seat.checkOpen();
    return call(step);
  }
  const given = served.one(false, offset, size, 0);
  refusePromise(given);
  seat.checkOpen();
  return reply(step, checked(given, size));
}

/** An access wider than the device, as parts of at most 4 bytes. A claim that was released meanwhile reads ones. */
function halves(
  { native, step }: Runner,
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
  return call(() => (write ? step() : native.syncAnswerBytes(bytes)));
}

function reply(step: Step, value: number | bigint): number {
  if (typeof value === 'number') {
    if (value < HIGH) return call(() => step(value, 0));
    return call(() => step(value % HIGH, Math.floor(value / HIGH)));
  }
  return call(() => step(Number(value & 0xffff_ffffn), Number(value >> 32n)));
}

function wide(low: number, high: number): bigint {
  return (BigInt(high) << 32n) | BigInt(low);
}
