//! What the memory of a VM is made of, who may look at it and who may change it.
//!
//! Locks, in this order: `changes` (the fd, and the right to change slots) is held through a whole change, ioctl
//! included; then the vCPUs may be held out; `published` (what lies where) is held for a look-up or for the update
//! itself, through ioctls only while the vCPUs are out, never through a copy. So a slow ioctl delays other changes and
//! no access, and a long copy delays nobody: it holds its regions by `Arc`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};

use super::{
    Held, HoldOut,
    guest_memory::{GuestMemory, SlotFeatures},
    ledger::Ledger,
    lent::{Lent, SetSlot},
    region::Region,
    slot_map::SlotMap,
};
use crate::{
    error::{Error, Result},
    sys::fork,
};

const VM_CLOSED: Error = Error::Closed { what: "VM" };

pub(super) struct Inner {
    features: SlotFeatures,
    /// [`fork::generation`] of the process the VM belongs to.
    generation: u32,
    vcpus: Arc<dyn HoldOut>,
    /// Held for as long as a change takes; `None` once closed, so that handles which outlive the VM keep no fd.
    changes: Mutex<Option<Open>>,
    /// What accesses see. Changes only under `changes`.
    published: RwLock<State>,
}

impl Inner {
    pub(super) fn new(ioctl: Box<dyn SetSlot>, features: SlotFeatures, vcpus: Arc<dyn HoldOut>) -> Self {
        let spaces = (0..features.spaces).map(|_| SlotMap::new(features.slots)).collect();
        let open = Open { ledger: Ledger::new(features.spaces, features.slots), lent: Lent::new(ioctl) };
        Self {
            features,
            generation: fork::generation(),
            vcpus,
            changes: Mutex::new(Some(open)),
            published: RwLock::new(State::Open(spaces)),
        }
    }
}

/// What it takes to change slots.
struct Open {
    ledger: Ledger,
    lent: Lent,
}

/// The slots by address space.
pub(super) type Spaces = [SlotMap<Arc<Region>>];

enum State {
    Open(Box<Spaces>),
    /// What KVM has is not what we know.
    Poisoned,
    Closed,
}

impl State {
    fn spaces(&self) -> Result<&Spaces> {
        match self {
            Self::Open(spaces) => Ok(spaces),
            Self::Poisoned => Err(Error::SLOTS_POISONED),
            Self::Closed => Err(VM_CLOSED),
        }
    }
}

/// The right to change slots, and the means.
pub(super) struct Changes<'a>(MutexGuard<'a, Option<Open>>);

impl Changes<'_> {
    /// Makes a change: what it entered in the ledger is taken back if it fails.
    pub(super) fn attempt<T>(&mut self, change: impl FnOnce(&mut Ledger, &mut Lent) -> Result<T>) -> Result<T> {
        let Open { ledger, lent } = self.0.as_mut().ok_or(VM_CLOSED)?;
        let outcome = change(ledger, lent);
        match &outcome {
            Ok(_) => ledger.commit(),
            Err(_) => ledger.roll_back(),
        }
        outcome
    }
}

/// What accesses see, while none of them looks.
pub(super) struct Published<'a>(RwLockWriteGuard<'a, State>);

impl Published<'_> {
    pub(super) fn spaces(&mut self) -> Result<&mut Spaces> {
        match &mut *self.0 {
            State::Open(spaces) => Ok(spaces),
            other => Err(other.spaces().err().unwrap_or(VM_CLOSED)),
        }
    }
}

impl GuestMemory {
    pub(super) fn features(&self) -> SlotFeatures {
        self.inner.features
    }

    /// Whether both are the memory of one VM.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Looks something up in the map of this address space.
    pub(super) fn look<T>(&self, look: impl FnOnce(&SlotMap<Arc<Region>>) -> Result<T>) -> Result<T> {
        self.check_process()?;
        let published = self.inner.published.read().unwrap_or_else(PoisonError::into_inner);
        look(published.spaces()?.get(self.space as usize).ok_or(VM_CLOSED)?)
    }

    /// The right to change slots; waits for a change that is under way.
    pub(super) fn changes(&self) -> Result<Changes<'_>> {
        let changes = self.changes_or_closed()?;
        self.look(|_| Ok(()))?;
        Ok(changes)
    }

    fn changes_or_closed(&self) -> Result<Changes<'_>> {
        self.check_process()?;
        Ok(Changes(self.inner.changes.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Waits until no vCPU is in the guest; none enters until the value is dropped. By whoever may change slots: two who
    /// do so wait for each other before they disturb any vCPU.
    pub(super) fn hold(&self, _right: &Lent) -> Box<dyn Held + '_> {
        self.inner.vcpus.hold()
    }

    /// Keeps accesses from looking. The caller shows that it may.
    pub(super) fn published(&self, _right: &Lent) -> Published<'_> {
        Published(self.inner.published.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what accesses see in one address space. The caller shows that it may.
    pub(super) fn publish<T>(
        &self,
        right: &Lent,
        space: u32,
        update: impl FnOnce(&mut SlotMap<Arc<Region>>) -> T,
    ) -> Result<T> {
        self.published(right).spaces()?.get_mut(space as usize).map(update).ok_or(VM_CLOSED)
    }

    /// From here on no access and no run gets anywhere. Memory that KVM has stays mapped until it has given it up.
    pub(super) fn poison(&self, mut published: Published<'_>) {
        *published.0 = State::Poisoned;
        self.inner.vcpus.poison();
    }

    /// Deletes all slots and lets go of the VM's fd. Closing twice is harmless, and so is closing in a forked child,
    /// where nothing happens. The memory of a slot that KVM refuses to delete stays mapped for the life of the
    /// process: nothing better can be done about it, by whoever closes either.
    pub(crate) fn close(&self) {
        let Ok(Changes(mut changes)) = self.changes_or_closed() else {
            return;
        };
        // From here on every access finds the VM closed; what is left of the slots is unmapped at the end.
        let published = std::mem::replace(
            &mut *self.inner.published.write().unwrap_or_else(PoisonError::into_inner),
            State::Closed,
        );
        drop(changes.take());
        drop(published);
    }

    /// Before any lock is touched: in a forked child one may be held by a thread that does not exist there.
    fn check_process(&self) -> Result<()> {
        if fork::generation() == self.inner.generation { Ok(()) } else { Err(Error::Forked) }
    }
}
