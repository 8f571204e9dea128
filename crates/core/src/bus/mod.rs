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
mod shared;

use std::{
    ops::Range,
    sync::{Arc, PoisonError, atomic::Ordering},
};

pub use claims::ClaimId;
use claims::{Answerer, Posted};
pub use console::{ConsoleBuffer, DebugConsole, SerialConsole, SerialInput};
pub use devices::{Doorbell, Latch};
pub(crate) use drainer::is_drainer_thread;
pub(crate) use kernel::BusFeatures;
use kernel::{Kernel, Wanted};
use kvm_ioctls::VmFd;
pub use owner::Owner;
pub use posted::{PostedCounters, PostedWrite};
use queue::Put;
pub use queue::{Queue, Wakeup};
use ring::Overfull;
use shared::{Found, Shared};

use crate::{
    error::{Error, Result},
    exit::{Access, Space},
    range::GpaRange,
    sys::coalesced::Ring,
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
        Self { shared: Arc::new(Shared::new(kernel, ring_page)) }
    }

    /// Gives `count` I/O ports from `base` on to `owner`. A claim takes effect with the next exit.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the ports end past 65,535, [`Error::ClaimOverlap`] where one of them is claimed.
    /// For owners that KVM helps: [`Error::Limit`] for posted writes where it has 1,000 devices on its bus, [`Error::Os`]
    /// where no thread is left to look after the ring, [`Error::Ioctl`]. [`Error::Forked`].
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
        if self.shared.is_forked() {
            return Err(Error::Forked); // who held the locks is not in this process
        }
        let wanted = owner.wanted();
        let gathering = matches!(wanted, Wanted::Gathering);
        // Stands before the guards, and so ends after them where it is refused: its end may use the bus.
        let answerer = Answerer::from(owner);
        let mut kernel = self.shared.kernel();
        let mut claims = self.shared.claims_mut();
        claims.check(space, &range)?;
        // Before KVM hears of it: what it gathers has a queue to go to.
        let claim = claims.insert(space, range.clone(), answerer);
        drop(claims);
        let told = kernel.tell(claim.id, space, &range, wanted);
        let told = told.and_then(|told| if told && gathering { self.shared.begin_gathering() } else { Ok(()) });
        if told.is_err() {
            self.shared.withdraw(kernel, claim);
        }
        told.map(|()| claim)
    }

    /// Ends a claim; its device is dropped once no vCPU is in it. Releasing twice, or in a forked process, is harmless. Where KVM gathers writes for
    /// it this waits until no vCPU is at one (each is in the kernel by then), and all of them lie in the queue.
    pub fn release(&self, claim: ClaimId) {
        if !self.shared.is_forked() {
            self.shared.withdraw(self.shared.kernel(), claim);
        }
    }

    /// Puts what KVM has gathered so far into the queues, at once. For who learns by another way than an exit that the
    /// guest has written: by a [`Doorbell`] that KVM rings, or in memory. A queue may be over its limit afterwards, by what a
    /// ring holds each time: take from it.
    pub fn flush(&self) {
        self.shared.take_out(Overfull::Push).announce();
    }

    /// Whether KVM was given this claim: it gathers posted writes, or rings the doorbell, without an exit. Not where it
    /// lacks the capability (`coalesced-mmio`, `coalesced-pio`, `ioeventfd`), where its own interrupt controllers stand
    /// among the addresses, for more than 2 GiB of MMIO, and for a doorbell where its bus is full or whose value no write of up
    /// to 4 bytes can hold. `false` once released.
    #[must_use]
    pub fn is_in_kernel(&self, claim: ClaimId) -> bool {
        !self.shared.is_forked() && self.shared.kernel().knows(claim.id)
    }

    /// What a claim with posted writes has counted, and goes on counting; none for any other.
    #[must_use]
    pub fn posted_counters(&self, claim: ClaimId) -> Option<Arc<PostedCounters>> {
        if self.shared.is_forked() {
            return None;
        }
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
        let Some(Found { offset, claim, put }) = self.shared.find(access) else {
            let policy = self.shared.unclaimed_ports.load(Ordering::Relaxed);
            if access.space != Space::Port || policy != Unclaimed::Ones as u8 {
                return Handled::No;
            }
            answer.fill(0xff);
            return Handled::Yes;
        };
        match (&claim.answerer, &put) {
            (Answerer::Device(device), _) => {
                let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
                ask(&mut **device, access, offset, answer)
            }
            (Answerer::Posted(posted), Some(put)) => announce(posted, put),
            (Answerer::Program(claim) | Answerer::Posted(Posted { program: claim, .. }), _) => {
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
        self.shared.take_out(Overfull::Push).announce();
    }

    /// What a vCPU has to wait for before it runs: a queue that was filled beyond its limit.
    pub(crate) fn backlog(&self) -> Option<Arc<dyn Gate>> {
        if !self.shared.backlog.load(Ordering::Relaxed) {
            return None;
        }
        let mut consumer = self.shared.consumer();
        let (full, passed) = consumer.full();
        if full.is_none() {
            self.shared.backlog.store(false, Ordering::Relaxed);
        }
        drop(consumer);
        drop(passed);
        Some(full?)
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
        self.shared.close();
    }
}

/// Wakes the reader of a write that lies in its queue.
fn announce(posted: &Posted, put: &Put) -> Handled {
    if put.wakes {
        posted.queue.wake();
    }
    if put.has_room { Handled::Yes } else { Handled::Wait(Arc::<Queue<PostedWrite>>::clone(&posted.queue)) }
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
