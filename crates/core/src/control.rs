//! A VM's control thread: does one after the other what may take too long for the thread that asks, as a change of slots
//! that waits for a vCPU. Owns the queue and the thread; what a job does and whom it tells is the job's.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, Builder, JoinHandle, ThreadId},
};

use crate::{
    error::{Errno, Error, Result},
    sys::{fork, signal::KickSignal},
};

/// What a thread is asked to do.
type Job = Box<dyn FnOnce() + Send>;

/// The control thread of a VM, started by its first job. Cheap to clone; all clones are the same thread.
#[derive(Clone)]
pub struct ControlThread {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The thread was joined.
    joined: Condvar,
    /// The VM closes: the thread begins no more jobs. Apart from `state`, which would keep the queue's sender, and so the
    /// thread, alive.
    closing: Arc<AtomicBool>,
    /// [`fork::generation`] of the process the VM belongs to.
    generation: u32,
}

#[derive(Default)]
struct State {
    /// None before the first job, and once the VM closes.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Stays when the handle has gone to whoever joins: a job has to know its thread then too.
    id: Option<ThreadId>,
    joining: bool,
}

impl ControlThread {
    pub(crate) fn new() -> Self {
        let (state, joined, closing) = (Mutex::default(), Condvar::new(), Arc::default());
        Self { shared: Arc::new(Shared { state, joined, closing, generation: fork::generation() }) }
    }

    fn state(&self) -> Result<MutexGuard<'_, State>> {
        if self.shared.generation != fork::generation() {
            return Err(Error::Forked);
        }
        Ok(self.shared.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has `job` done on the thread, after the jobs before it. One that has not begun when the VM closes is dropped undone,
    /// on that thread; closing waits for the one that has, to which the VM is [`Error::Closed`] then. A panic in a job
    /// ends that job and nothing else. A job may submit another, and may close the VM.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`], [`Error::Os`] where the thread cannot be started; the job is dropped then.
    ///
    /// ```no_run
    /// use typevisor::{GpaRange, Kvm, Vm, VmOptions, memory::MapOptions};
    /// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
    /// let memory = vm.memory().clone();
    /// let (tell, told) = std::sync::mpsc::channel();
    /// let ram = MapOptions::new(GpaRange::pages(0, 0x1000)?);
    /// vm.control().submit(Box::new(move || drop(tell.send(memory.map(&ram)))))?;
    /// assert!(told.recv().is_ok_and(|slot| slot.is_ok()));
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub fn submit(&self, job: Box<dyn FnOnce() + Send>) -> Result<()> {
        let mut state = self.state()?;
        if self.shared.closing.load(Ordering::SeqCst) {
            return Err(Error::Closed { what: "VM" });
        }
        if state.jobs.is_none() {
            let (jobs, receiver) = channel();
            let thread = spawn(receiver, Arc::clone(&self.shared.closing))?;
            state.id = Some(thread.thread().id());
            (state.thread, state.jobs) = (Some(thread), Some(jobs));
        }
        let sent = state.jobs.as_ref().map(|jobs| jobs.send(job));
        match sent {
            Some(Ok(())) => Ok(()),
            // Its body catches panics, so it ends only when the sender is gone.
            _ => Err(Error::Internal { message: "the VM's control thread has ended".into() }),
        }
    }

    /// The first half of [`ControlThread::close`], which does not wait: no job is taken and none begins any more.
    pub(crate) fn begin_close(&self) {
        if let Ok(mut state) = self.state() {
            self.begin_close_in(&mut state);
        }
    }

    fn begin_close_in(&self, state: &mut State) {
        // Under the lock of `submit`: what comes after it finds this, and what came before is still in the queue.
        self.shared.closing.store(true, Ordering::SeqCst);
        state.jobs = None;
    }

    /// Ends the thread: waits for the job it is at and drops the others. Twice is harmless; every caller finds it done but a
    /// job of its own, which does not wait for itself, whoever else closes meanwhile.
    pub(crate) fn close(&self) {
        let Ok(mut state) = self.state() else { return };
        self.begin_close_in(&mut state);
        if state.id == Some(thread::current().id()) {
            return;
        }
        if let Some(thread) = state.thread.take() {
            state.joining = true;
            drop(state);
            // Its body catches panics: there is no result to look at.
            let _ = thread.join();
            let Ok(mut state) = self.state() else { return };
            state.joining = false;
            self.shared.joined.notify_all();
            return;
        }
        while state.joining {
            state = self.shared.joined.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

thread_local! {
    static IS_CONTROL: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is the control thread of a VM, of whichever: who closes may wait for the job it is at.
pub(crate) fn is_control_thread() -> bool {
    IS_CONTROL.get()
}

fn spawn(jobs: Receiver<Job>, closing: Arc<AtomicBool>) -> Result<JoinHandle<()>> {
    let work = move || {
        IS_CONTROL.set(true);
        for job in jobs {
            let dealt_with = || if closing.load(Ordering::SeqCst) { drop(job) } else { job() };
            // A panic in a job is the job's: the next must not suffer.
            let _ = catch_unwind(AssertUnwindSafe(dealt_with));
        }
    };
    KickSignal::with_all_blocked(|| Builder::new().name("kvm-control".into()).spawn(work))
        .map_err(|error| Error::Os { call: "pthread_create", errno: Errno::from(error) })
}

impl std::fmt::Debug for ControlThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlThread").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
