//! The memory of a VM: slots as objects, and the host's access.
#![expect(unsafe_code, reason = "reading into an array of JavaScript's without a second copy")]

use std::sync::Arc;

use napi::bindgen_prelude::{Either, Null, Uint8ArraySlice};
use napi_derive::napi;
use typevisor::{
    GpaRange, Vm,
    memory::{GuestMemory, MapOptions, MemorySlot, SlotInfo},
};

use crate::{
    backing::{NativeMapOptions, Wanted},
    change::{Done, NativeChange, Wish, make},
    convert::{signed, unsigned, unsigned_u32},
    environment::Mailbox,
    failure::{Outcome, outcome},
    job::{NativeJob, submit},
};

/// `NativeSlotInfo` in ts/native.ts.
#[napi(object, object_from_js = false)]
pub struct NativeSlotInfo {
    pub slot: u32,
    pub address_space: u32,
    pub gpa: i64,
    pub size: i64,
    pub readonly: bool,
    pub backing: &'static str,
    pub dirty_log: bool,
    pub ioctl: &'static str,
    pub serial: i64,
}

impl From<SlotInfo> for NativeSlotInfo {
    fn from(slot: SlotInfo) -> Self {
        Self {
            slot: slot.number,
            address_space: slot.address_space,
            gpa: signed(slot.range.gpa()),
            size: signed(slot.range.size()),
            readonly: slot.readonly,
            backing: slot.backing,
            dirty_log: slot.dirty_log,
            ioctl: slot.ioctl,
            serial: signed(slot.serial),
        }
    }
}

/// `NativeSlot` in ts/native.ts.
#[napi]
pub struct NativeSlot {
    slot: MemorySlot,
}

impl From<MemorySlot> for NativeSlot {
    fn from(slot: MemorySlot) -> Self {
        Self { slot }
    }
}

impl NativeSlot {
    pub(crate) const fn core(&self) -> &MemorySlot {
        &self.slot
    }
}

#[napi]
impl NativeSlot {
    /// What KVM names it by: the address space in the upper 16 bits, its number in the lower. Numbers are used again.
    #[napi(catch_unwind)]
    pub fn id(&self) -> u32 {
        let SlotInfo { address_space, number, .. } = self.slot.info();
        (address_space << 16) | number
    }

    /// Never used twice, and greater than that of any slot before it.
    #[napi(catch_unwind)]
    pub fn serial(&self) -> i64 {
        signed(self.slot.info().serial)
    }

    #[napi(catch_unwind)]
    pub fn info(&self) -> NativeSlotInfo {
        self.slot.info().into()
    }

    #[napi(js_name = "move", catch_unwind)]
    pub fn move_to(&self, gpa: i64) -> Outcome<Null> {
        outcome(unsigned("gpa", gpa).and_then(|gpa| self.slot.move_to(gpa)).map(|()| Null))
    }

    #[napi(catch_unwind)]
    pub fn set_readonly(&self, readonly: bool) -> Outcome<Null> {
        outcome(self.slot.set_readonly(readonly).map(|()| Null))
    }

    #[napi(catch_unwind)]
    pub fn set_dirty_log(&self, on: bool) -> Outcome<Null> {
        outcome(self.slot.set_dirty_log(on).map(|()| Null))
    }

    #[napi(catch_unwind)]
    pub fn unmap(&self) -> Outcome<Null> {
        outcome(self.slot.unmap().map(|()| Null))
    }
}

/// `NativeDone` in ts/native.ts.
#[napi(object, object_from_js = false)]
pub struct NativeDone {
    pub slots: Vec<NativeSlot>,
    pub infos: Vec<NativeSlotInfo>,
    pub found: Vec<i64>,
}

impl From<Done> for NativeDone {
    fn from(Done { slots, infos, found }: Done) -> Self {
        Self {
            slots: slots.into_iter().map(Into::into).collect(),
            infos: infos.into_iter().map(Into::into).collect(),
            found: found.into_iter().map(signed).collect(),
        }
    }
}

/// `NativeMemory` in ts/native.ts.
#[napi]
pub struct NativeMemory {
    /// Whose memory it is; the VM lives as long as somebody can reach its memory.
    vm: Arc<Vm>,
    memory: GuestMemory,
    mailbox: Mailbox,
}

impl NativeMemory {
    pub(crate) fn new(vm: &Arc<Vm>, mailbox: &Mailbox) -> Self {
        Self { vm: Arc::clone(vm), memory: vm.memory().clone(), mailbox: mailbox.clone() }
    }
}

#[napi]
impl NativeMemory {
    #[napi(catch_unwind)]
    pub fn map(&self, options: NativeMapOptions) -> Outcome<NativeSlot> {
        let options = Wanted::new(options).and_then(Wanted::open);
        outcome(options.and_then(|options| self.memory.map(&options)).map(Into::into))
    }

    /// The same where all but these has its default: an object's fields are looked up one by one by name, which is most
    /// of what such a call costs.
    #[napi(catch_unwind)]
    pub fn map_plain(&self, gpa: i64, size: i64, readonly: bool, transparent_huge_pages: bool) -> Outcome<NativeSlot> {
        let range = unsigned("gpa", gpa).and_then(|gpa| GpaRange::pages(gpa, unsigned("size", size)?));
        let options = range.map(|range| MapOptions { readonly, transparent_huge_pages, ..MapOptions::new(range) });
        outcome(options.and_then(|options| self.memory.map(&options)).map(Into::into))
    }

    /// All of it or nothing.
    #[napi(catch_unwind)]
    pub fn change(&self, changes: Vec<NativeChange>, watched: bool) -> Outcome<NativeDone> {
        let done = Wish::all(changes).and_then(|wishes| make(&self.memory, wishes, watched));
        outcome(done.map(Into::into))
    }

    #[napi(catch_unwind)]
    pub fn slots(&self) -> Outcome<Vec<NativeSlotInfo>> {
        outcome(self.memory.slots().map(|slots| slots.into_iter().map(Into::into).collect()))
    }

    #[napi(catch_unwind, ts_return_type = "Failure | NativeSlot | null")]
    pub fn slot_at(&self, gpa: i64) -> Outcome<Either<NativeSlot, Null>> {
        let slot = unsigned("gpa", gpa).and_then(|gpa| self.memory.slot_at(gpa));
        outcome(slot.map(|slot| slot.map_or(Either::B(Null), |slot| Either::A(slot.into()))))
    }

    #[napi(catch_unwind)]
    pub fn read(&self, gpa: i64, mut target: Uint8ArraySlice<'_>) -> Outcome<Null> {
        // SAFETY: JavaScript waits for this call, so its thread does not touch the bytes meanwhile, and the array cannot
        // be detached or collected. Over a SharedArrayBuffer another thread may: it then sees, as from any unordered
        // writes, old or new bytes.
        let target = unsafe { target.as_mut() };
        outcome(unsigned("gpa", gpa).and_then(|gpa| self.memory.read(gpa, target)).map(|()| Null))
    }

    #[napi(catch_unwind)]
    pub fn write(&self, gpa: i64, bytes: &[u8]) -> Outcome<Null> {
        outcome(unsigned("gpa", gpa).and_then(|gpa| self.memory.write(gpa, bytes)).map(|()| Null))
    }

    #[napi(catch_unwind)]
    pub fn fill(&self, gpa: i64, size: i64, byte: u8) -> Outcome<Null> {
        let range = unsigned("gpa", gpa).and_then(|gpa| Ok((gpa, unsigned("size", size)?)));
        outcome(range.and_then(|(gpa, size)| self.memory.fill(gpa, size, byte)).map(|()| Null))
    }

    /// Where the bytes of `pattern` begin, the first `limit` of these places.
    #[napi(catch_unwind)]
    pub fn search(&self, gpa: i64, size: i64, pattern: &[u8], limit: u32) -> Outcome<Vec<i64>> {
        let range = unsigned("gpa", gpa).and_then(|gpa| GpaRange::new(gpa, unsigned("size", size)?));
        let found = range.and_then(|range| self.memory.search(range, pattern, limit as usize));
        outcome(found.map(|found| found.into_iter().map(signed).collect()))
    }

    /// The same memory through another address space.
    #[napi(catch_unwind)]
    pub fn address_space(&self, id: i64) -> Outcome<NativeMemory> {
        let memory = unsigned_u32("addressSpace", id).and_then(|id| self.memory.address_space(id));
        outcome(memory.map(|memory| Self { vm: Arc::clone(&self.vm), memory, mailbox: self.mailbox.clone() }))
    }

    /// Does it on the VM's control thread; the outcome is delivered under `id`.
    #[napi(catch_unwind)]
    pub fn start(&self, id: i64, job: NativeJob, watched: bool) -> Outcome<Null> {
        outcome(submit(&self.vm, &self.memory, &self.mailbox, id, job, watched).map(|()| Null))
    }
}
