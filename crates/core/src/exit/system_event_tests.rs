use proptest::prelude::*;

use super::*;
use crate::exit::{decode_exit, page::EXIT_REASON};

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
    for ndata in [16, 17, 1000, u32::MAX] {
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
    let expected = ["unknown", "shutdown", "reset", "crash", "wakeup", "suspend", "sev-term", "tdx-fatal", "unknown"];
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
