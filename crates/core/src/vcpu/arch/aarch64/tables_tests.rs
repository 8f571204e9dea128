//! The tables, read as a processor would.

use proptest::prelude::*;

use super::*;

fn range(gpa: u64, size: u64) -> GpaRange {
    GpaRange::pages(gpa, size).unwrap()
}

fn place() -> GpaRange {
    range(0xdffe_0000, TABLES_SIZE)
}

/// `slots` and the tables' own, in order.
fn with_tables(slots: &[GpaRange]) -> Vec<GpaRange> {
    let mut all = slots.to_vec();
    all.push(place());
    all.sort();
    all
}

fn word(bytes: &[u8], gpa: u64) -> u64 {
    let at = usize::try_from(gpa - place().gpa()).unwrap();
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// What an address is, once translated.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Device,
}

/// Walks as the processor does (D8.2): none where a fault is taken.
fn walk(bytes: &[u8], bits: u32, address: u64) -> Option<(u64, Kind)> {
    let system = System::new(place(), bits, false);
    assert_eq!(system.tcr & 0x3f, u64::from(64 - bits));
    if address >> bits != 0 {
        return None;
    }
    let mut table = system.ttbr0;
    let first = i32::from(bits <= 39);
    for level in first..3 {
        let shift = 39 - 9 * level;
        let index = address >> shift & 511;
        let entry = word(bytes, table + index * 8);
        if entry & VALID == 0 {
            return None;
        }
        if entry & TABLE != 0 {
            assert!(level < 2, "pages of 4 KiB are not made");
            table = entry & 0x0000_ffff_ffff_f000;
            continue;
        }
        assert!(level > 0, "a block of 512 GiB is not to be had");
        assert_ne!(entry & ACCESSED, 0, "the first access would fault");
        assert_eq!(entry & 3 << 6, 0, "read and write for EL1, nothing for EL0");
        let base = entry & 0x0000_ffff_c000_0000 | entry & 0x3fe0_0000 & !((1 << shift) - 1);
        assert_eq!(base % (1 << shift), 0);
        let kind = match entry >> 2 & 7 {
            1 => {
                assert_eq!(entry & INNER_SHAREABLE, INNER_SHAREABLE);
                assert_eq!(entry & NEVER_EXECUTED, 0);
                Kind::Normal
            }
            0 => {
                assert_eq!(entry & NEVER_EXECUTED, NEVER_EXECUTED);
                Kind::Device
            }
            other => panic!("attribute {other}"),
        };
        return Some((base | address & ((1 << shift) - 1), kind));
    }
    None
}

#[test]
fn every_address_of_the_vm_maps_to_itself_and_none_beyond() {
    for bits in [32, 36, 39, 40] {
        let bytes = build(place(), &with_tables(&[]), bits);
        for address in (0..1 << bits).step_by(1 << 29).chain([0xdffe_0000, (1 << bits) - 1]) {
            assert_eq!(walk(&bytes, bits, address).map(|(physical, _)| physical), Some(address), "{bits} bits");
        }
        assert_eq!(walk(&bytes, bits, 1 << bits), None);
    }
}

#[test]
fn memory_is_normal_and_the_rest_is_a_device() {
    let (low, high) = (range(0x4000_0000, 0x9ffe_0000), range(0xe000_0000, 0x2000_0000)); // around the tables
    let slots = with_tables(&[range(0, 0x1000), low, high, range(5 << 30, 1 << 30)]);
    let bytes = build(place(), &slots[..], 40);
    let kind = |address| walk(&bytes, 40, address).unwrap().1;
    for address in [0, 0x1f_ffff, 0x4000_0000, 0xffff_ffff, 0xdffe_0000, 5 << 30, (6 << 30) - 1] {
        assert_eq!(kind(address), Kind::Normal, "{address:#x}");
    }
    for address in [0x20_0000, 0x3fff_ffff, 4 << 30, 6 << 30, (1 << 40) - 8] {
        assert_eq!(kind(address), Kind::Device, "{address:#x}");
    }
}

#[test]
fn where_tables_run_out_a_gib_with_memory_is_normal_as_a_whole() {
    let slots: Vec<_> = (0..64).map(|gib| range(gib << 30, 0x1000)).collect();
    let bytes = build(place(), &with_tables(&slots), 40);
    assert!(bytes.len() as u64 <= TABLES_SIZE);
    assert_eq!(walk(&bytes, 40, 27 << 30 | 0x3000_0000), Some((27 << 30 | 0x3000_0000, Kind::Device)));
    for gib in 28..64 {
        assert_eq!(walk(&bytes, 40, gib << 30 | 0x3000_0000).unwrap().1, Kind::Normal);
    }
    assert_eq!(walk(&bytes, 40, 64 << 30).unwrap().1, Kind::Device);
}

#[test]
fn each_vector_stores_where_its_number_says() {
    for bits in [32, 40] {
        let words = vectors(bits);
        assert_eq!(words.len(), 16 * VECTOR_WORDS);
        for (number, vector) in words.chunks(VECTOR_WORDS).enumerate() {
            let part = |word: u32| u64::from(word >> 5 & 0xffff);
            let address = part(vector[2]) | part(vector[3]) << 16 | part(vector[4]) << 32;
            assert_eq!(address, (1 << bits) - 4096 + 8 * number as u64);
            // movz and movk of x0; then esr_el1 to x1, and the store again and again.
            assert_eq!([2, 3, 4].map(|at: usize| vector[at] & 0xffe0_001f), [0xd280_0000, 0xf2a0_0000, 0xf2c0_0000]);
            assert_eq!(vector[5..9], [0xd538_5201, 0xf900_0001, 0x17ff_ffff, 0]);
        }
    }
}

/// Whole words, written down apart from the constants they are made of.
#[test]
fn descriptors_and_registers_are_those_of_the_manual() {
    let bytes = build(place(), &with_tables(&[range(0, 0x1000)]), 40);
    let (level_0, level_1, level_2) = (0xdffe_1000, 0xdffe_2000, 0xdffe_4000);
    // D8.3.1: valid, table. D8.3.2: valid, AttrIndx 1, SH inner, AF. The same with AttrIndx 0, SH none, PXN and UXN.
    assert_eq!([word(&bytes, level_0), word(&bytes, level_0 + 8)], [0xdffe_2003, 0xdffe_3003]);
    assert_eq!([word(&bytes, level_1), word(&bytes, level_1 + 3 * 8)], [0xdffe_4003, 0xdffe_5003]);
    assert_eq!(word(&bytes, level_1 + 8), 0x60_0000_4000_0401);
    assert_eq!([word(&bytes, level_2), word(&bytes, level_2 + 8)], [0x705, 0x60_0000_0020_0401]);
    assert_eq!(word(&build(place(), &with_tables(&[range(1 << 30, GIB)]), 40), level_1 + 8), 0x4000_0705);
    let system = System::new(place(), 40, false);
    // D24.2, SCTLR_EL1: M, C, SA, EOS, I, nTWI, nTWE, TSCXT, EIS, SPAN, nTLSMD, LSMAOE.
    assert_eq!(system.sctlr, 0x30d5_180d);
    // D24.2, TCR_EL1: T0SZ 24, IRGN0 and ORGN0 write-back, SH0 inner, TG0 4 KiB, EPD1, IPS 40 bits.
    assert_eq!(system.tcr, 0x2_0080_3518);
    assert_eq!(System::new(place(), 36, false).tcr, 0x1_0080_351c);
    assert_eq!((system.mair, system.cpacr), (0xff00, 0x30_0000));
}

#[test]
fn the_registers_turn_mmu_and_caches_on() {
    let system = System::new(place(), 40, false);
    assert_eq!(system.sctlr & 0x1005, 0x1005);
    assert_eq!(system.sctlr & 0x2, 0, "unaligned accesses to memory are allowed");
    assert_eq!(system.tcr >> 32, 2);
    assert_eq!(system.tcr & 0xff_ff3f, 0x18 | 1 << 23 | 0x3500);
    assert_eq!((system.vbar, system.ttbr0), (place().gpa(), place().gpa() + 0x1000));
    assert_eq!((system.cpacr, System::new(place(), 40, true).cpacr), (3 << 20, 3 << 20 | 3 << 16));
    assert_eq!(System::new(place(), 36, false).ttbr0, place().gpa() + 0x2000);
    assert_eq!((system.mair, EL1H_MASKED & 0xf), (0xff00, 5));
}

proptest! {
    #[test]
    fn an_address_with_memory_is_never_a_device(
        pages in proptest::collection::btree_set(0_u64..1 << 28, 0..80), sizes in 1_u64..600, address in 0_u64..1 << 40,
    ) {
        let mut slots: Vec<GpaRange> = Vec::new();
        for page in pages {
            let slot = range(page << 12, sizes.min((1 << 28) - page) << 12);
            if !slot.overlaps(place()) && slots.last().is_none_or(|last| !last.overlaps(slot)) {
                slots.push(slot);
            }
        }
        let slots = with_tables(&slots);
        let bytes = build(place(), &slots, 40);
        prop_assert!(bytes.len() as u64 <= TABLES_SIZE);
        for address in slots.iter().flat_map(|slot| [slot.gpa(), slot.end() - 1]) {
            prop_assert_eq!(walk(&bytes, 40, address), Some((address, Kind::Normal)));
        }
        prop_assert_eq!(walk(&bytes, 40, address).map(|(physical, _)| physical), Some(address));
    }
}
