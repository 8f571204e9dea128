/** Exit codes of the command line: the table of DESIGN §4, and which error leads to which. */

import { constants } from 'node:os';
import { TypevisorError } from '../errors.ts';

/** It did what was asked. */
export const SUCCESS = 0;
/** No usable KVM (`EX_UNAVAILABLE` of sysexits.h). */
export const NO_KVM = 69;
/** A time limit passed, as with timeout(1). */
export const TIMEOUT = 124;
/** Typevisor failed, or did not understand its arguments. */
export const FAILED = 125;

/** A signal asked the program to end. */
export class Interrupted extends Error {
  readonly signal: NodeJS.Signals;

  constructor(signal: NodeJS.Signals) {
    super(`interrupted by ${signal}`);
    this.signal = signal;
  }
}

/** The exit code for what a command threw. */
export function codeFor(thrown: unknown): number {
  if (thrown instanceof Interrupted) return 128 + constants.signals[thrown.signal];
  return thrown instanceof TypevisorError && thrown.code === 'ERR_KVM_UNAVAILABLE' ? NO_KVM : FAILED;
}
