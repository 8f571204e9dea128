//! What KVM really does: the tests that need `/dev/kvm`. A test that needs a capability asks a scratch VM for it and is
//! else a counted skip whose kind says why.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy's allowances for tests don't reach a target without the standard harness"
)]

mod backing_limits;
mod backing_support;
mod backings;
mod boot;
mod bus;
mod changes;
mod claims;
mod close;
mod cpuid;
#[cfg(target_arch = "aarch64")]
mod el1;
mod exits;
mod hold;
mod host;
mod host_access;
mod hyperv;
mod kick;
mod kicks;
mod life;
mod machine;
mod memory;
mod pause;
mod placement;
#[cfg(target_arch = "aarch64")]
mod psci;
mod run;
mod set_memory_region;
mod stats;
mod stress;
mod support;
mod switches;

use std::process::ExitCode;

use libtest_mimic::{Arguments, run};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let everywhere = [
        backing_limits::tests(),
        backings::tests(),
        boot::tests(),
        bus::tests(),
        changes::tests(),
        claims::tests(),
        close::tests(),
        cpuid::tests(),
        exits::tests(),
        hold::tests(),
        host::tests(),
        host_access::tests(),
        hyperv::tests(),
        kick::tests(),
        kicks::tests(),
        life::tests(),
        memory::tests(),
        pause::tests(),
        placement::tests(),
        run::tests(),
        set_memory_region::tests(),
        stats::tests(),
        stress::tests(),
        switches::tests(),
    ];
    let trials = everywhere.into_iter().flatten().chain(of_this_architecture());
    let trials = match support::kvm_is_here() {
        Ok(()) => trials.collect(),
        Err(reason) => trials.map(|trial| trial.with_kind(reason.clone()).with_ignored_flag(true)).collect(),
    };
    run(&arguments, trials).exit_code()
}

#[cfg(target_arch = "aarch64")]
fn of_this_architecture() -> Vec<libtest_mimic::Trial> {
    [el1::tests(), psci::tests()].into_iter().flatten().collect()
}

/// Nothing besides: [`boot`] is `x86_64`'s.
#[cfg(not(target_arch = "aarch64"))]
fn of_this_architecture() -> Vec<libtest_mimic::Trial> {
    Vec::new()
}
