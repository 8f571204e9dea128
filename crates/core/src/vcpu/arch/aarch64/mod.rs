//! aarch64: what a VM and a vCPU need before the first run. Registers are `registers`'. Ruled by api.rst 4.82, 4.83.

mod registers;

use kvm_bindings::{KVM_ARM_VCPU_PSCI_0_2, kvm_vcpu_init};
use kvm_ioctls::{VcpuFd, VmFd};
pub use registers::Registers;
pub(crate) use registers::{get as get_registers, update as update_registers};

use crate::{
    error::{Error, Result},
    host::Kvm,
};

/// Makes the vCPU one of the host's own kind, with PSCI 0.2: without that feature a guest's power-off and reset calls
/// bring no exit (Linux 3.15 and later have it).
///
/// # Errors
/// [`Error::Ioctl`]: `KVM_ARM_PREFERRED_TARGET`, `KVM_ARM_VCPU_INIT`.
pub(crate) fn initialise(_kvm: &Kvm, vm: &VmFd, vcpu: &VcpuFd, _id: u32) -> Result<()> {
    let mut init = kvm_vcpu_init::default();
    vm.get_preferred_target(&mut init).map_err(Error::ioctl("KVM_ARM_PREFERRED_TARGET"))?;
    init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
    vcpu.vcpu_init(&init).map_err(Error::ioctl("KVM_ARM_VCPU_INIT"))
}

/// The interrupt controller of this architecture is a device with addresses of its own: a later piece of work.
///
/// # Errors
/// [`Error::InvalidArgument`], always.
pub(crate) fn create_irqchip(_vm: &VmFd) -> Result<()> {
    Err(Error::InvalidArgument { what: "irqchip", expected: "false on aarch64: its GIC is not supported yet" })
}
