//! What the protocol of runs, kicks and holds is made of: `vcpu/control.rs` and `vcpu/hold.rs` take it from here alone. The
//! model in `tests/loom` puts its own in this place and runs those two files, as they are, through every interleaving.

pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard},
    thread::{self, Thread},
};

/// How long a broken rule keeps its window open, for tests on real KVM to meet it (scripts/lib/broken.mjs).
pub(crate) const WINDOW: std::time::Duration = std::time::Duration::from_micros(50);

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
}
