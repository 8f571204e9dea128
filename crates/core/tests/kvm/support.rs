//! What tests of every architecture share, and the one way to say what a test needs.

use std::{env, fs, process::Command};

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

/// As [`trial`], in a process of its own: for what other tests beside it would disturb, or be disturbed by.
pub(crate) fn alone(name: &'static str, test: fn()) -> Trial {
    const MARK: &str = "TYPEVISOR_TEST_ALONE";
    Trial::test(name, move || {
        if env::var(MARK).is_ok_and(|wanted| wanted == name) {
            test();
            return Ok(());
        }
        let child =
            Command::new(env::current_exe()?).args(["--test-threads=1", "--exact", name]).env(MARK, name).output()?;
        if child.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&child.stderr).into_owned().into()) }
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
