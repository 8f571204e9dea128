//! Requests, structs and mappings that kvm-ioctls and kvm-bindings lack, and the only raw system calls.
//! Knows no other room; what it offers is safe to call, or says in `# Safety` what the caller owes.

pub(crate) mod affinity;
pub(crate) mod coalesced;
#[cfg(target_arch = "x86_64")]
pub(crate) mod cpuid;
pub(crate) mod fork;
pub(crate) mod hugepages;
pub(crate) mod ioctl;
pub(crate) mod ioeventfd;
mod lending;
pub(crate) mod limits;
pub(crate) mod mapping;
pub(crate) mod memfd;
pub(crate) mod msr_filter;
pub(crate) mod remote;
pub(crate) mod signal;
pub(crate) mod stats;
pub(crate) mod userfault;
pub(crate) mod xen;
