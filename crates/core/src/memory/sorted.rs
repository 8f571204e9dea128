//! Values in order of their keys, for look-ups that are far more frequent than changes. Pure. A `BTreeMap` searches each of
//! its nodes key by key, and a processor cannot foresee where such a search ends: for accesses to 16,384 slots in no
//! order that alone took longer than all else in them. Here a look-up is two binary searches without a branch to
//! foresee, over keys that lie together; a change moves the keys and values of one chunk, and now and then the list of chunks.

/// A map from `u64` in chunks of at most `CAPACITY` (4 or more). Any two neighbouring chunks hold more than half of that,
/// so that there are never many of them.
#[derive(Debug)]
pub(super) struct Sorted<V, const CAPACITY: usize = 128> {
    /// The first key of each chunk.
    firsts: Vec<u64>,
    chunks: Vec<Chunk<V>>,
}

/// Never empty but within a removal. Both vectors are as long.
#[derive(Debug)]
struct Chunk<V> {
    keys: Vec<u64>,
    values: Vec<V>,
}

impl<V, const CAPACITY: usize> Sorted<V, CAPACITY> {
    pub(super) const fn new() -> Self {
        Self { firsts: Vec::new(), chunks: Vec::new() }
    }

    /// How many values there are. O(chunks).
    pub(super) fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.keys.len()).sum()
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: u64) -> Option<&V> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        chunk.values.get(chunk.keys.binary_search(&key).ok()?)
    }

    /// The value of the highest key that is not above `key`.
    pub(super) fn at_or_below(&self, key: u64) -> Option<&V> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        chunk.values.get(chunk.up_to(key).checked_sub(1)?)
    }

    /// All values in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &V> {
        self.chunks.iter().flat_map(|chunk| &chunk.values)
    }

    /// The values of `key` and above, in order.
    pub(super) fn from(&self, key: u64) -> impl Iterator<Item = &V> {
        let (here, after) = self.chunks.get(self.chunk_of(key)..).unwrap_or_default().split_first().unzip();
        let start = |chunk: &Chunk<V>| chunk.keys.partition_point(|&other| other < key);
        let rest = here.and_then(|chunk| chunk.values.get(start(chunk)..)).unwrap_or_default();
        rest.iter().chain(after.unwrap_or_default().iter().flat_map(|chunk| &chunk.values))
    }

    /// Puts `value` at `key`, in the place of the one that was there.
    pub(super) fn insert(&mut self, key: u64, value: V) {
        let at = self.chunk_of(key);
        if self.chunks.is_empty() {
            self.chunks.push(Chunk { keys: Vec::new(), values: Vec::new() });
            self.firsts.push(key);
        }
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        chunk.insert(key, value);
        if chunk.keys.len() > CAPACITY {
            let upper = chunk.split_off(CAPACITY / 2);
            self.firsts.insert(at + 1, key);
            self.chunks.insert(at + 1, upper);
            self.note_first(at + 1);
        }
        self.note_first(at);
    }

    /// Takes the value of `key` out.
    pub(super) fn remove(&mut self, key: u64) -> Option<V> {
        let at = self.chunk_of(key);
        let value = self.chunks.get_mut(at)?.remove(key)?;
        self.note_first(at);
        self.join(at);
        if let Some(before) = at.checked_sub(1) {
            self.join(before);
        }
        if self.chunks.get(at).is_some_and(|chunk| chunk.keys.is_empty()) {
            self.chunks.remove(at);
            self.firsts.remove(at);
        }
        Some(value)
    }

    /// The chunk that has `key`, if any has; 0 for keys below all.
    fn chunk_of(&self, key: u64) -> usize {
        self.firsts.partition_point(|&first| first <= key).saturating_sub(1)
    }

    /// Puts the chunk behind chunk `at` into it where both together are small.
    fn join(&mut self, at: usize) {
        let Some([lower, upper]) = self.chunks.get_mut(at..at + 2) else { return };
        if lower.keys.len() + upper.keys.len() > CAPACITY / 2 {
            return;
        }
        lower.keys.append(&mut upper.keys);
        lower.values.append(&mut upper.values);
        self.chunks.remove(at + 1);
        self.firsts.remove(at + 1);
        self.note_first(at);
    }

    fn note_first(&mut self, at: usize) {
        let first = self.chunks.get(at).and_then(|chunk| chunk.keys.first());
        if let (Some(noted), Some(&first)) = (self.firsts.get_mut(at), first) {
            *noted = first;
        }
    }
}

impl<V> Chunk<V> {
    /// How many keys are `key` or below.
    fn up_to(&self, key: u64) -> usize {
        self.keys.partition_point(|&other| other <= key)
    }

    fn insert(&mut self, key: u64, value: V) {
        match self.keys.binary_search(&key) {
            Ok(at) => {
                if let Some(old) = self.values.get_mut(at) {
                    *old = value;
                }
            }
            Err(at) => {
                self.keys.insert(at, key);
                self.values.insert(at, value);
            }
        }
    }

    fn remove(&mut self, key: u64) -> Option<V> {
        let at = self.keys.binary_search(&key).ok()?;
        self.keys.remove(at);
        Some(self.values.remove(at))
    }

    /// What stands from `at` on, as a chunk of its own.
    fn split_off(&mut self, at: usize) -> Self {
        Self { keys: self.keys.split_off(at), values: self.values.split_off(at) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Small chunks, so that few values make many.
    type Small = Sorted<u32, 4>;

    fn check(sorted: &Small, model: &BTreeMap<u64, u32>) -> Result<(), TestCaseError> {
        prop_assert_eq!(sorted.len(), model.len());
        prop_assert!(sorted.iter().eq(model.values()));
        for key in 0..42 {
            prop_assert_eq!(sorted.get(key), model.get(&key));
            prop_assert_eq!(sorted.at_or_below(key), model.range(..=key).next_back().map(|(_, value)| value));
            prop_assert!(sorted.from(key).eq(model.range(key..).map(|(_, value)| value)), "from {key}");
        }
        let sizes: Vec<_> = sorted.chunks.iter().map(|chunk| chunk.keys.len()).collect();
        prop_assert!(sizes.iter().all(|size| (1..=4).contains(size)), "{sizes:?}");
        prop_assert!(sizes.windows(2).all(|pair| pair[0] + pair[1] > 2), "{sizes:?}");
        prop_assert!(sorted.chunks.iter().map(|chunk| chunk.keys[0]).eq(sorted.firsts.iter().copied()));
        Ok(())
    }

    proptest! {
        #[test]
        fn behaves_as_the_map_of_the_standard_library(
            operations in prop::collection::vec((any::<bool>(), 0_u64..40, any::<u32>()), 0..120),
        ) {
            let (mut sorted, mut model) = (Small::new(), BTreeMap::new());
            for (insert, key, value) in operations {
                if insert {
                    sorted.insert(key, value);
                    model.insert(key, value);
                } else {
                    prop_assert_eq!(sorted.remove(key), model.remove(&key));
                }
                check(&sorted, &model)?;
            }
        }
    }

    #[test]
    fn what_is_filled_in_order_and_emptied_from_either_end_leaves_nothing() {
        for from_the_top in [false, true] {
            let mut sorted = Sorted::<u64>::new();
            (0..1_000).for_each(|key| sorted.insert(key, key * 2));
            assert_eq!(sorted.chunks.len(), 15);
            for n in 0..1_000 {
                let key = if from_the_top { 999 - n } else { n };
                assert_eq!(sorted.remove(key), Some(key * 2));
            }
            assert_eq!((sorted.len(), sorted.chunks.len(), sorted.firsts.len()), (0, 0, 0));
        }
    }
}
