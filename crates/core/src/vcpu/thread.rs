//! A vCPU's own thread: takes the engine, drives it, gives it back, says how it went. One per vCPU, started by the first
//! run that wants it, joined when the vCPU closes.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, Sender, channel},
    thread::{Builder, JoinHandle},
};

use super::{
    Outcome, Shared,
    drive::{Driven, Goal, WhenFull},
    engine::Engine,
    waiting::Waiting,
};
use crate::{
    error::{Errno, Error, Result},
    sys::{affinity::CpuSet, signal::KickSignal},
};

/// Called with the outcome, on the vCPU's thread, after the engine was given back: it may start the next run.
pub(crate) type Done = Box<dyn FnOnce(Result<Outcome>) + Send>;

pub(crate) struct Job {
    pub(crate) engine: Box<Engine>,
    pub(crate) goal: Goal,
    pub(crate) done: Done,
}

pub(crate) struct Worker {
    /// None once it is to end.
    jobs: Option<Sender<Job>>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts the thread. It ends when the worker is dropped or joined.
    pub(crate) fn spawn(shared: std::sync::Arc<Shared>) -> Result<Self> {
        let (jobs, receiver) = channel();
        // Linux shows the first 15 bytes of a name.
        let name = shared.placement.name(shared.id());
        let spawn = || Builder::new().name(name).spawn(move || work(&receiver, &shared));
        let thread = KickSignal::with_all_blocked(spawn)
            .map_err(|error| Error::Os { call: "pthread_create", errno: Errno::from(error) })?;
        Ok(Self { jobs: Some(jobs), thread })
    }

    /// Hands a job over; gives it back where the thread is gone or ends.
    pub(crate) fn submit(&self, job: Job) -> std::result::Result<(), Job> {
        match &self.jobs {
            Some(jobs) => jobs.send(job).map_err(|refused| refused.0),
            None => Err(job),
        }
    }

    /// The thread ends after the job it is at.
    pub(crate) fn finish(&mut self) {
        self.jobs = None;
    }

    /// Waits until the thread has ended, which is soon once the vCPU's control says close. Not on a thread that drives.
    pub(crate) fn join(self) {
        let Self { jobs, thread } = self;
        drop(jobs);
        // Its body catches panics: there is no result to look at.
        let _ = thread.join();
    }
}

thread_local! {
    static DRIVING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a run: in a device, or in the callback of a run that has ended. Whoever waited there
/// for vCPUs to stop could wait for itself, or for one that waits for the device.
pub(crate) fn is_driving() -> bool {
    DRIVING.get()
}

fn work(jobs: &Receiver<Job>, shared: &Shared) {
    DRIVING.set(true);
    // Where the mask cannot be changed, kicks still work between entries, by immediate_exit.
    let admitted = shared.control.signal().unblock_on_vcpu_thread();
    debug_assert!(admitted.is_ok(), "pthread_sigmask takes any set");
    let mut waiting = Waiting::default();
    let mut unplaced = shared.placement.cpus();
    while let Some(Job { mut engine, goal, done }) = waiting.next(jobs) {
        let outcome = place(&mut unplaced).and_then(|()| drive(&mut engine, shared, goal));
        shared.control.end();
        shared.give_back(engine);
        // A panic in the callback is the callback's: the next run must not suffer.
        let _ = catch_unwind(AssertUnwindSafe(|| done(outcome)));
    }
}

/// Puts this thread on the processors that it is still to be put on: before the first entry, or again where that failed, as
/// they may have gone since they were asked for.
fn place(unplaced: &mut Option<&CpuSet>) -> Result<()> {
    if let Some(cpus) = unplaced {
        cpus.apply()?;
        *unplaced = None;
    }
    Ok(())
}

/// Drives the engine; a panic on the way is an error, and the end of this vCPU.
pub(crate) fn drive_caught(engine: &mut Engine, shared: &Shared, goal: Goal, full: WhenFull) -> Result<Driven> {
    let nested = DRIVING.replace(true);
    engine.bus.begin_run();
    let outcome = catch_unwind(AssertUnwindSafe(|| engine.drive(&shared.control, goal, full)));
    engine.bus.end_run();
    DRIVING.set(nested);
    outcome.unwrap_or_else(|panic| {
        engine.poisoned = true;
        Err(Error::from_panic(&*panic))
    })
}

fn drive(engine: &mut Engine, shared: &Shared, goal: Goal) -> Result<Outcome> {
    engine.begin(&shared.control, WhenFull::Wait)?;
    match drive_caught(engine, shared, goal, WhenFull::Wait)? {
        Driven::Exit(exit) => Ok(Outcome::Exit(exit)),
        Driven::Claimed(claimed) => Ok(Outcome::Claimed(claimed)),
        Driven::Stopped(_) => Ok(Outcome::Exit(crate::exit::Exit::Intr)),
        Driven::Settled | Driven::Full => Ok(Outcome::Settled),
    }
}
