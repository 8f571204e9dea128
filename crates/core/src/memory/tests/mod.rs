//! The room against a stand-in for the ioctl, which records, refuses, and looks around while it is called. What the
//! kernel makes of it is tested in `tests/kvm/memory.rs`.
#![expect(unsafe_code, reason = "stands in for an unsafe ioctl; forks")]

mod keeps;
mod transactions;

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use proptest::test_runner::Config as ProptestConfig;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::{
    GuestMemory, Held, HoldOut, MapOptions, MemorySlot, SlotFeatures, SlotInfo,
    backing::HostMemory,
    lent::{GUEST_MEMFD_FLAGS, SetSlot, SlotCommand},
};
use crate::{
    error::{Errno, Error, ErrorCode, Result},
    range::GpaRange,
    sys::memfd,
};

const PAGE: u64 = 0x1000;

/// How many cases a property is held against: `TYPEVISOR_PROPTEST_CASES`, or few enough for every day.
pub(super) fn cases() -> ProptestConfig {
    let cases = std::env::var("TYPEVISOR_PROPTEST_CASES").ok().map(|text| text.parse().expect("a number of cases"));
    ProptestConfig::with_cases(cases.unwrap_or(256))
}

/// Looks around while the ioctl is "in the kernel".
type Spy = Box<dyn Fn(SlotCommand) + Send>;

#[derive(Clone, Default)]
struct Fake {
    calls: Arc<Mutex<Vec<SlotCommand>>>,
    refuse: Arc<AtomicBool>,
    spy: Arc<Mutex<Option<Spy>>>,
}

impl SetSlot for Fake {
    fn name(&self) -> &'static str {
        "FAKE"
    }

    unsafe fn set(&self, command: SlotCommand) -> Result<()> {
        self.calls.lock().unwrap().push(command);
        if let Some(spy) = &*self.spy.lock().unwrap() {
            spy(command);
        }
        if self.refuse.load(Relaxed) {
            return Err(Error::Ioctl { request: "FAKE", errno: Errno(libc::ENOMEM) });
        }
        Ok(())
    }

    fn create_guest_memfd(&self, size: u64) -> Result<OwnedFd> {
        memfd::sealed(size)
    }
}

/// A VM without vCPUs.
pub(super) struct NoVcpus;

struct Out;

impl Held for Out {}

impl HoldOut for NoVcpus {
    fn hold(&self) -> Box<dyn Held + '_> {
        Box::new(Out)
    }

    fn poison(&self) {}
}

/// A VM that has everything, and this many slots in each address space.
pub(super) const fn features(slots: u32) -> SlotFeatures {
    SlotFeatures {
        slots,
        spaces: 2,
        address_bits: 40,
        readonly: true,
        region2: true,
        page_size: PAGE,
        reserved: None,
        guest_memfd: Some(GUEST_MEMFD_FLAGS),
    }
}

impl Fake {
    fn memory(&self, slots: u32) -> GuestMemory {
        GuestMemory::with_ioctl(Box::new(self.clone()), features(slots), Arc::new(NoVcpus))
    }

    fn taken_calls(&self) -> Vec<(u32, bool, u64, u64)> {
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        calls.into_iter().map(|call| (call.id, call.readonly, call.gpa, call.size)).collect()
    }
}

fn pages(gpa: u64, size: u64) -> GpaRange {
    GpaRange::pages(gpa, size).unwrap()
}

fn map(memory: &GuestMemory, gpa: u64, size: u64) -> MemorySlot {
    memory.map(&MapOptions::new(pages(gpa, size))).unwrap()
}

fn info(number: u32, gpa: u64, size: u64) -> SlotInfo {
    SlotInfo {
        number,
        address_space: 0,
        range: pages(gpa, size),
        readonly: false,
        dirty_log: false,
        backing: "anonymous",
        ioctl: "FAKE",
        serial: 0,
    }
}

/// All slots, whatever their serials.
fn slots(memory: &GuestMemory) -> Vec<SlotInfo> {
    memory.slots().unwrap().into_iter().map(|slot| SlotInfo { serial: 0, ..slot }).collect()
}

fn code<T: std::fmt::Debug>(result: Result<T>) -> ErrorCode {
    result.unwrap_err().code()
}

/// The mapping of the slot at address 0. Its last holder unmaps it; asking the kernel whether the address is mapped
/// would find what another test put there since.
fn mapping_at_0(memory: &GuestMemory) -> Weak<HostMemory> {
    memory.look(|map| Ok(map.at(0).unwrap().value.backed().watch())).unwrap()
}

fn is_mapped(mapping: &Weak<HostMemory>) -> bool {
    mapping.strong_count() > 0
}

#[test]
fn kvm_is_told_what_was_asked() {
    let fake = Fake::default();
    let memory = fake.memory(4);
    let options = MapOptions { readonly: true, slot: Some(2), ..MapOptions::new(pages(PAGE, 2 * PAGE)) };
    let slot = memory.map(&options).unwrap();
    slot.move_to(8 * PAGE).unwrap();
    slot.move_to(8 * PAGE).unwrap(); // there already: no ioctl
    slot.unmap().unwrap();
    let set = |gpa| (2, true, gpa, 2 * PAGE);
    assert_eq!(fake.taken_calls(), [set(PAGE), set(8 * PAGE), (2, false, 0, 0)]);
    assert_eq!((slot.number(), slot.readonly(), slot.ioctl()), (2, true, "FAKE"));
    assert_eq!(slot.range(), pages(8 * PAGE, 2 * PAGE), "where it lay when it was unmapped");
}

#[test]
fn what_can_be_checked_is_refused_without_an_ioctl() {
    let fake = Fake::default();
    let memory = fake.memory(2);
    map(&memory, 0, 2 * PAGE);
    fake.taken_calls();
    let ask = |gpa, size, slot| memory.map(&MapOptions { slot, ..MapOptions::new(GpaRange::new(gpa, size).unwrap()) });
    assert_eq!(code(ask(4 * PAGE + 1, PAGE, None)), ErrorCode::Unaligned);
    assert_eq!(code(ask(4 * PAGE, 100, None)), ErrorCode::Unaligned);
    assert_eq!(code(ask(4 * PAGE, 1 << 43, None)), ErrorCode::InvalidArgument);
    let overlap = ask(PAGE, PAGE, None).unwrap_err();
    assert_eq!(overlap.to_string(), "slot range 0x1000..0x2000 overlaps 0x0..0x2000; unmap that slot first");
    assert_eq!(code(ask(4 * PAGE, PAGE, Some(0))), ErrorCode::InvalidArgument);
    assert_eq!(code(ask(4 * PAGE, PAGE, Some(2))), ErrorCode::OutOfRange);
    assert_eq!(fake.taken_calls(), []);
    let second = ask(4 * PAGE, PAGE, None).unwrap();
    fake.taken_calls();
    assert_eq!(code(ask(8 * PAGE, PAGE, None)), ErrorCode::SlotLimit);
    assert_eq!(code(second.move_to(1)), ErrorCode::Unaligned);
    assert_eq!(code(second.move_to(1 << 52)), ErrorCode::OutOfRange);
    assert_eq!(code(second.move_to(PAGE)), ErrorCode::SlotOverlap);
    assert_eq!(fake.taken_calls(), []);
    assert_eq!(slots(&memory), [info(0, 0, 2 * PAGE), info(1, 4 * PAGE, PAGE)]);
}

#[test]
fn read_only_needs_its_capability() {
    let features = SlotFeatures { readonly: false, ..features(2) };
    let memory = GuestMemory::with_ioctl(Box::new(Fake::default()), features, Arc::new(NoVcpus));
    let error = memory.map(&MapOptions { readonly: true, ..MapOptions::new(pages(0, PAGE)) }).unwrap_err();
    assert!(matches!(error, Error::CapabilityMissing { capability: "readonly-mem", .. }), "{error}");
    map(&memory, 0, PAGE);
}

#[test]
fn a_failed_ioctl_leaves_everything_as_it_was() {
    let fake = Fake::default();
    let memory = fake.memory(4);
    let slot = map(&memory, 0, PAGE);
    memory.write(8, b"kept").unwrap();
    fake.refuse.store(true, Relaxed);
    assert_eq!(code(memory.map(&MapOptions::new(pages(4 * PAGE, PAGE)))), ErrorCode::Ioctl);
    assert_eq!(code(slot.move_to(4 * PAGE)), ErrorCode::Ioctl);
    assert_eq!(code(slot.unmap()), ErrorCode::Ioctl);
    assert_eq!(slots(&memory), [info(0, 0, PAGE)]);
    assert_eq!(slot.range(), pages(0, PAGE));
    let mut found = [0; 4];
    memory.read(8, &mut found).unwrap();
    assert_eq!(&found, b"kept");
    fake.refuse.store(false, Relaxed);
    assert_eq!(map(&memory, 4 * PAGE, PAGE).number(), 1, "the refused number is still free");
    slot.unmap().unwrap();
}

#[test]
fn memory_is_unpublished_before_kvm_deletes_and_unmapped_after() {
    let fake = Fake::default();
    let memory = fake.memory(4);
    let slot = map(&memory, 0, PAGE);
    let mapping = mapping_at_0(&memory);
    let seen = Arc::new(Mutex::new(None));
    let (of_spy, view, watched) = (Arc::clone(&seen), memory.clone(), mapping.clone());
    *fake.spy.lock().unwrap() = Some(Box::new(move |_| {
        *of_spy.lock().unwrap() = Some((view.read(0, &mut [0; 8]).map_err(|error| error.code()), is_mapped(&watched)));
    }));
    slot.unmap().unwrap();
    assert_eq!(*seen.lock().unwrap(), Some((Err(ErrorCode::MemoryHole), true)));
    assert!(!is_mapped(&mapping));
    *fake.spy.lock().unwrap() = None; // it holds the memory
}

#[test]
fn memory_that_kvm_will_not_give_up_stays_mapped() {
    let fake = Fake::default();
    let memory = fake.memory(4);
    map(&memory, 0, PAGE);
    let mapping = mapping_at_0(&memory);
    fake.refuse.store(true, Relaxed);
    memory.close();
    drop(memory);
    assert!(is_mapped(&mapping), "the guest still sees whatever is at this address");
}

#[test]
fn dropping_the_last_handle_deletes_the_slots() {
    let fake = Fake::default();
    let memory = fake.memory(4);
    let slot = map(&memory, 0, PAGE);
    let mapping = mapping_at_0(&memory);
    fake.taken_calls();
    drop(memory);
    assert_eq!(fake.taken_calls(), []);
    drop(slot);
    assert_eq!(fake.taken_calls(), [(0, false, 0, 0)]);
    assert!(!is_mapped(&mapping));
}

#[test]
fn a_closed_memory_refuses_everything() {
    let fake = Fake::default();
    let memory = fake.memory(4);
    let slot = map(&memory, 0, PAGE);
    let mapping = mapping_at_0(&memory);
    memory.close();
    memory.close();
    assert_eq!(fake.taken_calls(), [(0, false, 0, PAGE), (0, false, 0, 0)]);
    assert!(!is_mapped(&mapping), "though a handle of the slot is still there");
    let closed = |result: Result<()>| {
        assert!(matches!(result, Err(Error::Closed { what: "VM" })), "{result:?}");
    };
    closed(memory.map(&MapOptions::new(pages(0, PAGE))).map(drop));
    closed(memory.read(0, &mut [0]));
    closed(memory.write(0, &[]));
    closed(memory.fill(0, 1, 0));
    closed(memory.slots().map(drop));
    closed(memory.slot_at(0).map(drop));
    closed(memory.regions().map(drop));
    closed(memory.change(Vec::new()).map(drop));
    closed(slot.set_readonly(true));
    closed(slot.set_dirty_log(true));
    closed(slot.move_to(PAGE));
    closed(slot.unmap());
}

#[test]
fn a_handle_stands_for_its_slot_and_not_for_the_number() {
    let memory = Fake::default().memory(1);
    let old = map(&memory, 0, PAGE);
    old.unmap().unwrap();
    let new = map(&memory, 0, PAGE);
    assert_eq!(old.number(), new.number());
    assert!(old.info().serial < new.info().serial, "a serial is never used again");
    assert_eq!(memory.slots().unwrap(), [new.info()]);
    for result in [old.unmap(), old.move_to(PAGE)] {
        assert!(matches!(result, Err(Error::Closed { what: "memory slot" })), "{result:?}");
    }
    memory.slot_at(PAGE - 1).unwrap().unwrap().unmap().unwrap();
    assert!(memory.slot_at(0).unwrap().is_none());
}

#[test]
fn accesses_cross_borders_whole_or_not_at_all() {
    let memory = Fake::default().memory(8);
    for gpa in [2 * PAGE, 0, PAGE, 4 * PAGE] {
        map(&memory, gpa, PAGE);
    }
    let size = 3 * usize::try_from(PAGE).unwrap();
    let bytes: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
    memory.write(0, &bytes).unwrap();
    let mut found = vec![0; size];
    memory.read(0, &mut found).unwrap();
    assert_eq!(found, bytes);
    memory.fill(PAGE - 3, PAGE + 6, 7).unwrap();
    memory.read(0, &mut found).unwrap();
    let mut expected = bytes;
    expected[0xffd..0x2003].fill(7);
    assert_eq!(found, expected);

    let mut target = vec![9; size];
    for result in [memory.read(PAGE, &mut target), memory.write(PAGE, &[1; 0x3000]), memory.fill(PAGE, 3 * PAGE, 1)] {
        match result {
            Err(Error::MemoryHole { gpa, range }) => {
                assert_eq!((gpa, range), (3 * PAGE, pages(PAGE, 3 * PAGE)));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(target.iter().all(|byte| *byte == 9));
    memory.read(0, &mut found).unwrap();
    assert_eq!(found, expected, "nothing was written either");
    memory.read(u64::MAX, &mut []).unwrap();
    memory.write(3 * PAGE, &[]).unwrap();
    memory.fill(3 * PAGE, 0, 1).unwrap();
    assert_eq!(code(memory.read(u64::MAX, &mut [0; 2])), ErrorCode::OutOfRange);
}

#[test]
fn content_moves_with_its_slot() {
    let memory = Fake::default().memory(4);
    let slot = map(&memory, PAGE, 2 * PAGE);
    memory.write(PAGE + 5, b"along").unwrap();
    slot.move_to(2 * PAGE).unwrap(); // over itself
    let mut found = [0; 5];
    memory.read(2 * PAGE + 5, &mut found).unwrap();
    assert_eq!(&found, b"along");
    assert_eq!(code(memory.read(PAGE, &mut found)), ErrorCode::MemoryHole);
    assert_eq!(slot.range(), pages(2 * PAGE, 2 * PAGE));
    assert_eq!(slots(&memory), [info(0, 2 * PAGE, 2 * PAGE)]);
}

#[test]
fn a_snapshot_for_rust_vmm_keeps_its_memory_alive() {
    let fake = Fake::default();
    let memory = fake.memory(4);
    assert_eq!(memory.regions().unwrap().num_regions(), 0);
    let upper = map(&memory, PAGE, PAGE);
    map(&memory, 0, PAGE);
    let regions = memory.regions().unwrap();
    regions.write_slice(b"over", GuestAddress(PAGE - 2)).unwrap();
    let mut found = [0; 4];
    memory.read(PAGE - 2, &mut found).unwrap();
    assert_eq!(&found, b"over");
    assert!(regions.read_obj::<u32>(GuestAddress(2 * PAGE - 2)).is_err());
    let last = regions.find_region(GuestAddress(PAGE)).unwrap();
    assert_eq!((last.len(), last.start_addr(), last.range()), (PAGE, GuestAddress(PAGE), pages(PAGE, PAGE)));

    upper.unmap().unwrap();
    assert_eq!(regions.read_obj::<[u8; 2]>(GuestAddress(PAGE)).unwrap(), *b"er");
    memory.close();
    assert_eq!(regions.read_obj::<[u8; 4]>(GuestAddress(PAGE - 2)).unwrap(), *b"over");
    drop(regions);
}

#[test]
fn accesses_run_beside_changes() {
    let memory = Fake::default().memory(16);
    map(&memory, 0, PAGE);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut found = vec![0; 0x2000];
                while !stop.load(Relaxed) {
                    memory.write(0xff0, &[3; 8]).unwrap();
                    match memory.read(0, &mut found) {
                        Ok(()) | Err(Error::MemoryHole { gpa: PAGE, .. }) => {}
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
        for round in 0..2_000 {
            let slot = map(&memory, PAGE, PAGE);
            if round % 2 == 0 {
                slot.move_to(4 * PAGE).unwrap();
            }
            slot.unmap().unwrap();
        }
        stop.store(true, Relaxed);
    });
    assert_eq!(slots(&memory), [info(0, 0, PAGE)]);
}

/// A child that calls in gets an answer and not the parent's memory, whatever another thread was holding.
#[test]
fn a_forked_child_is_told_so() {
    let fake = Fake::default();
    let memory = fake.memory(4);
    let slot = map(&memory, 0, PAGE);
    // SAFETY: the child only makes calls that allocate nothing and take no lock, then leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let forked = [
            memory.map(&MapOptions::new(pages(PAGE, PAGE))).map(drop),
            memory.read(0, &mut [0]),
            memory.write(0, &[0]),
            memory.fill(0, 1, 0),
            memory.slots().map(drop),
            memory.slot_at(0).map(drop),
            memory.regions().map(drop),
            memory.change(Vec::new()).map(drop),
            slot.move_to(PAGE),
            slot.set_dirty_log(true),
            slot.unmap(),
        ]
        .iter()
        .all(|result| matches!(result, Err(Error::Forked)));
        memory.close();
        // SAFETY: takes an integer; runs no destructor and no handler of the parent's.
        unsafe { libc::_exit(if forked { 7 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 7);
    memory.write(0, b"the parent goes on").unwrap();
}
