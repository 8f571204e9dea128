/** An open `/dev/kvm`: what the machine can do, and where VMs come from. */

import { capabilitiesFrom, type Capabilities } from './capabilities.ts';
import { invalid, options } from './check.ts';
import { call } from './errors.ts';
import type { CapabilityName } from './generated/capabilities.ts';
import { guard, KEY } from './handle.ts';
import { environment } from './loader.ts';
import type { NativeKvm } from './native.ts';

/** How to open KVM. */
export interface KvmOptions {
  /** The device. Default `/dev/kvm`. */
  readonly path?: string;
  /** Capabilities to treat as absent in all that is made from it: to test a fallback. Default none. */
  readonly hide?: readonly CapabilityName[];
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

  private constructor(key: symbol, native: NativeKvm) {
    guard(this, key, 'Kvm.open()');
    this.#native = native;
    this.#capabilities = capabilitiesFrom(call(() => native.capabilities()));
  }

  static {
    nativeKvm = kvm => kvm.#native;
  }

  /**
   * Opens KVM and checks its API version.
   *
   * @throws {TypevisorError} `ERR_KVM_UNAVAILABLE`, with what to do; `ERR_INVALID_ARGUMENT`, `ERR_LOAD`.
   */
  static open(how?: KvmOptions): Kvm {
    const { path = null, hide = [] } = options<KvmOptions>(how, 'Kvm.open options', ['path', 'hide']);
    if (path !== null && typeof path !== 'string') throw invalid('path', 'a string', path);
    if (!Array.isArray(hide) || !hide.every(name => typeof name === 'string')) {
      throw invalid('hide', 'an array of capability names', hide);
    }
    const host = environment();
    const native = call(() => host.openKvm({ path, hide: [...hide] }));
    return new Kvm(KEY, native);
  }

  /** What `/dev/kvm` answers, for the best VM it could make; `vm.capabilities` is the answer that counts. */
  get capabilities(): Capabilities {
    return this.#capabilities;
  }

  /** Closes the device. VMs made from it live on. Twice is harmless. */
  close(): void {
    call(() => this.#native.close());
  }

  /** The same as {@link close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}
