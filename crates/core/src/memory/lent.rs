//! The memory that KVM has been given: the thin half of the room, and the only one that speaks to the VM's fd. KVM
//! keeps addresses, not memory, so a mapping is held here from before KVM learns its address until KVM has given it
//! up; whatever else holds or drops it cannot unmap it under a guest.
#![expect(unsafe_code, reason = "gives host addresses to KVM")]

use std::{
    collections::BTreeMap,
    mem::ManuallyDrop,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use kvm_bindings::{
    KVM_MEM_GUEST_MEMFD, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_create_guest_memfd,
    kvm_userspace_memory_region, kvm_userspace_memory_region2,
};
use kvm_ioctls::VmFd;

use super::backing::{Backed, CreateGuestMemfd};
use crate::{
    error::{Errno, Error, Result},
    range::GpaRange,
    sys::{
        fork,
        ioctl::{KVM_CREATE_GUEST_MEMFD, KVM_SET_USER_MEMORY_REGION, KVM_SET_USER_MEMORY_REGION2},
        limits, memfd,
    },
};

/// A slot as KVM has it, or shall have it.
#[derive(Debug, Clone)]
pub(super) struct LentSlot {
    /// As [`Key::id`](super::ledger::Key::id) packs it.
    pub(super) id: u32,
    /// As long as `backed`.
    pub(super) range: GpaRange,
    pub(super) readonly: bool,
    pub(super) dirty_log: bool,
    pub(super) backed: Backed,
}

/// What the ioctl is told. `size` 0 deletes the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotCommand {
    /// Number and address space, as [`Key::id`](super::ledger::Key::id) packs them.
    pub(super) id: u32,
    pub(super) readonly: bool,
    pub(super) dirty_log: bool,
    pub(super) gpa: u64,
    pub(super) size: u64,
    pub(super) address: u64,
    /// The descriptor and the place in it, for a slot made of one.
    pub(super) guest_memfd: Option<(RawFd, u64)>,
}

impl SlotCommand {
    const fn deletion(id: u32) -> Self {
        Self { id, readonly: false, dirty_log: false, gpa: 0, size: 0, address: 0, guest_memfd: None }
    }

    fn flags(self) -> u32 {
        let flag = |on: bool, flag| if on { flag } else { 0 };
        flag(self.readonly, KVM_MEM_READONLY)
            | flag(self.dirty_log, KVM_MEM_LOG_DIRTY_PAGES)
            | flag(self.guest_memfd.is_some(), KVM_MEM_GUEST_MEMFD)
    }
}

impl From<&LentSlot> for SlotCommand {
    fn from(slot: &LentSlot) -> Self {
        let &LentSlot { id, range, readonly, dirty_log, ref backed } = slot;
        let (address, guest_memfd) = (backed.address(), backed.guest_memfd());
        Self { id, readonly, dirty_log, gpa: range.gpa(), size: range.size(), address, guest_memfd }
    }
}

/// The ioctl that sets slots. A trait so that tests can refuse.
pub(super) trait SetSlot: Send {
    /// Name in the kernel's header.
    fn name(&self) -> &'static str;

    /// # Safety
    /// `address` is memory of `size` bytes that stays mapped until the slot was deleted.
    unsafe fn set(&self, command: SlotCommand) -> Result<()>;

    /// See [`CreateGuestMemfd`].
    fn create_guest_memfd(&self, size: u64) -> Result<OwnedFd>;
}

/// The slots of a real VM.
pub(super) struct KvmSlots {
    vm: Arc<VmFd>,
    region2: bool,
}

impl KvmSlots {
    /// `region2`: the VM has `KVM_CAP_USER_MEMORY2` (Linux 6.8). The fallback is faithful: without
    /// `guest_memfd` both requests do the same.
    pub(super) const fn new(vm: Arc<VmFd>, region2: bool) -> Self {
        Self { vm, region2 }
    }
}

impl SetSlot for KvmSlots {
    fn name(&self) -> &'static str {
        if self.region2 { KVM_SET_USER_MEMORY_REGION2.name() } else { KVM_SET_USER_MEMORY_REGION.name() }
    }

    unsafe fn set(&self, command: SlotCommand) -> Result<()> {
        let SlotCommand { id: slot, gpa: guest_phys_addr, size: memory_size, address: userspace_addr, .. } = command;
        let flags = command.flags();
        let (fd, offset) = command.guest_memfd.unwrap_or_default();
        let done = if self.region2 {
            let region = kvm_userspace_memory_region2 {
                slot,
                flags,
                guest_phys_addr,
                memory_size,
                userspace_addr,
                guest_memfd: fd.cast_unsigned(),
                guest_memfd_offset: offset,
                ..Default::default() // padding that has to be zero
            };
            // SAFETY: the caller keeps the memory at `userspace_addr` mapped for as long as the slot exists.
            unsafe { KVM_SET_USER_MEMORY_REGION2.call(&*self.vm, &region) }
        } else {
            let region = kvm_userspace_memory_region { slot, flags, guest_phys_addr, memory_size, userspace_addr };
            // SAFETY: as above.
            unsafe { KVM_SET_USER_MEMORY_REGION.call(&*self.vm, &region) }
        };
        done.map(|_| ())
    }

    fn create_guest_memfd(&self, size: u64) -> Result<OwnedFd> {
        let wanted = kvm_create_guest_memfd { size, flags: GUEST_MEMFD_FLAGS, ..Default::default() };
        // SAFETY: the request maps and keeps no memory of ours; it makes a descriptor.
        let fd = unsafe { KVM_CREATE_GUEST_MEMFD.call(&*self.vm, &wanted) }.map_err(|error| match error {
            Error::Ioctl { request, errno } => Error::creation(request, errno),
            other => other,
        })?;
        // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // KVM makes it without: a shell that is spawned would keep the VM alive.
        memfd::close_on_exec(&fd)?;
        Ok(fd)
    }
}

/// `GUEST_MEMFD_FLAG_MMAP` and `GUEST_MEMFD_FLAG_INIT_SHARED` of linux/kvm.h (Linux 6.18).
pub(super) const GUEST_MEMFD_FLAGS: u64 = 0b11;

impl CreateGuestMemfd for Lent {
    fn create_guest_memfd(&self, size: u64) -> Result<OwnedFd> {
        self.kvm.create_guest_memfd(size)
    }
}

/// Every slot that KVM has, by id, with its memory.
pub(super) struct Lent {
    kvm: Box<dyn SetSlot>,
    slots: BTreeMap<u32, LentSlot>,
    /// [`fork::generation`] of the process the VM belongs to.
    generation: u32,
}

impl Lent {
    pub(super) fn new(kvm: Box<dyn SetSlot>) -> Self {
        Self { kvm, slots: BTreeMap::new(), generation: fork::generation() }
    }

    /// Which ioctl KVM is given.
    pub(super) fn name(&self) -> &'static str {
        self.kvm.name()
    }

    /// The slot as KVM has it.
    pub(super) fn get(&self, id: u32) -> Option<&LentSlot> {
        self.slots.get(&id)
    }

    /// Adds a slot, or moves or flags the one that KVM has under that id, whose memory has to be the same.
    ///
    /// # Errors
    /// [`Error::Ioctl`], [`Error::AddressWidth`]; nothing changed then.
    pub(super) fn set(&mut self, slot: LentSlot) -> Result<()> {
        // SAFETY: `backed` is as long as the range. It goes into `slots` before anybody else can drop the reference we
        // were given, and leaves it only in `delete`, after KVM gave the slot up. Another mapping under the same id
        // cannot be replaced by this: KVM refuses a new address for an existing slot.
        unsafe { self.kvm.set(SlotCommand::from(&slot)) }.map_err(|error| past_width(error, slot.range))?;
        self.slots.insert(slot.id, slot);
        Ok(())
    }

    /// Deletes a slot; its memory is unmapped when its last holder lets go.
    ///
    /// # Errors
    /// [`Error::Ioctl`]; the slot is still there then.
    pub(super) fn delete(&mut self, id: u32) -> Result<()> {
        if cfg!(broken = "unmap-early") {
            self.slots.remove(&id);
        }
        self.delete_in_kvm(id)?;
        self.slots.remove(&id);
        Ok(())
    }

    fn delete_in_kvm(&self, id: u32) -> Result<()> {
        // SAFETY: size 0 deletes: no memory is given.
        unsafe { self.kvm.set(SlotCommand::deletion(id)) }
    }

    /// Deletes every slot, and gives back those that KVM has given up: the caller says when their memory is unmapped.
    pub(super) fn delete_all(&mut self) -> Vec<LentSlot> {
        if self.generation != fork::generation() {
            return Vec::new(); // The slots are the parent's, and the mappings never came along.
        }
        let mut given_up = Vec::new();
        for (id, slot) in std::mem::take(&mut self.slots) {
            if self.delete_in_kvm(id).is_ok() || cfg!(broken = "unmap-refused") {
                given_up.push(slot);
            } else {
                let _mapped_for_ever = ManuallyDrop::new(slot);
            }
        }
        given_up
    }
}

impl Drop for Lent {
    /// A vCPU's fd keeps the VM, and its slots, alive after ours is closed.
    fn drop(&mut self) {
        drop(self.delete_all());
    }
}

/// On x86 a VM's guest physical addresses are as wide as the processor's where it translates them itself, and 52 bits
/// where KVM does: only KVM knows which, and says `EINVAL`.
fn past_width(error: Error, range: GpaRange) -> Error {
    if !matches!(error, Error::Ioctl { errno: Errno(libc::EINVAL), .. }) {
        return error;
    }
    match limits::physical_address_bits() {
        Some(bits) if range.end() > 1 << bits => Error::AddressWidth { range, bits },
        _ => error,
    }
}
