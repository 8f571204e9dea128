/** One virtual machine: memory, bus and vCPUs under one roof, and the end of them all. */

import { readFileSync } from 'node:fs';
import { type Bus, type BusDoor, busFrom } from './bus.ts';
import { capabilitiesFrom, type Capabilities } from './capabilities.ts';
import { boolean, integer, invalid, options } from './check.ts';
import { call, callAsync, messageOf, TypevisorError } from './errors.ts';
import { guard, KEY } from './handle.ts';
import { defaultKvm, Kvm, nativeKvm } from './kvm.ts';
import { type GpaRange, type GuestMemory, memoryFrom } from './memory.ts';
import type { NativeVm } from './native.ts';
import { type Vcpu, vcpuFrom } from './vcpu.ts';

/** How to make a VM. */
export interface VmOptions {
  /** Where from. Default: `/dev/kvm`, opened and closed with the VM. */
  readonly kvm?: Kvm;
  /**
   * Put the interrupt controllers into the kernel, as firmware and operating systems need them (x86_64: PIC, I/O APIC
   * and local APICs). `hlt` then waits in KVM. Default `false`.
   */
  readonly irqchip?: boolean;
}

/** How to make a vCPU. */
export interface VcpuOptions {
  /** Its id, never used before in this VM. Default: the lowest such. */
  readonly id?: number;
}

/** Where a firmware was put. */
export interface Firmware {
  /** The whole image, read-only, ending at 4 GiB. */
  readonly rom: GpaRange;
  /** The copy of its end, ending at 1 MiB. */
  readonly shadow: GpaRange;
}

/** Ids are 32 bits wide in KVM; how many there are says the capability `max-vcpu-id`. */
const VCPU_ID_MAX = 2 ** 31 - 1;

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

  private constructor(key: symbol, native: NativeVm) {
    guard(this, key, 'Vm.create()');
    this.#native = native;
    this.#capabilities = capabilitiesFrom(call(() => native.capabilities()));
    this.#memory = memoryFrom(native);
    this.#door = busFrom(native);
  }

  /**
   * Makes a VM without memory or vCPUs.
   *
   * @throws {TypevisorError} `ERR_KVM_UNAVAILABLE`, with what to do; `ERR_CAPABILITY_MISSING`, `ERR_IOCTL`,
   *   `ERR_CLOSED`, `ERR_INVALID_ARGUMENT`, `ERR_LOAD`.
   */
  static create(how?: VmOptions): Vm {
    const given = options<VmOptions>(how, 'Vm.create options', ['kvm', 'irqchip']);
    const irqchip = boolean(given.irqchip ?? false, 'irqchip');
    if (given.kvm !== undefined && !(given.kvm instanceof Kvm)) throw invalid('kvm', 'a Kvm', given.kvm);
    const from = nativeKvm(given.kvm ?? defaultKvm());
    return new Vm(
      KEY,
      call(() => from.createVm({ irqchip })),
    );
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
   * Makes a vCPU, on x86_64 with the CPUID that KVM supports here.
   *
   * @throws {TypevisorError} `ERR_INVALID_ARGUMENT` where the id was used, `ERR_OUT_OF_RANGE`, `ERR_LIMIT`,
   *   `ERR_IOCTL`, `ERR_CLOSED`.
   */
  createVcpu(how?: VcpuOptions): Vcpu {
    const given = options<VcpuOptions>(how, 'createVcpu options', ['id']);
    const id = given.id === undefined ? null : integer(given.id, 'id', 0, VCPU_ID_MAX);
    const native = call(() => this.#native.createVcpu({ id }));
    return vcpuFrom(native, this.#door.drain);
  }

  /**
   * Puts a PC firmware (x86_64) where the processor looks for it at reset: read-only below 4 GiB, and a copy of its last
   * 256 KiB below 1 MiB, in memory that has to be mapped there before. A file is read at once, on this thread.
   *
   * @param file - Path or `file:` URL of the image, or the image itself.
   * @throws {TypevisorError} `ERR_IO` where the file cannot be read, `ERR_GUEST_IMAGE`, `ERR_MEMORY_HOLE`,
   *   `ERR_SLOT_OVERLAP`, `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`.
   * @example
   * using vm = Vm.create({ irqchip: true });
   * vm.memory.map({ gpa: 0, size: 16 * MiB });
   * const image = new Uint8Array(128 * KiB).fill(0xf4); // nothing but hlt
   * console.log(vm.loadFirmware(image).rom); // { gpa: 0xfffe0000, size: 131072 }
   */
  loadFirmware(file: string | URL | Uint8Array): Firmware {
    const image = file instanceof Uint8Array ? file : readImage(file);
    const { rom, shadow } = call(() => this.#native.loadFirmware(image));
    return Object.freeze({ rom: Object.freeze({ ...rom }), shadow: Object.freeze({ ...shadow }) });
  }

  /**
   * Stops every vCPU (pending runs reject with `ERR_CLOSED`), joins their threads, takes the memory away and hands on
   * what is left in the consoles. Synchronous and bounded. Twice is harmless.
   */
  close(): void {
    call(() => this.#native.close());
    this.#door.end();
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
