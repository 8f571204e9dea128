//! Slots as objects.

use napi::bindgen_prelude::Null;
use napi_derive::napi;
use typevisor::memory::{MemorySlot, SlotInfo};

use crate::{
    convert::{signed, unsigned},
    failure::{Outcome, outcome},
};

/// `NativeSlotInfo` in ts/native.ts.
#[napi(object, object_from_js = false)]
pub struct NativeSlotInfo {
    pub slot: u32,
    pub gpa: i64,
    pub size: i64,
    pub readonly: bool,
    pub ioctl: &'static str,
    pub serial: i64,
}

impl From<SlotInfo> for NativeSlotInfo {
    fn from(slot: SlotInfo) -> Self {
        Self {
            slot: slot.number,
            gpa: signed(slot.range.gpa()),
            size: signed(slot.range.size()),
            readonly: slot.readonly,
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

#[napi]
impl NativeSlot {
    #[napi(catch_unwind)]
    pub fn info(&self) -> NativeSlotInfo {
        self.slot.info().into()
    }

    #[napi(js_name = "move", catch_unwind)]
    pub fn move_to(&self, gpa: i64) -> Outcome<Null> {
        outcome(unsigned("gpa", gpa).and_then(|gpa| self.slot.move_to(gpa)).map(|()| Null))
    }

    #[napi(catch_unwind)]
    pub fn unmap(&self) -> Outcome<Null> {
        outcome(self.slot.unmap().map(|()| Null))
    }
}
