//! What the room of the memory asks of the one that runs vCPUs.

pub(crate) trait HoldOut: Send + Sync {
    fn hold(&self) -> Box<dyn Held + '_>;

    fn poison(&self);
}

pub(crate) trait Held {}
