//! Guest memory: which host memory stands behind which guest physical addresses (slots), and host access to it.
//! Leaves to others: what the guest does with it (`vcpu`), what is put there (`loader`), what the kernel can do
//! (`host`; it arrives here as `SlotFeatures`). Ruled by api.rst 4.35 and 4.140; why it is built as it is:
//! `docs/design/memory.md`.

mod access;
mod backing;
mod backing_kinds;
mod bookkeeping;
mod changes;
mod copy;
mod guest_memory;
mod ledger;
mod lent;
mod numbers;
mod region;
mod search;
mod slot;
mod slot_map;
mod sorted;
mod state;
#[cfg(test)]
mod tests;
mod transaction;

pub use backing_kinds::{Backing, FileSharing, HostBuffer};
pub(crate) use guest_memory::SlotFeatures;
pub use guest_memory::{GuestMemory, SlotInfo};
pub use region::Region;
pub use slot::{MapOptions, MemorySlot};
pub use transaction::Change;

/// Keeps the vCPUs of a VM out of the guest for as long as its memory is not what the guest may see: what this room asks
/// of the one that runs them.
pub(crate) trait HoldOut: Send + Sync {
    /// Waits until no vCPU is in the guest; none enters until the value is dropped. By one thread at a time.
    fn hold(&self) -> Box<dyn Held + '_>;

    /// No vCPU enters the guest any more, for good.
    fn poison(&self);
}

/// The vCPUs are out.
pub(crate) trait Held {}
