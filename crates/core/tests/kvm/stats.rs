//! What running has cost: exits by kind, and KVM's own statistics (api.rst 4.133).

use std::{
    collections::BTreeSet,
    fs,
    sync::mpsc::{Sender, channel},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use typevisor::{
    Error, ErrorCode, Exit, Kvm, Vcpu, Vm, VmOptions,
    bus::{Device, Owner, Written},
    exit::ExitKind,
    host::{Capability, KvmOptions},
    stats::{KvmStats, StatKind, StatUnit},
    vcpu::{Outcome, VcpuOptions},
};

use crate::{
    machine::{CODE, LIMIT, Machine, Op, assemble, boot, out, start},
    support::{alone, code, kvm, needs, trial, vm, with},
};

const KVM: Capability = Capability::BinaryStatsFd;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("stats: an exit counts once by its kind, whoever deals with it", by_kind),
        trial("stats: a stopped run counts as intr, and the exit on its way is not lost", stopped),
        trial("stats: exits are counted while the vCPU runs, for other threads to see", counted_meanwhile),
        trial("stats: a VM has the exits of all its vCPUs, closed ones too", of_all),
        trial("stats: time is measured where it is asked for, and goes to guest and handlers", times),
        trial("stats: a hidden capability is ERR_CAPABILITY_MISSING, and exits are counted all the same", hidden),
        needs(KVM, "stats: KVM's own have names, units and values, of a VM and of a vCPU", kvms_own),
        needs(KVM, "stats: KVM counts on from one reading to the next", kvm_counts),
        needs(KVM, "stats: KVM's own are had while the vCPU runs on and on", kvms_own_meanwhile),
        with(KVM, alone("stats: descriptors are close-on-exec, and go with the vCPU and the VM", descriptors)),
    ]
}

/// The kind of exit that the machine's device makes.
fn access() -> ExitKind {
    out(0, 0).exit_kind()
}

/// The kind of exit that guests end by.
fn end() -> ExitKind {
    if cfg!(target_arch = "aarch64") { ExitKind::SystemEvent } else { ExitKind::Hlt }
}

fn exits(vcpu: &Vcpu) -> Vec<(ExitKind, u64)> {
    vcpu.exit_stats().iter().collect()
}

/// Reads as 0, and tells of each access.
struct Teller(Sender<()>);

impl Device for Teller {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        self.0.send(()).unwrap_or(());
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Written {
        self.0.send(()).unwrap_or(()); // nobody listens any more
        Written::Done
    }
}

fn by_kind() {
    let ops = [Op::Load(1), Op::Out(0), Op::In(0), Op::Out(1), Op::Out(2), Op::In(2), Op::End];
    let machine = Machine::of(&ops);
    let (sender, told) = channel();
    machine.claim(0, 1, Box::new(Teller(sender)));
    machine.claim(1, 1, Owner::Program(7));
    assert!(exits(&machine.vcpu).is_empty());
    let ended = start(&machine.vcpu, 1).recv_timeout(LIMIT).unwrap().unwrap();
    assert!(matches!(&ended, Outcome::Claimed(claimed) if claimed.claim == 7), "{ended:?}");
    assert_eq!(told.try_iter().count(), 2);
    assert_eq!(exits(&machine.vcpu), [(access(), 3)]);
    assert_eq!(machine.run(), out(2, 0));
    machine.run();
    assert_eq!(exits(&machine.vcpu), [(access(), 5)]);
    machine.vcpu.answer_word(0).unwrap();
    machine.assert_ends();
    assert_eq!(machine.vcpu.exit_stats().count(access()), 5);
    assert_eq!(machine.vcpu.exit_stats().count(end()), 1);
    assert_eq!(machine.vcpu.exit_stats().iter().count(), 2);
    assert_eq!(machine.vm.exit_stats().unwrap(), machine.vcpu.exit_stats());
}

fn stopped() {
    let machine = Machine::of(&[Op::Out(0), Op::Endless]);
    machine.vcpu.kick().unwrap();
    assert_eq!(machine.run(), Exit::Intr);
    assert_eq!(exits(&machine.vcpu), [(ExitKind::Intr, 1)]);
    machine.run();
    let limit = machine.vcpu.run_sync(Duration::from_millis(20));
    assert!(matches!(limit, Err(Error::Timeout { .. })));
    let stats = machine.vcpu.exit_stats();
    assert_eq!((stats.count(ExitKind::Intr), stats.count(access()), stats.iter().count()), (2, 1, 2));
}

fn counted_meanwhile() {
    let machine = Machine::of(&[Op::Out(0), Op::Again]);
    let (sender, told) = channel();
    machine.claim(0, 1, Box::new(Teller(sender)));
    let ended = start(&machine.vcpu, 1);
    for count in 1..=10 {
        told.recv_timeout(LIMIT).unwrap();
        // It is counted before the device sees it.
        assert!(machine.vcpu.exit_stats().count(access()) >= count);
        assert!(machine.vm.exit_stats().unwrap().count(access()) >= count);
    }
    machine.vcpu.kick().unwrap();
    assert_eq!(ended.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
    let all = 10 + u64::try_from(told.try_iter().count()).unwrap();
    assert_eq!(machine.vcpu.exit_stats().count(access()), all);
}

fn of_all() {
    let Machine { vcpu, vm } = Machine::of(&[Op::Out(0), Op::End]);
    let second = vm.create_vcpu(VcpuOptions::default()).unwrap();
    boot(&second, CODE);
    for vcpu in [&vcpu, &second] {
        assert_eq!(vcpu.run_sync(LIMIT).unwrap(), out(0, 0));
    }
    drop(second);
    let all = vm.exit_stats().unwrap();
    assert_eq!((all.count(access()), all.iter().count(), all.times()), (2, 1, None));
    assert_eq!(exits(&vcpu), [(access(), 1)]);
}

/// Takes its time.
struct Slow(Duration);

impl Device for Slow {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Written {
        let begun = Instant::now();
        while begun.elapsed() < self.0 {
            std::hint::spin_loop();
        }
        Written::Done
    }
}

fn times() {
    let clocked = Vm::create(&kvm(), &VmOptions { timing: true, ..Default::default() }).unwrap();
    let machine = Machine::on(clocked, &assemble(&[Op::Out(0), Op::Out(1), Op::End]), VcpuOptions::default());
    let slow = Duration::from_millis(2);
    machine.claim(0, 1, Box::new(Slow(slow)));
    let begun = Instant::now();
    machine.run();
    machine.assert_ends();
    let whole = begun.elapsed();
    let stats = machine.vcpu.exit_stats();
    let times = stats.times().unwrap();
    assert!(times.handlers(access()) >= slow, "{times:?}");
    assert!(!times.guest().is_zero() && times.guest() + times.all_handlers() <= whole, "{times:?} of {whole:?}");
    // Nobody has entered the guest after its end.
    assert_eq!((times.handlers(end()), times.all_handlers()), (Duration::ZERO, times.handlers(access())));
    assert_eq!(machine.vm.exit_stats().unwrap(), stats);
}

fn hidden() {
    let kvm = Kvm::open(KvmOptions { hide: vec![KVM], ..Default::default() }).unwrap();
    let without = Vm::create(&kvm, &VmOptions::default()).unwrap();
    let machine = Machine::on(without, &assemble(&[Op::Out(0), Op::End]), VcpuOptions::default());
    machine.run();
    for refused in [machine.vm.kvm_stats(), machine.vcpu.kvm_stats()] {
        let error = refused.unwrap_err();
        assert!(
            matches!(error, Error::CapabilityMissing { capability: "binary-stats-fd", since: "5.14", .. }),
            "{error}"
        );
        assert_eq!(error.code(), ErrorCode::CapabilityMissing);
    }
    for stats in [machine.vm.stats().unwrap(), machine.vcpu.stats().unwrap()] {
        assert_eq!((stats.kvm, stats.exits.count(access())), (None, 1));
    }
}

/// What every KVM has since it has statistics (`KVM_GENERIC_VCPU_STATS`).
fn check_vcpus(stats: &KvmStats) {
    let wait = stats.get("halt_poll_success_ns").unwrap();
    assert_eq!((wait.kind, wait.unit, wait.exponent), (StatKind::Cumulative, StatUnit::Seconds, -9));
    assert_eq!(wait.values.len(), 1);
    let histogram = stats.get("halt_poll_success_hist").unwrap();
    assert_eq!((histogram.kind, histogram.unit), (StatKind::LogHistogram, StatUnit::Seconds));
    assert_eq!(histogram.values.len(), 32);
}

fn kvms_own() {
    let machine = Machine::of(&[Op::End]);
    let (vm, vcpu) = (machine.vm.stats().unwrap().kvm.unwrap(), machine.vcpu.stats().unwrap().kvm.unwrap());
    check_vcpus(&vcpu);
    assert_eq!(vm.get("remote_tlb_flush_requests").or(vm.get("remote_tlb_flush")).unwrap().kind, StatKind::Cumulative);
    assert!(vm.id.starts_with("kvm-") && *vcpu.id == format!("{}/vcpu-0", vm.id), "{} {}", vm.id, vcpu.id);
    for stats in [&vm, &vcpu] {
        let names: BTreeSet<_> = stats.all.iter().map(|stat| &stat.name).collect();
        assert_eq!(names.len(), stats.all.len());
        let odd: Vec<_> =
            stats.all.iter().filter(|stat| stat.kind == StatKind::Unknown || stat.name.is_empty()).collect();
        assert!(odd.is_empty(), "{odd:?}");
    }
}

fn counter(vcpu: &Vcpu, name: &str) -> u64 {
    vcpu.kvm_stats().unwrap().get(name).unwrap().values[0]
}

fn kvm_counts() {
    let machine = Machine::of(&[Op::Out(0), Op::Again]);
    let before = counter(&machine.vcpu, "exits");
    (0..50).for_each(|_| assert_eq!(machine.run(), out(0, 0)));
    let after = counter(&machine.vcpu, "exits");
    assert!(after > before, "{before} -> {after}");
    assert_eq!(exits(&machine.vcpu), [(access(), 50)]);
}

fn kvms_own_meanwhile() {
    let machine = Machine::of(&[Op::Out(0), Op::Endless]);
    let (sender, told) = channel();
    machine.claim(0, 1, Box::new(Teller(sender)));
    let ended = start(&machine.vcpu, 1);
    told.recv_timeout(LIMIT).unwrap();
    let (done, read) = channel();
    thread::scope(|scope| {
        let Machine { vcpu, vm } = &machine;
        scope.spawn(move || {
            (0..100).for_each(|_| check_vcpus(&vcpu.kvm_stats().unwrap()));
            done.send(vm.kvm_stats().is_ok()).unwrap_or(());
        });
        let read = read.recv_timeout(LIMIT);
        // Whoever waits for the vCPU goes on now, and the test fails rather than hangs.
        vcpu.kick().unwrap();
        assert_eq!(read, Ok(true), "the reader waited for the vCPU");
    });
    assert_eq!(ended.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
}

/// The flags of this process's statistics descriptors, as `/proc` has them.
fn flags(whose: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let ours = entries.filter(|path| fs::read_link(path).is_ok_and(|link| link.to_string_lossy().contains(whose)));
    ours.map(|path| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", path.file_name().unwrap().display())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        u32::from_str_radix(flags, 8).unwrap()
    })
    .collect()
}

const CLOSE_ON_EXEC: u32 = libc::O_CLOEXEC.unsigned_abs();

fn descriptors() {
    let (of_vm, of_vcpu) = ("kvm-vm-stats", "kvm-vcpu-stats");
    let vm = vm();
    let vcpu = vm.create_vcpu(VcpuOptions::default()).unwrap();
    assert!(flags(of_vm).is_empty());
    (0..3).for_each(|_| drop((vm.kvm_stats().unwrap(), vcpu.kvm_stats().unwrap())));
    for whose in [of_vm, of_vcpu] {
        let flags = flags(whose);
        assert!(flags.len() == 1 && flags[0] & CLOSE_ON_EXEC != 0, "{whose}: {flags:?}");
    }
    vcpu.close();
    assert!(flags(of_vcpu).is_empty());
    assert_eq!((code(vcpu.kvm_stats()), code(vcpu.stats())), (ErrorCode::Closed, ErrorCode::Closed));
    assert!(exits(&vcpu).is_empty());
    let _other = vm.create_vcpu(VcpuOptions::default()).unwrap();
    vm.close();
    assert_eq!((flags(of_vm), flags(of_vcpu)), (vec![], vec![]));
    assert_eq!((code(vm.kvm_stats()), code(vm.exit_stats())), (ErrorCode::Closed, ErrorCode::Closed));
}
