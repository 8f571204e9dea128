//! The protocol of runs, kicks, holds, pauses and closing under loom: `vcpu/control.rs` and `vcpu/hold.rs`, as they are,
//! through every interleaving of their steps that has no more than so many preemptions. KVM, a vCPU's thread and the engine
//! that drives it are stood in for by `vcpu::machine`.
//!
//! `npm run test:full loom`. What it shows, and what it cannot: docs/design/vcpu.md, "The model".
#![cfg(loom)]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy's allowances for tests don't reach what stands beside them"
)]

mod error;
mod holds;
mod kicks;
mod memory;
mod sync;
mod sys;
mod vcpu;
