//! Exits as plain objects. Where one of the core's has several forms, each is a kind of its own here.

use napi::bindgen_prelude::{BigInt, Uint8Array};
use napi_derive::napi;
use typevisor::{
    Exit,
    exit::{Debug, FaultAccess, FaultKind, HypervExit, InternalError, MsrReason, SystemEventPayload, XenExit},
};

use crate::convert::signed;

/// `NativeExit` in ts/native.ts.
#[napi(discriminant = "kind", discriminant_case = "kebab-case", object_from_js = false, use_nullable = true)]
pub enum NativeExit {
    Io {
        out: bool,
        port: u32,
        size: u32,
        count: u32,
        data: Uint8Array,
    },
    Mmio {
        write: bool,
        gpa: i64,
        size: u32,
        data: Uint8Array,
    },
    Hlt,
    Intr,
    Shutdown,
    FailEntry {
        reason: BigInt,
        cpu: u32,
    },
    InternalError {
        suberror: u32,
        name: &'static str,
        data: Vec<BigInt>,
        flags: Option<BigInt>,
        instruction: Option<Uint8Array>,
    },
    SystemEvent {
        event: &'static str,
        r#type: u32,
        data: Vec<BigInt>,
        flags: Option<BigInt>,
    },
    Hypercall {
        nr: BigInt,
        args: Option<Vec<BigInt>>,
        flags: BigInt,
    },
    Debug {
        exception: u32,
        pc: BigInt,
        dr6: Option<BigInt>,
        dr7: Option<BigInt>,
    },
    DebugArm {
        hsr: BigInt,
        far: Option<BigInt>,
    },
    Exception {
        exception: u32,
        error_code: u32,
    },
    IrqWindowOpen,
    SetTpr {
        cr8: BigInt,
    },
    TprAccess {
        rip: BigInt,
        write: bool,
    },
    Nmi,
    IoapicEoi {
        vector: u32,
    },
    HypervSynic {
        msr: u32,
        control: BigInt,
        evt_page: BigInt,
        msg_page: BigInt,
    },
    HypervHcall {
        input: BigInt,
        params: Vec<BigInt>,
    },
    HypervSyndbg {
        msr: u32,
        control: BigInt,
        send_page: BigInt,
        recv_page: BigInt,
        pending_page: BigInt,
    },
    HypervUnknown {
        number: u32,
        bytes: Uint8Array,
    },
    XenHcall {
        longmode: bool,
        cpl: u32,
        input: BigInt,
        params: Vec<BigInt>,
    },
    XenUnknown {
        number: u32,
        bytes: Uint8Array,
    },
    Rdmsr {
        reason: &'static str,
        reason_bits: u32,
        index: u32,
    },
    Wrmsr {
        reason: &'static str,
        reason_bits: u32,
        index: u32,
        data: BigInt,
    },
    DirtyRingFull,
    BusLock,
    ApResetHold,
    Notify {
        flags: u32,
        context_invalid: bool,
    },
    MemoryFault {
        gpa: i64,
        size: i64,
        flags: BigInt,
        private: bool,
        rwx: Option<&'static str>,
        errno: i32,
        cause: &'static str,
    },
    ArmNisv {
        wide: bool,
        esr_iss: BigInt,
        fault_ipa: i64,
    },
    ArmSea {
        flags: BigInt,
        esr: BigInt,
        gva: Option<BigInt>,
        gpa: Option<i64>,
    },
    Tdx {
        flags: BigInt,
        nr: BigInt,
        ret: BigInt,
        data: Vec<BigInt>,
    },
    SnpReqCerts {
        gpa: BigInt,
        npages: BigInt,
    },
    RunFailed {
        errno: i32,
    },
    Unknown {
        reason: u32,
        bytes: Uint8Array,
        hardware_reason: Option<BigInt>,
    },
}

fn bytes(data: &[u8]) -> Uint8Array {
    Uint8Array::from(data.to_vec())
}

fn words(data: &[u64]) -> Vec<BigInt> {
    data.iter().map(|word| (*word).into()).collect()
}

impl From<Exit> for NativeExit {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::IoOut { port, size, count, data } => {
                Self::Io { out: true, port: port.into(), size: size.into(), count, data: bytes(&data) }
            }
            Exit::IoIn { port, size, count } => {
                Self::Io { out: false, port: port.into(), size: size.into(), count, data: bytes(&[]) }
            }
            Exit::MmioWrite { gpa, data } => {
                let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
                Self::Mmio { write: true, gpa: signed(gpa), size, data: bytes(&data) }
            }
            Exit::MmioRead { gpa, size } => {
                Self::Mmio { write: false, gpa: signed(gpa), size: size.into(), data: bytes(&[]) }
            }
            rarer => rare(rarer),
        }
    }
}

/// All but accesses, of which there are thousands to each of these.
fn rare(exit: Exit) -> NativeExit {
    match exit {
        Exit::Hlt => NativeExit::Hlt,
        Exit::Intr => NativeExit::Intr,
        Exit::Shutdown => NativeExit::Shutdown,
        Exit::FailEntry { reason, cpu } => NativeExit::FailEntry { reason: reason.into(), cpu },
        Exit::InternalError { suberror, data, flags, instruction } => NativeExit::InternalError {
            suberror,
            name: InternalError::from_number(suberror).name(),
            data: words(&data),
            flags: flags.map(Into::into),
            instruction: instruction.map(|code| bytes(&code)),
        },
        Exit::SystemEvent { event, r#type, payload } => {
            let (data, flags) = match payload {
                SystemEventPayload::Data(data) => (words(&data), None),
                SystemEventPayload::Flags(flags) => (Vec::new(), Some(flags.into())),
                SystemEventPayload::None => (Vec::new(), None),
            };
            NativeExit::SystemEvent { event: event.name(), r#type, data, flags }
        }
        Exit::Debug(what) => debug(what),
        Exit::Exception { exception, error_code } => NativeExit::Exception { exception, error_code },
        Exit::IrqWindowOpen => NativeExit::IrqWindowOpen,
        Exit::SetTpr { cr8 } => NativeExit::SetTpr { cr8: cr8.into() },
        Exit::TprAccess { rip, write } => NativeExit::TprAccess { rip: rip.into(), write },
        Exit::Nmi => NativeExit::Nmi,
        Exit::IoapicEoi { vector } => NativeExit::IoapicEoi { vector: vector.into() },
        Exit::DirtyRingFull => NativeExit::DirtyRingFull,
        Exit::BusLock => NativeExit::BusLock,
        Exit::ApResetHold => NativeExit::ApResetHold,
        Exit::Notify { flags, context_invalid } => NativeExit::Notify { flags, context_invalid },
        Exit::RunFailed { errno } => NativeExit::RunFailed { errno: -errno.0 },
        Exit::Unknown { reason, bytes: raw, hardware_reason } => {
            NativeExit::Unknown { reason, bytes: bytes(&raw), hardware_reason: hardware_reason.map(Into::into) }
        }
        request => asked(request),
    }
}

/// What a guest, or memory, asks of the program.
fn asked(exit: Exit) -> NativeExit {
    match exit {
        Exit::Hypercall { nr, args, flags } => {
            NativeExit::Hypercall { nr: nr.into(), args: args.map(|args| words(&args)), flags: flags.into() }
        }
        Exit::Hyperv(what) => hyperv(what),
        Exit::Xen(what) => xen(what),
        Exit::Rdmsr { reason, index } => {
            NativeExit::Rdmsr { reason: MsrReason::from_bits(reason).name(), reason_bits: reason, index }
        }
        Exit::Wrmsr { reason, index, data } => {
            let name = MsrReason::from_bits(reason).name();
            NativeExit::Wrmsr { reason: name, reason_bits: reason, index, data: data.into() }
        }
        Exit::MemoryFault { gpa, size, flags, access, rwx, errno, cause } => NativeExit::MemoryFault {
            gpa: signed(gpa),
            size: signed(size),
            flags: flags.into(),
            private: access == FaultAccess::Private,
            rwx: rwx.map(FaultKind::name),
            errno: -errno.0,
            cause: cause.name(),
        },
        Exit::ArmNisv { esr_iss, fault_ipa } => {
            NativeExit::ArmNisv { wide: false, esr_iss: esr_iss.into(), fault_ipa: signed(fault_ipa) }
        }
        Exit::ArmLdst64b { esr_iss, fault_ipa } => {
            NativeExit::ArmNisv { wide: true, esr_iss: esr_iss.into(), fault_ipa: signed(fault_ipa) }
        }
        Exit::ArmSea { flags, esr, gva, gpa } => {
            NativeExit::ArmSea { flags: flags.into(), esr: esr.into(), gva: gva.map(Into::into), gpa: gpa.map(signed) }
        }
        Exit::Tdx { flags, nr, ret, data } => {
            NativeExit::Tdx { flags: flags.into(), nr: nr.into(), ret: ret.into(), data: words(&*data) }
        }
        Exit::SnpReqCerts { gpa, npages } => NativeExit::SnpReqCerts { gpa: gpa.into(), npages: npages.into() },
        // `Exit` is non-exhaustive for others; a kind that this file does not know yet arrives with its name lost
        // but never as something else. crates/core/tests/header.rs sees to it that there is none.
        _ => NativeExit::Unknown { reason: u32::MAX, bytes: bytes(&[]), hardware_reason: None },
    }
}

fn debug(what: Debug) -> NativeExit {
    match what {
        Debug::X86 { exception, pc, registers } => NativeExit::Debug {
            exception,
            pc: pc.into(),
            dr6: registers.map(|registers| registers.dr6.into()),
            dr7: registers.map(|registers| registers.dr7.into()),
        },
        Debug::Aarch64 { hsr, far } => NativeExit::DebugArm { hsr: hsr.into(), far: far.map(Into::into) },
    }
}

fn hyperv(what: HypervExit) -> NativeExit {
    match what {
        HypervExit::Synic { msr, control, evt_page, msg_page } => NativeExit::HypervSynic {
            msr,
            control: control.into(),
            evt_page: evt_page.into(),
            msg_page: msg_page.into(),
        },
        HypervExit::Hcall { input, params } => NativeExit::HypervHcall { input: input.into(), params: words(&params) },
        HypervExit::Syndbg { msr, control, send_page, recv_page, pending_page } => NativeExit::HypervSyndbg {
            msr,
            control: control.into(),
            send_page: send_page.into(),
            recv_page: recv_page.into(),
            pending_page: pending_page.into(),
        },
        HypervExit::Unknown { r#type, bytes: raw } => NativeExit::HypervUnknown { number: r#type, bytes: bytes(&raw) },
        // As above.
        _ => NativeExit::HypervUnknown { number: u32::MAX, bytes: bytes(&[]) },
    }
}

fn xen(what: XenExit) -> NativeExit {
    match what {
        XenExit::Hcall { longmode, cpl, input, params } => {
            NativeExit::XenHcall { longmode, cpl, input: input.into(), params: words(&*params) }
        }
        XenExit::Unknown { r#type, bytes: raw } => NativeExit::XenUnknown { number: r#type, bytes: bytes(&raw) },
        // As above.
        _ => NativeExit::XenUnknown { number: u32::MAX, bytes: bytes(&[]) },
    }
}
