//! Files in memory: sealed memfds, and what of a program's own file has to be known before it is mapped.
#![expect(unsafe_code, reason = "memfd_create and fcntl")]

use std::{
    fs::File,
    mem::MaybeUninit,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::limits;
use crate::error::{Errno, Error, Result};

/// As `/proc/PID/maps` shows it, behind `/memfd:`.
const NAME: &std::ffi::CStr = c"typevisor";

/// A close-on-exec memfd of `size` zero bytes, sealed: nobody, whoever else gets hold of it, can shorten it under a
/// guest (a page that is gone ends in SIGBUS), lengthen it or seal it further.
///
/// # Errors
/// [`Error::Limit`] where no descriptor is left, or files may not be as long (`RLIMIT_FSIZE`); [`Error::Os`].
pub(crate) fn sealed(size: u64) -> Result<OwnedFd> {
    let limit = limits::file_size();
    if size > limit {
        let remedy = "map less, choose anonymous memory, or raise RLIMIT_FSIZE (ulimit -f)";
        return Err(Error::Limit { what: "bytes in a file of this process, as a memfd is one", limit, remedy });
    }
    // Not executable where the kernel knows how to promise it (Linux 6.3), as vm.memfd_noexec=2 demands.
    let fd = match create(libc::MFD_NOEXEC_SEAL) {
        Err(Errno(libc::EINVAL)) => create(0),
        created => created,
    };
    let file = File::from(fd.map_err(|errno| Error::descriptor("memfd_create", errno))?);
    file.set_len(size).map_err(|error| Error::Os { call: "ftruncate", errno: error.into() })?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    fcntl(&file, libc::F_ADD_SEALS, seals)?;
    Ok(file.into())
}

/// By number: glibc has the function from 2.27 on only.
fn create(flags: libc::c_uint) -> std::result::Result<OwnedFd, Errno> {
    let flags = flags | libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string that lives for ever; the call makes a descriptor and touches no other memory.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_create, NAME.as_ptr(), flags) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(Errno::last()),
    }
}

/// Sets close-on-exec on a descriptor that the kernel makes without.
pub(crate) fn close_on_exec(fd: &impl AsRawFd) -> Result<()> {
    fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC).map(drop)
}

/// How a file may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessMode {
    ReadOnly,
    ReadWrite,
    /// Write-only, or a path only: nothing that can be mapped.
    Neither,
}

/// How `file` was opened.
pub(crate) fn access_mode(file: &File) -> Result<AccessMode> {
    let flags = fcntl(file, libc::F_GETFL, 0)?;
    Ok(match flags & libc::O_ACCMODE {
        _ if flags & libc::O_PATH != 0 => AccessMode::Neither,
        libc::O_RDONLY => AccessMode::ReadOnly,
        libc::O_RDWR => AccessMode::ReadWrite,
        _ => AccessMode::Neither,
    })
}

/// Whether `file` consists of huge pages (hugetlbfs): a mapping of it has rules of its own.
pub(crate) fn is_of_huge_pages(file: &File) -> Result<bool> {
    let mut stat = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: writes one `statfs` to `stat`, which lives through the call.
    if unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return Err(Error::last_os("fstatfs"));
    }
    // SAFETY: the call has filled it in; zeros would be valid as well.
    let stat = unsafe { stat.assume_init() };
    // One C library has both signed, another only one of them.
    Ok(i128::from(stat.f_type) == i128::from(libc::HUGETLBFS_MAGIC))
}

fn fcntl(fd: &impl AsRawFd, command: i32, argument: i32) -> Result<i32> {
    // SAFETY: the commands above take an integer or nothing, and touch no memory of ours.
    match unsafe { libc::fcntl(fd.as_raw_fd(), command, argument) } {
        -1 => Err(Error::last_os("fcntl")),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn a_sealed_memfd_keeps_its_length_and_its_seals() {
        let file = File::from(sealed(0x3000).unwrap());
        assert_eq!(file.metadata().unwrap().len(), 0x3000);
        for size in [0x2000, 0x4000] {
            assert_eq!(file.set_len(size).unwrap_err().raw_os_error(), Some(libc::EPERM));
        }
        assert!(fcntl(&file, libc::F_ADD_SEALS, libc::F_SEAL_WRITE).is_err());
        assert_eq!(fcntl(&file, libc::F_GETFD, 0).unwrap(), libc::FD_CLOEXEC);
    }

    #[test]
    fn how_a_file_was_opened_is_seen() {
        use std::os::unix::fs::OpenOptionsExt;
        let path = std::env::current_exe().unwrap();
        let mode = |options: &mut OpenOptions| access_mode(&options.open(&path).unwrap()).unwrap();
        assert_eq!(mode(OpenOptions::new().read(true)), AccessMode::ReadOnly);
        assert_eq!(mode(OpenOptions::new().read(true).custom_flags(libc::O_PATH)), AccessMode::Neither);
        let memfd = File::from(sealed(0x1000).unwrap());
        assert_eq!(access_mode(&memfd).unwrap(), AccessMode::ReadWrite);
        assert!(!is_of_huge_pages(&memfd).unwrap());
    }
}
