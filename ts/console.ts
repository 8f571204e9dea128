/** Consoles: what the guest writes to a port, on its way to a stream or a function. */

import { errorMonitor } from 'node:events';
import { Writable } from 'node:stream';
import { WritableStream } from 'node:stream/web';
import { byteArray, invalid, quiet } from './check.ts';
import { call, TypevisorError } from './errors.ts';
import type { NativeClaim } from './native.ts';
import { Reader } from './reader.ts';

/** Where console output goes: Node's streams or the web's. A function gets each chunk as bytes of its own. */
export type ConsoleSink = NodeJS.WritableStream | WritableStream<Uint8Array> | ((chunk: Uint8Array) => void);

type Sink = NodeJS.WritableStream | ((chunk: Uint8Array) => void);

/** A debug console to claim a port with. */
export interface DebugConsole {
  readonly device: 'debug-console';
  readonly sink: Sink;
}

/** A serial console to claim eight ports with. */
export interface SerialConsole {
  readonly device: 'serial-console';
  readonly sink: Sink;
  /**
   * Types into the guest: puts bytes into the port's FIFO, which holds 64.
   *
   * @returns How many bytes there was room for.
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`, `ERR_CLOSED` where the console is not claimed.
   */
  send(bytes: Uint8Array): number;
}

/**
 * The debug console of Bochs, QEMU and SeaBIOS: every byte written to its one port is text, a read gives `0xe9`, by
 * which firmware knows that somebody listens. It lives in Rust: output never stops the vCPU to wake JavaScript.
 *
 * Whatever the guest wrote before an exit reaches the sink before that exit reaches the program. Where a stream asks
 * its writer to wait, up to 64 KiB stay in the console; then the guest waits. (Under `runSync`, where nobody can wait,
 * a stream gets everything at once.) A stream that has ended, failed or was destroyed gets nothing any more: output is
 * dropped then, and the guest goes on.
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
  return Object.freeze({ device: 'debug-console', sink: toSink(sink) });
}

/** For bus.ts alone: which claim a serial console sends to. */
export const lines: WeakMap<SerialConsole, NativeClaim> = new WeakMap();

/**
 * A serial port of the 16550A kind, as PCs have at ports 0x3f8 to 0x3ff: output goes to `sink` as with
 * {@link debugConsole}, input comes by `send`. It raises no interrupt: guests poll it. Input goes to its latest claim.
 *
 * @param sink - A `Writable`, a `WritableStream` or a function.
 * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`.
 * @example
 * using vm = Vm.create();
 * const serial = serialConsole(process.stdout);
 * using claim = vm.bus.port(0x3f8, 8, serial);
 * serial.send(new TextEncoder().encode('y')); // 1
 */
export function serialConsole(sink: ConsoleSink): SerialConsole {
  const console: SerialConsole = Object.freeze({
    device: 'serial-console',
    sink: toSink(sink),
    send(bytes: Uint8Array): number {
      const claim = lines.get(console);
      if (claim === undefined) throw new TypevisorError('ERR_CLOSED', 'the serial console stands on no port');
      const input = quiet(byteArray(bytes, 'bytes'));
      return call(() => claim.send(input));
    },
  });
  return console;
}

/** What output goes to; also for bus.ts, as a program can write a device itself. */
export function toSink(sink: unknown): Sink {
  if (sink instanceof WritableStream) return Writable.fromWeb(sink);
  if (isSink(sink)) return sink;
  throw invalid('sink', 'a Writable, a WritableStream or a function', sink);
}

function isSink(sink: unknown): sink is Sink {
  if (typeof sink === 'function') return true;
  return typeof sink === 'object' && sink !== null && 'write' in sink && typeof sink.write === 'function';
}

/** Ends the wait for a stream. With a listener of 'error' itself Node would take the stream's errors for handled. */
const RESUME = ['drain', 'close', errorMonitor] as const;

/** Whether a stream takes something. One that does not has no say: what it would have got is dropped. */
function isOpen({ writable, destroyed, writableEnded }: State): boolean {
  return writable !== false && destroyed !== true && writableEnded !== true;
}

/** What streams say of themselves; not all of them do. */
interface State {
  writable?: boolean;
  destroyed?: boolean;
  writableEnded?: boolean;
}

/** Hands on what a console has. */
export class ConsoleReader extends Reader {
  readonly #sink: Sink;
  /** The stream asked to wait: what comes meanwhile stays in the addon, whose buffer is bounded. */
  #full = false;

  constructor(sink: Sink, claim: (id: number) => NativeClaim) {
    super(claim);
    this.#sink = sink;
  }

  /** There is output. */
  override wake(): void {
    if (!this.#full) this.drain();
  }

  /** Hands on what there is, whether the stream asked to wait or not. */
  drain(): void {
    const chunk = call(() => this.native.takeBytes());
    if (chunk.length === 0) return;
    this.guarded(() => {
      if (typeof this.#sink === 'function') this.#sink(chunk);
      else if (isOpen(this.#sink) && !this.#sink.write(chunk) && !this.#full) this.#waitFor(this.#sink);
    });
  }

  /** Until the stream has room, or takes nothing any more. */
  #waitFor(stream: NodeJS.WritableStream): void {
    if (!isOpen(stream)) return; // it failed in that very write: no event may come any more
    this.#full = true;
    const resume = (): void => {
      for (const event of RESUME) stream.off(event, resume);
      this.#full = false;
      this.drain();
    };
    for (const event of RESUME) stream.on(event, resume);
  }
}
