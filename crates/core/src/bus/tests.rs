//! Claims, without a guest.

use super::*;

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
