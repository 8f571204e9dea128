//! What has to hold of the exit decoder for any bytes. An input is a byte of settings, a byte that chooses the errno, and
//! what the page holds from its ninth byte on. The fuzzer and the replay of its corpus (crates/core/tests/corpus.rs) share it.

use typevisor::{
    Errno, Exit,
    exit::{Abi, Arch, HypervExit, RunBytes, SystemEventPayload, XenExit, decode_exit},
};

/// Bits of the first byte.
const ON_ARM: u8 = 1;
const SYSTEM_EVENT_DATA: u8 = 1 << 1;
/// The page ends where the input does, and is not filled up with stale bytes.
const CUT: u8 = 1 << 2;

/// The `kvm_run` page and the page of port data, and where in them the decoder may begin to read.
const PAGES: usize = 8192;
const READABLE_FROM: usize = 8;
const PAYLOAD: usize = 32;
const PAYLOAD_END: usize = 288;
const STALE: u8 = 0xa5;

/// Linux has 133 of them; `EINTR` (4) and `EAGAIN` (11) never reach the decoder.
const EFAULT: i32 = 14;
const EHWPOISON: i32 = 133;
const MEMORY_FAULT: u32 = 39;

/// Decodes the page that `input` describes.
///
/// # Panics
/// Where the decoder does what it must not.
pub(crate) fn check(input: &[u8]) {
    let [settings, errno, tail @ ..] = input else { return };
    let page = page(tail, settings & CUT != 0);
    let abi = Abi {
        arch: if settings & ON_ARM == 0 { Arch::X86_64 } else { Arch::Aarch64 },
        system_event_data: settings & SYSTEM_EVENT_DATA != 0,
    };
    let errno = errno_of(*errno);
    let exit = decode_exit(RunBytes::of_page(&page), errno, abi);
    assert!(!exit.kind().is_empty());
    assert_eq!(exit, decode_exit(RunBytes::of_page(&page), errno, abi), "the same bytes, the same exit");
    match errno {
        Some(errno) => check_failed(&exit, errno, &page),
        None => check_lengths(&exit, &page),
    }
}

fn page(tail: &[u8], cut: bool) -> Vec<u8> {
    let mut page = vec![STALE; READABLE_FROM];
    page.extend(tail.iter().take(PAGES - READABLE_FROM));
    if !cut {
        page.resize(PAGES, STALE);
    }
    page
}

fn errno_of(choice: u8) -> Option<Errno> {
    match choice {
        0 | 4 | 11 => None,
        1 => Some(Errno(EFAULT)),
        2 => Some(Errno(EHWPOISON)),
        other => Some(Errno(i32::from(other))),
    }
}

/// A failure keeps its errno, and is a memory fault only where errno and reason say so.
fn check_failed(exit: &Exit, failed: Errno, page: &[u8]) {
    let reason = page.get(READABLE_FROM..READABLE_FROM + 4).map(|bytes| bytes == MEMORY_FAULT.to_le_bytes());
    match exit {
        Exit::RunFailed { errno } => assert_eq!(*errno, failed),
        Exit::MemoryFault { errno, .. } => {
            assert_eq!(*errno, failed);
            assert!(matches!(failed.0, EFAULT | EHWPOISON));
            assert_eq!(reason, Some(true));
        }
        other => panic!("a failure became {other:?}"),
    }
}

/// Nothing is longer than the header lets it be, nor than the page is.
fn check_lengths(exit: &Exit, page: &[u8]) {
    match exit {
        Exit::RunFailed { .. } | Exit::MemoryFault { .. } => panic!("nothing failed, and yet {exit:?}"),
        Exit::IoOut { size, count, data, .. } => {
            assert!(matches!(size, 1 | 2 | 4) && *count > 0);
            assert_eq!(data.len(), usize::from(*size) * *count as usize);
            assert!(data.len() <= page.len() - PAYLOAD_END);
        }
        Exit::IoIn { size, count, .. } => {
            assert!(matches!(size, 1 | 2 | 4) && *count > 0);
            assert!(usize::from(*size) * *count as usize <= page.len() - PAYLOAD_END);
        }
        Exit::MmioWrite { data, .. } => assert!((1..=8).contains(&data.len())),
        Exit::MmioRead { size, .. } => assert!((1..=8).contains(size)),
        Exit::InternalError { data, instruction, .. } => {
            assert!(data.len() <= 16);
            assert!(instruction.as_ref().is_none_or(|bytes| bytes.len() <= 15));
        }
        Exit::SystemEvent { r#type, payload, .. } => {
            assert_eq!(r#type >> 31, 0);
            assert!(!matches!(payload, SystemEventPayload::Data(data) if data.len() > 16));
        }
        Exit::Unknown { bytes, .. }
        | Exit::Hyperv(HypervExit::Unknown { bytes, .. })
        | Exit::Xen(XenExit::Unknown { bytes, .. }) => check_payload(bytes, page),
        _ => {}
    }
}

/// Nothing of the payload is dropped.
fn check_payload(bytes: &[u8], page: &[u8]) {
    let end = PAYLOAD_END.min(page.len());
    assert_eq!(bytes, page.get(PAYLOAD..end).unwrap_or_default());
}
