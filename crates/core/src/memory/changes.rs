//! Changing slots by one ioctl, while vCPUs run: each change is checked whole, then the ioctl, and a failed ioctl leaves
//! everything as it was; a panic in it leaves the VM poisoned. What takes several ioctls is `transaction`'s.

use std::sync::Arc;

use super::{
    backing::{self, Backed},
    bookkeeping,
    guest_memory::{GuestMemory, SlotFeatures},
    ledger::{Key, SLOT_CLOSED},
    lent::LentSlot,
    region::Identity,
    slot::{MapOptions, MemorySlot},
    transaction,
};
use crate::{
    error::{Error, Result},
    range::GpaRange,
};

/// `KVM_MEM_MAX_NR_PAGES` of the kernel's `include/linux/kvm_host.h`, which counts pages of the host's, in bytes: one page
/// short of 8 TiB where they are of 4 KiB, of 128 TiB where of 64.
pub(super) const fn slot_size_max(page_size: u64) -> u64 {
    ((1 << 31) - 1) * page_size
}

impl GuestMemory {
    /// Puts memory into the guest (api.rst 4.35 and 4.140), zeroed and anonymous unless another
    /// [`Backing`](super::Backing) is asked for. It does not follow a fork, and stays until [`MemorySlot::unmap`] or
    /// [`Vm::close`](crate::Vm::close). vCPUs may run.
    ///
    /// # Errors
    /// Before KVM is told anything: [`Error::Unaligned`], [`Error::InvalidArgument`] (2^31 of the host's pages or more,
    /// which is 8 TiB where they are of 4 KiB),
    /// [`Error::CapabilityMissing`] (read-only memory, a `guest_memfd` or an address space that the VM lacks),
    /// [`Error::AddressSpaceRange`], [`Error::AddressWidth`], [`Error::SlotOverlap`], [`Error::SlotReserved`],
    /// [`Error::SlotNumberTaken`], [`Error::SlotNumberRange`], [`Error::SlotLimit`], [`Error::Limit`] (mappings or descriptors),
    /// [`Error::HugePages`], [`Error::HostMemory`] (no address space left), [`Error::Os`] (a file that cannot be mapped),
    /// [`Error::Closed`], [`Error::Poisoned`], [`Error::Forked`]. From the kernel: [`Error::Ioctl`]. The slots are as they
    /// were then.
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
        let space = self.check_map(options)?;
        let range = options.range;
        // Outlives the lock where KVM refuses it.
        let mut made = None;
        let outcome = self.changes()?.attempt(|ledger, lent| {
            let serial = Identity::next_serial();
            let place = ledger.add(space, range, options.slot, serial)?;
            let key = Key { space, number: place.number(), serial };
            let backed = made.insert(backing::provide(options, self.features(), lent)?).clone();
            let (slot, region) = transaction::make(options, key, backed, lent.name());
            let identity = Arc::clone(region.identity());
            self.live(lent, |lent| {
                lent.set(slot)?;
                self.publish(lent, space, |map| map.insert(place, region))
            })?;
            Ok(MemorySlot::new(self.clone(), identity))
        });
        drop(made);
        outcome
    }

    /// Order: nobody new finds the memory, then KVM gives it up, then it is unmapped when the last copy has ended.
    /// Any other order shows unmapped addresses to a guest or to a thread of ours.
    pub(super) fn unmap(&self, identity: &Arc<Identity>) -> Result<()> {
        let key = identity.key;
        let removed = self.changes()?.attempt(|ledger, lent| {
            ledger.remove(key)?;
            self.live(lent, |lent| {
                if cfg!(broken = "unmap-published") {
                    lent.delete(key.id())?;
                }
                let removed = self.publish(lent, key.space, |map| map.remove(key.number))?;
                let Some((place, region)) = removed else { return Err(SLOT_CLOSED) };
                if cfg!(broken = "unmap-published") {
                    return Ok(Some(region));
                }
                if cfg!(broken = "unmap-early") {
                    drop(region);
                    return lent.delete(key.id()).map(|()| None);
                }
                let Err(refused) = lent.delete(key.id()) else { return Ok(Some(region)) };
                // Nobody else can have taken the place: that needs the right to change.
                self.publish(lent, key.space, |map| map.insert(place, region))?;
                Err(refused)
            })
        })?;
        drop(removed); // without the lock
        Ok(())
    }

    /// Published after the ioctl: until it succeeds the memory is where it was, and it never goes away.
    pub(super) fn move_slot(&self, identity: &Arc<Identity>, gpa: u64) -> Result<()> {
        let range = self.check_move(identity, gpa)?;
        let key = identity.key;
        self.changes()?.attempt(|ledger, lent| {
            if ledger.place(key)?.range() == range {
                return Ok(());
            }
            let place = ledger.relocate(key, range)?;
            let slot = lent.get(key.id()).cloned().ok_or(SLOT_CLOSED)?;
            self.live(lent, |lent| {
                lent.set(LentSlot { range, ..slot })?;
                self.publish(lent, key.space, |map| {
                    if let Some((_, region)) = map.remove(key.number) {
                        map.insert(place, region.moved_to(range));
                    }
                })
            })
        })
    }

    /// One flag of the slot's that KVM changes while vCPUs run.
    pub(super) fn set_dirty_log(&self, identity: &Arc<Identity>, dirty_log: bool) -> Result<()> {
        if dirty_log {
            check_changeable(identity, "a slot with a dirty log")?;
        }
        let key = identity.key;
        self.changes()?.attempt(|ledger, lent| {
            ledger.check(key)?;
            let slot = lent.get(key.id()).cloned().ok_or(SLOT_CLOSED)?;
            if slot.dirty_log == dirty_log {
                return Ok(());
            }
            self.live(lent, |lent| {
                lent.set(LentSlot { dirty_log, ..slot })?;
                self.publish(lent, key.space, |_| identity.set_dirty_log(dirty_log))
            })
        })
    }

    /// What can be said without knowing other slots; and the address space that is meant.
    pub(super) fn check_map(&self, options: &MapOptions) -> Result<u32> {
        let &MapOptions { range, readonly, address_space, .. } = options;
        let page_size = self.features().page_size;
        GpaRange::aligned(range.gpa(), range.size(), page_size)?;
        if range.size() > slot_size_max(page_size) {
            let expected = "fewer than 2^31 pages of the host's (8 TiB where they are of 4 KiB)";
            return Err(Error::InvalidArgument { what: "the size of a slot", expected });
        }
        bookkeeping::check(range.size())?;
        self.check_place(range)?;
        self.check_has_readonly(readonly)?;
        self.check_space(address_space)
    }

    /// The same for a move; and where to.
    pub(super) fn check_move(&self, identity: &Identity, gpa: u64) -> Result<GpaRange> {
        let range = GpaRange::aligned(gpa, identity.range().size(), self.features().page_size)?;
        self.check_place(range)?;
        if range != identity.range() {
            check_changeable(identity, "a slot that moves")?;
        }
        Ok(range)
    }

    /// The same for the read-only flag.
    pub(super) fn check_readonly(&self, identity: &Identity, readonly: bool) -> Result<()> {
        if readonly {
            check_changeable(identity, "a read-only slot")?;
        }
        self.check_has_readonly(readonly)
    }

    fn check_has_readonly(&self, readonly: bool) -> Result<()> {
        if readonly && !self.features().readonly {
            return Err(Error::CapabilityMissing {
                capability: "readonly-mem",
                needed_by: "a read-only slot",
                since: "3.7",
            });
        }
        Ok(())
    }

    fn check_place(&self, range: GpaRange) -> Result<()> {
        let SlotFeatures { address_bits: bits, reserved, .. } = self.features();
        if range.end() > 1 << bits {
            return Err(Error::AddressWidth { range, bits });
        }
        match reserved.filter(|reserved| reserved.overlaps(range)) {
            Some(reserved) => Err(Error::SlotReserved { new: range, reserved }),
            None => Ok(()),
        }
    }

    /// `size` bytes of the slot's memory from `offset` on, for a share of it.
    pub(super) fn part(&self, identity: &Arc<Identity>, offset: u64, size: u64, readonly: bool) -> Result<Backed> {
        let page_size = self.features().page_size;
        if !offset.is_multiple_of(page_size) {
            return Err(Error::Unaligned { what: "offset", value: offset, alignment: page_size });
        }
        let past_end =
            Error::InvalidArgument { what: "offset and size of a share", expected: "within the slot that is shared" };
        let fits = offset.checked_add(size).is_some_and(|end| end <= identity.range().size());
        // What is refused is let go of while its slot has it still: we may be the last who do, and hold another VM's lock.
        self.address_space(identity.key.space)?.look(|map| {
            let region = map.get(identity.key.number).map(|entry| &entry.value);
            // Another slot may have its number by now.
            let region = region.filter(|region| Arc::ptr_eq(region.identity(), identity)).ok_or(SLOT_CLOSED)?;
            let part = region.backed().part(offset, size).filter(|_| fits).ok_or(past_end)?;
            part.check_readonly(readonly).map(|()| part)
        })
    }
}

/// KVM refuses every change of a slot on a `guest_memfd` but its deletion (api.rst 4.140).
fn check_changeable(identity: &Identity, what: &'static str) -> Result<()> {
    if !identity.is_fixed() {
        return Ok(());
    }
    let expected = "on no guest_memfd: KVM lets such a slot be mapped and unmapped, no more";
    Err(Error::InvalidArgument { what, expected })
}
