//! The hold against stand-ins for vCPUs whose `KVM_RUN` lasts until somebody makes it return.
#![expect(unsafe_code, reason = "forks")]

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU32, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, Scope, ScopedJoinHandle},
};

use super::*;

#[path = "hold_pause_tests.rs"]
mod pauses;
#[path = "hold_stop_tests.rs"]
mod stops;

/// A vCPU, its control and its guest.
#[derive(Default)]
struct Vcpu {
    inside: AtomicBool,
    /// The byte of the `kvm_run` page and the signal in one: `KVM_RUN` returns while it is set.
    immediate_exit: AtomicBool,
    /// The program's request to stop.
    stop: AtomicBool,
    /// In `KVM_RUN`. `inside` is also set for a moment by who finds the VM closed and stands back.
    running: AtomicBool,
    entries: AtomicU32,
    pushed: AtomicU32,
}

impl Occupant for Vcpu {
    fn is_inside(&self) -> bool {
        self.inside.load(SeqCst)
    }

    fn push_out(&self) {
        self.pushed.fetch_add(1, SeqCst);
        self.immediate_exit.store(true, SeqCst);
    }
}

impl Vcpu {
    fn of(hold: &Hold) -> Arc<Self> {
        let vcpu = Arc::new(Self::default());
        let weak: Weak<Self> = Arc::downgrade(&vcpu);
        hold.add(weak);
        vcpu
    }

    /// As the engine does: forget earlier exits, look for a reason to stop, enter. `guest` runs inside.
    fn run(&self, hold: &Hold, guest: impl Fn()) -> Result<()> {
        loop {
            self.immediate_exit.store(false, SeqCst);
            if self.stop.load(SeqCst) {
                return Ok(());
            }
            let enter = || {
                self.running.store(true, SeqCst);
                self.entries.fetch_add(1, SeqCst);
                guest();
                while !self.immediate_exit.load(SeqCst) {
                    thread::yield_now();
                }
                self.running.store(false, SeqCst);
            };
            if hold.pass(&self.inside, false, || self.stop.load(SeqCst).then_some(()), enter)? == Passed::Stopped(()) {
                return Ok(());
            }
        }
    }

    fn spawn<'s>(self: &'s Arc<Self>, scope: &'s Scope<'s, '_>, hold: &'s Hold) -> ScopedJoinHandle<'s, Result<()>> {
        scope.spawn(|| self.run(hold, || ()))
    }

    fn stop(&self, hold: &Hold) {
        self.stop.store(true, SeqCst);
        self.immediate_exit.store(true, SeqCst);
        hold.wake_to_stop();
    }

    fn wait_until_inside(&self) {
        while !self.is_inside() {
            thread::yield_now();
        }
    }
}

/// Ends the runs of its vCPUs however the test ends: a scope waits for its threads.
struct Stopping<'a>(&'a Hold, &'a [Arc<Vcpu>]);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.1.iter().for_each(|vcpu| vcpu.stop(self.0));
    }
}

/// No reason to stop.
fn never() -> Option<()> {
    None
}

#[test]
fn nobody_is_in_the_guest_while_it_is_held_and_all_come_back() {
    let hold = Hold::default();
    let vcpus = [(); 3].map(|()| Vcpu::of(&hold));
    let inside = AtomicU32::new(0);
    thread::scope(|scope| {
        let _stopping = Stopping(&hold, &vcpus);
        for vcpu in &vcpus {
            scope.spawn(|| {
                let guest = || {
                    inside.fetch_add(1, SeqCst);
                    thread::yield_now();
                    inside.fetch_sub(1, SeqCst);
                };
                vcpu.run(&hold, guest).unwrap();
            });
        }
        for _ in 0..2_000 {
            let guard = hold.hold();
            assert!(vcpus.iter().all(|vcpu| !vcpu.running.load(SeqCst)));
            assert_eq!(inside.load(SeqCst), 0);
            thread::yield_now();
            assert_eq!(inside.load(SeqCst), 0);
            drop(guard);
        }
        for vcpu in &vcpus {
            vcpu.wait_until_inside();
        }
    });
}

#[test]
fn two_who_hold_take_turns() {
    let hold = Hold::default();
    let vcpus = [Vcpu::of(&hold)];
    let holders = AtomicU32::new(0);
    thread::scope(|scope| {
        let _stopping = Stopping(&hold, &vcpus);
        vcpus[0].spawn(scope, &hold);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let guard = hold.hold();
                        assert_eq!(holders.fetch_add(1, SeqCst), 0);
                        assert!(!vcpus[0].running.load(SeqCst));
                        holders.fetch_sub(1, SeqCst);
                        drop(guard);
                    }
                });
            }
        });
        vcpus[0].wait_until_inside();
    });
}

/// The next hold finds all awake that the last one held: they have gone on, or try to.
#[test]
fn holds_without_a_pause_let_vcpus_on_between_them() {
    let hold = Hold::default();
    let vcpu = Vcpu::of(&hold);
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut guard = hold.hold();
        scope.spawn(|| {
            while !enough.load(SeqCst) {
                hold.stand_back(&vcpu.inside, false, &never).unwrap();
            }
        });
        for _ in 0..200 {
            while hold.turn().waiting == 0 {
                thread::yield_now();
            }
            drop(guard);
            guard = hold.hold();
            assert_eq!(hold.turn().waking, 0);
        }
        enough.store(true, SeqCst);
        drop(guard);
    });
}

#[test]
fn a_vcpu_outside_delays_nobody_and_is_not_disturbed() {
    let hold = Hold::default();
    let vcpu = Vcpu::of(&hold); // parked at a device's gate, between two steps, or idle
    drop(hold.hold());
    assert_eq!(vcpu.pushed.load(SeqCst), 0);
    assert!(!vcpu.immediate_exit.load(SeqCst));
}

#[test]
fn a_vcpu_made_or_started_meanwhile_waits_too() {
    let hold = Hold::default();
    let idle = Vcpu::of(&hold);
    let guard = hold.hold();
    let vcpus = [idle, Vcpu::of(&hold)];
    thread::scope(|scope| {
        let _stopping = Stopping(&hold, &vcpus);
        for vcpu in &vcpus {
            vcpu.spawn(scope, &hold);
        }
        while hold.turn().waiting < 2 {
            thread::yield_now();
        }
        assert!(vcpus.iter().all(|vcpu| vcpu.entries.load(SeqCst) == 0));
        drop(guard);
        for vcpu in &vcpus {
            vcpu.wait_until_inside();
        }
    });
}

/// From a device: on the thread of a vCPU that is in no `KVM_RUN`, while another is.
#[test]
fn a_vcpu_s_own_thread_may_hold() {
    let hold = Hold::default();
    let vcpus = [Vcpu::of(&hold), Vcpu::of(&hold)];
    let both = Barrier::new(2);
    thread::scope(|scope| {
        let runners: Vec<_> = vcpus
            .iter()
            .map(|vcpu| {
                let (hold, both) = (&hold, &both);
                scope.spawn(move || {
                    for _ in 0..200 {
                        hold.pass(&vcpu.inside, false, never, || ()).unwrap();
                        both.wait();
                        drop(hold.hold());
                    }
                })
            })
            .collect();
        for runner in runners {
            runner.join().unwrap();
        }
    });
}

#[test]
fn a_poisoned_vm_lets_none_in_any_more() {
    let hold = Hold::default();
    let vcpu = Vcpu::of(&hold);
    thread::scope(|scope| {
        let runner = vcpu.spawn(scope, &hold);
        vcpu.wait_until_inside();
        let guard = hold.hold();
        hold.poison();
        drop(guard);
        assert!(matches!(runner.join().unwrap(), Err(Error::Poisoned { what: "VM", .. })));
    });
    let entries = vcpu.entries.load(SeqCst);
    for vcpu in [vcpu.clone(), Vcpu::of(&hold)] {
        assert!(matches!(vcpu.run(&hold, || ()), Err(Error::Poisoned { .. })));
        assert!(!vcpu.is_inside());
    }
    assert_eq!(vcpu.entries.load(SeqCst), entries);
    drop(hold.hold()); // whoever comes to hold does not wait for ever
}

#[test]
fn a_closed_vcpu_is_forgotten() {
    let hold = Hold::default();
    for _ in 0..10 {
        drop(Vcpu::of(&hold));
    }
    assert_eq!(hold.turn().vcpus.len(), 1);
    drop(hold.hold());
}

/// The one who holds is not in the child, nor is whoever has the lock.
#[test]
fn a_forked_child_does_not_wait_for_a_thread_of_its_parent() {
    let hold = Hold::default();
    let inside = AtomicBool::new(false);
    let guard = hold.hold();
    let turn = hold.turn();
    // SAFETY: the child takes no lock and allocates nothing, then leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = matches!(hold.pass(&inside, false, never, || ()), Err(Error::Forked));
        hold.wake();
        hold.wake_to_stop();
        // SAFETY: takes an integer; runs no destructor and no handler of the parent's.
        unsafe { libc::_exit(if refused { 7 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 7);
    drop((turn, guard));
}

/// A runner that comes out without having been asked to wakes whoever waits for it.
#[test]
fn one_that_leaves_by_itself_is_not_waited_for() {
    let hold = Hold::default();
    let vcpu = Vcpu::of(&hold);
    let (go, leave): (Sender<()>, Receiver<()>) = channel();
    thread::scope(|scope| {
        let (hold, vcpu) = (&hold, &vcpu);
        scope.spawn(move || hold.pass(&vcpu.inside, false, never, || leave.recv()).unwrap());
        vcpu.wait_until_inside();
        let holder = scope.spawn(|| drop(hold.hold()));
        while vcpu.pushed.load(SeqCst) == 0 {
            thread::yield_now();
        }
        go.send(()).unwrap();
        holder.join().unwrap();
    });
}
