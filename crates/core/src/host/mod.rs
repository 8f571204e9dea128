//! What this machine can do, and why not: opening `/dev/kvm`, the capability table and its probing, `doctor`.
//! Leaves to others: whatever needs a VM of its own, and every ioctl but the questions (`sys/` issues them).

mod capability;
mod capability_table;
mod checks;
mod cpuid;
mod doctor;
mod kvm;
mod machine;
mod probe;
mod unavailable;

pub use capability::Capability;
pub use cpuid::CpuidEntry;
#[cfg(target_arch = "x86_64")]
pub(crate) use cpuid::check_cpuid;
pub use doctor::{Check, DoctorReport, Facts, Status, doctor};
pub use kvm::{Kvm, KvmOptions};
pub use machine::{DeviceNode, Machine, Virtualization};
pub use probe::{Capabilities, CapabilityValue};
pub(crate) use probe::{ask, require};
pub use unavailable::{Cause, Unavailable};

/// The sizes of huge pages that this machine has for [`Backing::Hugetlb`](crate::memory::Backing::Hugetlb) (bytes,
/// smallest first), of which some may be reserved or none; empty in a kernel without hugetlb.
///
/// ```
/// assert!(typevisor::host::huge_page_sizes().iter().all(|size| size.is_power_of_two()));
/// ```
#[must_use]
pub fn huge_page_sizes() -> Vec<u64> {
    crate::sys::hugepages::sizes()
}
