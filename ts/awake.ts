/**
 * Keeps the event loop from sleeping for a moment after a run was started: being woken by another thread costs tens of
 * microseconds, and most runs of a guest whose exits are answered one by one end sooner. Everything else on the loop gets
 * its turn meanwhile. It stops by itself where runs take longer.
 */

import { availableParallelism } from 'node:os';

/** About what it costs to be woken, in milliseconds: to stay awake longer never pays. */
const AWAKE_MS = 0.06;
/** After as many moments in vain only every {@link PROBE}th run gets one, until one ends within it. */
const VAIN = 4;
const PROBE = 64;
/** On one processor only sleeping lets the vCPU run. */
const ALONE: boolean = availableParallelism() === 1;

let waiting = 0;
let until = 0;
let ticking = false;
let inVain = 0;
let skipped = 0;

/** A run was started: its end is waited for. */
export function stayAwake(): void {
  waiting += 1;
  if (ALONE) return;
  if (inVain >= VAIN && (skipped = (skipped + 1) % PROBE) !== 0) return;
  until = performance.now() + AWAKE_MS;
  if (ticking) return;
  ticking = true;
  setImmediate(tick);
}

/** It has ended. */
export function arrived(): void {
  waiting -= 1;
  if (ticking) inVain = 0;
}

function tick(): void {
  if (waiting > 0 && performance.now() < until) {
    setImmediate(tick);
    return;
  }
  ticking = false;
  if (waiting > 0) inVain += 1;
}
