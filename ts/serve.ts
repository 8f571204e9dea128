/** Driving a vCPU over many exits: by a loop, or by handlers. What an exit wants, and who may run, is the core's say. */

import { AsyncResource } from 'node:async_hooks';
import { invalid, options } from './check.ts';
import { isThenable } from './device.ts';
import { TypevisorError } from './errors.ts';
import type { Exit } from './exit.ts';
import type { Seat } from './seat.ts';

/** A value for an exit that wants one: a number, little-endian in as many bytes as it wants, or all of them as bytes. */
export type Answer = number | bigint | Uint8Array;

/** Kinds of exit that can want an answer: those of which there is one with direction `'in'` or `'read'`. */
type Asking = Extract<Exit, { readonly direction: 'in' | 'read' }>['kind'];

/** What a handler gives back. Nothing, for an exit that wants no answer: go on. */
type Reply<Kind> = 'stop' | undefined | void | (Kind extends Asking ? Answer : never);

/** A handler of one kind of exit. */
type Handler<Kind> = (exit: Extract<Exit, { readonly kind: Kind }>) => Reply<Kind> | PromiseLike<Reply<Kind>>;

/**
 * What to do with exits, by kind: for {@link Vcpu.serve}. What a handler gives back, or a promise of it:
 *
 * - for an exit that wants an answer (`io` with direction `'in'`, `mmio` with direction `'read'`) the answer;
 * - for all others `'stop'`, which ends `serve`, or nothing.
 *
 * An `async` handler that returns `'stop'` and nothing else has to say `'stop' as const`, or TypeScript sees any string.
 */
export type Handlers = { readonly [Kind in Exit['kind']]?: Handler<Kind> | undefined };

/** All kinds, for the check of names. */
const KINDS: Readonly<Record<Exit['kind'], true>> = {
  io: true,
  mmio: true,
  hlt: true,
  intr: true,
  shutdown: true,
  'fail-entry': true,
  'internal-error': true,
  'system-event': true,
  'run-failed': true,
  unknown: true,
};

/** What async hooks see a handler as. */
const CONTEXT = 'TypevisorHandler';

/** What `exits` and `serve` need of their vCPU. */
export interface Driven {
  readonly seat: Seat;
  run(signal: AbortSignal | undefined): Promise<Exit>;
  answer(value: Answer): void;
}

/** `Vcpu.exits`. */
export async function* exits(vcpu: Driven, signal: AbortSignal | undefined): AsyncGenerator<Exit, void, void> {
  const { seat } = vcpu;
  seat.take('exits()');
  try {
    for (;;) {
      yield await vcpu.run(signal);
    }
  } catch (error) {
    // Its own end: a device of JavaScript's may throw the same of something else. What the body throws is not seen here.
    if (!seat.closed || !(error instanceof TypevisorError) || error.code !== 'ERR_CLOSED') throw error;
  } finally {
    seat.leave();
  }
}

/** `Vcpu.serve`. */
export async function serve(vcpu: Driven, handlers: Handlers, signal: AbortSignal | undefined): Promise<Exit> {
  const call = caller(handlers);
  const { seat } = vcpu;
  seat.take('serve()');
  try {
    for (;;) {
      const exit = await vcpu.run(signal);
      const handled = call(exit);
      if (handled === undefined) return exit;
      const reply = isThenable(handled.reply) ? await seat.wait(handled.reply, signal) : handled.reply;
      if (wantsAnswer(exit)) vcpu.answer(asAnswer(exit, reply));
      else if (endsServe(exit, reply)) return exit;
    }
  } finally {
    seat.leave();
  }
}

/**
 * Calls the handler of an exit, in the AsyncLocalStorage context of now; gives `undefined` where there is none. They are
 * read once: changing the object later changes nothing.
 */
function caller(handlers: Handlers): (exit: Exit) => { readonly reply: unknown } | undefined {
  if (handlers === undefined) throw invalid('handlers', 'an object', handlers);
  options(handlers, 'handlers', Object.keys(KINDS));
  const table = new Map<string, (exit: Exit) => unknown>();
  for (const kind of Object.keys(KINDS)) {
    const handler: unknown = Reflect.get(handlers, kind);
    if (handler === undefined) continue;
    if (typeof handler !== 'function') throw invalid(`handlers['${kind}']`, 'a function', handler);
    table.set(kind, exit => Reflect.apply(handler, handlers, [exit]));
  }
  const registered = new AsyncResource(CONTEXT);
  return exit => {
    const handler = table.get(exit.kind);
    return handler && { reply: registered.runInAsyncScope(inOwnContext, undefined, handler, exit) };
  };
}

/** A copy of the context for each call: one who changes it, by `enterWith`, does so for himself. */
function inOwnContext(handler: (exit: Exit) => unknown, exit: Exit): unknown {
  return new AsyncResource(CONTEXT).runInAsyncScope(handler, undefined, exit);
}

function wantsAnswer(exit: Exit): boolean {
  return 'direction' in exit && (exit.direction === 'in' || exit.direction === 'read');
}

function isAnswer(reply: unknown): reply is Answer {
  return typeof reply === 'number' || typeof reply === 'bigint' || reply instanceof Uint8Array;
}

function asAnswer({ kind }: Exit, reply: unknown): Answer {
  if (isAnswer(reply)) return reply;
  const expected = 'a number, a bigint or a Uint8Array';
  if (reply !== undefined) throw invalid(`what the '${kind}' handler returns for a read`, expected, reply);
  const message = `the '${kind}' handler returned nothing for a read: return the answer, ${expected}`;
  throw new TypevisorError('ERR_EXIT_UNANSWERED', message);
}

function endsServe({ kind }: Exit, reply: unknown): boolean {
  if (reply === undefined || reply === 'stop') return reply === 'stop';
  if (!isAnswer(reply)) throw invalid(`what the '${kind}' handler returns`, "'stop' or nothing", reply);
  const message = `the '${kind}' handler returned an answer, and this exit wants none: return 'stop' or nothing`;
  throw new TypevisorError('ERR_NO_ANSWER_EXPECTED', message);
}
