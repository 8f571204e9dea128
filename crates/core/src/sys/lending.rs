//! Memory that somebody else owns and that no fork may carry over while a guest has it: `MADV_DONTFORK` when it is lent,
//! `MADV_DOFORK` when it comes back. The same memory may be lent more than once (two VMs on one `SharedArrayBuffer`),
//! and the kernel counts nothing: what is lent is listed here.

use std::{
    ops::Range,
    ptr::NonNull,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::mapping::{Advice, advise};
use crate::error::Result;

/// Every range that is lent, in bytes; one that is lent twice is there twice.
static LENT: Mutex<Vec<Range<usize>>> = Mutex::new(Vec::new());

/// Memory that is lent until this value is dropped.
#[derive(Debug)]
pub(super) struct Lending {
    address: NonNull<u8>,
    size: usize,
}

impl Lending {
    /// `size` bytes of whole pages at `address`, which stay mapped meanwhile.
    pub(super) fn of(address: NonNull<u8>, size: usize) -> Result<Self> {
        let mut lent = lent();
        advise(address, size, Advice::DontFork)?;
        let lending = Self { address, size };
        lent.push(lending.range());
        Ok(lending)
    }

    fn range(&self) -> Range<usize> {
        let start = self.address.addr().get();
        start..start.saturating_add(self.size)
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        let mut lent = lent();
        let range = self.range();
        if let Some(index) = lent.iter().position(|other| *other == range) {
            lent.swap_remove(index);
        }
        for part in only_in(&range, &lent) {
            // The owner keeps it mapped until we are done, so what is left to fail is a mapping too many
            // (vm.max_map_count). Its children then go without the buffer: the parent and its guests do not notice.
            let address = self.address.map_addr(|start| start.saturating_add(part.start - range.start));
            let _stays_here = advise(address, part.len(), Advice::DoFork);
        }
    }
}

fn lent() -> MutexGuard<'static, Vec<Range<usize>>> {
    LENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The parts of `range` that none of `others` has.
fn only_in(range: &Range<usize>, others: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut others: Vec<_> =
        others.iter().filter(|other| other.start < range.end && range.start < other.end).cloned().collect();
    others.sort_by_key(|other| other.start);
    let mut parts = Vec::new();
    let mut next = range.start;
    for other in others {
        if next < other.start {
            parts.push(next..other.start);
        }
        next = next.max(other.end);
    }
    if next < range.end {
        parts.push(next..range.end);
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_given_back_is_what_nobody_else_has(
            start in 0_usize..20,
            size in 1_usize..20,
            others in prop::collection::vec((0_usize..30, 1_usize..10), 0..5),
        ) {
            let others: Vec<_> = others.into_iter().map(|(start, size)| start..start + size).collect();
            let parts = only_in(&(start..start + size), &others);
            let expected: Vec<_> =
                (start..start + size).filter(|at| !others.iter().any(|other| other.contains(at))).collect();
            prop_assert_eq!(parts.into_iter().flatten().collect::<Vec<_>>(), expected);
        }
    }
}
