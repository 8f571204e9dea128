//! Exits of model-specific registers: for which reasons, and the filter that refuses accesses (api.rst 4.97, 7.21). Pure.

use super::Plan;
use crate::{
    error::{Error, Result},
    exit::MsrReason,
    host::{Capabilities, Capability},
    sys::msr_filter::{self, MAX_COUNT, MAX_RANGES},
};

/// Registers of the x2APIC, on which KVM ignores filters in silence: from the first to the last.
const X2APIC: [u32; 2] = [0x800, 0x8ff];

/// Which accesses to model-specific registers are exits. The default: all that KVM refuses, and no filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MsrExits {
    /// Of which kinds; what KVM refuses for another reason is a fault of the guest's (`#GP`), as it is without this.
    /// [`MsrReason::Other`] is none of them.
    pub reasons: Vec<MsrReason>,
    /// What KVM refuses beyond what it does not know. Where [`MsrReason::Filter`] is not among `reasons` that is a fault.
    pub filter: Option<MsrFilter>,
}

impl Default for MsrExits {
    fn default() -> Self {
        Self { reasons: vec![MsrReason::Inval, MsrReason::Unknown, MsrReason::Filter], filter: None }
    }
}

/// Which accesses are refused: `KVM_X86_SET_MSR_FILTER`, capability `x86-msr-filter` (Linux 5.10). What an instruction does
/// besides (`RDPID`, `SYSENTER`) is not filtered, nor are the registers of the x2APIC, 0x800 to 0x8ff.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MsrFilter {
    /// At most 16, of which no two say something of the same access.
    pub ranges: Vec<MsrRange>,
    /// Refuse what is in no range, and not let it through. With no range at all KVM refuses that itself.
    pub deny_others: bool,
}

/// Some model-specific registers in a row, and what becomes of accesses to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MsrRange {
    /// The first register.
    pub base: u32,
    /// How many: 1 to 12,288.
    pub count: u32,
    /// This is about reads.
    pub read: bool,
    /// This is about writes.
    pub write: bool,
    /// What becomes of them.
    pub access: MsrAccess,
}

/// What a filter does to accesses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MsrAccess {
    /// They are refused.
    Denied,
    /// They are KVM's to deal with, whatever becomes of the others.
    Allowed,
    /// One bit a register, lowest first: 1 allows. As many bytes as the registers need.
    Bitmap(Box<[u8]>),
}

impl MsrRange {
    /// Refuses reads and writes of `count` registers from `base` on.
    ///
    /// ```
    /// use typevisor::switches::MsrRange;
    /// let reads_of_the_clock = MsrRange { write: false, ..MsrRange::denied(0x10, 1) };
    /// assert!(reads_of_the_clock.read);
    /// ```
    #[must_use]
    pub const fn denied(base: u32, count: u32) -> Self {
        Self { base, count, read: true, write: true, access: MsrAccess::Denied }
    }

    /// Allows them, beside [`MsrFilter::deny_others`].
    #[must_use]
    pub const fn allowed(base: u32, count: u32) -> Self {
        Self { base, count, read: true, write: true, access: MsrAccess::Allowed }
    }

    fn end(&self) -> u64 {
        u64::from(self.base) + u64::from(self.count)
    }

    /// Whether the filter lets register number `nth` of the range through.
    fn allows(&self, nth: u32) -> bool {
        match &self.access {
            MsrAccess::Denied => false,
            MsrAccess::Allowed => true,
            MsrAccess::Bitmap(bits) => {
                usize::try_from(nth / 8).ok().and_then(|at| bits.get(at)).is_some_and(|byte| byte >> (nth % 8) & 1 == 1)
            }
        }
    }

    /// What is wrong with it on its own.
    fn fault(&self) -> Option<&'static str> {
        // KVM keeps the end in 32 bits: a range with the very last register would be empty.
        if !(1..=MAX_COUNT).contains(&self.count) || u32::try_from(self.end()).is_err() {
            return Some("has registers that cannot be: it takes 1 to 12,288 of them, numbered up to 2^32 - 2");
        }
        if !self.read && !self.write {
            return Some("is about neither reads nor writes");
        }
        let bytes = self.count.div_ceil(8);
        if matches!(&self.access, MsrAccess::Bitmap(bits) if u32::try_from(bits.len()) != Ok(bytes)) {
            return Some("has a bitmap of another length: one bit a register, in whole bytes");
        }
        let denies =
            |register: u32| register.checked_sub(self.base).is_some_and(|nth| nth < self.count && !self.allows(nth));
        let [first, last] = X2APIC;
        if (first..=last).any(denies) {
            return Some("refuses registers of the x2APIC (0x800 to 0x8ff), which KVM never filters: leave them out");
        }
        None
    }

    fn meets(&self, other: &Self) -> bool {
        let apart = self.end() <= u64::from(other.base) || other.end() <= u64::from(self.base);
        !apart && (self.read && other.read || self.write && other.write)
    }

    fn told(&self) -> msr_filter::Range {
        msr_filter::Range::new(self.base, self.count, [self.read, self.write], |nth| self.allows(nth))
    }
}

impl MsrFilter {
    fn check(&self) -> Result<Checked> {
        if self.ranges.len() > MAX_RANGES {
            return Err(Error::InvalidArgument { what: "exits.msr.filter", expected: "at most 16 ranges" });
        }
        if self.ranges.is_empty() && self.deny_others {
            return Err(Error::InvalidArgument {
                what: "exits.msr.filter",
                expected: "at least one range where others are denied: KVM takes no filter without",
            });
        }
        for (index, range) in self.ranges.iter().enumerate() {
            let mut earlier = self.ranges.iter().take(index);
            let twice = "is about accesses that an earlier range is about, which alone would count";
            if let Some(why) = range.fault().or_else(|| earlier.any(|other| range.meets(other)).then_some(twice)) {
                return Err(Error::Element { list: "exits.msr.filter", index, why });
            }
        }
        Ok(Checked { ranges: self.ranges.iter().map(MsrRange::told).collect(), deny_others: self.deny_others })
    }
}

/// A filter that KVM takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) ranges: Vec<msr_filter::Range>,
    pub(super) deny_others: bool,
}

impl MsrExits {
    pub(super) fn plan(&self, vm: &Capabilities, plan: &mut Plan) -> Result<()> {
        let mut bits = 0;
        for reason in &self.reasons {
            bits |= u64::from(reason.bits().ok_or(Error::InvalidArgument {
                what: "exits.msr.reasons",
                expected: "among 'inval', 'unknown' and 'filter'",
            })?);
        }
        if bits != 0 {
            vm.require(Capability::X86UserSpaceMsr, "the VM option exits.msr")?;
            plan.capabilities.push((Capability::X86UserSpaceMsr, bits));
        }
        if let Some(filter) = &self.filter {
            vm.require(Capability::X86MsrFilter, "the VM option exits.msr.filter")?;
            plan.filter = Some(filter.check()?);
        }
        Ok(())
    }
}
