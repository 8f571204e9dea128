//! The code under test of the memory benchmarks, from Rust: what bench/c/slots.c and bench/c/copy.c do, and reads.
//! bench/node/memory.mjs does the same in TypeScript's place. And of the kick benchmarks: `kick`.
//!
//! typevisor-bench OPERATION ARGUMENT…    the operations are arms of `run` and `measure`; bench/lib/list.mjs gives the rest

mod child;
mod kick;

use std::{env, error::Error, hint::black_box, process::ExitCode};

use child::serve;
use typevisor::{
    GpaRange, Kvm, Vm, VmOptions,
    host::KvmOptions,
    memory::{Backing, GuestMemory, MapOptions, MemorySlot},
};

type Outcome = Result<(), Box<dyn Error>>;

const PAGE: u64 = 4096;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            child::failed(&*error);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome {
    let mut arguments = env::args().skip(1);
    let operation = arguments.next().ok_or("which operation?")?;
    let arguments: Vec<_> = arguments.collect();
    match operation.as_str() {
        "kick-sync" => return kick::sync(&arguments),
        "kick-run" => return kick::on_its_own_thread(&arguments),
        _ => {}
    }
    let numbers: Vec<u64> = arguments.iter().map(|number| number.parse()).collect::<Result<_, _>>()?;
    let vm = Vm::create(&Kvm::open(KvmOptions::default())?, &VmOptions::default())?;
    measure(vm.memory(), &operation, &numbers)
}

fn measure(memory: &GuestMemory, operation: &str, numbers: &[u64]) -> Outcome {
    match *numbers {
        [size] if operation == "copy" => copy(memory, size),
        [slots, at, step] if operation == "read" => read(memory, slots, at, step),
        [others, at, step, size, here, there] => {
            shares(memory, others, at, step, PAGE)?;
            let slot = MapOptions::new(GpaRange::pages(here, size)?);
            match operation {
                "map" => serve(|| memory.map(&slot)?.unmap()),
                "move" => moves(&memory.map(&slot)?, here, there),
                "flags" => toggles(&memory.map(&slot)?),
                _ => Err("no such operation".into()),
            }
        }
        _ => Err("the wrong numbers for this operation".into()),
    }
}

fn moves(slot: &MemorySlot, here: u64, there: u64) -> Outcome {
    let mut moved = false;
    serve(|| {
        moved = !moved;
        slot.move_to(if moved { there } else { here })
    })
}

fn toggles(slot: &MemorySlot) -> Outcome {
    let mut logs = false;
    serve(|| {
        logs = !logs;
        slot.set_dirty_log(logs)
    })
}

/// 8 bytes of a slot after the other in no order. All slots are the same page, so that looking one up is all that
/// differs between one slot and many.
fn read(memory: &GuestMemory, slots: u64, at: u64, step: u64) -> Outcome {
    shares(memory, slots, at, step, 0)?;
    let mut random = 1_u32;
    let mut word = [0; 8];
    serve(|| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        memory.read(at + ((u64::from(random) * slots) >> 32) * step, &mut word)?;
        black_box(&word);
        Ok(())
    })
}

fn copy(memory: &GuestMemory, size: u64) -> Outcome {
    memory.map(&MapOptions { transparent_huge_pages: false, ..MapOptions::new(GpaRange::pages(0, size)?) })?;
    memory.fill(0, size, 0x5a)?;
    let mut target = vec![0; usize::try_from(size)?];
    target.fill(1);
    serve(|| {
        memory.read(0, &mut target)?;
        black_box(&target);
        Ok(())
    })
}

/// `count` slots of a page each, `step` apart from `at` on, in one mapping of the host: each `stride` bytes after the
/// one before.
fn shares(memory: &GuestMemory, count: u64, at: u64, step: u64, stride: u64) -> Outcome {
    let whole = memory.map(&MapOptions::new(GpaRange::pages(at + count * step, count * PAGE)?))?;
    for n in 0..count {
        let backing = Backing::Share { slot: whole.clone(), offset: n * stride };
        memory.map(&MapOptions { backing, ..MapOptions::new(GpaRange::pages(at + n * step, PAGE)?) })?;
    }
    Ok(whole.unmap()?) // the memory stays for as long as its shares do
}
