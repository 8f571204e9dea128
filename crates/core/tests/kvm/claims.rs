//! Claims on the bus with a guest behind them: the program's, posted ones, and the devices in Rust.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use libtest_mimic::Trial;
#[cfg(target_arch = "x86_64")]
use typevisor::bus::{ConsoleBuffer, Doorbell, SerialConsole};
use typevisor::{
    Error, Exit,
    bus::{Latch, Owner, PostedWrite, Queue},
    vcpu::{Claimed, Outcome, Step, WhenFull},
};

use crate::{
    machine::{DEVICE, LIMIT, Machine, Op, is_end, out, start},
    support::{trial, x86_only},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("claim: the program's writes and reads say whose they are", program),
        trial("claim: a run on its thread says whose an access is", program_on_a_thread),
        x86_only!("claim: a string access arrives whole", program_string),
        trial("claim: a step after an unanswered read is refused", unanswered_step),
        trial("claim: the limit holds for all steps of a run", limit_over_steps),
        trial("claim: posted writes come in order and reads end the run", posted),
        many_exits(x86_only!("claim: a full posted queue holds the vCPU until it is read", posted_full)),
        many_exits(x86_only!("claim: a full posted queue is a step where asked", posted_full_step)),
        trial("device: a latch, seen from both sides", latch),
        x86_only!("device: a doorbell counts without an exit", doorbell),
        x86_only!("device: a serial console sends and receives", serial),
    ]
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn many_exits(trial: Trial) -> Trial {
    crate::support::unscaled(trial)
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn many_exits(trial: Trial) -> Trial {
    trial // it is x86_64's, and left out
}

fn access(claim: u64, offset: u64, write: bool, value: u64) -> Claimed {
    let (count, elements) = (1, Box::default());
    let mut claimed = template();
    claimed.claim = claim;
    claimed.address = DEVICE + offset;
    (claimed.offset, claimed.write, claimed.value) = (offset, write, value);
    (claimed.count, claimed.elements) = (count, elements);
    claimed
}

fn template() -> Claimed {
    Claimed {
        claim: 0,
        mmio: cfg!(target_arch = "aarch64"),
        address: 0,
        offset: 0,
        write: false,
        size: 1,
        count: 1,
        value: 0,
        elements: Box::default(),
    }
}

const OUT_IN_OUT: [Op; 5] = [Op::Load(21), Op::Out(1), Op::In(2), Op::Out(1), Op::End];

fn program() {
    let machine = Machine::of(&OUT_IN_OUT);
    machine.claim(0, 4, Owner::Program(77));
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
    machine.assert_ends();
}

fn program_on_a_thread() {
    let machine = Machine::of(&OUT_IN_OUT);
    machine.claim(0, 4, Owner::Program(77));
    let next = || {
        let receiver = start(&machine.vcpu, 1);
        receiver.recv_timeout(LIMIT).unwrap().unwrap()
    };
    assert_eq!(next(), Outcome::Claimed(access(77, 1, true, 21)));
    assert_eq!(next(), Outcome::Claimed(access(77, 2, false, 0)));
    machine.vcpu.answer_word(99).unwrap();
    // Without steps it is an exit as any other.
    assert_eq!(machine.run(), out(1, 99));
    let end = next();
    assert!(matches!(&end, Outcome::Exit(exit) if is_end(exit)), "{end:?}");
}

#[cfg(target_arch = "x86_64")]
/// mov si, 0x2000; mov dx, 0x10; mov cx, 5; cld; rep outsb; hlt
const STRING: [u8; 13] = [0xbe, 0, 0x20, 0xba, 0x10, 0, 0xb9, 5, 0, 0xfc, 0xf3, 0x6e, 0xf4];

#[cfg(target_arch = "x86_64")]
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
    let machine = Machine::of(&[Op::In(0), Op::End]);
    machine.claim(0, 1, Owner::Program(1));
    let mut run = machine.vcpu.begin_sync(LIMIT).unwrap();
    assert!(matches!(run.step(WhenFull::Wait).unwrap(), Step::Claimed(_)));
    assert!(matches!(run.step(WhenFull::Wait), Err(Error::ExitUnanswered { size: 1 })));
    assert!(matches!(machine.vcpu.begin_sync(LIMIT), Err(Error::Busy { .. })));
    drop(run);
    assert!(matches!(machine.vcpu.begin_sync(LIMIT), Err(Error::ExitUnanswered { size: 1 })));
}

fn limit_over_steps() {
    let machine = Machine::of(&[Op::In(0), Op::Again]);
    machine.claim(0, 1, Owner::Program(1));
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
    let machine = Machine::of(&OUT_IN_OUT);
    let queue = Queue::posted(drop);
    let owner = Owner::Posted { queue: Arc::clone(&queue), program: 8 };
    machine.claim(0, 4, owner);
    let mut run = machine.vcpu.begin_sync(LIMIT).unwrap();
    assert_eq!(run.step(WhenFull::Wait).unwrap(), Step::Claimed(access(8, 2, false, 0)));
    run.answer(&[3]).unwrap();
    let end = run.step(WhenFull::Wait).unwrap();
    assert!(matches!(&end, Step::Exit(exit) if is_end(exit)), "{end:?}");
    let write = |value| PostedWrite { offset: 1, size: 1, value };
    assert_eq!(queue.take(), [write(21), write(3)]);
}

#[cfg(target_arch = "x86_64")]
/// inc ax; out 0x10, ax (16 bits); jmp -5
const COUNT: [u8; 5] = [0x40, 0xe7, 0x10, 0xeb, 0xfb];

#[cfg(target_arch = "x86_64")]
fn counting() -> (Machine, Arc<Queue<PostedWrite>>) {
    let machine = Machine::real_mode(&COUNT);
    let queue = Queue::posted(drop);
    let owner = Owner::Posted { queue: Arc::clone(&queue), program: 8 };
    machine.vm.bus().claim_ports(0x10, 2, owner).unwrap();
    (machine, queue)
}

#[cfg(target_arch = "x86_64")]
fn assert_in_order(writes: &[PostedWrite], next: &mut u64) {
    for write in writes {
        *next += 1;
        assert_eq!(*write, PostedWrite { offset: 0, size: 2, value: *next & 0xffff });
    }
}

/// What a queue of posted writes holds at most: its own, and what a ring held and the exit behind it brought.
#[cfg(target_arch = "x86_64")]
const MOST: usize = 8192 + 170;

#[cfg(target_arch = "x86_64")]
fn posted_full() {
    let (machine, queue) = counting();
    let receiver = start(&machine.vcpu, 1);
    let mut next = 0;
    let began = std::time::Instant::now();
    while next < 30_000 {
        assert!(began.elapsed() < LIMIT, "the guest stands still after {next} writes");
        let writes = queue.take();
        assert!(writes.len() <= MOST, "{} wait", writes.len());
        assert_in_order(&writes, &mut next);
        std::thread::yield_now();
    }
    // Full by then, as a rule: a kick reaches a vCPU that waits.
    assert!(receiver.recv_timeout(Duration::from_millis(200)).is_err());
    machine.vcpu.kick().unwrap();
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
    assert!(!machine.vcpu.registers().unwrap().1);
    let rest = queue.take();
    assert!(rest.len() <= MOST, "{} wait", rest.len());
    assert_in_order(&rest, &mut next);
}

#[cfg(target_arch = "x86_64")]
fn posted_full_step() {
    let (machine, queue) = counting();
    let mut run = machine.vcpu.begin_sync(LIMIT).unwrap();
    let mut next = 0;
    for _ in 0..3 {
        assert_eq!(run.step(WhenFull::Return).unwrap(), Step::Full);
        let writes = queue.take();
        assert!((8192..=MOST).contains(&writes.len()), "{} wait", writes.len());
        assert_in_order(&writes, &mut next);
    }
}

fn latch() {
    let machine = Machine::of(&OUT_IN_OUT);
    let (latch, value) = Latch::new();
    machine.claim(1, 2, Box::new(latch));
    machine.assert_ends();
    assert_eq!(value.load(Ordering::Relaxed), 21);
    assert_eq!(machine.register(), 21);
}

#[cfg(target_arch = "x86_64")]
fn doorbell() {
    let machine = Machine::real_mode(&STRING);
    let (doorbell, fd) = Doorbell::new().unwrap();
    machine.vm.bus().claim_ports(0x10, 1, Box::new(doorbell)).unwrap();
    assert_eq!(machine.run(), Exit::Hlt);
    assert_eq!(fd.read().unwrap(), 5);
}

#[cfg(target_arch = "x86_64")]
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
