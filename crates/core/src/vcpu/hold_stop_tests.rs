//! Reasons to stop that come while vCPUs are held out.

use std::time::Duration;

use super::*;

/// No test passes by it.
const LIMIT: Duration = Duration::from_secs(20);

/// Those that wait for the end of a hold, and those that have yet to wake after one.
fn waiters(hold: &Hold) -> (usize, usize) {
    let turn = hold.turn();
    (turn.waiting, turn.waking)
}

#[test]
fn a_stop_that_comes_while_held_is_obeyed_at_once_and_enters_nothing() {
    let hold = Hold::default();
    let vcpus = [Vcpu::of(&hold)];
    let (told, ended) = channel();
    thread::scope(|scope| {
        let _stopping = Stopping(&hold, &vcpus);
        let (hold, vcpu) = (&hold, &vcpus[0]);
        scope.spawn(move || told.send(vcpu.run(hold, || ())).unwrap());
        vcpu.wait_until_inside();
        let guard = hold.hold();
        let entries = vcpu.entries.load(SeqCst);
        while hold.turn().waiting == 0 {
            thread::yield_now();
        }
        vcpu.stop(hold);
        ended.recv_timeout(LIMIT).expect("it waits for the end of the hold").unwrap();
        assert_eq!((vcpu.entries.load(SeqCst), vcpu.is_inside()), (entries, false));
        assert_eq!(waiters(hold), (0, 0));
        drop(guard);
        drop(hold.hold());
    });
}

/// Lets the guest that sleeps go however the test ends.
struct Waking<'a>(&'a Vcpu);

impl Drop for Waking<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, SeqCst);
    }
}

#[test]
fn one_that_sleeps_inside_makes_no_other_deaf() {
    let hold = Hold::default();
    let (sleeper, vcpus) = (Vcpu::of(&hold), [Vcpu::of(&hold), Vcpu::of(&hold)]);
    let (told, ended) = channel();
    thread::scope(|scope| {
        let (hold, sleeper) = (&hold, &sleeper);
        let _waking = Waking(sleeper);
        let _stopping = Stopping(hold, &vcpus);
        // In a page that is missing: no `immediate_exit` and no signal gets it out.
        let asleep = || {
            while !sleeper.stop.load(SeqCst) {
                thread::yield_now();
            }
        };
        scope.spawn(move || hold.pass(&sleeper.inside, false, never, asleep).unwrap());
        sleeper.wait_until_inside();
        let holder = scope.spawn(|| drop(hold.hold()));
        while sleeper.pushed.load(SeqCst) == 0 {
            thread::yield_now();
        }
        // One has its reason before it comes, the other gets it while it waits.
        vcpus[0].stop.store(true, SeqCst);
        for vcpu in &vcpus {
            let told = told.clone();
            let stop = || vcpu.stop.load(SeqCst).then_some(());
            scope.spawn(move || told.send(hold.pass(&vcpu.inside, false, stop, || ()).unwrap()).unwrap());
        }
        let stopped = || ended.recv_timeout(LIMIT).expect("it waits for the one that sleeps");
        assert_eq!(stopped(), Passed::Stopped(()));
        while hold.turn().waiting == 0 {
            thread::yield_now();
        }
        vcpus[1].stop(hold);
        assert_eq!(stopped(), Passed::Stopped(()));
        assert!(sleeper.is_inside() && !holder.is_finished());
        assert_eq!(waiters(hold), (0, 0));
    });
}

/// A stop at any moment of a hold ends the run, and is counted right: the next hold waits for nobody who has gone.
#[test]
fn stops_and_holds_in_any_order_end() {
    let hold = Arc::new(Hold::default());
    let (told, done) = channel();
    let enough = Arc::new(AtomicBool::new(false));
    let holder = {
        let (hold, enough) = (Arc::clone(&hold), Arc::clone(&enough));
        thread::spawn(move || {
            while !enough.load(SeqCst) {
                drop(hold.hold());
            }
        })
    };
    for _ in 0..2_000 {
        let vcpu = Vcpu::of(&hold);
        let (hold_of_run, running, told) = (Arc::clone(&hold), Arc::clone(&vcpu), told.clone());
        thread::spawn(move || told.send(running.run(&hold_of_run, || ())).unwrap());
        vcpu.stop(&hold);
        done.recv_timeout(LIMIT).expect("a stop was lost").unwrap();
    }
    enough.store(true, SeqCst);
    holder.join().unwrap();
    assert_eq!(waiters(&hold), (0, 0));
}
