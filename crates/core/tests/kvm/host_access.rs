//! Host access to memory of every kind, by loads and stores and by system call.

use std::sync::Arc;

use libtest_mimic::Trial;
use typevisor::{
    Error, ErrorCode, Exit, GpaRange,
    memory::{Backing, FileSharing},
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use crate::{
    backing_support::{TWO_PAGES, byte, file, map, new_file},
    machine::{Machine, Op, THERE, out},
    support::{PAGE, code, pages, trial, vm, x86_only},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("backing: a truncated file is an exit for the guest and ERR_HOST_ACCESS for the host", truncated),
        x86_only!("backing: what a guest runs natively meets a truncated file as EFAULT", truncated_natively),
        trial("memory: accesses cross from memory reached directly to memory reached by system call", mixed),
        trial("memory: regions of memory reached by system call have no host address", no_address),
        trial("memory: search finds overlapping matches across slots of every kind, up to its limit", search),
    ]
}

const MIB: u64 = 1 << 20;

fn truncated() {
    let machine = Machine::of(&[Op::Peek, Op::Out(0), Op::Peek, Op::Out(0), Op::End]);
    let memory = machine.vm.memory();
    let file = Arc::new(new_file(TWO_PAGES));
    let sharing = FileSharing::Shared;
    map(memory, THERE, PAGE, Backing::File { file: Arc::clone(&file), offset: PAGE, sharing });
    map(memory, THERE - PAGE, PAGE, Backing::File { file: Arc::clone(&file), offset: 0, sharing });
    assert_eq!(machine.run(), out(0, 0));
    file.set_len(PAGE).unwrap();
    let exit = machine.run();
    // KVM's own accesses meet the same page: an instruction that it interprets ends in an access to no memory.
    let interpreted = exit == Exit::MmioRead { gpa: THERE, size: 1 };
    assert!(interpreted || matches!(exit, Exit::RunFailed { errno } if errno.0 == libc::EFAULT), "{exit:?}");
    for result in
        [memory.read(THERE - 8, &mut [0; 16]), memory.write(THERE - 8, &[1; 16]), memory.fill(THERE - 8, 16, 2)]
    {
        let Err(error @ Error::HostAccess { gpa: THERE, size: 16, .. }) = result else { panic!("{result:?}") };
        assert_eq!(error.code(), ErrorCode::HostAccess);
        // EIO where only /proc/thread-self/mem is left.
        assert!(matches!(error.errno(), Some((errno, _)) if [libc::EFAULT, libc::EIO].contains(&errno.0)), "{error}");
    }
    assert_eq!(byte(memory, THERE - 1), 2, "what comes before was written");
    file.set_len(TWO_PAGES).unwrap();
    if interpreted {
        machine.vcpu.answer(&[0]).unwrap();
    }
    assert_eq!(machine.run(), out(0, 0), "the page is back, and with it the guest");
    assert_eq!(byte(memory, THERE), 0);
}

/// Ring 3 in long mode: no KVM interprets that.
#[cfg(target_arch = "x86_64")]
fn truncated_natively() {
    use typevisor::{
        Errno,
        vcpu::{BootMode, BootOptions, Privilege},
    };

    use crate::machine::CODE;

    // mov al, [THERE]; out 0x10, al; jmp to the start
    let machine = Machine::real_mode(&[0x8a, 0x04, 0x25, 0, 0, 2, 0, 0xe6, 0x10, 0xeb, 0xf5]);
    let long =
        BootOptions { privilege: Privilege::User, stack: Some(0x8000), ..BootOptions::new(BootMode::Long, CODE) };
    machine.vcpu.boot(&long).unwrap();
    let file = Arc::new(new_file(PAGE));
    let backing = Backing::File { file: Arc::clone(&file), offset: 0, sharing: FileSharing::Shared };
    map(machine.vm.memory(), THERE, PAGE, backing);
    assert_eq!(machine.run(), out(0, 0));
    file.set_len(0).unwrap();
    for _ in 0..2 {
        assert_eq!(machine.run(), Exit::RunFailed { errno: Errno(libc::EFAULT) });
    }
    file.set_len(PAGE).unwrap();
    machine.vm.memory().write(THERE, &[3]).unwrap();
    assert_eq!(machine.run(), out(0, 3));
}

fn mixed() {
    let vm = vm();
    let memory = vm.memory();
    map(memory, 0, PAGE, Backing::Anonymous);
    map(memory, PAGE, PAGE, file(PAGE, FileSharing::Private));
    map(memory, TWO_PAGES, PAGE, Backing::Memfd);
    let bytes: Vec<u8> = (0..3 * PAGE - 2).map(|n| u8::try_from(n % 251).unwrap()).collect();
    memory.write(1, &bytes).unwrap();
    let mut found = vec![0; bytes.len()];
    memory.read(1, &mut found).unwrap();
    assert_eq!(found, bytes);
    let mut target = [9; 0x4000];
    assert_eq!(code(memory.read(0, &mut target)), ErrorCode::MemoryHole);
    assert!(target.iter().all(|byte| *byte == 9), "nothing was copied");
}

fn no_address() {
    let vm = vm();
    map(vm.memory(), 0, PAGE, file(PAGE, FileSharing::Private));
    map(vm.memory(), PAGE, PAGE, Backing::Anonymous);
    let regions = vm.memory().regions().unwrap();
    assert!(regions.read_obj::<u32>(GuestAddress(0)).is_err());
    let region = regions.find_region(GuestAddress(0)).unwrap();
    let refused = vm_memory::GuestMemoryError::HostAddressNotAvailable.to_string();
    assert_eq!(region.get_slice(MemoryRegionAddress(0), 1).unwrap_err().to_string(), refused);
    assert_eq!(region.get_host_address(MemoryRegionAddress(0)).unwrap_err().to_string(), refused);
    assert_eq!(regions.read_obj::<u32>(GuestAddress(PAGE)).unwrap(), 0);
}

fn search() {
    let vm = vm();
    let memory = vm.memory();
    map(memory, 0, MIB, Backing::Anonymous);
    map(memory, MIB, MIB, file(MIB, FileSharing::Shared));
    map(memory, 2 * MIB, PAGE, Backing::Memfd);
    let whole = pages(0, 2 * MIB + PAGE);
    let places = [0, 0x4_0000 - 3, MIB - 2, MIB + 0x4_0000 - 1, 2 * MIB - 4, 2 * MIB + PAGE - 5];
    for place in places {
        memory.write(place, b"abaab").unwrap();
    }
    assert_eq!(memory.search(whole, b"abaab", 100).unwrap(), places);
    assert_eq!(memory.search(whole, b"abaab", 2).unwrap(), places[..2]);
    assert_eq!(memory.search(whole, b"abaab", 0).unwrap(), [0_u64; 0]);
    assert_eq!(memory.search(GpaRange::new(1, 2 * MIB).unwrap(), b"abaab", 100).unwrap(), places[1..5]);
    assert_eq!(memory.search(GpaRange::new(0, 4).unwrap(), b"abaab", 100).unwrap(), [0_u64; 0]);
    memory.fill(MIB - 4, 8, b'x').unwrap();
    assert_eq!(memory.search(whole, b"xxx", 100).unwrap(), [MIB - 4, MIB - 3, MIB - 2, MIB - 1, MIB, MIB + 1]);
    assert_eq!(code(memory.search(whole, b"", 1)), ErrorCode::InvalidArgument);
    let error = memory.search(pages(0, 3 * MIB), b"abaab", 1).unwrap_err();
    assert!(matches!(error, Error::MemoryHole { .. }), "{error}");
}
