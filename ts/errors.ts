/** The one error class, its closed list of codes, and the only door from the addon's {@link Failure} to it. */

import { getSystemErrorName } from 'node:util';
import type { Failure } from './native.ts';

/** The codes, once: {@link ErrorCode} documents them. */
// oxfmt-ignore
export const ERROR_CODES = [
  'ERR_LOAD', 'ERR_KVM_UNAVAILABLE', 'ERR_CAPABILITY_MISSING', 'ERR_INVALID_ARGUMENT', 'ERR_OUT_OF_RANGE',
  'ERR_UNALIGNED', 'ERR_SLOT_OVERLAP', 'ERR_SLOT_LIMIT', 'ERR_MEMORY_HOLE', 'ERR_MEMORY_PRIVATE', 'ERR_HOST_ACCESS',
  'ERR_LIMIT', 'ERR_IOCTL', 'ERR_IO', 'ERR_CLOSED', 'ERR_BUSY', 'ERR_POISONED', 'ERR_WOULD_DEADLOCK', 'ERR_FORKED',
  'ERR_TIMEOUT', 'ERR_EXIT_UNANSWERED', 'ERR_NO_ANSWER_EXPECTED', 'ERR_ASYNC_HANDLER', 'ERR_GUEST_IMAGE',
  'ERR_GUEST_PANIC', 'ERR_GUEST_EXCEPTION', 'ERR_GUEST_EXITED', 'ERR_CALL_UNKNOWN', 'ERR_CALL_ARGUMENTS',
  'ERR_PAGER_SOURCE', 'ERR_STATE_FORMAT', 'ERR_STATE_INCOMPATIBLE', 'ERR_INTERNAL',
] as const;

/**
 * Why something was refused, for programs: a closed union, so that a `switch` over it can be complete.
 *
 * - `ERR_LOAD`: the native addon is missing, of another version, or cannot be loaded here.
 * - `ERR_KVM_UNAVAILABLE`: `/dev/kvm` is absent, closed to this user, or speaks another API version.
 * - `ERR_CAPABILITY_MISSING`: this kernel or VM lacks the KVM capability in `capability`.
 * - `ERR_INVALID_ARGUMENT`: an argument of the wrong type, or one that can never be right.
 * - `ERR_OUT_OF_RANGE`: a number or range outside what is possible.
 * - `ERR_UNALIGNED`: an address or size off its alignment.
 * - `ERR_SLOT_OVERLAP`: a new slot shares addresses with one that exists.
 * - `ERR_SLOT_LIMIT`: every slot number of the VM is taken.
 * - `ERR_MEMORY_HOLE`: host access to guest addresses without memory; nothing was copied.
 * - `ERR_MEMORY_PRIVATE`: host access to a page that only the guest may see.
 * - `ERR_HOST_ACCESS`: the host cannot reach memory that is mapped, as behind a truncated file.
 * - `ERR_LIMIT`: a limit of the process or machine is reached.
 * - `ERR_IOCTL`: KVM refused for a reason not foreseen; see `syscall` and `errno`.
 * - `ERR_IO`: another system call failed, as reading a file; see `syscall` and `errno`.
 * - `ERR_CLOSED`: the object was closed, or closed while this call waited.
 * - `ERR_BUSY`: somebody else drives the vCPU right now.
 * - `ERR_POISONED`: the object is in a state that cannot be trusted any more; close it.
 * - `ERR_WOULD_DEADLOCK`: a synchronous call that would wait for this very thread.
 * - `ERR_FORKED`: the object belongs to the process that was forked.
 * - `ERR_TIMEOUT`: a time limit passed.
 * - `ERR_EXIT_UNANSWERED`: the last exit wants an answer before the guest can go on.
 * - `ERR_NO_ANSWER_EXPECTED`: an answer for an exit that wants none.
 * - `ERR_ASYNC_HANDLER`: a handler returned a promise where only a value can be waited for.
 * - `ERR_GUEST_IMAGE`: a guest image that cannot be loaded.
 * - `ERR_GUEST_PANIC`: the guest panicked.
 * - `ERR_GUEST_EXCEPTION`: the guest met an exception it did not handle.
 * - `ERR_GUEST_EXITED`: the guest has ended.
 * - `ERR_CALL_UNKNOWN`: the guest exports no function of that name.
 * - `ERR_CALL_ARGUMENTS`: arguments that do not fit the guest's function.
 * - `ERR_PAGER_SOURCE`: the source of missing pages failed.
 * - `ERR_STATE_FORMAT`: saved state that is damaged or of another version.
 * - `ERR_STATE_INCOMPATIBLE`: saved state that this machine cannot take.
 * - `ERR_INTERNAL`: a bug in Typevisor, such as a panic that was caught. Please report it.
 */
export type ErrorCode = (typeof ERROR_CODES)[number];

/** What a {@link TypevisorError} may know beside its code and message. */
export interface ErrorDetails {
  /** Negative, as in Node's own errors. */
  readonly errno?: number | null | undefined;
  readonly syscall?: string | null | undefined;
  readonly capability?: string | null | undefined;
  readonly since?: string | null | undefined;
  readonly cause?: unknown;
}

/**
 * Every error Typevisor throws or rejects with. Tell them apart by `code`; the message says what was asked, why it was
 * refused and what to do.
 *
 * @example
 * try {
 *   Kvm.open({ path: '/dev/no-such-kvm' });
 * } catch (error) {
 *   if (!(error instanceof TypevisorError)) throw error;
 *   console.log(error.code, error.message); // ERR_KVM_UNAVAILABLE …
 * }
 */
export class TypevisorError extends Error {
  /** Why, for programs. */
  readonly code: ErrorCode;
  /** What the kernel returned, negative as in Node's own errors; absent where it was not asked. */
  declare readonly errno?: number;
  /** `errno` by name: `'EINVAL'`. */
  declare readonly errnoName?: string;
  /** The system call or KVM ioctl that failed: `'KVM_SET_USER_MEMORY_REGION2'`. */
  declare readonly syscall?: string;
  /** The missing KVM capability in kebab-case: `'guest-memfd'`. */
  declare readonly capability?: string;
  /** First kernel release that has `capability`: `'6.8'`. */
  declare readonly since?: string;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    if (typeof details.errno === 'number') {
      this.errno = details.errno;
      this.errnoName = errnoName(details.errno);
    }
    if (typeof details.syscall === 'string') this.syscall = details.syscall;
    if (typeof details.capability === 'string') this.capability = details.capability;
    if (typeof details.since === 'string') this.since = details.since;
  }

  static {
    // On the prototype, as with the built-in errors: instances stay free of a field that is always the same.
    Object.defineProperty(this.prototype, 'name', { value: 'TypevisorError', configurable: true, writable: true });
  }
}

/** An errno of `KVM_RUN` that libuv has no name for: the memory is broken. */
const EHWPOISON = -133;

/** The name of a negative errno. `getSystemErrorName` throws on others, and gives a sentence for what it does not know. */
export function errnoName(errno: number): string {
  if (errno === EHWPOISON) return 'EHWPOISON';
  const name = Number.isInteger(errno) && errno < 0 ? getSystemErrorName(errno) : undefined;
  return name !== undefined && /^E[A-Z0-9]+$/u.test(name) ? name : `errno ${-errno}`;
}

/**
 * The only door from {@link Failure} to {@link TypevisorError}: gives the value, or throws what the addon refused.
 *
 * @throws {TypevisorError} With the failure's own code.
 */
export function unwrap<T>(outcome: Failure | T): T {
  if (!isFailure(outcome)) return outcome;
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a test holds the core's codes against ErrorCode
  throw new TypevisorError(outcome.code as ErrorCode, outcome.message, outcome);
}

/**
 * Calls into the addon. It reports failures as values, so anything it throws is a caught panic, or a value that our
 * own checks let through: a bug either way.
 *
 * @throws {TypevisorError} With the failure's own code; `ERR_INTERNAL` for anything the addon threw.
 */
export function call<T>(into: () => Failure | T): T {
  let outcome: Failure | T;
  try {
    outcome = into();
  } catch (cause) {
    throw internal(cause);
  }
  return unwrap(outcome);
}

/**
 * The same for a promise of the addon's.
 *
 * @throws {TypevisorError} As {@link call}.
 */
export async function callAsync<T>(into: () => Promise<Failure | T>): Promise<T> {
  let outcome: Failure | T;
  try {
    outcome = await into();
  } catch (cause) {
    throw internal(cause);
  }
  return unwrap(outcome);
}

function internal(cause: unknown): TypevisorError {
  const message = `internal error in Typevisor, please report it: ${messageOf(cause)}`;
  return new TypevisorError('ERR_INTERNAL', message, { cause });
}

/** The message of whatever was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

function isFailure(outcome: unknown): outcome is Failure {
  return typeof outcome === 'object' && outcome !== null && 'failed' in outcome && outcome.failed === true;
}
