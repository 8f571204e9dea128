//! Runs, exits, answers, kicks.

use std::{sync::mpsc::channel, thread, time::Duration};

use libtest_mimic::Trial;
use typevisor::{
    Error, Exit,
    bus::{Device, Written},
    vcpu::Outcome,
};
#[cfg(target_arch = "x86_64")]
use typevisor::{GpaRange, bus::Unclaimed, memory::MapOptions};

use crate::{
    machine::{CODE, LIMIT, Machine, Op, assemble, input, out, start},
    support::{PAGE, scaled, trial, x86_only},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        x86_only!("run: port output arrives with its bytes", port_output),
        x86_only!("run: string output arrives whole", string_output),
        x86_only!("run: port input gets the answer, and only one of its size", port_input),
        trial("run: an unanswered exit is never resumed", unanswered),
        x86_only!("run: MMIO is a write with its bytes and a read with its answer", mmio),
        x86_only!("run: a write to a read-only slot is an mmio exit", readonly_write),
        trial("run: an endless guest ends at the limit, and runs on", time_limit),
        trial("run: a kick while idle stops the next run, once", idle_kick),
        trial("run: a kick stops an endless guest on its thread", kick_thread),
        trial("run: cancel stops its run and no other", cancel),
        trial("run: one driver at a time", busy),
        trial("run: settling completes an exit without running on", settle),
        trial("run: registers of a pending exit are raw and not to be written", pending_registers),
        trial("bus: a claimed access never reaches the program", claimed),
        x86_only!("bus: unclaimed ports read ones where told", ones),
        trial("bus: a device that panics is ERR_INTERNAL and the process lives", panicking_device),
        trial("close: an endless guest stops and its run fails with ERR_CLOSED", close_running),
    ]
}

/// The program counter.
const COUNTER: &str = if cfg!(target_arch = "aarch64") { "pc" } else { "rip" };

#[cfg(target_arch = "x86_64")]
fn port_output() {
    // mov al, 'A'; out 0x42, al; hlt
    let machine = Machine::real_mode(&[0xb0, 0x41, 0xe6, 0x42, 0xf4]);
    assert_eq!(machine.run(), Exit::IoOut { port: 0x42, size: 1, count: 1, data: Box::new([0x41]) });
    assert_eq!(machine.run(), Exit::Hlt);
}

#[cfg(target_arch = "x86_64")]
fn string_output() {
    // mov si, 0x2000; mov dx, 0x3f8; mov cx, 5; cld; rep outsb; hlt
    let machine = Machine::real_mode(&[0xbe, 0, 0x20, 0xba, 0xf8, 3, 0xb9, 5, 0, 0xfc, 0xf3, 0x6e, 0xf4]);
    machine.vm.memory().write(0x2000, b"hello").unwrap();
    let mut seen = Vec::new();
    loop {
        match machine.run() {
            Exit::IoOut { port: 0x3f8, size: 1, count, data } => {
                assert_eq!(count as usize, data.len());
                seen.extend(data);
            }
            Exit::Hlt => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, b"hello");
}

#[cfg(target_arch = "x86_64")]
fn port_input() {
    // in eax, 0x10 (16-bit code: 66 e5); mov [0x2000], eax; hlt
    let machine = Machine::real_mode(&[0x66, 0xe5, 0x10, 0x66, 0xa3, 0, 0x20, 0xf4]);
    assert_eq!(machine.run(), Exit::IoIn { port: 0x10, size: 4, count: 1 });
    assert!(matches!(machine.vcpu.answer(&[1]), Err(Error::AnswerSize { expected: 4, given: 1 })));
    assert!(matches!(machine.vcpu.answer_word(1 << 32), Err(Error::AnswerRange { size: 4 })));
    machine.vcpu.answer_word(0x1122_3344).unwrap();
    assert!(matches!(machine.vcpu.answer(&[1, 2, 3, 4]), Err(Error::NoAnswerExpected)));
    assert_eq!(machine.run(), Exit::Hlt);
    let mut stored = [0; 4];
    machine.vm.memory().read(0x2000, &mut stored).unwrap();
    assert_eq!(u32::from_le_bytes(stored), 0x1122_3344);
}

fn unanswered() {
    let machine = Machine::of(&[Op::In(0), Op::End]);
    assert_eq!(machine.run(), input(0));
    for _ in 0..2 {
        assert!(matches!(machine.vcpu.run_sync(LIMIT), Err(Error::ExitUnanswered { size: 1 })));
        assert!(matches!(machine.vcpu.start(1, |_| ()), Err(Error::ExitUnanswered { size: 1 })));
    }
    machine.vcpu.answer(&[7]).unwrap();
    machine.assert_ends();
    assert_eq!(machine.register(), 7);
}

#[cfg(target_arch = "x86_64")]
fn mmio() {
    // mov ax, 0xf000; mov ds, ax; mov word [0], 0x1234; mov ax, [2]; hlt
    let machine = Machine::real_mode(&[0xb8, 0, 0xf0, 0x8e, 0xd8, 0xc7, 6, 0, 0, 0x34, 0x12, 0xa1, 2, 0, 0xf4]);
    assert_eq!(machine.run(), Exit::MmioWrite { gpa: 0xf_0000, data: Box::new([0x34, 0x12]) });
    assert_eq!(machine.run(), Exit::MmioRead { gpa: 0xf_0002, size: 2 });
    machine.vcpu.answer(&[0xcd, 0xab]).unwrap();
    assert_eq!(machine.run(), Exit::Hlt);
    assert_eq!(machine.vcpu.registers().unwrap().0.rax & 0xffff, 0xabcd);
}

#[cfg(target_arch = "x86_64")]
fn readonly_write() {
    // mov ax, 0x2000; mov ds, ax; mov al, [0]; mov [1], al; hlt
    let machine = Machine::real_mode(&[0xb8, 0, 0x20, 0x8e, 0xd8, 0xa0, 0, 0, 0xa2, 1, 0, 0xf4]);
    let rom = GpaRange::pages(0x2_0000, 4096).unwrap();
    let memory = machine.vm.memory();
    memory.map(&MapOptions { readonly: true, ..MapOptions::new(rom) }).unwrap();
    memory.write(0x2_0000, &[0x77, 0x88]).unwrap();
    assert_eq!(machine.run(), Exit::MmioWrite { gpa: 0x2_0001, data: Box::new([0x77]) });
    assert_eq!(machine.run(), Exit::Hlt);
    let mut there = [0; 2];
    memory.read(0x2_0000, &mut there).unwrap();
    assert_eq!(there, [0x77, 0x88]);
}

fn time_limit() {
    let machine = Machine::of(&[Op::Endless, Op::End]);
    for _ in 0..3 {
        let limit = Duration::from_millis(5);
        assert!(matches!(machine.vcpu.run_sync(limit), Err(Error::Timeout { limit_ms: 5, .. })));
    }
    machine.vm.memory().write(CODE + 2 * PAGE, &assemble(&[Op::End])).unwrap();
    machine
        .vcpu
        .update_registers(|registers| {
            registers.set_scalar(COUNTER, CODE + 2 * PAGE).expect("a register");
            Ok(())
        })
        .unwrap();
    machine.assert_ends();
}

fn idle_kick() {
    let machine = Machine::of(&[Op::End]);
    machine.vcpu.kick().unwrap();
    machine.vcpu.kick().unwrap();
    assert_eq!(machine.run(), Exit::Intr);
    machine.assert_ends();
}

fn kick_thread() {
    let machine = Machine::of(&[Op::Endless]);
    for ticket in 0..u64::from(scaled(200)) {
        let outcome = start(&machine.vcpu, ticket);
        if ticket % 2 == 0 {
            thread::yield_now();
        }
        machine.vcpu.kick().unwrap();
        assert_eq!(outcome.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
    }
}

fn cancel() {
    let machine = Machine::of(&[Op::Endless]);
    for ticket in 1..200 {
        machine.vcpu.cancel(ticket);
        let outcome = start(&machine.vcpu, ticket);
        machine.vcpu.cancel(ticket - 1);
        assert!(outcome.recv_timeout(Duration::from_micros(50)).is_err(), "another run's cancellation stopped it");
        machine.vcpu.cancel(ticket);
        assert_eq!(outcome.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
    }
}

fn busy() {
    let machine = Machine::of(&[Op::Endless]);
    let outcome = start(&machine.vcpu, 1);
    assert!(matches!(machine.vcpu.start(2, |_| ()), Err(Error::Busy { .. })));
    assert!(matches!(machine.vcpu.run_sync(LIMIT), Err(Error::Busy { .. })));
    assert!(matches!(machine.vcpu.registers(), Err(Error::Busy { .. })));
    assert!(matches!(machine.vcpu.answer(&[1]), Err(Error::Busy { .. })));
    machine.vcpu.kick().unwrap();
    assert_eq!(outcome.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
    machine.vcpu.registers().unwrap();
}

fn settle() {
    let machine = Machine::of(&[Op::In(0), Op::Endless]);
    assert_eq!(machine.run(), input(0));
    machine.vcpu.answer(&[0x5a]).unwrap();
    let (sender, receiver) = channel();
    machine.vcpu.start_settle(1, move |outcome| sender.send(outcome).unwrap()).unwrap();
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Settled);
    let (registers, pending) = machine.vcpu.registers().unwrap();
    assert!(!pending);
    let counter = registers.scalars().find(|(name, _)| *name == COUNTER).unwrap().1;
    assert_eq!((machine.register(), counter), (0x5a, CODE + assemble(&[Op::In(0)]).len() as u64));
}

fn pending_registers() {
    let machine = Machine::of(&[Op::Load(5), Op::Out(2), Op::End]);
    assert_eq!(machine.run(), out(2, 5));
    assert!(machine.vcpu.registers().unwrap().1);
    let refused = machine.vcpu.update_registers(|registers| {
        registers.set_scalar(COUNTER, 1).expect("a register");
        Ok(())
    });
    assert!(matches!(refused, Err(Error::Busy { .. })));
    machine.assert_ends();
    assert!(!machine.vcpu.registers().unwrap().1);
}

struct Doubler(u8);

impl Device for Doubler {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(self.0 * 2);
    }
    fn write(&mut self, _offset: u64, data: &[u8]) -> Written {
        self.0 = data[0];
        Written::Done
    }
}

fn claimed() {
    let machine = Machine::of(&[Op::Load(21), Op::Out(0), Op::In(0), Op::Out(1), Op::End]);
    machine.claim(0, 1, Box::new(Doubler(0)));
    assert_eq!(machine.run(), out(1, 42));
    machine.assert_ends();
}

#[cfg(target_arch = "x86_64")]
fn ones() {
    // in al, 0x70; out 0x71, al; hlt
    let machine = Machine::real_mode(&[0xe4, 0x70, 0xe6, 0x71, 0xf4]);
    machine.vm.bus().set_unclaimed_ports(Unclaimed::Ones);
    assert_eq!(machine.run(), Exit::Hlt);
    assert_eq!(machine.vcpu.registers().unwrap().0.rax & 0xff, 0xff);
}

struct Broken;

impl Device for Broken {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {
        panic!("a broken device")
    }
    fn write(&mut self, _offset: u64, _data: &[u8]) -> Written {
        Written::Done
    }
}

fn panicking_device() {
    let machine = Machine::of(&[Op::In(0), Op::End]);
    machine.claim(0, 1, Box::new(Broken));
    let Err(Error::Internal { message }) = start(&machine.vcpu, 1).recv_timeout(LIMIT).unwrap() else {
        panic!("the panic was lost");
    };
    assert_eq!(&*message, "a broken device");
    assert!(matches!(machine.vcpu.run_sync(LIMIT), Err(Error::Poisoned { .. })));
    machine.vm.close();
}

fn close_running() {
    let machine = Machine::of(&[Op::Endless]);
    let outcome = start(&machine.vcpu, 1);
    machine.vm.close();
    assert!(matches!(outcome.recv_timeout(LIMIT).unwrap(), Err(Error::Closed { .. })));
    assert!(matches!(machine.vcpu.run_sync(LIMIT), Err(Error::Closed { .. })));
    assert!(matches!(machine.vcpu.kick(), Err(Error::Closed { .. })));
    machine.vm.close();
}
