/** An open `/dev/kvm`: what the machine can do, and where VMs come from. */

import { capabilitiesFrom, type Capabilities } from './capabilities.ts';
import { invalid, options } from './check.ts';
import { type CpuidEntry, cpuidFrom } from './cpuid.ts';
import { call } from './errors.ts';
import type { CapabilityName } from './generated/capabilities.ts';
import { guard, KEY } from './handle.ts';
import { environment } from './loader.ts';
import type { NativeKvm } from './native.ts';
import { printable } from './observe.ts';

/** How to open KVM. */
export interface KvmOptions {
  /** The device. Default `/dev/kvm`. */
  readonly path?: string | undefined;
  /** Capabilities to treat as absent in all that is made from it: to test a fallback. Default none. */
  readonly hide?: readonly CapabilityName[] | undefined;
}

/** For vm.ts alone. */
export let nativeKvm: (kvm: Kvm) => NativeKvm;

let shared: Kvm | undefined;

/** For vm.ts alone: the one for all who bring none. It stays open, as it holds what has to be asked only once. */
export function defaultKvm(): Kvm {
  return (shared ??= Kvm.open());
}

/**
 * An open `/dev/kvm`. Most programs need none: `Vm.create()` opens one for all its VMs.
 *
 * A handle belongs to the thread that made it: posting it to another throws `DataCloneError`.
 *
 * @example
 * using kvm = Kvm.open({ hide: ['user-memory2'] }); // as on kernels before 6.8
 * using vm = Vm.create({ kvm });
 * console.log(vm.memory.map({ gpa: 0, size: 4 * KiB }).ioctl); // KVM_SET_USER_MEMORY_REGION
 */
export class Kvm implements Disposable {
  readonly #native: NativeKvm;
  readonly #capabilities: Capabilities;
  readonly #path: string;
  #closed = false;

  private constructor(key: symbol, native: NativeKvm, path: string) {
    guard(this, key, 'Kvm.open()');
    this.#native = native;
    this.#path = path;
    this.#capabilities = capabilitiesFrom(call(() => native.capabilities()));
  }

  static {
    nativeKvm = kvm => kvm.#native;
    printable(this, kvm => ({ path: kvm.#path, closed: kvm.#closed || undefined }));
  }

  /**
   * Opens KVM and checks its API version.
   *
   * @throws {TypevisorError} `ERR_KVM_UNAVAILABLE`, with what to do; `ERR_INVALID_ARGUMENT`, `ERR_LOAD`.
   */
  static open(how?: KvmOptions): Kvm {
    const { path, hide } = options<KvmOptions>(how, 'Kvm.open options', ['path', 'hide']);
    if (path !== undefined && typeof path !== 'string') throw invalid('path', 'a string', path);
    const request = { path: path ?? null, hide: names(hide) };
    const host = environment();
    const native = call(() => host.openKvm(request));
    return new Kvm(KEY, native, path ?? '/dev/kvm');
  }

  /** What `/dev/kvm` answers, for the best VM it could make; `vm.capabilities` is the answer that counts. */
  get capabilities(): Capabilities {
    return this.#capabilities;
  }

  /**
   * What processor and KVM can show to a guest by CPUID, for `vm.createVcpu({ cpuid })`: what a vCPU has for which none is
   * chosen, but for the APIC ids. A new frozen array each time. (`KVM_GET_SUPPORTED_CPUID`, api.rst 4.46)
   *
   * @throws {TypevisorError} `ERR_CAPABILITY_MISSING` without `ext-cpuid`, which every KVM on x86_64 has and none on aarch64;
   *   `ERR_CLOSED`, `ERR_IOCTL`.
   * @example
   * using kvm = Kvm.open();
   * using vm = Vm.create({ kvm });
   * // A processor without AVX (leaf 1, bit 28 of ecx), as an older one
   * const cpuid = kvm.supportedCpuid.map(leaf => (leaf.function === 1 ? { ...leaf, ecx: (leaf.ecx & ~(1 << 28)) >>> 0 } : leaf));
   * const vcpu = vm.createVcpu({ cpuid });
   */
  get supportedCpuid(): readonly CpuidEntry[] {
    const native = this.#native;
    return cpuidFrom(call(() => native.supportedCpuid()));
  }

  /**
   * What KVM can show by CPUID to a guest that is to take its host for Hyper-V: leaves from 0x4000_0000 on, which stand in the
   * place of KVM's own. With them the guest has Hyper-V's registers and hypercalls. A new frozen array each time.
   * (`KVM_GET_SUPPORTED_HV_CPUID`, api.rst 4.118; what they mean: Hypervisor Top Level Functional Specification)
   *
   * @throws {TypevisorError} `ERR_CAPABILITY_MISSING` without `sys-hyperv-cpuid` (Linux 5.11, x86_64): a program has to know
   *   the leaves itself then; `ERR_CLOSED`, `ERR_IOCTL`.
   * @example
   * using kvm = Kvm.open();
   * using vm = Vm.create({ kvm });
   * if (kvm.capabilities.has('sys-hyperv-cpuid')) {
   *   const processor = kvm.supportedCpuid.filter(leaf => leaf.function >>> 8 !== 0x40_0000); // all but KVM's own leaves
   *   const vcpu = vm.createVcpu({ cpuid: [...processor, ...kvm.supportedHypervCpuid] });
   * }
   */
  get supportedHypervCpuid(): readonly CpuidEntry[] {
    const native = this.#native;
    return cpuidFrom(call(() => native.supportedHypervCpuid()));
  }

  /** Closes the device. VMs made from it live on. Twice is harmless. */
  close(): void {
    const native = this.#native;
    call(() => native.close());
    this.#closed = true;
  }

  /** The same as {@link close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}

function names(hide: readonly CapabilityName[] = []): string[] {
  if (!Array.isArray(hide)) throw invalid('hide', 'an array of capability names', hide);
  return Array.from(hide, (name: unknown, at) => {
    if (typeof name !== 'string') throw invalid(`hide[${at}]`, 'the name of a capability', name);
    return name;
  });
}
