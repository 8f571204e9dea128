//! What can be chosen by name among hypercalls and disabled exits.

use kvm_bindings::{
    KVM_X86_DISABLE_EXITS_CSTATE, KVM_X86_DISABLE_EXITS_HLT, KVM_X86_DISABLE_EXITS_MWAIT, KVM_X86_DISABLE_EXITS_PAUSE,
};

use super::Part;
use crate::host::Capability;

/// Declares the bits of a capability once: the enum, each name with its bit, and the first kernel that has it.
macro_rules! parts {
    ($(#[$about:meta])* $type:ident of $capability:ident, $option:literal {
        $($(#[$meaning:meta])* $variant:ident, $name:literal, $bit:expr, $since:expr;)+
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $type {
            $($(#[$meaning])* $variant,)+
        }

        impl $type {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in kebab-case, after the kernel's header.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The one called `name`.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|part| part.name() == name)
            }
        }

        impl Part for $type {
            const CAPABILITY: Capability = Capability::$capability;

            fn bit(self) -> u32 {
                match self {
                    $(Self::$variant => $bit,)+
                }
            }

            fn needed_by(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("'", $name, "' in the VM option exits.", $option),)+
                }
            }

            fn since(self) -> &'static str {
                match self {
                    $(Self::$variant => $since,)+
                }
            }
        }
    };
}

/// `linux/kvm_para.h`; kvm-bindings lacks it.
const KVM_HC_MAP_GPA_RANGE: u32 = 12;
/// `linux/kvm.h`; kvm-bindings lacks it.
const KVM_X86_DISABLE_EXITS_APERFMPERF: u32 = 1 << 4;

parts! {
    /// A hypercall of KVM's own (`KVM_HC_*`) that can come as an exit.
    ///
    /// ```
    /// use typevisor::switches::ExitingHypercall;
    /// assert_eq!(ExitingHypercall::from_name("map-gpa-range"), Some(ExitingHypercall::MapGpaRange));
    /// ```
    ExitingHypercall of ExitHypercall, "hypercalls" {
        /// `KVM_HC_MAP_GPA_RANGE`, number 12: the guest wants memory to be private or shared. Its arguments are the guest
        /// physical address, pages of 4 KiB, and attributes.
        MapGpaRange, "map-gpa-range", 1 << KVM_HC_MAP_GPA_RANGE, "5.14";
    }
}

parts! {
    /// What a guest can be let to do alone.
    ///
    /// ```
    /// use typevisor::switches::DisabledExit;
    /// assert_eq!(DisabledExit::from_name("hlt"), Some(DisabledExit::Hlt));
    /// ```
    DisabledExit of X86DisableExits, "disable" {
        /// `MONITOR` and `MWAIT`.
        Mwait, "mwait", KVM_X86_DISABLE_EXITS_MWAIT, "5.10 or earlier";
        /// `HLT`: there is no [`Exit::Hlt`](crate::Exit::Hlt) any more; the processor waits in the guest.
        Hlt, "hlt", KVM_X86_DISABLE_EXITS_HLT, "5.10 or earlier";
        /// `PAUSE`: a guest that spins is not told to make room for others.
        Pause, "pause", KVM_X86_DISABLE_EXITS_PAUSE, "5.10 or earlier";
        /// Reading how long the processor has slept (Intel, `MSR_CORE_C*_RESIDENCY`).
        Cstate, "cstate", KVM_X86_DISABLE_EXITS_CSTATE, "5.10 or earlier";
        /// Reading `IA32_APERF` and `IA32_MPERF`, the host processor's own.
        Aperfmperf, "aperfmperf", KVM_X86_DISABLE_EXITS_APERFMPERF, "6.17";
    }
}
