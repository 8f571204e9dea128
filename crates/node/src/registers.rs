//! Registers as lists of names and values: which there are is the core's to know.

use napi::bindgen_prelude::BigInt;
use napi_derive::napi;
use typevisor::{Error, Result, vcpu::Registers};

use crate::convert::register;

/// `NativeScalar` in ts/native.ts.
#[napi(object)]
pub struct NativeScalar {
    pub name: String,
    pub value: BigInt,
}

/// `NativeSegment` in ts/native.ts.
#[napi(object)]
#[expect(clippy::struct_excessive_bools, reason = "each is a bit of a segment descriptor")]
pub struct NativeSegment {
    pub name: String,
    pub base: BigInt,
    pub limit: u32,
    pub selector: u16,
    #[napi(js_name = "type")]
    pub type_: u8,
    pub present: bool,
    pub dpl: u8,
    pub db: bool,
    pub s: bool,
    pub l: bool,
    pub g: bool,
    pub avl: bool,
    pub unusable: bool,
}

/// `NativeTable` in ts/native.ts.
#[napi(object)]
pub struct NativeTable {
    pub name: String,
    pub base: BigInt,
    pub limit: u16,
}

/// `NativeRegisters` in ts/native.ts.
#[napi(object)]
pub struct NativeRegisters {
    pub scalars: Vec<NativeScalar>,
    pub segments: Vec<NativeSegment>,
    pub tables: Vec<NativeTable>,
    pub pending: bool,
}

const UNKNOWN: Error = Error::InvalidArgument { what: "registers", expected: "registers of this architecture" };

fn scalars(registers: &Registers) -> Vec<NativeScalar> {
    registers.scalars().map(|(name, value)| NativeScalar { name: name.into(), value: value.into() }).collect()
}

fn set_scalars(registers: &mut Registers, some: &[NativeScalar]) -> Result<()> {
    some.iter().try_for_each(|scalar| {
        let value = register("a register's value", &scalar.value)?;
        registers.set_scalar(&scalar.name, value).ok_or(UNKNOWN)
    })
}

#[cfg(target_arch = "aarch64")]
pub(crate) fn to_native(registers: &Registers, pending: bool) -> NativeRegisters {
    NativeRegisters { scalars: scalars(registers), segments: Vec::new(), tables: Vec::new(), pending }
}

#[cfg(target_arch = "aarch64")]
pub(crate) fn apply(some: &NativeRegisters, registers: &mut Registers) -> Result<()> {
    if some.segments.is_empty() && some.tables.is_empty() {
        set_scalars(registers, &some.scalars)
    } else {
        Err(UNKNOWN)
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{apply, to_native};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use typevisor::vcpu::arch::{DescriptorTable, Segment};

    use super::{
        NativeRegisters, NativeSegment, NativeTable, Registers, Result, UNKNOWN, register, scalars, set_scalars,
    };

    pub(crate) fn to_native(registers: &Registers, pending: bool) -> NativeRegisters {
        NativeRegisters {
            scalars: scalars(registers),
            segments: registers.segments().map(|(name, segment)| segment_to_native(name, &segment)).collect(),
            tables: registers.tables().map(|(name, table)| table_to_native(name, &table)).collect(),
            pending,
        }
    }

    pub(crate) fn apply(some: &NativeRegisters, registers: &mut Registers) -> Result<()> {
        set_scalars(registers, &some.scalars)?;
        for segment in &some.segments {
            *registers.segment_mut(&segment.name).ok_or(UNKNOWN)? = segment_from_native(segment)?;
        }
        for table in &some.tables {
            let base = register("a table's base", &table.base)?;
            *registers.table_mut(&table.name).ok_or(UNKNOWN)? = DescriptorTable { base, limit: table.limit };
        }
        Ok(())
    }

    fn table_to_native(name: &str, table: &DescriptorTable) -> NativeTable {
        NativeTable { name: name.into(), base: table.base.into(), limit: table.limit }
    }

    fn segment_to_native(name: &str, segment: &Segment) -> NativeSegment {
        let Segment { base, limit, selector, type_, present, dpl, db, s, l, g, avl, unusable } = *segment;
        let name = name.into();
        NativeSegment { name, base: base.into(), limit, selector, type_, present, dpl, db, s, l, g, avl, unusable }
    }

    fn segment_from_native(segment: &NativeSegment) -> Result<Segment> {
        let base = register("a segment's base", &segment.base)?;
        let NativeSegment { limit, selector, type_, present, dpl, db, s, l, g, avl, unusable, .. } = *segment;
        Ok(Segment { base, limit, selector, type_, present, dpl, db, s, l, g, avl, unusable })
    }
}
