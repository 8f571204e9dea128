//! Several changes that are made together.

use napi::bindgen_prelude::Reference;
use napi_derive::napi;
use typevisor::{
    Result,
    memory::{Change, GuestMemory, MapOptions, MemorySlot, SlotInfo},
};

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

/// What was done: the slots that were made, in order; where somebody watches, what there is to tell of each step: the slot
/// as it was made, or as it was before; and what a search found.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) slots: Vec<MemorySlot>,
    pub(crate) infos: Vec<SlotInfo>,
    pub(crate) found: Vec<u64>,
}

impl Done {
    /// Of a single map.
    pub(crate) fn map(memory: &GuestMemory, options: &MapOptions, watched: bool) -> Result<Self> {
        let slot = memory.map(options)?;
        let infos = watched.then(|| as_made(&slot, options)).into_iter().collect();
        Ok(Self { slots: vec![slot], infos, ..Self::default() })
    }

    /// Of a single change of a slot that there is.
    pub(crate) fn one(slot: &MemorySlot, watched: bool, change: impl FnOnce() -> Result<()>) -> Result<Self> {
        let infos = watched.then(|| slot.info()).into_iter().collect();
        change().map(|()| Self { infos, ..Self::default() })
    }
}

/// Before each file: opening one may take as long as a file system likes, and whoever closes the VM waits for the job.
pub(crate) fn check_open(memory: &GuestMemory) -> Result<()> {
    memory.slot_at(0).map(drop)
}

/// Opens the files among them, and makes the changes.
pub(crate) fn make(memory: &GuestMemory, wishes: Vec<Wish>, watched: bool) -> Result<Done> {
    let open = |wish: Wish| check_open(memory).and_then(|()| wish.open());
    let changes: Vec<Change> = wishes.into_iter().map(open).collect::<Result<_>>()?;
    let steps: Vec<Step> = if watched { changes.iter().filter_map(Step::of).collect() } else { Vec::new() };
    let slots = memory.change(changes)?;
    let mut made = slots.iter();
    let infos = steps.into_iter().filter_map(|step| match step {
        Step::Map(options) => made.next().map(|slot| as_made(slot, &options)),
        Step::Other(before) => Some(before),
    });
    let infos = infos.collect();
    Ok(Done { slots, infos, ..Done::default() })
}

/// What of a change has to be known before it is made, to tell of it.
enum Step {
    Map(Box<MapOptions>),
    Other(SlotInfo),
}

impl Step {
    fn of(change: &Change) -> Option<Self> {
        match change {
            Change::Map(options) => Some(Self::Map(Box::new(options.clone()))),
            Change::Unmap(slot) | Change::Move(slot, _) | Change::SetReadonly(slot, _) => {
                Some(Self::Other(slot.info()))
            }
            _ => None, // no kind that this crate makes
        }
    }
}

/// Another thread may have changed it since.
fn as_made(slot: &MemorySlot, options: &MapOptions) -> SlotInfo {
    SlotInfo { range: options.range, readonly: options.readonly, dirty_log: false, ..slot.info() }
}
