//! A VM of vCPUs: the real `Control` and `Hold`, what drives them, and a `KVM_RUN` that returns at once where
//! `immediate_exit` is set, and else lasts until a signal comes or the guest exits.

use std::{
    cell::{Cell, RefCell},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool as Plain, AtomicU32 as Count, Ordering::SeqCst},
    },
};

use super::{
    control::{Control, Stop, Ticket},
    hold::{Hold, Occupant, Passed},
    run_page::ImmediateExit,
};
use crate::{
    error::{Error, Result},
    sync::{Condvar, Mutex, atomic::AtomicBool, thread},
    sys::signal::KickSignal,
};

loom::thread_local! {
    /// The vCPU that this thread runs.
    static CURRENT: RefCell<Option<usize>> = RefCell::new(None);
}

// One for all threads of a model, which loom runs on a single one of the system's.
thread_local! {
    static CPUS: RefCell<Vec<Arc<Cpu>>> = const { RefCell::new(Vec::new()) };
    /// So many say that all vCPUs are out.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

pub(crate) fn current() -> usize {
    CURRENT.with(|current| *current.borrow()).expect("a thread that runs a vCPU")
}

pub(crate) fn cpu(number: usize) -> Arc<Cpu> {
    CPUS.with(|cpus| Arc::clone(&cpus.borrow()[number]))
}

/// What the kernel has of a vCPU, and of the thread that runs it.
pub(crate) struct Cpu {
    /// The byte of the `kvm_run` page.
    immediate_exit: AtomicBool,
    thread: Mutex<KernelThread>,
    signalled: Condvar,
    /// In `KVM_RUN`, for assertions: loom does not look at it, and nobody else does.
    running: Plain,
    /// So often the guest exits by itself; then it runs for ever.
    exits: Count,
}

#[derive(Default)]
struct KernelThread {
    /// In the system call: a signal stays pending until it is over. Elsewhere its handler runs at once, which does nothing.
    inside: bool,
    pending: bool,
}

impl Cpu {
    pub(crate) fn set_immediate_exit(&self, value: bool) {
        self.immediate_exit.store(value, SeqCst);
    }

    /// `tgkill`.
    pub(crate) fn signal(&self) {
        let mut thread = self.thread.lock().unwrap();
        if thread.inside {
            thread.pending = true;
            self.signalled.notify_one();
        }
    }

    /// `KVM_RUN`: whether the guest exited; else it was interrupted.
    fn run(&self) -> bool {
        self.thread.lock().unwrap().inside = true;
        self.running.store(true, SeqCst);
        assert!(!is_held(), "a vCPU entered the guest while all are held out");
        let immediate = self.immediate_exit.load(SeqCst);
        let mut thread = self.thread.lock().unwrap();
        let mut exited = false;
        while !immediate && !thread.pending && !exited {
            exited = self.exits.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            if !exited {
                thread = self.signalled.wait(thread).unwrap();
            }
        }
        self.running.store(false, SeqCst);
        *thread = KernelThread::default();
        exited
    }
}

fn is_held() -> bool {
    HELD.get() > 0
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Exit,
    Stopped(Stop),
}

pub(crate) const KICKED: Result<End> = Ok(End::Stopped(Stop::Kicked));
pub(crate) const CANCELLED: Result<End> = Ok(End::Stopped(Stop::Cancelled));
pub(crate) const EXITED: Result<End> = Ok(End::Exit);
pub(crate) const CLOSED: Result<End> = Err(Error::Closed { what: "vCPU" });

pub(crate) struct Vcpu {
    number: usize,
    pub(crate) control: Control,
    page: ImmediateExit,
}

/// As `Shared` is one.
impl Occupant for Vcpu {
    fn is_inside(&self) -> bool {
        self.control.is_inside()
    }

    fn push_out(&self) {
        self.control.push_out();
    }
}

impl Vcpu {
    /// A vCPU whose guest exits so often before it runs for ever.
    pub(crate) fn new(hold: &Arc<Hold>, exits: u32) -> Arc<Self> {
        let cpu = Arc::new(Cpu {
            immediate_exit: AtomicBool::new(false),
            thread: Mutex::default(),
            signalled: Condvar::new(),
            running: Plain::new(false),
            exits: Count::new(exits),
        });
        let number = CPUS.with(|cpus| {
            cpus.borrow_mut().push(Arc::clone(&cpu));
            cpus.borrow().len() - 1
        });
        let page = ImmediateExit(cpu);
        let control = Control::new(page.clone(), KickSignal, Arc::clone(hold));
        let vcpu = Arc::new(Self { number, control, page });
        let weak: Weak<Self> = Arc::downgrade(&vcpu);
        hold.add(weak);
        vcpu
    }

    /// A run that was announced (`Control::begin`), on the thread that it is for: `thread::work`, `Engine::begin` and
    /// `Engine::drive` for a guest without accesses.
    pub(crate) fn drive(&self) -> Result<End> {
        CURRENT.with(|current| *current.borrow_mut() = Some(self.number));
        self.control.enter();
        let end = self.until_it_ends();
        self.control.end();
        end
    }

    fn until_it_ends(&self) -> Result<End> {
        loop {
            if let Some(stop) = self.control.arm(&self.page) {
                return self.end(stop);
            }
            match self.control.pass(false, |_| true, || self.page.0.run())? {
                Passed::Stopped(stop) => return self.end(stop),
                Passed::Entered(true) => return Ok(End::Exit),
                Passed::Entered(false) => {}
            }
        }
    }

    /// `Engine::end`.
    fn end(&self, stop: Stop) -> Result<End> {
        let stop = stop.closed()?;
        self.control.obey(stop);
        Ok(End::Stopped(stop))
    }

    /// Announces a run, as `Vcpu::start` does, and starts a thread that drives it.
    pub(crate) fn start(self: &Arc<Self>, ticket: Ticket) -> thread::JoinHandle<Result<End>> {
        self.control.begin(ticket);
        let vcpu = Arc::clone(self);
        thread::spawn(move || vcpu.drive())
    }

    /// One on this thread, from its announcement on.
    pub(crate) fn run(&self, ticket: Ticket) -> Result<End> {
        self.control.begin(ticket);
        self.drive()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.page.0.running.load(SeqCst)
    }
}

/// Says that all are out, as whoever holds relies on: every entry is compared with it.
pub(crate) struct Out {
    /// Something to look at: there loom lets others go on.
    moment: AtomicBool,
}

impl Out {
    pub(crate) fn of(vcpus: &[&Vcpu]) -> Self {
        assert!(vcpus.iter().all(|vcpu| !vcpu.is_running()), "a vCPU is in the guest while all are held out");
        HELD.set(HELD.get() + 1);
        Self { moment: AtomicBool::new(true) }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.moment.load(SeqCst);
        }
        HELD.set(HELD.get() - 1);
    }
}

/// So many switches away from a thread that could have gone on, in a model of two threads; more of them take minutes.
pub(crate) const OF_TWO: usize = 6;
/// In one of three.
pub(crate) const OF_THREE: usize = 3;

/// Runs `model` through its interleavings, with at most `preemptions` (or `LOOM_MAX_PREEMPTIONS`).
pub(crate) fn explore(preemptions: usize, model: impl Fn(&Arc<Hold>) + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.check(move || {
        HELD.set(0);
        model(&Arc::new(Hold::default()));
        CPUS.with(|cpus| cpus.borrow_mut().clear());
    });
}
