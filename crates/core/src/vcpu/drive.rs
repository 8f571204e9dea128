//! A drive of a vCPU from outside: what it is for, where it waits, and how it ended. What happens in it is `engine`'s.

use super::{claimed::Claimed, control::Stop};
use crate::exit::Exit;

/// What a drive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Run the guest until an exit is the program's.
    Run,
    /// Complete the pending exit and enter no further.
    Settle,
}

impl Goal {
    /// Whether a drive that is held out ends by this. Settling runs no guest, so a kick is not for it.
    pub(super) fn heeds(self, stop: Stop) -> bool {
        self == Self::Run || stop != Stop::Kicked
    }
}

/// What to do where a device is full, or the VM is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Wait until somebody makes room, or resumes.
    Wait,
    /// Say so: the caller is the one who makes room, and the one who resumes.
    Return,
}

/// How a drive ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Driven {
    Exit(Exit),
    /// An access to what the program claimed; as an exit, and what the claim makes of it.
    Claimed(Claimed),
    /// Kicked or cancelled before the guest was entered (again). Where the vCPU was held out, what was pending still is.
    Stopped(Stop),
    /// Settled: nothing is pending.
    Settled,
    /// A device is full ([`WhenFull::Return`]).
    Full,
}
