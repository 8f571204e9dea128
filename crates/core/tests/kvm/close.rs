//! Closing at any moment and from anywhere: it ends, and it is done when it says so.
#![expect(unsafe_code, reason = "lends buffers")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
    sync::{
        Arc, Barrier, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use typevisor::{
    Error, ErrorCode, Vcpu, Vm,
    bus::{Device, Owner, Written},
    memory::{Backing, HostBuffer},
    vcpu::{Outcome, Step, VcpuOptions, WhenFull},
};

use crate::{
    backing_support::{Pages, map},
    machine::{CODE, LIMIT, Machine, Op, assemble, boot, is_end, start},
    support::{PAGE, alone, resources, trial, vm},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("close: from a device on the vCPU's own thread", from_a_device_of_a_thread),
        trial("close: from a device in run_sync", from_a_device_in_run_sync),
        trial("close: from the devices of two vCPUs at once", from_two_devices),
        trial("close: from the callback of a run", from_a_callback),
        trial("close: from between two steps", from_between_two_steps),
        trial("close: the second who closes waits for the vCPUs too", second_waits_for_vcpus),
        trial("close: the second who closes waits for the threads too", second_waits_for_threads),
        trial("close: the second who closes waits for the memory too", second_waits_for_memory),
        trial("close: from what keeps a buffer, while a job and two others close", from_a_keep_and_a_job),
        trial("close: jobs of two VMs that close each other", from_jobs_of_two_vms),
        trial("close: a search ends with the VM", amid_a_search),
        alone("close: keeps that panic leave nothing behind, and the process alive", keeps_that_panic),
    ]
}

/// Closes the VM when it is written to, once all who shall are there.
struct Closer(Arc<OnceLock<Weak<Vm>>>, Arc<Barrier>);

impl Device for Closer {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }
    fn write(&mut self, _offset: u64, _data: &[u8]) -> Written {
        self.1.wait();
        self.0.get().unwrap().upgrade().unwrap().close();
        Written::Done
    }
}

/// Two guests that write to a device which closes the VM, each to one of its own.
fn closing(parties: usize) -> (Vcpu, Arc<Vm>) {
    let machine = Machine::of(&[Op::Out(0), Op::Endless, Op::Out(1), Op::Endless]);
    let (slot, barrier) = (Arc::new(OnceLock::new()), Arc::new(Barrier::new(parties)));
    for offset in [0, 1] {
        machine.claim(offset, 1, Box::new(Closer(Arc::clone(&slot), Arc::clone(&barrier))));
    }
    let Machine { vcpu, vm } = machine;
    let vm = Arc::new(vm);
    slot.set(Arc::downgrade(&vm)).unwrap();
    (vcpu, vm)
}

/// Everything is closed, soon.
fn assert_closed(vcpu: &Vcpu, vm: &Vm) {
    vm.close(); // waits for whoever else closes
    assert!(matches!(vcpu.run_sync(LIMIT), Err(Error::Closed { .. })));
    assert!(matches!(vm.memory().slots(), Err(Error::Closed { .. })));
}

fn from_a_device_of_a_thread() {
    let (vcpu, vm) = closing(1);
    let outcome = start(&vcpu, 1).recv_timeout(Duration::from_secs(10)).expect("it waits for itself");
    assert!(matches!(outcome, Err(Error::Closed { .. })), "{outcome:?}");
    assert_closed(&vcpu, &vm);
}

fn from_a_device_in_run_sync() {
    let (vcpu, vm) = closing(1);
    assert!(matches!(vcpu.run_sync(LIMIT), Err(Error::Closed { .. })));
    assert_closed(&vcpu, &vm);
}

fn from_two_devices() {
    let (vcpu, vm) = closing(2);
    let second = vm.create_vcpu(VcpuOptions::default()).unwrap();
    boot(&second, CODE + assemble(&[Op::Out(0), Op::Endless]).len() as u64);
    let outcomes = [start(&vcpu, 1), start(&second, 1)];
    for outcome in outcomes {
        let outcome = outcome.recv_timeout(Duration::from_secs(10)).expect("they wait for each other");
        assert!(matches!(outcome, Err(Error::Closed { .. })), "{outcome:?}");
    }
    assert_closed(&vcpu, &vm);
}

fn from_a_callback() {
    let Machine { vcpu, vm } = Machine::of(&[Op::End]);
    let vm = Arc::new(vm);
    let (sender, receiver) = channel();
    let closed = Arc::clone(&vm);
    let done = move |outcome: Result<Outcome, Error>| {
        closed.close();
        sender.send(outcome).unwrap();
    };
    vcpu.start(1, done).unwrap();
    let outcome = receiver.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
    assert!(matches!(&outcome, Outcome::Exit(exit) if is_end(exit)), "{outcome:?}");
    assert_closed(&vcpu, &vm);
}

fn from_between_two_steps() {
    let machine = Machine::of(&[Op::Out(0), Op::Endless]);
    machine.claim(0, 1, Owner::Program(5));
    let Machine { vcpu, vm } = machine;
    let mut run = vcpu.begin_sync(LIMIT).unwrap();
    assert!(matches!(run.step(WhenFull::Wait), Ok(Step::Claimed(_))));
    vm.close();
    assert!(matches!(run.step(WhenFull::Wait), Err(Error::Closed { .. })));
    drop(run);
    assert_closed(&vcpu, &vm);
}

fn from_jobs_of_two_vms() {
    let vms = [vm(), vm()].map(Arc::new);
    let both = Arc::new(Barrier::new(2));
    let (sender, receiver) = channel();
    for (own, other) in [(0, 1), (1, 0)] {
        let (other, both, sender) = (Arc::clone(&vms[other]), Arc::clone(&both), sender.clone());
        let job = move || {
            both.wait();
            other.close();
            sender.send(()).unwrap();
        };
        vms[own].control().submit(Box::new(job)).unwrap();
    }
    for _ in &vms {
        receiver.recv_timeout(Duration::from_secs(10)).expect("they wait for each other");
    }
    for vm in &vms {
        vm.close();
    }
}

fn amid_a_search() {
    let vm = vm();
    let slot = map(vm.memory(), 0, 2 << 30, Backing::Anonymous);
    thread::scope(|scope| {
        let search = scope.spawn(|| vm.memory().search(slot.range(), b"nowhere", 1));
        vm.close();
        // To the end it would be some hundred milliseconds.
        assert!(matches!(search.join().unwrap(), Err(Error::Closed { .. })));
    });
}

/// Two threads close; the second of them returns only after `released` was set, then `release` lets what both wait for
/// go on.
fn second_closer(vm: &Vm, release: impl FnOnce()) {
    let released = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| vm.close());
        while !matches!(vm.create_vcpu(VcpuOptions::default()), Err(Error::Closed { .. })) {
            thread::yield_now();
        }
        let second = scope.spawn(|| {
            vm.close();
            assert!(released.load(Ordering::SeqCst), "it came back while the first was at it");
        });
        // Time for the second to come back too early; none passes by it that should not.
        thread::sleep(Duration::from_millis(50));
        released.store(true, Ordering::SeqCst);
        release();
        second.join().unwrap();
    });
}

/// Waits to be let go.
struct Slow(Receiver<()>);

impl Device for Slow {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }
    fn write(&mut self, _offset: u64, _data: &[u8]) -> Written {
        self.0.recv().unwrap(); // it is inside
        self.0.recv().unwrap();
        Written::Done
    }
}

fn second_waits_for_vcpus() {
    let machine = Machine::of(&[Op::Out(0), Op::Endless]);
    let (go, receiver) = sync_channel(0);
    machine.claim(0, 1, Box::new(Slow(receiver)));
    let outcome = start(&machine.vcpu, 1);
    go.send(()).unwrap();
    second_closer(&machine.vm, || go.send(()).unwrap());
    assert!(matches!(outcome.recv().unwrap(), Err(Error::Closed { .. })));
}

fn second_waits_for_threads() {
    let machine = Machine::of(&[Op::End]);
    let (go, receiver) = sync_channel(0);
    let done = move |_| {
        receiver.recv().unwrap(); // the engine was given back
        receiver.recv().unwrap();
    };
    machine.vcpu.start(1, done).unwrap();
    go.send(()).unwrap();
    second_closer(&machine.vm, || go.send(()).unwrap());
}

/// What keeps a buffer, and does this where nobody needs it any more.
struct Keep<F: Fn() + Send + Sync> {
    _pages: Arc<Pages>,
    gone: F,
}

impl<F: Fn() + Send + Sync> Drop for Keep<F> {
    fn drop(&mut self) {
        (self.gone)();
    }
}

/// Maps a buffer that calls `gone`.
fn map_kept(vm: &Vm, gpa: u64, gone: impl Fn() + Send + Sync + 'static) {
    let (pages, _) = Pages::lent(1);
    let address = NonNull::from(&*pages.0).cast();
    // SAFETY: a page of atomics that `Keep` owns and that cannot move.
    let buffer = unsafe { HostBuffer::new(address, 4096, Arc::new(Keep { _pages: pages, gone })) }.unwrap();
    map(vm.memory(), gpa, PAGE, Backing::Buffer(buffer));
}

fn second_waits_for_memory() {
    let vm = vm();
    let (go, receiver) = sync_channel(0);
    let receiver = Mutex::new(receiver);
    map_kept(&vm, 0, move || receiver.lock().unwrap().recv().unwrap());
    second_closer(&vm, || go.send(()).unwrap());
}

/// No scope: it would wait for threads that wait for each other, and the test would hang instead of failing.
fn from_a_keep_and_a_job() {
    let vm = Arc::new(vm());
    let (tell, told) = channel();
    let (go, receiver) = sync_channel(0);
    let (job_go, job_receiver) = sync_channel::<()>(0);
    let (own, receiver, is_gone) = (Arc::downgrade(&vm), Mutex::new(receiver), tell.clone());
    map_kept(&vm, 0, move || {
        is_gone.send("letting go").unwrap();
        receiver.lock().unwrap().recv().unwrap();
        own.upgrade().unwrap().close();
        is_gone.send("closed by the keep").unwrap();
    });
    let (for_job, told_by_job) = (Arc::clone(&vm), tell.clone());
    let job = move || {
        job_receiver.recv().unwrap(); // it has begun
        job_receiver.recv().unwrap();
        for_job.close();
        told_by_job.send("closed by the job").unwrap();
    };
    vm.control().submit(Box::new(job)).unwrap();
    job_go.send(()).unwrap();
    let closer = || {
        let (vm, tell) = (Arc::clone(&vm), tell.clone());
        thread::spawn(move || {
            vm.close();
            tell.send("closed").unwrap();
        });
    };
    let next = || told.recv_timeout(LIMIT).expect("they wait for each other");
    closer();
    assert_eq!(next(), "letting go");
    closer();
    job_go.send(()).unwrap();
    assert_eq!(next(), "closed by the job");
    go.send(()).unwrap();
    assert_eq!([(); 3].map(|()| next()), ["closed by the keep", "closed", "closed"]);
}

/// A VM with a vCPU that ran on its thread, two keeps that panic, and a job that ends some time after the slots are gone
/// and says so.
fn with_bad_keeps() -> (Vm, Arc<AtomicBool>) {
    let Machine { vcpu, vm } = Machine::of(&[Op::End]);
    start(&vcpu, 1).recv().unwrap().unwrap();
    for gpa in [0x10_0000, 0x20_0000] {
        map_kept(&vm, gpa, || panic!("a keep's own"));
    }
    let (ended, memory, (begun, begins)) = (Arc::new(AtomicBool::new(false)), vm.memory().clone(), channel());
    let ends = Arc::clone(&ended);
    let job = move || {
        begun.send(()).unwrap();
        while memory.slots().is_ok() {
            thread::yield_now();
        }
        // Time for a close that does not wait to come back; none passes by it that should not.
        thread::sleep(Duration::from_millis(10));
        ends.store(true, Ordering::SeqCst);
    };
    vm.control().submit(Box::new(job)).unwrap();
    begins.recv().unwrap();
    (vm, ended)
}

fn keeps_that_panic() {
    // Takes what the first VM, thread and panic of a process leave for good.
    let warm = || drop(catch_unwind(AssertUnwindSafe(|| drop(with_bad_keeps()))));
    (0..16).for_each(|_| warm());
    let before = resources();
    for _ in 0..20 {
        let (vm, ended) = with_bad_keeps();
        assert!(catch_unwind(AssertUnwindSafe(|| vm.close())).is_err(), "the panic goes on");
        assert!(ended.load(Ordering::SeqCst), "the control thread was waited for");
        assert_eq!(vm.memory().slots().unwrap_err().code(), ErrorCode::Closed);
        assert_eq!(resources().0, before.0, "descriptors");
        // A thread that was joined is in /proc for a moment more.
        let began = Instant::now();
        while resources().1 != before.1 {
            assert!(began.elapsed() < LIMIT, "a thread is left");
            thread::yield_now();
        }
        vm.close(); // with nothing left to panic
        // A further panic than the one that is under way would end the process.
        let unwinding = || {
            let _closes = with_bad_keeps();
            panic!("something else");
        };
        let panic = catch_unwind(AssertUnwindSafe(unwinding)).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"something else"));
    }
    let after = resources();
    assert!(after.2 < before.2 + 10, "mappings: {before:?} -> {after:?}");
}
