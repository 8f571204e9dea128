//! Small devices in Rust: a latch and an eventfd.

use std::{
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{Device, Written, kernel::Wanted, word};
use crate::error::{Errno, Error, Result};

/// Holds the last value written, whatever the offset, and reads as it.
#[derive(Default)]
pub struct Latch {
    value: Arc<AtomicU64>,
}

impl Latch {
    /// A latch that holds 0, and the way to see it from outside.
    #[must_use]
    pub fn new() -> (Self, Arc<AtomicU64>) {
        let value = Arc::default();
        (Self { value: Arc::clone(&value) }, value)
    }
}

impl Device for Latch {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        let bytes = self.value.load(Ordering::Relaxed).to_le_bytes();
        data.iter_mut().zip(bytes).for_each(|(target, byte)| *target = byte);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Written {
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(data).for_each(|(target, byte)| *target = *byte);
        self.value.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        Written::Done
    }
}

/// Adds 1 to an eventfd with each write; reads as zeros. As [`super::Owner::Doorbell`], rung by KVM itself where it can.
pub struct Doorbell {
    fd: Arc<EventFd>,
    value: Option<u64>,
}

impl Doorbell {
    /// A doorbell and its eventfd, non-blocking and close-on-exec.
    ///
    /// # Errors
    /// [`Error::Limit`] where no descriptor is left.
    pub fn new() -> Result<(Self, Arc<EventFd>)> {
        Self::with(None)
    }

    /// The same, rung by writes of one value alone, 1 to 8 bytes long; others go nowhere.
    ///
    /// # Errors
    /// Those of [`Doorbell::new`].
    pub fn rung_by(value: u64) -> Result<(Self, Arc<EventFd>)> {
        Self::with(Some(value))
    }

    fn with(value: Option<u64>) -> Result<(Self, Arc<EventFd>)> {
        let fd = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)
            .map_err(|error| Error::creation("eventfd2", Errno::from(error)))?;
        let fd = Arc::new(fd);
        Ok((Self { fd: Arc::clone(&fd), value }, fd))
    }

    /// The number of its fd.
    #[must_use]
    pub fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(super) fn wanted(&self) -> Wanted {
        Wanted::Signalling(Arc::clone(&self.fd), self.value)
    }
}

impl Device for Doorbell {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Written {
        if self.value.is_none_or(|value| value == word(data)) {
            // EAGAIN: it counts 2^64 - 2 rings already, and stays readable.
            let _saturated = self.fd.write(1);
        }
        Written::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latch_reads_as_it_was_written() {
        let (mut latch, value) = Latch::new();
        latch.write(3, &[0x34, 0x12]);
        assert_eq!(value.load(Ordering::Relaxed), 0x1234);
        let mut data = [0xff; 4];
        latch.read(0, &mut data);
        assert_eq!(data, [0x34, 0x12, 0, 0]);
    }

    #[test]
    fn a_doorbell_counts_its_rings() {
        let (mut doorbell, fd) = Doorbell::new().unwrap();
        (0..3).for_each(|_| drop(doorbell.write(0, &[1])));
        assert_eq!(fd.read().unwrap(), 3);
        assert!(fd.read().is_err(), "non-blocking");
    }

    #[test]
    fn a_doorbell_with_a_value_is_rung_by_no_other() {
        let (mut doorbell, fd) = Doorbell::rung_by(0x0102).unwrap();
        for data in [&[2, 1][..], &[2], &[2, 1, 0, 0], &[2, 1, 1], &[2, 1, 0, 0, 0, 0, 0, 1]] {
            doorbell.write(0, data);
        }
        assert_eq!(fd.read().unwrap(), 2);
    }
}
