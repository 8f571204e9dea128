//! One vCPU while somebody drives it: enters the guest, decodes, offers accesses to the bus, keeps what completion needs.
//! Whoever holds the engine drives the vCPU; there is one.

use std::{sync::Arc, thread};

use kvm_ioctls::{VcpuFd, VmFd};

use super::{
    arch,
    claimed::Claimed,
    control::{Control, Stop},
    drive::{Driven, Goal, WhenFull},
    flags::{Flags, Told},
    hold::Passed,
    run_page::{ImmediateExit, RunPage},
    shared::Machine,
};
use crate::{
    bus::{Bus, Gate, Handled},
    error::{Errno, Error, Result},
    exit::{Abi, Exit, Pending, Raw, RunFlags, Wanted, decode, decode_exit},
    stats::{Clock, Tally},
    sys::{coalesced::Ring, fork::NotInherited, ioctl::KVM_RUN, mapping::keep_kvm_run},
};

/// Reads of up to this many bytes are answered without allocating.
const INLINE: usize = 8;

/// `KVM_RUN` under `immediate_exit` can meet `ENOMEM` when the kernel starts a VM's helper thread (x86).
const PRIME_TRIES: usize = 5;

/// Whether an entry begins with an exit reason that no kernel gives. Kernels before 6.8 leave the last one in the page where
/// `KVM_RUN` fails, and a fault would be told of that was not. Never on aarch64: there `exit_reason == KVM_EXIT_MMIO` at
/// entry *is* the completion of a read, which would otherwise be repeated for ever.
const FORGETS_THE_REASON: bool =
    cfg!(any(all(target_arch = "x86_64", not(broken = "sentinel-absent")), broken = "sentinel-everywhere"));

pub(crate) struct Engine {
    // Order of fields is order of release: the mapping and the vCPU's fd both keep the VM alive.
    page: RunPage,
    immediate: ImmediateExit,
    /// Where KVM gathers posted writes of all vCPUs, if it does.
    ring: Option<Ring>,
    pub(crate) fd: NotInherited<VcpuFd>,
    _vm: Arc<VmFd>,
    pub(super) bus: Bus,
    abi: Abi,
    clock: Clock,
    flags: Flags,
    pending: Pending,
    primed: bool,
    /// Of the run that is under way: nobody but its caller ends a pause, so waiting for that would be for ever.
    alone: bool,
    pub(crate) poisoned: bool,
    pub(crate) setup: arch::Setup,
}

impl Engine {
    pub(crate) fn new(fd: VcpuFd, machine: Machine, tally: Arc<Tally>, told: Told) -> Result<(Self, ImmediateExit)> {
        let Machine { vm, bus, abi, setup, run_size, .. } = machine;
        let mut fd = NotInherited::new(fd);
        keep_kvm_run(&mut fd, run_size)?;
        let (page, immediate) = RunPage::map(&fd, run_size)?;
        let ring = bus.ring_page().map(|at| page.ring(at)).transpose()?;
        if let Some(ring) = &ring {
            bus.attach(ring.clone());
        }
        // On aarch64 a KVM_RUN would finalise the vCPU before its features are chosen.
        let primed = cfg!(target_arch = "aarch64");
        let kicker = immediate.clone();
        let (clock, flags) = (Clock::new(tally), Flags::new(told));
        let (pending, alone, poisoned) = (Pending::Nothing, false, false);
        let engine = Self {
            page,
            immediate,
            ring,
            fd,
            _vm: vm,
            bus,
            abi,
            clock,
            flags,
            pending,
            primed,
            alone,
            poisoned,
            setup,
        };
        Ok((engine, kicker))
    }

    /// Whether the state of the last exit is not final until re-entry.
    pub(crate) const fn is_pending(&self) -> bool {
        !matches!(self.pending, Pending::Nothing)
    }

    /// Refuses to go on where the guest waits for an answer.
    pub(crate) const fn check_answered(&self) -> Result<()> {
        match &self.pending {
            _ if cfg!(broken = "completion-answer") => Ok(()),
            Pending::Answer(wanted) => wanted.check_given(),
            _ => Ok(()),
        }
    }

    const fn wanted(&self) -> Result<Wanted> {
        match self.pending {
            Pending::Answer(wanted) => Ok(wanted),
            _ => Err(Error::NoAnswerExpected),
        }
    }

    /// Puts the answer where the kernel looks for it. An exit takes one.
    pub(crate) fn answer(&mut self, bytes: &[u8]) -> Result<()> {
        let at = self.wanted()?.place(bytes.len())?;
        self.complete_with(at, bytes)
    }

    /// The same with a number, of as many bytes as the exit wants.
    pub(crate) fn answer_word(&mut self, value: u64) -> Result<()> {
        let size = self.wanted()?.size()?;
        let bytes = value.to_le_bytes();
        let (low, high) = bytes.split_at_checked(size).ok_or(Error::AnswerRange { size })?;
        if high.iter().any(|byte| *byte != 0) {
            return Err(Error::AnswerRange { size });
        }
        self.answer(low)
    }

    /// Makes the guest's instruction fault: `msr.error` of api.rst section 5.
    pub(crate) fn answer_fault(&mut self) -> Result<()> {
        let at = self.wanted()?.fault()?;
        self.complete_with(at, &[1])
    }

    fn complete_with(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        self.put(at, bytes)?;
        self.pending = Pending::Completion;
        Ok(())
    }

    /// What the kernel left in the page.
    #[cfg(feature = "test-hooks")]
    pub(super) fn bytes(&self) -> crate::exit::RunBytes<'_> {
        self.page.bytes()
    }

    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        // The decoder has seen to it that an answer fits.
        let misfit = || Error::Internal { message: "an answer does not fit in the kvm_run page".into() };
        self.page.write(at, bytes).then_some(()).ok_or_else(misfit)
    }

    /// Once before a run, on the thread that drives it: from here on that thread is signalled.
    ///
    /// # Errors
    /// [`Error::WouldDeadlock`] in a paused VM, with [`WhenFull::Return`]: the next run does it.
    pub(crate) fn begin(&mut self, control: &Control, full: WhenFull) -> Result<()> {
        self.alone = full == WhenFull::Return;
        self.prime(control)?;
        control.enter();
        Ok(())
    }

    /// Runs the guest until `goal` is reached or `control` stops it. Accesses that the bus claims are dealt with here.
    pub(crate) fn drive(&mut self, control: &Control, goal: Goal, full: WhenFull) -> Result<Driven> {
        self.alone = full == WhenFull::Return;
        self.check_answered()?;
        loop {
            if goal == Goal::Run {
                if let Some(stop) = control.arm(&self.immediate) {
                    return self.stop(control, stop);
                }
            } else if self.is_pending() && !cfg!(broken = "completion-settle") {
                // Bounded without a kick: immediate_exit makes KVM_RUN complete what is pending and return.
                self.immediate.set();
            } else {
                return Ok(Driven::Settled);
            }
            let dispatched = match self.bus.backlog() {
                Some(gate) if goal == Goal::Run => Dispatched::Full(gate),
                _ => self.enter_and_dispatch(control, goal)?,
            };
            match dispatched {
                Dispatched::Nothing | Dispatched::Again => {}
                Dispatched::Exit(exit) => return Ok(Driven::Exit(exit)),
                Dispatched::Claimed(claimed) => return Ok(Driven::Claimed(claimed)),
                Dispatched::HeldOut(stop) => return self.end(control, stop),
                // Settling runs no guest: a device is over its limit by one access at most.
                Dispatched::Full(_) if goal == Goal::Settle => {}
                Dispatched::Full(_) if full == WhenFull::Return => return Ok(Driven::Full),
                Dispatched::Full(gate) => {
                    if let Some(stop) = wait(&*gate, control) {
                        return self.stop(control, stop);
                    }
                }
            }
        }
    }

    /// Ends a run between two instructions: completes the one whose access was dealt with. That may bring an exit,
    /// which is the program's; the kick then stops the next entry. While the vCPU is held out nothing can be completed:
    /// the run ends, and the next one, or settling, does that.
    fn stop(&mut self, control: &Control, stop: Stop) -> Result<Driven> {
        let stop = stop.closed()?;
        // Bounded: immediate_exit lets KVM finish that instruction (of a string one, 1,024 elements) and no other.
        while self.is_pending() && !cfg!(broken = "completion-stop") {
            self.immediate.set();
            match self.enter_and_dispatch(control, Goal::Run)? {
                // A device that is full is over its limit by one instruction at most.
                Dispatched::Nothing | Dispatched::Again | Dispatched::Full(_) => {}
                Dispatched::Exit(exit) => return Ok(Driven::Exit(exit)),
                Dispatched::Claimed(claimed) => return Ok(Driven::Claimed(claimed)),
                Dispatched::HeldOut(stop) => return self.end(control, stop),
            }
        }
        self.end(control, stop)
    }

    /// The run ends for this reason.
    fn end(&mut self, control: &Control, stop: Stop) -> Result<Driven> {
        let stop = stop.closed()?;
        control.obey(stop);
        self.clock.stopped();
        // What happened was told or kept as the guest came out; the page shows it until the next entry.
        self.flags.tell(self.run_flags().modes());
        Ok(Driven::Stopped(stop))
    }

    #[inline]
    fn enter_and_dispatch(&mut self, control: &Control, goal: Goal) -> Result<Dispatched> {
        let entered = match self.enter(control, goal)? {
            Passed::Entered(result) => result,
            Passed::Stopped(stop) => return Ok(Dispatched::HeldOut(stop)),
        };
        // Whatever it returned: what the guest wrote before is handed on before.
        if self.ring.as_ref().is_some_and(|ring| self.bus.has_gathered(ring)) {
            self.bus.drain();
        }
        Ok(match entered {
            Ok(_) => self.dispatch(),
            Err(Errno(libc::EINTR)) if cfg!(broken = "stale-page") => self.dispatch(),
            // EINTR and EAGAIN: not an exit, and the page says nothing; what was pending is complete.
            Err(Errno(libc::EINTR | libc::EAGAIN)) => {
                self.pending = Pending::Nothing;
                self.flags.keep(self.run_flags());
                Dispatched::Nothing
            }
            Err(errno) => {
                self.pending = Pending::Nothing;
                let exit = decode_exit(self.page.bytes(), Some(errno), self.abi);
                self.clock.exit(exit.exit_kind());
                self.flags.tell(self.run_flags());
                Dispatched::Exit(exit)
            }
        })
    }

    /// Waits while the VM's vCPUs are held out, unless there is a reason to stop; what is pending stays pending.
    fn enter(&mut self, control: &Control, goal: Goal) -> Result<Passed<Entered, Stop>> {
        if FORGETS_THE_REASON {
            self.page.forget_reason();
        }
        let Self { fd, clock, alone, .. } = self;
        control.pass(*alone, |stop| goal.heeds(stop), || clock.around(|| KVM_RUN.try_call(&**fd, 0)))
    }

    /// The first entry starts helper threads of the VM on x86, which a signal would abort: it happens under
    /// `immediate_exit`, before this thread can be signalled. Where the vCPU is held out and the run has a reason to stop,
    /// the next run does it.
    fn prime(&mut self, control: &Control) -> Result<()> {
        if self.primed {
            return Ok(());
        }
        for _ in 0..PRIME_TRIES {
            self.immediate.set();
            match self.enter(control, Goal::Run) {
                Ok(Passed::Entered(Err(Errno(libc::ENOMEM)))) => {}
                Ok(Passed::Stopped(_)) => return Ok(()),
                Err(error @ Error::WouldDeadlock { .. }) => return Err(error),
                // EINTR is what immediate_exit gives. Any other failure comes again in the run itself.
                _ => break,
            }
        }
        self.primed = true;
        Ok(())
    }

    /// What the page says beside the exit.
    #[inline]
    fn run_flags(&self) -> RunFlags {
        RunFlags::of_page(self.page.bytes(), self.abi.arch)
    }

    /// Deals with the exit in the page.
    fn dispatch(&mut self) -> Dispatched {
        let flags = self.run_flags();
        let access = match decode(self.page.bytes(), self.abi) {
            Raw::Other(exit, pending) => {
                self.flags.tell(flags);
                self.clock.exit(exit.exit_kind());
                self.pending = pending;
                return Dispatched::Exit(exit);
            }
            Raw::Access(access) => access,
        };
        self.clock.exit(access.kind());
        let size = access.data.len();
        let at = access.data_at;
        let mut inline = [0; INLINE];
        let mut heap = Vec::new();
        let answer: &mut [u8] = match inline.get_mut(..size) {
            // Nothing to fill, at an address that is real: filling nothing at a made-up one is slow on some processors.
            _ if access.write => inline.split_at_mut(0).0,
            Some(small) => small,
            None => {
                heap.resize(size, 0);
                &mut heap
            }
        };
        let handled = self.bus.handle(&access, answer);
        match handled {
            Handled::No => {
                let (exit, pending) = (Exit::from(access), access.pending());
                self.pending = pending;
                self.flags.tell(flags);
                return Dispatched::Exit(exit);
            }
            Handled::Program { claim, offset } => {
                let (claimed, pending) = (Claimed::new(&access, claim, offset), access.pending());
                self.pending = pending;
                self.flags.keep(flags);
                return Dispatched::Claimed(claimed);
            }
            Handled::Yes | Handled::Wait(_) => self.flags.keep(flags),
        }
        if !self.page.write(at, answer) {
            // The decoder has seen to it that an answer fits.
            return Dispatched::Exit(Exit::RunFailed { errno: Errno(libc::ERANGE) });
        }
        self.pending = Pending::Completion;
        match handled {
            Handled::Wait(gate) => Dispatched::Full(gate),
            _ => Dispatched::Again,
        }
    }
}

/// What `KVM_RUN` returned.
type Entered = std::result::Result<i32, Errno>;

enum Dispatched {
    /// No exit.
    Nothing,
    /// An access was dealt with.
    Again,
    Exit(Exit),
    Claimed(Claimed),
    Full(Arc<dyn Gate>),
    /// Nothing was entered, as somebody holds the vCPU out, and there is a reason to stop.
    HeldOut(Stop),
}

/// Waits until the gate opens, or until there is a reason to stop.
fn wait(gate: &dyn Gate, control: &Control) -> Option<Stop> {
    let this = thread::current();
    loop {
        if let Some(stop) = control.stop() {
            return Some(stop);
        }
        if gate.pass_or_register(&this) {
            return None;
        }
        thread::park();
    }
}
