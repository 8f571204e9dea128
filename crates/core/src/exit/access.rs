//! `KVM_EXIT_IO` and `KVM_EXIT_MMIO`: accesses, which a bus may claim before they become exits.

use std::mem::offset_of;

use kvm_bindings::{KVM_EXIT_IO_IN, KVM_EXIT_IO_OUT, kvm_run};

use super::{
    Exit,
    page::{PAYLOAD_END, RunBytes},
    pending::{Pending, Wanted},
};

const IO_DIRECTION: usize = offset_of!(kvm_run, __bindgen_anon_1.io.direction);
const IO_SIZE: usize = offset_of!(kvm_run, __bindgen_anon_1.io.size);
const IO_PORT: usize = offset_of!(kvm_run, __bindgen_anon_1.io.port);
const IO_COUNT: usize = offset_of!(kvm_run, __bindgen_anon_1.io.count);
const IO_DATA_OFFSET: usize = offset_of!(kvm_run, __bindgen_anon_1.io.data_offset);
const MMIO_GPA: usize = offset_of!(kvm_run, __bindgen_anon_1.mmio.phys_addr);
const MMIO_DATA: usize = offset_of!(kvm_run, __bindgen_anon_1.mmio.data);
const MMIO_LEN: usize = offset_of!(kvm_run, __bindgen_anon_1.mmio.len);
const MMIO_IS_WRITE: usize = offset_of!(kvm_run, __bindgen_anon_1.mmio.is_write);

/// Which of the two address spaces of a bus an access is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Port,
    Mmio,
}

/// A port or MMIO access, still in the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access<'p> {
    pub(crate) space: Space,
    pub(crate) write: bool,
    /// Port number or guest physical address.
    pub(crate) address: u64,
    /// Bytes an element: 1, 2, 4, and for MMIO anything up to 8.
    pub(crate) size: u8,
    /// Elements, at least 1; all of them go to the same address.
    pub(crate) count: u32,
    /// What the guest wrote; where it reads, stale.
    pub(crate) data: &'p [u8],
    /// Where in the page an answer goes.
    pub(crate) data_at: usize,
}

impl Access<'_> {
    /// What the vCPU needs before it goes on, where the access is the program's.
    pub(crate) const fn pending(&self) -> Pending {
        if self.write { Pending::Completion } else { Pending::Answer(Wanted::bytes(self.data_at, self.data.len())) }
    }
}

impl From<Access<'_>> for Exit {
    fn from(Access { space, write, address, size, count, data, .. }: Access<'_>) -> Self {
        // The decoder reads a port from 16 bits.
        let port = u16::try_from(address).unwrap_or(u16::MAX);
        match (space, write) {
            (Space::Port, true) => Self::IoOut { port, size, count, data: data.into() },
            (Space::Port, false) => Self::IoIn { port, size, count },
            (Space::Mmio, true) => Self::MmioWrite { gpa: address, data: data.into() },
            (Space::Mmio, false) => Self::MmioRead { gpa: address, size },
        }
    }
}

pub(super) fn io(page: RunBytes<'_>) -> Option<Access<'_>> {
    let write = match u32::from(page.byte(IO_DIRECTION)?) {
        KVM_EXIT_IO_IN => false,
        KVM_EXIT_IO_OUT => true,
        _ => return None,
    };
    let size = page.byte(IO_SIZE).filter(|size| matches!(size, 1 | 2 | 4))?;
    let count = page.word(IO_COUNT).filter(|count| *count > 0)?;
    // What the page says of itself lies before, and no port's data.
    let data_at = usize::try_from(page.long(IO_DATA_OFFSET)?).ok().filter(|at| *at >= PAYLOAD_END)?;
    let len = usize::from(size).checked_mul(usize::try_from(count).ok()?)?;
    let data = page.slice(data_at, len)?;
    let address = u64::from(page.half(IO_PORT)?);
    Some(Access { space: Space::Port, write, address, size, count, data, data_at })
}

pub(super) fn mmio(page: RunBytes<'_>) -> Option<Access<'_>> {
    let size = u8::try_from(page.word(MMIO_LEN)?).ok().filter(|size| (1..=8).contains(size))?;
    Some(Access {
        space: Space::Mmio,
        write: page.byte(MMIO_IS_WRITE)? != 0,
        address: page.long(MMIO_GPA)?,
        size,
        count: 1,
        data: page.slice(MMIO_DATA, usize::from(size))?,
        data_at: MMIO_DATA,
    })
}
