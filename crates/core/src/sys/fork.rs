//! Notices that the process was forked: a VM belongs to the process whose address space KVM holds.
#![expect(unsafe_code, reason = "pthread_atfork, and values that a child must not drop")]

use std::{
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

static GENERATION: AtomicU32 = AtomicU32::new(0);
static REGISTER: Once = Once::new();

/// A number that differs between a process and its forked children, one atomic load after the first call.
pub(crate) fn generation() -> u32 {
    REGISTER.call_once(|| {
        // SAFETY: the handler touches one static atomic, which is async-signal-safe, and the library is linked
        // `nodelete`, so its code outlives every fork. The one failure, ENOMEM, leaves forks unnoticed, and KVM
        // itself then answers EIO to the child.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    GENERATION.load(Ordering::Relaxed)
}

unsafe extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// A value that is dropped only in the process that made it: in a forked child its mapping is not there to be unmapped,
/// and something else may be in its place.
pub(crate) struct NotInherited<T> {
    value: ManuallyDrop<T>,
    generation: u32,
}

impl<T> NotInherited<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(value), generation: generation() }
    }
}

impl<T> Deref for NotInherited<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for NotInherited<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for NotInherited<T> {
    fn drop(&mut self) {
        if self.generation == generation() {
            // SAFETY: dropped here and nowhere else, and not used again.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}
