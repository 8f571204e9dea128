//! A slot's memory as seen by the host, and as a region for the rust-vmm crates.
#![expect(unsafe_code, reason = "hands vm-memory a view of the mapping")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use vm_memory::{
    Address, GuestAddress, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes, MemoryRegionAddress,
    VolatileSlice,
};

use super::{access::Part, backing::Backed, guest_memory::SlotInfo, ledger::Key, slot::MapOptions};
use crate::{
    error::{Error, Result},
    range::GpaRange,
};

/// What makes a slot that slot, shared by all its handles and regions: two slots are the same one if this is.
///
/// What can change is written under the write lock of the map and read without: it is for showing, never for access.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) key: Key,
    backing: &'static str,
    ioctl: &'static str,
    fixed: bool,
    mapped_at: GpaRange,
    /// Where it lies now.
    gpa: AtomicU64,
    readonly: AtomicBool,
    dirty_log: AtomicBool,
}

impl Identity {
    /// For the next slot: given once in this process.
    pub(super) fn next_serial() -> u64 {
        static SERIALS: AtomicU64 = AtomicU64::new(1);
        SERIALS.fetch_add(1, Relaxed)
    }

    pub(super) fn new(key: Key, options: &MapOptions, backed: &Backed, ioctl: &'static str) -> Self {
        let &MapOptions { range, readonly, .. } = options;
        Self {
            key,
            backing: backed.kind(),
            ioctl,
            fixed: backed.guest_memfd().is_some(),
            mapped_at: range,
            gpa: AtomicU64::new(range.gpa()),
            readonly: AtomicBool::new(readonly),
            dirty_log: AtomicBool::new(false),
        }
    }

    pub(super) fn range(&self) -> GpaRange {
        // Only addresses of checked ranges of this size are stored, so the first choice is always there.
        GpaRange::new(self.gpa.load(Relaxed), self.mapped_at.size()).unwrap_or(self.mapped_at)
    }

    pub(super) fn readonly(&self) -> bool {
        self.readonly.load(Relaxed)
    }

    pub(super) fn set_readonly(&self, readonly: bool) {
        self.readonly.store(readonly, Relaxed);
    }

    pub(super) fn set_dirty_log(&self, dirty_log: bool) {
        self.dirty_log.store(dirty_log, Relaxed);
    }

    /// Whether KVM lets it be mapped and unmapped, and no more: a slot on a `guest_memfd`, though
    /// not a share of one.
    pub(super) const fn is_fixed(&self) -> bool {
        self.fixed
    }

    pub(super) fn info(&self) -> SlotInfo {
        SlotInfo {
            number: self.key.number,
            address_space: self.key.space,
            range: self.range(),
            readonly: self.readonly(),
            dirty_log: self.dirty_log.load(Relaxed),
            backing: self.backing,
            ioctl: self.ioctl,
            serial: self.key.serial,
        }
    }
}

/// The memory of one slot at one address, as [`GuestMemory::regions`](super::GuestMemory::regions) hands it to code
/// written for `vm-memory`. The mapping lives as long as any region of it, even when the slot is long unmapped.
///
/// vm-memory's own bulk copies may tear words that the guest writes at the same time; those of
/// [`GuestMemory`](super::GuestMemory) do not. Memory that the host reaches by system call only (see
/// [`Backing`](super::Backing)) has no host address to give: every access through a region of it is
/// [`GuestMemoryError::HostAddressNotAvailable`].
#[derive(Debug)]
pub struct Region {
    range: GpaRange,
    identity: Arc<Identity>,
    backed: Backed,
}

impl Region {
    /// `backed` is as long as `range`.
    pub(super) const fn new(range: GpaRange, identity: Arc<Identity>, backed: Backed) -> Self {
        Self { range, identity, backed }
    }

    /// The same memory, moved.
    pub(super) fn moved_to(&self, range: GpaRange) -> Self {
        self.identity.gpa.store(range.gpa(), Relaxed);
        Self { range, identity: Arc::clone(&self.identity), backed: self.backed.clone() }
    }

    pub(super) const fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    pub(super) const fn backed(&self) -> &Backed {
        &self.backed
    }

    /// `size` bytes from `offset` on.
    ///
    /// # Errors
    /// [`Error::Internal`]: callers ask for what the map says is there.
    pub(super) fn part(&self, offset: u64, size: u64) -> Result<Part<'_>> {
        let (mapping, start) = self.backed.mapping();
        let part = || {
            let offset = usize::try_from(start.checked_add(offset)?).ok()?;
            Part::of(mapping, self.backed.reach(), offset, usize::try_from(size).ok()?)
        };
        part().ok_or_else(|| Error::Internal { message: "an access leaves the memory of its slot".into() })
    }

    /// Where the memory lies in the guest (bytes).
    #[must_use]
    pub const fn range(&self) -> GpaRange {
        self.range
    }

    /// Whether the guest may only read it. The host may write.
    #[must_use]
    pub fn readonly(&self) -> bool {
        self.identity.readonly()
    }
}

impl GuestMemoryRegion for Region {
    /// Host writes leave no trace; KVM's own log knows those of the guest.
    type B = ();

    fn len(&self) -> u64 {
        self.range.size()
    }

    fn start_addr(&self) -> GuestAddress {
        GuestAddress(self.range.gpa())
    }

    fn bitmap(&self) {}

    fn get_host_address(&self, address: MemoryRegionAddress) -> std::result::Result<*mut u8, GuestMemoryError> {
        self.get_slice(address, 1).map(|slice| slice.ptr_guard_mut().as_ptr())
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> std::result::Result<VolatileSlice<'_, ()>, GuestMemoryError> {
        let part = self.part(offset.raw_value(), count as u64).map_err(|_| GuestMemoryError::InvalidBackendAddress)?;
        let bytes = part.direct().ok_or(GuestMemoryError::HostAddressNotAvailable)?;
        // SAFETY: `bytes` has checked that its `size` bytes belong to the mapping, which `self` keeps alive. Everybody
        // else who touches them is the guest or `copy.rs`, which uses atomics.
        Ok(unsafe { VolatileSlice::new(bytes.address(), bytes.size()) })
    }
}

impl GuestMemoryRegionBytes for Region {}
