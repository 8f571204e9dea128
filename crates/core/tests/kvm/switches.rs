//! Exits that a VM is made with: each switch with a guest that raises its exit, the answer, and what becomes of the guest
//! without the switch. Guests are x86 code, and skipped by capability where there is none of it.

use std::{path::Path, time::Duration};

use libtest_mimic::Trial;
use typevisor::{
    Error, Exit, Kvm, Vm, VmOptions,
    exit::{InternalError, MsrReason, XenExit},
    host::{Capability, KvmOptions},
    switches::{DisabledExit, ExitSwitches, ExitingHypercall, MsrAccess, MsrExits, MsrFilter, MsrRange},
    vcpu::{BootMode, BootOptions, Privilege, VcpuOptions},
};

use crate::{
    machine::{CODE, LIMIT, Machine},
    support::{kvm, kvm_is_here, needs, trial, vm},
};

pub(crate) fn tests() -> Vec<Trial> {
    const MSR: Capability = Capability::X86UserSpaceMsr;
    const FILTER: Capability = Capability::X86MsrFilter;
    vec![
        trial("switch: what a VM lacks is refused before KVM is told of anything", lacking),
        needs(MSR, "switch: an unknown MSR is an exit; its answer is what the guest reads", unknown_msr),
        needs(MSR, "switch: an MSR that is answered by a fault is one to the guest", msr_fault),
        needs(MSR, "switch: an MSR that is refused for another reason than those chosen is no exit", msr_reasons),
        needs(FILTER, "switch: a filter refuses the registers and accesses that it names", filter),
        needs(FILTER, "switch: a filter of bits, and one that denies all others", filter_bits),
        needs(FILTER, "switch: a filter without exits is a fault", filter_fault),
        needs(FILTER, "switch: a filter that KVM would not obey is refused", filter_refused),
        needs(
            Capability::ExitOnEmulationFailure,
            "switch: a failed emulation in user mode is an exit with its bytes",
            emulation_failure,
        ),
        native(needs(
            Capability::ExitHypercall,
            "switch: a hypercall is an exit; its answer is what the guest gets",
            hypercall,
        )),
        xen("switch: a hypercall of Xen's is an exit; its answer is what the guest gets", xen_hypercall),
        halting("switch: a guest that halts alone makes no exit", disabled_halt),
        needs(Capability::X86BusLockExit, "switch: a guest that locks the bus exits", bus_lock),
        needs(Capability::X86NotifyVmexit, "switch: a guest that lets events in makes no notify exit", notify),
    ]
}

pub(crate) fn made_with(exits: ExitSwitches, code: &[u8]) -> Machine {
    let vm = Vm::create(&kvm(), &VmOptions { exits, ..Default::default() }).unwrap();
    Machine::on(vm, code, VcpuOptions::default())
}

/// The same in 64-bit code.
pub(crate) fn long(exits: ExitSwitches, privilege: Privilege, code: &[u8]) -> Machine {
    let machine = made_with(exits, code);
    let options = BootOptions { privilege, stack: Some(0x8000), ..BootOptions::new(BootMode::Long, CODE) };
    machine.vcpu.boot(&options).unwrap();
    machine
}

fn with_msr(reasons: &[MsrReason], filter: Option<MsrFilter>) -> ExitSwitches {
    ExitSwitches { msr: Some(MsrExits { reasons: reasons.to_vec(), filter }), ..Default::default() }
}

fn only(ranges: Vec<MsrRange>) -> MsrFilter {
    MsrFilter { ranges, deny_others: false }
}

/// Real mode: `mov ecx, register; rdmsr`, and both halves to 0x2000.
pub(crate) fn read(register: u32) -> Vec<u8> {
    let store = [0x0f, 0x32, 0x66, 0xa3, 0, 0x20, 0x66, 0x89, 0x16, 4, 0x20];
    [&[0x66, 0xb9][..], &register.to_le_bytes(), &store].concat()
}

/// Real mode: `mov ecx, register; mov eax, low; mov edx, high; wrmsr`.
pub(crate) fn write(register: u32, value: u64) -> Vec<u8> {
    let bytes = value.to_le_bytes();
    let (low, high) = bytes.split_at(4);
    [&[0x66, 0xb9][..], &register.to_le_bytes(), &[0x66, 0xb8], low, &[0x66, 0xba], high, &[0x0f, 0x30]].concat()
}

/// With a handler for `#GP` that says so: `mov al, 0x77; out 0x11, al; hlt`.
fn handled(machine: Machine) -> Machine {
    machine.vm.memory().write(0x1800, &[0xb0, 0x77, 0xe6, 0x11, 0xf4]).unwrap();
    machine.vm.memory().write(13 * 4, &[0, 0x18, 0, 0]).unwrap();
    machine
}

fn assert_fault(machine: &Machine) {
    assert_eq!(machine.run(), Exit::IoOut { port: 0x11, size: 1, count: 1, data: Box::new([0x77]) });
}

/// What the guest has stored.
pub(crate) fn stored(machine: &Machine) -> u64 {
    let mut bytes = [0; 8];
    machine.vm.memory().read(0x2000, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

/// A register that KVM does not know.
const UNKNOWN: u32 = 0x1234_5678;
/// `IA32_SYSENTER_CS`, `_ESP` and `_EIP`: KVM keeps what is written to them.
const SYSENTER: u32 = 0x174;
const HALT: [u8; 1] = [0xf4];

fn lacking() {
    let missing = |capability: Capability, exits: ExitSwitches| {
        let hidden = Kvm::open(KvmOptions { hide: vec![capability], ..Default::default() }).unwrap();
        let error = Vm::create(&hidden, &VmOptions { exits, ..Default::default() }).unwrap_err();
        let Error::CapabilityMissing { capability: name, since, .. } = error else { panic!("{error}") };
        assert_eq!((name, since), (capability.name(), capability.since()));
    };
    let none = ExitSwitches::default;
    missing(Capability::X86UserSpaceMsr, with_msr(&[MsrReason::Inval], None));
    missing(Capability::X86MsrFilter, with_msr(&[], Some(only(vec![MsrRange::denied(SYSENTER, 1)]))));
    missing(Capability::ExitHypercall, ExitSwitches { hypercalls: vec![ExitingHypercall::MapGpaRange], ..none() });
    missing(Capability::ExitOnEmulationFailure, ExitSwitches { emulation_failure: true, ..none() });
    missing(Capability::X86DisableExits, ExitSwitches { disable: vec![DisabledExit::Pause], ..none() });
    missing(Capability::X86BusLockExit, ExitSwitches { bus_lock: true, ..none() });
    missing(Capability::X86NotifyVmexit, ExitSwitches { notify: Some(0), ..none() });
    missing(Capability::ArmNisvToUser, ExitSwitches { nisv: true, ..none() });
    missing(Capability::XenHvm, ExitSwitches { xen: Some(0x4000_0000), ..none() });
}

fn unknown_msr() {
    let code = [read(UNKNOWN), write(UNKNOWN + 1, 0x0102_0304_0506_0708), HALT.to_vec()].concat();
    let machine = made_with(ExitSwitches { msr: Some(MsrExits::default()), ..Default::default() }, &code);
    let reason = MsrReason::Unknown.bits().unwrap();
    assert_eq!(machine.run(), Exit::Rdmsr { reason, index: UNKNOWN });
    machine.vcpu.answer_word(0x1122_3344_5566_7788).unwrap();
    assert_eq!(machine.run(), Exit::Wrmsr { reason, index: UNKNOWN + 1, data: 0x0102_0304_0506_0708 });
    assert_eq!(stored(&machine), 0x1122_3344_5566_7788);
    assert_eq!(machine.run(), Exit::Hlt);
}

fn msr_fault() {
    for code in [read(UNKNOWN), write(UNKNOWN, 1)] {
        let machine = handled(made_with(with_msr(&[MsrReason::Unknown], None), &[code, HALT.to_vec()].concat()));
        assert!(matches!(machine.run(), Exit::Rdmsr { index: UNKNOWN, .. } | Exit::Wrmsr { index: UNKNOWN, .. }));
        machine.vcpu.answer_fault().unwrap();
        assert_fault(&machine);
    }
}

fn msr_reasons() {
    for exits in [with_msr(&[MsrReason::Inval, MsrReason::Filter], None), ExitSwitches::default()] {
        assert_fault(&handled(made_with(exits, &[read(UNKNOWN), HALT.to_vec()].concat())));
    }
}

fn filter() {
    let reads = MsrRange { write: false, ..MsrRange::denied(SYSENTER, 2) };
    let code = [write(SYSENTER, 8), write(SYSENTER + 1, 9), read(SYSENTER + 2), read(SYSENTER), HALT.to_vec()].concat();
    let machine = made_with(with_msr(&[MsrReason::Filter], Some(only(vec![reads]))), &code);
    let reason = MsrReason::Filter.bits().unwrap();
    assert_eq!(machine.run(), Exit::Rdmsr { reason, index: SYSENTER });
    machine.vcpu.answer_word(0x42).unwrap();
    assert_eq!(machine.run(), Exit::Hlt);
    assert_eq!(stored(&machine), 0x42);
}

fn filter_bits() {
    let every_other = MsrRange { access: MsrAccess::Bitmap(Box::new([0b101])), ..MsrRange::denied(SYSENTER, 3) };
    let code = [write(SYSENTER, 8), write(SYSENTER + 1, 9), read(SYSENTER), read(0x1b), HALT.to_vec()].concat();
    let reason = MsrReason::Filter.bits().unwrap();
    for deny_others in [false, true] {
        let filter = Some(MsrFilter { ranges: vec![every_other.clone()], deny_others });
        let machine = made_with(with_msr(&[MsrReason::Filter], filter), &code);
        assert_eq!(machine.run(), Exit::Wrmsr { reason, index: SYSENTER + 1, data: 9 });
        if deny_others {
            assert_eq!(machine.run(), Exit::Rdmsr { reason, index: 0x1b });
            assert_eq!(stored(&machine), 8);
            machine.vcpu.answer_word(0).unwrap();
        }
        assert_eq!(machine.run(), Exit::Hlt);
    }
}

fn filter_fault() {
    let filter = Some(only(vec![MsrRange::denied(SYSENTER, 1)]));
    for reasons in [&[][..], &[MsrReason::Unknown]] {
        assert_fault(&handled(made_with(with_msr(reasons, filter.clone()), &[read(SYSENTER), HALT.to_vec()].concat())));
    }
}

fn filter_refused() {
    let refused = |filter| {
        let exits = with_msr(&[MsrReason::Filter], filter);
        Vm::create(&kvm(), &VmOptions { exits, ..Default::default() }).unwrap_err()
    };
    let error = refused(Some(only(vec![MsrRange::denied(0, 1), MsrRange::denied(0x8ff, 1)])));
    assert!(error.to_string().starts_with("exits.msr.filter[1] refuses registers of the x2APIC"), "{error}");
    let error = refused(Some(MsrFilter { ranges: vec![], deny_others: true }));
    assert!(matches!(error, Error::InvalidArgument { what: "exits.msr.filter", .. }), "{error}");
}

fn emulation_failure() {
    // mov ebx, 0x90000000; pmaddwd mm0, [rbx]: no memory is there, and the emulator does not know it
    let code = [0xbb, 0, 0, 0, 0x90, 0x0f, 0xf5, 3];
    let exits = ExitSwitches { emulation_failure: true, ..Default::default() };
    let exit = long(exits, Privilege::User, &code).run();
    let Exit::InternalError { suberror, flags: Some(1), instruction: Some(bytes), .. } = &exit else {
        panic!("{exit:?}")
    };
    assert_eq!(InternalError::from_number(*suberror), InternalError::Emulation);
    assert!(bytes.starts_with(&[0x0f, 0xf5, 3]), "{bytes:02x?}");
    // Without, it is #UD, for which this guest has no handler; kvm-pvm makes it an exit for all privileges.
    let without = long(ExitSwitches::default(), Privilege::User, &code).run();
    assert_eq!(without, if is_interpreted() { exit } else { Exit::Shutdown });
}

fn hypercall() {
    let code = [
        &[0xb8, 12, 0, 0, 0][..],                    // mov eax, 12 (KVM_HC_MAP_GPA_RANGE)
        &[0xbb, 0, 0x30, 0, 0],                      // mov ebx, 0x3000
        &[0xb9, 2, 0, 0, 0, 0xba, 0x10, 0, 0, 0],    // mov ecx, 2; mov edx, 0x10
        &[0x0f, 1, 0xc1],                            // vmcall, which KVM makes vmmcall where it has to
        &[0x48, 0x89, 4, 0x25, 0, 0x20, 0, 0, 0xf4], // mov [0x2000], rax; hlt
    ]
    .concat();
    let exits = ExitSwitches { hypercalls: ExitingHypercall::ALL.to_vec(), ..Default::default() };
    let machine = long(exits, Privilege::Kernel, &code);
    let exit = machine.run();
    let Exit::Hypercall { nr: 12, args: Some(args), flags: 1 } = &exit else { panic!("{exit:?}") };
    // Page-aligned address, pages, attributes; of the others KVM says nothing.
    assert_eq!(args[..], [0x3000, 2, 0x10]);
    assert!(matches!(machine.vcpu.answer(&[0; 4]), Err(Error::AnswerSize { expected: 8, given: 4 })));
    machine.vcpu.answer_word(0x1234).unwrap();
    assert_eq!(machine.run(), Exit::Hlt);
    assert_eq!(stored(&machine), 0x1234);
    let without = long(ExitSwitches::default(), Privilege::Kernel, &code);
    assert_eq!(without.run(), Exit::Hlt);
    assert_eq!(stored(&without).cast_signed(), -1000, "KVM_ENOSYS");
}

fn xen_hypercall() {
    // As a Xen guest does: it has KVM write a page of hypercalls, of 32 bytes each, and calls into it.
    let msr = 0x4000_0000;
    let code = [
        &wrmsr(msr, 0x3000)[..],
        &[0xbf, 1, 0, 0, 0, 0xbe, 2, 0, 0, 0, 0xba, 3, 0, 0, 0], // mov edi, 1; mov esi, 2; mov edx, 3
        &[0x41, 0xba, 4, 0, 0, 0, 0x41, 0xb8, 5, 0, 0, 0, 0x41, 0xb9, 6, 0, 0, 0], // mov r10d, 4; mov r8d, 5; mov r9d, 6
        &[0xb8, 0x40, 0x34, 0, 0, 0xff, 0xd0], // mov eax, 0x3000 + 34 * 32 (hvm_op); call rax
        &[0x48, 0x89, 4, 0x25, 0, 0x20, 0, 0, 0xf4], // mov [0x2000], rax; hlt
    ]
    .concat();
    let machine = long(ExitSwitches { xen: Some(msr), ..Default::default() }, Privilege::Kernel, &code);
    let params = Box::new([1, 2, 3, 4, 5, 6]);
    assert_eq!(machine.run(), Exit::Xen(XenExit::Hcall { longmode: true, cpl: 0, input: 34, params }));
    assert!(matches!(machine.vcpu.answer(&[0; 4]), Err(Error::AnswerSize { expected: 8, given: 4 })));
    assert!(matches!(machine.vcpu.run_sync(LIMIT), Err(Error::ExitUnanswered { size: 8 })));
    machine.vcpu.answer_word(0x1122_3344_5566_7788).unwrap();
    assert_eq!(machine.run(), Exit::Hlt);
    assert_eq!(stored(&machine), 0x1122_3344_5566_7788);
}

/// Code of 32 or 64 bits: `mov ecx, register; mov eax, low; mov edx, high; wrmsr`.
pub(crate) fn wrmsr(register: u32, value: u64) -> Vec<u8> {
    let bytes = value.to_le_bytes();
    let (low, high) = bytes.split_at(4);
    [&[0xb9][..], &register.to_le_bytes(), &[0xb8], low, &[0xba], high, &[0x0f, 0x30]].concat()
}

/// For a VM whose guests can be let to halt alone.
fn halting(name: &'static str, test: fn()) -> Trial {
    // KVM_X86_DISABLE_EXITS_HLT
    having(Capability::X86DisableExits, 2, "needs x86-disable-exits 2", native(trial(name, test)))
}

/// For one that tells of Xen's hypercalls.
fn xen(name: &'static str, test: fn()) -> Trial {
    // KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL
    having(Capability::XenHvm, 2, "needs xen-hvm 2", native(trial(name, test)))
}

fn having(capability: Capability, bit: i32, needs: &str, trial: Trial) -> Trial {
    let missing = kvm_is_here().is_ok() && vm().capabilities().value(capability) & bit == 0;
    if missing { trial.with_kind(needs).with_ignored_flag(true) } else { trial }
}

/// kvm-pvm says that it has what is asked for, and interprets what a guest's kernel executes: its `hlt` exits, and a
/// hypercall is rewritten for ever.
pub(crate) fn native(trial: Trial) -> Trial {
    if is_interpreted() && !trial.has_ignored_flag() {
        return trial.with_kind("needs ring 0 by hardware").with_ignored_flag(true);
    }
    trial
}

fn is_interpreted() -> bool {
    Path::new("/sys/module/kvm_pvm").exists()
}

fn disabled_halt() {
    let exits = ExitSwitches { disable: vec![DisabledExit::Hlt], ..Default::default() };
    // Again and again: an interrupt of the host's ends a halt on some processors, as one of its own would.
    let halted = made_with(exits, &[0xf4, 0xeb, 0xfd]).vcpu.run_sync(Duration::from_millis(300));
    assert!(matches!(halted, Err(Error::Timeout { .. })), "{halted:?}");
    assert_eq!(made_with(ExitSwitches::default(), &HALT).run(), Exit::Hlt);
}

fn bus_lock() {
    // lock inc word [0x203f]: it lies in two cache lines
    let code = [0xf0, 0xff, 6, 0x3f, 0x20, 0xf4];
    let machine = made_with(ExitSwitches { bus_lock: true, ..Default::default() }, &code);
    assert_eq!(machine.run(), Exit::BusLock);
    assert!(machine.vcpu.run_flags().bus_lock);
    machine.vcpu.kick().unwrap();
    assert_eq!(machine.run(), Exit::Intr);
    assert!(!machine.vcpu.run_flags().bus_lock, "it is told once");
    assert_eq!(machine.run(), Exit::Hlt);
    assert!(!machine.vcpu.run_flags().bus_lock);
    let mut word = [0; 2];
    machine.vm.memory().read(0x203f, &mut word).unwrap();
    assert_eq!(word, [1, 0]);
}

fn notify() {
    let machine = made_with(ExitSwitches { notify: Some(0), ..Default::default() }, &HALT);
    assert_eq!(machine.run(), Exit::Hlt);
}
