//! The thread that looks into the ring while guests run: one that spins without an exit leaves its writes there, and the
//! kernel tells nobody. Asleep, for good, where no vCPU runs or KVM gathers for no claim.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use crate::{
    error::{Errno, Error, Result},
    sys::signal::KickSignal,
};

/// Between two looks, where the last one found something. As long as the readers' own.
const LOOK: Duration = Duration::from_millis(1);

/// Looks in vain before the next wait is twice as long.
const PATIENCE: u32 = 16;

/// How often it doubles: to 8 ms, by which a write that comes after a long silence is late at most.
const DOUBLINGS: u32 = 3;

/// How many vCPUs run and for how many claims KVM gathers, and whether somebody has to be told when either becomes more than
/// none. Any thread's; the thread's own part is below.
#[derive(Default)]
pub(super) struct Activity {
    runs: AtomicUsize,
    zones: AtomicUsize,
    asleep: AtomicBool,
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Activity {
    /// A vCPU begins to run; [`Activity::end`] has to follow.
    pub(super) fn begin(&self) {
        self.runs.fetch_add(1, Ordering::SeqCst);
        self.rouse();
    }

    /// It has stopped.
    pub(super) fn end(&self) {
        self.runs.fetch_sub(1, Ordering::SeqCst);
    }

    /// KVM gathers for one claim more; [`Activity::end_zone`] has to follow.
    pub(super) fn begin_zone(&self) {
        self.zones.fetch_add(1, Ordering::SeqCst);
        self.rouse();
    }

    /// For one less.
    pub(super) fn end_zone(&self) {
        self.zones.fetch_sub(1, Ordering::SeqCst);
    }

    fn rouse(&self) {
        // Partner: `sleep`. In the total order of these either this load sees `asleep`, or those in `is_idle` there see what
        // was added; and of a run and a zone that begin at once the later sees both.
        if self.asleep.load(Ordering::SeqCst) && !self.is_idle() {
            let _ended = self.ended();
            // Awake it stays for a while, however short the run: the next ones need not wake it.
            self.asleep.store(false, Ordering::SeqCst);
            self.changed.notify_all();
        }
    }

    fn is_idle(&self) -> bool {
        self.runs.load(Ordering::SeqCst) == 0 || self.zones.load(Ordering::SeqCst) == 0
    }

    /// Tells the thread to end.
    pub(super) fn finish(&self) {
        *self.ended() = true;
        self.changed.notify_all();
    }

    fn ended(&self) -> MutexGuard<'_, bool> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until there is somebody to look for; `false` where the thread is to end.
    fn sleep(&self) -> bool {
        let mut ended = self.ended();
        self.asleep.store(true, Ordering::SeqCst);
        if !self.is_idle() {
            self.asleep.store(false, Ordering::SeqCst);
        }
        while self.asleep.load(Ordering::SeqCst) && !*ended {
            ended = self.changed.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
        !*ended
    }

    /// Waits that long; `false` where the thread is to end.
    fn wait(&self, time: Duration) -> bool {
        let ended = self.ended();
        // A wake-up too many is a look too many.
        !*self.changed.wait_timeout_while(ended, time, |ended| !*ended).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// How long to wait for the next look. Pure.
#[derive(Default)]
struct Pace {
    in_vain: u32,
}

impl Pace {
    /// After a look; none: until there is somebody to look for.
    fn next(&mut self, found: bool, idle: bool) -> Option<Duration> {
        self.in_vain = if found { 0 } else { self.in_vain.saturating_add(1) };
        let doubled = self.in_vain / PATIENCE;
        // Not at once: of a vCPU that runs from exit to exit every other look finds it between two runs.
        if idle && doubled > 0 {
            self.in_vain = 0;
            return None;
        }
        Some(LOOK * (1 << doubled.min(DOUBLINGS)))
    }
}

/// The thread. It ends when this is dropped.
pub(super) struct Drainer {
    activity: Arc<Activity>,
    thread: Option<JoinHandle<()>>,
}

impl Drainer {
    /// Starts it. `look` gives whether it found something.
    ///
    /// # Errors
    /// [`Error::Os`] where no thread can be had.
    pub(super) fn spawn(activity: Arc<Activity>, look: impl Fn() -> bool + Send + 'static) -> Result<Self> {
        let watched = Arc::clone(&activity);
        let spawn = || Builder::new().name("kvm-drain".into()).spawn(move || watch(&watched, look));
        let thread = KickSignal::with_all_blocked(spawn)
            .map_err(|error| Error::Os { call: "pthread_create", errno: Errno::from(error) })?;
        Ok(Self { activity, thread: Some(thread) })
    }
}

impl Drop for Drainer {
    fn drop(&mut self) {
        self.activity.finish();
        // The thread may be the last that has the bus, and cannot wait for itself; nor does one wait for another.
        let thread = self.thread.take().filter(|_| !is_drainer_thread());
        if let Some(thread) = thread {
            // Its body catches panics: there is no result to look at.
            let _ended = thread.join();
        }
    }
}

thread_local! {
    static IS_DRAINER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is such a thread, of whichever bus: who closes may wait for the reader that it wakes.
pub(crate) fn is_drainer_thread() -> bool {
    IS_DRAINER.get()
}

fn watch(activity: &Activity, look: impl Fn() -> bool) {
    IS_DRAINER.set(true);
    let mut pace = Pace::default();
    let mut next = None;
    while next.map_or_else(|| activity.sleep(), |time| activity.wait(time)) {
        // A panic is a reader's, in the function by which it is woken: the other readers must not suffer.
        let found = catch_unwind(AssertUnwindSafe(&look)).unwrap_or(false);
        next = pace.next(found, activity.is_idle());
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::channel, time::Instant};

    use super::*;

    #[test]
    fn looks_come_every_millisecond_then_rarer_and_stop_where_nothing_runs() {
        let mut pace = Pace::default();
        let running = |pace: &mut Pace| pace.next(false, false).unwrap().as_millis();
        let waits: Vec<_> = (0..80).map(|_| running(&mut pace)).collect();
        assert_eq!((waits[0], waits[14], waits[15], waits[31], waits[47], waits[79]), (1, 1, 2, 4, 8, 8));
        assert_eq!(pace.next(true, false), Some(LOOK));
        assert_eq!(pace.next(false, true), Some(LOOK), "between two runs");
        let until_asleep = (0..100).take_while(|_| pace.next(false, true).is_some()).count();
        assert_eq!(until_asleep, 14);
    }

    #[test]
    fn the_thread_looks_while_a_vcpu_runs_and_ends_when_told() {
        let activity = Arc::new(Activity::default());
        activity.begin_zone();
        let (looked, looks) = channel();
        let drainer = Drainer::spawn(Arc::clone(&activity), move || looked.send(()).is_ok()).unwrap();
        activity.begin();
        for _ in 0..3 {
            looks.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        activity.end();
        drop(drainer);
        looks.iter().for_each(drop); // ends: the thread let go of its sender
    }

    #[test]
    fn a_run_that_begins_wakes_the_thread_however_often() {
        let activity = Arc::new(Activity::default());
        activity.begin_zone();
        let (looked, looks) = channel();
        let _drainer = Drainer::spawn(Arc::clone(&activity), move || {
            looked.send(()).unwrap();
            false
        })
        .unwrap();
        for _ in 0..3 {
            activity.begin();
            looks.recv_timeout(Duration::from_secs(60)).unwrap();
            activity.end();
            // Until it sleeps, which it says nowhere but here.
            while !activity.asleep.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            looks.try_iter().for_each(drop);
        }
    }

    #[test]
    fn the_thread_sleeps_under_a_run_while_kvm_gathers_for_nobody() {
        let activity = Arc::new(Activity::default());
        let (looked, looks) = channel();
        let _drainer = Drainer::spawn(Arc::clone(&activity), move || {
            looked.send(()).unwrap();
            false
        })
        .unwrap();
        activity.begin();
        for _ in 0..3 {
            activity.begin_zone();
            looks.recv_timeout(Duration::from_secs(60)).unwrap();
            activity.end_zone();
            let began = Instant::now();
            while !activity.asleep.load(Ordering::SeqCst) {
                assert!(began.elapsed() < Duration::from_secs(60), "it looks on");
                std::thread::yield_now();
            }
            looks.try_iter().for_each(drop);
        }
    }
}
