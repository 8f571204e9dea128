//! ioctl requests that carry their name, number and argument type, so that no call site can pair the wrong three.
#![expect(unsafe_code, reason = "the one place where an ioctl is issued")]

use std::{
    marker::PhantomData,
    os::fd::{AsRawFd, RawFd},
};

use crate::error::{Errno, Error, Result};

const KVMIO: u64 = 0xae;

/// A request whose argument is a plain integer (`_IO`), and whose errno is an answer to be judged, not an error.
pub(crate) struct Plain {
    number: u64,
}

impl Plain {
    pub(crate) const fn new(nr: u64) -> Self {
        Self { number: (KVMIO << 8) | nr }
    }

    /// Issues the request and gives what it returned, or its errno for the caller to judge.
    pub(crate) fn try_call(&self, fd: &impl AsRawFd, argument: u64) -> std::result::Result<i32, Errno> {
        raw(fd.as_raw_fd(), self.number, argument)
    }
}

/// A request that reads `T` from userspace (`_IOW`, or `_IOWR` where the kernel may write as well).
pub(crate) struct Write<T> {
    name: &'static str,
    number: u64,
    argument: PhantomData<T>,
}

impl<T> Write<T> {
    pub(crate) const fn new(name: &'static str, nr: u64) -> Self {
        Self::with_direction(name, nr, 1)
    }

    /// `_IOWR`, for a request that in truth writes nothing back.
    pub(crate) const fn read_write(name: &'static str, nr: u64) -> Self {
        Self::with_direction(name, nr, 3)
    }

    const fn with_direction(name: &'static str, nr: u64, direction: u64) -> Self {
        let number = (direction << 30) | ((size_of::<T>() as u64) << 16) | (KVMIO << 8) | nr;
        Self { name, number, argument: PhantomData }
    }

    /// The name in the kernel's header.
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// # Safety
    /// What the kernel does on behalf of the values in `argument` (mapping an address into a guest, say) has to be
    /// sound for as long as the kernel does it.
    pub(crate) unsafe fn call(&self, fd: &impl AsRawFd, argument: &T) -> Result<i32> {
        raw(fd.as_raw_fd(), self.number, std::ptr::from_ref(argument) as u64)
            .map_err(|errno| Error::Ioctl { request: self.name, errno })
    }
}

/// A request that the kernel answers by writing (`_IOWR`), to an argument that begins with `T` and may go on behind it.
#[cfg(target_arch = "x86_64")]
pub(crate) struct ReadWrite<T> {
    request: Write<T>,
}

#[cfg(target_arch = "x86_64")]
impl<T> ReadWrite<T> {
    const fn new(name: &'static str, nr: u64) -> Self {
        Self { request: Write::read_write(name, nr) }
    }

    /// The name in the kernel's header.
    pub(crate) const fn name(&self) -> &'static str {
        self.request.name
    }

    /// # Safety
    /// `argument` has to be valid for all that the kernel reads and writes there, which `T` itself may say.
    pub(crate) unsafe fn call(&self, fd: &impl AsRawFd, argument: *mut T) -> Result<i32> {
        let Write { name, number, .. } = self.request;
        raw(fd.as_raw_fd(), number, argument as u64).map_err(|errno| Error::Ioctl { request: name, errno })
    }
}

#[cfg(feature = "test-hooks")]
thread_local! {
    static ISSUED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// How many requests this thread has issued.
#[cfg(feature = "test-hooks")]
pub(crate) fn issued() -> u64 {
    ISSUED.get()
}

fn raw(fd: RawFd, number: u64, argument: u64) -> std::result::Result<i32, Errno> {
    #[cfg(feature = "test-hooks")]
    ISSUED.set(ISSUED.get() + 1);
    // SAFETY: `number` says how large the object behind `argument` is; `Write<T>` derives it from the type that
    // it passes by reference, whoever calls a `ReadWrite<T>` vouches for it, and `Plain` requests take integers only.
    let result = unsafe { libc::ioctl(fd, number as libc::Ioctl, argument) };
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}

/// api.rst 4.10. Argument 0; its errno is part of the exit, see `exit::decode`.
pub(crate) const KVM_RUN: Plain = Plain::new(0x80);
const _: () = assert!(KVM_RUN.number == 0xae80);

/// api.rst 4.4. Not deprecated by anything: the way every feature is probed.
pub(crate) const KVM_CHECK_EXTENSION: Plain = Plain::new(0x03);
const _: () = assert!(KVM_CHECK_EXTENSION.number == 0xae03);

/// api.rst 4.35.
pub(crate) const KVM_SET_USER_MEMORY_REGION: Write<kvm_bindings::kvm_userspace_memory_region> =
    Write::new("KVM_SET_USER_MEMORY_REGION", 0x46);
const _: () = assert!(KVM_SET_USER_MEMORY_REGION.number == 0x4020_ae46);

/// api.rst 4.140. Needs `KVM_CAP_USER_MEMORY2` (Linux 6.8).
pub(crate) const KVM_SET_USER_MEMORY_REGION2: Write<kvm_bindings::kvm_userspace_memory_region2> =
    Write::new("KVM_SET_USER_MEMORY_REGION2", 0x49);
const _: () = assert!(KVM_SET_USER_MEMORY_REGION2.number == 0x40a0_ae49);

/// api.rst 4.143. Needs `KVM_CAP_GUEST_MEMFD` (Linux 6.8); its flags `KVM_CAP_GUEST_MEMFD_FLAGS` (Linux 6.18). Gives a
/// descriptor, which is not close-on-exec.
pub(crate) const KVM_CREATE_GUEST_MEMFD: Write<kvm_bindings::kvm_create_guest_memfd> =
    Write::read_write("KVM_CREATE_GUEST_MEMFD", 0xd4);
const _: () = assert!(KVM_CREATE_GUEST_MEMFD.number == 0xc040_aed4);

/// api.rst 4.59. Needs `KVM_CAP_IOEVENTFD`.
pub(crate) const KVM_IOEVENTFD: Write<kvm_bindings::kvm_ioeventfd> = Write::new("KVM_IOEVENTFD", 0x79);
const _: () = assert!(KVM_IOEVENTFD.number == 0x4040_ae79);

/// api.rst 4.116. Needs `KVM_CAP_COALESCED_MMIO`, for ports `KVM_CAP_COALESCED_PIO` (Linux 4.20).
pub(crate) const KVM_REGISTER_COALESCED_MMIO: Write<kvm_bindings::kvm_coalesced_mmio_zone> =
    Write::new("KVM_REGISTER_COALESCED_MMIO", 0x67);
const _: () = assert!(KVM_REGISTER_COALESCED_MMIO.number == 0x4010_ae67);

/// api.rst 4.116.
pub(crate) const KVM_UNREGISTER_COALESCED_MMIO: Write<kvm_bindings::kvm_coalesced_mmio_zone> =
    Write::new("KVM_UNREGISTER_COALESCED_MMIO", 0x68);
const _: () = assert!(KVM_UNREGISTER_COALESCED_MMIO.number == 0x4010_ae68);

/// api.rst 4.133. Needs `KVM_CAP_BINARY_STATS_FD` (Linux 5.14). Argument 0; gives a descriptor, which is close-on-exec.
pub(crate) const KVM_GET_STATS_FD: Plain = Plain::new(0xce);
const _: () = assert!(KVM_GET_STATS_FD.number == 0xaece);

/// api.rst 4.97. Needs `KVM_CAP_X86_MSR_FILTER` (Linux 5.10).
pub(crate) const KVM_X86_SET_MSR_FILTER: Write<super::msr_filter::RawFilter> =
    Write::new("KVM_X86_SET_MSR_FILTER", 0xc6);
const _: () = assert!(KVM_X86_SET_MSR_FILTER.number == 0x4188_aec6);

/// api.rst 4.118, on `/dev/kvm`. Needs `KVM_CAP_SYS_HYPERV_CPUID` (Linux 5.11).
#[cfg(target_arch = "x86_64")]
pub(crate) const KVM_GET_SUPPORTED_HV_CPUID: ReadWrite<kvm_bindings::kvm_cpuid2> =
    ReadWrite::new("KVM_GET_SUPPORTED_HV_CPUID", 0xc1);
#[cfg(target_arch = "x86_64")]
const _: () = assert!(KVM_GET_SUPPORTED_HV_CPUID.request.number == 0xc008_aec1);

/// api.rst 4.28. Needs `KVM_CAP_XEN_HVM`.
pub(crate) const KVM_XEN_HVM_CONFIG: Write<super::xen::RawConfig> = Write::new("KVM_XEN_HVM_CONFIG", 0x7a);
const _: () = assert!(KVM_XEN_HVM_CONFIG.number == 0x4038_ae7a);
