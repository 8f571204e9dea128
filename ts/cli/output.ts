/** The guest's console on its way to one of the process's streams. */

import { once } from 'node:events';
import { Writable } from 'node:stream';
import { setTimeout } from 'node:timers/promises';

const NEWLINE = 0x0a;

/** How long an interrupted program waits for who reads its output, in milliseconds. */
export const MOMENT_MS = 500;

/** Hands on each chunk and waits until the stream has taken it, so that a guest is no faster than its reader. */
export class ConsoleOutput extends Writable {
  readonly #target: NodeJS.WritableStream;
  #atLineStart = true;

  constructor(target: NodeJS.WritableStream) {
    super();
    this.#target = target;
  }

  /** Whether the next byte begins a line. */
  get atLineStart(): boolean {
    return this.#atLineStart;
  }

  override _write(chunk: Uint8Array, _encoding: string, done: () => void): void {
    this.#atLineStart = chunk.at(-1) === NEWLINE;
    this.#target.write(chunk, () => done()); // that its reader has gone is the business of main.ts
  }

  /** Waits until everything is handed on; after an interruption, for a moment at most: its reader may be asleep. */
  async finish(interrupted: AbortSignal): Promise<void> {
    this.end();
    await Promise.race([once(this, 'finish'), momentAfter(interrupted)]);
  }
}

async function momentAfter(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, 'abort');
  await setTimeout(MOMENT_MS);
}
