//! On which processors a thread may run (`sched_setaffinity(2)`).
#![expect(unsafe_code, reason = "sched_setaffinity, sched_getaffinity")]

use crate::error::{Error, Result};

/// Processors that have a number: as many as the largest kernel is configured for (`CONFIG_NR_CPUS`, 8,192 on `x86_64`,
/// fewer on aarch64). Both calls take a longer set than the kernel's own, and a shorter one is refused when reading.
const CPUS: usize = 8192;

const BITS: usize = u64::BITS as usize;

/// A set of processors, by the kernel's numbers.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CpuSet(Box<[u64; CPUS / BITS]>);

impl CpuSet {
    /// Every processor that any kernel can have.
    pub(crate) fn all() -> Self {
        Self(Box::new([u64::MAX; CPUS / BITS]))
    }

    /// Those with these numbers; numbers that no kernel has are left out.
    pub(crate) fn of(cpus: &[u32]) -> Self {
        let mut set = Self(Box::new([0; CPUS / BITS]));
        for &cpu in cpus {
            if let Some(word) = set.0.get_mut(cpu as usize / BITS) {
                *word |= 1 << (cpu as usize % BITS);
            }
        }
        set
    }

    pub(crate) fn contains(&self, cpu: u32) -> bool {
        self.0.get(cpu as usize / BITS).is_some_and(|word| (word >> (cpu as usize % BITS)) & 1 == 1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        (0..).take(CPUS).filter(|cpu| self.contains(*cpu))
    }

    /// Where the calling thread may run.
    ///
    /// # Errors
    /// [`Error::Os`].
    pub(crate) fn of_this_thread() -> Result<Self> {
        let mut set = Self::of(&[]);
        // SAFETY: writes at most as many bytes as it is told of, which `set` has; 0 is the calling thread.
        match unsafe { libc::sched_getaffinity(0, size_of_val(&*set.0), set.0.as_mut_ptr().cast()) } {
            0 => Ok(set),
            _ => Err(Error::last_os("sched_getaffinity")),
        }
    }

    /// Has the calling thread run here and nowhere else. Of those that it may not use the kernel takes none, without a word.
    ///
    /// # Errors
    /// [`Error::Os`]: `EINVAL` where it may use none of them.
    pub(crate) fn apply(&self) -> Result<()> {
        // SAFETY: reads at most as many bytes as it is told of, which the set has; 0 is the calling thread.
        match unsafe { libc::sched_setaffinity(0, size_of_val(&*self.0), self.0.as_ptr().cast()) } {
            0 => Ok(()),
            _ => Err(Error::last_os("sched_setaffinity")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_set_has_what_was_put_in_and_nothing_else() {
        let set = CpuSet::of(&[0, 63, 64, 8191, 8192, u32::MAX, 64]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 8191]);
        assert!(!set.contains(1) && !set.contains(u32::MAX));
        assert_eq!(CpuSet::all().iter().count(), CPUS);
    }

    #[test]
    fn a_thread_runs_where_it_was_put() {
        thread::spawn(|| {
            let cpu = CpuSet::of_this_thread().unwrap().iter().last().expect("it runs somewhere");
            CpuSet::of(&[cpu]).apply().unwrap();
            assert_eq!(CpuSet::of_this_thread().unwrap().iter().collect::<Vec<_>>(), [cpu]);
            let nowhere = CpuSet::of(&[]).apply();
            assert!(matches!(nowhere, Err(Error::Os { call: "sched_setaffinity", .. })), "{nowhere:?}");
        })
        .join()
        .unwrap();
    }
}
