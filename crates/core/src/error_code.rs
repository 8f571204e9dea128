//! The closed list of codes by which programs tell errors apart.

use crate::error::{Errno, Error};

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
    HostAccess => "ERR_HOST_ACCESS",
    Limit => "ERR_LIMIT",
    Ioctl => "ERR_IOCTL",
    Io => "ERR_IO",
    Closed => "ERR_CLOSED",
    Busy => "ERR_BUSY",
    Poisoned => "ERR_POISONED",
    WouldDeadlock => "ERR_WOULD_DEADLOCK",
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
            // Before other failures of files.
            Self::File { errno: Errno(libc::EMFILE | libc::ENFILE), .. }
            | Self::Limit { .. }
            | Self::HostMemory { .. }
            | Self::HugePages { .. } => ErrorCode::Limit,
            Self::Os { .. } | Self::File { .. } => ErrorCode::Io,
            Self::CapabilityMissing { .. } | Self::CapabilityPart { .. } => ErrorCode::CapabilityMissing,
            Self::InvalidArgument { .. }
            | Self::UnknownCapability { .. }
            | Self::VcpuIdTaken { .. }
            | Self::VcpuIdRange { .. }
            | Self::CpuNotAllowed { .. }
            | Self::ClaimOverlap { .. }
            | Self::KickSignalTaken { .. }
            | Self::Element { .. }
            | Self::AnswerSize { .. }
            | Self::SlotNumberTaken { .. } => ErrorCode::InvalidArgument,
            Self::OutOfRange { .. }
            | Self::AddressWidth { .. }
            | Self::AddressSpaceRange { .. }
            | Self::SlotNumberRange { .. }
            | Self::AnswerRange { .. } => ErrorCode::OutOfRange,
            Self::Unaligned { .. } => ErrorCode::Unaligned,
            Self::SlotOverlap { .. } | Self::SlotReserved { .. } => ErrorCode::SlotOverlap,
            Self::SlotLimit { .. } => ErrorCode::SlotLimit,
            Self::MemoryHole { .. } | Self::FirmwareRam { .. } => ErrorCode::MemoryHole,
            Self::HostAccess { .. } => ErrorCode::HostAccess,
            Self::Closed { .. } => ErrorCode::Closed,
            Self::Busy { .. } => ErrorCode::Busy,
            Self::WouldDeadlock { .. } => ErrorCode::WouldDeadlock,
            Self::Poisoned { .. } | Self::SlotsLost { .. } => ErrorCode::Poisoned,
            Self::Forked => ErrorCode::Forked,
            Self::Timeout { .. } => ErrorCode::Timeout,
            Self::ExitUnanswered { .. } => ErrorCode::ExitUnanswered,
            Self::NoAnswerExpected => ErrorCode::NoAnswerExpected,
            Self::GuestImage { .. } => ErrorCode::GuestImage,
            Self::KvmUnavailable { .. } => ErrorCode::KvmUnavailable,
            Self::Internal { .. } => ErrorCode::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_no_descriptor_is_left_for_is_a_limit() {
        let file = |errno| Error::File { path: "disk.img".into(), errno: Errno(errno) }.code();
        assert_eq!((file(libc::EMFILE), file(libc::ENFILE)), (ErrorCode::Limit, ErrorCode::Limit));
        assert_eq!(file(libc::ENOENT), ErrorCode::Io);
    }
}
