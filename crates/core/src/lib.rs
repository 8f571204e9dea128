//! KVM in safe Rust: memory slots, exits and vCPU threads of Linux KVM, probed at run time, never decided by headers.
//!
//! The house is described in `CONTRIBUTING.md`; each module opens with what it owns. The kernel document is
//! `Documentation/virt/kvm/api.rst`, cited as "api.rst" with its section.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_os = "linux"))]
compile_error!("typevisor speaks to Linux KVM: build it for a Linux target");
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("typevisor supports x86_64 and aarch64");
#[cfg(not(target_endian = "little"))]
compile_error!("the kvm_run page is decoded as little-endian");

pub mod bus;
mod control;
mod errno;
mod error;
mod error_code;
mod error_making;
mod error_words;
pub mod exit;
#[cfg(feature = "test-hooks")]
pub mod hooks;
pub mod host;
pub mod loader;
pub mod memory;
mod panics;
mod range;
pub mod stats;
pub mod switches;
mod sync;
mod sys;
pub mod vcpu;
mod vm;

pub use control::ControlThread;
pub use errno::Errno;
pub use error::{Error, ErrorCode, Result};
pub use error_words::Cpus;
pub use exit::Exit;
pub use host::Kvm;
pub use range::GpaRange;
pub use vcpu::Vcpu;
pub use vm::{Vm, VmOptions};
