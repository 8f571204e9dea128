//! Why `KVM_RUN` returned: the bytes of the `kvm_run` page as an [`Exit`]. Pure; it owns no fd and decides nothing.
//! Ruled by api.rst section 5 ("The `kvm_run` structure"). Who handles an exit is the business of `vcpu` and `bus`.

mod decode;
mod system_event;

pub(crate) use decode::{Access, Raw, Space, decode};
pub use decode::{RunBytes, decode_exit};
pub use system_event::{Abi, Arch, SystemEvent, SystemEventPayload};

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
        /// `KVM_INTERNAL_ERROR_*`.
        suberror: u32,
        /// At most 16 words; their meaning depends on `suberror`.
        data: Box<[u64]>,
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
    },
}

impl Exit {
    /// The kind as TypeScript has it: kebab-case after the kernel's name.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::IoOut { .. } | Self::IoIn { .. } => "io",
            Self::MmioWrite { .. } | Self::MmioRead { .. } => "mmio",
            Self::Hlt => "hlt",
            Self::Intr => "intr",
            Self::Shutdown => "shutdown",
            Self::FailEntry { .. } => "fail-entry",
            Self::InternalError { .. } => "internal-error",
            Self::SystemEvent { .. } => "system-event",
            Self::RunFailed { .. } => "run-failed",
            Self::Unknown { .. } => "unknown",
        }
    }
}
