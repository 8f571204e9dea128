//! What differs between the architectures: registers, and how a vCPU is set up and booted. Each has the same functions
//! (`initialise`, `create_irqchip`, `get_registers`, `update_registers`), so that nobody else asks which one it is.
//! `x86_64` boots besides ([`boot`]); why it does so as it does: docs/design/boot.md.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub use aarch64::Registers;
#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{create_irqchip, get_registers, initialise, update_registers};
#[cfg(target_arch = "x86_64")]
pub use x86_64::{DescriptorTable, Registers, Segment, boot};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{create_irqchip, get_registers, initialise, update_registers};
