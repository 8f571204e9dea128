//! Why `/dev/kvm` cannot be used, and the command that would change it. Pure: an errno, the device's owner and what
//! is known of the machine go in; a cause with its remedy comes out.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::machine::{DeviceNode, Machine, Virtualization};
use crate::error::Errno;

/// The version that every kernel since 2.6.22 reports, and the only one there will be (api.rst 4.1).
pub(super) const API_VERSION: i32 = 12;

/// `/dev/kvm` (or the device named instead) cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    path: PathBuf,
    cause: Cause,
    refusal: Option<(Errno, &'static str)>,
    remedy: Box<str>,
}

/// Why the device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// There is no such file although KVM's module is there, as in a container or a bare `/dev`.
    NoNode,
    /// KVM's module is not loaded, but the processor has what it needs, as far as can be seen.
    NoModule,
    /// The processor offers no virtualization: switched off, or a virtual machine without nesting.
    NoVirtualization,
    /// The file's permissions keep this process out.
    Denied(Option<DeviceNode>),
    /// The device exists, but this process's container or security policy keeps it out.
    Forbidden,
    /// Somebody else holds the processor's virtualization extension.
    Busy,
    /// The file is not KVM's device.
    NotKvm,
    /// A KVM that speaks another version of its interface than 12.
    ApiVersion(i32),
    /// Any other refusal of the system call.
    Refused,
}

impl Unavailable {
    /// Classifies a failed `open` of `path`.
    pub(super) fn from_open(path: &Path, errno: Errno, node: Option<DeviceNode>, machine: &Machine) -> Self {
        let cause = match errno.0 {
            libc::ENOENT | libc::ENXIO | libc::ENODEV => missing(machine),
            libc::EACCES => Cause::Denied(node),
            libc::EPERM => Cause::Forbidden,
            libc::EBUSY => Cause::Busy,
            libc::EISDIR | libc::ENOTDIR => Cause::NotKvm,
            _ => Cause::Refused,
        };
        Self::new(path, cause, Some((errno, "open")), machine)
    }

    /// Judges the answer to `KVM_GET_API_VERSION`; `None` is the one right answer.
    pub(super) fn from_version(path: &Path, answer: Result<i32, Errno>, machine: &Machine) -> Option<Self> {
        match answer {
            Ok(API_VERSION) => None,
            Ok(version) => Some(Self::new(path, Cause::ApiVersion(version), None, machine)),
            Err(errno) => {
                let cause = if errno.0 == libc::EBUSY { Cause::Busy } else { Cause::NotKvm };
                Some(Self::new(path, cause, Some((errno, "KVM_GET_API_VERSION")), machine))
            }
        }
    }

    fn new(path: &Path, cause: Cause, refusal: Option<(Errno, &'static str)>, machine: &Machine) -> Self {
        let remedy = remedy(path, &cause, machine).into();
        Self { path: path.into(), cause, refusal, remedy }
    }

    /// The device that was tried.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why it cannot be used.
    #[must_use]
    pub const fn cause(&self) -> &Cause {
        &self.cause
    }

    /// What the kernel returned and the call that it refused, where it refused one.
    #[must_use]
    pub const fn refusal(&self) -> Option<(Errno, &'static str)> {
        self.refusal
    }

    /// The command, or else the sentence, that says what to do.
    #[must_use]
    pub fn remedy(&self) -> &str {
        &self.remedy
    }

    /// The cause as a sentence without the remedy.
    #[must_use]
    pub fn explanation(&self) -> String {
        let path = self.path.display();
        match &self.cause {
            Cause::NoNode => format!("{path} does not exist, though KVM's module is loaded"),
            Cause::NoModule => format!("{path} does not exist: KVM's module is not loaded"),
            Cause::NoVirtualization => {
                format!("{path} does not exist: the processor offers no virtualization")
            }
            Cause::Denied(Some(node)) => format!("{path} may not be opened: {}", ownership(node)),
            Cause::Denied(None) => {
                format!("{path} may not be reached: a folder above it is closed")
            }
            Cause::Forbidden => {
                format!("{path} may not be opened: a container or security policy forbids it")
            }
            Cause::Busy => {
                format!("{path} is busy: another hypervisor holds the virtualization extension")
            }
            Cause::NotKvm => format!("{path} is not KVM's device"),
            Cause::ApiVersion(version) => {
                format!("{path} speaks version {version} of KVM's interface, not 12")
            }
            Cause::Refused => match self.refusal {
                Some((errno, _)) => format!("{path} cannot be opened: {errno}"),
                None => format!("{path} cannot be opened"),
            },
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KVM cannot be used: {}; {}", self.explanation(), self.remedy)
    }
}

fn missing(machine: &Machine) -> Cause {
    // `kvm` alone may be the generic half, which makes no device; the vendor's half does.
    let vendor = machine.modules.iter().any(|name| name.starts_with("kvm_"));
    let built_in = machine.architecture == "aarch64" && machine.modules.iter().any(|name| &**name == "kvm");
    match machine.virtualization {
        _ if vendor || built_in => Cause::NoNode,
        Virtualization::None { .. } => Cause::NoVirtualization,
        _ => Cause::NoModule,
    }
}

fn ownership(node: &DeviceNode) -> String {
    let group = node.group.as_deref().map_or_else(|| node.gid.to_string(), Into::into);
    format!("it has mode {:04o} and belongs to user {} and group {group}", node.mode, node.uid)
}

/// What to do about `cause`.
fn remedy(path: &Path, cause: &Cause, machine: &Machine) -> String {
    let shown = path.display();
    let usual = path == Path::new(super::kvm::DEVICE);
    let container = format!("start the container with --device {shown}");
    match cause {
        Cause::NoNode | Cause::NoModule | Cause::NoVirtualization if !usual => {
            format!("name KVM's device, which is usually {}", super::kvm::DEVICE)
        }
        Cause::NoNode | Cause::NoModule if machine.container => container,
        Cause::NoNode => format!("run: sudo mknod {shown} c 10 232 && sudo chmod 666 {shown}"),
        Cause::NoModule => match machine.virtualization {
            Virtualization::Svm => "run: sudo modprobe kvm_amd".into(),
            Virtualization::Vmx => "run: sudo modprobe kvm_intel".into(),
            Virtualization::Unknown | Virtualization::None { .. } => {
                "boot this kernel at EL2, with CONFIG_KVM (on a virtual machine: switch nested virtualization on)"
                    .into()
            }
        },
        Cause::NoVirtualization => match machine.virtualization {
            Virtualization::None { in_vm: true } => {
                "this is a virtual machine: switch nested virtualization on where it runs".into()
            }
            _ => "switch VT-x or AMD-V on in the machine's firmware".into(),
        },
        Cause::Denied(node) => denied_remedy(path, node.as_ref()),
        Cause::Forbidden => container,
        Cause::Busy => "stop the other hypervisor, for example: sudo modprobe -r vboxnetadp vboxnetflt vboxdrv".into(),
        Cause::NotKvm => format!("name KVM's device, which is usually {}", super::kvm::DEVICE),
        Cause::ApiVersion(_) => "boot a kernel of 5.10 or later".into(),
        Cause::Refused => "see what the system's log says: sudo dmesg".into(),
    }
}

/// The command that lets this user in, by the group that owns the device where that is what it is for.
fn denied_remedy(path: &Path, node: Option<&DeviceNode>) -> String {
    let shown = path.display();
    match node {
        Some(DeviceNode { group: Some(group), gid, mode, .. }) if *gid != 0 && mode & 0o060 == 0o060 => {
            format!("run: sudo usermod -aG {group} $USER (then log in again)")
        }
        Some(_) => format!("run: sudo setfacl -m u:$USER:rw {shown} (until the next boot)"),
        None => format!("run: namei -l {shown} (it shows the folder that is closed)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(virtualization: Virtualization, modules: &[&str], container: bool) -> Machine {
        Machine {
            kernel: "6.18.0".into(),
            architecture: "x86_64",
            virtualization,
            modules: modules.iter().map(|&name| name.into()).collect(),
            container,
        }
    }

    fn node(gid: u32, group: Option<&str>, mode: u32) -> DeviceNode {
        DeviceNode { uid: 0, gid, group: group.map(Into::into), mode, is_device: true }
    }

    #[test]
    fn a_missing_device_has_four_explanations() {
        let none = Virtualization::None { in_vm: true };
        let bare = Virtualization::None { in_vm: false };
        let table: &[(Virtualization, &[&str], bool, Cause, &str)] = &[
            (Virtualization::Vmx, &["kvm"], false, Cause::NoModule, "run: sudo modprobe kvm_intel"),
            (Virtualization::Svm, &[], false, Cause::NoModule, "run: sudo modprobe kvm_amd"),
            (
                Virtualization::Vmx,
                &["kvm", "kvm_intel"],
                true,
                Cause::NoNode,
                "start the container with --device /dev/kvm",
            ),
            (
                Virtualization::Svm,
                &["kvm", "kvm_amd"],
                false,
                Cause::NoNode,
                "run: sudo mknod /dev/kvm c 10 232 && sudo chmod 666 /dev/kvm",
            ),
            (none, &["kvm", "kvm_pvm"], true, Cause::NoNode, "start the container with --device /dev/kvm"),
            (
                none,
                &["kvm"],
                false,
                Cause::NoVirtualization,
                "this is a virtual machine: switch nested virtualization on where it runs",
            ),
            (bare, &[], false, Cause::NoVirtualization, "switch VT-x or AMD-V on in the machine's firmware"),
        ];
        for (virtualization, modules, container, cause, remedy) in table {
            for errno in [libc::ENOENT, libc::ENXIO, libc::ENODEV] {
                let machine = machine(*virtualization, modules, *container);
                let why = Unavailable::from_open(Path::new("/dev/kvm"), Errno(errno), None, &machine);
                assert_eq!((why.cause(), why.remedy()), (cause, *remedy));
                assert_eq!(why.refusal(), Some((Errno(errno), "open")));
            }
        }
    }

    #[test]
    fn a_closed_device_is_opened_by_its_group_or_else_by_an_entry_of_its_own() {
        let machine = machine(Virtualization::Vmx, &["kvm", "kvm_intel"], false);
        let remedy = |node| {
            let why = Unavailable::from_open(Path::new("/dev/kvm"), Errno(libc::EACCES), node, &machine);
            (why.explanation(), why.remedy().to_owned())
        };
        let (explanation, command) = remedy(Some(node(104, Some("kvm"), 0o660)));
        assert_eq!(explanation, "/dev/kvm may not be opened: it has mode 0660 and belongs to user 0 and group kvm");
        assert_eq!(command, "run: sudo usermod -aG kvm $USER (then log in again)");
        let entry = "run: sudo setfacl -m u:$USER:rw /dev/kvm (until the next boot)";
        assert_eq!(remedy(Some(node(104, Some("kvm"), 0o600))).1, entry);
        assert_eq!(remedy(Some(node(104, None, 0o660))).1, entry);
        assert_eq!(remedy(Some(node(0, Some("root"), 0o660))).1, entry, "nobody is made a member of root's group");
        assert_eq!(remedy(None).1, "run: namei -l /dev/kvm (it shows the folder that is closed)");
    }

    #[test]
    fn every_other_errno_keeps_its_name() {
        let machine = machine(Virtualization::Vmx, &[], false);
        let of = |errno| Unavailable::from_open(Path::new("/dev/kvm"), Errno(errno), None, &machine);
        assert_eq!(of(libc::EPERM).cause(), &Cause::Forbidden);
        assert_eq!(of(libc::EBUSY).cause(), &Cause::Busy);
        assert_eq!(of(libc::EISDIR).cause(), &Cause::NotKvm);
        assert_eq!(of(libc::EMFILE).cause(), &Cause::Refused);
        assert!(of(libc::EMFILE).to_string().contains("Too many open files"));
    }

    #[test]
    fn only_version_12_is_accepted() {
        let machine = machine(Virtualization::Vmx, &[], false);
        let of = |answer| Unavailable::from_version(Path::new("/dev/null"), answer, &machine);
        assert_eq!(of(Ok(12)), None);
        assert_eq!(of(Ok(11)).unwrap().cause(), &Cause::ApiVersion(11));
        let not_kvm = of(Err(Errno(libc::ENOTTY))).unwrap();
        assert_eq!(not_kvm.cause(), &Cause::NotKvm);
        assert_eq!(
            not_kvm.to_string(),
            "KVM cannot be used: /dev/null is not KVM's device; name KVM's device, which is usually /dev/kvm"
        );
    }

    #[test]
    fn another_path_than_the_usual_one_is_not_explained_by_modules() {
        let machine = machine(Virtualization::Vmx, &[], true);
        let why = Unavailable::from_open(Path::new("/dev/mvk"), Errno(libc::ENOENT), None, &machine);
        assert_eq!(why.remedy(), "name KVM's device, which is usually /dev/kvm");
    }
}
