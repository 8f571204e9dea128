//! A small machine of either architecture for guests of a few bytes.

use std::time::Duration;

use typevisor::{
    Exit, GpaRange, Vcpu, Vm,
    memory::MapOptions,
    vcpu::{BootMode, BootOptions, VcpuOptions},
};

use crate::support::vm;

/// Long enough for any guest here on the slowest machine; no test passes or fails by it but one that hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Where guests of [`Machine`] begin.
pub(crate) const CODE: u64 = 0x1000;

/// A VM with 64 KiB of RAM from 0 on and one vCPU about to run `code` at [`CODE`].
pub(crate) struct Machine {
    pub(crate) vcpu: Vcpu,
    pub(crate) vm: Vm,
}

/// Instructions as bytes.
#[cfg(target_arch = "aarch64")]
pub(crate) fn code(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl Machine {
    fn new(code: &[u8], options: VcpuOptions, boot: &BootOptions) -> Self {
        let vm = vm();
        let ram = GpaRange::pages(0, 64 << 10).unwrap();
        vm.memory().map(MapOptions::new(ram)).unwrap();
        vm.memory().write(CODE, code).unwrap();
        let vcpu = vm.create_vcpu(options).unwrap();
        vcpu.boot(boot).unwrap();
        Self { vcpu, vm }
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn real_mode(code: &[u8]) -> Self {
        let boot = BootOptions { stack: Some(0x8000), ..BootOptions::new(BootMode::Real, CODE) };
        Self::new(code, VcpuOptions::default(), &boot)
    }

    #[cfg(target_arch = "aarch64")]
    pub(crate) fn el1(words: &[u32]) -> Self {
        Self::el1_with(words, None)
    }

    #[cfg(target_arch = "aarch64")]
    pub(crate) fn el1_with(words: &[u32], features: Option<typevisor::vcpu::VcpuFeatures>) -> Self {
        let boot = BootOptions { stack: Some(0x9000), ..BootOptions::new(BootMode::El1, CODE) };
        Self::new(&code(words), VcpuOptions { features, ..Default::default() }, &boot)
    }

    pub(crate) fn run(&self) -> Exit {
        self.vcpu.run_sync(LIMIT).expect("a guest that exits")
    }
}
