//! What a vCPU's handle, its thread and its VM share: who has the engine, and how it ends.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread::{self, ThreadId},
};

use kvm_ioctls::{VcpuFd, VmFd};

use super::{
    arch,
    control::Control,
    engine::Engine,
    flags::Told,
    hold::{Hold, Occupant},
    placement::Placement,
    thread::{Worker, is_driving},
    watchdog::Watchdog,
};
use crate::{
    bus::Bus,
    error::{Error, Result},
    exit::Abi,
    stats::{ExitStats, Kept, Source, Tally},
    sys::{fork, signal::KickSignal},
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
    /// The thread that drives on its own account ([`super::SyncRun`]): closing from there cannot wait for itself.
    pub(super) driver: Option<ThreadId>,
    /// That thread closes, and so enters the guest no more: nobody waits for it.
    driver_closes: bool,
    pub(super) worker: Option<Worker>,
    /// Somebody joins the worker.
    joining: bool,
    pub(super) watchdog: Option<Watchdog>,
}

/// What a vCPU has of its VM.
pub(crate) struct Machine {
    pub(crate) vm: Arc<VmFd>,
    pub(crate) bus: Bus,
    /// How its kernel fills the `kvm_run` page.
    pub(crate) abi: Abi,
    pub(crate) setup: arch::Setup,
    /// What `KVM_GET_VCPU_MMAP_SIZE` says.
    pub(crate) run_size: usize,
    pub(crate) signal: KickSignal,
    /// Whether KVM counts what it does (`KVM_CAP_BINARY_STATS_FD`).
    pub(crate) counts: bool,
    /// Whether to measure where the time goes.
    pub(crate) timing: bool,
    /// Of the VM.
    pub(crate) hold: Arc<Hold>,
    /// Of its own thread.
    pub(crate) placement: Placement,
}

/// What the handle, the thread and the VM share.
pub(crate) struct Shared {
    id: u32,
    pub(super) placement: Placement,
    pub(super) control: Control,
    state: Mutex<State>,
    /// The engine came back, the worker was joined, or a driver closes.
    changed: Condvar,
    /// Counted by the engine, wherever that is.
    tally: Arc<Tally>,
    /// Stored by the engine.
    pub(super) told: Told,
    /// KVM's own statistics, to be had while the vCPU runs.
    pub(super) kvm_stats: Kept,
    generation: u32,
}

impl Shared {
    pub(crate) fn new(id: u32, fd: VcpuFd, machine: Machine) -> Result<Arc<Self>> {
        let (signal, hold) = (machine.signal, Arc::clone(&machine.hold));
        let placement = machine.placement.clone();
        let tally = Arc::new(Tally::new(machine.timing));
        let source = machine.counts.then(|| Source::open(&fd, &machine.vm)).transpose()?;
        let told = Told::default();
        let (engine, immediate) = Engine::new(fd, machine, Arc::clone(&tally), told.clone())?;
        let place = Place::Here(Box::new(engine));
        let shared = Arc::new(Self {
            id,
            placement,
            control: Control::new(immediate, signal, Arc::clone(&hold)),
            state: Mutex::new(State {
                place,
                closing: false,
                driver: None,
                driver_closes: false,
                worker: None,
                joining: false,
                watchdog: None,
            }),
            changed: Condvar::new(),
            tally,
            told,
            kvm_stats: Kept::new(source),
            generation: fork::generation(),
        });
        let vcpu: Weak<Self> = Arc::downgrade(&shared);
        hold.add(vcpu);
        Ok(shared)
    }

    pub(crate) const fn id(&self) -> u32 {
        self.id
    }

    /// Whoever drives it, and whether it is closed or not.
    pub(crate) fn exit_stats(&self) -> ExitStats {
        self.tally.read()
    }

    /// Protects who drives. Never held while the guest runs or while a thread is joined.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before any lock is touched: in a forked child one may be held by a thread that does not exist there.
    pub(super) fn check_fork(&self) -> Result<()> {
        if self.generation == fork::generation() { Ok(()) } else { Err(Error::Forked) }
    }

    fn check_usable(place: &Place) -> Result<()> {
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
    pub(super) fn take(state: &mut State) -> Result<Box<Engine>> {
        Self::check_usable(&state.place)?;
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
        (state.driver, state.driver_closes) = (None, false);
        state.place = if state.closing {
            self.release(engine);
            Place::Closed
        } else {
            Place::Here(engine)
        };
        let awaited = state.closing;
        drop(state);
        // Only who closes waits for an engine, and says so before it waits.
        if awaited {
            self.changed.notify_all();
        }
    }

    /// Uses the engine where nobody drives it.
    pub(super) fn with_engine<T>(&self, act: impl FnOnce(&mut Engine) -> Result<T>) -> Result<T> {
        self.check_fork()?;
        let mut state = self.state();
        Self::check_usable(&state.place)?;
        match &mut state.place {
            // In place: a panic in `act` leaves the engine where it is.
            Place::Here(engine) => act(engine),
            Place::Away | Place::Closed => Err(Error::Closed { what: "vCPU" }),
        }
    }

    /// Asks every run to end, without waiting, and releases what nobody uses.
    pub(crate) fn request_close(&self) {
        if self.check_fork().is_err() {
            return; // threads are the parent's
        }
        let engine = {
            let mut state = self.state();
            state.closing = true;
            state.driver_closes = state.driver == Some(thread::current().id());
            if let Some(worker) = &mut state.worker {
                worker.finish();
            }
            match std::mem::replace(&mut state.place, Place::Closed) {
                Place::Here(engine) => Some(engine),
                other => {
                    state.place = other;
                    None
                }
            }
        };
        self.changed.notify_all();
        self.control.close();
        if let Some(engine) = engine {
            self.release(engine);
        }
    }

    /// Lets go of all that keeps the VM alive. The vCPU is closed, and nobody runs it.
    fn release(&self, engine: Box<Engine>) {
        self.control.release();
        self.kvm_stats.close();
        drop(engine);
    }

    /// Stops every run, joins the threads, releases the vCPU's fd and page. Twice is harmless; every caller finds it
    /// done. On a thread that is inside a run (in a device, in a callback) it only asks: the rest happens when that
    /// call has returned.
    pub(crate) fn close(&self) {
        if self.check_fork().is_err() {
            return;
        }
        self.request_close();
        // The watchdog waits for nobody, so anybody may wait for it.
        let watchdog = self.state().watchdog.take();
        drop(watchdog);
        if is_driving() {
            return;
        }
        let mut state = self.state();
        if let Some(worker) = state.worker.take() {
            state.joining = true;
            drop(state);
            worker.join();
            state = self.state();
            state.joining = false;
            self.changed.notify_all();
        }
        // Another thread in run_sync has seen the kick; this thread, between two steps, has yet to give the engine back.
        let is_away = |state: &State| {
            matches!(state.place, Place::Away) && !state.driver_closes && state.driver != Some(thread::current().id())
        };
        while state.joining || is_away(&state) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Occupant for Shared {
    fn is_inside(&self) -> bool {
        self.control.is_inside()
    }

    fn push_out(&self) {
        self.control.push_out();
    }
}
