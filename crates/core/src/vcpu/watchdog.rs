//! The limit of `run_sync`: a thread that cancels a run which lasts too long. Arming and disarming cost a lock each; the
//! thread sleeps through runs that end in time.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
    time::Instant,
};

use super::control::{Control, Ticket};
use crate::{
    error::{Errno, Error, Result},
    sys::signal::KickSignal,
};

struct State {
    /// When to cancel which run.
    armed: Option<(Instant, Ticket)>,
    /// Until when the thread sleeps; none: until it is woken.
    asleep_until: Option<Instant>,
    /// The run that was cancelled last.
    fired: Option<Ticket>,
    ended: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub(crate) fn spawn(vcpu: Arc<super::Shared>) -> Result<Self> {
        let state = State { armed: None, asleep_until: None, fired: None, ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let watched = Arc::clone(&shared);
        let spawn = || Builder::new().name("kvm-watchdog".into()).spawn(move || watch(&watched, &vcpu.control));
        let thread = KickSignal::with_all_blocked(spawn)
            .map_err(|error| Error::Os { call: "pthread_create", errno: Errno::from(error) })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Cancels run `ticket` at `deadline` unless it is disarmed before.
    pub(crate) fn arm(&self, deadline: Instant, ticket: Ticket) {
        let mut state = self.shared.state();
        state.armed = Some((deadline, ticket));
        // A thread that sleeps until an earlier deadline looks again by itself.
        if state.asleep_until.is_none_or(|until| deadline < until) {
            self.shared.changed.notify_one();
        }
    }

    /// Whether the run was cancelled by this watchdog.
    pub(crate) fn disarm(&self, ticket: Ticket) -> bool {
        let mut state = self.shared.state();
        state.armed = None;
        state.fired == Some(ticket)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // `watch` has nothing in it that panics; if it did there would be nobody to tell.
            let _ = thread.join();
        }
    }
}

fn watch(shared: &Shared, control: &Control) {
    let mut state = shared.state();
    while !state.ended {
        let now = Instant::now();
        match state.armed {
            Some((deadline, ticket)) if deadline <= now => {
                state.armed = None;
                state.fired = Some(ticket);
                // Order of locks: the watchdog's, then the control's target.
                control.cancel(ticket);
            }
            Some((deadline, _)) => {
                state.asleep_until = Some(deadline);
                state = shared.changed.wait_timeout(state, deadline - now).unwrap_or_else(PoisonError::into_inner).0;
            }
            None => {
                state.asleep_until = None;
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
