//! What tests of every architecture share, and the one way to say what a test needs.

use std::fs;

use libtest_mimic::{Failed, Trial};
use typevisor::{
    Kvm, Vm, VmOptions,
    host::{Capability, KvmOptions},
};

/// Why there is no KVM here.
pub(crate) fn kvm_is_here() -> Result<(), String> {
    Kvm::open(KvmOptions::default()).map(drop).map_err(|error| format!("needs KVM: {error}"))
}

pub(crate) fn kvm() -> Kvm {
    Kvm::open(KvmOptions::default()).expect("checked by main")
}

pub(crate) fn vm() -> Vm {
    Vm::create(&kvm(), &VmOptions::default()).expect("KVM creates VMs here")
}

/// A test named by its claim.
pub(crate) fn trial(name: &'static str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok::<(), Failed>(())
    })
}

/// As [`trial`], skipped with its reason where a scratch VM lacks the capability.
pub(crate) fn needs(capability: Capability, name: &'static str, test: fn()) -> Trial {
    let missing = kvm_is_here().is_ok() && !vm().capabilities().has(capability);
    let trial = trial(name, test);
    if missing { trial.with_kind(format!("needs {}", capability.name())).with_ignored_flag(true) } else { trial }
}

/// Open fds, threads and mappings of this process.
pub(crate) fn resources() -> (usize, usize, usize) {
    let count = |path| fs::read_dir(path).unwrap().count();
    let maps = fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    (count("/proc/self/fd"), count("/proc/self/task"), maps)
}
