//! A paused VM: no guest moves, no run ends, and what ends runs ends them.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use typevisor::{
    Error, Exit, Result, Vcpu, Vm,
    bus::{Device, Written},
    hooks::ioctls,
    memory::{Change, MapOptions},
    vcpu::{Outcome, Step, VcpuOptions, WhenFull},
};

use crate::{
    machine::{CODE, LIMIT, Machine, Op, boot, input, out, start},
    support::{PAGE, pages, scaled, trial, vm, x86_only},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("pause: memory stands still, whichever threads run the vCPUs, and all go on", stands_still),
        trial("pause: sixteen vCPUs on two processors stand still and go on", crowd),
        trial("pause: a kick, an abort and a time limit end a run, and nothing is entered", stops),
        trial("pause: a run and a settling that begin meanwhile wait for its end", begun_meanwhile),
        trial("pause: a run by steps of one who alone can resume is refused, and goes on afterwards", alone),
        trial("pause: closing ends runs, and the VM is not paused any more", closing),
        trial("pause: slots change meanwhile, and no guest moves between", changes),
        trial("pause: a device may pause its VM, and its vCPU waits", from_a_device),
        x86_only!("pause: a vCPU that halts in the kernel comes out, and halts again", halted),
    ]
}

/// Of a run that cannot get anywhere.
const SHORT: Duration = Duration::from_millis(20);

/// Where the vCPUs count, a word each.
const WORDS: u64 = 0x2000;

/// inc word ptr [si]; jmp -4
#[cfg(target_arch = "x86_64")]
fn counter() -> Vec<u8> {
    vec![0xff, 0x04, 0xeb, 0xfc]
}

/// ldr w10, [x12]; add w10, w10, #1; str w10, [x12]; b -12
#[cfg(target_arch = "aarch64")]
fn counter() -> Vec<u8> {
    crate::machine::code(&[0xb940_018a, 0x1100_054a, 0xb900_018a, 0x17ff_fffd])
}

/// The register with the word's address.
const WORD: &str = if cfg!(target_arch = "aarch64") { "x12" } else { "rsi" };

/// A VM whose vCPUs each count in a word of their own.
struct Counters {
    vcpus: Vec<Vcpu>,
    vm: Vm,
}

impl Counters {
    fn new(count: u16, options: &VcpuOptions) -> Self {
        Self::running(&counter(), vm(), count, options)
    }

    fn running(code: &[u8], vm: Vm, count: u16, options: &VcpuOptions) -> Self {
        vm.memory().map(&MapOptions::new(pages(0, 16 * PAGE))).unwrap();
        vm.memory().write(CODE, code).unwrap();
        let vcpu = |index| {
            let vcpu = vm.create_vcpu(options.clone()).unwrap();
            boot(&vcpu, CODE);
            vcpu.update_registers(|registers| {
                registers.set_scalar(WORD, WORDS + 8 * u64::from(index)).unwrap();
                Ok(())
            })
            .unwrap();
            vcpu
        };
        Self { vcpus: (0..count).map(vcpu).collect(), vm }
    }

    fn words(&self) -> Vec<u16> {
        let word = |index: u64| {
            let mut bytes = [0; 2];
            self.vm.memory().read(WORDS + 8 * index, &mut bytes).unwrap();
            u16::from_le_bytes(bytes)
        };
        (0..).take(self.vcpus.len()).map(word).collect()
    }

    /// Waits until every vCPU has counted on.
    fn wait_until_all_count(&self) {
        let (before, began) = (self.words(), Instant::now());
        while self.words().iter().zip(&before).any(|(now, before)| now == before) {
            assert!(began.elapsed() < LIMIT, "a vCPU stands still: {before:?} -> {:?}", self.words());
            thread::yield_now();
        }
    }

    /// None counts, for as long as it takes to look a few hundred times.
    fn assert_still(&self) {
        let before = self.words();
        for _ in 0..300 {
            assert_eq!(self.words(), before, "a guest runs in a paused VM");
            thread::yield_now();
        }
    }

    fn start_all(&self, ticket: u64) -> Vec<Receiver<Result<Outcome>>> {
        self.vcpus.iter().map(|vcpu| start(vcpu, ticket)).collect()
    }

    fn kick_all(&self) {
        self.vcpus.iter().for_each(|vcpu| vcpu.kick().unwrap());
    }

    fn stop_all(&self, runs: &[Receiver<Result<Outcome>>]) {
        self.kick_all();
        for run in runs {
            assert_eq!(end(run).unwrap(), STOPPED);
        }
    }
}

/// Pauses, and waits until no vCPU is in the guest.
fn pause(vm: &Vm) {
    let (tell, told) = channel();
    vm.pause(move |outcome| tell.send(outcome).unwrap()).unwrap();
    told.recv_timeout(LIMIT).expect("a pause was not told").unwrap();
}

fn end(outcome: &Receiver<Result<Outcome>>) -> Result<Outcome> {
    outcome.recv_timeout(LIMIT).expect("nothing ends it")
}

const STOPPED: Outcome = Outcome::Exit(Exit::Intr);

fn stands_still() {
    let counters = &Counters::new(3, &VcpuOptions::default());
    thread::scope(|scope| {
        let [synchronous, others @ ..] = &counters.vcpus[..] else { panic!("there are three") };
        let (told, ended) = channel();
        scope.spawn(move || told.send(synchronous.run_sync(LIMIT)).unwrap());
        let runs: Vec<_> = others.iter().map(|vcpu| start(vcpu, 1)).collect();
        for _ in 0..scaled(100) {
            counters.wait_until_all_count();
            pause(&counters.vm);
            counters.assert_still();
            pause(&counters.vm); // again: it stays so
            counters.vm.resume().unwrap();
        }
        counters.wait_until_all_count();
        assert!(ended.try_recv().is_err() && runs.iter().all(|run| run.try_recv().is_err()), "a run has ended");
        counters.kick_all();
        assert_eq!(ended.recv_timeout(LIMIT).unwrap().unwrap(), Exit::Intr);
        for run in &runs {
            assert_eq!(end(run).unwrap(), STOPPED);
        }
    });
}

fn crowd() {
    let affinity = Some(crate::placement::allowed().into_iter().take(2).collect());
    let counters = Counters::new(16, &VcpuOptions { affinity, ..Default::default() });
    let runs = counters.start_all(1);
    for _ in 0..scaled(10) {
        counters.wait_until_all_count();
        pause(&counters.vm);
        counters.assert_still();
        counters.vm.resume().unwrap();
    }
    counters.wait_until_all_count();
    counters.stop_all(&runs);
}

fn stops() {
    let counters = Counters::new(1, &VcpuOptions::default());
    let vcpu = &counters.vcpus[0];
    for round in 0..10 {
        let run = start(vcpu, 3 * round);
        counters.wait_until_all_count();
        pause(&counters.vm);
        vcpu.kick().unwrap();
        assert_eq!(end(&run).unwrap(), STOPPED);
        let run = start(vcpu, 3 * round + 1);
        vcpu.cancel(3 * round + 1);
        assert_eq!(end(&run).unwrap(), STOPPED);
        let issued = ioctls();
        assert!(matches!(vcpu.run_sync(SHORT), Err(Error::Timeout { .. })));
        assert_eq!(ioctls(), issued, "the kernel was asked for something");
        counters.assert_still();
        counters.vm.resume().unwrap();
    }
}

fn begun_meanwhile() {
    let machine = Machine::of(&[Op::In(0), Op::Out(1), Op::End]);
    pause(&machine.vm);
    let first = start(&machine.vcpu, 1); // of this vCPU
    assert!(first.recv_timeout(SHORT).is_err());
    machine.vm.resume().unwrap();
    assert_eq!(end(&first).unwrap(), Outcome::Exit(input(0)));
    machine.vcpu.answer(&[7]).unwrap();
    pause(&machine.vm);
    let (tell, settled) = channel();
    machine.vcpu.start_settle(2, move |outcome| tell.send(outcome).unwrap()).unwrap();
    assert!(settled.recv_timeout(SHORT).is_err());
    machine.vm.resume().unwrap();
    assert_eq!(end(&settled).unwrap(), Outcome::Settled);
    assert_eq!(machine.run(), out(1, 7));
    machine.assert_ends();
}

fn alone() {
    let machine = Machine::of(&[Op::In(0), Op::Out(1), Op::End]);
    let step = |full| machine.vcpu.begin_sync(LIMIT).unwrap().step(full);
    let refused = || {
        let issued = ioctls();
        let began = Instant::now();
        assert!(matches!(step(WhenFull::Return), Err(Error::WouldDeadlock { .. })));
        assert!(began.elapsed() < LIMIT, "it waited for its limit");
        assert_eq!(ioctls(), issued, "the kernel was asked for something");
    };
    pause(&machine.vm);
    refused(); // before its first entry
    machine.vm.resume().unwrap();
    assert_eq!(step(WhenFull::Return).unwrap(), Step::Exit(input(0)));
    machine.vcpu.answer(&[7]).unwrap();
    pause(&machine.vm);
    refused();
    assert!(machine.vcpu.registers().unwrap().1, "the answered access is still to be completed");
    // One that others may resume waits, to its limit; and a reason to stop comes first.
    assert!(matches!(machine.vcpu.run_sync(SHORT), Err(Error::Timeout { .. })));
    machine.vcpu.kick().unwrap();
    assert_eq!(step(WhenFull::Return).unwrap(), Step::Exit(Exit::Intr));
    machine.vm.resume().unwrap();
    assert_eq!(step(WhenFull::Return).unwrap(), Step::Exit(out(1, 7)));
    machine.assert_ends();
}

fn closing() {
    let counters = Counters::new(2, &VcpuOptions::default());
    let runs = counters.start_all(1);
    counters.wait_until_all_count();
    pause(&counters.vm);
    counters.vm.close();
    for run in &runs {
        assert!(matches!(end(run), Err(Error::Closed { .. })));
    }
    assert!(matches!(counters.vm.pause(|_| ()), Err(Error::Closed { what: "VM" })));
    assert!(matches!(counters.vm.resume(), Err(Error::Closed { what: "VM" })));
}

fn changes() {
    let counters = Counters::new(2, &VcpuOptions::default());
    let memory = counters.vm.memory();
    let mut slot = memory.map(&MapOptions::new(pages(0x10_0000, PAGE))).unwrap();
    let runs = counters.start_all(1);
    for _ in 0..scaled(20) {
        counters.wait_until_all_count();
        pause(&counters.vm);
        let before = counters.words();
        for _ in 0..5 {
            let again = Change::Map(MapOptions::new(pages(0x10_0000, PAGE)));
            slot = memory.change(vec![Change::Unmap(slot), again]).unwrap().remove(0);
            slot.set_readonly(true).unwrap();
        }
        assert_eq!(counters.words(), before, "the end of a change let a guest go");
        counters.assert_still();
        counters.vm.resume().unwrap();
    }
    counters.wait_until_all_count();
    counters.stop_all(&runs);
}

/// Pauses the VM when it is written to, and says what came of it while it is at it.
struct Pauser {
    vm: Arc<OnceLock<Weak<Vm>>>,
    told: std::sync::mpsc::Sender<Result<()>>,
}

impl Device for Pauser {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Written {
        let (told, vm) = (self.told.clone(), self.vm.get().unwrap().upgrade().unwrap());
        let (tell, outcome) = channel();
        vm.pause(move |outcome| tell.send(outcome).unwrap()).unwrap();
        // Nobody else is inside, so it is told on this very thread.
        told.send(outcome.try_recv().expect("a device waits for its own vCPU")).unwrap();
        Written::Done
    }
}

fn from_a_device() {
    let machine = Machine::of(&[Op::Load(7), Op::Out(0), Op::Out(1), Op::End]);
    let (vm, (told, paused)) = (Arc::new(OnceLock::new()), channel());
    machine.claim(0, 1, Box::new(Pauser { vm: Arc::clone(&vm), told }));
    let Machine { vcpu, vm: its } = machine;
    let its = Arc::new(its);
    vm.set(Arc::downgrade(&its)).unwrap();
    let run = start(&vcpu, 1);
    paused.recv_timeout(LIMIT).expect("the device waits").unwrap();
    assert!(run.recv_timeout(SHORT).is_err(), "its vCPU went on");
    its.resume().unwrap();
    assert_eq!(end(&run).unwrap(), Outcome::Exit(out(1, 7)));
}

#[cfg(target_arch = "x86_64")]
fn halted() {
    let with_irqchip = typevisor::VmOptions { irqchip: true, ..Default::default() };
    let vm = Vm::create(&crate::support::kvm(), &with_irqchip).unwrap();
    // inc word ptr [si]; hlt; jmp -5
    let counters = Counters::running(&[0xff, 0x04, 0xf4, 0xeb, 0xfb], vm, 1, &VcpuOptions::default());
    let runs = counters.start_all(1);
    counters.wait_until_all_count();
    for _ in 0..scaled(50) {
        pause(&counters.vm);
        counters.vm.resume().unwrap();
    }
    assert_eq!(counters.words(), [1], "an interrupt was made up");
    counters.kick_all();
    assert_eq!(end(&runs[0]).unwrap(), STOPPED);
}
