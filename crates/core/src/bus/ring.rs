//! Takes what the guest wrote out of the kernel's ring and puts it into the queues, in order. Knows no kernel: the ring is
//! a page that somebody fills.
//!
//! Nothing overtakes: an entry leaves the ring only after it lies in its queue, so that whoever finds the ring empty may
//! deliver what came later. One at a time takes out.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
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
use crate::{exit::Space, sys::coalesced::Ring};

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
        let mut panicked = None;
        for (claim, wakes) in self.claims {
            let announced = catch_unwind(AssertUnwindSafe(move || {
                if let Some(posted) = claim.posted().filter(|_| wakes) {
                    posted.queue.wake();
                }
                drop(claim);
            }));
            panicked = panicked.or(announced.err());
        }
        if let Some(panic) = panicked {
            resume_unwind(panic);
        }
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
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Mutex, RwLock},
    };

    use proptest::prelude::*;

    use super::*;
    use crate::{
        bus::{Owner, claims::Answerer},
        sys::coalesced::{Gathered, Room, test_ring},
    };

    const CAPACITY: usize = 40;
    /// Where the two claims begin: ports and MMIO at the same addresses, 16 of each.
    const BASE: u64 = 0x100;

    /// Two claims with posted writes, and the ring between them and a guest.
    struct Bench {
        ring: Ring,
        claims: RwLock<Claims>,
        queues: [Arc<Queue<PostedWrite>>; 2],
        consumer: Consumer,
        room: Room,
    }

    impl Bench {
        fn new() -> Self {
            Self::on(Room::Exact)
        }

        fn on(room: Room) -> Self {
            let (ring, mut claims, mut consumer) = (test_ring(), Claims::default(), Consumer::default());
            let queues = [Queue::new(CAPACITY, drop), Queue::new(CAPACITY, drop)];
            for (space, queue) in [Space::Port, Space::Mmio].into_iter().zip(&queues) {
                let owner = Owner::Posted { queue: Arc::clone(queue), program: 1 };
                claims.insert(space, BASE..BASE + 16, Answerer::from(owner));
            }
            consumer.attach(ring.clone());
            Self { ring, claims: RwLock::new(claims), queues, consumer, room }
        }

        fn drain(&mut self, overfull: Overfull) -> usize {
            self.consumer.drain(overfull, || self.claims.read().unwrap()).announce()
        }

        fn write(&self, claim: usize, value: u64) -> bool {
            self.ring.gather(self.room, Gathered { address: BASE + 3, size: 8, port: claim == 0, value })
        }

        fn is_empty(&self) -> bool {
            !self.consumer.cursor.is_behind(&self.ring)
        }

        fn take(&self, claim: usize) -> Vec<u64> {
            self.queues[claim].take().iter().map(|write| write.value).collect()
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Write(usize),
        Drain(bool),
        Take(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..2_usize).prop_map(Step::Write),
            1 => any::<bool>().prop_map(Step::Drain),
            1 => (0..2_usize).prop_map(Step::Take),
        ]
    }

    proptest! {
        #[test]
        fn every_write_reaches_its_own_reader_once_and_in_order(
            room in prop_oneof![Just(Room::Exact), Just(Room::Before612)],
            steps in prop::collection::vec(step(), 1..600),
        ) {
            let mut bench = Bench::on(room);
            let mut written = [VecDeque::new(), VecDeque::new()];
            for (value, step) in (0..).zip(steps) {
                match step {
                    // Where the ring is full KVM exits, and the exit has it drained.
                    Step::Write(claim) => {
                        if !bench.write(claim, value) {
                            bench.drain(Overfull::Push);
                            prop_assert!(bench.write(claim, value));
                        }
                        written[claim].push_back(value);
                    }
                    Step::Drain(true) => {
                        bench.drain(Overfull::Push);
                        prop_assert!(bench.is_empty());
                    }
                    Step::Drain(false) => {
                        bench.drain(Overfull::Leave);
                        let stuck = bench.queues.iter().any(|queue| !queue.has_room());
                        prop_assert!(bench.is_empty() || stuck, "left in the ring for a full queue alone");
                    }
                    Step::Take(claim) => {
                        let taken = bench.take(claim);
                        let expected: Vec<u64> = written[claim].drain(..taken.len()).collect();
                        prop_assert_eq!(taken, expected);
                    }
                }
            }
            bench.drain(Overfull::Push);
            for (claim, written) in written.iter().enumerate() {
                prop_assert_eq!(VecDeque::from(bench.take(claim)), written.clone());
            }
        }
    }

    #[test]
    fn a_ring_emptied_up_to_its_first_entry_loses_nothing_on_an_old_kernel() {
        let mut bench = Bench::on(Room::Before612);
        // To where the first 70 entries of the next lap end the ring, of which the queues take 40 and 30.
        for _ in 0..2 {
            (0..50).for_each(|value| assert!(bench.write(0, value)));
            bench.drain(Overfull::Push);
            bench.take(0);
        }
        for value in 0..10 {
            assert!(bench.queues[0].push([PostedWrite { offset: 3, size: 8, value }]));
        }
        (0..40).for_each(|value| assert!(bench.write(1, value)));
        let written = (10..1000).take_while(|value| bench.write(0, *value)).count();
        assert_eq!(bench.drain(Overfull::Leave), 70);
        let more = (10 + written as u64..1000).take_while(|value| bench.write(0, *value)).count();
        assert!(more > 0, "room for what was taken out");
        let mut arrived = bench.take(0);
        bench.drain(Overfull::Push);
        arrived.extend(bench.take(0));
        assert_eq!(arrived, (0..(10 + written + more) as u64).collect::<Vec<_>>());
    }

    #[test]
    fn what_has_no_room_stays_in_the_ring_or_is_over_the_limit_and_remembered() {
        let mut bench = Bench::new();
        (0..50).for_each(|value| assert!(bench.write(0, value)));
        assert_eq!((bench.drain(Overfull::Leave), bench.consumer.has_filled_any()), (CAPACITY, true));
        assert_eq!(bench.drain(Overfull::Leave), 0);
        assert!(!bench.is_empty());
        assert_eq!(bench.drain(Overfull::Push), 10);
        assert!(bench.is_empty());
        let full = bench.consumer.full().0.unwrap();
        assert!(Arc::ptr_eq(&full, &bench.queues[0]));
        assert_eq!(bench.take(0), (0..50).collect::<Vec<_>>());
        assert!(bench.consumer.full().0.is_none());
    }

    #[test]
    fn a_full_queue_holds_up_no_other_when_an_exit_waits() {
        let mut bench = Bench::new();
        (0..60).for_each(|value| assert!(bench.write(0, value)));
        assert!(bench.write(1, 77));
        bench.drain(Overfull::Leave);
        assert!(bench.take(1).is_empty(), "in order");
        bench.drain(Overfull::Push);
        assert_eq!(bench.take(1), [77]);
    }

    #[test]
    fn a_reader_is_woken_behind_the_writes_and_its_panic_repeats_none_and_keeps_none_from_others() {
        let mut bench = Bench::new();
        let (found, seen, cursor) = (Arc::new(Mutex::new(Vec::new())), bench.ring.clone(), bench.consumer.cursor());
        let log = Arc::clone(&found);
        let panics = Queue::new(CAPACITY, |_arrived| panic!("a reader's"));
        let looks = Queue::new(CAPACITY, move |_arrived| log.lock().unwrap().push(cursor.is_behind(&seen)));
        for (at, queue) in [(0, &panics), (1, &looks)] {
            let owner = Owner::Posted { queue: Arc::clone(queue), program: 1 };
            bench.claims.write().unwrap().insert(Space::Port, at..at + 1, Answerer::from(owner));
            assert!(bench.ring.gather(Room::Exact, Gathered { address: at, size: 1, port: true, value: at }));
        }
        assert!(catch_unwind(AssertUnwindSafe(|| bench.drain(Overfull::Push))).is_err());
        assert_eq!(*found.lock().unwrap(), [false]);
        assert_eq!(bench.drain(Overfull::Push), 0);
        assert_eq!([panics.take().len(), looks.take().len()], [1, 1]);
    }

    #[test]
    fn an_entry_of_nobodys_is_passed_over() {
        let mut bench = Bench::new();
        let wild = |address, size| Gathered { address, size, port: true, value: 9 };
        // Nowhere, across the end of a claim, and past every address.
        for entry in [wild(0, 1), wild(BASE + 15, 2), wild(u64::MAX, 8), wild(BASE + 16, 1)] {
            assert!(bench.ring.gather(Room::Exact, entry));
            bench.write(0, 5);
        }
        bench.drain(Overfull::Push);
        assert!(bench.is_empty());
        assert_eq!(bench.take(0), [5, 5, 5, 5]);
    }

    #[test]
    fn indices_that_cannot_be_end() {
        let mut bench = Bench::new();
        for (first, last) in [(u32::MAX, 3), (5, u32::MAX), (1, 0), (170, 171)] {
            bench.ring.corrupt(first, last);
            bench.drain(Overfull::Push);
            assert!(bench.is_empty());
        }
    }

    #[test]
    fn counters_tell_writes_that_cost_no_exit() {
        let mut bench = Bench::new();
        (0..7).for_each(|value| assert!(bench.write(1, value)));
        bench.drain(Overfull::Push);
        let claims = bench.claims.read().unwrap();
        let (_, claim) = claims.find(Space::Mmio, BASE, 1).unwrap();
        let counters = &claim.posted().unwrap().counters;
        assert_eq!((counters.writes(), counters.exits()), (7, 0));
    }
}
