/** What takes from a queue between guest and program: woken when there is something, told when the claim ends. */

import { AsyncResource } from 'node:async_hooks';
import type { PostedDevice, PostedWrite } from './device.ts';
import { call } from './errors.ts';
import { forget, subscribe } from './mailbox.ts';
import type { NativeClaim } from './native.ts';

/** Subscriptions of readers that were collected with their VM. */
const forgotten = new FinalizationRegistry(forget);

/**
 * Wakes `reader` without keeping it, and with it a VM that nobody closed, from the collector. Here and not in the
 * constructor, whose closures all share one context, and `this` with it.
 */
function wakeWeakly(reader: Reader): () => void {
  const weak = new WeakRef(reader);
  return () => weak.deref()?.wake();
}

/** One claim with a queue. */
export abstract class Reader {
  readonly native: NativeClaim;
  readonly id: number;

  constructor(claim: (id: number) => NativeClaim) {
    this.id = subscribe(wakeWeakly(this));
    forgotten.register(this, this.id);
    try {
      this.native = claim(this.id);
    } catch (error) {
      forget(this.id);
      throw error;
    }
  }

  /** Hands on what there is. */
  abstract drain(): void;

  /** There is something. */
  wake(): void {
    this.drain();
  }

  /** Gives the addresses back; what was written before is handed on. */
  release(): void {
    call(() => this.native.release());
    this.end();
  }

  /** The claim is gone: hands on the rest. */
  end(): void {
    forget(this.id);
    this.drain();
  }

  /** What a user's function throws is not the vCPU's: it becomes an uncaught exception, and the rest goes on. */
  protected guarded(hand: () => void): void {
    try {
      hand();
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}

/** Milliseconds between looks at a queue that is written to again and again: a wake-up for each write would cost more. */
const LOOK_MS = 1;

/**
 * Hands on posted writes. Woken by the first, it looks by itself as long as there are more; an exit, or an access to a
 * device, has what came before it handed on at once.
 */
export class PostedReader extends Reader {
  readonly #posted: (writes: readonly PostedWrite[]) => void;
  #looking = false;

  constructor(device: PostedDevice, claim: (id: number) => NativeClaim) {
    super(claim);
    this.#posted = AsyncResource.bind(device.posted.bind(device));
  }

  override wake(): void {
    // While it looks by itself a wake-up says nothing new: and a slow function, woken again by what came while it was at
    // work, would keep everything else from its turn.
    if (this.#looking) return;
    this.#looking = true;
    call(() => this.native.look(true));
    this.drain();
    this.#lookAgain();
  }

  /** A reader that is gone is not kept by this: the timer is for one more look. */
  #lookAgain(): void {
    setTimeout(() => {
      if (this.#hand()) {
        call(() => this.native.look(true)); // where a wake-up was on its way before
        this.#lookAgain();
        return;
      }
      this.#looking = false;
      call(() => this.native.look(false));
      this.drain(); // what came in between was not announced
    }, LOOK_MS).unref();
  }

  drain(): void {
    this.#hand();
  }

  /** Whether there was anything. */
  #hand(): boolean {
    const numbers = call(() => this.native.takeWrites());
    if (numbers.length === 0) return false;
    const writes: PostedWrite[] = [];
    for (let at = 0; at < numbers.length; at += 4) add(writes, numbers, at);
    this.guarded(() => this.#posted(writes));
    return true;
  }
}

/** One write; one of 8 bytes as two of 4. */
function add(writes: PostedWrite[], numbers: Float64Array, at: number): void {
  const [offset = 0, size = 0, low = 0, high = 0] = numbers.subarray(at, at + 4);
  writes.push({ offset, size: Math.min(size, 4), value: low });
  if (size > 4) writes.push({ offset: offset + 4, size: size - 4, value: high });
}
