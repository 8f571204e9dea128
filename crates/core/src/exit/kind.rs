//! The name of an exit.

use super::Exit;

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
            Self::Hypercall { .. } => "hypercall",
            Self::Debug(_) => "debug",
            Self::Exception { .. } => "exception",
            Self::IrqWindowOpen => "irq-window-open",
            Self::SetTpr { .. } => "set-tpr",
            Self::TprAccess { .. } => "tpr-access",
            Self::Nmi => "nmi",
            Self::IoapicEoi { .. } => "ioapic-eoi",
            Self::Hyperv(_) => "hyperv",
            Self::Xen(_) => "xen",
            Self::Rdmsr { .. } => "rdmsr",
            Self::Wrmsr { .. } => "wrmsr",
            Self::DirtyRingFull => "dirty-ring-full",
            Self::BusLock => "bus-lock",
            Self::ApResetHold => "ap-reset-hold",
            Self::Notify { .. } => "notify",
            Self::MemoryFault { .. } => "memory-fault",
            Self::ArmNisv { .. } => "arm-nisv",
            Self::ArmLdst64b { .. } => "arm-ldst64b",
            Self::ArmSea { .. } => "arm-sea",
            Self::Tdx { .. } => "tdx",
            Self::SnpReqCerts { .. } => "snp-req-certs",
            Self::RunFailed { .. } => "run-failed",
            Self::Unknown { .. } => "unknown",
        }
    }
}
