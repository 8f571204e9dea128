//! What tests of backings share: memory to stand behind slots, what a machine needs to have for it, and what the kernel
//! says of it in `/proc`.
#![expect(unsafe_code, reason = "lends buffers, locks a folder")]

use std::{
    fs::{self, File, OpenOptions},
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
    Vm,
    host::{Capability, huge_page_sizes},
    memory::{Backing, FileSharing, GuestMemory, HostBuffer, MapOptions, MemorySlot},
};

use crate::support::{PAGE, kvm_is_here, pages, trial, vm};

pub(crate) const TWO_PAGES: u64 = 2 * PAGE;

pub(crate) fn at(gpa: u64, size: u64, backing: Backing) -> MapOptions {
    MapOptions { backing, ..MapOptions::new(pages(gpa, size)) }
}

pub(crate) fn map(memory: &GuestMemory, gpa: u64, size: u64, backing: Backing) -> MemorySlot {
    memory.map(&at(gpa, size, backing)).unwrap()
}

pub(crate) fn byte(memory: &GuestMemory, gpa: u64) -> u8 {
    let mut bytes = [0xee];
    memory.read(gpa, &mut bytes).unwrap();
    bytes[0]
}

/// A file of zeros that no folder has any more.
pub(crate) fn new_file(size: u64) -> File {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("typevisor-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
    let path = std::env::temp_dir().join(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    file.set_len(size).unwrap();
    file
}

pub(crate) fn file(size: u64, sharing: FileSharing) -> Backing {
    Backing::File { file: Arc::new(new_file(size)), offset: 0, sharing }
}

/// Memory as a program might own it.
#[repr(C, align(4096))]
pub(crate) struct Page(pub(crate) [AtomicU8; 4096]);

pub(crate) struct Pages(pub(crate) Box<[Page]>);

impl Pages {
    pub(crate) fn lent(count: usize) -> (Arc<Self>, HostBuffer) {
        let page = || Page([const { AtomicU8::new(0) }; 4096]);
        let pages = Arc::new(Self((0..count).map(|_| page()).collect()));
        let address = NonNull::from(&*pages.0).cast();
        // SAFETY: whole pages of atomics that `pages` owns and that cannot move.
        let buffer = unsafe { HostBuffer::new(address, count * 4096, Arc::<Pages>::clone(&pages)) }.unwrap();
        (pages, buffer)
    }
}

/// Skipped where the machine has no huge pages free and none can be set aside.
pub(crate) fn with_huge_pages(name: &'static str, test: fn()) -> Trial {
    let trial = trial(name, test);
    match HugePages::reserve(1) {
        Ok(_given_back) => trial,
        Err(reason) => trial.with_kind(reason).with_ignored_flag(true),
    }
}

pub(crate) fn with_hugetlb(name: &'static str, test: fn()) -> Trial {
    let trial = trial(name, test);
    if huge_page_sizes().is_empty() { trial.with_kind("needs hugetlb").with_ignored_flag(true) } else { trial }
}

/// Huge pages of the smallest size, set aside for a test. One at a time on the whole machine: other processes of this very
/// test count them too.
pub(crate) struct HugePages {
    file: PathBuf,
    before: Option<u64>,
    pub(crate) size: u64,
    _lock: File,
}

impl HugePages {
    /// Makes sure that `count` pages are free.
    pub(crate) fn reserve(count: u64) -> Result<Self, String> {
        let size = huge_page_sizes().first().copied().ok_or("needs hugetlb")?;
        let lock = File::open("/sys/kernel/mm/hugepages").map_err(|error| error.to_string())?;
        // SAFETY: takes integers; waits for whoever has it, and ends with the descriptor.
        assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) }, 0);
        let folder = Path::new("/sys/kernel/mm/hugepages").join(format!("hugepages-{}kB", size >> 10));
        let mut pool = Self { file: folder.join("nr_hugepages"), before: None, size, _lock: lock };
        if pool.free() < count {
            let before = number(&pool.file);
            fs::write(&pool.file, (before + count).to_string())
                .map_err(|error| format!("needs huge pages: {error}"))?;
            pool.before = Some(before);
        }
        if pool.free() < count {
            return Err("needs huge pages: the machine has no memory in such pieces".into());
        }
        Ok(pool)
    }

    /// How many pages there are that nobody has touched.
    pub(crate) fn free(&self) -> u64 {
        number(&self.file.with_file_name("free_hugepages"))
    }
}

fn number(file: &Path) -> u64 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let restored = self.before.is_none_or(|before| fs::write(&self.file, before.to_string()).is_ok());
        assert!(restored || std::thread::panicking(), "{} is not what it was", self.file.display());
    }
}

pub(crate) fn has_guest_memfd(vm: &Vm) -> bool {
    vm.capabilities().value(Capability::GuestMemfdFlags) & 3 == 3
}

pub(crate) fn with_guest_memfd(name: &'static str, test: fn()) -> Trial {
    let missing = kvm_is_here().is_ok() && !has_guest_memfd(&vm());
    let trial = trial(name, test);
    if missing { trial.with_kind("needs guest-memfd-flags 3").with_ignored_flag(true) } else { trial }
}

/// Whether the kernel's flags of the mapping at `address` have this one; `dc` is "do not copy on fork".
pub(crate) fn has_flag(address: usize, flag: &str) -> bool {
    smaps(address, "VmFlags:").split(' ').any(|other| other == flag)
}

/// Bytes of the pages that the mapping at `address` is made of.
pub(crate) fn kernel_page_size(address: usize) -> u64 {
    smaps(address, "KernelPageSize:").strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

/// What the kernel says of the mapping at `address` in the line of this name.
fn smaps(address: usize, name: &str) -> String {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        if let Some((start, end)) = line.split(' ').next().and_then(|range| range.split_once('-')) {
            let parsed = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16));
            inside = matches!(parsed, (Ok(start), Ok(end)) if (start..end).contains(&address));
        } else if let Some(said) = line.strip_prefix(name).filter(|_| inside) {
            return said.into();
        }
    }
    panic!("nothing is mapped at {address:#x}")
}

/// The descriptors of this process that are guest memory.
pub(crate) fn descriptors() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok()).filter(|path| is_memory(path)).collect()
}

pub(crate) fn is_memory(path: &Path) -> bool {
    let name = path.to_string_lossy();
    name.contains("memfd:typevisor") || name.contains("gmem")
}

/// Mappings that have `name` in their line of `/proc/self/maps`.
pub(crate) fn addresses_of(name: &str) -> Vec<usize> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let lines = maps.lines().filter(|line| line.contains(name));
    lines.map(|line| usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap()).collect()
}
