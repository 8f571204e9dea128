//! `doctor`: what works on this machine, what does not, why, and the command that would fix it. Never fails and never
//! panics: whatever goes wrong becomes a check with its reason.

use std::path::{Path, PathBuf};

use super::{
    Capability, Kvm, KvmOptions, checks,
    kvm::DEVICE,
    machine::{DeviceNode, Machine, Virtualization},
    unavailable::{API_VERSION, Cause, Unavailable},
};
use crate::error::Error;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It works.
    Ok,
    /// This kernel, processor or machine does not have it.
    Missing,
    /// It is there, with less than there could be.
    Limited,
    /// It should work and does not.
    Failed,
}

impl Status {
    /// The word for it: `ok`, `missing`, `limited`, `failed`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Limited => "limited",
            Self::Failed => "failed",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Name that stays the same from release to release, in kebab-case.
    pub id: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// How it went.
    pub status: Status,
    /// What was found, in one sentence.
    pub detail: String,
    /// The command, or else the sentence, that says what to do; absent where nothing is to be done.
    pub remedy: Option<String>,
}

/// What is known of the machine, whatever works on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Kernel, architecture, processor, modules.
    pub machine: Machine,
    /// The device that was looked at.
    pub device: PathBuf,
    /// Its owner and mode, if it is there.
    pub node: Option<DeviceNode>,
    /// The version of KVM's interface: 12, if KVM could be asked.
    pub api_version: Option<i32>,
    /// Largest number of vCPUs of one VM, if KVM could be asked.
    pub max_vcpus: Option<i32>,
    /// Number of memory slots of one VM, if KVM could be asked.
    pub memory_slots: Option<i32>,
}

impl Facts {
    /// Names and values to show to people, in that order; what is not known is left out.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let machine = &self.machine;
        let virtualization = match machine.virtualization {
            Virtualization::Vmx => Some("Intel VT-x"),
            Virtualization::Svm => Some("AMD-V"),
            Virtualization::None { in_vm: true } => Some("none shown (this is a virtual machine)"),
            Virtualization::None { in_vm: false } => Some("none shown"),
            Virtualization::Unknown => None,
        };
        let node = self.node.as_ref().map(|node| {
            let group = node.group.as_deref().map_or_else(|| node.gid.to_string(), ToString::to_string);
            format!("owner {}, group {group}, mode {:03o}", node.uid, node.mode)
        });
        let rows = [
            ("kernel", Some(machine.kernel.to_string())),
            ("architecture", Some(machine.architecture.to_owned())),
            ("processor", virtualization.map(str::to_owned)),
            ("modules", Some(machine.modules.join(", ")).filter(|modules| !modules.is_empty())),
            ("container", machine.container.then(|| "yes".to_owned())),
            ("device", Some(self.device.display().to_string())),
            ("access", node),
            ("api version", self.api_version.map(|version| version.to_string())),
            ("vCPUs per VM", self.max_vcpus.map(|count| count.to_string())),
            ("slots per VM", self.memory_slots.map(|count| count.to_string())),
        ];
        rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// What [`doctor`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoctorReport {
    /// Whether VMs can be made and run here at all.
    pub usable: bool,
    /// What is known of the machine.
    pub facts: Facts,
    /// What was looked at, in the order in which it matters. Without a usable KVM, what would ask it is left out.
    pub checks: Vec<Check>,
}

/// Ids of the checks without which nothing runs.
const NEEDED: [&str; 4] = ["kvm-device", "api-version", "vm", "vcpu"];

/// Examines KVM (`path`, or `/dev/kvm`) and what else of this machine a VM needs. Makes and closes one or two scratch
/// VMs; changes nothing.
///
/// ```
/// let report = typevisor::host::doctor(None);
/// for check in &report.checks {
///     println!("{:8} {}: {}", check.status.as_str(), check.title, check.detail);
/// }
/// ```
#[must_use]
pub fn doctor(path: Option<&Path>) -> DoctorReport {
    let device = path.unwrap_or(Path::new(DEVICE)).to_path_buf();
    let mut facts = Facts {
        machine: Machine::read(),
        node: DeviceNode::read(&device),
        device,
        api_version: None,
        max_vcpus: None,
        memory_slots: None,
    };
    let mut report = Vec::new();
    match Kvm::open(KvmOptions { path: Some(facts.device.clone()), hide: Vec::new() }) {
        Ok(kvm) => {
            facts.api_version = Some(API_VERSION);
            facts.max_vcpus = Some(kvm.capability(Capability::MaxVcpus));
            facts.memory_slots = Some(kvm.capability(Capability::NrMemslots));
            report.push(ok("kvm-device", "KVM device", format!("{} is open to this process", facts.device.display())));
            report.push(ok("api-version", "KVM interface", format!("version {API_VERSION}")));
            checks::kvm(&kvm, &facts.machine.kernel, &mut report);
        }
        Err(Error::KvmUnavailable { reason }) => report.extend(unavailable(&reason, &mut facts)),
        Err(error) => report.push(failed("kvm-device", "KVM device", error.to_string())),
    }
    checks::machine(facts.memory_slots, &mut report);
    let usable =
        NEEDED.iter().all(|needed| report.iter().any(|check| check.id == *needed && check.status == Status::Ok));
    DoctorReport { usable, facts, checks: report }
}

/// The checks that say why KVM cannot be used.
fn unavailable(reason: &Unavailable, facts: &mut Facts) -> Vec<Check> {
    let detail = reason.explanation();
    let remedy = Some(reason.remedy().to_owned());
    match reason.cause() {
        Cause::ApiVersion(version) => {
            facts.api_version = Some(*version);
            let device = ok("kvm-device", "KVM device", format!("{} is open to this process", reason.path().display()));
            vec![device, Check { id: "api-version", title: "KVM interface", status: Status::Failed, detail, remedy }]
        }
        Cause::NoNode | Cause::NoModule | Cause::NoVirtualization => {
            vec![Check { id: "kvm-device", title: "KVM device", status: Status::Missing, detail, remedy }]
        }
        _ => vec![Check { id: "kvm-device", title: "KVM device", status: Status::Failed, detail, remedy }],
    }
}

/// A check that found what it looked for.
pub(super) fn ok(id: &'static str, title: &'static str, detail: String) -> Check {
    Check { id, title, status: Status::Ok, detail, remedy: None }
}

/// A check that found nothing, with the reason and nothing to be done by a command.
pub(super) fn missing(id: &'static str, title: &'static str, detail: String) -> Check {
    Check { id, title, status: Status::Missing, detail, remedy: None }
}

/// A check of something that should have worked.
pub(super) fn failed(id: &'static str, title: &'static str, detail: String) -> Check {
    Check { id, title, status: Status::Failed, detail, remedy: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_device_the_report_says_so_first_and_still_looks_at_the_machine() {
        let report = doctor(Some(Path::new("/no/such/kvm")));
        assert!(!report.usable);
        assert_eq!((report.checks[0].id, report.checks[0].status == Status::Ok), ("kvm-device", false));
        assert_eq!(report.checks[0].remedy.as_deref(), Some("name KVM's device, which is usually /dev/kvm"));
        assert!(report.checks.iter().any(|check| check.id == "userfaultfd"));
        let rows = report.facts.rows();
        assert!(rows.contains(&("device", "/no/such/kvm".to_owned())));
        assert!(rows.iter().all(|(name, _)| !matches!(*name, "access" | "api version")), "unknown is left out");
        assert_eq!((report.facts.api_version, report.facts.node), (None, None));
    }

    #[test]
    fn a_device_that_is_not_kvm_is_a_failure_not_an_absence() {
        let report = doctor(Some(Path::new("/dev/null")));
        assert!(!report.usable);
        assert_eq!((report.checks[0].id, report.checks[0].status), ("kvm-device", Status::Failed));
    }

    #[test]
    fn ids_are_unique_and_kebab_case() {
        let report = doctor(None);
        for (index, check) in report.checks.iter().enumerate() {
            assert!(check.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'));
            assert!(report.checks[..index].iter().all(|other| other.id != check.id), "{} twice", check.id);
            assert!(!check.detail.is_empty());
        }
    }
}
