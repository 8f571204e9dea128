//! The tables, read as a processor would.

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn place(gpa: u64) -> GpaRange {
    GpaRange::pages(gpa, SIZE).unwrap()
}

fn word(tables: &Tables, place: GpaRange, gpa: u64) -> u64 {
    let at = usize::try_from(gpa - place.gpa()).unwrap();
    u64::from_le_bytes(tables.bytes[at..at + 8].try_into().unwrap())
}

/// Walks as the processor does (SDM, "4-Level Paging"): the physical address, whether ring 3 may write, and the
/// page's size.
fn walk(tables: &Tables, place: GpaRange, linear: u64) -> Option<(u64, bool, u64)> {
    let (mut table, mut user) = (tables.cr3, true);
    for level in [4, 3, 2, 1] {
        let entry = word(tables, place, table + (linear >> shift(level) & 511) * 8);
        if entry & PRESENT == 0 {
            return None;
        }
        assert_ne!(entry & ACCESSED, 0, "a walk never writes the tables");
        user &= entry & (USER | WRITABLE) == USER | WRITABLE;
        let size = 1 << shift(level);
        if level == 1 || entry & LARGE != 0 {
            assert!(level <= 2, "1 GiB pages are not on every processor");
            assert_ne!(entry & DIRTY, 0);
            let base = entry & 0x000f_ffff_ffff_f000;
            assert_eq!(base % size, 0);
            return Some((base + linear % size, user, size));
        }
        table = entry & 0x000f_ffff_ffff_f000;
    }
    None
}

fn check(gpa: u64, linear: u64, user: bool) {
    let place = place(gpa);
    let tables = Tables::build(place, user);
    assert!(tables.bytes.len() as u64 <= SIZE);
    let found = walk(&tables, place, linear).map(|(physical, may, _)| (physical, may));
    let inside = place.contains(linear);
    let expected = (linear < MAPPED || inside).then_some((linear, user && !inside));
    // Above 4 GiB only the tables themselves are mapped.
    assert_eq!(found, expected, "{linear:#x} with tables at {place}");
}

#[test]
fn the_first_4_gib_map_to_themselves_in_2_mib_pages() {
    let place = place(0xdffe_0000);
    let tables = Tables::build(place, true);
    for linear in (0..4 * GIB).step_by(2 << 20) {
        let size = if linear == 0xdfe0_0000 { 4096 } else { 2 * MIB };
        assert_eq!(walk(&tables, place, linear), Some((linear, true, size)));
    }
    assert_eq!(walk(&tables, place, 4 * GIB), None);
    assert_eq!(walk(&tables, place, LINEAR_END - 1), None);
}

#[test]
fn ring_3_reaches_the_neighbours_of_the_tables_and_not_the_tables() {
    let place = place(0xdffe_0000);
    let tables = Tables::build(place, true);
    for page in (0xdfe0_0000_u64..0xe000_0000).step_by(4096) {
        assert_eq!(walk(&tables, place, page), Some((page, !place.contains(page), 4096)));
    }
}

#[test]
fn nothing_is_ring_3s_in_a_kernel_guest() {
    for linear in [0, 2 * MIB, 0xdffe_0000, 0xffff_fff0] {
        check(0xdffe_0000, linear, false);
    }
}

#[test]
fn tables_may_straddle_every_border_and_lie_above_4_gib() {
    for border in [2 * MIB, GIB, 4 * GIB, 6 * GIB, 512 * GIB, 1 << 46] {
        for gpa in [border - SIZE, border - 4096, border] {
            for linear in [gpa - 1, gpa, gpa + SIZE - 1, gpa + SIZE, border, 0, 4 * GIB - 1] {
                check(gpa, linear, true);
            }
        }
    }
}

proptest! {
    #[test]
    fn every_address_maps_to_itself_or_to_nothing(
        page in 0..(LINEAR_END - SIZE) / 4096,
        near in 0..4096_u64,
        any in 0..LINEAR_END,
    ) {
        let gpa = page * 4096;
        check(gpa, any, true);
        check(gpa, (gpa + near * 16).saturating_sub(0x4000).min(LINEAR_END - 1), true);
    }
}

#[test]
fn descriptors_are_the_well_known_ones() {
    let descriptors: Vec<_> = [Flat::new(false, true), Flat::new(true, true), Flat::new(false, false)]
        .iter()
        .flat_map(|flat| [descriptor(&flat.code), descriptor(&flat.data)])
        .collect();
    // 64-bit code, data of ring 0; the same of ring 3; 32-bit code of ring 0.
    let expected: [u64; 6] = [
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00cf_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
    ];
    assert_eq!(descriptors, expected);
}

#[test]
fn each_selector_finds_its_segment_in_the_gdt() {
    let place = place(0x1_2345_6000);
    let tables = Tables::build(place, true);
    let at = |selector: u16| word(&tables, place, tables.gdt.base + u64::from(selector & !7));
    for user in [false, true] {
        let flat = Flat::new(user, true);
        assert_eq!((at(flat.code.selector), at(flat.data.selector)), (descriptor(&flat.code), descriptor(&flat.data)));
    }
    assert_eq!(at(0), 0);
    assert_eq!(at(TASK), 0x2300_8b45_6080_2068);
    assert_eq!(at(TASK + 8), 1);
    assert_eq!(tables.gdt.limit, TASK + 15);
}

#[test]
fn the_tss_has_kernel_stacks_inside_the_tables_and_leaves_all_ports_to_ring_3() {
    let place = place(0xdffe_0000);
    let tables = Tables::build(place, true);
    let at = |offset: u64| word(&tables, place, tables.task.base + offset);
    assert_eq!(at(4), 0xdffe_4000, "RSP0");
    assert_eq!(at(36), 0xdffe_5000, "IST1");
    assert_eq!(at(44), 0, "IST2");
    assert_eq!(at(96) >> 48, 104, "base of the bitmap");
    for offset in (104..104 + 0x2000).step_by(8) {
        assert_eq!(at(offset), 0, "ports from {:#x} on", (offset - 104) * 8);
    }
    assert_eq!(at(104 + 0x2000), 0xff);
    assert_eq!(tables.task.limit, 104 + 0x2000);
}
