//! The memory of one VM: the published map of slots, and host access through it.
//!
//! Locks, in this order: `changes` (the fd, and the right to change slots) is held through a whole change, ioctl
//! included; `published` (what lies where) only for a look-up or the update itself, never through an ioctl or a copy.
//! So a slow ioctl delays other changes and no access, and a long copy delays nobody: it holds its regions by `Arc`.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use kvm_ioctls::VmFd;
use vm_memory::GuestRegionCollection;

use super::{
    lent::{KvmSlots, Lent, SetSlot},
    region::Region,
    slot::MemorySlot,
    slot_map::SlotMap,
};
use crate::{
    error::{Error, Result},
    range::GpaRange,
    sys::fork,
};

/// What this VM's slots can do, as probed on the VM itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotFeatures {
    /// `KVM_CAP_NR_MEMSLOTS`: how many slots there are.
    pub(crate) slots: u32,
    /// `KVM_CAP_READONLY_MEM`.
    pub(crate) readonly: bool,
    /// `KVM_CAP_USER_MEMORY2`.
    pub(crate) region2: bool,
    /// `KVM_CAP_GUEST_MEMFD_FLAGS`: whether a `guest_memfd` can be mapped and shared from the start.
    pub(crate) guest_memfd: bool,
}

/// One slot as [`GuestMemory::slots`] lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotInfo {
    /// The slot's number, as KVM knows it.
    pub number: u32,
    /// Where it lies in the guest (bytes).
    pub range: GpaRange,
    /// Whether the guest may only read it.
    pub readonly: bool,
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
    inner: Arc<Inner>,
}

struct Inner {
    features: SlotFeatures,
    /// [`fork::generation`] of the process the VM belongs to.
    generation: u32,
    /// Held for as long as a change takes; `None` once closed, so that handles which outlive the VM keep no fd.
    changes: Mutex<Option<Lent>>,
    /// What accesses see; `None` once closed. Changes only under `changes`.
    published: RwLock<Option<SlotMap<Arc<Region>>>>,
}

/// The right to change slots, and the means.
pub(super) struct Changes<'a>(MutexGuard<'a, Option<Lent>>);

impl Changes<'_> {
    pub(super) fn lent(&mut self) -> Result<&mut Lent> {
        self.0.as_mut().ok_or(VM_CLOSED)
    }

    /// For good: nobody changes anything after this.
    pub(super) fn take(&mut self) -> Option<Lent> {
        self.0.take()
    }
}

const VM_CLOSED: Error = Error::Closed { what: "VM" };

impl GuestMemory {
    /// The memory of `vm`, which has no slots yet.
    pub(crate) fn new(vm: Arc<VmFd>, features: SlotFeatures) -> Self {
        Self::with_ioctl(Box::new(KvmSlots::new(vm, features.region2)), features)
    }

    pub(super) fn with_ioctl(ioctl: Box<dyn SetSlot>, features: SlotFeatures) -> Self {
        let inner = Inner {
            features,
            generation: fork::generation(),
            changes: Mutex::new(Some(Lent::new(ioctl))),
            published: RwLock::new(Some(SlotMap::new(features.slots))),
        };
        Self { inner: Arc::new(inner) }
    }

    /// All slots in order of address. O(slots).
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub fn slots(&self) -> Result<Vec<SlotInfo>> {
        self.look(|map| {
            let info = |region: &Arc<Region>| SlotInfo {
                number: region.identity().number,
                range: region.range(),
                readonly: region.readonly(),
                backing: region.identity().backing,
                ioctl: region.identity().ioctl,
                serial: region.identity().serial,
            };
            Ok(map.iter().map(|entry| info(&entry.value)).collect())
        })
    }

    /// The slot with memory at `gpa`, if there is one.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
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
    /// [`Error::Closed`], [`Error::Forked`].
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
        let regions: Vec<_> = self.look(|map| Ok(map.iter().map(|entry| Arc::clone(&entry.value)).collect()))?;
        if regions.is_empty() {
            return Ok(GuestRegionCollection::default()); // from_arc_regions calls no regions an error
        }
        GuestRegionCollection::from_arc_regions(regions)
            .map_err(|error| Error::Internal { message: error.to_string().into() })
    }

    pub(super) fn features(&self) -> SlotFeatures {
        self.inner.features
    }

    /// Looks something up in the map.
    pub(super) fn look<T>(&self, look: impl FnOnce(&SlotMap<Arc<Region>>) -> Result<T>) -> Result<T> {
        self.check_process()?;
        let published = self.inner.published.read().unwrap_or_else(PoisonError::into_inner);
        look(published.as_ref().ok_or(VM_CLOSED)?)
    }

    /// The right to change slots; waits for a change that is under way.
    pub(super) fn changes(&self) -> Result<Changes<'_>> {
        self.check_process()?;
        Ok(Changes(self.inner.changes.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Changes what accesses see. The caller shows that it may.
    pub(super) fn publish<T>(
        &self,
        _right: &Changes<'_>,
        update: impl FnOnce(&mut SlotMap<Arc<Region>>) -> T,
    ) -> Result<T> {
        let mut published = self.inner.published.write().unwrap_or_else(PoisonError::into_inner);
        published.as_mut().map(update).ok_or(VM_CLOSED)
    }

    /// From here on every access finds the VM closed. Gives back what was there.
    pub(super) fn unpublish(&self, _right: &Changes<'_>) -> Option<SlotMap<Arc<Region>>> {
        self.inner.published.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Before any lock is touched: in a forked child one may be held by a thread that does not exist there.
    fn check_process(&self) -> Result<()> {
        if fork::generation() == self.inner.generation { Ok(()) } else { Err(Error::Forked) }
    }
}

impl fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestMemory").field("slots", &self.look(|map| Ok(map.len())).ok()).finish_non_exhaustive()
    }
}
