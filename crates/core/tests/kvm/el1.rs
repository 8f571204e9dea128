//! aarch64: where a guest at EL1 starts, what it has there, how it ends; and the vCPU's registers and features. Guests
//! are words with their assembly beside them.

use libtest_mimic::Trial;
use typevisor::{
    Error, Exit, GpaRange, Vm,
    exit::{SystemEvent, SystemEventPayload},
    host::Capability,
    memory::MapOptions,
    vcpu::{BootMode, BootOptions, Privilege, VcpuFeature, VcpuFeatures, VcpuOptions},
};

use crate::{
    machine::{CODE, LIMIT, Machine, code},
    support::{needs, trial, vm},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("el1: MMU and caches are on, and memory works with and without them in mind", mmu_on),
        trial("el1: exclusives work on memory", exclusives),
        trial("el1: floating point works", floating_point),
        trial("el1: MMIO of every size is a write with its bytes and a read with its answer", mmio_sizes),
        trial("el1: an undefined instruction shows at the exceptions' page, again and again", undefined),
        trial("el1: an address that the VM lacks is a data abort with its address", data_abort),
        trial("el1: unaligned accesses to memory work", unaligned),
        trial("el1: a hundred boots of one vCPU use one slot, and it may be moved or unmapped", boot_again),
        trial("el1: what was mapped after a boot is memory after the next", mapped_later),
        trial("el1: each vCPU has tables of its own", two_vcpus),
        trial("el1: refused options change nothing", refused),
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
        trial("registers: every one is read back as it was written", registers),
    ]
}

const NOWHERE: u64 = 0x900_0000;

fn options() -> BootOptions {
    BootOptions { stack: Some(CODE + 0x8000), ..BootOptions::new(BootMode::El1, CODE) }
}

fn set(machine: &Machine, name: &str, value: u64) {
    machine
        .vcpu
        .update_registers(|registers| {
            registers.set_scalar(name, value).expect("a register");
            Ok(())
        })
        .unwrap();
}

fn slots(vm: &Vm) -> Vec<GpaRange> {
    vm.memory().slots().unwrap().into_iter().map(|slot| slot.range).collect()
}

fn word(vm: &Vm, gpa: u64) -> u64 {
    let mut bytes = [0; 8];
    vm.memory().read(gpa, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

/// `str x2, [x1]` to nowhere: how guests here say that they are done, with a value.
const REPORT: u32 = 0xf900_0022;

fn report(value: u64) -> Exit {
    Exit::MmioWrite { gpa: NOWHERE, data: value.to_le_bytes().into() }
}

fn guest(words: &[u32]) -> Machine {
    let machine = Machine::el1(words);
    set(&machine, "x1", NOWHERE);
    machine
}

/// Boots once more: the access that the last exit reported is completed first.
fn boot(machine: &Machine, options: &BootOptions) {
    machine.vcpu.kick().unwrap();
    assert_eq!(machine.run(), Exit::Intr);
    machine.vcpu.boot(options).unwrap();
}

fn mmu_on() {
    let machine = guest(&[
        0xd538_1002, // mrs x2, sctlr_el1
        REPORT,
        0xd538_4242, // mrs x2, CurrentEL
        REPORT,
        0xd53b_4222, // mrs x2, daif
        REPORT,
        0x9100_03e2, // mov x2, sp
        REPORT,
    ]);
    let Exit::MmioWrite { data, .. } = machine.run() else { panic!("no report") };
    let sctlr = u64::from_le_bytes((*data).try_into().unwrap());
    assert_eq!(sctlr & 0x1005, 0x1005, "MMU, data cache, instruction cache: {sctlr:#x}");
    assert_eq!(machine.run(), report(1 << 2));
    assert_eq!(machine.run(), report(0x3c0));
    assert_eq!(machine.run(), report(CODE + 0x8000));
}

fn exclusives() {
    let machine = guest(&[
        0xc85f_fc62, // again: ldaxr x2, [x3]
        0x9100_0442, // add x2, x2, #1
        0xc804_fc62, // stlxr w4, x2, [x3]
        0x35ff_ffa4, // cbnz w4, again
        REPORT,
    ]);
    set(&machine, "x3", CODE + 0x1000);
    machine.vm.memory().write(CODE + 0x1000, &41_u64.to_le_bytes()).unwrap();
    assert_eq!(machine.run(), report(42));
    assert_eq!(word(&machine.vm, CODE + 0x1000), 42);
}

fn floating_point() {
    let machine = guest(&[
        0x1e6f_1000, // fmov d0, #1.5
        0x1e60_1001, // fmov d1, #2.0
        0x1e61_0802, // fmul d2, d0, d1
        0x9e66_0042, // fmov x2, d2
        REPORT,
    ]);
    assert_eq!(machine.run(), report(3.0_f64.to_bits()));
}

fn mmio_sizes() {
    let machine = guest(&[
        0x3900_0022, // strb w2, [x1]
        0x7900_0022, // strh w2, [x1]
        0xb900_0022, // str w2, [x1]
        0xf900_0022, // str x2, [x1]
        0x3940_0023, // ldrb w3, [x1]
        0x7940_0024, // ldrh w4, [x1]
        0xb940_0025, // ldr w5, [x1]
        0xf940_0026, // ldr x6, [x1]
        REPORT,
    ]);
    set(&machine, "x2", 0x1122_3344_5566_7788);
    let bytes = 0x1122_3344_5566_7788_u64.to_le_bytes();
    for size in [1, 2, 4, 8] {
        assert_eq!(machine.run(), Exit::MmioWrite { gpa: NOWHERE, data: bytes[..size].into() });
    }
    for size in [1, 2, 4, 8] {
        assert_eq!(machine.run(), Exit::MmioRead { gpa: NOWHERE, size });
        machine.vcpu.answer(&[0xf1; 8][..usize::from(size)]).unwrap();
    }
    assert_eq!(machine.run(), report(0x1122_3344_5566_7788));
    let registers = machine.vcpu.registers().unwrap().0;
    let read = [registers.x3, registers.x4, registers.x5, registers.x6];
    assert_eq!(read, [0xf1, 0xf1f1, 0xf1f1_f1f1, 0xf1f1_f1f1_f1f1_f1f1]);
}

/// The one way an exception shows: vector 4 is a synchronous one from EL1 with its own stack pointer.
fn assert_exception(machine: &Machine, exceptions: GpaRange, class: u64) {
    for _ in 0..2 {
        let Exit::MmioWrite { gpa, data } = machine.run() else { panic!("not shown") };
        assert_eq!(gpa, exceptions.gpa() + 8 * 4);
        assert_eq!(u64::from_le_bytes((*data).try_into().unwrap()) >> 26, class);
    }
}

fn undefined() {
    let machine = guest(&[
        0xd280_0540, // mov x0, #42
        0x0000_0000, // udf #0
    ]);
    let exceptions = machine.vcpu.boot(&options()).unwrap().exceptions.unwrap();
    set(&machine, "x1", 43);
    assert_exception(&machine, exceptions, 0);
    let registers = machine.vcpu.registers().unwrap().0;
    assert_eq!((registers.elr_el1, registers.spsr_el1 & 0x3cf), (CODE + 4, 0x3c5));
    assert_eq!((registers.tpidr_el1, registers.tpidrro_el0), (42, 43));
}

fn data_abort() {
    let machine = guest(&[0xf940_0022]); // ldr x2, [x1]
    let exceptions = machine.vcpu.boot(&options()).unwrap().exceptions.unwrap();
    set(&machine, "x1", exceptions.end());
    assert_exception(&machine, exceptions, 0x25);
    let registers = machine.vcpu.registers().unwrap().0;
    assert_eq!((registers.elr_el1, registers.far_el1), (CODE, exceptions.end()));
}

fn unaligned() {
    let machine = guest(&[
        0xf800_3062, // stur x2, [x3, #3]
        0xf840_3062, // ldur x2, [x3, #3]
        REPORT,
    ]);
    set(&machine, "x3", CODE + 0x1ffe);
    set(&machine, "x2", 0x0102_0304_0506_0708);
    assert_eq!(machine.run(), report(0x0102_0304_0506_0708));
}

fn boot_again() {
    let machine = guest(&[REPORT]);
    let before = slots(&machine.vm);
    for value in 0..100 {
        boot(&machine, &options());
        set(&machine, "x1", NOWHERE);
        set(&machine, "x2", value);
        assert_eq!(machine.run(), report(value));
    }
    assert_eq!(slots(&machine.vm), before);
    let tables = before[1].gpa() - 0x1000;
    boot(&machine, &BootOptions { tables: Some(tables), ..options() });
    assert_eq!(slots(&machine.vm)[1].gpa(), tables);
    set(&machine, "x1", NOWHERE);
    assert_eq!(machine.run(), report(0));
    machine.vm.memory().slot_at(tables).unwrap().unwrap().unmap().unwrap();
    boot(&machine, &options());
    assert_eq!(slots(&machine.vm), before);
}

fn mapped_later() {
    let machine = guest(&[
        0xf900_0063, // str x3, [x3]
        0xf940_0062, // ldr x2, [x3]
        REPORT,
    ]);
    let later = 0x8000_0000;
    set(&machine, "x3", later);
    let written = Exit::MmioWrite { gpa: later, data: later.to_le_bytes().into() };
    assert_eq!(machine.run(), written);
    let range = GpaRange::pages(later, 0x1000).unwrap();
    machine.vm.memory().map(MapOptions::new(range)).unwrap();
    boot(&machine, &options());
    set(&machine, "x1", NOWHERE);
    set(&machine, "x3", later);
    assert_eq!(machine.run(), report(later));
    assert_eq!(word(&machine.vm, later), later);
}

fn two_vcpus() {
    let machine = guest(&[REPORT]);
    let second = machine.vm.create_vcpu(VcpuOptions::default()).unwrap();
    let tables = second.boot(&options()).unwrap().tables.unwrap();
    assert_eq!(slots(&machine.vm).len(), 3);
    assert_eq!(second.registers().unwrap().0.vbar_el1, tables.gpa());
    assert_ne!(machine.vcpu.registers().unwrap().0.vbar_el1, tables.gpa());
    assert_eq!(machine.run(), report(0));
}

fn refused() {
    let machine = guest(&[REPORT]);
    let before = (machine.vcpu.registers().unwrap(), slots(&machine.vm));
    for refused in [
        BootOptions { mode: BootMode::Long, ..options() },
        BootOptions { mode: BootMode::Real, ..options() },
        BootOptions { privilege: Privilege::User, ..options() },
        BootOptions { entry: 1 << 40, ..options() },
        BootOptions { entry: CODE + 2, ..options() },
        BootOptions { stack: Some(8), ..options() },
        BootOptions { tables: Some(0x10_0001), ..options() },
        BootOptions { tables: Some((1 << 40) - 0x2_0000), ..options() },
    ] {
        let error = machine.vcpu.boot(&refused).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { .. } | Error::Unaligned { .. }), "{error}");
        assert_eq!((machine.vcpu.registers().unwrap(), slots(&machine.vm)), before);
    }
    let overlapping = BootOptions { tables: Some(CODE), ..options() };
    assert!(matches!(machine.vcpu.boot(&overlapping), Err(Error::SlotOverlap { .. })));
}

const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;
const SYSTEM_RESET2: u64 = 0xc400_0012;

/// `hvc #0; b .` with the function's number in `x0`.
fn psci(function: u64, features: VcpuFeatures) -> Machine {
    let machine = Machine::el1_with(&[0xd400_0002, 0x1400_0000], Some(features));
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
    let machine = Machine::el1_with(&[REPORT], None);
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
    let machine = Machine::el1_with(words, Some(VcpuFeatures::default().with(feature)));
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

fn registers() {
    let machine = guest(&[REPORT]);
    let (before, _) = machine.vcpu.registers().unwrap();
    let names: Vec<_> = before.scalars().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 31 + 3 + 2 + 5 + 12);
    // KVM keeps what it is given of these; of the others the processor has bits of its own.
    let plain = |name: &str| name.starts_with('x') || name.starts_with("tpidr") || name == "elr_el1";
    let written: Vec<_> =
        names.iter().copied().filter(|name| plain(name) || ["sp", "pc", "sp_el1"].contains(name)).collect();
    machine
        .vcpu
        .update_registers(|registers| {
            for (name, value) in written.iter().zip(0x1_0000_0001_u64..) {
                registers.set_scalar(name, value << 3).unwrap();
            }
            Ok(())
        })
        .unwrap();
    let (after, pending) = machine.vcpu.registers().unwrap();
    assert!(!pending);
    for (name, value) in after.scalars() {
        let old = before.scalars().find(|(other, _)| *other == name).unwrap().1;
        let new = written.iter().zip(0x1_0000_0001_u64..).find(|(other, _)| **other == name);
        assert_eq!(value, new.map_or(old, |(_, value)| value << 3), "{name}");
    }
    // Every register, as it is, is what KVM takes back.
    machine
        .vcpu
        .update_registers(|registers| {
            *registers = before;
            Ok(())
        })
        .unwrap();
    assert_eq!(machine.vcpu.registers().unwrap().0, before);
    let mode = machine.vcpu.update_registers(|registers| {
        (registers.pstate, registers.x0) = (0x3cd, 1); // EL3
        Ok(())
    });
    assert!(matches!(mode, Err(Error::Ioctl { request: "KVM_SET_ONE_REG", .. })), "{mode:?}");
    assert_eq!(machine.vcpu.registers().unwrap().0, before, "a refused mode changes nothing");
    assert_eq!(code(&[REPORT]).len(), 4);
    assert_eq!(machine.vcpu.run_sync(LIMIT).unwrap(), report(0));
}
