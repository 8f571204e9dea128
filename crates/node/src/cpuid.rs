//! What vCPUs answer to CPUID, and what else a vCPU is made with, as plain objects.

use napi_derive::napi;
use typevisor::{
    Error, Result,
    exit::RunFlags,
    host::CpuidEntry,
    vcpu::{VcpuFeature, VcpuOptions},
};

use crate::convert::unsigned_u32;

/// `createVcpu`'s argument.
#[napi(object, object_to_js = false, use_nullable = true)]
pub struct NativeVcpuOptions {
    pub id: Option<i64>,
    pub features: Option<Vec<String>>,
    pub cpuid: Option<Vec<NativeCpuidEntry>>,
    pub hyperv_synic: bool,
    pub affinity: Option<Vec<u32>>,
    pub name: Option<String>,
}

/// Part of `NativeVcpuOptions`, and what `supportedCpuid` gives.
#[napi(object, use_nullable = true)]
pub struct NativeCpuidEntry {
    pub function: i64,
    pub index: Option<i64>,
    pub eax: i64,
    pub ebx: i64,
    pub ecx: i64,
    pub edx: i64,
}

/// What `runFlags` gives.
#[napi(object, object_from_js = false)]
pub struct NativeRunFlags {
    pub bits: u32,
    pub smm: bool,
    pub bus_lock: bool,
    pub guest_mode: bool,
}

impl From<RunFlags> for NativeRunFlags {
    fn from(flags: RunFlags) -> Self {
        let RunFlags { bits, smm, bus_lock, guest_mode, .. } = flags;
        Self { bits: bits.into(), smm, bus_lock, guest_mode }
    }
}

impl From<CpuidEntry> for NativeCpuidEntry {
    fn from(entry: CpuidEntry) -> Self {
        let CpuidEntry { function, index, eax, ebx, ecx, edx } = entry;
        Self {
            function: function.into(),
            index: index.map(Into::into),
            eax: eax.into(),
            ebx: ebx.into(),
            ecx: ecx.into(),
            edx: edx.into(),
        }
    }
}

impl TryFrom<NativeCpuidEntry> for CpuidEntry {
    type Error = Error;

    fn try_from(native: NativeCpuidEntry) -> Result<Self> {
        let number = |value| unsigned_u32("cpuid", value);
        Ok(Self {
            function: number(native.function)?,
            index: native.index.map(number).transpose()?,
            eax: number(native.eax)?,
            ebx: number(native.ebx)?,
            ecx: number(native.ecx)?,
            edx: number(native.edx)?,
        })
    }
}

impl TryFrom<NativeVcpuOptions> for VcpuOptions {
    type Error = Error;

    fn try_from(native: NativeVcpuOptions) -> Result<Self> {
        let NativeVcpuOptions { id, features, cpuid, hyperv_synic, affinity, name } = native;
        let unknown = || Error::InvalidArgument { what: "features", expected: "names of vCPU features" };
        let feature = |name: &String| VcpuFeature::from_name(name).ok_or_else(unknown);
        let features = features.as_ref().map(|names| names.iter().map(feature).collect::<Result<_>>());
        let entries = |entries: Vec<NativeCpuidEntry>| entries.into_iter().map(CpuidEntry::try_from).collect();
        Ok(Self {
            id: id.map(|id| unsigned_u32("id", id)).transpose()?,
            features: features.transpose()?,
            cpuid: cpuid.map(entries).transpose()?,
            hyperv_synic,
            affinity,
            name,
        })
    }
}

/// Entries on their way out.
pub(crate) fn entries(entries: &[CpuidEntry]) -> Vec<NativeCpuidEntry> {
    entries.iter().copied().map(Into::into).collect()
}
