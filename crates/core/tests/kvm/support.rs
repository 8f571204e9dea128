//! What tests of every architecture share, and the one way to say what a test needs.

use std::{env, fs, process::Command};

use libtest_mimic::{Failed, Trial};
use typevisor::{
    ErrorCode, GpaRange, Kvm, Vm, VmOptions,
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

/// Bytes of a page on the machines that tests run on.
pub(crate) const PAGE: u64 = 0x1000;

pub(crate) fn pages(gpa: u64, size: u64) -> GpaRange {
    GpaRange::pages(gpa, size).unwrap()
}

pub(crate) fn code<T: std::fmt::Debug>(result: typevisor::Result<T>) -> ErrorCode {
    result.unwrap_err().code()
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

/// For what only `x86_64` has, as ports and real mode: elsewhere a counted skip.
macro_rules! x86_only {
    ($name:literal, $test:path) => {{
        #[cfg(target_arch = "x86_64")]
        let trial = crate::support::trial($name, $test);
        #[cfg(not(target_arch = "x86_64"))]
        let trial = crate::support::elsewhere($name, "needs x86_64");
        trial
    }};
}
pub(crate) use x86_only;

/// A test of another architecture: it is counted, and does not run.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn elsewhere(name: &'static str, reason: &str) -> Trial {
    Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true)
}

/// How often to repeat what is repeated `count` times on real hardware: a machine under emulation needs 24 ms to close a
/// VM, and asks for less (`TYPEVISOR_TEST_SCALE`, a fraction).
pub(crate) fn scaled(count: u32) -> u32 {
    let scale = env::var("TYPEVISOR_TEST_SCALE").map_or(1.0, |text| text.parse().expect("a fraction"));
    assert!(scale > 0.0 && scale <= 1.0, "TYPEVISOR_TEST_SCALE is {scale}: above 0, at most 1");
    // Small counts, rounded up to at least one.
    (0..count).take_while(|done| f64::from(*done) < f64::from(count) * scale).count().try_into().unwrap_or(count)
}

/// Leaves a test out where loops are scaled down: under emulation a guest of many thousand exits now and then stops
/// making any, in a loop of its own that only a kick ends (seen with QEMU 7.2, about once in ten such tests).
#[cfg(target_arch = "x86_64")]
pub(crate) fn unscaled(trial: Trial) -> Trial {
    if scaled(100) < 100 { trial.with_kind("needs speed").with_ignored_flag(true) } else { trial }
}

/// Slots that a machine under emulation fills in a few seconds: Linux 5.10 has 509 or 512, later ones 32,764.
const FEW_SLOTS: u32 = 1000;

/// For a test that fills all slots, as it is all or none: under a scale ([`scaled`]) a VM that has very many is a counted
/// skip.
pub(crate) fn with_every_slot(trial: Trial) -> Trial {
    let slots = match kvm_is_here() {
        Ok(()) => u32::try_from(vm().capabilities().value(Capability::NrMemslots)).unwrap(),
        Err(_) => 0, // main skips every test then
    };
    let too_many = slots > FEW_SLOTS && scaled(slots) < slots;
    if too_many { trial.with_kind("needs speed").with_ignored_flag(true) } else { trial }
}

/// Open fds, threads and mappings of this process.
pub(crate) fn resources() -> (usize, usize, usize) {
    let count = |path| fs::read_dir(path).unwrap().count();
    let maps = fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    (count("/proc/self/fd"), count("/proc/self/task"), maps)
}
