//! What keeps a buffer is a program's own: it may change slots of the same VM as it goes, or panic. Each way out of a VM is
//! taken with one that does.
#![expect(unsafe_code, reason = "lends buffers")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use super::{Fake, PAGE, code, pages};
use crate::{
    error::ErrorCode,
    memory::{Backing, Change, GuestMemory, HostBuffer, MapOptions, MemorySlot},
    sys::mapping::{Mapping, Source},
};

/// Far more than anything here takes: no test passes by it.
const LIMIT: Duration = Duration::from_secs(20);

/// Memory that calls when nobody needs it any more.
struct Keep<F: Fn() + Send + Sync> {
    _mapping: Mapping,
    gone: F,
}

impl<F: Fn() + Send + Sync> Drop for Keep<F> {
    fn drop(&mut self) {
        (self.gone)();
    }
}

fn anonymous(gpa: u64) -> MapOptions {
    MapOptions::new(pages(gpa, PAGE))
}

/// A page of a buffer at `gpa`, that calls `gone`.
fn kept(gpa: u64, gone: impl Fn() + Send + Sync + 'static) -> MapOptions {
    let mapping = Mapping::of(Source::Anonymous, 0x1000).unwrap();
    let address = mapping.address();
    // SAFETY: the mapping lives in `Keep`, and nobody has a reference into it.
    let buffer = unsafe { HostBuffer::new(address, 0x1000, Arc::new(Keep { _mapping: mapping, gone })) }.unwrap();
    MapOptions { backing: Backing::Buffer(buffer), ..anonymous(gpa) }
}

/// Lets go of the last reference to a buffer; the flag has KVM refuse.
type Way = fn(&GuestMemory, &AtomicBool, MapOptions);

fn mapped(memory: &GuestMemory, options: MapOptions) -> MemorySlot {
    let slot = memory.map(&options).unwrap();
    drop(options); // the slot has the last reference
    slot
}

const WAYS: [(&str, Way); 6] = [
    ("unmapped", |memory, _, options| mapped(memory, options).unmap().unwrap()),
    ("unmapped in a list", |memory, _, options| {
        let slot = mapped(memory, options);
        memory.change(vec![Change::Unmap(slot)]).unwrap();
    }),
    ("refused by KVM", |memory, refuse, options| {
        refuse.store(true, Relaxed);
        assert_eq!(code(memory.change(vec![Change::Map(options)])), ErrorCode::Ioctl);
    }),
    ("in a list that is refused", |memory, _, options| {
        let overlapping = anonymous(options.range.gpa());
        let list = vec![Change::Map(options), Change::Map(overlapping)];
        assert_eq!(code(memory.change(list)), ErrorCode::SlotOverlap);
    }),
    ("too short", |memory, _, options| {
        let longer = MapOptions { range: pages(BUFFER, 2 * PAGE), ..options };
        assert_eq!(code(memory.change(vec![Change::Map(longer)])), ErrorCode::InvalidArgument);
    }),
    ("closed", |memory, _, options| {
        mapped(memory, options);
        memory.close();
    }),
];

/// Where the buffer lies in the guest.
const BUFFER: u64 = 8 * PAGE;

/// On a thread of its own, which a deadlock keeps and the test does not wait for.
#[test]
fn it_may_change_slots_as_it_goes() {
    for (way, go) in WAYS {
        let fake = Fake::default();
        let memory = fake.memory(4);
        let (sender, changed) = channel();
        let inside = memory.clone();
        let buffer = kept(BUFFER, move || sender.send(inside.map(&anonymous(0)).map(drop)).unwrap());
        let refuse = Arc::clone(&fake.refuse);
        let caller = thread::spawn(move || go(&memory, &refuse, buffer));
        let changed = changed.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("{way}: it waits for its own lock"));
        let expected = match way {
            "refused by KVM" => Err(ErrorCode::Ioctl),
            "closed" => Err(ErrorCode::Closed),
            _ => Ok(()),
        };
        assert_eq!(changed.map_err(|error| error.code()), expected, "{way}");
        caller.join().unwrap();
    }
}

#[test]
fn it_may_panic_and_what_was_done_is_done() {
    for (way, go) in WAYS {
        let fake = Fake::default();
        let memory = fake.memory(4);
        let buffer = kept(BUFFER, || panic!("a keep's own"));
        assert!(catch_unwind(AssertUnwindSafe(|| go(&memory, &fake.refuse, buffer))).is_err(), "{way}");
        fake.refuse.store(false, Relaxed);
        if way == "closed" {
            assert_eq!(code(memory.slots()), ErrorCode::Closed);
            continue;
        }
        // A change that fails takes back what it entered itself, and nothing of the one before.
        assert_eq!(
            code(memory.change(vec![Change::Map(anonymous(0)), Change::Map(anonymous(0))])),
            ErrorCode::SlotOverlap
        );
        assert_eq!(memory.slots().unwrap(), [], "{way}");
        assert_eq!(memory.map(&anonymous(BUFFER)).unwrap().number(), 0, "{way}");
    }
}
