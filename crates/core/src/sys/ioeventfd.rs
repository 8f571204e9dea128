//! Eventfds that KVM signals when the guest writes somewhere, without leaving it: `KVM_IOEVENTFD`, api.rst 4.59.
#![expect(unsafe_code, reason = "the request names a descriptor")]

use std::os::fd::{AsRawFd, RawFd};

use kvm_bindings::{
    kvm_ioeventfd, kvm_ioeventfd_flag_nr_datamatch, kvm_ioeventfd_flag_nr_deassign, kvm_ioeventfd_flag_nr_pio,
};

use super::ioctl::KVM_IOEVENTFD;
use crate::error::Result;

const DATAMATCH: u32 = 1 << kvm_ioeventfd_flag_nr_datamatch;
const PIO: u32 = 1 << kvm_ioeventfd_flag_nr_pio;
const DEASSIGN: u32 = 1 << kvm_ioeventfd_flag_nr_deassign;

/// Which writes signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal {
    /// Port number or guest physical address: writes that begin there.
    pub(crate) address: u64,
    /// Bytes written: 1, 2, 4, 8. Not 0, for any (`KVM_CAP_IOEVENTFD_ANY_LENGTH`): KVM does not always find that.
    pub(crate) length: u32,
    /// A port, and no MMIO.
    pub(crate) port: bool,
    /// Only this value, where there is one; not with length 8.
    pub(crate) value: Option<u64>,
}

impl Signal {
    fn argument(self, fd: RawFd, flags: u32) -> kvm_ioeventfd {
        let port = if self.port { PIO } else { 0 };
        let one_value = if self.value.is_some() { DATAMATCH } else { 0 };
        kvm_ioeventfd {
            datamatch: self.value.unwrap_or(0),
            addr: self.address,
            len: self.length,
            fd,
            flags: port | one_value | flags,
            ..Default::default()
        }
    }

    /// From here on these writes signal `eventfd` and are no exits. The kernel keeps the eventfd by itself.
    ///
    /// # Errors
    /// [`crate::Error::Ioctl`]: `ENOSPC` where the kernel's bus is full, `EEXIST` where such a write signals already.
    pub(crate) fn assign(self, vm: &impl AsRawFd, eventfd: RawFd) -> Result<()> {
        // SAFETY: the kernel copies the argument, which names no memory of ours; a wrong fd is `EBADF` or `EINVAL`.
        unsafe { KVM_IOEVENTFD.call(vm, &self.argument(eventfd, 0)) }.map(drop)
    }

    /// Ends that.
    ///
    /// # Errors
    /// [`crate::Error::Ioctl`]: `EIO` in a process that did not create the VM, `ENOENT` where it was not assigned.
    pub(crate) fn deassign(self, vm: &impl AsRawFd, eventfd: RawFd) -> Result<()> {
        // SAFETY: as above.
        unsafe { KVM_IOEVENTFD.call(vm, &self.argument(eventfd, DEASSIGN)) }.map(drop)
    }
}
