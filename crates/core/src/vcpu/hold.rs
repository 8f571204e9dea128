//! Holds all vCPUs of a VM out of `KVM_RUN`: for a change of its memory that takes several ioctls, as a guest would see
//! between two of them what is neither the old nor the new; and while the program has the VM paused. A held runner waits
//! before the system call, with whatever completion is pending as it is, and goes on by itself or ends where it stands. Why
//! it is safe: docs/design/vcpu.md, "The hold" and "The pause".

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{PoisonError, Weak},
};

use crate::{
    error::{Error, Result},
    memory::{Held, HoldOut},
    sync::{
        Condvar, Mutex, MutexGuard, WINDOW,
        atomic::{AtomicBool, Ordering},
        thread,
    },
    sys::fork,
};

/// A vCPU as the hold knows it.
pub(super) trait Occupant: Send + Sync {
    /// Whether it is in `KVM_RUN`, or about to be.
    fn is_inside(&self) -> bool;

    /// Makes its `KVM_RUN` return, be it under way or yet to come; nothing that the program would see.
    fn push_out(&self);
}

/// What came of trying to enter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passed<T, S> {
    Entered(T),
    /// Held out, and there is a reason to stop: `enter` was not called.
    Stopped(S),
}

/// Called once: when no vCPU is in the guest, and before any can be again, or with what came first.
pub(crate) type Paused = Box<dyn FnOnce(Result<()>) + Send>;

/// The hold on the vCPUs of one VM.
pub(crate) struct Hold {
    /// No vCPU shall enter. Partner: a vCPU's own `inside`. Both sides store theirs and then load the other's, all
    /// `SeqCst`: in the total order of these one of them sees the other.
    closed: AtomicBool,
    turn: Mutex<Turn>,
    /// A vCPU came out or is to stop, a hold ended, or the last of those that it had held went on.
    changed: Condvar,
    /// [`fork::generation`] of the process the VM belongs to.
    generation: u32,
}

#[derive(Default)]
struct Turn {
    /// A thread holds, or waits for vCPUs to come out.
    held: bool,
    /// Grows with each hold that ends.
    epoch: u64,
    /// Runners that wait for this hold to end.
    waiting: usize,
    /// Runners of holds that have ended which have yet to wake. The next hold lets them go first: a guest gets its turn
    /// between two, however closely they follow each other.
    waking: usize,
    poisoned: bool,
    pauses: Pauses,
    vcpus: Vec<Weak<dyn Occupant>>,
}

/// What the program's pauses have come to.
#[derive(Default)]
struct Pauses {
    /// The program has paused the VM.
    on: bool,
    /// Those that vCPUs have yet to come out for.
    pending: Vec<Paused>,
    /// Those whose end has yet to be told, the pending ones and those that are being told: the guest stands still until
    /// then, whoever resumes.
    untold: usize,
    /// The VM closes: nobody pauses it any more.
    ended: bool,
}

impl Turn {
    /// Whether a runner is to wait. Nobody resumes a poisoned VM: it only says so.
    fn is_shut(&self) -> bool {
        self.held || (!self.poisoned && (self.pauses.on || self.pauses.untold > 0))
    }

    fn is_anyone_inside(&self) -> bool {
        self.vcpus.iter().filter_map(Weak::upgrade).any(|vcpu| vcpu.is_inside())
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self {
            closed: AtomicBool::new(false),
            turn: Mutex::default(),
            changed: Condvar::new(),
            generation: fork::generation(),
        }
    }
}

impl Hold {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, turn: MutexGuard<'a, Turn>) -> MutexGuard<'a, Turn> {
        self.changed.wait(turn).unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new vCPU under the hold, before its first entry.
    pub(super) fn add(&self, vcpu: Weak<dyn Occupant>) {
        let mut turn = self.turn();
        turn.vcpus.retain(|vcpu| vcpu.strong_count() > 0);
        turn.vcpus.push(vcpu);
    }

    /// Runs `enter`, which is `KVM_RUN`, as the vCPU whose flag `inside` is, once nobody holds it out, or until `stop` gives
    /// a reason to give up waiting for that. One who is `alone` is the only one who ends a pause, and does not wait for that.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Forked`], [`Error::WouldDeadlock`]; `enter` was not called then.
    pub(super) fn pass<T, S>(
        &self,
        inside: &AtomicBool,
        alone: bool,
        stop: impl Fn() -> Option<S>,
        enter: impl FnOnce() -> T,
    ) -> Result<Passed<T, S>> {
        let late = cfg!(broken = "hold-window");
        inside.store(!late, Ordering::SeqCst);
        while self.closed.load(Ordering::SeqCst) {
            if let Some(stop) = self.stand_back(inside, alone, &stop)? {
                return Ok(Passed::Stopped(stop));
            }
            inside.store(!late, Ordering::SeqCst);
        }
        if late {
            thread::sleep(WINDOW);
            inside.store(true, Ordering::SeqCst);
        }
        let result = enter();
        inside.store(false, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) {
            self.came_out();
        }
        Ok(Passed::Entered(result))
    }

    /// A runner has cleared its `inside` and found the gate closed.
    #[cold]
    fn came_out(&self) {
        if self.generation == fork::generation() {
            let turn = self.turn();
            self.changed.notify_all();
            drop(self.tell(turn));
        }
    }

    /// Somebody may wait for a vCPU to be out, or a vCPU for the end of a hold.
    fn wake(&self) {
        if self.generation == fork::generation() {
            let _turn = self.turn(); // whoever looks at `inside`, or for a reason to stop, has looked, and waits
            self.changed.notify_all();
        }
    }

    /// A vCPU got a reason to stop: if it is held out it finds that now. The reason is stored before this looks at `closed`,
    /// which is set before a runner looks for a reason: one of the two sees the other's. Whoever holds takes a vCPU's
    /// control under this lock, so not under that.
    pub(super) fn wake_to_stop(&self) {
        if self.closed.load(Ordering::SeqCst) && !cfg!(broken = "hold-deaf") {
            self.wake();
        }
    }

    /// Waits until the hold that is on has ended, or `stop` gives a reason not to: a hold lasts for as long as one vCPU
    /// sleeps in the kernel, and the others must not be deaf for that.
    #[cold]
    fn stand_back<S>(&self, inside: &AtomicBool, alone: bool, stop: &impl Fn() -> Option<S>) -> Result<Option<S>> {
        inside.store(false, Ordering::SeqCst);
        if self.generation != fork::generation() {
            return Err(Error::Forked); // the one who holds is not in this process
        }
        let turn = self.turn();
        self.changed.notify_all();
        let mut turn = self.tell(turn);
        let (mut reason, mut deadlock) = (None, false);
        if turn.is_shut() {
            let epoch = turn.epoch;
            turn.waiting += 1;
            while turn.epoch == epoch && reason.is_none() && !deadlock {
                reason = stop();
                // A pause may begin while this waits for the end of a change, too.
                deadlock = alone && turn.pauses.on && reason.is_none();
                if reason.is_none() && !deadlock {
                    turn = self.wait(turn);
                }
            }
            // The end of a hold has counted all that waited as waking.
            if turn.epoch == epoch {
                turn.waiting -= 1;
            } else {
                turn.waking -= 1;
            }
            self.changed.notify_all();
        }
        if turn.poisoned {
            Err(Error::SLOTS_POISONED)
        } else if deadlock {
            Err(Error::WouldDeadlock { what: "a run on the thread that alone can resume its VM" })
        } else {
            Ok(reason)
        }
    }

    fn release(&self) {
        let mut turn = self.turn();
        turn.held = false;
        self.open(&mut turn);
    }

    /// Lets runners go unless something else keeps them out.
    fn open(&self, turn: &mut Turn) {
        if !turn.is_shut() {
            turn.epoch += 1;
            turn.waking += std::mem::take(&mut turn.waiting);
            self.closed.store(turn.poisoned, Ordering::SeqCst);
        }
        self.changed.notify_all();
    }
}

/// The pause: a hold that the program asks for and ends, without a thread of its own.
impl Hold {
    /// Keeps every vCPU out from here on. `paused` is called when none is inside any more, by the thread that came out last,
    /// or at once: it must not wait for a vCPU. Where the VM is paused already it is the same.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`]; `paused` is not called then. It gets [`Error::Closed`] where the VM closes
    /// before.
    pub(crate) fn pause(&self, paused: Paused) -> Result<()> {
        let mut turn = self.open_turn()?;
        turn.pauses.on = true;
        turn.pauses.pending.push(paused);
        turn.pauses.untold += 1;
        self.closed.store(true, Ordering::SeqCst);
        let vcpus = turn.vcpus.iter().filter_map(Weak::upgrade);
        vcpus.filter(|vcpu| vcpu.is_inside()).for_each(|vcpu| vcpu.push_out());
        drop(self.tell(turn));
        Ok(())
    }

    /// Ends the pause; harmless where there is none. One that is not complete is completed first.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub(crate) fn resume(&self) -> Result<()> {
        let mut turn = self.open_turn()?;
        turn.pauses.on = false;
        self.open(&mut turn);
        Ok(())
    }

    /// The VM closes: who waits for a pause hears of that.
    pub(crate) fn end_pauses(&self) {
        if let Ok(mut turn) = self.open_turn() {
            turn.pauses.ended = true;
            drop(self.tell_all(turn, || Err(Error::Closed { what: "VM" })));
        }
    }

    fn open_turn(&self) -> Result<MutexGuard<'_, Turn>> {
        if self.generation != fork::generation() {
            return Err(Error::Forked);
        }
        let turn = self.turn();
        if turn.pauses.ended { Err(Error::Closed { what: "VM" }) } else { Ok(turn) }
    }

    /// Tells those who wait for a pause, if it is complete.
    fn tell<'a>(&'a self, turn: MutexGuard<'a, Turn>) -> MutexGuard<'a, Turn> {
        let somebody_is = turn.is_anyone_inside() && !cfg!(broken = "pause-early");
        if turn.pauses.pending.is_empty() || somebody_is { turn } else { self.tell_all(turn, || Ok(())) }
    }

    /// Without the lock, as who is told may pause or resume.
    fn tell_all<'a>(&'a self, mut turn: MutexGuard<'a, Turn>, what: impl Fn() -> Result<()>) -> MutexGuard<'a, Turn> {
        let told = std::mem::take(&mut turn.pauses.pending);
        drop(turn);
        let count = told.len();
        for paused in told {
            // A panic in it is its own: the run on whose thread it is called must not suffer.
            let _ = catch_unwind(AssertUnwindSafe(|| paused(what())));
        }
        let mut turn = self.turn();
        turn.pauses.untold -= count;
        self.open(&mut turn);
        turn
    }
}

impl HoldOut for Hold {
    fn hold(&self) -> Box<dyn Held + '_> {
        let mut turn = self.turn();
        while turn.held || turn.waking > 0 {
            turn = self.wait(turn);
        }
        turn.held = true;
        self.closed.store(true, Ordering::SeqCst);
        // Those that are made from here on find the VM closed to them.
        let vcpus: Vec<_> = turn.vcpus.iter().filter_map(Weak::upgrade).collect();
        vcpus.iter().filter(|vcpu| vcpu.is_inside()).for_each(|vcpu| vcpu.push_out());
        while !cfg!(broken = "hold-early") && vcpus.iter().any(|vcpu| vcpu.is_inside()) {
            turn = self.wait(turn);
        }
        drop(turn);
        Box::new(Guard(self))
    }

    fn poison(&self) {
        let mut turn = self.turn();
        turn.poisoned = true;
        self.closed.store(true, Ordering::SeqCst);
    }
}

/// Lets them go.
struct Guard<'a>(&'a Hold);

impl Held for Guard<'_> {}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "hold_tests.rs"]
mod tests;
