//! Writes that KVM gathers instead of leaving the guest: the requests that say which (api.rst 4.116), and the ring that
//! it fills, a page behind `kvm_run` that all vCPUs of a VM share (linux/kvm.h, `kvm_coalesced_mmio_ring`).
#![expect(unsafe_code, reason = "two requests, and loads and stores in a page shared with the kernel")]

use std::{
    mem::offset_of,
    os::fd::AsRawFd,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use kvm_bindings::{kvm_coalesced_mmio, kvm_coalesced_mmio_ring, kvm_coalesced_mmio_zone};

use super::{
    ioctl::{KVM_REGISTER_COALESCED_MMIO, KVM_UNREGISTER_COALESCED_MMIO},
    limits::page_size,
    mapping::Mapping,
};
use crate::error::Result;

/// Addresses whose writes KVM gathers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Zone {
    /// Port number or guest physical address.
    pub(crate) address: u64,
    /// Ports or bytes. The kernel keeps it in an `int`.
    pub(crate) size: u32,
    /// Ports, and no MMIO.
    pub(crate) port: bool,
}

impl Zone {
    fn argument(self) -> kvm_coalesced_mmio_zone {
        let mut zone = kvm_coalesced_mmio_zone { addr: self.address, size: self.size, ..Default::default() };
        zone.__bindgen_anon_1.pio = u32::from(self.port);
        zone
    }

    /// From here on KVM gathers writes that lie in the zone as a whole.
    ///
    /// # Errors
    /// [`crate::Error::Ioctl`]: `ENOSPC` where the kernel's bus is full.
    pub(crate) fn register(self, vm: &impl AsRawFd) -> Result<()> {
        // SAFETY: the kernel copies the zone; it names addresses of the guest and no memory of ours.
        unsafe { KVM_REGISTER_COALESCED_MMIO.call(vm, &self.argument()) }.map(drop)
    }

    /// Ends that. When it returns no vCPU is at a write to the zone any more: what was gathered lies in the ring.
    ///
    /// # Errors
    /// [`crate::Error::Ioctl`]: `EIO` in a process that did not create the VM.
    pub(crate) fn unregister(self, vm: &impl AsRawFd) -> Result<()> {
        // SAFETY: as above.
        unsafe { KVM_UNREGISTER_COALESCED_MMIO.call(vm, &self.argument()) }.map(drop)
    }
}

/// A write that was gathered: a copy, in which only the address has been looked at by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gathered {
    /// Port number or guest physical address.
    pub(crate) address: u64,
    /// Bytes written, 1 to 8.
    pub(crate) size: u8,
    pub(crate) port: bool,
    /// What was written, little-endian; nothing above its size.
    pub(crate) value: u64,
}

const HEADER: usize = size_of::<kvm_coalesced_mmio_ring>();
const ENTRY: usize = size_of::<kvm_coalesced_mmio>();
// Every field is a naturally aligned integer, and is accessed as one.
const _: () = assert!(HEADER == 8 && ENTRY == 24);
const _: () = assert!(offset_of!(kvm_coalesced_mmio, phys_addr) == 0 && offset_of!(kvm_coalesced_mmio, len) == 8);
const _: () = assert!(offset_of!(kvm_coalesced_mmio, data) == 16);
/// The union of `pad` and `pio`.
const PIO: usize = offset_of!(kvm_coalesced_mmio, len) + 4;

/// The ring of one VM, as one of its vCPUs' mappings shows it. KVM puts in (under a lock of its own) and stores `last`;
/// whoever takes out stores `first`, one at a time.
#[derive(Clone)]
pub(crate) struct Ring {
    /// Keeps the VM alive.
    mapping: Arc<Mapping>,
    /// Where in the mapping its page begins, in bytes.
    at: usize,
    entries: u32,
}

impl Ring {
    /// The ring in page `page` of a vCPU's mapping (`KVM_CAP_COALESCED_MMIO` says which); none where the mapping ends
    /// before it.
    pub(crate) fn new(mapping: Arc<Mapping>, page: usize) -> Option<Self> {
        let size = usize::try_from(page_size()).unwrap_or(usize::MAX);
        let at = page.checked_mul(size).filter(|at| at.checked_add(size).is_some_and(|end| end <= mapping.size()))?;
        // KVM_COALESCED_MMIO_MAX: what fits in a page of this kernel's, 170 in one of 4 KiB.
        let entries = u32::try_from((size - HEADER) / ENTRY).ok()?;
        Some(Self { mapping, at, entries })
    }

    /// Entries. One always stays free.
    #[cfg(test)]
    pub(crate) const fn entries(&self) -> u32 {
        self.entries
    }

    /// What KVM takes for the oldest entry that was not taken out.
    #[cfg(test)]
    pub(crate) fn first(&self) -> u32 {
        self.index(offset_of!(kvm_coalesced_mmio_ring, first)).load(Ordering::Acquire) % self.entries
    }

    /// The entry that is written next.
    pub(crate) fn last(&self) -> u32 {
        // Partner: smp_wmb in coalesced_mmio_write, before it stores `last`.
        self.index(offset_of!(kvm_coalesced_mmio_ring, last)).load(Ordering::Acquire) % self.entries
    }

    /// The entry behind that one.
    pub(crate) const fn after(&self, index: u32) -> u32 {
        (index + 1) % self.entries
    }

    /// Frees the entries before that one: whatever they said has been handed on. Of 0 KVM is told the entry before it,
    /// which stays taken for so long.
    ///
    /// Before 6.12 (92f6d4130497) KVM looks for room by `(first - last - 1) % MAX` in 32 bits, of which 2^32 is no multiple.
    /// That finds some rings full too early, and with `first` at 0 one that is full it does not: KVM writes on, `last`
    /// becomes 0 too, and all of it is lost.
    pub(crate) fn set_first(&self, index: u32) {
        let index = index % self.entries;
        let told = if index == 0 { self.entries - 1 } else { index };
        // Partner: the load in coalesced_mmio_has_room, which writes over an entry only after it.
        self.index(offset_of!(kvm_coalesced_mmio_ring, first)).store(told, Ordering::Release);
    }

    /// A copy of an entry between `first` and `last`: KVM leaves it alone until `first` has passed it.
    pub(crate) fn entry(&self, index: u32) -> Gathered {
        let at = self.at + HEADER + (index % self.entries) as usize * ENTRY;
        let size = self.word(at + offset_of!(kvm_coalesced_mmio, len)).load(Ordering::Relaxed).clamp(1, 8);
        let data = self.long(at + offset_of!(kvm_coalesced_mmio, data)).load(Ordering::Relaxed);
        Gathered {
            address: self.long(at + offset_of!(kvm_coalesced_mmio, phys_addr)).load(Ordering::Relaxed),
            // Clamped above.
            size: u8::try_from(size).unwrap_or(8),
            port: self.word(at + PIO).load(Ordering::Relaxed) != 0,
            // What lies behind the bytes written is left from an earlier entry.
            value: data & (u64::MAX >> (64 - 8 * size)),
        }
    }

    fn index(&self, field: usize) -> &AtomicU32 {
        self.word(self.at + field)
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        let place = self.place(at, size_of::<u32>());
        // SAFETY: in the mapping and aligned, as `place` has seen to; everybody accesses it whole, the kernel included.
        unsafe { AtomicU32::from_ptr(place.cast().as_ptr()) }
    }

    fn long(&self, at: usize) -> &AtomicU64 {
        let place = self.place(at, size_of::<u64>());
        // SAFETY: as above. The bytes of `data` the kernel copies one by one, before it stores `last`.
        unsafe { AtomicU64::from_ptr(place.cast().as_ptr()) }
    }

    /// Where a value of `size` bytes lies, which is a power of two.
    fn place(&self, at: usize, size: usize) -> NonNull<u8> {
        assert!(at.is_multiple_of(size) && at + size <= self.mapping.size(), "a field of the ring lies in its page");
        // SAFETY: just checked to lie in the mapping, which lives as long as `self`.
        unsafe { self.mapping.address().add(at) }
    }

    /// Puts an entry in as KVM does; `false` where it finds no room.
    #[cfg(test)]
    pub(crate) fn gather(&self, kernel: Room, Gathered { address, size, port, value }: Gathered) -> bool {
        let (first, last) = (self.first(), self.last());
        let has_room = match kernel {
            Room::Exact => self.after(last) != first,
            Room::Before612 => first.wrapping_sub(last).wrapping_sub(1) % self.entries != 0,
        };
        if !has_room {
            return false;
        }
        let at = self.at + HEADER + last as usize * ENTRY;
        self.long(at).store(address, Ordering::Relaxed);
        self.word(at + offset_of!(kvm_coalesced_mmio, len)).store(size.into(), Ordering::Relaxed);
        self.word(at + PIO).store(port.into(), Ordering::Relaxed);
        self.long(at + offset_of!(kvm_coalesced_mmio, data)).store(value, Ordering::Relaxed);
        self.index(offset_of!(kvm_coalesced_mmio_ring, last)).store(self.after(last), Ordering::Release);
        true
    }

    /// Sets the indices to anything, as a kernel with a bug might.
    #[cfg(test)]
    pub(crate) fn corrupt(&self, first: u32, last: u32) {
        self.index(offset_of!(kvm_coalesced_mmio_ring, first)).store(first, Ordering::Release);
        self.index(offset_of!(kvm_coalesced_mmio_ring, last)).store(last, Ordering::Release);
    }
}

/// How a kernel looks for room.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// From 6.12 on.
    Exact,
    /// With a remainder that is wrong where `last` lies behind `first`: see [`Ring::set_first`].
    Before612,
}

/// A ring in memory of its own, with nobody else in it.
#[cfg(test)]
pub(crate) fn test_ring() -> Ring {
    Ring::new(
        Arc::new(Mapping::of(super::mapping::Source::Anonymous, usize::try_from(page_size()).unwrap()).unwrap()),
        0,
    )
    .unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mapping::Source;

    #[test]
    fn entries_come_back_as_they_were_put_in_and_one_stays_free() {
        let ring = test_ring();
        let write = |value| Gathered { address: 0x10, size: 2, port: true, value };
        let put = (0..1000).take_while(|value| ring.gather(Room::Exact, write(*value))).count();
        assert_eq!(put, ring.entries() as usize - 1);
        assert_eq!((ring.entry(0), ring.entry(5)), (write(0), write(5)));
        ring.set_first(1);
        assert!(ring.gather(Room::Exact, write(9)) && !ring.gather(Room::Exact, write(9)));
    }

    #[test]
    fn no_kernel_writes_on_in_a_full_ring_wherever_it_was_emptied_up_to() {
        let entries = test_ring().entries();
        let write = Gathered { address: 0, size: 1, port: true, value: 0 };
        let firsts = |room| [0, 1, 85, 169].map(|first| (room, first));
        for (room, first) in [Room::Exact, Room::Before612].into_iter().flat_map(firsts) {
            for level in 0..entries - 1 {
                let ring = test_ring();
                ring.corrupt(0, (first + level) % entries);
                ring.set_first(first);
                let more = (0..entries).take_while(|_| ring.gather(room, write)).count();
                assert!(more < (entries - level) as usize, "{room:?}: {level} from {first} on, and {more}");
            }
        }
    }

    #[test]
    fn what_lies_behind_a_short_write_is_not_part_of_it() {
        let ring = test_ring();
        ring.gather(Room::Exact, Gathered { address: 1, size: 8, port: false, value: u64::MAX });
        assert_eq!(ring.entry(0).value, u64::MAX);
        ring.corrupt(0, 0);
        ring.gather(Room::Exact, Gathered { address: 1, size: 1, port: false, value: 0xffff_ff12 });
        assert_eq!(ring.entry(0), Gathered { address: 1, size: 1, port: false, value: 0x12 });
    }

    #[test]
    fn indices_and_sizes_that_cannot_be_stay_in_the_page() {
        let ring = test_ring();
        ring.corrupt(u32::MAX, u32::MAX - 1);
        assert!(ring.last() < ring.entries());
        ring.set_first(u32::MAX);
        assert!(ring.first() < ring.entries());
        ring.corrupt(0, 0);
        ring.gather(Room::Exact, Gathered { address: 1, size: 0, port: false, value: 0x1234 });
        assert_eq!((ring.entry(0).size, ring.entry(u32::MAX).address), (1, ring.entry(u32::MAX).address));
    }

    #[test]
    fn a_mapping_that_ends_before_the_page_has_no_ring() {
        let mapping = Arc::new(Mapping::of(Source::Anonymous, 2 * usize::try_from(page_size()).unwrap()).unwrap());
        assert!(Ring::new(Arc::clone(&mapping), 1).is_some());
        assert!(Ring::new(Arc::clone(&mapping), 2).is_none());
        assert!(Ring::new(mapping, usize::MAX).is_none());
    }
}
