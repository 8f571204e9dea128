//! Numbers on their way in. The facade has checked them: a failure here is its bug, and says so as an error all the same.

use napi::bindgen_prelude::BigInt;
use napi_derive::napi;
use typevisor::{Error, GpaRange, Result};

/// `NativeRange` in ts/native.ts: bytes.
#[napi(object, object_from_js = false)]
pub struct NativeRange {
    pub gpa: i64,
    pub size: i64,
}

impl From<GpaRange> for NativeRange {
    fn from(range: GpaRange) -> Self {
        Self { gpa: signed(range.gpa()), size: signed(range.size()) }
    }
}

/// An address, size or ticket: JavaScript's safe integers fit in both.
pub(crate) fn unsigned(what: &'static str, value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| Error::InvalidArgument { what, expected: "a safe integer that is not negative" })
}

pub(crate) fn unsigned_u32(what: &'static str, value: i64) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::InvalidArgument { what, expected: "an integer from 0 to 2^32 - 1" })
}

/// An address or size on its way out: guest addresses stop at 52 bits.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn register(what: &'static str, value: &BigInt) -> Result<u64> {
    match value.get_u64() {
        (false, value, true) => Ok(value),
        _ => Err(Error::InvalidArgument { what, expected: "an integer from 0 to 2^64 - 1" }),
    }
}
