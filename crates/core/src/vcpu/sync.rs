//! A run on the caller's thread, step by step: the engine stays with it between the accesses that the program answers
//! itself, and the limit holds for all of it.

use std::{
    marker::PhantomData,
    sync::{Arc, MutexGuard},
    time::{Duration, Instant},
};

use super::{
    Claimed, Shared,
    control::{Stop, Ticket},
    drive::{Driven, Goal, WhenFull},
    engine::Engine,
    thread::drive_caught,
    watchdog::Watchdog,
};
use crate::{
    error::{Error, Result},
    exit::Exit,
};

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// An exit that nobody claimed: the run is over.
    Exit(Exit),
    /// An access to what the program claimed. Answer it where it reads, and take the next step.
    Claimed(Claimed),
    /// A queue between guest and program is full: empty it, and take the next step.
    Full,
}

/// A run under way on this thread, which it does not leave. Dropping it ends the run where it stands.
pub struct SyncRun {
    shared: Arc<Shared>,
    /// Present until drop.
    engine: Option<Box<Engine>>,
    ticket: Ticket,
    limit: Duration,
    /// The first step has made the vCPU one that this thread is signalled for.
    begun: bool,
    /// Kicks signal the thread that began.
    stays_here: PhantomData<MutexGuard<'static, ()>>,
}

impl SyncRun {
    pub(super) fn begin(shared: &Arc<Shared>, ticket: Ticket, limit: Duration) -> Result<Self> {
        shared.check_fork()?;
        shared.control.admit_signal()?;
        let mut state = shared.state();
        if state.watchdog.is_none() && !state.closing {
            state.watchdog = Some(Watchdog::spawn(Arc::clone(shared))?);
        }
        let engine = Shared::take(&mut state)?;
        if let Err(error) = engine.check_answered() {
            state.place = super::shared::Place::Here(engine);
            return Err(error);
        }
        state.driver = Some(std::thread::current().id());
        shared.control.begin(ticket);
        if let (Some(watchdog), Some(deadline)) = (&state.watchdog, Instant::now().checked_add(limit)) {
            watchdog.arm(deadline, ticket);
        }
        drop(state);
        let (shared, engine, begun, stays_here) = (Arc::clone(shared), Some(engine), false, PhantomData);
        Ok(Self { shared, engine, ticket, limit, begun, stays_here })
    }

    fn engine(&mut self) -> Result<&mut Engine> {
        self.shared.check_fork()?;
        self.engine.as_deref_mut().ok_or(Error::Closed { what: "vCPU" })
    }

    /// Runs the guest on.
    ///
    /// # Errors
    /// [`Error::Timeout`] at the limit: the guest stands still and can be run on. [`Error::WouldDeadlock`] in a paused VM, with
    /// [`WhenFull::Return`]: nothing was entered, and what is pending still is; it can be run on once the VM is resumed.
    /// [`Error::Closed`], [`Error::ExitUnanswered`], [`Error::Internal`]. The run is over then.
    pub fn step(&mut self, when_full: WhenFull) -> Result<Step> {
        let Self { shared, engine, limit, begun, .. } = self;
        shared.check_fork()?;
        let engine = engine.as_deref_mut().ok_or(Error::Closed { what: "vCPU" })?;
        if !*begun {
            engine.begin(&shared.control, when_full)?;
            *begun = true;
        }
        match drive_caught(engine, shared, Goal::Run, when_full)? {
            Driven::Exit(exit) => Ok(Step::Exit(exit)),
            Driven::Claimed(claimed) => Ok(Step::Claimed(claimed)),
            // Nobody but the watchdog knows this run's ticket.
            Driven::Stopped(Stop::Cancelled) => {
                let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                Err(Error::Timeout { what: "the guest's next exit", limit_ms })
            }
            Driven::Stopped(_) => Ok(Step::Exit(Exit::Intr)),
            Driven::Full | Driven::Settled => Ok(Step::Full),
        }
    }

    /// Answers the access of the last step; see [`super::Vcpu::answer`].
    ///
    /// # Errors
    /// [`Error::NoAnswerExpected`], [`Error::AnswerSize`].
    pub fn answer(&mut self, bytes: &[u8]) -> Result<()> {
        self.engine()?.answer(bytes)
    }

    /// Answers the access of the last step; see [`super::Vcpu::answer_word`].
    ///
    /// # Errors
    /// [`Error::NoAnswerExpected`], [`Error::AnswerRange`].
    pub fn answer_word(&mut self, value: u64) -> Result<()> {
        self.engine()?.answer_word(value)
    }
}

impl Drop for SyncRun {
    fn drop(&mut self) {
        if self.shared.check_fork().is_err() {
            return; // the run is the parent's
        }
        if let Some(watchdog) = &self.shared.state().watchdog {
            watchdog.disarm(self.ticket);
        }
        self.shared.control.end();
        if let Some(engine) = self.engine.take() {
            self.shared.give_back(engine);
        }
    }
}
