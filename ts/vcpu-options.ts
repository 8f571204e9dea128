/** What a vCPU is made with. What this machine has of it is the core's to say. */

import { boolean, integer, invalid, options, someOf, string } from './check.ts';
import { type CpuidEntry, cpuidRequest } from './cpuid.ts';
import type { NativeVcpuOptions } from './native-vcpu.ts';

/** How to make a vCPU. */
export interface VcpuOptions {
  /** Its id, never used before in this VM. Default: the lowest such. */
  readonly id?: number | undefined;
  /**
   * What an aarch64 vCPU is made with: exactly these. On x86_64 there are none to choose (`ERR_INVALID_ARGUMENT`).
   * All vCPUs of a VM have the same but for `'power-off'`, as newer kernels demand it. Default: those of the VM's first
   * vCPU, for that one `['psci-0.2']`.
   */
  readonly features?: readonly VcpuFeature[] | undefined;
  /**
   * What an x86_64 vCPU answers to CPUID: these and no others, but that the APIC ids in them (leaves 1, 0xb, 0x1f and
   * 0x8000_001e) are made its own. At most 256 entries (80 on Linux 5.10), of which no two answer the same. KVM takes them for what
   * the vCPU can do, also where the processor cannot: begin with `kvm.supportedCpuid`. On aarch64 there is none to choose
   * (`ERR_INVALID_ARGUMENT`). Default: what KVM supports. (`KVM_SET_CPUID2`, api.rst 4.20 and 4.46)
   */
  readonly cpuid?: readonly CpuidEntry[] | undefined;
  /** What an x86_64 vCPU has for guests of Hyper-V beyond the leaves of `cpuid`. Default: nothing. */
  readonly hyperv?: HypervOptions | undefined;
  /**
   * The processors that its own thread may run on, by the kernel's numbers: at least one, and none that this process may not
   * use. Default: those of this thread. Has no effect on `runSync`, which runs the guest on the thread that calls it.
   */
  readonly affinity?: readonly number[] | undefined;
  /**
   * What its own thread is called, as `top -H` and `/proc/self/task` show it: 1 to 15 bytes of UTF-8, without NUL. The thread
   * is there from the vCPU's first `run`, `exits`, `serve` or `settle` on. Default: `kvm-vcpu` and the id.
   */
  readonly name?: string | undefined;
}

/** What a vCPU has for guests of Hyper-V. */
export interface HypervOptions {
  /**
   * The synthetic interrupt controller. What the guest does to set it up is a `hyperv` exit of type `'synic'`; its messages and
   * events are hypercalls, exits of type `'hcall'`. Capability `hyperv-synic2` (x86_64; api.rst 6.77), in a VM with `irqchip`.
   * Default `false`.
   */
  readonly synic?: boolean | undefined;
}

/** Features of an aarch64 vCPU, after `KVM_ARM_VCPU_*` of the kernel's header (api.rst 4.82). */
const FEATURES = ['psci-0.2', 'pmu-v3', 'sve', 'pointer-auth', 'el1-32bit', 'power-off'] as const;

/**
 * A feature of an aarch64 vCPU. Every kernel from 5.10 on, the oldest that Typevisor is tested with, knows them all;
 * whether the processor has one says its capability.
 *
 * - `'psci-0.2'`: power-off and reset are `system-event` exits. Without it they bring no exit at all. Needs
 *   `arm-psci-0-2`.
 * - `'pmu-v3'`: a performance monitor. Needs `arm-pmu-v3`.
 * - `'sve'`: the Scalable Vector Extension, with every vector length that KVM has here. Vectors have 128 bits until the
 *   guest raises `ZCR_EL1`, which starts as 0. Needs `arm-sve`.
 * - `'pointer-auth'`: authentication of addresses and generic; off until the guest sets `EnIA` and its like in
 *   `SCTLR_EL1`. Needs `arm-ptrauth-address` and `arm-ptrauth-generic`.
 * - `'el1-32bit'`: EL1 runs in 32-bit state. Needs `arm-el1-32bit`; not together with the two before it.
 * - `'power-off'`: it waits until another vCPU starts it by PSCI `CPU_ON`, or until `vcpu.boot`. Needs nothing.
 */
export type VcpuFeature = (typeof FEATURES)[number];

/** Ids are 32 bits wide in KVM; how many there are says the capability `max-vcpu-id`. */
const VCPU_ID_MAX = 2 ** 31 - 1;

/** The highest number of a processor: 8,192 are what the largest kernel is configured for. */
const CPU_MAX = 8191;

const FIELDS = ['id', 'features', 'cpuid', 'hyperv', 'affinity', 'name'];

/** What the addon is asked for. */
export function vcpuRequest(how: VcpuOptions | undefined): NativeVcpuOptions {
  const { id, features, cpuid, hyperv, affinity, name } = options<VcpuOptions>(how, 'createVcpu options', FIELDS);
  const { synic = false } = options<HypervOptions>(hyperv, 'hyperv', ['synic']);
  return {
    id: id === undefined ? null : integer(id, 'id', 0, VCPU_ID_MAX),
    features: features === undefined ? null : someOf(features, 'features', FEATURES),
    cpuid: cpuid === undefined ? null : cpuidRequest(cpuid),
    hypervSynic: boolean(synic, 'hyperv.synic'),
    affinity: affinity === undefined ? null : cpuList(affinity),
    name: name === undefined ? null : string(name, 'name'),
  };
}

function cpuList(value: unknown): number[] {
  if (!Array.isArray(value) || value.length === 0) throw invalid('affinity', 'an array of at least one CPU', value);
  return Array.from(value, (cpu: unknown, index) => integer(cpu, `affinity[${index}]`, 0, CPU_MAX));
}
