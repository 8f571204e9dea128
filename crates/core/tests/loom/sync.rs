//! loom's in the place of the core's.

pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};

/// A thread's handle. loom's own `unpark` also wakes who waits for a lock; here nobody parks, so there is nobody to wake.
pub(crate) struct Thread;

impl Thread {
    #[expect(clippy::unused_self, reason = "as the real one is called")]
    pub(crate) const fn unpark(&self) {}
}

/// No window needs to be kept open.
pub(crate) const WINDOW: () = ();

pub(crate) mod thread {
    pub(crate) use loom::thread::{JoinHandle, spawn};

    pub(crate) const fn sleep(_window: ()) {}

    pub(crate) const fn current() -> super::Thread {
        super::Thread
    }
}

/// Sequentially consistent, which loom's own loads and stores are not, whatever they are told: there a load may give an old
/// value. A read-modify-write gives the newest, and there is an order of all of them, so each access here is one.
pub(crate) mod atomic {
    use Ordering::{AcqRel, SeqCst};
    pub(crate) use std::sync::atomic::Ordering;

    /// What is weaker would need another proof than the one of the protocol, and another model.
    fn sequential(order: Ordering) {
        assert_eq!(order, SeqCst, "the protocol is built on one order of all its accesses");
    }

    pub(crate) struct AtomicU32(loom::sync::atomic::AtomicU32);

    impl AtomicU32 {
        pub(crate) fn new(value: u32) -> Self {
            Self(loom::sync::atomic::AtomicU32::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u32 {
            self.fetch_or(0, order)
        }

        pub(crate) fn fetch_or(&self, value: u32, order: Ordering) -> u32 {
            sequential(order);
            self.0.fetch_or(value, AcqRel)
        }

        pub(crate) fn fetch_and(&self, value: u32, order: Ordering) -> u32 {
            sequential(order);
            self.0.fetch_and(value, AcqRel)
        }
    }

    pub(crate) struct AtomicBool(loom::sync::atomic::AtomicBool);

    impl AtomicBool {
        pub(crate) fn new(value: bool) -> Self {
            Self(loom::sync::atomic::AtomicBool::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> bool {
            sequential(order);
            self.0.fetch_or(false, AcqRel)
        }

        pub(crate) fn store(&self, value: bool, order: Ordering) {
            sequential(order);
            self.0.swap(value, AcqRel);
        }
    }
}
