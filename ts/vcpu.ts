/** One virtual CPU: runs, stops, answers, registers. Who may drive it when is the core's decision. */

import { type Answer, answerRequest } from './answer.ts';
import { type Boot, bootMade, type BootOptions, bootRequest } from './boot.ts';
import type { BusDoor } from './bus.ts';
import { abortSignal, integer, options } from './check.ts';
import { call, callAsync } from './errors.ts';
import { drive, driveSync, type Runner, settle } from './drive.ts';
import type { Exit } from './exit.ts';
import { decode } from './exit-form.ts';
import { guard, KEY } from './handle.ts';
import type { Life } from './life.ts';
import type { NativeVcpu } from './native.ts';
import { printable, tellExit } from './observe.ts';
import { fromNative, type Registers, type RegistersUpdate, toNative } from './registers.ts';
import type { RunFlags } from './run-flags.ts';
import { Seat } from './seat.ts';
import { type Driven, exits, type Handlers, serve } from './serve.ts';
import { type Stats, statsFrom } from './stats.ts';

/** How to run. */
export interface RunOptions {
  /** Aborting stops this run, and no other; the promise rejects with `signal.reason`. */
  readonly signal?: AbortSignal | undefined;
}

/** How to run on the calling thread. */
export interface RunSyncOptions {
  /** Milliseconds, 1 to 2^31 - 1, after which a watchdog stops the guest. Default 1,000. */
  readonly timeoutMs?: number | undefined;
}

/** Longest time limit a timer takes, in milliseconds. */
const TIMEOUT_MAX = 2 ** 31 - 1;
const DEFAULT_TIMEOUT_MS = 1000;

/** For vm.ts alone. */
export let vcpuFrom: (native: NativeVcpu, mail: Uint32Array, door: BusDoor, life: Life) => Vcpu;

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
  readonly #runner: Runner;
  readonly #id: number;
  readonly #life: Life;
  readonly #seat: Seat;

  private constructor(key: symbol, native: NativeVcpu, mail: Uint32Array, door: BusDoor, life: Life) {
    guard(this, key, 'vm.createVcpu()');
    this.#native = native;
    this.#life = life;
    this.#seat = new Seat(life);
    const step = call(() => native.syncStepper());
    this.#runner = { native, step, door, seat: this.#seat, liveness: life.liveness, mail, unfinished: undefined };
    this.#id = call(() => native.id());
  }

  static {
    vcpuFrom = (native, mail, door, life) => new Vcpu(KEY, native, mail, door, life);
    printable(this, vcpu => ({ id: vcpu.#id, vm: vcpu.#life.id, state: vcpu.#seat.state }));
  }

  /** Its id in the VM, on x86 also that of its local APIC. */
  get id(): number {
    return this.#id;
  }

  /**
   * What it has cost so far: KVM's own statistics of the vCPU, and its exits by kind. A new copy each time, in about
   * 0.1 ms; the vCPU may run meanwhile, and is not waited for.
   *
   * @throws {TypevisorError} `ERR_CLOSED`. That KVM has no statistics (Linux before 5.14, capability `binary-stats-fd`) is no
   *   error: `kvm` is `undefined`.
   * @example
   * using vm = Vm.create({ timing: true });
   * vm.memory.map({ gpa: 0x1000, size: 4 * KiB });
   * vm.memory.write(0x1000, Uint8Array.of(0xe6, 0x80, 0xf4)); // out 0x80, al; hlt
   * const vcpu = vm.createVcpu();
   * vcpu.boot({ mode: 'real', entry: 0x1000 });
   * await vcpu.serve({ io: io => console.log(io.port) });
   * const { exits, time, kvm } = vcpu.stats;
   * console.log(exits); // { io: 1, hlt: 1 }
   * console.log(time); // { guestMs: 0.05, handlerMs: 0.2, handlerMsByKind: { io: 0.2, hlt: 0 } }
   * console.log(kvm?.['exits']); // { kind: 'cumulative', unit: 'none', base: 10, exponent: 0, value: 2n }
   */
  get stats(): Stats {
    const native = this.#native;
    return statsFrom(call(() => native.stats()));
  }

  /**
   * Runs the guest on the vCPU's own thread until its next exit that nobody on the bus takes.
   *
   * Aborting stops this run and never the next one. Where an exit and an abort race, the exit wins and nothing is lost:
   * an aborted run left the guest between two instructions, and it can be run on. (While a change of memory holds the vCPUs
   * out, as it does for as long as one of them sleeps in a missing page, the exit before may be left to be completed, by the
   * next run or {@link settle}.)
   *
   * @throws {TypevisorError} `ERR_BUSY`, `ERR_CLOSED`, `ERR_EXIT_UNANSWERED`, `ERR_POISONED` where a change of
   *   memory left the VM so, `ERR_INTERNAL`; `signal.reason` when aborted. A `KVM_RUN` that fails is no error but an exit, `run-failed`.
   * @example
   * using vm = Vm.create();
   * vm.memory.map({ gpa: 0xffff_f000, size: 4 * KiB });
   * vm.memory.write(0xffff_fff0, Uint8Array.of(0xf4)); // hlt at the x86 reset vector
   * const exit = await vm.createVcpu().run({ signal: AbortSignal.timeout(10_000) }); // { kind: 'hlt' }
   */
  run(how?: RunOptions): Promise<Exit> {
    return this.#life.hold(this.#seat, async () => {
      const signal = signalOf(how, 'run options');
      this.#seat.check();
      return this.#run(signal);
    });
  }

  async #run(signal: AbortSignal | undefined): Promise<Exit> {
    this.#seat.enter();
    try {
      return this.#reached(decode(await drive(this.#runner, signal)));
    } finally {
      this.#seat.exit();
    }
  }

  /**
   * Runs the guest from exit to exit; it stands still while the body of the loop runs. Ends by `break`, by closing the
   * vCPU or its VM, and by an abort, which throws `signal.reason`. Until then nobody else may run the vCPU. An exit that
   * wants an answer gets it from the body, by {@link answer}.
   *
   * @throws {TypevisorError} As {@link run}, from the iteration; closing is its end and no error.
   * @example
   * using vm = Vm.create();
   * vm.memory.map({ gpa: 0x1000, size: 4 * KiB });
   * vm.memory.write(0x1000, Uint8Array.of(0xe4, 0x60, 0xe6, 0x80, 0xf4)); // in al, 0x60; out 0x80, al; hlt
   * const vcpu = vm.createVcpu();
   * vcpu.boot({ mode: 'real', entry: 0x1000 });
   * for await (const exit of vcpu.exits({ signal: AbortSignal.timeout(10_000) })) {
   *   if (exit.kind !== 'io') break;
   *   if (exit.direction === 'in') vcpu.answer(0x2a);
   *   else console.log(exit.port, exit.data); // 128 Uint8Array(1) [ 42 ]
   * }
   */
  exits(how?: RunOptions): AsyncGenerator<Exit, void, void> {
    return exits(this.#driven(), signalOf(how, 'exits options'));
  }

  /**
   * Runs the guest and gives each exit to the handler of its kind, which may take its time: the guest stands still
   * meanwhile. What the handler returns is the answer of an exit that wants one; after any other exit, `'stop'` ends
   * this. Until then nobody else may run the vCPU. Handlers are called in the AsyncLocalStorage context of this call.
   *
   * An abort or a close does not wait for a handler: what that brings later is dropped, and its exit is unanswered.
   *
   * @returns The exit that a handler stopped at, or that none took: as it came, its answer, if any, still to be given.
   * @throws {TypevisorError} As {@link run}; what a handler threw, `signal.reason`, `ERR_INVALID_ARGUMENT`.
   *   `ERR_EXIT_UNANSWERED` where a handler returned nothing for an exit that wants an answer, `ERR_NO_ANSWER_EXPECTED`
   *   where it returned one for an exit that wants none. In all these cases the exit is unanswered, and can be answered.
   * @example
   * using vm = Vm.create();
   * vm.memory.map({ gpa: 0x1000, size: 4 * KiB });
   * vm.memory.write(0x1000, Uint8Array.of(0xe4, 0x60, 0xe6, 0x80, 0xf4)); // in al, 0x60; out 0x80, al; hlt
   * const vcpu = vm.createVcpu();
   * vcpu.boot({ mode: 'real', entry: 0x1000 });
   * const exit = await vcpu.serve({
   *   io: io => (io.direction === 'in' ? 0x2a : console.log(io.port, io.data)), // 128 Uint8Array(1) [ 42 ]
   * });
   * console.log(exit.kind); // hlt, which no handler took
   */
  serve(handlers: Handlers, how?: RunOptions): Promise<Exit> {
    const { liveness } = this.#life;
    return this.#life.hold(this.#seat, async () => {
      liveness.hold();
      try {
        return await serve(this.#driven(), handlers, signalOf(how, 'serve options'));
      } finally {
        liveness.release();
      }
    });
  }

  #driven(): Driven {
    return { seat: this.#seat, run: signal => this.#run(signal), answer: value => this.answer(value) };
  }

  #reached(exit: Exit): Exit {
    return tellExit(this.#life.id, this.#id, exit);
  }

  /**
   * Runs the guest on this thread until its next exit that nobody on the bus takes. Blocks the event loop, for
   * `timeoutMs` at most: a watchdog then stops the guest, which stands as after an aborted {@link run} and can be run on.
   *
   * @throws {TypevisorError} `ERR_TIMEOUT`, `ERR_BUSY`, `ERR_CLOSED`, `ERR_EXIT_UNANSWERED`, `ERR_POISONED`,
   *   `ERR_INTERNAL`, `ERR_OUT_OF_RANGE`; `ERR_WOULD_DEADLOCK` in a paused VM, which only this thread can resume: the guest
   *   stands where it stood, what was answered stays answered, and it can be run on after `vm.resume`.
   */
  runSync(how?: RunSyncOptions): Exit {
    const given = options<RunSyncOptions>(how, 'runSync options', ['timeoutMs']);
    const { timeoutMs = DEFAULT_TIMEOUT_MS } = given;
    integer(timeoutMs, 'timeoutMs', 1, TIMEOUT_MAX);
    this.#seat.check();
    this.#seat.enter();
    try {
      return this.#reached(decode(driveSync(this.#runner, timeoutMs)));
    } finally {
      this.#seat.exit();
    }
  }

  /**
   * Stops the running entry, which gives `{ kind: 'intr' }`. Sticky: where nothing runs, the next run gives it.
   *
   * @throws {TypevisorError} `ERR_CLOSED`.
   */
  kick(): void {
    const native = this.#native;
    call(() => native.kick());
  }

  /**
   * Answers the exit just delivered, once: an `io` with direction `'in'`, an `mmio` with direction `'read'`, or another that
   * says so. Takes effect with the next run.
   *
   * @param value - A number, little-endian in as many bytes as the exit wants, or all of them as bytes. `'fault'` makes the
   *   guest's instruction fault, where the exit is an `rdmsr` or a `wrmsr`.
   * @throws {TypevisorError} `ERR_NO_ANSWER_EXPECTED`, `ERR_INVALID_ARGUMENT` for the wrong number of bytes and for what
   *   the exit does not take, `ERR_OUT_OF_RANGE`, `ERR_BUSY`, `ERR_CLOSED`. Nothing is written then.
   */
  answer(value: Answer | 'fault'): void {
    const native = this.#native;
    this.#seat.checkIdle();
    if (value === 'fault') {
      call(() => native.answerFault());
    } else {
      const answer = answerRequest(value);
      call(() => native.answer(answer));
    }
    this.#runner.unfinished = undefined;
  }

  /**
   * Completes the pending exit without running the guest further, so that its registers are final. It may bring a
   * further exit, as a string instruction does. A kick does not stop it: the next run meets that.
   *
   * @returns The further exit; `undefined` where nothing is pending any more.
   * @throws {TypevisorError} `ERR_EXIT_UNANSWERED`, `ERR_BUSY`, `ERR_CLOSED`, `ERR_POISONED`, `ERR_INTERNAL`.
   */
  settle(): Promise<Exit | undefined> {
    return this.#life.hold(this.#seat, () => this.#settle());
  }

  async #settle(): Promise<Exit | undefined> {
    this.#seat.enter();
    try {
      const exit = await settle(this.#runner);
      return exit && this.#reached(decode(exit));
    } finally {
      this.#seat.exit();
    }
  }

  /**
   * What the kernel said beside the exit that was delivered last, `{ kind: 'intr' }` included. At any time, and until the next
   * one is delivered; before the first, nothing is set. It is apart from the exit as it says how the vCPU came out, and not what
   * the guest wants. (`kvm_run.flags`, api.rst section 5)
   *
   * @example
   * using vm = Vm.create();
   * vm.memory.map({ gpa: 0xffff_f000, size: 4 * KiB });
   * vm.memory.write(0xffff_fff0, Uint8Array.of(0xf4)); // hlt at the x86 reset vector
   * const vcpu = vm.createVcpu();
   * const exit = await vcpu.run({ signal: AbortSignal.timeout(10_000) });
   * console.log(exit.kind, vcpu.runFlags); // hlt { bits: 0, smm: false, busLock: false, guestMode: false }
   */
  get runFlags(): RunFlags {
    const native = this.#native;
    return Object.freeze({ ...call(() => native.runFlags()) });
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
    const native = this.#native;
    this.#seat.checkIdle();
    return fromNative(call(() => native.registers()));
  }

  /**
   * Changes the registers named, and no others; of a segment the parts named.
   *
   * To start an aarch64 guest, {@link boot} first: a vCPU as it comes has its MMU off, its accesses bypass the caches,
   * and on processors without FEAT_S2FWB it need not see what the program wrote to its memory, nor the reverse.
   *
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT` for an unknown register or one of the wrong type,
   *   `ERR_OUT_OF_RANGE`, `ERR_BUSY` while a run is pending or an exit is not completed, `ERR_EXIT_UNANSWERED`,
   *   `ERR_CLOSED`, `ERR_IOCTL`.
   * @example
   * using vm = Vm.create();
   * const vcpu = vm.createVcpu();
   * vcpu.setRegisters({ rip: 0x1000n, rax: 1n, cs: { base: 0n, selector: 0 } });
   */
  setRegisters(some: RegistersUpdate): void {
    const native = this.#native;
    this.#seat.checkIdle();
    const update = toNative(some, () => call(() => native.registers()));
    call(() => native.setRegisters(update));
  }

  /**
   * Puts the vCPU where a guest starts: registers, nothing pending, and the tables that long mode and EL1 need, which
   * the host makes in a slot of their own. Map memory first: at EL1 the tables say what is memory.
   *
   * On aarch64 it takes the place of a PSCI `CPU_ON` that another vCPU has made for this one and that no run has seen
   * yet. One that is made during the boot may come after it, and reset the vCPU at its next run.
   *
   * @returns Where the tables lie, and at EL1 where exceptions show.
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`, `ERR_SLOT_OVERLAP`,
   *   `ERR_SLOT_LIMIT`, `ERR_LIMIT` where the host has no memory for the tables, `ERR_BUSY`,
   *   `ERR_EXIT_UNANSWERED`, `ERR_POISONED`, `ERR_CLOSED`, `ERR_IOCTL`.
   * @example
   * using vm = Vm.create();
   * vm.memory.map({ gpa: 0x1000, size: 4 * KiB });
   * vm.memory.write(0x1000, Uint8Array.of(0xe6, 0x80)); // out 0x80, al
   * const vcpu = vm.createVcpu();
   * console.log(vcpu.boot({ mode: 'long', privilege: 'user', entry: 0x1000 })); // { tables: { gpa: …, size: 131072 } }
   * await vcpu.run(); // { kind: 'io', direction: 'out', port: 128, … }
   * @example aarch64
   * using vm = Vm.create();
   * vm.memory.map({ gpa: 0x4000_0000, size: 2 * MiB });
   * // mov w0, #42; str w0, [x1]; b .
   * vm.memory.write(0x4000_0000, new Uint8Array(Uint32Array.of(0x5280_0540, 0xb900_0020, 0x1400_0000).buffer));
   * const vcpu = vm.createVcpu();
   * vcpu.boot({ mode: 'el1', entry: 0x4000_0000, stack: 0x4020_0000 });
   * vcpu.setRegisters({ x1: 0x900_0000n });
   * await vcpu.run(); // { kind: 'mmio', direction: 'write', gpa: 0x900_0000, size: 4, data: Uint8Array [ 42, 0, 0, 0 ] }
   */
  boot(where: BootOptions): Boot {
    const native = this.#native;
    const place = bootRequest(where);
    this.#seat.checkIdle();
    return bootMade(call(() => native.boot(place)));
  }

  /**
   * Stops a pending run, which rejects with `ERR_CLOSED`, and joins the vCPU's thread. KVM keeps the vCPU and its id
   * until the VM closes. Twice is harmless.
   */
  close(): void {
    const native = this.#native;
    call(() => native.close());
    this.#seat.close();
  }

  /** The same as {@link close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** The same as {@link close}, with the waiting done off this thread. */
  async [Symbol.asyncDispose](): Promise<void> {
    const native = this.#native;
    this.#life.excuse(this.#seat);
    this.#seat.close();
    await callAsync(() => native.closeAsync());
    this.close();
  }
}

function signalOf(how: RunOptions | undefined, name: string): AbortSignal | undefined {
  return abortSignal(options<RunOptions>(how, name, ['signal']).signal, 'signal');
}
