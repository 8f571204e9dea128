//! The host: doctor, `/dev/kvm`, capabilities.

use std::path::PathBuf;

use napi_derive::napi;
use typevisor::{
    Error, Kvm, Result,
    host::{Capabilities, Capability, Check, DoctorReport, KvmOptions, doctor as core_doctor},
};

use crate::{
    cpuid::{NativeCpuidEntry, entries},
    environment::Mailbox,
    failure::{Outcome, outcome},
    vm::{NativeVm, VmOptions, create_vm},
};

/// `NativeCapability` in ts/native.ts.
#[napi(object, object_from_js = false)]
pub struct NativeCapability {
    pub name: &'static str,
    pub number: u32,
    pub value: i32,
    pub meaning: &'static str,
    pub since: &'static str,
}

/// `NativeCheck` in ts/native.ts.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeCheck {
    pub id: &'static str,
    pub title: &'static str,
    pub status: &'static str,
    pub detail: String,
    pub remedy: Option<String>,
}

/// `NativeFact` in ts/native.ts.
#[napi(object, object_from_js = false)]
pub struct NativeFact {
    pub name: &'static str,
    pub value: String,
}

/// `NativeDoctorReport` in ts/native.ts.
#[napi(object, object_from_js = false)]
pub struct NativeDoctorReport {
    pub usable: bool,
    pub facts: Vec<NativeFact>,
    pub checks: Vec<NativeCheck>,
}

/// `openKvm`'s argument.
#[napi(object, object_to_js = false, use_nullable = true)]
pub struct OpenOptions {
    pub path: Option<String>,
    pub hide: Vec<String>,
}

/// `NativeKvm` in ts/native.ts.
#[napi]
pub struct NativeKvm {
    /// None once closed: its VMs keep what they need.
    kvm: Option<Kvm>,
    mailbox: Mailbox,
}

#[napi]
impl NativeKvm {
    #[napi(catch_unwind)]
    pub fn capabilities(&self) -> Outcome<Vec<NativeCapability>> {
        outcome(self.open().map(|kvm| capabilities(kvm.capabilities())))
    }

    #[napi(catch_unwind)]
    pub fn supported_cpuid(&self) -> Outcome<Vec<NativeCpuidEntry>> {
        outcome(self.open().and_then(|kvm| Ok(entries(kvm.supported_cpuid()?))))
    }

    #[napi(catch_unwind)]
    pub fn supported_hyperv_cpuid(&self) -> Outcome<Vec<NativeCpuidEntry>> {
        outcome(self.open().and_then(|kvm| Ok(entries(&kvm.supported_hyperv_cpuid()?))))
    }

    #[napi(catch_unwind)]
    pub fn create_vm(&self, options: VmOptions) -> Outcome<NativeVm> {
        outcome(self.open().and_then(|kvm| create_vm(kvm, options, &self.mailbox)))
    }

    #[napi(catch_unwind)]
    pub fn close(&mut self) {
        self.kvm = None;
    }
}

impl NativeKvm {
    fn open(&self) -> Result<&Kvm> {
        self.kvm.as_ref().ok_or(Error::Closed { what: "KVM device" })
    }
}

pub(crate) fn capabilities(capabilities: &Capabilities) -> Vec<NativeCapability> {
    let row = |c: typevisor::host::CapabilityValue| NativeCapability {
        name: c.name,
        number: c.number,
        value: c.value,
        meaning: c.meaning,
        since: c.since,
    };
    capabilities.iter().map(row).collect()
}

pub(crate) fn open_kvm(options: OpenOptions, mailbox: Mailbox) -> Outcome<NativeKvm> {
    let named = |name: &String| {
        Capability::from_name(name).ok_or_else(|| Error::UnknownCapability { name: name.as_str().into() })
    };
    let hide = options.hide.iter().map(named).collect::<Result<Vec<_>>>();
    let path = options.path.map(PathBuf::from);
    outcome(hide.and_then(|hide| Kvm::open(KvmOptions { path, hide })).map(|kvm| NativeKvm { kvm: Some(kvm), mailbox }))
}

/// What works on this machine, and why not.
#[napi(catch_unwind)]
pub fn doctor(path: Option<String>) -> NativeDoctorReport {
    let report = core_doctor(path.map(PathBuf::from).as_deref());
    let DoctorReport { usable, facts, checks } = report;
    let facts = facts.rows().into_iter().map(|(name, value)| NativeFact { name, value }).collect();
    NativeDoctorReport { usable, facts, checks: checks.into_iter().map(Into::into).collect() }
}

impl From<Check> for NativeCheck {
    fn from(Check { id, title, status, detail, remedy }: Check) -> Self {
        Self { id, title, status: status.as_str(), detail, remedy }
    }
}
