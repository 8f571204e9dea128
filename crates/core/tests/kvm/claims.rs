//! Claims on the bus with a guest behind them: the program's, posted ones, and the devices in Rust.

use std::{
    sync::{Arc, atomic::Ordering, mpsc::channel},
    time::Duration,
};

use libtest_mimic::Trial;
use typevisor::{
    Error, Exit,
    bus::{ConsoleBuffer, Doorbell, Latch, Owner, PostedWrite, Queue, SerialConsole},
    vcpu::{Claimed, Outcome, Step, WhenFull},
};

use crate::{
    machine::{LIMIT, Machine},
    support::trial,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("claim: the program's writes and reads say whose they are", program),
        trial("claim: a run on its thread says whose an access is", program_on_a_thread),
        trial("claim: a string access arrives whole", program_string),
        trial("claim: a step after an unanswered read is refused", unanswered_step),
        trial("claim: the limit holds for all steps of a run", limit_over_steps),
        trial("claim: posted writes come in order and reads end the run", posted),
        trial("claim: a full posted queue holds the vCPU until it is read", posted_full),
        trial("claim: a full posted queue is a step where asked", posted_full_step),
        trial("device: a latch, seen from both sides", latch),
        trial("device: a doorbell counts without an exit", doorbell),
        trial("device: a serial console sends and receives", serial),
    ]
}

fn access(claim: u64, offset: u64, write: bool, value: u64) -> Claimed {
    let (count, elements) = (1, Box::default());
    let mut claimed = template();
    claimed.claim = claim;
    claimed.address = 0x10 + offset;
    (claimed.offset, claimed.write, claimed.value) = (offset, write, value);
    (claimed.count, claimed.elements) = (count, elements);
    claimed
}

fn template() -> Claimed {
    Claimed {
        claim: 0,
        mmio: false,
        address: 0,
        offset: 0,
        write: false,
        size: 1,
        count: 1,
        value: 0,
        elements: Box::default(),
    }
}

/// mov al, 21; out 0x11, al; in al, 0x12; out 0x11, al; hlt
const OUT_IN_OUT: [u8; 9] = [0xb0, 21, 0xe6, 0x11, 0xe4, 0x12, 0xe6, 0x11, 0xf4];

fn program() {
    let machine = Machine::real_mode(&OUT_IN_OUT);
    machine.vm.bus().claim_ports(0x10, 4, Owner::Program(77)).unwrap();
    let mut run = machine.vcpu.begin_sync(LIMIT).unwrap();
    assert_eq!(run.step(WhenFull::Wait).unwrap(), Step::Claimed(access(77, 1, true, 21)));
    assert!(matches!(run.answer(&[1]), Err(Error::NoAnswerExpected)));
    assert_eq!(run.step(WhenFull::Wait).unwrap(), Step::Claimed(access(77, 2, false, 0)));
    assert!(matches!(run.answer_word(256), Err(Error::AnswerRange { size: 1 })));
    run.answer_word(99).unwrap();
    assert_eq!(run.step(WhenFull::Wait).unwrap(), Step::Claimed(access(77, 1, true, 99)));
    assert!(matches!(machine.vcpu.kick(), Ok(())));
    assert_eq!(run.step(WhenFull::Wait).unwrap(), Step::Exit(Exit::Intr));
    drop(run);
    assert_eq!(machine.run(), Exit::Hlt);
}

fn program_on_a_thread() {
    let machine = Machine::real_mode(&OUT_IN_OUT);
    machine.vm.bus().claim_ports(0x10, 4, Owner::Program(77)).unwrap();
    let next = || {
        let (sender, receiver) = channel();
        machine.vcpu.start(1, move |outcome| sender.send(outcome).unwrap()).unwrap();
        receiver.recv_timeout(LIMIT).unwrap().unwrap()
    };
    assert_eq!(next(), Outcome::Claimed(access(77, 1, true, 21)));
    assert_eq!(next(), Outcome::Claimed(access(77, 2, false, 0)));
    machine.vcpu.answer_word(99).unwrap();
    // Without steps it is an exit as any other.
    assert_eq!(machine.run(), Exit::IoOut { port: 0x11, size: 1, count: 1, data: Box::new([99]) });
    assert_eq!(next(), Outcome::Exit(Exit::Hlt));
}

/// mov si, 0x2000; mov dx, 0x10; mov cx, 5; cld; rep outsb; hlt
const STRING: [u8; 13] = [0xbe, 0, 0x20, 0xba, 0x10, 0, 0xb9, 5, 0, 0xfc, 0xf3, 0x6e, 0xf4];

fn program_string() {
    let machine = Machine::real_mode(&STRING);
    machine.vm.memory().write(0x2000, b"hello").unwrap();
    machine.vm.bus().claim_ports(0x10, 1, Owner::Program(1)).unwrap();
    let mut run = machine.vcpu.begin_sync(LIMIT).unwrap();
    let mut seen = Vec::new();
    // KVM gives one element an exit, or several: both are right.
    while let Step::Claimed(claimed) = run.step(WhenFull::Wait).unwrap() {
        assert_eq!((claimed.claim, claimed.size, claimed.offset), (1, 1, 0));
        match claimed.count {
            1 => seen.push(u8::try_from(claimed.value).unwrap()),
            count => {
                assert_eq!(claimed.elements.len(), count as usize);
                seen.extend(claimed.elements);
            }
        }
    }
    assert_eq!(seen, b"hello");
}

fn unanswered_step() {
    // in al, 0x10; hlt
    let machine = Machine::real_mode(&[0xe4, 0x10, 0xf4]);
    machine.vm.bus().claim_ports(0x10, 1, Owner::Program(1)).unwrap();
    let mut run = machine.vcpu.begin_sync(LIMIT).unwrap();
    assert!(matches!(run.step(WhenFull::Wait).unwrap(), Step::Claimed(_)));
    assert!(matches!(run.step(WhenFull::Wait), Err(Error::ExitUnanswered { size: 1 })));
    assert!(matches!(machine.vcpu.begin_sync(LIMIT), Err(Error::Busy { .. })));
    drop(run);
    assert!(matches!(machine.vcpu.begin_sync(LIMIT), Err(Error::ExitUnanswered { size: 1 })));
}

fn limit_over_steps() {
    // in al, 0x10; jmp -4
    let machine = Machine::real_mode(&[0xe4, 0x10, 0xeb, 0xfc]);
    machine.vm.bus().claim_ports(0x10, 1, Owner::Program(1)).unwrap();
    let mut run = machine.vcpu.begin_sync(Duration::from_millis(20)).unwrap();
    let end = loop {
        match run.step(WhenFull::Wait) {
            Ok(Step::Claimed(_)) => run.answer_word(0).unwrap(),
            other => break other,
        }
    };
    assert!(matches!(end, Err(Error::Timeout { limit_ms: 20, .. })), "{end:?}");
}

fn posted() {
    let machine = Machine::real_mode(&OUT_IN_OUT);
    let queue = Queue::posted(drop);
    let owner = Owner::Posted { queue: Arc::clone(&queue), program: 8 };
    machine.vm.bus().claim_ports(0x10, 4, owner).unwrap();
    let mut run = machine.vcpu.begin_sync(LIMIT).unwrap();
    assert_eq!(run.step(WhenFull::Wait).unwrap(), Step::Claimed(access(8, 2, false, 0)));
    run.answer(&[3]).unwrap();
    assert_eq!(run.step(WhenFull::Wait).unwrap(), Step::Exit(Exit::Hlt));
    let write = |value| PostedWrite { offset: 1, size: 1, value };
    assert_eq!(queue.take(), [write(21), write(3)]);
}

/// inc ax; out 0x10, ax (16 bits); jmp -5
const COUNT: [u8; 5] = [0x40, 0xe7, 0x10, 0xeb, 0xfb];

fn counting() -> (Machine, Arc<Queue<PostedWrite>>) {
    let machine = Machine::real_mode(&COUNT);
    let queue = Queue::posted(drop);
    let owner = Owner::Posted { queue: Arc::clone(&queue), program: 8 };
    machine.vm.bus().claim_ports(0x10, 2, owner).unwrap();
    (machine, queue)
}

fn assert_in_order(writes: &[PostedWrite], next: &mut u64) {
    for write in writes {
        *next += 1;
        assert_eq!(*write, PostedWrite { offset: 0, size: 2, value: *next & 0xffff });
    }
}

fn posted_full() {
    let (machine, queue) = counting();
    let (sender, receiver) = channel();
    machine.vcpu.start(1, move |outcome| sender.send(outcome).unwrap()).unwrap();
    let mut next = 0;
    while next < 30_000 {
        let writes = queue.take();
        assert!(writes.len() <= 8192, "{} wait", writes.len());
        assert_in_order(&writes, &mut next);
        std::thread::yield_now();
    }
    // Full by then, as a rule: a kick reaches a vCPU that waits.
    assert!(receiver.recv_timeout(Duration::from_millis(200)).is_err());
    machine.vcpu.kick().unwrap();
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
    assert!(!machine.vcpu.registers().unwrap().1);
    let rest = queue.take();
    assert!(rest.len() <= 8192, "{} wait", rest.len());
    assert_in_order(&rest, &mut next);
}

fn posted_full_step() {
    let (machine, queue) = counting();
    let mut run = machine.vcpu.begin_sync(LIMIT).unwrap();
    let mut next = 0;
    for _ in 0..3 {
        assert_eq!(run.step(WhenFull::Return).unwrap(), Step::Full);
        let writes = queue.take();
        assert_eq!(writes.len(), 8192);
        assert_in_order(&writes, &mut next);
    }
}

fn latch() {
    let machine = Machine::real_mode(&OUT_IN_OUT);
    let (latch, value) = Latch::new();
    machine.vm.bus().claim_ports(0x11, 2, Box::new(latch)).unwrap();
    assert_eq!(machine.run(), Exit::Hlt);
    assert_eq!(value.load(Ordering::Relaxed), 21);
    assert_eq!(machine.vcpu.registers().unwrap().0.rax & 0xff, 21);
}

fn doorbell() {
    let machine = Machine::real_mode(&STRING);
    let (doorbell, fd) = Doorbell::new().unwrap();
    machine.vm.bus().claim_ports(0x10, 1, Box::new(doorbell)).unwrap();
    assert_eq!(machine.run(), Exit::Hlt);
    assert_eq!(fd.read().unwrap(), 5);
}

fn serial() {
    // mov dx, 0x3f8; in al, dx; add al, 1; out dx, al; hlt
    let machine = Machine::real_mode(&[0xba, 0xf8, 3, 0xec, 4, 1, 0xee, 0xf4]);
    let buffer = ConsoleBuffer::console(drop);
    let (port, input) = SerialConsole::new(Arc::clone(&buffer));
    machine.vm.bus().claim_ports(0x3f8, 8, Box::new(port)).unwrap();
    assert_eq!(input.send(b"A"), 1);
    assert_eq!(machine.run(), Exit::Hlt);
    assert_eq!(buffer.take(), b"B");
}
