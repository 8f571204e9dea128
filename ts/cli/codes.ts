/** Exit codes of the command line: one for each way to end, and which error leads to which. */

import { constants } from 'node:os';
import { TypevisorError } from '../errors.ts';

/** It did what was asked. */
export const SUCCESS = 0;
/** No usable KVM (`EX_UNAVAILABLE` of sysexits.h). */
export const NO_KVM = 69;
/** Largest exit code that is the guest's own; a larger one becomes this. */
export const GUEST_MAX = 123;
/** A time limit passed, as with timeout(1). */
export const TIMEOUT = 124;
/** Typevisor failed, or did not understand its arguments; or the guest ended in a way that has no code. */
export const FAILED = 125;
/** A guest image that cannot be run, as a shell says of a file that is no program. */
export const REFUSED = 126;
/** No such file, as a shell says of a program that is not there. */
export const NOT_FOUND = 127;

/** A signal asked the program to end. */
export class Interrupted extends Error {
  readonly signal: NodeJS.Signals;

  constructor(signal: NodeJS.Signals) {
    super(`interrupted by ${signal}`);
    this.signal = signal;
  }
}

/** A guest image that is not there, or cannot be run. */
export class BadImage extends Error {
  readonly exitCode: typeof REFUSED | typeof NOT_FOUND;

  constructor(exitCode: typeof REFUSED | typeof NOT_FOUND, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** The exit code for what a command threw. */
export function codeFor(thrown: unknown): number {
  if (thrown instanceof Interrupted) return 128 + constants.signals[thrown.signal];
  if (thrown instanceof BadImage) return thrown.exitCode;
  if (!(thrown instanceof TypevisorError)) return FAILED;
  if (thrown.code === 'ERR_GUEST_IMAGE') return REFUSED;
  return thrown.code === 'ERR_KVM_UNAVAILABLE' ? NO_KVM : FAILED;
}
