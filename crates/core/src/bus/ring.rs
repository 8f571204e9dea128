//! Takes what the guest wrote out of the kernel's ring and puts it into the queues, in order. Knows no kernel: the ring is
//! a page that somebody fills.
//!
//! Nothing overtakes: an entry leaves the ring only after it lies in its queue, so that whoever finds the ring empty may
//! deliver what came later. One at a time takes out.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    PostedWrite,
    claims::{Claim, Claims, Posted},
    queue::Queue,
};
use crate::{exit::Space, panics::Panics, sys::coalesced::Ring};

/// What to do with writes whose queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overfull {
    /// Put them in: something that came later is about to be delivered. The vCPU waits before it runs on.
    Push,
    /// Leave them, and all behind them, in the ring: where it gets full KVM exits, and that vCPU waits.
    Leave,
}

/// The entry before which all lie in their queues. Of our own, as KVM is not always told this very one.
#[derive(Default)]
pub(super) struct Cursor(AtomicU32);

impl Cursor {
    /// Whether KVM has put something in since.
    #[inline]
    pub(super) fn is_behind(&self, ring: &Ring) -> bool {
        // In this order: by the time that the cursor is loaded it may have passed this `last`, and never lies behind what
        // has been handed on.
        let last = ring.last();
        // Partner: the store in `pass`, by a thread that has put everything before it into the queues.
        self.0.load(Ordering::Acquire) != last
    }

    fn pass(&self, ring: &Ring, end: u32) {
        ring.set_first(end);
        self.0.store(end, Ordering::Release);
    }
}

/// Writes that wait for one reader.
type Waiting = Arc<Queue<PostedWrite>>;

/// Who takes out, and which queues it has filled up.
#[derive(Default)]
pub(super) struct Consumer {
    ring: Option<Ring>,
    cursor: Arc<Cursor>,
    full: Vec<Waiting>,
    /// Kept from one batch to the next for its memory.
    writes: Vec<PostedWrite>,
}

/// What was handed on. What is left to do with it runs code of the program's: not for where a lock is held.
#[must_use]
#[derive(Default)]
pub(super) struct Taken {
    writes: usize,
    /// Whose they were, and whether their reader has to be woken.
    claims: Vec<(Arc<Claim>, bool)>,
}

impl Taken {
    /// Wakes the readers, and lets go of claims that have ended; gives how many writes it was. A reader's function that
    /// panics does so only after all others were woken.
    pub(super) fn announce(self) -> usize {
        let mut panics = Panics::default();
        for (claim, wakes) in self.claims {
            panics.catch(move || {
                if let Some(posted) = claim.posted().filter(|_| wakes) {
                    posted.queue.wake();
                }
                drop(claim);
            });
        }
        panics.resume();
        self.writes
    }
}

/// Entries of one claim, one behind the other.
struct Batch {
    owner: Option<Arc<Claim>>,
    /// The first entry that is not part of it.
    end: u32,
}

impl Consumer {
    /// What is empty may be asked without the consumer.
    pub(super) fn cursor(&self) -> Arc<Cursor> {
        Arc::clone(&self.cursor)
    }

    /// Takes from this ring from now on, unless there is one: all vCPUs of a VM show the same.
    pub(super) fn attach(&mut self, ring: Ring) {
        self.ring.get_or_insert(ring);
    }

    /// Lets go of the ring, whose mapping keeps the VM alive. The queues are to be dropped where no lock is held.
    pub(super) fn detach(&mut self) -> Vec<Waiting> {
        self.ring = None;
        mem::take(&mut self.full)
    }

    /// Hands on what lies in the ring now, and wakes nobody. `claims` is asked batch by batch: a claim or a release waits
    /// for one at most.
    pub(super) fn drain<'c>(&mut self, overfull: Overfull, claims: impl Fn() -> ClaimsRead<'c>) -> Taken {
        let mut taken = Taken::default();
        let Some(ring) = self.ring.clone() else { return taken };
        // Other vCPUs go on writing: what comes from here on is theirs, and not waited for.
        let (mut at, last) = (self.cursor.0.load(Ordering::Relaxed), ring.last());
        while at != last {
            let batch = next_batch(&ring, at..last, overfull, &claims(), &mut self.writes);
            if batch.end == at {
                break; // its queue is full
            }
            taken.writes += self.writes.len();
            // A claim that is gone took its zone with it before: an entry without one can only be a broken kernel's.
            if let Some(claim) = batch.owner {
                let wakes = self.put(&claim);
                taken.claims.push((claim, wakes));
            }
            at = batch.end;
            self.cursor.pass(&ring, at);
        }
        taken
    }

    /// Puts a batch into its queue; gives whether its reader has to be woken.
    fn put(&mut self, claim: &Claim) -> bool {
        let Some(posted) = claim.posted() else { return false };
        posted.counters.count(self.writes.len(), 0);
        let put = posted.queue.put(self.writes.drain(..));
        if !put.has_room {
            self.remember(&posted.queue);
        }
        put.wakes
    }

    fn remember(&mut self, queue: &Waiting) {
        if !self.full.iter().any(|there| Arc::ptr_eq(there, queue)) {
            self.full.push(Arc::clone(queue));
        }
    }

    /// Whether there may be a queue that was filled up.
    pub(super) const fn has_filled_any(&self) -> bool {
        !self.full.is_empty()
    }

    /// A queue that was filled up and has no room yet; and those that have, to be dropped where no lock is held.
    pub(super) fn full(&mut self) -> (Option<Waiting>, Vec<Waiting>) {
        let (full, passed) = mem::take(&mut self.full).into_iter().partition(|queue| !queue.has_room());
        self.full = full;
        (self.full.first().cloned(), passed)
    }
}

/// The claims while they are read.
pub(super) type ClaimsRead<'c> = std::sync::RwLockReadGuard<'c, Claims>;

/// The entries from `range.start` on, up to `range.end`, that go to one queue, as far as it has room for them.
fn next_batch(
    ring: &Ring,
    range: std::ops::Range<u32>,
    overfull: Overfull,
    claims: &Claims,
    writes: &mut Vec<PostedWrite>,
) -> Batch {
    writes.clear();
    let (mut at, mut owner, mut room) = (range.start, None::<Arc<Claim>>, usize::MAX);
    while at != range.end && writes.len() < room {
        let entry = ring.entry(at);
        let space = if entry.port { Space::Port } else { Space::Mmio };
        let Some((offset, claim)) = claims.find(space, entry.address, entry.size) else {
            // A batch of its own, of nothing.
            at = if owner.is_none() { ring.after(at) } else { at };
            break;
        };
        match &owner {
            Some(owner) if Arc::ptr_eq(owner, claim) => {}
            Some(_) => break,
            None => {
                room = room_for(claim.posted(), overfull);
                if room == 0 {
                    break;
                }
                owner = Some(Arc::clone(claim));
            }
        }
        writes.push(PostedWrite { offset, size: entry.size, value: entry.value });
        at = ring.after(at);
    }
    Batch { owner, end: at }
}

fn room_for(posted: Option<&Posted>, overfull: Overfull) -> usize {
    match (posted, overfull) {
        (Some(posted), Overfull::Leave) => posted.queue.room(),
        _ => usize::MAX,
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
