//! `KVM_EXIT_DEBUG`: a breakpoint, watchpoint or single step of `KVM_SET_GUEST_DEBUG`. Each architecture has its own struct,
//! and each leaves some of it unwritten.

use super::{
    Exit,
    page::{FLAGS, PAYLOAD, RunBytes},
    system_event::{Abi, Arch},
};

// struct kvm_debug_exit_arch of x86
const EXCEPTION: usize = PAYLOAD;
const PC: usize = PAYLOAD + 8;
const DR6: usize = PAYLOAD + 16;
const DR7: usize = PAYLOAD + 24;
// struct kvm_debug_exit_arch of arm64
const HSR: usize = PAYLOAD;
const HSR_HIGH: usize = PAYLOAD + 4;
const FAR: usize = PAYLOAD + 8;

#[cfg(target_arch = "x86_64")]
const _: () = {
    use std::mem::offset_of;

    use kvm_bindings::kvm_run;
    assert!(offset_of!(kvm_run, __bindgen_anon_1.debug.arch.exception) == EXCEPTION);
    assert!(offset_of!(kvm_run, __bindgen_anon_1.debug.arch.pc) == PC);
    assert!(offset_of!(kvm_run, __bindgen_anon_1.debug.arch.dr6) == DR6);
    assert!(offset_of!(kvm_run, __bindgen_anon_1.debug.arch.dr7) == DR7);
};
#[cfg(target_arch = "aarch64")]
const _: () = {
    use std::mem::offset_of;

    use kvm_bindings::kvm_run;
    assert!(offset_of!(kvm_run, __bindgen_anon_1.debug.arch.hsr) == HSR);
    assert!(offset_of!(kvm_run, __bindgen_anon_1.debug.arch.hsr_high) == HSR_HIGH);
    assert!(offset_of!(kvm_run, __bindgen_anon_1.debug.arch.far) == FAR);
};

/// The #DB exception: only with it does KVM write `dr6` and `dr7`.
const DEBUG_EXCEPTION: u32 = 1;
/// `KVM_DEBUG_ARCH_HSR_HIGH_VALID` of the page's flags: older kernels leave `hsr_high` unwritten.
const HSR_HIGH_VALID: u16 = 1;
/// Where the syndrome has its exception class, and that of a watchpoint: only with it does KVM write `far`.
const CLASS_SHIFT: u32 = 26;
const CLASS_MASK: u64 = 0x3f;
const CLASS_WATCHPOINT: u64 = 0x34;

/// What stopped a vCPU that is being debugged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Debug {
    /// On x86.
    X86 {
        /// The exception's vector: 1 (#DB: single step, hardware breakpoint) or 3 (#BP: `int3`).
        exception: u32,
        /// The linear address of the instruction.
        pc: u64,
        /// With exception 1 the debug status and control registers. After a single step of an instruction that KVM
        /// interpreted, `dr7` is what an earlier exit left.
        registers: Option<DebugRegisters>,
    },
    /// On aarch64.
    Aarch64 {
        /// `ESR_EL2`; its upper half is zero on kernels that do not give it.
        hsr: u64,
        /// The address that the guest reached for, at a watchpoint.
        far: Option<u64>,
    },
}

/// The x86 debug registers that a debug exit brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DebugRegisters {
    /// What happened.
    pub dr6: u64,
    /// What was armed.
    pub dr7: u64,
}

pub(super) fn debug(page: RunBytes<'_>, abi: Abi) -> Option<Exit> {
    let what = match abi.arch {
        Arch::X86_64 => on_x86(page),
        Arch::Aarch64 => on_aarch64(page),
    };
    what.map(Exit::Debug)
}

fn on_x86(page: RunBytes<'_>) -> Option<Debug> {
    let (exception, pc) = (page.word(EXCEPTION)?, page.long(PC)?);
    let registers = DebugRegisters { dr6: page.long(DR6)?, dr7: page.long(DR7)? };
    Some(Debug::X86 { exception, pc, registers: (exception == DEBUG_EXCEPTION).then_some(registers) })
}

fn on_aarch64(page: RunBytes<'_>) -> Option<Debug> {
    let (low, high, far) = (page.word(HSR)?, page.word(HSR_HIGH)?, page.long(FAR)?);
    let high = if page.half(FLAGS)? & HSR_HIGH_VALID == 0 { 0 } else { high };
    let hsr = u64::from(high) << 32 | u64::from(low);
    let watchpoint = hsr >> CLASS_SHIFT & CLASS_MASK == CLASS_WATCHPOINT;
    Some(Debug::Aarch64 { hsr, far: watchpoint.then_some(far) })
}
