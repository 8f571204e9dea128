/** Driving a vCPU over many exits: by a loop, or by handlers. What an exit wants, and who may run, is the core's say. */

import { AsyncResource } from 'node:async_hooks';
import { type Answer, isAnswer, type Reply, takesFault, wants } from './answer.ts';
import { invalid, options } from './check.ts';
import { isThenable } from './device.ts';
import { TypevisorError } from './errors.ts';
import type { Exit } from './exit.ts';
import type { Seat } from './seat.ts';

/** A handler of one kind of exit. */
type Handler<Kind> = (exit: Extract<Exit, { readonly kind: Kind }>) => Reply<Kind> | PromiseLike<Reply<Kind>>;

/**
 * What to do with exits, by kind: for {@link Vcpu.serve}. What a handler gives back, or a promise of it:
 *
 * - for an exit that wants an answer (`io` with direction `'in'`, `mmio` with direction `'read'`, and as their kinds say) the
 *   answer, which for `rdmsr` may be `'fault'`;
 * - for one that may be answered (`wrmsr` by `'fault'`, `tdx`) that, `'stop'` or nothing;
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
  hypercall: true,
  debug: true,
  exception: true,
  'irq-window-open': true,
  'set-tpr': true,
  'tpr-access': true,
  nmi: true,
  'ioapic-eoi': true,
  hyperv: true,
  xen: true,
  rdmsr: true,
  wrmsr: true,
  'dirty-ring-full': true,
  'bus-lock': true,
  'ap-reset-hold': true,
  notify: true,
  'memory-fault': true,
  'arm-nisv': true,
  'arm-ldst64b': true,
  'arm-sea': true,
  tdx: true,
  'snp-req-certs': true,
  'run-failed': true,
  unknown: true,
};

/** What async hooks see a handler as. */
const CONTEXT = 'TypevisorHandler';

/** What `exits` and `serve` need of their vCPU. */
export interface Driven {
  readonly seat: Seat;
  run(signal: AbortSignal | undefined): Promise<Exit>;
  answer(value: Answer | 'fault'): void;
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
      const answer = answerIn(exit, reply);
      if (answer !== undefined) vcpu.answer(answer);
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

/** The answer that a handler gave, where the exit takes one. */
function answerIn(exit: Exit, reply: unknown): Answer | 'fault' | undefined {
  const wanted = wants(exit);
  if (wanted === 'nothing') return undefined;
  if (isAnswer(reply) || (reply === 'fault' && takesFault(exit))) return reply;
  return wanted === 'maybe' ? undefined : refuse(exit, reply);
}

function refuse(exit: Exit, reply: unknown): never {
  const { kind } = exit;
  const what = 'direction' in exit ? 'a read' : 'an exit that wants an answer';
  const expected = takesFault(exit)
    ? "a number, a bigint, a Uint8Array or 'fault'"
    : 'a number, a bigint or a Uint8Array';
  if (reply !== undefined) throw invalid(`what the '${kind}' handler returns for ${what}`, expected, reply);
  const message = `the '${kind}' handler returned nothing for ${what}: return the answer, ${expected}`;
  throw new TypevisorError('ERR_EXIT_UNANSWERED', message);
}

function endsServe({ kind }: Exit, reply: unknown): boolean {
  if (reply === undefined || reply === 'stop') return reply === 'stop';
  if (!isAnswer(reply)) throw invalid(`what the '${kind}' handler returns`, "'stop' or nothing", reply);
  const message = `the '${kind}' handler returned an answer, and this exit wants none: return 'stop' or nothing`;
  throw new TypevisorError('ERR_NO_ANSWER_EXPECTED', message);
}
