//! What all clones of a bus share, and the order of its locks. Whoever holds one of them runs no code of the program's:
//! owners end, and readers are woken, behind the guards.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicBool, AtomicU8, Ordering},
};

use super::{
    ClaimId, PostedWrite,
    claims::{Claim, Claims, Posted},
    drainer::{Activity, Drainer, is_drainer_thread},
    kernel::Kernel,
    queue::Put,
    ring::{Consumer, Cursor, Overfull, Taken},
    word,
};
use crate::{error::Result, exit::Access, panics::Panics, sys::fork};

/// Locks, in the order in which they may be taken: `kernel`, `drainer`, `consumer`, `claims`, a queue's. `claims` is never
/// held while KVM is called, and none while a device, an owner's end or a reader's wake-up is.
pub(super) struct Shared {
    claims: RwLock<Claims>,
    pub(super) unclaimed_ports: AtomicU8,
    kernel: Mutex<Kernel>,
    pub(super) ring_page: Option<usize>,
    consumer: Mutex<Consumer>,
    pub(super) cursor: Arc<Cursor>,
    /// A queue was filled beyond its limit from the ring.
    pub(super) backlog: AtomicBool,
    pub(super) activity: Arc<Activity>,
    drainer: Mutex<Option<Drainer>>,
    generation: u32,
}

/// Whose an access is.
pub(super) struct Found {
    /// Bytes from the start of the claim.
    pub(super) offset: u64,
    pub(super) claim: Arc<Claim>,
    /// It was a posted write, and this is what came of it.
    pub(super) put: Option<Put>,
}

impl Shared {
    pub(super) fn new(kernel: Kernel, ring_page: Option<usize>) -> Self {
        let consumer = Consumer::default();
        Self {
            claims: RwLock::default(),
            unclaimed_ports: AtomicU8::default(),
            kernel: Mutex::new(kernel),
            ring_page,
            cursor: consumer.cursor(),
            consumer: Mutex::new(consumer),
            backlog: AtomicBool::default(),
            activity: Arc::default(),
            drainer: Mutex::default(),
            generation: fork::generation(),
        }
    }

    /// Whether this process is another: the ring is not mapped here, and a lock may be held by a thread that is not here.
    pub(super) fn is_forked(&self) -> bool {
        self.generation != fork::generation()
    }

    /// As fork(2) leaves it behind.
    #[cfg(test)]
    pub(super) fn become_a_childs(&mut self) {
        self.generation = self.generation.wrapping_sub(1);
    }

    pub(super) fn claims(&self) -> RwLockReadGuard<'_, Claims> {
        self.claims.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn claims_mut(&self) -> RwLockWriteGuard<'_, Claims> {
        self.claims.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn consumer(&self) -> MutexGuard<'_, Consumer> {
        self.consumer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drainer(&self) -> MutexGuard<'_, Option<Drainer>> {
        self.drainer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose an access is. A posted write lies in its queue by then: put in while no claim can end, so that after a release
    /// none is on its way, and who takes once more has all.
    pub(super) fn find(&self, access: &Access<'_>) -> Option<Found> {
        let claims = self.claims();
        let (offset, claim) = claims.find(access.space, access.address, access.size)?;
        let put = claim.posted().filter(|_| access.write).map(|posted| post(posted, access, offset));
        Some(Found { offset, claim: Arc::clone(claim), put })
    }

    /// KVM gathers for one claim more: somebody has to look.
    ///
    /// # Errors
    /// [`crate::Error::Os`] where no thread can be had. It counts all the same, until it is withdrawn.
    pub(super) fn begin_gathering(self: &Arc<Self>) -> Result<()> {
        self.activity.begin_zone();
        let mut drainer = self.drainer();
        if drainer.is_none() {
            let shared = Arc::clone(self);
            let look = move || shared.take_out(Overfull::Leave).announce() > 0;
            *drainer = Some(Drainer::spawn(Arc::clone(&self.activity), look)?);
        }
        Ok(())
    }

    /// In this order: KVM stops gathering, what it has gathered goes to the claim, the claim ends.
    pub(super) fn withdraw(&self, mut kernel: MutexGuard<'_, Kernel>, claim: ClaimId) {
        let mut taken = Taken::default();
        if kernel.untell(claim.id) {
            self.activity.end_zone();
            taken = self.take_out(Overfull::Push);
        }
        let ended = self.claims_mut().remove(claim);
        drop(kernel);
        taken.announce();
        drop(ended);
    }

    /// Puts what lies in the ring into the queues. Where a lock is held it has to be announced behind it.
    pub(super) fn take_out(&self, overfull: Overfull) -> Taken {
        if self.is_forked() {
            return Taken::default();
        }
        let mut consumer = self.consumer();
        let taken = consumer.drain(overfull, || self.claims());
        if consumer.has_filled_any() {
            self.backlog.store(true, Ordering::Relaxed);
        }
        taken
    }

    /// Puts the rest into the queues, and lets go of the VM.
    pub(super) fn close(&self) {
        self.kernel().close();
        if is_drainer_thread() {
            // A reader that was woken there and closes the VM cannot wait for itself, nor for one of another VM that may
            // be waiting for it.
            self.activity.finish();
        } else {
            *self.drainer() = None; // under the lock: who closes as well finds it done
        }
        // What runs code of the program's, and may panic, comes last.
        let taken = self.take_out(Overfull::Push);
        let passed = self.consumer().detach();
        let mut panics = Panics::default();
        panics.catch(|| {
            taken.announce();
        });
        panics.catch(|| drop(passed));
        panics.resume();
    }
}

/// Puts a write that was an exit into its queue.
fn post(posted: &Posted, access: &Access<'_>, offset: u64) -> Put {
    let size = access.size;
    let writes = access.data.chunks(usize::from(size));
    posted.counters.count(writes.len(), 1);
    posted.queue.put(writes.map(|element| PostedWrite { offset, size, value: word(element) }))
}
