//! `KVM_EXIT_HYPERV`: what a guest of Hyper-V asks of a part that KVM leaves to the program.

use std::mem::offset_of;

use kvm_bindings::{KVM_EXIT_HYPERV_HCALL, KVM_EXIT_HYPERV_SYNDBG, KVM_EXIT_HYPERV_SYNIC, kvm_run};

use super::{
    Exit,
    page::RunBytes,
    pending::{Pending, Wanted},
    x86::Asked,
};

const TYPE: usize = offset_of!(kvm_run, __bindgen_anon_1.hyperv.type_);
const SYNIC_MSR: usize = offset_of!(kvm_run, __bindgen_anon_1.hyperv.u.synic.msr);
const SYNIC_CONTROL: usize = offset_of!(kvm_run, __bindgen_anon_1.hyperv.u.synic.control);
const SYNIC_EVT_PAGE: usize = offset_of!(kvm_run, __bindgen_anon_1.hyperv.u.synic.evt_page);
const SYNIC_MSG_PAGE: usize = offset_of!(kvm_run, __bindgen_anon_1.hyperv.u.synic.msg_page);
const HCALL_INPUT: usize = offset_of!(kvm_run, __bindgen_anon_1.hyperv.u.hcall.input);
const HCALL_RESULT: usize = offset_of!(kvm_run, __bindgen_anon_1.hyperv.u.hcall.result);
const HCALL_PARAMS: usize = offset_of!(kvm_run, __bindgen_anon_1.hyperv.u.hcall.params);
const SYNDBG_MSR: usize = offset_of!(kvm_run, __bindgen_anon_1.hyperv.u.syndbg.msr);
const SYNDBG_CONTROL: usize = offset_of!(kvm_run, __bindgen_anon_1.hyperv.u.syndbg.control);
const SYNDBG_STATUS: usize = offset_of!(kvm_run, __bindgen_anon_1.hyperv.u.syndbg.status);
const SYNDBG_SEND_PAGE: usize = offset_of!(kvm_run, __bindgen_anon_1.hyperv.u.syndbg.send_page);
const SYNDBG_RECV_PAGE: usize = offset_of!(kvm_run, __bindgen_anon_1.hyperv.u.syndbg.recv_page);
const SYNDBG_PENDING_PAGE: usize = offset_of!(kvm_run, __bindgen_anon_1.hyperv.u.syndbg.pending_page);

/// What a guest of Hyper-V wants of the program. Pages are what the guest wrote to their registers, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HypervExit {
    /// `KVM_EXIT_HYPERV_SYNIC`: it changed the set-up of its synthetic interrupt controller.
    Synic {
        /// The register that it wrote.
        msr: u32,
        /// What the controller's registers hold now: `SCONTROL`.
        control: u64,
        /// `SIEFP`, the page of events.
        evt_page: u64,
        /// `SIMP`, the page of messages.
        msg_page: u64,
    },
    /// `KVM_EXIT_HYPERV_HCALL`: a hypercall. Wants its result, 8 bytes.
    Hcall {
        /// The control word, with the hypercall's number in its lower 16 bits.
        input: u64,
        /// Where its input and its output lie.
        params: [u64; 2],
    },
    /// `KVM_EXIT_HYPERV_SYNDBG`: a command to the synthetic debugger, or a new page for it. Wants its status, 8 bytes.
    Syndbg {
        /// The register that it wrote.
        msr: u32,
        /// The command.
        control: u64,
        /// The page to send.
        send_page: u64,
        /// The page to receive into.
        recv_page: u64,
        /// The page that says whether there is something to receive.
        pending_page: u64,
    },
    /// A type that this build does not know.
    Unknown {
        /// `KVM_EXIT_HYPERV_*`.
        r#type: u32,
        /// The 256 bytes of the payload.
        bytes: Box<[u8]>,
    },
}

pub(super) fn hyperv(page: RunBytes<'_>) -> Asked {
    let number = page.word(TYPE)?;
    let (what, pending) = match number {
        KVM_EXIT_HYPERV_SYNIC => (synic(page)?, Pending::Nothing),
        KVM_EXIT_HYPERV_HCALL => (hcall(page)?, Pending::Answer(Wanted::long(HCALL_RESULT))),
        KVM_EXIT_HYPERV_SYNDBG => (syndbg(page)?, Pending::Answer(Wanted::long(SYNDBG_STATUS))),
        _ => (HypervExit::Unknown { r#type: number, bytes: page.payload() }, Pending::Completion),
    };
    Some((Exit::Hyperv(what), pending))
}

fn synic(page: RunBytes<'_>) -> Option<HypervExit> {
    Some(HypervExit::Synic {
        msr: page.word(SYNIC_MSR)?,
        control: page.long(SYNIC_CONTROL)?,
        evt_page: page.long(SYNIC_EVT_PAGE)?,
        msg_page: page.long(SYNIC_MSG_PAGE)?,
    })
}

fn hcall(page: RunBytes<'_>) -> Option<HypervExit> {
    Some(HypervExit::Hcall { input: page.long(HCALL_INPUT)?, params: page.longs(HCALL_PARAMS)? })
}

fn syndbg(page: RunBytes<'_>) -> Option<HypervExit> {
    Some(HypervExit::Syndbg {
        msr: page.word(SYNDBG_MSR)?,
        control: page.long(SYNDBG_CONTROL)?,
        send_page: page.long(SYNDBG_SEND_PAGE)?,
        recv_page: page.long(SYNDBG_RECV_PAGE)?,
        pending_page: page.long(SYNDBG_PENDING_PAGE)?,
    })
}
