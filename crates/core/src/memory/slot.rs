//! What a program asks for when it maps memory, and the handle it gets.

use std::{fmt, sync::Arc};

use super::{
    backing::Backed,
    backing_kinds::Backing,
    guest_memory::{GuestMemory, SlotInfo},
    region::Identity,
};
use crate::{error::Result, range::GpaRange};

/// What [`GuestMemory::map`] is asked for. Fields are added in minor releases: start from [`MapOptions::new`].
///
/// ```
/// use typevisor::{GpaRange, memory::MapOptions};
/// let rom = MapOptions { readonly: true, ..MapOptions::new(GpaRange::pages(0xf_0000, 0x1_0000)?) };
/// assert_eq!(rom.slot, None);
/// # Ok::<(), typevisor::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MapOptions {
    /// Where the memory appears in the guest; address and size are multiples of 4096 bytes.
    pub range: GpaRange,
    /// Whether the guest may only read and execute it; a write becomes an MMIO exit. The host may write. Needs
    /// `KVM_CAP_READONLY_MEM` (`readonly-mem`, Linux 3.7).
    pub readonly: bool,
    /// The slot's number; `None` takes the lowest that is free.
    pub slot: Option<u32>,
    /// The memory behind it.
    pub backing: Backing,
    /// Whether anonymous memory and memfds of 2 MiB or more may be made of huge pages as the guest touches them: fewer
    /// faults and page tables, for up to 2 MiB of host memory where 4 KiB were touched. Where the kernel's policy allows
    /// it (`/sys/kernel/mm/transparent_hugepage`); `false` forbids it whatever the policy. Other backings have pages of
    /// their own.
    pub transparent_huge_pages: bool,
}

impl MapOptions {
    /// Zeroed anonymous memory over `range` that the guest may write, under the lowest free number.
    #[must_use]
    pub const fn new(range: GpaRange) -> Self {
        Self { range, readonly: false, slot: None, backing: Backing::Anonymous, transparent_huge_pages: true }
    }
}

/// A slot: memory that a guest sees. Cheap to clone; dropping a handle unmaps nothing, [`MemorySlot::unmap`] does.
#[derive(Clone)]
pub struct MemorySlot {
    memory: GuestMemory,
    identity: Arc<Identity>,
}

impl MemorySlot {
    pub(super) const fn new(memory: GuestMemory, identity: Arc<Identity>) -> Self {
        Self { memory, identity }
    }

    /// A part of its memory, for another slot.
    pub(super) fn part(&self, offset: u64, size: u64) -> Result<Backed> {
        self.memory.part(&self.identity, offset, size)
    }

    /// The slot's number, as KVM knows it.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.identity.number
    }

    /// Where the slot lies (bytes), or lay when it was unmapped.
    #[must_use]
    pub fn range(&self) -> GpaRange {
        self.identity.range()
    }

    /// Whether the guest may only read it.
    #[must_use]
    pub fn readonly(&self) -> bool {
        self.identity.readonly
    }

    /// All of it at once.
    #[must_use]
    pub fn info(&self) -> SlotInfo {
        SlotInfo {
            number: self.number(),
            range: self.range(),
            readonly: self.readonly(),
            backing: self.identity.backing,
            ioctl: self.ioctl(),
            serial: self.identity.serial,
        }
    }

    /// Which ioctl KVM was given: `KVM_SET_USER_MEMORY_REGION2` where the VM has `KVM_CAP_USER_MEMORY2` (Linux 6.8),
    /// else `KVM_SET_USER_MEMORY_REGION`, which does the same for this memory.
    #[must_use]
    pub fn ioctl(&self) -> &'static str {
        self.identity.ioctl
    }

    /// Takes the memory away from the guest and gives it back to the host (api.rst 4.35, size 0). Copies of ours that
    /// are under way end first; the memory is unmapped with the last of them.
    ///
    /// KVM waits for every vCPU that is inside the kernel at that moment: long, where one sleeps in a missing page.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed) where the slot is unmapped already or the VM closed,
    /// [`Error::Forked`](crate::Error::Forked), [`Error::Ioctl`](crate::Error::Ioctl): the slot is as it was then.
    ///
    /// ```no_run
    /// use typevisor::{GpaRange, Kvm, Vm, VmOptions, memory::MapOptions};
    /// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
    /// let slot = vm.memory().map(&MapOptions::new(GpaRange::pages(0, 0x1000)?))?;
    /// slot.unmap()?;
    /// assert!(slot.unmap().is_err());
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub fn unmap(&self) -> Result<()> {
        self.memory.unmap(&self.identity)
    }

    /// Moves the slot to `gpa` (bytes, page-aligned) in one ioctl, with content, number and size as they are, while
    /// vCPUs run (api.rst 4.35). The new place may overlap the old one. Moving to where it lies does nothing.
    ///
    /// # Errors
    /// [`Error::Unaligned`](crate::Error::Unaligned), [`Error::OutOfRange`](crate::Error::OutOfRange),
    /// [`Error::SlotOverlap`](crate::Error::SlotOverlap) with another slot, [`Error::Closed`](crate::Error::Closed),
    /// [`Error::Forked`](crate::Error::Forked), [`Error::Ioctl`](crate::Error::Ioctl) (an address past what the
    /// guest's processor can have, say). The slot stays where it was then.
    ///
    /// ```no_run
    /// use typevisor::{GpaRange, Kvm, Vm, VmOptions, memory::MapOptions};
    /// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
    /// let slot = vm.memory().map(&MapOptions::new(GpaRange::pages(0, 0x1000)?))?;
    /// slot.move_to(0x10_0000)?;
    /// assert_eq!(slot.range().gpa(), 0x10_0000);
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub fn move_to(&self, gpa: u64) -> Result<()> {
        self.memory.move_slot(&self.identity, gpa)
    }
}

impl fmt::Debug for MemorySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySlot")
            .field("number", &self.number())
            .field("range", &self.range())
            .field("readonly", &self.readonly())
            .finish_non_exhaustive()
    }
}
