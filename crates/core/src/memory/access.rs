//! Host access to guest memory: finds the slots of an access, and reaches the memory of each as its kind demands, by
//! loads and stores (`copy`) or by system call (`sys::remote`).

use super::{
    backing::{Backed, Reach},
    copy::GuestBytes,
    guest_memory::GuestMemory,
};
use crate::{
    error::{Error, Result},
    range::GpaRange,
    sys::{
        mapping::Mapping,
        remote::{self, Fault},
    },
};

impl GuestMemory {
    /// Copies guest memory from `gpa` on to `target`. An empty `target` is fine wherever `gpa` is.
    ///
    /// # Errors
    /// [`Error::MemoryHole`] with the first address that no slot covers (nothing was copied), [`Error::HostAccess`] where
    /// memory that is reached by system call is gone (`target` holds nothing to rely on then), [`Error::Os`] where every
    /// such call is forbidden to this process, [`Error::OutOfRange`], [`Error::Closed`], [`Error::Poisoned`],
    /// [`Error::Forked`].
    pub fn read(&self, gpa: u64, target: &mut [u8]) -> Result<()> {
        let mut left = target;
        self.access(gpa, left.len() as u64, |part| {
            let (bytes, rest) = std::mem::take(&mut left).split_at_mut_checked(part.size()).unwrap_or_default();
            left = rest;
            part.read(bytes)
        })
    }

    /// Copies `bytes` to guest memory from `gpa` on. The host may write read-only slots: that is how a ROM gets its
    /// content. Empty `bytes` are fine wherever `gpa` is.
    ///
    /// # Errors
    /// Those of [`GuestMemory::read`]; with [`Error::HostAccess`] what comes before the address in it may be written.
    pub fn write(&self, gpa: u64, bytes: &[u8]) -> Result<()> {
        let mut left = bytes;
        self.access(gpa, bytes.len() as u64, |part| {
            let (bytes, rest) = left.split_at_checked(part.size()).unwrap_or_default();
            left = rest;
            part.write(bytes)
        })
    }

    /// Makes `size` bytes from `gpa` on `byte`, in read-only slots too. A `size` of 0 is fine wherever `gpa` is.
    ///
    /// # Errors
    /// Those of [`GuestMemory::write`].
    pub fn fill(&self, gpa: u64, size: u64, byte: u8) -> Result<()> {
        self.access(gpa, size, |part| part.fill(byte))
    }

    /// Shows `visit` the memory of the access part by part, once all of it is known to be there.
    fn access(
        &self,
        gpa: u64,
        size: u64,
        mut visit: impl FnMut(Part<'_>) -> std::result::Result<(), Fault>,
    ) -> Result<()> {
        if size == 0 {
            return self.look(|_| Ok(()));
        }
        let range = GpaRange::new(gpa, size)?;
        let mut at = gpa;
        for piece in self.look(|map| map.pieces(range, |region| region.backed().clone()))? {
            visit(Part::of_slot(&piece.value, piece.offset, piece.size)?).map_err(|fault| refused(fault, at, range))?;
            at += piece.size;
        }
        Ok(())
    }
}

/// A fault in the part of an access to `range` that begins at `gpa`, as programs hear of it.
pub(super) fn refused(fault: Fault, gpa: u64, range: GpaRange) -> Error {
    let Fault { done, call, errno } = fault;
    if fault.is_of_memory() {
        return Error::HostAccess { gpa: gpa + done as u64, size: range.size(), call, errno };
    }
    Error::Os { call, errno }
}

/// The part of an access that one slot answers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'a> {
    Direct(GuestBytes<'a>),
    Remote(RemoteBytes<'a>),
}

/// Memory that may be gone by now.
#[derive(Debug, Clone, Copy)]
pub(super) struct RemoteBytes<'a> {
    mapping: &'a Mapping,
    offset: usize,
    size: usize,
}

impl<'a> Part<'a> {
    /// `size` bytes of a slot's memory from `offset` on.
    ///
    /// # Errors
    /// [`Error::Internal`]: callers ask for what the map says is there.
    pub(super) fn of_slot(backed: &'a Backed, offset: u64, size: u64) -> Result<Self> {
        let (mapping, start) = backed.mapping();
        let part = || {
            let offset = usize::try_from(start.checked_add(offset)?).ok()?;
            Self::of(mapping, backed.reach(), offset, usize::try_from(size).ok()?)
        };
        part().ok_or_else(|| Error::Internal { message: "an access leaves the memory of its slot".into() })
    }

    /// `size` bytes of `mapping` from `offset` on, or nothing where it does not have those.
    pub(super) fn of(mapping: &'a Mapping, reach: Reach, offset: usize, size: usize) -> Option<Self> {
        match reach {
            Reach::Direct => GuestBytes::of(mapping, offset, size).map(Self::Direct),
            Reach::Remote => {
                let end = offset.checked_add(size)?;
                (end <= mapping.size()).then_some(Self::Remote(RemoteBytes { mapping, offset, size }))
            }
        }
    }

    /// The bytes themselves, where they can be dereferenced.
    pub(super) const fn direct(self) -> Option<GuestBytes<'a>> {
        match self {
            Self::Direct(bytes) => Some(bytes),
            Self::Remote(_) => None,
        }
    }

    /// Length in bytes.
    pub(super) const fn size(self) -> usize {
        match self {
            Self::Direct(bytes) => bytes.size(),
            Self::Remote(bytes) => bytes.size,
        }
    }

    /// Copies it to `target`, which is not longer.
    pub(super) fn read(self, target: &mut [u8]) -> std::result::Result<(), Fault> {
        match self {
            Self::Direct(bytes) => bytes.read(target),
            Self::Remote(bytes) => remote::read(bytes.mapping, bytes.offset, target)?,
        }
        Ok(())
    }

    /// Copies `source`, which is not longer, to it.
    fn write(self, source: &[u8]) -> std::result::Result<(), Fault> {
        match self {
            Self::Direct(bytes) => bytes.write(source),
            Self::Remote(bytes) => remote::write(bytes.mapping, bytes.offset, source)?,
        }
        Ok(())
    }

    /// Makes every byte `byte`.
    fn fill(self, byte: u8) -> std::result::Result<(), Fault> {
        match self {
            Self::Direct(bytes) => bytes.fill(byte),
            Self::Remote(bytes) => bytes.fill(byte)?,
        }
        Ok(())
    }
}

/// What is written at a time where memory is filled by system call (bytes): it has to lie somewhere.
const FILL: usize = 64 << 10;

impl RemoteBytes<'_> {
    fn fill(self, byte: u8) -> std::result::Result<(), Fault> {
        let pattern = vec![byte; self.size.min(FILL)];
        let mut done = 0;
        while done < self.size {
            let bytes = pattern.get(..self.size - done).unwrap_or(&pattern);
            remote::write(self.mapping, self.offset + done, bytes)
                .map_err(|fault| Fault { done: done + fault.done, ..fault })?;
            done += bytes.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sys::mapping::Source;

    const SIZE: usize = 2 * FILL + 100;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn both_ways_are_the_same_bytes(
            remote in any::<bool>(),
            written in (0_usize..64, prop::collection::vec(any::<u8>(), 0..200)),
            filled in (0_usize..64, prop_oneof![0_usize..100, FILL - 2..FILL + 2, 2 * FILL..2 * FILL + 30]),
            byte in any::<u8>(),
        ) {
            let mapping = Mapping::of(Source::Anonymous, SIZE.next_multiple_of(4096)).unwrap();
            let reach = if remote { Reach::Remote } else { Reach::Direct };
            let part = |offset, size| Part::of(&mapping, reach, offset, size).unwrap();
            let mut model = vec![0; SIZE];
            let (offset, size) = filled;
            part(offset, size).fill(byte).unwrap();
            model[offset..offset + size].fill(byte);
            let (offset, bytes) = written;
            part(offset, bytes.len()).write(&bytes).unwrap();
            model[offset..offset + bytes.len()].copy_from_slice(&bytes);
            let mut found = vec![0xee; SIZE];
            part(0, SIZE).read(&mut found).unwrap();
            prop_assert!(found == model);
        }
    }

    #[test]
    fn a_part_lies_in_its_mapping() {
        let mapping = Mapping::of(Source::Anonymous, 4096).unwrap();
        for reach in [Reach::Direct, Reach::Remote] {
            assert_eq!(Part::of(&mapping, reach, 4095, 1).map(Part::size), Some(1));
            assert!(Part::of(&mapping, reach, 4095, 2).is_none());
            assert!(Part::of(&mapping, reach, usize::MAX, 2).is_none());
        }
    }

    #[test]
    fn a_fault_in_the_middle_of_a_fill_names_its_address() {
        let file = std::fs::File::from(crate::sys::memfd::sealed(2 * FILL as u64).unwrap());
        let mapping = Mapping::shared(&file, 3 * FILL).unwrap();
        let fault = Part::of(&mapping, Reach::Remote, 0x1000, 2 * FILL).unwrap().fill(1).unwrap_err();
        assert_eq!(fault.done, 2 * FILL - 0x1000);
        let range = GpaRange::new(0x5_0000, 0x100_0000).unwrap();
        let error = refused(fault, 0x5_1000, range);
        let expected = 0x5_1000 + fault.done as u64;
        assert!(matches!(error, Error::HostAccess { gpa, size: 0x100_0000, .. } if gpa == expected), "{error}");
        let denied = Fault { done: 0, call: "process_vm_readv", errno: crate::Errno(libc::EPERM) };
        assert!(matches!(refused(denied, 0, range), Error::Os { call: "process_vm_readv", .. }));
    }
}
