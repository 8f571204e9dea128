//! aarch64: how a guest ends by PSCI, and the features that a vCPU is made with.

use std::time::Duration;

use libtest_mimic::Trial;
use typevisor::{
    Error, Exit, Kvm, Vcpu, Vm, VmOptions,
    exit::{SystemEvent, SystemEventPayload},
    host::{Capability, KvmOptions},
    switches::ExitSwitches,
    vcpu::{BootOptions, Registers, VcpuFeature, VcpuFeatures, VcpuOptions},
};

use crate::{
    el1::{NOWHERE, REPORT, boot, options, report, set},
    machine::{CODE, LIMIT, Machine, code},
    support::{kvm, needs, trial, vm},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial(
            "psci: SYSTEM_OFF and SYSTEM_RESET are system events, with flags or data as the kernel has it",
            psci_events,
        ),
        trial("psci: a vCPU that is off waits until a kick, and boots again", off_then_boot),
        trial("psci: SYSTEM_RESET2 says so in its data, and is no exit on kernels that know neither", psci_reset2),
        trial("psci: without the feature SYSTEM_OFF is no exit", without_psci),
        trial("features: 'power-off' waits, and a boot starts it", power_off),
        trial("features: 'power-off' waits, and another vCPU starts it by CPU_ON", cpu_on),
        trial("features: a boot comes after a CPU_ON that no run has seen", boot_after_cpu_on),
        trial("features: what a machine lacks is refused, and costs no id", features_refused),
        trial("features: a second vCPU has those of the first; others are refused, and cost no id", same_features),
        needs(Capability::ArmSve, "features: 'sve' runs", sve),
        needs(Capability::ArmPmuV3, "features: 'pmu-v3' runs", pmu),
        needs(Capability::ArmPtrauthAddress, "features: 'pointer-auth' runs", pointer_auth),
        needs(Capability::ArmNisvToUser, "switch: an access that the processor does not describe is an exit", nisv),
    ]
}

const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;
const SYSTEM_RESET2: u64 = 0xc400_0012;

const CPU_ON: u64 = 0xc400_0003;

/// `hvc #0; again: str x0, [x4]; b again` with the function's number in `x0`: what it returns is reported, so that a
/// vCPU which runs on is seen.
fn psci(function: u64, features: VcpuFeatures) -> Machine {
    let machine = Machine::el1(&CALL, Some(features));
    set_call(&machine, function);
    machine
}

const CALL: [u32; 3] = [0xd400_0002, 0xf900_0080, 0x17ff_ffff];

fn set_call(machine: &Machine, function: u64) {
    set(machine, "x0", function);
    set(machine, "x4", NOWHERE); // a hypercall changes x0 to x3
}

fn psci_events() {
    for (function, event, number) in [(SYSTEM_OFF, SystemEvent::Shutdown, 1), (SYSTEM_RESET, SystemEvent::Reset, 2)] {
        let machine = psci(function, VcpuFeatures::default());
        let payload = if machine.vm.capabilities().has(Capability::SystemEventData) {
            SystemEventPayload::Data(Box::new([0]))
        } else {
            SystemEventPayload::Flags(0)
        };
        assert_eq!(machine.run(), Exit::SystemEvent { event, r#type: number, payload });
    }
}

fn off_then_boot() {
    let machine = psci(SYSTEM_OFF, VcpuFeatures::default());
    assert_eq!(machine.run().kind(), "system-event");
    assert_off(&machine);
    machine.vcpu.boot(&options()).unwrap();
    set_call(&machine, SYSTEM_RESET);
    assert!(matches!(machine.run(), Exit::SystemEvent { event: SystemEvent::Reset, .. }));
}

/// The vCPU, whose next instructions report, is switched off: no exit comes. A machine under emulation gets from entry to
/// exit in less than a tenth of the limit.
fn assert_off(machine: &Machine) {
    let outcome = machine.vcpu.run_sync(Duration::from_millis(300));
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
}

/// Both came with Linux 5.18.
fn psci_reset2() {
    let machine = psci(SYSTEM_RESET2, VcpuFeatures::default());
    let payload = SystemEventPayload::Data(Box::new([1]));
    let reset = Exit::SystemEvent { event: SystemEvent::Reset, r#type: 2, payload };
    // NOT_SUPPORTED is what the guest is told, which runs on.
    let knows = machine.vm.capabilities().has(Capability::SystemEventData);
    assert_eq!(machine.run(), if knows { reset } else { report(u64::MAX) });
}

fn without_psci() {
    let machine = psci(SYSTEM_OFF, VcpuFeatures::none());
    // PSCI 0.1 knows no such function: it is answered as one.
    assert_eq!(machine.run(), report(u64::MAX));
}

/// A second vCPU that is off, and whose program counter is at its VM's code, whose first instruction is [`STARTED`].
fn waiting() -> (Machine, Vcpu) {
    let Machine { vm, vcpu: first } = Machine::el1(&[STARTED], None);
    let features = VcpuFeatures::default().with(VcpuFeature::PowerOff);
    let vcpu = vm.create_vcpu(chosen(features)).unwrap();
    let waiting = Machine { vcpu, vm };
    set(&waiting, "pc", CODE);
    set(&waiting, "x0", NOWHERE);
    assert_off(&waiting);
    (waiting, first)
}

/// `str x0, [x0]`: with the address in `x0`, the context that `CPU_ON` brings.
const STARTED: u32 = 0xf900_0000;

fn chosen(features: VcpuFeatures) -> VcpuOptions {
    VcpuOptions { features: Some(features), ..Default::default() }
}

fn power_off() {
    let (waiting, _first) = waiting();
    waiting.vcpu.boot(&options()).unwrap();
    set(&waiting, "x0", NOWHERE);
    assert_eq!(waiting.run(), report(NOWHERE));
}

fn cpu_on() {
    let (waiting, first) = waiting();
    start_second(&waiting, &first);
    assert_eq!(waiting.run(), report(NOWHERE));
}

/// The first vCPU calls `CPU_ON` for the second, with [`CODE`] and [`NOWHERE`].
fn start_second(waiting: &Machine, first: &Vcpu) {
    let caller = CODE + 0x1000;
    waiting.vm.memory().write(caller, &code(&CALL)).unwrap();
    first.boot(&BootOptions { entry: caller, ..options() }).unwrap();
    let update = |registers: &mut Registers| {
        // The target is the second's MPIDR.
        (registers.x0, registers.x1, registers.x2, registers.x3) = (CPU_ON, 1, CODE, NOWHERE);
        registers.x4 = NOWHERE;
        Ok(())
    };
    first.update_registers(update).unwrap();
    assert_eq!(first.run_sync(LIMIT).unwrap(), report(0), "SUCCESS");
}

fn boot_after_cpu_on() {
    let (waiting, first) = waiting();
    start_second(&waiting, &first);
    waiting.vcpu.boot(&options()).unwrap();
    set(&waiting, "x0", NOWHERE + 8);
    let data = (NOWHERE + 8).to_le_bytes().into();
    assert_eq!(waiting.run(), Exit::MmioWrite { gpa: NOWHERE + 8, data });
    assert_ne!(waiting.vcpu.registers().unwrap().0.sctlr_el1 & 1, 0, "the MMU is on, as booted");
}

fn features_refused() {
    for (feature, hide) in [
        (VcpuFeature::Psci02, vec![Capability::ArmPsci02]),
        (VcpuFeature::Sve, vec![Capability::ArmSve]),
        (VcpuFeature::PmuV3, vec![Capability::ArmPmuV3]),
        (VcpuFeature::El132bit, vec![Capability::ArmEl132bit]),
        (VcpuFeature::PointerAuth, vec![Capability::ArmPtrauthAddress]),
        (VcpuFeature::PointerAuth, vec![Capability::ArmPtrauthAddress, Capability::ArmPtrauthGeneric]),
    ] {
        let missing = hide[0];
        let vm = vm_without(hide);
        let error = vm.create_vcpu(chosen(VcpuFeatures::none().with(feature))).unwrap_err();
        let Error::CapabilityMissing { capability, needed_by, .. } = error else { panic!("{error}") };
        assert_eq!(capability, missing.name());
        assert!(needed_by.contains(feature.name()), "{needed_by}");
        assert_eq!(vm.create_vcpu(chosen(VcpuFeatures::none())).unwrap().id(), 0);
    }
    let vm = vm();
    let both: VcpuFeatures = [VcpuFeature::El132bit, VcpuFeature::Sve].into_iter().collect();
    let error = vm.create_vcpu(chosen(both)).unwrap_err();
    if [Capability::ArmEl132bit, Capability::ArmSve].into_iter().all(|capability| vm.capabilities().has(capability)) {
        assert!(matches!(error, Error::InvalidArgument { what: "features", .. }), "{error}");
    }
    assert_eq!(vm.create_vcpu(VcpuOptions::default()).unwrap().id(), 0);
}

fn vm_without(hide: Vec<Capability>) -> Vm {
    let kvm = Kvm::open(KvmOptions { hide, ..Default::default() }).unwrap();
    Vm::create(&kvm, &VmOptions::default()).unwrap()
}

fn same_features() {
    let Machine { vm, vcpu: first } = Machine::el1(&[REPORT], Some(VcpuFeatures::none()));
    let error = vm.create_vcpu(chosen(VcpuFeatures::default())).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { what: "features", .. }), "{error}");
    let off = vm.create_vcpu(chosen(VcpuFeatures::none().with(VcpuFeature::PowerOff))).unwrap();
    assert_eq!((first.id(), off.id()), (0, 1), "the refused one took no id");
    // Whom nothing is chosen for has the same, and runs.
    let machine = Machine { vcpu: vm.create_vcpu(VcpuOptions::default()).unwrap(), vm };
    machine.vcpu.boot(&options()).unwrap();
    set(&machine, "x1", NOWHERE);
    assert_eq!(machine.run(), report(0));
}

fn featured(feature: VcpuFeature, words: &[u32]) -> Machine {
    let machine = Machine::el1(words, Some(VcpuFeatures::default().with(feature)));
    set(&machine, "x1", NOWHERE);
    machine
}

fn sve() {
    let machine = featured(VcpuFeature::Sve, &[0x04bf_5022, REPORT]); // rdvl x2, #1
    let Exit::MmioWrite { gpa: NOWHERE, data } = machine.run() else { panic!("no SVE") };
    let bytes = u64::from_le_bytes((*data).try_into().unwrap());
    assert!(bytes >= 16 && bytes % 16 == 0, "{bytes}");
    boot(&machine, &options());
    set(&machine, "x1", NOWHERE);
    assert_eq!(machine.run(), report(bytes));
}

fn pmu() {
    let machine = featured(VcpuFeature::PmuV3, &[0xd53b_9c02, REPORT]); // mrs x2, pmcr_el0
    assert!(matches!(machine.run(), Exit::MmioWrite { gpa: NOWHERE, .. }));
}

fn pointer_auth() {
    let code = [
        0xd538_0622, // mrs x2, id_aa64isar1_el1
        REPORT,
    ];
    let machine = featured(VcpuFeature::PointerAuth, &code);
    let Exit::MmioWrite { data, .. } = machine.run() else { panic!("no report") };
    let fields = u64::from_le_bytes((*data).try_into().unwrap());
    // APA, API, GPA, GPI: one of each pair; APA3 and GPA3 are in another register.
    assert_ne!(fields & 0xff00_0ff0, 0, "{fields:#x}");
}

fn nisv() {
    let exits = ExitSwitches { nisv: true, ..Default::default() };
    let vm = Vm::create(&kvm(), &VmOptions { exits, ..Default::default() }).unwrap();
    // ldp x2, x3, [x4]
    let machine = Machine::on(vm, &code(&[0xa940_0c82, REPORT]), VcpuOptions::default());
    set(&machine, "x4", NOWHERE + 16);
    set(&machine, "x1", NOWHERE);
    let exit = machine.run();
    let Exit::ArmNisv { esr_iss, fault_ipa } = exit else { panic!("{exit:?}") };
    // Of the syndrome ISV is 0, and WnR: it is a read.
    assert_eq!((fault_ipa, esr_iss & (1 << 24 | 1 << 6)), (NOWHERE + 16, 0));
    // It stands at that instruction, and goes on where it is told to.
    assert_eq!(machine.run(), exit);
    set(&machine, "x2", 77);
    set(&machine, "pc", CODE + 4);
    assert_eq!(machine.run(), report(77));
}
