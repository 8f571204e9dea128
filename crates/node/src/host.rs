//! The host: doctor, `/dev/kvm`, capabilities.

use std::path::PathBuf;

use napi_derive::napi;
use typevisor::{
    Error, Kvm, Result,
    host::{Capabilities, Capability, Check, DoctorReport, Facts, KvmOptions, Virtualization, doctor as core_doctor},
};

use crate::{
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
    pub fn create_vm(&self, options: VmOptions) -> Outcome<NativeVm> {
        outcome(self.open().and_then(|kvm| create_vm(kvm, &options, &self.mailbox)))
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
    let unknown = Error::InvalidArgument { what: "hide", expected: "a list of capability names" };
    let hide = options.hide.iter().map(|name| Capability::from_name(name)).collect::<Option<Vec<_>>>().ok_or(unknown);
    let path = options.path.map(PathBuf::from);
    outcome(hide.and_then(|hide| Kvm::open(KvmOptions { path, hide })).map(|kvm| NativeKvm { kvm: Some(kvm), mailbox }))
}

/// What works on this machine, and why not.
#[napi(catch_unwind)]
pub fn doctor(path: Option<String>) -> NativeDoctorReport {
    let report = core_doctor(path.map(PathBuf::from).as_deref());
    let DoctorReport { usable, facts: found, checks } = report;
    NativeDoctorReport { usable, facts: facts(&found), checks: checks.into_iter().map(Into::into).collect() }
}

impl From<Check> for NativeCheck {
    fn from(Check { id, title, status, detail, remedy }: Check) -> Self {
        Self { id, title, status: status.as_str(), detail, remedy }
    }
}

/// The facts as text, in the order to show them; what is not known is left out.
fn facts(facts: &Facts) -> Vec<NativeFact> {
    let machine = &facts.machine;
    let virtualization = match machine.virtualization {
        Virtualization::Vmx => Some("Intel VT-x"),
        Virtualization::Svm => Some("AMD-V"),
        Virtualization::None { in_vm: true } => Some("none shown (this is a virtual machine)"),
        Virtualization::None { in_vm: false } => Some("none shown"),
        Virtualization::Unknown => None,
    };
    let node = facts.node.as_ref().map(|node| {
        let group = node.group.as_deref().map_or_else(|| node.gid.to_string(), ToString::to_string);
        format!("owner {}, group {group}, mode {:03o}", node.uid, node.mode)
    });
    let list = [
        ("kernel", Some(machine.kernel.to_string())),
        ("architecture", Some(machine.architecture.to_owned())),
        ("processor", virtualization.map(str::to_owned)),
        ("modules", Some(machine.modules.join(", ")).filter(|modules| !modules.is_empty())),
        ("container", machine.container.then(|| "yes".to_owned())),
        ("device", Some(facts.device.display().to_string())),
        ("access", node),
        ("api version", facts.api_version.map(|version| version.to_string())),
        ("vCPUs per VM", facts.max_vcpus.map(|count| count.to_string())),
        ("slots per VM", facts.memory_slots.map(|count| count.to_string())),
    ];
    list.into_iter().filter_map(|(name, value)| Some(NativeFact { name, value: value? })).collect()
}
