//! Mappings of guest memory and of `kvm_run`: made with what they need, never carried over a fork, unmapped on drop.
#![expect(unsafe_code, reason = "mmap, munmap and madvise")]

use std::{any::Any, fmt, os::fd::AsRawFd, ptr::NonNull, sync::Arc};

use kvm_ioctls::VcpuFd;

use super::{fork, lending::Lending, limits};
use crate::error::{Errno, Error, Result};

/// What both architectures call a huge page where pages are of 4 KiB: what one entry of the last but one level of page
/// tables maps.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Memory that no fork carries over: Node's `spawn` is a real one.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: NonNull<u8>,
    size: usize,
    /// [`fork::generation`] of the process that made the mapping, the only one that has it.
    generation: u32,
    owner: Owner,
}

enum Owner {
    /// Unmapped on drop.
    Us,
    /// Given back on drop: forks see it again, and then whoever keeps it learns that it is not needed any more.
    Other { _lent: fork::NotInherited<(Lending, Arc<dyn Any + Send + Sync>)> },
}

/// What is mapped.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// Zeroed memory, committed when touched.
    Anonymous,
    /// Huge pages of `page_size` bytes, reserved when mapped: a page that is touched is there.
    Hugetlb { page_size: usize },
    /// A file, from `offset` on; what is written goes there. Without `writable` nothing can be.
    Shared { fd: &'a dyn AsRawFd, offset: u64, writable: bool },
    /// A file, from `offset` on; a page that is written is ours from then on.
    Private { fd: &'a dyn AsRawFd, offset: u64 },
}

// SAFETY: the address range is owned by this value alone (or lent to it) and stays valid until it is dropped; whoever
// reads or writes through it does so with atomics, by system call, or holds the vCPU's engine.
unsafe impl Send for Mapping {}
// SAFETY: as above: `&Mapping` gives out a raw address and nothing else.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `size` bytes of `fd` from its start, shared, readable and writable.
    pub(crate) fn shared(fd: &impl AsRawFd, size: usize) -> Result<Self> {
        Self::of(Source::Shared { fd, offset: 0, writable: true }, size)
    }

    /// `size` bytes of `source`.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::HostMemory`], [`Error::Os`] where the file cannot be mapped.
    pub(crate) fn of(source: Source<'_>, size: usize) -> Result<Self> {
        Self::near(0, source, size)
    }

    /// As [`Mapping::of`], at an address that lies in its huge page as `gpa` in the guest's: only then can one entry of
    /// KVM's tables map both. A wish: where no such place is to be had, any other will do.
    pub(crate) fn congruent(source: Source<'_>, size: usize, gpa: u64) -> Result<Self> {
        let remainder = usize::try_from(gpa % HUGE_PAGE as u64).unwrap_or(0);
        let mut mapping = Self::of(source, size)?;
        // A second try is for the place that another thread took in between.
        for _ in 0..2 {
            if mapping.address.addr().get() % HUGE_PAGE == remainder {
                break;
            }
            // What is refused now (address space for a second mapping) costs nothing: there is one already.
            match free_place(size, remainder).map(|hint| Self::near(hint, source, size)) {
                Some(Ok(better)) => mapping = better,
                _ => break,
            }
        }
        Ok(mapping)
    }

    /// `size` bytes at `address` that belong to somebody else.
    ///
    /// # Safety
    /// They are readable and writable, whole pages of this process's memory and nobody's Rust reference, for as long as
    /// `keep` lives.
    pub(crate) unsafe fn lent(address: NonNull<u8>, size: usize, keep: Arc<dyn Any + Send + Sync>) -> Result<Self> {
        let lent = fork::NotInherited::new((Lending::of(address, size)?, keep));
        Ok(Self { address, size, generation: fork::generation(), owner: Owner::Other { _lent: lent } })
    }

    /// The kernel may choose another address than `hint`; it never takes one that is in use.
    fn near(hint: usize, source: Source<'_>, size: usize) -> Result<Self> {
        let generation = fork::generation();
        let Arguments { protection, flags, fd, offset } = source.arguments()?;
        // SAFETY: a hint without MAP_FIXED can't replace a mapping that somebody owns.
        let address =
            unsafe { libc::mmap(std::ptr::without_provenance_mut(hint), size, protection, flags, fd, offset) };
        if address == libc::MAP_FAILED {
            return Err(failed("mmap", Errno::last(), size));
        }
        let Some(address) = NonNull::new(address.cast::<u8>()) else {
            return Err(Error::Os { call: "mmap", errno: Errno(libc::EINVAL) });
        };
        let mapping = Self { address, size, generation, owner: Owner::Us };
        advise(address, size, Advice::DontFork)?;
        Ok(mapping)
    }

    /// Wants transparent huge pages here, or none. A kernel without them refuses, and then there is nothing to want.
    pub(crate) fn transparent_huge_pages(&self, wanted: bool) {
        let advice = if wanted { Advice::HugePage } else { Advice::NoHugePage };
        let _without_them = advise(self.address, self.size, advice);
    }

    /// First byte. Valid for [`Mapping::size`] bytes until the value is dropped.
    pub(crate) const fn address(&self) -> NonNull<u8> {
        self.address
    }

    /// Length in bytes.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // MADV_DONTFORK: a child never had it, and may have put something else in its place.
        if matches!(self.owner, Owner::Us) && self.generation == fork::generation() {
            unmap(self.address, self.size);
        }
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Us => "Us",
            Self::Other { .. } => "Other",
        })
    }
}

struct Arguments {
    protection: i32,
    flags: i32,
    fd: i32,
    offset: libc::off_t,
}

impl Source<'_> {
    fn arguments(self) -> Result<Arguments> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let ours = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        Ok(match self {
            Self::Anonymous => Arguments { protection, flags: ours | libc::MAP_NORESERVE, fd: -1, offset: 0 },
            Self::Hugetlb { page_size } => {
                // Without MAP_NORESERVE: with it a page that is not to be had ends in SIGBUS.
                let flags = ours | libc::MAP_HUGETLB | huge_page_flag(page_size);
                Arguments { protection, flags, fd: -1, offset: 0 }
            }
            Self::Shared { fd, offset, writable } => {
                let protection = if writable { protection } else { libc::PROT_READ };
                Arguments { protection, flags: libc::MAP_SHARED, fd: fd.as_raw_fd(), offset: file_offset(offset)? }
            }
            Self::Private { fd, offset } => {
                let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE;
                Arguments { protection, flags, fd: fd.as_raw_fd(), offset: file_offset(offset)? }
            }
        })
    }
}

/// `MAP_HUGE_SHIFT`: the logarithm of the page size, in six bits.
fn huge_page_flag(page_size: usize) -> i32 {
    page_size.checked_ilog2().and_then(|log| i32::try_from(log).ok()).unwrap_or(0) << libc::MAP_HUGE_SHIFT
}

fn file_offset(offset: u64) -> Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| Error::Os { call: "mmap", errno: Errno(libc::EOVERFLOW) })
}

/// Where `size` bytes could go, `remainder` bytes into a huge page: found by mapping a huge page more than that. It is
/// unmapped again, and whoever maps next can take the place: hence a hint and no `MAP_FIXED`, which would unmap them.
fn free_place(size: usize, remainder: usize) -> Option<usize> {
    let room = size.checked_add(HUGE_PAGE)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a null hint without MAP_FIXED can't replace a mapping that somebody owns.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), room, libc::PROT_NONE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    unmap(NonNull::new(start.cast())?, room);
    let start = start.addr();
    start.checked_add(remainder.wrapping_sub(start) % HUGE_PAGE)
}

fn unmap(address: NonNull<u8>, size: usize) {
    // SAFETY: the range came from `mmap` and is unmapped exactly once.
    if unsafe { libc::munmap(address.as_ptr().cast(), size) } == 0 {
        return;
    }
    // ENOMEM: neighbours that the kernel had merged with it would become two mappings, past vm.max_map_count. The
    // address range is lost, its memory need not be; should that fail too, nothing is left to be done.
    // SAFETY: whoever had the range let go of it, so nobody misses its content.
    unsafe { libc::madvise(address.as_ptr().cast(), size, libc::MADV_DONTNEED) };
}

/// What `madvise` can be told about any range without a change to what is in it.
#[derive(Clone, Copy)]
pub(super) enum Advice {
    DontFork,
    DoFork,
    HugePage,
    NoHugePage,
}

pub(super) fn advise(address: NonNull<u8>, size: usize, advice: Advice) -> Result<()> {
    let advice = match advice {
        Advice::DontFork => libc::MADV_DONTFORK,
        Advice::DoFork => libc::MADV_DOFORK,
        Advice::HugePage => libc::MADV_HUGEPAGE,
        Advice::NoHugePage => libc::MADV_NOHUGEPAGE,
    };
    // SAFETY: these change what a child sees and how large pages are, not the content of memory here, whosesoever it is.
    match unsafe { libc::madvise(address.as_ptr().cast(), size, advice) } {
        0 => Ok(()),
        _ => Err(failed("madvise", Errno::last(), size)),
    }
}

/// kvm-ioctls maps the `kvm_run` page (and what follows it, `size` bytes in all) for itself; this keeps that mapping
/// from children too. They must not drop the fd: see [`fork::NotInherited`].
pub(crate) fn keep_kvm_run(vcpu: &mut fork::NotInherited<VcpuFd>, size: usize) -> Result<()> {
    advise(NonNull::from(vcpu.get_kvm_run()).cast(), size, Advice::DontFork)
}

fn failed(call: &'static str, errno: Errno, size: usize) -> Error {
    limits::reached(errno).unwrap_or(match errno.0 {
        libc::ENOMEM => Error::HostMemory { size: size as u64, errno },
        _ => Error::Os { call, errno },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remainder(mapping: &Mapping) -> usize {
        mapping.address().addr().get() % HUGE_PAGE
    }

    #[test]
    fn a_place_lies_in_its_huge_page_as_the_guest_s_address_does() {
        for gpa in [0, 0x1000, 0x1f_f000, 0x40_3000] {
            let mapping = Mapping::congruent(Source::Anonymous, 2 * HUGE_PAGE, gpa).unwrap();
            assert_eq!(remainder(&mapping) as u64, gpa % HUGE_PAGE as u64);
            mapping.transparent_huge_pages(true);
            mapping.transparent_huge_pages(false);
        }
    }

    #[test]
    fn the_flag_of_a_huge_page_is_its_logarithm() {
        assert_eq!(huge_page_flag(2 << 20), 21 << 26);
        assert_eq!(huge_page_flag(1 << 30), 30 << 26);
    }
}
