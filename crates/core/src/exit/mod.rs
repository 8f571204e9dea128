//! Why `KVM_RUN` returned: the bytes of the `kvm_run` page as an [`Exit`]. Pure; it owns no fd and decides nothing.
//! Ruled by api.rst section 5 ("The `kvm_run` structure"). Who handles an exit is the business of `vcpu` and `bus`.

mod access;
mod arm;
mod debug;
mod decode;
mod fault;
mod flags;
mod hyperv;
mod internal;
mod kind;
mod page;
mod pending;
mod system_event;
#[cfg(test)]
mod tests;
mod x86;

pub(crate) use access::{Access, Space};
pub use debug::{Debug, DebugRegisters};
pub use decode::decode_exit;
pub(crate) use decode::{Raw, decode};
pub use fault::{FaultAccess, FaultCause, FaultKind};
pub use flags::RunFlags;
pub use hyperv::HypervExit;
pub use internal::InternalError;
pub use kind::ExitKind;
pub use page::RunBytes;
pub(crate) use page::{EXIT_REASON, READABLE_FROM};
#[cfg(feature = "test-hooks")]
pub(crate) use page::{PAYLOAD, PAYLOAD_END};
pub(crate) use pending::{Pending, Wanted};
pub use system_event::{Abi, Arch, SystemEvent, SystemEventPayload};
pub use x86::{MsrReason, XenExit};

use crate::error::Errno;

/// Why a vCPU stopped. It keeps everything the kernel said; names are the kernel's.
///
/// ```
/// use typevisor::Exit;
/// let exit = Exit::IoOut { port: 0x3f8, size: 1, count: 1, data: Box::new([0x41]) };
/// assert_eq!(exit.kind(), "io");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// `KVM_EXIT_IO`, out: the guest wrote `count` elements of `size` bytes to `port`. `data` holds all of them.
    IoOut {
        /// The I/O port.
        port: u16,
        /// Bytes an element: 1, 2 or 4.
        size: u8,
        /// Elements; more than 1 for string instructions.
        count: u32,
        /// `size * count` bytes.
        data: Box<[u8]>,
    },
    /// `KVM_EXIT_IO`, in: the guest waits for `count` elements of `size` bytes. Wants an answer.
    IoIn {
        /// The I/O port.
        port: u16,
        /// Bytes an element: 1, 2 or 4.
        size: u8,
        /// Elements; more than 1 for string instructions.
        count: u32,
    },
    /// `KVM_EXIT_MMIO`: the guest wrote to an address behind which no writable slot lies. On aarch64 by a load or store
    /// of one general register without writeback: the processor does not describe others, as [`Exit::RunFailed`] says.
    MmioWrite {
        /// Guest physical address.
        gpa: u64,
        /// 1 to 8 bytes.
        data: Box<[u8]>,
    },
    /// `KVM_EXIT_MMIO`: the guest reads from an address behind which no slot lies. Wants an answer.
    MmioRead {
        /// Guest physical address.
        gpa: u64,
        /// 1 to 8.
        size: u8,
    },
    /// `KVM_EXIT_HLT`: the guest halted, and no in-kernel interrupt controller waits for it. Not on aarch64: `WFI` sleeps in
    /// `KVM_RUN` until an interrupt or a kick.
    Hlt,
    /// The run was kicked, or `KVM_EXIT_INTR`.
    Intr,
    /// `KVM_EXIT_SHUTDOWN`: a triple fault, on x86.
    Shutdown,
    /// `KVM_EXIT_FAIL_ENTRY`: the processor refused the vCPU's state.
    FailEntry {
        /// The processor's own code, architecture-dependent.
        reason: u64,
        /// The host CPU that refused.
        cpu: u32,
    },
    /// `KVM_EXIT_INTERNAL_ERROR`: KVM gave up, as on an instruction that its emulator does not know.
    InternalError {
        /// `KVM_INTERNAL_ERROR_*`; [`InternalError::from_number`] names it.
        suberror: u32,
        /// At most 16 words; their meaning depends on `suberror`.
        data: Box<[u64]>,
        /// What of `data` is the kernel's promise, where instructions could not be emulated (suberror 1, Linux 5.14).
        flags: Option<u64>,
        /// The bytes at the failing instruction, where KVM gave them (suberror 1, Linux 5.14).
        instruction: Option<Box<[u8]>>,
    },
    /// `KVM_EXIT_SYSTEM_EVENT`: the guest asked for power-off or reset, or reported a crash.
    SystemEvent {
        /// Which of the known ones.
        event: SystemEvent,
        /// `KVM_SYSTEM_EVENT_*`, known or not.
        r#type: u32,
        /// What came with it.
        payload: SystemEventPayload,
    },
    /// `KVM_EXIT_HYPERCALL`: a call that was made an exit, on x86 by `KVM_CAP_EXIT_HYPERCALL` (Linux 5.14), on aarch64 by an
    /// SMCCC filter (6.4). On x86 it wants its result, 8 bytes; on aarch64 arguments and result are in the registers.
    Hypercall {
        /// The number of the call; on aarch64 the SMCCC function.
        nr: u64,
        /// On x86: as many as the call has, three for `KVM_HC_MAP_GPA_RANGE`. Of a number that this build does not know six, of
        /// which KVM may have left some stale.
        args: Option<Box<[u64]>>,
        /// On x86 bit 0: from 64-bit code. On aarch64 bit 0: by `SMC` and not `HVC`; bit 1: by a 16-bit instruction.
        flags: u64,
    },
    /// `KVM_EXIT_DEBUG`: a breakpoint, watchpoint or step of `KVM_SET_GUEST_DEBUG`.
    Debug(Debug),
    /// `KVM_EXIT_EXCEPTION`: an exception that the processor reported and KVM has no use for (x86).
    Exception {
        /// Its vector.
        exception: u32,
        /// Its error code.
        error_code: u32,
    },
    /// `KVM_EXIT_IRQ_WINDOW_OPEN`: the guest can take an interrupt, as `request_interrupt_window` asked (x86).
    IrqWindowOpen,
    /// `KVM_EXIT_SET_TPR`: the guest lowered its task priority, and the local APIC is not in the kernel (x86).
    SetTpr {
        /// The priority, as `CR8` has it.
        cr8: u64,
    },
    /// `KVM_EXIT_TPR_ACCESS`: the guest reached for its task priority (x86, `KVM_TPR_ACCESS_REPORTING`).
    TprAccess {
        /// The instruction's address.
        rip: u64,
        /// Whether it wrote.
        write: bool,
    },
    /// `KVM_EXIT_NMI`.
    Nmi,
    /// `KVM_EXIT_IOAPIC_EOI`: a level-triggered interrupt was ended, and the I/O APIC is not in the kernel (x86,
    /// `KVM_CAP_SPLIT_IRQCHIP`).
    IoapicEoi {
        /// The interrupt's vector.
        vector: u8,
    },
    /// `KVM_EXIT_HYPERV`: a guest of Hyper-V wants something (x86).
    Hyperv(HypervExit),
    /// `KVM_EXIT_XEN`: a Xen guest wants something (x86, `KVM_CAP_XEN_HVM`).
    Xen(XenExit),
    /// `KVM_EXIT_X86_RDMSR`: the guest reads a model-specific register (`KVM_CAP_X86_USER_SPACE_MSR`, Linux 5.10). Wants
    /// an answer of 8 bytes, or a fault.
    Rdmsr {
        /// `KVM_MSR_EXIT_REASON_*`; [`MsrReason::from_bits`] names it.
        reason: u32,
        /// The register's number.
        index: u32,
    },
    /// `KVM_EXIT_X86_WRMSR`: the guest writes one. Running on accepts that; a fault is its only answer.
    Wrmsr {
        /// `KVM_MSR_EXIT_REASON_*`; [`MsrReason::from_bits`] names it.
        reason: u32,
        /// The register's number.
        index: u32,
        /// What it writes.
        data: u64,
    },
    /// `KVM_EXIT_DIRTY_RING_FULL`: the vCPU's dirty ring has to be collected (`KVM_CAP_DIRTY_LOG_RING`, Linux 5.11).
    DirtyRingFull,
    /// `KVM_EXIT_X86_BUS_LOCK`: the guest locked the bus (`KVM_CAP_X86_BUS_LOCK_EXIT`, Linux 5.12).
    BusLock,
    /// `KVM_EXIT_AP_RESET_HOLD`: a processor of an SEV-ES guest waits to be started (x86, Linux 5.11).
    ApResetHold,
    /// `KVM_EXIT_NOTIFY`: the guest kept all events out for too long (x86, `KVM_CAP_X86_NOTIFY_VMEXIT`, Linux 6.0).
    Notify {
        /// `KVM_NOTIFY_*`.
        flags: u32,
        /// Whether the vCPU's state is lost: running on may do anything.
        context_invalid: bool,
    },
    /// `KVM_EXIT_MEMORY_FAULT`, with a `KVM_RUN` that failed: memory that KVM could not give the guest.
    MemoryFault {
        /// Guest physical address where it begins.
        gpa: u64,
        /// Bytes.
        size: u64,
        /// `KVM_MEMORY_EXIT_FLAG_*`.
        flags: u64,
        /// Which half of memory the guest meant.
        access: FaultAccess,
        /// What it was about to do, where the kernel says that (out of tree).
        rwx: Option<FaultKind>,
        /// `EFAULT` or `EHWPOISON`, positive.
        errno: Errno,
        /// Why, as far as it can be told.
        cause: FaultCause,
    },
    /// `KVM_EXIT_ARM_NISV`: the guest reached for an address without memory by an instruction that the processor does not
    /// describe (`KVM_CAP_ARM_NISV_TO_USER`). It stands at that instruction.
    ArmNisv {
        /// The valid bits of `ESR_EL2`.
        esr_iss: u64,
        /// Guest physical address.
        fault_ipa: u64,
    },
    /// `KVM_EXIT_ARM_LDST64B`: the same for a load or store of 64 bytes at once. The guest stands at it.
    ArmLdst64b {
        /// The valid bits of `ESR_EL2`.
        esr_iss: u64,
        /// Guest physical address.
        fault_ipa: u64,
    },
    /// `KVM_EXIT_ARM_SEA`: an access met a synchronous external abort that the host cannot handle
    /// (`KVM_CAP_ARM_SEA_TO_USER`, Linux 6.19).
    ArmSea {
        /// `KVM_EXIT_ARM_SEA_FLAG_*`.
        flags: u64,
        /// The valid bits of `ESR_EL2`.
        esr: u64,
        /// The guest's virtual address, where the processor knows it.
        gva: Option<u64>,
        /// Guest physical address, where the kernel knows it.
        gpa: Option<u64>,
    },
    /// `KVM_EXIT_TDX`: a TDX guest wants something. 8 bytes may answer it (`ret`), or 48 (`ret` and `data`); without, the
    /// guest gets `ret` as it is.
    Tdx {
        /// None are defined.
        flags: u64,
        /// `TDVMCALL_*`.
        nr: u64,
        /// What the guest is told unless it is answered.
        ret: u64,
        /// What came with the call; what counts of it depends on `nr`, the rest is stale.
        data: Box<[u64; 5]>,
    },
    /// `KVM_EXIT_SNP_REQ_CERTS`: an SEV-SNP guest wants the certificates of its report in its memory. Wants an answer of 8
    /// bytes, an errno or 0 (`ret`), or of 16: pages needed (`npages`), then `ret`.
    SnpReqCerts {
        /// Where the guest wants them; its word, and only known to be a multiple of 4 KiB.
        gpa: u64,
        /// How many pages it has there; its word.
        npages: u64,
    },
    /// `KVM_RUN` failed and brought no exit. `ENOSYS` on aarch64: the guest reached for an address without memory by an
    /// instruction that the processor does not describe (`ldp` and `stp`, writeback, SIMD), and does so at every run.
    RunFailed {
        /// The errno, positive.
        errno: Errno,
    },
    /// A reason this build does not know, or one whose payload makes no sense: nothing is dropped.
    Unknown {
        /// `kvm_run.exit_reason`.
        reason: u32,
        /// The 256 bytes of the payload.
        bytes: Box<[u8]>,
        /// With reason 0 (`KVM_EXIT_UNKNOWN`) the processor's own reason, which KVM does not know.
        hardware_reason: Option<u64>,
    },
}
