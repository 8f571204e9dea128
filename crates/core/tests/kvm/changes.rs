//! Slot changes under running vCPUs: what guests see of them, and what programs do not.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc::channel,
    },
    thread,
    time::Instant,
};

use libtest_mimic::Trial;
use typevisor::{
    Error, ErrorCode, Exit, GpaRange, Result, Vcpu, Vm,
    bus::{Device, Written},
    hooks::ioctls,
    host::Capability,
    memory::{Backing, Change, GuestMemory, MapOptions, MemorySlot},
    vcpu::{Outcome, VcpuOptions},
};

use crate::{
    backing_support::with_guest_memfd,
    machine::{CODE, LIMIT, Machine, Op, assemble, boot, input, is_end, out, start},
    support::{PAGE, kvm_is_here, needs, pages, scaled, trial, vm},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("change: 500 swaps of a slot under a running reader bring no exit", swaps_under_a_reader),
        trial("change: 500 swaps of the slot that holds the running code bring no exit", swaps_of_the_code),
        with_guest_memfd("change: swaps of guest memfds under a reader bring no exit", guest_memfds),
        trial("change: a plain remove and add under a reader does bring exits", plain_swaps_are_seen),
        needs(Capability::ReadonlyMem, "change: ROM to RAM and back brings the guest's writes and no more", toggles),
        trial("change: kicks beside it end one run each", kicks),
        trial("change: pending completions are left as they are", completions),
        trial("change: from a device, with another vCPU in the guest", from_a_device),
        trial("change: from the callback of a run", from_a_callback),
        trial("change: closing the VM beside it ends both", closing),
        trial("change: on the control thread, which may be the last to hold the VM", on_the_control_thread),
        trial("change: what KVM's document rules out is refused before the ioctl", refused_before_the_ioctl),
        trial("change: the dirty log is switched by one ioctl under a running vCPU", dirty_log),
        all_slots_trial("change: every slot that KVM reports can share one mapping"),
        needs(Capability::MultiAddressSpace, "change: two address spaces have slots of their own", two_spaces),
    ]
}

/// The slot that is changed, outside of the machine's own RAM.
const SLOT: u64 = 0x3_0000;

/// Where guests count, in that RAM.
const COUNT: u64 = 0x8000;

fn ram(gpa: u64) -> MapOptions {
    MapOptions::new(pages(gpa, PAGE))
}

fn share(slot: &MemorySlot, gpa: u64) -> MapOptions {
    MapOptions { backing: Backing::Share { slot: slot.clone(), offset: 0 }, ..ram(gpa) }
}

/// Counts in [`COUNT`] for ever; `touch` comes before each count.
#[cfg(target_arch = "x86_64")]
fn counting(touch: &[u8]) -> Vec<u8> {
    let start = [0xb8, 0, 0x30, 0x8e, 0xd8, 0x31, 0xc0, 0x8e, 0xc0]; // mov ax, SLOT / 16; mov ds, ax; xor ax, ax; mov es, ax
    let count = [0x26, 0xff, 0x06, 0, 0x80]; // inc word es:[COUNT]
    let again = 0_u8.wrapping_sub(u8::try_from(touch.len() + count.len() + 2).unwrap());
    [&start, touch, &count, &[0xeb, again]].concat()
}

/// Counts in [`COUNT`] for ever; `touch` comes before each count.
#[cfg(target_arch = "aarch64")]
fn counting(touch: &[u8]) -> Vec<u8> {
    let count = [0x7940_0044, 0x1100_0484, 0x7900_0044]; // ldrh w4, [x2]; add w4, w4, #1; strh w4, [x2]
    let words = u32::try_from(touch.len()).unwrap() / 4 + 3;
    let again = 0x1400_0000 | 0_u32.wrapping_sub(words) & 0x3ff_ffff;
    [touch, &crate::machine::code(&count), &crate::machine::code(&[again])].concat()
}

#[cfg(target_arch = "x86_64")]
fn read_slot() -> Vec<u8> {
    vec![0xa0, 0, 0] // mov al, [0]
}

#[cfg(target_arch = "aarch64")]
fn read_slot() -> Vec<u8> {
    crate::machine::code(&[0x3940_0023]) // ldrb w3, [x1]
}

/// Writes a number that grows to the slot, and reads beside it. 32 bits: a guest that writes RAM for long must not come to
/// the same number again.
#[cfg(target_arch = "x86_64")]
fn write_slot() -> Vec<u8> {
    vec![0x66, 0x41, 0x66, 0x89, 0x0e, 0, 0, 0xa0, 4, 0] // inc ecx; mov [0], ecx; mov al, [4]
}

/// Writes a number that grows to the slot, and reads beside it.
#[cfg(target_arch = "aarch64")]
fn write_slot() -> Vec<u8> {
    crate::machine::code(&[0x1100_0463, 0xb900_0023, 0x3940_1025]) // add w3, w3, #1; str w3, [x1]; ldrb w5, [x1, #4]
}

/// Puts the machine's vCPU at the start of a guest that knows where slot and count are.
fn begin(machine: &Machine, entry: u64) {
    boot(&machine.vcpu, entry);
    #[cfg(target_arch = "x86_64")]
    machine
        .vcpu
        .update_registers(|registers| {
            registers.rcx = 0;
            Ok(())
        })
        .unwrap();
    #[cfg(target_arch = "aarch64")]
    machine
        .vcpu
        .update_registers(|registers| {
            (registers.x1, registers.x2, registers.x3) = (SLOT, COUNT, 0);
            Ok(())
        })
        .unwrap();
}

fn number(memory: &GuestMemory, gpa: u64) -> u16 {
    let mut bytes = [0; 2];
    memory.read(gpa, &mut bytes).unwrap();
    u16::from_le_bytes(bytes)
}

/// Until it holds; no test passes by the limit.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what}");
        thread::yield_now();
    }
}

/// The guest has counted on: it ran.
fn wait_for_progress(memory: &GuestMemory) {
    let before = number(memory, COUNT);
    wait_until("the guest stands still", || number(memory, COUNT) != before);
}

/// Two slots of the same content elsewhere, whose memory [`SLOT`] is to have in turn.
fn banks(memory: &GuestMemory, content: &[u8]) -> [MemorySlot; 2] {
    [0x10_0000, 0x11_0000].map(|gpa| {
        let slot = memory.map(&ram(gpa)).unwrap();
        memory.write(gpa, content).unwrap();
        slot
    })
}

/// A machine whose guest runs at `entry`, and the slot at [`SLOT`].
fn machine(touch: &[u8], entry: u64) -> (Machine, [MemorySlot; 2], MemorySlot) {
    let machine = Machine::of(&[]);
    let memory = machine.vm.memory();
    memory.write(CODE, &counting(touch)).unwrap();
    let banks = banks(memory, &counting(&[]));
    let slot = memory.map(&share(&banks[0], SLOT)).unwrap();
    begin(&machine, entry);
    (machine, banks, slot)
}

/// Closes the VM where the test has failed, which ends its runs and changes: a scope waits for the threads that make them,
/// and a red test would hang.
struct Ending<'a>(&'a Vm);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.close();
        }
    }
}

/// Swaps the slot at [`SLOT`] under the running guest. Nothing but the kick at the end ends the run.
fn assert_unseen(touch: &[u8], entry: u64) {
    let (machine, banks, mut slot) = machine(touch, entry);
    let memory = machine.vm.memory();
    let outcome = start(&machine.vcpu, 1);
    for round in 0..scaled(500) {
        wait_for_progress(memory);
        let next = &banks[usize::from(round % 2 == 0)];
        slot = memory.change(vec![Change::Unmap(slot), Change::Map(share(next, SLOT))]).unwrap().remove(0);
        assert!(outcome.try_recv().is_err(), "round {round} was seen");
    }
    wait_for_progress(memory);
    machine.vcpu.kick().unwrap();
    assert_eq!(outcome.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
}

fn swaps_under_a_reader() {
    assert_unseen(&read_slot(), CODE);
}

fn swaps_of_the_code() {
    assert_unseen(&[], SLOT);
}

fn guest_memfds() {
    let (machine, _, mut slot) = machine(&read_slot(), CODE);
    let memory = machine.vm.memory();
    let fixed = MapOptions { backing: Backing::GuestMemfd, ..ram(SLOT) };
    let swap = |slot| memory.change(vec![Change::Unmap(slot), Change::Map(fixed.clone())]);
    slot = swap(slot).unwrap().remove(0);
    let before = ioctls();
    for refused in [slot.move_to(SLOT + PAGE), slot.set_readonly(true), slot.set_dirty_log(true)] {
        assert_eq!(refused.unwrap_err().code(), ErrorCode::InvalidArgument);
    }
    assert_eq!(ioctls(), before);
    let outcome = start(&machine.vcpu, 1);
    for _ in 0..scaled(50) {
        wait_for_progress(memory);
        slot = swap(slot).unwrap().remove(0);
        assert!(outcome.try_recv().is_err(), "it was seen");
    }
    machine.vcpu.kick().unwrap();
    assert_eq!(outcome.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
}

/// Runs the machine's vCPU on a thread of its own until a kick that `stop` announces; shows each exit.
fn run_until_stopped(vcpu: &Vcpu, stop: &AtomicBool, mut see: impl FnMut(Exit)) {
    loop {
        match vcpu.run_sync(LIMIT).unwrap() {
            Exit::Intr if stop.load(SeqCst) => return,
            exit => see(exit),
        }
    }
}

/// Without it the tests above would prove nothing.
fn plain_swaps_are_seen() {
    let (machine, banks, mut slot) = machine(&read_slot(), CODE);
    let (memory, vcpu) = (machine.vm.memory(), &machine.vcpu);
    let (stop, spurious) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _ending = Ending(&machine.vm);
        let runner = scope.spawn(|| {
            run_until_stopped(vcpu, &stop, |exit| {
                assert_eq!(exit, Exit::MmioRead { gpa: SLOT, size: 1 });
                vcpu.answer(&[0]).unwrap();
                spurious.fetch_add(1, SeqCst);
            });
        });
        let began = Instant::now();
        for bank in banks.iter().cycle() {
            if spurious.load(SeqCst) > 0 || began.elapsed() > LIMIT || runner.is_finished() {
                break;
            }
            wait_for_progress(memory);
            slot.unmap().unwrap();
            slot = memory.map(&share(bank, SLOT)).unwrap();
        }
        stop.store(true, SeqCst);
        vcpu.kick().unwrap();
        runner.join().unwrap();
    });
    assert!(spurious.load(SeqCst) > 0, "no guest ever saw the hole");
}

fn toggles() {
    let (machine, _, slot) = machine(&write_slot(), CODE);
    let (memory, vcpu) = (machine.vm.memory(), &machine.vcpu);
    let (stop, exits) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _ending = Ending(&machine.vm);
        scope.spawn(|| {
            let mut last = 0;
            run_until_stopped(vcpu, &stop, |exit| {
                let Exit::MmioWrite { gpa: SLOT, data } = &exit else { panic!("{exit:?}") };
                let written = u32::from_le_bytes(data[..].try_into().unwrap());
                assert!(written > last, "a write came twice");
                last = written;
                exits.fetch_add(1, SeqCst);
            });
        });
        for _ in 0..scaled(200) {
            slot.set_readonly(true).unwrap();
            let (before, content) = (exits.load(SeqCst), number(memory, SLOT));
            wait_until("no write came out", || exits.load(SeqCst) > before + 2);
            assert_eq!(number(memory, SLOT), content, "the guest wrote ROM");
            slot.set_readonly(false).unwrap();
            wait_until("the guest cannot write RAM", || number(memory, SLOT) != content);
        }
        stop.store(true, SeqCst);
        vcpu.kick().unwrap();
    });
    assert!(!slot.readonly());
    let (_, pending) = vcpu.registers().unwrap();
    assert!(!pending);
}

/// Changes the slot again and again until told to stop, with a change at least.
fn churn(memory: &GuestMemory, banks: &[MemorySlot; 2], mut slot: MemorySlot, stop: &AtomicBool) -> Result<u64> {
    for (round, bank) in (1..).zip(banks.iter().cycle()) {
        slot = memory.change(vec![Change::Unmap(slot), Change::Map(share(bank, SLOT))])?.remove(0);
        if stop.load(SeqCst) {
            return Ok(round);
        }
    }
    Ok(0)
}

fn kicks() {
    let (machine, banks, slot) = machine(&read_slot(), CODE);
    let (memory, vcpu) = (machine.vm.memory(), &machine.vcpu);
    let (stop, stop_runs, ends) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let rounds = u64::from(scaled(200));
    thread::scope(|scope| {
        let _ending = Ending(&machine.vm);
        let changer = scope.spawn(|| churn(memory, &banks, slot, &stop));
        scope.spawn(|| {
            run_until_stopped(vcpu, &stop_runs, |exit| {
                assert_eq!(exit, Exit::Intr);
                ends.fetch_add(1, SeqCst);
            });
        });
        for round in 0..rounds {
            wait_for_progress(memory);
            assert_eq!(ends.load(SeqCst), round, "a run ended without a kick");
            vcpu.kick().unwrap();
            wait_until("a kick was used up", || ends.load(SeqCst) > round);
        }
        stop.store(true, SeqCst);
        assert!(changer.join().unwrap().unwrap() > 0);
        stop_runs.store(true, SeqCst);
        vcpu.kick().unwrap();
    });
    assert_eq!(ends.load(SeqCst), rounds);
}

fn completions() {
    let (machine, banks, slot) = machine(&[], CODE);
    let (memory, vcpu) = (machine.vm.memory(), &machine.vcpu);
    memory.write(CODE, &assemble(&[Op::In(0), Op::Out(1), Op::Again])).unwrap();
    boot(vcpu, CODE);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ending = Ending(&machine.vm);
        let changer = scope.spawn(|| churn(memory, &banks, slot, &stop));
        for round in 0..scaled(300) {
            let value = u8::try_from(round % 251).unwrap();
            assert_eq!(machine.run(), input(0));
            vcpu.answer(&[value]).unwrap();
            if round % 3 == 0 {
                let (sender, settled) = channel();
                vcpu.start_settle(u64::from(round), move |outcome| sender.send(outcome).unwrap()).unwrap();
                assert_eq!(settled.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Settled);
            }
            assert_eq!(machine.run(), out(1, value));
        }
        stop.store(true, SeqCst);
        assert!(changer.join().unwrap().unwrap() > 0);
    });
}

/// Makes a slot read-only, and back, at each write: 0 and 1.
struct Switch(Arc<OnceLock<(MemorySlot, Weak<Vm>)>>);

impl Device for Switch {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }
    fn write(&mut self, _offset: u64, data: &[u8]) -> Written {
        let (slot, vm) = self.0.get().unwrap();
        assert!(vm.upgrade().is_some());
        slot.set_dirty_log(data[0] == 0).unwrap();
        slot.move_to(SLOT + PAGE * u64::from(data[0])).unwrap();
        let memory = vm.upgrade().unwrap().memory().clone();
        let bank = memory.map(&ram(0x20_0000)).unwrap();
        memory.change(vec![Change::Unmap(bank), Change::Map(ram(0x21_0000))]).unwrap().remove(0).unmap().unwrap();
        Written::Done
    }
}

fn from_a_device() {
    let ops = [Op::Load(1), Op::Out(0), Op::Load(0), Op::Out(0), Op::Load(1), Op::Out(0), Op::End];
    let machine = Machine::of(&ops);
    let spinner = 0x4000;
    machine.vm.memory().write(spinner, &assemble(&[Op::Endless])).unwrap();
    let slot = machine.vm.memory().map(&ram(SLOT)).unwrap();
    let what = Arc::new(OnceLock::new());
    machine.claim(0, 1, Box::new(Switch(Arc::clone(&what))));
    let Machine { vcpu, vm } = machine;
    let vm = Arc::new(vm);
    what.set((slot.clone(), Arc::downgrade(&vm))).unwrap();
    let other = vm.create_vcpu(VcpuOptions::default()).unwrap();
    boot(&other, spinner);
    let outcome = start(&other, 1);
    for _ in 0..scaled(50) {
        boot(&vcpu, CODE);
        assert!(is_end(&vcpu.run_sync(LIMIT).unwrap()));
        assert_eq!(slot.range().gpa(), SLOT + PAGE);
    }
    other.kick().unwrap();
    assert_eq!(outcome.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
}

fn from_a_callback() {
    let machine = Machine::of(&[Op::End]);
    let memory = machine.vm.memory().clone();
    let (sender, changed) = channel();
    let done = move |_| {
        let change = |memory: &GuestMemory| {
            let slot = memory.map(&ram(SLOT))?;
            memory.change(vec![Change::Unmap(slot), Change::Map(ram(SLOT))])
        };
        sender.send(change(&memory)).unwrap();
    };
    machine.vcpu.start(1, done).unwrap();
    assert_eq!(changed.recv_timeout(LIMIT).expect("it waits for itself").unwrap().len(), 1);
}

fn closing() {
    for round in 0..scaled(20) {
        let (machine, banks, slot) = machine(&read_slot(), CODE);
        let memory = machine.vm.memory().clone();
        let (vcpu, never) = (&machine.vcpu, AtomicBool::new(false));
        thread::scope(|scope| {
            let _ending = Ending(&machine.vm);
            let changer = scope.spawn(|| churn(&memory, &banks, slot, &never));
            let runner = scope.spawn(|| vcpu.run_sync(LIMIT));
            if round % 2 == 0 {
                wait_for_progress(&memory);
            }
            machine.vm.close();
            assert_eq!(changer.join().unwrap().unwrap_err().code(), ErrorCode::Closed);
            assert!(matches!(runner.join().unwrap(), Err(Error::Closed { .. })));
        });
    }
}

fn on_the_control_thread() {
    let (machine, banks, slot) = machine(&read_slot(), CODE);
    let memory = machine.vm.memory().clone();
    let outcome = start(&machine.vcpu, 1);
    let (sender, changed) = channel();
    let job = move || {
        let outcome = memory.change(vec![Change::Unmap(slot), Change::Map(share(&banks[1], SLOT))]);
        sender.send((outcome, thread::current().name().map(str::to_owned))).unwrap();
    };
    machine.vm.control().submit(Box::new(job)).unwrap();
    let (slots, name) = changed.recv_timeout(LIMIT).unwrap();
    assert_eq!((slots.unwrap().len(), name.as_deref()), (1, Some("kvm-control")));
    machine.vcpu.kick().unwrap();
    assert_eq!(outcome.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));

    let control = machine.vm.control().clone();
    let memory = machine.vm.memory().clone();
    control.submit(Box::new(move || drop(machine))).unwrap();
    wait_until("the VM is not closed", || memory.slots().is_err());
    wait_until("the thread takes jobs", || control.submit(Box::new(|| ())).is_err());
}

fn refused_before_the_ioctl() {
    let (vm, other) = (vm(), vm());
    let memory = vm.memory();
    let [low, high] = [0, 4 * PAGE].map(|gpa| memory.map(&ram(gpa)).unwrap());
    let gone = memory.map(&ram(8 * PAGE)).unwrap();
    gone.unmap().unwrap();
    let foreign = other.memory().map(&ram(0)).unwrap();
    let limit = u32::try_from(vm.capabilities().value(Capability::NrMemslots)).unwrap();
    let spaces = u32::try_from(vm.capabilities().value(Capability::MultiAddressSpace)).unwrap().max(1);
    let range = |gpa, size| MapOptions::new(GpaRange::new(gpa, size).unwrap());
    let before = (ioctls(), memory.slots().unwrap());
    let maps = [
        (range(1, PAGE), ErrorCode::Unaligned),
        (range(PAGE, PAGE + 1), ErrorCode::Unaligned),
        (range(PAGE, 1 << 43), ErrorCode::InvalidArgument),
        (range(0, PAGE), ErrorCode::SlotOverlap),
        (range(3 * PAGE, 2 * PAGE), ErrorCode::SlotOverlap),
        (MapOptions { slot: Some(high.number()), ..ram(PAGE) }, ErrorCode::InvalidArgument),
        (MapOptions { slot: Some(limit), ..ram(PAGE) }, ErrorCode::OutOfRange),
        (MapOptions { slot: Some(0x1_0002), ..ram(PAGE) }, ErrorCode::OutOfRange), // another space by its number
        (
            MapOptions { backing: Backing::Share { slot: low.clone(), offset: PAGE }, ..ram(PAGE) },
            ErrorCode::InvalidArgument,
        ),
        (MapOptions { backing: Backing::Share { slot: low.clone(), offset: 1 }, ..ram(PAGE) }, ErrorCode::Unaligned),
        (MapOptions { backing: Backing::Share { slot: gone.clone(), offset: 0 }, ..ram(PAGE) }, ErrorCode::Closed),
        (
            MapOptions { address_space: Some(spaces), ..ram(PAGE) },
            if spaces == 1 { ErrorCode::CapabilityMissing } else { ErrorCode::OutOfRange },
        ),
    ];
    for (number, (options, expected)) in maps.into_iter().enumerate() {
        assert_eq!(memory.map(&options).unwrap_err().code(), expected, "map {number}");
        let listed = vec![Change::Unmap(high.clone()), Change::Map(ram(20 * PAGE)), Change::Map(options)];
        // With `high` gone two of them are good.
        let made_room = number == 4 || number == 5;
        if !made_room {
            assert_eq!(memory.change(listed).unwrap_err().code(), expected, "change {number}");
        }
    }
    let changes = [
        (Change::Move(low.clone(), 1), ErrorCode::Unaligned),
        (Change::Move(low.clone(), 4 * PAGE), ErrorCode::SlotOverlap),
        (Change::Move(low.clone(), 1 << 52), ErrorCode::OutOfRange),
        (Change::Move(gone.clone(), 0), ErrorCode::Closed),
        (Change::Unmap(gone.clone()), ErrorCode::Closed),
        (Change::SetReadonly(gone.clone(), true), ErrorCode::Closed),
        (Change::Unmap(foreign), ErrorCode::InvalidArgument),
    ];
    for (number, (change, expected)) in changes.into_iter().enumerate() {
        assert_eq!(memory.change(vec![change]).unwrap_err().code(), expected, "change {number}");
    }
    for result in [gone.unmap(), gone.move_to(PAGE), gone.set_readonly(true), gone.set_dirty_log(true)] {
        assert_eq!(result.unwrap_err().code(), ErrorCode::Closed);
    }
    assert_eq!((ioctls(), memory.slots().unwrap()), before);
    low.move_to(PAGE).unwrap();
    assert_eq!(ioctls(), before.0 + 1, "the counter counts");
}

fn dirty_log() {
    let (machine, _, slot) = machine(&write_slot(), CODE);
    let memory = machine.vm.memory();
    let outcome = start(&machine.vcpu, 1);
    for _ in 0..scaled(50) {
        for on in [true, false] {
            let before = ioctls();
            slot.set_dirty_log(on).unwrap();
            assert_eq!((ioctls(), slot.dirty_log()), (before + 1, on));
            wait_for_progress(memory);
        }
    }
    machine.vcpu.kick().unwrap();
    assert_eq!(outcome.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
}

/// Slots that a machine under emulation fills in a few seconds.
const FEW_SLOTS: u32 = 1000;

fn all_slots_trial(name: &'static str) -> Trial {
    let slots = match kvm_is_here() {
        Ok(()) => u32::try_from(vm().capabilities().value(Capability::NrMemslots)).unwrap(),
        Err(_) => 0, // main skips every test then
    };
    let trial = trial(name, all_slots);
    if slots > FEW_SLOTS && scaled(slots) < slots {
        return trial.with_kind("needs speed").with_ignored_flag(true);
    }
    trial
}

fn all_slots() {
    let vm = vm();
    let memory = vm.memory();
    let limit = u64::try_from(vm.capabilities().value(Capability::NrMemslots)).unwrap();
    let first = memory.map(&ram(0)).unwrap();
    let rest: Vec<_> = (1..limit).map(|n| Change::Map(share(&first, 2 * n * PAGE))).collect();
    let slots = memory.change(rest).unwrap();
    assert_eq!(slots.len() as u64, limit - 1);
    memory.write(0, b"one").unwrap();
    let mut found = [0; 3];
    memory.read(2 * (limit - 1) * PAGE, &mut found).unwrap();
    assert_eq!(&found, b"one");
    let before = ioctls();
    assert_eq!(memory.map(&share(&first, 2 * limit * PAGE)).unwrap_err().code(), ErrorCode::SlotLimit);
    assert_eq!(ioctls(), before);
    slots[6].unmap().unwrap();
    assert_eq!(memory.map(&share(&first, 2 * limit * PAGE)).unwrap().number(), slots[6].number());
}

fn two_spaces() {
    let vm = vm();
    let memory = vm.memory();
    let other = memory.address_space(1).unwrap();
    let slots = [memory, &other].map(|memory| memory.map(&ram(PAGE)).unwrap());
    assert_eq!(slots.clone().map(|slot| (slot.address_space(), slot.number())), [(0, 0), (1, 0)]);
    memory.write(PAGE, b"normal").unwrap();
    other.write(PAGE, b"system").unwrap();
    let mut found = [0; 6];
    memory.read(PAGE, &mut found).unwrap();
    assert_eq!(&found, b"normal");
    slots[1].move_to(4 * PAGE).unwrap();
    slots[1].set_readonly(true).unwrap();
    other.read(4 * PAGE, &mut found).unwrap();
    assert_eq!(&found, b"system");
    assert_eq!(memory.read(4 * PAGE, &mut found).unwrap_err().code(), ErrorCode::MemoryHole);
    assert_eq!(slots.clone().map(|slot| slot.readonly()), [false, true]);
    let ioctl = ioctls();
    assert_eq!(memory.address_space(2).unwrap_err().code(), ErrorCode::OutOfRange);
    assert_eq!(ioctls(), ioctl);
    slots[1].unmap().unwrap();
    assert_eq!((memory.slots().unwrap().len(), other.slots().unwrap().len()), (1, 0));
}
