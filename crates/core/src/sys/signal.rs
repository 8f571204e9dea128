//! The kick signal: an empty handler whose delivery makes `KVM_RUN` return, and the masks around vCPU threads.
#![expect(unsafe_code, reason = "sigaction, pthread_sigmask, tgkill")]

use std::{
    cell::Cell,
    mem::MaybeUninit,
    sync::{Mutex, PoisonError},
};

use crate::error::{Errno, Error, Result};

/// The offset from `SIGRTMIN` (which leaves out what glibc keeps for itself) used unless told otherwise: past the
/// first few, which programs that use real-time signals tend to take.
const DEFAULT_OFFSET: i32 = 4;

static INSTALLED: Mutex<Option<KickSignal>> = Mutex::new(None);

/// A real-time signal that belongs to this process's vCPU threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KickSignal(i32);

/// A thread's identity for [`KickSignal::send`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadId(libc::pid_t);

impl ThreadId {
    /// The calling thread.
    pub(crate) fn current() -> Self {
        thread_local! {
            // SAFETY: takes nothing, changes nothing, cannot fail.
            static ID: libc::pid_t = unsafe { libc::gettid() };
        }
        Self(ID.with(|id| *id))
    }
}

impl KickSignal {
    /// The process's kick signal: `SIGRTMIN+4`, or `SIGRTMIN+n` with `TYPEVISOR_KICK_SIGNAL=n`. The handler is
    /// installed at the first call. Two copies of the library share it: both handlers do nothing.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the variable names no real-time signal, [`Error::KickSignalTaken`] where
    /// another part of the process handles that signal.
    pub(crate) fn get() -> Result<Self> {
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signal) = *installed {
            return Ok(signal);
        }
        let signal = Self(libc::SIGRTMIN() + configured_offset()?);
        signal.install()?;
        *installed = Some(signal);
        Ok(signal)
    }

    fn install(self) -> Result<()> {
        let mut old = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a null new action only asks for the current one, written to `old`.
        if unsafe { libc::sigaction(self.0, std::ptr::null(), old.as_mut_ptr()) } != 0 {
            return Err(Error::last_os("sigaction"));
        }
        // SAFETY: the call above succeeded and filled it in; all-zero bytes would be valid as well.
        let old = unsafe { old.assume_init() };
        let ours = old.sa_flags & MARK == MARK;
        if old.sa_sigaction != libc::SIG_DFL && old.sa_sigaction != libc::SIG_IGN && !ours {
            return Err(Error::KickSignalTaken { signal: self.0 });
        }
        // SAFETY: all-zero bytes are a valid sigaction: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as *const () as usize;
        action.sa_flags = MARK;
        // SAFETY: the handler is async-signal-safe (it does nothing) and its code is never unloaded (`nodelete`).
        match unsafe { libc::sigaction(self.0, &raw const action, std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(Error::last_os("sigaction")),
        }
    }

    /// Interrupts `thread` if it is in `KVM_RUN`; harmless wherever else it is.
    pub(crate) fn send(self, thread: ThreadId) {
        // SAFETY: takes nothing, changes nothing, cannot fail.
        let process = unsafe { libc::getpid() };
        // SAFETY: tgkill takes three integers. A thread that has ended answers ESRCH, which is no error here:
        // callers hold the lock under which the thread would have taken its id back.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread.0, self.0) };
    }

    /// Runs `spawn` with every signal blocked, so that the thread it starts never takes one meant for the program,
    /// not even before its first instruction.
    pub(crate) fn with_all_blocked<T>(spawn: impl FnOnce() -> T) -> T {
        let old = set_mask(libc::SIG_SETMASK, &all_signals());
        let result = spawn();
        if let Ok(old) = old {
            let _restored = set_mask(libc::SIG_SETMASK, &old);
        }
        result
    }

    /// On a thread that was spawned with everything blocked: lets in the kick and the synchronous faults.
    pub(crate) fn unblock_on_vcpu_thread(self) -> Result<()> {
        let mut set = empty_set();
        for signal in [self.0, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS] {
            add(&mut set, signal);
        }
        set_mask(libc::SIG_UNBLOCK, &set).map(|_| ())
    }

    /// Lets the kick in on the calling thread, which may have been started with it blocked; a system call at the
    /// thread's first call only. Undone by nobody: the handler does nothing.
    pub(crate) fn unblock_on_this_thread(self) -> Result<()> {
        if ADMITTED.get() {
            return Ok(());
        }
        let mut set = empty_set();
        add(&mut set, self.0);
        set_mask(libc::SIG_UNBLOCK, &set)?;
        ADMITTED.set(true);
        Ok(())
    }
}

thread_local! {
    /// The kick is let in on this thread.
    static ADMITTED: Cell<bool> = const { Cell::new(false) };
}

/// Flags by which one copy of this library knows the handler of another: nobody else combines these. The last two mean
/// something to `SIGCHLD` only. Never `SA_NODEFER`: kicks queue, and as many handlers inside one another as there are
/// kicks would overflow the stack for signals.
const MARK: i32 = libc::SA_RESTART | libc::SA_ONSTACK | libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT;

extern "C" fn nothing(_signal: i32) {}

fn configured_offset() -> Result<i32> {
    let Some(text) = std::env::var_os("TYPEVISOR_KICK_SIGNAL") else { return Ok(DEFAULT_OFFSET) };
    let highest = libc::SIGRTMAX() - libc::SIGRTMIN();
    text.to_str().and_then(|text| text.parse().ok()).filter(|offset| (0..=highest).contains(offset)).ok_or(
        Error::InvalidArgument {
            what: "TYPEVISOR_KICK_SIGNAL",
            expected: "n of SIGRTMIN+n, from 0 to SIGRTMAX-SIGRTMIN",
        },
    )
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: initialises the set it is given; cannot fail.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: all of it is initialised, by the zeroing and by the call above.
    unsafe { set.assume_init() }
}

fn all_signals() -> libc::sigset_t {
    let mut set = empty_set();
    // SAFETY: fills the set it is given; cannot fail.
    unsafe { libc::sigfillset(&raw mut set) };
    set
}

fn add(set: &mut libc::sigset_t, signal: i32) {
    // SAFETY: `set` is initialised; a number that is no signal leaves it as it was.
    unsafe { libc::sigaddset(set, signal) };
}

fn set_mask(how: i32, set: &libc::sigset_t) -> Result<libc::sigset_t> {
    let mut old = empty_set();
    // SAFETY: both sets are initialised and live through the call; only this thread's mask changes.
    match unsafe { libc::pthread_sigmask(how, set, &raw mut old) } {
        0 => Ok(old),
        error => Err(Error::Os { call: "pthread_sigmask", errno: Errno(error) }),
    }
}
