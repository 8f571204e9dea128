//! What only tests look at. Not in a release build: the feature `test-hooks` brings it.

/// How many ioctls this room's own requests have issued on the calling thread: those that set slots, `KVM_RUN`, and what
/// else kvm-ioctls lacks. A test that something is refused before the kernel is asked compares two answers.
///
/// ```
/// let before = typevisor::hooks::ioctls();
/// assert_eq!(typevisor::hooks::ioctls(), before);
/// ```
#[must_use]
pub fn ioctls() -> u64 {
    crate::sys::ioctl::issued()
}
