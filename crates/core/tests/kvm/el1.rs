//! aarch64: where a guest at EL1 starts and what it has there, and the vCPU's registers. Guests are words with their
//! assembly beside them.

use libtest_mimic::Trial;
use typevisor::{
    Error, Exit, GpaRange, Vm,
    memory::MapOptions,
    vcpu::{BootMode, BootOptions, Privilege, VcpuOptions},
};

use crate::{
    machine::{CODE, LIMIT, Machine, code},
    support::trial,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("el1: MMU and caches are on, exceptions masked, the stack where it was asked for", mmu_on),
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
        trial("registers: every one is read back as it was written", registers),
    ]
}

/// An address without memory.
pub(crate) const NOWHERE: u64 = 0x900_0000;

pub(crate) fn options() -> BootOptions {
    BootOptions { stack: Some(CODE + 0x8000), ..BootOptions::new(BootMode::El1, CODE) }
}

pub(crate) fn set(machine: &Machine, name: &str, value: u64) {
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
pub(crate) const REPORT: u32 = 0xf900_0022;

pub(crate) fn report(value: u64) -> Exit {
    Exit::MmioWrite { gpa: NOWHERE, data: value.to_le_bytes().into() }
}

fn guest(words: &[u32]) -> Machine {
    let machine = Machine::el1(words, None);
    set(&machine, "x1", NOWHERE);
    machine
}

/// Boots once more: the access that the last exit reported is completed first.
pub(crate) fn boot(machine: &Machine, options: &BootOptions) {
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

/// QEMU models no caches: only hardware can fail for memory that is not cacheable.
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
    machine.vm.memory().map(&MapOptions::new(range)).unwrap();
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
    for (wrong, refused) in [
        ("mode", BootOptions { mode: BootMode::Long, ..options() }),
        ("mode", BootOptions { mode: BootMode::Real, ..options() }),
        ("privilege", BootOptions { privilege: Privilege::User, ..options() }),
        ("entry", BootOptions { entry: 1 << 40, ..options() }),
        ("entry", BootOptions { entry: CODE + 2, ..options() }),
        ("stack", BootOptions { stack: Some(8), ..options() }),
        ("stack", BootOptions { stack: Some((1 << 40) + 16), ..options() }),
        ("tables", BootOptions { tables: Some(0x10_0001), ..options() }),
        ("tables", BootOptions { tables: Some((1 << 40) - 0x2_0000), ..options() }),
    ] {
        let error = machine.vcpu.boot(&refused).unwrap_err();
        let (Error::InvalidArgument { what, .. } | Error::Unaligned { what, .. }) = error else { panic!("{error}") };
        assert_eq!(what, wrong);
        assert_eq!((machine.vcpu.registers().unwrap(), slots(&machine.vm)), before);
    }
    let overlapping = BootOptions { tables: Some(CODE), ..options() };
    assert!(matches!(machine.vcpu.boot(&overlapping), Err(Error::SlotOverlap { .. })));
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
