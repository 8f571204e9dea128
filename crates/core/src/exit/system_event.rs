//! `KVM_EXIT_SYSTEM_EVENT`: what the guest asked of its machine, and what of the payload may be believed. Ruled by
//! api.rst section 5 (`KVM_EXIT_SYSTEM_EVENT`) and by what kernels before 5.18 really wrote. Pure.

use std::mem::offset_of;

use kvm_bindings::kvm_run;

use super::{Exit, page::RunBytes};

const TYPE: usize = offset_of!(kvm_run, __bindgen_anon_1.system_event.type_);
const NDATA: usize = offset_of!(kvm_run, __bindgen_anon_1.system_event.ndata);
const DATA: usize = offset_of!(kvm_run, __bindgen_anon_1.system_event.__bindgen_anon_1);
/// `data[16]` in the header, whatever `ndata` says.
const DATA_MAX: usize = 16;

/// `KVM_SYSTEM_EVENT_NDATA_VALID`: release candidates of 5.18 said by this bit of `type` that `ndata` holds a number.
const NDATA_VALID: u32 = 1 << 31;

/// Declares the events once: the enum, the number and the name of each.
macro_rules! events {
    ($($variant:ident = $number:literal, $name:literal, $meaning:literal;)+) => {
        /// What the guest asked for, by `KVM_SYSTEM_EVENT_*` of the newest header.
        ///
        /// ```
        /// use typevisor::exit::SystemEvent;
        /// assert_eq!(SystemEvent::from_number(1).name(), "shutdown");
        /// assert_eq!(SystemEvent::from_number(99), SystemEvent::Unknown);
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum SystemEvent {
            $(#[doc = $meaning] $variant,)+
            /// One that this build does not know; the exit has its number.
            Unknown,
        }

        impl SystemEvent {
            /// The event of that number in the kernel's header.
            #[must_use]
            pub const fn from_number(number: u32) -> Self {
                match number {
                    $($number => Self::$variant,)+
                    _ => Self::Unknown,
                }
            }

            /// The name in the header without `KVM_SYSTEM_EVENT_`, in kebab-case; `unknown`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                    Self::Unknown => "unknown",
                }
            }
        }
    };
}

events! {
    Shutdown = 1, "shutdown", "Power off: PSCI `SYSTEM_OFF` (Arm).";
    Reset = 2, "reset", "Start anew: PSCI `SYSTEM_RESET` and `SYSTEM_RESET2` (Arm), the Hyper-V reset MSR (x86).";
    Crash = 3, "crash", "The guest reports that it crashed: the Hyper-V crash MSRs (x86).";
    Wakeup = 4, "wakeup", "A suspended vCPU has a reason to wake (Arm, `KVM_MP_STATE_SUSPENDED`).";
    Suspend = 5, "suspend", "PSCI `SYSTEM_SUSPEND` (Arm).";
    SevTerm = 6, "sev-term", "An AMD SEV guest asked to be ended; `data` has its GHCB value (x86).";
    TdxFatal = 7, "tdx-fatal", "An Intel TDX guest met a fatal error; `data` has its registers (x86).";
}

/// What comes with a system event: as much as that kernel wrote, never the stale bytes behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemEventPayload {
    /// `ndata` words of `data`, at most 16 (`KVM_CAP_SYSTEM_EVENT_DATA`). On x86 the Hyper-V events have none.
    Data(Box<[u64]>),
    /// The one word that aarch64 wrote before Linux 5.18.
    Flags(u64),
    /// x86 before Linux 5.18 wrote nothing but the type.
    None,
}

/// Whose rules the bytes follow: the processor's, and what the kernel said that it fills in.
///
/// ```
/// use typevisor::exit::{Abi, Arch};
/// let old = Abi { arch: Arch::Aarch64, system_event_data: false }; // Linux 5.10 on Arm
/// assert_ne!(old, Abi::newest());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Abi {
    /// The architecture that filled the page.
    pub arch: Arch,
    /// `KVM_CAP_SYSTEM_EVENT_DATA`, as the VM's fd answers.
    pub system_event_data: bool,
}

impl Abi {
    /// A kernel of this machine's architecture that has everything.
    #[must_use]
    pub const fn newest() -> Self {
        Self { arch: Arch::HOST, system_event_data: true }
    }
}

/// An architecture that Typevisor runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// Intel and AMD.
    X86_64,
    /// Arm.
    Aarch64,
}

impl Arch {
    /// That of this build.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };
}

/// None where the page was cut short.
pub(super) fn system_event(page: RunBytes<'_>, abi: Abi) -> Option<Exit> {
    let raw = page.word(TYPE)?;
    let number = raw & !NDATA_VALID;
    let payload = if abi.system_event_data || raw & NDATA_VALID != 0 {
        let count = usize::try_from(page.word(NDATA)?).unwrap_or(DATA_MAX).min(DATA_MAX);
        SystemEventPayload::Data(page.longs::<DATA_MAX>(DATA)?.get(..count)?.into())
    } else if abi.arch == Arch::Aarch64 {
        SystemEventPayload::Flags(page.long(DATA)?)
    } else {
        SystemEventPayload::None
    };
    Some(Exit::SystemEvent { event: SystemEvent::from_number(number), r#type: number, payload })
}

#[cfg(test)]
#[path = "system_event_tests.rs"]
mod tests;
