//! Memory that somebody else owns and that no fork may carry over while a guest has it: `MADV_DONTFORK` when it is lent,
//! `MADV_DOFORK` when it comes back. The same memory may be lent more than once (two VMs on one `SharedArrayBuffer`),
//! and the kernel counts nothing: what is lent is listed here.
#![expect(unsafe_code, reason = "a list that a forked child leaves behind, lock and all")]

use std::{
    ops::Range,
    ptr::NonNull,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicPtr,
            Ordering::{AcqRel, Acquire},
        },
    },
};

use super::{
    fork,
    mapping::{Advice, advise},
};
use crate::error::Result;

/// What one process has lent.
struct List {
    /// [`fork::generation`] of that process.
    generation: u32,
    /// Every range that is lent, in bytes; one that is lent twice is there twice.
    ranges: Mutex<Vec<Range<usize>>>,
}

/// The newest list, never freed. A forked child begins one of its own: it has nothing of what its parent lent, and the
/// lock of the parent's list may be held by a thread that is not there.
static LENT: AtomicPtr<List> = AtomicPtr::new(std::ptr::null_mut());

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
    list().ranges.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The list of this process.
fn list() -> &'static List {
    let generation = fork::generation();
    let mut newest = LENT.load(Acquire); // its partner is the exchange below
    loop {
        // SAFETY: null, or a list that was published whole and is never freed.
        if let Some(list) = unsafe { newest.as_ref() }.filter(|list| list.generation == generation) {
            return list;
        }
        let own = Box::into_raw(Box::new(List { generation, ranges: Mutex::default() }));
        newest = match LENT.compare_exchange(newest, own, AcqRel, Acquire) {
            Ok(_) => own,
            Err(other) => {
                // SAFETY: it came from a box just now, and nobody else has seen it.
                drop(unsafe { Box::from_raw(own) });
                other
            }
        };
    }
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
    use crate::sys::mapping::{Mapping, Source};

    /// What the parent lent is not there in the child, and who held the lock is not either.
    #[test]
    fn a_forked_child_lends_for_itself() {
        let lends = || {
            let memory = Mapping::of(Source::Anonymous, 4096)?;
            let lending = Lending::of(memory.address(), 4096)?;
            let listed = lent().clone();
            drop(lending);
            Result::Ok((listed.len(), lent().len()))
        };
        let memory = Mapping::of(Source::Anonymous, 4096).unwrap();
        let lending = Lending::of(memory.address(), 4096).unwrap();
        let held = lent();
        // SAFETY: the child has its own list, allocates (which the C library sees to after a fork), and leaves by `_exit`;
        // a lock that it waited for in vain would end it by the alarm.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: takes an integer; no handler is set.
            unsafe { libc::alarm(20) };
            let alone = matches!(lends(), Ok((1, 0)));
            // SAFETY: takes an integer; runs no destructor and no handler of the parent's.
            unsafe { libc::_exit(if alone { 7 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: `status` lives through the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 7));
        assert!(held.contains(&lending.range()), "the parent's is as it was");
        drop(held);
    }

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
