//! `KVM_EXIT_INTERNAL_ERROR`: KVM gave up. What its words mean depends on the suberror; only those of an emulation failure
//! are the kernel's promise.

use std::mem::offset_of;

use kvm_bindings::{
    KVM_INTERNAL_ERROR_DELIVERY_EV, KVM_INTERNAL_ERROR_EMULATION, KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES,
    KVM_INTERNAL_ERROR_SIMUL_EX, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, kvm_run,
};

use super::{Exit, page::RunBytes};

const SUBERROR: usize = offset_of!(kvm_run, __bindgen_anon_1.internal.suberror);
const NDATA: usize = offset_of!(kvm_run, __bindgen_anon_1.internal.ndata);
const DATA: usize = offset_of!(kvm_run, __bindgen_anon_1.internal.data);
const DATA_MAX: usize = 16;
// `struct emulation_failure` lies over it: its flags are the first word, its instruction the next two.
const INSN_SIZE: usize =
    offset_of!(kvm_run, __bindgen_anon_1.emulation_failure.__bindgen_anon_1.__bindgen_anon_1.insn_size);
const INSN_BYTES: usize =
    offset_of!(kvm_run, __bindgen_anon_1.emulation_failure.__bindgen_anon_1.__bindgen_anon_1.insn_bytes);
const INSN_MAX: usize = 15;
const _: () = assert!(offset_of!(kvm_run, __bindgen_anon_1.emulation_failure.flags) == DATA);
/// Words up to the end of the instruction.
const INSN_WORDS: usize = 3;
const _: () = assert!(INSN_BYTES + INSN_MAX == DATA + INSN_WORDS * size_of::<u64>());

/// Why KVM gave up, by `KVM_INTERNAL_ERROR_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InternalError {
    /// An instruction that KVM's emulator does not know, or may not interpret.
    Emulation,
    /// An exception during the delivery of another one, of which KVM can deliver neither.
    SimulEx,
    /// An exit in the middle of delivering an event, as on an interrupt table without memory.
    DeliveryEv,
    /// The processor left the guest for a reason that KVM does not know.
    UnexpectedExitReason,
    /// One that this build does not know; the exit has its number.
    Unknown,
}

impl InternalError {
    /// The suberror of that number in the kernel's header.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            KVM_INTERNAL_ERROR_EMULATION => Self::Emulation,
            KVM_INTERNAL_ERROR_SIMUL_EX => Self::SimulEx,
            KVM_INTERNAL_ERROR_DELIVERY_EV => Self::DeliveryEv,
            KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => Self::UnexpectedExitReason,
            _ => Self::Unknown,
        }
    }

    /// The name in the header without `KVM_INTERNAL_ERROR_`, in kebab-case; `unknown`.
    ///
    /// ```
    /// use typevisor::exit::InternalError;
    /// assert_eq!(InternalError::from_number(3).name(), "delivery-ev");
    /// ```
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emulation => "emulation",
            Self::SimulEx => "simul-ex",
            Self::DeliveryEv => "delivery-ev",
            Self::UnexpectedExitReason => "unexpected-exit-reason",
            Self::Unknown => "unknown",
        }
    }
}

pub(super) fn internal_error(page: RunBytes<'_>) -> Option<Exit> {
    let suberror = page.word(SUBERROR)?;
    let ndata = usize::try_from(page.word(NDATA)?).unwrap_or(DATA_MAX).min(DATA_MAX);
    let data: Box<[u64]> = page.longs::<DATA_MAX>(DATA)?.get(..ndata)?.into();
    let emulation = suberror == KVM_INTERNAL_ERROR_EMULATION;
    // Before Linux 5.14 there are no words, and so no flags.
    let flags = data.first().copied().filter(|_| emulation);
    let instruction = flags.filter(|flags| flags & u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0);
    let instruction = match instruction {
        Some(_) if ndata >= INSN_WORDS => Some(instruction_bytes(page)?),
        _ => None,
    };
    Some(Exit::InternalError { suberror, data, flags, instruction })
}

fn instruction_bytes(page: RunBytes<'_>) -> Option<Box<[u8]>> {
    let len = usize::from(page.byte(INSN_SIZE)?).min(INSN_MAX);
    page.slice(INSN_BYTES, len).map(Into::into)
}
