//! Who a claim is for.

use std::sync::Arc;

use super::{Device, Doorbell, PostedWrite, kernel::Wanted, queue::Queue};

/// Who answers a claim.
pub enum Owner {
    /// A device in Rust.
    Device(Box<dyn Device>),
    /// A doorbell. KVM itself rings it where it can ([`super::Bus::is_in_kernel`]), at no exit; the device does it else.
    Doorbell(Doorbell),
    /// The program: an access ends the run and says whose it is by this number, which is not 0.
    Program(u64),
    /// The program, but writes wait in a queue and do not end the run. Where KVM can ([`super::Bus::is_in_kernel`]) it gathers
    /// them by itself, so that most of them do not even stop the guest. They are put into the queue before a vCPU's next
    /// exit is dealt with, and otherwise within milliseconds, or at once by [`super::Bus::flush`].
    Posted {
        /// Where writes go. When it is full the vCPU waits.
        queue: Arc<Queue<PostedWrite>>,
        /// The number by which reads end the run; not 0.
        program: u64,
    },
}

impl Owner {
    /// What the kernel could do for it.
    pub(super) fn wanted(&self) -> Wanted {
        match self {
            Self::Posted { .. } => Wanted::Gathering,
            Self::Doorbell(doorbell) => doorbell.wanted(),
            Self::Device(_) | Self::Program(_) => Wanted::Nothing,
        }
    }
}

impl From<Doorbell> for Owner {
    fn from(doorbell: Doorbell) -> Self {
        Self::Doorbell(doorbell)
    }
}

impl<D: Device + 'static> From<Box<D>> for Owner {
    fn from(device: Box<D>) -> Self {
        Self::Device(device)
    }
}

impl From<Box<dyn Device>> for Owner {
    fn from(device: Box<dyn Device>) -> Self {
        Self::Device(device)
    }
}
