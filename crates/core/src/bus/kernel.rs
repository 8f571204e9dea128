//! What of a claim KVM answers by itself: which writes it gathers in its ring, and which signal an eventfd. A pure half
//! that chooses, and the thin one that asks. Rules: api.rst 4.59 and 4.116, `virt/kvm/eventfd.c` and `coalesced_mmio.c`.

use std::{collections::BTreeMap, ops::Range, os::fd::AsRawFd, sync::Arc};

use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use crate::{
    error::{Error, Result},
    exit::Space,
    host::{Capabilities, Capability},
    sys::{coalesced::Zone, fork, ioeventfd::Signal},
};

/// What this VM's kernel can do for the bus, and what it does there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BusFeatures {
    /// None: the kernel gathers nothing.
    pub(crate) ring: Option<RingFeatures>,
    pub(crate) ioeventfd: bool,
    /// The kernel's own interrupt controllers and timer stand on its bus.
    pub(crate) irqchip: bool,
}

/// The ring for writes that are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RingFeatures {
    /// In which page of the vCPUs' mappings it lies.
    pub(crate) page: usize,
    /// It takes ports too, and not only MMIO.
    pub(crate) ports: bool,
}

impl BusFeatures {
    /// What the VM says; capabilities that are hidden are not there.
    pub(crate) fn of(capabilities: &Capabilities, irqchip: bool) -> Self {
        let page = usize::try_from(capabilities.value(Capability::CoalescedMmio)).ok().filter(|page| *page > 0);
        let ports = capabilities.has(Capability::CoalescedPio);
        Self {
            ring: page.map(|page| RingFeatures { page, ports }),
            ioeventfd: capabilities.has(Capability::Ioeventfd),
            irqchip,
        }
    }

    /// The zone for a claim, where the kernel's ring can take its writes.
    fn zone(&self, space: Space, range: &Range<u64>) -> Option<Zone> {
        let port = space == Space::Port;
        let ring = self.ring?;
        if port && !ring.ports || self.is_the_kernels(space, range) {
            return None;
        }
        // The kernel takes 32 bits and keeps them in an `int`: what is larger would match nothing, or anything.
        let size = u32::try_from(range.end - range.start).ok().filter(|size| i32::try_from(*size).is_ok())?;
        Some(Zone { address: range.start, size, port })
    }

    /// The writes by which a claim's eventfd is signalled without an exit: those that begin where the claim does. All
    /// others are the device's in Rust, which does the same.
    fn signals(&self, space: Space, range: &Range<u64>, value: Option<u64>) -> Vec<Signal> {
        if !self.ioeventfd || self.is_the_kernels(space, range) {
            return Vec::new();
        }
        let (port, address, size) = (space == Space::Port, range.start, range.end - range.start);
        let signal = |length| Signal { address, length, port, value };
        // No 8 with a value: kernels without f1edbed787ba compare it where the guest's bytes may lie at no multiple of 8
        // (a write of 16 that crosses into this page), and BUG() there: the guest would stop the host.
        let lengths: &[u32] = if port || value.is_some() { &[1, 2, 4] } else { &[1, 2, 4, 8] };
        let fits = |length: &u32| value.is_none_or(|value| value >> (8 * length) == 0);
        lengths.iter().copied().filter(|length| u64::from(*length) <= size).filter(fits).map(signal).collect()
    }

    /// Whether devices of the kernel's stand there. It finds them by bisection, which something that overlaps misleads.
    fn is_the_kernels(&self, space: Space, range: &Range<u64>) -> bool {
        /// First port and how many: interrupt controllers, timer, speaker, the controllers' edge registers.
        const PORTS: [(u64, u64); 5] = [(0x20, 2), (0x40, 4), (0x61, 4), (0xa0, 2), (0x4d0, 2)];
        /// The I/O APIC.
        const MMIO: [(u64, u64); 1] = [(0xfec0_0000, 0x100)];
        let theirs: &[(u64, u64)] = if space == Space::Port { &PORTS } else { &MMIO };
        self.irqchip && theirs.iter().any(|(first, count)| *first < range.end && range.start < first + count)
    }
}

/// What KVM was told of one claim.
enum Told {
    Zone(Zone),
    Signals(Vec<Signal>, Arc<EventFd>),
}

/// What KVM was told of all claims. Changed under its lock, which no vCPU's thread takes.
#[derive(Default)]
pub(super) struct Kernel {
    /// None once closed, as the fd keeps the VM alive; and on a bus of its own.
    vm: Option<Arc<VmFd>>,
    features: BusFeatures,
    told: BTreeMap<u64, Told>,
}

/// What a claim would have of the kernel.
pub(super) enum Wanted {
    Nothing,
    /// That it gathers writes.
    Gathering,
    /// That writes signal: with that value only, where there is one.
    Signalling(Arc<EventFd>, Option<u64>),
}

impl Kernel {
    pub(super) fn new(vm: Arc<VmFd>, features: BusFeatures) -> Self {
        Self { vm: Some(vm), features, told: BTreeMap::new() }
    }

    /// Tells KVM of claim `id`; `false` where there is nothing that it could do.
    ///
    /// # Errors
    /// [`Error::Limit`] where its bus has no room for what it is to gather, [`Error::Ioctl`]. It was told nothing then.
    pub(super) fn tell(&mut self, id: u64, space: Space, range: &Range<u64>, wanted: Wanted) -> Result<bool> {
        let Some(vm) = &self.vm else { return Ok(false) };
        let told = match wanted {
            Wanted::Nothing => return Ok(false),
            Wanted::Gathering => match self.features.zone(space, range) {
                Some(zone) => gather(vm, zone)?,
                None => return Ok(false),
            },
            Wanted::Signalling(eventfd, value) => match self.features.signals(space, range, value) {
                signals if signals.is_empty() => return Ok(false),
                signals => match signal(vm, signals, eventfd)? {
                    Some(told) => told,
                    None => return Ok(false),
                },
            },
        };
        self.told.insert(id, told);
        Ok(true)
    }

    /// Takes back what KVM was told of claim `id`. `true` where it gathered: all of that lies in the ring now.
    pub(super) fn untell(&mut self, id: u64) -> bool {
        let (Some(told), Some(vm)) = (self.told.remove(&id), &self.vm) else { return false };
        match told {
            // The one failure is EIO, in a process that was forked: there is no guest then.
            Told::Zone(zone) => zone.unregister(vm.as_ref()).is_ok(),
            Told::Signals(signals, eventfd) => {
                take_back(vm, &signals, &eventfd);
                false
            }
        }
    }

    /// Whether KVM was told of claim `id`.
    pub(super) fn knows(&self, id: u64) -> bool {
        self.told.contains_key(&id)
    }

    /// Lets go of the VM. What KVM was told goes with it.
    pub(super) fn close(&mut self) {
        (self.vm, self.told) = (None, BTreeMap::new());
    }
}

fn gather(vm: &VmFd, zone: Zone) -> Result<Told> {
    zone.register(vm).map_err(limit)?;
    Ok(Told::Zone(zone))
}

/// None where the bus is full: eventfds take no room on it, and get none either. The device in Rust does the same.
fn signal(vm: &VmFd, signals: Vec<Signal>, eventfd: Arc<EventFd>) -> Result<Option<Told>> {
    for (done, signal) in signals.iter().enumerate() {
        if let Err(error) = signal.assign(vm, eventfd.as_raw_fd()) {
            take_back(vm, signals.get(..done).unwrap_or_default(), &eventfd);
            return if is_full(&error) { Ok(None) } else { Err(error) };
        }
    }
    Ok(Some(Told::Signals(signals, eventfd)))
}

fn take_back(vm: &VmFd, signals: &[Signal], eventfd: &EventFd) {
    for signal in signals {
        // EIO in a process that was forked: its guest is the parent's.
        let taken = signal.deassign(vm, eventfd.as_raw_fd());
        debug_assert!(taken.is_ok() || fork::generation() > 0, "it was assigned: {taken:?}");
    }
}

/// `NR_IOBUS_DEVS` of `linux/kvm_host.h`.
const DEVICES: u64 = 1000;

fn is_full(error: &Error) -> bool {
    error.errno().is_some_and(|(errno, _)| errno.0 == libc::ENOSPC)
}

fn limit(error: Error) -> Error {
    if !is_full(&error) {
        return error;
    }
    Error::Limit {
        what: "devices on one of the kernel's buses, posted claims among them",
        limit: DEVICES,
        remedy: "release claims, or claim fewer and larger ranges",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: BusFeatures =
        BusFeatures { ring: Some(RingFeatures { page: 2, ports: true }), ioeventfd: true, irqchip: false };

    fn lengths(features: BusFeatures, space: Space, range: Range<u64>, value: Option<u64>) -> Vec<u32> {
        features.signals(space, &range, value).iter().map(|signal| signal.length).collect()
    }

    #[test]
    fn a_zone_is_the_claim_where_the_kernel_has_a_ring_for_it() {
        let zone = Zone { address: 0x10, size: 4, port: true };
        assert_eq!(ALL.zone(Space::Port, &(0x10..0x14)), Some(zone));
        assert_eq!(ALL.zone(Space::Mmio, &(0x10..0x14)), Some(Zone { port: false, ..zone }));
        let no_ports = BusFeatures { ring: Some(RingFeatures { page: 2, ports: false }), ..ALL };
        assert_eq!(no_ports.zone(Space::Port, &(0x10..0x14)), None);
        assert!(no_ports.zone(Space::Mmio, &(0x10..0x14)).is_some());
        assert_eq!(BusFeatures { ring: None, ..ALL }.zone(Space::Mmio, &(0x10..0x14)), None);
    }

    #[test]
    fn a_claim_too_large_for_the_kernels_int_has_no_zone() {
        assert!(ALL.zone(Space::Mmio, &(0..0x7fff_ffff)).is_some());
        for size in [0x8000_0000, 0x1_0000_0000, 1 << 52] {
            assert_eq!(ALL.zone(Space::Mmio, &(0..size)), None, "{size:#x}");
        }
    }

    #[test]
    fn nothing_is_put_over_the_kernels_own_devices() {
        let irqchip = BusFeatures { irqchip: true, ..ALL };
        for range in [0x20..0x21, 0..0x21, 0x43..0x50, 0..0x1_0000, 0x4d1..0x4d2] {
            assert_eq!(irqchip.zone(Space::Port, &range), None, "{range:#x?}");
            assert!(irqchip.signals(Space::Port, &range, None).is_empty(), "{range:#x?}");
            assert!(ALL.zone(Space::Port, &range).is_some(), "{range:#x?}");
        }
        for range in [0..0x20, 0x22..0x40, 0x65..0xa0, 0x3f8..0x400] {
            assert!(irqchip.zone(Space::Port, &range).is_some(), "{range:#x?}");
        }
        assert_eq!(irqchip.zone(Space::Mmio, &(0xfec0_00ff..0xfec0_0200)), None);
        assert!(irqchip.zone(Space::Mmio, &(0xfec0_0100..0xfec0_0200)).is_some());
    }

    #[test]
    fn an_eventfd_takes_every_length_that_lies_in_its_claim() {
        // Never 0 for any: KVM may not find that one behind a posted claim.
        assert_eq!(lengths(ALL, Space::Port, 0x10..0x18, None), [1, 2, 4]);
        assert_eq!(lengths(ALL, Space::Port, 0x10..0x13, None), [1, 2]);
        assert_eq!(lengths(ALL, Space::Mmio, 0x10..0x14, None), [1, 2, 4]);
        assert_eq!(lengths(ALL, Space::Mmio, 0x10..0x1000, None), [1, 2, 4, 8]);
        assert!(lengths(BusFeatures { ioeventfd: false, ..ALL }, Space::Mmio, 0x10..0x14, None).is_empty());
    }

    #[test]
    fn a_value_is_looked_for_in_writes_that_can_hold_it() {
        assert_eq!(lengths(ALL, Space::Port, 0x10..0x14, Some(0xff)), [1, 2, 4]);
        assert_eq!(lengths(ALL, Space::Port, 0x10..0x14, Some(0x100)), [2, 4]);
        assert!(lengths(ALL, Space::Mmio, 0x10..0x18, Some(u64::MAX)).is_empty(), "8 with a value can stop the host");
        assert_eq!(lengths(ALL, Space::Mmio, 0x10..0x18, Some(7)), [1, 2, 4]);
        assert!(lengths(ALL, Space::Mmio, 0x10..0x12, Some(0x1_0000)).is_empty());
        assert_eq!(ALL.signals(Space::Mmio, &(0x10..0x11), Some(7))[0].value, Some(7));
    }

    #[test]
    fn a_bus_without_a_vm_tells_nobody() {
        let mut kernel = Kernel::default();
        assert!(!kernel.tell(1, Space::Port, &(0..4), Wanted::Gathering).unwrap());
        assert!(!kernel.knows(1) && !kernel.untell(1));
    }
}
