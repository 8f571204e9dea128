//! aarch64: how a guest ends by PSCI, and the features that a vCPU is made with.

use libtest_mimic::Trial;
use typevisor::{
    Error, Exit,
    exit::{SystemEvent, SystemEventPayload},
    host::Capability,
    vcpu::{VcpuFeature, VcpuFeatures, VcpuOptions},
};

use crate::{
    el1::{NOWHERE, REPORT, boot, options, report, set},
    machine::Machine,
    support::{needs, trial, vm},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial(
            "psci: SYSTEM_OFF and SYSTEM_RESET are system events, with flags or data as the kernel has it",
            psci_events,
        ),
        trial("psci: a vCPU that is off waits until a kick, and boots again", off_then_boot),
        needs(Capability::SystemEventData, "psci: SYSTEM_RESET2 says so in its data", psci_reset2),
        trial("psci: without the feature SYSTEM_OFF is no exit", without_psci),
        trial("features: 'power-off' waits, and a boot starts it", power_off),
        trial("features: what this machine lacks is refused, and costs no id", features_refused),
        needs(Capability::ArmSve, "features: 'sve' runs", sve),
        needs(Capability::ArmPmuV3, "features: 'pmu-v3' runs", pmu),
        needs(Capability::ArmPtrauthAddress, "features: 'pointer-auth' runs", pointer_auth),
    ]
}

const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;
const SYSTEM_RESET2: u64 = 0xc400_0012;

/// `hvc #0; b .` with the function's number in `x0`.
fn psci(function: u64, features: VcpuFeatures) -> Machine {
    let machine = Machine::el1(&[0xd400_0002, 0x1400_0000], Some(features));
    set(&machine, "x0", function);
    machine
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
    assert_waits(&machine);
    machine.vcpu.boot(&options()).unwrap();
    set(&machine, "x0", SYSTEM_RESET);
    assert!(matches!(machine.run(), Exit::SystemEvent { event: SystemEvent::Reset, .. }));
}

/// The vCPU is switched off, or spins: no exit comes.
fn assert_waits(machine: &Machine) {
    let limit = std::time::Duration::from_millis(50);
    assert!(matches!(machine.vcpu.run_sync(limit), Err(Error::Timeout { .. })));
}

fn psci_reset2() {
    let machine = psci(SYSTEM_RESET2, VcpuFeatures::default());
    let payload = SystemEventPayload::Data(Box::new([1]));
    assert_eq!(machine.run(), Exit::SystemEvent { event: SystemEvent::Reset, r#type: 2, payload });
}

fn without_psci() {
    let machine = psci(SYSTEM_OFF, VcpuFeatures::none());
    assert_waits(&machine);
    // PSCI 0.1 knows no such function: it is answered as one.
    assert_eq!(machine.vcpu.registers().unwrap().0.x0, u64::MAX);
}

fn power_off() {
    let machine = Machine::el1(&[REPORT], None);
    let features = VcpuFeatures::default().with(VcpuFeature::PowerOff);
    let second = machine.vm.create_vcpu(VcpuOptions { features: Some(features), ..Default::default() }).unwrap();
    let waiting = Machine { vcpu: second, vm: machine.vm };
    assert_waits(&waiting);
    waiting.vcpu.boot(&options()).unwrap();
    set(&waiting, "x1", NOWHERE);
    assert_eq!(waiting.run(), report(0));
}

fn features_refused() {
    let vm = vm();
    for (feature, capability) in [
        (VcpuFeature::Sve, Capability::ArmSve),
        (VcpuFeature::PmuV3, Capability::ArmPmuV3),
        (VcpuFeature::El132bit, Capability::ArmEl132bit),
        (VcpuFeature::PointerAuth, Capability::ArmPtrauthGeneric),
    ] {
        if vm.capabilities().has(capability) {
            continue;
        }
        let features = Some(VcpuFeatures::default().with(feature));
        let error = vm.create_vcpu(VcpuOptions { features, ..Default::default() }).unwrap_err();
        assert!(matches!(error, Error::CapabilityMissing { .. }), "{error}");
        assert!(error.to_string().contains(feature.name()), "{error}");
    }
    let both = [VcpuFeature::El132bit, VcpuFeature::Sve].into_iter().collect();
    assert!(vm.create_vcpu(VcpuOptions { features: Some(both), ..Default::default() }).is_err());
    assert_eq!(vm.create_vcpu(VcpuOptions::default()).unwrap().id(), 0);
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
