//! Exits that only Arm has: accesses that KVM cannot describe, and aborts that the host cannot handle.

use std::mem::offset_of;

use kvm_bindings::kvm_run;

use super::{
    Exit,
    page::{PAYLOAD, RunBytes},
};

const NISV_ISS: usize = offset_of!(kvm_run, __bindgen_anon_1.arm_nisv.esr_iss);
const NISV_IPA: usize = offset_of!(kvm_run, __bindgen_anon_1.arm_nisv.fault_ipa);
// struct arm_sea; kvm-bindings lacks it
const SEA_FLAGS: usize = PAYLOAD;
const SEA_ESR: usize = PAYLOAD + 8;
const SEA_GVA: usize = PAYLOAD + 16;
const SEA_GPA: usize = PAYLOAD + 24;

/// `KVM_EXIT_ARM_SEA_FLAG_GPA_VALID`
const GPA_VALID: u64 = 1;
/// `FnV` of the syndrome: there is no address.
const NO_ADDRESS: u64 = 1 << 10;

pub(super) fn nisv(page: RunBytes<'_>) -> Option<Exit> {
    Some(Exit::ArmNisv { esr_iss: page.long(NISV_ISS)?, fault_ipa: page.long(NISV_IPA)? })
}

/// It shares the struct of [`nisv`].
pub(super) fn ldst64b(page: RunBytes<'_>) -> Option<Exit> {
    Some(Exit::ArmLdst64b { esr_iss: page.long(NISV_ISS)?, fault_ipa: page.long(NISV_IPA)? })
}

pub(super) fn sea(page: RunBytes<'_>) -> Option<Exit> {
    let (flags, esr) = (page.long(SEA_FLAGS)?, page.long(SEA_ESR)?);
    let (gva, gpa) = (page.long(SEA_GVA)?, page.long(SEA_GPA)?);
    Some(Exit::ArmSea {
        flags,
        esr,
        gva: (esr & NO_ADDRESS == 0).then_some(gva),
        gpa: (flags & GPA_VALID != 0).then_some(gpa),
    })
}
