//! Notices that the process was forked: a VM belongs to the process whose address space KVM holds.
#![expect(unsafe_code, reason = "pthread_atfork")]

use std::sync::{
    Once,
    atomic::{AtomicU32, Ordering},
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
