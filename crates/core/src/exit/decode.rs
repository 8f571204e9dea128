//! The decoder. Its input is hostile: every length and offset in the page is bounded before it is used.

use std::mem::offset_of;

use kvm_bindings::kvm_run;

use super::{
    Exit,
    system_event::{Abi, system_event},
};
use crate::error::Errno;

/// Bytes of the payload union, as the header pads it.
const PAYLOAD_SIZE: usize = 256;
/// Where the bytes that a decoder may read begin: those before belong to userspace (`immediate_exit` is written by
/// other threads at any time).
pub(crate) const READABLE_FROM: usize = 8;
pub(crate) const EXIT_REASON: usize = 8;
pub(super) const PAYLOAD: usize = 32;
const _: () = assert!(offset_of!(kvm_run, exit_reason) == EXIT_REASON);
const _: () = assert!(offset_of!(kvm_run, __bindgen_anon_1) == PAYLOAD);
const _: () = assert!(offset_of!(kvm_run, kvm_valid_regs) == PAYLOAD + PAYLOAD_SIZE);

// struct io
const IO_DIRECTION: usize = PAYLOAD;
const IO_SIZE: usize = PAYLOAD + 1;
const IO_PORT: usize = PAYLOAD + 2;
const IO_COUNT: usize = PAYLOAD + 4;
const IO_DATA_OFFSET: usize = PAYLOAD + 8;
// struct mmio
const MMIO_GPA: usize = PAYLOAD;
const MMIO_DATA: usize = PAYLOAD + 8;
const MMIO_LEN: usize = PAYLOAD + 16;
const MMIO_IS_WRITE: usize = PAYLOAD + 20;
// struct fail_entry
const FAIL_REASON: usize = PAYLOAD;
const FAIL_CPU: usize = PAYLOAD + 8;
// struct internal, and struct emulation_failure which lies over it
const INTERNAL_SUBERROR: usize = PAYLOAD;
const INTERNAL_NDATA: usize = PAYLOAD + 4;
const INTERNAL_DATA: usize = PAYLOAD + 8;
const INTERNAL_DATA_MAX: usize = 16;
const EMULATION_INSN_SIZE: usize = PAYLOAD + 16;
const EMULATION_INSN_BYTES: usize = PAYLOAD + 17;
const EMULATION_INSN_MAX: usize = 15;

/// The `kvm_run` page (and on x86 the page of port data behind it), without its first eight bytes.
#[derive(Clone, Copy)]
pub struct RunBytes<'p> {
    tail: &'p [u8],
}

impl<'p> RunBytes<'p> {
    /// From a whole page, as a test has it.
    #[must_use]
    pub fn of_page(page: &'p [u8]) -> Self {
        Self { tail: page.get(READABLE_FROM..).unwrap_or_default() }
    }

    /// From the bytes behind the first eight.
    pub(crate) const fn of_tail(tail: &'p [u8]) -> Self {
        Self { tail }
    }

    fn slice(self, at: usize, len: usize) -> Option<&'p [u8]> {
        let start = at.checked_sub(READABLE_FROM)?;
        self.tail.get(start..start.checked_add(len)?)
    }

    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.slice(at, N)?.try_into().ok()
    }

    fn byte(self, at: usize) -> Option<u8> {
        self.array::<1>(at).map(|[byte]| byte)
    }

    pub(super) fn word(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(super) fn long(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }
}

/// Which of the two address spaces of a bus an access is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Port,
    Mmio,
}

/// A port or MMIO access, still in the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access<'p> {
    pub(crate) space: Space,
    pub(crate) write: bool,
    /// Port number or guest physical address.
    pub(crate) address: u64,
    /// Bytes an element: 1, 2, 4, and for MMIO anything up to 8.
    pub(crate) size: u8,
    /// Elements, at least 1; all of them go to the same address.
    pub(crate) count: u32,
    /// What the guest wrote; where it reads, stale.
    pub(crate) data: &'p [u8],
    /// Where in the page an answer goes.
    pub(crate) data_at: usize,
}

/// What a decoded page holds: an access that a bus may claim, or any other exit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Raw<'p> {
    Access(Access<'p>),
    Other(Exit),
}

/// Decodes the page after a `KVM_RUN` that returned 0, as a kernel of that `abi` filled it.
pub(crate) fn decode(page: RunBytes<'_>, abi: Abi) -> Raw<'_> {
    let Some(reason) = page.word(EXIT_REASON) else {
        return Raw::Other(Exit::Unknown { reason: u32::MAX, bytes: Box::default() });
    };
    let known = match reason {
        kvm_bindings::KVM_EXIT_IO => io(page).map(Raw::Access),
        kvm_bindings::KVM_EXIT_MMIO => mmio(page).map(Raw::Access),
        kvm_bindings::KVM_EXIT_HLT => Some(Raw::Other(Exit::Hlt)),
        kvm_bindings::KVM_EXIT_INTR => Some(Raw::Other(Exit::Intr)),
        kvm_bindings::KVM_EXIT_SHUTDOWN => Some(Raw::Other(Exit::Shutdown)),
        kvm_bindings::KVM_EXIT_FAIL_ENTRY => fail_entry(page).map(Raw::Other),
        kvm_bindings::KVM_EXIT_INTERNAL_ERROR => internal_error(page).map(Raw::Other),
        kvm_bindings::KVM_EXIT_SYSTEM_EVENT => system_event(page, abi)
            .map(|(event, number, payload)| Raw::Other(Exit::SystemEvent { event, r#type: number, payload })),
        _ => None,
    };
    known.unwrap_or_else(|| Raw::Other(unknown(page, reason)))
}

/// Decodes the page after `KVM_RUN`: `errno` is what it failed with, if it did (never `EINTR` or `EAGAIN`, after which
/// the page says nothing), `abi` whose kernel filled it. Never panics and never reads outside `page`, whatever the bytes are.
///
/// ```
/// use typevisor::{Exit, exit::{Abi, RunBytes, decode_exit}};
/// let mut page = [0u8; 4096];
/// page[8] = 5; // kvm_run.exit_reason = KVM_EXIT_HLT
/// assert_eq!(decode_exit(RunBytes::of_page(&page), None, Abi::newest()), Exit::Hlt);
/// ```
#[must_use]
pub fn decode_exit(page: RunBytes<'_>, errno: Option<Errno>, abi: Abi) -> Exit {
    if let Some(errno) = errno {
        return Exit::RunFailed { errno };
    }
    match decode(page, abi) {
        Raw::Access(access) => access.into(),
        Raw::Other(exit) => exit,
    }
}

impl From<Access<'_>> for Exit {
    fn from(Access { space, write, address, size, count, data, .. }: Access<'_>) -> Self {
        // The decoder reads a port from 16 bits.
        let port = u16::try_from(address).unwrap_or(u16::MAX);
        match (space, write) {
            (Space::Port, true) => Self::IoOut { port, size, count, data: data.into() },
            (Space::Port, false) => Self::IoIn { port, size, count },
            (Space::Mmio, true) => Self::MmioWrite { gpa: address, data: data.into() },
            (Space::Mmio, false) => Self::MmioRead { gpa: address, size },
        }
    }
}

fn io(page: RunBytes<'_>) -> Option<Access<'_>> {
    let write = match u32::from(page.byte(IO_DIRECTION)?) {
        kvm_bindings::KVM_EXIT_IO_IN => false,
        kvm_bindings::KVM_EXIT_IO_OUT => true,
        _ => return None,
    };
    let size = page.byte(IO_SIZE).filter(|size| matches!(size, 1 | 2 | 4))?;
    let count = page.word(IO_COUNT).filter(|count| *count > 0)?;
    let data_at = usize::try_from(page.long(IO_DATA_OFFSET)?).ok()?;
    let len = usize::from(size).checked_mul(usize::try_from(count).ok()?)?;
    let data = page.slice(data_at, len)?;
    let address = u64::from(page.array(IO_PORT).map(u16::from_le_bytes)?);
    Some(Access { space: Space::Port, write, address, size, count, data, data_at })
}

fn mmio(page: RunBytes<'_>) -> Option<Access<'_>> {
    let size = u8::try_from(page.word(MMIO_LEN)?).ok().filter(|size| (1..=8).contains(size))?;
    Some(Access {
        space: Space::Mmio,
        write: page.byte(MMIO_IS_WRITE)? != 0,
        address: page.long(MMIO_GPA)?,
        size,
        count: 1,
        data: page.slice(MMIO_DATA, usize::from(size))?,
        data_at: MMIO_DATA,
    })
}

fn fail_entry(page: RunBytes<'_>) -> Option<Exit> {
    Some(Exit::FailEntry { reason: page.long(FAIL_REASON)?, cpu: page.word(FAIL_CPU)? })
}

fn internal_error(page: RunBytes<'_>) -> Option<Exit> {
    let suberror = page.word(INTERNAL_SUBERROR)?;
    let ndata = usize::try_from(page.word(INTERNAL_NDATA)?).ok()?.min(INTERNAL_DATA_MAX);
    let data = (0..ndata).map(|i| page.long(INTERNAL_DATA + 8 * i)).collect::<Option<_>>()?;
    // The first word is a set of flags only where KVM gave words at all.
    let flags = if ndata > 0 { page.long(INTERNAL_DATA)? } else { 0 };
    let has_bytes = suberror == kvm_bindings::KVM_INTERNAL_ERROR_EMULATION
        && flags & u64::from(kvm_bindings::KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;
    let instruction = if has_bytes {
        let len = usize::from(page.byte(EMULATION_INSN_SIZE)?).min(EMULATION_INSN_MAX);
        Some(page.slice(EMULATION_INSN_BYTES, len)?.into())
    } else {
        None
    };
    Some(Exit::InternalError { suberror, data, instruction })
}

fn unknown(page: RunBytes<'_>, reason: u32) -> Exit {
    Exit::Unknown { reason, bytes: page.slice(PAYLOAD, PAYLOAD_SIZE).unwrap_or_default().into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(reason: u32, payload: &[u8]) -> Vec<u8> {
        let mut page = vec![0; 8192];
        page[EXIT_REASON..EXIT_REASON + 4].copy_from_slice(&reason.to_le_bytes());
        page[PAYLOAD..PAYLOAD + payload.len()].copy_from_slice(payload);
        page
    }

    fn exit(page: &[u8]) -> Exit {
        decode_exit(RunBytes::of_page(page), None, Abi::newest())
    }

    fn io_payload(direction: u8, size: u8, port: u16, count: u32, data_offset: u64) -> Vec<u8> {
        let mut bytes = vec![direction, size];
        bytes.extend(port.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(data_offset.to_le_bytes());
        bytes
    }

    #[test]
    fn string_output_keeps_every_element() {
        let mut page = page(kvm_bindings::KVM_EXIT_IO, &io_payload(1, 2, 0x3f8, 3, 4096));
        page[4096..4102].copy_from_slice(b"abcdef");
        assert_eq!(exit(&page), Exit::IoOut { port: 0x3f8, size: 2, count: 3, data: Box::from(*b"abcdef") });
    }

    #[test]
    fn port_input_brings_no_stale_bytes() {
        let mut page = page(kvm_bindings::KVM_EXIT_IO, &io_payload(0, 4, 0xcfc, 1, 4096));
        page[4096] = 0xaa;
        assert_eq!(exit(&page), Exit::IoIn { port: 0xcfc, size: 4, count: 1 });
    }

    #[test]
    fn port_data_outside_the_page_is_unknown_with_its_bytes() {
        for (size, count, offset) in
            [(1, 1, 8192), (4, u32::MAX, 4096), (1, 1, u64::MAX), (1, 1, 0), (3, 1, 4096), (1, 0, 4096)]
        {
            let payload = io_payload(1, size, 1, count, offset);
            let Exit::Unknown { reason: 2, bytes } = exit(&page(kvm_bindings::KVM_EXIT_IO, &payload)) else {
                panic!("size {size}, count {count}, offset {offset:#x} was believed");
            };
            assert_eq!(bytes[..16], payload[..]);
            assert_eq!(bytes.len(), PAYLOAD_SIZE);
        }
    }

    #[test]
    fn mmio_keeps_as_many_bytes_as_it_says() {
        let mut payload = 0xfee0_0000_u64.to_le_bytes().to_vec();
        payload.extend([1, 2, 3, 4, 5, 6, 7, 8]);
        payload.extend(3_u32.to_le_bytes());
        payload.push(1);
        let written = exit(&page(kvm_bindings::KVM_EXIT_MMIO, &payload));
        assert_eq!(written, Exit::MmioWrite { gpa: 0xfee0_0000, data: Box::from([1, 2, 3]) });
        payload[20] = 0;
        let read = exit(&page(kvm_bindings::KVM_EXIT_MMIO, &payload));
        assert_eq!(read, Exit::MmioRead { gpa: 0xfee0_0000, size: 3 });
        payload[16] = 9;
        assert_eq!(exit(&page(kvm_bindings::KVM_EXIT_MMIO, &payload)).kind(), "unknown");
    }

    #[test]
    fn an_emulation_failure_brings_its_instruction_bytes() {
        let mut payload = 1_u32.to_le_bytes().to_vec();
        payload.extend(4_u32.to_le_bytes());
        payload.extend(1_u64.to_le_bytes());
        payload.extend([200, 0x0f, 0x28, 0xc1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        let Exit::InternalError { suberror: 1, data, instruction } =
            exit(&page(kvm_bindings::KVM_EXIT_INTERNAL_ERROR, &payload))
        else {
            panic!("not an internal error");
        };
        assert_eq!(data.len(), 4);
        assert_eq!(*instruction.unwrap(), [0x0f, 0x28, 0xc1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    }

    #[test]
    fn an_internal_error_believes_at_most_sixteen_words() {
        let mut payload = 3_u32.to_le_bytes().to_vec();
        payload.extend(1000_u32.to_le_bytes());
        let Exit::InternalError { data, instruction: None, .. } =
            exit(&page(kvm_bindings::KVM_EXIT_INTERNAL_ERROR, &payload))
        else {
            panic!("not an internal error without bytes");
        };
        assert_eq!(data.len(), 16);
    }

    #[test]
    fn a_failed_run_says_its_errno_whatever_the_page_holds() {
        let page = page(kvm_bindings::KVM_EXIT_HLT, &[]);
        let failed = decode_exit(RunBytes::of_page(&page), Some(Errno(libc::EFAULT)), Abi::newest());
        assert_eq!(failed, Exit::RunFailed { errno: Errno(libc::EFAULT) });
    }

    proptest! {
        #[test]
        fn any_bytes_decode(reason in 0_u32..64, payload in proptest::collection::vec(any::<u8>(), 0..=256), len in 0_usize..8192) {
            let whole = page(reason, &payload);
            // Also from a page that was cut short.
            let _ = exit(&whole[..len]);
            if let Exit::IoOut { size, count, data, .. } = exit(&whole) {
                prop_assert_eq!(data.len(), usize::from(size) * count as usize);
            }
        }
    }
}
