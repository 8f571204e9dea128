//! The registers of an aarch64 vCPU, by `KVM_GET_ONE_REG` (api.rst 4.68, 4.69): the core group, which numbers a register
//! by its offset in `struct kvm_regs`, and of the system registers those that a boot sets or an exception leaves.

use std::mem::offset_of;

use kvm_bindings::{KVM_REG_ARM_CORE, KVM_REG_ARM64, KVM_REG_ARM64_SYSREG, KVM_REG_SIZE_U64, kvm_regs, user_pt_regs};
use kvm_ioctls::VcpuFd;

use crate::error::{Error, Result};

/// The id of the 64-bit register at `offset` (bytes) in `struct kvm_regs`: the core group counts in 32-bit words.
#[expect(clippy::cast_lossless, reason = "From is not const")]
const fn core(offset: usize) -> u64 {
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE as u64 | (offset / size_of::<u32>()) as u64
}

const fn x(number: usize) -> u64 {
    core(offset_of!(kvm_regs, regs) + offset_of!(user_pt_regs, regs) + number * size_of::<u64>())
}

const fn spsr(number: usize) -> u64 {
    core(offset_of!(kvm_regs, spsr) + number * size_of::<u64>())
}

/// The id of a system register, by the five numbers of its MRS instruction.
#[expect(clippy::cast_lossless, reason = "From is not const")]
const fn system([op0, op1, crn, crm, op2]: [u64; 5]) -> u64 {
    let number = op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2;
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG as u64 | number
}

const SP: u64 = core(offset_of!(kvm_regs, regs) + offset_of!(user_pt_regs, sp));
const PC: u64 = core(offset_of!(kvm_regs, regs) + offset_of!(user_pt_regs, pc));
const PSTATE: u64 = core(offset_of!(kvm_regs, regs) + offset_of!(user_pt_regs, pstate));
const SP_EL1: u64 = core(offset_of!(kvm_regs, sp_el1));
const ELR_EL1: u64 = core(offset_of!(kvm_regs, elr_el1));

// The numbers in the table of api.rst 4.68.
const _: () = assert!(x(0) == 0x6030_0000_0010_0000);
const _: () = assert!(x(30) == 0x6030_0000_0010_003c);
const _: () = assert!(SP == 0x6030_0000_0010_003e);
const _: () = assert!(PC == 0x6030_0000_0010_0040);
const _: () = assert!(PSTATE == 0x6030_0000_0010_0042);
const _: () = assert!(SP_EL1 == 0x6030_0000_0010_0044);
const _: () = assert!(ELR_EL1 == 0x6030_0000_0010_0046);
const _: () = assert!(spsr(0) == 0x6030_0000_0010_0048);
const _: () = assert!(spsr(4) == 0x6030_0000_0010_0050);
// MIDR_EL1, as api.rst 4.68 has it.
const _: () = assert!(system([3, 0, 0, 0, 0]) == 0x6030_0000_0013_c000);

/// Writes down each register once: the struct, its names and its ids.
macro_rules! registers {
    ($($name:ident: $id:expr, $meaning:expr;)+) => {
        /// The registers of a vCPU: general ones, and those of EL1 that its exceptions and its MMU use.
        ///
        /// The bridge to other languages sees them by name, in order ([`Registers::scalars`]).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Registers {
            $(#[doc = $meaning] pub $name: u64,)+
        }

        impl Registers {
            /// Every register with its name, in a fixed order.
            pub fn scalars(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }

            /// Sets the register called `name`; none where there is no such register.
            pub fn set_scalar(&mut self, name: &str, value: u64) -> Option<()> {
                match name {
                    $(stringify!($name) => self.$name = value,)+
                    _ => return None,
                }
                Some(())
            }
        }

        /// All registers.
        ///
        /// # Errors
        /// [`Error::Ioctl`]: `KVM_GET_ONE_REG`.
        pub(crate) fn get(vcpu: &VcpuFd) -> Result<Registers> {
            Ok(Registers { $($name: get_one(vcpu, $id)?,)+ })
        }

        /// Changes registers and writes those that changed, one by one.
        ///
        /// # Errors
        /// [`Error::Ioctl`]: `KVM_GET_ONE_REG`, `KVM_SET_ONE_REG` (`EINVAL` for a mode in `pstate` that the vCPU
        /// cannot enter), and what `change` returns.
        pub(crate) fn update(vcpu: &VcpuFd, change: impl FnOnce(&mut Registers) -> Result<()>) -> Result<()> {
            let old = get(vcpu)?;
            let mut new = old;
            change(&mut new)?;
            // `pstate` is the one that KVM checks: it goes first, so that a refusal leaves the vCPU as it was.
            if new.pstate != old.pstate {
                set_one(vcpu, PSTATE, new.pstate)?;
            }
            $(if $id != PSTATE && new.$name != old.$name {
                set_one(vcpu, $id, new.$name)?;
            })+
            Ok(())
        }
    };
}

registers! {
    x0: x(0), "General register.";
    x1: x(1), "General register.";
    x2: x(2), "General register.";
    x3: x(3), "General register.";
    x4: x(4), "General register.";
    x5: x(5), "General register.";
    x6: x(6), "General register.";
    x7: x(7), "General register.";
    x8: x(8), "General register.";
    x9: x(9), "General register.";
    x10: x(10), "General register.";
    x11: x(11), "General register.";
    x12: x(12), "General register.";
    x13: x(13), "General register.";
    x14: x(14), "General register.";
    x15: x(15), "General register.";
    x16: x(16), "General register.";
    x17: x(17), "General register.";
    x18: x(18), "General register.";
    x19: x(19), "General register.";
    x20: x(20), "General register.";
    x21: x(21), "General register.";
    x22: x(22), "General register.";
    x23: x(23), "General register.";
    x24: x(24), "General register.";
    x25: x(25), "General register.";
    x26: x(26), "General register.";
    x27: x(27), "General register.";
    x28: x(28), "General register.";
    x29: x(29), "General register; the frame pointer by convention.";
    x30: x(30), "General register; the link register.";
    sp: SP, "Stack pointer of EL0 (`SP_EL0`).";
    pc: PC, "Program counter.";
    pstate: PSTATE, "Processor state: flags, masks and exception level.";
    sp_el1: SP_EL1, "Stack pointer of EL1.";
    elr_el1: ELR_EL1, "Where EL1 returns to.";
    spsr_el1: spsr(0), "Processor state that EL1 returns to.";
    spsr_abt: spsr(1), "Saved state of AArch32's abort mode.";
    spsr_und: spsr(2), "Saved state of AArch32's undefined mode.";
    spsr_irq: spsr(3), "Saved state of AArch32's IRQ mode.";
    spsr_fiq: spsr(4), "Saved state of AArch32's FIQ mode.";
    sctlr_el1: system([3, 0, 1, 0, 0]), "System control of EL1: MMU, caches, alignment checks.";
    cpacr_el1: system([3, 0, 1, 0, 2]), "Which of floating point, SIMD and SVE trap.";
    ttbr0_el1: system([3, 0, 2, 0, 0]), "Where the tables of the lower addresses lie.";
    ttbr1_el1: system([3, 0, 2, 0, 1]), "Where the tables of the upper addresses lie.";
    tcr_el1: system([3, 0, 2, 0, 2]), "How the tables are walked.";
    mair_el1: system([3, 0, 10, 2, 0]), "The kinds of memory that tables name by index.";
    vbar_el1: system([3, 0, 12, 0, 0]), "Where the exception vectors of EL1 lie.";
    esr_el1: system([3, 0, 5, 2, 0]), "Why the last exception to EL1 was taken.";
    far_el1: system([3, 0, 6, 0, 0]), "The address that the last abort was about.";
    tpidr_el0: system([3, 3, 13, 0, 2]), "Software's own, of EL0 and above.";
    tpidrro_el0: system([3, 3, 13, 0, 3]), "Software's own, read-only in EL0.";
    tpidr_el1: system([3, 0, 13, 0, 4]), "Software's own, of EL1.";
}

fn get_one(vcpu: &VcpuFd, id: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    vcpu.get_one_reg(id, &mut bytes).map_err(Error::ioctl("KVM_GET_ONE_REG"))?;
    Ok(u64::from_le_bytes(bytes))
}

fn set_one(vcpu: &VcpuFd, id: u64, value: u64) -> Result<()> {
    vcpu.set_one_reg(id, &value.to_le_bytes()).map_err(Error::ioctl("KVM_SET_ONE_REG")).map(|_| ())
}
