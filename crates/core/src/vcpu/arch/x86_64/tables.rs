//! What the host prepares for a guest in long mode, as bytes: GDT, TSS, stacks and page tables (Intel SDM, volume 3,
//! "Segment Descriptors", "Paging" and "Task Management in 64-bit Mode"). Pure; where it lies and who writes it is
//! `boot`'s.

use std::collections::BTreeMap;

use super::registers::{DescriptorTable, Segment};
use crate::{
    range::{GpaRange, PAGE_SIZE},
    vcpu::boot::TABLES_SIZE,
};

/// Bytes of all tables of one vCPU: the pages below, then at most 12 of page tables.
pub(super) const SIZE: u64 = TABLES_SIZE;

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
#[path = "tables_tests.rs"]
mod tests;
