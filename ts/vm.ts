/** One virtual machine: memory, bus and vCPUs under one roof, and the end of them all. */

import { readFileSync } from 'node:fs';
import { types } from 'node:util';
import { type Bus, type BusDoor, busFrom } from './bus.ts';
import { capabilitiesFrom, type Capabilities } from './capabilities.ts';
import { boolean, invalid, options, quiet } from './check.ts';
import { call, callAsync, messageOf, TypevisorError, unwrap } from './errors.ts';
import { MAIL_WORDS } from './drive.ts';
import { exitRequest, type ExitSwitches } from './exit-switches.ts';
import { guard, KEY } from './handle.ts';
import { defaultKvm, Kvm, nativeKvm } from './kvm.ts';
import { Life } from './life.ts';
import { nextId, request } from './mailbox.ts';
import { type GpaRange, type GuestMemory, memoryFrom } from './memory.ts';
import type { NativeVm } from './native.ts';
import { ioctlsAreWatched, orState, printable, tellIoctl } from './observe.ts';
import { tellSlot } from './slot.ts';
import { type Stats, statsFrom } from './stats.ts';
import { type Vcpu, vcpuFrom } from './vcpu.ts';
import { type VcpuOptions, vcpuRequest } from './vcpu-options.ts';

/** How to make a VM. */
export interface VmOptions {
  /** Where from. Default: `/dev/kvm`, opened by the first such VM of this thread, and kept for the later ones. */
  readonly kvm?: Kvm | undefined;
  /**
   * Put the interrupt controllers into the kernel, as firmware and operating systems need them (x86_64: PIC, I/O APIC
   * and local APICs). `hlt` then waits in KVM. Default `false`.
   */
  readonly irqchip?: boolean | undefined;
  /**
   * Measure the time that vCPUs are in the guest, and that their exits take: {@link Stats}. It costs two looks at the clock
   * an exit. Default `false`: exits are counted, and nothing else.
   */
  readonly timing?: boolean | undefined;
  /** Exits beyond those of every VM, and exits that it does without. Default: none of either. */
  readonly exits?: ExitSwitches | undefined;
}

/** Where a firmware was put. */
export interface Firmware {
  /** The whole image, read-only, ending at 4 GiB. */
  readonly rom: GpaRange;
  /** The copy of its end, ending at 1 MiB. */
  readonly shadow: GpaRange;
}

/**
 * A virtual machine. It owns threads, memory and file descriptors: end it by `using`, `await using` or `close()`.
 *
 * A handle belongs to the thread that made it: posting it to another throws `DataCloneError`. After a fork, the child's
 * copy refuses to work (`ERR_FORKED`).
 *
 * @example
 * using vm = Vm.create();
 * vm.memory.map({ gpa: 0, size: 1 * MiB });
 * console.log(vm.capabilities.value('nr-memslots'), vm.memory.slots.length);
 */
export class Vm implements Disposable, AsyncDisposable {
  readonly #native: NativeVm;
  readonly #capabilities: Capabilities;
  readonly #memory: GuestMemory;
  readonly #door: BusDoor;
  readonly #life: Life;

  private constructor(key: symbol, native: NativeVm) {
    guard(this, key, 'Vm.create()');
    this.#native = native;
    this.#capabilities = capabilitiesFrom(call(() => native.capabilities()));
    this.#life = new Life();
    this.#memory = memoryFrom(
      call(() => native.memory()),
      this.#life,
    );
    this.#door = busFrom(native);
  }

  static {
    printable(this, vm => {
      const { id, closed } = vm.#life;
      return closed ? { id, closed } : { id, ...orState(() => ({ slots: vm.#memory.slots.length })) };
    });
  }

  /**
   * Makes a VM without memory or vCPUs.
   *
   * @throws {TypevisorError} `ERR_KVM_UNAVAILABLE`, with what to do; `ERR_CAPABILITY_MISSING`, also for `exits` that there are
   *   not here; `ERR_IOCTL`, `ERR_CLOSED`, `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`, `ERR_LOAD`.
   */
  static create(how?: VmOptions): Vm {
    const given = options<VmOptions>(how, 'Vm.create options', ['kvm', 'irqchip', 'timing', 'exits']);
    const { kvm, irqchip = false, timing = false } = given;
    boolean(irqchip, 'irqchip');
    boolean(timing, 'timing');
    const exits = exitRequest(given.exits);
    if (kvm !== undefined && !(kvm instanceof Kvm)) throw invalid('kvm', 'a Kvm', kvm);
    const from = nativeKvm(kvm ?? defaultKvm());
    const vm = new Vm(
      KEY,
      call(() => from.createVm({ irqchip, timing, exits })),
    );
    tellIoctl(vm.#life.id, 'KVM_CREATE_VM', { irqchip });
    return vm;
  }

  /** What this VM can do. */
  get capabilities(): Capabilities {
    return this.#capabilities;
  }

  /** Its memory. */
  get memory(): GuestMemory {
    return this.#memory;
  }

  /** Who answers its ports. */
  get bus(): Bus {
    return this.#door.bus;
  }

  /**
   * What it has cost so far: KVM's own statistics of the VM (those of a vCPU are {@link Vcpu.stats}), and the exits of all its
   * vCPUs together, closed ones too. A new copy each time; vCPUs may run meanwhile, and none is waited for.
   *
   * The first time it takes a file descriptor, which goes with the VM.
   *
   * @throws {TypevisorError} `ERR_CLOSED`, `ERR_LIMIT` where no descriptor is left. That KVM has no statistics (Linux before
   *   5.14, capability `binary-stats-fd`) is no error: `kvm` is `undefined`.
   * @example
   * using vm = Vm.create();
   * vm.memory.map({ gpa: 0, size: 1 * MiB });
   * const { kvm, exits } = vm.stats;
   * console.log(kvm?.['remote_tlb_flush']?.value, exits); // 1n {}
   */
  get stats(): Stats {
    const native = this.#native;
    return statsFrom(call(() => native.stats()));
  }

  /**
   * Makes a vCPU: on x86_64 with the CPUID that was chosen, or that KVM supports here, on aarch64 one of the host's own kind.
   *
   * A refused argument or feature costs nothing. A vCPU that KVM made but that could not be set up (`ERR_IOCTL`,
   * `ERR_LIMIT`) costs its id: KVM keeps it until the VM closes.
   *
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT`, also where the id was used or is past what KVM has, for other
   *   features than the VM's first vCPU has, for entries of CPUID that the guest would never see, for what the other architecture
   *   has, and for a processor that this process may not use; `ERR_CAPABILITY_MISSING` for what this machine lacks, `ERR_OUT_OF_RANGE`, `ERR_LIMIT`, `ERR_IOCTL`, `ERR_CLOSED`.
   * @example aarch64
   * using vm = Vm.create();
   * const sve = vm.capabilities.has('arm-sve');
   * const vcpu = vm.createVcpu({ features: sve ? ['psci-0.2', 'sve'] : ['psci-0.2'] });
   * @example
   * using vm = Vm.create();
   * const vcpu = vm.createVcpu({ name: 'guest' }); // with affinity: [2, 3] its thread stays on these processors
   * @example
   * // A guest that asks who runs it: mov eax, 0x40000000; cpuid; hlt
   * using kvm = Kvm.open();
   * using vm = Vm.create({ kvm });
   * vm.memory.map({ gpa: 0x1000, size: 4 * KiB });
   * vm.memory.write(0x1000, Uint8Array.of(0x66, 0xb8, 0, 0, 0, 0x40, 0x0f, 0xa2, 0xf4));
   * const ours = { function: 0x4000_0000, eax: 0x4000_0000, ebx: 0x4242_4242, ecx: 0, edx: 0 };
   * const cpuid = kvm.supportedCpuid.filter(entry => entry.function >>> 28 !== 4);
   * const vcpu = vm.createVcpu({ cpuid: [...cpuid, ours] });
   * vcpu.boot({ mode: 'real', entry: 0x1000 });
   * await vcpu.run(); // { kind: 'hlt' }
   * const registers = vcpu.getRegisters();
   * if (registers.arch === 'x86_64') console.log(registers.rbx.toString(16)); // 42424242
   */
  createVcpu(how?: VcpuOptions): Vcpu {
    const vm = this.#native;
    const asked = vcpuRequest(how);
    const mail = new Uint32Array(MAIL_WORDS);
    const native = call(() => vm.createVcpu(asked, mail));
    const vcpu = vcpuFrom(native, mail, this.#door, this.#life);
    tellIoctl(this.#life.id, 'KVM_CREATE_VCPU', { id: vcpu.id });
    return vcpu;
  }

  /**
   * Puts a PC firmware (x86_64) where the processor looks for it at reset: read-only below 4 GiB, and a copy of its last
   * 256 KiB below 1 MiB, in memory that has to be mapped there before. A file is read at once, on this thread.
   *
   * @param file - Path or `file:` URL of the image, or the image itself.
   * @throws {TypevisorError} `ERR_IO` where the file cannot be read, `ERR_GUEST_IMAGE`, `ERR_MEMORY_HOLE`,
   *   `ERR_SLOT_OVERLAP`, `ERR_INVALID_ARGUMENT`, `ERR_POISONED`, `ERR_CLOSED`.
   * @example
   * using vm = Vm.create({ irqchip: true });
   * vm.memory.map({ gpa: 0, size: 16 * MiB });
   * const image = new Uint8Array(128 * KiB).fill(0xf4); // nothing but hlt
   * console.log(vm.loadFirmware(image).rom); // { gpa: 0xfffe0000, size: 131072 }
   */
  loadFirmware(file: string | URL | Uint8Array): Firmware {
    const native = this.#native;
    const image = types.isUint8Array(file) ? quiet(file) : readImage(file);
    const { rom, shadow } = call(() => native.loadFirmware(image));
    if (ioctlsAreWatched()) this.#tellRom(rom.gpa);
    return Object.freeze({ rom: Object.freeze({ ...rom }), shadow: Object.freeze({ ...shadow }) });
  }

  /**
   * Brings every vCPU out of the guest, whichever thread runs it, and keeps it out until {@link resume}. The promise resolves
   * when none is in `KVM_RUN`: from then on no guest changes memory, and what is read of it is of one moment.
   *
   * No run ends by it, and no exit comes of it: runs under way, and those that begin meanwhile, stay pending and go on
   * afterwards. A kick, an abort and `close` end them as ever, with the exit before left to be
   * completed, by the next run or `settle` (which waits for {@link resume}, too). Memory can be changed meanwhile; for
   * registers a vCPU has to be idle, as ever.
   *
   * May be called from a device or handler, as their vCPU is not in `KVM_RUN`; it stays out when they have returned. `runSync`
   * does not wait for a {@link resume} that only this thread could call: it is `ERR_WOULD_DEADLOCK`, also where a device of this very run
   * has paused. Paused already, it resolves at once.
   * {@link resume} before it has resolved takes effect when all vCPUs are out.
   *
   * @throws {TypevisorError} `ERR_CLOSED`, also where the VM is closed before all are out; `ERR_FORKED`.
   * @example
   * using vm = Vm.create();
   * vm.memory.map({ gpa: 0, size: 64 * KiB });
   * await vm.pause();
   * const snapshot = vm.memory.read(0, 64 * KiB);
   * vm.resume();
   */
  pause(): Promise<void> {
    const native = this.#native;
    const { liveness } = this.#life;
    return this.#life.hold(this, async () => {
      const id = nextId();
      const { payload } = await request(id, () => call(() => native.pause(id)), liveness);
      unwrap(payload);
    });
  }

  /**
   * Ends {@link pause}, however often that was called: the vCPUs go on. Harmless where the VM is not paused.
   *
   * @throws {TypevisorError} `ERR_CLOSED`, `ERR_FORKED`.
   */
  resume(): void {
    const native = this.#native;
    call(() => native.resume());
  }

  /**
   * Stops every vCPU (pending runs reject with `ERR_CLOSED`), joins their threads, takes the memory away and hands on
   * what is left in the consoles. Synchronous and bounded: about a millisecond for a small VM, 1.5 s for one with 32,000
   * slots; and as long as the one of `memory.promises` takes that is under way. Twice is harmless.
   */
  close(): void {
    const native = this.#native;
    call(() => native.close());
    this.#door.end();
    this.#life.close();
  }

  /**
   * Lets Node end while runs or jobs of this VM are pending: like an unreferenced timer, it then keeps nothing alive. Programs
   * that have nothing else to do end, and with them the VM. {@link ref} takes it back. Twice is harmless.
   *
   * @returns The VM itself.
   * @example
   * using vm = Vm.create();
   * vm.unref(); // a guest in the background of a server, say
   */
  unref(): this {
    this.#life.liveness.reference(false);
    return this;
  }

  /**
   * Takes {@link unref} back: Node stays alive while a run, `serve`, `settle` or one of `memory.promises` of this VM is
   * pending, the default.
   */
  ref(): this {
    this.#life.liveness.reference(true);
    return this;
  }

  /** The same as {@link close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** The same as {@link close}, with the waiting done off this thread. */
  async [Symbol.asyncDispose](): Promise<void> {
    const native = this.#native;
    this.#life.excuse();
    this.#life.close();
    await callAsync(() => native.closeAsync());
    this.close();
  }

  #tellRom(gpa: number): void {
    const slot = this.#memory.slotAt(gpa);
    if (slot !== undefined) tellSlot(this.#life.id, slot);
  }
}

function readImage(file: unknown): Uint8Array {
  if (typeof file !== 'string' && !(file instanceof URL)) {
    throw invalid('file', 'a path, a file: URL or a Uint8Array', file);
  }
  try {
    return readFileSync(file);
  } catch (cause) {
    const message = `cannot read the firmware ${String(file)}: ${messageOf(cause)}`;
    if (!isSystemError(cause)) throw new TypevisorError('ERR_INVALID_ARGUMENT', message, { cause });
    throw new TypevisorError('ERR_IO', message, { errno: cause.errno, syscall: cause.syscall ?? null, cause });
  }
}

/** Node's errors from the kernel have a number; those about arguments have none. */
function isSystemError(error: unknown): error is NodeJS.ErrnoException & { errno: number } {
  return error instanceof Error && 'errno' in error && typeof error.errno === 'number';
}
