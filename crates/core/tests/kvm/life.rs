//! What is left behind: nothing.

#![expect(unsafe_code, reason = "forks, and sets limits")]

use std::{fs, thread, time::Duration};

use libtest_mimic::Trial;
use typevisor::{Error, ErrorCode, GpaRange, memory::MapOptions, vcpu::VcpuOptions};

use crate::support::{alone, kvm, resources, scaled, trial, vm};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("vm: a closed VM refuses everything with ERR_CLOSED", closed),
        trial("vm: an id is never used twice", ids),
        alone("vm: a vCPU that could not be made whole costs its id and nothing else", half_made),
        alone("vm: no mapping of a vCPU follows a fork", not_inherited),
        alone("vm: without a descriptor left it is ERR_LIMIT", no_descriptor),
        trial("vcpu: in a forked child every call is ERR_FORKED, whatever is locked", forked),
        trial("vm: 100 VMs with memory and vCPUs leave no fd, thread or mapping", no_leak),
    ]
}

fn closed() {
    let vm = vm();
    let slot = vm.memory().map(&MapOptions::new(GpaRange::pages(0, 4096).unwrap())).unwrap();
    let vcpu = vm.create_vcpu(VcpuOptions::default()).unwrap();
    vm.close();
    vm.close();
    assert!(matches!(vm.memory().write(0, &[1]), Err(Error::Closed { .. })));
    assert!(matches!(vm.create_vcpu(VcpuOptions::default()), Err(Error::Closed { .. })));
    assert!(matches!(slot.unmap(), Err(Error::Closed { .. })));
    assert!(matches!(vcpu.registers(), Err(Error::Closed { .. })));
}

fn ids() {
    let vm = vm();
    let first = vm.create_vcpu(VcpuOptions::default()).unwrap();
    assert_eq!(first.id(), 0);
    first.close();
    drop(first);
    assert_eq!(vm.create_vcpu(VcpuOptions::default()).unwrap().id(), 1);
    let taken = vm.create_vcpu(VcpuOptions { id: Some(0), ..Default::default() });
    assert!(matches!(taken, Err(Error::VcpuIdTaken { id: 0 })));
    let high = vm.create_vcpu(VcpuOptions { id: Some(u32::MAX), ..Default::default() });
    assert!(matches!(high, Err(Error::VcpuIdRange { id: u32::MAX, .. })));
}

fn no_leak() {
    let once = || {
        let vm = vm();
        vm.memory().map(&MapOptions::new(GpaRange::pages(0, 1 << 20).unwrap())).unwrap();
        let vcpu = vm.create_vcpu(VcpuOptions::default()).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        // Whatever an empty guest does; it is the thread that counts.
        vcpu.start(1, move |outcome| sender.send(outcome.is_ok()).unwrap()).unwrap();
        vcpu.kick().unwrap();
        receiver.recv().unwrap();
    };
    once();
    // Other tests run beside this one: what grows by one a VM shows all the same.
    let before = resources();
    (0..scaled(100)).for_each(|_| once());
    let after = resources();
    assert!(after.0 < before.0 + 50 && after.1 < before.1 + 50 && after.2 < before.2 + 90, "{before:?} -> {after:?}");
}

fn limit(resource: libc::__rlimit_resource_t, value: Option<u64>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives through both calls.
    unsafe { libc::getrlimit(resource, &raw mut limit) };
    limit.rlim_cur = value.unwrap_or(limit.rlim_max);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

fn half_made() {
    let vm = vm();
    // No room for the kvm_run page: KVM has made the vCPU by then.
    limit(libc::RLIMIT_AS, Some(1 << 20));
    let refused = vm.create_vcpu(VcpuOptions::default());
    limit(libc::RLIMIT_AS, None);
    assert!(refused.is_err());
    let next = vm.create_vcpu(VcpuOptions::default()).unwrap();
    assert_eq!(next.id(), 1);
    assert!(matches!(
        vm.create_vcpu(VcpuOptions { id: Some(0), ..Default::default() }),
        Err(Error::VcpuIdTaken { id: 0 })
    ));
}

fn no_descriptor() {
    let (kvm, vm) = (kvm(), vm());
    assert!(!kvm.path().as_os_str().is_empty());
    limit(libc::RLIMIT_NOFILE, Some(3));
    let refused = [
        vm.create_vcpu(VcpuOptions::default()).map(drop),
        typevisor::Vm::create(&kvm, &typevisor::VmOptions::default()).map(drop),
        typevisor::bus::Doorbell::new().map(drop),
    ];
    limit(libc::RLIMIT_NOFILE, None);
    for result in refused {
        assert!(matches!(result, Err(Error::Limit { limit: 3, .. })), "{result:?}");
    }
    let many = vm.memory().map(&MapOptions::new(GpaRange::pages(0, 1 << 36).unwrap()));
    limit(libc::RLIMIT_AS, Some(1 << 32));
    let large = vm.memory().map(&MapOptions::new(GpaRange::pages(1 << 37, 1 << 36).unwrap()));
    limit(libc::RLIMIT_AS, None);
    drop(many);
    assert!(matches!(large, Err(Error::HostMemory { .. })), "{large:?}");
    assert_eq!(large.unwrap_err().code(), ErrorCode::Limit);
}

/// `dc` of `VmFlags`: not copied on fork.
fn not_inherited() {
    let vm = vm();
    let _vcpu = vm.create_vcpu(VcpuOptions::default()).unwrap();
    let text = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut name = "";
    let mut seen = Vec::new();
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if name.contains("kvm-vcpu") {
                seen.push(flags.split_whitespace().any(|flag| flag == "dc"));
            }
        } else if line.split_once(' ').is_some_and(|(range, _)| range.contains('-')) {
            name = line;
        }
    }
    assert_eq!(seen, [true; 2], "ours and kvm-ioctls'");
}

fn forked() {
    let vm = vm();
    let vcpu = vm.create_vcpu(VcpuOptions::default()).unwrap();
    let (inside, is_inside) = std::sync::mpsc::channel();
    let (leave, may_leave) = std::sync::mpsc::channel::<()>();
    thread::scope(|scope| {
        // Holds the vCPU's lock at the moment of the fork.
        let vcpu = &vcpu;
        scope.spawn(move || {
            vcpu.update_registers(|_| {
                inside.send(()).unwrap();
                may_leave.recv().unwrap();
                Ok(())
            })
            .unwrap();
        });
        is_inside.recv().unwrap();
        // SAFETY: the child makes calls that allocate nothing and take no lock, then leaves by `_exit` or its alarm.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: takes an integer.
            unsafe { libc::alarm(10) };
            let forked = [
                vcpu.run_sync(Duration::from_secs(1)).map(drop),
                vcpu.begin_sync(Duration::from_secs(1)).map(drop),
                vcpu.start(1, |_| ()),
                vcpu.start_settle(2, |_| ()),
                vcpu.kick(),
                vcpu.answer(&[1]),
                vcpu.answer_word(1),
                vcpu.registers().map(drop),
                vcpu.update_registers(|_| Ok(())),
                vcpu.kvm_stats().map(drop),
                vm.kvm_stats().map(drop),
                vm.exit_stats().map(drop),
                vm.pause(|_| ()),
                vm.resume(),
            ]
            .iter()
            .all(|result| matches!(result, Err(Error::Forked)));
            vcpu.cancel(1);
            vcpu.close();
            vm.close();
            // SAFETY: takes an integer; runs no destructor and no handler of the parent's.
            unsafe { libc::_exit(if forked { 7 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: `status` lives through the call.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        leave.send(()).unwrap();
        assert_eq!(waited, child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status:#x}");
    });
    vcpu.registers().unwrap();
}
