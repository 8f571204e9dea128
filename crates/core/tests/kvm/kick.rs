//! Where a kick or a limit leaves the guest, and that it arrives.
#![expect(unsafe_code, reason = "blocks signals")]

use std::{
    mem::MaybeUninit,
    sync::{Arc, mpsc::channel},
    thread,
    time::Duration,
};

use libtest_mimic::Trial;
#[cfg(target_arch = "x86_64")]
use std::sync::{OnceLock, Weak};
use typevisor::{
    Error, Exit,
    bus::{Device, Written},
    vcpu::Outcome,
};
#[cfg(target_arch = "x86_64")]
use typevisor::{GpaRange, Vcpu, bus::Unclaimed};

use crate::{
    machine::{LIMIT, Machine, Op, start},
    support::{alone, trial, x86_only},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        x86_only!("kick: it leaves the guest between two instructions", between_instructions),
        x86_only!("kick: an exit on the way out is delivered and the kick stays", exit_on_the_way_out),
        alone("kick: any number of them waits for a thread without harm", flood),
        trial("run_sync: the limit holds on a thread that blocks all signals", blocked_signals),
    ]
}

#[cfg(target_arch = "x86_64")]
fn between_instructions() {
    // in al, 0x60; jmp -4
    let machine = Machine::real_mode(&[0xe4, 0x60, 0xeb, 0xfc]);
    machine.vm.bus().set_unclaimed_ports(Unclaimed::Ones);
    for ticket in 0..100 {
        let receiver = start(&machine.vcpu, ticket);
        if ticket % 2 == 0 {
            thread::sleep(Duration::from_micros(200));
        }
        machine.vcpu.kick().unwrap();
        assert_eq!(receiver.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
        assert!(!machine.vcpu.registers().unwrap().1, "round {ticket}");
        let limited = machine.vcpu.run_sync(Duration::from_micros(300));
        assert!(matches!(limited, Err(Error::Timeout { .. })));
        assert!(!machine.vcpu.registers().unwrap().1, "round {ticket}, limit");
    }
}

/// Kicks its own vCPU when it is read.
#[cfg(target_arch = "x86_64")]
struct Kicker(Arc<OnceLock<Weak<Vcpu>>>);

#[cfg(target_arch = "x86_64")]
impl Device for Kicker {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0x5a);
        self.0.get().unwrap().upgrade().unwrap().kick().unwrap();
    }
    fn write(&mut self, _offset: u64, _data: &[u8]) -> Written {
        Written::Done
    }
}

#[cfg(target_arch = "x86_64")]
fn exit_on_the_way_out() {
    // mov ax, 0xf000; mov ds, ax; mov es, ax; xor si, si; mov di, 0x10; movsb; hlt
    let code = [0xb8, 0, 0xf0, 0x8e, 0xd8, 0x8e, 0xc0, 0x31, 0xf6, 0xbf, 0x10, 0, 0xa4, 0xf4];
    let Machine { vcpu, vm } = Machine::real_mode(&code);
    let (vcpu, kicked) = (Arc::new(vcpu), Arc::new(OnceLock::new()));
    kicked.set(Arc::downgrade(&vcpu)).unwrap();
    vm.bus().claim_mmio(GpaRange::new(0xf_0000, 1).unwrap(), Box::new(Kicker(kicked))).unwrap();
    // The read is Rust's; completing it brings the write of the same instruction.
    assert_eq!(vcpu.run_sync(LIMIT).unwrap(), Exit::MmioWrite { gpa: 0xf_0010, data: Box::new([0x5a]) });
    assert_eq!(vcpu.run_sync(LIMIT).unwrap(), Exit::Intr);
    assert!(!vcpu.registers().unwrap().1);
    assert_eq!(vcpu.run_sync(LIMIT).unwrap(), Exit::Hlt);
}

/// Blocks all signals on the vCPU's thread until it is told to go on.
struct Deaf(std::sync::mpsc::Receiver<()>);

impl Device for Deaf {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }
    fn write(&mut self, _offset: u64, _data: &[u8]) -> Written {
        let old = block_all();
        self.0.recv().unwrap(); // it is inside
        self.0.recv().unwrap();
        // SAFETY: the set came from the same call.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, std::ptr::null_mut()) };
        Written::Done
    }
}

fn block_all() -> libc::sigset_t {
    let (mut all, mut old) = (MaybeUninit::<libc::sigset_t>::zeroed(), MaybeUninit::<libc::sigset_t>::zeroed());
    // SAFETY: fills the set it is given.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the first set was filled in, the second is written to.
    assert_eq!(unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr()) }, 0);
    // SAFETY: the call above wrote it.
    unsafe { old.assume_init() }
}

fn flood() {
    let machine = Machine::of(&[Op::Out(0), Op::Endless]);
    let (go, receiver) = std::sync::mpsc::sync_channel(0);
    machine.claim(0, 1, Box::new(Deaf(receiver)));
    let outcome = start(&machine.vcpu, 1);
    go.send(()).unwrap();
    (0..1000).for_each(|_| machine.vcpu.kick().unwrap());
    go.send(()).unwrap();
    assert_eq!(outcome.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
}

fn blocked_signals() {
    let machine = Arc::new(Machine::of(&[Op::Endless]));
    let limit = Duration::from_millis(20);
    // The watchdog exists before the second thread comes.
    assert!(matches!(machine.vcpu.run_sync(limit), Err(Error::Timeout { .. })));
    let (sender, receiver) = channel();
    let other = Arc::clone(&machine);
    thread::spawn(move || {
        block_all();
        let outcome = other.vcpu.run_sync(limit);
        drop(other);
        sender.send(outcome).unwrap();
    });
    // Without the signal the guest would run for ever: the thread, and the machine with it, would be left behind.
    let outcome = receiver.recv_timeout(Duration::from_secs(10)).expect("the limit passed unseen");
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
}
