//! The memory of one VM: the published map of slots, and host access through it.
//! Who may look and who may change is `state`'s.

use std::{fmt, sync::Arc};

use kvm_ioctls::VmFd;
use vm_memory::GuestRegionCollection;

use super::{
    HoldOut,
    lent::{KvmSlots, SetSlot},
    region::Region,
    slot::MemorySlot,
    state::Inner,
};
use crate::{
    error::{Error, Result},
    range::GpaRange,
};

/// What this VM's slots can do, as probed on the VM itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotFeatures {
    /// `KVM_CAP_NR_MEMSLOTS`: how many slots there are in each address space.
    pub(crate) slots: u32,
    /// `KVM_CAP_MULTI_ADDRESS_SPACE`, at least 1.
    pub(crate) spaces: u32,
    /// Bits of guest physical addresses, where that is known beforehand.
    pub(crate) address_bits: u32,
    /// `KVM_CAP_READONLY_MEM`.
    pub(crate) readonly: bool,
    /// `KVM_CAP_USER_MEMORY2`.
    pub(crate) region2: bool,
    /// Bytes of the host's pages: what KVM wants slots to be multiples of.
    pub(crate) page_size: u64,
    /// Where KVM has pages of its own: no slot may lie there, in any address space.
    pub(crate) reserved: Option<GpaRange>,
    /// The flags that a `guest_memfd` can be made with (`KVM_CAP_GUEST_MEMFD_FLAGS`); none without `KVM_CAP_GUEST_MEMFD`.
    pub(crate) guest_memfd: Option<u64>,
}

/// One slot as [`GuestMemory::slots`] lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotInfo {
    /// The slot's number, as KVM knows it, in its address space.
    pub number: u32,
    /// The address space it is in, see [`GuestMemory::address_space`].
    pub address_space: u32,
    /// Where it lies in the guest (bytes).
    pub range: GpaRange,
    /// Whether the guest may only read it.
    pub readonly: bool,
    /// Whether KVM logs which of its pages the guest writes.
    pub dirty_log: bool,
    /// What stands behind it: `anonymous`, …; for a share, what stands behind the slot that is shared.
    pub backing: &'static str,
    /// Which ioctl KVM was given, see [`MemorySlot::ioctl`].
    pub ioctl: &'static str,
    /// Tells this slot from every other there ever was in this process: numbers are reused, these are not.
    pub serial: u64,
}

/// The memory of one VM: slots, and host access to what is in them. Cheap to clone; all clones are the same memory.
///
/// Addresses are guest physical, sizes are bytes. An access crosses slot borders freely and happens whole or not at
/// all: where one byte has no slot, nothing is copied. Aligned values of 2, 4 and 8 bytes are never torn, against
/// vCPUs as against other threads, in memory that is reached directly, and may be in the other kinds (see
/// [`Backing`](super::Backing)); an access of more than that is not atomic as a whole. An access that runs while its
/// slot is unmapped or moved counts as one before that.
///
/// After [`Vm::close`](crate::Vm::close) every call is [`Error::Closed`], in a forked child [`Error::Forked`].
///
/// ```no_run
/// use typevisor::{GpaRange, Kvm, Vm, VmOptions, memory::MapOptions};
/// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
/// let memory = vm.memory();
/// memory.map(&MapOptions::new(GpaRange::pages(0x0000, 0x1000)?))?;
/// memory.map(&MapOptions::new(GpaRange::pages(0x1000, 0x1000)?))?;
/// memory.write(0xffe, b"over")?; // two bytes in each slot
/// let mut bytes = [0; 4];
/// memory.read(0xffe, &mut bytes)?;
/// assert_eq!(&bytes, b"over");
/// # Ok::<(), typevisor::Error>(())
/// ```
#[derive(Clone)]
pub struct GuestMemory {
    pub(super) inner: Arc<Inner>,
    /// The address space that it is seen through.
    pub(super) space: u32,
}

impl GuestMemory {
    /// The memory of `vm`, which has no slots yet. `vcpus` holds the VM's vCPUs out of the guest.
    pub(crate) fn new(vm: Arc<VmFd>, features: SlotFeatures, vcpus: Arc<dyn HoldOut>) -> Self {
        Self::with_ioctl(Box::new(KvmSlots::new(vm, features.region2)), features, vcpus)
    }

    pub(super) fn with_ioctl(ioctl: Box<dyn SetSlot>, features: SlotFeatures, vcpus: Arc<dyn HoldOut>) -> Self {
        Self { inner: Arc::new(Inner::new(ioctl, features, vcpus)), space: 0 }
    }

    /// The same memory, seen through another of the VM's address spaces: where not said otherwise its slots, accesses and
    /// maps are those of that space. On x86 KVM has two, 1 being what a vCPU in system management mode sees
    /// (api.rst 4.35). 0 is always there. A slot number and a guest physical address mean another slot in each.
    ///
    /// # Errors
    /// [`Error::CapabilityMissing`] where the VM has but one (`KVM_CAP_MULTI_ADDRESS_SPACE`, Linux 4.2, x86),
    /// [`Error::AddressSpaceRange`], [`Error::Closed`], [`Error::Poisoned`], [`Error::Forked`].
    ///
    /// ```no_run
    /// use typevisor::{GpaRange, Kvm, Vm, VmOptions, memory::MapOptions};
    /// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
    /// let management = vm.memory().address_space(1)?;
    /// let smram = management.map(&MapOptions::new(GpaRange::pages(0xa_0000, 0x2_0000)?))?;
    /// assert_eq!(smram.address_space(), 1);
    /// assert!(vm.memory().slots()?.is_empty(), "in address space 0");
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub fn address_space(&self, id: u32) -> Result<Self> {
        self.look(|_| Ok(()))?;
        Ok(Self { inner: Arc::clone(&self.inner), space: self.check_space(Some(id))? })
    }

    /// The id of the address space that this is.
    ///
    /// # Errors
    /// Those of [`GuestMemory::address_space`].
    pub(super) fn check_space(&self, id: Option<u32>) -> Result<u32> {
        let limit = self.features().spaces;
        match id {
            None => Ok(self.space),
            Some(id) if id < limit => Ok(id),
            Some(_) if limit == 1 => Err(Error::CapabilityMissing {
                capability: "multi-address-space",
                needed_by: "an address space other than 0 (x86, for system management mode)",
                since: "4.2",
            }),
            Some(id) => Err(Error::AddressSpaceRange { id, limit }),
        }
    }

    /// All slots of this address space in order of address. O(slots).
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Poisoned`], [`Error::Forked`].
    pub fn slots(&self) -> Result<Vec<SlotInfo>> {
        self.look(|map| Ok(map.iter().map(|entry| entry.value.identity().info()).collect()))
    }

    /// The slot with memory at `gpa`, if there is one.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Poisoned`], [`Error::Forked`].
    pub fn slot_at(&self, gpa: u64) -> Result<Option<MemorySlot>> {
        let identity = self.look(|map| Ok(map.at(gpa).map(|entry| Arc::clone(entry.value.identity()))))?;
        Ok(identity.map(|identity| MemorySlot::new(self.clone(), identity)))
    }

    /// A snapshot of all slots for code written for the `vm-memory` crate: linux-loader, virtio-queue and their like.
    /// O(slots), so take it once per job, not per access. Slots that are mapped, moved or unmapped later do not show
    /// in it. It keeps the host's mappings alive, not the slots: memory that was unmapped from the guest since is
    /// still there to read and write, and takes host memory until the snapshot is dropped.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Poisoned`], [`Error::Forked`].
    ///
    /// ```no_run
    /// use typevisor::{Kvm, Vm, VmOptions};
    /// use vm_memory::{Bytes, GuestAddress};
    /// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
    /// let regions = vm.memory().regions()?;
    /// assert!(regions.read_obj::<u32>(GuestAddress(0x1000)).is_err(), "no slot there yet");
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub fn regions(&self) -> Result<GuestRegionCollection<Region>> {
        let regions: Vec<_> = self.look(|map| Ok(map.iter().map(|entry| Arc::new(entry.value.copy())).collect()))?;
        if regions.is_empty() {
            return Ok(GuestRegionCollection::default()); // from_arc_regions calls no regions an error
        }
        GuestRegionCollection::from_arc_regions(regions)
            .map_err(|error| Error::Internal { message: error.to_string().into() })
    }
}

impl fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestMemory").field("slots", &self.look(|map| Ok(map.len())).ok()).finish_non_exhaustive()
    }
}
