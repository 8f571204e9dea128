//! What a vCPU answers to the instruction CPUID (`x86_64`), as entries that are checked before KVM is given them. Pure; who
//! asks KVM is `kvm`, who tells it is `vcpu::arch`. Ruled by api.rst 4.46 and 4.118, and by what KVM looks up
//! (`cpuid_entry2_find` of arch/x86/kvm/cpuid.c).

use crate::error::{Error, Result};

/// `KVM_MAX_CPUID_ENTRIES`, from Linux 5.11 on. Linux 5.10 takes 80.
const MAX_ENTRIES: usize = 256;

/// One answer of CPUID: `struct kvm_cpuid_entry2`, api.rst 4.46.
///
/// ```
/// use typevisor::host::CpuidEntry;
/// // Hyper-V's interface leaf, which makes KVM answer Hyper-V's registers and hypercalls: "Hv#1".
/// let interface = CpuidEntry { function: 0x4000_0001, eax: 0x3123_7648, ..Default::default() };
/// assert_eq!(interface.index, None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CpuidEntry {
    /// The leaf: `EAX` as the guest asks.
    pub function: u32,
    /// The subleaf, `ECX` as the guest asks. None: it answers whatever `ECX` is.
    pub index: Option<u32>,
    /// What the guest gets in `EAX`.
    pub eax: u32,
    /// What the guest gets in `EBX`.
    pub ebx: u32,
    /// What the guest gets in `ECX`.
    pub ecx: u32,
    /// What the guest gets in `EDX`.
    pub edx: u32,
}

impl CpuidEntry {
    /// Whether KVM would never look at `later`, as it comes to this one first, or for some of what `later` is to answer.
    fn meets(&self, later: &Self) -> bool {
        let same = match (self.index, later.index) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.function == later.function && same
    }
}

/// Refuses what KVM would refuse, or take and not obey.
///
/// # Errors
/// [`Error::InvalidArgument`] for more entries than KVM takes, [`Error::Element`] for two that answer the same.
#[cfg_attr(not(target_arch = "x86_64"), cfg_attr(not(test), expect(dead_code, reason = "x86_64's")))]
pub(crate) fn check_cpuid(entries: &[CpuidEntry]) -> Result<()> {
    if entries.len() > MAX_ENTRIES {
        return Err(Error::InvalidArgument { what: "cpuid", expected: "at most 256 entries" });
    }
    for (index, entry) in entries.iter().enumerate() {
        if entries.iter().take(index).any(|earlier| earlier.meets(entry)) {
            let why = "answers what an earlier entry answers (the same function, and index where both have one), which \
                       alone would count";
            return Err(Error::Element { list: "cpuid", index, why });
        }
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
mod kvm_form {
    use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

    use super::CpuidEntry;

    impl From<&kvm_cpuid_entry2> for CpuidEntry {
        fn from(entry: &kvm_cpuid_entry2) -> Self {
            let &kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, .. } = entry;
            let index = (flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0).then_some(index);
            Self { function, index, eax, ebx, ecx, edx }
        }
    }

    impl From<&CpuidEntry> for kvm_cpuid_entry2 {
        fn from(entry: &CpuidEntry) -> Self {
            let &CpuidEntry { function, index, eax, ebx, ecx, edx } = entry;
            let flags = if index.is_some() { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 };
            Self { function, index: index.unwrap_or(0), flags, eax, ebx, ecx, edx, ..Default::default() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32) -> CpuidEntry {
        CpuidEntry { function, ..Default::default() }
    }

    fn subleaf(function: u32, index: u32) -> CpuidEntry {
        CpuidEntry { index: Some(index), ..leaf(function) }
    }

    #[test]
    fn as_many_entries_as_kvm_takes_and_no_more() {
        let entries: Vec<_> = (0..257).map(leaf).collect();
        assert!(check_cpuid(&[]).is_ok());
        assert!(check_cpuid(&entries[..256]).is_ok());
        let error = check_cpuid(&entries).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { what: "cpuid", .. }), "{error}");
    }

    #[test]
    fn what_an_earlier_entry_answers_is_refused() {
        assert!(check_cpuid(&[subleaf(4, 0), subleaf(4, 1), leaf(0), leaf(1), subleaf(7, 1)]).is_ok());
        for twice in [
            [leaf(1), leaf(1)],
            [subleaf(4, 2), subleaf(4, 2)],
            [leaf(4), subleaf(4, 0)],
            [subleaf(4, 0), leaf(4)], // which answers for the other subleaves, and says nothing of that
        ] {
            let error = check_cpuid(&[&[leaf(0)], &twice[..]].concat()).unwrap_err();
            assert!(matches!(error, Error::Element { list: "cpuid", index: 2, .. }), "{error}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn an_index_counts_where_its_flag_is_set() {
        let with = kvm_bindings::kvm_cpuid_entry2 {
            function: 1,
            index: 2,
            flags: 1,
            eax: 3,
            ebx: 4,
            ecx: 5,
            edx: 6,
            ..Default::default()
        };
        let entry = CpuidEntry { function: 1, index: Some(2), eax: 3, ebx: 4, ecx: 5, edx: 6 };
        assert_eq!(CpuidEntry::from(&with), entry);
        assert_eq!(kvm_bindings::kvm_cpuid_entry2::from(&entry), with);
        // Hyper-V's leaves: nothing is to be expected of an index without the flag.
        let without = kvm_bindings::kvm_cpuid_entry2 { flags: 0, ..with };
        assert_eq!(CpuidEntry::from(&without), CpuidEntry { index: None, ..entry });
        let back = kvm_bindings::kvm_cpuid_entry2::from(&CpuidEntry { index: None, ..entry });
        assert_eq!(back, kvm_bindings::kvm_cpuid_entry2 { index: 0, ..without });
    }
}
