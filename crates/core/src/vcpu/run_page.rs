//! The mapped `kvm_run` page, split between the two who use it: the engine, which alone reads and writes it while the
//! vCPU is outside `KVM_RUN`, and kickers, which store one byte at any time.
#![expect(unsafe_code, reason = "access to a page shared with the kernel")]

use std::{
    mem::offset_of,
    ptr::NonNull,
    slice,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;

use crate::{
    error::{Error, Result},
    exit::{EXIT_REASON, READABLE_FROM, RunBytes},
    sys::{coalesced::Ring, mapping::Mapping},
};

/// The part that is read: the page itself and on x86 the page of port data. Behind it lie pages that the kernel
/// changes at any time (coalesced MMIO, dirty ring).
#[cfg(target_arch = "x86_64")]
const READABLE: usize = 2 * 4096;
#[cfg(target_arch = "aarch64")]
const READABLE: usize = 4096;

/// `immediate_exit` lies before this, everything the engine touches behind it.
const TAIL: usize = READABLE_FROM;
const _: () = assert!(offset_of!(kvm_run, immediate_exit) < TAIL);
const _: () = assert!(EXIT_REASON >= TAIL && EXIT_REASON + size_of::<u32>() <= READABLE);

/// An exit reason that no kernel gives.
const NO_REASON: u32 = u32::MAX;
const _: () = assert!(size_of::<kvm_run>() <= 4096);

/// The engine's half.
pub(crate) struct RunPage {
    mapping: Arc<Mapping>,
}

/// The kickers' half: `kvm_run.immediate_exit` (api.rst 5; `KVM_CAP_IMMEDIATE_EXIT`).
#[derive(Clone)]
pub(crate) struct ImmediateExit {
    mapping: Arc<Mapping>,
}

impl RunPage {
    /// Maps the page of `vcpu`; `size` is what `KVM_GET_VCPU_MMAP_SIZE` says.
    pub(crate) fn map(vcpu: &VcpuFd, size: usize) -> Result<(Self, ImmediateExit)> {
        if size < READABLE {
            return Err(Error::InvalidArgument {
                what: "KVM_GET_VCPU_MMAP_SIZE",
                expected: "at least the kvm_run page and its port data",
            });
        }
        let mapping = Arc::new(Mapping::shared(vcpu, size)?);
        Ok((Self { mapping: Arc::clone(&mapping) }, ImmediateExit { mapping }))
    }

    /// The VM's ring of coalesced writes, in page `page` of the mapping.
    pub(crate) fn ring(&self, page: usize) -> Result<Ring> {
        Ring::new(Arc::clone(&self.mapping), page).ok_or(Error::InvalidArgument {
            what: "KVM_CAP_COALESCED_MMIO",
            expected: "a page within KVM_GET_VCPU_MMAP_SIZE",
        })
    }

    /// What the kernel left there.
    pub(crate) fn bytes(&self) -> RunBytes<'_> {
        // SAFETY: the range [TAIL, READABLE) lies in the mapping, which lives as long as `self`.
        let start = unsafe { self.mapping.address().add(TAIL) };
        // SAFETY: nobody writes the range while the slice lives: the kernel does only inside KVM_RUN, and `KVM_RUN`
        // and `write` need the engine mutably; kickers store a byte before TAIL. Pages of the mapping are present:
        // KVM allocates them with the vCPU.
        RunBytes::of_tail(unsafe { slice::from_raw_parts(start.as_ptr(), READABLE - TAIL) })
    }

    /// Stores a reason that no kernel gives, so that one which is found after `KVM_RUN` is that run's.
    pub(crate) fn forget_reason(&mut self) {
        // Asserted above.
        let _fits = self.write(EXIT_REASON, &NO_REASON.to_le_bytes());
    }

    /// Writes an answer; `false`, and nothing written, where it does not fit in the readable part.
    #[must_use]
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) -> bool {
        let fits = at >= TAIL && at.checked_add(bytes.len()).is_some_and(|end| end <= READABLE);
        if fits {
            // SAFETY: `fits` keeps it inside the mapping.
            let target = unsafe { self.mapping.address().add(at) };
            // SAFETY: both are valid for that many bytes, and cannot overlap: `&mut self` ends every slice that
            // `bytes()` gave. The kernel reads there only inside KVM_RUN.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), bytes.len()) };
        }
        fits
    }
}

impl ImmediateExit {
    fn flag(&self) -> &AtomicU8 {
        // SAFETY: the offset lies in the mapping, which lives as long as `self`.
        let byte: NonNull<u8> = unsafe { self.mapping.address().add(offset_of!(kvm_run, immediate_exit)) };
        // SAFETY: a byte is always aligned, it is accessed only through this function, and the kernel reads it
        // with READ_ONCE.
        unsafe { AtomicU8::from_ptr(byte.as_ptr()) }
    }

    /// Makes the next `KVM_RUN` (or, with a signal, the one that is under way) return `EINTR`.
    pub(crate) fn set(&self) {
        self.flag().store(1, Ordering::SeqCst);
    }

    pub(crate) fn clear(&self) {
        self.flag().store(0, Ordering::SeqCst);
    }
}
