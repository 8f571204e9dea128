//! Where a guest starts: EL1 with MMU and caches on. The bytes of its tables are `tables`', their slot is
//! `vcpu::boot`'s. Why it is as it is: docs/design/boot.md. Ruled by api.rst 4.82 and 4.39.

use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_mp_state};
use kvm_ioctls::VcpuFd;

use super::{
    Setup,
    registers::{Registers, update},
    tables::{self, System},
};
use crate::{
    error::{Error, Result},
    memory::GuestMemory,
    range::{GpaRange, PAGE_SIZE},
    vcpu::{
        VcpuFeature,
        boot::{Again, Boot, BootMode, BootOptions, Privilege, TABLES_SIZE},
    },
};

/// Puts `vcpu` where a guest starts: as new (`KVM_ARM_VCPU_INIT` resets every register, floating point and debug ones
/// too), with its tables, and runnable.
///
/// # Errors
/// [`Error::InvalidArgument`], [`Error::Unaligned`]: nothing has changed. [`Error::SlotOverlap`], [`Error::SlotLimit`]:
/// no place for the tables. [`Error::Ioctl`].
pub(crate) fn boot(vcpu: &VcpuFd, memory: &GuestMemory, setup: &mut Setup, options: &BootOptions) -> Result<Boot> {
    check(options, setup)?;
    let exceptions = GpaRange::pages(tables::exceptions(setup.bits), PAGE_SIZE)?;
    if let Some(old) = slots(memory)?.into_iter().find(|slot| slot.overlaps(exceptions)) {
        return Err(Error::SlotOverlap { new: exceptions, old });
    }
    // The slot is made anew where it stays: KVM then drops what processors have cached of the old tables.
    let place = setup.tables.place(memory, options.tables, Again::Renew)?;
    memory.write(place.gpa(), &tables::build(place, &slots(memory)?, setup.bits))?;
    vcpu.vcpu_init(&setup.init).map_err(Error::ioctl("KVM_ARM_VCPU_INIT"))?;
    let system = System::new(place, setup.bits, setup.features.has(VcpuFeature::Sve));
    update(vcpu, |registers| {
        *registers = start(options, system, registers);
        Ok(())
    })?;
    if setup.features.has(VcpuFeature::PowerOff) {
        vcpu.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE })
            .map_err(Error::ioctl("KVM_SET_MP_STATE"))?;
    }
    Ok(Boot { tables: Some(place), exceptions: Some(exceptions) })
}

fn slots(memory: &GuestMemory) -> Result<Vec<GpaRange>> {
    Ok(memory.slots()?.into_iter().map(|slot| slot.range).collect())
}

fn check(options: &BootOptions, setup: &Setup) -> Result<()> {
    let BootOptions { mode, privilege, entry, stack, tables } = *options;
    let refuse = |what, expected| Err(Error::InvalidArgument { what, expected });
    let end = 1 << setup.bits;
    if mode != BootMode::El1 {
        return refuse("mode", "el1 on aarch64");
    }
    if setup.features.has(VcpuFeature::El132bit) {
        return refuse("mode", "left out for a vCPU with the feature 'el1-32bit': el1 is 64-bit code");
    }
    if privilege == Privilege::User {
        return refuse("privilege", "kernel at el1, which has no other");
    }
    if entry >= end {
        return refuse("entry", "an address that this VM has (arm-vm-ipa-size, at most 40 bits)");
    }
    if stack.is_some_and(|stack| stack > end) {
        return refuse("stack", "at most the end of this VM's addresses (arm-vm-ipa-size, at most 40 bits)");
    }
    if tables.is_some_and(|gpa| gpa > tables::exceptions(setup.bits) - TABLES_SIZE) {
        return refuse(
            "tables",
            "128 KiB below the last page of this VM's addresses (arm-vm-ipa-size, at most 40 bits)",
        );
    }
    let aligned = [("entry", Some(entry), 4), ("stack", stack, 16), ("tables", tables, PAGE_SIZE)];
    for (what, value, alignment) in aligned {
        if let Some(value) = value.filter(|value| !value.is_multiple_of(alignment)) {
            return Err(Error::Unaligned { what, value, alignment });
        }
    }
    Ok(())
}

/// The registers a guest starts with. Those not named are as `reset` has them.
fn start(options: &BootOptions, system: System, reset: &Registers) -> Registers {
    Registers {
        pc: options.entry,
        sp_el1: options.stack.unwrap_or(0),
        pstate: tables::EL1H_MASKED,
        mair_el1: system.mair,
        tcr_el1: system.tcr,
        ttbr0_el1: system.ttbr0,
        vbar_el1: system.vbar,
        cpacr_el1: system.cpacr,
        sctlr_el1: system.sctlr,
        ..*reset
    }
}
