//! Lists of changes against a stand-in that has KVM's rules, refuses where it is told to, and knows whether the vCPUs are
//! held out.
#![expect(unsafe_code, reason = "stands in for an unsafe ioctl")]

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicU32,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{PAGE, cases, code, features, pages};
use crate::{
    error::{Errno, Error, ErrorCode, Result},
    memory::{
        Backing, Change, FileSharing, GuestMemory, Held, HoldOut, MapOptions, MemorySlot, SlotFeatures, SlotInfo,
        changes::slot_size_max,
        lent::{SetSlot, SlotCommand},
    },
    range::GpaRange,
    sys::memfd,
};

/// Far more than anything here takes: no test passes by it.
const LIMIT: Duration = Duration::from_secs(20);

/// KVM as far as slots go. What it would refuse by its own rules is a bug of ours.
#[derive(Clone, Default)]
struct Kvm {
    slots: Arc<Mutex<BTreeMap<u32, SlotCommand>>>,
    calls: Arc<Mutex<Vec<SlotCommand>>>,
    /// Calls to refuse, by number, with their errno.
    refused: Arc<Mutex<BTreeMap<usize, i32>>>,
    /// At the next call.
    panics: Arc<AtomicBool>,
    vcpus: Arc<Vcpus>,
}

/// The vCPUs that a change holds out.
#[derive(Default)]
struct Vcpus {
    out: AtomicBool,
    holds: AtomicU32,
    poisoned: AtomicBool,
}

struct Out<'a>(&'a Vcpus);

impl Held for Out<'_> {}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        assert!(self.0.out.swap(false, SeqCst));
    }
}

impl HoldOut for Vcpus {
    fn hold(&self) -> Box<dyn Held + '_> {
        assert!(!self.out.swap(true, SeqCst), "one thread at a time");
        self.holds.fetch_add(1, SeqCst);
        Box::new(Out(self))
    }

    fn poison(&self) {
        assert!(self.out.load(SeqCst), "they could enter before they know");
        self.poisoned.store(true, SeqCst);
    }
}

impl SetSlot for Kvm {
    fn name(&self) -> &'static str {
        "FAKE"
    }

    unsafe fn set(&self, command: SlotCommand) -> Result<()> {
        assert!(!self.panics.swap(false, SeqCst), "as if by a bug");
        let mut calls = self.calls.lock().unwrap();
        calls.push(command);
        if let Some(errno) = self.refused.lock().unwrap().get(&(calls.len() - 1)) {
            return Err(Error::Ioctl { request: "FAKE", errno: Errno(*errno) });
        }
        let mut slots = self.slots.lock().unwrap();
        let old = slots.remove(&command.id);
        if command.size == 0 {
            assert!(old.is_some(), "KVM has no slot {:#x} to delete", command.id);
            return Ok(());
        }
        if let Some(old) = old {
            let lasting = |slot: SlotCommand| (slot.address, slot.size, slot.readonly);
            assert_eq!(lasting(old), lasting(command), "KVM moves and flags, no more");
        }
        let end = |slot: &SlotCommand| slot.gpa + slot.size;
        let overlaps = |other: &SlotCommand| {
            other.id >> 16 == command.id >> 16 && other.gpa < end(&command) && command.gpa < end(other)
        };
        assert!(!slots.values().any(overlaps), "{command:x?} overlaps");
        slots.insert(command.id, command);
        Ok(())
    }

    fn create_guest_memfd(&self, size: u64) -> Result<OwnedFd> {
        memfd::sealed(size)
    }
}

impl Kvm {
    fn memory(&self) -> GuestMemory {
        self.memory_with(features(8))
    }

    fn memory_with(&self, features: SlotFeatures) -> GuestMemory {
        let vcpus = Arc::<Vcpus>::clone(&self.vcpus);
        GuestMemory::with_ioctl(Box::new(self.clone()), features, vcpus)
    }

    /// Refuses these calls, counted from now on.
    fn refuse(&self, calls: impl IntoIterator<Item = usize>) {
        self.refuse_with(calls.into_iter().map(|call| (call, libc::ENOMEM)));
    }

    /// The same, each with an errno of its own.
    fn refuse_with(&self, calls: impl IntoIterator<Item = (usize, i32)>) {
        self.calls.lock().unwrap().clear();
        *self.refused.lock().unwrap() = calls.into_iter().collect();
    }

    fn issued(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    fn slots(&self) -> BTreeMap<u32, SlotCommand> {
        self.slots.lock().unwrap().clone()
    }

    fn holds(&self) -> u32 {
        self.vcpus.holds.load(SeqCst)
    }
}

fn options(gpa: u64) -> MapOptions {
    MapOptions::new(pages(gpa, PAGE))
}

fn listed(memory: &GuestMemory) -> Vec<SlotInfo> {
    let spaces = [0, 1].map(|id| memory.address_space(id).unwrap().slots().unwrap());
    spaces.into_iter().flatten().collect()
}

fn read(memory: &GuestMemory, gpa: u64) -> u8 {
    let mut byte = [0];
    memory.read(gpa, &mut byte).unwrap();
    byte[0]
}

/// Four slots with a number of their own in their first byte.
fn four(memory: &GuestMemory) -> [MemorySlot; 4] {
    [1, 2, 3, 4].map(|n| {
        let slot = memory.map(&options(n * 2 * PAGE)).unwrap();
        memory.write(slot.range().gpa(), &[u8::try_from(n).unwrap()]).unwrap();
        slot
    })
}

/// Every kind of change, several of one slot, and maps that only those before them make room for: 11 ioctls.
fn all_kinds([a, b, c, d]: &[MemorySlot; 4]) -> Vec<Change> {
    let share = Backing::Share { slot: a.clone(), offset: 0 };
    vec![
        Change::SetReadonly(c.clone(), true),
        Change::Unmap(a.clone()),
        Change::Map(MapOptions { slot: Some(a.number()), backing: share, ..options(2 * PAGE) }),
        Change::Move(b.clone(), 20 * PAGE),
        Change::Map(MapOptions { address_space: Some(1), ..options(20 * PAGE) }),
        Change::Move(c.clone(), 4 * PAGE),
        Change::SetReadonly(d.clone(), false), // is so
        Change::Move(b.clone(), 20 * PAGE),    // is there
        Change::SetReadonly(c.clone(), false),
        Change::Unmap(d.clone()),
        Change::Map(options(8 * PAGE)),
    ]
}

const STEPS: usize = 11;

#[test]
fn a_list_is_done_in_order_with_the_vcpus_held_out() {
    let kvm = Kvm::default();
    let memory = kvm.memory();
    let slots = four(&memory);
    kvm.refuse([]);
    let mapped = memory.change(all_kinds(&slots)).unwrap();
    assert_eq!((kvm.issued(), kvm.holds()), (STEPS, 1));
    assert!(!kvm.vcpus.out.load(SeqCst), "they were let go");
    let places: Vec<_> = mapped.iter().map(|slot| (slot.address_space(), slot.number(), slot.range().gpa())).collect();
    assert_eq!(places, [(0, 0, 2 * PAGE), (1, 0, 20 * PAGE), (0, 3, 8 * PAGE)]);
    let content: Vec<_> = [2, 4, 20, 8].map(|page| read(&memory, page * PAGE)).into();
    assert_eq!(content, [1, 3, 2, 0]);
    assert_matches(&kvm, &memory);
    assert_eq!(code(slots[0].move_to(0)), ErrorCode::Closed);
    assert_eq!((slots[2].range().gpa(), slots[2].readonly()), (4 * PAGE, false));
}

/// What KVM has, what is listed and what the free numbers say is one and the same.
fn assert_matches(kvm: &Kvm, memory: &GuestMemory) {
    let expected: BTreeMap<_, _> =
        kvm.slots().into_iter().map(|(id, slot)| (id, (slot.gpa, slot.size, slot.readonly, slot.dirty_log))).collect();
    let found: BTreeMap<_, _> = listed(memory)
        .into_iter()
        .map(|slot| {
            let id = slot.address_space << 16 | slot.number;
            (id, (slot.range.gpa(), slot.range.size(), slot.readonly, slot.dirty_log))
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn whichever_ioctl_is_refused_everything_is_as_it_was() {
    for refused in 0..STEPS {
        let kvm = Kvm::default();
        let memory = kvm.memory();
        let slots = four(&memory);
        slots[2].set_dirty_log(true).unwrap();
        let before = (kvm.slots(), listed(&memory), slots.clone().map(|slot| slot.info()));
        kvm.refuse([refused]);
        let error = memory.change(all_kinds(&slots)).unwrap_err();
        assert!(matches!(error, Error::Ioctl { request: "FAKE", .. }), "{error}");
        assert_eq!((kvm.slots(), listed(&memory), slots.clone().map(|slot| slot.info())), before, "call {refused}");
        assert_eq!([2, 4, 6, 8].map(|page| read(&memory, page * PAGE)), [1, 2, 3, 4]);
        assert!(!kvm.vcpus.out.load(SeqCst) && !kvm.vcpus.poisoned.load(SeqCst));
        kvm.refuse([]);
        memory.change(all_kinds(&slots)).unwrap();
        assert_matches(&kvm, &memory);
    }
}

#[test]
fn a_refused_undoing_poisons_the_vm_and_it_can_be_closed() {
    for refused in 1..STEPS {
        for undoing in 1..=refused {
            let kvm = Kvm::default();
            let memory = kvm.memory();
            let slots = four(&memory);
            kvm.refuse([refused, refused + undoing]);
            let error = memory.change(all_kinds(&slots)).unwrap_err();
            assert_eq!((error.code(), error.errno()), (ErrorCode::Poisoned, Some((Errno(libc::ENOMEM), "FAKE"))));
            assert!(kvm.vcpus.poisoned.load(SeqCst) && !kvm.vcpus.out.load(SeqCst));
            assert_poisoned(&kvm, &memory, &slots[1]);
            memory.close();
            assert_eq!(kvm.slots(), BTreeMap::new(), "calls {refused} and {undoing}");
            assert_eq!(code(memory.slots()), ErrorCode::Closed);
        }
    }
}

/// What the kernel said first is not forgotten; and it is this error whatever the undoing's would be by itself.
#[test]
fn a_lost_vm_is_told_by_one_error_with_both_refusals() {
    let high = pages(1 << 51, PAGE); // past every processor's width, as EINVAL is then told
    for (range, undoing) in [(high, libc::EINVAL), (high, libc::ENOMEM), (pages(0, PAGE), libc::EINVAL)] {
        let kvm = Kvm::default();
        let memory = kvm.memory_with(SlotFeatures { address_bits: 52, ..features(8) });
        let old = memory.map(&MapOptions::new(range)).unwrap();
        kvm.refuse_with([(1, libc::EEXIST), (2, undoing)]);
        let error = memory.change(vec![Change::Unmap(old), Change::Map(options(40 * PAGE))]).unwrap_err();
        assert_eq!((error.code(), error.errno()), (ErrorCode::Poisoned, Some((Errno(undoing), "FAKE"))), "{error}");
        assert!(matches!(error, Error::SlotsLost { cause: Errno(libc::EEXIST), .. }), "{error}");
    }
}

/// Nobody knows then which of the ioctls KVM has done.
#[test]
fn a_panic_among_the_ioctls_poisons_the_vm() {
    let kvm = Kvm::default();
    let memory = kvm.memory();
    let slots = four(&memory);
    kvm.panics.store(true, SeqCst);
    assert!(catch_unwind(AssertUnwindSafe(|| memory.change(all_kinds(&slots)))).is_err());
    assert!(kvm.vcpus.poisoned.load(SeqCst) && !kvm.vcpus.out.load(SeqCst));
    assert_poisoned(&kvm, &memory, &slots[1]);
    memory.close();
    assert_eq!(kvm.slots(), BTreeMap::new());
}

/// No more than in a list.
#[test]
fn a_panic_in_the_ioctl_of_one_change_poisons_the_vm() {
    type One = fn(&GuestMemory, &[MemorySlot]) -> Result<()>;
    let changes: [One; 4] = [
        |memory, _| memory.map(&options(40 * PAGE)).map(drop),
        |_, slots| slots[0].unmap(),
        |_, slots| slots[0].move_to(40 * PAGE),
        |_, slots| slots[0].set_dirty_log(true),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let kvm = Kvm::default();
        let memory = kvm.memory();
        let slots = four(&memory);
        kvm.panics.store(true, SeqCst);
        assert!(catch_unwind(AssertUnwindSafe(|| change(&memory, &slots))).is_err());
        assert!(kvm.vcpus.poisoned.load(SeqCst) && !kvm.vcpus.out.load(SeqCst), "change {number}");
        assert_poisoned(&kvm, &memory, &slots[1]);
        memory.close();
        assert_eq!(kvm.slots(), BTreeMap::new());
    }
}

fn assert_poisoned(kvm: &Kvm, memory: &GuestMemory, slot: &MemorySlot) {
    let calls = kvm.issued();
    let refused = [
        memory.map(&options(0)).map(drop),
        memory.change(Vec::new()).map(drop),
        memory.read(2 * PAGE, &mut [0]),
        memory.write(2 * PAGE, &[0]),
        memory.fill(2 * PAGE, 1, 0),
        memory.slots().map(drop),
        memory.slot_at(0).map(drop),
        memory.regions().map(drop),
        slot.move_to(0),
        slot.set_readonly(true),
        slot.set_dirty_log(true),
        slot.unmap(),
    ];
    for (call, result) in refused.into_iter().enumerate() {
        assert!(matches!(result, Err(Error::Poisoned { what: "VM", .. })), "call {call}: {result:?}");
    }
    assert_eq!(kvm.issued(), calls);
}

#[test]
fn a_list_with_one_bad_change_does_nothing_at_all() {
    let (kvm, other) = (Kvm::default(), Kvm::default());
    let memory = kvm.memory();
    let (slots, foreign) = (four(&memory), other.memory().map(&options(0)).unwrap());
    let [a, b, ..] = &slots;
    let gone = memory.map(&options(40 * PAGE)).unwrap();
    gone.unmap().unwrap();
    let before = (kvm.slots(), listed(&memory));
    kvm.refuse([]);
    let wide = MapOptions::new(GpaRange::pages((1 << 40) - PAGE, 2 * PAGE).unwrap());
    let map = |options: MapOptions| Change::Map(options);
    let bad = [
        (map(options(4 * PAGE)), ErrorCode::SlotOverlap),
        (map(options(30 * PAGE)), ErrorCode::SlotOverlap), // with the one before it
        (map(MapOptions { slot: Some(b.number()), ..options(0) }), ErrorCode::InvalidArgument),
        (map(MapOptions { slot: Some(8), ..options(0) }), ErrorCode::OutOfRange),
        (map(MapOptions { address_space: Some(2), ..options(0) }), ErrorCode::OutOfRange),
        (map(MapOptions::new(GpaRange::new(1, PAGE).unwrap())), ErrorCode::Unaligned),
        (map(wide), ErrorCode::OutOfRange),
        (
            map(MapOptions { backing: Backing::Share { slot: b.clone(), offset: PAGE }, ..options(0) }),
            ErrorCode::InvalidArgument,
        ),
        (Change::Unmap(a.clone()), ErrorCode::Closed), // twice
        (Change::Unmap(gone.clone()), ErrorCode::Closed),
        (Change::Unmap(foreign.clone()), ErrorCode::InvalidArgument),
        (Change::Move(a.clone(), 0), ErrorCode::Closed),
        (Change::Move(b.clone(), 6 * PAGE), ErrorCode::SlotOverlap),
        (Change::Move(b.clone(), 1), ErrorCode::Unaligned),
        (Change::Move(b.clone(), 1 << 40), ErrorCode::OutOfRange),
        (Change::Move(foreign.clone(), 0), ErrorCode::InvalidArgument),
        (Change::SetReadonly(a.clone(), true), ErrorCode::Closed),
        (Change::SetReadonly(foreign, true), ErrorCode::InvalidArgument),
    ];
    for (number, (change, expected)) in bad.into_iter().enumerate() {
        let good =
            vec![Change::Unmap(a.clone()), Change::SetReadonly(b.clone(), true), map(options(30 * PAGE)), change];
        assert_eq!(code(memory.change(good)), expected, "change {number}");
        assert_eq!((kvm.slots(), listed(&memory)), before, "change {number}");
    }
    assert_eq!((kvm.issued(), kvm.holds()), (0, 0), "KVM and the vCPUs heard of it");
    memory.change(all_kinds(&slots)).unwrap();
}

#[test]
fn a_full_address_space_refuses_a_list_unless_it_makes_room() {
    let kvm = Kvm::default();
    let memory = kvm.memory_with(features(4));
    let [a, ..] = four(&memory);
    assert_eq!(code(memory.change(vec![Change::Map(options(0))])), ErrorCode::SlotLimit);
    let [slot] = &memory.change(vec![Change::Unmap(a), Change::Map(options(0))]).unwrap()[..] else { panic!() };
    assert_eq!(slot.number(), 0);
    memory.address_space(1).unwrap().map(&options(0)).unwrap();
}

#[test]
fn what_is_so_already_disturbs_nobody() {
    let kvm = Kvm::default();
    let memory = kvm.memory();
    let [a, b, ..] = four(&memory);
    kvm.refuse([]);
    a.set_readonly(false).unwrap();
    a.set_dirty_log(false).unwrap();
    a.move_to(2 * PAGE).unwrap();
    memory.change(vec![Change::Move(b, 4 * PAGE), Change::SetReadonly(a, false)]).unwrap();
    memory.change(Vec::new()).unwrap();
    assert_eq!((kvm.issued(), kvm.holds()), (0, 0));
}

#[test]
fn one_ioctl_is_done_while_vcpus_run_and_flags_outlast_the_rest() {
    let kvm = Kvm::default();
    let memory = kvm.memory();
    let slot = memory.map(&options(0)).unwrap();
    slot.set_dirty_log(true).unwrap();
    slot.move_to(PAGE).unwrap();
    assert_eq!(kvm.holds(), 0);
    slot.set_readonly(true).unwrap();
    assert_eq!((kvm.holds(), kvm.issued()), (1, 5));
    slot.move_to(2 * PAGE).unwrap();
    let told = kvm.slots()[&0];
    assert_eq!((told.gpa, told.readonly, told.dirty_log), (2 * PAGE, true, true));
    assert!(slot.dirty_log() && slot.readonly() && memory.slots().unwrap()[0] == slot.info());
    slot.set_dirty_log(false).unwrap();
    slot.set_readonly(false).unwrap();
    assert_matches(&kvm, &memory);
    assert!(!slot.dirty_log() && !slot.readonly());
    kvm.refuse([0]);
    assert_eq!(code(slot.set_dirty_log(true)), ErrorCode::Ioctl);
    assert!(!slot.dirty_log());
    assert_matches(&kvm, &memory);
}

/// KVM refuses every change of it but its deletion. Of a share it does not know what it is a share of.
#[test]
fn a_slot_on_a_guest_memfd_comes_and_goes_and_no_more() {
    let kvm = Kvm::default();
    let memory = kvm.memory();
    let fixed = MapOptions { backing: Backing::GuestMemfd, ..options(0) };
    let slot = memory.map(&fixed).unwrap();
    memory.write(0, b"g").unwrap();
    kvm.refuse([]);
    let refused = [
        slot.move_to(PAGE),
        slot.set_readonly(true),
        slot.set_dirty_log(true),
        memory.change(vec![Change::Move(slot.clone(), PAGE)]).map(drop),
        memory.change(vec![Change::SetReadonly(slot.clone(), true)]).map(drop),
        memory.change(vec![Change::Map(MapOptions { readonly: true, ..fixed.clone() })]).map(drop),
    ];
    for (call, result) in refused.into_iter().enumerate() {
        let expected = if call == 5 { ErrorCode::SlotOverlap } else { ErrorCode::InvalidArgument };
        assert_eq!(code(result), expected, "call {call}");
    }
    slot.move_to(0).unwrap();
    slot.set_readonly(false).unwrap();
    slot.set_dirty_log(false).unwrap();
    assert_eq!((kvm.issued(), kvm.holds()), (0, 0));

    let elsewhere = MapOptions { backing: Backing::Share { slot: slot.clone(), offset: 0 }, ..options(2 * PAGE) };
    let share = memory.map(&elsewhere).unwrap();
    share.set_readonly(true).unwrap();
    share.move_to(4 * PAGE).unwrap();
    assert_eq!(read(&memory, 4 * PAGE), b'g');

    let swap = || vec![Change::Unmap(slot.clone()), Change::Map(fixed.clone())];
    let told = kvm.slots()[&0].guest_memfd;
    assert!(told.is_some());
    kvm.refuse([1]);
    assert_eq!(code(memory.change(swap())), ErrorCode::Ioctl);
    assert_eq!((kvm.slots()[&0].guest_memfd, read(&memory, 0)), (told, b'g'), "it has its memory back");
    memory.change(swap()).unwrap();
    assert_ne!(kvm.slots()[&0].guest_memfd, told);
    assert_eq!(read(&memory, 0), 0);
}

#[test]
fn rom_on_a_file_that_is_open_for_reading_stays_rom() {
    let kvm = Kvm::default();
    let memory = kvm.memory();
    let file = Arc::new(std::fs::File::open("/proc/self/exe").unwrap());
    let backing = Backing::File { file, offset: 0, sharing: FileSharing::Shared };
    let rom = memory.map(&MapOptions { readonly: true, backing, ..options(0) }).unwrap();
    kvm.refuse([]);
    assert_eq!(code(rom.set_readonly(false)), ErrorCode::InvalidArgument);
    assert_eq!((kvm.issued(), kvm.holds(), rom.readonly()), (0, 0, true));
}

#[test]
fn address_spaces_are_apart() {
    let kvm = Kvm::default();
    let memory = kvm.memory();
    let other = memory.address_space(1).unwrap();
    let slots = [&memory, &other].map(|memory| memory.map(&options(PAGE)).unwrap());
    assert_eq!(slots.clone().map(|slot| (slot.address_space(), slot.number())), [(0, 0), (1, 0)]);
    assert_eq!(kvm.slots().into_keys().collect::<Vec<_>>(), [0, 0x1_0000]);
    memory.write(PAGE, &[1]).unwrap();
    other.write(PAGE, &[2]).unwrap();
    assert_eq!((read(&memory, PAGE), read(&other, PAGE)), (1, 2));
    slots[1].move_to(4 * PAGE).unwrap();
    assert_eq!(code(other.read(PAGE, &mut [0])), ErrorCode::MemoryHole);
    assert_eq!((read(&memory, PAGE), read(&other, 4 * PAGE)), (1, 2));
    let found = other.slot_at(4 * PAGE).unwrap().unwrap();
    assert_eq!(found.info(), slots[1].info());
    assert!(memory.slot_at(4 * PAGE).unwrap().is_none());
    let both = vec![Change::Unmap(found), Change::Map(MapOptions { address_space: Some(0), ..options(4 * PAGE) })];
    assert_eq!(other.change(both).unwrap()[0].address_space(), 0);
    assert_eq!((memory.slots().unwrap().len(), other.slots().unwrap().len()), (2, 0));
    let shared = MapOptions { backing: Backing::Share { slot: slots[0].clone(), offset: 0 }, ..options(0) };
    other.map(&shared).unwrap();
    assert_eq!(read(&other, 0), 1);
    assert!(matches!(memory.address_space(2), Err(Error::AddressSpaceRange { id: 2, limit: 2 })));
    assert_matches(&kvm, &memory);
}

#[test]
fn a_second_address_space_needs_its_capability() {
    let memory = Kvm::default().memory_with(SlotFeatures { spaces: 1, ..features(2) });
    let missing = |result: Result<()>| {
        assert!(
            matches!(result, Err(Error::CapabilityMissing { capability: "multi-address-space", .. })),
            "{result:?}"
        );
    };
    missing(memory.address_space(1).map(drop));
    missing(memory.map(&MapOptions { address_space: Some(1), ..options(0) }).map(drop));
    memory.address_space(0).unwrap().map(&MapOptions { address_space: Some(0), ..options(0) }).unwrap();
}

#[test]
fn an_address_past_the_vm_s_width_is_refused_by_it() {
    let kvm = Kvm::default();
    let memory = kvm.memory();
    let last = (1 << 40) - PAGE;
    let slot = memory.map(&options(last)).unwrap();
    let range = pages(1 << 40, PAGE);
    for error in [memory.map(&options(1 << 40)).unwrap_err(), slot.move_to(1 << 40).unwrap_err()] {
        assert!(matches!(error, Error::AddressWidth { range: said, bits: 40 } if said == range), "{error}");
    }
    assert_eq!(kvm.issued(), 1);
}

/// KVM's own pages are in every address space.
#[test]
fn a_place_that_kvm_keeps_is_refused_in_every_address_space() {
    let kvm = Kvm::default();
    let reserved = pages(8 * PAGE, 4 * PAGE);
    let memory = kvm.memory_with(SlotFeatures { reserved: Some(reserved), ..features(8) });
    let slot = memory.map(&options(7 * PAGE)).unwrap();
    memory.map(&options(12 * PAGE)).unwrap();
    let over = |gpa, size| MapOptions::new(pages(gpa, size));
    kvm.refuse([]);
    for space in [0, 1].map(|id| memory.address_space(id).unwrap()) {
        for options in [over(8 * PAGE, PAGE), over(11 * PAGE, PAGE), over(0, 20 * PAGE)] {
            let error = space.map(&options).unwrap_err();
            let named = |new, old| new == options.range && old == reserved;
            assert!(matches!(error, Error::SlotReserved { new, reserved } if named(new, reserved)), "{error}");
            assert_eq!(error.code(), ErrorCode::SlotOverlap);
            assert_eq!(code(space.change(vec![Change::Map(options)])), ErrorCode::SlotOverlap);
        }
    }
    assert_eq!(code(slot.move_to(8 * PAGE)), ErrorCode::SlotOverlap);
    assert_eq!(code(memory.change(vec![Change::Move(slot, 11 * PAGE)])), ErrorCode::SlotOverlap);
    assert_eq!((kvm.issued(), kvm.holds()), (0, 0));
}

/// As on aarch64 kernels of 64 KiB pages.
#[test]
fn slots_are_multiples_of_the_host_s_pages() {
    const LARGE: u64 = 0x1_0000;
    let kvm = Kvm::default();
    let memory = kvm.memory_with(SlotFeatures { page_size: LARGE, ..features(8) });
    let slot = memory.map(&MapOptions::new(pages(0, 2 * LARGE))).unwrap();
    let file = Arc::new(std::fs::File::from(memfd::sealed(LARGE).unwrap()));
    let file = |offset| Backing::File { file: Arc::clone(&file), offset, sharing: FileSharing::Private };
    let large = MapOptions::new(pages(4 * LARGE, LARGE));
    let shared = |offset| Backing::Share { slot: slot.clone(), offset };
    kvm.refuse([]);
    let refused = [
        memory.map(&options(4 * LARGE)).map(drop),
        memory.map(&MapOptions::new(pages(4 * LARGE + PAGE, LARGE))).map(drop),
        memory.map(&MapOptions { backing: shared(PAGE), ..large.clone() }).map(drop),
        memory.map(&MapOptions { backing: file(PAGE), ..large.clone() }).map(drop),
        slot.move_to(4 * LARGE + PAGE),
        memory.change(vec![Change::Map(options(4 * LARGE))]).map(drop),
        memory.change(vec![Change::Move(slot.clone(), 4 * LARGE + PAGE)]).map(drop),
    ];
    for (call, result) in refused.into_iter().enumerate() {
        assert!(matches!(result, Err(Error::Unaligned { alignment: LARGE, .. })), "call {call}: {result:?}");
    }
    assert_eq!(kvm.issued(), 0);
    for backing in [shared(LARGE), file(0)] {
        memory.map(&MapOptions { backing, ..large.clone() }).unwrap().unmap().unwrap();
    }
}

/// KVM counts pages of the host's (`__kvm_set_memory_region`).
#[test]
fn the_longest_slot_is_so_many_of_the_host_s_pages() {
    const TIB: u64 = 1 << 40;
    for (page_size, end) in [(0x1000, 8 * TIB), (0x4000, 32 * TIB), (0x1_0000, 128 * TIB)] {
        assert_eq!(slot_size_max(page_size), end - page_size);
        let kvm = Kvm::default();
        let memory = kvm.memory_with(SlotFeatures { page_size, address_bits: 52, ..features(8) });
        let result = memory.map(&MapOptions::new(pages(0, end)));
        assert!(matches!(result, Err(Error::InvalidArgument { what: "the size of a slot", .. })), "{result:?}");
        assert_eq!(kvm.issued(), 0);
    }
}

#[test]
fn accesses_see_the_one_state_or_the_other() {
    let kvm = Kvm::default();
    let memory = kvm.memory();
    let banks = [1, 2].map(|n| memory.map(&MapOptions { address_space: Some(1), ..options(n * PAGE) }).unwrap());
    for (bank, byte) in banks.iter().zip([1, 2]) {
        memory.address_space(1).unwrap().fill(bank.range().gpa(), PAGE, byte).unwrap();
    }
    let [one, two] = banks.map(|slot| MapOptions { backing: Backing::Share { slot, offset: 0 }, ..options(0) });
    let mut now = memory.map(&one).unwrap();
    let seen = Mutex::new(BTreeSet::new());
    let both = || seen.lock().unwrap().len() > 1;
    let (stop, mut rounds) = (AtomicBool::new(false), 0);
    std::thread::scope(|scope| {
        let _stopping = Stopping(&stop);
        let reader = scope.spawn(|| {
            while !stop.load(Relaxed) {
                let mut found = [0; 64];
                memory.read(0, &mut found).unwrap();
                assert_eq!(found, [found[0]; 64]);
                seen.lock().unwrap().insert(found[0]);
            }
        });
        let began = Instant::now();
        for next in [&two, &one].into_iter().cycle() {
            let long_enough = rounds >= 2_000 && both() || began.elapsed() > LIMIT;
            if long_enough || reader.is_finished() {
                break;
            }
            now = memory.change(vec![Change::Unmap(now.clone()), Change::Map(next.clone())]).unwrap().remove(0);
            rounds += 1;
        }
    });
    assert_eq!(seen.into_inner().unwrap(), BTreeSet::from([1, 2]));
    assert_eq!(kvm.holds(), rounds);
}

/// Ends the other threads of a test, also where it fails.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[derive(Debug, Clone)]
enum Operation {
    Map { space: u32, page: u64, pages: u64, readonly: bool, share: bool },
    Unmap { which: usize },
    Move { which: usize, page: u64 },
    SetReadonly { which: usize, readonly: bool },
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0_u32..2, 0_u64..20, 1_u64..4, any::<bool>(), any::<bool>())
            .prop_map(|(space, page, pages, readonly, share)| Operation::Map { space, page, pages, readonly, share }),
        2 => (0_usize..8).prop_map(|which| Operation::Unmap { which }),
        2 => (0_usize..8, 0_u64..20).prop_map(|(which, page)| Operation::Move { which, page }),
        2 => (0_usize..8, any::<bool>()).prop_map(|(which, readonly)| Operation::SetReadonly { which, readonly }),
    ]
}

fn change(operation: &Operation, handles: &[MemorySlot]) -> Option<Change> {
    let handle = |which: usize| handles.get(which % handles.len().max(1)).cloned();
    Some(match *operation {
        Operation::Map { space, page, pages: count, readonly, share } => {
            let backing =
                handle(0).filter(|_| share).map_or(Backing::Anonymous, |slot| Backing::Share { slot, offset: 0 });
            let range = pages(page * PAGE, count * PAGE);
            Change::Map(MapOptions { readonly, backing, address_space: Some(space), ..MapOptions::new(range) })
        }
        Operation::Unmap { which } => Change::Unmap(handle(which)?),
        Operation::Move { which, page } => Change::Move(handle(which)?, page * PAGE),
        Operation::SetReadonly { which, readonly } => Change::SetReadonly(handle(which)?, readonly),
    })
}

proptest! {
    #![proptest_config(cases())]

    /// After any lists of changes, with any ioctl refused: KVM has what is listed, or the VM is poisoned; and a list that
    /// failed has left no trace.
    #[test]
    fn kvm_and_the_map_never_part(
        lists in prop::collection::vec(
            (prop::collection::vec(operation(), 1..5), prop::option::weighted(0.3, 0_usize..8), prop::option::weighted(0.2, 0_usize..4)),
            0..8,
        ),
    ) {
        let kvm = Kvm::default();
        let memory = kvm.memory_with(features(5));
        let mut handles = Vec::new();
        for (operations, refused, undoing) in lists {
            let changes: Vec<_> = operations.iter().filter_map(|operation| change(operation, &handles)).collect();
            let before = (kvm.slots(), listed(&memory));
            kvm.refuse(refused.into_iter().chain(refused.zip(undoing).map(|(refused, undoing)| refused + 1 + undoing)));
            match memory.change(changes) {
                Ok(mapped) => handles.extend(mapped),
                Err(Error::SlotsLost { .. }) => {
                    prop_assert!(undoing.is_some());
                    memory.close();
                    prop_assert!(kvm.slots().is_empty());
                    return Ok(());
                }
                Err(_) => prop_assert_eq!(&(kvm.slots(), listed(&memory)), &before),
            }
            assert_matches(&kvm, &memory);
            prop_assert!(!kvm.vcpus.out.load(SeqCst));
            handles.retain(|slot: &MemorySlot| listed(&memory).contains(&slot.info()));
        }
    }
}
