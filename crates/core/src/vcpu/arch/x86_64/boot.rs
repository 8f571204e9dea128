//! Where a guest starts: registers for real, protected and long mode, and the tables that long mode needs. The bytes of
//! the tables are `tables`', their slot is `vcpu::boot`'s. Why it is as it is: docs/design/boot.md.

use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW, kvm_mp_state, kvm_vcpu_events,
};
use kvm_ioctls::VcpuFd;

use super::{
    Setup,
    registers::{DescriptorTable, Registers, Segment, update},
    tables::{self, Flat, Tables},
};
use crate::{
    error::{Error, Result},
    memory::GuestMemory,
    range::PAGE_SIZE,
    vcpu::boot::{Again, Boot, BootMode, BootOptions, Privilege},
};

/// Puts `vcpu` where a guest of that mode starts: registers, tables, no interrupt or exception pending, and runnable
/// (a second vCPU with an in-kernel APIC otherwise waits for another to start it). MSRs, floating point and debug
/// registers stay as they are.
///
/// # Errors
/// [`Error::InvalidArgument`], [`Error::Unaligned`]: nothing has changed. [`Error::SlotOverlap`], [`Error::SlotLimit`]:
/// no place for the tables. [`Error::Ioctl`].
pub(crate) fn boot(vcpu: &VcpuFd, memory: &GuestMemory, setup: &mut Setup, options: &BootOptions) -> Result<Boot> {
    let mode = check(options)?;
    let Setup { tables } = setup;
    let place = match mode {
        Mode::Long => Some(tables.place(memory, options.tables, Again::Reuse)?),
        Mode::Real | Mode::Protected => None,
    };
    let built = place.map(|place| Tables::build(place, options.privilege == Privilege::User));
    if let (Some(place), Some(built)) = (place, &built) {
        memory.write(place.gpa(), &built.bytes)?;
    }
    update(vcpu, |registers| {
        *registers = start(mode, options, built.as_ref(), registers.apic_base);
        Ok(())
    })?;
    forget_events(vcpu)?;
    if place.is_none() {
        let _there_was_one = tables.release()?;
    }
    Ok(Boot { tables: place, exceptions: None })
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

/// The modes of this architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Real,
    Protected,
    Long,
}

fn check(options: &BootOptions) -> Result<Mode> {
    let refuse = |what, expected| Err(Error::InvalidArgument { what, expected });
    let BootOptions { mode, privilege, entry, stack, tables } = *options;
    let mode = match mode {
        BootMode::Real => Mode::Real,
        BootMode::Protected => Mode::Protected,
        BootMode::Long => Mode::Long,
        BootMode::El1 => return refuse("mode", "real, protected or long on x86_64"),
    };
    let stack = stack.unwrap_or(0);
    let stack_alignment = if mode == Mode::Real { 2 } else { 16 };
    match mode {
        Mode::Real if privilege == Privilege::User => refuse("privilege", "kernel in real mode, which has no other"),
        Mode::Real if entry > REAL_ENTRY_LAST => refuse("entry", "at most 0x10_ffef in real mode"),
        Mode::Real if stack > 0x1_0000 => refuse("stack", "at most 64 KiB in real mode"),
        _ if entry >= tables::MAPPED => refuse("entry", "below 4 GiB"),
        _ if stack > tables::MAPPED => refuse("stack", "at most 4 GiB"),
        Mode::Protected if stack == tables::MAPPED => refuse("stack", "below 4 GiB in protected mode"),
        _ if !stack.is_multiple_of(stack_alignment) => {
            Err(Error::Unaligned { what: "stack", value: stack, alignment: stack_alignment })
        }
        _ => check_tables(mode, tables).map(|()| mode),
    }
}

fn check_tables(mode: Mode, tables: Option<u64>) -> Result<()> {
    let Some(gpa) = tables else { return Ok(()) };
    if mode != Mode::Long {
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
fn start(mode: Mode, options: &BootOptions, tables: Option<&Tables>, apic_base: u64) -> Registers {
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
    match mode {
        Mode::Real => real(&common),
        Mode::Protected => {
            flat(Flat::new(user, false), &Registers { cr0: PE | MP | ET | NE, cr4: OSFXSR | OSXMMEXCPT, ..common })
        }
        Mode::Long => flat(
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
