//! What stands behind a slot: which host memory, how the host reaches it, and what it costs. Makes it (`provide`);
//! lending it to KVM is `lent`'s, reading and writing it `access`'s.

use std::sync::Arc;
#[cfg(test)]
use std::sync::Weak;

use super::slot::MemorySlot;
use crate::{
    error::{Error, Result},
    range::GpaRange,
    sys::mapping::Mapping,
};

/// What stands behind a slot. Nothing of it follows a fork: guest mappings are `MADV_DONTFORK`.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Backing {
    /// Zeroed memory of this process, committed when touched.
    #[default]
    Anonymous,
    /// The memory of another slot, at one more guest physical address: a range of the same bytes. It stays for as long as
    /// one of its slots does.
    Share {
        /// Whose memory.
        slot: MemorySlot,
        /// Where in it the new slot begins (bytes, a multiple of 4096).
        offset: u64,
    },
}

/// Memory of the host that slots are made of: of one slot, or of several that share it.
#[derive(Debug)]
pub(super) struct HostMemory {
    mapping: Mapping,
    kind: &'static str,
}

/// The part of a [`HostMemory`] that a slot has: as many bytes as the slot, from `offset` on.
#[derive(Debug, Clone)]
pub(super) struct Backed {
    memory: Arc<HostMemory>,
    offset: u64,
}

impl Backed {
    /// The whole of `memory`.
    pub(super) fn whole(memory: HostMemory) -> Self {
        Self { memory: Arc::new(memory), offset: 0 }
    }

    /// `size` bytes from `offset` on, or nothing where there are not as many.
    pub(super) fn part(&self, offset: u64, size: u64) -> Option<Self> {
        let offset = self.offset.checked_add(offset)?;
        let end = offset.checked_add(size)?;
        (end <= self.memory.mapping.size() as u64).then(|| Self { memory: Arc::clone(&self.memory), offset })
    }

    /// Does not keep the memory: tells whether it is still there.
    #[cfg(test)]
    pub(super) fn watch(&self) -> Weak<HostMemory> {
        Arc::downgrade(&self.memory)
    }

    /// Name of the backing, as programs see it.
    pub(super) fn kind(&self) -> &'static str {
        self.memory.kind
    }

    /// The mapping and where in it this part begins (bytes).
    pub(super) fn mapping(&self) -> (&Mapping, u64) {
        (&self.memory.mapping, self.offset)
    }

    /// Host address of the first byte: what KVM is told.
    pub(super) fn address(&self) -> u64 {
        self.memory.mapping.address().addr().get() as u64 + self.offset
    }
}

/// Makes or finds the memory for a slot over `range`.
///
/// # Errors
/// [`Error::OutOfRange`], [`Error::HostMemory`], [`Error::Limit`]; for a share [`Error::Closed`] where that slot is gone,
/// [`Error::Unaligned`], [`Error::InvalidArgument`] where it is too short.
pub(super) fn provide(backing: &Backing, range: GpaRange) -> Result<Backed> {
    match backing {
        Backing::Anonymous => {
            let mapping = Mapping::anonymous(host_size(range)?)?;
            Ok(Backed::whole(HostMemory { mapping, kind: "anonymous" }))
        }
        Backing::Share { slot, offset } => slot.part(*offset, range.size()),
    }
}

fn host_size(range: GpaRange) -> Result<usize> {
    usize::try_from(range.size()).map_err(|_| Error::OutOfRange { gpa: range.gpa(), size: range.size() })
}
