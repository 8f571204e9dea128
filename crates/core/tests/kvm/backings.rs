//! What stands behind slots, as guest and host see it.
#![expect(unsafe_code, reason = "lends buffers, sets limits, maps until no mapping is left")]

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering::Relaxed},
    },
};

use libtest_mimic::Trial;
use typevisor::{
    Error, ErrorCode, Exit, GpaRange, Kvm, Result, Vm, VmOptions,
    host::{Capability, KvmOptions, huge_page_sizes},
    memory::{Backing, FileSharing, GuestMemory, HostBuffer, MapOptions, MemorySlot},
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use crate::{
    machine::{Machine, Op, THERE, out},
    support::{alone, kvm_is_here, needs, trial, vm},
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
        trial("backing: a truncated file is an exit for the guest and ERR_HOST_ACCESS for the host", truncated),
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
        alone("backing: no mapping follows a fork, and descriptors close on exec and with their slot", nothing_leaks),
        alone("backing: without a mapping left it is ERR_LIMIT, and nothing is damaged", no_mapping_left),
        alone("backing: without a descriptor left it is ERR_LIMIT", no_descriptor_left),
        alone("backing: memory lies as its gpa does in huge pages, which an option forbids", transparent_huge_pages),
        trial("memory: accesses cross from memory reached directly to memory reached by system call", mixed),
        trial("memory: regions of memory reached by system call have no host address", no_address),
        trial("memory: search finds overlapping matches across slots of every kind, up to its limit", search),
    ]
}

const PAGE: u64 = 0x1000;
const TWO_PAGES: u64 = 2 * PAGE;
const MIB: u64 = 1 << 20;

fn pages(gpa: u64, size: u64) -> GpaRange {
    GpaRange::pages(gpa, size).unwrap()
}

fn at(gpa: u64, size: u64, backing: Backing) -> MapOptions {
    MapOptions { backing, ..MapOptions::new(pages(gpa, size)) }
}

fn map(memory: &GuestMemory, gpa: u64, size: u64, backing: Backing) -> MemorySlot {
    memory.map(&at(gpa, size, backing)).unwrap()
}

fn byte(memory: &GuestMemory, gpa: u64) -> u8 {
    let mut bytes = [0xee];
    memory.read(gpa, &mut bytes).unwrap();
    bytes[0]
}

fn code<T: std::fmt::Debug>(result: Result<T>) -> ErrorCode {
    result.unwrap_err().code()
}

/// A file of zeros that no folder has any more.
fn new_file(size: u64) -> File {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("typevisor-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
    let path = std::env::temp_dir().join(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    file.set_len(size).unwrap();
    file
}

fn file(size: u64, sharing: FileSharing) -> Backing {
    Backing::File { file: Arc::new(new_file(size)), offset: 0, sharing }
}

/// Memory as a program might own it.
#[repr(C, align(4096))]
struct Page([AtomicU8; 4096]);

struct Pages(Box<[Page]>);

impl Pages {
    fn lent(count: usize) -> (Arc<Self>, HostBuffer) {
        let page = || Page([const { AtomicU8::new(0) }; 4096]);
        let pages = Arc::new(Self((0..count).map(|_| page()).collect()));
        let address = NonNull::from(&*pages.0).cast();
        // SAFETY: whole pages of atomics that `pages` owns and that cannot move.
        let buffer = unsafe { HostBuffer::new(address, count * 4096, Arc::<Pages>::clone(&pages)) }.unwrap();
        (pages, buffer)
    }
}

/// Skipped where the machine has no huge pages free and none can be set aside.
fn with_huge_pages(name: &'static str, test: fn()) -> Trial {
    let trial = trial(name, test);
    match HugePages::reserve(1) {
        Ok(_given_back) => trial,
        Err(reason) => trial.with_kind(reason).with_ignored_flag(true),
    }
}

fn with_hugetlb(name: &'static str, test: fn()) -> Trial {
    let trial = trial(name, test);
    if huge_page_sizes().is_empty() { trial.with_kind("needs hugetlb").with_ignored_flag(true) } else { trial }
}

/// Huge pages of the smallest size, set aside for a test. One at a time on the whole machine: other processes of this very
/// test count them too.
struct HugePages {
    file: PathBuf,
    before: Option<u64>,
    size: u64,
    _lock: File,
}

impl HugePages {
    /// Makes sure that `count` pages are free.
    fn reserve(count: u64) -> std::result::Result<Self, String> {
        let size = huge_page_sizes().first().copied().ok_or("needs hugetlb")?;
        let lock = File::open("/sys/kernel/mm/hugepages").map_err(|error| error.to_string())?;
        // SAFETY: takes integers; waits for whoever has it, and ends with the descriptor.
        assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) }, 0);
        let folder = Path::new("/sys/kernel/mm/hugepages").join(format!("hugepages-{}kB", size >> 10));
        let number = |name: &str| -> u64 { fs::read_to_string(folder.join(name)).unwrap().trim().parse().unwrap() };
        let mut pool = Self { file: folder.join("nr_hugepages"), before: None, size, _lock: lock };
        if number("free_hugepages") < count {
            let before = number("nr_hugepages");
            fs::write(&pool.file, (before + count).to_string())
                .map_err(|error| format!("needs huge pages: {error}"))?;
            pool.before = Some(before);
        }
        if number("free_hugepages") < count {
            return Err("needs huge pages: the machine has no memory in such pieces".into());
        }
        Ok(pool)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let restored = self.before.is_none_or(|before| fs::write(&self.file, before.to_string()).is_ok());
        assert!(restored || std::thread::panicking(), "{} is not what it was", self.file.display());
    }
}

fn has_guest_memfd(vm: &Vm) -> bool {
    vm.capabilities().value(Capability::GuestMemfdFlags) & 3 == 3
}

fn with_guest_memfd(name: &'static str, test: fn()) -> Trial {
    let missing = kvm_is_here().is_ok() && !has_guest_memfd(&vm());
    let trial = trial(name, test);
    if missing { trial.with_kind("needs guest-memfd-flags 3").with_ignored_flag(true) } else { trial }
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

/// Whether the kernel's flags of the mapping at `address` have this one; `dc` is "do not copy on fork".
fn has_flag(address: usize, flag: &str) -> bool {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        if let Some((start, end)) = line.split(' ').next().and_then(|range| range.split_once('-')) {
            let parsed = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16));
            inside = matches!(parsed, (Ok(start), Ok(end)) if (start..end).contains(&address));
        } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
            return flags.split(' ').any(|other| other == flag);
        }
    }
    panic!("nothing is mapped at {address:#x}")
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
    for capability in [Capability::UserMemory2, Capability::GuestMemfdFlags] {
        let kvm = Kvm::open(KvmOptions { hide: vec![capability], ..KvmOptions::default() }).unwrap();
        let vm = Vm::create(&kvm, &VmOptions::default()).unwrap();
        match vm.memory().map(&at(0, PAGE, Backing::GuestMemfd)) {
            Err(Error::CapabilityMissing { capability: said, .. }) if said == capability.name() => {}
            // An old kernel lacks both, and is told of the first.
            Err(Error::CapabilityMissing { capability: "user-memory2", .. }) if !has_guest_memfd(&vm) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The descriptors of this process that are guest memory.
fn descriptors() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok()).filter(|path| is_memory(path)).collect()
}

fn is_memory(path: &Path) -> bool {
    let name = path.to_string_lossy();
    name.contains("memfd:typevisor") || name.contains("gmem")
}

/// Mappings that have `name` in their line of `/proc/self/maps`.
fn addresses_of(name: &str) -> Vec<usize> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let lines = maps.lines().filter(|line| line.contains(name));
    lines.map(|line| usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap()).collect()
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
        [0, 0x10_0000, 0x20_0000].map(|gpa| regions.get_host_address(GuestAddress(gpa)).unwrap().addr()).into();
    addresses.extend(named.iter().flat_map(|name| addresses_of(name)));
    assert!(addresses.len() >= 3 + named.len(), "{named:?}");
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
    let results =
        [Backing::Anonymous, Backing::Memfd].map(|backing| vm.memory().map(&at(PAGE, PAGE, backing)).map(drop));
    let unmapped = kept.unmap();
    for address in taken {
        // SAFETY: mapped above, and nobody's.
        unsafe { libc::munmap(address, 4096) };
    }
    for result in results {
        assert!(matches!(result, Err(Error::Limit { what: "memory mappings of this process", .. })), "{result:?}");
    }
    unmapped.unwrap();
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

fn transparent_huge_pages() {
    const HUGE: u64 = 2 << 20;
    let vm = vm();
    let memory = vm.memory();
    let kernel_has_them = fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap();
    for (number, backing) in [Backing::Anonymous, Backing::Memfd].into_iter().enumerate() {
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
    map(vm.memory(), PAGE, PAGE, Backing::Memfd);
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
