//! What a VM and its vCPUs have cost.

use super::{State, Vm, VmShared};
use crate::{
    error::{Error, Result},
    host::Capability,
    stats::{ExitStats, KvmStats, MISSING, Source, Stats},
};

impl Vm {
    /// KVM's own statistics of this VM (api.rst 4.133); those of its vCPUs are [`crate::Vcpu::kvm_stats`]. Waits for no vCPU.
    ///
    /// # Errors
    /// [`Error::CapabilityMissing`] without `KVM_CAP_BINARY_STATS_FD` (Linux 5.14), [`Error::Limit`] where no descriptor is
    /// left for the first who asks, [`Error::Closed`], [`Error::Forked`].
    pub fn kvm_stats(&self) -> Result<KvmStats> {
        self.shared.kvm_stats()
    }

    /// The exits so far of all its vCPUs, closed ones too, by kind; also while they run.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub fn exit_stats(&self) -> Result<ExitStats> {
        self.shared.exit_stats()
    }

    /// Both: what there is of KVM's, and the exits.
    ///
    /// # Errors
    /// Those of [`Vm::kvm_stats`] but the missing capability.
    pub fn stats(&self) -> Result<Stats> {
        Ok(Stats { kvm: Stats::if_any(self.kvm_stats())?, exits: self.exit_stats()? })
    }
}

impl VmShared {
    fn kvm_stats(&self) -> Result<KvmStats> {
        let mut state = self.state()?;
        let State { fd: Some(fd), source, .. } = &mut *state else { return Err(Error::Closed { what: "VM" }) };
        if !self.capabilities.has(Capability::BinaryStatsFd) {
            return Err(MISSING);
        }
        match source {
            Some(source) => source.read(),
            None => source.insert(Source::open(&**fd, fd)?).read(),
        }
    }

    fn exit_stats(&self) -> Result<ExitStats> {
        let state = self.state()?;
        if state.fd.is_none() {
            return Err(Error::Closed { what: "VM" });
        }
        let mut total = ExitStats::none(self.timing);
        state.vcpus.values().flatten().for_each(|vcpu| total.add(&vcpu.exit_stats()));
        Ok(total)
    }
}
