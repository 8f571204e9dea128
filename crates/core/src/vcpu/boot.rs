//! How a boot is asked for, and the slot that holds what the host prepares for it. What the modes mean in registers and
//! tables is `arch`'s. Why it is as it is: docs/design/boot.md.

use crate::{
    error::{Error, Result},
    memory::{GuestMemory, MapOptions, MemorySlot},
    range::{GpaRange, PAGE_SIZE},
};

/// In which mode the guest starts. Each belongs to one architecture; the other refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BootMode {
    /// `x86_64`: 16-bit code, segments of 64 KiB.
    Real,
    /// `x86_64`: 32-bit code, flat segments, paging off. There is no GDT: a guest that loads a segment register loads
    /// one first.
    Protected,
    /// `x86_64`: 64-bit code, the first 4 GiB mapped to themselves by tables that the host makes.
    Long,
    /// `aarch64`: EL1 with its own stack pointer, exceptions masked, MMU and caches on, all guest physical addresses
    /// mapped to themselves by tables that the host makes: as normal memory where slots are at the time of the boot, as
    /// device memory elsewhere. Memory that is mapped later is device memory to the guest until the next boot.
    ///
    /// A vCPU that is started by registers alone runs with its MMU off: its accesses then bypass the caches, and on
    /// processors without `FEAT_S2FWB` guest and host need not see each other's writes. `WFI` never exits: without an
    /// interrupt controller it sleeps in `KVM_RUN` until a kick.
    El1,
}

/// With which privilege the guest starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Privilege {
    /// Ring 0, or EL1: the guest may do everything, and sets up what else it needs.
    #[default]
    Kernel,
    /// Ring 3 with IOPL 3 (`x86_64`): ports work, instructions of kernel mode fault. There are no interrupt handlers, so
    /// every fault is a triple fault, which exits as `shutdown`.
    User,
}

/// What [`crate::Vcpu::boot`] is asked for. Fields are added in minor releases: start from [`BootOptions::new`].
///
/// ```
/// use typevisor::vcpu::{BootMode, BootOptions, Privilege};
/// let kernel = BootOptions::new(BootMode::Long, 0x1000);
/// let options = BootOptions { privilege: Privilege::User, stack: Some(0x8000), ..kernel };
/// assert_eq!(options.tables, None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootOptions {
    /// The mode.
    pub mode: BootMode,
    /// The privilege. Real mode and EL1 have only [`Privilege::Kernel`].
    pub privilege: Privilege,
    /// Address of the first instruction, in bytes. `x86_64`: below 4 GiB; in real mode at most `0x10_ffef`, and from
    /// 64 KiB on `cs` begins at `entry` rounded down to 16, so that 64 KiB from there on are in its reach. `aarch64`: a
    /// multiple of 4 that the VM's addresses reach.
    pub entry: u64,
    /// Where the stack begins, downward, in bytes: a multiple of 16; at most 4 GiB on `x86_64`, in real mode at most
    /// 64 KiB and even. None: 0, the guest sets its own.
    ///
    /// The guest enters as a program does (System V ABI, 3.4.1: the stack pointer is a multiple of 16), not as a called
    /// function, which finds a return address below it.
    pub stack: Option<u64>,
    /// Where the tables of long mode and EL1 lie: 128 KiB, a multiple of 4 KiB, where nothing is mapped (long mode:
    /// below 2^47). None: where they lay at this vCPU's last boot, else the highest free place below `0xe000_0000`.
    pub tables: Option<u64>,
}

impl BootOptions {
    /// Kernel privilege, no stack, tables where there is room.
    #[must_use]
    pub const fn new(mode: BootMode, entry: u64) -> Self {
        Self { mode, privilege: Privilege::Kernel, entry, stack: None, tables: None }
    }
}

/// What [`crate::Vcpu::boot`] has done besides setting registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Boot {
    /// The slot that was mapped for the tables of long mode or EL1. Whatever lies in it is the library's to change at
    /// the next boot.
    pub tables: Option<GpaRange>,
    /// EL1: where an exception shows that the guest has no vectors of its own for. The host's vector number `n` (0 to
    /// 15, in the order of `VBAR_EL1`) writes `ESR_EL1`, 8 bytes, to the address `8 * n` from the start of this page:
    /// an MMIO exit, again at every further run. `x0` and `x1` are in `tpidr_el1` and `tpidrro_el0` then.
    /// A slot that is mapped there later takes the writes, and the loop is silent again.
    pub exceptions: Option<GpaRange>,
}

/// Bytes of the slot of the tables, the same for both architectures.
pub(crate) const TABLES_SIZE: u64 = 32 * PAGE_SIZE;

/// The slot of the tables, kept from boot to boot: one a vCPU, as a TSS and its stacks serve one processor, and as the
/// next boot of one vCPU must not change the tables of another.
#[derive(Debug, Default)]
pub(crate) struct HostTables {
    slot: Option<MemorySlot>,
}

/// What becomes of a slot that lies where the tables are to lie again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// It stays.
    #[cfg_attr(target_arch = "aarch64", expect(dead_code, reason = "x86_64's"))]
    Reuse,
    /// It is deleted and made anew: KVM then forgets what processors have cached of the old tables.
    Renew,
}

/// Where the search for a place ends: below are interrupt vectors, firmware and legacy devices.
const LOWEST_PLACE: u64 = 1 << 20;

/// Where it begins, downward: above are the devices of every PC's chipset. Arm has no such rule, and follows this one.
const HIGHEST_PLACE_END: u64 = 0xe000_0000;

impl HostTables {
    /// A slot for the tables at `wanted`, or where there is room. The slot of the last boot moves, so that no number of
    /// boots uses up slots.
    pub(crate) fn place(&mut self, memory: &GuestMemory, wanted: Option<u64>, again: Again) -> Result<GpaRange> {
        let last = self.slot.as_ref().map(|slot| slot.range().gpa());
        let stays = wanted.is_none() || wanted == last;
        let renewed = again == Again::Renew && stays && self.release()?;
        let wanted = if renewed { last } else { wanted };
        if let Some(slot) = &self.slot {
            match slot.move_to(wanted.unwrap_or(slot.range().gpa())) {
                Err(Error::Closed { .. }) => {} // the program unmapped it
                outcome => return outcome.map(|()| slot.range()),
            }
        }
        let gpa = match wanted {
            Some(gpa) => gpa,
            None => free_place(memory.slots()?.into_iter().map(|slot| slot.range)).ok_or(NO_PLACE)?,
        };
        let slot = memory.map(&MapOptions::new(GpaRange::pages(gpa, TABLES_SIZE)?))?;
        let range = slot.range();
        self.slot = Some(slot);
        Ok(range)
    }

    /// Gives the slot back, and says whether there was one: modes without paging need none.
    pub(crate) fn release(&mut self) -> Result<bool> {
        match self.slot.take().map(|slot| slot.unmap()) {
            None | Some(Err(Error::Closed { .. })) => Ok(false),
            Some(outcome) => outcome.map(|()| true),
        }
    }
}

const NO_PLACE: Error =
    Error::InvalidArgument { what: "tables", expected: "given: no 128 KiB are free between 1 MiB and 0xe000_0000" };

/// The highest free place, given all slots in order of address.
fn free_place(slots: impl DoubleEndedIterator<Item = GpaRange>) -> Option<u64> {
    let mut end = HIGHEST_PLACE_END;
    for slot in slots.rev() {
        if slot.end() + TABLES_SIZE <= end {
            break;
        }
        end = end.min(slot.gpa());
    }
    end.checked_sub(TABLES_SIZE).filter(|gpa| *gpa >= LOWEST_PLACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(gpa: u64, size: u64) -> GpaRange {
        GpaRange::pages(gpa, size).unwrap()
    }

    #[test]
    fn the_search_takes_the_highest_free_place_between_1_mib_and_3_5_gib() {
        let top = HIGHEST_PLACE_END - TABLES_SIZE;
        let place = |slots: &[(u64, u64)]| free_place(slots.iter().map(|(gpa, end)| range(*gpa, end - gpa)));
        assert_eq!(place(&[]), Some(top));
        assert_eq!(place(&[(0, 0x100_0000), (0xfffc_0000, 1 << 32)]), Some(top));
        assert_eq!(place(&[(0, top)]), Some(top), "a slot may end where the tables begin");
        assert_eq!(place(&[(0, top + 0x1000)]), None);
        assert_eq!(place(&[(0x8000_0000, top + 0x1000)]), Some(0x8000_0000 - TABLES_SIZE));
        assert_eq!(place(&[(0x8000_0000, 1 << 33)]), Some(0x8000_0000 - TABLES_SIZE), "a slot may lie across the end");
        let gap = (0x7000_0000, 0x8000_0000 - TABLES_SIZE + 0x1000);
        assert_eq!(place(&[gap, (0x8000_0000, 0xe000_0000)]), Some(0x7000_0000 - TABLES_SIZE), "one page too small");
        assert_eq!(place(&[(0, 0x10_0000), (0x12_0000, 0xe000_0000)]), Some(0x10_0000));
        assert_eq!(place(&[(0x10_1000, 0xe000_0000)]), None, "nothing below 1 MiB");
    }
}
