//! vCPUs: their threads, runs, kicks and completion. A vCPU is driven by one at a time, by taking its engine. What a
//! guest's access means is left to `bus`, what bytes mean to `exit`. Ruled by api.rst sections 4.10 and 5; why it is
//! as it is: docs/design/vcpu.md.

pub mod arch;
mod boot;
mod claimed;
mod control;
mod drive;
mod engine;
mod features;
mod flags;
mod hold;
#[cfg(feature = "test-hooks")]
mod hooks;
mod placement;
mod run_page;
mod shared;
mod sync;
mod thread;
mod waiting;
mod watchdog;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use arch::Registers;
pub use boot::{Boot, BootMode, BootOptions, Privilege};
pub use claimed::Claimed;
use drive::Goal;
pub use drive::WhenFull;
use engine::Engine;
pub use features::{VcpuFeature, VcpuFeatures};
pub(crate) use hold::Hold;
pub(crate) use placement::Placement;
use shared::Place;
pub(crate) use shared::{Machine, Shared};
pub use sync::{Step, SyncRun};
pub(crate) use thread::is_driving;
use thread::{Job, Worker};

use crate::{
    error::{Error, Result},
    exit::{Exit, RunFlags},
    host::CpuidEntry,
    memory::GuestMemory,
    stats::{ExitStats, KvmStats, Stats},
};

/// How a run on the vCPU's own thread ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// An exit that nobody in Rust took. A kick or a cancelled run is [`Exit::Intr`].
    Exit(Exit),
    /// An access to what the program claimed on the bus. Where it reads, it wants an answer.
    Claimed(Claimed),
    /// [`Vcpu::start_settle`]: nothing is pending any more.
    Settled,
}

/// Options of [`crate::Vm::create_vcpu`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VcpuOptions {
    /// The vCPU's id; none: the lowest that is free.
    pub id: Option<u32>,
    /// What an aarch64 vCPU is made with; none: what the VM's first vCPU has, for that one [`VcpuFeatures::default`].
    /// All vCPUs of a VM have the same but for [`VcpuFeature::PowerOff`]. On `x86_64` there are none to choose.
    pub features: Option<VcpuFeatures>,
    /// What an `x86_64` vCPU answers to CPUID, at most 256 entries of which no two answer the same: these and no others, but
    /// that the APIC ids in them (in the leaves 1, 0xb, 0x1f and 0x8000001e) are made the vCPU's own. KVM takes them for what
    /// the vCPU can do, also where the processor cannot ([`crate::Kvm::supported_cpuid`] says what it can). None: what KVM
    /// supports. On aarch64 there is none to choose. api.rst 4.20 and 4.46.
    pub cpuid: Option<Vec<CpuidEntry>>,
    /// Give an `x86_64` vCPU the synthetic interrupt controller of Hyper-V, whose set-up by the guest, and whose messages, are
    /// [`Exit::Hyperv`]: `KVM_CAP_HYPERV_SYNIC2` (api.rst 6.77), in a VM with [`crate::VmOptions::irqchip`]. Guests look for it
    /// where [`VcpuOptions::cpuid`] has the leaves of Hyper-V.
    pub hyperv_synic: bool,
    /// The processors that the vCPU's own thread may run on, by the kernel's numbers: at least one, and none that this
    /// process may not use. None: those of the thread that starts its first run. A run on the caller's thread
    /// ([`Vcpu::run_sync`], [`Vcpu::begin_sync`]) is where the caller is.
    pub affinity: Option<Vec<u32>>,
    /// What that thread is called in `/proc/self/task/*/comm`: 1 to 15 bytes without NUL. None: `kvm-vcpu` and the id.
    pub name: Option<String>,
}

/// What is chosen of a vCPU's processor, before anybody has checked it.
pub(crate) struct Choice {
    pub(crate) features: Option<VcpuFeatures>,
    pub(crate) cpuid: Option<Vec<CpuidEntry>>,
    pub(crate) synic: bool,
}

/// One virtual CPU. Closed when its VM is; KVM keeps it, and its id, until then.
///
/// ```no_run
/// use std::time::Duration;
/// use typevisor::{Exit, GpaRange, Kvm, Vm, VmOptions, memory::MapOptions, vcpu::VcpuOptions};
/// let kvm = Kvm::open(Default::default())?;
/// let vm = Vm::create(&kvm, &VmOptions::default())?;
/// vm.memory().map(&MapOptions::new(GpaRange::pages(0xffff_f000, 4096)?))?;
/// vm.memory().write(0xffff_fff0, &[0xf4])?; // hlt at the x86 reset vector
/// let vcpu = vm.create_vcpu(VcpuOptions::default())?;
/// assert_eq!(vcpu.run_sync(Duration::from_secs(1))?, Exit::Hlt);
/// # Ok::<(), typevisor::Error>(())
/// ```
pub struct Vcpu {
    shared: Arc<Shared>,
    memory: GuestMemory,
    /// A VM lives as long as one of its vCPUs' handles.
    _vm: Arc<dyn Send + Sync>,
    tickets: AtomicU64,
}

/// Tickets that `run_sync` and `settle` give themselves lie above those of callers.
const OWN_TICKETS: u64 = 1 << 63;

impl Vcpu {
    /// `vm` is kept, and `memory` is where boots put their tables.
    pub(crate) fn new(shared: Arc<Shared>, memory: &GuestMemory, vm: Arc<dyn Send + Sync>) -> Self {
        Self { shared, memory: memory.clone(), _vm: vm, tickets: AtomicU64::new(OWN_TICKETS) }
    }

    /// The vCPU's id in its VM.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.shared.id()
    }

    /// Runs the guest on the calling thread until its next exit, for at most `limit`.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `limit`: the guest stands still, between two instructions but as [`Vcpu::kick`] says, and
    /// can be run on. [`Error::Busy`], [`Error::Closed`], [`Error::ExitUnanswered`], [`Error::Poisoned`],
    /// [`Error::Internal`]. A failing `KVM_RUN` is an exit.
    pub fn run_sync(&self, limit: Duration) -> Result<Exit> {
        loop {
            match self.begin_sync(limit)?.step(WhenFull::Wait)? {
                Step::Exit(exit) => return Ok(exit),
                Step::Claimed(claimed) => return Ok(claimed.into()),
                Step::Full => {}
            }
        }
    }

    /// Begins a run on the calling thread in which the program answers the accesses that it claimed, for at most
    /// `limit` in all.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Closed`], [`Error::ExitUnanswered`].
    pub fn begin_sync(&self, limit: Duration) -> Result<SyncRun> {
        SyncRun::begin(&self.shared, self.tickets.fetch_add(1, Ordering::Relaxed), limit)
    }

    /// Runs the guest on the vCPU's own thread. `done` is called there with the outcome; it may start the next run.
    /// `ticket` names the run to [`Vcpu::cancel`]; use each once, below 2^63.
    ///
    /// # Errors
    /// Those of [`Vcpu::run_sync`] but the time-out. `done` is not called then.
    pub fn start(&self, ticket: u64, done: impl FnOnce(Result<Outcome>) + Send + 'static) -> Result<()> {
        self.submit(ticket, Goal::Run, Box::new(done))
    }

    /// Completes the pending exit on the vCPU's own thread without running the guest further. It may bring a further
    /// exit: string I/O, and MMIO that KVM split. A kick does not end it, but stays for the next run. [`Vcpu::cancel`] ends
    /// it where a change of the memory holds the vCPU out, with [`Exit::Intr`] and the exit still pending.
    ///
    /// # Errors
    /// Those of [`Vcpu::start`].
    pub fn start_settle(&self, ticket: u64, done: impl FnOnce(Result<Outcome>) + Send + 'static) -> Result<()> {
        self.submit(ticket, Goal::Settle, Box::new(done))
    }

    fn submit(&self, ticket: u64, goal: Goal, done: thread::Done) -> Result<()> {
        let shared = &self.shared;
        shared.check_fork()?;
        let mut state = shared.state();
        if state.worker.is_none() && !state.closing {
            state.worker = Some(Worker::spawn(Arc::clone(shared))?);
        }
        let engine = Shared::take(&mut state)?;
        if let Err(error) = engine.check_answered() {
            state.place = Place::Here(engine);
            return Err(error);
        }
        let Some(worker) = &state.worker else {
            state.place = Place::Here(engine);
            return Err(Error::Closed { what: "vCPU" });
        };
        shared.control.begin(ticket);
        worker.submit(Job { engine, goal, done }).map_err(|job| {
            shared.control.end();
            state.place = Place::Here(job.engine);
            Error::Internal { message: "the vCPU's thread has ended".into() }
        })
    }

    /// Stops the run that was started with `ticket`, which then gives [`Exit::Intr`]; no other run, and nothing where
    /// that one is over.
    pub fn cancel(&self, ticket: u64) {
        if self.shared.check_fork().is_ok() {
            self.shared.control.cancel(ticket);
        }
    }

    /// Stops the running entry, or else the next one, with [`Exit::Intr`], between two instructions. Only where a change of
    /// the memory just then holds the vCPUs out (which lasts while one of them sleeps in a missing page) does the run end
    /// without completing the instruction of the last exit: [`Vcpu::registers`] says so, and the next run or
    /// [`Vcpu::start_settle`] completes it. The same goes for [`Vcpu::cancel`] and the limit of [`Vcpu::run_sync`].
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub fn kick(&self) -> Result<()> {
        self.shared.check_fork()?;
        if self.shared.state().closing {
            return Err(Error::Closed { what: "vCPU" });
        }
        self.shared.control.kick();
        Ok(())
    }

    /// Answers the last exit with a number, of as many bytes as the exit wants.
    ///
    /// # Errors
    /// [`Error::AnswerRange`] where the exit wants more than 8 bytes (string input takes bytes) or the number does not
    /// fit; those of [`Vcpu::answer`].
    pub fn answer_word(&self, value: u64) -> Result<()> {
        self.shared.with_engine(|engine| engine.answer_word(value))
    }

    /// Answers the last exit: as many bytes as it wants, little-endian. Takes effect with the next run.
    ///
    /// # Errors
    /// [`Error::NoAnswerExpected`], [`Error::AnswerSize`], [`Error::InvalidArgument`] where the exit takes a fault and no
    /// value ([`Exit::Wrmsr`]), [`Error::Busy`], [`Error::Closed`]. Nothing is written then.
    pub fn answer(&self, bytes: &[u8]) -> Result<()> {
        self.shared.with_engine(|engine| engine.answer(bytes))
    }

    /// Answers the last exit so that the guest's instruction faults: #GP for [`Exit::Rdmsr`] and [`Exit::Wrmsr`].
    ///
    /// # Errors
    /// [`Error::NoAnswerExpected`], [`Error::InvalidArgument`] where the exit takes no fault, [`Error::Busy`],
    /// [`Error::Closed`]. Nothing is written then.
    pub fn answer_fault(&self) -> Result<()> {
        self.shared.with_engine(Engine::answer_fault)
    }

    /// What the kernel said beside the exit that was delivered last ([`Exit::Intr`] is one): `kvm_run.flags`, api.rst section 5.
    /// At any time; before the first exit there are none.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use typevisor::{Exit, Kvm, Vm, VmOptions, vcpu::VcpuOptions};
    /// # let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
    /// let vcpu = vm.create_vcpu(VcpuOptions::default())?;
    /// let exit = vcpu.run_sync(Duration::from_secs(1))?;
    /// if vcpu.run_flags().bus_lock && exit != Exit::BusLock {
    ///     println!("{} by an instruction that locked the bus, or behind one", exit.kind());
    /// }
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    #[must_use]
    pub fn run_flags(&self) -> RunFlags {
        self.shared.told.read()
    }

    /// The registers, and whether the last exit is still to be completed: then they are raw, as KVM holds them in the
    /// middle of an instruction.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Closed`], [`Error::Ioctl`].
    pub fn registers(&self) -> Result<(Registers, bool)> {
        self.shared.with_engine(|engine| Ok((arch::get_registers(&engine.fd)?, engine.is_pending())))
    }

    /// Changes registers: `change` gets the present ones. Only what it changes is written.
    ///
    /// # Errors
    /// [`Error::Busy`] also while an exit waits for its completion ([`Vcpu::start_settle`]), [`Error::Closed`],
    /// [`Error::Ioctl`].
    pub fn update_registers(&self, change: impl FnOnce(&mut Registers) -> Result<()>) -> Result<()> {
        self.settled_engine(|engine| arch::update_registers(&engine.fd, change))
    }

    /// Puts the vCPU where a guest of that mode starts.
    ///
    /// On aarch64 it takes the place of a PSCI `CPU_ON` that another vCPU has made for this one and that no run has seen
    /// yet. One that is made during the boot may come after it, and reset the vCPU at its next run.
    ///
    /// # Errors
    /// Those of [`Vcpu::update_registers`]; [`Error::InvalidArgument`] and [`Error::Unaligned`] where the options
    /// contradict each other or ask for a mode of the other architecture; [`Error::SlotOverlap`],
    /// [`Error::SlotLimit`] where there is no room for the tables.
    pub fn boot(&self, options: &BootOptions) -> Result<Boot> {
        self.settled_engine(|engine| {
            let Engine { fd, setup, .. } = engine;
            arch::boot(fd, &self.memory, setup, options)
        })
    }

    /// KVM's own statistics of this vCPU (api.rst 4.133). At any time: neither KVM nor this waits for the vCPU.
    ///
    /// # Errors
    /// [`Error::CapabilityMissing`] without `KVM_CAP_BINARY_STATS_FD` (Linux 5.14), [`Error::Closed`], [`Error::Forked`].
    pub fn kvm_stats(&self) -> Result<KvmStats> {
        self.shared.check_fork()?;
        self.shared.kvm_stats.read("vCPU")
    }

    /// The exits so far, by kind; also while it runs, and after it was closed.
    #[must_use]
    pub fn exit_stats(&self) -> ExitStats {
        self.shared.exit_stats()
    }

    /// Both: what there is of KVM's, and the exits.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use typevisor::{Kvm, Vm, VmOptions, exit::ExitKind, vcpu::VcpuOptions};
    /// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions { timing: true, ..Default::default() })?;
    /// let vcpu = vm.create_vcpu(VcpuOptions::default())?;
    /// vcpu.run_sync(Duration::from_secs(1))?;
    /// let stats = vcpu.stats()?;
    /// println!("{} MMIO exits in {:?}", stats.exits.count(ExitKind::Mmio), stats.exits.times().map(|times| times.guest()));
    /// if let Some(kvm) = &stats.kvm {
    ///     println!("the processor left the guest {:?} times", kvm.get("exits").map(|stat| &stat.values));
    /// }
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub fn stats(&self) -> Result<Stats> {
        Ok(Stats { kvm: Stats::if_any(self.kvm_stats())?, exits: self.exit_stats() })
    }

    fn settled_engine<T>(&self, act: impl FnOnce(&mut Engine) -> Result<T>) -> Result<T> {
        self.shared.with_engine(|engine| {
            engine.check_answered()?;
            if engine.is_pending() && !cfg!(broken = "completion-registers") {
                return Err(Error::Busy { why: "its last exit is not complete; settle it or run on first" });
            }
            act(engine)
        })
    }

    /// The first half of [`Vcpu::close`], which does not wait: runs are stopped, and from now on none begins. For a thread
    /// that leaves the rest to another.
    pub fn begin_close(&self) {
        self.shared.request_close();
    }

    /// Stops every run (pending ones fail with [`Error::Closed`]), joins the thread and releases what the vCPU holds.
    /// Twice is harmless. From inside a run (in a device, in a callback of [`Vcpu::start`]) it returns at once, and the
    /// rest happens when that call has returned.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        // The VM keeps it until it closes itself, as KVM does; but nobody can see its exits any more.
        self.shared.close();
    }
}

impl std::fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vcpu").field("id", &self.shared.id()).finish_non_exhaustive()
    }
}
