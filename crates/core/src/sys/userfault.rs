//! Making a userfaultfd: by `/dev/userfaultfd` where it is there and open to us, else by the system call. Rules:
//! `Documentation/admin-guide/mm/userfaultfd.rst`; neither way asks for user-mode faults only, as KVM's faults are
//! the kernel's.
#![expect(unsafe_code, reason = "the userfaultfd system call and the device's one ioctl return new descriptors")]

use std::{
    fs::OpenOptions,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::error::Errno;

/// `USERFAULTFD_IOC_NEW` of linux/userfaultfd.h: `_IO(0xAA, 0x00)`, Linux 6.1.
const USERFAULTFD_IOC_NEW: libc::Ioctl = 0xaa00;

const FLAGS: libc::c_int = libc::O_CLOEXEC | libc::O_NONBLOCK;

/// A userfaultfd through `/dev/userfaultfd` (Linux 6.1), close-on-exec and non-blocking. Needs the file's
/// permissions and nothing else.
///
/// # Errors
/// The errno: `ENOENT` before 6.1 or without the device, `EACCES` where its permissions keep us out.
pub(crate) fn by_device() -> Result<OwnedFd, Errno> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/userfaultfd").map_err(Errno::from)?;
    // SAFETY: the request takes its flags as an integer, reads and writes no memory of ours, and makes a descriptor.
    let fd = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, FLAGS) };
    owned(fd)
}

/// A userfaultfd by the system call, close-on-exec and non-blocking. Needs `CAP_SYS_PTRACE` or
/// `vm.unprivileged_userfaultfd=1`, as it serves the kernel's faults too.
///
/// # Errors
/// The errno: `EPERM` without the privilege, `ENOSYS` in a kernel without userfaultfd.
pub(crate) fn by_system_call() -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes one integer, touches no memory of ours, and makes a descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, FLAGS) };
    // Descriptors are small: what does not fit an `int` can only be the error value.
    owned(libc::c_int::try_from(fd).unwrap_or(-1))
}

fn owned(fd: libc::c_int) -> Result<OwnedFd, Errno> {
    if fd < 0 {
        return Err(Errno::last());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
