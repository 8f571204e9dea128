//! What KVM really does: the tests that need `/dev/kvm`. A test that needs a capability asks a scratch VM for it and is
//! else a counted skip whose kind says why.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy's allowances for tests don't reach a target without the standard harness"
)]

mod boot;
#[cfg(target_arch = "x86_64")]
mod claims;
#[cfg(target_arch = "x86_64")]
mod close;
#[cfg(target_arch = "aarch64")]
mod el1;
mod host;
#[cfg(target_arch = "x86_64")]
mod kick;
mod life;
mod machine;
mod memory;
#[cfg(target_arch = "x86_64")]
mod run;
mod support;

use std::process::ExitCode;

use libtest_mimic::{Arguments, run};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = [boot::tests(), host::tests(), life::tests(), memory::tests(), run_tests()].into_iter().flatten();
    let trials = match support::kvm_is_here() {
        Ok(()) => trials.collect(),
        Err(reason) => trials.map(|trial| trial.with_kind(reason.clone()).with_ignored_flag(true)).collect(),
    };
    run(&arguments, trials).exit_code()
}

#[cfg(target_arch = "x86_64")]
fn run_tests() -> Vec<libtest_mimic::Trial> {
    [run::tests(), claims::tests(), close::tests(), kick::tests()].into_iter().flatten().collect()
}

/// The guests of these are x86 code.
#[cfg(not(target_arch = "x86_64"))]
fn run_tests() -> Vec<libtest_mimic::Trial> {
    el1::tests()
}
