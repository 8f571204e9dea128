//! Several changes of slots as one: all of them or none, without any vCPU seeing a state between. First the whole list
//! is checked against the ledger and the memory is made, then the vCPUs are held out, then come the ioctls; where KVM
//! refuses one, those before it are undone in reverse. Why: docs/design/memory.md.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    backing::{self, Backed},
    guest_memory::{GuestMemory, SlotFeatures},
    ledger::{Key, Ledger, SLOT_CLOSED},
    lent::{Lent, LentSlot},
    region::{Identity, Region},
    slot::{MapOptions, MemorySlot},
    slot_map::Vacancy,
    state::Spaces,
};
use crate::error::{Errno, Error, Result};

/// One of the changes that [`GuestMemory::change`] makes together.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Change {
    /// As [`GuestMemory::map`]. A share may be of a slot that an earlier change of the same list unmaps.
    Map(MapOptions),
    /// As [`MemorySlot::unmap`].
    Unmap(MemorySlot),
    /// As [`MemorySlot::move_to`], to this address (bytes, page-aligned).
    Move(MemorySlot, u64),
    /// As [`MemorySlot::set_readonly`].
    SetReadonly(MemorySlot, bool),
}

impl GuestMemory {
    /// Makes all `changes`, in order, or none of them. Meanwhile every vCPU of the VM is held out of the guest: it stands
    /// between two instructions and goes on by itself, so no guest sees memory that is gone and not yet back, and no
    /// run ends because of it. Host accesses wait for the ioctls, and see all changes or none.
    ///
    /// Gives back the slots of its maps, in their order. A list of nothing does nothing. May be called from a device or
    /// a callback of a run. It waits for vCPUs to leave the kernel: long, where one sleeps in a missing page.
    ///
    /// # Errors
    /// Before KVM is told anything, and with nothing done: what the calls of the single changes give, against the state
    /// that the changes before it in the list would leave; [`Error::InvalidArgument`] for a slot of another VM. From
    /// the kernel: [`Error::Ioctl`], and the changes before that one have been undone; but slots that had to be deleted and
    /// added again for that have an empty log of dirty pages, as they have where the flag for reading was changed.
    /// Where the kernel refuses the undoing too: [`Error::SlotsLost`], and the VM is left [`Error::Poisoned`]: it runs no
    /// guest and gives no memory any more; close it.
    ///
    /// ```no_run
    /// use typevisor::{GpaRange, Kvm, Vm, VmOptions, memory::{Change, MapOptions}};
    /// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
    /// let bank = MapOptions::new(GpaRange::pages(0x8_0000, 0x1_0000)?);
    /// let first = vm.memory().map(&bank)?;
    /// // The guest sees the one bank or the other, never neither.
    /// let second = vm.memory().change(vec![Change::Unmap(first), Change::Map(bank)])?;
    /// assert_eq!(second.len(), 1);
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub fn change(&self, changes: Vec<Change>) -> Result<Vec<MemorySlot>> {
        changes.iter().try_for_each(|change| self.check(change))?;
        // They have all the memory that comes and goes, and outlive the lock.
        let mut steps = Vec::new();
        let outcome = self.changes()?.attempt(|ledger, lent| {
            let planned = changes.iter().map(|change| self.plan(ledger, change)).collect::<Result<Vec<_>>>()?;
            let mut draft = Draft::new(self.features(), lent, &mut steps);
            planned.into_iter().try_for_each(|planned| draft.add(planned))?;
            let entries = draft.entries;
            let mapped = entries.iter().filter_map(|entry| self.mapped(entry)).collect();
            if !steps.is_empty() {
                self.carry_out(lent, &steps, entries)?;
            }
            Ok(mapped)
        });
        drop((steps, changes));
        outcome
    }

    /// What can be said of a change without knowing any other.
    fn check(&self, change: &Change) -> Result<()> {
        match change {
            Change::Map(options) => self.check_map(options).map(drop),
            Change::Unmap(slot) => self.check_own(slot),
            Change::Move(slot, gpa) => {
                self.check_own(slot)?;
                self.check_move(slot.identity(), *gpa).map(drop)
            }
            Change::SetReadonly(slot, readonly) => {
                self.check_own(slot)?;
                self.check_readonly(slot.identity(), *readonly)
            }
        }
    }

    fn check_own(&self, slot: &MemorySlot) -> Result<()> {
        let foreign = Error::InvalidArgument { what: "slot", expected: "a slot of this VM" };
        if self.is_same(slot.memory()) { Ok(()) } else { Err(foreign) }
    }

    /// Enters a change in the ledger, where it meets those before it.
    fn plan<'a>(&self, ledger: &mut Ledger, change: &'a Change) -> Result<Planned<'a>> {
        match change {
            Change::Map(options) => {
                let (space, serial) = (self.check_map(options)?, Identity::next_serial());
                let place = ledger.add(space, options.range, options.slot, serial)?;
                let key = Key { space, number: place.number(), serial };
                Ok(Planned::Map { options, key, place })
            }
            Change::Unmap(slot) => {
                let identity = Arc::clone(slot.identity());
                ledger.remove(identity.key).map(|()| Planned::Unmap(identity))
            }
            Change::Move(slot, gpa) => {
                let identity = Arc::clone(slot.identity());
                let range = self.check_move(&identity, *gpa)?;
                let place = ledger.relocate(identity.key, range)?;
                Ok(Planned::Move { identity, place })
            }
            Change::SetReadonly(slot, readonly) => {
                let identity = Arc::clone(slot.identity());
                ledger.check(identity.key).map(|()| Planned::SetReadonly { identity, readonly: *readonly })
            }
        }
    }

    fn mapped(&self, entry: &Entry) -> Option<MemorySlot> {
        let Entry::Map { region, .. } = entry else { return None };
        Some(MemorySlot::new(self.clone(), Arc::clone(region.identity())))
    }

    /// With the vCPUs held out: the ioctls, then what accesses see, in one go.
    fn carry_out(&self, lent: &mut Lent, steps: &[Step], entries: Vec<Entry>) -> Result<()> {
        let _held = (!cfg!(broken = "change-unheld")).then(|| self.hold(lent));
        // Let go of before the vCPUs are: where it is poisoned then, none of them enters again.
        let mut unsettled = self.unsettled(lent);
        let refused = match issue(lent, steps) {
            Ok(()) => None,
            Err(Failure::Undone(error)) => Some(error),
            Err(Failure::Lost(error)) if cfg!(broken = "poison") => Some(error),
            Err(Failure::Lost(error)) => return Err(error),
        };
        if refused.is_none() {
            let spaces = unsettled.spaces()?;
            for entry in entries {
                entry.publish(spaces);
            }
        }
        unsettled.settle();
        refused.map_or(Ok(()), Err)
    }
}

/// A change that the ledger has.
enum Planned<'a> {
    Map { options: &'a MapOptions, key: Key, place: Vacancy },
    Unmap(Arc<Identity>),
    Move { identity: Arc<Identity>, place: Vacancy },
    SetReadonly { identity: Arc<Identity>, readonly: bool },
}

/// One ioctl, and what undoes it: the slot before and after.
struct Step {
    id: u32,
    before: Option<LentSlot>,
    after: Option<LentSlot>,
}

impl Step {
    fn apply(&self, lent: &mut Lent) -> Result<()> {
        tell(lent, self.id, self.after.as_ref())
    }

    fn undo(&self, lent: &mut Lent) -> Result<()> {
        tell(lent, self.id, self.before.as_ref())
    }
}

fn tell(lent: &mut Lent, id: u32, slot: Option<&LentSlot>) -> Result<()> {
    match slot {
        Some(slot) => lent.set(slot.clone()),
        None => lent.delete(id),
    }
}

enum Failure {
    /// KVM refused, and everything is as it was.
    Undone(Error),
    /// KVM refused the undoing as well.
    Lost(Error),
}

/// All steps or none.
fn issue(lent: &mut Lent, steps: &[Step]) -> std::result::Result<(), Failure> {
    let mut done = Vec::new();
    for step in steps {
        if let Err(error) = step.apply(lent) {
            if cfg!(broken = "rollback-order") {
                done.reverse();
            }
            let done = if cfg!(broken = "rollback") { &[] } else { done.as_slice() };
            let undone = done.iter().rev().try_for_each(|step: &&Step| step.undo(lent));
            return Err(match undone {
                Ok(()) => Failure::Undone(error),
                Err(refused) => Failure::Lost(lost(&error, &refused, lent.name())),
            });
        }
        done.push(step);
    }
    Ok(())
}

/// A refused undoing, as an error that says what it means, and what was refused before it.
fn lost(change: &Error, undoing: &Error, ioctl: &'static str) -> Error {
    // Without one of its own: a range past the VM's width, which was EINVAL.
    let errno = |error: &Error| error.errno().unwrap_or((Errno(libc::EINVAL), ioctl));
    let ((cause, _), (errno, request)) = (errno(change), errno(undoing));
    Error::SlotsLost { request, errno, cause }
}

/// What accesses see of a change, once all of KVM's part is done.
enum Entry {
    Map { space: u32, place: Vacancy, region: Region },
    Unmap(Key),
    Move { key: Key, place: Vacancy },
    SetReadonly { identity: Arc<Identity>, readonly: bool },
}

impl Entry {
    fn space(&self) -> u32 {
        match self {
            Self::Map { space, .. } => *space,
            Self::Unmap(key) | Self::Move { key, .. } => key.space,
            Self::SetReadonly { identity, .. } => identity.key.space,
        }
    }

    fn publish(self, spaces: &mut Spaces) {
        // The ledger has entered it, so the space is there.
        let Some(map) = spaces.get_mut(self.space() as usize) else { return };
        match self {
            Self::Map { place, region, .. } => map.insert(place, region),
            Self::Unmap(key) => drop(map.remove(key.number)), // its memory is in the step that deleted it
            Self::Move { key, place } => {
                if let Some((_, region)) = map.remove(key.number) {
                    map.insert(place, region.moved_to(place.range()));
                }
            }
            Self::SetReadonly { identity, readonly } => identity.set_readonly(readonly),
        }
    }
}

/// The steps of a list of changes, each of which finds the slots as those before it leave them.
struct Draft<'a> {
    features: SlotFeatures,
    lent: &'a Lent,
    /// Slots that differ from what KVM has.
    touched: BTreeMap<u32, Option<LentSlot>>,
    steps: &'a mut Vec<Step>,
    entries: Vec<Entry>,
}

impl<'a> Draft<'a> {
    const fn new(features: SlotFeatures, lent: &'a Lent, steps: &'a mut Vec<Step>) -> Self {
        Self { features, lent, touched: BTreeMap::new(), steps, entries: Vec::new() }
    }

    fn add(&mut self, planned: Planned<'_>) -> Result<()> {
        match planned {
            Planned::Map { options, key, place } => {
                let backed = backing::provide(options, self.features, self.lent)?;
                let (slot, region) = make(options, key, backed, self.lent.name());
                self.step(key.id(), Some(slot));
                self.entries.push(Entry::Map { space: key.space, place, region });
            }
            Planned::Unmap(identity) => {
                self.step(identity.key.id(), None);
                self.entries.push(Entry::Unmap(identity.key));
            }
            Planned::Move { identity, place } => {
                let slot = self.current(identity.key.id())?;
                if slot.range != place.range() {
                    self.step(slot.id, Some(LentSlot { range: place.range(), ..slot }));
                    self.entries.push(Entry::Move { key: identity.key, place });
                }
            }
            Planned::SetReadonly { identity, readonly } => {
                let slot = self.current(identity.key.id())?;
                slot.backed.check_readonly(readonly)?;
                if slot.readonly != readonly {
                    // KVM changes this flag of no slot that exists (api.rst 4.35).
                    self.step(slot.id, None);
                    self.step(slot.id, Some(LentSlot { readonly, ..slot }));
                    self.entries.push(Entry::SetReadonly { identity, readonly });
                }
            }
        }
        Ok(())
    }

    /// The slot as the steps so far leave it.
    fn current(&self, id: u32) -> Result<LentSlot> {
        let touched = self.touched.get(&id).map(Option::as_ref);
        touched.unwrap_or_else(|| self.lent.get(id)).cloned().ok_or(SLOT_CLOSED)
    }

    fn step(&mut self, id: u32, after: Option<LentSlot>) {
        let before = self.current(id).ok();
        self.touched.insert(id, after.clone());
        self.steps.push(Step { id, before, after });
    }
}

/// A new slot, for KVM and for ourselves.
pub(super) fn make(options: &MapOptions, key: Key, backed: Backed, ioctl: &'static str) -> (LentSlot, Region) {
    let &MapOptions { range, readonly, .. } = options;
    let identity = Arc::new(Identity::new(key, options, &backed, ioctl));
    let slot = LentSlot { id: key.id(), range, readonly, dirty_log: false, backed: backed.clone() };
    (slot, Region::new(range, identity, backed))
}
