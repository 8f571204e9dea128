//! The one error type, and the closed list of codes by which programs tell errors apart.

use std::{fmt, io, path::PathBuf};

use crate::range::GpaRange;

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// An errno value as the kernel gave it (positive).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The calling thread's `errno`.
    pub(crate) fn last() -> Self {
        Self::from(io::Error::last_os_error())
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        // Every error handed in comes from a system call; `EIO` stands for one that does not.
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<kvm_ioctls::Error> for Errno {
    fn from(error: kvm_ioctls::Error) -> Self {
        Self(error.errno())
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.0))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::error::Error for Errno {}

/// Why something was refused. The message says what was asked, why it was refused and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// KVM said no for a reason that was not foreseen; `request` is the ioctl's name.
    #[error("{request} failed: {errno}")]
    Ioctl {
        /// Name of the ioctl, as in the kernel's header.
        request: &'static str,
        /// What the kernel returned.
        #[source]
        errno: Errno,
    },
    /// Another system call failed.
    #[error("{call} failed: {errno}")]
    Os {
        /// Name of the system call.
        call: &'static str,
        /// What the kernel returned.
        #[source]
        errno: Errno,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {errno}", path = path.display())]
    File {
        /// The file as it was named.
        path: PathBuf,
        /// What the kernel returned.
        #[source]
        errno: Errno,
    },
    /// A capability that the running kernel (or this VM) lacks.
    #[error("{needed_by} needs the KVM capability {capability}, which this kernel lacks; Linux {since} has it")]
    CapabilityMissing {
        /// Kebab-case name of the capability.
        capability: &'static str,
        /// What needed it.
        needed_by: &'static str,
        /// First kernel release that has it.
        since: &'static str,
    },
    /// An argument that can never be right.
    #[error("{what} must be {expected}")]
    InvalidArgument {
        /// The argument.
        what: &'static str,
        /// What would have been right.
        expected: &'static str,
    },
    /// A guest physical range that is empty or that no guest can have.
    #[error(
        "{size:#x} bytes at guest physical address {gpa:#x}: a range has at least one byte and ends at or below 2^52"
    )]
    OutOfRange {
        /// First address asked for.
        gpa: u64,
        /// Bytes asked for.
        size: u64,
    },
    /// An address or size off its alignment.
    #[error("{what} {value:#x} is not a multiple of {alignment:#x}")]
    Unaligned {
        /// `gpa` or `size`.
        what: &'static str,
        /// The value given.
        value: u64,
        /// What it has to be a multiple of, in bytes.
        alignment: u64,
    },
    /// A new slot that shares addresses with one that exists.
    #[error("slot range {new} overlaps {old}; unmap that slot first")]
    SlotOverlap {
        /// The range asked for.
        new: GpaRange,
        /// The range that is there.
        old: GpaRange,
    },
    /// A slot number that another slot has.
    #[error("slot number {number} is taken by the slot at {range}; unmap that slot first, or let a number be chosen")]
    SlotNumberTaken {
        /// The number asked for.
        number: u32,
        /// Where the slot that has it lies.
        range: GpaRange,
    },
    /// A slot number that this VM does not have.
    #[error("slot number {number} is out of range: this VM has {limit} memory slots, numbered from 0")]
    SlotNumberRange {
        /// The number asked for.
        number: u32,
        /// How many slots KVM reports (`nr-memslots`).
        limit: u32,
    },
    /// No slot number is left.
    #[error("this VM has {limit} memory slots and all are taken")]
    SlotLimit {
        /// How many slots KVM reports.
        limit: u32,
    },
    /// Host access to guest addresses behind which there is no memory. Nothing was copied.
    #[error("no memory at guest physical address {gpa:#x} (in the access to {range}); nothing was copied")]
    MemoryHole {
        /// First address without memory.
        gpa: u64,
        /// The whole access.
        range: GpaRange,
    },
    /// No RAM where firmware's copy below 1 MiB goes. Nothing was mapped or written.
    #[error(
        "no RAM at {gpa:#x}: a copy of the firmware goes to {range}; map RAM there first, 16 MiB from 0 on for a PC"
    )]
    FirmwareRam {
        /// First address without memory.
        gpa: u64,
        /// Where the copy goes.
        range: GpaRange,
    },
    /// A limit of this process or machine was reached.
    #[error("{what}: the limit of {limit} is reached; {remedy}")]
    Limit {
        /// What ran out.
        what: &'static str,
        /// How many there are.
        limit: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// The object was closed, or closes while this call waits.
    #[error("the {what} is closed")]
    Closed {
        /// `VM`, `vCPU` or `memory slot`.
        what: &'static str,
    },
    /// Somebody else drives the vCPU right now.
    #[error("the vCPU is busy: {why}")]
    Busy {
        /// What it is doing, and what to do.
        why: &'static str,
    },
    /// A state that cannot be trusted any more.
    #[error("the {what} cannot be used any more: {why}; close it")]
    Poisoned {
        /// `VM` or `vCPU`.
        what: &'static str,
        /// What happened.
        why: &'static str,
    },
    /// The object belongs to the process that was forked.
    #[error("this VM belongs to the parent process: a fork does not carry it over; create one here")]
    Forked,
    /// A time limit passed.
    #[error("{what} took longer than {limit_ms} ms")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The guest waits for a value that was not given.
    #[error("the last exit wants an answer of {size} bytes; call answer() before running on")]
    ExitUnanswered {
        /// Bytes wanted.
        size: usize,
    },
    /// An answer for an exit that wants none.
    #[error("the last exit wants no answer")]
    NoAnswerExpected,
    /// An answer of the wrong length. Nothing was written.
    #[error("the last exit wants an answer of {expected} bytes, not {given}")]
    AnswerSize {
        /// Bytes wanted.
        expected: usize,
        /// Bytes given.
        given: usize,
    },
    /// A number that is no answer to the last exit. Nothing was written.
    #[error("the last exit wants {size} bytes: answer with a number that fits in them, or with {size} bytes")]
    AnswerRange {
        /// Bytes wanted.
        size: usize,
    },
    /// A guest image that cannot be loaded.
    #[error("the guest image is refused: {why}")]
    GuestImage {
        /// What is wrong with it.
        why: &'static str,
    },
    /// `/dev/kvm` cannot be used; the reason names cause and remedy.
    #[error("{reason}")]
    KvmUnavailable {
        /// Why, and what to do.
        reason: Box<crate::host::Unavailable>,
    },
    /// A bug in Typevisor: a panic was caught.
    #[error("internal error in Typevisor, please report it: {message}")]
    Internal {
        /// The panic's message.
        message: Box<str>,
    },
}

/// Declares the codes once: the enum, its names and the list of all.
macro_rules! codes {
    ($($variant:ident => $name:literal,)+) => {
        /// The closed list of codes. The facade adds those that only it can meet (`ERR_LOAD`, …).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each is documented at the error that carries it")]
        #[non_exhaustive]
        pub enum ErrorCode { $($variant,)+ }

        impl ErrorCode {
            /// Every code the core can give.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The code as programs see it, `ERR_…`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

codes! {
    KvmUnavailable => "ERR_KVM_UNAVAILABLE",
    CapabilityMissing => "ERR_CAPABILITY_MISSING",
    InvalidArgument => "ERR_INVALID_ARGUMENT",
    OutOfRange => "ERR_OUT_OF_RANGE",
    Unaligned => "ERR_UNALIGNED",
    SlotOverlap => "ERR_SLOT_OVERLAP",
    SlotLimit => "ERR_SLOT_LIMIT",
    MemoryHole => "ERR_MEMORY_HOLE",
    Limit => "ERR_LIMIT",
    Ioctl => "ERR_IOCTL",
    Io => "ERR_IO",
    Closed => "ERR_CLOSED",
    Busy => "ERR_BUSY",
    Poisoned => "ERR_POISONED",
    Forked => "ERR_FORKED",
    Timeout => "ERR_TIMEOUT",
    ExitUnanswered => "ERR_EXIT_UNANSWERED",
    NoAnswerExpected => "ERR_NO_ANSWER_EXPECTED",
    GuestImage => "ERR_GUEST_IMAGE",
    Internal => "ERR_INTERNAL",
}

impl Error {
    /// The code by which programs tell errors apart. Exhaustive: a new variant has to choose its code.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Ioctl { .. } => ErrorCode::Ioctl,
            Self::Os { .. } | Self::File { .. } => ErrorCode::Io,
            Self::CapabilityMissing { .. } => ErrorCode::CapabilityMissing,
            Self::InvalidArgument { .. }
            | Self::AnswerSize { .. }
            | Self::AnswerRange { .. }
            | Self::SlotNumberTaken { .. } => ErrorCode::InvalidArgument,
            Self::OutOfRange { .. } | Self::SlotNumberRange { .. } => ErrorCode::OutOfRange,
            Self::Unaligned { .. } => ErrorCode::Unaligned,
            Self::SlotOverlap { .. } => ErrorCode::SlotOverlap,
            Self::SlotLimit { .. } => ErrorCode::SlotLimit,
            Self::MemoryHole { .. } | Self::FirmwareRam { .. } => ErrorCode::MemoryHole,
            Self::Limit { .. } => ErrorCode::Limit,
            Self::Closed { .. } => ErrorCode::Closed,
            Self::Busy { .. } => ErrorCode::Busy,
            Self::Poisoned { .. } => ErrorCode::Poisoned,
            Self::Forked => ErrorCode::Forked,
            Self::Timeout { .. } => ErrorCode::Timeout,
            Self::ExitUnanswered { .. } => ErrorCode::ExitUnanswered,
            Self::NoAnswerExpected => ErrorCode::NoAnswerExpected,
            Self::GuestImage { .. } => ErrorCode::GuestImage,
            Self::KvmUnavailable { .. } => ErrorCode::KvmUnavailable,
            Self::Internal { .. } => ErrorCode::Internal,
        }
    }

    /// What the kernel returned and the call that did, where the kernel said no.
    #[must_use]
    pub const fn errno(&self) -> Option<(Errno, &'static str)> {
        match self {
            Self::Ioctl { request, errno } => Some((*errno, request)),
            Self::Os { call, errno } => Some((*errno, call)),
            Self::File { errno, .. } => Some((*errno, "open")),
            Self::KvmUnavailable { reason } => reason.refusal(),
            _ => None,
        }
    }

    /// For `map_err` behind a kvm-ioctls call: names the ioctl that failed.
    pub(crate) fn ioctl(request: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Ioctl { request, errno: error.into() }
    }

    /// The calling thread's `errno`, as the failure of `call`.
    pub(crate) fn last_os(call: &'static str) -> Self {
        Self::Os { call, errno: Errno::last() }
    }

    /// What a panic said, as an error.
    #[must_use]
    pub fn from_panic(payload: &(dyn std::any::Any + Send)) -> Self {
        let message = payload
            .downcast_ref::<&'static str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a panic without a message");
        Self::Internal { message: message.into() }
    }
}
