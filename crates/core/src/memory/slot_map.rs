//! Which slot lies where and which numbers are taken, without any fd or memory: pure, and generic over what a slot
//! holds. Every operation is O(log slots), [`SlotMap::pieces`] in addition O(pieces); nothing copies the map.

use std::collections::BTreeMap;

use super::numbers::FreeNumbers;
use crate::{
    error::{Error, Result},
    range::GpaRange,
};

/// The slots of one address space by address and by number; ranges never overlap.
#[derive(Debug)]
pub(super) struct SlotMap<T> {
    /// By first address.
    by_gpa: BTreeMap<u64, Entry<T>>,
    /// Number to first address, for every entry above.
    by_number: BTreeMap<u32, u64>,
    free: FreeNumbers,
    limit: u32,
}

/// One slot.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) number: u32,
    pub(super) range: GpaRange,
    pub(super) value: T,
}

impl<T> Entry<T> {
    /// Where to put it back.
    pub(super) const fn place(&self) -> Vacancy {
        Vacancy { number: self.number, range: self.range }
    }
}

/// A number and a range that were found free together. Whoever holds one holds the lock under which the map changes
/// until it is used or dropped; so inserting cannot fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) struct Vacancy {
    number: u32,
    range: GpaRange,
}

impl Vacancy {
    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    pub(super) const fn range(&self) -> GpaRange {
        self.range
    }
}

/// The part of an access that one slot answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<T> {
    pub(super) value: T,
    /// Where the part begins, in bytes from the start of the slot.
    pub(super) offset: u64,
    /// Bytes, at least 1.
    pub(super) size: u64,
}

/// The parts of an access in order of address. The first stands apart so that the usual access, which stays within
/// one slot, allocates nothing.
#[derive(Debug)]
pub(super) struct Pieces<T> {
    first: Option<Piece<T>>,
    rest: Vec<Piece<T>>,
}

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Self { first: None, rest: Vec::new() }
    }
}

impl<T> IntoIterator for Pieces<T> {
    type Item = Piece<T>;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Piece<T>>, std::vec::IntoIter<Piece<T>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.rest)
    }
}

impl<T> SlotMap<T> {
    /// An empty map for a VM with `limit` slots, numbered from 0.
    pub(super) fn new(limit: u32) -> Self {
        Self { by_gpa: BTreeMap::new(), by_number: BTreeMap::new(), free: FreeNumbers::below(limit), limit }
    }

    /// A place for a new slot over `range`: number `wanted`, or the lowest that is free.
    ///
    /// # Errors
    /// [`Error::SlotOverlap`], [`Error::SlotNumberRange`], [`Error::SlotNumberTaken`], [`Error::SlotLimit`].
    pub(super) fn vacancy(&self, range: GpaRange, wanted: Option<u32>) -> Result<Vacancy> {
        self.check_overlap(range, None)?;
        let number = match wanted {
            Some(number) => self.check_number(number)?,
            None => self.free.lowest().ok_or(Error::SlotLimit { limit: self.limit })?,
        };
        Ok(Vacancy { number, range })
    }

    /// A place for slot `number` to move to. It may overlap the place it has.
    ///
    /// # Errors
    /// [`Error::SlotOverlap`].
    pub(super) fn vacancy_for_move(&self, number: u32, range: GpaRange) -> Result<Vacancy> {
        self.check_overlap(range, Some(number))?;
        Ok(Vacancy { number, range })
    }

    /// Puts a slot into its place, out of the one that it had before, if it had any.
    pub(super) fn insert(&mut self, Vacancy { number, range }: Vacancy, value: T) {
        self.remove(number);
        self.free.take(number);
        self.by_number.insert(number, range.gpa());
        self.by_gpa.insert(range.gpa(), Entry { number, range, value });
    }

    /// Takes slot `number` out. What comes back puts it in again.
    pub(super) fn remove(&mut self, number: u32) -> Option<(Vacancy, T)> {
        let gpa = self.by_number.remove(&number)?;
        self.free.release(number);
        self.by_gpa.remove(&gpa).map(|entry| (Vacancy { number, range: entry.range }, entry.value))
    }

    /// Slot `number`.
    pub(super) fn get(&self, number: u32) -> Option<&Entry<T>> {
        self.by_gpa.get(self.by_number.get(&number)?)
    }

    /// The slot with memory at `gpa`.
    pub(super) fn at(&self, gpa: u64) -> Option<&Entry<T>> {
        self.by_gpa.range(..=gpa).next_back().map(|(_, entry)| entry).filter(|entry| entry.range.contains(gpa))
    }

    /// All slots, in order of address.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<T>> {
        self.by_gpa.values()
    }

    /// How many slots there are.
    pub(super) fn len(&self) -> usize {
        self.by_gpa.len()
    }

    /// Which slots answer an access to `range`, with their part each.
    ///
    /// # Errors
    /// [`Error::MemoryHole`] with the first address that no slot covers.
    pub(super) fn pieces(&self, range: GpaRange) -> Result<Pieces<T>>
    where
        T: Clone,
    {
        let hole = |gpa| Error::MemoryHole { gpa, range };
        let start = self.at(range.gpa()).ok_or_else(|| hole(range.gpa()))?.range.gpa();
        let mut pieces = Pieces::default();
        let mut next = range.gpa();
        for entry in self.by_gpa.range(start..range.end()).map(|(_, entry)| entry) {
            if !entry.range.contains(next) {
                break;
            }
            let end = entry.range.end().min(range.end());
            let piece = Piece { value: entry.value.clone(), offset: next - entry.range.gpa(), size: end - next };
            match pieces.first {
                None => pieces.first = Some(piece),
                Some(_) => pieces.rest.push(piece),
            }
            next = end;
        }
        if next == range.end() { Ok(pieces) } else { Err(hole(next)) }
    }

    fn check_number(&self, number: u32) -> Result<u32> {
        if number >= self.limit {
            return Err(Error::SlotNumberRange { number, limit: self.limit });
        }
        match self.get(number) {
            Some(entry) => Err(Error::SlotNumberTaken { number, range: entry.range }),
            None => Ok(number),
        }
    }

    /// Names the overlapping slot with the lowest address, slot `except` aside.
    fn check_overlap(&self, new: GpaRange, except: Option<u32>) -> Result<()> {
        // Ranges are disjoint: of those that begin before `new` only the last can reach into it.
        let before = self.by_gpa.range(..new.gpa()).next_back();
        let within = self.by_gpa.range(new.gpa()..new.end());
        let overlaps = |entry: &&Entry<T>| Some(entry.number) != except && entry.range.overlaps(new);
        match before.into_iter().chain(within).map(|(_, entry)| entry).find(overlaps) {
            Some(entry) => Err(Error::SlotOverlap { new, old: entry.range }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: u32 = 5;

    fn range(gpa: u64, size: u64) -> GpaRange {
        GpaRange::new(gpa, size).unwrap()
    }

    /// The same thing, slow and plain: slots in the order they came.
    #[derive(Default)]
    struct Model(Vec<(u32, GpaRange, u8)>);

    impl Model {
        fn overlapping(&self, new: GpaRange, except: Option<u32>) -> Option<GpaRange> {
            let others = self.0.iter().filter(|slot| Some(slot.0) != except);
            others.map(|slot| slot.1).filter(|old| old.overlaps(new)).min()
        }

        fn taken(&self, number: u32) -> bool {
            self.0.iter().any(|slot| slot.0 == number)
        }

        fn lowest_free(&self) -> Option<u32> {
            (0..LIMIT).find(|&number| !self.taken(number))
        }

        fn owner(&self, gpa: u64) -> Option<&(u32, GpaRange, u8)> {
            self.0.iter().find(|slot| slot.1.contains(gpa))
        }
    }

    #[derive(Debug, Clone)]
    enum Operation {
        Insert { gpa: u64, size: u64, wanted: Option<u32>, value: u8 },
        Remove { number: u32 },
        Move { number: u32, gpa: u64 },
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            3 => (0_u64..24, 1_u64..6, prop::option::weighted(0.3, 0..LIMIT + 2), any::<u8>())
                .prop_map(|(gpa, size, wanted, value)| Operation::Insert { gpa, size, wanted, value }),
            1 => (0..LIMIT + 1).prop_map(|number| Operation::Remove { number }),
            2 => (0..LIMIT, 0_u64..24).prop_map(|(number, gpa)| Operation::Move { number, gpa }),
        ]
    }

    fn insert(map: &mut SlotMap<u8>, model: &mut Model, new: GpaRange, wanted: Option<u32>, value: u8) {
        match map.vacancy(new, wanted) {
            Ok(vacancy) => {
                assert_eq!(model.overlapping(new, None), None);
                assert_eq!(Some(vacancy.number()), wanted.or(model.lowest_free()));
                assert!(vacancy.number() < LIMIT && !model.taken(vacancy.number()));
                model.0.push((vacancy.number(), new, value));
                map.insert(vacancy, value);
            }
            Err(Error::SlotOverlap { new: said, old }) => {
                assert_eq!((said, Some(old)), (new, model.overlapping(new, None)));
            }
            Err(Error::SlotNumberTaken { number, range }) => {
                assert!(model.0.iter().any(|slot| slot.0 == number && slot.1 == range && wanted == Some(number)));
            }
            Err(Error::SlotNumberRange { number, limit }) => {
                assert!(wanted == Some(number) && limit == LIMIT && number >= LIMIT);
            }
            Err(Error::SlotLimit { limit }) => {
                assert!(limit == LIMIT && model.lowest_free().is_none());
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    fn relocate(map: &mut SlotMap<u8>, model: &mut Model, number: u32, gpa: u64) {
        let Some(index) = model.0.iter().position(|slot| slot.0 == number) else {
            return;
        };
        let new = range(gpa, model.0[index].1.size());
        match map.vacancy_for_move(number, new) {
            Ok(vacancy) => {
                assert_eq!(model.overlapping(new, Some(number)), None);
                map.insert(vacancy, model.0[index].2);
                model.0[index].1 = new;
            }
            Err(Error::SlotOverlap { new: said, old }) => {
                assert_eq!((said, Some(old)), (new, model.overlapping(new, Some(number))));
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    fn compare(map: &SlotMap<u8>, model: &Model) {
        let mut expected: Vec<_> = model.0.clone();
        expected.sort_by_key(|slot| slot.1);
        let found: Vec<_> = map.iter().map(|entry| (entry.number, entry.range, entry.value)).collect();
        assert_eq!(found, expected);
        assert_eq!(map.len(), expected.len());
        for number in 0..LIMIT {
            assert_eq!(map.get(number).is_some(), model.taken(number));
        }
        for gpa in 0..32 {
            assert_eq!(map.at(gpa).map(|entry| entry.number), model.owner(gpa).map(|slot| slot.0));
        }
    }

    /// Byte by byte, the pieces are what the model says, or the error names the first byte it has no owner for.
    fn compare_access(map: &SlotMap<u8>, model: &Model, access: GpaRange) {
        let addresses = access.gpa()..access.end();
        match map.pieces(access) {
            Ok(pieces) => {
                let bytes = pieces.into_iter().flat_map(|piece| {
                    (piece.offset..piece.offset + piece.size).map(move |offset| (piece.value, offset))
                });
                let expected = addresses.map(|gpa| {
                    let slot = model.owner(gpa).unwrap();
                    (slot.2, gpa - slot.1.gpa())
                });
                assert!(bytes.eq(expected));
            }
            Err(Error::MemoryHole { gpa, range }) => {
                let first = addresses.into_iter().find(|&gpa| model.owner(gpa).is_none());
                assert_eq!((Some(gpa), range), (first, access));
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    proptest! {
        #![proptest_config(crate::memory::tests::cases())]

        #[test]
        fn behaves_as_the_plain_model(
            operations in prop::collection::vec(operation(), 0..40),
            accesses in prop::collection::vec((0_u64..28, 1_u64..12), 0..8),
        ) {
            let (mut map, mut model) = (SlotMap::new(LIMIT), Model::default());
            for operation in operations {
                match operation {
                    Operation::Insert { gpa, size, wanted, value } => {
                        insert(&mut map, &mut model, range(gpa, size), wanted, value);
                    }
                    Operation::Remove { number } => {
                        prop_assert_eq!(map.remove(number).is_some(), model.taken(number));
                        model.0.retain(|slot| slot.0 != number);
                    }
                    Operation::Move { number, gpa } => relocate(&mut map, &mut model, number, gpa),
                }
                compare(&map, &model);
                for &(gpa, size) in &accesses {
                    compare_access(&map, &model, range(gpa, size));
                }
            }
        }
    }

    #[test]
    fn what_was_removed_can_be_put_back_unchanged() {
        let mut map = SlotMap::new(LIMIT);
        let vacancy = map.vacancy(range(4, 4), Some(3)).unwrap();
        map.insert(vacancy, 'a');
        let (vacancy, value) = map.remove(3).unwrap();
        assert!(map.at(4).is_none());
        map.insert(vacancy, value);
        assert_eq!(map.at(7).map(|entry| (entry.number, entry.range, entry.value)), Some((3, range(4, 4), 'a')));
    }

    #[test]
    fn an_access_within_one_slot_allocates_nothing() {
        let mut map = SlotMap::new(LIMIT);
        let vacancy = map.vacancy(range(0, 8), None).unwrap();
        map.insert(vacancy, 'a');
        assert_eq!(map.pieces(range(2, 3)).unwrap().rest.capacity(), 0);
    }
}
