//! Exits as plain objects.

use napi::bindgen_prelude::{BigInt, Uint8Array};
use napi_derive::napi;
use typevisor::{Exit, exit::SystemEventPayload};

use crate::convert::signed;

/// `NativeExit` in ts/native.ts.
#[napi(discriminant = "kind", discriminant_case = "kebab-case", object_from_js = false, use_nullable = true)]
pub enum NativeExit {
    Io { out: bool, port: u32, size: u32, count: u32, data: Uint8Array },
    Mmio { write: bool, gpa: i64, size: u32, data: Uint8Array },
    Hlt,
    Intr,
    Shutdown,
    FailEntry { reason: BigInt, cpu: u32 },
    InternalError { suberror: u32, data: Vec<BigInt>, instruction: Option<Uint8Array> },
    SystemEvent { event: &'static str, r#type: u32, data: Vec<BigInt>, flags: Option<BigInt> },
    RunFailed { errno: i32 },
    Unknown { reason: u32, bytes: Uint8Array },
}

fn bytes(data: &[u8]) -> Uint8Array {
    Uint8Array::from(data.to_vec())
}

fn words(data: &[u64]) -> Vec<BigInt> {
    data.iter().map(|word| (*word).into()).collect()
}

impl From<Exit> for NativeExit {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::IoOut { port, size, count, data } => {
                Self::Io { out: true, port: port.into(), size: size.into(), count, data: bytes(&data) }
            }
            Exit::IoIn { port, size, count } => {
                Self::Io { out: false, port: port.into(), size: size.into(), count, data: bytes(&[]) }
            }
            Exit::MmioWrite { gpa, data } => {
                let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
                Self::Mmio { write: true, gpa: signed(gpa), size, data: bytes(&data) }
            }
            Exit::MmioRead { gpa, size } => {
                Self::Mmio { write: false, gpa: signed(gpa), size: size.into(), data: bytes(&[]) }
            }
            Exit::Hlt => Self::Hlt,
            Exit::Intr => Self::Intr,
            Exit::Shutdown => Self::Shutdown,
            Exit::FailEntry { reason, cpu } => Self::FailEntry { reason: reason.into(), cpu },
            Exit::InternalError { suberror, data, instruction } => {
                Self::InternalError { suberror, data: words(&data), instruction: instruction.map(|code| bytes(&code)) }
            }
            Exit::SystemEvent { event, r#type, payload } => {
                let (data, flags) = match payload {
                    SystemEventPayload::Data(data) => (words(&data), None),
                    SystemEventPayload::Flags(flags) => (Vec::new(), Some(flags.into())),
                    SystemEventPayload::None => (Vec::new(), None),
                };
                Self::SystemEvent { event: event.name(), r#type, data, flags }
            }
            Exit::RunFailed { errno } => Self::RunFailed { errno: -errno.0 },
            Exit::Unknown { reason, bytes: raw } => Self::Unknown { reason, bytes: bytes(&raw) },
            // `Exit` is non-exhaustive for others; a kind that this file does not know yet arrives with its name lost
            // but never as something else.
            _ => Self::Unknown { reason: u32::MAX, bytes: bytes(&[]) },
        }
    }
}
