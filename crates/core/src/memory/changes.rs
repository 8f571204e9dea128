//! Changing slots: each change is checked whole, then one ioctl, and a failed ioctl leaves the map as it was. What is
//! not one ioctl needs the vCPUs held out and is not done here.

use std::sync::Arc;

use super::{
    backing::{self, Backed},
    guest_memory::GuestMemory,
    region::{Identity, Region},
    slot::{MapOptions, MemorySlot},
};
use crate::{
    error::{Error, Result},
    range::{GpaRange, PAGE_SIZE},
};

/// `KVM_MEM_MAX_NR_PAGES` of the kernel's `include/linux/kvm_host.h`, in bytes: 4 KiB short of 8 TiB.
const SLOT_SIZE_MAX: u64 = ((1 << 31) - 1) * PAGE_SIZE;

impl GuestMemory {
    /// Puts memory into the guest (api.rst 4.35 and 4.140), zeroed and anonymous unless another
    /// [`Backing`](super::Backing) is asked for. It does not follow a fork, and stays until [`MemorySlot::unmap`] or
    /// [`Vm::close`](crate::Vm::close). vCPUs may run.
    ///
    /// # Errors
    /// Before anything is done: [`Error::Unaligned`], [`Error::InvalidArgument`] (8 TiB or more),
    /// [`Error::CapabilityMissing`] (read-only memory or a `guest_memfd` where the VM lacks it), [`Error::SlotOverlap`],
    /// [`Error::SlotNumberTaken`], [`Error::SlotNumberRange`], [`Error::SlotLimit`], [`Error::Limit`] (mappings or
    /// descriptors), [`Error::HugePages`], [`Error::HostMemory`] (no address space left), [`Error::Os`] (a file that
    /// cannot be mapped), [`Error::Closed`], [`Error::Forked`]. From the kernel: [`Error::Ioctl`] (an address past what the
    /// guest's processor can have, say). The slots are as they were then.
    ///
    /// ```no_run
    /// use typevisor::{GpaRange, Kvm, Vm, VmOptions, memory::MapOptions};
    /// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
    /// let rom = MapOptions { readonly: true, ..MapOptions::new(GpaRange::pages(0xffff_0000, 0x1_0000)?) };
    /// let slot = vm.memory().map(&rom)?;
    /// vm.memory().write(0xffff_fff0, &[0xf4])?; // the host may; a guest's write would exit
    /// assert_eq!((slot.number(), slot.readonly()), (0, true));
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub fn map(&self, options: &MapOptions) -> Result<MemorySlot> {
        let &MapOptions { range, readonly, slot, .. } = options;
        GpaRange::pages(range.gpa(), range.size())?;
        if range.size() > SLOT_SIZE_MAX {
            return Err(Error::InvalidArgument { what: "the size of a slot", expected: "less than 8 TiB" });
        }
        if readonly && !self.features().readonly {
            return Err(Error::CapabilityMissing {
                capability: "readonly-mem",
                needed_by: "a read-only slot",
                since: "3.7",
            });
        }
        let mut changes = self.changes()?;
        let vacancy = self.look(|map| map.vacancy(range, slot))?;
        let lent = changes.lent()?;
        let backed = backing::provide(options, self.features(), lent)?;
        lent.set(vacancy.number(), range, readonly, &backed)?;
        let identity = Arc::new(Identity::new(vacancy.number(), options, &backed, lent.name()));
        let region = Region::new(range, Arc::clone(&identity), backed);
        self.publish(&changes, |map| map.insert(vacancy, Arc::new(region)))?;
        Ok(MemorySlot::new(self.clone(), identity))
    }

    /// Order: nobody new finds the memory, then KVM gives it up, then it is unmapped when the last copy has ended.
    /// Any other order shows unmapped addresses to a guest or to a thread of ours.
    pub(super) fn unmap(&self, identity: &Arc<Identity>) -> Result<()> {
        let mut changes = self.changes()?;
        self.find(identity)?;
        let Some((vacancy, region)) = self.publish(&changes, |map| map.remove(identity.number))? else {
            return Err(SLOT_CLOSED);
        };
        let outcome = changes.lent()?.delete(identity.number);
        if outcome.is_err() {
            // Nobody else can have taken the place: that needs `changes`.
            self.publish(&changes, |map| map.insert(vacancy, region))?;
        }
        outcome
    }

    /// Published after the ioctl: until it succeeds the memory is where it was, and it never goes away.
    pub(super) fn move_slot(&self, identity: &Arc<Identity>, gpa: u64) -> Result<()> {
        let range = GpaRange::pages(gpa, identity.range().size())?;
        let mut changes = self.changes()?;
        let region = self.find(identity)?;
        if region.range() == range {
            return Ok(());
        }
        let vacancy = self.look(|map| map.vacancy_for_move(identity.number, range))?;
        changes.lent()?.set(identity.number, range, identity.readonly, region.backed())?;
        self.publish(&changes, |map| {
            map.insert(vacancy, Arc::new(region.moved_to(range)));
        })
    }

    /// Deletes all slots and lets go of the VM's fd. Closing twice is harmless, and so is closing in a forked child,
    /// where nothing happens. The memory of a slot that KVM refuses to delete stays mapped for the life of the
    /// process: nothing better can be done about it, by whoever closes either.
    pub(crate) fn close(&self) {
        let Ok(mut changes) = self.changes() else {
            return;
        };
        let _unmapped_at_the_end = self.unpublish(&changes);
        drop(changes.take());
    }

    /// `size` bytes of the slot's memory from `offset` on, for a share of it.
    pub(super) fn part(&self, identity: &Arc<Identity>, offset: u64, size: u64) -> Result<Backed> {
        if !offset.is_multiple_of(PAGE_SIZE) {
            return Err(Error::Unaligned { what: "offset", value: offset, alignment: PAGE_SIZE });
        }
        let past_end =
            Error::InvalidArgument { what: "offset and size of a share", expected: "within the slot that is shared" };
        let fits = offset.checked_add(size).is_some_and(|end| end <= identity.range().size());
        self.find(identity)?.backed().part(offset, size).filter(|_| fits).ok_or(past_end)
    }

    /// The region of the slot that `identity` stands for: another slot may have its number by now.
    fn find(&self, identity: &Arc<Identity>) -> Result<Arc<Region>> {
        self.look(|map| {
            let region = map.get(identity.number).map(|entry| &entry.value);
            region.filter(|region| Arc::ptr_eq(region.identity(), identity)).cloned().ok_or(SLOT_CLOSED)
        })
    }
}

const SLOT_CLOSED: Error = Error::Closed { what: "memory slot" };
