//! The filter for model-specific registers as KVM takes it (api.rst 4.97). kvm-ioctls has the request for `x86_64` alone, and
//! with bitmaps of whole bytes, where KVM copies whole words.
#![expect(unsafe_code, reason = "a request whose argument has pointers")]

use std::{mem::offset_of, os::fd::AsRawFd, ptr};

use super::ioctl::KVM_X86_SET_MSR_FILTER;
use crate::error::Result;

/// `KVM_MSR_FILTER_MAX_RANGES`.
pub(crate) const MAX_RANGES: usize = 16;
/// As many registers as have bits in `KVM_MSR_FILTER_MAX_BITMAP_SIZE` bytes.
pub(crate) const MAX_COUNT: u32 = 0x600 * 8;

const KVM_MSR_FILTER_READ: u32 = 1 << 0;
const KVM_MSR_FILTER_WRITE: u32 = 1 << 1;
const KVM_MSR_FILTER_DEFAULT_DENY: u32 = 1 << 0;

/// `struct kvm_msr_filter_range`; with `nmsrs` 0 there is none.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawRange {
    flags: u32,
    nmsrs: u32,
    base: u32,
    bitmap: *const u64,
}

/// `struct kvm_msr_filter`.
#[repr(C)]
pub(crate) struct RawFilter {
    flags: u32,
    ranges: [RawRange; MAX_RANGES],
}

const _: () = assert!(size_of::<RawRange>() == 24 && offset_of!(RawRange, bitmap) == 16);
const _: () = assert!(offset_of!(RawRange, nmsrs) == 4 && offset_of!(RawRange, base) == 8);
const _: () = assert!(size_of::<RawFilter>() == 392 && offset_of!(RawFilter, ranges) == 8);

/// Registers in a row, and which of them the filter lets through.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Range {
    base: u32,
    count: u32,
    flags: u32,
    /// A bit for each register, and zeros up to the end of the last word.
    bitmap: Box<[u64]>,
}

impl Range {
    /// `count` registers from `base` on, of which `allows` says by place which are let through.
    pub(crate) fn new(base: u32, count: u32, [read, write]: [bool; 2], allows: impl Fn(u32) -> bool) -> Self {
        let read = if read { KVM_MSR_FILTER_READ } else { 0 };
        let write = if write { KVM_MSR_FILTER_WRITE } else { 0 };
        let word = |first: u32| {
            let here = (0..64).filter(|bit| first + bit < count && allows(first + bit));
            here.fold(0, |word, bit| word | 1 << bit)
        };
        let bitmap = (0..count.div_ceil(64)).map(|index| word(index * 64)).collect();
        Self { base, count, flags: read | write, bitmap }
    }

    #[cfg(test)]
    pub(crate) fn bitmap(&self) -> &[u64] {
        &self.bitmap
    }

    fn raw(&self) -> RawRange {
        RawRange { flags: self.flags, nmsrs: self.count, base: self.base, bitmap: self.bitmap.as_ptr() }
    }
}

/// Sets the filter of a VM: at most [`MAX_RANGES`] are told, and what is in none of them is denied or let through.
///
/// # Errors
/// [`crate::Error::Ioctl`]: `EINVAL` without a range where others are denied.
pub(crate) fn set_msr_filter(vm: &impl AsRawFd, ranges: &[Range], deny_others: bool) -> Result<()> {
    let none = RawRange { flags: 0, nmsrs: 0, base: 0, bitmap: ptr::null() };
    let flags = if deny_others { KVM_MSR_FILTER_DEFAULT_DENY } else { 0 };
    let mut filter = RawFilter { flags, ranges: [none; MAX_RANGES] };
    for (raw, range) in filter.ranges.iter_mut().zip(ranges) {
        *raw = range.raw();
    }
    // SAFETY: KVM copies the filter and, behind each pointer, as many words of 64 bits as `nmsrs` bits need, which is what
    // `Range::new` made there; `ranges` outlives the call, and KVM keeps no pointer.
    unsafe { KVM_X86_SET_MSR_FILTER.call(vm, &filter) }.map(drop)
}
