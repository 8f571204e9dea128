//! What the memory of a VM is made of, who may look at it and who may change it.
//!
//! Locks, in this order: `changes` (the fd, and the right to change slots) is held through a whole change, ioctl
//! included; then the vCPUs may be held out; `published` (what lies where) is held for a look-up or for the update
//! itself, through ioctls only while the vCPUs are out, never through a copy. So a slow ioctl delays other changes and
//! no access, and a long copy delays nobody: it holds its regions by `Arc`. `letting_go` says whether a closer is at it;
//! it is taken last, and nothing is done under it. No memory is let go of under a lock: to
//! unmap takes its time, and what keeps a buffer is a program's own, which may change slots as it goes, or panic.

use std::{
    cell::Cell,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard},
};

use super::{
    Held, HoldOut,
    guest_memory::{GuestMemory, SlotFeatures},
    ledger::Ledger,
    lent::{Lent, LentSlot, SetSlot},
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
    /// Whoever closes lets go of the memory, and has not ended.
    letting_go: Mutex<bool>,
    let_go: Condvar,
}

thread_local! {
    /// This thread lets go of a VM's memory, and is perhaps in code of a program's that kept some.
    static LETS_GO: Cell<bool> = const { Cell::new(false) };
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
            letting_go: Mutex::new(false),
            let_go: Condvar::new(),
        }
    }

    fn published(&self) -> RwLockWriteGuard<'_, State> {
        self.published.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn letting_go(&self) -> MutexGuard<'_, bool> {
        self.letting_go.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What it takes to change slots.
struct Open {
    ledger: Ledger,
    lent: Lent,
}

/// The slots by address space.
pub(super) type Spaces = [SlotMap<Region>];

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

    fn spaces_mut(&mut self) -> Result<&mut Spaces> {
        match self {
            Self::Open(spaces) => Ok(spaces),
            other => Err(other.spaces().err().unwrap_or(VM_CLOSED)),
        }
    }
}

/// The right to change slots, and the means.
pub(super) struct Changes<'a>(MutexGuard<'a, Option<Open>>);

impl Changes<'_> {
    /// Makes a change: what it entered in the ledger is taken back if it fails, or panics.
    pub(super) fn attempt<T>(&mut self, change: impl FnOnce(&mut Ledger, &mut Lent) -> Result<T>) -> Result<T> {
        let Open { ledger, lent } = self.0.as_mut().ok_or(VM_CLOSED)?;
        let entered = Entered(ledger);
        let outcome = change(entered.0, lent);
        if outcome.is_ok() {
            entered.0.commit();
        }
        outcome
    }
}

/// What a change enters in the ledger, taken back unless it was committed.
struct Entered<'a>(&'a mut Ledger);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if !cfg!(broken = "rollback-ledger") {
            self.0.roll_back();
        }
    }
}

/// What accesses see, while none of them looks and KVM is told of something else. Where that ends half done, by a panic
/// too, nobody knows what the guest sees: no access and no run gets anywhere then, unless [`Unsettled::settle`] was
/// called. Memory that KVM has stays mapped until it has given it up.
pub(super) struct Unsettled<'a> {
    published: RwLockWriteGuard<'a, State>,
    vcpus: &'a dyn HoldOut,
    settled: bool,
}

impl Unsettled<'_> {
    pub(super) fn spaces(&mut self) -> Result<&mut Spaces> {
        self.published.spaces_mut()
    }

    /// What KVM has is what accesses are going to see.
    pub(super) fn settle(mut self) {
        self.settled = true;
    }
}

/// A change by one ioctl, while vCPUs run and accesses look.
struct Live<'a> {
    inner: &'a Inner,
    settled: bool,
}

impl Drop for Live<'_> {
    /// Where it ends half done, as [`Unsettled`] does.
    fn drop(&mut self) {
        if !self.settled {
            let _held = self.inner.vcpus.hold();
            drop(Unsettled { published: self.inner.published(), vcpus: &*self.inner.vcpus, settled: false });
        }
    }
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        if !self.settled {
            *self.published = State::Poisoned;
            self.vcpus.poison();
        }
    }
}

/// The letting go of a closed VM's memory: until it is dropped, by a panic of a buffer's keep too, others who close wait.
struct Release<'a> {
    inner: &'a Inner,
    /// What the thread was at before.
    nested: bool,
}

impl<'a> Release<'a> {
    fn begin(inner: &'a Inner) -> Self {
        *inner.letting_go() = true;
        Self { inner, nested: LETS_GO.replace(true) }
    }
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        LETS_GO.set(self.nested);
        *self.inner.letting_go() = false;
        self.inner.let_go.notify_all();
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
    pub(super) fn look<T>(&self, look: impl FnOnce(&SlotMap<Region>) -> Result<T>) -> Result<T> {
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

    /// Keeps accesses from looking while KVM is told. The caller shows that it may.
    pub(super) fn unsettled(&self, _right: &Lent) -> Unsettled<'_> {
        Unsettled { published: self.inner.published(), vcpus: &*self.inner.vcpus, settled: false }
    }

    /// One ioctl, and what accesses see of it. An error of `change` says that nothing was done; after a panic nobody knows
    /// what KVM has, and the VM is poisoned.
    pub(super) fn live<T>(&self, lent: &mut Lent, change: impl FnOnce(&mut Lent) -> Result<T>) -> Result<T> {
        let mut live = Live { inner: &self.inner, settled: false };
        let outcome = change(lent);
        live.settled = true;
        outcome
    }

    /// Changes what accesses see in one address space. The caller shows that it may.
    pub(super) fn publish<T>(
        &self,
        _right: &Lent,
        space: u32,
        update: impl FnOnce(&mut SlotMap<Region>) -> T,
    ) -> Result<T> {
        self.inner.published().spaces_mut()?.get_mut(space as usize).map(update).ok_or(VM_CLOSED)
    }

    /// Deletes all slots, lets go of the VM's fd, and unmaps the memory. Closing twice is harmless: whoever comes second
    /// finds the slots deleted, and waits for the rest by [`GuestMemory::await_release`]. So is closing in a forked child,
    /// where nothing happens. The memory of a slot that KVM refuses to delete stays mapped for the life of the process:
    /// nothing better can be done about it, by whoever closes either.
    pub(crate) fn close(&self) {
        if let Some((memory, release)) = self.delete_all() {
            drop(memory); // apart from the line above, which had the lock
            drop(release);
        }
    }

    /// Waits until whoever closed has let go of the memory. Not on a thread that lets go of memory itself, this VM's or
    /// another's: a buffer's keep may close VMs, and two would wait for each other.
    pub(crate) fn await_release(&self) {
        if self.check_process().is_err() || LETS_GO.get() {
            return;
        }
        let mut letting_go = self.inner.letting_go();
        while *letting_go {
            letting_go = self.inner.let_go.wait(letting_go).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The first half of closing. Gives back what is to be unmapped, and whom the others wait for.
    fn delete_all(&self) -> Option<((State, Vec<LentSlot>), Release<'_>)> {
        let Changes(mut changes) = self.changes_or_closed().ok()?;
        let mut open = changes.take()?;
        // From here on every access finds the VM closed.
        let seen = std::mem::replace(&mut *self.inner.published(), State::Closed);
        let release = Release::begin(&self.inner); // under the lock: whoever comes second finds it begun
        Some(((seen, open.lent.delete_all()), release))
    }

    /// Before any lock is touched: in a forked child one may be held by a thread that does not exist there.
    fn check_process(&self) -> Result<()> {
        if fork::generation() == self.inner.generation { Ok(()) } else { Err(Error::Forked) }
    }
}
