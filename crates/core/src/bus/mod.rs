//! Who answers the guest's port and MMIO accesses in Rust. Owns the claims, the policy for unclaimed ports, and what KVM
//! answers of both by itself (coalesced writes, ioeventfd: api.rst 4.116, 4.59). It knows no vCPU: `vcpu` asks it before
//! an exit reaches the program. Why it is as it is: docs/design/bus.md.

mod claims;
mod console;
mod devices;
mod drainer;
mod kernel;
mod owner;
mod posted;
mod queue;
mod ring;

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

pub use claims::ClaimId;
use claims::{Answerer, Claim, Claims, Posted};
pub use console::{ConsoleBuffer, DebugConsole, SerialConsole, SerialInput};
pub use devices::{Doorbell, Latch};
use drainer::{Activity, Drainer};
pub(crate) use kernel::BusFeatures;
use kernel::{Kernel, Wanted};
use kvm_ioctls::VmFd;
pub use owner::Owner;
pub use posted::{PostedCounters, PostedWrite};
pub use queue::{Queue, Wakeup};
use ring::{Consumer, Cursor, Overfull};

use crate::{
    error::{Error, Result},
    exit::{Access, Space},
    range::GpaRange,
    sys::{coalesced::Ring, fork},
};

/// Ports of x86: a 16-bit space.
const PORTS: u64 = 1 << 16;

/// A device on a bus. It is called on the thread that runs the vCPU, by one vCPU at a time.
pub trait Device: Send {
    /// The guest reads `data.len()` bytes (1 to 8) at `offset` bytes into the claim: fill in all of them.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// The guest writes `data` (1 to 8 bytes) at `offset` bytes into the claim.
    fn write(&mut self, offset: u64, data: &[u8]) -> Written;
}

/// What a device did with a write.
pub enum Written {
    /// It took it.
    Done,
    /// It took it and can take no more: the vCPU waits at the gate before it runs on.
    Full(Arc<dyn Gate>),
}

/// What a vCPU waits for when a device is full.
pub trait Gate: Send + Sync {
    /// Whether the vCPU may go on. Where not, `waiter` has to be unparked once it may.
    fn pass_or_register(&self, waiter: &std::thread::Thread) -> bool;
}

/// What answers a port that nobody claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unclaimed {
    /// The access is an exit: the program answers.
    #[default]
    Exit,
    /// Reads give ones and writes go nowhere, as on a PC with nothing behind the port.
    Ones,
}

/// The bus of one VM. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    shared: Arc<Shared>,
}

/// Locks, in the order in which they may be taken: `kernel`, `consumer`, `claims`, a queue's. `claims` is never held while a
/// device, a reader's wake-up or KVM is called.
struct Shared {
    claims: RwLock<Claims>,
    unclaimed_ports: AtomicU8,
    kernel: Mutex<Kernel>,
    ring_page: Option<usize>,
    consumer: Mutex<Consumer>,
    cursor: Arc<Cursor>,
    /// A queue was filled beyond its limit from the ring.
    backlog: AtomicBool,
    activity: Arc<Activity>,
    drainer: Mutex<Option<Drainer>>,
    generation: u32,
}

impl Default for Bus {
    /// A bus of its own: no KVM helps.
    fn default() -> Self {
        Self::with(Kernel::default(), None)
    }
}

/// What the bus did with an access.
pub(crate) enum Handled {
    /// Nobody claimed it: it is an exit.
    No,
    /// It is done; `answer` holds what the guest reads.
    Yes,
    /// As `Yes`, but the vCPU has to wait at the gate before it runs on.
    Wait(Arc<dyn Gate>),
    /// The program claimed it, under this number.
    Program {
        claim: u64,
        /// Bytes from the start of the claim.
        offset: u64,
    },
}

impl Bus {
    /// The bus of `vm`, which may do what `features` says.
    pub(crate) fn new(vm: Arc<VmFd>, features: BusFeatures) -> Self {
        Self::with(Kernel::new(vm, features), features.ring.map(|ring| ring.page))
    }

    fn with(kernel: Kernel, ring_page: Option<usize>) -> Self {
        let consumer = Consumer::default();
        let shared = Shared {
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
        };
        Self { shared: Arc::new(shared) }
    }

    /// Gives `count` I/O ports from `base` on to `owner`. A claim takes effect with the next exit.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the ports end past 65,535, [`Error::ClaimOverlap`] where one of them is claimed.
    /// For owners that KVM helps: [`Error::Limit`] where it has 1,000 devices on its bus, [`Error::Os`] where no thread is
    /// left to look after the ring, [`Error::Ioctl`].
    pub fn claim_ports(&self, base: u16, count: u32, owner: impl Into<Owner>) -> Result<ClaimId> {
        if count == 0 || u64::from(base) + u64::from(count) > PORTS {
            return Err(Error::InvalidArgument {
                what: "port range",
                expected: "1 to 65,536 ports, the last at most 65,535",
            });
        }
        let base = u64::from(base);
        self.claim(Space::Port, base..base + u64::from(count), owner.into())
    }

    /// Gives a range of guest physical addresses to `owner`. Only accesses that no slot serves get there.
    ///
    /// # Errors
    /// [`Error::ClaimOverlap`] where part of the range is claimed; else those of [`Bus::claim_ports`].
    pub fn claim_mmio(&self, range: GpaRange, owner: impl Into<Owner>) -> Result<ClaimId> {
        self.claim(Space::Mmio, range.gpa()..range.gpa() + range.size(), owner.into())
    }

    fn claim(&self, space: Space, range: Range<u64>, owner: Owner) -> Result<ClaimId> {
        let wanted = owner.wanted();
        let gathering = matches!(wanted, Wanted::Gathering);
        let mut kernel = self.shared.kernel();
        // Before KVM hears of it: what it gathers has a queue to go to.
        let claim = self.shared.claims_mut().insert(space, range.clone(), Answerer::from(owner))?;
        let told = kernel.tell(claim.id, space, &range, wanted);
        let told = told.and_then(|told| if told && gathering { self.start_drainer() } else { Ok(()) });
        if told.is_err() {
            self.shared.withdraw(&mut kernel, claim);
        }
        told.map(|()| claim)
    }

    fn start_drainer(&self) -> Result<()> {
        let mut drainer = self.shared.drainer.lock().unwrap_or_else(PoisonError::into_inner);
        if drainer.is_none() {
            let shared = Arc::clone(&self.shared);
            let look = move || shared.take_out(Overfull::Leave) > 0;
            *drainer = Some(Drainer::spawn(Arc::clone(&self.shared.activity), look)?);
        }
        Ok(())
    }

    /// Ends a claim; its device is dropped once no vCPU is in it. Releasing twice is harmless. Where KVM gathers writes for
    /// it this waits until no vCPU is at one (each is in the kernel by then), and all of them lie in the queue.
    pub fn release(&self, claim: ClaimId) {
        let mut kernel = self.shared.kernel();
        self.shared.withdraw(&mut kernel, claim);
    }

    /// Whether KVM was given this claim: it gathers posted writes, or rings the doorbell, without an exit. Not where it
    /// lacks the capability (`coalesced-mmio`, `coalesced-pio`, `ioeventfd`), where its own interrupt controllers stand
    /// among the addresses, and for more than 2 GiB of MMIO. `false` once released.
    #[must_use]
    pub fn is_in_kernel(&self, claim: ClaimId) -> bool {
        self.shared.kernel().knows(claim.id)
    }

    /// What a claim with posted writes has counted, and goes on counting; none for any other.
    #[must_use]
    pub fn posted_counters(&self, claim: ClaimId) -> Option<Arc<PostedCounters>> {
        let claims = self.shared.claims();
        Some(Arc::clone(&claims.get(claim)?.posted()?.counters))
    }

    /// Says what answers ports that nobody claimed.
    pub fn set_unclaimed_ports(&self, policy: Unclaimed) {
        self.shared.unclaimed_ports.store(policy as u8, Ordering::Relaxed);
    }

    /// Offers an access to whoever claimed it. Where it is a read that was handled, `answer` is filled in; it has to be
    /// as long as the access.
    pub(crate) fn handle(&self, access: &Access<'_>, answer: &mut [u8]) -> Handled {
        let Some((offset, claim)) = self.shared.find(access) else {
            let policy = self.shared.unclaimed_ports.load(Ordering::Relaxed);
            if access.space != Space::Port || policy != Unclaimed::Ones as u8 {
                return Handled::No;
            }
            answer.fill(0xff);
            return Handled::Yes;
        };
        match &claim.answerer {
            Answerer::Device(device) => {
                let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
                ask(&mut **device, access, offset, answer)
            }
            Answerer::Posted(posted) if access.write => post(posted, access, offset),
            Answerer::Program(claim) | Answerer::Posted(Posted { program: claim, .. }) => {
                Handled::Program { claim: *claim, offset }
            }
        }
    }

    /// In which page of a vCPU's mapping its VM's ring lies, where it has one.
    pub(crate) fn ring_page(&self) -> Option<usize> {
        self.shared.ring_page
    }

    /// The VM's ring, as a vCPU shows it. To be called before that vCPU runs.
    pub(crate) fn attach(&self, ring: Ring) {
        self.shared.consumer().attach(ring);
    }

    /// Whether KVM has put something into the ring that is in no queue yet; `ring` as any vCPU shows it.
    #[inline]
    pub(crate) fn has_gathered(&self, ring: &Ring) -> bool {
        self.shared.cursor.is_behind(ring)
    }

    /// Puts what KVM has gathered into the queues: to be called after `KVM_RUN`, before its exit is dealt with. The queues
    /// may be over their limit afterwards, by what a ring holds: see [`Bus::backlog`].
    pub(crate) fn drain(&self) {
        self.shared.take_out(Overfull::Push);
    }

    /// What a vCPU has to wait for before it runs: a queue that was filled beyond its limit.
    pub(crate) fn backlog(&self) -> Option<Arc<dyn Gate>> {
        if !self.shared.backlog.load(Ordering::Relaxed) {
            return None;
        }
        let mut consumer = self.shared.consumer();
        let Some(queue) = consumer.full() else {
            self.shared.backlog.store(false, Ordering::Relaxed);
            return None;
        };
        Some(queue)
    }

    /// A vCPU is about to run: from here on somebody looks into the ring. [`Bus::end_run`] has to follow.
    pub(crate) fn begin_run(&self) {
        self.shared.activity.begin();
    }

    /// It has stopped.
    pub(crate) fn end_run(&self) {
        self.shared.activity.end();
    }

    /// The VM's vCPUs are closed: puts the rest into the queues, and lets go of the VM. Claims stay, for who released them.
    pub(crate) fn close(&self) {
        self.shared.kernel().close();
        let mut drainer = self.shared.drainer.lock().unwrap_or_else(PoisonError::into_inner);
        *drainer = None; // under the lock: who closes as well finds it done
        self.shared.take_out(Overfull::Push);
        self.shared.consumer().detach();
    }
}

impl Shared {
    fn claims(&self) -> RwLockReadGuard<'_, Claims> {
        self.claims.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn claims_mut(&self) -> RwLockWriteGuard<'_, Claims> {
        self.claims.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn consumer(&self) -> MutexGuard<'_, Consumer> {
        self.consumer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, access: &Access<'_>) -> Option<(u64, Arc<Claim>)> {
        let claims = self.claims();
        let (offset, claim) = claims.find(access.space, access.address, access.size)?;
        Some((offset, Arc::clone(claim)))
    }

    /// In this order: KVM stops gathering, what it has gathered goes to the claim, the claim ends.
    fn withdraw(&self, kernel: &mut Kernel, claim: ClaimId) {
        if kernel.untell(claim.id) {
            self.take_out(Overfull::Push);
        }
        self.claims_mut().remove(claim);
    }

    /// Gives how many writes were handed on.
    fn take_out(&self, overfull: Overfull) -> usize {
        if self.generation != fork::generation() {
            return 0; // the ring is the parent's, and not mapped here
        }
        let mut consumer = self.consumer();
        let taken = consumer.drain(overfull, || self.claims());
        if consumer.has_filled_any() {
            self.backlog.store(true, Ordering::Relaxed);
        }
        taken
    }
}

/// Puts a write that was an exit into its queue.
fn post(posted: &Posted, access: &Access<'_>, offset: u64) -> Handled {
    let size = access.size;
    let writes = access.data.chunks(usize::from(size));
    posted.counters.count(writes.len(), 1);
    if posted.queue.push(writes.map(|element| PostedWrite { offset, size, value: word(element) })) {
        return Handled::Yes;
    }
    Handled::Wait(Arc::<Queue<PostedWrite>>::clone(&posted.queue))
}

/// Passes an access to a device, element by element.
fn ask(device: &mut dyn Device, access: &Access<'_>, offset: u64, answer: &mut [u8]) -> Handled {
    let size = usize::from(access.size);
    if !access.write {
        answer.chunks_mut(size).for_each(|element| device.read(offset, element));
        return Handled::Yes;
    }
    let mut handled = Handled::Yes;
    for element in access.data.chunks(size) {
        if let Written::Full(gate) = device.write(offset, element) {
            handled = Handled::Wait(gate);
        }
    }
    handled
}

/// Up to 8 bytes as a number.
pub(crate) fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.iter_mut().zip(bytes).for_each(|(target, byte)| *target = *byte);
    u64::from_le_bytes(word)
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
