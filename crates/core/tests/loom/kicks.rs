//! Kicks, cancellations and closing. A stop that was lost leaves a guest that runs for ever, which loom tells as a deadlock.

use std::sync::Arc;

use crate::{
    sync::thread,
    vcpu::machine::{CANCELLED, CLOSED, EXITED, KICKED, OF_THREE, OF_TWO, Vcpu, explore},
};

#[test]
fn a_kick_at_any_moment_ends_one_run_and_no_more() {
    explore(OF_TWO, |hold| {
        let vcpu = Vcpu::new(hold, 0);
        let run = vcpu.start(1);
        vcpu.control.kick();
        assert_eq!(run.join().unwrap(), KICKED);
        let next = vcpu.start(2);
        vcpu.control.close();
        assert_eq!(next.join().unwrap(), CLOSED, "the kick was used up");
    });
}

#[test]
fn a_kick_that_an_exit_forestalls_is_for_the_next_run() {
    explore(OF_TWO, |hold| {
        let vcpu = Vcpu::new(hold, 1);
        let run = vcpu.start(1);
        vcpu.control.kick();
        let end = run.join().unwrap();
        if end == EXITED {
            assert_eq!(vcpu.run(2), KICKED);
        } else {
            assert_eq!((end, vcpu.run(2)), (KICKED, EXITED));
        }
        vcpu.control.close();
        assert_eq!(vcpu.run(3), CLOSED);
    });
}

#[test]
fn two_who_kick_end_one_run_or_two() {
    explore(OF_THREE, |hold| {
        let vcpu = Vcpu::new(hold, 0);
        let run = vcpu.start(1);
        let other = {
            let vcpu = Arc::clone(&vcpu);
            thread::spawn(move || vcpu.control.kick())
        };
        vcpu.control.kick();
        assert_eq!(run.join().unwrap(), KICKED);
        other.join().unwrap();
        // The second kick came before the first was used up, or it is for the next run; a third is for either.
        vcpu.control.kick();
        assert_eq!(vcpu.run(2), KICKED);
        vcpu.control.close();
        assert_eq!(vcpu.run(3), CLOSED);
    });
}

#[test]
fn a_cancellation_ends_its_run_and_no_other() {
    explore(OF_TWO, |hold| {
        let vcpu = Vcpu::new(hold, 0);
        let run = vcpu.start(1);
        vcpu.control.cancel(7); // of no run
        vcpu.control.cancel(1);
        assert_eq!(run.join().unwrap(), CANCELLED);
        let next = vcpu.start(2);
        vcpu.control.cancel(1);
        vcpu.control.kick();
        assert_eq!(next.join().unwrap(), KICKED);
    });
}

#[test]
fn a_cancellation_that_an_exit_forestalls_is_forgotten() {
    explore(OF_TWO, |hold| {
        let vcpu = Vcpu::new(hold, 1);
        let run = vcpu.start(1);
        vcpu.control.cancel(1);
        let end = run.join().unwrap();
        assert!(end == EXITED || end == CANCELLED, "{end:?}");
        let next = vcpu.start(2);
        vcpu.control.kick();
        let later = next.join().unwrap();
        assert!(later == KICKED || (end, later) == (CANCELLED, EXITED));
    });
}

#[test]
fn a_kick_beside_a_cancellation_is_not_lost() {
    explore(OF_THREE, |hold| {
        let vcpu = Vcpu::new(hold, 0);
        let run = vcpu.start(1);
        let other = {
            let vcpu = Arc::clone(&vcpu);
            thread::spawn(move || vcpu.control.cancel(1))
        };
        vcpu.control.kick();
        let end = run.join().unwrap();
        other.join().unwrap();
        if end == CANCELLED {
            assert_eq!(vcpu.run(2), KICKED);
        } else {
            assert_eq!(end, KICKED);
        }
        vcpu.control.close();
        assert_eq!(vcpu.run(3), CLOSED);
    });
}

#[test]
fn closing_ends_the_run_at_any_moment_and_every_later_one() {
    explore(OF_THREE, |hold| {
        let vcpu = Vcpu::new(hold, 0);
        let run = vcpu.start(1);
        let kicker = {
            let vcpu = Arc::clone(&vcpu);
            thread::spawn(move || vcpu.control.kick())
        };
        vcpu.control.close();
        let end = run.join().unwrap();
        assert!(end == CLOSED || end == KICKED, "{end:?}");
        kicker.join().unwrap();
        vcpu.control.release();
        vcpu.control.kick(); // harmless
        assert_eq!(vcpu.run(2), CLOSED);
    });
}
