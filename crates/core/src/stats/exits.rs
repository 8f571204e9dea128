//! The exits of a vCPU by kind: counted by whoever drives it, read by anybody.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::exit::ExitKind;

const KINDS: usize = ExitKind::ALL.len();

/// Counters of a vCPU. One thread at a time adds to them, the one that has the engine, which it has from the last one by a
/// lock: so adding is a load and a store. They say nothing of other memory, hence `Relaxed`.
#[derive(Debug)]
pub(crate) struct Tally {
    exits: [AtomicU64; KINDS],
    times: Option<Times>,
}

/// In nanoseconds: enough for 584 years.
#[derive(Debug)]
struct Times {
    guest: AtomicU64,
    handlers: [AtomicU64; KINDS],
}

impl Tally {
    pub(crate) fn new(timing: bool) -> Self {
        let zeros = || array::from_fn(|_| AtomicU64::new(0));
        let times = timing.then(|| Times { guest: AtomicU64::new(0), handlers: zeros() });
        Self { exits: zeros(), times }
    }

    pub(super) const fn is_timed(&self) -> bool {
        self.times.is_some()
    }

    /// An exit of that kind.
    #[inline]
    pub(super) fn count(&self, kind: ExitKind) {
        add(self.exits.get(kind as usize), 1);
    }

    pub(super) fn add_guest(&self, time: Duration) {
        add(self.times.as_ref().map(|times| &times.guest), nanoseconds(time));
    }

    pub(super) fn add_handler(&self, kind: ExitKind, time: Duration) {
        add(self.times.as_ref().and_then(|times| times.handlers.get(kind as usize)), nanoseconds(time));
    }

    /// What has been counted by now.
    pub(crate) fn read(&self) -> ExitStats {
        let read = |counters: &[AtomicU64; KINDS]| counters.each_ref().map(|counter| counter.load(Ordering::Relaxed));
        let times = self
            .times
            .as_ref()
            .map(|times| ExitTimes { guest: times.guest.load(Ordering::Relaxed), handlers: read(&times.handlers) });
        ExitStats { exits: read(&self.exits), times }
    }
}

#[inline]
fn add(counter: Option<&AtomicU64>, more: u64) {
    if let Some(counter) = counter {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How many exits of each kind there were, and with [`crate::VmOptions::timing`] what they took.
///
/// An exit counts when `KVM_RUN` brings it, whoever deals with it then: a device in Rust, a claim, the program. What KVM
/// does by itself (ioeventfd, gathered writes, its own devices) is none. [`ExitKind::Intr`] counts runs that were stopped, by
/// a kick, a cancellation or a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitStats {
    exits: [u64; KINDS],
    times: Option<ExitTimes>,
}

/// Where the time went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitTimes {
    guest: u64,
    handlers: [u64; KINDS],
}

impl ExitStats {
    /// None counted yet.
    pub(crate) fn none(timing: bool) -> Self {
        Tally::new(timing).read()
    }

    /// The exits of a kind.
    #[must_use]
    pub fn count(&self, kind: ExitKind) -> u64 {
        self.exits.get(kind as usize).copied().unwrap_or(0)
    }

    /// The kinds of which there were any, and how many.
    pub fn iter(&self) -> impl Iterator<Item = (ExitKind, u64)> + '_ {
        ExitKind::ALL.iter().map(|kind| (*kind, self.count(*kind))).filter(|(_, count)| *count > 0)
    }

    /// What they took; none without [`crate::VmOptions::timing`].
    #[must_use]
    pub const fn times(&self) -> Option<&ExitTimes> {
        self.times.as_ref()
    }

    /// Those of another vCPU besides.
    pub(crate) fn add(&mut self, other: &Self) {
        sum(&mut self.exits, &other.exits);
        if let (Some(times), Some(more)) = (&mut self.times, &other.times) {
            times.guest = times.guest.saturating_add(more.guest);
            sum(&mut times.handlers, &more.handlers);
        }
    }
}

fn sum(totals: &mut [u64; KINDS], more: &[u64; KINDS]) {
    totals.iter_mut().zip(more).for_each(|(total, more)| *total = total.saturating_add(*more));
}

impl ExitTimes {
    /// In `KVM_RUN`: in the guest, and in KVM on its behalf. An entry adds its time when it ends.
    #[must_use]
    pub const fn guest(&self) -> Duration {
        Duration::from_nanos(self.guest)
    }

    /// From exits of a kind to the entries that followed, whoever dealt with them; what a program does between two runs is
    /// part of dealing with the first one's exit. Waits for a change of the memory are, too.
    #[must_use]
    pub fn handlers(&self, kind: ExitKind) -> Duration {
        Duration::from_nanos(self.handlers.get(kind as usize).copied().unwrap_or(0))
    }

    /// The same of all kinds.
    #[must_use]
    pub fn all_handlers(&self) -> Duration {
        Duration::from_nanos(self.handlers.iter().fold(0, |sum: u64, time| sum.saturating_add(*time)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_apart() {
        let tally = Tally::new(false);
        for (index, kind) in ExitKind::ALL.iter().enumerate() {
            (0..=index).for_each(|_| tally.count(*kind));
        }
        let counted: Vec<_> = tally.read().iter().collect();
        let expected: Vec<_> = ExitKind::ALL.iter().copied().zip(1..).collect();
        assert_eq!(counted, expected);
        assert_eq!(tally.read().times(), None);
    }

    #[test]
    fn what_did_not_happen_is_not_listed() {
        let tally = Tally::new(false);
        tally.count(ExitKind::Hlt);
        assert_eq!(tally.read().iter().collect::<Vec<_>>(), [(ExitKind::Hlt, 1)]);
        assert_eq!(tally.read().count(ExitKind::Io), 0);
    }

    #[test]
    fn times_are_kept_where_they_are_wanted() {
        let (with, without) = (Tally::new(true), Tally::new(false));
        for tally in [&with, &without] {
            tally.add_guest(Duration::from_nanos(5));
            tally.add_handler(ExitKind::Io, Duration::from_micros(2));
            tally.add_handler(ExitKind::Hlt, Duration::from_micros(3));
        }
        assert_eq!(without.read().times(), None);
        let read = with.read();
        let times = read.times().unwrap();
        assert_eq!(times.guest(), Duration::from_nanos(5));
        assert_eq!(times.handlers(ExitKind::Io), Duration::from_micros(2));
        assert_eq!(times.handlers(ExitKind::Mmio), Duration::ZERO);
        assert_eq!(times.all_handlers(), Duration::from_micros(5));
    }

    #[test]
    fn a_vm_has_the_sum_of_its_vcpus() {
        let (one, two) = (Tally::new(true), Tally::new(true));
        one.count(ExitKind::Io);
        two.count(ExitKind::Io);
        two.count(ExitKind::Mmio);
        two.add_guest(Duration::from_secs(1));
        one.add_handler(ExitKind::Io, Duration::from_secs(2));
        two.add_handler(ExitKind::Io, Duration::from_secs(3));
        let mut total = ExitStats::none(true);
        total.add(&one.read());
        total.add(&two.read());
        assert_eq!(total.iter().collect::<Vec<_>>(), [(ExitKind::Io, 2), (ExitKind::Mmio, 1)]);
        let times = total.times().unwrap();
        assert_eq!((times.guest(), times.handlers(ExitKind::Io)), (Duration::from_secs(1), Duration::from_secs(5)));
    }
}
