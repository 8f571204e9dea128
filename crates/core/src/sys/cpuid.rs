//! The CPUID of Hyper-V that KVM can show to guests (api.rst 4.118), which kvm-ioctls lacks.
#![expect(unsafe_code, reason = "a request that the kernel writes an array to")]

use std::os::fd::AsRawFd;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};

use super::ioctl::KVM_GET_SUPPORTED_HV_CPUID;
use crate::error::{Errno, Error, Result};

/// Asks `/dev/kvm`.
///
/// # Errors
/// [`Error::Ioctl`].
pub(crate) fn supported_hyperv_cpuid(kvm: &impl AsRawFd) -> Result<CpuId> {
    let request = KVM_GET_SUPPORTED_HV_CPUID.name();
    let mut cpuid =
        CpuId::new(KVM_MAX_CPUID_ENTRIES).map_err(|_| Error::Ioctl { request, errno: Errno(libc::ENOMEM) })?;
    // SAFETY: `nent` says how many entries there is room for; KVM writes that many at most, and then how many it wrote.
    unsafe { KVM_GET_SUPPORTED_HV_CPUID.call(kvm, cpuid.as_mut_fam_struct_ptr()) }?;
    Ok(cpuid)
}
