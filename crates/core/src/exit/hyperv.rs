//! `KVM_EXIT_HYPERV`: what a guest of Hyper-V asks of a part that KVM leaves to the program.

use std::mem::offset_of;

use kvm_bindings::{
    KVM_EXIT_HYPERV_HCALL, KVM_EXIT_HYPERV_SYNDBG, KVM_EXIT_HYPERV_SYNIC, kvm_hyperv_exit,
    kvm_hyperv_exit__bindgen_ty_1__bindgen_ty_1 as Synic, kvm_hyperv_exit__bindgen_ty_1__bindgen_ty_2 as Hcall,
    kvm_hyperv_exit__bindgen_ty_1__bindgen_ty_3 as Syndbg,
};

use super::{
    Exit,
    page::{PAYLOAD, RunBytes},
    pending::{Pending, Wanted},
    x86::Asked,
};

const TYPE: usize = PAYLOAD + offset_of!(kvm_hyperv_exit, type_);
const BODY: usize = PAYLOAD + offset_of!(kvm_hyperv_exit, u);
const SYNIC_MSR: usize = BODY + offset_of!(Synic, msr);
const SYNIC_CONTROL: usize = BODY + offset_of!(Synic, control);
const SYNIC_EVT_PAGE: usize = BODY + offset_of!(Synic, evt_page);
const SYNIC_MSG_PAGE: usize = BODY + offset_of!(Synic, msg_page);
const HCALL_INPUT: usize = BODY + offset_of!(Hcall, input);
const HCALL_RESULT: usize = BODY + offset_of!(Hcall, result);
const HCALL_PARAMS: usize = BODY + offset_of!(Hcall, params);
const SYNDBG_MSR: usize = BODY + offset_of!(Syndbg, msr);
const SYNDBG_CONTROL: usize = BODY + offset_of!(Syndbg, control);
const SYNDBG_STATUS: usize = BODY + offset_of!(Syndbg, status);
const SYNDBG_SEND_PAGE: usize = BODY + offset_of!(Syndbg, send_page);
const SYNDBG_RECV_PAGE: usize = BODY + offset_of!(Syndbg, recv_page);
const SYNDBG_PENDING_PAGE: usize = BODY + offset_of!(Syndbg, pending_page);

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
