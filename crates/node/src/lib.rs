//! The bridge: plain objects in, plain objects out, one error mapper and nothing else. No defaults, no range checks, no
//! policy: `ts/` checks arguments, `crates/core` decides. Fields stand in the order of `ts/native.ts`; absent is `null`.
//!
//! Every item has `catch_unwind`: without it a panic aborts Node.

#![expect(unreachable_pub, reason = "napi exports what is `pub`, whatever module it stands in")]
#![expect(clippy::needless_pass_by_value, reason = "napi hands arguments over by value")]

mod backing;
mod bus;
mod change;
mod closing;
mod convert;
mod cpuid;
mod environment;
mod exit;
mod failure;
#[cfg(feature = "test-hooks")]
mod hooks;
mod host;
mod job;
mod memory;
mod registers;
mod stats;
mod switches;
mod vcpu;
mod vm;
