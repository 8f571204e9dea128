//! The one place where a core error leaves Rust: failures travel as values, as a rejected promise or a thrown error of
//! napi's can carry no code of ours.

use napi::bindgen_prelude::Either;
use napi_derive::napi;
use typevisor::{Error, ErrorCode};

/// Why a call failed; `Failure` in ts/native.ts.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct Failure {
    pub failed: bool,
    pub code: &'static str,
    pub message: String,
    pub errno: Option<i32>,
    pub syscall: Option<&'static str>,
    pub capability: Option<&'static str>,
    pub since: Option<&'static str>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let refusal = error.errno();
        let (capability, since) = match &error {
            Error::CapabilityMissing { capability, since, .. } | Error::CapabilityPart { capability, since, .. } => {
                (Some(*capability), Some(*since))
            }
            _ => (None, None),
        };
        Self {
            failed: true,
            code: error.code().as_str(),
            message: error.to_string(),
            errno: refusal.map(|(errno, _)| -errno.0),
            syscall: refusal.map(|(_, call)| call),
            capability,
            since,
        }
    }
}

/// What most functions return: a failure, or what was asked for.
pub(crate) type Outcome<T> = Either<Failure, T>;

pub(crate) fn outcome<T>(result: typevisor::Result<T>) -> Outcome<T> {
    result.map_or_else(|error| Either::A(error.into()), Either::B)
}

/// The version of the addon, which has to be that of the package around it.
#[napi(catch_unwind)]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Every code the core can give.
#[napi(catch_unwind)]
pub fn error_codes() -> Vec<&'static str> {
    ErrorCode::ALL.iter().map(|code| code.as_str()).collect()
}
