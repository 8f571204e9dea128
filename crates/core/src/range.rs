//! Guest physical ranges: the one place where their arithmetic is checked.

use std::fmt;

use crate::error::{Error, Result};

/// Size of the smallest page KVM maps, in bytes. Slots are multiples of the host's own pages, which may be larger: see
/// `sys::limits::page_size`.
pub(crate) const PAGE_SIZE: u64 = 4096;

/// First address past what either architecture can map: guest physical addresses stop at 52 bits.
pub(crate) const GPA_END: u64 = 1 << 52;

/// A range of guest physical addresses, in bytes; never empty, never past 2^52.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GpaRange {
    gpa: u64,
    size: u64,
}

impl GpaRange {
    /// A range of `size` bytes from `gpa` on.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] where `size` is 0 or the range ends past 52 bits.
    ///
    /// ```
    /// use typevisor::GpaRange;
    /// let rom = GpaRange::new(0xfffc_0000, 0x4_0000)?;
    /// assert_eq!(rom.end(), 1 << 32);
    /// assert!(GpaRange::new(1 << 52, 1).is_err());
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub fn new(gpa: u64, size: u64) -> Result<Self> {
        match gpa.checked_add(size) {
            Some(end) if size > 0 && end <= GPA_END => Ok(Self { gpa, size }),
            _ => Err(Error::OutOfRange { gpa, size }),
        }
    }

    /// A range of whole pages of 4096 bytes, as slots want it. (Where the host's own pages are larger, as on some aarch64
    /// kernels, mapping it wants whole ones of these, and says so.)
    ///
    /// # Errors
    /// [`Error::Unaligned`], and those of [`GpaRange::new`].
    pub fn pages(gpa: u64, size: u64) -> Result<Self> {
        Self::aligned(gpa, size, PAGE_SIZE)
    }

    /// A range that begins and ends at a multiple of `alignment` bytes.
    ///
    /// # Errors
    /// Those of [`GpaRange::pages`].
    pub(crate) fn aligned(gpa: u64, size: u64, alignment: u64) -> Result<Self> {
        for (what, value) in [("gpa", gpa), ("size", size)] {
            if !value.is_multiple_of(alignment) {
                return Err(Error::Unaligned { what, value, alignment });
            }
        }
        Self::new(gpa, size)
    }

    /// First address, in bytes.
    #[must_use]
    pub const fn gpa(self) -> u64 {
        self.gpa
    }

    /// Length in bytes, at least 1.
    #[must_use]
    pub const fn size(self) -> u64 {
        self.size
    }

    /// First address after the range, in bytes.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.gpa + self.size
    }

    /// Whether `gpa` lies in the range.
    #[must_use]
    pub const fn contains(self, gpa: u64) -> bool {
        self.gpa <= gpa && gpa < self.end()
    }

    /// Whether the two share a byte.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.gpa < other.end() && other.gpa < self.end()
    }
}

impl fmt::Display for GpaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.gpa, self.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_neither_empty_nor_past_52_bits() {
        assert!(matches!(GpaRange::new(0, 0), Err(Error::OutOfRange { .. })));
        assert!(matches!(GpaRange::new(u64::MAX, 2), Err(Error::OutOfRange { .. })));
        assert!(matches!(GpaRange::new(GPA_END - 1, 2), Err(Error::OutOfRange { .. })));
        assert_eq!(GpaRange::new(GPA_END - 1, 1).unwrap().end(), GPA_END);
    }

    #[test]
    fn touching_ranges_do_not_overlap() {
        let range = |gpa, size| GpaRange::new(gpa, size).unwrap();
        assert!(!range(0, 10).overlaps(range(10, 10)));
        assert!(range(0, 11).overlaps(range(10, 10)));
        assert!(range(12, 1).overlaps(range(10, 10)));
    }

    #[test]
    fn pages_names_what_is_unaligned() {
        assert!(matches!(GpaRange::pages(1, 4096), Err(Error::Unaligned { what: "gpa", .. })));
        assert!(matches!(GpaRange::pages(0, 100), Err(Error::Unaligned { what: "size", .. })));
    }
}
