//! Whatever the bytes are: no panic, nothing outside the page, nothing longer than the header lets it be.

use proptest::{collection::vec, prelude::*};

use super::*;

fn abi(on_arm: bool, system_event_data: bool) -> Abi {
    Abi { arch: if on_arm { Arch::Aarch64 } else { Arch::X86_64 }, system_event_data }
}

fn page(reason: u32, payload: &[u8]) -> Page {
    Page::of(reason).with(payload)
}

proptest! {
    #[test]
    fn any_bytes_decode(
        reason in 0_u32..64, payload in vec(any::<u8>(), 0..=256), len in 0_usize..8192, on_arm: bool, data: bool,
    ) {
        let (whole, abi) = (page(reason, &payload), abi(on_arm, data));
        // Also from a page that was cut short.
        let _ = decode_exit(RunBytes::of_page(&whole.bytes[..len]), None, abi);
        match whole.exit_on(abi) {
            Exit::IoOut { size, count, data, .. } => prop_assert_eq!(data.len(), usize::from(size) * count as usize),
            Exit::MmioWrite { data, .. } => prop_assert!((1..=8).contains(&data.len())),
            Exit::InternalError { data, instruction, .. } => {
                prop_assert!(data.len() <= 16);
                prop_assert!(instruction.is_none_or(|bytes| bytes.len() <= 15));
            }
            Exit::SystemEvent { payload: SystemEventPayload::Data(data), .. } => prop_assert!(data.len() <= 16),
            Exit::Unknown { bytes, .. } => prop_assert_eq!(&*bytes, &whole.bytes[32..288]),
            _ => {}
        }
    }

    #[test]
    fn an_answer_never_goes_outside_the_page_or_in_front_of_the_payload(
        reason in 0_u32..64, payload in vec(any::<u8>(), 0..=256), len in 0_usize..8192, on_arm: bool,
    ) {
        let whole = page(reason, &payload);
        let pending = match decode(RunBytes::of_page(&whole.bytes[..len]), abi(on_arm, true)) {
            Raw::Access(access) => access.pending(),
            Raw::Other(_, pending) => pending,
        };
        if let Pending::Answer(wanted) = pending {
            for place in wanted.places() {
                prop_assert!(place.start >= PAYLOAD_AT && place.end <= len && !place.is_empty(), "{:?}", place);
            }
        }
    }

    #[test]
    fn any_errno_decodes(reason: u32, errno in 1_i32..200, payload in vec(any::<u8>(), 0..=256), len in 0_usize..8192) {
        let whole = page(reason, &payload);
        for bytes in [&whole.bytes[..], &whole.bytes[..len]] {
            let exit = decode_exit(RunBytes::of_page(bytes), Some(Errno(errno)), X86);
            let Exit::RunFailed { errno: found } = exit else { panic!("{exit:?}") };
            prop_assert_eq!(found.0, errno);
        }
    }

    #[test]
    fn a_fault_that_errno_and_reason_agree_on_keeps_every_bit(flags: u64, gpa: u64, size: u64, poison: bool) {
        let errno = if poison { libc::EHWPOISON } else { libc::EFAULT };
        let exit = Page::of(39).u64(flags).u64(gpa).u64(size).failed(errno);
        let Exit::MemoryFault { gpa: a, size: s, flags: f, errno: e, .. } = exit else { panic!("{exit:?}") };
        prop_assert_eq!((a, s, f, e), (gpa, size, flags, Errno(errno)));
    }
}
