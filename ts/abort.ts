/**
 * Listening to an `AbortSignal` with one listener, however many wait for it: a signal may be shared by every vCPU there is,
 * and Node warns of a leak at the eleventh listener.
 */

const waiting = new WeakMap<AbortSignal, Set<() => void>>();

/** Calls `act` when `signal` aborts, once; what comes back takes that back, and leaves no listener behind the last. */
export function onAbort(signal: AbortSignal | undefined, act: () => void): () => void {
  if (signal === undefined) return () => undefined;
  const acts = waiting.get(signal) ?? listen(signal);
  const own = (): void => act(); // the same `act` may wait twice
  acts.add(own);
  return () => {
    if (acts.delete(own) && acts.size === 0) unlisten(signal);
  };
}

function listen(signal: AbortSignal): Set<() => void> {
  const acts = new Set<() => void>();
  waiting.set(signal, acts);
  signal.addEventListener('abort', abort);
  return acts;
}

function unlisten(signal: AbortSignal): void {
  waiting.delete(signal);
  signal.removeEventListener('abort', abort);
}

function abort(this: AbortSignal): void {
  const acts = waiting.get(this);
  unlisten(this);
  acts?.forEach(act => act());
}
