//! Who answers the guest's port and MMIO accesses in Rust. Owns the claims and the policy for unclaimed ports; it knows
//! neither vCPUs nor KVM: `vcpu` asks it before an exit reaches the program.

mod console;
mod devices;
mod queue;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU8, Ordering},
    },
};

pub use console::{ConsoleBuffer, DebugConsole, SerialConsole, SerialInput};
pub use devices::{Doorbell, Latch};
pub use queue::{Queue, Wakeup};

use crate::{
    error::{Error, Result},
    exit::{Access, Space},
    range::GpaRange,
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

/// Who answers a claim.
pub enum Owner {
    /// A device in Rust.
    Device(Box<dyn Device>),
    /// The program: an access ends the run and says whose it is by this number, which is not 0.
    Program(u64),
    /// The program, but writes wait in a queue and do not end the run.
    Posted {
        /// Where writes go. When it is full the vCPU waits.
        queue: Arc<Queue<PostedWrite>>,
        /// The number by which reads end the run; not 0.
        program: u64,
    },
}

impl<D: Device + 'static> From<Box<D>> for Owner {
    fn from(device: Box<D>) -> Self {
        Self::Device(device)
    }
}

impl From<Box<dyn Device>> for Owner {
    fn from(device: Box<dyn Device>) -> Self {
        Self::Device(device)
    }
}

/// A write that waits to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostedWrite {
    /// Bytes from the start of the claim.
    pub offset: u64,
    /// 1 to 8.
    pub size: u8,
    /// What was written, little-endian.
    pub value: u64,
}

/// Writes that wait before their vCPU does.
const POSTED_CAPACITY: usize = 8192;

impl Queue<PostedWrite> {
    /// A queue for posted writes, 8,192 of them.
    #[must_use]
    pub fn posted(wake: impl Fn(Wakeup) + Send + Sync + 'static) -> Arc<Self> {
        Self::new(POSTED_CAPACITY, wake)
    }
}

enum Answerer {
    Device(Mutex<Box<dyn Device>>),
    Program(u64),
    Posted { queue: Arc<Queue<PostedWrite>>, program: u64 },
}

impl From<Owner> for Answerer {
    fn from(owner: Owner) -> Self {
        match owner {
            Owner::Device(device) => Self::Device(Mutex::new(device)),
            Owner::Program(program) => Self::Program(program),
            Owner::Posted { queue, program } => Self::Posted { queue, program },
        }
    }
}

struct Claim {
    size: u64,
    id: u64,
    answerer: Answerer,
}

#[derive(Default)]
struct Claims {
    ports: BTreeMap<u64, Arc<Claim>>,
    mmio: BTreeMap<u64, Arc<Claim>>,
    next_id: u64,
}

impl Claims {
    fn space(&mut self, space: Space) -> &mut BTreeMap<u64, Arc<Claim>> {
        match space {
            Space::Port => &mut self.ports,
            Space::Mmio => &mut self.mmio,
        }
    }
}

/// The claims of one VM. Cheap to clone.
#[derive(Clone, Default)]
pub struct Bus {
    claims: Arc<RwLock<Claims>>,
    unclaimed_ports: Arc<AtomicU8>,
}

/// A claim that was made; it stays until it is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimId {
    space: Space,
    base: u64,
    id: u64,
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
    /// Gives `count` I/O ports from `base` on to `owner`. A claim takes effect with the next exit.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the ports end past 65,535, [`Error::ClaimOverlap`] where one of them is claimed.
    pub fn claim_ports(&self, base: u16, count: u32, owner: impl Into<Owner>) -> Result<ClaimId> {
        if count == 0 || u64::from(base) + u64::from(count) > PORTS {
            return Err(Error::InvalidArgument {
                what: "port range",
                expected: "1 to 65,536 ports, the last at most 65,535",
            });
        }
        self.claim(Space::Port, u64::from(base), u64::from(count), owner.into())
    }

    /// Gives a range of guest physical addresses to `owner`. Only accesses that no slot serves get there.
    ///
    /// # Errors
    /// [`Error::ClaimOverlap`] where part of the range is claimed.
    pub fn claim_mmio(&self, range: GpaRange, owner: impl Into<Owner>) -> Result<ClaimId> {
        self.claim(Space::Mmio, range.gpa(), range.size(), owner.into())
    }

    fn claim(&self, space: Space, base: u64, size: u64, owner: Owner) -> Result<ClaimId> {
        let mut claims = self.claims.write().unwrap_or_else(PoisonError::into_inner);
        let below = claims.space(space).range(..base + size).next_back();
        if let Some((&at, claim)) = below.filter(|(at, claim)| *at + claim.size > base) {
            let what = if space == Space::Port { "ports" } else { "MMIO addresses" };
            return Err(Error::ClaimOverlap { what, new: base..base + size, old: at..at + claim.size });
        }
        claims.next_id += 1;
        let id = claims.next_id;
        claims.space(space).insert(base, Arc::new(Claim { size, id, answerer: owner.into() }));
        Ok(ClaimId { space, base, id })
    }

    /// Ends a claim; its device is dropped once no vCPU is in it. Releasing twice is harmless.
    pub fn release(&self, claim: ClaimId) {
        let mut claims = self.claims.write().unwrap_or_else(PoisonError::into_inner);
        let space = claims.space(claim.space);
        if space.get(&claim.base).is_some_and(|there| there.id == claim.id) {
            space.remove(&claim.base);
        }
    }

    /// Says what answers ports that nobody claimed.
    pub fn set_unclaimed_ports(&self, policy: Unclaimed) {
        self.unclaimed_ports.store(policy as u8, Ordering::Relaxed);
    }

    /// Offers an access to whoever claimed it. Where it is a read that was handled, `answer` is filled in; it has to be
    /// as long as the access.
    pub(crate) fn handle(&self, access: &Access<'_>, answer: &mut [u8]) -> Handled {
        let Some((offset, claim)) = self.find(access) else {
            let ones =
                access.space == Space::Port && self.unclaimed_ports.load(Ordering::Relaxed) == Unclaimed::Ones as u8;
            if !ones {
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
            Answerer::Posted { queue, .. } if access.write => {
                let has_room = queue.push(access.data.chunks(usize::from(access.size)).map(|element| PostedWrite {
                    offset,
                    size: access.size,
                    value: word(element),
                }));
                if has_room { Handled::Yes } else { Handled::Wait(Arc::<Queue<PostedWrite>>::clone(queue)) }
            }
            Answerer::Program(claim) | Answerer::Posted { program: claim, .. } => {
                Handled::Program { claim: *claim, offset }
            }
        }
    }

    /// The claim that holds the whole access, and where in it the access begins.
    fn find(&self, access: &Access<'_>) -> Option<(u64, Arc<Claim>)> {
        let claims = self.claims.read().unwrap_or_else(PoisonError::into_inner);
        let space = match access.space {
            Space::Port => &claims.ports,
            Space::Mmio => &claims.mmio,
        };
        let (base, claim) = space.range(..=access.address).next_back()?;
        let offset = access.address - base;
        (offset + u64::from(access.size) <= claim.size).then(|| (offset, Arc::clone(claim)))
    }
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
mod tests {
    use super::*;

    /// Offsets and bytes of writes.
    type Log = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

    /// Remembers what was written and reads as its offset.
    struct Recorder(Log);

    impl Device for Recorder {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(u8::try_from(offset).unwrap());
        }
        fn write(&mut self, offset: u64, data: &[u8]) -> Written {
            self.0.lock().unwrap().push((offset, data.to_vec()));
            Written::Done
        }
    }

    fn recorder() -> (Box<dyn Device>, Log) {
        let log = Arc::default();
        (Box::new(Recorder(Arc::clone(&log))), log)
    }

    fn port(address: u64, size: u8, write: bool, data: &[u8]) -> Access<'_> {
        let count = u32::try_from(data.len()).unwrap() / u32::from(size);
        Access { space: Space::Port, write, address, size, count, data, data_at: 0 }
    }

    #[test]
    fn a_string_write_reaches_the_device_element_by_element() {
        let bus = Bus::default();
        let (device, log) = recorder();
        bus.claim_ports(0x3f8, 8, device).unwrap();
        assert!(matches!(bus.handle(&port(0x3f9, 2, true, b"abcd"), &mut []), Handled::Yes));
        assert_eq!(*log.lock().unwrap(), [(1, b"ab".to_vec()), (1, b"cd".to_vec())]);
    }

    #[test]
    fn an_access_across_the_end_of_a_claim_is_an_exit() {
        let bus = Bus::default();
        bus.claim_ports(0x10, 2, recorder().0).unwrap();
        assert!(matches!(bus.handle(&port(0x11, 2, false, &[0, 0]), &mut [0, 0]), Handled::No));
        let mut answer = [0];
        assert!(matches!(bus.handle(&port(0x11, 1, false, &[0]), &mut answer), Handled::Yes));
        assert_eq!(answer, [1]);
    }

    #[test]
    fn claims_do_not_overlap_and_come_back_when_released() {
        let bus = Bus::default();
        let first = bus.claim_ports(0x10, 4, recorder().0).unwrap();
        for (base, count) in [(0x13, 1), (0x0f, 2), (0x0f, 100), (0x10, 4)] {
            assert!(bus.claim_ports(base, count, recorder().0).is_err(), "{base:#x} + {count}");
        }
        let second = bus.claim_ports(0x14, 1, recorder().0).unwrap();
        bus.release(first);
        let third = bus.claim_ports(0x10, 4, recorder().0).unwrap();
        bus.release(first);
        assert!(bus.claim_ports(0x10, 1, recorder().0).is_err(), "a stale id released {third:?}");
        bus.release(second);
        assert!(bus.claim_ports(0xffff, 1, recorder().0).is_ok());
        assert!(bus.claim_ports(0xffff, 2, recorder().0).is_err());
    }

    #[test]
    fn unclaimed_ports_read_ones_only_where_told() {
        let bus = Bus::default();
        let mut answer = [0; 4];
        assert!(matches!(bus.handle(&port(0x70, 4, false, &[0; 4]), &mut answer), Handled::No));
        bus.set_unclaimed_ports(Unclaimed::Ones);
        assert!(matches!(bus.handle(&port(0x70, 4, false, &[0; 4]), &mut answer), Handled::Yes));
        assert_eq!(answer, [0xff; 4]);
        let mmio = Access { space: Space::Mmio, ..port(0x70, 4, false, &[0; 4]) };
        assert!(matches!(bus.handle(&mmio, &mut answer), Handled::No));
    }
}
