//! What differs between the architectures: registers, and how a vCPU is set up and booted. Each has the same functions
//! (`vm_type`, `address_bits`, `check_model`, `initialise`, `create_irqchip`, `irqchip_pages`, `get_registers`,
//! `update_registers`, `boot`), so that nobody else asks which one it is. Why they boot as they do: docs/design/boot.md.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

/// The pure half of the other architecture: its tests run on every machine.
#[cfg(all(test, target_arch = "x86_64"))]
#[path = "aarch64/tables.rs"]
mod aarch64_tables;

#[cfg(target_arch = "aarch64")]
use aarch64 as host;
#[cfg(target_arch = "x86_64")]
use x86_64 as host;

pub use host::Registers;
pub(crate) use host::{
    Setup, address_bits, boot, check_model, create_irqchip, get_registers, initialise, irqchip_pages, update_registers,
    vm_type,
};
#[cfg(target_arch = "x86_64")]
pub use x86_64::{DescriptorTable, Segment};
