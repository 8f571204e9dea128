//! An access to what the program claimed on the bus: what it is told of it, and the exit that it is to a program that
//! answers exits alone. Who claims what is the bus's.

use crate::{
    bus::word,
    exit::{Access, Exit, Space},
};

/// An access to what the program claimed. Where it reads, it wants an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The number given with the claim.
    pub claim: u64,
    /// Whether it is MMIO, and no port.
    pub mmio: bool,
    /// Port number or guest physical address.
    pub address: u64,
    /// Bytes from the start of the claim.
    pub offset: u64,
    /// Whether the guest writes.
    pub write: bool,
    /// Bytes an element, 1 to 8.
    pub size: u8,
    /// Elements, all of them at the same offset.
    pub count: u32,
    /// What is written, where that is one element.
    pub value: u64,
    /// What is written, where those are several.
    pub elements: Box<[u8]>,
}

impl Claimed {
    pub(super) fn new(access: &Access<'_>, claim: u64, offset: u64) -> Self {
        let Access { space, write, address, size, count, data, .. } = *access;
        let single = write && count == 1;
        Self {
            claim,
            mmio: space == Space::Mmio,
            address,
            offset,
            write,
            size,
            count,
            value: if single { word(data) } else { 0 },
            elements: if write && !single { data.into() } else { Box::default() },
        }
    }
}

impl From<Claimed> for Exit {
    fn from(claimed: Claimed) -> Self {
        let Claimed { mmio, address, write, size, count, value, elements, .. } = claimed;
        let bytes = value.to_le_bytes();
        let single = bytes.get(..usize::from(size)).unwrap_or_default();
        let data = if elements.is_empty() { single.into() } else { elements };
        // A claim of ports ends at 65,535.
        let port = u16::try_from(address).unwrap_or(u16::MAX);
        match (mmio, write) {
            (true, true) => Self::MmioWrite { gpa: address, data },
            (true, false) => Self::MmioRead { gpa: address, size },
            (false, true) => Self::IoOut { port, size, count, data },
            (false, false) => Self::IoIn { port, size, count },
        }
    }
}
