//! Holds and pauses against vCPUs on their way in and out, and against stops.

use std::sync::Arc;

use crate::{
    memory::HoldOut,
    sync::{Condvar, Mutex, thread},
    vcpu::{
        hold::Hold,
        machine::{CLOSED, EXITED, KICKED, OF_THREE, OF_TWO, Out, Vcpu, explore},
    },
};

/// Holds, and lets go.
fn hold_once(hold: &Hold, vcpus: &[&Vcpu]) {
    let guard = hold.hold();
    let out = Out::of(vcpus);
    drop(out);
    drop(guard);
}

#[test]
fn nobody_is_in_the_guest_while_it_is_held_and_all_go_on() {
    explore(OF_TWO, |hold| {
        let vcpu = Vcpu::new(hold, 0);
        let run = vcpu.start(1);
        hold_once(hold, &[&vcpu]);
        vcpu.control.kick();
        assert_eq!(run.join().unwrap(), KICKED);
    });
}

#[test]
fn an_exit_on_the_way_out_is_not_waited_for_twice() {
    explore(OF_TWO, |hold| {
        let vcpu = Vcpu::new(hold, 1);
        let run = vcpu.start(1);
        hold_once(hold, &[&vcpu]);
        assert_eq!(run.join().unwrap(), EXITED);
    });
}

#[test]
fn two_who_hold_take_turns() {
    explore(OF_THREE, |hold| {
        let vcpu = Vcpu::new(hold, 0);
        let run = vcpu.start(1);
        let other = {
            let (hold, vcpu) = (Arc::clone(hold), Arc::clone(&vcpu));
            thread::spawn(move || hold_once(&hold, &[&vcpu]))
        };
        hold_once(hold, &[&vcpu]);
        other.join().unwrap();
        vcpu.control.kick();
        assert_eq!(run.join().unwrap(), KICKED);
    });
}

#[test]
fn two_vcpus_are_held_by_one() {
    explore(OF_THREE, |hold| {
        let vcpus = [Vcpu::new(hold, 0), Vcpu::new(hold, 0)];
        let runs = [vcpus[0].start(1), vcpus[1].start(1)];
        hold_once(hold, &[&vcpus[0], &vcpus[1]]);
        for vcpu in &vcpus {
            vcpu.control.close();
        }
        for run in runs {
            assert_eq!(run.join().unwrap(), CLOSED);
        }
    });
}

/// The run ends while the hold is on: whoever holds waits for it.
#[test]
fn a_stop_while_held_ends_the_run_there() {
    explore(OF_TWO, |hold| {
        let vcpu = Vcpu::new(hold, 0);
        let run = vcpu.start(1);
        let held = hold.hold();
        let out = Out::of(&[&vcpu]);
        vcpu.control.kick();
        assert_eq!(run.join().unwrap(), KICKED);
        drop(out);
        drop(held);
        let next = vcpu.start(2);
        vcpu.control.close();
        assert_eq!(next.join().unwrap(), CLOSED, "the kick was used up");
    });
}

#[test]
fn a_stop_beside_a_hold_is_not_lost() {
    explore(OF_THREE, |hold| {
        let vcpu = Vcpu::new(hold, 0);
        let run = vcpu.start(1);
        let kicker = {
            let vcpu = Arc::clone(&vcpu);
            thread::spawn(move || vcpu.control.kick())
        };
        let held = hold.hold();
        let out = Out::of(&[&vcpu]);
        assert_eq!(run.join().unwrap(), KICKED);
        drop(out);
        drop(held);
        kicker.join().unwrap();
    });
}

#[test]
fn a_poisoned_vm_lets_nobody_in() {
    explore(OF_TWO, |hold| {
        let vcpu = Vcpu::new(hold, 0);
        let run = vcpu.start(1);
        let held = hold.hold();
        let _out = Out::of(&[&vcpu]); // for good
        hold.poison();
        drop(held);
        assert_eq!(run.join().unwrap(), Err(crate::error::Error::Poisoned));
    });
}

/// Told once, by whichever thread.
#[derive(Default)]
struct Told {
    so: Mutex<bool>,
    changed: Condvar,
}

impl Told {
    fn wait(&self) {
        let mut so = self.so.lock().unwrap();
        while !*so {
            so = self.changed.wait(so).unwrap();
        }
    }
}

/// Pauses, and waits until that is told. While it is told nobody enters, whoever resumes.
fn pause(hold: &Hold, vcpu: &Arc<Vcpu>) {
    let told = Arc::new(Told { so: Mutex::new(false), changed: Condvar::new() });
    let (tell, watched) = (Arc::clone(&told), Arc::clone(vcpu));
    let paused = move |outcome: crate::error::Result<()>| {
        outcome.unwrap();
        let out = Out::of(&[&watched]);
        *tell.so.lock().unwrap() = true;
        tell.changed.notify_one();
        drop(out);
    };
    hold.pause(Box::new(paused)).unwrap();
    told.wait();
}

#[test]
fn a_pause_is_told_when_nobody_is_inside_and_all_go_on_after_it() {
    explore(OF_TWO, |hold| {
        let vcpu = Vcpu::new(hold, 0);
        let run = vcpu.start(1);
        pause(hold, &vcpu);
        let out = Out::of(&[&vcpu]);
        drop(out);
        hold.resume().unwrap();
        vcpu.control.kick();
        assert_eq!(run.join().unwrap(), KICKED);
    });
}

#[test]
fn a_stop_ends_a_paused_run() {
    explore(OF_TWO, |hold| {
        let vcpu = Vcpu::new(hold, 0);
        let run = vcpu.start(1);
        pause(hold, &vcpu);
        let out = Out::of(&[&vcpu]);
        vcpu.control.close();
        assert_eq!(run.join().unwrap(), CLOSED);
        drop(out);
    });
}

#[test]
fn a_pause_beside_a_hold_outlasts_it() {
    explore(OF_THREE, |hold| {
        let vcpu = Vcpu::new(hold, 0);
        let run = vcpu.start(1);
        let holder = {
            let (hold, vcpu) = (Arc::clone(hold), Arc::clone(&vcpu));
            thread::spawn(move || hold_once(&hold, &[&vcpu]))
        };
        pause(hold, &vcpu);
        let out = Out::of(&[&vcpu]);
        holder.join().unwrap();
        drop(out);
        hold.resume().unwrap();
        vcpu.control.kick();
        assert_eq!(run.join().unwrap(), KICKED);
    });
}
