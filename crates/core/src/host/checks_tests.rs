//! Tables for the judging half of `checks.rs`.

use super::*;

#[test]
fn a_missing_capability_names_its_kernel_only_to_an_older_one() {
    let check = |value, release| simple("pre-fault", "Populating", Capability::PreFaultMemory, value, release);
    assert_eq!(check(1, "6.18.0").status, Status::Ok);
    let old = check(0, "6.1.192");
    assert_eq!((old.status, &*old.detail), (Status::Missing, "pre-fault-memory came with Linux 6.11"));
    assert_eq!(old.remedy.as_deref(), Some("boot a kernel of 6.11 or later"));
    let new = check(0, "6.18.44-fc");
    assert_eq!(
        (new.status, &*new.detail),
        (Status::Missing, "pre-fault-memory is not offered by this kernel on this processor")
    );
    assert_eq!(new.remedy, None);
}

#[test]
fn userfaultfd_works_by_either_way_and_its_remedy_fits_the_refusal() {
    let errno = |number| Some(Errno(number));
    let check = |device, call| {
        let check = userfaultfd(device, call);
        (check.status, check.remedy)
    };
    let sysctl = "run: sudo sysctl vm.unprivileged_userfaultfd=1";
    let both = "run: sudo setfacl -m u:$USER:rw /dev/userfaultfd (or: sudo sysctl vm.unprivileged_userfaultfd=1)";
    assert_eq!(check(None, errno(libc::EPERM)), (Status::Ok, None));
    assert_eq!(check(errno(libc::ENOENT), None), (Status::Ok, None));
    assert_eq!(check(errno(libc::ENOENT), errno(libc::EPERM)), (Status::Failed, Some(sysctl.into())));
    assert_eq!(check(errno(libc::EACCES), errno(libc::EPERM)), (Status::Failed, Some(both.into())));
    assert_eq!(check(errno(libc::ENOENT), errno(libc::ENOSYS)), (Status::Missing, None));
}

#[test]
fn huge_pages_are_limited_by_an_empty_pool_and_missing_without_one() {
    let check = |all, free| huge_pages("huge-pages-2m", "Huge pages", "/sys/x", all, free);
    assert_eq!(check(Some(4), Some(1)).status, Status::Ok);
    assert_eq!(check(None, None).status, Status::Missing);
    let empty = check(Some(4), Some(0));
    assert_eq!(empty.status, Status::Limited);
    assert_eq!(empty.remedy.as_deref(), Some("run: echo 5 | sudo tee /sys/x/nr_hugepages (reserves one more)"));
}

#[test]
fn limits_are_read_and_judged() {
    let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                Max open files            256                  20000                files     \n";
    assert_eq!(open_file_limits(text), Some((256, 20_000)));
    assert_eq!(open_file_limits("Max open files  unlimited unlimited files"), Some((u64::MAX, u64::MAX)));
    assert_eq!(open_file_limits(""), None);
    assert_eq!(open_files(Some((256, 20_000))).remedy.as_deref(), Some("run: ulimit -n 20000"));
    assert_eq!(open_files(Some((256, u64::MAX))).remedy.as_deref(), Some("run: ulimit -n 65536"));
    assert_eq!(open_files(Some((20_000, 20_000))).status, Status::Ok);
    assert_eq!(open_files(Some((u64::MAX, u64::MAX))).status, Status::Ok);
    assert_eq!(open_files(None).status, Status::Failed);
    // A hard limit of the kernel's own making may lie below the soft one that was read: nothing may panic.
    assert_eq!(open_files(Some((256, 100))).status, Status::Limited);
}

#[test]
fn the_map_count_is_limited_below_the_usual_or_below_the_slots() {
    assert_eq!(max_map_count(Some(65_530), Some(32_764)).status, Status::Ok);
    assert_eq!(max_map_count(Some(65_529), None).status, Status::Limited);
    assert_eq!(max_map_count(Some(65_530), Some(100_000)).status, Status::Limited);
    assert_eq!(max_map_count(None, None).status, Status::Failed);
}

#[test]
fn guest_memfd_and_private_memory_are_told_by_all_their_bits() {
    assert_eq!(guest_memfd(0, 3).status, Status::Missing);
    assert_eq!(guest_memfd(1, 3).status, Status::Ok);
    for flags in [0, 1, 2] {
        assert_eq!(guest_memfd(1, flags).status, Status::Limited);
    }
    assert_eq!(private_memory_of(8, 1).status, Status::Ok);
    assert_eq!(private_memory_of(8, 0).status, Status::Failed);
    assert_eq!(private_memory_of(7, 1).status, Status::Failed);
}

#[test]
fn either_kind_of_dirty_ring_will_do() {
    assert_eq!(dirty_ring(0, 0).status, Status::Missing);
    assert_eq!(dirty_ring(0, 1 << 20).detail, "up to 1048576 bytes a vCPU");
    assert_eq!(dirty_ring(1 << 20, 1 << 20).status, Status::Ok);
}

#[test]
fn a_refused_vm_keeps_its_errno_and_knows_the_common_remedy() {
    let refusal = |errno| refused("vm", "VM", &Error::Ioctl { request: "KVM_CREATE_VM", errno: Errno(errno) });
    assert!(refusal(libc::EBUSY).remedy.is_some_and(|remedy| remedy.contains("vboxdrv")));
    assert_eq!(refusal(libc::EMFILE).remedy.as_deref(), Some("run: ulimit -n 65536"));
    assert!(refusal(libc::ENOMEM).remedy.is_none());
    assert!(refusal(libc::ENOMEM).detail.starts_with("KVM_CREATE_VM failed"));
}
