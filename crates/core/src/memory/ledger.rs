//! Which numbers and ranges are taken, address space by address space, as the change that is being made will leave
//! them: a change is checked whole here before KVM hears of any of it, and taken back from the journal where it fails.
//! Pure; held under the lock of changes, so that no access waits for a check.

use super::slot_map::{Entry, SlotMap, Vacancy};
use crate::{
    error::{Error, Result},
    range::GpaRange,
};

/// Which slot is meant. Numbers are used again, serials are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) space: u32,
    pub(super) number: u32,
    pub(super) serial: u64,
}

impl Key {
    /// What KVM calls the slot (api.rst 4.35): the number in bits 0 to 15, the address space in bits 16 to 31.
    pub(super) const fn id(self) -> u32 {
        self.space << 16 | self.number
    }
}

/// The slots by serial.
#[derive(Debug)]
pub(super) struct Ledger {
    spaces: Vec<SlotMap<u64>>,
    journal: Vec<Undo>,
}

/// Takes one entry back.
#[derive(Debug)]
enum Undo {
    Remove { space: u32, number: u32 },
    Restore { space: u32, place: Vacancy, serial: u64 },
}

impl Ledger {
    /// No slots, in as many address spaces, of `limit` numbers each.
    pub(super) fn new(spaces: u32, limit: u32) -> Self {
        Self { spaces: (0..spaces).map(|_| SlotMap::new(limit)).collect(), journal: Vec::new() }
    }

    /// A new slot over `range`: number `wanted`, or the lowest that is free.
    ///
    /// # Errors
    /// [`Error::SlotOverlap`], [`Error::SlotNumberRange`], [`Error::SlotNumberTaken`], [`Error::SlotLimit`],
    /// [`Error::AddressSpaceRange`].
    pub(super) fn add(&mut self, space: u32, range: GpaRange, wanted: Option<u32>, serial: u64) -> Result<Vacancy> {
        let map = self.space(space)?;
        let place = map.vacancy(range, wanted)?;
        map.insert(place, serial);
        self.journal.push(Undo::Remove { space, number: place.number() });
        Ok(place)
    }

    /// Takes a slot out.
    ///
    /// # Errors
    /// [`Error::Closed`] where it is gone.
    pub(super) fn remove(&mut self, key: Key) -> Result<()> {
        let place = self.place(key)?;
        let Key { space, number, serial } = key;
        self.space(space)?.remove(number);
        self.journal.push(Undo::Restore { space, place, serial });
        Ok(())
    }

    /// Puts a slot elsewhere; the new place may overlap the old one.
    ///
    /// # Errors
    /// [`Error::Closed`] where it is gone, [`Error::SlotOverlap`].
    pub(super) fn relocate(&mut self, key: Key, range: GpaRange) -> Result<Vacancy> {
        let old = self.place(key)?;
        let Key { space, number, serial } = key;
        let map = self.space(space)?;
        let new = map.vacancy_for_move(number, range)?;
        map.insert(new, serial);
        self.journal.push(Undo::Restore { space, place: old, serial });
        Ok(new)
    }

    /// Where the slot lies.
    ///
    /// # Errors
    /// [`Error::Closed`] where it is gone: another may have its number by now.
    pub(super) fn place(&self, key: Key) -> Result<Vacancy> {
        let entry = self.spaces.get(key.space as usize).and_then(|map| map.get(key.number));
        entry.filter(|entry| entry.value == key.serial).map(Entry::place).ok_or(SLOT_CLOSED)
    }

    /// That the slot is there.
    ///
    /// # Errors
    /// Those of [`Ledger::place`].
    pub(super) fn check(&self, key: Key) -> Result<()> {
        self.place(key).map(|_| ())
    }

    /// What was entered is so.
    pub(super) fn commit(&mut self) {
        self.journal.clear();
    }

    /// Takes back what was entered since the last commit, the last entry first.
    pub(super) fn roll_back(&mut self) {
        while let Some(undo) = self.journal.pop() {
            let (Undo::Remove { space, .. } | Undo::Restore { space, .. }) = undo;
            // What is in the journal was entered in a space that there is.
            let Ok(map) = self.space(space) else { continue };
            match undo {
                Undo::Remove { number, .. } => {
                    map.remove(number);
                }
                Undo::Restore { place, serial, .. } => map.insert(place, serial),
            }
        }
    }

    fn space(&mut self, id: u32) -> Result<&mut SlotMap<u64>> {
        let limit = u32::try_from(self.spaces.len()).unwrap_or(u32::MAX);
        self.spaces.get_mut(id as usize).ok_or(Error::AddressSpaceRange { id, limit })
    }
}

pub(super) const SLOT_CLOSED: Error = Error::Closed { what: "memory slot" };

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
