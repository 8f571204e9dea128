//! What a program asks for when it maps memory, and the handle it gets.

use std::{fmt, sync::Arc};

use super::{
    backing::Backed,
    backing_kinds::Backing,
    guest_memory::{GuestMemory, SlotInfo},
    region::Identity,
    transaction::Change,
};
#[cfg(doc)]
use crate::error::Error;
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
    /// Where the memory appears in the guest; address and size are multiples of the host's page size: 4096 bytes on
    /// `x86_64`, and of most aarch64 kernels (others have 16 or 64 KiB).
    pub range: GpaRange,
    /// Whether the guest may only read and execute it; a write becomes an MMIO exit. The host may write. Needs
    /// `KVM_CAP_READONLY_MEM` (`readonly-mem`, Linux 3.7).
    pub readonly: bool,
    /// The slot's number; `None` takes the lowest that is free.
    pub slot: Option<u32>,
    /// The memory behind it.
    pub backing: Backing,
    /// The address space in which it appears; `None`: that of the [`GuestMemory`] by which it is mapped.
    pub address_space: Option<u32>,
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
        Self {
            range,
            readonly: false,
            slot: None,
            backing: Backing::Anonymous,
            address_space: None,
            transparent_huge_pages: true,
        }
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

    pub(super) const fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    pub(super) const fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// A part of its memory, for another slot.
    pub(super) fn part(&self, offset: u64, size: u64, readonly: bool) -> Result<Backed> {
        self.memory.part(&self.identity, offset, size, readonly)
    }

    /// The slot's number, as KVM knows it, in its address space.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.info().number
    }

    /// The address space it is in.
    #[must_use]
    pub fn address_space(&self) -> u32 {
        self.info().address_space
    }

    /// Where the slot lies (bytes), or lay when it was unmapped.
    #[must_use]
    pub fn range(&self) -> GpaRange {
        self.info().range
    }

    /// Whether the guest may only read it.
    #[must_use]
    pub fn readonly(&self) -> bool {
        self.info().readonly
    }

    /// Whether KVM logs which of its pages the guest writes.
    #[must_use]
    pub fn dirty_log(&self) -> bool {
        self.info().dirty_log
    }

    /// All of it at once.
    #[must_use]
    pub fn info(&self) -> SlotInfo {
        self.identity.info()
    }

    /// Which ioctl KVM was given: `KVM_SET_USER_MEMORY_REGION2` where the VM has `KVM_CAP_USER_MEMORY2` (Linux 6.8),
    /// else `KVM_SET_USER_MEMORY_REGION`, which does the same for this memory.
    #[must_use]
    pub fn ioctl(&self) -> &'static str {
        self.info().ioctl
    }

    /// Takes the memory away from the guest and gives it back to the host (api.rst 4.35, size 0). Copies of ours that
    /// are under way end first; the memory is unmapped with the last of them.
    ///
    /// KVM waits for every vCPU that is inside the kernel at that moment: long, where one sleeps in a missing page.
    ///
    /// # Errors
    /// [`Error::Closed`] where the slot is unmapped already or the VM closed, [`Error::Poisoned`], [`Error::Forked`],
    /// [`Error::Ioctl`]: the slot is as it was then.
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
    /// For a moment it may be at neither place, which a guest that reaches for it meets as an MMIO exit;
    /// [`GuestMemory::change`] moves it with the vCPUs held out.
    ///
    /// # Errors
    /// [`Error::Unaligned`], [`Error::OutOfRange`], [`Error::AddressWidth`], [`Error::SlotOverlap`] with another slot,
    /// [`Error::SlotReserved`], [`Error::InvalidArgument`] on a `guest_memfd`, [`Error::Closed`], [`Error::Poisoned`], [`Error::Forked`],
    /// [`Error::Ioctl`]. The slot stays where it was then.
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

    /// Makes RAM of ROM, or ROM of RAM. KVM changes this of no slot that exists, so it is deleted and added again, with
    /// number, content and dirty log flag as they are and with every vCPU held out of the guest meanwhile: guests see
    /// the one or the other, and no run ends because of it; see [`GuestMemory::change`]. A log of its dirty pages begins
    /// anew. Nothing happens where it is so already.
    ///
    /// # Errors
    /// [`Error::CapabilityMissing`] for ROM where the VM lacks `KVM_CAP_READONLY_MEM` (Linux 3.7),
    /// [`Error::InvalidArgument`] for ROM on a `guest_memfd` and for RAM on a shared file that is open for reading only,
    /// [`Error::Closed`], [`Error::Forked`], [`Error::Ioctl`]: the slot is as it was then, but for its log of dirty pages,
    /// which KVM has emptied where the refusal came after the deletion. [`Error::SlotsLost`] and [`Error::Poisoned`] as
    /// with [`GuestMemory::change`].
    ///
    /// ```no_run
    /// use typevisor::{GpaRange, Kvm, Vm, VmOptions, memory::MapOptions};
    /// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
    /// let slot = vm.memory().map(&MapOptions::new(GpaRange::pages(0, 0x1000)?))?;
    /// slot.set_readonly(true)?;
    /// assert!(slot.readonly());
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub fn set_readonly(&self, readonly: bool) -> Result<()> {
        self.memory.change(vec![Change::SetReadonly(self.clone(), readonly)]).map(drop)
    }

    /// Starts or stops KVM's log of the pages that the guest writes (`KVM_MEM_LOG_DIRTY_PAGES`, api.rst 4.35), while
    /// vCPUs run. While it is on KVM maps the memory in small pages, which costs the guest speed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] on a `guest_memfd`, [`Error::Closed`], [`Error::Poisoned`], [`Error::Forked`],
    /// [`Error::Ioctl`].
    ///
    /// ```no_run
    /// use typevisor::{GpaRange, Kvm, Vm, VmOptions, memory::MapOptions};
    /// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
    /// let slot = vm.memory().map(&MapOptions::new(GpaRange::pages(0, 0x1000)?))?;
    /// slot.set_dirty_log(true)?;
    /// assert!(slot.dirty_log());
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub fn set_dirty_log(&self, dirty_log: bool) -> Result<()> {
        self.memory.set_dirty_log(&self.identity, dirty_log)
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
