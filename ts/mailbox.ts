/**
 * Where the addon's deliveries find who waits for them. One per environment; numbers come from one counter and are
 * never used twice, so a late delivery finds nobody instead of somebody else.
 *
 * Node stays alive for pending promises and nothing else: one timer, referenced while there are any.
 */

import type { Failure, NativeExit } from './native.ts';

/** What comes under a number: the outcome of a run, or `null` for a mere wake-up. */
export type Payload = Failure | NativeExit | null;

/** Longest period a timer takes, in milliseconds: it only exists to be referenced. */
const FOR_EVER = 2 ** 31 - 1;

const waiting = new Map<number, (payload: Payload) => void>();
let lastId = 0;
let pending = 0;
let keepAlive: NodeJS.Timeout | undefined;

/** A fresh number. */
export function nextId(): number {
  lastId += 1;
  return lastId;
}

/** Called by the addon on this thread. */
export function deliver(id: number, payload: Payload): void {
  waiting.get(id)?.(payload);
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

/** Asks by `start` and waits for the one delivery under `id`. Where `start` throws, nothing is waited for. */
export async function request(id: number, start: () => void): Promise<Payload> {
  hold();
  try {
    return await new Promise<Payload>(resolve => {
      waiting.set(id, resolve);
      start();
    });
  } finally {
    waiting.delete(id);
    release();
  }
}

function hold(): void {
  pending += 1;
  keepAlive ??= setInterval(() => undefined, FOR_EVER);
  keepAlive.ref();
}

function release(): void {
  pending -= 1;
  if (pending === 0) keepAlive?.unref();
}
