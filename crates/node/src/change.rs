//! Several changes that are made together.

use napi::bindgen_prelude::Reference;
use napi_derive::napi;
use typevisor::{Result, memory::Change};

use crate::{
    backing::{NativeMapOptions, Wanted},
    convert::unsigned,
    memory::NativeSlot,
};

/// `NativeChange` in ts/native.ts.
#[napi(discriminant = "kind", discriminant_case = "kebab-case", object_to_js = false, use_nullable = true)]
pub enum NativeChange {
    Map { options: NativeMapOptions },
    Unmap { slot: Reference<NativeSlot> },
    Move { slot: Reference<NativeSlot>, gpa: i64 },
    SetReadonly { slot: Reference<NativeSlot>, readonly: bool },
}

/// A change, free of JavaScript and its thread.
pub(crate) enum Wish {
    Map(Wanted),
    Ready(Change),
}

impl Wish {
    pub(crate) fn all(changes: Vec<NativeChange>) -> Result<Vec<Self>> {
        changes.into_iter().map(Self::new).collect()
    }

    fn new(change: NativeChange) -> Result<Self> {
        Ok(Self::Ready(match change {
            NativeChange::Map { options } => return Ok(Self::Map(Wanted::new(options)?)),
            NativeChange::Unmap { slot } => Change::Unmap(slot.core().clone()),
            NativeChange::Move { slot, gpa } => Change::Move(slot.core().clone(), unsigned("gpa", gpa)?),
            NativeChange::SetReadonly { slot, readonly } => Change::SetReadonly(slot.core().clone(), readonly),
        }))
    }

    /// Opens the file, where it maps one by path.
    pub(crate) fn open(self) -> Result<Change> {
        match self {
            Self::Map(wanted) => Ok(Change::Map(wanted.open()?)),
            Self::Ready(change) => Ok(change),
        }
    }
}

/// Opens the files among them.
pub(crate) fn open_all(wishes: Vec<Wish>) -> Result<Vec<Change>> {
    wishes.into_iter().map(Wish::open).collect()
}
