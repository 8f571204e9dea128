/** One virtual CPU: runs, stops, answers, registers. Who may drive it when is the core's decision. */

import { abortSignal, byteArray, bytes, integer, invalid, oneOf, options, uint64 } from './check.ts';
import { call, callAsync, TypevisorError, unwrap } from './errors.ts';
import { decode, type Exit } from './exit.ts';
import { guard, KEY } from './handle.ts';
import { nextId, type Payload, request } from './mailbox.ts';
import type { GpaRange } from './memory.ts';
import type { NativeBootOptions, NativeExit, NativeVcpu } from './native.ts';
import { fromNative, type Registers, type RegistersUpdate, toNative } from './registers.ts';

/** How to run. */
export interface RunOptions {
  /** Aborting stops this run, and no other; the promise rejects with `signal.reason`. */
  readonly signal?: AbortSignal | undefined;
}

/** How to run on the calling thread. */
export interface RunSyncOptions {
  /** Milliseconds, 1 to 2^31 - 1, after which a watchdog stops the guest. Default 1,000. */
  readonly timeoutMs?: number;
}

/** Where a guest starts (x86_64). Addresses are linear, which at the start are guest physical ones. */
export interface BootOptions {
  /**
   * `'real'`: 16-bit code. `'protected'`: 32-bit code, flat segments, no paging, no GDT. `'long'`: 64-bit code, the first
   * 4 GiB mapped to themselves by tables that the host makes.
   */
  readonly mode: 'real' | 'protected' | 'long';
  /**
   * `'kernel'`: ring 0. `'user'`: ring 3, where ports work and instructions of kernel mode, `hlt` among them, end in a
   * `shutdown`; not in real mode. Default `'kernel'`.
   */
  readonly privilege?: 'kernel' | 'user';
  /** The first instruction, below 4 GiB; in real mode at most 0x10_ffef. */
  readonly entry: number;
  /** Where the stack begins, downward: a multiple of 16, at most 4 GiB; in real mode even, at most 64 KiB. Default 0. */
  readonly stack?: number;
  /**
   * Where the tables of long mode lie: 128 KiB in a slot of their own, where nothing is mapped; a multiple of 4 KiB.
   * Default: where they lay at this vCPU's last boot, else the highest free place below 0xe000_0000.
   */
  readonly tables?: number;
}

/** What {@link Vcpu.boot} made. */
export interface Boot {
  /** The slot that holds the host's tables, in long mode: whatever lies in it is rewritten by the next boot. */
  readonly tables?: GpaRange;
}

/** Longest time limit a timer takes, in milliseconds. */
const TIMEOUT_MAX = 2 ** 31 - 1;
const DEFAULT_TIMEOUT_MS = 1000;

/** For vm.ts alone; `drain` hands on console output. */
export let vcpuFrom: (native: NativeVcpu, drain: () => void) => Vcpu;

/**
 * A virtual CPU. Comes from `vm.createVcpu`; closed with its VM at the latest. One run at a time; while it is pending,
 * Node stays alive.
 *
 * A handle belongs to the thread that made it: posting it to another throws `DataCloneError`.
 *
 * @example
 * using vm = Vm.create();
 * vm.memory.map({ gpa: 0x1000, size: 4 * KiB });
 * vm.memory.write(0x1000, Uint8Array.of(0xe4, 0x60, 0xf4)); // in al, 0x60; hlt
 * const vcpu = vm.createVcpu();
 * vcpu.boot({ mode: 'real', entry: 0x1000 });
 * await vcpu.run(); // { kind: 'io', direction: 'in', port: 0x60, size: 1, count: 1 }
 * vcpu.answer(0x2a);
 * await vcpu.run(); // { kind: 'hlt' }
 */
export class Vcpu implements Disposable, AsyncDisposable {
  readonly #native: NativeVcpu;
  readonly #drain: () => void;
  readonly #id: number;

  private constructor(key: symbol, native: NativeVcpu, drain: () => void) {
    guard(this, key, 'vm.createVcpu()');
    this.#native = native;
    this.#drain = drain;
    this.#id = call(() => native.id());
  }

  static {
    vcpuFrom = (native, drain) => new Vcpu(KEY, native, drain);
  }

  /** Its id in the VM, on x86 also that of its local APIC. */
  get id(): number {
    return this.#id;
  }

  /**
   * Runs the guest on the vCPU's own thread until its next exit that nobody on the bus takes.
   *
   * Aborting stops this run and never the next one. Where an exit and an abort race, the exit wins and nothing is lost:
   * an aborted run left the guest between two instructions, and it can be run on.
   *
   * @throws {TypevisorError} `ERR_BUSY`, `ERR_CLOSED`, `ERR_EXIT_UNANSWERED`, `ERR_INTERNAL`; `signal.reason` when
   *   aborted. A `KVM_RUN` that fails is no error but an exit, `run-failed`.
   * @example
   * using vm = Vm.create();
   * vm.memory.map({ gpa: 0xffff_f000, size: 4 * KiB });
   * vm.memory.write(0xffff_fff0, Uint8Array.of(0xf4)); // hlt at the x86 reset vector
   * const exit = await vm.createVcpu().run({ signal: AbortSignal.timeout(10_000) }); // { kind: 'hlt' }
   */
  async run(how?: RunOptions): Promise<Exit> {
    const given = options<RunOptions>(how, 'run options', ['signal']);
    const signal = abortSignal(given.signal, 'signal');
    signal?.throwIfAborted();
    const ticket = nextId();
    const cancel = (): void => this.#native.cancel(ticket); // this run only; nothing once it has returned
    signal?.addEventListener('abort', cancel, { once: true });
    try {
      const exit = decode(outcome(await request(ticket, () => call(() => this.#native.start(ticket)))));
      if (exit.kind === 'intr') signal?.throwIfAborted(); // any other exit won the race: hand it over
      return exit;
    } finally {
      signal?.removeEventListener('abort', cancel);
    }
  }

  /**
   * Runs the guest on this thread until its next exit that nobody on the bus takes. Blocks the event loop, for
   * `timeoutMs` at most: a watchdog then stops the guest, which stands between two instructions and can be run on.
   *
   * @throws {TypevisorError} `ERR_TIMEOUT`, `ERR_BUSY`, `ERR_CLOSED`, `ERR_EXIT_UNANSWERED`, `ERR_INTERNAL`,
   *   `ERR_OUT_OF_RANGE`.
   */
  runSync(how?: RunSyncOptions): Exit {
    const given = options<RunSyncOptions>(how, 'runSync options', ['timeoutMs']);
    const timeoutMs = integer(given.timeoutMs ?? DEFAULT_TIMEOUT_MS, 'timeoutMs', 1, TIMEOUT_MAX);
    const deadline = performance.now() + timeoutMs;
    try {
      for (let left = timeoutMs; left > 0; left = Math.ceil(deadline - performance.now())) {
        const limit = left;
        const exit = call(() => this.#native.runSync(limit));
        if (exit !== null) return decode(exit);
        this.#drain(); // a console is full, and nobody but this thread can empty it
      }
    } catch (error) {
      // The core knows the limit of its last part alone.
      if (!(error instanceof TypevisorError) || error.code !== 'ERR_TIMEOUT') throw error;
    } finally {
      this.#drain();
    }
    throw new TypevisorError('ERR_TIMEOUT', `the guest's next exit took longer than ${timeoutMs} ms`);
  }

  /**
   * Stops the running entry, which gives `{ kind: 'intr' }`. Sticky: where nothing runs, the next run gives it.
   *
   * @throws {TypevisorError} `ERR_CLOSED`.
   */
  kick(): void {
    call(() => this.#native.kick());
  }

  /**
   * Answers the exit just delivered, once: an `io` with direction `'in'`, or an `mmio` with direction `'read'`. Takes
   * effect with the next run.
   *
   * @param value - A number, little-endian in as many bytes as the exit wants, or all of them as bytes.
   * @throws {TypevisorError} `ERR_NO_ANSWER_EXPECTED`, `ERR_INVALID_ARGUMENT` for the wrong number of bytes,
   *   `ERR_OUT_OF_RANGE`, `ERR_BUSY`, `ERR_CLOSED`.
   */
  answer(value: number | bigint | Uint8Array): void {
    const answer = typeof value === 'object' ? byteArray(value, 'value') : whole(value);
    call(() => this.#native.answer(answer));
  }

  /**
   * Completes the pending exit without running the guest further, so that its registers are final. It may bring a
   * further exit, as a string instruction does; a kick stops it too.
   *
   * @returns The further exit; `undefined` where nothing is pending any more.
   * @throws {TypevisorError} `ERR_EXIT_UNANSWERED`, `ERR_BUSY`, `ERR_CLOSED`, `ERR_INTERNAL`.
   */
  async settle(): Promise<Exit | undefined> {
    const ticket = nextId();
    const exit = unwrap(await request(ticket, () => call(() => this.#native.settle(ticket))));
    return exit === null ? undefined : decode(exit);
  }

  /**
   * All registers, as a frozen copy. With `pending`, the last exit is not completed and they are raw.
   *
   * @throws {TypevisorError} `ERR_BUSY` while a run is pending, `ERR_CLOSED`, `ERR_IOCTL`.
   * @example
   * using vm = Vm.create();
   * const registers = vm.createVcpu().getRegisters();
   * if (registers.arch === 'x86_64') console.log(registers.rip, registers.cs.base); // 65520n 4294901760n
   */
  getRegisters(): Readonly<Registers> {
    return fromNative(call(() => this.#native.registers()));
  }

  /**
   * Changes the registers named, and no others; of a segment the parts named.
   *
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT` for an unknown register or one of the wrong type,
   *   `ERR_OUT_OF_RANGE`, `ERR_BUSY` while a run is pending or an exit is not completed, `ERR_CLOSED`, `ERR_IOCTL`.
   * @example
   * using vm = Vm.create();
   * const vcpu = vm.createVcpu();
   * vcpu.setRegisters({ rip: 0x1000n, rax: 1n, cs: { base: 0n, selector: 0 } });
   */
  setRegisters(some: RegistersUpdate): void {
    if (typeof some !== 'object' || some === null) throw invalid('registers', 'an object', some);
    const update = toNative(some, () => call(() => this.#native.registers()));
    call(() => this.#native.setRegisters(update));
  }

  /**
   * Puts the vCPU where a guest starts: registers, nothing pending, and for long mode page tables, descriptors and a
   * TSS that the host makes in a slot of their own.
   *
   * @returns Where the tables lie.
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`, `ERR_SLOT_OVERLAP`,
   *   `ERR_SLOT_LIMIT`, `ERR_BUSY`, `ERR_CLOSED`, `ERR_IOCTL`.
   * @example
   * using vm = Vm.create();
   * vm.memory.map({ gpa: 0x1000, size: 4 * KiB });
   * vm.memory.write(0x1000, Uint8Array.of(0xe6, 0x80)); // out 0x80, al
   * const vcpu = vm.createVcpu();
   * console.log(vcpu.boot({ mode: 'long', privilege: 'user', entry: 0x1000 })); // { tables: { gpa: …, size: 131072 } }
   * await vcpu.run(); // { kind: 'io', direction: 'out', port: 128, … }
   */
  boot(where: BootOptions): Boot {
    const place = bootRequest(where);
    const { tables } = call(() => this.#native.boot(place));
    return Object.freeze(tables === null ? {} : { tables: Object.freeze({ gpa: tables.gpa, size: tables.size }) });
  }

  /**
   * Stops a pending run, which rejects with `ERR_CLOSED`, and joins the vCPU's thread. KVM keeps the vCPU and its id
   * until the VM closes. Twice is harmless.
   */
  close(): void {
    call(() => this.#native.close());
  }

  /** The same as {@link close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** The same as {@link close}, with the waiting done off this thread. */
  async [Symbol.asyncDispose](): Promise<void> {
    await callAsync(() => this.#native.closeAsync());
    this.close();
  }
}

/** A delivery under a run's number is an exit; `null` is for wake-ups alone. */
function outcome(payload: Payload): NativeExit {
  const exit = unwrap(payload);
  if (exit === null) throw new TypevisorError('ERR_INTERNAL', 'a run ended without an exit; please report it');
  return exit;
}

function whole(value: unknown): bigint {
  if (typeof value === 'number') return BigInt(bytes(value, 'value'));
  if (typeof value === 'bigint') return uint64(value, 'value');
  throw invalid('value', 'a number, a bigint or a Uint8Array', value);
}

function bootRequest(where: BootOptions): NativeBootOptions {
  const given = options<BootOptions>(where, 'boot options', ['mode', 'privilege', 'entry', 'stack', 'tables']);
  return {
    mode: oneOf(given.mode, 'mode', ['real', 'protected', 'long']),
    user: oneOf(given.privilege ?? 'kernel', 'privilege', ['kernel', 'user']) === 'user',
    entry: bytes(given.entry, 'entry'),
    stack: given.stack === undefined ? null : bytes(given.stack, 'stack'),
    tables: given.tables === undefined ? null : bytes(given.tables, 'tables'),
  };
}
