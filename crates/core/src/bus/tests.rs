//! Claims, without a guest.

use std::{
    sync::{Mutex, atomic::AtomicUsize, mpsc::channel},
    thread,
    time::Duration,
};

use super::*;
use crate::sys::coalesced::{Gathered, Room, test_ring};

/// After which a thread that should have come back hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// On another thread, as a lock that is taken twice never comes back.
fn assert_ends(what: impl FnOnce() + Send + 'static) {
    let (sender, ended) = channel();
    let _thread = thread::spawn(move || {
        what();
        sender.send(()).unwrap();
    });
    ended.recv_timeout(LIMIT).expect("it neither hangs nor panics");
}

/// Offsets and bytes of writes.
type Log = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

/// Remembers what was written and reads as its offset.
struct Recorder(Log);

impl Device for Recorder {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(u8::try_from(offset).unwrap());
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Written {
        self.0.lock().unwrap().push((offset, data.to_vec()));
        Written::Done
    }
}

fn recorder() -> (Box<dyn Device>, Log) {
    let log = Arc::default();
    (Box::new(Recorder(Arc::clone(&log))), log)
}

fn port(address: u64, size: u8, write: bool, data: &[u8]) -> Access<'_> {
    let count = u32::try_from(data.len()).unwrap() / u32::from(size);
    Access { space: Space::Port, write, address, size, count, data, data_at: 0 }
}

#[test]
fn a_string_write_reaches_the_device_element_by_element() {
    let bus = Bus::default();
    let (device, log) = recorder();
    bus.claim_ports(0x3f8, 8, device).unwrap();
    assert!(matches!(bus.handle(&port(0x3f9, 2, true, b"abcd"), &mut []), Handled::Yes));
    assert_eq!(*log.lock().unwrap(), [(1, b"ab".to_vec()), (1, b"cd".to_vec())]);
}

#[test]
fn an_access_across_the_end_of_a_claim_is_an_exit() {
    let bus = Bus::default();
    bus.claim_ports(0x10, 2, recorder().0).unwrap();
    assert!(matches!(bus.handle(&port(0x11, 2, false, &[0, 0]), &mut [0, 0]), Handled::No));
    let mut answer = [0];
    assert!(matches!(bus.handle(&port(0x11, 1, false, &[0]), &mut answer), Handled::Yes));
    assert_eq!(answer, [1]);
}

#[test]
fn claims_do_not_overlap_and_come_back_when_released() {
    let bus = Bus::default();
    let first = bus.claim_ports(0x10, 4, recorder().0).unwrap();
    for (base, count) in [(0x13, 1), (0x0f, 2), (0x0f, 100), (0x10, 4)] {
        assert!(bus.claim_ports(base, count, recorder().0).is_err(), "{base:#x} + {count}");
    }
    let second = bus.claim_ports(0x14, 1, recorder().0).unwrap();
    bus.release(first);
    let third = bus.claim_ports(0x10, 4, recorder().0).unwrap();
    bus.release(first);
    assert!(bus.claim_ports(0x10, 1, recorder().0).is_err(), "a stale id released {third:?}");
    bus.release(second);
    assert!(bus.claim_ports(0xffff, 1, recorder().0).is_ok());
    assert!(bus.claim_ports(0xffff, 2, recorder().0).is_err());
}

#[test]
fn unclaimed_ports_read_ones_only_where_told() {
    let bus = Bus::default();
    let mut answer = [0; 4];
    assert!(matches!(bus.handle(&port(0x70, 4, false, &[0; 4]), &mut answer), Handled::No));
    bus.set_unclaimed_ports(Unclaimed::Ones);
    assert!(matches!(bus.handle(&port(0x70, 4, false, &[0; 4]), &mut answer), Handled::Yes));
    assert_eq!(answer, [0xff; 4]);
    let mmio = Access { space: Space::Mmio, ..port(0x70, 4, false, &[0; 4]) };
    assert!(matches!(bus.handle(&mmio, &mut answer), Handled::No));
}

/// A device whose end uses the bus that it stood on.
struct UsesBus(Bus, Arc<AtomicUsize>);

impl Device for UsesBus {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}
    fn write(&mut self, _offset: u64, _data: &[u8]) -> Written {
        Written::Done
    }
}

impl Drop for UsesBus {
    fn drop(&mut self) {
        self.0.release(self.0.claim_ports(0x80, 1, Owner::Program(1)).unwrap());
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_owner_may_use_the_bus_as_it_ends() {
    assert_ends(|| {
        let (bus, ends) = (Bus::default(), Arc::new(AtomicUsize::new(0)));
        let device = || Box::new(UsesBus(bus.clone(), Arc::clone(&ends)));
        let claim = bus.claim_ports(0x10, 4, device()).unwrap();
        assert!(bus.claim_ports(0x13, 1, device()).is_err());
        assert_eq!(ends.load(Ordering::Relaxed), 1, "the one that was refused");
        bus.release(claim);
        assert_eq!(ends.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_forked_process_takes_no_lock_that_a_thread_of_the_parents_may_hold() {
    let mut bus = Bus::default();
    let claim = bus.claim_ports(0x10, 1, Owner::Program(1)).unwrap();
    Arc::get_mut(&mut bus.shared).unwrap().become_a_childs();
    let (_kernel, _claims, _consumer) = (bus.shared.kernel(), bus.shared.claims_mut(), bus.shared.consumer());
    let child = bus.clone();
    assert_ends(move || {
        assert!(matches!(child.claim_ports(0x20, 1, Owner::Program(1)), Err(Error::Forked)));
        child.release(claim);
        child.flush();
        assert!(!child.is_in_kernel(claim) && child.posted_counters(claim).is_none());
    });
}

/// A bus as KVM would gather for it, with one claim and its ring.
fn gathering(queue: &Arc<Queue<PostedWrite>>) -> (Bus, Ring) {
    let (bus, ring) = (Bus::default(), test_ring());
    bus.attach(ring.clone());
    bus.claim_ports(0x10, 1, Owner::Posted { queue: Arc::clone(queue), program: 1 }).unwrap();
    bus.shared.begin_gathering().unwrap();
    (bus, ring)
}

fn gather(ring: &Ring, value: u64) {
    assert!(ring.gather(Room::Exact, Gathered { address: 0x10, size: 1, port: true, value }));
}

#[test]
fn a_flush_puts_what_was_gathered_into_the_queue_though_no_vcpu_exits() {
    let queue = Queue::posted(drop);
    let (bus, ring) = gathering(&queue);
    gather(&ring, 7);
    assert!(bus.has_gathered(&ring));
    bus.flush();
    assert!(!bus.has_gathered(&ring));
    assert_eq!(queue.take(), [PostedWrite { offset: 0, size: 1, value: 7 }]);
    bus.close();
}

#[test]
fn a_reader_may_release_and_close_as_it_is_woken() {
    // By the thread that looks, by an exit, and by a flush.
    for way in [|_: &Bus| (), Bus::drain, Bus::flush] {
        assert_ends(move || {
            let (sender, woken) = channel::<Bus>();
            let (done, closes) = channel();
            let woken = Mutex::new(woken);
            let queue = Queue::posted(move |_arrived| {
                let bus = woken.lock().unwrap().recv().unwrap();
                bus.release(bus.claim_ports(0x80, 1, Owner::Program(1)).unwrap());
                bus.close();
                done.send(()).unwrap();
            });
            let (bus, ring) = gathering(&queue);
            sender.send(bus.clone()).unwrap();
            gather(&ring, 7);
            bus.begin_run();
            way(&bus);
            closes.recv_timeout(LIMIT).unwrap();
            bus.end_run();
            bus.close();
            assert_eq!(queue.take().len(), 1);
        });
    }
}

#[test]
fn a_release_that_is_over_has_left_no_write_on_its_way() {
    for round in 0..100 {
        let (bus, queue) = (Bus::default(), Queue::posted(drop));
        let claim = bus.claim_ports(0x10, 1, Owner::Posted { queue: Arc::clone(&queue), program: 1 }).unwrap();
        let guest = bus.clone();
        let writer = thread::spawn(move || {
            let mut writes = 0;
            while !matches!(guest.handle(&port(0x10, 1, true, &[1]), &mut []), Handled::No) {
                writes += 1;
            }
            writes
        });
        while queue.room() > 8192 - round % 50 {
            thread::yield_now();
        }
        bus.release(claim);
        let taken = queue.take().len();
        assert_eq!(writer.join().unwrap(), taken);
    }
}
