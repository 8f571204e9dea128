//! api.rst 4.1, 4.2, 4.4: opening KVM, asking it and its VMs for capabilities, and what the doctor makes of it.

use libtest_mimic::{Failed, Trial};
use typevisor::{
    Error, Kvm,
    host::{Capabilities, Capability, KvmOptions, Machine, Status, doctor},
};

/// The tests of this room. Those that pin one machine's answers are skipped, and counted, on every other.
pub(crate) fn tests() -> Vec<Trial> {
    let other_machine = !Machine::read().modules.iter().any(|name| &**name == "kvm_pvm");
    vec![
        Trial::test("host: what every supported kernel has is there", what_every_supported_kernel_has_is_there),
        Trial::test("host: a hidden capability reads zero everywhere", a_hidden_capability_reads_zero_everywhere),
        Trial::test("host: a single question and the whole table agree", a_single_question_and_the_whole_table_agree),
        Trial::test("host: require names what is missing", require_names_what_is_missing),
        Trial::test("host: an unknown VM type keeps the kernel's errno", an_unknown_vm_type_keeps_the_kernels_errno),
        Trial::test("host: the doctor calls a machine with KVM usable", the_doctor_calls_a_machine_with_kvm_usable),
        Trial::test("host: kvm_pvm answers as measured", kvm_pvm_answers_as_measured)
            .with_kind(if other_machine { "needs kvm_pvm" } else { "" })
            .with_ignored_flag(other_machine),
    ]
}

fn open(hide: &[Capability]) -> Result<Kvm, Failed> {
    Ok(Kvm::open(KvmOptions { path: None, hide: hide.to_vec() })?)
}

fn what_every_supported_kernel_has_is_there() -> Result<(), Failed> {
    let kvm = open(&[])?;
    let vm = kvm.create_vm(0)?;
    let capabilities = Capabilities::probe_vm(&vm, &[]);
    for capability in [
        Capability::UserMemory,
        Capability::SyncMmu,
        Capability::DestroyMemoryRegionWorks,
        Capability::ReadonlyMem,
        Capability::CheckExtensionVm,
        Capability::ImmediateExit,
        Capability::CoalescedMmio,
        Capability::MpState,
        Capability::Ioeventfd,
    ] {
        assert!(capabilities.has(capability), "{capability}");
    }
    assert!(capabilities.value(Capability::NrMemslots) >= 509); // x86 on 5.10; 512 on aarch64 there, 32,764 since
    assert!(capabilities.value(Capability::MaxVcpus) >= 1);
    Ok(())
}

fn a_hidden_capability_reads_zero_everywhere() -> Result<(), Failed> {
    let kvm = open(&[Capability::NrMemslots])?;
    let vm = kvm.create_vm(0)?;
    assert_eq!(kvm.capability(Capability::NrMemslots), 0);
    assert_eq!(kvm.capabilities().value(Capability::NrMemslots), 0);
    assert_eq!(kvm.vm_capability(&vm, Capability::NrMemslots), 0);
    assert!(!Capabilities::probe_vm(&vm, kvm.hidden()).has(Capability::NrMemslots));
    assert!(kvm.capabilities().has(Capability::UserMemory), "the others are not hidden");
    Ok(())
}

fn a_single_question_and_the_whole_table_agree() -> Result<(), Failed> {
    let kvm = open(&[])?;
    let vm = kvm.create_vm(0)?;
    let capabilities = Capabilities::probe_vm(&vm, &[]);
    for capability in Capability::ALL.iter().copied() {
        assert_eq!(capabilities.value(capability), kvm.vm_capability(&vm, capability), "{capability}");
        assert_eq!(
            capabilities.value(capability),
            vm.check_extension_raw(u64::from(capability.number())).max(0),
            "{capability}"
        );
    }
    Ok(())
}

fn require_names_what_is_missing() -> Result<(), Failed> {
    let kvm = open(&[Capability::GuestMemfd])?;
    assert!(kvm.require(Capability::UserMemory, "a test")? > 0);
    match kvm.require(Capability::GuestMemfd, "a test") {
        Err(Error::CapabilityMissing { capability: "guest-memfd", needed_by: "a test", since: "6.8" }) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn an_unknown_vm_type_keeps_the_kernels_errno() -> Result<(), Failed> {
    let error = open(&[])?.create_vm(0xffff_0000).err().ok_or("a VM of an unknown type was made")?;
    let (errno, call) = error.errno().ok_or("no errno")?;
    assert_eq!((errno.0, call, error.code().as_str()), (22, "KVM_CREATE_VM", "ERR_IOCTL"));
    Ok(())
}

fn the_doctor_calls_a_machine_with_kvm_usable() -> Result<(), Failed> {
    let report = doctor(None);
    assert!(report.usable, "{:#?}", report.checks);
    assert_eq!(report.facts.api_version, Some(12));
    for id in ["kvm-device", "api-version", "vm", "vcpu", "readonly-memory"] {
        let check = report.checks.iter().find(|check| check.id == id).ok_or(id)?;
        assert_eq!(check.status, Status::Ok, "{check:?}");
    }
    Ok(())
}

fn kvm_pvm_answers_as_measured() -> Result<(), Failed> {
    let kvm = open(&[])?;
    let vm = kvm.create_vm(0)?;
    let capabilities = Capabilities::probe_vm(&vm, &[]);
    for (capability, value) in [
        (Capability::UserMemory2, 1),
        (Capability::MemoryFaultInfo, 1),
        (Capability::GuestMemfd, 1),
        (Capability::GuestMemfdFlags, 3),
        (Capability::ReadonlyMem, 1),
        (Capability::SystemEventData, 1),
        (Capability::NrMemslots, 32_764),
        (Capability::VmTypes, 1),
        (Capability::MemoryAttributes, 0),
        (Capability::PreFaultMemory, 0),
        (Capability::Hyperv, 0),
    ] {
        assert_eq!(capabilities.value(capability), value, "{capability}");
    }
    assert!(capabilities.has(Capability::DirtyLogRing) && capabilities.has(Capability::DirtyLogRingAcqRel));
    Ok(())
}
