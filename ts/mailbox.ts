/**
 * Where the addon's deliveries find who waits for them. One per environment; numbers come from one counter and are
 * never used twice, so a late delivery finds nobody instead of somebody else.
 *
 * Node stays alive for pending promises and nothing else, and not for those of an owner who said so: one timer,
 * referenced while there are any that count.
 */

import { arrived, stayAwake } from './awake.ts';
import type { Failure, NativeDone, NativeExit } from './native.ts';

/** What comes under a number: the outcome of a run or of a job, or `null` for a mere wake-up. */
export type Payload = Failure | NativeExit | NativeDone | null;

/** The outcome, and the claim whose access it is; 0 where nobody claimed it. */
export interface Delivery {
  readonly payload: Payload;
  readonly claim: number;
}

/** Longest period a timer takes, in milliseconds: it only exists to be referenced. */
const FOR_EVER = 2 ** 31 - 1;

const waiting = new Map<number, (payload: Payload, claim: number) => void>();
let lastId = 0;
let delivered = 0;
let pending = 0;
let keepAlive: NodeJS.Timeout | undefined;

/** A fresh number. */
export function nextId(): number {
  lastId += 1;
  return lastId;
}

/** Called by the addon on this thread. */
export function deliver(id: number, payload: Payload, claim: number): void {
  delivered += 1;
  waiting.get(id)?.(payload, claim);
}

/** How often other threads have woken JavaScript so far. */
export function deliveries(): number {
  return delivered;
}

/** Calls `wake` at every delivery under the number that comes back, until {@link forget}. */
export function subscribe(wake: () => void): number {
  const id = nextId();
  waiting.set(id, wake);
  return id;
}

/** Ends a subscription. */
export function forget(id: number): void {
  waiting.delete(id);
}

/** The pending promises of one owner, and whether Node stays alive for them: it does unless told otherwise. */
export class Liveness {
  #pending = 0;
  #referenced = true;

  /** One more is pending. */
  hold(): void {
    this.#pending += 1;
    if (this.#referenced) count(1);
  }

  /** One less. */
  release(): void {
    this.#pending -= 1;
    if (this.#referenced) count(-1);
  }

  /** Says whether they count, those that are pending already among them. */
  reference(referenced: boolean): void {
    if (referenced === this.#referenced) return;
    this.#referenced = referenced;
    count(referenced ? this.#pending : -this.#pending);
  }
}

/** Asks by `start` and waits for the one delivery under `id`. Where `start` throws, nothing is waited for. */
export async function request(id: number, start: () => void, liveness: Liveness = new Liveness()): Promise<Delivery> {
  liveness.hold();
  let started = false;
  try {
    return await new Promise<Delivery>(resolve => {
      waiting.set(id, (payload, claim) => resolve({ payload, claim }));
      start();
      stayAwake();
      started = true;
    });
  } finally {
    waiting.delete(id);
    if (started) arrived();
    liveness.release();
  }
}

function count(change: number): void {
  pending += change;
  if (pending === 0) return void keepAlive?.unref();
  keepAlive ??= setInterval(() => undefined, FOR_EVER);
  keepAlive.ref();
}
