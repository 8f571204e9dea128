//! The ledger against a plain model: lists of changes over two address spaces, kept or taken back at any point.

use proptest::prelude::*;

use super::*;
use crate::memory::tests::cases;

const SPACES: u32 = 2;
const LIMIT: u32 = 4;

fn range(gpa: u64, size: u64) -> GpaRange {
    GpaRange::new(gpa, size).unwrap()
}

/// The same thing, slow and plain: slots in the order they came.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model(Vec<(Key, GpaRange)>);

impl Model {
    fn in_space(&self, space: u32) -> impl Iterator<Item = &(Key, GpaRange)> {
        self.0.iter().filter(move |(key, _)| key.space == space)
    }

    fn is_free(&self, space: u32, new: GpaRange, except: Option<Key>) -> bool {
        self.in_space(space).all(|(key, old)| Some(*key) == except || !old.overlaps(new))
    }

    fn add(&mut self, space: u32, new: GpaRange, wanted: Option<u32>, serial: u64) -> bool {
        let taken = |number| self.in_space(space).any(|(key, _)| key.number == number);
        let number = wanted.or_else(|| (0..LIMIT).find(|number| !taken(*number)));
        let fits = space < SPACES && self.is_free(space, new, None);
        match number.filter(|number| fits && *number < LIMIT && !taken(*number)) {
            Some(number) => self.0.push((Key { space, number, serial }, new)),
            None => return false,
        }
        true
    }

    fn remove(&mut self, key: Key) -> bool {
        let before = self.0.len();
        self.0.retain(|(other, _)| *other != key);
        self.0.len() < before
    }

    fn relocate(&mut self, key: Key, new: GpaRange) -> bool {
        let free = self.is_free(key.space, new, Some(key));
        match self.0.iter_mut().find(|(other, _)| *other == key) {
            Some((_, range)) if free => *range = new,
            _ => return false,
        }
        true
    }
}

#[derive(Debug, Clone)]
enum Operation {
    Add { space: u32, gpa: u64, size: u64, wanted: Option<u32> },
    Remove { which: usize },
    Relocate { which: usize, gpa: u64 },
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..=SPACES, 0_u64..24, 1_u64..6, prop::option::weighted(0.3, 0..=LIMIT))
            .prop_map(|(space, gpa, size, wanted)| Operation::Add { space, gpa, size, wanted }),
        2 => (0_usize..16).prop_map(|which| Operation::Remove { which }),
        3 => (0_usize..16, 0_u64..24).prop_map(|(which, gpa)| Operation::Relocate { which, gpa }),
    ]
}

/// Every slot that there ever was, and its size: handles outlive their slots.
type Handles = Vec<(Key, u64)>;

/// Does one on both, and gives whether it was done; both have to agree.
fn apply(operation: &Operation, ledger: &mut Ledger, model: &mut Model, handles: &mut Handles, serial: u64) -> bool {
    let handle = |which: usize| handles.get(which % handles.len().max(1)).copied();
    let (done, expected) = match *operation {
        Operation::Add { space, gpa, size, wanted } => {
            let new = range(gpa, size);
            let (place, expected) = (ledger.add(space, new, wanted, serial), model.add(space, new, wanted, serial));
            if let Ok(place) = &place {
                handles.push((Key { space, number: place.number(), serial }, size));
                assert_eq!(place.range(), new);
                assert_eq!(model.0.last(), Some(&(Key { space, number: place.number(), serial }, new)));
            }
            (place.is_ok(), expected)
        }
        Operation::Remove { which } => {
            let Some((key, _)) = handle(which) else { return true };
            (ledger.remove(key).is_ok(), model.remove(key))
        }
        Operation::Relocate { which, gpa } => {
            let Some((key, size)) = handle(which) else { return true };
            (ledger.relocate(key, range(gpa, size)).is_ok(), model.relocate(key, range(gpa, size)))
        }
    };
    assert_eq!(done, expected, "{operation:?}");
    done
}

fn compare(ledger: &Ledger, model: &Model, handles: &Handles) {
    for (space, map) in (0..).zip(&ledger.spaces) {
        let mut expected: Vec<_> = model.in_space(space).map(|(key, range)| (*range, key.number, key.serial)).collect();
        expected.sort_unstable();
        let found: Vec<_> = map.iter().map(|entry| (entry.range, entry.number, entry.value)).collect();
        assert_eq!(found, expected);
    }
    for (key, _) in handles {
        let expected = model.0.iter().find(|(other, _)| other == key).map(|(_, range)| *range);
        assert_eq!(ledger.place(*key).ok().map(|place| place.range()), expected, "{key:?}");
    }
}

proptest! {
    #![proptest_config(cases())]

    /// A list of changes is kept, or ends at its first refusal (or where KVM refuses: at any point) and leaves no trace.
    #[test]
    fn behaves_as_the_plain_model(
        transactions in prop::collection::vec((prop::collection::vec(operation(), 1..6), prop::bool::weighted(0.7)), 0..12),
    ) {
        let (mut ledger, mut model, mut handles) = (Ledger::new(SPACES, LIMIT), Model::default(), Handles::new());
        let mut serials = 1..;
        for (operations, kept) in transactions {
            let before = model.clone();
            let done = operations.iter().all(|operation| {
                apply(operation, &mut ledger, &mut model, &mut handles, serials.next().unwrap())
            });
            if done && kept {
                ledger.commit();
            } else {
                ledger.roll_back();
                model = before;
            }
            compare(&ledger, &model, &handles);
        }
        // The lowest number that is free is given, as if nothing had ever been taken back.
        for space in 0..SPACES {
            let new = range(1000, 1);
            let place = ledger.add(space, new, None, 0).map(|place| place.number()).ok();
            model.add(space, new, None, 0);
            let expected = model.0.last().filter(|(key, _)| (key.space, key.serial) == (space, 0));
            prop_assert_eq!(place, expected.map(|(key, _)| key.number));
        }
    }
}

#[test]
fn an_address_space_that_is_not_there_is_refused_by_its_number() {
    let error = Ledger::new(2, 1).add(2, range(0, 1), None, 1).unwrap_err();
    assert!(matches!(error, Error::AddressSpaceRange { id: 2, limit: 2 }), "{error}");
}

#[test]
fn kvm_s_id_has_the_address_space_above_the_number() {
    assert_eq!(Key { space: 1, number: 0x7ffb, serial: 9 }.id(), 0x1_7ffb);
}
