/**
 * Who drives a vCPU, one at a time: `exits` or `serve`, between whose runs it stands still, or a run, which may wait for a
 * device of JavaScript's. For the core nobody drives it then.
 */

import { onAbort } from './abort.ts';
import { TypevisorError } from './errors.ts';
import type { Life } from './life.ts';

/** The driver's seat of one vCPU. */
export class Seat {
  readonly #life: Life;
  #driver: string | undefined;
  #running = false;
  #closed = false;
  /** Ends the one wait there can be. */
  #interrupt: ((error: unknown) => void) | undefined;

  constructor(life: Life) {
    this.#life = life;
  }

  /** Whether the vCPU or its VM is closed, or about to be. */
  get closed(): boolean {
    return this.#closed || this.#life.closed;
  }

  /** For people: what the vCPU is at. */
  get state(): string {
    if (this.closed) return 'closed';
    if (this.#running) return 'running';
    return this.#driver === undefined ? 'idle' : `in ${this.#driver}`;
  }

  /** @throws {TypevisorError} `ERR_BUSY` where `exits` or `serve` drives. */
  check(): void {
    if (this.#driver === undefined) return;
    throw new TypevisorError('ERR_BUSY', `${this.#driver} drives this vCPU: wait for its end, or end it before`);
  }

  /** @throws {TypevisorError} `ERR_CLOSED` where somebody has begun to close the vCPU or its VM. */
  checkOpen(): void {
    if (this.#closed || this.#life.closed) throw new TypevisorError('ERR_CLOSED', 'the vCPU is closed');
  }

  /** Sits down. @throws {TypevisorError} `ERR_BUSY` where somebody sits. */
  take(driver: string): void {
    this.check();
    this.#driver = driver;
  }

  /** Stands up. */
  leave(): void {
    this.#driver = undefined;
  }

  /**
   * A run is pending until its promise has settled, whatever the core has come to meanwhile: what may be done would else
   * depend on how fast the guest is.
   *
   * @throws {TypevisorError} `ERR_BUSY`. Of a vCPU that is closed the core has more to say.
   */
  checkIdle(): void {
    if (!this.#running || this.closed) return;
    throw new TypevisorError('ERR_BUSY', 'a run of this vCPU is pending: wait for its end, or kick it');
  }

  /** A run begins. @throws {TypevisorError} `ERR_BUSY` where there is one. */
  enter(): void {
    this.checkIdle();
    this.#running = true;
  }

  /** It is over. */
  exit(): void {
    this.#running = false;
  }

  /** The vCPU is closed, or about to be: nobody waits for a handler any more. */
  close(): void {
    this.#closed = true;
    this.#interrupt?.(new TypevisorError('ERR_CLOSED', 'the vCPU was closed while its handler was at work'));
  }

  /**
   * Waits for a handler that takes its time, until the vCPU or its VM is closed or `signal` aborts: a handler that never
   * ends must not outlive those. What it brings afterwards is dropped.
   *
   * @throws What the handler threw; `signal.reason`; {@link TypevisorError} `ERR_CLOSED`.
   */
  async wait(handler: PromiseLike<unknown>, signal: AbortSignal | undefined): Promise<unknown> {
    const close = (): void => this.close();
    const abort = (): void => this.#interrupt?.(signal?.reason);
    this.#life.onClose(close);
    const stopListening = onAbort(signal, abort);
    try {
      return await new Promise((resolve, reject) => {
        this.#interrupt = reject;
        if (this.closed) close(); // by the handler itself, before it began to wait
        else if (signal?.aborted === true) abort();
        Promise.resolve(handler).then(resolve, reject);
      });
    } finally {
      this.#interrupt = undefined;
      stopListening();
      this.#life.forget(close);
    }
  }
}
