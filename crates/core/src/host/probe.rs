//! What a kernel answers: the capabilities of `/dev/kvm` or of one VM, asked by `KVM_CHECK_EXTENSION` (api.rst 4.4).
//! The VM's answer is the one that counts: `/dev/kvm` answers for the best VM it could make.

use std::os::fd::AsRawFd;

use super::Capability;
use crate::{
    error::{Error, Result},
    sys::ioctl::KVM_CHECK_EXTENSION,
};

/// A capability with the value that a kernel gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapabilityValue {
    /// Name in kebab-case.
    pub name: &'static str,
    /// Number in the kernel's header.
    pub number: u32,
    /// What the kernel returned; 0: not there.
    pub value: i32,
    /// What the value means, in one line.
    pub meaning: &'static str,
    /// First kernel release that has it.
    pub since: &'static str,
}

/// The answers of `/dev/kvm` or of a VM to every capability of the table, taken at one moment; needs no fd any more.
#[derive(Debug, Clone)]
pub struct Capabilities {
    values: Box<[i32]>,
}

impl Capabilities {
    /// Asks the VM behind `vm` for every capability; those in `hide` read 0. About 250 ioctls, 40 µs: a single
    /// question is [`Kvm::vm_capability`](super::Kvm::vm_capability)'s.
    #[must_use]
    pub fn probe_vm(vm: &kvm_ioctls::VmFd, hide: &[Capability]) -> Self {
        Self::probe(vm, hide)
    }

    /// A VM that can do nothing.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { values: vec![0; Capability::ALL.len()].into() }
    }

    /// A VM that can do this and nothing else.
    #[cfg(test)]
    pub(crate) fn only(known: &[(Capability, i32)]) -> Self {
        let value = |capability| known.iter().find(|(name, _)| *name == capability).map_or(0, |(_, value)| *value);
        Self { values: Capability::ALL.iter().map(|&capability| value(capability)).collect() }
    }

    /// Asks any fd that knows `KVM_CHECK_EXTENSION`.
    pub(super) fn probe(fd: &impl AsRawFd, hide: &[Capability]) -> Self {
        Self { values: Capability::ALL.iter().map(|&capability| ask(fd, capability, hide)).collect() }
    }

    /// Whether the capability is there, whatever its value.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.value(capability) != 0
    }

    /// What the kernel returned, 0 where the capability is missing, hidden or refused.
    #[must_use]
    pub fn value(&self, capability: Capability) -> i32 {
        self.values.get(capability.index()).copied().unwrap_or(0)
    }

    /// The value, where there is one.
    ///
    /// # Errors
    /// [`Error::CapabilityMissing`], which names `needed_by` and the first kernel that has the capability.
    pub fn require(&self, capability: Capability, needed_by: &'static str) -> Result<i32> {
        require(self.value(capability), capability, needed_by)
    }

    /// Every capability, by number.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = CapabilityValue> {
        Capability::ALL.iter().map(|&capability| CapabilityValue {
            name: capability.name(),
            number: capability.number(),
            value: self.value(capability),
            meaning: capability.meaning(),
            since: capability.since(),
        })
    }
}

/// Asks `fd` (of `/dev/kvm` or of a VM) for one capability; one in `hide` reads 0, and so does one that the kernel
/// refuses to answer for (some of aarch64 have no answer on `/dev/kvm`).
pub(crate) fn ask(fd: &impl AsRawFd, capability: Capability, hide: &[Capability]) -> i32 {
    if hide.contains(&capability) {
        return 0;
    }
    KVM_CHECK_EXTENSION.try_call(fd, u64::from(capability.number())).unwrap_or(0)
}

/// `value` of `capability`, or the error for a missing one.
pub(crate) fn require(value: i32, capability: Capability, needed_by: &'static str) -> Result<i32> {
    if value == 0 {
        return Err(Error::CapabilityMissing { capability: capability.name(), needed_by, since: capability.since() });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_value_and_iter_agree() {
        let capabilities = Capabilities::only(&[(Capability::NrMemslots, 509)]);
        assert!(capabilities.has(Capability::NrMemslots) && !capabilities.has(Capability::GuestMemfd));
        assert_eq!(capabilities.value(Capability::NrMemslots), 509);
        let there: Vec<_> = capabilities.iter().filter(|entry| entry.value != 0).collect();
        assert_eq!(there.len(), 1);
        assert_eq!((there[0].name, there[0].number, there[0].value), ("nr-memslots", 10, 509));
        assert_eq!(capabilities.iter().len(), Capability::ALL.len());
    }

    #[test]
    fn require_names_capability_need_and_kernel() {
        let capabilities = Capabilities::only(&[(Capability::NrMemslots, 509)]);
        assert_eq!(capabilities.require(Capability::NrMemslots, "a test").unwrap(), 509);
        let error = capabilities.require(Capability::PreFaultMemory, "prefault()").unwrap_err();
        assert_eq!(
            error.to_string(),
            "prefault() needs the KVM capability pre-fault-memory, not offered here; Linux 6.11 has it, processor permitting"
        );
        assert_eq!(error.code().as_str(), "ERR_CAPABILITY_MISSING");
    }

    #[test]
    fn a_refused_question_reads_zero() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(ask(&null, Capability::NrMemslots, &[]), 0);
    }
}
