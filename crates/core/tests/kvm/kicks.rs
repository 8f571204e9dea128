//! Kicks at random moments: of a guest that runs, enters, exits, or stands idle.

use std::{
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::Instant,
};

use libtest_mimic::Trial;
use typevisor::{Exit, vcpu::Outcome};

use crate::{
    machine::{LIMIT, Machine, Op, start},
    stress::rounds,
    support::alone,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![alone("stress: every kick, at whatever moment, ends one run and no more", kicks)]
}

/// A guest that is in the guest nearly always, and one that is mostly on its way in or out.
const GUESTS: [&[Op]; 2] = [&[Op::Endless], &[Op::Load(7), Op::Out(0), Op::Again]];

fn kicks() {
    for (origin, ops) in (1..).zip(GUESTS) {
        for own_thread in [false, true] {
            let way = if own_thread { on_its_own_thread } else { on_the_caller_s };
            kicked(ops, way, origin, rounds(250, 2500));
        }
    }
}

/// Runs the vCPU until its next exit.
type Way = fn(&Machine, u64) -> Exit;

fn on_the_caller_s(machine: &Machine, _ticket: u64) -> Exit {
    machine.run()
}

fn on_its_own_thread(machine: &Machine, ticket: u64) -> Exit {
    match start(&machine.vcpu, ticket).recv_timeout(LIMIT).expect("a kick was lost").unwrap() {
        Outcome::Exit(exit) => exit,
        other => panic!("nobody has claimed {other:?}"),
    }
}

/// One kick after the other, each after the one before was seen: as many runs end by a kick as there were kicks.
fn kicked(ops: &[Op], way: Way, origin: u64, count: u32) {
    let machine = Arc::new(Machine::of(ops));
    let (seen, over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let runner = {
        let (machine, seen, over) = (Arc::clone(&machine), Arc::clone(&seen), Arc::clone(&over));
        thread::spawn(move || {
            let mut random = Random(!origin);
            for ticket in 0.. {
                if way(&machine, ticket) == Exit::Intr {
                    seen.fetch_add(1, SeqCst);
                    if over.load(SeqCst) {
                        return;
                    }
                    random.idle();
                }
            }
        })
    };
    let mut random = Random(origin);
    for kicks in 1..=count {
        random.idle();
        assert_eq!(seen.load(SeqCst), kicks - 1, "a run ended by a kick that was used up");
        over.store(kicks == count, SeqCst);
        machine.vcpu.kick().unwrap();
        let began = Instant::now();
        while seen.load(SeqCst) < kicks {
            assert!(began.elapsed() < LIMIT && !runner.is_finished(), "kick {kicks} of {ops:?} was lost");
            thread::yield_now();
        }
    }
    runner.join().unwrap();
    assert_eq!(seen.load(SeqCst), count);
}

/// xorshift64: the same moments relative to each other in every run, at others of the machine's.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From nothing to some ten microseconds, short ones as likely as long ones.
    fn idle(&mut self) {
        let longest = 1 << (self.next() % 12);
        for _ in 0..self.next() % longest {
            spin_loop();
        }
    }
}
