//! Small machines, and the one way to say what a test needs.

use std::{fs, time::Duration};

use libtest_mimic::{Failed, Trial};
use typevisor::{
    Exit, GpaRange, Kvm, Vcpu, Vm, VmOptions,
    host::{Capability, KvmOptions},
    memory::MapOptions,
    vcpu::VcpuOptions,
};

/// Long enough for any guest here on the slowest machine; no test passes or fails by it but one that hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

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

/// Where guests of [`Machine`] begin.
pub(crate) const CODE: u64 = 0x1000;

/// A VM with 64 KiB of RAM from 0 on and one vCPU about to run `code` at [`CODE`], in real mode on x86.
pub(crate) struct Machine {
    pub(crate) vcpu: Vcpu,
    pub(crate) vm: Vm,
}

impl Machine {
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn real_mode(code: &[u8]) -> Self {
        use typevisor::vcpu::{BootMode, BootOptions};
        let vm = vm();
        let ram = GpaRange::pages(0, 64 << 10).unwrap();
        vm.memory().map(MapOptions::new(ram)).unwrap();
        vm.memory().write(CODE, code).unwrap();
        let vcpu = vm.create_vcpu(VcpuOptions::default()).unwrap();
        vcpu.boot(&BootOptions { stack: Some(0x8000), ..BootOptions::new(BootMode::Real, CODE) }).unwrap();
        Self { vcpu, vm }
    }

    pub(crate) fn run(&self) -> Exit {
        self.vcpu.run_sync(LIMIT).expect("a guest that exits")
    }
}

/// Open fds, threads and mappings of this process.
pub(crate) fn resources() -> (usize, usize, usize) {
    let count = |path| fs::read_dir(path).unwrap().count();
    let maps = fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    (count("/proc/self/fd"), count("/proc/self/task"), maps)
}
