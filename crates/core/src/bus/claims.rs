//! What is claimed, and by whom. Pure.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex},
};

use super::{Device, Owner, PostedWrite, posted::PostedCounters, queue::Queue};
use crate::{
    error::{Error, Result},
    exit::Space,
};

/// A claim that was made; it stays until it is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimId {
    pub(super) space: Space,
    pub(super) base: u64,
    pub(super) id: u64,
}

/// Writes that wait in a queue.
pub(super) struct Posted {
    pub(super) queue: Arc<Queue<PostedWrite>>,
    pub(super) counters: Arc<PostedCounters>,
    /// The number by which reads end the run.
    pub(super) program: u64,
}

pub(super) enum Answerer {
    Device(Mutex<Box<dyn Device>>),
    Program(u64),
    Posted(Posted),
}

impl From<Owner> for Answerer {
    fn from(owner: Owner) -> Self {
        match owner {
            Owner::Device(device) => Self::Device(Mutex::new(device)),
            Owner::Doorbell(doorbell) => Self::Device(Mutex::new(Box::new(doorbell))),
            Owner::Program(program) => Self::Program(program),
            Owner::Posted { queue, program } => Self::Posted(Posted { queue, counters: Arc::default(), program }),
        }
    }
}

pub(super) struct Claim {
    size: u64,
    id: u64,
    pub(super) answerer: Answerer,
}

impl Claim {
    /// What there is of a claim with posted writes.
    pub(super) const fn posted(&self) -> Option<&Posted> {
        match &self.answerer {
            Answerer::Posted(posted) => Some(posted),
            Answerer::Device(_) | Answerer::Program(_) => None,
        }
    }
}

/// Everything that is claimed. Ranges of one space never overlap.
#[derive(Default)]
pub(super) struct Claims {
    ports: BTreeMap<u64, Arc<Claim>>,
    mmio: BTreeMap<u64, Arc<Claim>>,
    next_id: u64,
}

impl Claims {
    const fn space(&self, space: Space) -> &BTreeMap<u64, Arc<Claim>> {
        match space {
            Space::Port => &self.ports,
            Space::Mmio => &self.mmio,
        }
    }

    const fn space_mut(&mut self, space: Space) -> &mut BTreeMap<u64, Arc<Claim>> {
        match space {
            Space::Port => &mut self.ports,
            Space::Mmio => &mut self.mmio,
        }
    }

    /// Whether a range is free.
    ///
    /// # Errors
    /// [`Error::ClaimOverlap`].
    pub(super) fn check(&self, space: Space, range: &Range<u64>) -> Result<()> {
        let below = self.space(space).range(..range.end).next_back();
        if let Some((&at, claim)) = below.filter(|(at, claim)| *at + claim.size > range.start) {
            let what = if space == Space::Port { "ports" } else { "MMIO addresses" };
            return Err(Error::ClaimOverlap { what, new: range.clone(), old: at..at + claim.size });
        }
        Ok(())
    }

    /// Adds a claim, whose range is free.
    pub(super) fn insert(&mut self, space: Space, range: Range<u64>, answerer: Answerer) -> ClaimId {
        self.next_id += 1;
        let (id, base, size) = (self.next_id, range.start, range.end - range.start);
        self.space_mut(space).insert(base, Arc::new(Claim { size, id, answerer }));
        ClaimId { space, base, id }
    }

    /// The claim, as long as it stands.
    pub(super) fn get(&self, claim: ClaimId) -> Option<&Arc<Claim>> {
        self.space(claim.space).get(&claim.base).filter(|there| there.id == claim.id)
    }

    /// Ends a claim; none where it has ended already. It is to be dropped where no lock is held: the end of its owner is
    /// the program's.
    #[must_use]
    pub(super) fn remove(&mut self, claim: ClaimId) -> Option<Arc<Claim>> {
        self.get(claim)?;
        self.space_mut(claim.space).remove(&claim.base)
    }

    /// The claim that holds the whole access, and where in it the access begins.
    pub(super) fn find(&self, space: Space, address: u64, size: u8) -> Option<(u64, &Arc<Claim>)> {
        let (base, claim) = self.space(space).range(..=address).next_back()?;
        let offset = address - base;
        // Not `offset + size`: the address is the guest's, and a claim ends at or below 2^52.
        (claim.size.checked_sub(u64::from(size))? >= offset).then_some((offset, claim))
    }
}
