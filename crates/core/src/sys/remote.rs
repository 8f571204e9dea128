//! Access to memory of our own whose pages may be gone (a truncated file, say): by `process_vm_readv` on ourselves. Where
//! a load would end in SIGBUS, which kills the process, the kernel answers `EFAULT` here.
#![expect(unsafe_code, reason = "process_vm_readv and process_vm_writev")]

use super::mapping::Mapping;
use crate::error::Errno;

/// At most this much in one call (bytes): the kernel answers no fatal signal within one.
const CHUNK: usize = 1 << 20;

/// Why a copy ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Bytes that were copied before.
    pub(crate) done: usize,
    pub(crate) call: &'static str,
    pub(crate) errno: Errno,
}

/// Copies `target.len()` bytes of `mapping` from `offset` on to `target`. Words may be torn.
pub(crate) fn read(mapping: &Mapping, offset: usize, target: &mut [u8]) -> Result<(), Fault> {
    let (size, local) = (target.len(), target.as_mut_ptr());
    Transfer { mapping, offset, size, local, name: "process_vm_readv", call: libc::process_vm_readv }.run()
}

/// Copies `source` to `mapping` from `offset` on. Words may be torn.
pub(crate) fn write(mapping: &Mapping, offset: usize, source: &[u8]) -> Result<(), Fault> {
    let (size, local) = (source.len(), source.as_ptr().cast_mut()); // only read: it is the source of the call
    Transfer { mapping, offset, size, local, name: "process_vm_writev", call: libc::process_vm_writev }.run()
}

type Call = unsafe extern "C" fn(
    libc::pid_t,
    *const libc::iovec,
    libc::c_ulong,
    *const libc::iovec,
    libc::c_ulong,
    libc::c_ulong,
) -> libc::ssize_t;

/// One access. `local` is `size` bytes that whoever made this holds a reference to.
struct Transfer<'a> {
    mapping: &'a Mapping,
    offset: usize,
    size: usize,
    local: *mut u8,
    name: &'static str,
    call: Call,
}

impl Transfer<'_> {
    fn run(&self) -> Result<(), Fault> {
        let fault = |done, errno| Fault { done, call: self.name, errno };
        if self.offset.checked_add(self.size).is_none_or(|end| end > self.mapping.size()) {
            return Err(fault(0, Errno(libc::EFAULT)));
        }
        let mut done = 0;
        while done < self.size {
            match self.step(done) {
                // Short where a page in the middle is gone: the next call begins with that page and says why.
                Ok(more) if more > 0 => done += more,
                Ok(_) => return Err(fault(done, Errno(libc::EFAULT))),
                Err(errno) => return Err(fault(done, errno)),
            }
        }
        Ok(())
    }

    fn step(&self, done: usize) -> Result<usize, Errno> {
        let size = (self.size - done).min(CHUNK);
        let local = libc::iovec { iov_base: self.local.wrapping_add(done).cast(), iov_len: size };
        let remote = self.mapping.address().as_ptr().wrapping_add(self.offset + done);
        let remote = libc::iovec { iov_base: remote.cast(), iov_len: size };
        // Any thread's id stands for the process; that of the main thread no longer does once it has ended.
        // SAFETY: takes nothing, changes nothing, cannot fail.
        let thread = unsafe { libc::syscall(libc::SYS_gettid) };
        let thread = libc::pid_t::try_from(thread).unwrap_or(0);
        // SAFETY: both ranges are of `size` bytes: `local` in a buffer that `read` or `write` borrows, `remote` in a
        // mapping that is borrowed and of guest memory, to which no Rust reference exists. Either may be gone as far as
        // the kernel is concerned: that is an errno.
        let copied = unsafe { (self.call)(thread, &raw const local, 1, &raw const remote, 1, 0) };
        usize::try_from(copied).map_err(|_| Errno::last())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::sys::{mapping::Source, memfd};

    #[test]
    fn bytes_go_there_and_back() {
        let mapping = Mapping::of(Source::Anonymous, 3 * CHUNK).unwrap();
        let bytes: Vec<u8> = (0..2 * CHUNK + 5).map(|n| (n % 251).try_into().unwrap()).collect();
        write(&mapping, 77, &bytes).unwrap();
        let mut found = vec![0; bytes.len()];
        read(&mapping, 77, &mut found).unwrap();
        assert!(found == bytes);
        read(&mapping, 3 * CHUNK, &mut []).unwrap();
    }

    #[test]
    fn what_is_not_of_the_mapping_is_refused() {
        let mapping = Mapping::of(Source::Anonymous, 4096).unwrap();
        for offset in [1, 4096, usize::MAX] {
            let fault = write(&mapping, offset, &[0; 4096]).unwrap_err();
            assert_eq!((fault.done, fault.errno), (0, Errno(libc::EFAULT)));
        }
    }

    /// A sealed memfd cannot be truncated; one that is mapped past its end is as good.
    #[test]
    fn a_page_that_is_gone_is_an_error_with_what_came_before_it() {
        let file = File::from(memfd::sealed(0x2000).unwrap());
        let mapping = Mapping::shared(&file, 0x4000).unwrap();
        let fault = read(&mapping, 0x1000, &mut [0; 0x3000]).unwrap_err();
        assert_eq!(fault, Fault { done: 0x1000, call: "process_vm_readv", errno: Errno(libc::EFAULT) });
        let fault = write(&mapping, 0x2ff0, &[0; 16]).unwrap_err();
        assert_eq!(fault, Fault { done: 0, call: "process_vm_writev", errno: Errno(libc::EFAULT) });
        write(&mapping, 0x1ff0, &[7; 16]).unwrap();
    }
}
