//! What a failing `KVM_RUN` means: a memory fault where the errno and the exit reason both say so, whatever the
//! capabilities are (aarch64 fills the exit without having one), else a bare errno.

use std::mem::offset_of;

use kvm_bindings::{KVM_EXIT_MEMORY_FAULT, KVM_MEMORY_EXIT_FLAG_PRIVATE, kvm_run};

use super::{
    Exit,
    page::{EXIT_REASON, RunBytes},
};
use crate::error::Errno;

const FAULT_FLAGS: usize = offset_of!(kvm_run, __bindgen_anon_1.memory_fault.flags);
const FAULT_GPA: usize = offset_of!(kvm_run, __bindgen_anon_1.memory_fault.gpa);
const FAULT_SIZE: usize = offset_of!(kvm_run, __bindgen_anon_1.memory_fault.size);

/// Flags that a kernel with `KVM_CAP_EXIT_ON_MISSING` (out of tree) adds: what the guest was about to do.
const READ: u64 = 1;
const WRITE: u64 = 1 << 1;
const EXEC: u64 = 1 << 2;

/// Which half of guest memory an access was to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultAccess {
    /// `KVM_MEMORY_EXIT_FLAG_PRIVATE`: memory that the host cannot read.
    Private,
    /// Ordinary memory.
    Shared,
}

/// What the guest was about to do with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Exec,
}

impl FaultKind {
    /// The name as TypeScript has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Exec => "exec",
        }
    }
}

/// Why the access failed, as far as it can be told. Not the kernel's word, but Typevisor's inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultCause {
    /// The guest reached for private memory where there is none: a request to convert it, or a race with one.
    Conversion,
    /// The host's memory is broken there (`EHWPOISON`).
    Poison,
    /// Nothing is known.
    Unknown,
}

impl FaultCause {
    /// The name as TypeScript has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conversion => "conversion",
            Self::Poison => "poison",
            Self::Unknown => "unknown",
        }
    }
}

/// The exit of a `KVM_RUN` that failed with `errno`, which is not `EINTR` or `EAGAIN`.
pub(super) fn failed(page: RunBytes<'_>, errno: Errno) -> Exit {
    // For every other errno the reason is stale (api.rst section 5, KVM_EXIT_MEMORY_FAULT).
    let explained = matches!(errno.0, libc::EFAULT | libc::EHWPOISON);
    let fault = match page.word(EXIT_REASON) {
        Some(KVM_EXIT_MEMORY_FAULT) if explained => memory_fault(page, errno),
        _ => None,
    };
    fault.unwrap_or(Exit::RunFailed { errno })
}

fn memory_fault(page: RunBytes<'_>, errno: Errno) -> Option<Exit> {
    let flags = page.long(FAULT_FLAGS)?;
    let private = flags & u64::from(KVM_MEMORY_EXIT_FLAG_PRIVATE) != 0;
    Some(Exit::MemoryFault {
        gpa: page.long(FAULT_GPA)?,
        size: page.long(FAULT_SIZE)?,
        flags,
        access: if private { FaultAccess::Private } else { FaultAccess::Shared },
        rwx: rwx(flags),
        errno,
        cause: match errno.0 {
            libc::EHWPOISON => FaultCause::Poison,
            _ if private => FaultCause::Conversion,
            _ => FaultCause::Unknown,
        },
    })
}

/// Two at once make no sense, and say nothing.
const fn rwx(flags: u64) -> Option<FaultKind> {
    match flags & (READ | WRITE | EXEC) {
        READ => Some(FaultKind::Read),
        WRITE => Some(FaultKind::Write),
        EXEC => Some(FaultKind::Exec),
        _ => None,
    }
}
