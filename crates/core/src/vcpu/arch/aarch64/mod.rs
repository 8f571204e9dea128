//! aarch64: what a VM and a vCPU need before the first run. Registers are `registers`', where a guest starts is `boot`'s.
//! Ruled by api.rst 4.2, 4.82, 4.83, 4.119, and by devices/vcpu.rst for the performance monitor.

mod boot;
mod registers;
mod tables;

pub(crate) use boot::boot;
use kvm_bindings::{
    KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_INIT, KVM_ARM_VCPU_SVE, kvm_device_attr, kvm_vcpu_init,
};
use kvm_ioctls::{VcpuFd, VmFd};
pub use registers::Registers;
pub(crate) use registers::{get as get_registers, update as update_registers};

use crate::{
    error::{Error, Result},
    host::{Capabilities, Capability, Kvm},
    range::GpaRange,
    vcpu::{Choice, VcpuFeature, VcpuFeatures, boot::HostTables},
};

/// What a vCPU was made with, for booting it anew.
#[derive(Debug)]
pub(crate) struct Setup {
    tables: HostTables,
    init: kvm_vcpu_init,
    features: VcpuFeatures,
    /// Bits of the VM's guest physical addresses.
    bits: u32,
}

/// Widest guest physical addresses of a VM, in bits: those of KVM's default type. The tables' layout depends on it.
const MAX_BITS: u32 = 40;

/// Narrowest that KVM makes (api.rst 4.2).
const MIN_BITS: u32 = 32;

/// KVM's default type, 0, is a VM of 40 bits; a processor that has fewer refuses it (api.rst 4.2).
pub(crate) fn vm_type(kvm: &Kvm) -> u64 {
    match address_bits(kvm) {
        MAX_BITS => 0,
        bits => u64::from(bits),
    }
}

/// Bits of the guest physical addresses of the VMs that [`vm_type`] makes.
pub(crate) fn address_bits(kvm: &Kvm) -> u32 {
    // 0: a kernel that has no other than 40.
    let widest = u32::try_from(kvm.capability(Capability::ArmVmIpaSize)).unwrap_or(0);
    if widest == 0 { MAX_BITS } else { widest.clamp(MIN_BITS, MAX_BITS) }
}

/// What a vCPU is made as, checked: its features.
pub(crate) type Model = VcpuFeatures;

/// The features to make a vCPU with, given those of the VM's first one. Refuses what this VM cannot give.
///
/// # Errors
/// [`Error::CapabilityMissing`], [`Error::InvalidArgument`].
pub(crate) fn check_model(choice: Choice, first: Option<VcpuFeatures>, capabilities: &Capabilities) -> Result<Model> {
    let Choice { features, cpuid, synic } = choice;
    if cpuid.is_some() {
        return Err(Error::InvalidArgument { what: "cpuid", expected: "absent on aarch64: x86_64 has it" });
    }
    if synic {
        return Err(Error::InvalidArgument { what: "hyperv.synic", expected: "false on aarch64: x86_64 has it" });
    }
    let features = VcpuFeatures::choose(features, first)?;
    features.require(capabilities).map(|()| features)
}

/// Makes the vCPU one of the host's own kind with those features, and finishes what they need before the first run. As
/// soon as KVM has taken them, they are `first` of the VM.
///
/// # Errors
/// [`Error::Ioctl`]: `KVM_ARM_PREFERRED_TARGET`, `KVM_ARM_VCPU_INIT`, `KVM_ARM_VCPU_FINALIZE`, `KVM_SET_DEVICE_ATTR`.
pub(crate) fn initialise(
    kvm: &Kvm,
    vm: &VmFd,
    vcpu: &VcpuFd,
    _id: u32,
    features: Model,
    first: &mut Option<VcpuFeatures>,
) -> Result<Setup> {
    let mut init = kvm_vcpu_init::default();
    vm.get_preferred_target(&mut init).map_err(Error::ioctl("KVM_ARM_PREFERRED_TARGET"))?;
    init.features[0] |= features.bits();
    vcpu.vcpu_init(&init).map_err(Error::ioctl("KVM_ARM_VCPU_INIT"))?;
    *first = Some(features.of_the_vm());
    if features.has(VcpuFeature::Sve) {
        // With the lengths that KVM has chosen; until then neither a run nor a register is to be had.
        let sve = KVM_ARM_VCPU_SVE.cast_signed();
        vcpu.vcpu_finalize(&sve).map_err(Error::ioctl("KVM_ARM_VCPU_FINALIZE"))?;
    }
    if features.has(VcpuFeature::PmuV3) {
        // Without an interrupt controller in the kernel it has no interrupt to be told.
        let initialise = kvm_device_attr {
            group: KVM_ARM_VCPU_PMU_V3_CTRL,
            attr: u64::from(KVM_ARM_VCPU_PMU_V3_INIT),
            ..Default::default()
        };
        vcpu.set_device_attr(&initialise).map_err(Error::ioctl("KVM_SET_DEVICE_ATTR"))?;
    }
    Ok(Setup { tables: HostTables::default(), init, features, bits: address_bits(kvm) })
}

/// No address is KVM's own here.
pub(crate) const fn irqchip_pages() -> Option<GpaRange> {
    None
}

/// The interrupt controller of this architecture is a device with addresses of its own: a later piece of work.
///
/// # Errors
/// [`Error::InvalidArgument`], always.
pub(crate) fn create_irqchip(_vm: &VmFd) -> Result<()> {
    Err(Error::InvalidArgument { what: "irqchip", expected: "false on aarch64: its GIC is not supported yet" })
}
