/** Exits that only x86_64 has. */

/** An exception that the processor reported and KVM has no use for: its vector and error code. (linux/kvm.h, `KVM_EXIT_EXCEPTION`) */
export interface ExceptionExit {
  readonly kind: 'exception';
  readonly exception: number;
  readonly errorCode: number;
}

/** The guest can take an interrupt now, as `request_interrupt_window` asked to be told. (api.rst section 5) */
export interface IrqWindowOpenExit {
  readonly kind: 'irq-window-open';
}

/**
 * The guest lowered its task priority, and its local APIC is not in the kernel (`Vm.create({ irqchip: false })`, the
 * default). `cr8` is the priority now. (linux/kvm.h, `KVM_EXIT_SET_TPR`)
 *
 * @example
 * using vm = Vm.create();
 * vm.memory.map({ gpa: 0x1000, size: 4 * KiB });
 * // mov eax, 5; mov cr8, rax; mov al, 2; mov cr8, rax; hlt
 * const code = [0xb8, 5, 0, 0, 0, 0x44, 0x0f, 0x22, 0xc0, 0xb0, 2, 0x44, 0x0f, 0x22, 0xc0, 0xf4];
 * vm.memory.write(0x1000, Uint8Array.from(code));
 * const vcpu = vm.createVcpu();
 * vcpu.boot({ mode: 'long', privilege: 'kernel', entry: 0x1000 });
 * const exit = await vcpu.run(); // { kind: 'set-tpr', cr8: 2n }, or { kind: 'hlt' } of a KVM that interprets the guest
 */
export interface SetTprExit {
  readonly kind: 'set-tpr';
  readonly cr8: bigint;
}

/**
 * The guest reached for its task priority register, by the instruction at `rip` (`KVM_TPR_ACCESS_REPORTING`, capability
 * `vapic`). (api.rst section 5, `KVM_EXIT_TPR_ACCESS`)
 */
export interface TprAccessExit {
  readonly kind: 'tpr-access';
  readonly rip: bigint;
  readonly write: boolean;
}

/** A non-maskable interrupt. In the kernel's header, but no KVM of x86_64 or aarch64 gives it today. */
export interface NmiExit {
  readonly kind: 'nmi';
}

/**
 * The guest ended a level-triggered interrupt of this vector, and the I/O APIC is the program's (capability
 * `split-irqchip`). (api.rst section 5, `KVM_EXIT_IOAPIC_EOI`)
 */
export interface IoapicEoiExit {
  readonly kind: 'ioapic-eoi';
  readonly vector: number;
}

/**
 * A guest of Hyper-V wants something that KVM leaves to the program. (api.rst section 5, `KVM_EXIT_HYPERV`)
 *
 * - `'synic'`: it changed the set-up of its synthetic interrupt controller (`createVcpu({ hyperv: { synic: true } })`,
 *   capability `hyperv-synic2`), by writing the register `msr`. The rest is what the registers hold: `SCONTROL`, `SIEFP`, `SIMP`. Wants no answer.
 * - `'hcall'`: a hypercall, as of a message where there is such a controller. `input` is its control word, `params` say where input and output lie. Wants the result as its
 *   answer, 8 bytes.
 * - `'syndbg'`: a command to the synthetic debugger, or another page for it (Linux 5.8). Wants a status as its answer, 8
 *   bytes, of which the kernel takes notice after a command.
 * - `'unknown'`: newer than this version of Typevisor; `number` is the kernel's type, `bytes` its part of the exit page.
 *
 * Everything but `msr` is the guest's word.
 */
export type HypervExit =
  | {
      readonly kind: 'hyperv';
      readonly type: 'synic';
      readonly msr: number;
      readonly control: bigint;
      readonly evtPage: bigint;
      readonly msgPage: bigint;
    }
  | { readonly kind: 'hyperv'; readonly type: 'hcall'; readonly input: bigint; readonly params: readonly bigint[] }
  | {
      readonly kind: 'hyperv';
      readonly type: 'syndbg';
      readonly msr: number;
      readonly control: bigint;
      readonly sendPage: bigint;
      readonly recvPage: bigint;
      readonly pendingPage: bigint;
    }
  | { readonly kind: 'hyperv'; readonly type: 'unknown'; readonly number: number; readonly bytes: Uint8Array };

/**
 * A Xen guest wants something (`Vm.create({ exits: { xen } })`, capability `xen-hvm`). (api.rst section 5, `KVM_EXIT_XEN`)
 *
 * - `'hcall'`: the hypercall `input` with six `params`, from 64-bit code (`longmode`) or not, at privilege level `cpl`.
 *   Wants the result as its answer, 8 bytes.
 * - `'unknown'`: newer than this version of Typevisor; `number` is the kernel's type, `bytes` its part of the exit page.
 */
export type XenExit =
  | {
      readonly kind: 'xen';
      readonly type: 'hcall';
      readonly longmode: boolean;
      readonly cpl: number;
      readonly input: bigint;
      readonly params: readonly bigint[];
    }
  | { readonly kind: 'xen'; readonly type: 'unknown'; readonly number: number; readonly bytes: Uint8Array };

/** Names of the kernel's header (`KVM_MSR_EXIT_REASON_*`), in kebab-case. */
export const MSR_REASONS = ['inval', 'unknown', 'filter'] as const;

/**
 * Why an access to a model-specific register came as an exit: an invalid value, a register that KVM does not know, or a
 * filter. `'other'`: a reason that this version of Typevisor does not know.
 */
export type MsrReason = (typeof MSR_REASONS)[number] | 'other';

/**
 * The guest reads a model-specific register, and `KVM_CAP_X86_USER_SPACE_MSR` (Linux 5.10) hands that to the program.
 * `index` is the register, `reasonBits` what `reason` names. Wants the value as its answer, 8 bytes, or `'fault'`, which
 * gives the guest a general-protection fault. (api.rst section 5, `KVM_EXIT_X86_RDMSR`)
 */
export interface RdmsrExit {
  readonly kind: 'rdmsr';
  readonly reason: MsrReason;
  readonly reasonBits: number;
  readonly index: number;
}

/**
 * The guest writes `data` to a model-specific register. Wants no answer: running on accepts the write. `'fault'` may be one,
 * and gives the guest a general-protection fault. (api.rst section 5, `KVM_EXIT_X86_WRMSR`)
 */
export interface WrmsrExit {
  readonly kind: 'wrmsr';
  readonly reason: MsrReason;
  readonly reasonBits: number;
  readonly index: number;
  readonly data: bigint;
}

/** The guest locked the bus (capability `x86-bus-lock-exit`, Linux 5.12; api.rst section 7). */
export interface BusLockExit {
  readonly kind: 'bus-lock';
}

/** A processor of an AMD SEV-ES guest waits to be started (Linux 5.11; linux/kvm.h, `KVM_EXIT_AP_RESET_HOLD`). */
export interface ApResetHoldExit {
  readonly kind: 'ap-reset-hold';
}

/**
 * The guest kept all events out for too long (capability `x86-notify-vmexit`, Linux 6.0). With `contextInvalid` (bit 0 of
 * `flags`) the vCPU's state is lost, and running on may do anything. (api.rst section 5, `KVM_EXIT_NOTIFY`)
 */
export interface NotifyExit {
  readonly kind: 'notify';
  readonly flags: number;
  readonly contextInvalid: boolean;
}

/**
 * An Intel TDX guest made the call `nr` (`TDVMCALL_*`). What of the five words of `data` counts depends on it; the rest is
 * stale. Without an answer the guest is told `ret`. An answer of 8 bytes is another `ret`; one of 48 is `ret` and `data`, for
 * calls that want values. (api.rst section 5, `KVM_EXIT_TDX`)
 */
export interface TdxExit {
  readonly kind: 'tdx';
  readonly flags: bigint;
  readonly nr: bigint;
  readonly ret: bigint;
  readonly data: readonly bigint[];
}

/**
 * An AMD SEV-SNP guest wants the certificates of its attestation report in `npages` pages from `gpa` on; both are the guest's
 * word, and only known to be aligned. Wants an answer of 8 bytes: 0, or the number of an errno that api.rst names. One of 16
 * bytes says how many pages are needed, then the errno. (api.rst section 5, `KVM_EXIT_SNP_REQ_CERTS`)
 */
export interface SnpReqCertsExit {
  readonly kind: 'snp-req-certs';
  readonly gpa: bigint;
  readonly npages: bigint;
}
