//! What stands behind slots, as guest and host see it, and what is refused.
#![expect(unsafe_code, reason = "offers buffers that are refused")]

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    ptr::NonNull,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use libtest_mimic::Trial;
use typevisor::{
    Error, ErrorCode, Kvm, Vm, VmOptions,
    host::{Capability, KvmOptions, huge_page_sizes},
    memory::{Backing, FileSharing, HostBuffer, MapOptions},
    vcpu::VcpuOptions,
};

use crate::{
    backing_support::{
        HugePages, Pages, TWO_PAGES, addresses_of, at, byte, file, has_flag, has_guest_memfd, kernel_page_size, map,
        new_file, with_guest_memfd, with_huge_pages, with_hugetlb,
    },
    machine::{CODE, Machine, Op, THERE, assemble, boot, out},
    support::{PAGE, code, needs, trial, vm},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("backing: guest and host read and write anonymous memory", || both_see("anonymous", Backing::Anonymous)),
        trial("backing: guest and host read and write a memfd", || both_see("memfd", Backing::Memfd)),
        trial("backing: guest and host read and write a buffer", || {
            both_see("buffer", Backing::Buffer(Pages::lent(1).1));
        }),
        trial("backing: a shared file gets what the guest writes, a private one nothing", files),
        with_huge_pages("backing: guest and host read and write huge pages", huge_pages),
        with_huge_pages(
            "backing: a guest lives in huge pages, which are free again after the last share",
            life_in_huge_pages,
        ),
        with_guest_memfd("backing: guest and host read and write a guest_memfd", || {
            both_see("guest-memfd", Backing::GuestMemfd);
        }),
        trial("backing: a share is the same bytes at another address", || share(&Backing::Anonymous)),
        trial("backing: a share of a memfd is the same bytes at another address", || share(&Backing::Memfd)),
        trial("backing: a share of a file is the same bytes at another address", || {
            share(&file(TWO_PAGES, FileSharing::Private));
        }),
        with_guest_memfd("backing: a share of a guest_memfd is the same bytes at another address", || {
            share(&Backing::GuestMemfd);
        }),
        trial("backing: a file that cannot be what is asked is refused before KVM is asked", refused_files),
        needs(
            Capability::ReadonlyMem,
            "backing: a file open for reading only is shared with a read-only slot",
            readonly_file,
        ),
        trial("backing: a buffer that is too short, or not on a page, is refused with the reason", refused_buffers),
        trial("backing: a buffer is released with its last slot", released_buffer),
        with_hugetlb("backing: too many huge pages are ERR_LIMIT with the way to reserve more", too_many_huge_pages),
        trial("backing: a size of huge pages that the machine lacks is refused", no_such_huge_pages),
        with_guest_memfd("backing: a guest_memfd cannot be read-only", readonly_guest_memfd),
        trial("backing: a guest_memfd without its capabilities is ERR_CAPABILITY_MISSING", missing_guest_memfd),
    ]
}

/// Reads a byte, shows it, writes 9.
const READ_AND_WRITE: [Op; 5] = [Op::Peek, Op::Out(0), Op::Load(9), Op::Poke, Op::End];

fn both_see(name: &str, backing: Backing) {
    both_see_of_size(name, backing, PAGE);
}

fn both_see_of_size(name: &str, backing: Backing, size: u64) {
    let machine = Machine::of(&READ_AND_WRITE);
    let memory = machine.vm.memory();
    let slot = map(memory, THERE, size, backing);
    assert_eq!((slot.info().backing, memory.slots().unwrap()[1].backing), (name, name));
    memory.write(THERE, &[7]).unwrap();
    assert_eq!(machine.run(), out(0, 7));
    machine.assert_ends();
    assert_eq!(byte(memory, THERE), 9);
    memory.fill(THERE, size, 5).unwrap();
    let mut all = vec![0; usize::try_from(size).unwrap()];
    memory.read(THERE, &mut all).unwrap();
    assert!(all.iter().all(|byte| *byte == 5));
    slot.unmap().unwrap();
}

fn files() {
    for (sharing, expected) in [(FileSharing::Shared, [9, 0]), (FileSharing::Private, [7, 0])] {
        let mut file = new_file(3 * PAGE);
        file.seek(std::io::SeekFrom::Start(PAGE)).unwrap();
        file.write_all(&[7]).unwrap();
        let machine = Machine::of(&READ_AND_WRITE);
        let file = Arc::new(file);
        let backing = Backing::File { file: Arc::clone(&file), offset: PAGE, sharing };
        let slot = map(machine.vm.memory(), THERE, TWO_PAGES, backing);
        assert_eq!(slot.info().backing, "file");
        assert_eq!(machine.run(), out(0, 7));
        machine.assert_ends();
        assert_eq!(byte(machine.vm.memory(), THERE), 9);
        let mut found = [0xee; 2];
        let mut file = &*file;
        file.seek(std::io::SeekFrom::Start(PAGE)).unwrap();
        file.read_exact(&mut found).unwrap();
        assert_eq!(found, expected, "{sharing:?}");
    }
}

fn huge_pages() {
    let pool = HugePages::reserve(1).unwrap();
    both_see_of_size("hugetlb", Backing::Hugetlb { page_size: pool.size }, pool.size);
    let vm = vm();
    let half = vm.memory().map(&at(0, pool.size / 2, Backing::Hugetlb { page_size: pool.size }));
    assert!(matches!(half, Err(Error::Unaligned { what: "size", .. })), "{half:?}");
}

/// Code and data in one slot, where the guest's huge pages are the host's: one entry of KVM's tables may map each.
fn life_in_huge_pages() {
    let page_size = *huge_page_sizes().first().unwrap();
    let count = (THERE + PAGE).div_ceil(page_size);
    let pool = HugePages::reserve(count).unwrap();
    let (vm, free) = (vm(), pool.free());
    let memory = vm.memory();
    let slot = map(memory, 0, count * page_size, Backing::Hugetlb { page_size });
    memory.write(CODE, &assemble(&READ_AND_WRITE)).unwrap();
    memory.write(THERE, &[7]).unwrap();
    // Not at a huge page's start, neither there nor in the guest.
    let part = map(memory, 0x4000_3000, PAGE, Backing::Share { slot: slot.clone(), offset: THERE });
    let vcpu = vm.create_vcpu(VcpuOptions::default()).unwrap();
    boot(&vcpu, CODE);
    let machine = Machine { vcpu, vm };
    assert_eq!(machine.run(), out(0, 7));
    machine.assert_ends();
    let memory = machine.vm.memory();
    let start = addresses_of("anon_hugepage");
    assert_eq!(start.iter().map(|start| kernel_page_size(*start)).collect::<Vec<_>>(), [page_size]);
    assert_eq!((byte(memory, THERE), byte(memory, 0x4000_3000)), (9, 9));
    slot.unmap().unwrap();
    assert!(pool.free() < free, "the share has them");
    memory.write(0x4000_3000, &[8]).unwrap();
    assert_eq!(byte(memory, 0x4000_3000), 8);
    part.unmap().unwrap();
    assert_eq!((pool.free(), addresses_of("anon_hugepage")), (free, vec![]));
}

/// The second page of one slot, seen at [`THERE`], and after the first slot is gone.
fn share(backing: &Backing) {
    let machine = Machine::of(&READ_AND_WRITE);
    let memory = machine.vm.memory();
    let first = map(memory, 0x10_0000, TWO_PAGES, backing.clone());
    memory.write(0x10_1000, &[7]).unwrap();
    let second = map(memory, THERE, PAGE, Backing::Share { slot: first.clone(), offset: PAGE });
    assert_eq!(second.info().backing, first.info().backing);
    assert_eq!(machine.run(), out(0, 7));
    machine.assert_ends();
    assert_eq!((byte(memory, 0x10_1000), byte(memory, THERE)), (9, 9));
    first.unmap().unwrap();
    assert_eq!(byte(memory, THERE), 9);
    memory.write(THERE, &[8]).unwrap();
    let third = map(memory, 0x20_0000, PAGE, Backing::Share { slot: second, offset: 0 });
    assert_eq!(byte(memory, third.range().gpa()), 8);
    let gone = memory.map(&at(0x30_0000, PAGE, Backing::Share { slot: first, offset: 0 }));
    assert!(matches!(gone, Err(Error::Closed { what: "memory slot" })), "{gone:?}");
    let long = memory.map(&at(0x30_0000, TWO_PAGES, Backing::Share { slot: third, offset: 0 }));
    assert_eq!(code(long), ErrorCode::InvalidArgument);
}

fn refused_files() {
    let vm = vm();
    let ask = |file: File, offset, sharing| {
        vm.memory().map(&at(0, TWO_PAGES, Backing::File { file: Arc::new(file), offset, sharing })).unwrap_err()
    };
    let exe = || File::open(std::env::current_exe().unwrap()).unwrap();
    let says = |error: Error, what: &str| assert!(error.to_string().contains(what), "{error}");
    says(ask(new_file(PAGE), 0, FileSharing::Private), "as long as");
    says(ask(new_file(3 * PAGE), TWO_PAGES, FileSharing::Private), "as long as");
    says(ask(new_file(PAGE), u64::MAX - PAGE + 1, FileSharing::Private), "as long as");
    says(ask(new_file(3 * PAGE), 100, FileSharing::Private), "offset 0x64 is not a multiple of 0x1000");
    says(ask(File::open("/").unwrap(), 0, FileSharing::Private), "a regular file");
    says(ask(File::open("/dev/zero").unwrap(), 0, FileSharing::Private), "a regular file");
    says(ask(exe(), 0, FileSharing::Shared), "open for writing");
    let path = std::env::temp_dir().join(format!("typevisor-{}", std::process::id()));
    let write_only = File::create(&path).unwrap();
    write_only.set_len(TWO_PAGES).unwrap();
    fs::remove_file(&path).unwrap();
    says(ask(write_only, 0, FileSharing::Shared), "open for reading");
    assert_eq!(vm.memory().slots().unwrap(), []);
    // A page of which the file has a part is whole memory.
    map(vm.memory(), 0, TWO_PAGES, file(PAGE + 1, FileSharing::Private));
    assert_eq!(byte(vm.memory(), TWO_PAGES - 1), 0);
}

fn readonly_file() {
    let vm = vm();
    let exe = Arc::new(File::open(std::env::current_exe().unwrap()).unwrap());
    let backing = Backing::File { file: exe, offset: 0, sharing: FileSharing::Shared };
    let rom = MapOptions { readonly: true, ..at(0, PAGE, backing) };
    let slot = vm.memory().map(&rom).unwrap();
    let mut magic = [0; 4];
    vm.memory().read(0, &mut magic).unwrap();
    assert_eq!(&magic, b"\x7fELF");
    assert!(matches!(vm.memory().write(0, &[0]), Err(Error::HostAccess { gpa: 0, size: 1, .. })));
    let writable = vm.memory().map(&at(PAGE, PAGE, Backing::Share { slot: slot.clone(), offset: 0 }));
    assert_eq!(code(writable), ErrorCode::InvalidArgument);
    let share = MapOptions { readonly: true, ..at(PAGE, PAGE, Backing::Share { slot, offset: 0 }) };
    vm.memory().map(&share).unwrap();
}

fn refused_buffers() {
    let (pages, buffer) = Pages::lent(1);
    let vm = vm();
    let error = vm.memory().map(&at(0, TWO_PAGES, Backing::Buffer(buffer))).unwrap_err();
    assert_eq!(error.to_string(), "a buffer must be at least as long as its slot");
    let inside = NonNull::from(&pages.0[0].0[16]).cast();
    // SAFETY: refused for its address; the page is kept.
    let error = unsafe { HostBuffer::new(inside, 4096, Arc::<Pages>::clone(&pages)) }.unwrap_err();
    assert!(matches!(error, Error::Unaligned { what: "the address of a buffer", alignment: PAGE, .. }), "{error}");
    // SAFETY: refused for its size; the page is kept.
    let error = unsafe { HostBuffer::new(NonNull::from(&pages.0[0]).cast(), 4095, pages) }.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
}

fn released_buffer() {
    let (pages, buffer) = Pages::lent(2);
    let (vm, other) = (vm(), vm());
    let slot = map(vm.memory(), 0, PAGE, Backing::Buffer(buffer.clone()));
    let whole = map(other.memory(), 0, TWO_PAGES, Backing::Buffer(buffer));
    vm.memory().write(3, &[4]).unwrap();
    assert_eq!((pages.0[0].0[3].load(Relaxed), byte(other.memory(), 3)), (4, 4));
    let flags = || [0, 1].map(|page| has_flag(std::ptr::from_ref(&pages.0[page]).addr(), "dc"));
    assert_eq!(flags(), [true, true]);
    whole.unmap().unwrap();
    assert_eq!(flags(), [true, false], "the other VM still has its page");
    assert_eq!(Arc::strong_count(&pages), 2);
    slot.unmap().unwrap();
    assert_eq!(flags(), [false, false]);
    assert_eq!(Arc::strong_count(&pages), 1);
}

fn too_many_huge_pages() {
    let vm = vm();
    let page_size = *huge_page_sizes().last().unwrap();
    let error = vm.memory().map(&at(0, page_size << 10, Backing::Hugetlb { page_size })).unwrap_err();
    let Error::HugePages { page_size: said, wanted: 1024, free, enough } = error else { panic!("{error}") };
    assert!(said == page_size && free < 1024 && enough >= 1024);
    let command = format!("echo {enough} > /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages", page_size >> 10);
    assert!(error.to_string().contains(&command), "{error}");
    assert_eq!(error.code(), ErrorCode::Limit);
    assert_eq!(vm.memory().slots().unwrap(), []);
}

fn no_such_huge_pages() {
    for page_size in [0, 4096, 3 << 20, 1 << 63] {
        let error = vm().memory().map(&at(0, 12 << 20, Backing::Hugetlb { page_size })).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { what: "the size of huge pages", .. }), "{error}");
    }
}

fn readonly_guest_memfd() {
    let vm = vm();
    let error = vm.memory().map(&MapOptions { readonly: true, ..at(0, PAGE, Backing::GuestMemfd) }).unwrap_err();
    assert_eq!(error.to_string(), "a slot of a guest-memfd must be writable: KVM has no read-only ones");
}

fn missing_guest_memfd() {
    for capability in [Capability::UserMemory2, Capability::GuestMemfd, Capability::GuestMemfdFlags] {
        let kvm = Kvm::open(KvmOptions { hide: vec![capability], ..KvmOptions::default() }).unwrap();
        let vm = Vm::create(&kvm, &VmOptions::default()).unwrap();
        match vm.memory().map(&at(0, PAGE, Backing::GuestMemfd)) {
            Err(Error::CapabilityMissing { capability: said, .. }) if said == capability.name() => {}
            // An old kernel lacks several, and is told of the first.
            Err(Error::CapabilityMissing { capability: "user-memory2" | "guest-memfd", .. })
                if !has_guest_memfd(&vm) => {}
            other => panic!("{other:?}"),
        }
    }
}
