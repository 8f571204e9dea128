//! What memory leaves behind, and what happens where a limit of the process is reached. Each in a process of its own.
#![expect(unsafe_code, reason = "sets limits, maps until no mapping is left")]

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::PathBuf,
    sync::Arc,
};

use libtest_mimic::Trial;
use typevisor::{
    Error,
    memory::{Backing, Change, FileSharing, MapOptions},
    vcpu::VcpuOptions,
};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::{
    backing_support::{
        HugePages, Pages, addresses_of, at, byte, descriptors, file, has_flag, has_guest_memfd, is_memory, map,
    },
    support::{PAGE, alone, pages, vm},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        alone("backing: no mapping follows a fork, and descriptors close on exec and with their slot", nothing_leaks),
        alone("backing: without a mapping left it is ERR_LIMIT, and nothing is damaged", no_mapping_left),
        alone("backing: without a descriptor left it is ERR_LIMIT", no_descriptor_left),
        alone("backing: a memfd past the limit on files is ERR_LIMIT, and no signal", no_longer_file),
        alone("backing: memory lies as its gpa does in huge pages, which an option forbids", transparent_huge_pages),
    ]
}

fn nothing_leaks() {
    let vm = vm();
    let memory = vm.memory();
    let mut slots = vec![
        map(memory, 0, PAGE, Backing::Anonymous),
        map(memory, 0x10_0000, PAGE, Backing::Memfd),
        map(memory, 0x20_0000, PAGE, Backing::Buffer(Pages::lent(1).1)),
    ];
    let mut named = vec!["memfd:typevisor", "backing-of-a-test"];
    let path = std::env::temp_dir().join(format!("backing-of-a-test-{}", std::process::id()));
    fs::write(&path, [1; 4096]).unwrap();
    let file = Arc::new(File::open(&path).unwrap());
    slots.push(map(memory, 0x30_0000, PAGE, Backing::File { file, offset: 0, sharing: FileSharing::Private }));
    fs::remove_file(&path).unwrap();
    let pool = HugePages::reserve(1);
    if let Ok(pool) = &pool {
        slots.push(map(memory, 0x40_0000, pool.size, Backing::Hugetlb { page_size: pool.size }));
        named.push("anon_hugepage");
    }
    if has_guest_memfd(&vm) {
        slots.push(map(memory, 0x1_0000_0000, PAGE, Backing::GuestMemfd));
        named.push("gmem");
    }
    let regions = memory.regions().unwrap();
    let mut addresses: Vec<_> =
        [0, 0x20_0000].map(|gpa| regions.get_host_address(GuestAddress(gpa)).unwrap().addr()).into();
    addresses.extend(named.iter().flat_map(|name| addresses_of(name)));
    assert!(addresses.len() >= 2 + named.len(), "{named:?}");
    for address in addresses {
        assert!(has_flag(address, "dc"), "{address:#x}");
    }
    drop(regions);
    let expected = if has_guest_memfd(&vm) { 2 } else { 1 };
    assert_eq!(descriptors().len(), expected, "{:?}", descriptors());
    assert_close_on_exec();
    for slot in slots {
        slot.unmap().unwrap();
    }
    assert_eq!(descriptors(), Vec::<PathBuf>::new());
    assert!(named.iter().all(|name| addresses_of(name).is_empty()), "{named:?}");
}

fn assert_close_on_exec() {
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        if !fs::read_link(entry.path()).is_ok_and(|path| is_memory(&path)) {
            continue;
        }
        let number: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
        // SAFETY: takes integers, and gives one.
        assert_eq!(unsafe { libc::fcntl(number, libc::F_GETFD) }, libc::FD_CLOEXEC, "{number}");
    }
}

/// Alternating protections keep the kernel from merging the mappings.
fn no_mapping_left() {
    let vm = vm();
    let kept = map(vm.memory(), 0, PAGE, Backing::Anonymous);
    vm.memory().write(0, &[7]).unwrap();
    let backings = [Backing::Anonymous, Backing::Memfd, file(PAGE, FileSharing::Private)];
    let mut taken = Vec::new();
    for protection in [libc::PROT_NONE, libc::PROT_READ].into_iter().cycle() {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a null hint without MAP_FIXED can't replace a mapping that somebody owns.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            break;
        }
        taken.push(address);
    }
    let memory = vm.memory();
    let mut results: Vec<_> =
        backings.into_iter().map(|backing| memory.map(&at(PAGE, PAGE, backing)).map(drop)).collect();
    // A list of which only the last change needs a mapping: all of it or nothing.
    let share = Change::Map(at(4 * PAGE, PAGE, Backing::Share { slot: kept.clone(), offset: 0 }));
    let list = vec![share.clone(), Change::Unmap(kept.clone()), Change::Map(at(8 * PAGE, PAGE, Backing::Anonymous))];
    results.push(memory.change(list).map(drop));
    results.push(vm.create_vcpu(VcpuOptions::default()).map(drop));
    let (slots, byte_there) = (memory.slots(), byte(memory, 0));
    // What needs none is had.
    let shared = memory.change(vec![share]);
    let unmapped = kept.unmap();
    for address in taken {
        // SAFETY: mapped above, and nobody's.
        unsafe { libc::munmap(address, 4096) };
    }
    for result in results {
        assert!(matches!(result, Err(Error::Limit { what: "memory mappings of this process", .. })), "{result:?}");
    }
    assert_eq!((slots.unwrap().len(), byte_there), (1, 7));
    unmapped.unwrap();
    assert_eq!(byte(vm.memory(), 4 * PAGE), 7);
    shared.unwrap().remove(0).unmap().unwrap();
    assert_eq!(vm.memory().slots().unwrap(), []);
    assert_eq!(descriptors(), Vec::<PathBuf>::new());
    map(vm.memory(), 0, PAGE, Backing::Memfd);
}

fn no_descriptor_left() {
    let vm = vm();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes to `limit`, which lives through the call.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    let highest = File::open("/dev/null").unwrap().as_raw_fd();
    let few = libc::rlimit { rlim_cur: highest.try_into().unwrap(), ..limit };
    // SAFETY: reads `few`, which lives through the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const few) }, 0);
    let mut backings = vec![Backing::Memfd];
    backings.extend(has_guest_memfd(&vm).then_some(Backing::GuestMemfd));
    for backing in backings {
        let error = vm.memory().map(&at(0, PAGE, backing)).unwrap_err();
        assert!(matches!(error, Error::Limit { what: "open files of this process", .. }), "{error}");
    }
    map(vm.memory(), 0, PAGE, Backing::Anonymous);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    map(vm.memory(), PAGE, PAGE, Backing::Memfd);
}

fn overcommits_nothing() -> bool {
    fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap().trim() == "2"
}

/// The kernel's own answer is SIGXFSZ, which ends the process.
fn no_longer_file() {
    let vm = vm();
    let limit = libc::rlimit { rlim_cur: 16 * PAGE, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads `limit`, which lives through the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
    let error = vm.memory().map(&at(0, 17 * PAGE, Backing::Memfd)).unwrap_err();
    assert!(matches!(error, Error::Limit { limit, .. } if limit == 16 * PAGE), "{error}");
    assert_eq!((vm.memory().slots().unwrap(), descriptors()), (vec![], vec![]));
    map(vm.memory(), 0, 16 * PAGE, Backing::Memfd);
    vm.memory().write(15 * PAGE, b"there").unwrap();
    map(vm.memory(), 32 * PAGE, 17 * PAGE, Backing::Anonymous);
}

fn transparent_huge_pages() {
    const HUGE: u64 = 2 << 20;
    let vm = vm();
    let memory = vm.memory();
    let kernel_has_them = fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap();
    let mut backings = vec![Backing::Anonymous];
    // Without overcommitting a memfd has no address to give.
    backings.extend((!overcommits_nothing()).then_some(Backing::Memfd));
    for (number, backing) in backings.into_iter().enumerate() {
        let gpa = 16 * HUGE * u64::try_from(number).unwrap() + 0x3_4000;
        let options = at(gpa, 2 * HUGE, backing);
        memory.map(&options).unwrap();
        let forbidden = MapOptions { transparent_huge_pages: false, range: pages(gpa + 4 * HUGE, HUGE), ..options };
        memory.map(&forbidden).unwrap();
        memory.write(gpa + 5, b"there").unwrap();
        let regions = memory.regions().unwrap();
        let address = |gpa| regions.get_host_address(GuestAddress(gpa)).unwrap().addr();
        assert_eq!(address(gpa) as u64 % HUGE, gpa % HUGE);
        if kernel_has_them {
            assert!(has_flag(address(gpa), "hg") && has_flag(address(gpa + 4 * HUGE), "nh"));
        }
    }
}
