//! What becomes an exit that KVM would deal with by itself, and what the guest does without any: chosen when a VM is made,
//! before its first vCPU. Two halves: a plan is checked against the VM's capabilities, and is pure; then KVM is told. What
//! the exits carry is `exit`'s. Ruled by api.rst 4.28, 4.97, 7.13, 7.21, 7.22, 7.27, 7.33, 7.40 and section 5 (`arm_nisv`).

mod msr;
mod names;
#[cfg(test)]
mod tests;

use kvm_bindings::{
    KVM_BUS_LOCK_DETECTION_EXIT, KVM_X86_NOTIFY_VMEXIT_ENABLED, KVM_X86_NOTIFY_VMEXIT_USER, kvm_enable_cap,
};
use kvm_ioctls::VmFd;
pub use msr::{MsrAccess, MsrExits, MsrFilter, MsrRange};
pub use names::{DisabledExit, ExitingHypercall};

use crate::{
    error::{Error, Result},
    host::{Capabilities, Capability},
    sys::{msr_filter::set_msr_filter, xen},
};

/// Which exits a VM has beyond those of every VM; the default is none. Each needs a capability of the VM.
///
/// ```no_run
/// use typevisor::{Kvm, Vm, VmOptions, switches::{ExitSwitches, MsrExits, MsrFilter, MsrRange}};
/// // Every access to the time-stamp counter's register, and to those that KVM does not know, is an exit.
/// let filter = Some(MsrFilter { ranges: vec![MsrRange::denied(0x10, 1)], deny_others: false });
/// let exits = ExitSwitches { msr: Some(MsrExits { filter, ..Default::default() }), ..Default::default() };
/// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions { exits, ..Default::default() })?;
/// # Ok::<(), typevisor::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExitSwitches {
    /// Accesses to model-specific registers that KVM refuses are [`Exit::Rdmsr`] and [`Exit::Wrmsr`], and no fault of the
    /// guest's: `KVM_CAP_X86_USER_SPACE_MSR` (Linux 5.10, x86). api.rst 7.21.
    ///
    /// [`Exit::Rdmsr`]: crate::Exit::Rdmsr
    /// [`Exit::Wrmsr`]: crate::Exit::Wrmsr
    pub msr: Option<MsrExits>,
    /// Hypercalls that are [`Exit::Hypercall`](crate::Exit::Hypercall), and fail with `ENOSYS` otherwise:
    /// `KVM_CAP_EXIT_HYPERCALL` (Linux 5.14, x86). The guest calls from kernel mode. api.rst 7.40.
    pub hypercalls: Vec<ExitingHypercall>,
    /// An instruction in user mode that KVM cannot emulate is [`Exit::InternalError`](crate::Exit::InternalError) with its
    /// bytes, as it is in kernel mode anyway, and no `#UD` of the guest's: `KVM_CAP_EXIT_ON_EMULATION_FAILURE` (Linux
    /// 5.14, x86). api.rst 7.27.
    pub emulation_failure: bool,
    /// What the guest does alone, without leaving to the host: `KVM_CAP_X86_DISABLE_EXITS` (x86), whose value says what can be
    /// chosen. For vCPUs with a processor of their own, as they keep it from others. api.rst 7.13.
    pub disable: Vec<DisabledExit>,
    /// A guest that locks the bus is [`Exit::BusLock`](crate::Exit::BusLock): `KVM_CAP_X86_BUS_LOCK_EXIT` (Linux 5.12, x86,
    /// of processors that tell). On Intel the instruction is done, on AMD it is to come. api.rst 7.22.
    pub bus_lock: bool,
    /// A guest that keeps all events out for longer than this window is [`Exit::Notify`](crate::Exit::Notify):
    /// `KVM_CAP_X86_NOTIFY_VMEXIT` (Linux 6.0, Intel). In ticks of the processor's crystal clock, which adds a threshold of
    /// its own: 0 is fine. api.rst 7.33.
    pub notify: Option<u32>,
    /// Hypercalls of Xen's are [`Exit::Xen`](crate::Exit::Xen) with [`XenExit::Hcall`](crate::exit::XenExit::Hcall): all of them,
    /// KVM's own with them, but for a few that KVM answers once it is set up for Xen's events. `KVM_CAP_XEN_HVM` with the bit
    /// `KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL` (Linux 5.12, x86). The number is that of the model-specific register by which a
    /// guest has its page of hypercalls written, 0x40000000 to 0x4fffffff: guests find it in the CPUID leaf 0x40000002,
    /// most often as 0x40000000. api.rst 4.28.
    pub xen: Option<u32>,
    /// An access to an address without memory by an instruction that the processor does not describe is
    /// [`Exit::ArmNisv`](crate::Exit::ArmNisv), and no [`Exit::RunFailed`](crate::Exit::RunFailed):
    /// `KVM_CAP_ARM_NISV_TO_USER` (Linux 5.5, aarch64). api.rst section 5.
    pub nisv: bool,
}

/// Switches that a VM has: what KVM is told, in order.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// Each with its argument.
    capabilities: Vec<(Capability, u64)>,
    filter: Option<msr::Checked>,
    xen: Option<u32>,
}

impl ExitSwitches {
    /// Checks the switches against each other and against what the VM can do.
    ///
    /// # Errors
    /// [`Error::CapabilityMissing`], [`Error::CapabilityPart`], [`Error::InvalidArgument`], [`Error::Element`].
    pub(crate) fn plan(&self, vm: &Capabilities) -> Result<Plan> {
        let mut plan = Plan::default();
        if let Some(msr) = &self.msr {
            msr.plan(vm, &mut plan)?;
        }
        plan.enable(vm, &self.hypercalls)?;
        plan.enable(vm, &self.disable)?;
        if self.emulation_failure {
            vm.require(Capability::ExitOnEmulationFailure, "the VM option exits.emulationFailure")?;
            plan.capabilities.push((Capability::ExitOnEmulationFailure, 1));
        }
        if self.bus_lock {
            plan.enable(vm, &[BusLockExit])?;
        }
        if let Some(window) = self.notify {
            vm.require(Capability::X86NotifyVmexit, "the VM option exits.notify")?;
            let flags = KVM_X86_NOTIFY_VMEXIT_ENABLED | KVM_X86_NOTIFY_VMEXIT_USER;
            plan.capabilities.push((Capability::X86NotifyVmexit, u64::from(window) << 32 | u64::from(flags)));
        }
        if let Some(msr) = self.xen {
            Plan::part(vm, XenHypercalls)?;
            if !XEN_MSRS.contains(&msr) {
                let expected = "a register from 0x40000000 to 0x4fffffff";
                return Err(Error::InvalidArgument { what: "exits.xen.msr", expected });
            }
            plan.xen = Some(msr);
        }
        if self.nisv {
            vm.require(Capability::ArmNisvToUser, "the VM option exits.nisv")?;
            plan.capabilities.push((Capability::ArmNisvToUser, 0));
        }
        Ok(plan)
    }
}

/// A bit of a capability's value: what can be had, and is asked for by the same bit.
trait Part: Copy {
    const CAPABILITY: Capability;

    fn bit(self) -> u32;

    fn needed_by(self) -> &'static str;

    /// First kernel that has it.
    fn since(self) -> &'static str {
        Self::CAPABILITY.since()
    }
}

#[derive(Clone, Copy)]
struct BusLockExit;

impl Part for BusLockExit {
    const CAPABILITY: Capability = Capability::X86BusLockExit;

    fn bit(self) -> u32 {
        KVM_BUS_LOCK_DETECTION_EXIT
    }

    fn needed_by(self) -> &'static str {
        "the VM option exits.busLock"
    }
}

/// Registers for Xen's guests: `KVM_XEN_MSR_MIN_INDEX` to `KVM_XEN_MSR_MAX_INDEX`. Older kernels take others and then confuse
/// them with those of the processor.
const XEN_MSRS: std::ops::RangeInclusive<u32> = 0x4000_0000..=0x4fff_ffff;

#[derive(Clone, Copy)]
struct XenHypercalls;

impl Part for XenHypercalls {
    const CAPABILITY: Capability = Capability::XenHvm;

    fn bit(self) -> u32 {
        xen::INTERCEPT_HCALL
    }

    fn needed_by(self) -> &'static str {
        "the VM option exits.xen"
    }

    fn since(self) -> &'static str {
        "5.12"
    }
}

impl Plan {
    /// Whether the VM has that part; its bit.
    fn part<T: Part>(vm: &Capabilities, part: T) -> Result<u64> {
        let value = vm.require(T::CAPABILITY, part.needed_by())?;
        if value.cast_unsigned() & part.bit() == 0 {
            let (capability, needed_by, since) = (T::CAPABILITY.name(), part.needed_by(), part.since());
            return Err(Error::CapabilityPart { capability, needed_by, value, since });
        }
        Ok(u64::from(part.bit()))
    }

    /// All of `parts`, if there are any.
    fn enable<T: Part>(&mut self, vm: &Capabilities, parts: &[T]) -> Result<()> {
        let mut argument = 0;
        for part in parts {
            argument |= Self::part(vm, *part)?;
        }
        if argument != 0 {
            self.capabilities.push((T::CAPABILITY, argument));
        }
        Ok(())
    }

    /// Tells KVM. Some switches it takes before the first vCPU only.
    ///
    /// # Errors
    /// [`Error::Ioctl`]: `KVM_ENABLE_CAP`, `KVM_X86_SET_MSR_FILTER`, `KVM_XEN_HVM_CONFIG`.
    pub(crate) fn apply(&self, vm: &VmFd) -> Result<()> {
        for &(capability, argument) in &self.capabilities {
            let enable = kvm_enable_cap { cap: capability.number(), args: [argument, 0, 0, 0], ..Default::default() };
            vm.enable_cap(&enable).map_err(Error::ioctl("KVM_ENABLE_CAP"))?;
        }
        if let Some(filter) = &self.filter {
            set_msr_filter(vm, &filter.ranges, filter.deny_others)?;
        }
        self.xen.map_or(Ok(()), |msr| xen::intercept_hypercalls(vm, msr))
    }
}
