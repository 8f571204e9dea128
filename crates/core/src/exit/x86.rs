//! Exits of x86 that hand one of the guest's requests to the program: hypercalls, model-specific registers, Xen, confidential
//! guests. Each with what it wants in return.

use std::mem::offset_of;

use kvm_bindings::{
    KVM_EXIT_XEN_HCALL, KVM_MSR_EXIT_REASON_FILTER, KVM_MSR_EXIT_REASON_INVAL, KVM_MSR_EXIT_REASON_UNKNOWN, kvm_run,
};

use super::{
    Exit,
    page::{PAYLOAD, RunBytes},
    pending::{Pending, Wanted},
    system_event::{Abi, Arch},
};

const CALL_NR: usize = offset_of!(kvm_run, __bindgen_anon_1.hypercall.nr);
/// `include/uapi/linux/kvm_para.h`.
const KVM_HC_MAP_GPA_RANGE: u64 = 12;
const CALL_ARGS: usize = offset_of!(kvm_run, __bindgen_anon_1.hypercall.args);
const CALL_RET: usize = offset_of!(kvm_run, __bindgen_anon_1.hypercall.ret);
const CALL_FLAGS: usize = offset_of!(kvm_run, __bindgen_anon_1.hypercall.__bindgen_anon_1);
const TPR_RIP: usize = offset_of!(kvm_run, __bindgen_anon_1.tpr_access.rip);
const TPR_IS_WRITE: usize = offset_of!(kvm_run, __bindgen_anon_1.tpr_access.is_write);
const MSR_ERROR: usize = offset_of!(kvm_run, __bindgen_anon_1.msr.error);
const MSR_REASON: usize = offset_of!(kvm_run, __bindgen_anon_1.msr.reason);
const MSR_INDEX: usize = offset_of!(kvm_run, __bindgen_anon_1.msr.index);
const MSR_DATA: usize = offset_of!(kvm_run, __bindgen_anon_1.msr.data);
const XEN_TYPE: usize = offset_of!(kvm_run, __bindgen_anon_1.xen.type_);
const XEN_LONGMODE: usize = offset_of!(kvm_run, __bindgen_anon_1.xen.u.hcall.longmode);
const XEN_CPL: usize = offset_of!(kvm_run, __bindgen_anon_1.xen.u.hcall.cpl);
const XEN_INPUT: usize = offset_of!(kvm_run, __bindgen_anon_1.xen.u.hcall.input);
const XEN_RESULT: usize = offset_of!(kvm_run, __bindgen_anon_1.xen.u.hcall.result);
const XEN_PARAMS: usize = offset_of!(kvm_run, __bindgen_anon_1.xen.u.hcall.params);
// struct tdx; kvm-bindings lacks it
const TDX_FLAGS: usize = PAYLOAD;
const TDX_NR: usize = PAYLOAD + 8;
const TDX_RET: usize = PAYLOAD + 16;
const TDX_DATA: usize = PAYLOAD + 24;
/// `ret` and the words behind it, into which `GetTdVmCallInfo` wants four values.
const TDX_OUTPUT_SIZE: usize = 6 * 8;
// struct kvm_exit_snp_req_certs; kvm-bindings lacks it
const CERTS_GPA: usize = PAYLOAD;
const CERTS_NPAGES: usize = PAYLOAD + 8;
const CERTS_RET: usize = PAYLOAD + 16;
/// `npages`, which the kernel reads where `ret` is `ENOSPC`, and `ret`.
const CERTS_OUTPUT_SIZE: usize = 2 * 8;

/// Why a guest's access to a model-specific register became an exit, by `KVM_MSR_EXIT_REASON_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MsrReason {
    /// An invalid value, or bits that are reserved.
    Inval,
    /// A register that KVM does not know.
    Unknown,
    /// A filter (`KVM_X86_SET_MSR_FILTER`) keeps it from the guest.
    Filter,
    /// None of these; the exit has the bits.
    Other,
}

impl MsrReason {
    /// The reason that these bits name, one at a time.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        match bits {
            KVM_MSR_EXIT_REASON_INVAL => Self::Inval,
            KVM_MSR_EXIT_REASON_UNKNOWN => Self::Unknown,
            KVM_MSR_EXIT_REASON_FILTER => Self::Filter,
            _ => Self::Other,
        }
    }

    /// Its bit; none for [`MsrReason::Other`].
    #[must_use]
    pub const fn bits(self) -> Option<u32> {
        match self {
            Self::Inval => Some(KVM_MSR_EXIT_REASON_INVAL),
            Self::Unknown => Some(KVM_MSR_EXIT_REASON_UNKNOWN),
            Self::Filter => Some(KVM_MSR_EXIT_REASON_FILTER),
            Self::Other => None,
        }
    }

    /// The reason of that name, which an exit can be asked for.
    ///
    /// ```
    /// use typevisor::exit::MsrReason;
    /// assert_eq!(MsrReason::from_name("inval"), Some(MsrReason::Inval));
    /// assert_eq!(MsrReason::from_name("other"), None);
    /// ```
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Inval, Self::Unknown, Self::Filter].into_iter().find(|reason| reason.name() == name)
    }

    /// The name in the header without `KVM_MSR_EXIT_REASON_`, in kebab-case; `other`.
    ///
    /// ```
    /// use typevisor::exit::MsrReason;
    /// assert_eq!(MsrReason::from_bits(4).name(), "filter");
    /// ```
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inval => "inval",
            Self::Unknown => "unknown",
            Self::Filter => "filter",
            Self::Other => "other",
        }
    }
}

/// What a Xen guest wants of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum XenExit {
    /// `KVM_EXIT_XEN_HCALL`: a hypercall. Wants its result, 8 bytes.
    Hcall {
        /// Whether the guest runs 64-bit code.
        longmode: bool,
        /// Its privilege level, 0 to 3.
        cpl: u32,
        /// The hypercall's number.
        input: u64,
        /// Its parameters.
        params: Box<[u64; 6]>,
    },
    /// A type that this build does not know.
    Unknown {
        /// `KVM_EXIT_XEN_*`.
        r#type: u32,
        /// The 256 bytes of the payload.
        bytes: Box<[u8]>,
    },
}

/// An exit, and what the vCPU needs after it.
pub(super) type Asked = Option<(Exit, Pending)>;

/// x86 calls with arguments and waits for a value. On aarch64 arguments and result are in the guest's registers, and the
/// program counter is behind the call.
pub(super) fn hypercall(page: RunBytes<'_>, abi: Abi) -> Asked {
    let (nr, flags) = (page.long(CALL_NR)?, page.long(CALL_FLAGS)?);
    let args: [u64; 6] = page.longs(CALL_ARGS)?;
    Some(match abi.arch {
        Arch::X86_64 => {
            // KVM writes the arguments that the call has, and before 6.4 the lower half of the flags alone.
            let count = if nr == KVM_HC_MAP_GPA_RANGE { 3 } else { args.len() };
            let args = args.into_iter().take(count).collect();
            let flags = flags & u64::from(u32::MAX);
            (Exit::Hypercall { nr, args: Some(args), flags }, Pending::Answer(Wanted::long(CALL_RET)))
        }
        Arch::Aarch64 => (Exit::Hypercall { nr, args: None, flags }, Pending::Nothing),
    })
}

pub(super) fn tpr_access(page: RunBytes<'_>) -> Option<Exit> {
    Some(Exit::TprAccess { rip: page.long(TPR_RIP)?, write: page.word(TPR_IS_WRITE)? != 0 })
}

pub(super) fn rdmsr(page: RunBytes<'_>) -> Asked {
    let exit = Exit::Rdmsr { reason: page.word(MSR_REASON)?, index: page.word(MSR_INDEX)? };
    page.long(MSR_DATA)?;
    Some((exit, Pending::Answer(Wanted::long(MSR_DATA).or_fault(MSR_ERROR))))
}

/// The kernel has put a 0 into `error`: running on accepts the write.
pub(super) fn wrmsr(page: RunBytes<'_>) -> Asked {
    let (reason, index, data) = (page.word(MSR_REASON)?, page.word(MSR_INDEX)?, page.long(MSR_DATA)?);
    Some((Exit::Wrmsr { reason, index, data }, Pending::Answer(Wanted::only_fault(MSR_ERROR))))
}

pub(super) fn xen(page: RunBytes<'_>) -> Asked {
    let number = page.word(XEN_TYPE)?;
    if number != KVM_EXIT_XEN_HCALL {
        let unknown = XenExit::Unknown { r#type: number, bytes: page.payload() };
        return Some((Exit::Xen(unknown), Pending::Completion));
    }
    let call = XenExit::Hcall {
        longmode: page.word(XEN_LONGMODE)? != 0,
        cpl: page.word(XEN_CPL)?,
        input: page.long(XEN_INPUT)?,
        params: Box::new(page.longs(XEN_PARAMS)?),
    };
    Some((Exit::Xen(call), Pending::Answer(Wanted::long(XEN_RESULT))))
}

/// The kernel has put an answer into `ret`, and zeros where values are wanted.
pub(super) fn tdx(page: RunBytes<'_>) -> Asked {
    let (flags, nr, ret) = (page.long(TDX_FLAGS)?, page.long(TDX_NR)?, page.long(TDX_RET)?);
    let exit = Exit::Tdx { flags, nr, ret, data: Box::new(page.longs(TDX_DATA)?) };
    Some((exit, Pending::Answer(Wanted::long(TDX_RET).or_whole(TDX_RET, TDX_OUTPUT_SIZE).or_none())))
}

/// The 0 that the kernel has put into `ret` says that the certificates are there, which nobody but the program knows.
pub(super) fn snp_req_certs(page: RunBytes<'_>) -> Asked {
    let exit = Exit::SnpReqCerts { gpa: page.long(CERTS_GPA)?, npages: page.long(CERTS_NPAGES)? };
    page.long(CERTS_RET)?;
    Some((exit, Pending::Answer(Wanted::long(CERTS_RET).or_whole(CERTS_NPAGES, CERTS_OUTPUT_SIZE))))
}
