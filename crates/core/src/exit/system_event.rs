//! `KVM_EXIT_SYSTEM_EVENT`: what the guest asked of its machine, and what of the payload may be believed. Ruled by
//! api.rst section 5 (`KVM_EXIT_SYSTEM_EVENT`) and by what kernels before 5.18 really wrote. Pure.

use std::mem::size_of;

use super::decode::{PAYLOAD, RunBytes};

// struct system_event
const TYPE: usize = PAYLOAD;
const NDATA: usize = PAYLOAD + 4;
const DATA: usize = PAYLOAD + 8;
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

/// Event, number and payload; none where the page was cut short.
pub(super) fn system_event(page: RunBytes<'_>, abi: Abi) -> Option<(SystemEvent, u32, SystemEventPayload)> {
    let raw = page.word(TYPE)?;
    let number = raw & !NDATA_VALID;
    let payload = if abi.system_event_data || raw & NDATA_VALID != 0 {
        let count = usize::try_from(page.word(NDATA)?).unwrap_or(DATA_MAX).min(DATA_MAX);
        let words = (0..count).map(|index| page.long(DATA + index * size_of::<u64>()));
        SystemEventPayload::Data(words.collect::<Option<_>>()?)
    } else if abi.arch == Arch::Aarch64 {
        SystemEventPayload::Flags(page.long(DATA)?)
    } else {
        SystemEventPayload::None
    };
    Some((SystemEvent::from_number(number), number, payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exit::{Exit, decode::EXIT_REASON, decode_exit};

    /// A page in which everything behind the first four bytes of the payload that is not given is stale.
    fn decoded(number: u32, ndata: u32, data: &[u64], abi: Abi) -> Exit {
        let mut page = vec![0xa5; 4096];
        page[EXIT_REASON..EXIT_REASON + 4].copy_from_slice(&kvm_bindings::KVM_EXIT_SYSTEM_EVENT.to_le_bytes());
        page[TYPE..TYPE + 4].copy_from_slice(&number.to_le_bytes());
        page[NDATA..NDATA + 4].copy_from_slice(&ndata.to_le_bytes());
        for (index, word) in data.iter().enumerate() {
            page[DATA + 8 * index..DATA + 8 * index + 8].copy_from_slice(&word.to_le_bytes());
        }
        decode_exit(RunBytes::of_page(&page), None, abi)
    }

    const fn abi(arch: Arch, system_event_data: bool) -> Abi {
        Abi { arch, system_event_data }
    }

    fn exit(event: SystemEvent, number: u32, payload: SystemEventPayload) -> Exit {
        Exit::SystemEvent { event, r#type: number, payload }
    }

    const STALE: u64 = 0xa5a5_a5a5_a5a5_a5a5;

    #[test]
    fn with_the_capability_ndata_counts_the_words() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let two = SystemEventPayload::Data(Box::new([1, u64::MAX]));
            assert_eq!(decoded(2, 2, &[1, u64::MAX], abi(arch, true)), exit(SystemEvent::Reset, 2, two));
            let none = SystemEventPayload::Data(Box::new([]));
            assert_eq!(decoded(3, 0, &[], abi(arch, true)), exit(SystemEvent::Crash, 3, none));
        }
    }

    #[test]
    fn an_impossible_ndata_is_sixteen() {
        for ndata in [16, 17, u32::MAX] {
            let words = SystemEventPayload::Data(Box::new([STALE; 16]));
            let shutdown = exit(SystemEvent::Shutdown, 1, words);
            assert_eq!(decoded(1, ndata, &[], abi(Arch::X86_64, true)), shutdown, "{ndata}");
        }
    }

    #[test]
    fn before_the_capability_aarch64_wrote_flags_and_x86_nothing() {
        let flags = exit(SystemEvent::Reset, 2, SystemEventPayload::Flags(1));
        assert_eq!(decoded(2, 0xffff, &[1], abi(Arch::Aarch64, false)), flags);
        let nothing = exit(SystemEvent::Crash, 3, SystemEventPayload::None);
        assert_eq!(decoded(3, 1, &[7], abi(Arch::X86_64, false)), nothing);
    }

    #[test]
    fn bit_31_of_the_type_says_that_ndata_is_valid_whatever_the_capability_says() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            for capability in [false, true] {
                let one = SystemEventPayload::Data(Box::new([9]));
                let shutdown = exit(SystemEvent::Shutdown, 1, one);
                assert_eq!(decoded(NDATA_VALID | 1, 1, &[9], abi(arch, capability)), shutdown);
            }
        }
    }

    #[test]
    fn every_event_of_the_header_has_its_name_and_others_keep_their_number() {
        let names: Vec<_> = (0..9).map(|number| SystemEvent::from_number(number).name()).collect();
        let expected =
            ["unknown", "shutdown", "reset", "crash", "wakeup", "suspend", "sev-term", "tdx-fatal", "unknown"];
        assert_eq!(names, expected);
        let payload = SystemEventPayload::Data(Box::new([]));
        assert_eq!(decoded(0x99, 0, &[], Abi::newest()), exit(SystemEvent::Unknown, 0x99, payload));
    }

    #[test]
    fn a_page_cut_short_is_unknown() {
        let mut page = vec![0; NDATA + 4];
        page[EXIT_REASON] = 24;
        page[NDATA] = 1;
        assert_eq!(decode_exit(RunBytes::of_page(&page), None, Abi::newest()).kind(), "unknown");
    }

    proptest! {
        #[test]
        fn no_word_comes_that_the_kernel_did_not_announce(
            number: u32, ndata: u32, data in proptest::collection::vec(any::<u64>(), 16), on_arm: bool, capability: bool,
        ) {
            let arch = if on_arm { Arch::Aarch64 } else { Arch::X86_64 };
            let Exit::SystemEvent { r#type, payload, event } = decoded(number, ndata, &data, abi(arch, capability)) else {
                panic!("another exit");
            };
            prop_assert_eq!(r#type, number & 0x7fff_ffff);
            prop_assert_eq!(event, SystemEvent::from_number(r#type));
            let announced = capability || number >> 31 == 1;
            let expected = match (announced, on_arm) {
                (true, _) => SystemEventPayload::Data(data[..(ndata as usize).min(16)].into()),
                (false, true) => SystemEventPayload::Flags(data[0]),
                (false, false) => SystemEventPayload::None,
            };
            prop_assert_eq!(payload, expected);
        }
    }
}
