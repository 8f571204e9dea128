/** A debug console: what the guest writes to one port, on its way to a stream or a function. */

import { invalid } from './check.ts';
import { call } from './errors.ts';
import { forget, subscribe } from './mailbox.ts';
import type { Failure, NativeConsole } from './native.ts';

/** Where console output goes. A function gets each chunk as bytes of its own. */
export type ConsoleSink = NodeJS.WritableStream | ((chunk: Uint8Array) => void);

/** A debug console to claim a port with. */
export interface DebugConsole {
  readonly device: 'debug-console';
  readonly sink: ConsoleSink;
}

/**
 * The debug console of Bochs, QEMU and SeaBIOS: every byte written to its one port is text, a read gives `0xe9`, by
 * which firmware knows that somebody listens. It lives in Rust: output never stops the vCPU to wake JavaScript.
 *
 * Whatever the guest wrote before an exit reaches the sink before that exit reaches the program. Where a stream asks
 * its writer to wait, up to 64 KiB stay in the console; then the guest waits. (Under `runSync`, where nobody can wait,
 * a stream gets everything at once.)
 *
 * An error thrown by a function is not the vCPU's: like one thrown by an event listener it becomes an uncaught
 * exception of the process, and output goes on.
 *
 * @param sink - A `Writable`, such as `process.stdout`, or a function. A stream is not ended with its VM.
 * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`.
 * @example
 * using vm = Vm.create();
 * using claim = vm.bus.port(0x402, 1, debugConsole(process.stdout));
 */
export function debugConsole(sink: ConsoleSink): DebugConsole {
  if (typeof sink !== 'function' && !isWritable(sink)) throw invalid('sink', 'a Writable or a function', sink);
  return Object.freeze({ device: 'debug-console', sink });
}

function isWritable(sink: unknown): sink is NodeJS.WritableStream {
  return typeof sink === 'object' && sink !== null && 'write' in sink && typeof sink.write === 'function';
}

/** Subscriptions of consoles that were collected with their VM. */
const forgotten = new FinalizationRegistry(forget);

/**
 * Wakes `reader` without keeping it, and with it a VM that nobody closed, from the collector. Here and not in the
 * constructor, whose closures all share one context, and `this` with it.
 */
function wakeWeakly(reader: ConsoleReader): () => void {
  const weak = new WeakRef(reader);
  return () => weak.deref()?.wake();
}

/** One claimed console: takes what the addon has and hands it on. */
export class ConsoleReader {
  readonly #native: NativeConsole;
  readonly #id: number;
  readonly #sink: ConsoleSink;
  /** The stream asked to wait: what comes meanwhile stays in the addon, whose buffer is bounded. */
  #full = false;

  constructor(sink: ConsoleSink, claim: (id: number) => Failure | NativeConsole) {
    this.#sink = sink;
    this.#id = subscribe(wakeWeakly(this));
    forgotten.register(this, this.#id);
    try {
      this.#native = call(() => claim(this.#id));
    } catch (error) {
      forget(this.#id);
      throw error;
    }
  }

  /** There is output. */
  wake(): void {
    if (!this.#full) this.drain();
  }

  /** Hands on what there is, whether the stream asked to wait or not. */
  drain(): void {
    const chunk = call(() => this.#native.take());
    if (chunk.length === 0) return;
    try {
      if (typeof this.#sink === 'function') this.#sink(chunk);
      else if (!this.#sink.write(chunk) && !this.#full) this.#waitFor(this.#sink);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  /** Gives the port back; what was written before is handed on. */
  release(): void {
    call(() => this.#native.release());
    this.end();
  }

  /** The port is gone: hands on the rest. */
  end(): void {
    forget(this.#id);
    this.drain();
  }

  /** A stream that ends or fails while we wait has no say any more. */
  #waitFor(stream: NodeJS.WritableStream): void {
    this.#full = true;
    const resume = (): void => {
      for (const event of ['drain', 'close', 'error']) stream.off(event, resume);
      this.#full = false;
      this.drain();
    };
    for (const event of ['drain', 'close', 'error']) stream.on(event, resume);
  }
}
