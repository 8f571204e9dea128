//! Statistics as plain objects.

use std::time::Duration;

use napi::bindgen_prelude::BigInt;
use napi_derive::napi;
use typevisor::stats::{ExitStats, KvmStat, StatBase, StatKind, Stats};

use crate::convert::signed;

/// `NativeStats` in ts/native.ts.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeStats {
    pub kvm: Option<Vec<NativeStat>>,
    pub exits: Vec<NativeExitCount>,
    pub guest_ms: Option<f64>,
}

/// `NativeStat` in ts/native.ts.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeStat {
    pub name: String,
    pub kind: &'static str,
    pub unit: &'static str,
    pub base: Option<u32>,
    pub exponent: i32,
    pub bucket_size: Option<u32>,
    pub values: Vec<BigInt>,
}

/// `NativeExitCount` in ts/native.ts.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeExitCount {
    pub kind: &'static str,
    pub count: i64,
    pub handler_ms: Option<f64>,
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl From<Stats> for NativeStats {
    fn from(stats: Stats) -> Self {
        Self {
            kvm: stats.kvm.map(|kvm| kvm.all.into_iter().map(Into::into).collect()),
            exits: counts(&stats.exits),
            guest_ms: stats.exits.times().map(|times| milliseconds(times.guest())),
        }
    }
}

fn counts(exits: &ExitStats) -> Vec<NativeExitCount> {
    let count = |(kind, count): (typevisor::exit::ExitKind, u64)| NativeExitCount {
        kind: kind.name(),
        count: signed(count),
        handler_ms: exits.times().map(|times| milliseconds(times.handlers(kind))),
    };
    exits.iter().map(count).collect()
}

impl From<KvmStat> for NativeStat {
    fn from(stat: KvmStat) -> Self {
        Self {
            name: stat.name.into(),
            kind: stat.kind.name(),
            unit: stat.unit.name(),
            base: match stat.base {
                StatBase::Ten => Some(10),
                StatBase::Two => Some(2),
                _ => None,
            },
            exponent: stat.exponent.into(),
            bucket_size: match stat.kind {
                StatKind::LinearHistogram { bucket_size } => Some(bucket_size),
                _ => None,
            },
            values: stat.values.iter().map(|value| (*value).into()).collect(),
        }
    }
}
