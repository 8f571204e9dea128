//! What the host prepares for a guest at EL1, as bytes and register values: vectors, page tables, and the registers that
//! turn the MMU and the caches on (Arm ARM, DDI 0487, D8 "The AArch64 Virtual Memory System Architecture"). Pure; where
//! it lies and who writes it is `boot`'s.

use crate::{
    range::{GpaRange, PAGE_SIZE},
    vcpu::boot::TABLES_SIZE,
};

/// Offsets in the tables' slot: the vectors' page, the level 0 table, the two of level 1 that 40 bits take, then those
/// of level 2, as many as fit.
const LEVEL_0: u64 = PAGE_SIZE;
const LEVEL_1: u64 = 2 * PAGE_SIZE;
const LEVEL_2: u64 = 4 * PAGE_SIZE;

/// How many tables of level 2 there is room for. Each describes 1 GiB that is in part memory.
const LEVEL_2_TABLES: usize = ((TABLES_SIZE - LEVEL_2) / PAGE_SIZE) as usize;
const _: () = assert!(LEVEL_2_TABLES == 28);

/// Bytes that one entry maps: of level 1, of level 2.
const GIB: u64 = 1 << 30;
const BLOCK: u64 = 1 << 21;

/// Descriptors (D8.3): valid, and with the second bit a table instead of a block.
const VALID: u64 = 1;
const TABLE: u64 = 1 << 1;
/// Set beforehand, so that no access faults for it.
const ACCESSED: u64 = 1 << 10;
const INNER_SHAREABLE: u64 = 3 << 8;
/// Nothing is executed from a device: the processor must not even fetch there on speculation.
const NEVER_EXECUTED: u64 = 3 << 53;

/// Kinds of memory, by their index in `MAIR_EL1`.
const DEVICE: u64 = ACCESSED | NEVER_EXECUTED;
const NORMAL: u64 = 1 << 2 | ACCESSED | INNER_SHAREABLE;
/// Attribute 0: device-nGnRnE. Attribute 1: normal, inner and outer write-back, allocating on reads and writes.
const MAIR: u64 = 0xff00;

/// `TCR_EL1`: walks through write-back, inner-shareable memory; 4 KiB pages; nothing at `TTBR1_EL1`.
const TCR_IRGN0: u64 = 1 << 8;
const TCR_ORGN0: u64 = 1 << 10;
const TCR_SH0: u64 = 3 << 12;
const TCR_EPD1: u64 = 1 << 23;

/// `SCTLR_EL1`. The bits that are 1 where a processor lacks what they control: `LSMAOE`, `nTLSMD`, `SPAN`, `EIS`,
/// `TSCXT`, `EOS`.
const SCTLR_RES1: u64 = 1 << 29 | 1 << 28 | 1 << 23 | 1 << 22 | 1 << 20 | 1 << 11;
/// MMU; data cache; stack alignment checks; instruction cache; WFI and WFE of EL0 do not trap.
const SCTLR_ON: u64 = 1 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 16 | 1 << 18;

/// `CPACR_EL1`: floating point and SIMD, and SVE, without traps.
const CPACR_FPEN: u64 = 3 << 20;
const CPACR_ZEN: u64 = 3 << 16;

/// `PSTATE`: EL1 with its own stack pointer, D, A, I and F masked.
pub(super) const EL1H_MASKED: u64 = 0x3c5;

/// System registers for a guest that starts with the tables at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct System {
    pub(super) mair: u64,
    pub(super) tcr: u64,
    pub(super) ttbr0: u64,
    pub(super) vbar: u64,
    pub(super) cpacr: u64,
    pub(super) sctlr: u64,
}

impl System {
    /// For tables at `place`, in a VM whose addresses have `bits` bits.
    pub(super) const fn new(place: GpaRange, bits: u32, sve: bool) -> Self {
        // How wide physical addresses are, as the architecture numbers it.
        let ips: u64 = match bits {
            ..=32 => 0,
            33..=36 => 1,
            _ => 2,
        };
        Self {
            mair: MAIR,
            tcr: (64 - bits) as u64 | TCR_IRGN0 | TCR_ORGN0 | TCR_SH0 | TCR_EPD1 | ips << 32,
            ttbr0: place.gpa() + if has_level_0(bits) { LEVEL_0 } else { LEVEL_1 },
            vbar: place.gpa(),
            cpacr: CPACR_FPEN | if sve { CPACR_ZEN } else { 0 },
            sctlr: SCTLR_RES1 | SCTLR_ON,
        }
    }
}

/// A walk of up to 39 bits begins at level 1.
const fn has_level_0(bits: u32) -> bool {
    bits > 39
}

/// Where exceptions show: the last page of the VM's addresses.
pub(super) const fn exceptions(bits: u32) -> u64 {
    (1 << bits) - PAGE_SIZE
}

/// What to write to the start of `place`; the rest of it is zero. `slots`, in order of address, is where memory is,
/// `place` included.
///
/// All addresses of the VM map to themselves, readable and writable for EL1 alone: memory as normal, cacheable,
/// inner-shareable memory, everything else as device memory. Where memory does not fill 2 MiB, all of these are normal;
/// where there are more than 28 GiB-sized pieces in which both occur, the last of them are normal as a whole. To an
/// address without memory an aligned load or store is an MMIO exit either way; where it is mapped as a device, an unaligned
/// one and `DC ZVA` fault in stage 1, and nothing is fetched.
pub(super) fn build(place: GpaRange, slots: &[GpaRange], bits: u32) -> Vec<u8> {
    let mut level_1 = Vec::new();
    let mut level_2 = Vec::new();
    for gpa in (0..1 << bits).step_by(1 << 30) {
        level_1.push(match coverage(slots, gpa, GIB) {
            Coverage::None => gpa | DEVICE | VALID,
            Coverage::Part if level_2.len() < LEVEL_2_TABLES => {
                let table = place.gpa() + LEVEL_2 + level_2.len() as u64 * PAGE_SIZE;
                level_2.push(blocks(slots, gpa));
                table | TABLE | VALID
            }
            Coverage::Part | Coverage::Whole => gpa | NORMAL | VALID,
        });
    }
    let level_0 = [0, PAGE_SIZE].map(|offset| (place.gpa() + LEVEL_1 + offset) | TABLE | VALID);
    let mut bytes = Vec::new();
    bytes.extend(vectors(bits).into_iter().flat_map(u32::to_le_bytes));
    let parts = [(LEVEL_0, level_0.to_vec()), (LEVEL_1, level_1), (LEVEL_2, level_2.concat())];
    for (offset, entries) in parts {
        // Offsets are a few pages.
        bytes.resize(usize::try_from(offset).unwrap_or(bytes.len()), 0);
        bytes.extend(entries.into_iter().flat_map(u64::to_le_bytes));
    }
    bytes
}

/// The entries of a table of level 2 for the GiB at `gpa`.
fn blocks(slots: &[GpaRange], gpa: u64) -> Vec<u64> {
    (gpa..gpa + GIB)
        .step_by(1 << 21)
        .map(|block| match coverage(slots, block, BLOCK) {
            Coverage::None => block | DEVICE | VALID,
            Coverage::Part | Coverage::Whole => block | NORMAL | VALID,
        })
        .collect()
}

/// How much of a piece is memory.
#[derive(Debug, PartialEq, Eq)]
enum Coverage {
    None,
    Part,
    Whole,
}

fn coverage(slots: &[GpaRange], gpa: u64, size: u64) -> Coverage {
    let end = gpa + size;
    let first = slots.partition_point(|slot| slot.end() <= gpa);
    let inside = slots.get(first..).unwrap_or_default().iter().take_while(|slot| slot.gpa() < end);
    let covered: u64 = inside.map(|slot| slot.end().min(end) - slot.gpa().max(gpa)).sum();
    match covered {
        0 => Coverage::None,
        _ if covered == size => Coverage::Whole,
        _ => Coverage::Part,
    }
}

/// Instructions of one vector, of which there are 16 (D1.4.1, "Exception vectors").
const VECTOR_WORDS: usize = 32;

/// For each vector: keep `x0` and `x1`, and store `ESR_EL1` where there is no memory, for ever.
fn vectors(bits: u32) -> Vec<u32> {
    let mut words = Vec::new();
    for number in 0..16 {
        let [low, middle, high] = halves(exceptions(bits) + 8 * number);
        words.extend([
            0xd518_d080,               // msr tpidr_el1, x0
            0xd51b_d061,               // msr tpidrro_el0, x1
            0xd280_0000 | low << 5,    // movz x0, #low
            0xf2a0_0000 | middle << 5, // movk x0, #middle, lsl #16
            0xf2c0_0000 | high << 5,   // movk x0, #high, lsl #32
            0xd538_5201,               // mrs x1, esr_el1
            0xf900_0001,               // again: str x1, [x0]
            0x17ff_ffff,               // b again
        ]);
        words.resize(words.len().next_multiple_of(VECTOR_WORDS), 0);
    }
    words
}

/// The lower three 16-bit parts of an address.
fn halves(address: u64) -> [u32; 3] {
    // Masked to 16 bits.
    [0, 16, 32].map(|shift| u32::try_from(address >> shift & 0xffff).unwrap_or(0))
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
