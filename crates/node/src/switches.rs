//! Which exits a VM is made with, as the core takes it.

use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use typevisor::{
    Error, Result,
    exit::MsrReason,
    switches::{DisabledExit, ExitSwitches, ExitingHypercall, MsrAccess, MsrExits, MsrFilter, MsrRange},
};

use crate::convert::unsigned_u32;

/// Part of `createVm`'s argument.
#[napi(object, object_to_js = false, use_nullable = true)]
pub struct NativeExitSwitches {
    pub msr: Option<NativeMsrExits>,
    pub hypercalls: Vec<String>,
    pub emulation_failure: bool,
    pub disable: Vec<String>,
    pub bus_lock: bool,
    pub notify: Option<i64>,
    pub xen: Option<i64>,
    pub nisv: bool,
}

/// Part of `NativeExitSwitches`.
#[napi(object, object_to_js = false, use_nullable = true)]
pub struct NativeMsrExits {
    pub reasons: Vec<String>,
    pub filter: Option<Vec<NativeMsrRange>>,
    pub deny_others: bool,
}

/// Part of `NativeMsrExits`.
#[napi(object, object_to_js = false, use_nullable = true)]
pub struct NativeMsrRange {
    pub base: i64,
    pub count: i64,
    pub read: bool,
    pub write: bool,
    pub allow: bool,
    pub bitmap: Option<Uint8Array>,
}

impl TryFrom<NativeExitSwitches> for ExitSwitches {
    type Error = Error;

    fn try_from(native: NativeExitSwitches) -> Result<Self> {
        let hypercalls = named("exits.hypercalls", &native.hypercalls, ExitingHypercall::from_name);
        let disable = named("exits.disable", &native.disable, DisabledExit::from_name);
        Ok(Self {
            msr: native.msr.map(MsrExits::try_from).transpose()?,
            hypercalls: hypercalls?,
            emulation_failure: native.emulation_failure,
            disable: disable?,
            bus_lock: native.bus_lock,
            notify: native.notify.map(|window| unsigned_u32("exits.notify.window", window)).transpose()?,
            xen: native.xen.map(|msr| unsigned_u32("exits.xen.msr", msr)).transpose()?,
            nisv: native.nisv,
        })
    }
}

impl TryFrom<NativeMsrExits> for MsrExits {
    type Error = Error;

    fn try_from(native: NativeMsrExits) -> Result<Self> {
        let reasons = named("exits.msr.reasons", &native.reasons, MsrReason::from_name)?;
        let ranges = |ranges: Vec<NativeMsrRange>| ranges.into_iter().map(MsrRange::try_from).collect::<Result<_>>();
        let ranges = native.filter.map(ranges).transpose()?;
        let filter = ranges.map(|ranges| MsrFilter { ranges, deny_others: native.deny_others });
        Ok(Self { reasons, filter })
    }
}

impl TryFrom<NativeMsrRange> for MsrRange {
    type Error = Error;

    fn try_from(native: NativeMsrRange) -> Result<Self> {
        let access = match native.bitmap {
            Some(bits) => MsrAccess::Bitmap(bits.to_vec().into()),
            None if native.allow => MsrAccess::Allowed,
            None => MsrAccess::Denied,
        };
        Ok(Self {
            base: unsigned_u32("base", native.base)?,
            count: unsigned_u32("count", native.count)?,
            read: native.read,
            write: native.write,
            access,
        })
    }
}

fn named<T>(what: &'static str, names: &[String], find: fn(&str) -> Option<T>) -> Result<Vec<T>> {
    let unknown = || Error::InvalidArgument { what, expected: "names that there are" };
    names.iter().map(|name| find(name).ok_or_else(unknown)).collect()
}
