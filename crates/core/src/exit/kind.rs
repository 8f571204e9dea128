//! The kinds of exits: one table, of which a new exit that is forgotten here does not compile.

use super::Exit;

/// Declares every kind once: the enum, the list of all, the names, and which exits are of it.
macro_rules! kinds {
    ($($kind:ident = $name:literal: $($exit:ident)|+;)+) => {
        /// The kind of an [`Exit`], by which exits are counted.
        ///
        /// ```
        /// use typevisor::{Exit, exit::ExitKind};
        /// assert_eq!(Exit::Hlt.exit_kind(), ExitKind::Hlt);
        /// assert_eq!(ExitKind::SystemEvent.name(), "system-event");
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ExitKind {
            $(#[doc = concat!("`", $name, "`.")] $kind,)+
        }

        impl ExitKind {
            /// Every kind, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// The kind as TypeScript has it: kebab-case after the kernel's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }
        }

        impl Exit {
            /// Which kind of exit it is.
            #[must_use]
            pub const fn exit_kind(&self) -> ExitKind {
                match self {
                    $($(Self::$exit { .. })|+ => ExitKind::$kind,)+
                }
            }
        }
    };
}

kinds! {
    Io = "io": IoOut | IoIn;
    Mmio = "mmio": MmioWrite | MmioRead;
    Hlt = "hlt": Hlt;
    Intr = "intr": Intr;
    Shutdown = "shutdown": Shutdown;
    FailEntry = "fail-entry": FailEntry;
    InternalError = "internal-error": InternalError;
    SystemEvent = "system-event": SystemEvent;
    Hypercall = "hypercall": Hypercall;
    Debug = "debug": Debug;
    Exception = "exception": Exception;
    IrqWindowOpen = "irq-window-open": IrqWindowOpen;
    SetTpr = "set-tpr": SetTpr;
    TprAccess = "tpr-access": TprAccess;
    Nmi = "nmi": Nmi;
    IoapicEoi = "ioapic-eoi": IoapicEoi;
    Hyperv = "hyperv": Hyperv;
    Xen = "xen": Xen;
    Rdmsr = "rdmsr": Rdmsr;
    Wrmsr = "wrmsr": Wrmsr;
    DirtyRingFull = "dirty-ring-full": DirtyRingFull;
    BusLock = "bus-lock": BusLock;
    ApResetHold = "ap-reset-hold": ApResetHold;
    Notify = "notify": Notify;
    MemoryFault = "memory-fault": MemoryFault;
    ArmNisv = "arm-nisv": ArmNisv;
    ArmLdst64b = "arm-ldst64b": ArmLdst64b;
    ArmSea = "arm-sea": ArmSea;
    Tdx = "tdx": Tdx;
    SnpReqCerts = "snp-req-certs": SnpReqCerts;
    RunFailed = "run-failed": RunFailed;
    Unknown = "unknown": Unknown;
}

impl Exit {
    /// The kind as TypeScript has it: kebab-case after the kernel's name.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.exit_kind().name()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_its_place_and_a_name_of_its_own() {
        for (index, kind) in ExitKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index);
        }
        let names: BTreeSet<_> = ExitKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), ExitKind::ALL.len());
    }
}
