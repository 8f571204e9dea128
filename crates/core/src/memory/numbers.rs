//! The free slot numbers of a VM, as runs: nothing is ever used up by counting. Pure.

use std::collections::BTreeMap;

/// Free numbers as disjoint runs that do not touch, first number to first number after. O(log runs) throughout.
#[derive(Debug)]
pub(super) struct FreeNumbers(BTreeMap<u32, u32>);

impl FreeNumbers {
    /// All numbers below `limit`.
    pub(super) fn below(limit: u32) -> Self {
        Self((limit > 0).then_some((0, limit)).into_iter().collect())
    }

    /// The lowest free number.
    pub(super) fn lowest(&self) -> Option<u32> {
        self.0.keys().next().copied()
    }

    /// Whether `number` is free.
    pub(super) fn contains(&self, number: u32) -> bool {
        self.run_with(number).is_some()
    }

    /// Takes `number` out; nothing happens where it is not free.
    pub(super) fn take(&mut self, number: u32) {
        let Some((start, end)) = self.run_with(number) else {
            return;
        };
        self.0.remove(&start);
        if start < number {
            self.0.insert(start, number);
        }
        if number + 1 < end {
            self.0.insert(number + 1, end);
        }
    }

    /// Puts `number`, which was taken, back.
    pub(super) fn release(&mut self, number: u32) {
        let Some(after) = number.checked_add(1) else {
            return;
        };
        if self.contains(number) {
            return;
        }
        let end = self.0.remove(&after).unwrap_or(after);
        let before = self.0.range(..number).next_back().filter(|&(_, &end)| end == number);
        let start = before.map_or(number, |(&start, _)| start);
        self.0.insert(start, end);
    }

    fn run_with(&self, number: u32) -> Option<(u32, u32)> {
        let (&start, &end) = self.0.range(..=number).next_back()?;
        (number < end).then_some((start, end))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_come_lowest_first_and_come_back() {
        let mut free = FreeNumbers::below(3);
        for expected in 0..3 {
            assert_eq!(free.lowest(), Some(expected));
            free.take(expected);
        }
        assert_eq!(free.lowest(), None);
        free.release(1);
        free.release(0);
        assert_eq!(free.lowest(), Some(0));
        assert_eq!(free.0, BTreeMap::from([(0, 2)]), "neighbours join into one run");
    }

    #[test]
    fn no_numbers_at_all_is_a_valid_state() {
        assert_eq!(FreeNumbers::below(0).lowest(), None);
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(operations in prop::collection::vec((any::<bool>(), 0_u32..12), 0..60)) {
            let mut free = FreeNumbers::below(12);
            let mut model: BTreeSet<u32> = (0..12).collect();
            for (take, number) in operations {
                if take {
                    free.take(number);
                    model.remove(&number);
                } else {
                    free.release(number);
                    model.insert(number);
                }
                prop_assert_eq!(free.lowest(), model.first().copied());
                for number in 0..13 {
                    prop_assert_eq!(free.contains(number), model.contains(&number));
                }
                let runs: Vec<_> = free.0.iter().collect();
                prop_assert!(runs.windows(2).all(|pair| pair[0].1 < pair[1].0), "runs neither overlap nor touch");
            }
        }
    }
}
