//! A small machine of either architecture, and the few operations that guests of both are made of. Their device stands at
//! ports on `x86_64`, and at an address without memory on aarch64.

use std::{
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use typevisor::{
    Exit, GpaRange, Result, Vcpu, Vm,
    bus::{ClaimId, Owner},
    exit::SystemEvent,
    memory::MapOptions,
    vcpu::{BootMode, BootOptions, Outcome, VcpuOptions},
};

use crate::support::vm;

/// Long enough for any guest here on the slowest machine; no test passes or fails by it but one that hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Where guests of [`Machine`] begin.
pub(crate) const CODE: u64 = 0x1000;

/// Where the device of [`Op::Out`] and [`Op::In`] is: a port, or a guest physical address.
#[cfg(target_arch = "x86_64")]
pub(crate) const DEVICE: u64 = 0x10;
#[cfg(target_arch = "aarch64")]
pub(crate) const DEVICE: u64 = 0x900_0000;

/// What [`Op::Peek`] and [`Op::Poke`] access: past the RAM of a [`Machine`], for tests to put memory there.
pub(crate) const THERE: u64 = 0x2_0000;

/// What guests of both architectures do, on one register of a byte.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    /// Sets the register.
    Load(u8),
    /// Writes it to the device, at this offset.
    Out(u8),
    /// Reads it from there.
    In(u8),
    /// Reads it from [`THERE`].
    Peek,
    /// Writes it to [`THERE`].
    Poke,
    /// Jumps to the first operation.
    Again,
    /// Jumps to itself.
    Endless,
    /// Halts, or switches off.
    End,
}

/// `x86_64`, real mode.
#[cfg(target_arch = "x86_64")]
impl Op {
    fn code(self, at: usize) -> Vec<u8> {
        let port = |offset| u8::try_from(DEVICE).unwrap() + offset;
        match self {
            Self::Load(value) => vec![0xb0, value],        // mov al, value
            Self::Out(offset) => vec![0xe6, port(offset)], // out port, al
            Self::In(offset) => vec![0xe4, port(offset)],  // in al, port
            // mov bx, THERE >> 4; mov ds, bx; mov al, [0] or mov [0], al
            Self::Peek => vec![0xbb, 0, 0x20, 0x8e, 0xdb, 0xa0, 0, 0],
            Self::Poke => vec![0xbb, 0, 0x20, 0x8e, 0xdb, 0xa2, 0, 0],
            Self::Again => vec![0xeb, 0_u8.wrapping_sub(u8::try_from(at + 2).unwrap())], // jmp to the start
            Self::Endless => vec![0xeb, 0xfe],                                           // jmp $
            Self::End => vec![0xf4],                                                     // hlt
        }
    }
}

/// aarch64, EL1: the register is `w10`, the device's address in `x11`; a hypercall leaves both as they are.
#[cfg(target_arch = "aarch64")]
impl Op {
    fn code(self, at: usize) -> Vec<u8> {
        let words: &[u32] = match self {
            Self::Load(value) => &[0x5280_000a | u32::from(value) << 5], // mov w10, #value
            Self::Out(offset) => &[0x3900_016a | u32::from(offset) << 10], // strb w10, [x11, #offset]
            Self::In(offset) => &[0x3940_016a | u32::from(offset) << 10], // ldrb w10, [x11, #offset]
            // mov x12, THERE; ldrb w10, [x12] or strb w10, [x12]
            Self::Peek => &[0xd2a0_004c, 0x3940_018a],
            Self::Poke => &[0xd2a0_004c, 0x3900_018a],
            Self::Again => &[0x1400_0000 | 0_u32.wrapping_sub(u32::try_from(at / 4).unwrap()) & 0x3ff_ffff], // b start
            Self::Endless => &[0x1400_0000],                                                                 // b .
            // mov w0, #8; movk w0, #0x8400, lsl #16: PSCI SYSTEM_OFF; hvc #0
            Self::End => &[0x5280_0100, 0x72b0_8000, 0xd400_0002],
        };
        code(words)
    }
}

/// Instructions as bytes.
#[cfg(target_arch = "aarch64")]
pub(crate) fn code(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The operations as instructions.
pub(crate) fn assemble(ops: &[Op]) -> Vec<u8> {
    ops.iter().fold(Vec::new(), |mut code, op| {
        code.extend(op.code(code.len()));
        code
    })
}

/// The exit of [`Op::Out`].
pub(crate) fn out(offset: u8, byte: u8) -> Exit {
    let (address, data) = (DEVICE + u64::from(offset), Box::new([byte]));
    if cfg!(target_arch = "aarch64") {
        return Exit::MmioWrite { gpa: address, data };
    }
    Exit::IoOut { port: u16::try_from(address).unwrap(), size: 1, count: 1, data }
}

/// The exit of [`Op::In`].
pub(crate) fn input(offset: u8) -> Exit {
    let address = DEVICE + u64::from(offset);
    if cfg!(target_arch = "aarch64") {
        return Exit::MmioRead { gpa: address, size: 1 };
    }
    Exit::IoIn { port: u16::try_from(address).unwrap(), size: 1, count: 1 }
}

/// Whether it is the exit of [`Op::End`].
pub(crate) fn is_end(exit: &Exit) -> bool {
    if cfg!(target_arch = "aarch64") {
        return matches!(exit, Exit::SystemEvent { event: SystemEvent::Shutdown, .. });
    }
    *exit == Exit::Hlt
}

/// A VM with 64 KiB of RAM from 0 on and one vCPU about to run a guest at [`CODE`].
pub(crate) struct Machine {
    pub(crate) vcpu: Vcpu,
    pub(crate) vm: Vm,
}

impl Machine {
    fn with_code(code: &[u8], options: VcpuOptions) -> Self {
        Self::on(vm(), code, options)
    }

    pub(crate) fn on(vm: Vm, code: &[u8], options: VcpuOptions) -> Self {
        let ram = GpaRange::pages(0, 64 << 10).unwrap();
        vm.memory().map(&MapOptions::new(ram)).unwrap();
        vm.memory().write(CODE, code).unwrap();
        let vcpu = vm.create_vcpu(options).unwrap();
        boot(&vcpu, CODE);
        Self { vcpu, vm }
    }

    pub(crate) fn of(ops: &[Op]) -> Self {
        Self::with_code(&assemble(ops), VcpuOptions::default())
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn real_mode(code: &[u8]) -> Self {
        Self::with_code(code, VcpuOptions::default())
    }

    #[cfg(target_arch = "aarch64")]
    pub(crate) fn el1(words: &[u32], features: Option<typevisor::vcpu::VcpuFeatures>) -> Self {
        Self::with_code(&code(words), VcpuOptions { features, ..Default::default() })
    }

    pub(crate) fn run(&self) -> Exit {
        self.vcpu.run_sync(LIMIT).expect("a guest that exits")
    }

    /// The next exit is that of [`Op::End`].
    pub(crate) fn assert_ends(&self) {
        let exit = self.run();
        assert!(is_end(&exit), "{exit:?}");
    }

    /// The register that operations work on.
    pub(crate) fn register(&self) -> u64 {
        let registers = self.vcpu.registers().unwrap().0;
        #[cfg(target_arch = "x86_64")]
        return registers.rax & 0xff;
        #[cfg(target_arch = "aarch64")]
        return registers.x10;
    }

    /// Claims part of the device.
    pub(crate) fn claim(&self, offset: u8, size: u8, owner: impl Into<Owner>) -> ClaimId {
        let base = DEVICE + u64::from(offset);
        if cfg!(target_arch = "aarch64") {
            return self.vm.bus().claim_mmio(GpaRange::new(base, size.into()).unwrap(), owner).unwrap();
        }
        self.vm.bus().claim_ports(u16::try_from(base).unwrap(), size.into(), owner).unwrap()
    }
}

/// Starts a run on the vCPU's own thread; its outcome is received.
pub(crate) fn start(vcpu: &Vcpu, ticket: u64) -> Receiver<Result<Outcome>> {
    let (sender, ended) = channel();
    // A test that failed listens no more.
    vcpu.start(ticket, move |outcome| sender.send(outcome).unwrap_or(())).unwrap();
    ended
}

/// Puts a vCPU at the start of a guest of operations.
pub(crate) fn boot(vcpu: &Vcpu, entry: u64) {
    let mode = if cfg!(target_arch = "aarch64") { BootMode::El1 } else { BootMode::Real };
    vcpu.boot(&BootOptions { stack: Some(0x9000), ..BootOptions::new(mode, entry) }).unwrap();
    #[cfg(target_arch = "aarch64")]
    vcpu.update_registers(|registers| {
        registers.x11 = DEVICE;
        Ok(())
    })
    .unwrap();
}
