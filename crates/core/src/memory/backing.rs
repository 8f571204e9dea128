//! The host memory behind slots: makes it (`provide`), knows how the host may reach it. What can be asked for is
//! `backing_kinds.rs`; lending it to KVM is `lent`'s, reading and writing it `access`'s.

#[cfg(test)]
use std::sync::Weak;
use std::{
    fs::File,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use super::{
    backing_kinds::{Backing, FileSharing},
    guest_memory::SlotFeatures,
    lent::GUEST_MEMFD_FLAGS,
    slot::MapOptions,
};
use crate::{
    error::{Error, Result},
    range::GpaRange,
    sys::{
        hugepages, limits,
        mapping::{HUGE_PAGE, Mapping, Source},
        memfd::{self, AccessMode},
    },
};

/// How the host reaches memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Its pages cannot be missing: by loads and stores.
    Direct,
    /// They can, and a load would then end in SIGBUS: by system call.
    Remote,
}

/// Memory of the host that slots are made of: of one slot, or of several that share it.
#[derive(Debug)]
pub(super) struct HostMemory {
    kind: &'static str,
    /// Before `fd`: fields are dropped in this order, and a VM lives as long as its `guest_memfd` does.
    mapping: Mapping,
    fd: Option<OwnedFd>,
    reach: Reach,
    /// Whether the mapping may be written.
    writable: bool,
}

impl HostMemory {
    fn new(kind: &'static str, mapping: Mapping, reach: Reach) -> Self {
        Self { kind, mapping, fd: None, reach, writable: true }
    }
}

/// The part of a [`HostMemory`] that a slot has: as many bytes as the slot, from `offset` on.
#[derive(Debug, Clone)]
pub(super) struct Backed {
    memory: Arc<HostMemory>,
    offset: u64,
    share: bool,
}

impl Backed {
    /// All of it.
    fn whole(memory: HostMemory) -> Self {
        Self { memory: Arc::new(memory), offset: 0, share: false }
    }

    /// `size` bytes from `offset` on for another slot, or nothing where there are not as many.
    pub(super) fn part(&self, offset: u64, size: u64) -> Option<Self> {
        let offset = self.offset.checked_add(offset)?;
        let end = offset.checked_add(size)?;
        let memory = Arc::clone(&self.memory);
        (end <= memory.mapping.size() as u64).then_some(Self { memory, offset, share: true })
    }

    /// Does not keep the memory: tells whether it is still there.
    #[cfg(test)]
    pub(super) fn watch(&self) -> Weak<HostMemory> {
        Arc::downgrade(&self.memory)
    }

    /// Name of the backing, as programs see it.
    pub(super) fn kind(&self) -> &'static str {
        self.memory.kind
    }

    /// How the host reaches it.
    pub(super) fn reach(&self) -> Reach {
        self.memory.reach
    }

    /// The mapping and where in it this part begins (bytes).
    pub(super) fn mapping(&self) -> (&Mapping, u64) {
        (&self.memory.mapping, self.offset)
    }

    /// Host address of the first byte: what KVM is told.
    pub(super) fn address(&self) -> u64 {
        self.memory.mapping.address().addr().get() as u64 + self.offset
    }

    /// The `guest_memfd` and the place in it that KVM is told besides. A slot made of one is deleted and nothing else: KVM
    /// neither moves nor flags it. Not so a share, which is an ordinary slot over the same mapping, as KVM binds a page
    /// of a `guest_memfd` to one slot.
    pub(super) fn guest_memfd(&self) -> Option<(RawFd, u64)> {
        let fd = self.memory.fd.as_ref().filter(|_| self.memory.kind == GUEST_MEMFD && !self.share)?;
        Some((fd.as_raw_fd(), self.offset))
    }

    /// Whether a slot of this memory can be read-only, or writable.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: KVM knows no read-only slot of a `guest_memfd`, and a guest's write to a shared file that
    /// is open for reading only would be no exit that anybody could answer.
    pub(super) fn check_readonly(&self, readonly: bool) -> Result<()> {
        if readonly && self.guest_memfd().is_some() {
            return Err(READONLY_GUEST_MEMFD);
        }
        if !readonly && !self.memory.writable {
            return Err(NOT_WRITABLE);
        }
        Ok(())
    }
}

const GUEST_MEMFD: &str = "guest-memfd";

const READONLY_GUEST_MEMFD: Error =
    Error::InvalidArgument { what: "a slot of a guest-memfd", expected: "writable: KVM has no read-only ones" };

const NOT_WRITABLE: Error = Error::InvalidArgument {
    what: "a file that is shared and not read-only in the guest",
    expected: "open for writing; else map it private, or the slot read-only",
};

/// Makes guest memfds of the VM that the slots belong to.
pub(super) trait CreateGuestMemfd {
    /// One of `size` bytes that the host may map, close-on-exec.
    fn create_guest_memfd(&self, size: u64) -> Result<OwnedFd>;
}

/// Makes or finds the memory for a slot. What can be refused without KVM is refused before it is asked.
///
/// # Errors
/// [`Error::OutOfRange`], [`Error::HostMemory`], [`Error::Limit`], [`Error::HugePages`], [`Error::Unaligned`],
/// [`Error::InvalidArgument`], [`Error::CapabilityMissing`], [`Error::Os`] where a file cannot be mapped; for a share
/// [`Error::Closed`] where that slot is gone.
pub(super) fn provide(options: &MapOptions, features: SlotFeatures, vm: &impl CreateGuestMemfd) -> Result<Backed> {
    let (range, readonly) = (options.range, options.readonly);
    let size = host_size(range)?;
    let memory = match &options.backing {
        Backing::Anonymous => {
            HostMemory::new("anonymous", transparent(options, Source::Anonymous, size)?, Reach::Direct)
        }
        Backing::Memfd => memfd(options, size)?,
        Backing::Hugetlb { page_size } => hugetlb(*page_size, range, size)?,
        Backing::File { file, offset, sharing } => mapped_file(file, *offset, *sharing, options, features.page_size)?,
        Backing::Buffer(buffer) => HostMemory::new("buffer", buffer.lend(size)?, Reach::Direct),
        Backing::GuestMemfd => guest_memfd(features, vm, readonly, size)?,
        Backing::Share { slot, offset } => return slot.part(*offset, range.size(), readonly),
    };
    Ok(Backed::whole(memory))
}

fn host_size(range: GpaRange) -> Result<usize> {
    usize::try_from(range.size()).map_err(|_| Error::OutOfRange { gpa: range.gpa(), size: range.size() })
}

/// A mapping whose pages may be huge where that is wanted and of use: from one huge page on.
fn transparent(options: &MapOptions, source: Source<'_>, size: usize) -> Result<Mapping> {
    let wanted = options.transparent_huge_pages;
    let congruent = wanted && size >= HUGE_PAGE;
    let mapping =
        if congruent { Mapping::congruent(source, size, options.range.gpa())? } else { Mapping::of(source, size)? };
    if congruent || !wanted {
        mapping.transparent_huge_pages(wanted);
    }
    Ok(mapping)
}

/// In the memfd, too, a byte lies in its huge page as it does in the guest's: hence the room before it, which costs
/// nothing, as nobody touches it.
fn memfd(options: &MapOptions, size: usize) -> Result<HostMemory> {
    let huge = options.transparent_huge_pages && size >= HUGE_PAGE;
    let offset = if huge { options.range.gpa() % HUGE_PAGE as u64 } else { 0 };
    let fd = memfd::sealed(offset + options.range.size())?;
    let mapping = transparent(options, Source::Shared { fd: &fd, offset, writable: true }, size)?;
    let reach = reach_of_memfd(limits::overcommit_mode());
    Ok(HostMemory { fd: Some(fd), ..HostMemory::new("memfd", mapping, reach) })
}

/// The kernel accounts for a memfd's pages when they are touched. Where it overcommits nothing (`vm.overcommit_memory` 2) a
/// page may be one too many, and the touch is SIGBUS; nobody can know where it does not say.
const fn reach_of_memfd(overcommit_mode: Option<u32>) -> Reach {
    match overcommit_mode {
        Some(0 | 1) => Reach::Direct,
        _ => Reach::Remote,
    }
}

fn hugetlb(page_size: u64, range: GpaRange, size: usize) -> Result<HostMemory> {
    let known = usize::try_from(page_size).ok().filter(|_| hugepages::sizes().contains(&page_size));
    let Some(bytes) = known else {
        let expected = "one that this machine has (/sys/kernel/mm/hugepages lists them)";
        return Err(Error::InvalidArgument { what: "the size of huge pages", expected });
    };
    if !range.size().is_multiple_of(page_size) {
        return Err(Error::Unaligned { what: "size", value: range.size(), alignment: page_size });
    }
    let mapping = Mapping::of(Source::Hugetlb { page_size: bytes }, size)
        .map_err(|error| too_few(error, page_size, range.size() / page_size))?;
    Ok(HostMemory::new("hugetlb", mapping, Reach::Remote))
}

/// Says how many pages are short where that is why a mapping failed.
fn too_few(error: Error, page_size: u64, wanted: u64) -> Error {
    let pool = hugepages::pool(page_size);
    match error {
        Error::HostMemory { .. } if pool.free < wanted => {
            let enough = pool.total.saturating_add(wanted - pool.free);
            Error::HugePages { page_size, wanted, free: pool.free, enough }
        }
        other => other,
    }
}

fn mapped_file(
    file: &File,
    offset: u64,
    sharing: FileSharing,
    options: &MapOptions,
    page_size: u64,
) -> Result<HostMemory> {
    let size = host_size(options.range)?;
    let mode = check_file(file, offset, options.range.size(), page_size)?;
    let writable = sharing == FileSharing::Private || mode == AccessMode::ReadWrite;
    if !writable && !options.readonly {
        return Err(NOT_WRITABLE);
    }
    let source = match sharing {
        FileSharing::Private => Source::Private { fd: file, offset },
        FileSharing::Shared => Source::Shared { fd: file, offset, writable },
    };
    Ok(HostMemory { writable, ..HostMemory::new("file", Mapping::of(source, size)?, Reach::Remote) })
}

fn check_file(file: &File, offset: u64, size: u64, page_size: u64) -> Result<AccessMode> {
    let refused = |expected| Err(Error::InvalidArgument { what: "a file for memory", expected });
    if !offset.is_multiple_of(page_size) {
        return Err(Error::Unaligned { what: "offset", value: offset, alignment: page_size });
    }
    let metadata = file.metadata().map_err(|error| Error::Os { call: "fstat", errno: error.into() })?;
    if !metadata.is_file() {
        return refused("a regular file");
    }
    let mode = memfd::access_mode(file)?;
    if mode == AccessMode::Neither {
        return refused("open for reading");
    }
    if memfd::is_of_huge_pages(file)? {
        return refused("no file of huge pages: use a hugetlb backing");
    }
    // The rest of its last page can be mapped too.
    let end = metadata.len().checked_next_multiple_of(page_size);
    if offset.checked_add(size).is_none_or(|wanted| end.is_some_and(|end| wanted > end)) {
        return refused("as long as offset and size of the slot");
    }
    Ok(mode)
}

fn guest_memfd(features: SlotFeatures, vm: &impl CreateGuestMemfd, readonly: bool, size: usize) -> Result<HostMemory> {
    let missing =
        |capability, since| Error::CapabilityMissing { capability, needed_by: "a mappable guest_memfd", since };
    if !features.region2 {
        return Err(missing("user-memory2", "6.8"));
    }
    let flags = features.guest_memfd.ok_or_else(|| missing("guest-memfd", "6.8"))?;
    if flags & GUEST_MEMFD_FLAGS != GUEST_MEMFD_FLAGS {
        return Err(missing("guest-memfd-flags", "6.18"));
    }
    if readonly {
        return Err(READONLY_GUEST_MEMFD);
    }
    let fd = vm.create_guest_memfd(size as u64)?;
    let mapping = Mapping::of(Source::Shared { fd: &fd, offset: 0, writable: true }, size)?;
    Ok(HostMemory { fd: Some(fd), ..HostMemory::new(GUEST_MEMFD, mapping, Reach::Remote) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memfd_is_dereferenced_only_where_the_kernel_overcommits() {
        for (mode, reach) in
            [(Some(0), Reach::Direct), (Some(1), Reach::Direct), (Some(2), Reach::Remote), (None, Reach::Remote)]
        {
            assert_eq!(reach_of_memfd(mode), reach, "{mode:?}");
        }
    }
}
