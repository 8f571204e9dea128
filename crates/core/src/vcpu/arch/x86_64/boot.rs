//! Where a guest starts: registers for real, protected and long mode, and the tables that long mode needs, in a slot of
//! their own. The bytes of the tables are `tables`'. Why it is as it is: docs/design/boot.md.

use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW, kvm_mp_state, kvm_vcpu_events,
};
use kvm_ioctls::VcpuFd;

use super::{
    registers::{DescriptorTable, Registers, Segment, update},
    tables::{self, Flat, Tables},
};
use crate::{
    error::{Error, Result},
    memory::{GuestMemory, MapOptions, MemorySlot},
    range::{GpaRange, PAGE_SIZE},
};

/// In which mode the guest starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BootMode {
    /// 16-bit code, segments of 64 KiB.
    Real,
    /// 32-bit code, flat segments, paging off. There is no GDT: a guest that loads a segment register loads one first.
    Protected,
    /// 64-bit code, the first 4 GiB mapped to themselves by tables that the host makes.
    Long,
}

/// With which privilege the guest starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Privilege {
    /// Ring 0: the guest may do everything, and sets up what else it needs.
    #[default]
    Kernel,
    /// Ring 3 with IOPL 3: ports work, instructions of kernel mode fault. There are no interrupt handlers, so every
    /// fault is a triple fault, which exits as `shutdown`.
    User,
}

/// What [`crate::Vcpu::boot`] is asked for. Fields are added in minor releases: start from [`BootOptions::new`].
///
/// ```
/// use typevisor::vcpu::{BootMode, BootOptions, Privilege};
/// let kernel = BootOptions::new(BootMode::Long, 0x1000);
/// let options = BootOptions { privilege: Privilege::User, stack: Some(0x8000), ..kernel };
/// assert_eq!(options.tables, None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootOptions {
    /// The mode.
    pub mode: BootMode,
    /// The privilege. Real mode has only [`Privilege::Kernel`].
    pub privilege: Privilege,
    /// Address of the first instruction, in bytes: below 4 GiB; in real mode at most `0x10_ffef`, and from 64 KiB on
    /// `cs` begins at `entry` rounded down to 16, so that 64 KiB from there on are in its reach.
    pub entry: u64,
    /// Where the stack begins, downward, in bytes: at most 4 GiB and a multiple of 16; in real mode at most 64 KiB and
    /// even. None: 0, the guest sets its own.
    ///
    /// The guest enters as a program does (System V ABI, 3.4.1: the stack pointer is a multiple of 16), not as a called
    /// function, which finds a return address below it.
    pub stack: Option<u64>,
    /// Where the tables of long mode lie: 128 KiB, a multiple of 4 KiB, below 2^47, where nothing is mapped. None:
    /// where they lay at this vCPU's last boot, else the highest free place below `0xe000_0000`.
    pub tables: Option<u64>,
}

impl BootOptions {
    /// Kernel privilege, no stack, tables where there is room.
    #[must_use]
    pub const fn new(mode: BootMode, entry: u64) -> Self {
        Self { mode, privilege: Privilege::Kernel, entry, stack: None, tables: None }
    }
}

/// What [`crate::Vcpu::boot`] has done besides setting registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Boot {
    /// The slot that was mapped for the tables of long mode: GDT, TSS, its stacks, page tables. Whatever lies in it is
    /// the library's to change at the next boot.
    pub tables: Option<GpaRange>,
}

/// The slot of the tables, kept from boot to boot: one a vCPU, as a TSS and its stacks serve one processor.
#[derive(Debug, Default)]
pub(crate) struct HostTables {
    slot: Option<MemorySlot>,
}

/// Where the search for a place ends: below are interrupt vectors, firmware and legacy devices.
const LOWEST_PLACE: u64 = 1 << 20;

/// Where it begins, downward: above are the devices of every chipset.
const HIGHEST_PLACE_END: u64 = 0xe000_0000;

impl HostTables {
    /// A slot for the tables at `wanted`, or where there is room. The slot of the last boot moves, so that no number of
    /// boots uses up slots.
    fn place(&mut self, memory: &GuestMemory, wanted: Option<u64>) -> Result<GpaRange> {
        if let Some(slot) = &self.slot {
            match slot.move_to(wanted.unwrap_or(slot.range().gpa())) {
                Err(Error::Closed { .. }) => {} // the program unmapped it
                outcome => return outcome.map(|()| slot.range()),
            }
        }
        let gpa = match wanted {
            Some(gpa) => gpa,
            None => free_place(memory.slots()?.into_iter().map(|slot| slot.range)).ok_or(NO_PLACE)?,
        };
        let slot = memory.map(MapOptions::new(GpaRange::pages(gpa, tables::SIZE)?))?;
        let range = slot.range();
        self.slot = Some(slot);
        Ok(range)
    }

    /// Gives the slot back: modes without paging need none.
    fn release(&mut self) -> Result<()> {
        match self.slot.take().map(|slot| slot.unmap()) {
            None | Some(Err(Error::Closed { .. })) => Ok(()),
            Some(outcome) => outcome,
        }
    }
}

const NO_PLACE: Error =
    Error::InvalidArgument { what: "tables", expected: "given: no 128 KiB are free between 1 MiB and 0xe000_0000" };

/// The highest free place, given all slots in order of address.
fn free_place(slots: impl DoubleEndedIterator<Item = GpaRange>) -> Option<u64> {
    let mut end = HIGHEST_PLACE_END;
    for slot in slots.rev() {
        if slot.end() + tables::SIZE <= end {
            break;
        }
        end = end.min(slot.gpa());
    }
    end.checked_sub(tables::SIZE).filter(|gpa| *gpa >= LOWEST_PLACE)
}

/// Puts `vcpu` where a guest of that mode starts: registers, tables, no interrupt or exception pending, and runnable
/// (a second vCPU with an in-kernel APIC otherwise waits for another to start it). MSRs, floating point and debug
/// registers stay as they are.
///
/// # Errors
/// [`Error::InvalidArgument`], [`Error::Unaligned`]: nothing has changed. [`Error::SlotOverlap`], [`Error::SlotLimit`]:
/// no place for the tables. [`Error::Ioctl`].
pub(crate) fn boot(
    vcpu: &VcpuFd,
    memory: &GuestMemory,
    tables: &mut HostTables,
    options: &BootOptions,
) -> Result<Boot> {
    check(options)?;
    let place = match options.mode {
        BootMode::Long => Some(tables.place(memory, options.tables)?),
        BootMode::Real | BootMode::Protected => None,
    };
    let built = place.map(|place| Tables::build(place, options.privilege == Privilege::User));
    if let (Some(place), Some(built)) = (place, &built) {
        memory.write(place.gpa(), &built.bytes)?;
    }
    update(vcpu, |registers| {
        *registers = start(options, built.as_ref(), registers.apic_base);
        Ok(())
    })?;
    forget_events(vcpu)?;
    if place.is_none() {
        tables.release()?;
    }
    Ok(Boot { tables: place })
}

/// What the last guest left undelivered is not for the next one.
fn forget_events(vcpu: &VcpuFd) -> Result<()> {
    let flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
    let none = kvm_vcpu_events { flags, ..Default::default() };
    vcpu.set_vcpu_events(&none).map_err(Error::ioctl("KVM_SET_VCPU_EVENTS"))?;
    // Without an in-kernel APIC this is the only state there is, and KVM takes it.
    vcpu.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).map_err(Error::ioctl("KVM_SET_MP_STATE"))
}

/// The last `entry` of real mode: selector 0xffff, instruction pointer 0xffff.
const REAL_ENTRY_LAST: u64 = 0x10_ffef;

/// The last selector times 16.
const REAL_BASE_LAST: u64 = 0xf_fff0;

fn check(options: &BootOptions) -> Result<()> {
    let refuse = |what, expected| Err(Error::InvalidArgument { what, expected });
    let BootOptions { mode, privilege, entry, stack, tables } = *options;
    let stack = stack.unwrap_or(0);
    let stack_alignment = if mode == BootMode::Real { 2 } else { 16 };
    match mode {
        BootMode::Real if privilege == Privilege::User => {
            refuse("privilege", "kernel in real mode, which has no other")
        }
        BootMode::Real if entry > REAL_ENTRY_LAST => refuse("entry", "at most 0x10_ffef in real mode"),
        BootMode::Real if stack > 0x1_0000 => refuse("stack", "at most 64 KiB in real mode"),
        _ if entry >= tables::MAPPED => refuse("entry", "below 4 GiB"),
        _ if stack > tables::MAPPED => refuse("stack", "at most 4 GiB"),
        BootMode::Protected if stack == tables::MAPPED => refuse("stack", "below 4 GiB in protected mode"),
        _ if !stack.is_multiple_of(stack_alignment) => {
            Err(Error::Unaligned { what: "stack", value: stack, alignment: stack_alignment })
        }
        _ => check_tables(mode, tables),
    }
}

fn check_tables(mode: BootMode, tables: Option<u64>) -> Result<()> {
    let Some(gpa) = tables else { return Ok(()) };
    if mode != BootMode::Long {
        return Err(Error::InvalidArgument { what: "tables", expected: "absent: only long mode has any" });
    }
    // The guest finds its GDT by a linear address, which has to be the same number.
    if gpa > tables::LINEAR_END - tables::SIZE {
        return Err(Error::InvalidArgument { what: "tables", expected: "128 KiB that end at or below 2^47" });
    }
    if !gpa.is_multiple_of(PAGE_SIZE) {
        return Err(Error::Unaligned { what: "tables", value: gpa, alignment: PAGE_SIZE });
    }
    Ok(())
}

/// Bits of `cr0` (SDM, volume 3, "Control Registers"): protection, floating point without traps, write protection in
/// ring 0 too, alignment checks for who asks for them.
const PE: u64 = 1;
const MP: u64 = 1 << 1;
const ET: u64 = 1 << 4;
const NE: u64 = 1 << 5;
const WP: u64 = 1 << 16;
const AM: u64 = 1 << 18;
const PG: u64 = 1 << 31;
/// Bits of `cr4`: physical address extension, SSE. XSAVE is the guest's to turn on, as it has to set XCR0 then.
const PAE: u64 = 1 << 5;
const OSFXSR: u64 = 1 << 9;
const OSXMMEXCPT: u64 = 1 << 10;
/// Bits of `efer`. SYSCALL stays off: with no handler set it would take ring 3 to address 0 in ring 0.
const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;
/// Bits of `rflags`: the one that is always set, and port access for ring 3.
const FIXED: u64 = 1 << 1;
const IOPL_3: u64 = 3 << 12;

/// The registers a guest starts with. Those not named are 0.
fn start(options: &BootOptions, tables: Option<&Tables>, apic_base: u64) -> Registers {
    let user = options.privilege == Privilege::User;
    let stack = options.stack.unwrap_or(0);
    let common = Registers {
        rip: options.entry,
        rsp: stack,
        rflags: if user { FIXED | IOPL_3 } else { FIXED },
        apic_base,
        ldt: Segment { type_: 2, present: true, unusable: true, ..Segment::default() },
        // Without a TSS of its own a processor has one all the same (SDM, volume 3, "Processor State After Reset").
        tr: Segment { limit: 0xffff, type_: 0xb, present: true, ..Segment::default() },
        ..Registers::default()
    };
    match options.mode {
        BootMode::Real => real(&common),
        BootMode::Protected => {
            flat(Flat::new(user, false), &Registers { cr0: PE | MP | ET | NE, cr4: OSFXSR | OSXMMEXCPT, ..common })
        }
        BootMode::Long => flat(
            Flat::new(user, true),
            &Registers {
                cr0: PE | MP | ET | NE | WP | AM | PG,
                cr3: tables.map_or(0, |tables| tables.cr3),
                cr4: PAE | OSFXSR | OSXMMEXCPT,
                efer: LME | LMA,
                tr: tables.map_or(common.tr, |tables| tables.task),
                gdt: tables.map_or(common.gdt, |tables| tables.gdt),
                ..common
            },
        ),
    }
}

fn flat(Flat { code, data }: Flat, common: &Registers) -> Registers {
    Registers { cs: code, ds: data, es: data, fs: data, gs: data, ss: data, ..*common }
}

fn real(common: &Registers) -> Registers {
    let base = if common.rip <= 0xffff { 0 } else { (common.rip & !0xf).min(REAL_BASE_LAST) };
    let data = Segment { limit: 0xffff, type_: 0x3, present: true, s: true, ..Segment::default() };
    // The base was limited to what a selector reaches.
    let selector = u16::try_from(base >> 4).unwrap_or(u16::MAX);
    Registers {
        rip: common.rip - base,
        rsp: common.rsp & 0xffff, // 64 KiB: the first push wraps to 0xfffe
        cr0: ET,
        cs: Segment { base, selector, type_: 0xb, ..data },
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        gdt: DescriptorTable { base: 0, limit: 0xffff },
        idt: DescriptorTable { base: 0, limit: 0x3ff },
        ..*common
    }
}

#[cfg(test)]
#[path = "boot_tests.rs"]
mod tests;
