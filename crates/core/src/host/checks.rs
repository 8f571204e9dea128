//! The single checks of `doctor`: what a scratch VM answers, and what the machine grants. The judging half takes
//! values and is tested by tables; the asking half makes a VM or reads a file.

use std::fs;

use kvm_ioctls::VmFd;

use super::{
    Capability, Kvm,
    doctor::{Check, Status, failed, missing, ok},
    machine::has_release,
};
use crate::{
    error::{Errno, Error},
    sys::userfault,
};

/// `KVM_X86_SW_PROTECTED_VM` of asm/kvm.h: the kind of VM with private memory that needs no special processor.
const SOFTWARE_PROTECTED: u64 = 1;

/// `KVM_MEMORY_ATTRIBUTE_PRIVATE` of linux/kvm.h.
const ATTRIBUTE_PRIVATE: i32 = 1 << 3;

/// Flags of `KVM_CREATE_GUEST_MEMFD` in linux/kvm.h: mappable, and shared from the start (Linux 6.18).
const GUEST_MEMFD_MMAP: i32 = 1 << 0;
const GUEST_MEMFD_INIT_SHARED: i32 = 1 << 1;

/// What the kernel allows without anybody's doing; more slots with mappings of their own than this need more.
const USUAL_MAP_COUNT: u64 = 65_530;

/// Descriptors that a program with a few VMs may want: each VM, vCPU and guest memory fd is one.
const WANTED_FILES: u64 = 1024;

/// Everything that asks KVM: one scratch VM with a vCPU, and one of the protected type where there is one.
pub(super) fn kvm(kvm: &Kvm, release: &str, report: &mut Vec<Check>) {
    let vm = match kvm.create_vm(0) {
        Ok(vm) => vm,
        Err(error) => return report.push(refused("vm", "Virtual machine", &error)),
    };
    report.push(ok("vm", "Virtual machine", "a VM can be made".into()));
    report.push(match vm.create_vcpu(0) {
        Ok(_) => ok("vcpu", "vCPU", "a vCPU can be made".into()),
        Err(error) => refused("vcpu", "vCPU", &Error::ioctl("KVM_CREATE_VCPU")(error)),
    });
    let value = |capability| kvm.vm_capability(&vm, capability);
    for (id, title, capability) in SIMPLE {
        report.push(simple(id, title, *capability, value(*capability), release));
    }
    report.push(dirty_ring(value(Capability::DirtyLogRing), value(Capability::DirtyLogRingAcqRel)));
    report.push(guest_memfd(value(Capability::GuestMemfd), value(Capability::GuestMemfdFlags)));
    report.push(private_memory(kvm, &vm));
}

/// Checks that are one capability.
const SIMPLE: &[(&str, &str, Capability)] = &[
    ("memory-region-2", "Slots with private memory", Capability::UserMemory2),
    ("readonly-memory", "Read-only slots", Capability::ReadonlyMem),
    ("system-event-data", "Data of system events", Capability::SystemEventData),
    ("memory-fault-exits", "Memory-fault exits", Capability::MemoryFaultInfo),
    ("pre-fault", "Populating guest memory ahead", Capability::PreFaultMemory),
];

/// Judges one capability. A kernel that is new enough and still lacks it was built without it, or runs on a processor
/// (or an architecture) that does not do it.
fn simple(id: &'static str, title: &'static str, capability: Capability, value: i32, release: &str) -> Check {
    let since = capability.since();
    if value != 0 {
        return ok(id, title, format!("{capability} is {value}"));
    }
    if has_release(release, since) {
        return missing(id, title, format!("{capability} is not offered by this kernel on this processor"));
    }
    let remedy = Some(format!("boot a kernel of {since} or later"));
    Check { remedy, ..missing(id, title, format!("{capability} came with Linux {since}")) }
}

/// A refusal by KVM, with a remedy for the one that people meet.
fn refused(id: &'static str, title: &'static str, error: &Error) -> Check {
    let remedy = match error.errno() {
        Some((Errno(libc::EBUSY), _)) => {
            Some("stop the other hypervisor, for example: sudo modprobe -r vboxnetadp vboxnetflt vboxdrv".into())
        }
        Some((Errno(libc::EMFILE), _)) => Some("run: ulimit -n 65536".into()),
        _ => None,
    };
    Check { remedy, ..failed(id, title, error.to_string()) }
}

fn dirty_ring(ordered: i32, acquire_release: i32) -> Check {
    let (id, title) = ("dirty-ring", "Dirty ring");
    match ordered.max(acquire_release) {
        0 => missing(id, title, "dirty pages are found by the log only; Linux 5.11 (aarch64: 6.3) has the ring".into()),
        bytes => ok(id, title, format!("up to {bytes} bytes a vCPU")),
    }
}

fn guest_memfd(there: i32, flags: i32) -> Check {
    let (id, title) = ("guest-memfd", "Guest memory fds");
    let both = GUEST_MEMFD_MMAP | GUEST_MEMFD_INIT_SHARED;
    if there == 0 {
        let since = Capability::GuestMemfd.since();
        return missing(id, title, format!("this VM lacks guest-memfd; Linux {since} has it for protected VMs"));
    }
    if flags & both == both {
        return ok(id, title, "private, or mappable and shared from the start".into());
    }
    let since = Capability::GuestMemfdFlags.since();
    let detail = format!("private only (flags {flags:#x}); Linux {since} can also map them");
    Check { status: Status::Limited, ..ok(id, title, detail) }
}

/// Asks a VM of the protected type, which is the one whose answer counts.
fn private_memory(kvm: &Kvm, vm: &VmFd) -> Check {
    let (id, title) = ("private-memory", "Private memory");
    let types = kvm.vm_capability(vm, Capability::VmTypes);
    if !cfg!(target_arch = "x86_64") || types & (1 << SOFTWARE_PROTECTED) == 0 {
        let detail = format!("this kernel has no software-protected VMs (vm-types {types:#x})");
        let remedy = if cfg!(target_arch = "x86_64") {
            "boot a kernel of 6.8 or later, built with CONFIG_KVM_SW_PROTECTED_VM"
        } else {
            "no kernel for this architecture has them yet; x86_64 has, from Linux 6.8 on"
        };
        return Check { remedy: Some(remedy.into()), ..missing(id, title, detail) };
    }
    match kvm.create_vm(SOFTWARE_PROTECTED) {
        Ok(protected) => {
            let attributes = kvm.vm_capability(&protected, Capability::MemoryAttributes);
            let memfd = kvm.vm_capability(&protected, Capability::GuestMemfd);
            private_memory_of(attributes, memfd)
        }
        Err(error) => refused(id, title, &error),
    }
}

fn private_memory_of(attributes: i32, guest_memfd: i32) -> Check {
    let (id, title) = ("private-memory", "Private memory");
    if attributes & ATTRIBUTE_PRIVATE != 0 && guest_memfd != 0 {
        return ok(id, title, "on software-protected VMs".into());
    }
    failed(
        id,
        title,
        format!("a software-protected VM has memory-attributes {attributes:#x}, guest-memfd {guest_memfd}"),
    )
}

/// Everything that asks the machine and not KVM.
pub(super) fn machine(memory_slots: Option<i32>, report: &mut Vec<Check>) {
    report.push(userfaultfd(userfault::by_device().err(), userfault::by_system_call().err()));
    for (id, title, folder) in HUGE_PAGES {
        let read = |name: &str| number(&fs::read_to_string(format!("{folder}/{name}")).ok()?);
        report.push(huge_pages(id, title, folder, read("nr_hugepages"), read("free_hugepages")));
    }
    let maps = fs::read_to_string("/proc/sys/vm/max_map_count").ok().as_deref().and_then(number);
    report.push(max_map_count(maps, memory_slots));
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    report.push(open_files(open_file_limits(&limits)));
}

const HUGE_PAGES: &[(&str, &str, &str)] = &[
    ("huge-pages-2m", "Huge pages of 2 MiB", "/sys/kernel/mm/hugepages/hugepages-2048kB"),
    ("huge-pages-1g", "Huge pages of 1 GiB", "/sys/kernel/mm/hugepages/hugepages-1048576kB"),
];

/// Judges the two ways to a userfaultfd by what each was refused with.
fn userfaultfd(device: Option<Errno>, call: Option<Errno>) -> Check {
    let (id, title) = ("userfaultfd", "Missing memory by userfaultfd");
    let absent = |errno: Errno| matches!(errno.0, libc::ENOENT | libc::ENOSYS | libc::ENODEV | libc::ENXIO);
    match (device, call) {
        (None, _) => ok(id, title, "by /dev/userfaultfd".into()),
        (_, None) => ok(id, title, "by the system call".into()),
        (Some(device), Some(call)) if absent(call) => {
            missing(id, title, format!("this kernel was built without it (device: {device}; system call: {call})"))
        }
        (Some(device), Some(call)) => {
            let remedy = if absent(device) {
                "run: sudo sysctl vm.unprivileged_userfaultfd=1"
            } else {
                "run: sudo setfacl -m u:$USER:rw /dev/userfaultfd (or: sudo sysctl vm.unprivileged_userfaultfd=1)"
            };
            let detail = format!("not open to this process (device: {device}; system call: {call})");
            Check { remedy: Some(remedy.into()), ..failed(id, title, detail) }
        }
    }
}

fn huge_pages(id: &'static str, title: &'static str, folder: &str, all: Option<u64>, free: Option<u64>) -> Check {
    let (Some(all), Some(free)) = (all, free) else {
        return missing(id, title, "this kernel or processor has none of this size".into());
    };
    let detail = format!("{free} of {all} are free");
    if free > 0 {
        return ok(id, title, detail);
    }
    let remedy = format!("run: echo {} | sudo tee {folder}/nr_hugepages (reserves one more)", all.saturating_add(1));
    Check { status: Status::Limited, remedy: Some(remedy), ..ok(id, title, detail) }
}

fn max_map_count(limit: Option<u64>, memory_slots: Option<i32>) -> Check {
    let (id, title) = ("max-map-count", "Mappings of a process");
    let Some(limit) = limit else {
        return failed(id, title, "/proc/sys/vm/max_map_count cannot be read".into());
    };
    let slots = memory_slots.and_then(|slots| u64::try_from(slots).ok()).unwrap_or(0);
    if limit >= USUAL_MAP_COUNT.max(slots) {
        return ok(id, title, format!("{limit} (vm.max_map_count)"));
    }
    let detail = format!("{limit} (vm.max_map_count) bounds the slots that have a mapping of their own");
    let remedy = Some("run: sudo sysctl vm.max_map_count=262144".into());
    Check { status: Status::Limited, remedy, ..ok(id, title, detail) }
}

/// Soft and hard limit of open files in `/proc/self/limits`; `u64::MAX` for `unlimited`.
fn open_file_limits(limits: &str) -> Option<(u64, u64)> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut words = line.split_whitespace().map(|word| if word == "unlimited" { Some(u64::MAX) } else { number(word) });
    Some((words.next()??, words.next()??))
}

fn open_files(limits: Option<(u64, u64)>) -> Check {
    let (id, title) = ("open-files", "Open files of a process");
    let Some((soft, hard)) = limits else {
        return failed(id, title, "/proc/self/limits cannot be read".into());
    };
    if soft >= WANTED_FILES {
        return ok(id, title, format!("{soft} (at most {hard})"));
    }
    let remedy = Some(format!("run: ulimit -n {}", hard.min(65_536).max(soft)));
    Check { status: Status::Limited, remedy, ..ok(id, title, format!("{soft} (at most {hard})")) }
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
