//! One vCPU while somebody drives it: enters the guest, decodes, offers accesses to the bus, keeps what completion needs.
//! Whoever holds the engine drives the vCPU; there is one.

use std::{sync::Arc, thread};

use kvm_ioctls::{VcpuFd, VmFd};

use super::{
    control::{Control, Stop},
    run_page::{ImmediateExit, RunPage},
};
use crate::{
    bus::{Bus, Gate, Handled},
    error::{Errno, Error, Result},
    exit::{Access, Exit, Raw, decode, decode_exit},
    sys::ioctl::KVM_RUN,
};

/// Reads of up to this many bytes are answered without allocating.
const INLINE: usize = 8;

/// `KVM_RUN` under `immediate_exit` can meet `ENOMEM` when the kernel starts a VM's helper thread (x86).
const PRIME_TRIES: usize = 5;

/// What a drive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Run the guest until an exit is the program's.
    Run,
    /// Complete the pending exit and enter no further.
    Settle,
}

/// What to do where a device is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// Wait until somebody makes room.
    Wait,
    /// Say so: the caller is the one who makes room.
    Return,
}

/// How a drive ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Driven {
    Exit(Exit),
    /// Kicked or cancelled before the guest was entered (again).
    Stopped(Stop),
    /// Settled: nothing is pending.
    Settled,
    /// A device is full ([`WhenFull::Return`]).
    Full,
}

/// What the guest's last exit still needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    Nothing,
    /// Re-entry completes it.
    Completion,
    /// Re-entry completes it, after `size` bytes were put at `at`.
    Answer {
        at: usize,
        size: usize,
    },
}

pub(crate) struct Engine {
    // Order of fields is order of release: the mapping and the vCPU's fd both keep the VM alive.
    page: RunPage,
    immediate: ImmediateExit,
    pub(crate) fd: VcpuFd,
    _vm: Arc<VmFd>,
    bus: Bus,
    pending: Pending,
    primed: bool,
    pub(crate) poisoned: bool,
    #[cfg(target_arch = "x86_64")]
    pub(crate) tables: super::arch::boot::HostTables,
}

impl Engine {
    pub(crate) fn new(fd: VcpuFd, vm: Arc<VmFd>, bus: Bus, run_size: usize) -> Result<(Self, ImmediateExit)> {
        let (page, immediate) = RunPage::map(&fd, run_size)?;
        // On aarch64 a KVM_RUN would finalise the vCPU before its features are chosen.
        let primed = cfg!(target_arch = "aarch64");
        let kicker = immediate.clone();
        let engine = Self {
            page,
            immediate,
            fd,
            _vm: vm,
            bus,
            pending: Pending::Nothing,
            primed,
            poisoned: false,
            #[cfg(target_arch = "x86_64")]
            tables: super::arch::boot::HostTables::default(),
        };
        Ok((engine, kicker))
    }

    /// Whether the state of the last exit is not final until re-entry.
    pub(crate) const fn is_pending(&self) -> bool {
        !matches!(self.pending, Pending::Nothing)
    }

    /// Refuses to go on where the guest waits for a value.
    pub(crate) const fn check_answered(&self) -> Result<()> {
        match self.pending {
            Pending::Answer { size, .. } => Err(Error::ExitUnanswered { size }),
            _ => Ok(()),
        }
    }

    /// Bytes that the last exit wants.
    pub(crate) const fn wanted(&self) -> Result<usize> {
        match self.pending {
            Pending::Answer { size, .. } => Ok(size),
            _ => Err(Error::NoAnswerExpected),
        }
    }

    /// Puts the answer where the kernel looks for it. An exit takes one.
    pub(crate) fn answer(&mut self, bytes: &[u8]) -> Result<()> {
        let expected = self.wanted()?;
        let Pending::Answer { at, .. } = self.pending else { return Err(Error::NoAnswerExpected) };
        if bytes.len() != expected || !self.page.write(at, bytes) {
            return Err(Error::AnswerSize { expected, given: bytes.len() });
        }
        self.pending = Pending::Completion;
        Ok(())
    }

    /// Runs the guest until `goal` is reached or `control` stops it. Accesses that the bus claims are dealt with here.
    pub(crate) fn drive(&mut self, control: &Control, goal: Goal, full: WhenFull) -> Result<Driven> {
        self.check_answered()?;
        self.prime();
        control.enter();
        loop {
            if goal == Goal::Run {
                if let Some(stop) = control.arm(&self.immediate) {
                    return Ok(Driven::Stopped(stop.closed()?));
                }
            } else if self.is_pending() {
                // Bounded without a kick: immediate_exit makes KVM_RUN complete what is pending and return.
                self.immediate.set();
            } else {
                return Ok(Driven::Settled);
            }
            match self.enter() {
                Ok(_) => {}
                // EINTR and EAGAIN: not an exit, and the page says nothing; what was pending is complete.
                Err(Errno(libc::EINTR | libc::EAGAIN)) => {
                    self.pending = Pending::Nothing;
                    continue;
                }
                Err(errno) => {
                    self.pending = Pending::Nothing;
                    return Ok(Driven::Exit(decode_exit(self.page.bytes(), Some(errno))));
                }
            }
            match self.dispatch() {
                Dispatched::Again => {}
                Dispatched::Exit(exit) => return Ok(Driven::Exit(exit)),
                // Settling runs no guest: a device is over its limit by one access at most.
                Dispatched::Full(_) if goal == Goal::Settle => {}
                Dispatched::Full(_) if full == WhenFull::Return => return Ok(Driven::Full),
                Dispatched::Full(gate) => {
                    if let Some(stop) = wait(&*gate, control) {
                        return Ok(Driven::Stopped(stop.closed()?));
                    }
                }
            }
        }
    }

    fn enter(&mut self) -> std::result::Result<i32, Errno> {
        KVM_RUN.try_call(&self.fd, 0)
    }

    /// The first entry starts helper threads of the VM on x86, which a signal would abort: it happens under
    /// `immediate_exit`, before this thread can be signalled.
    fn prime(&mut self) {
        if self.primed {
            return;
        }
        for _ in 0..PRIME_TRIES {
            self.immediate.set();
            // EINTR is what immediate_exit gives. Any failure but ENOMEM comes again in the run itself.
            if self.enter() != Err(Errno(libc::ENOMEM)) {
                break;
            }
        }
        self.primed = true;
    }

    /// Deals with the exit in the page.
    fn dispatch(&mut self) -> Dispatched {
        let access = match decode(self.page.bytes()) {
            Raw::Other(exit) => {
                self.pending = Pending::Nothing;
                return Dispatched::Exit(exit);
            }
            Raw::Access(access) => access,
        };
        let size = usize::from(access.size) * access.count as usize;
        let at = access.data_at;
        let mut inline = [0; INLINE];
        let mut heap = Vec::new();
        let answer: &mut [u8] = match inline.get_mut(..size) {
            _ if access.write => &mut [],
            Some(small) => small,
            None => {
                heap.resize(size, 0);
                &mut heap
            }
        };
        let handled = self.bus.handle(&access, answer);
        if matches!(handled, Handled::No) {
            return self.deliver(Exit::from(access), access_pending(&access, size));
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

    fn deliver(&mut self, exit: Exit, pending: Pending) -> Dispatched {
        self.pending = pending;
        Dispatched::Exit(exit)
    }
}

enum Dispatched {
    Again,
    Exit(Exit),
    Full(Arc<dyn Gate>),
}

const fn access_pending(access: &Access<'_>, size: usize) -> Pending {
    if access.write { Pending::Completion } else { Pending::Answer { at: access.data_at, size } }
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
