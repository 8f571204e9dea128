//! Slots and host access, as the kernel takes them.

use libtest_mimic::Trial;
use typevisor::{
    Error, ErrorCode, GpaRange, Kvm, Vm, VmOptions,
    hooks::ioctls,
    host::{Capability, KvmOptions},
    memory::{GuestMemory, MapOptions, MemorySlot},
};

#[cfg(target_arch = "x86_64")]
use crate::machine::Machine;
use crate::support::{PAGE, code, needs, pages, scaled, trial, vm, with_every_slot, x86_only};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("memory: overlapping slots are refused, both ranges named", overlap),
        trial("memory: misaligned addresses and sizes are refused", misaligned),
        trial("memory: numbers are lowest first, chosen ones are obeyed", numbers),
        trial("memory: 100,000 map and unmap use up no slot number", reuse),
        with_every_slot(trial("memory: more slots than the VM has is ERR_SLOT_LIMIT", slot_limit)),
        trial("memory: an access crosses slot borders", across_borders),
        trial("memory: an access with a hole changes nothing", hole),
        needs(Capability::ReadonlyMem, "memory: the host writes read-only slots", host_writes_rom),
        trial("memory: a read-only slot without its capability is refused", readonly_missing),
        needs(Capability::UserMemory2, "memory: KVM is given KVM_SET_USER_MEMORY_REGION2", region2),
        trial("memory: without USER_MEMORY2 the old ioctl does the same", fallback),
        trial("memory: a refusal by the kernel leaves the slots as they were", refused_by_kernel),
        trial("memory: a slot moves with its content, also over itself", moves),
        trial("memory: the ioctl that KVM is given follows the capability USER_MEMORY2 of the VM", ioctl_follows),
        trial("memory: closing ends every handle", close),
        x86_only!("memory: where KVM keeps pages beside an irqchip no slot is mapped", beside_an_irqchip),
        x86_only!("memory: the guest sees a moved slot at its new address", guest_sees_move),
    ]
}

fn map(memory: &GuestMemory, gpa: u64, size: u64) -> MemorySlot {
    memory.map(&MapOptions::new(pages(gpa, size))).unwrap()
}

fn read<const N: usize>(memory: &GuestMemory, gpa: u64) -> [u8; N] {
    let mut bytes = [0xee; N];
    memory.read(gpa, &mut bytes).unwrap();
    bytes
}

fn ranges(memory: &GuestMemory) -> Vec<(u32, GpaRange)> {
    memory.slots().unwrap().iter().map(|slot| (slot.number, slot.range)).collect()
}

fn vm_without(capability: Capability) -> Vm {
    let kvm = Kvm::open(KvmOptions { hide: vec![capability], ..KvmOptions::default() }).unwrap();
    Vm::create(&kvm, &VmOptions::default()).unwrap()
}

/// On processors that do not need the pages KVM itself would let it be.
#[cfg(target_arch = "x86_64")]
fn beside_an_irqchip() {
    let kept = pages(0xfeff_c000, 4 * PAGE);
    let with = Vm::create(&crate::support::kvm(), &VmOptions { irqchip: true, ..Default::default() }).unwrap();
    let slot = map(with.memory(), kept.gpa() - PAGE, PAGE);
    map(with.memory(), kept.end(), PAGE);
    let before = ioctls();
    for range in [pages(kept.gpa(), PAGE), pages(kept.end() - PAGE, PAGE)] {
        let error = with.memory().map(&MapOptions::new(range)).unwrap_err();
        let named = |new, reserved| (new, reserved) == (range, kept);
        assert!(matches!(error, Error::SlotReserved { new, reserved } if named(new, reserved)), "{error}");
    }
    assert_eq!(code(slot.move_to(kept.gpa())), ErrorCode::SlotOverlap);
    assert_eq!(ioctls(), before);
    map(vm().memory(), kept.gpa(), kept.size());
}

fn overlap() {
    let vm = vm();
    map(vm.memory(), PAGE, 2 * PAGE);
    for range in [pages(0, 2 * PAGE), pages(2 * PAGE, PAGE), pages(0, 4 * PAGE)] {
        match vm.memory().map(&MapOptions::new(range)) {
            Err(Error::SlotOverlap { new, old }) => {
                assert_eq!((new, old), (range, pages(PAGE, 2 * PAGE)));
            }
            other => panic!("{other:?}"),
        }
    }
    let above = map(vm.memory(), 3 * PAGE, PAGE);
    assert_eq!(code(above.move_to(2 * PAGE)), ErrorCode::SlotOverlap);
    assert_eq!(ranges(vm.memory()), [(0, pages(PAGE, 2 * PAGE)), (1, pages(3 * PAGE, PAGE))]);
}

fn misaligned() {
    let vm = vm();
    for (gpa, size) in [(1, PAGE), (PAGE, PAGE + 8), (PAGE / 2, PAGE / 2)] {
        let range = GpaRange::new(gpa, size).unwrap();
        assert_eq!(code(vm.memory().map(&MapOptions::new(range))), ErrorCode::Unaligned);
    }
    let slot = map(vm.memory(), 0, PAGE);
    assert_eq!(code(slot.move_to(PAGE + 1)), ErrorCode::Unaligned);
    assert_eq!(ranges(vm.memory()), [(0, pages(0, PAGE))]);
}

fn numbers() {
    let vm = vm();
    let at = |gpa, slot| vm.memory().map(&MapOptions { slot, ..MapOptions::new(pages(gpa, PAGE)) });
    assert_eq!(at(0, Some(1)).unwrap().number(), 1);
    assert_eq!(at(PAGE, None).unwrap().number(), 0);
    assert_eq!(at(2 * PAGE, None).unwrap().number(), 2);
    assert!(matches!(at(3 * PAGE, Some(1)), Err(Error::SlotNumberTaken { number: 1, .. })));
    let limit = u32::try_from(vm.capabilities().value(Capability::NrMemslots)).unwrap();
    assert!(matches!(at(3 * PAGE, Some(limit)), Err(Error::SlotNumberRange { .. })));
    assert_eq!(at(3 * PAGE, Some(limit - 1)).unwrap().number(), limit - 1);
}

fn reuse() {
    let vm = vm();
    map(vm.memory(), 0, PAGE);
    for _ in 0..scaled(100_000) {
        let slot = map(vm.memory(), PAGE, PAGE);
        assert_eq!(slot.number(), 1);
        slot.unmap().unwrap();
    }
    assert_eq!(ranges(vm.memory()), [(0, pages(0, PAGE))]);
}

/// That no ioctl is issued is a unit test; here KVM really takes as many as it says.
fn slot_limit() {
    let vm = vm();
    let limit = u64::try_from(vm.capabilities().value(Capability::NrMemslots)).unwrap();
    let slots: Vec<_> = (0..limit).map(|n| map(vm.memory(), 2 * n * PAGE, PAGE)).collect();
    let error = vm.memory().map(&MapOptions::new(pages(2 * limit * PAGE, PAGE))).unwrap_err();
    assert!(matches!(error, Error::SlotLimit { limit: said } if u64::from(said) == limit), "{error}");
    slots[7].unmap().unwrap();
    assert_eq!(map(vm.memory(), 2 * limit * PAGE, PAGE).number(), 7);
}

fn across_borders() {
    let vm = vm();
    let memory = vm.memory();
    for gpa in [PAGE, 0, 2 * PAGE] {
        map(memory, gpa, PAGE);
    }
    memory.write(PAGE - 3, b"border").unwrap();
    assert_eq!(read(memory, PAGE - 4), *b"\0border\0");
    memory.fill(PAGE - 1, PAGE + 2, 7).unwrap();
    assert_eq!(read(memory, PAGE - 3), *b"bo\x07");
    assert_eq!(read(memory, 2 * PAGE - 1), [7, 7, 0]);
}

fn hole() {
    let vm = vm();
    let memory = vm.memory();
    map(memory, 0, PAGE);
    map(memory, 2 * PAGE, PAGE);
    let mut target = [9; 0x3000];
    let results = [memory.read(0, &mut target), memory.write(0, &[1; 0x3000]), memory.fill(0, 3 * PAGE, 1)];
    for result in results {
        match result {
            Err(Error::MemoryHole { gpa, range }) => {
                assert_eq!((gpa, range), (PAGE, pages(0, 3 * PAGE)));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(target, [9; 0x3000]);
    assert_eq!(read(memory, 0), [0; 0x1000]);
    assert_eq!(read(memory, 2 * PAGE), [0; 0x1000]);
}

fn host_writes_rom() {
    let vm = vm();
    let options = MapOptions { readonly: true, ..MapOptions::new(pages(0xffff_0000, 0x1_0000)) };
    let rom = vm.memory().map(&options).unwrap();
    vm.memory().write(0xffff_fff0, b"reset").unwrap();
    assert_eq!(read(vm.memory(), 0xffff_fff0), *b"reset");
    assert!(rom.readonly() && vm.memory().slots().unwrap()[0].readonly);
}

fn readonly_missing() {
    let vm = vm_without(Capability::ReadonlyMem);
    let error = vm.memory().map(&MapOptions { readonly: true, ..MapOptions::new(pages(0, PAGE)) }).unwrap_err();
    assert!(matches!(error, Error::CapabilityMissing { capability: "readonly-mem", since: "3.7", .. }), "{error}");
    assert_eq!(map(vm.memory(), 0, PAGE).number(), 0);
}

fn region2() {
    let vm = vm();
    assert_eq!(map(vm.memory(), 0, PAGE).ioctl(), "KVM_SET_USER_MEMORY_REGION2");
}

/// Nobody hides anything here: on Linux 5.10 to 6.7 it is the old ioctl, and never from 6.8 on.
fn ioctl_follows() {
    let vm = vm();
    let new = vm.capabilities().has(Capability::UserMemory2);
    let expected = if new { "KVM_SET_USER_MEMORY_REGION2" } else { "KVM_SET_USER_MEMORY_REGION" };
    assert_eq!(map(vm.memory(), 0, PAGE).ioctl(), expected);
    assert_eq!(vm.memory().slots().unwrap()[0].ioctl, expected);
}

fn fallback() {
    let vm = vm_without(Capability::UserMemory2);
    let slot = map(vm.memory(), 0, PAGE);
    assert_eq!(slot.ioctl(), "KVM_SET_USER_MEMORY_REGION");
    slot.move_to(PAGE).unwrap();
    vm.memory().write(PAGE, b"same").unwrap();
    assert_eq!(read(vm.memory(), PAGE), *b"same");
    slot.unmap().unwrap();
    assert_eq!(ranges(vm.memory()), []);
}

/// The last page of 52 bits: most machines have fewer. Which is known beforehand on aarch64, and by KVM alone on x86.
fn refused_by_kernel() {
    let vm = vm();
    let slot = map(vm.memory(), 0, PAGE);
    vm.memory().write(0, b"kept").unwrap();
    let (last, before) = (pages((1 << 52) - PAGE, PAGE), ioctls());
    match slot.move_to(last.gpa()) {
        Ok(()) => assert_eq!(slot.range(), last, "52 bits here: nothing to refuse"),
        Err(Error::AddressWidth { range, bits }) => {
            assert!(range == last && (32..52).contains(&bits), "{range} in {bits} bits");
            assert!(cfg!(target_arch = "x86_64") || ioctls() == before);
            assert_eq!(ranges(vm.memory()), [(0, pages(0, PAGE))]);
        }
        Err(error) => {
            let (_, request) = error.errno().unwrap();
            assert_eq!((error.code(), request), (ErrorCode::Ioctl, slot.ioctl()));
            assert_eq!(ranges(vm.memory()), [(0, pages(0, PAGE))]);
        }
    }
    assert_eq!(read(vm.memory(), slot.range().gpa()), *b"kept");
}

fn moves() {
    let vm = vm();
    let slot = map(vm.memory(), PAGE, 2 * PAGE);
    vm.memory().write(2 * PAGE, b"content").unwrap();
    for gpa in [0x10_0000, 0x10_1000, 0, PAGE, PAGE] {
        slot.move_to(gpa).unwrap();
        assert_eq!(ranges(vm.memory()), [(0, pages(gpa, 2 * PAGE))]);
        assert_eq!(slot.range(), pages(gpa, 2 * PAGE));
        assert_eq!(read(vm.memory(), gpa + PAGE), *b"content");
    }
    assert_eq!(code(vm.memory().read(3 * PAGE, &mut [0])), ErrorCode::MemoryHole);
}

fn close() {
    let vm = vm();
    let slot = map(vm.memory(), 0, PAGE);
    let memory = vm.memory().clone();
    vm.close();
    vm.close();
    assert_eq!(code(memory.read(0, &mut [0])), ErrorCode::Closed);
    assert_eq!(code(memory.slots()), ErrorCode::Closed);
    assert_eq!(code(memory.map(&MapOptions::new(pages(0, PAGE)))), ErrorCode::Closed);
    assert_eq!(code(slot.unmap()), ErrorCode::Closed);
    assert_eq!(code(slot.move_to(PAGE)), ErrorCode::Closed);
}

#[cfg(target_arch = "x86_64")]
fn guest_sees_move() {
    use typevisor::Exit;
    // mov ax, 0x3000; mov ds, ax; mov al, [0]; out 0x42, al; hlt
    let machine = Machine::real_mode(&[0xb8, 0, 0x30, 0x8e, 0xd8, 0xa0, 0, 0, 0xe6, 0x42, 0xf4]);
    let memory = machine.vm.memory();
    let slot = map(memory, 0x2_0000, PAGE);
    memory.write(0x2_0000, b"m").unwrap();
    slot.move_to(0x3_0000).unwrap();
    assert_eq!(machine.run(), Exit::IoOut { port: 0x42, size: 1, count: 1, data: Box::new([b'm']) });
    assert_eq!(machine.run(), Exit::Hlt);
}
