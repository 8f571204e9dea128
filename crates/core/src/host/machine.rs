//! Facts about the machine that explain why KVM works or not: processor, modules, owner of the device, container.
//! The parsing half takes text; the reading half opens files of `/proc`, `/sys` and `/etc` and never fails.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

/// What the processor offers for virtual machines, as far as this kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Virtualization {
    /// Intel VT-x: `vmx` in `/proc/cpuinfo`.
    Vmx,
    /// AMD-V: `svm` in `/proc/cpuinfo`.
    Svm,
    /// Not shown: aarch64, where only the kernel knows whether it was booted at EL2.
    Unknown,
    /// Neither `vmx` nor `svm`; `in_vm` is set where a hypervisor runs this machine.
    None {
        /// Whether this machine is itself a virtual machine.
        in_vm: bool,
    },
}

/// Owner and mode of a device file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Owner's number.
    pub uid: u32,
    /// Group's number.
    pub gid: u32,
    /// Group's name in `/etc/group`.
    pub group: Option<Box<str>>,
    /// Permission bits, such as `0o660`.
    pub mode: u32,
    /// Whether it is a character device at all.
    pub is_device: bool,
}

/// What was found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Kernel release, as `uname -r` prints it; empty where `/proc` does not tell.
    pub kernel: Box<str>,
    /// Architecture that this library was built for: `x86_64` or `aarch64`.
    pub architecture: &'static str,
    /// What the processor offers.
    pub virtualization: Virtualization,
    /// Names below `/sys/module` that begin with `kvm`, sorted: `kvm`, `kvm_intel`.
    pub modules: Box<[Box<str>]>,
    /// Whether the process seems to run in a container.
    pub container: bool,
}

impl Machine {
    /// Reads what this machine tells.
    #[must_use]
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            kernel: text("/proc/sys/kernel/osrelease").trim().into(),
            architecture: std::env::consts::ARCH,
            virtualization: virtualization(std::env::consts::ARCH, &text("/proc/cpuinfo")),
            modules: modules(),
            container: ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists())
                || container_cgroup(&text("/proc/1/cgroup")),
        }
    }
}

impl DeviceNode {
    /// Owner and mode of `path`; `None` where there is no such file.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        Some(Self {
            uid: metadata.uid(),
            gid: metadata.gid(),
            group: group_name(&groups, metadata.gid()).map(Into::into),
            mode: metadata.mode() & 0o7777,
            is_device: metadata.file_type().is_char_device(),
        })
    }
}

/// Whether kernel `release` (`6.18.44-cloud`) is `since` (`6.11`, `5.10 or earlier`) or later; not, if either cannot
/// be read.
pub(super) fn has_release(release: &str, since: &str) -> bool {
    let version = |text: &str| -> Option<(u32, u32)> {
        let mut numbers = text.split(|letter: char| !letter.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    version(since).is_some_and(|since| version(release) >= Some(since))
}

fn modules() -> Box<[Box<str>]> {
    let Ok(entries) = fs::read_dir("/sys/module") else {
        return Box::default();
    };
    let mut names: Vec<Box<str>> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("kvm"))
        .map(Into::into)
        .collect();
    names.sort();
    names.into()
}

/// Reads the processor's flags. Only x86 kernels list the virtualization extension there.
fn virtualization(architecture: &str, cpuinfo: &str) -> Virtualization {
    if architecture != "x86_64" {
        return Virtualization::Unknown;
    }
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    if has("vmx") {
        Virtualization::Vmx
    } else if has("svm") {
        Virtualization::Svm
    } else {
        Virtualization::None { in_vm: has("hypervisor") }
    }
}

/// Name of group `gid` in the text of `/etc/group` (`name:password:gid:members`).
fn group_name(groups: &str, gid: u32) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == gid).then_some(name)
    })
}

/// Whether the control groups of process 1 are those of a container runtime.
fn container_cgroup(cgroup: &str) -> bool {
    ["docker", "kubepods", "containerd", "libpod", "/lxc"].iter().any(|word| cgroup.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuinfo_shows_the_extension_by_whole_words() {
        let of = |flags: &str| virtualization("x86_64", &format!("processor\t: 0\nflags\t\t: {flags}\nbugs\t: \n"));
        assert_eq!(of("fpu vmx ssse3"), Virtualization::Vmx);
        assert_eq!(of("fpu svm hypervisor"), Virtualization::Svm);
        assert_eq!(of("fpu vmx_like"), Virtualization::None { in_vm: false });
        assert_eq!(of("fpu hypervisor"), Virtualization::None { in_vm: true });
        assert_eq!(virtualization("x86_64", ""), Virtualization::None { in_vm: false });
        assert_eq!(virtualization("aarch64", "Features\t: fp asimd"), Virtualization::Unknown);
    }

    #[test]
    fn a_vmx_flags_line_of_newer_kernels_is_not_the_flags_line() {
        let cpuinfo = "flags\t\t: fpu\nvmx flags\t: vnmi vmx\n";
        assert_eq!(virtualization("x86_64", cpuinfo), Virtualization::None { in_vm: false });
    }

    #[test]
    fn group_names_are_found_by_number() {
        let groups = "root:x:0:\nkvm:x:104:ada,grace\nbroken\n";
        assert_eq!(group_name(groups, 104), Some("kvm"));
        assert_eq!(group_name(groups, 0), Some("root"));
        assert_eq!(group_name(groups, 4), None);
    }

    #[test]
    fn releases_are_compared_by_number() {
        assert!(has_release("6.11.0-rc1", "6.11") && has_release("6.18.44-fc", "6.2") && has_release("7.0", "6.19"));
        assert!(has_release("5.10.262", "5.10 or earlier"));
        assert!(!has_release("6.2.1", "6.11") && !has_release("5.19.0", "6.0") && !has_release("", "6.0"));
    }

    #[test]
    fn containers_are_told_by_their_control_groups() {
        assert!(container_cgroup("0::/kubepods/burstable/pod1\n"));
        assert!(!container_cgroup("0::/init.scope\n"));
    }

    #[test]
    fn reading_this_machine_never_fails() {
        let machine = Machine::read();
        assert!(!machine.kernel.is_empty() && !machine.kernel.ends_with('\n'));
        assert!(DeviceNode::read(Path::new("/no/such/device")).is_none());
        assert!(DeviceNode::read(Path::new("/dev/null")).is_some_and(|node| node.is_device));
    }
}
