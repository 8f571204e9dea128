//! How errors are made of what the kernel, or a panic, has said.

use crate::{
    error::{Errno, Error},
    sys::limits,
};

impl Error {
    /// For `map_err` behind a kvm-ioctls call: names the ioctl that failed.
    pub(crate) fn ioctl(request: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Ioctl { request, errno: error.into() }
    }

    /// Where a call that makes a descriptor, and perhaps maps it, failed: says so where this process can have no more.
    pub(crate) fn creation(request: &'static str, errno: Errno) -> Self {
        limits::reached(errno).unwrap_or(Self::Ioctl { request, errno })
    }

    /// As [`Error::creation`], of a system call.
    pub(crate) fn descriptor(call: &'static str, errno: Errno) -> Self {
        limits::reached(errno).unwrap_or(Self::Os { call, errno })
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
