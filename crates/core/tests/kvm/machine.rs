//! A small x86 machine for guests of a few bytes.

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

/// A VM with 64 KiB of RAM from 0 on and one vCPU about to run `code` at [`CODE`], in real mode.
pub(crate) struct Machine {
    pub(crate) vcpu: Vcpu,
    pub(crate) vm: Vm,
}

impl Machine {
    pub(crate) fn real_mode(code: &[u8]) -> Self {
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
