//! What is left behind: nothing.

use libtest_mimic::Trial;
use typevisor::{Error, GpaRange, memory::MapOptions, vcpu::VcpuOptions};

use crate::support::{resources, trial, vm};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("vm: a closed VM refuses everything with ERR_CLOSED", closed),
        trial("vm: an id is never used twice", ids),
        trial("vm: 100 VMs with memory and vCPUs leave no fd, thread or mapping", no_leak),
    ]
}

fn closed() {
    let vm = vm();
    let slot = vm.memory().map(MapOptions::new(GpaRange::pages(0, 4096).unwrap())).unwrap();
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
    let taken = vm.create_vcpu(VcpuOptions { id: Some(0) });
    assert!(matches!(taken, Err(Error::InvalidArgument { what: "id", .. })));
}

fn no_leak() {
    let once = || {
        let vm = vm();
        vm.memory().map(MapOptions::new(GpaRange::pages(0, 1 << 20).unwrap())).unwrap();
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
    (0..100).for_each(|_| once());
    let after = resources();
    assert!(after.0 < before.0 + 50 && after.1 < before.1 + 50 && after.2 < before.2 + 90, "{before:?} -> {after:?}");
}
