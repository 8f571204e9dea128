//! What a vCPU's handle, its thread and its VM share: who has the engine, and how it ends.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use kvm_ioctls::{VcpuFd, VmFd};

use super::{control::Control, engine::Engine, thread::Worker, watchdog::Watchdog};
use crate::{
    bus::Bus,
    error::{Error, Result},
    sys::fork,
};

/// Who has the engine.
pub(super) enum Place {
    Here(Box<Engine>),
    Away,
    Closed,
}

pub(super) struct State {
    pub(super) place: Place,
    pub(super) closing: bool,
    /// The thread that drives in `run_sync`, so that closing from inside a device does not wait for itself.
    pub(super) driver: Option<std::thread::ThreadId>,
    pub(super) worker: Option<Worker>,
    pub(super) watchdog: Option<Watchdog>,
}

/// What the handle, the thread and the VM share.
pub(crate) struct Shared {
    id: u32,
    pub(super) control: Control,
    state: Mutex<State>,
    /// The engine came back.
    returned: Condvar,
    generation: u32,
}

impl Shared {
    pub(crate) fn new(id: u32, fd: VcpuFd, vm: Arc<VmFd>, bus: Bus, run_size: usize) -> Result<Arc<Self>> {
        let (engine, immediate) = Engine::new(fd, vm, bus, run_size)?;
        let place = Place::Here(Box::new(engine));
        Ok(Arc::new(Self {
            id,
            control: Control::new(immediate)?,
            state: Mutex::new(State { place, closing: false, driver: None, worker: None, watchdog: None }),
            returned: Condvar::new(),
            generation: fork::generation(),
        }))
    }

    pub(crate) const fn id(&self) -> u32 {
        self.id
    }

    /// Protects who drives. Never held while the guest runs or while a thread is joined.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check_fork(&self) -> Result<()> {
        if self.generation == fork::generation() { Ok(()) } else { Err(Error::Forked) }
    }

    fn check_usable(&self, place: &Place) -> Result<()> {
        self.check_fork()?;
        match place {
            Place::Here(engine) if engine.poisoned => {
                Err(Error::Poisoned { what: "vCPU", why: "an internal error stopped it" })
            }
            Place::Here(_) => Ok(()),
            Place::Away => Err(Error::Busy { why: "a run is pending; await it or kick the vCPU first" }),
            Place::Closed => Err(Error::Closed { what: "vCPU" }),
        }
    }

    /// Takes the engine to drive it.
    pub(super) fn take(&self, state: &mut State) -> Result<Box<Engine>> {
        self.check_usable(&state.place)?;
        match std::mem::replace(&mut state.place, Place::Away) {
            Place::Here(engine) => Ok(engine),
            other => {
                state.place = other;
                Err(Error::Closed { what: "vCPU" })
            }
        }
    }

    /// Gives the engine back; a vCPU that was told to close meanwhile is closed by it.
    pub(super) fn give_back(&self, engine: Box<Engine>) {
        let mut state = self.state();
        state.driver = None;
        state.place = if state.closing {
            self.control.release();
            drop(engine);
            Place::Closed
        } else {
            Place::Here(engine)
        };
        drop(state);
        self.returned.notify_all();
    }

    /// Uses the engine where nobody drives it.
    pub(super) fn with_engine<T>(&self, act: impl FnOnce(&mut Engine) -> Result<T>) -> Result<T> {
        let mut state = self.state();
        self.check_usable(&state.place)?;
        match &mut state.place {
            // In place: a panic in `act` leaves the engine where it is.
            Place::Here(engine) => act(engine),
            Place::Away | Place::Closed => Err(Error::Closed { what: "vCPU" }),
        }
    }

    /// Asks every run to end, without waiting.
    pub(crate) fn request_close(&self) {
        self.control.close();
    }

    /// Stops every run, joins the thread, releases the vCPU's fd and page. Twice is harmless.
    pub(crate) fn close(&self) {
        if self.generation != fork::generation() {
            return; // threads are the parent's
        }
        let (worker, watchdog, engine) = {
            let mut state = self.state();
            state.closing = true;
            let engine = match std::mem::replace(&mut state.place, Place::Closed) {
                Place::Here(engine) => Some(engine),
                other => {
                    state.place = other;
                    None
                }
            };
            (state.worker.take(), state.watchdog.take(), engine)
        };
        self.control.close();
        if let Some(worker) = worker {
            worker.join();
        }
        drop(watchdog);
        if let Some(engine) = engine {
            self.control.release();
            drop(engine);
        }
        let mut state = self.state();
        // Another thread in run_sync has seen the kick; this thread, inside a device, has yet to return from it.
        while matches!(state.place, Place::Away) && state.driver != Some(std::thread::current().id()) {
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
