//! The ring without a kernel: a page that the test fills, as KVM of either kind does.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
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
