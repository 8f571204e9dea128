use super::*;
use crate::range::GpaRange;

fn range(gpa: u64, size: u64) -> GpaRange {
    GpaRange::pages(gpa, size).unwrap()
}

fn refused(options: BootOptions) -> &'static str {
    match check(&options) {
        Err(Error::InvalidArgument { what, .. } | Error::Unaligned { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn real_mode_starts_at_the_entry_with_a_segment_that_reaches_past_it() {
    for (entry, base, ip) in [
        (0, 0, 0),
        (0x7c00, 0, 0x7c00),
        (0xffff, 0, 0xffff),
        (0x1_0000, 0x1_0000, 0),
        (0xf_1239, 0xf_1230, 9),
        (0xf_ffff, 0xf_fff0, 0xf),
        (REAL_ENTRY_LAST, REAL_BASE_LAST, 0xffff),
    ] {
        let options = BootOptions::new(BootMode::Real, entry);
        let registers = start(check(&options).unwrap(), &options, None, 0);
        assert_eq!((registers.cs.base, registers.rip), (base, ip), "entry {entry:#x}");
        assert_eq!(u64::from(registers.cs.selector) * 16, base);
    }
}

#[test]
fn a_real_mode_stack_of_64_kib_begins_by_wrapping() {
    let options = BootOptions { stack: Some(0x1_0000), ..BootOptions::new(BootMode::Real, 0) };
    assert_eq!(start(check(&options).unwrap(), &options, None, 0).rsp, 0);
}

#[test]
fn user_privilege_is_ring_3_with_ports_in_both_modes_that_have_rings() {
    let place = range(0xdffe_0000, tables::SIZE);
    let built = Tables::build(place, true);
    for mode in [BootMode::Protected, BootMode::Long] {
        let options = BootOptions { privilege: Privilege::User, ..BootOptions::new(mode, 0x1000) };
        let registers = start(check(&options).unwrap(), &options, Some(&built), 0);
        for (name, segment) in registers.segments() {
            let system = matches!(name, "tr" | "ldt");
            assert_eq!(segment.dpl, if system { 0 } else { 3 }, "{name}");
            assert!(system || segment.selector & 3 == 3, "{name}");
        }
        assert_eq!(registers.rflags, 0x3002);
        assert_eq!((registers.cs.l, registers.cs.db), (mode == BootMode::Long, mode == BootMode::Protected));
    }
}

#[test]
fn long_mode_uses_the_tables_and_leaves_no_door_to_ring_0() {
    let place = range(0xdffe_0000, tables::SIZE);
    let built = Tables::build(place, true);
    let registers = start(Mode::Long, &BootOptions::new(BootMode::Long, 0x1000), Some(&built), 0xfee0_0900);
    assert_eq!((registers.cr0, registers.cr4, registers.efer), (0x8005_0033, 0x620, 0x500));
    assert_eq!((registers.cr3, registers.gdt, registers.tr), (built.cr3, built.gdt, built.task));
    assert_eq!(registers.idt, DescriptorTable { base: 0, limit: 0 });
    assert_eq!(registers.apic_base, 0xfee0_0900, "the APIC stays where it is");
}

#[test]
fn contradictions_are_refused_by_name() {
    let real = BootOptions::new(BootMode::Real, 0);
    let protected = BootOptions::new(BootMode::Protected, 0);
    let long = BootOptions::new(BootMode::Long, 0);
    assert_eq!(refused(BootOptions::new(BootMode::El1, 0)), "mode");
    assert_eq!(refused(BootOptions { privilege: Privilege::User, ..real }), "privilege");
    assert_eq!(refused(BootOptions { entry: REAL_ENTRY_LAST + 1, ..real }), "entry");
    assert_eq!(refused(BootOptions { stack: Some(0x1_0002), ..real }), "stack");
    assert_eq!(refused(BootOptions { stack: Some(0x7001), ..real }), "stack");
    assert_eq!(refused(BootOptions { entry: 1 << 32, ..protected }), "entry");
    assert_eq!(refused(BootOptions { stack: Some(1 << 32), ..protected }), "stack");
    assert_eq!(refused(BootOptions { stack: Some(8), ..long }), "stack");
    assert_eq!(refused(BootOptions { stack: Some((1 << 32) + 16), ..long }), "stack");
    assert_eq!(refused(BootOptions { tables: Some(0x1000), ..real }), "tables");
    assert_eq!(refused(BootOptions { tables: Some(0x1000), ..protected }), "tables");
    assert_eq!(refused(BootOptions { tables: Some(0x1001), ..long }), "tables");
    assert_eq!(refused(BootOptions { tables: Some(1 << 47), ..long }), "tables");
    assert_eq!(refused(BootOptions { tables: Some(u64::MAX), ..long }), "tables");
    check(&BootOptions { stack: Some(1 << 32), tables: Some((1 << 47) - tables::SIZE), ..long }).unwrap();
}
