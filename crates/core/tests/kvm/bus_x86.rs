//! The same, by guests that count: of what each wrote it can be told whether anything is missing.

use std::{
    sync::{Arc, mpsc::channel},
    thread,
    time::{Duration, Instant},
};

use typevisor::{
    Error, Exit, GpaRange, Vcpu, Vm, VmOptions,
    bus::{Doorbell, Owner, PostedWrite, Queue},
    memory::MapOptions,
    vcpu::{Outcome, VcpuOptions},
};

use super::{Posted, counted, post, post_awaited, start, values};
use crate::{
    machine::{LIMIT, Machine, boot},
    support::{kvm, scaled},
};

/// inc ax; out 0x10, ax; jmp -5
const COUNT: [u8; 5] = [0x40, 0xe7, 0x10, 0xeb, 0xfb];
const PORT: u16 = 0x10;
/// What a queue holds at most: its own, and what a ring held (of x86, in 4 KiB) and the exit behind it brought.
const MOST: usize = 8192 + 170;

/// mov cx, count; inc ax; out 0x10, ax; loop -5; hlt; jmp -11
fn count_to(count: u16) -> [u8; 11] {
    let [low, high] = count.to_le_bytes();
    [0xb9, low, high, 0x40, 0xe7, 0x10, 0xe2, 0xfb, 0xf4, 0xeb, 0xf5]
}

/// What has been seen of a guest that writes 1, 2, … (16 bits).
#[derive(Default)]
struct Seen(u64);

impl Seen {
    fn take(&mut self, queue: &Posted) {
        for write in queue.take() {
            self.0 += 1;
            assert_eq!(write, PostedWrite { offset: 0, size: 2, value: self.0 & 0xffff });
        }
    }

    /// Nothing of what the guest wrote before it came to stand is missing: at most the last count is not yet written.
    fn assert_is_all(&self, vcpu: &Vcpu) {
        let counted = vcpu.registers().unwrap().0.rax & 0xffff;
        let seen = self.0 & 0xffff;
        assert!(seen == counted || (seen + 1) & 0xffff == counted, "{seen} writes seen, {counted} counted");
    }
}

pub(super) fn many() {
    const WRITES: u16 = 1000;
    let machine = Machine::real_mode(&count_to(WRITES));
    let (queue, claim, counters) = post(&machine, 0, 2);
    assert!(machine.vm.bus().is_in_kernel(claim));
    assert_eq!(machine.run(), Exit::Hlt);
    let mut seen = Seen::default();
    seen.take(&queue);
    assert_eq!(seen.0, u64::from(WRITES));
    let (writes, exits) = counted(&counters);
    assert_eq!(writes, u64::from(WRITES));
    // Before 6.12 KVM finds the ring full with 85 entries, at times.
    assert!(exits <= u64::from(WRITES / 64), "{exits} exits");
}

pub(super) fn string() {
    // mov si, 0x2000; mov dx, 0x10; mov cx, 400; cld; rep outsb; hlt
    let code = [0xbe, 0, 0x20, 0xba, 0x10, 0, 0xb9, 0x90, 0x01, 0xfc, 0xf3, 0x6e, 0xf4];
    let machine = Machine::real_mode(&code);
    let bytes: Vec<u8> = (0..400_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    machine.vm.memory().write(0x2000, &bytes).unwrap();
    let (queue, _, counters) = post(&machine, 0, 1);
    assert_eq!(machine.run(), Exit::Hlt);
    assert_eq!(values(&queue), bytes.iter().map(|byte| u64::from(*byte)).collect::<Vec<_>>());
    assert_eq!(counters.writes(), 400);
}

/// How often to look for a moment at which something lies in the ring.
fn rounds() -> std::ops::Range<u32> {
    0..scaled(90)
}

/// Lets the guest write for a moment, another one each round: the ring is emptied every millisecond and when it is full.
fn a_moment(round: u32) -> Duration {
    Duration::from_micros(u64::from(round * 137 % 900))
}

fn pass(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
}

pub(super) fn ends() {
    let machine = Machine::real_mode(&COUNT);
    let (queue, woken) = post_awaited(&machine);
    let mut seen = Seen::default();
    for round in rounds() {
        let vcpu = &machine.vcpu;
        if round % 3 == 0 {
            let limited = vcpu.run_sync(Duration::from_millis(1) + a_moment(round));
            assert!(matches!(limited, Err(Error::Timeout { .. })), "{limited:?}");
        } else {
            let ended = start(vcpu, 1);
            woken.recv_timeout(LIMIT).unwrap();
            pass(a_moment(round));
            if round % 3 == 1 {
                vcpu.kick().unwrap();
            } else {
                vcpu.cancel(1);
            }
            assert_eq!(ended.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
        }
        seen.take(&queue);
        seen.assert_is_all(vcpu);
        woken.try_iter().for_each(drop);
    }
}

pub(super) fn close() {
    // inc ax; mov [0x3000], ax; out 0x10, ax; jmp -8
    let machine = Machine::real_mode(&[0x40, 0xa3, 0, 0x30, 0xe7, 0x10, 0xeb, 0xf8]);
    let (queue, ..) = post(&machine, 0, 2);
    let ended = start(&machine.vcpu, 1);
    let began = Instant::now();
    let counted = loop {
        let mut word = [0; 2];
        machine.vm.memory().read(0x3000, &mut word).unwrap();
        match u64::from(u16::from_le_bytes(word)) {
            enough @ 100.. => break enough,
            _ => assert!(began.elapsed() < LIMIT, "the guest does not count"),
        }
        thread::yield_now();
    };
    machine.vm.close();
    assert!(matches!(ended.recv_timeout(LIMIT).unwrap(), Err(Error::Closed { .. })));
    let mut seen = Seen::default();
    seen.take(&queue);
    assert!(seen.0 + 1 >= counted, "{} writes seen, {counted} counted", seen.0);
}

pub(super) fn release() {
    let machine = Machine::real_mode(&COUNT);
    for round in rounds() {
        let (sender, woken) = channel();
        let queue = Queue::posted(move |_arrived| sender.send(()).unwrap_or(()));
        let claim = machine.claim(0, 2, Owner::Posted { queue: Arc::clone(&queue), program: 8 });
        let before = machine.vcpu.registers().unwrap().0.rax;
        let mut seen = Seen(before);
        let ended = start(&machine.vcpu, 1);
        woken.recv_timeout(LIMIT).unwrap();
        pass(a_moment(round));
        machine.vm.bus().release(claim);
        seen.take(&queue); // and opens the gate, where the queue was full
        let outcome = ended.recv_timeout(LIMIT).unwrap().unwrap();
        seen.take(&queue);
        let next = u16::try_from((seen.0 + 1) & 0xffff).unwrap();
        let exit = Exit::IoOut { port: PORT, size: 2, count: 1, data: Box::new(next.to_le_bytes()) };
        assert_eq!(outcome, Outcome::Exit(exit), "round {round}");
    }
}

pub(super) fn two_vcpus() {
    let machine = Machine::real_mode(&COUNT);
    let second_code = [0x40, 0xe7, 0x14, 0xeb, 0xfb]; // the same, to port 0x14
    machine.vm.memory().write(0x1100, &second_code).unwrap();
    let second = machine.vm.create_vcpu(VcpuOptions::default()).unwrap();
    boot(&second, 0x1100);
    let queues = [post(&machine, 0, 2).0, post(&machine, 4, 2).0];
    let vcpus = [&machine.vcpu, &second];
    let runs = vcpus.map(|vcpu| start(vcpu, 1));
    let mut seen = [Seen::default(), Seen::default()];
    let began = Instant::now();
    while seen.iter().any(|seen| seen.0 < 1000) {
        assert!(began.elapsed() < LIMIT, "{} and {} writes", seen[0].0, seen[1].0);
        for (seen, queue) in seen.iter_mut().zip(&queues) {
            seen.take(queue);
        }
        thread::yield_now();
    }
    for (vcpu, run) in vcpus.into_iter().zip(runs) {
        vcpu.kick().unwrap();
        assert_eq!(run.recv_timeout(LIMIT).unwrap().unwrap(), Outcome::Exit(Exit::Intr));
    }
    for ((seen, queue), vcpu) in seen.iter_mut().zip(&queues).zip(vcpus) {
        seen.take(queue);
        seen.assert_is_all(vcpu);
    }
}

pub(super) fn never_read() {
    let machine = Machine::real_mode(&count_to(100));
    let (queue, ..) = post(&machine, 0, 2);
    let held = (0..200).find_map(|_| machine.vcpu.run_sync(Duration::from_secs(2)).err());
    assert!(matches!(held, Some(Error::Timeout { .. })), "{held:?}");
    let waiting = queue.take().len();
    assert!((8192..=MOST).contains(&waiting), "{waiting} wait");
    assert_eq!(machine.run(), Exit::Hlt);
}

pub(super) fn irqchip() {
    let vm = Vm::create(&kvm(), &VmOptions { irqchip: true, ..Default::default() }).unwrap();
    // mov al, 0x5a; out 0x21, al; mov al, 0; in al, 0x21; out 0x99, al
    let code = [0xb0, 0x5a, 0xe6, 0x21, 0xb0, 0, 0xe4, 0x21, 0xe6, 0x99];
    let machine = Machine::on(vm, &code, VcpuOptions::default());
    let claim = |base, count| {
        let owner = Owner::Posted { queue: Queue::posted(drop), program: 8 };
        machine.vm.bus().claim_ports(base, count, owner).unwrap()
    };
    assert!(!machine.vm.bus().is_in_kernel(claim(0, 0x80)));
    assert!(machine.vm.bus().is_in_kernel(claim(0x3f8, 8)));
    let mask = Exit::IoOut { port: 0x99, size: 1, count: 1, data: Box::new([0x5a]) };
    assert_eq!(machine.run(), mask, "the interrupt controller answers its port");
}

pub(super) fn readonly_slot() {
    // mov ax, 0x1000; mov ds, ax; mov byte [0x20], 0x77; hlt
    let code = [0xb8, 0, 0x10, 0x8e, 0xd8, 0xc6, 0x06, 0x20, 0, 0x77, 0xf4];
    let machine = Machine::real_mode(&code);
    let range = GpaRange::pages(0x1_0000, 4096).unwrap();
    machine.vm.memory().map(&MapOptions { readonly: true, ..MapOptions::new(range) }).unwrap();
    let queue = Queue::posted(drop);
    let owner = Owner::Posted { queue: Arc::clone(&queue), program: 8 };
    let claim = machine.vm.bus().claim_mmio(range, owner).unwrap();
    assert_eq!(machine.run(), Exit::Hlt);
    assert_eq!(queue.take(), [PostedWrite { offset: 0x20, size: 1, value: 0x77 }]);
    assert_eq!(machine.vm.bus().posted_counters(claim).unwrap().exits(), 0);
}

pub(super) fn doorbell_read() {
    // mov ax, 0x9000; mov ds, ax; mov al, 0xff; mov [0], al; mov al, [0]; hlt
    let code = [0xb8, 0, 0x90, 0x8e, 0xd8, 0xb0, 0xff, 0xa2, 0, 0, 0xa0, 0, 0, 0xf4];
    let machine = Machine::real_mode(&code);
    let (doorbell, fd) = Doorbell::new().unwrap();
    let range = GpaRange::new(0x9_0000, 8).unwrap();
    let claim = machine.vm.bus().claim_mmio(range, doorbell).unwrap();
    assert!(machine.vm.bus().is_in_kernel(claim));
    assert_eq!(machine.run(), Exit::Hlt);
    assert_eq!(machine.register(), 0);
    assert_eq!(fd.read().unwrap(), 1);
}

pub(super) fn doorbell_lengths() {
    // out 0x10, al; out 0x10, ax; out 0x10, eax; hlt
    let code = [0xe6, 0x10, 0xe7, 0x10, 0x66, 0xe7, 0x10, 0xf4];
    for (ports, rung) in [(4, 3), (2, 2)] {
        let machine = Machine::real_mode(&code);
        let (doorbell, fd) = Doorbell::new().unwrap();
        machine.vm.bus().claim_ports(PORT, ports, doorbell).unwrap();
        // By write(2) the last ring would be refused.
        fd.write(u64::MAX - rung).unwrap();
        let exit = machine.run();
        let crosses = matches!(&exit, Exit::IoOut { size: 4, port: PORT, .. });
        assert!(if ports == 4 { exit == Exit::Hlt } else { crosses }, "{exit:?}");
        assert_eq!(fd.read().unwrap(), u64::MAX);
    }
}
