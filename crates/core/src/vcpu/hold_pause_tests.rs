//! The pause: when it is told, what it outlasts, and what ends it.

use std::{panic::resume_unwind, time::Duration};

use super::*;

/// No test passes by it.
const LIMIT: Duration = Duration::from_secs(20);

/// Pauses; what becomes of it is received.
fn pause(hold: &Hold) -> Receiver<Result<()>> {
    let (tell, told) = channel();
    hold.pause(Box::new(move |outcome| tell.send(outcome).unwrap())).unwrap();
    told
}

fn wait_for(told: &Receiver<Result<()>>) -> Result<()> {
    told.recv_timeout(LIMIT).expect("a pause was not told")
}

fn wait_until_waiting(hold: &Hold, runners: usize) {
    while hold.turn().waiting < runners {
        thread::yield_now();
    }
}

#[test]
fn nobody_is_inside_from_when_it_is_told_until_it_is_resumed() {
    let hold = Arc::new(Hold::default());
    let vcpus = Arc::new([(); 3].map(|()| Vcpu::of(&hold)));
    thread::scope(|scope| {
        let _stopping = Stopping(&hold, &*vcpus);
        for vcpu in &*vcpus {
            vcpu.spawn(scope, &hold);
        }
        for _ in 0..2_000 {
            let (tell, told) = channel();
            let them = Arc::clone(&vcpus);
            let paused = move |outcome: Result<()>| {
                let anybody = them.iter().any(|vcpu| vcpu.running.load(SeqCst));
                tell.send(outcome.map(|()| anybody)).unwrap();
            };
            hold.pause(Box::new(paused)).unwrap();
            assert!(!told.recv_timeout(LIMIT).expect("a pause was not told").unwrap());
            let entries = || vcpus.iter().map(|vcpu| vcpu.entries.load(SeqCst)).sum::<u32>();
            let before = entries();
            thread::yield_now();
            assert_eq!(entries(), before);
            hold.resume().unwrap();
        }
        for vcpu in vcpus.iter() {
            vcpu.wait_until_inside();
        }
    });
}

#[test]
fn without_a_vcpu_inside_it_is_told_at_once_and_again() {
    let hold = Hold::default();
    let _idle = Vcpu::of(&hold);
    for _ in 0..2 {
        pause(&hold).try_recv().unwrap().unwrap();
    }
    hold.resume().unwrap();
    hold.resume().unwrap(); // harmless
    assert!(!hold.closed.load(SeqCst));
}

/// A hold within a pause and a pause within a hold: the guest goes on when both are over.
#[test]
fn pauses_and_holds_nest_in_any_order() {
    let hold = Hold::default();
    let vcpus = [Vcpu::of(&hold)];
    let vcpu = &vcpus[0];
    thread::scope(|scope| {
        let _stopping = Stopping(&hold, &vcpus);
        vcpu.spawn(scope, &hold);
        for resumed_first in [false, true] {
            for paused_first in [false, true] {
                vcpu.wait_until_inside();
                let mut guard = (!paused_first).then(|| hold.hold());
                wait_for(&pause(&hold)).unwrap();
                guard.get_or_insert_with(|| hold.hold());
                wait_until_waiting(&hold, 1);
                let entries = vcpu.entries.load(SeqCst);
                if resumed_first {
                    hold.resume().unwrap();
                } else {
                    guard = None;
                }
                thread::yield_now();
                assert_eq!((vcpu.entries.load(SeqCst), vcpu.is_inside(), hold.turn().waiting), (entries, false, 1));
                drop(guard);
                hold.resume().unwrap();
            }
        }
        vcpu.wait_until_inside();
    });
}

/// As long as one sleeps in the kernel the pause is not complete; resuming it waits for that, and the others stop.
#[test]
fn one_that_sleeps_inside_delays_it_and_its_end_and_makes_no_other_deaf() {
    let hold = Hold::default();
    let (sleeper, vcpus) = (Vcpu::of(&hold), [Vcpu::of(&hold)]);
    let (wake, asleep): (Sender<()>, Receiver<()>) = channel();
    thread::scope(|scope| {
        let (hold, sleeper, wake) = (&hold, &sleeper, wake);
        let _stopping = Stopping(hold, &vcpus);
        scope.spawn(move || hold.pass(&sleeper.inside, false, never, || asleep.recv()).unwrap());
        let other = vcpus[0].spawn(scope, hold);
        sleeper.wait_until_inside();
        let first = pause(hold);
        wait_until_waiting(hold, 1);
        let second = pause(hold);
        hold.resume().unwrap();
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
        assert!(!vcpus[0].is_inside(), "it was let go before the pause was complete");
        vcpus[0].stop(hold);
        other.join().unwrap().unwrap();
        drop(wake);
        wait_for(&first).unwrap();
        wait_for(&second).unwrap();
    });
    assert!(!hold.closed.load(SeqCst), "it was resumed");
}

#[test]
fn a_vcpu_made_or_started_meanwhile_waits_too_and_a_stop_ends_it() {
    let hold = Hold::default();
    wait_for(&pause(&hold)).unwrap();
    let vcpu = Vcpu::of(&hold);
    thread::scope(|scope| {
        let runner = vcpu.spawn(scope, &hold);
        wait_until_waiting(&hold, 1);
        vcpu.stop(&hold);
        runner.join().unwrap().unwrap();
    });
    assert_eq!((vcpu.entries.load(SeqCst), hold.turn().waiting), (0, 0));
}

#[test]
fn who_is_told_may_pause_and_resume_and_panic() {
    let hold = Arc::new(Hold::default());
    let vcpus = [Vcpu::of(&hold)];
    thread::scope(|scope| {
        let _stopping = Stopping(&hold, &vcpus);
        vcpus[0].spawn(scope, &hold);
        for _ in 0..200 {
            vcpus[0].wait_until_inside();
            let (tell, told) = channel();
            let within = Arc::clone(&hold);
            let paused = move |outcome: Result<()>| {
                let again = pause(&within);
                within.resume().unwrap();
                tell.send((outcome, again)).unwrap();
                resume_unwind(Box::new("a program's own"));
            };
            hold.pause(Box::new(paused)).unwrap();
            let (outcome, again) = told.recv_timeout(LIMIT).expect("a pause was not told");
            outcome.unwrap();
            wait_for(&again).unwrap(); // at once, but where a vCPU that looks whether it may enter seems to be inside
        }
        vcpus[0].wait_until_inside();
    });
}

#[test]
fn the_end_of_the_vm_is_told_to_who_waits_and_nobody_pauses_any_more() {
    let hold = Hold::default();
    let vcpu = Vcpu::of(&hold);
    let (wake, asleep): (Sender<()>, Receiver<()>) = channel();
    thread::scope(|scope| {
        let (hold, vcpu, wake) = (&hold, &vcpu, wake);
        scope.spawn(move || hold.pass(&vcpu.inside, false, never, || asleep.recv()).unwrap());
        vcpu.wait_until_inside();
        let told = pause(hold);
        hold.end_pauses();
        hold.end_pauses();
        assert!(matches!(told.try_recv().unwrap(), Err(Error::Closed { what: "VM" })));
        drop(wake);
    });
    assert!(matches!(hold.pause(Box::new(|_| ())), Err(Error::Closed { .. })));
    assert!(matches!(hold.resume(), Err(Error::Closed { .. })));
}

#[test]
fn a_vm_that_is_poisoned_while_paused_says_so() {
    let hold = Hold::default();
    let vcpu = Vcpu::of(&hold);
    thread::scope(|scope| {
        let runner = vcpu.spawn(scope, &hold);
        vcpu.wait_until_inside();
        wait_for(&pause(&hold)).unwrap();
        let guard = hold.hold();
        hold.poison();
        drop(guard);
        assert!(matches!(runner.join().unwrap(), Err(Error::Poisoned { .. })));
    });
    wait_for(&pause(&hold)).unwrap();
    hold.resume().unwrap();
    assert!(hold.closed.load(SeqCst));
}

/// Pauses, holds and stops from many sides: all of them end, and the counts come out even.
#[test]
fn pauses_holds_and_stops_in_any_order_end() {
    let hold = Hold::default();
    let vcpus = [(); 3].map(|()| Vcpu::of(&hold));
    thread::scope(|scope| {
        let _stopping = Stopping(&hold, &vcpus);
        for vcpu in &vcpus {
            vcpu.spawn(scope, &hold);
        }
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let told = pause(&hold);
                        wait_for(&told).unwrap();
                        hold.resume().unwrap();
                    }
                });
            }
            scope.spawn(|| (0..500).for_each(|_| drop(hold.hold())));
        });
        for vcpu in &vcpus {
            vcpu.wait_until_inside();
        }
    });
    let turn = hold.turn();
    assert_eq!((turn.waiting, turn.waking, turn.pauses.untold, turn.pauses.pending.len()), (0, 0, 0, 0));
}

/// One who alone can end a pause is told so; what ends without him is waited for.
#[test]
fn one_who_alone_can_end_it_does_not_wait_for_that() {
    let hold = Hold::default();
    let vcpu = Vcpu::of(&hold);
    let alone = |stop: Option<()>| hold.pass(&vcpu.inside, true, || stop, || ());
    wait_for(&pause(&hold)).unwrap();
    assert!(matches!(alone(None), Err(Error::WouldDeadlock { .. })));
    assert_eq!(alone(Some(())).unwrap(), Passed::Stopped(()), "a reason to stop comes first");
    assert!(!vcpu.is_inside());
    hold.resume().unwrap();
    assert_eq!(alone(None).unwrap(), Passed::Entered(()));
    thread::scope(|scope| {
        let guard = hold.hold();
        let entering = scope.spawn(|| alone(None).unwrap());
        wait_until_waiting(&hold, 1);
        drop(guard);
        assert_eq!(entering.join().unwrap(), Passed::Entered(()));
        let guard = hold.hold();
        let entering = scope.spawn(|| alone(None));
        wait_until_waiting(&hold, 1);
        let paused = pause(&hold); // while it waits for the end of a change
        assert!(matches!(entering.join().unwrap(), Err(Error::WouldDeadlock { .. })));
        drop(guard);
        wait_for(&paused).unwrap();
    });
    let turn = hold.turn();
    assert_eq!((turn.waiting, turn.waking), (0, 0));
}
