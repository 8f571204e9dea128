//! The bytes of a `kvm_run` page as the decoder reads them: every offset and length is bounded here, and nowhere trusted.
//! Ruled by api.rst section 5 and by `struct kvm_run` of the newest header.

use std::mem::{offset_of, size_of};

use kvm_bindings::kvm_run;

/// Bytes of the payload union, as the header pads it.
const PAYLOAD_SIZE: usize = 256;
/// Where the bytes that a decoder may read begin: those before belong to userspace (`immediate_exit` is written by
/// other threads at any time).
pub(crate) const READABLE_FROM: usize = 8;
pub(crate) const EXIT_REASON: usize = 8;
/// What holds of the exit whatever its reason is, see `flags`; on aarch64 it says something of debug exits, see `debug`.
pub(super) const FLAGS: usize = 14;
/// The task priority, where the local APIC is not in the kernel (x86).
pub(super) const CR8: usize = 16;
pub(crate) const PAYLOAD: usize = 32;
pub(crate) const PAYLOAD_END: usize = PAYLOAD + PAYLOAD_SIZE;
const _: () = assert!(offset_of!(kvm_run, exit_reason) == EXIT_REASON);
const _: () = assert!(offset_of!(kvm_run, flags) == FLAGS);
const _: () = assert!(offset_of!(kvm_run, cr8) == CR8);
const _: () = assert!(offset_of!(kvm_run, __bindgen_anon_1) == PAYLOAD);
const _: () = assert!(offset_of!(kvm_run, kvm_valid_regs) == PAYLOAD_END);

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

    /// All of them.
    #[cfg(feature = "test-hooks")]
    pub(crate) const fn tail(self) -> &'p [u8] {
        self.tail
    }

    pub(super) fn slice(self, at: usize, len: usize) -> Option<&'p [u8]> {
        let start = at.checked_sub(READABLE_FROM)?;
        self.tail.get(start..start.checked_add(len)?)
    }

    pub(super) fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.slice(at, N)?.try_into().ok()
    }

    pub(super) fn byte(self, at: usize) -> Option<u8> {
        self.array::<1>(at).map(|[byte]| byte)
    }

    pub(super) fn half(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(super) fn word(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(super) fn long(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    /// As many longs as the array has.
    pub(super) fn longs<const N: usize>(self, at: usize) -> Option<[u64; N]> {
        let bytes = self.slice(at, N * size_of::<u64>())?;
        let mut longs = [0; N];
        for (long, bytes) in longs.iter_mut().zip(bytes.as_chunks().0) {
            *long = u64::from_le_bytes(*bytes);
        }
        Some(longs)
    }

    /// The whole payload, or as much of it as a page has that was cut short.
    pub(super) fn payload(self) -> Box<[u8]> {
        let start = PAYLOAD - READABLE_FROM;
        let end = (PAYLOAD_END - READABLE_FROM).min(self.tail.len());
        self.tail.get(start..end).unwrap_or_default().into()
    }
}
