//! Counts a vCPU's exits, and where it is wanted the time between them. The engine has it.

use std::{sync::Arc, time::Instant};

use super::Tally;
use crate::exit::ExitKind;

pub(crate) struct Clock {
    tally: Arc<Tally>,
    /// When the last `KVM_RUN` returned; none without timing.
    left: Option<Instant>,
    /// The exit that somebody deals with, and since when.
    handling: Option<(ExitKind, Instant)>,
}

impl Clock {
    pub(crate) const fn new(tally: Arc<Tally>) -> Self {
        Self { tally, left: None, handling: None }
    }

    /// Calls `enter`, which is `KVM_RUN`. Without timing, nothing else.
    #[inline]
    pub(crate) fn around<T>(&mut self, enter: impl FnOnce() -> T) -> T {
        if self.tally.is_timed() { self.timed(enter) } else { enter() }
    }

    #[inline(never)]
    fn timed<T>(&mut self, enter: impl FnOnce() -> T) -> T {
        let entered = Instant::now();
        if let Some((kind, since)) = self.handling.take() {
            self.tally.add_handler(kind, entered.saturating_duration_since(since));
        }
        let result = enter();
        let left = Instant::now();
        self.tally.add_guest(left.saturating_duration_since(entered));
        self.left = Some(left);
        result
    }

    /// The last `KVM_RUN` brought an exit.
    #[inline]
    pub(crate) fn exit(&mut self, kind: ExitKind) {
        self.tally.count(kind);
        self.handling = self.left.map(|left| (kind, left));
    }

    /// A run was stopped. Whoever deals with an exit goes on doing so.
    pub(crate) fn stopped(&self) {
        self.tally.count(ExitKind::Intr);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// As long as the clock needs to show it.
    fn a_moment() -> Duration {
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(50) {
            std::hint::spin_loop();
        }
        Duration::from_micros(50)
    }

    #[test]
    fn time_goes_to_the_guest_or_to_the_exit_that_is_dealt_with() {
        let tally = Arc::new(Tally::new(true));
        let mut clock = Clock::new(Arc::clone(&tally));
        let before = Instant::now();
        a_moment(); // before the first entry: nobody's
        let entered = Instant::now();
        let guest = clock.around(a_moment);
        clock.exit(ExitKind::Io);
        let handler = a_moment();
        clock.stopped();
        clock.around(|| ());
        a_moment(); // after an entry without an exit: nobody's
        clock.around(|| ());
        let (whole, counted) = (before.elapsed(), entered.elapsed());
        let read = tally.read();
        let times = read.times().unwrap();
        assert!(times.guest() >= guest && times.handlers(ExitKind::Io) >= handler, "{times:?}");
        let sum = times.guest() + times.all_handlers();
        assert!(sum + a_moment() <= counted && counted < whole, "{sum:?} of {counted:?}");
        assert_eq!(times.all_handlers(), times.handlers(ExitKind::Io));
        assert_eq!(read.iter().collect::<Vec<_>>(), [(ExitKind::Io, 1), (ExitKind::Intr, 1)]);
    }

    #[test]
    fn without_timing_exits_are_counted_and_the_clock_is_not_read() {
        let tally = Arc::new(Tally::new(false));
        let mut clock = Clock::new(Arc::clone(&tally));
        assert_eq!(clock.around(|| 7), 7);
        clock.exit(ExitKind::Mmio);
        assert!(clock.left.is_none() && clock.handling.is_none());
        assert_eq!(tally.read().iter().collect::<Vec<_>>(), [(ExitKind::Mmio, 1)]);
    }
}
