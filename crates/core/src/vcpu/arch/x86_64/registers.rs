//! The registers of an `x86_64` vCPU, as `KVM_GET_REGS` and `KVM_GET_SREGS` have them (api.rst 4.11 to 4.14), in
//! types of our own. Values are the kernel's; what it would cut off in silence is refused.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;

use crate::error::{Error, Result};

/// A segment register with its hidden part (Intel SDM, volume 3, "Segment Registers"), as the processor has it loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a bit of a segment descriptor, under the name that KVM uses"
)]
pub struct Segment {
    /// First linear address, in bytes.
    pub base: u64,
    /// Offset of the last byte, in bytes, whatever [`Segment::g`] says.
    pub limit: u32,
    /// The visible part: index into the descriptor table and requested privilege level.
    pub selector: u16,
    /// Type, 4 bits (SDM, "Code- and Data-Segment Descriptor Types"): 0xb is code that may be read, 0x3 data that may
    /// be written, 0xb of a system segment a busy TSS.
    pub type_: u8,
    /// Present.
    pub present: bool,
    /// Descriptor privilege level, 0 to 3; that of `ss` is the current privilege level.
    pub dpl: u8,
    /// Default operand size is 32 bits. Clear in 64-bit code.
    pub db: bool,
    /// Code or data, not a system segment.
    pub s: bool,
    /// 64-bit code.
    pub l: bool,
    /// The descriptor counts its limit in pages.
    pub g: bool,
    /// Available to system software.
    pub avl: bool,
    /// Loaded with a null selector.
    pub unusable: bool,
}

/// A descriptor table register: GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DescriptorTable {
    /// Linear address of the table, in bytes.
    pub base: u64,
    /// Offset of its last byte, in bytes.
    pub limit: u16,
}

/// Writes down each register once: the struct, its names, and the way from and to the kernel's structs.
macro_rules! registers {
    (
        general { $($general:ident)+ }
        special { $($special:ident: $meaning:literal,)+ }
        segments { $($segment:ident: $segment_meaning:literal,)+ }
        tables { $($table:ident: $table_meaning:literal,)+ }
    ) => {
        /// The registers of a vCPU: general, control, segments and tables.
        ///
        /// The bridge to other languages sees the plain ones by name, in order:
        /// ```
        /// use typevisor::vcpu::Registers;
        /// let mut registers = Registers::default();
        /// assert_eq!(registers.set_scalar("rip", 0x7c00), Some(()));
        /// assert_eq!(registers.set_scalar("pc", 0), None); // no x86 register
        /// assert_eq!(registers.scalars().find(|(name, _)| *name == "rip"), Some(("rip", 0x7c00)));
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Registers {
            $(#[doc = concat!("General register `", stringify!($general), "`.")] pub $general: u64,)+
            $(#[doc = $meaning] pub $special: u64,)+
            $(#[doc = $segment_meaning] pub $segment: Segment,)+
            $(#[doc = $table_meaning] pub $table: DescriptorTable,)+
        }

        impl Registers {
            /// Every plain 64-bit register with its name, in a fixed order.
            pub fn scalars(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($general), self.$general),)+ $((stringify!($special), self.$special),)+].into_iter()
            }

            /// Sets the plain register called `name`; none where there is no such register.
            pub fn set_scalar(&mut self, name: &str, value: u64) -> Option<()> {
                match name {
                    $(stringify!($general) => self.$general = value,)+
                    $(stringify!($special) => self.$special = value,)+
                    _ => return None,
                }
                Some(())
            }

            /// Every segment register with its name, in a fixed order.
            pub fn segments(&self) -> impl Iterator<Item = (&'static str, Segment)> + use<> {
                [$((stringify!($segment), self.$segment),)+].into_iter()
            }

            /// The segment register called `name`, to change it.
            pub fn segment_mut(&mut self, name: &str) -> Option<&mut Segment> {
                match name {
                    $(stringify!($segment) => Some(&mut self.$segment),)+
                    _ => None,
                }
            }

            /// Every descriptor table register with its name, in a fixed order.
            pub fn tables(&self) -> impl Iterator<Item = (&'static str, DescriptorTable)> + use<> {
                [$((stringify!($table), self.$table),)+].into_iter()
            }

            /// The descriptor table register called `name`, to change it.
            pub fn table_mut(&mut self, name: &str) -> Option<&mut DescriptorTable> {
                match name {
                    $(stringify!($table) => Some(&mut self.$table),)+
                    _ => None,
                }
            }

            fn from_kvm(regs: &kvm_regs, sregs: &kvm_sregs) -> Self {
                Self {
                    $($general: regs.$general,)+
                    $($special: sregs.$special,)+
                    $($segment: Segment::from_kvm(sregs.$segment),)+
                    $($table: DescriptorTable { base: sregs.$table.base, limit: sregs.$table.limit },)+
                }
            }

            const fn to_regs(self) -> kvm_regs {
                kvm_regs { $($general: self.$general,)+ }
            }

            /// `interrupt_bitmap` (an interrupt that was acknowledged and is yet to be delivered) stays as it is in
            /// `sregs`: no register, but KVM takes it with them (api.rst 4.13).
            fn to_sregs(self, sregs: &kvm_sregs) -> kvm_sregs {
                kvm_sregs {
                    $($special: self.$special,)+
                    $($segment: self.$segment.to_kvm(),)+
                    $($table: kvm_dtable { base: self.$table.base, limit: self.$table.limit, ..Default::default() },)+
                    interrupt_bitmap: sregs.interrupt_bitmap,
                }
            }
        }
    };
}

registers! {
    general { rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags }
    special {
        cr0: "Control register 0: paging, protection, floating point.",
        cr2: "Control register 2: the linear address of the last page fault.",
        cr3: "Control register 3: the guest physical address of the page tables.",
        cr4: "Control register 4: extensions.",
        cr8: "Control register 8: the task priority.",
        efer: "The extended feature enable register: long mode, system calls, no-execute.",
        apic_base: "`IA32_APIC_BASE`: where the local APIC lies and whether it is on.",
    }
    segments {
        cs: "Code segment.",
        ds: "Data segment.",
        es: "Extra segment.",
        fs: "Extra segment, with a base also in 64-bit mode.",
        gs: "Extra segment, with a base also in 64-bit mode.",
        ss: "Stack segment; its `dpl` is the current privilege level.",
        tr: "Task register.",
        ldt: "Local descriptor table register.",
    }
    tables {
        gdt: "Global descriptor table.",
        idt: "Interrupt descriptor table; in real mode the interrupt vectors.",
    }
}

impl Registers {
    /// KVM cuts wider values off without a word.
    fn check(&self) -> Result<()> {
        for (_, segment) in self.segments() {
            if segment.type_ > 0xf {
                return Err(Error::InvalidArgument { what: "a segment's type", expected: "0 to 15" });
            }
            if segment.dpl > 3 {
                return Err(Error::InvalidArgument { what: "a segment's dpl", expected: "0 to 3" });
            }
        }
        Ok(())
    }
}

impl Segment {
    const fn from_kvm(segment: kvm_segment) -> Self {
        Self {
            base: segment.base,
            limit: segment.limit,
            selector: segment.selector,
            type_: segment.type_,
            present: segment.present != 0,
            dpl: segment.dpl,
            db: segment.db != 0,
            s: segment.s != 0,
            l: segment.l != 0,
            g: segment.g != 0,
            avl: segment.avl != 0,
            unusable: segment.unusable != 0,
        }
    }

    fn to_kvm(self) -> kvm_segment {
        kvm_segment {
            base: self.base,
            limit: self.limit,
            selector: self.selector,
            type_: self.type_,
            present: self.present.into(),
            dpl: self.dpl,
            db: self.db.into(),
            s: self.s.into(),
            l: self.l.into(),
            g: self.g.into(),
            avl: self.avl.into(),
            unusable: self.unusable.into(),
            ..Default::default()
        }
    }
}

/// All registers, as KVM holds them: in the middle of an instruction while an exit is not completed.
///
/// # Errors
/// [`Error::Ioctl`]: `KVM_GET_REGS`, `KVM_GET_SREGS`.
pub(crate) fn get(vcpu: &VcpuFd) -> Result<Registers> {
    let (regs, sregs) = read(vcpu)?;
    Ok(Registers::from_kvm(&regs, &sregs))
}

/// Changes registers and writes the kind that changed, general or system, or both, or none.
///
/// # Errors
/// [`Error::InvalidArgument`], [`Error::Ioctl`] where KVM finds the values contradictory, and what `change` returns.
/// Nothing is written then.
pub(crate) fn update(vcpu: &VcpuFd, change: impl FnOnce(&mut Registers) -> Result<()>) -> Result<()> {
    let (general, system) = read(vcpu)?;
    let mut registers = Registers::from_kvm(&general, &system);
    change(&mut registers)?;
    registers.check()?;
    // System registers first: KVM checks those, and takes general ones as they are.
    let changed = registers.to_sregs(&system);
    if changed != system {
        vcpu.set_sregs(&changed).map_err(Error::ioctl("KVM_SET_SREGS"))?;
    }
    let changed = registers.to_regs();
    if changed != general {
        vcpu.set_regs(&changed).map_err(Error::ioctl("KVM_SET_REGS"))?;
    }
    Ok(())
}

fn read(vcpu: &VcpuFd) -> Result<(kvm_regs, kvm_sregs)> {
    let regs = vcpu.get_regs().map_err(Error::ioctl("KVM_GET_REGS"))?;
    let sregs = vcpu.get_sregs().map_err(Error::ioctl("KVM_GET_SREGS"))?;
    Ok((regs, sregs))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value in every field that no other field has.
    fn distinct() -> (kvm_regs, kvm_sregs) {
        let mut registers = Registers::default();
        let names: Vec<_> = registers.scalars().map(|(name, _)| name).collect();
        for (name, value) in names.into_iter().zip(1..) {
            registers.set_scalar(name, value).unwrap();
        }
        let names: Vec<_> = registers.segments().map(|(name, _)| name).collect();
        for (name, value) in names.into_iter().zip(1_u8..) {
            *registers.segment_mut(name).unwrap() = Segment {
                base: 100 + u64::from(value),
                limit: 200 + u32::from(value),
                selector: 300 + u16::from(value),
                type_: value,
                dpl: value % 4,
                present: value & 1 != 0,
                db: value & 2 != 0,
                s: value & 4 != 0,
                l: value & 8 != 0,
                g: value & 1 == 0,
                avl: value & 2 == 0,
                unusable: value & 4 == 0,
            };
        }
        registers.table_mut("gdt").unwrap().base = 400;
        registers.table_mut("idt").unwrap().limit = 401;
        let pending = kvm_sregs { interrupt_bitmap: [0, 1 << 7, 0, 0], ..Default::default() };
        (registers.to_regs(), registers.to_sregs(&pending))
    }

    #[test]
    fn every_register_survives_the_way_from_and_to_the_kernel() {
        let (regs, sregs) = distinct();
        let registers = Registers::from_kvm(&regs, &sregs);
        assert_eq!((registers.to_regs(), registers.to_sregs(&sregs)), (regs, sregs));
        assert_eq!(sregs.interrupt_bitmap, [0, 1 << 7, 0, 0], "a pending interrupt stays pending");
    }

    #[test]
    fn names_are_distinct_and_each_sets_the_register_it_names() {
        let (regs, sregs) = distinct();
        let registers = Registers::from_kvm(&regs, &sregs);
        let values: Vec<_> = registers.scalars().map(|(_, value)| value).collect();
        assert_eq!(values, (1..=25).collect::<Vec<_>>());
        assert_eq!(registers.scalars().map(|(name, _)| name).next(), Some("rax"));
        assert_eq!(registers.segments().count(), 8);
        assert_eq!((registers.gdt.base, registers.idt.limit), (400, 401));
    }

    #[test]
    fn unknown_names_are_told() {
        let mut registers = Registers::default();
        assert_eq!(registers.set_scalar("cs", 1), None);
        assert!(registers.segment_mut("rax").is_none());
        assert!(registers.table_mut("tr").is_none());
    }

    #[test]
    fn what_kvm_would_cut_off_is_refused() {
        let mut registers = Registers::default();
        registers.fs.type_ = 16;
        assert!(matches!(registers.check(), Err(Error::InvalidArgument { what: "a segment's type", .. })));
        registers.fs.type_ = 15;
        registers.ss.dpl = 4;
        assert!(matches!(registers.check(), Err(Error::InvalidArgument { what: "a segment's dpl", .. })));
    }
}
