//! Access to memory of our own whose pages may be gone (a truncated file, say): by `process_vm_readv` on ourselves. Where
//! a load would end in SIGBUS, which kills the process, the kernel answers `EFAULT` here. Kernels without it
//! (`CONFIG_CROSS_MEMORY_ATTACH`) and sandboxes that forbid it leave `/proc/thread-self/mem`, which answers `EIO`.
#![expect(unsafe_code, reason = "process_vm_readv and process_vm_writev")]

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
};

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

impl Fault {
    /// Whether the memory is to blame, and not the way to it.
    pub(crate) fn is_of_memory(&self) -> bool {
        matches!(self.errno.0, libc::EFAULT | libc::EIO)
    }
}

/// Copies `target.len()` bytes of `mapping` from `offset` on to `target`. Words may be torn.
pub(crate) fn read(mapping: &Mapping, offset: usize, target: &mut [u8]) -> Result<(), Fault> {
    Transfer { mapping, offset, local: Local::Target(target) }.run()
}

/// Copies `source` to `mapping` from `offset` on. Words may be torn.
pub(crate) fn write(mapping: &Mapping, offset: usize, source: &[u8]) -> Result<(), Fault> {
    Transfer { mapping, offset, local: Local::Source(source) }.run()
}

/// The buffer on our side.
enum Local<'a> {
    Target(&'a mut [u8]),
    Source(&'a [u8]),
}

/// One access.
struct Transfer<'a> {
    mapping: &'a Mapping,
    offset: usize,
    local: Local<'a>,
}

impl Transfer<'_> {
    fn run(&mut self) -> Result<(), Fault> {
        match self.by_call() {
            Err(denied @ Fault { errno: Errno(libc::ENOSYS | libc::EPERM), .. }) => self.by_file(denied),
            result => result,
        }
    }

    fn by_call(&mut self) -> Result<(), Fault> {
        let name = match self.local {
            Local::Target(_) => "process_vm_readv",
            Local::Source(_) => "process_vm_writev",
        };
        self.by_steps(name, Transfer::call)
    }

    /// The file is opened for each access: one that is kept would be the parent's memory in a forked child.
    fn by_file(&mut self, denied: Fault) -> Result<(), Fault> {
        let (name, write) = match self.local {
            Local::Target(_) => ("pread", false),
            Local::Source(_) => ("pwrite", true),
        };
        // "thread-self": "self" is nothing any more once the main thread has ended.
        let file = OpenOptions::new().read(true).write(write).open("/proc/thread-self/mem").map_err(|_| denied)?;
        self.by_steps(name, |transfer, done, size| transfer.file(&file, done, size))
    }

    /// Copies by `step`, which is given how much is done and how much to do next, and says how much it did of that.
    fn by_steps(
        &mut self,
        call: &'static str,
        step: impl Fn(&mut Self, usize, usize) -> Result<usize, Errno>,
    ) -> Result<(), Fault> {
        let size = match &self.local {
            Local::Target(target) => target.len(),
            Local::Source(source) => source.len(),
        };
        let gone = |done| Fault { done, call, errno: Errno(libc::EFAULT) };
        if self.offset.checked_add(size).is_none_or(|end| end > self.mapping.size()) {
            return Err(gone(0));
        }
        let mut done = 0;
        while done < size {
            // Short where a page in the middle is gone: the next call begins with that page and says why.
            match step(self, done, (size - done).min(CHUNK)) {
                Ok(0) => return Err(gone(done)),
                Ok(more) => done += more,
                Err(Errno(libc::EINTR)) => {}
                Err(errno) => return Err(Fault { done, call, errno }),
            }
        }
        Ok(())
    }

    fn call(&mut self, done: usize, size: usize) -> Result<usize, Errno> {
        let remote = self.mapping.address().as_ptr().wrapping_add(self.offset + done);
        let remote = libc::iovec { iov_base: remote.cast(), iov_len: size };
        let thread = thread();
        let copied = match &mut self.local {
            Local::Target(target) => {
                let local = part(target.get_mut(done..done + size).map(<[u8]>::as_mut_ptr), size);
                // SAFETY: `local` is `size` bytes that we borrow for writing, `remote` as many of a mapping that we borrow.
                // Either may be gone as far as the kernel is concerned: that is an errno.
                unsafe { libc::process_vm_readv(thread, &raw const local, 1, &raw const remote, 1, 0) }
            }
            Local::Source(source) => {
                let local = part(source.get(done..done + size).map(|part| part.as_ptr().cast_mut()), size);
                // SAFETY: as above, but that `local` is only read, and that the mapping is guest memory, to which no Rust
                // reference exists.
                unsafe { libc::process_vm_writev(thread, &raw const local, 1, &raw const remote, 1, 0) }
            }
        };
        usize::try_from(copied).map_err(|_| Errno::last())
    }

    fn file(&mut self, file: &File, done: usize, size: usize) -> Result<usize, Errno> {
        let address = (self.mapping.address().addr().get() + self.offset + done) as u64;
        let copied = match &mut self.local {
            Local::Target(target) => file.read_at(target.get_mut(done..done + size).unwrap_or_default(), address),
            Local::Source(source) => file.write_at(source.get(done..done + size).unwrap_or_default(), address),
        };
        copied.map_err(Errno::from)
    }
}

/// No bytes where there are none.
fn part(address: Option<*mut u8>, size: usize) -> libc::iovec {
    let iov_base = address.unwrap_or(std::ptr::null_mut()).cast();
    libc::iovec { iov_base, iov_len: if address.is_some() { size } else { 0 } }
}

/// Any thread's id stands for the process; that of the main thread no longer does once it has ended.
fn thread() -> libc::pid_t {
    // SAFETY: takes nothing, changes nothing, cannot fail.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) };
    libc::pid_t::try_from(thread).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{mapping::Source, memfd};

    /// Both ways, whichever this kernel would take. Where it has but one, that one twice.
    fn both(mapping: &Mapping, offset: usize, local: impl Fn() -> Local<'static>) -> [Result<(), Fault>; 2] {
        let denied = Fault { done: 0, call: "", errno: Errno(libc::EPERM) };
        let mut transfer = Transfer { mapping, offset, local: local() };
        let first = transfer.run();
        transfer.local = local();
        [first, transfer.by_file(denied)]
    }

    fn zeros(size: usize) -> &'static mut [u8] {
        vec![0; size].leak()
    }

    #[test]
    fn bytes_go_there_and_back() {
        let mapping = Mapping::of(Source::Anonymous, 3 * CHUNK).unwrap();
        let bytes: Vec<u8> = (0..2 * CHUNK + 5).map(|n| (n % 251).try_into().unwrap()).collect();
        let denied = Fault { done: 0, call: "", errno: Errno(libc::EPERM) };
        write(&mapping, 77, &bytes).unwrap();
        let mut found = vec![0; bytes.len()];
        read(&mapping, 77, &mut found).unwrap();
        assert!(found == bytes);
        found.fill(0);
        Transfer { mapping: &mapping, offset: 76, local: Local::Source(&bytes) }.by_file(denied).unwrap();
        Transfer { mapping: &mapping, offset: 76, local: Local::Target(&mut found) }.by_file(denied).unwrap();
        assert!(found == bytes);
        read(&mapping, 3 * CHUNK, &mut []).unwrap();
    }

    #[test]
    fn what_is_not_of_the_mapping_is_refused() {
        let mapping = Mapping::of(Source::Anonymous, 4096).unwrap();
        for offset in [1, 4096, usize::MAX] {
            for result in both(&mapping, offset, || Local::Source(&[0; 4096])) {
                assert!(matches!(result, Err(Fault { done: 0, errno: Errno(libc::EFAULT), .. })), "{result:?}");
            }
        }
    }

    /// A sealed memfd cannot be truncated; one that is mapped past its end is as good.
    #[test]
    fn a_page_that_is_gone_is_an_error_with_what_came_before_it() {
        let file = File::from(memfd::sealed(0x2000).unwrap());
        let mapping = Mapping::shared(&file, 0x4000).unwrap();
        for result in both(&mapping, 0x1000, || Local::Target(zeros(0x3000))) {
            let fault = result.unwrap_err();
            assert!(fault.done == 0x1000 && fault.is_of_memory(), "{fault:?}");
        }
        for result in both(&mapping, 0x2ff0, || Local::Source(&[0; 16])) {
            let fault = result.unwrap_err();
            assert!(fault.done == 0 && fault.is_of_memory(), "{fault:?}");
        }
        write(&mapping, 0x1ff0, &[7; 16]).unwrap();
    }

    #[test]
    fn memory_that_is_not_to_be_written_is_not() {
        let file = File::from(memfd::sealed(0x1000).unwrap());
        let source = Source::Shared { fd: &file, offset: 0, writable: false };
        let mapping = Mapping::of(source, 0x1000).unwrap();
        for result in both(&mapping, 0, || Local::Source(&[1])) {
            assert!(result.unwrap_err().is_of_memory());
        }
        for result in both(&mapping, 0, || Local::Target(zeros(1))) {
            result.unwrap();
        }
    }
}
