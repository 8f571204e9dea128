/** What KVM can do, as a table that was asked of the running kernel. */

import { TypevisorError } from './errors.ts';
import { show } from './check.ts';
import type { CapabilityName } from './generated/capabilities.ts';
import { guard, KEY } from './handle.ts';
import type { NativeCapability } from './native.ts';
import { printable } from './observe.ts';

/** One capability and what the kernel answered. */
export interface Capability {
  /** The kernel's name in kebab-case, without `KVM_CAP_`. */
  readonly name: CapabilityName;
  /** Its number in the kernel's header. */
  readonly number: number;
  /** What `KVM_CHECK_EXTENSION` returned; 0 is absent, else it depends on the capability: see `meaning`. */
  readonly value: number;
  /** What the value says. */
  readonly meaning: string;
  /** First kernel release that knows it. */
  readonly since: string;
}

/** For kvm.ts and vm.ts alone. */
export let capabilitiesFrom: (native: readonly NativeCapability[]) => Capabilities;

/**
 * Every capability this version of Typevisor knows, with the running kernel's answer. The table was asked once, when
 * its `Kvm` or `Vm` was made. The VM's answer counts: `/dev/kvm` answers for the best VM it could make.
 *
 * @example
 * using vm = Vm.create();
 * if (vm.capabilities.has('readonly-mem')) console.log('slots:', vm.capabilities.value('nr-memslots'));
 * for (const { name, value, since } of vm.capabilities) console.log(name, value, since);
 */
export class Capabilities implements Iterable<Capability> {
  readonly #byName: ReadonlyMap<string, Capability>;

  private constructor(key: symbol, native: readonly NativeCapability[]) {
    guard(this, key, 'kvm.capabilities or vm.capabilities');
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a test holds the generated names against the core's
    const all = native as readonly Capability[];
    this.#byName = new Map(all.map(capability => [capability.name, Object.freeze({ ...capability })]));
  }

  static {
    capabilitiesFrom = native => new Capabilities(KEY, native);
    printable(this, capabilities => {
      const present = [...capabilities].filter(({ value }) => value !== 0).length;
      return { present, absent: capabilities.#byName.size - present };
    });
  }

  /** Whether the capability is there: its value is not 0. @throws {TypevisorError} `ERR_INVALID_ARGUMENT`. */
  has(name: CapabilityName): boolean {
    return this.value(name) !== 0;
  }

  /** The kernel's answer, 0 where the capability is absent. @throws {TypevisorError} `ERR_INVALID_ARGUMENT`. */
  value(name: CapabilityName): number {
    const found = this.#byName.get(name);
    if (found !== undefined) return found.value;
    throw new TypevisorError('ERR_INVALID_ARGUMENT', `there is no KVM capability named ${show(name)}`);
  }

  /** All of them by number, absent ones included. */
  [Symbol.iterator](): IterableIterator<Capability> {
    return this.#byName.values();
  }
}
