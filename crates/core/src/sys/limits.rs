//! Limits of this process, to name them when they are reached.
#![expect(unsafe_code, reason = "getrlimit and sysconf")]

use std::{
    fs::{self, File},
    io::Read,
};

use crate::{
    error::{Errno, Error},
    range::PAGE_SIZE,
};

/// Mappings that a failed `mmap` may be short of although `/proc/self/maps` shows some less than the limit: other
/// threads map and unmap meanwhile.
const NEAR: u64 = 64;

/// `vm.max_map_count`.
fn mappings() -> u64 {
    // 65530 is the kernel's default where /proc is not mounted.
    fs::read_to_string("/proc/sys/vm/max_map_count").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(65_530)
}

/// How many mappings this process has, if /proc is there to tell. Counted in a small buffer: where no mapping is left,
/// there is no room for the text of 65,530 lines either.
fn mappings_in_use() -> Option<u64> {
    let mut file = File::open("/proc/self/maps").ok()?;
    let mut buffer = [0; 4096];
    let mut lines = 0;
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(lines),
            size => lines += memchr::memchr_iter(b'\n', buffer.get(..size)?).count() as u64,
        }
    }
}

/// The limit of this process that is why a call failed with `errno`.
pub(crate) fn reached(errno: Errno) -> Option<Error> {
    match errno.0 {
        libc::EMFILE => Some(Error::Limit {
            what: "open files of this process",
            limit: open_files(),
            remedy: "close VMs, or raise RLIMIT_NOFILE (ulimit -n)",
        }),
        libc::ENOMEM => {
            let limit = mappings();
            mappings_in_use().filter(|used| used + NEAR >= limit).map(|_| Error::Limit {
                what: "memory mappings of this process",
                limit,
                remedy: "close VMs, unmap slots, or raise vm.max_map_count",
            })
        }
        _ => None,
    }
}

/// `RLIMIT_NOFILE`, the soft one. By system call: reading a file would need a descriptor.
fn open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes into `limit`, which lives through the call; a failure leaves it 0.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}

/// `RLIMIT_FSIZE`, the soft one, in bytes: what goes past it is not refused but ends the process by `SIGXFSZ`.
pub(crate) fn file_size() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: 0 };
    // SAFETY: writes into `limit`, which lives through the call; a failure leaves it without a limit.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    limit.rlim_cur
}

/// Bytes of a page of this kernel's: 4 KiB on `x86_64`, 4, 16 or 64 KiB on aarch64.
pub(crate) fn page_size() -> u64 {
    // SAFETY: takes a number, and changes nothing.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(PAGE_SIZE).max(PAGE_SIZE)
}

/// `vm.overcommit_memory`, where /proc is there to tell: 2 where the kernel promises no memory that it may not have.
pub(crate) fn overcommit_mode() -> Option<u32> {
    fs::read_to_string("/proc/sys/vm/overcommit_memory").ok()?.trim().parse().ok()
}

/// Bits of this machine's physical addresses, where `/proc/cpuinfo` tells (x86 does).
pub(crate) fn physical_address_bits() -> Option<u32> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("address sizes"))?;
    line.split_whitespace().find_map(|word| word.parse().ok()).filter(|bits| (32..=52).contains(bits))
}
