//! Xen's interface to its guests as KVM is told of it (api.rst 4.28); kvm-bindings has the struct for `x86_64` alone.
#![expect(unsafe_code, reason = "a request whose argument has addresses")]

use std::{mem::offset_of, os::fd::AsRawFd};

use super::ioctl::KVM_XEN_HVM_CONFIG;
use crate::error::Result;

/// `KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL`, and so a bit of `KVM_CAP_XEN_HVM`'s value.
pub(crate) const INTERCEPT_HCALL: u32 = 1 << 1;

/// `struct kvm_xen_hvm_config`.
#[repr(C)]
pub(crate) struct RawConfig {
    flags: u32,
    msr: u32,
    blob_addr_32: u64,
    blob_addr_64: u64,
    blob_size_32: u8,
    blob_size_64: u8,
    pad2: [u8; 30],
}

const _: () = assert!(size_of::<RawConfig>() == 56 && offset_of!(RawConfig, blob_size_32) == 24);

/// Makes hypercalls of the VM's guests exits, and `msr` the register by which a guest has KVM write a page of them.
///
/// # Errors
/// [`crate::Error::Ioctl`].
pub(crate) fn intercept_hypercalls(vm: &impl AsRawFd, msr: u32) -> Result<()> {
    let (blob_addr_32, blob_addr_64, blob_size_32, blob_size_64) = (0, 0, 0, 0);
    let config = RawConfig {
        flags: INTERCEPT_HCALL,
        msr,
        blob_addr_32,
        blob_addr_64,
        blob_size_32,
        blob_size_64,
        pad2: [0; 30],
    };
    // SAFETY: KVM copies the struct; the addresses in it are none.
    unsafe { KVM_XEN_HVM_CONFIG.call(vm, &config) }.map(drop)
}
