//! Puts guests into memory: firmware today, ELF and flat images later. Leaves to others where a vCPU starts (`vcpu`)
//! and how memory is mapped (`memory`, whose [`GuestMemory`](crate::memory::GuestMemory) is all this room knows of a
//! VM).

mod firmware;

pub use firmware::FirmwareLayout;
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) use firmware::LARGEST as FIRMWARE_LIMIT;
pub(crate) use firmware::load_firmware;
