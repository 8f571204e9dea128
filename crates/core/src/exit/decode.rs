//! The decoder: reason by reason. Its input is hostile: every length and offset in the page is bounded before it is used.

use std::mem::offset_of;

use kvm_bindings::{
    KVM_EXIT_AP_RESET_HOLD, KVM_EXIT_ARM_NISV, KVM_EXIT_DEBUG, KVM_EXIT_DIRTY_RING_FULL, KVM_EXIT_EXCEPTION,
    KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_HYPERCALL, KVM_EXIT_HYPERV, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR,
    KVM_EXIT_IO, KVM_EXIT_IOAPIC_EOI, KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_MMIO, KVM_EXIT_NMI, KVM_EXIT_NOTIFY,
    KVM_EXIT_SET_TPR, KVM_EXIT_SHUTDOWN, KVM_EXIT_SYSTEM_EVENT, KVM_EXIT_TPR_ACCESS, KVM_EXIT_UNKNOWN,
    KVM_EXIT_X86_BUS_LOCK, KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR, KVM_EXIT_XEN, KVM_NOTIFY_CONTEXT_INVALID, kvm_run,
};

use super::{
    Exit,
    access::{Access, io, mmio},
    arm, debug, fault, hyperv, internal,
    page::{CR8, EXIT_REASON, RunBytes},
    pending::Pending,
    system_event::{Abi, system_event},
    x86,
};
use crate::error::Errno;

// Reasons that kvm-bindings lacks. The list of the header, which crates/core/tests/header.rs compares, has them.
const KVM_EXIT_TDX: u32 = 40;
const KVM_EXIT_ARM_SEA: u32 = 41;
const KVM_EXIT_ARM_LDST64B: u32 = 42;
const KVM_EXIT_SNP_REQ_CERTS: u32 = 43;

const HARDWARE_REASON: usize = offset_of!(kvm_run, __bindgen_anon_1.hw.hardware_exit_reason);
const FAIL_REASON: usize = offset_of!(kvm_run, __bindgen_anon_1.fail_entry.hardware_entry_failure_reason);
const FAIL_CPU: usize = offset_of!(kvm_run, __bindgen_anon_1.fail_entry.cpu);
const EXCEPTION: usize = offset_of!(kvm_run, __bindgen_anon_1.ex.exception);
const EXCEPTION_CODE: usize = offset_of!(kvm_run, __bindgen_anon_1.ex.error_code);
const EOI_VECTOR: usize = offset_of!(kvm_run, __bindgen_anon_1.eoi.vector);
const NOTIFY_FLAGS: usize = offset_of!(kvm_run, __bindgen_anon_1.notify.flags);

/// What a decoded page holds: an access that a bus may claim, or any other exit with what it needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Raw<'p> {
    Access(Access<'p>),
    Other(Exit, Pending),
}

/// Decodes the page after a `KVM_RUN` that returned 0, as a kernel of that `abi` filled it.
pub(crate) fn decode(page: RunBytes<'_>, abi: Abi) -> Raw<'_> {
    let Some(reason) = page.word(EXIT_REASON) else {
        return unknown(page, u32::MAX);
    };
    let access = match reason {
        KVM_EXIT_IO => io(page),
        KVM_EXIT_MMIO => mmio(page),
        _ => None,
    };
    match access {
        Some(access) => Raw::Access(access),
        None => other(page, abi, reason),
    }
}

/// Decodes the page after `KVM_RUN`: `errno` is what it failed with, if it did (never `EINTR` or `EAGAIN`, after which
/// the page says nothing), `abi` whose kernel filled it. Never panics and never reads outside `page`, whatever the bytes are.
///
/// ```
/// use typevisor::{Exit, exit::{Abi, RunBytes, decode_exit}};
/// let mut page = [0u8; 4096];
/// page[8] = 5; // kvm_run.exit_reason = KVM_EXIT_HLT
/// assert_eq!(decode_exit(RunBytes::of_page(&page), None, Abi::newest()), Exit::Hlt);
/// ```
#[must_use]
pub fn decode_exit(page: RunBytes<'_>, errno: Option<Errno>, abi: Abi) -> Exit {
    if let Some(errno) = errno {
        return fault::failed(page, errno);
    }
    match decode(page, abi) {
        Raw::Access(access) => access.into(),
        Raw::Other(exit, _) => exit,
    }
}

/// Every exit but accesses; apart, as those are the ones that have to be fast.
#[inline(never)]
fn other(page: RunBytes<'_>, abi: Abi, reason: u32) -> Raw<'_> {
    match asking(page, abi, reason).or_else(|| Some((telling(page, abi, reason)?, Pending::Nothing))) {
        Some((exit, pending)) => Raw::Other(exit, pending),
        None => unknown(page, reason),
    }
}

/// Exits that re-entry completes, most of them with an answer.
fn asking(page: RunBytes<'_>, abi: Abi, reason: u32) -> x86::Asked {
    match reason {
        KVM_EXIT_HYPERCALL => x86::hypercall(page, abi),
        KVM_EXIT_HYPERV => hyperv::hyperv(page),
        KVM_EXIT_X86_RDMSR => x86::rdmsr(page),
        KVM_EXIT_X86_WRMSR => x86::wrmsr(page),
        KVM_EXIT_XEN => x86::xen(page),
        KVM_EXIT_TDX => x86::tdx(page),
        KVM_EXIT_SNP_REQ_CERTS => x86::snp_req_certs(page),
        _ => None,
    }
}

/// Exits that want nothing: the vCPU's state is final.
fn telling(page: RunBytes<'_>, abi: Abi, reason: u32) -> Option<Exit> {
    match reason {
        KVM_EXIT_HLT => Some(Exit::Hlt),
        KVM_EXIT_INTR => Some(Exit::Intr),
        KVM_EXIT_SHUTDOWN => Some(Exit::Shutdown),
        KVM_EXIT_FAIL_ENTRY => fail_entry(page),
        KVM_EXIT_INTERNAL_ERROR => internal::internal_error(page),
        KVM_EXIT_SYSTEM_EVENT => system_event(page, abi),
        KVM_EXIT_DEBUG => debug::debug(page, abi),
        KVM_EXIT_EXCEPTION => exception(page),
        KVM_EXIT_IRQ_WINDOW_OPEN => Some(Exit::IrqWindowOpen),
        KVM_EXIT_SET_TPR => page.long(CR8).map(|cr8| Exit::SetTpr { cr8 }),
        KVM_EXIT_TPR_ACCESS => x86::tpr_access(page),
        KVM_EXIT_NMI => Some(Exit::Nmi),
        KVM_EXIT_IOAPIC_EOI => page.byte(EOI_VECTOR).map(|vector| Exit::IoapicEoi { vector }),
        KVM_EXIT_DIRTY_RING_FULL => Some(Exit::DirtyRingFull),
        KVM_EXIT_X86_BUS_LOCK => Some(Exit::BusLock),
        KVM_EXIT_AP_RESET_HOLD => Some(Exit::ApResetHold),
        KVM_EXIT_NOTIFY => notify(page),
        KVM_EXIT_ARM_NISV => arm::nisv(page),
        KVM_EXIT_ARM_LDST64B => arm::ldst64b(page),
        KVM_EXIT_ARM_SEA => arm::sea(page),
        _ => None,
    }
}

fn fail_entry(page: RunBytes<'_>) -> Option<Exit> {
    Some(Exit::FailEntry { reason: page.long(FAIL_REASON)?, cpu: page.word(FAIL_CPU)? })
}

fn exception(page: RunBytes<'_>) -> Option<Exit> {
    Some(Exit::Exception { exception: page.word(EXCEPTION)?, error_code: page.word(EXCEPTION_CODE)? })
}

fn notify(page: RunBytes<'_>) -> Option<Exit> {
    let flags = page.word(NOTIFY_FLAGS)?;
    Some(Exit::Notify { flags, context_invalid: flags & KVM_NOTIFY_CONTEXT_INVALID != 0 })
}

/// It may be one that re-entry completes. Completing what is complete does nothing.
fn unknown(page: RunBytes<'_>, reason: u32) -> Raw<'_> {
    let hardware_reason = if reason == KVM_EXIT_UNKNOWN { page.long(HARDWARE_REASON) } else { None };
    Raw::Other(Exit::Unknown { reason, bytes: page.payload(), hardware_reason }, Pending::Completion)
}
