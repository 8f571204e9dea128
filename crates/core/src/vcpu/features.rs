//! What an aarch64 vCPU is made with, beyond what every vCPU has (api.rst 4.82, `KVM_ARM_VCPU_INIT`). On `x86_64` CPUID
//! says that. Pure; who asks KVM is `arch`.

use crate::{
    error::{Error, Result},
    host::{Capabilities, Capability},
};

/// Declares each feature once: the enum, its name, its bit and the capabilities it needs.
macro_rules! features {
    ($($variant:ident, $name:literal, [$($bit:literal),+], [$($capability:ident),*], $meaning:literal;)+) => {
        /// A feature of an aarch64 vCPU.
        ///
        /// ```
        /// use typevisor::vcpu::VcpuFeature;
        /// assert_eq!(VcpuFeature::from_name("sve"), Some(VcpuFeature::Sve));
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum VcpuFeature {
            $(#[doc = $meaning] $variant,)+
        }

        impl VcpuFeature {
            /// Every feature.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in kebab-case, after `KVM_ARM_VCPU_*`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Its bits in `kvm_vcpu_init.features[0]`.
            const fn bits(self) -> u32 {
                match self {
                    $(Self::$variant => $(1 << $bit)|+,)+
                }
            }

            const fn capabilities(self) -> &'static [Capability] {
                match self {
                    $(Self::$variant => &[$(Capability::$capability),*],)+
                }
            }

            /// For the error where a capability is missing.
            const fn needed_by(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("the vCPU feature '", $name, "'"),)+
                }
            }
        }
    };
}

features! {
    PowerOff, "power-off", [0], [],
        "The vCPU waits until another starts it by PSCI `CPU_ON`, or until it is booted ([`crate::Vcpu::boot`] says what \
         becomes of both).";
    El132bit, "el1-32bit", [1], [ArmEl132bit], "EL1 runs in 32-bit state (`AArch32`).";
    Psci02, "psci-0.2", [2], [ArmPsci02],
        "PSCI 0.2 or later: power-off and reset are system events. Without it there is no exit at all.";
    PmuV3, "pmu-v3", [3], [ArmPmuV3], "A performance monitor, version 3.";
    Sve, "sve", [4], [ArmSve],
        "The Scalable Vector Extension, with every vector length that KVM has. `ZCR_EL1` starts as 0: vectors have 128 \
         bits until the guest raises it.";
    PointerAuth, "pointer-auth", [5, 6], [ArmPtrauthAddress, ArmPtrauthGeneric],
        "Pointer authentication, of addresses and generic: KVM has both or none. It is off until the guest sets \
         `SCTLR_EL1.EnIA` and its like.";
}

#[cfg(target_arch = "aarch64")]
const _: () = {
    use kvm_bindings as k;
    assert!(VcpuFeature::PowerOff.bits() == 1 << k::KVM_ARM_VCPU_POWER_OFF);
    assert!(VcpuFeature::El132bit.bits() == 1 << k::KVM_ARM_VCPU_EL1_32BIT);
    assert!(VcpuFeature::Psci02.bits() == 1 << k::KVM_ARM_VCPU_PSCI_0_2);
    assert!(VcpuFeature::PmuV3.bits() == 1 << k::KVM_ARM_VCPU_PMU_V3);
    assert!(VcpuFeature::Sve.bits() == 1 << k::KVM_ARM_VCPU_SVE);
    assert!(
        VcpuFeature::PointerAuth.bits() == 1 << k::KVM_ARM_VCPU_PTRAUTH_ADDRESS | 1 << k::KVM_ARM_VCPU_PTRAUTH_GENERIC
    );
};

impl VcpuFeature {
    /// The feature called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|feature| feature.name() == name)
    }
}

/// A set of features. The default is that of a vCPU for which none were chosen: PSCI 0.2.
///
/// ```
/// use typevisor::vcpu::{VcpuFeature, VcpuFeatures};
/// let features = VcpuFeatures::default().with(VcpuFeature::PmuV3);
/// assert!(features.has(VcpuFeature::Psci02) && !features.has(VcpuFeature::Sve));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VcpuFeatures {
    bits: u32,
}

impl Default for VcpuFeatures {
    fn default() -> Self {
        Self::none().with(VcpuFeature::Psci02)
    }
}

impl VcpuFeatures {
    /// No feature at all.
    #[must_use]
    pub const fn none() -> Self {
        Self { bits: 0 }
    }

    /// These and that one.
    #[must_use]
    pub const fn with(self, feature: VcpuFeature) -> Self {
        Self { bits: self.bits | feature.bits() }
    }

    /// These but that one.
    #[cfg(any(target_arch = "aarch64", test))]
    const fn without(self, feature: VcpuFeature) -> Self {
        Self { bits: self.bits & !feature.bits() }
    }

    /// Whether it is among these.
    #[must_use]
    pub const fn has(self, feature: VcpuFeature) -> bool {
        self.bits & feature.bits() == feature.bits()
    }

    /// For `kvm_vcpu_init.features[0]`.
    #[cfg(any(target_arch = "aarch64", test))]
    pub(crate) const fn bits(self) -> u32 {
        self.bits
    }

    /// What the VM's later vCPUs have to be made with: newer kernels keep it of the first one, but for `PowerOff`, which
    /// holds for one `KVM_ARM_VCPU_INIT` (api.rst 4.82).
    #[cfg(any(target_arch = "aarch64", test))]
    pub(crate) const fn of_the_vm(self) -> Self {
        self.without(VcpuFeature::PowerOff)
    }

    /// What to make a vCPU with where `wanted` was chosen, or nothing was, in a VM that made its first vCPU with `first`.
    /// Older kernels would take another set; a program that relied on it would break on newer ones.
    #[cfg(any(target_arch = "aarch64", test))]
    pub(crate) fn choose(wanted: Option<Self>, first: Option<Self>) -> Result<Self> {
        match (wanted, first) {
            (Some(wanted), Some(first)) if wanted.of_the_vm() != first => Err(Error::InvalidArgument {
                what: "features",
                expected: "those of the VM's first vCPU, with or without 'power-off': a VM's vCPUs have the same",
            }),
            (Some(wanted), _) => Ok(wanted),
            (None, first) => Ok(first.unwrap_or_default()),
        }
    }

    /// Refuses what this VM cannot give, before KVM makes a vCPU that it would keep.
    #[cfg_attr(target_arch = "x86_64", cfg_attr(not(test), expect(dead_code, reason = "aarch64's")))]
    pub(crate) fn require(self, capabilities: &Capabilities) -> Result<()> {
        let wanted = VcpuFeature::ALL.iter().filter(|feature| self.has(**feature));
        for feature in wanted {
            for capability in feature.capabilities() {
                capabilities.require(*capability, feature.needed_by())?;
            }
        }
        if self.has(VcpuFeature::El132bit) && (self.has(VcpuFeature::Sve) || self.has(VcpuFeature::PointerAuth)) {
            return Err(Error::InvalidArgument {
                what: "features",
                expected: "without 'sve' and 'pointer-auth' where 'el1-32bit' is among them",
            });
        }
        Ok(())
    }
}

impl FromIterator<VcpuFeature> for VcpuFeatures {
    fn from_iter<T: IntoIterator<Item = VcpuFeature>>(features: T) -> Self {
        features.into_iter().fold(Self::none(), Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_has_bits_and_a_name_of_its_own() {
        let all: VcpuFeatures = VcpuFeature::ALL.iter().copied().collect();
        assert_eq!(all.bits(), 0x7f);
        let total: u32 = VcpuFeature::ALL.iter().map(|feature| feature.bits().count_ones()).sum();
        assert_eq!(total, 7);
        for feature in VcpuFeature::ALL {
            assert_eq!(VcpuFeature::from_name(feature.name()), Some(*feature));
        }
        assert_eq!(VcpuFeature::from_name("psci"), None);
        assert_eq!(VcpuFeatures::default().bits(), 1 << 2);
    }

    #[test]
    fn every_vcpu_of_a_vm_has_the_features_of_the_first() {
        let choose = VcpuFeatures::choose;
        let none = VcpuFeatures::none();
        let sve = VcpuFeatures::default().with(VcpuFeature::Sve);
        let off = sve.with(VcpuFeature::PowerOff);
        assert_eq!(choose(None, None).unwrap(), VcpuFeatures::default());
        assert_eq!(choose(Some(off), None).unwrap(), off);
        assert_eq!(off.of_the_vm(), sve);
        assert_eq!(choose(None, Some(sve)).unwrap(), sve);
        assert_eq!(choose(Some(off), Some(sve)).unwrap(), off);
        assert_eq!(choose(Some(sve), Some(sve)).unwrap(), sve);
        assert_eq!(choose(Some(none.with(VcpuFeature::PowerOff)), Some(none)).unwrap().bits(), 1);
        for (wanted, first) in [(none, sve), (VcpuFeatures::default(), sve), (off, VcpuFeatures::default())] {
            let error = choose(Some(wanted), Some(first)).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument { what: "features", .. }), "{error}");
        }
    }

    #[test]
    fn a_missing_one_is_refused_by_its_capability() {
        let nothing = Capabilities::none();
        VcpuFeatures::none().with(VcpuFeature::PowerOff).require(&nothing).unwrap();
        let error = VcpuFeatures::none().with(VcpuFeature::Sve).require(&nothing).unwrap_err();
        let Error::CapabilityMissing { capability: "arm-sve", needed_by: "the vCPU feature 'sve'", .. } = error else {
            panic!("{error}");
        };
        let error = VcpuFeatures::none().with(VcpuFeature::PointerAuth).require(&nothing).unwrap_err();
        assert!(matches!(error, Error::CapabilityMissing { capability: "arm-ptrauth-address", .. }), "{error}");
    }
}
