//! What KVM itself allocates for a slot when it is added: on x86 without a TDP MMU (before Linux 5.15, on page-table VMs,
//! with EPT or NPT off) 8 bytes for each 4 KiB of it, used or not. A slot of terabytes then ends the machine, not the
//! call, as the kernel finds out too late that it has no memory left: so it is compared with what there is before.

use std::fs;

use crate::{
    error::{Error, Result},
    range::PAGE_SIZE,
};

/// `kvm_rmap_head` of each page (arch/x86/kvm/mmu), and what little else there is by the page.
const BYTES_A_PAGE: u64 = 8;
/// Slots up to this size (bytes) are not looked at: 64 MiB of the kernel's memory is no danger.
const HARMLESS: u64 = 32 << 30;

/// Refuses a slot of `size` bytes that KVM has no memory to keep track of.
///
/// # Errors
/// [`Error::Limit`].
pub(super) fn check(size: u64) -> Result<()> {
    if size <= HARMLESS || !tracks_each_page() {
        return Ok(());
    }
    match available() {
        Some(available) => judge(size, available),
        None => Ok(()),
    }
}

fn judge(size: u64, available: u64) -> Result<()> {
    let needed = size / PAGE_SIZE * BYTES_A_PAGE;
    if needed < available {
        return Ok(());
    }
    Err(Error::Limit {
        what: "bytes of memory that KVM has for keeping track of a slot (8 for each 4 KiB of it, used or not)",
        limit: available,
        remedy: "map less",
    })
}

/// Whether this machine's KVM keeps something for each page of a slot.
fn tracks_each_page() -> bool {
    let on = |parameter: &str| {
        let text = fs::read_to_string(format!("/sys/module/{parameter}"));
        text.is_ok_and(|text| matches!(text.trim(), "Y" | "1"))
    };
    let two_dimensional = on("kvm_intel/parameters/ept") || on("kvm_amd/parameters/npt");
    cfg!(target_arch = "x86_64") && !(two_dimensional && on("kvm/parameters/tdp_mmu"))
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    const TIB: u64 = 1 << 40;

    #[test]
    fn a_slot_is_held_against_what_keeping_track_of_it_takes() {
        assert!(judge(4 * TIB, (8 << 30) + 1).is_ok());
        assert_eq!(judge(4 * TIB, 8 << 30).unwrap_err().code(), ErrorCode::Limit);
    }

    #[test]
    fn small_slots_are_not_looked_at() {
        assert!(check(HARMLESS).is_ok());
    }

    #[test]
    fn this_machine_says_what_it_has() {
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
