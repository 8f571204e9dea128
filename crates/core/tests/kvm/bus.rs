//! What KVM does for the bus by itself: gathers posted writes in its ring (api.rst 4.116), and signals eventfds (4.59).

use std::{
    sync::{
        Arc, OnceLock, Weak,
        mpsc::{Receiver, channel},
    },
    thread,
    time::Instant,
};

use libtest_mimic::Trial;
use typevisor::{
    Error, Exit, GpaRange, Kvm, Vcpu, Vm, VmOptions,
    bus::{ClaimId, Doorbell, Owner, PostedCounters, PostedWrite, Queue},
    host::{Capability, KvmOptions},
    vcpu::{Outcome, Step, VcpuOptions, WhenFull},
};

use crate::{
    claims::many_exits,
    machine::{CODE, LIMIT, Machine, Op, assemble, boot, is_end, out, start},
    support::{alone, needs, resources, scaled, trial, vm, x86_only},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        needs(RING, "coalesced: posted writes cost no exit, and lie in the queue before the next", no_exit),
        needs(RING, "coalesced: an access to another device finds the writes before it in the queue", before_an_access),
        needs(RING, "coalesced: what a vCPU wrote before it spins reaches its reader while it spins", spinning),
        needs(RING, "coalesced: a flush hands on what was written before KVM rang a doorbell", flush_after_ring),
        needs(RING, "coalesced: after the vCPU is closed that showed the ring, others go on", first_vcpu_closed),
        needs(RING, "coalesced: a reader who is woken closes the VM, and waits for no job that does", reader_closes),
        needs(RING, "coalesced: the kernel's limit is ERR_LIMIT, and a release makes room", limit),
        trial("coalesced: hidden capabilities leave posted writes to exits", hidden),
        trial("coalesced: a claim larger than KVM takes is left to exits", too_large),
        alone("coalesced: a closed VM leaves no thread, mapping or descriptor, whoever keeps its bus", nothing_left),
        x86_only!("coalesced: a full ring costs one exit, and no write overtakes another", x86::many),
        x86_only!(
            "coalesced: a string instruction's elements arrive one by one, more than the ring holds",
            x86::string
        ),
        x86_only!("coalesced: a run that ends by kick, limit or cancellation leaves no write behind", x86::ends),
        x86_only!("coalesced: what was written before a close is there after it", x86::close),
        x86_only!("coalesced: a release loses no write: the next one is the program's", x86::release),
        x86_only!("coalesced: two vCPUs write to two devices, each in order", x86::two_vcpus),
        many_exits(x86_only!("coalesced: a reader who never reads bounds what waits, over many runs", x86::never_read)),
        x86_only!("coalesced: the kernel's own devices keep their ports", x86::irqchip),
        x86_only!("coalesced: a write to a read-only slot is gathered", x86::readonly_slot),
        needs(Capability::Ioeventfd, "ioeventfd: KVM itself rings a doorbell, at the start of its claim", doorbell),
        needs(Capability::Ioeventfd, "ioeventfd: of a doorbell with a value KVM rings that value alone", value),
        needs(
            Capability::Ioeventfd,
            "ioeventfd: KVM rings a doorbell behind a posted claim that came later",
            neighbours,
        ),
        needs(
            Capability::Ioeventfd,
            "ioeventfd: where the kernel's bus is full, the doorbell is rung by Rust",
            full_bus,
        ),
        needs(Capability::Ioeventfd, "ioeventfd: released, the writes are the program's", doorbell_released),
        trial("ioeventfd: hidden, the doorbell is rung by Rust", doorbell_hidden),
        x86_only!("ioeventfd: a read of a doorbell on MMIO rings nothing and gives 0", x86::doorbell_read),
        x86_only!("ioeventfd: writes of every length ring", x86::doorbell_lengths),
    ]
}

/// The capability by which the device of [`Op::Out`] is gathered.
const RING: Capability =
    if cfg!(target_arch = "aarch64") { Capability::CoalescedMmio } else { Capability::CoalescedPio };

type Posted = Arc<Queue<PostedWrite>>;

/// Claims part of the device with posted writes.
fn post(machine: &Machine, offset: u8, size: u8) -> (Posted, ClaimId, Arc<PostedCounters>) {
    let queue = Queue::posted(drop);
    let claim = machine.claim(offset, size, Owner::Posted { queue: Arc::clone(&queue), program: 8 });
    let counters = machine.vm.bus().posted_counters(claim).unwrap();
    (queue, claim, counters)
}

fn values(queue: &Posted) -> Vec<u64> {
    queue.take().iter().map(|write| write.value).collect()
}

/// Writes and exits.
fn counted(counters: &PostedCounters) -> (u64, u64) {
    (counters.writes(), counters.exits())
}

/// Three writes, a read by which another device is asked, a fourth write.
const OUT_IN_OUT: [Op; 9] =
    [Op::Load(1), Op::Out(0), Op::Load(2), Op::Out(1), Op::Load(3), Op::Out(0), Op::In(4), Op::Out(0), Op::End];

fn no_exit() {
    let machine = Machine::of(&OUT_IN_OUT);
    let (queue, claim, counters) = post(&machine, 0, 8);
    assert!(machine.vm.bus().is_in_kernel(claim));
    let mut run = machine.vcpu.begin_sync(LIMIT).unwrap();
    assert!(matches!(run.step(WhenFull::Wait).unwrap(), Step::Claimed(_)), "the read");
    let write = |offset, value| PostedWrite { offset, size: 1, value };
    assert_eq!(queue.take(), [write(0, 1), write(1, 2), write(0, 3)]);
    run.answer(&[4]).unwrap();
    assert!(matches!(run.step(WhenFull::Wait).unwrap(), Step::Exit(exit) if is_end(&exit)));
    assert_eq!(queue.take(), [write(0, 4)]);
    assert_eq!(counted(&counters), (4, 0));
}

fn before_an_access() {
    let machine = Machine::of(&OUT_IN_OUT);
    let (queue, ..) = post(&machine, 0, 2);
    machine.claim(4, 1, Owner::Program(9));
    let receiver = start(&machine.vcpu, 1);
    let outcome = receiver.recv_timeout(LIMIT).unwrap().unwrap();
    assert!(matches!(&outcome, Outcome::Claimed(claimed) if claimed.claim == 9), "{outcome:?}");
    assert_eq!(values(&queue), [1, 2, 3]);
}

/// Claims the device's first byte; every wake-up of its reader is sent.
fn post_awaited(machine: &Machine) -> (Posted, Receiver<()>) {
    let (sender, woken) = channel();
    // Nobody may listen any more.
    let queue = Queue::posted(move |_arrived| sender.send(()).unwrap_or(()));
    machine.claim(0, 2, Owner::Posted { queue: Arc::clone(&queue), program: 8 });
    (queue, woken)
}

const OUT_AND_SPIN: [Op; 4] = [Op::Load(7), Op::Out(0), Op::Out(0), Op::Endless];

/// Starts the vCPU, and awaits what it writes before it spins.
fn assert_arrives(vcpu: &Vcpu, queue: &Posted, woken: &Receiver<()>) {
    let ended = start(vcpu, 1);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        woken.recv_timeout(LIMIT).expect("a wake-up while the guest spins");
        seen.extend(values(queue));
    }
    assert_eq!(seen, [7, 7]);
    assert!(ended.try_recv().is_err(), "it still runs");
    vcpu.kick().unwrap();
    assert_eq!(ended.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
}

fn spinning() {
    let machine = Machine::of(&OUT_AND_SPIN);
    let (queue, woken) = post_awaited(&machine);
    // More than once: in between the thread that looks falls asleep, or does not.
    for _ in 0..3 {
        assert_arrives(&machine.vcpu, &queue, &woken);
        boot(&machine.vcpu, CODE);
    }
}

fn flush_after_ring() {
    for round in 0..scaled(30).max(5) {
        let machine = Machine::of(&[Op::Load(7), Op::Out(0), Op::Out(0), Op::Out(4), Op::Endless]);
        let (queue, ..) = post(&machine, 0, 2);
        let (doorbell, fd) = Doorbell::new().unwrap();
        machine.claim(4, 4, doorbell);
        let ended = start(&machine.vcpu, 1);
        let began = Instant::now();
        while fd.read().is_err() {
            assert!(began.elapsed() < LIMIT, "a ring while the guest spins");
            thread::yield_now();
        }
        machine.vm.bus().flush();
        assert_eq!(values(&queue), [7, 7], "round {round}");
        assert!(ended.try_recv().is_err(), "it still runs");
        machine.vcpu.kick().unwrap();
        assert_eq!(ended.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
    }
}

fn first_vcpu_closed() {
    let machine = Machine::of(&OUT_AND_SPIN);
    let (queue, woken) = post_awaited(&machine);
    let second = machine.vm.create_vcpu(VcpuOptions::default()).unwrap();
    boot(&second, CODE);
    machine.vcpu.close();
    assert_arrives(&second, &queue, &woken);
}

/// No scope: it would wait for threads that wait for each other, and the test would hang instead of failing.
fn reader_closes() {
    let machine = Machine::of(&OUT_AND_SPIN);
    let own = Arc::new(OnceLock::<Weak<Vm>>::new());
    let (tell, told) = channel();
    let (vm_of_reader, told_by_reader) = (Arc::clone(&own), tell.clone());
    let queue = Queue::posted(move |_arrived| {
        vm_of_reader.get().unwrap().upgrade().unwrap().close();
        told_by_reader.send("reader").unwrap();
    });
    machine.claim(0, 2, Owner::Posted { queue, program: 8 });
    let Machine { vcpu, vm } = machine;
    let vm = Arc::new(vm);
    own.set(Arc::downgrade(&vm)).unwrap();
    let (begun, begins) = channel();
    let for_job = Arc::clone(&vm);
    let job = move || {
        begun.send(()).unwrap();
        // Until the reader has come to wait for jobs, or soon will.
        while for_job.memory().slots().is_ok() {
            thread::yield_now();
        }
        for_job.close();
        tell.send("job").unwrap();
    };
    vm.control().submit(Box::new(job)).unwrap();
    begins.recv().unwrap();
    let ended = start(&vcpu, 1);
    let mut closed = [(); 2].map(|()| told.recv_timeout(LIMIT).expect("they wait for each other"));
    closed.sort_unstable();
    assert_eq!(closed, ["job", "reader"]);
    assert!(matches!(ended.recv_timeout(LIMIT).unwrap(), Err(Error::Closed { .. })));
    vm.close();
}

fn limit() {
    let vm = vm();
    let owner = || Owner::Posted { queue: Queue::posted(drop), program: 8 };
    let claim = |port| vm.bus().claim_ports(port, 1, owner());
    let (mut claims, mut refused) = (Vec::new(), None);
    for port in 0..1001 {
        match claim(port) {
            Ok(claim) => claims.push(claim),
            Err(error) => {
                refused = Some((port, error));
                break;
            }
        }
    }
    let (port, error) = refused.expect("a limit");
    assert!(matches!(error, Error::Limit { limit: 1000, .. }), "{error}");
    assert_eq!(claims.len(), 1000, "a VM without devices of the kernel's");
    // Nothing is left of the one that was refused, and other owners are none of the kernel's business.
    let other = vm.bus().claim_ports(port, 1, Owner::Program(1)).unwrap();
    vm.bus().release(other);
    vm.bus().release(claims[500]);
    assert!(vm.bus().is_in_kernel(claim(port).unwrap()));
}

fn vm_without(hide: &[Capability]) -> Vm {
    let options = KvmOptions { hide: hide.to_vec(), ..Default::default() };
    Vm::create(&Kvm::open(options).unwrap(), &VmOptions::default()).unwrap()
}

/// The guest of [`OUT_IN_OUT`] without the read.
fn out_only(vm: Vm) -> Machine {
    let ops: Vec<Op> = OUT_IN_OUT.into_iter().filter(|op| !matches!(op, Op::In(_))).collect();
    Machine::on(vm, &assemble(&ops), VcpuOptions::default())
}

fn hidden() {
    let machine = out_only(vm_without(&[RING]));
    let (queue, claim, counters) = post(&machine, 0, 8);
    assert!(!machine.vm.bus().is_in_kernel(claim));
    machine.assert_ends();
    assert_eq!(values(&queue), [1, 2, 3, 3]);
    assert_eq!(counted(&counters), (4, 4));
}

fn too_large() {
    let vm = vm();
    let claim = |gpa: u64, size| {
        let owner = Owner::Posted { queue: Queue::posted(drop), program: 8 };
        vm.bus().claim_mmio(GpaRange::new(gpa, size).unwrap(), owner).unwrap()
    };
    assert!(!vm.bus().is_in_kernel(claim(0, 1 << 31)));
    let fits = claim(1 << 32, (1 << 31) - 1);
    assert_eq!(vm.bus().is_in_kernel(fits), vm.capabilities().has(Capability::CoalescedMmio));
}

fn nothing_left() {
    let once = || {
        let machine = out_only(vm());
        let (queue, claim, _) = post(&machine, 0, 8);
        machine.assert_ends();
        let bus = machine.vm.bus().clone();
        machine.vm.close();
        bus.release(claim);
        assert_eq!(values(&queue), [1, 2, 3, 3]);
        bus
    };
    let machine = out_only(vm());
    let threads = || resources().1;
    let before_claim = threads();
    let (_, claim, _) = post(&machine, 0, 1);
    let helped = usize::from(machine.vm.bus().is_in_kernel(claim));
    assert_eq!(threads() - before_claim, helped, "a thread from the first claim on that needs it");
    post(&machine, 1, 1);
    assert_eq!(threads() - before_claim, helped, "and no second one");
    // The allocator maps an arena for each of its first threads.
    let warm: Vec<_> = (0..16).map(|_| once()).collect();
    let before = resources();
    let kept: Vec<_> = (0..scaled(40).max(20)).map(|_| once()).collect();
    let after = resources();
    let bound = kept.len() / 2;
    assert!(
        after.0 < before.0 + bound && after.1 < before.1 + bound && after.2 < before.2 + bound,
        "{before:?} -> {after:?}"
    );
    drop(warm);
}

/// One ring short of what an eventfd can hold: a further one by write(2) is refused, by the kernel itself it is not.
const NEARLY_FULL: u64 = u64::MAX - 1;

fn doorbell() {
    // Anywhere else in the claim the device in Rust does it.
    for (offset, rung) in [(0, u64::MAX), (1, NEARLY_FULL)] {
        let machine = Machine::of(&[Op::Out(offset), Op::End]);
        let (doorbell, fd) = Doorbell::new().unwrap();
        let claim = machine.claim(0, 4, doorbell);
        assert!(machine.vm.bus().is_in_kernel(claim));
        fd.write(NEARLY_FULL).unwrap();
        machine.assert_ends();
        assert_eq!(fd.read().unwrap(), rung, "offset {offset}");
    }
}

fn value() {
    let guest = [Op::Load(5), Op::Out(0), Op::Load(6), Op::Out(0), Op::Load(5), Op::Out(0), Op::Out(1), Op::End];
    for (already, sum) in [(0, 3), (u64::MAX - 3, u64::MAX - 1)] {
        let machine = Machine::of(&guest);
        let (doorbell, fd) = Doorbell::rung_by(5).unwrap();
        let claim = machine.claim(0, 2, doorbell);
        assert!(machine.vm.bus().is_in_kernel(claim));
        fd.write(already).unwrap();
        machine.assert_ends();
        assert_eq!(fd.read().unwrap(), sum, "two by the kernel, one by Rust");
    }
}

fn neighbours() {
    let machine = Machine::of(&[Op::Load(3), Op::Out(0), Op::Out(4), Op::End]);
    let (doorbell, fd) = Doorbell::new().unwrap();
    let claim = machine.claim(4, 4, doorbell);
    let (queue, ..) = post(&machine, 0, 4);
    assert!(machine.vm.bus().is_in_kernel(claim));
    fd.write(NEARLY_FULL).unwrap();
    machine.assert_ends();
    assert_eq!((values(&queue), fd.read().unwrap()), (vec![3], u64::MAX));
}

fn full_bus() {
    let machine = Machine::of(&[Op::Out(0), Op::End]);
    let (mut at, bus) = (0x100, machine.vm.bus());
    let mut post = || {
        at += 1;
        let owner = Owner::Posted { queue: Queue::posted(drop), program: 8 };
        if RING == Capability::CoalescedPio {
            bus.claim_ports(at, 1, owner)
        } else {
            bus.claim_mmio(GpaRange::new(0x10_0000 + u64::from(at), 1).unwrap(), owner)
        }
    };
    let refused = (0..=1000).find_map(|_| post().err());
    assert!(matches!(refused, Some(Error::Limit { .. })) || !machine.vm.capabilities().has(RING), "{refused:?}");
    let (doorbell, fd) = Doorbell::new().unwrap();
    let claim = machine.claim(0, 4, doorbell);
    assert_eq!(bus.is_in_kernel(claim), refused.is_none());
    machine.assert_ends();
    assert_eq!(fd.read().unwrap(), 1);
}

fn doorbell_released() {
    let machine = Machine::of(&[Op::Load(3), Op::Out(0), Op::End]);
    let (doorbell, fd) = Doorbell::new().unwrap();
    let claim = machine.claim(0, 1, doorbell);
    machine.vm.bus().release(claim);
    assert!(!machine.vm.bus().is_in_kernel(claim));
    assert_eq!(machine.run(), out(0, 3));
    assert!(fd.read().is_err(), "it was not rung");
}

fn doorbell_hidden() {
    let code = assemble(&[Op::Out(0), Op::End]);
    let machine = Machine::on(vm_without(&[Capability::Ioeventfd]), &code, VcpuOptions::default());
    let (doorbell, fd) = Doorbell::new().unwrap();
    let claim = machine.claim(0, 1, doorbell);
    assert!(!machine.vm.bus().is_in_kernel(claim));
    machine.assert_ends();
    assert_eq!(fd.read().unwrap(), 1);
}

#[cfg(target_arch = "x86_64")]
#[path = "bus_x86.rs"]
mod x86;
