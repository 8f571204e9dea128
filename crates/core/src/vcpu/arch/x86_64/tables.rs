//! What the host prepares for a guest in long mode, as bytes: GDT, TSS, stacks and page tables (Intel SDM, volume 3,
//! "Segment Descriptors", "Paging" and "Task Management in 64-bit Mode"). Pure; where it lies and who writes it is
//! `boot`'s.

use std::collections::BTreeMap;

use super::registers::{DescriptorTable, Segment};
use crate::range::{GpaRange, PAGE_SIZE};

/// Bytes of all tables of one vCPU: the pages below, then at most 12 of page tables, rounded up.
pub(super) const SIZE: u64 = 32 * PAGE_SIZE;

/// How far the identity map reaches, in bytes: what a 32-bit address reaches, so that every device that a chipset has
/// is in it. Addresses without memory are MMIO exits.
pub(super) const MAPPED: u64 = 1 << 32;

/// End of the lower half of the linear addresses that four levels of tables reach, in bytes.
pub(super) const LINEAR_END: u64 = 1 << 47;

/// Offsets in the tables' slot, in bytes. The GDT and the TSS share the first page.
const GDT: u64 = 0;
const TSS: u64 = 0x80;
/// Tops of the stacks that an interrupt takes in kernel mode: the usual one, and the first of the IST; a page each.
const RSP0: u64 = 4 * PAGE_SIZE;
const IST1: u64 = 5 * PAGE_SIZE;
const PAGE_TABLES: u64 = 5 * PAGE_SIZE;

/// The order is the one that SYSCALL and SYSRET want (SDM, volume 2, "SYSRET"): kernel code, kernel data; user data,
/// user code.
const KERNEL_CODE: u16 = 0x08;
const KERNEL_DATA: u16 = 0x10;
const USER_DATA: u16 = 0x18;
const USER_CODE: u16 = 0x20;
const TASK: u16 = 0x28;

/// Bytes of a TSS before its I/O bitmap.
const TSS_FIXED: u16 = 104;

/// Bytes of an I/O bitmap: a bit for each of 65,536 ports. A byte of ones follows it (SDM, volume 1, "I/O Permission
/// Bit Map").
const IO_BITMAP: u16 = 0x2000;
const TSS_SIZE: u16 = TSS_FIXED + IO_BITMAP + 1;
const _: () = assert!(TSS + TSS_SIZE as u64 <= 3 * PAGE_SIZE);

/// Bits of a page table's entry, the same in all levels.
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// Set beforehand, so that no walk has to write them.
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;

/// Code and stack segments of one privilege level.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flat {
    pub(super) code: Segment,
    pub(super) data: Segment,
}

impl Flat {
    /// Segments that span 4 GiB; `long` makes the code 64-bit, else it is 32-bit.
    pub(super) const fn new(user: bool, long: bool) -> Self {
        let (code, data, dpl) = if user { (USER_CODE, USER_DATA, 3) } else { (KERNEL_CODE, KERNEL_DATA, 0) };
        let data = Segment {
            base: 0,
            limit: u32::MAX,
            selector: data | dpl,
            type_: 0x3,
            present: true,
            dpl: if user { 3 } else { 0 },
            db: true,
            s: true,
            l: false,
            g: true,
            avl: false,
            unusable: false,
        };
        Self { code: Segment { selector: code | dpl, type_: 0xb, db: !long, l: long, ..data }, data }
    }
}

/// The tables of one vCPU.
#[derive(Debug)]
pub(super) struct Tables {
    /// What to write to the start of the range; the rest of it is zero.
    pub(super) bytes: Vec<u8>,
    pub(super) gdt: DescriptorTable,
    pub(super) task: Segment,
    pub(super) cr3: u64,
}

impl Tables {
    /// Tables for a guest in long mode, to lie at `place` ([`SIZE`] bytes, page-aligned, below [`LINEAR_END`]).
    ///
    /// The identity map is made of 2 MiB pages that ring 3 may use where `user` says so; around `place` it is made of
    /// 4 KiB pages, and those of `place` itself are always the kernel's alone.
    pub(super) fn build(place: GpaRange, user: bool) -> Self {
        let task = task_segment(place.gpa() + TSS);
        let (gdt, gdt_limit) = gdt(&task);
        let pages = PageTables::plan(place, user);
        let parts = [(GDT, gdt), (TSS, tss(place)), (PAGE_TABLES, pages.bytes())];
        let mut bytes = Vec::new();
        for (offset, part) in parts {
            // Offsets are a few pages.
            bytes.resize(usize::try_from(offset).unwrap_or(bytes.len()), 0);
            bytes.extend_from_slice(&part);
        }
        let gdt = DescriptorTable { base: place.gpa() + GDT, limit: gdt_limit };
        Self { bytes, gdt, task, cr3: place.gpa() + PAGE_TABLES }
    }
}

/// The task register, loaded: a TSS that is in use.
const fn task_segment(base: u64) -> Segment {
    Segment {
        base,
        limit: TSS_SIZE as u32 - 1,
        selector: TASK,
        type_: 0xb,
        present: true,
        dpl: 0,
        db: false,
        s: false,
        l: false,
        g: false,
        avl: false,
        unusable: false,
    }
}

/// The table's bytes and its limit.
fn gdt(task: &Segment) -> (Vec<u8>, u16) {
    let (kernel, user) = (Flat::new(false, true), Flat::new(true, true));
    let descriptors = [
        0, // null
        descriptor(&kernel.code),
        descriptor(&kernel.data),
        descriptor(&user.data),
        descriptor(&user.code),
        descriptor(task),
        task.base >> 32, // the upper half of the TSS's
    ];
    let bytes: Vec<u8> = descriptors.into_iter().flat_map(u64::to_le_bytes).collect();
    (bytes, TASK + 16 - 1)
}

/// A segment as a descriptor table holds it (SDM, "Segment Descriptors"), without the upper half that system
/// descriptors have besides.
fn descriptor(segment: &Segment) -> u64 {
    let limit = u64::from(if segment.g { segment.limit >> 12 } else { segment.limit });
    let bit = |set: bool, at: u32| u64::from(set) << at;
    (limit & 0xffff)
        | (segment.base & 0xff_ffff) << 16
        | u64::from(segment.type_) << 40
        | bit(segment.s, 44)
        | u64::from(segment.dpl) << 45
        | bit(segment.present, 47)
        | (limit >> 16 & 0xf) << 48
        | bit(segment.avl, 52)
        | bit(segment.l, 53)
        | bit(segment.db, 54)
        | bit(segment.g, 55)
        | (segment.base >> 24 & 0xff) << 56
}

/// A 64-bit TSS: stack pointers for what arrives in kernel mode, and a bitmap that leaves all ports to ring 3.
///
/// IOPL 3 alone would do on a processor. KVM-PVM (a KVM on page tables, without VMX or SVM) forgets IOPL once it has
/// run ring 3 natively, and asks the bitmap then, as the manual has it.
fn tss(place: GpaRange) -> Vec<u8> {
    let stack = |offset: u64| (place.gpa() + offset).to_le_bytes();
    let mut bytes = vec![0; 4];
    bytes.extend(stack(RSP0));
    bytes.resize(36, 0); // RSP1, RSP2, reserved
    bytes.extend(stack(IST1));
    bytes.resize(102, 0); // IST2 to IST7, reserved
    bytes.extend(TSS_FIXED.to_le_bytes()); // base of the bitmap
    bytes.resize(usize::from(TSS_SIZE - 1), 0);
    bytes.push(0xff);
    bytes
}

/// Which page tables there are, and the page each lies in.
struct PageTables {
    place: GpaRange,
    user: bool,
    /// By level (4: PML4, 1: tables of 4 KiB pages) and by the address it maps, in units of what the table maps.
    tables: BTreeMap<(u32, u64), u64>,
}

/// Bytes that one entry of a table of `level` maps, as a power of two.
const fn shift(level: u32) -> u32 {
    12 + 9 * (level - 1)
}

impl PageTables {
    fn plan(place: GpaRange, user: bool) -> Self {
        let gib = 0..MAPPED >> shift(3);
        let mut keys: Vec<(u32, u64)> = vec![(4, 0), (3, 0)];
        keys.extend(gib.map(|index| (2, index)));
        // `place` is smaller than what the smallest table maps: its ends meet every table that it needs.
        for address in [place.gpa(), place.end() - 1] {
            keys.extend([1, 2, 3].map(|level| (level, address >> shift(level + 1))));
        }
        let mut tables: BTreeMap<(u32, u64), u64> = keys.into_iter().map(|key| (key, 0)).collect();
        // The map is in order of level: the PML4, the last, comes first in memory.
        for (page, gpa) in tables.values_mut().rev().zip((place.gpa() + PAGE_TABLES..).step_by(0x1000)) {
            *page = gpa;
        }
        Self { place, user, tables }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &(level, index) in self.tables.keys().rev() {
            for entry in self.table(level, index) {
                bytes.extend_from_slice(&entry.to_le_bytes());
            }
        }
        bytes
    }

    /// The entries of one table: leaves, then in their place the tables below, of which there are few.
    fn table(&self, level: u32, index: u64) -> [u64; 512] {
        let first = index * 512;
        let mut entries = [0; 512];
        for (entry, child) in entries.iter_mut().zip(first..) {
            *entry = self.leaf(level, child << shift(level));
        }
        let below = self.tables.range((level - 1, first)..(level - 1, first + 512));
        for (&(_, child), table) in below {
            let entry = usize::try_from(child - first).ok().and_then(|at| entries.get_mut(at));
            if let Some(entry) = entry {
                *entry = table | PRESENT | WRITABLE | ACCESSED | self.user();
            }
        }
        entries
    }

    /// The entry of a table of `level` that maps `address` to itself; 0 where it maps nothing.
    fn leaf(&self, level: u32, address: u64) -> u64 {
        let leaf = address | PRESENT | WRITABLE | ACCESSED | DIRTY;
        match level {
            1 if self.place.contains(address) => leaf,
            1 if address < MAPPED => leaf | self.user(),
            2 if address < MAPPED => leaf | self.user() | LARGE,
            _ => 0,
        }
    }

    const fn user(&self) -> u64 {
        if self.user { USER } else { 0 }
    }
}

#[cfg(test)]
mod tests {
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
            assert_eq!(
                (at(flat.code.selector), at(flat.data.selector)),
                (descriptor(&flat.code), descriptor(&flat.data))
            );
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
}
