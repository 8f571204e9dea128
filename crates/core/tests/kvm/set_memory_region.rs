//! The cases of the kernel's `set_memory_region_test` (tools/testing/selftests/kvm), in our API; which is which says
//! `tests/selftests.rs`. Where the C test gives a thread time by sleeping, the guest here counts its rounds and the host waits for
//! the count. The C test runs its last two cases once more with the quirk `SLOT_ZAP_ALL` switched off, for which a [`Vm`]
//! has no option.
#![expect(unsafe_code, reason = "gives KVM flags that Typevisor never gives")]

use std::{fs, path::Path};

use kvm_bindings::{
    KVM_CAP_USER_MEMORY2, KVM_MEM_GUEST_MEMFD, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_userspace_memory_region,
    kvm_userspace_memory_region2,
};
use kvm_ioctls::VmFd;
use libtest_mimic::Trial;
use typevisor::{
    Error, Vm,
    host::Capability,
    memory::{Backing, MapOptions, MemorySlot},
};

use crate::support::{pages, trial, vm, with_every_slot, x86_only};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        x86_only!("set_memory_region: a vCPU without memory is an internal error", without_memory),
        vectoring(x86_only!(
            "set_memory_region: an event whose gate is not in memory is an internal error with its address",
            mmio_during_vectoring
        )),
        trial("set_memory_region: flags that no slot has are refused", invalid_flags),
        with_every_slot(trial("set_memory_region: as many slots as KVM says, and not one more", every_slot)),
        x86_only!("set_memory_region: a slot in use moves, and the guest reads old, none or new", move_in_use),
        x86_only!(
            "set_memory_region: a slot in use goes and comes back; without its code the guest ends",
            delete_in_use
        ),
    ]
}

/// SVM reports it, as VMX does, from Linux 6.14 on (commit 7bd7ff99110a); before, the vCPU meets the gate again and again.
/// kvm-pvm delivers events itself, and makes it a triple fault.
fn vectoring(trial: Trial) -> Trial {
    let reason = if Path::new("/sys/module/kvm_pvm").exists() {
        "needs events by hardware"
    } else if kernel() < (6, 14) {
        "needs Linux 6.14"
    } else {
        return trial;
    };
    // That of another processor has its reason.
    if trial.has_ignored_flag() { trial } else { trial.with_kind(reason).with_ignored_flag(true) }
}

/// The running kernel's version.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|digits| digits.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// One large page, as in the C test: KVM may map it as one.
const REGION_SIZE: u64 = 2 << 20;

/// Bit 3 where the lab's kernel has it; nobody else's `KVM_CHECK_EXTENSION` knows the number.
fn exit_on_missing(vm: &VmFd) -> u32 {
    const KVM_CAP_EXIT_ON_MISSING: std::ffi::c_ulong = 10236;
    if vm.check_extension_raw(KVM_CAP_EXIT_ON_MISSING) > 0 { 1 << 3 } else { 0 }
}

fn invalid_flags() {
    let vm = kvm_ioctls::Kvm::new().unwrap().create_vm().unwrap();
    let known = KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY | exit_on_missing(&vm);
    let has_region2 = vm.check_extension_raw(KVM_CAP_USER_MEMORY2.into()) > 0;
    for flags in (0..32).map(|bit| 1 << bit).filter(|flag| flag & known == 0) {
        let refused =
            [Some(region(&vm, flags)), (has_region2 && flags != KVM_MEM_GUEST_MEMFD).then(|| region2(&vm, flags))];
        assert!(refused.into_iter().flatten().all(|errno| errno == libc::EINVAL), "{flags:#x}: {refused:?}");
    }
}

/// What `KVM_SET_USER_MEMORY_REGION` says of these flags; 0 where it takes them.
fn region(vm: &VmFd, flags: u32) -> i32 {
    let region = kvm_userspace_memory_region { flags, memory_size: REGION_SIZE, ..Default::default() };
    // SAFETY: no guest runs in this VM.
    errno(unsafe { vm.set_user_memory_region(region) })
}

/// The same of `KVM_SET_USER_MEMORY_REGION2`.
fn region2(vm: &VmFd, flags: u32) -> i32 {
    let region = kvm_userspace_memory_region2 { flags, memory_size: REGION_SIZE, ..Default::default() };
    // SAFETY: no guest runs in this VM.
    errno(unsafe { vm.set_user_memory_region2(region) })
}

fn errno(result: Result<(), kvm_ioctls::Error>) -> i32 {
    result.err().map_or(0, kvm_ioctls::Error::errno)
}

/// All are shares of the first: 32,764 slots take one mapping, and one page. The C test has 2 MiB each, for processors that
/// are not ours.
fn every_slot() {
    let vm = vm();
    let limit = u32::try_from(vm.capabilities().value(Capability::NrMemslots)).unwrap();
    assert!(limit > 0);
    let first = map(&vm, 0, None, Backing::Anonymous).unwrap();
    let share = || Backing::Share { slot: first.clone(), offset: 0 };
    for number in 1..limit {
        let slot = map(&vm, number, Some(number), share()).unwrap();
        assert_eq!(slot.number(), number);
    }
    let more = [map(&vm, limit, None, share()), map(&vm, limit, Some(limit), share())];
    assert!(matches!(&more[0], Err(Error::SlotLimit { limit: said }) if *said == limit), "{:?}", more[0]);
    assert!(matches!(&more[1], Err(Error::SlotNumberRange { number, .. }) if *number == limit), "{:?}", more[1]);
    vm.memory().write(SLOT_SIZE * u64::from(limit - 1), b"one").unwrap();
    let mut bytes = [0; 3];
    vm.memory().read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"one");
}

const SLOT_SIZE: u64 = 0x1000;

/// The `place`th page.
fn map(vm: &Vm, place: u32, slot: Option<u32>, backing: Backing) -> typevisor::Result<MemorySlot> {
    let range = pages(u64::from(place) * SLOT_SIZE, SLOT_SIZE);
    vm.memory().map(&MapOptions { slot, backing, ..MapOptions::new(range) })
}

#[cfg(target_arch = "x86_64")]
use x86_64::{delete_in_use, mmio_during_vectoring, move_in_use, without_memory};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::{
        ops::Range,
        sync::mpsc::{Receiver, Sender, channel},
        thread::{self, JoinHandle},
        time::Instant,
    };

    use typevisor::{
        Exit, Vcpu, Vm,
        memory::{MapOptions, MemorySlot},
        vcpu::{BootMode, BootOptions, VcpuOptions},
    };

    use super::{REGION_SIZE, pages};
    use crate::{
        machine::{CODE, LIMIT},
        support::vm,
    };

    /// Where the slot is that moves and goes. Below are no tables, above no devices.
    const REGION: u64 = 0xc000_0000;
    const PAGE: u64 = 0x1000;

    pub(super) fn without_memory() {
        let vm = vm();
        let vcpu = vm.create_vcpu(VcpuOptions::default()).unwrap();
        // KVM grants itself page tables by the slots: none before the first, 64 from then on. Without any `KVM_RUN` is
        // ENOSPC. The C test asks for 64 by `KVM_SET_NR_MMU_PAGES`.
        map(&vm, None).unmap().unwrap();
        let exit = vcpu.run_sync(LIMIT).unwrap();
        assert!(matches!(exit, Exit::InternalError { .. }), "{exit:?}");
    }

    /// A vCPU about to run 64-bit code in ring 0.
    fn guest(code: &[u8]) -> (Vm, Vcpu) {
        let vm = vm();
        vm.memory().map(&MapOptions::new(pages(CODE, PAGE))).unwrap();
        vm.memory().write(CODE, code).unwrap();
        let vcpu = vm.create_vcpu(VcpuOptions::default()).unwrap();
        vcpu.boot(&BootOptions::new(BootMode::Long, CODE)).unwrap();
        (vm, vcpu)
    }

    /// `KVM_INTERNAL_ERROR_DELIVERY_EV`: an event could not be delivered.
    const DELIVERY: u32 = 3;

    pub(super) fn mmio_during_vectoring() {
        let code = [
            0x0f, 0x01, 0x1d, 0x0e, 0, 0, 0, // lidt [rip + 14]
            0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0xaa, // mov rax, 0xaa00000000000000
            0xc6, 0x00, 0x01, // mov byte [rax], 1: a general protection fault
            0xf4, // hlt
            0xff, 0x0f, 0, 0, 0, 0xc0, 0, 0, 0, 0, // limit 0xfff, base REGION
        ];
        let (_vm, vcpu) = guest(&code);
        let exit = vcpu.run_sync(LIMIT).unwrap();
        let Exit::InternalError { suberror: DELIVERY, data, .. } = exit else { panic!("{exit:?}") };
        assert_ne!(data.len(), 4, "the C test says so too: a vector, two words of information, the address, and more");
        assert_eq!(data[3], REGION + 13 * 16, "the gate of vector 13");
    }

    /// What the host answers where the slot is not.
    const ABSENT: u32 = 0xbeef;
    /// Where the guest counts its rounds.
    const ROUNDS: u64 = 0x8000;
    /// The guest writes to it what it has read.
    const SAYS: u16 = 0x42;
    /// The guest writes to it when it is through.
    const DONE: u16 = 0x43;

    /// A guest that reads the region's first word round after round, and what it has said so far.
    struct Reader {
        vm: Vm,
        region: MemorySlot,
        said: Receiver<u32>,
        vcpu: JoinHandle<(Vcpu, Exit)>,
    }

    impl Reader {
        /// Runs `program`.
        fn start(program: &[u8]) -> Self {
            let (vm, vcpu) = guest(program);
            vm.memory().map(&MapOptions::new(pages(ROUNDS, PAGE))).unwrap();
            let region = map(&vm, None);
            let (sender, said) = channel();
            let vcpu = thread::spawn(move || {
                let exit = work(&vcpu, &sender);
                (vcpu, exit)
            });
            Self { vm, region, said, vcpu }
        }

        /// The next value that the guest says; a guest that ended says none.
        fn next(&self) -> u32 {
            self.said.recv_timeout(LIMIT).expect("the guest goes on")
        }

        /// Waits until the guest has begun a round after this, and ended it.
        fn whole_round(&self) {
            let rounds = || {
                let mut bytes = [0; 8];
                self.vm.memory().read(ROUNDS, &mut bytes).unwrap();
                u64::from_le_bytes(bytes)
            };
            let (before, began) = (rounds(), Instant::now());
            while rounds() < before + 2 {
                assert!(began.elapsed() < LIMIT, "the guest stands still");
                thread::yield_now();
            }
        }

        /// Where it ended, with its VM: without that its registers are gone.
        fn end(self) -> (Vm, Vcpu, Exit) {
            let (vcpu, exit) = self.vcpu.join().unwrap();
            (self.vm, vcpu, exit)
        }
    }

    fn map(vm: &Vm, slot: Option<u32>) -> MemorySlot {
        vm.memory().map(&MapOptions { slot, ..MapOptions::new(pages(REGION, REGION_SIZE)) }).unwrap()
    }

    /// Answers reads of what is not there, and passes on what the guest says; gives the first other exit.
    fn work(vcpu: &Vcpu, says: &Sender<u32>) -> Exit {
        loop {
            match vcpu.run_sync(LIMIT).unwrap() {
                Exit::IoOut { port: SAYS, size: 4, data, .. } => {
                    says.send(u32::from_le_bytes((*data).try_into().unwrap())).unwrap();
                }
                Exit::MmioRead { gpa: REGION, size: 8 } => vcpu.answer_word(ABSENT.into()).unwrap(),
                exit => return exit,
            }
        }
    }

    /// A program that says 0, reads until the value is no longer the first of `values`, says what it is then, and so on.
    /// Also where the last of these loops lies.
    fn program(values: &[u32]) -> (Vec<u8>, Range<u64>) {
        let mut code = vec![0xbb, 0, 0, 0, 0xc0]; // mov ebx, REGION
        code.extend([0xb9, 0, 0x80, 0, 0]); // mov ecx, ROUNDS
        code.extend([0x31, 0xc0, 0xe7, 0x42]); // xor eax, eax; out SAYS, eax
        let mut last = 0;
        for value in values {
            code.push(0xba); // mov edx, value
            code.extend(value.to_le_bytes());
            last = code.len();
            // again: inc qword [rcx]; mov rax, [rbx]; cmp rax, rdx; je again
            code.extend([0x48, 0xff, 0x01, 0x48, 0x8b, 0x03, 0x48, 0x39, 0xd0, 0x74, 0xf5]);
            code.extend([0xe7, 0x42]); // out SAYS, eax
        }
        let end = code.len();
        code.extend([0xe6, 0x43]); // out DONE, al
        let at = |offset: usize| CODE + u64::try_from(offset).unwrap();
        (code, at(last)..at(end))
    }

    pub(super) fn move_in_use() {
        (0..10).for_each(|_| move_once());
    }

    /// The word moves by a page: at its old address the guest finds the next page, 0. Whether it sees the moment without
    /// the slot is chance; that it never sees the 2, which is at no address of its own, is not.
    fn move_once() {
        let reader = Reader::start(&program(&[0, ABSENT, 0, ABSENT]).0);
        assert_eq!(reader.next(), 0);
        let region = &reader.region;
        region.move_to(REGION - PAGE).unwrap();
        reader.vm.memory().write(REGION - PAGE, &[2]).unwrap();
        reader.whole_round();
        // Before it is back: else the guest could read the 2.
        reader.vm.memory().write(REGION - PAGE, &[1]).unwrap();
        region.move_to(REGION).unwrap();
        let said = [reader.next(), reader.next(), reader.next(), reader.next()];
        assert!(matches!(said, [1 | ABSENT, 0 | 1, 1 | ABSENT, 1]), "{said:?}");
        let (_vm, _vcpu, exit) = reader.end();
        assert!(matches!(exit, Exit::IoOut { port: DONE, .. }), "{exit:?}");
    }

    pub(super) fn delete_in_use() {
        (0..10).for_each(|_| delete_once());
    }

    fn delete_once() {
        let (code, last) = program(&[0, ABSENT, 0, ABSENT]);
        let reader = Reader::start(&code);
        assert_eq!(reader.next(), 0);
        let number = reader.region.number();
        reader.region.unmap().unwrap();
        assert_eq!(reader.next(), ABSENT);
        let again = map(&reader.vm, Some(number));
        assert_eq!(reader.next(), 0);
        again.unmap().unwrap();
        assert_eq!(reader.next(), ABSENT);
        reader.whole_round();
        // Now what it lives on: its code, and its tables.
        for slot in reader.vm.memory().slots().unwrap().into_iter().filter(|slot| slot.range.gpa() != ROUNDS) {
            reader.vm.memory().slot_at(slot.range.gpa()).unwrap().unwrap().unmap().unwrap();
        }
        let (_vm, vcpu, exit) = reader.end();
        match exit {
            Exit::Shutdown => {}
            Exit::InternalError { .. } => {
                let rip = vcpu.registers().unwrap().0.rip;
                assert!(last.contains(&rip), "{rip:#x} is outside {last:#x?}");
            }
            other => panic!("{other:?}"),
        }
    }
}
