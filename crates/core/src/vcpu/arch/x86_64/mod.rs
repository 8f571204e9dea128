//! `x86_64`: what a VM and a vCPU need before the first run. Registers are `registers`', where a guest starts is
//! `boot`'s. Ruled by api.rst 4.24, 4.36, 4.40, 4.46, 4.71, 6.77 and, for CPUID, by the Intel SDM, volume 2, "CPUID".

mod boot;
mod registers;
mod tables;

pub(crate) use boot::boot;
use kvm_bindings::{CpuId, KVM_PIT_SPEAKER_DUMMY, kvm_cpuid_entry2, kvm_enable_cap, kvm_pit_config};
use kvm_ioctls::{VcpuFd, VmFd};
pub use registers::{DescriptorTable, Registers, Segment};
pub(crate) use registers::{get as get_registers, update as update_registers};

use crate::{
    error::{Errno, Error, Result},
    host::{Capabilities, Capability, CpuidEntry, Kvm, check_cpuid},
    range::{GpaRange, PAGE_SIZE},
    vcpu::{Choice, VcpuFeatures, boot::HostTables},
};

/// One page of page tables that Intel processors without "unrestricted guest" need for real mode. Just below the 16 MiB
/// under 4 GiB that [`crate::loader::load_firmware`] leaves to firmware: KVM makes slots of its own of this page and of
/// the next, and refuses overlaps. (KVM's own default, `0xfffb_c000`, lies in the middle of a larger firmware.)
const IDENTITY_MAP: u64 = 0xfeff_c000;

/// Three pages of task state segment that the same processors need, right behind it.
const TSS: usize = 0xfeff_d000;

/// What a vCPU keeps from boot to boot.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    tables: HostTables,
}

/// KVM's default type.
pub(crate) const fn vm_type(_kvm: &Kvm) -> u64 {
    0
}

/// Bits of a VM's guest physical addresses as far as they are known beforehand: KVM knows whether it translates them
/// itself, or the processor does, which may have fewer.
pub(crate) const fn address_bits(_kvm: &Kvm) -> u32 {
    52
}

/// What a vCPU is made as, checked.
#[derive(Debug)]
pub(crate) struct Model {
    /// None: what KVM supports.
    cpuid: Option<Vec<CpuidEntry>>,
    synic: bool,
}

/// Refuses what a vCPU of this VM cannot be. On this architecture CPUID says what it has.
///
/// # Errors
/// [`Error::InvalidArgument`], [`Error::Element`], [`Error::CapabilityMissing`].
pub(crate) fn check_model(choice: Choice, _first: Option<VcpuFeatures>, capabilities: &Capabilities) -> Result<Model> {
    let Choice { features, cpuid, synic } = choice;
    if features.is_some() {
        return Err(Error::InvalidArgument { what: "features", expected: "absent on x86_64: aarch64 has them" });
    }
    if let Some(entries) = &cpuid {
        check_cpuid(entries)?;
    }
    if synic {
        capabilities.require(Capability::HypervSynic2, "the vCPU option hyperv.synic")?;
    }
    Ok(Model { cpuid, synic })
}

/// Gives a new vCPU its CPUID, with its own APIC id, and what else its model has.
///
/// # Errors
/// [`Error::Ioctl`]: `KVM_GET_SUPPORTED_CPUID`, `KVM_ENABLE_CAP`, `KVM_SET_CPUID2` (refused after the vCPU's first run; `E2BIG`
/// for more than 80 entries on Linux 5.10).
pub(crate) fn initialise(
    kvm: &Kvm,
    _vm: &VmFd,
    vcpu: &VcpuFd,
    id: u32,
    model: Model,
    _first: &mut Option<VcpuFeatures>,
) -> Result<Setup> {
    let Model { cpuid, synic } = model;
    let entries = match &cpuid {
        Some(entries) => entries,
        None => kvm.cpuid()?,
    };
    let mut entries: Vec<kvm_cpuid_entry2> = entries.iter().map(Into::into).collect();
    set_apic_id(&mut entries, id);
    let (request, errno) = ("KVM_SET_CPUID2", Errno(libc::E2BIG));
    let cpuid = CpuId::from_entries(&entries).map_err(|_| Error::Ioctl { request, errno })?;
    if synic {
        // The version that leaves the guest's pages as they are.
        let enable = kvm_enable_cap { cap: Capability::HypervSynic2.number(), ..Default::default() };
        vcpu.enable_cap(&enable).map_err(Error::ioctl("KVM_ENABLE_CAP"))?;
    }
    vcpu.set_cpuid2(&cpuid).map_err(Error::ioctl(request))?;
    Ok(Setup::default())
}

/// Interrupt controllers in the kernel (PICs, I/O APIC, a local APIC for each vCPU), the timer that drives their line
/// 0, and the pages that older Intel processors need. Before the first vCPU.
///
/// The timer (PIT) belongs to it: firmware that halts until the next tick never wakes without.
///
/// # Errors
/// [`Error::Ioctl`]: `KVM_SET_IDENTITY_MAP_ADDR`, `KVM_SET_TSS_ADDR`, `KVM_CREATE_IRQCHIP` (`EEXIST`, or `EINVAL` once
/// there is a vCPU), `KVM_CREATE_PIT2`.
pub(crate) fn create_irqchip(vm: &VmFd) -> Result<()> {
    vm.set_identity_map_address(IDENTITY_MAP).map_err(Error::ioctl("KVM_SET_IDENTITY_MAP_ADDR"))?;
    vm.set_tss_address(TSS).map_err(Error::ioctl("KVM_SET_TSS_ADDR"))?;
    vm.create_irq_chip().map_err(Error::ioctl("KVM_CREATE_IRQCHIP"))?;
    // The dummy speaker makes the kernel answer port 0x61, by which guests watch the timer's channel 2 (api.rst 4.71).
    let timer = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    vm.create_pit2(timer).map_err(Error::ioctl("KVM_CREATE_PIT2"))
}

/// What KVM takes of the guest's addresses where [`create_irqchip`] was called: the identity map and the TSS. By api.rst 4.36
/// and 4.40 no slot may lie there; KVM itself refuses one only on the processors that need the pages.
pub(crate) fn irqchip_pages() -> Option<GpaRange> {
    GpaRange::pages(IDENTITY_MAP, 4 * PAGE_SIZE).ok()
}

/// The supported CPUID carries the APIC id of the host's processor that happened to answer, and so does what a program makes
/// of it; KVM's own local APIC has the vCPU's. Guests compare the two.
fn set_apic_id(entries: &mut [kvm_cpuid_entry2], id: u32) {
    let [initial, ..] = id.to_le_bytes();
    for entry in entries {
        match entry.function {
            // Bits 31-24: the initial APIC id, the low 8 bits of the whole one.
            0x1 => entry.ebx = (entry.ebx & 0x00ff_ffff) | (u32::from(initial) << 24),
            // Topology, in every subleaf: the x2APIC id.
            0xb | 0x1f => entry.edx = id,
            // AMD's extended APIC id (AMD APM, volume 3, appendix E).
            0x8000_001e => entry.eax = id,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, eax: !0, ebx: !0, ecx: !0, edx: !0, ..Default::default() }
    }

    #[test]
    fn only_the_apic_id_of_a_vcpu_differs_from_the_host_cpuid() {
        let mut entries = [0x0, 0x1, 0xb, 0x1f, 0x8000_001e].map(entry);
        set_apic_id(&mut entries, 0x0123_4567);
        let mut expected = [0x0, 0x1, 0xb, 0x1f, 0x8000_001e].map(entry);
        expected[1].ebx = 0x67ff_ffff;
        expected[2].edx = 0x0123_4567;
        expected[3].edx = 0x0123_4567;
        expected[4].eax = 0x0123_4567;
        assert_eq!(entries, expected);
    }

    #[test]
    fn the_pages_for_older_processors_end_where_the_largest_firmware_starts() {
        assert_eq!(IDENTITY_MAP + 0x1000, TSS as u64);
        assert_eq!(TSS as u64 + 0x3000, (1 << 32) - crate::loader::FIRMWARE_LIMIT);
    }
}
