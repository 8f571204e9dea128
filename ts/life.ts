/** What the handles of one VM share: its number, whether it is closed, and whether its promises keep Node alive. */

import { Liveness } from './mailbox.ts';
import { tellVm } from './observe.ts';

let lastId = 0;

/** The life of one VM, as the facade sees it. */
export class Life {
  /** Its number in this thread, as the diagnostics channels and `inspect` give it. */
  readonly id: number;
  /** Its pending promises. */
  readonly liveness: Liveness = new Liveness();
  readonly #ends = new Set<() => void>();
  /** What is pending, and the vCPU's seat it belongs to. */
  readonly #promises = new Map<Promise<unknown>, object>();
  #closed = false;

  constructor() {
    lastId += 1;
    this.id = lastId;
    tellVm('create', this.id);
  }

  /** Whether it is closed, or about to be. */
  get closed(): boolean {
    return this.#closed;
  }

  /** The VM is closed, or about to be: ends whatever waits for a handler. Twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    tellVm('close', this.id);
    for (const end of this.#ends) end();
    this.#ends.clear();
  }

  /** Calls `end` when the VM is closed; {@link forget} takes that back. */
  onClose(end: () => void): void {
    this.#ends.add(end);
  }

  /** Takes {@link onClose} back. */
  forget(end: () => void): void {
    this.#ends.delete(end);
  }

  /** Gives the promise of `work`, which is `owner`'s, and knows it until it has settled: for {@link excuse}. */
  hold<T>(owner: object, work: () => Promise<T>): Promise<T> {
    const settled = (): void => void this.#promises.delete(promise);
    const promise = finished(work, settled);
    this.#promises.set(promise, owner);
    return promise;
  }

  /**
   * An asynchronous end, whose caller waits for it, rejects what is pending: that nobody has caught that by then is no
   * unhandled rejection. Of one owner, or of all.
   */
  excuse(owner?: object): void {
    for (const [promise, its] of this.#promises) {
      if (owner === undefined || its === owner) promise.catch(() => undefined);
    }
  }
}

/** `settled` is called just before the promise settles, and never within this call. */
async function finished<T>(work: () => Promise<T>, settled: () => void): Promise<T> {
  try {
    return await work();
  } finally {
    settled();
  }
}
