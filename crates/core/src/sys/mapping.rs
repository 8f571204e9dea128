//! Memory mappings: made with the protections and the `madvise` that guest memory needs, unmapped on drop.
#![expect(unsafe_code, reason = "mmap, munmap and madvise")]

use std::{os::fd::AsRawFd, ptr::NonNull};

use kvm_ioctls::VcpuFd;

use super::{fork, limits};
use crate::error::{Errno, Error, Result};

/// A mapping that this value owns. Never carried over a fork: Node's `spawn` is a real one.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: NonNull<u8>,
    size: usize,
    /// [`fork::generation`] of the process that made the mapping, the only one that has it.
    generation: u32,
}

// SAFETY: the address range is owned by this value alone and stays valid until it is dropped; whoever reads or
// writes through it does so with atomics or holds the vCPU's engine.
unsafe impl Send for Mapping {}
// SAFETY: as above: `&Mapping` gives out a raw address and nothing else.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed anonymous memory of `size` bytes, readable and writable, committed when touched.
    pub(crate) fn anonymous(size: usize) -> Result<Self> {
        Self::new(size, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1)
    }

    /// `size` bytes of `fd` from its start, shared, readable and writable.
    pub(crate) fn shared(fd: &impl AsRawFd, size: usize) -> Result<Self> {
        Self::new(size, libc::MAP_SHARED, fd.as_raw_fd())
    }

    fn new(size: usize, flags: i32, fd: i32) -> Result<Self> {
        let generation = fork::generation();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a null hint without MAP_FIXED can't replace a mapping that somebody owns.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, fd, 0) };
        if address == libc::MAP_FAILED {
            return Err(map_failed(Errno::last(), size));
        }
        let Some(address) = NonNull::new(address.cast::<u8>()) else {
            return Err(Error::Os { call: "mmap", errno: Errno(libc::EINVAL) });
        };
        let mapping = Self { address, size, generation };
        mapping.advise(libc::MADV_DONTFORK)?;
        Ok(mapping)
    }

    fn advise(&self, advice: i32) -> Result<()> {
        // SAFETY: the range is this mapping, and MADV_DONTFORK changes what a child sees, not its content here.
        match unsafe { libc::madvise(self.address.as_ptr().cast(), self.size, advice) } {
            0 => Ok(()),
            _ => Err(Error::last_os("madvise")),
        }
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
        if self.generation != fork::generation() {
            return; // MADV_DONTFORK: a child never had it, and may have put something else in its place.
        }
        // SAFETY: the range came from `mmap` and is unmapped exactly once. The only failure munmap knows for such a
        // range is ENOMEM (a split past vm.max_map_count), which cannot happen for a whole mapping.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.size) };
    }
}

/// kvm-ioctls maps the `kvm_run` page (and what follows it, `size` bytes in all) for itself; this keeps that mapping
/// from children too. They must not drop the fd: see [`fork::NotInherited`].
pub(crate) fn keep_kvm_run(vcpu: &mut fork::NotInherited<VcpuFd>, size: usize) -> Result<()> {
    let address = std::ptr::from_mut(vcpu.get_kvm_run());
    // SAFETY: the mapping is the fd's own, of that size; MADV_DONTFORK changes what a child sees, not its content here.
    match unsafe { libc::madvise(address.cast(), size, libc::MADV_DONTFORK) } {
        0 => Ok(()),
        _ => Err(Error::last_os("madvise")),
    }
}

/// Mappings that a failed `mmap` may be short of although `/proc/self/maps` shows some less than the limit: other
/// threads map and unmap meanwhile.
const NEAR: u64 = 64;

fn map_failed(errno: Errno, size: usize) -> Error {
    let limit = limits::mappings();
    match errno.0 {
        libc::ENOMEM if limits::mappings_in_use().is_some_and(|used| used + NEAR >= limit) => Error::Limit {
            what: "memory mappings of this process",
            limit,
            remedy: "close VMs, unmap slots, or raise vm.max_map_count",
        },
        libc::ENOMEM => Error::HostMemory { size: size as u64, errno },
        _ => Error::Os { call: "mmap", errno },
    }
}
