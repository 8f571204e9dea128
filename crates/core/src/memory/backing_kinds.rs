//! What a program can ask to stand behind a slot. How it is made: `backing.rs`.
#![expect(unsafe_code, reason = "whoever lends a buffer has to promise what no type can")]

use std::{any::Any, fmt, fs::File, ptr::NonNull, sync::Arc};

use super::slot::MemorySlot;
use crate::{
    error::{Error, Result},
    panics::Foreign,
    sys::{limits, mapping::Mapping},
};

/// What stands behind a slot.
///
/// None of it follows a fork: all of it is `MADV_DONTFORK`, all descriptors are close-on-exec. The host reaches some
/// kinds *directly*, by loads and stores that never tear an aligned word of up to 8 bytes, and others *by system call*
/// (`process_vm_readv` on this very process), as a load from a page that is gone would kill the process: those accesses
/// may tear words, cost 2 to 3 µs more, and fail with [`Error::HostAccess`].
///
/// ```no_run
/// use std::{fs::File, sync::Arc};
/// use typevisor::{GpaRange, Kvm, Vm, VmOptions, memory::{Backing, FileSharing, MapOptions}};
/// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
/// let file = Arc::new(File::open("disk.img").unwrap());
/// let backing = Backing::File { file, offset: 0, sharing: FileSharing::Private };
/// let disk = MapOptions { backing, ..MapOptions::new(GpaRange::pages(0x1000_0000, 0x10_0000)?) };
/// assert_eq!(vm.memory().map(&disk)?.info().backing, "file");
/// # Ok::<(), typevisor::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Backing {
    /// Zeroed memory of this process, committed when touched: where the machine runs out of memory, its out-of-memory
    /// killer decides. Where `vm.overcommit_memory` is 2 all of it counts when it is mapped, and too much is
    /// [`Error::HostMemory`]. One mapping, no descriptor. Reached directly.
    #[default]
    Anonymous,
    /// As [`Backing::Anonymous`], in a memfd that is sealed against shrinking and growing: other processes can map it
    /// through `/proc/PID/fd`. One mapping and one descriptor; its pages count as shared memory, and are swapped and
    /// made huge by the rules for that. No longer than files of this process may be (`RLIMIT_FSIZE`, else
    /// [`Error::Limit`]). Reached directly, but by system call where `vm.overcommit_memory` is 2 when it is mapped (or
    /// `/proc` is not there to tell): its pages count when touched, and one too many can be had by nobody.
    Memfd,
    /// Huge pages of `page_size` bytes (one of [`host::huge_page_sizes`](crate::host::huge_page_sizes)), of which the
    /// slot's size is a multiple: fewer page tables and faults, and memory that is never swapped. All of them are
    /// reserved when the slot is mapped; too few is [`Error::HugePages`]. Touching one can fail all the same where a
    /// cgroup limits how many its processes touch. KVM maps them as such only where the gpa is a multiple of
    /// `page_size`. One mapping. Reached by system call.
    Hugetlb {
        /// Bytes of one page.
        page_size: u64,
    },
    /// A regular file, which is at least as long as the slot when it is mapped (its last page may be part of one: the
    /// rest reads zero). It need not stay open. Read when touched, from the page cache. Where the file is truncated
    /// later, a guest's access to what is gone ends its run with `EFAULT` (or, where KVM interprets the instruction, is an
    /// `mmio` exit), and the host's fails with [`Error::HostAccess`]. One mapping. Reached by system call.
    File {
        /// Open for reading, and for writing too if it is shared and the slot is not read-only.
        file: Arc<File>,
        /// Where in it the slot begins (bytes, a multiple of the host's page size).
        offset: u64,
        /// Who sees what is written.
        sharing: FileSharing,
    },
    /// Memory that somebody else owns, and whose content everybody sees at once: the slot takes its beginning. No mapping
    /// of its own. While it is lent, forked children of this process don't have it. Reached directly.
    Buffer(HostBuffer),
    /// A `guest_memfd` that the host may map (`KVM_CREATE_GUEST_MEMFD` with both flags, Linux 6.18, and
    /// `KVM_SET_USER_MEMORY_REGION2`): memory that belongs to this VM alone and is never swapped or migrated. It cannot be
    /// read-only, logs no dirty pages and is not moved (a share of it is an ordinary slot). One mapping and one descriptor, which
    /// keeps the VM alive in the kernel. Reached by system call.
    GuestMemfd,
    /// The memory of another slot, of this VM or another, at one more guest physical address: a range of the same bytes.
    /// It stays for as long as one of its slots does, and costs neither mapping nor descriptor. Reached as that slot is.
    Share {
        /// Whose memory.
        slot: MemorySlot,
        /// Where in it the new slot begins (bytes, a multiple of the host's page size).
        offset: u64,
    },
}

/// What becomes of a write to a [`Backing::File`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSharing {
    /// The file never changes: a page that is written is copied, and then costs memory.
    Private,
    /// It goes to the file, and everybody who has it sees it.
    Shared,
}

/// Memory of this process that somebody else owns, for [`Backing::Buffer`]. Cheap to clone.
#[derive(Clone)]
pub struct HostBuffer {
    address: NonNull<u8>,
    size: usize,
    keep: Arc<Foreign<Arc<dyn Any + Send + Sync>>>,
}

// SAFETY: the address is only ever handed to KVM and to accesses by atomics, which `HostBuffer::new` allows from every
// thread; `keep` is `Send` and `Sync` itself.
unsafe impl Send for HostBuffer {}
// SAFETY: as above.
unsafe impl Sync for HostBuffer {}

impl HostBuffer {
    /// `size` bytes at `address`, which `keep` keeps: it is dropped, on any thread, after the last slot of the buffer is
    /// gone from its VM and the last access of ours has ended. Where that panics, the panic goes to whoever let go of the
    /// buffer (as [`Vm::close`](crate::Vm::close)), after all else was done; a second one at the same time goes no further.
    ///
    /// # Errors
    /// [`Error::Unaligned`] where `address` is no multiple of the host's page size (4096 bytes on `x86_64`, up to 64 KiB on
    /// aarch64), [`Error::InvalidArgument`] for less than such a page.
    ///
    /// # Safety
    /// Until `keep` is dropped the memory stays mapped where it is, readable and writable, in whole pages, and no page of
    /// it can go away (as those of a file that is truncated do). A guest and any thread may write it at any time, so
    /// nobody has a Rust reference into it other than to atomics.
    ///
    /// ```
    /// use std::{ptr::NonNull, sync::Arc};
    /// use typevisor::memory::HostBuffer;
    /// # #[repr(align(4096))]
    /// # struct Page([std::sync::atomic::AtomicU8; 4096]);
    /// let page = Arc::new(Page([const { std::sync::atomic::AtomicU8::new(0) }; 4096]));
    /// let address = NonNull::from(&*page).cast();
    /// // SAFETY: the page lives in `page`, consists of atomics and cannot move.
    /// let buffer = unsafe { HostBuffer::new(address, 4096, page) }?;
    /// assert_eq!(buffer.size(), 4096);
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub unsafe fn new(address: NonNull<u8>, size: usize, keep: Arc<dyn Any + Send + Sync>) -> Result<Self> {
        let value = address.addr().get() as u64;
        let page_size = limits::page_size();
        if !value.is_multiple_of(page_size) {
            return Err(Error::Unaligned { what: "the address of a buffer", value, alignment: page_size });
        }
        if (size as u64) < page_size {
            return Err(Error::InvalidArgument {
                what: "a buffer",
                expected: "at least one page (most often 4096 bytes)",
            });
        }
        Ok(Self { address, size, keep: Arc::new(Foreign::new(keep)) })
    }

    /// Bytes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// The first `size` bytes, kept from forks.
    pub(super) fn lend(&self, size: usize) -> Result<Mapping> {
        if size > self.size {
            return Err(Error::InvalidArgument { what: "a buffer", expected: "at least as long as its slot" });
        }
        let keep = Arc::clone(&self.keep);
        // SAFETY: by the promise made to `new`; a slot's size is whole pages.
        unsafe { Mapping::lent(self.address, size, keep) }
    }
}

impl fmt::Debug for HostBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostBuffer").field("size", &self.size).finish_non_exhaustive()
    }
}
