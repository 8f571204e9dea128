//! KVM's statistics descriptors: api.rst 4.133.
#![expect(unsafe_code, reason = "a descriptor that the kernel has made")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::ioctl::KVM_GET_STATS_FD;
use crate::error::{Error, Result};

/// The statistics descriptor of a VM or vCPU; close-on-exec, as KVM makes it.
///
/// # Errors
/// [`Error::Limit`] where no descriptor is left, [`Error::Ioctl`].
pub(crate) fn stats_fd(whose: &impl AsRawFd) -> Result<OwnedFd> {
    let fd = KVM_GET_STATS_FD.try_call(whose, 0).map_err(|errno| Error::creation("KVM_GET_STATS_FD", errno))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
