//! How others stop a vCPU: kick, cancel, close. Owns the requests and knows which thread to signal; what a request
//! means to a run is decided in `engine`.
//!
//! No wake-up is lost: a stopper stores its request, *then* `immediate_exit`, *then* signals; a runner clears
//! `immediate_exit`, *then* loads the requests, *then* enters `KVM_RUN`. In the total order of these `SeqCst` accesses
//! either the runner sees the request, or its clearing came before the stopper's store and `KVM_RUN` sees that.

use std::sync::{Arc, PoisonError};

use super::{
    hold::{Hold, Passed},
    run_page::ImmediateExit,
};
use crate::{
    error::{Error, Result},
    sync::{
        Mutex, MutexGuard, Thread, WINDOW,
        atomic::{AtomicBool, AtomicU32, Ordering},
        thread,
    },
    sys::signal::{KickSignal, ThreadId},
};

/// Public and sticky: stops the running entry, or else the next.
const KICK: u32 = 1;
/// Stops the run whose ticket was given, and dies with it.
const CANCEL: u32 = 1 << 1;
/// For good.
const CLOSE: u32 = 1 << 2;

/// Why a runner must not (re-)enter the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Kicked,
    Cancelled,
    Closed,
}

/// Names one run. Numbers are the caller's and are not used twice.
pub(crate) type Ticket = u64;

struct Target {
    /// Taken away when the vCPU closes, as the mapping would keep the VM alive.
    page: Option<ImmediateExit>,
    run: Option<Run>,
}

struct Run {
    ticket: Ticket,
    /// Absent while the run waits for its thread, which looks at the requests before it enters.
    thread: Option<(ThreadId, Thread)>,
}

pub(crate) struct Control {
    requests: AtomicU32,
    /// In `KVM_RUN`, or about to be.
    inside: AtomicBool,
    hold: Arc<Hold>,
    /// Held while a signal is sent, so that the thread cannot have ended.
    target: Mutex<Target>,
    signal: KickSignal,
}

impl Control {
    pub(crate) fn new(page: ImmediateExit, signal: KickSignal, hold: Arc<Hold>) -> Self {
        let target = Mutex::new(Target { page: Some(page), run: None });
        Self { requests: AtomicU32::new(0), inside: AtomicBool::new(false), hold, target, signal }
    }

    /// The only way into the guest: calls `enter`, which is `KVM_RUN`, once nobody holds the vCPU out; not where a reason
    /// to stop that `heeds` finds to be one comes first.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Forked`], [`Error::WouldDeadlock`] for one who is `alone`; `enter` was not called then.
    #[inline]
    pub(super) fn pass<T>(
        &self,
        alone: bool,
        heeds: impl Fn(Stop) -> bool,
        enter: impl FnOnce() -> T,
    ) -> Result<Passed<T, Stop>> {
        self.hold.pass(&self.inside, alone, || self.stop().filter(|stop| heeds(*stop)), enter)
    }

    pub(crate) fn is_inside(&self) -> bool {
        self.inside.load(Ordering::SeqCst)
    }

    /// Ends an entry without a request: the runner finds no reason to stop, and comes back.
    pub(crate) fn push_out(&self) {
        interrupt(&self.target(), self.signal);
    }

    fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The running entry stops, or else the next one does.
    pub(crate) fn kick(&self) {
        self.request(self.target(), KICK);
    }

    /// Stops the run with that ticket, and no other.
    pub(crate) fn cancel(&self, ticket: Ticket) {
        let target = self.target();
        if target.run.as_ref().is_some_and(|run| run.ticket == ticket) {
            self.request(target, CANCEL);
        }
    }

    /// Every run ends, and none begins.
    pub(crate) fn close(&self) {
        self.request(self.target(), CLOSE);
    }

    /// Lets go of the `kvm_run` page. The vCPU is closed and nobody runs it.
    pub(crate) fn release(&self) {
        self.target().page = None;
    }

    fn request(&self, target: MutexGuard<'_, Target>, what: u32) {
        if cfg!(broken = "kick-late") {
            interrupt(&target, self.signal);
            thread::sleep(WINDOW);
        }
        if self.requests.fetch_or(what, Ordering::SeqCst) & what != 0 {
            return; // whoever asked first has done the rest, and the runner has not looked yet
        }
        let known = if cfg!(broken = "kick-late") { None } else { interrupt(&target, self.signal) };
        if let Some(thread) = known {
            thread.unpark();
        }
        drop(target); // the hold's lock comes before this one
        self.hold.wake_to_stop();
    }

    /// Announces a run; from here on `cancel` finds it.
    pub(crate) fn begin(&self, ticket: Ticket) {
        self.target().run = Some(Run { ticket, thread: None });
    }

    /// The calling thread is about to enter the guest: from here on it is signalled.
    pub(crate) fn enter(&self) {
        if let Some(run) = self.target().run.as_mut() {
            run.thread = Some((ThreadId::current(), thread::current()));
        }
    }

    /// The run is over: nobody signals its thread any more, and a cancellation that came late is forgotten.
    pub(crate) fn end(&self) {
        let mut target = self.target();
        target.run = None;
        if !cfg!(broken = "cancel-stays") {
            self.requests.fetch_and(!CANCEL, Ordering::SeqCst);
        }
    }

    /// Why not to enter the guest, if there is a reason.
    pub(crate) fn stop(&self) -> Option<Stop> {
        let requests = self.requests.load(Ordering::SeqCst);
        if requests == 0 {
            None
        } else if requests & CLOSE != 0 {
            Some(Stop::Closed)
        } else if requests & CANCEL != 0 {
            Some(Stop::Cancelled)
        } else {
            Some(Stop::Kicked)
        }
    }

    /// The run ends for this reason: a kick is used up.
    pub(crate) fn obey(&self, stop: Stop) {
        if stop == Stop::Kicked && !cfg!(broken = "kick-stays") {
            self.requests.fetch_and(!KICK, Ordering::SeqCst);
        }
    }

    /// For a runner: forgets earlier `immediate_exit`s, then says why not to enter. In this order; see the module.
    pub(crate) fn arm(&self, page: &ImmediateExit) -> Option<Stop> {
        if cfg!(broken = "kick-window") {
            let stop = self.stop();
            thread::sleep(WINDOW);
            page.clear();
            return stop;
        }
        page.clear();
        self.stop()
    }

    /// Unblocks the kick signal on the calling thread; a system call once a thread.
    pub(crate) fn admit_signal(&self) -> Result<()> {
        self.signal.unblock_on_this_thread()
    }

    pub(crate) const fn signal(&self) -> KickSignal {
        self.signal
    }
}

/// Makes `KVM_RUN` return. Gives the thread that was signalled.
fn interrupt(target: &Target, signal: KickSignal) -> Option<&Thread> {
    target.page.as_ref()?.set();
    let (id, thread) = target.run.as_ref()?.thread.as_ref()?;
    signal.send(*id);
    Some(thread)
}

impl Stop {
    /// What a run that was stopped so gives to its caller, if that is an error.
    pub(crate) const fn closed(self) -> Result<Self> {
        match self {
            Self::Closed => Err(Error::Closed { what: "vCPU" }),
            other => Ok(other),
        }
    }
}
