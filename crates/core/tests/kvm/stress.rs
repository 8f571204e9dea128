//! Slots that change under running vCPUs, from many threads at once. Each vCPU writes a counter into words of its own, all
//! over the memory, and checks them; what it cannot reach because a slot is away arrives as an exit, and the host does it
//! on the same memory elsewhere. So whatever the other threads do, no word may ever be other than it was written last.
//!
//! Short here; with `TYPEVISOR_TIER=full` (`npm run test:full`) long, and under `AddressSanitizer`.

use std::{
    env,
    ops::Range,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread::{self, ScopedJoinHandle},
    time::Instant,
};

use libtest_mimic::Trial;
use typevisor::{
    Error, ErrorCode, Exit, GpaRange, Result, Vcpu, Vm,
    memory::{Backing, Change, GuestMemory, MapOptions, MemorySlot},
    vcpu::{BootMode, BootOptions, Privilege, VcpuOptions},
};

use crate::{
    machine::{CODE, LIMIT},
    support::{PAGE, alone, pages, resources, scaled, vm},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        alone("stress: vCPUs lose no write while slots come, move, change and go, and nothing leaks", churn),
        alone("stress: a VM that closes amid changes ends them all with ERR_CLOSED", close_amid),
    ]
}

/// How often each thread does what it does.
pub(crate) fn rounds(quick: u32, full: u32) -> u32 {
    if env::var("TYPEVISOR_TIER").is_ok_and(|tier| tier == "full") { full } else { scaled(quick) }
}

const VCPUS: u64 = 3;
/// The word of a page that the host writes; those of the vCPUs are the first ones.
const HOST_WORD: u64 = 8 * VCPUS;

/// A stretch of memory, and what happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bank {
    /// Nothing, so no access may exit.
    Still,
    /// It moves away and back, in one ioctl each.
    Moves,
    /// It is removed and added.
    Comes,
    /// Its flags change: reads may never exit.
    Flags,
    /// It is replaced, in transactions: no access may exit.
    Swaps,
}

const BANKS: [Bank; 5] = [Bank::Still, Bank::Moves, Bank::Comes, Bank::Flags, Bank::Swaps];
const BANK_SIZE: u64 = 4 * PAGE;
/// The banks as the guest knows them, one behind the other.
const HOME: Range<u64> = 0x10_0000..0x10_0000 + 5 * BANK_SIZE;
/// The same memory in a slot that stays.
const POOL: u64 = 0x4000_0000;
/// Where banks go that move.
const AWAY: u64 = 0x8000_0000;
/// Memory of its own comes and goes here.
const FRESH: u64 = 0x9000_0000;
/// No slot is ever here.
const NOWHERE: u64 = 0xa000_0000;

impl Bank {
    fn offset(self) -> u64 {
        self as u64 * BANK_SIZE
    }

    fn home(self) -> u64 {
        HOME.start + self.offset()
    }

    /// The bank that lies there, as the guest sees it.
    fn at(gpa: u64) -> Option<Self> {
        BANKS.into_iter().find(|bank| (bank.home()..bank.home() + BANK_SIZE).contains(&gpa))
    }

    /// Whether a vCPU may find it missing, or not writable.
    fn may_exit(self, write: bool) -> bool {
        matches!((self, write), (Self::Moves | Self::Comes, _) | (Self::Flags, true))
    }
}

/// The whole machine.
struct Field {
    vm: Vm,
    pool: MemorySlot,
    vcpus: Vec<Vcpu>,
}

impl Field {
    fn new() -> Self {
        let vm = vm();
        vm.memory().map(&MapOptions::new(pages(CODE, PAGE))).unwrap();
        vm.memory().write(CODE, &program()).unwrap();
        let pool = vm.memory().map(&MapOptions::new(pages(POOL, HOME.end - HOME.start))).unwrap();
        let mut field = Self { vm, pool, vcpus: Vec::new() };
        for bank in BANKS {
            field.memory().map(&field.bank(bank)).unwrap();
        }
        field.vcpus = (0..VCPUS).map(|index| field.vcpu(index)).collect();
        field
    }

    fn vcpu(&self, index: u64) -> Vcpu {
        let vcpu = self.vm.create_vcpu(VcpuOptions::default()).unwrap();
        let (mode, privilege) = MODE;
        vcpu.boot(&BootOptions { privilege, ..BootOptions::new(mode, CODE) }).unwrap();
        vcpu.update_registers(|registers| {
            for (name, value) in REGISTERS.into_iter().zip([0, HOME.start + 8 * index, HOME.end, NOWHERE]) {
                registers.set_scalar(name, value).unwrap();
            }
            Ok(())
        })
        .unwrap();
        vcpu
    }

    fn memory(&self) -> &GuestMemory {
        self.vm.memory()
    }

    /// A bank, at home.
    fn bank(&self, bank: Bank) -> MapOptions {
        let backing = Backing::Share { slot: self.pool.clone(), offset: bank.offset() };
        MapOptions { backing, ..MapOptions::new(pages(bank.home(), BANK_SIZE)) }
    }

    fn slot(&self, bank: Bank) -> Result<MemorySlot> {
        Ok(self.memory().slot_at(bank.home())?.expect("it is at home between rounds"))
    }

    /// What stands in each word of a vCPU, by address.
    fn words(&self, index: u64) -> Vec<u64> {
        let word = |page| {
            let mut bytes = [0; 8];
            self.memory().read(POOL + page * PAGE + 8 * index, &mut bytes).unwrap();
            u64::from_le_bytes(bytes)
        };
        (0..(HOME.end - HOME.start) / PAGE).map(word).collect()
    }

    /// Runs a vCPU until `stop` is set and it was kicked.
    fn run(&self, vcpu: &Vcpu, stop: &AtomicBool) -> Result<()> {
        while !stop.load(SeqCst) {
            match vcpu.run_sync(LIMIT)? {
                Exit::MmioWrite { gpa, data } => self.memory().write(mirrored(gpa, true), &data)?,
                Exit::MmioRead { gpa, size } => {
                    let mut bytes = vec![0; size.into()];
                    self.memory().read(mirrored(gpa, false), &mut bytes)?;
                    vcpu.answer(&bytes)?;
                }
                Exit::Intr => {}
                exit => panic!("vCPU {}: {exit:?} is how a guest says that a word is wrong", vcpu.id()),
            }
        }
        Ok(())
    }
}

/// Where in the pool the memory is that a vCPU did not reach.
fn mirrored(gpa: u64, write: bool) -> u64 {
    assert!(Bank::at(gpa).is_some_and(|bank| bank.may_exit(write)), "{gpa:#x}, write: {write}: {:?}", Bank::at(gpa));
    POOL + (gpa - HOME.start)
}

/// Waits for what other threads bring about.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "{what}");
        thread::yield_now();
    }
}

/// The refusal that was to come; the VM may be closed instead.
fn refused<T: std::fmt::Debug>(result: Result<T>, code: ErrorCode) -> Result<()> {
    match result {
        Err(error @ Error::Closed { what: "VM" }) => Err(error),
        Err(error) if error.code() == code => Ok(()),
        other => panic!("not {}: {other:?}", code.as_str()),
    }
}

/// What threads do, one round each.
const ROUNDS: [fn(&Field, u32) -> Result<()>; 7] = [moves, comes, flags, swaps, fresh, refusals, host];

fn moves(field: &Field, _round: u32) -> Result<()> {
    let slot = field.slot(Bank::Moves)?;
    slot.move_to(AWAY)?;
    slot.move_to(Bank::Moves.home())
}

fn comes(field: &Field, _round: u32) -> Result<()> {
    field.slot(Bank::Comes)?.unmap()?;
    field.memory().map(&field.bank(Bank::Comes)).map(drop)
}

fn flags(field: &Field, round: u32) -> Result<()> {
    let slot = field.slot(Bank::Flags)?;
    slot.set_dirty_log(round.is_multiple_of(2))?;
    slot.set_readonly(true)?;
    slot.set_dirty_log(round.is_multiple_of(3))?;
    slot.set_readonly(false)
}

fn swaps(field: &Field, _round: u32) -> Result<()> {
    let slot = field.slot(Bank::Swaps)?;
    let again = || Change::Map(field.bank(Bank::Swaps));
    let slots = field.memory().change(vec![Change::Unmap(slot), again()])?;
    let slot = slots.into_iter().next().expect("one for each map");
    let elsewhere = AWAY + BANK_SIZE;
    field
        .memory()
        .change(vec![Change::Move(slot.clone(), elsewhere), Change::Move(slot.clone(), Bank::Swaps.home())])?;
    let changes = vec![Change::SetReadonly(slot.clone(), true), Change::SetReadonly(slot.clone(), false)];
    field.memory().change(changes)?;
    let over_pool = Change::Map(MapOptions::new(pages(POOL, PAGE)));
    refused(field.memory().change(vec![Change::Unmap(slot), again(), over_pool]), ErrorCode::SlotOverlap)
}

/// Memory of its own, so that one that is not given back shows.
fn fresh(field: &Field, round: u32) -> Result<()> {
    let slot = field.memory().map(&MapOptions::new(pages(FRESH, 16 * PAGE)))?;
    let (written, mut read) = (round.to_le_bytes(), [0; 4]);
    field.memory().write(FRESH + PAGE, &written)?;
    field.memory().read(FRESH + PAGE, &mut read)?;
    assert_eq!(read, written);
    slot.unmap()?;
    refused(slot.unmap(), ErrorCode::Closed)
}

fn refusals(field: &Field, _round: u32) -> Result<()> {
    let memory = field.memory();
    let at = |gpa, size| memory.map(&MapOptions::new(GpaRange::new(gpa, size).unwrap()));
    refused(at(POOL + PAGE, PAGE), ErrorCode::SlotOverlap)?;
    refused(at(NOWHERE + 1, PAGE), ErrorCode::Unaligned)?;
    refused(field.pool.move_to(CODE), ErrorCode::SlotOverlap)?;
    refused(memory.read(NOWHERE, &mut [0]), ErrorCode::MemoryHole)?;
    let far = MapOptions { slot: Some(u32::MAX), ..MapOptions::new(pages(NOWHERE, PAGE)) };
    refused(memory.map(&far), ErrorCode::OutOfRange)
}

/// The host writes where the guest does. A bank that is away is a hole, and nothing was written then.
fn host(field: &Field, round: u32) -> Result<()> {
    for page in (HOME.start..HOME.end).step_by(4096) {
        let (gpa, kept) = (page + HOST_WORD, POOL + (page - HOME.start) + HOST_WORD);
        let mut before = [0; 4];
        field.memory().read(kept, &mut before)?;
        let written = match field.memory().write(gpa, &round.to_le_bytes()) {
            Ok(()) => round.to_le_bytes(),
            Err(Error::MemoryHole { .. }) => before,
            Err(error) => return Err(error),
        };
        let mut after = [0; 4];
        field.memory().read(kept, &mut after)?;
        assert_eq!(after, written, "{gpa:#x}");
    }
    Ok(())
}

fn churn() {
    let after = |count| {
        churn_once(count);
        // One that was joined may be listed for a moment longer.
        until("no thread is left but this one", || resources().1 == 1);
        resources()
    };
    let first = after(rounds(10, 10)); // what is made once in a process is there from now on
    let second = after(rounds(50, 3000));
    assert_eq!(second.0, first.0, "fds");
    // The allocator's, and the stacks of ended threads, vary.
    assert!(second.2 < first.2 + 40, "mappings: {} -> {}", first.2, second.2);
}

fn churn_once(count: u32) {
    let field = &Field::new();
    let slots = || {
        let mut slots = field.memory().slots().unwrap();
        for slot in &mut slots {
            (slot.number, slot.serial, slot.dirty_log) = (0, 0, false);
        }
        slots
    };
    let (before, stop) = (slots(), AtomicBool::new(false));
    thread::scope(|scope| {
        let runs: Vec<_> = field.vcpus.iter().map(|vcpu| scope.spawn(|| field.run(vcpu, &stop).unwrap())).collect();
        let threads = ROUNDS.map(|round| scope.spawn(move || (0..count).try_for_each(|n| round(field, n)).unwrap()));
        let done = threads.into_iter().flat_map(ScopedJoinHandle::join).count();
        let first = (0..VCPUS).map(|index| field.words(index)).collect::<Vec<_>>();
        until("every vCPU goes on", || {
            let all = (0..VCPUS).zip(&first).all(|(index, then)| went_on(then, &field.words(index)));
            all || runs.iter().any(ScopedJoinHandle::is_finished) // that one has panicked, and so does the scope
        });
        stop.store(true, SeqCst);
        field.vcpus.iter().for_each(|vcpu| vcpu.kick().unwrap());
        assert_eq!(done, ROUNDS.len(), "a thread met what it should not: its panic is above");
    });
    assert_eq!(slots(), before);
    for (index, vcpu) in (0..VCPUS).zip(&field.vcpus) {
        assert_whole(counter(vcpu), &field.words(index));
    }
}

fn went_on(then: &[u64], now: &[u64]) -> bool {
    then.iter().zip(now).all(|(then, now)| then < now)
}

/// A vCPU writes its words from the first to the last: those it has come to are `counter`, the others one less.
fn assert_whole(counter: u64, words: &[u64]) {
    assert!(words.is_sorted_by(|one, next| one >= next), "{counter}: {words:?}");
    assert!(words.iter().all(|word| (counter - 1..=counter).contains(word)), "{counter}: {words:?}");
}

fn counter(vcpu: &Vcpu) -> u64 {
    let registers = vcpu.registers().unwrap().0;
    registers.scalars().find(|(name, _)| *name == REGISTERS[0]).unwrap().1
}

fn close_amid() {
    for round in 0..rounds(10, 200) {
        let field = &Field::new();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let runs: Vec<_> = field.vcpus.iter().map(|vcpu| scope.spawn(|| field.run(vcpu, &stop))).collect();
            let changes = ROUNDS.map(|round| scope.spawn(move || (0..).try_for_each(|n| round(field, n))));
            // Each time a little later.
            until("vCPUs write", || field.words(0)[0] > u64::from(round) * 10);
            field.vm.close();
            for ended in runs.into_iter().chain(changes) {
                let error = ended.join().expect("no panic").expect_err("only the end of the VM ends them");
                assert_eq!(error.code(), ErrorCode::Closed, "{error}");
            }
        });
    }
}

#[cfg(target_arch = "x86_64")]
const MODE: (BootMode, Privilege) = (BootMode::Long, Privilege::User);
#[cfg(target_arch = "aarch64")]
const MODE: (BootMode, Privilege) = (BootMode::El1, Privilege::Kernel);

/// Counter, first word, end of the words, an address without memory.
#[cfg(target_arch = "x86_64")]
const REGISTERS: [&str; 4] = ["rax", "rsi", "rdi", "r8"];
#[cfg(target_arch = "aarch64")]
const REGISTERS: [&str; 4] = ["x0", "x1", "x2", "x5"];

/// Writes the counter to all words, reads them all, counts on; a wrong one is written to where nothing is.
#[cfg(target_arch = "x86_64")]
fn program() -> Vec<u8> {
    [
        &[0x48, 0xff, 0xc0][..],            // round: inc rax
        &[0x48, 0x89, 0xf3],                // mov rbx, rsi
        &[0x48, 0x89, 0x03],                // write: mov [rbx], rax
        &[0x48, 0x81, 0xc3, 0, 0x10, 0, 0], // add rbx, 4096
        &[0x48, 0x39, 0xfb, 0x72, 0xf1],    // cmp rbx, rdi; jb write
        &[0x48, 0x89, 0xf3],                // mov rbx, rsi
        &[0x48, 0x8b, 0x0b],                // read: mov rcx, [rbx]
        &[0x48, 0x39, 0xc1, 0x75, 0x0e],    // cmp rcx, rax; jne wrong
        &[0x48, 0x81, 0xc3, 0, 0x10, 0, 0], // add rbx, 4096
        &[0x48, 0x39, 0xfb, 0x72, 0xec],    // cmp rbx, rdi; jb read
        &[0xeb, 0xd2],                      // jmp round
        &[0x49, 0x89, 0x08],                // wrong: mov [r8], rcx
        &[0xeb, 0xfb],                      // jmp wrong
    ]
    .concat()
}

#[cfg(target_arch = "aarch64")]
fn program() -> Vec<u8> {
    crate::machine::code(&[
        0x9100_0400, // round: add x0, x0, #1
        0xaa01_03e3, // mov x3, x1
        0xf900_0060, // write: str x0, [x3]
        0x9140_0463, // add x3, x3, #4096
        0xeb02_007f, // cmp x3, x2
        0x54ff_ffa3, // b.lo write
        0xaa01_03e3, // mov x3, x1
        0xf940_0064, // read: ldr x4, [x3]
        0xeb00_009f, // cmp x4, x0
        0x5400_00a1, // b.ne wrong
        0x9140_0463, // add x3, x3, #4096
        0xeb02_007f, // cmp x3, x2
        0x54ff_ff63, // b.lo read
        0x17ff_fff3, // b round
        0xf900_00a4, // wrong: str x4, [x5]
        0x17ff_ffff, // b wrong
    ])
}
