//! The errors that the protocol gives.

pub(crate) type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Error {
    Closed { what: &'static str },
    Poisoned,
    Forked,
    WouldDeadlock { what: &'static str },
}

impl Error {
    pub(crate) const SLOTS_POISONED: Self = Self::Poisoned;
}
