//! `kvm_run.flags`: what the kernel says beside an exit, whatever that is. Ruled by api.rst section 5 ("flags") and 7.22.

use super::{Arch, RunBytes, page::FLAGS};

/// `KVM_RUN_X86_SMM`.
const SMM: u16 = 1 << 0;
/// `KVM_RUN_X86_BUS_LOCK`.
const BUS_LOCK: u16 = 1 << 1;
/// `KVM_RUN_X86_GUEST_MODE`.
const GUEST_MODE: u16 = 1 << 2;

#[cfg(target_arch = "x86_64")]
const _: () = {
    assert!(SMM as u32 == kvm_bindings::KVM_RUN_X86_SMM);
    assert!(BUS_LOCK as u32 == kvm_bindings::KVM_RUN_X86_BUS_LOCK);
    assert!(GUEST_MODE as u32 == kvm_bindings::KVM_RUN_X86_GUEST_MODE);
};

/// What holds of an exit beside what it is: `kvm_run.flags`.
///
/// ```
/// use typevisor::exit::{Arch, RunFlags};
/// let flags = RunFlags::from_bits(2, Arch::X86_64);
/// assert!(flags.bus_lock && !flags.smm && !flags.guest_mode);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct RunFlags {
    /// All of them, as they came. On aarch64 bit 0 says that a debug exit has the upper half of its syndrome.
    pub bits: u16,
    /// The vCPU is in system management mode (x86).
    pub smm: bool,
    /// The guest locked the bus, where the VM was made to tell ([`crate::switches::ExitSwitches::bus_lock`]; x86, Linux 5.12).
    /// True as well where an exit since the last one that was told said so, which somebody on the bus dealt with.
    pub bus_lock: bool,
    /// The vCPU runs a guest of its own guest's (x86, Linux 6.11).
    pub guest_mode: bool,
}

impl RunFlags {
    /// What these bits mean on that architecture.
    #[must_use]
    pub const fn from_bits(bits: u16, arch: Arch) -> Self {
        let of_x86 = match arch {
            Arch::X86_64 => bits,
            Arch::Aarch64 => 0,
        };
        Self { bits, smm: of_x86 & SMM != 0, bus_lock: of_x86 & BUS_LOCK != 0, guest_mode: of_x86 & GUEST_MODE != 0 }
    }

    /// Those in a page; none where it ends before.
    #[must_use]
    pub fn of_page(page: RunBytes<'_>, arch: Arch) -> Self {
        Self::from_bits(page.half(FLAGS).unwrap_or(0), arch)
    }

    /// What is true of a later exit too: that something has happened, and not how the vCPU is.
    pub(crate) const fn happened(self) -> u16 {
        if self.bus_lock { BUS_LOCK } else { 0 }
    }

    /// The rest: how the vCPU is.
    pub(crate) const fn modes(self) -> Self {
        Self { bits: self.bits & !self.happened(), bus_lock: false, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seventh half word of the page.
    const AT: usize = 14;

    #[test]
    fn flags_are_those_of_the_page_and_mean_something_on_x86_alone() {
        let mut page = [0xff; 4096];
        page[AT..AT + 2].copy_from_slice(&[0x06, 0x80]);
        let of = |arch| RunFlags::of_page(RunBytes::of_page(&page), arch);
        let expected = RunFlags { bits: 0x8006, smm: false, bus_lock: true, guest_mode: true };
        assert_eq!(of(Arch::X86_64), expected);
        assert_eq!(of(Arch::Aarch64), RunFlags { bits: 0x8006, ..Default::default() });
        assert!(RunFlags::from_bits(1, Arch::X86_64).smm);
        assert_eq!(RunFlags::of_page(RunBytes::of_page(&page[..=AT]), Arch::X86_64), RunFlags::default());
    }

    #[test]
    fn a_bus_lock_has_happened_and_a_mode_has_not() {
        assert_eq!(RunFlags::from_bits(0xffff, Arch::X86_64).happened(), BUS_LOCK);
        assert_eq!(RunFlags::from_bits(0xfffd, Arch::X86_64).happened(), 0);
        assert_eq!(RunFlags::from_bits(0xffff, Arch::X86_64).modes(), RunFlags::from_bits(0xfffd, Arch::X86_64));
        assert_eq!(RunFlags::from_bits(0xffff, Arch::Aarch64).modes().bits, 0xffff);
        assert_eq!(RunFlags::from_bits(0xffff, Arch::Aarch64).happened(), 0);
    }
}
