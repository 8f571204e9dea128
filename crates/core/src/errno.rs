//! What the kernel says when it says no.

use std::{fmt, io};

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
