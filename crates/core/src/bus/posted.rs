//! Posted writes: what waits, and what they have cost.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::queue::{Queue, Wakeup};

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
const CAPACITY: usize = 8192;

impl Queue<PostedWrite> {
    /// A queue for posted writes: 8,192 of them, and for each vCPU what lies in the kernel's ring at its exit, which would
    /// else overtake it (at most 169, or 2,730 where the kernel's pages have 64 KiB), and that exit's own.
    #[must_use]
    pub fn posted(wake: impl Fn(Wakeup) + Send + Sync + 'static) -> Arc<Self> {
        Self::new(CAPACITY, wake)
    }
}

/// How many writes a claim has had, and how many of them stopped the guest. See [`super::Bus::posted_counters`].
#[derive(Debug, Default)]
pub struct PostedCounters {
    writes: AtomicU64,
    exits: AtomicU64,
}

impl PostedCounters {
    /// Writes that were put into the queue so far.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Exits of the guest that these writes cost: one each without the kernel's ring, one where KVM found it full with it
    /// (with 4 KiB pages once in 169 writes, on kernels before 6.12 once in 85 at most).
    pub fn exits(&self) -> u64 {
        self.exits.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, writes: usize, exits: u64) {
        self.writes.fetch_add(writes as u64, Ordering::Relaxed);
        self.exits.fetch_add(exits, Ordering::Relaxed);
    }
}
