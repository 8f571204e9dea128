//! `KVM_RUN` that failed.

use super::*;

const MEMORY_FAULT: u32 = 39;
const PRIVATE: u64 = 8;

fn fault(flags: u64) -> Page {
    Page::of(MEMORY_FAULT).u64(flags).u64(0x1_2345_6000).u64(0x1000)
}

fn expected(flags: u64, access: FaultAccess, rwx: Option<FaultKind>, errno: i32, cause: FaultCause) -> Exit {
    Exit::MemoryFault { gpa: 0x1_2345_6000, size: 0x1000, flags, access, rwx, errno: Errno(errno), cause }
}

#[test]
fn a_failed_run_says_its_errno_whatever_the_page_holds() {
    for reason in [5, 6, 0, u32::MAX] {
        assert_eq!(Page::of(reason).failed(libc::EFAULT), Exit::RunFailed { errno: Errno(libc::EFAULT) });
    }
}

#[test]
fn a_memory_fault_is_one_where_errno_and_reason_say_so() {
    use FaultAccess::{Private, Shared};
    assert_eq!(fault(0).failed(libc::EFAULT), expected(0, Shared, None, libc::EFAULT, FaultCause::Unknown));
    assert_eq!(
        fault(PRIVATE).failed(libc::EFAULT),
        expected(PRIVATE, Private, None, libc::EFAULT, FaultCause::Conversion)
    );
    for errno in [libc::ENOMEM, libc::EINVAL, libc::ENOSYS, libc::EIO] {
        assert_eq!(fault(PRIVATE).failed(errno), Exit::RunFailed { errno: Errno(errno) });
    }
}

#[test]
fn broken_memory_is_poison_whatever_half_it_is_of() {
    for (flags, access) in [(0, FaultAccess::Shared), (PRIVATE, FaultAccess::Private)] {
        let exit = expected(flags, access, None, libc::EHWPOISON, FaultCause::Poison);
        assert_eq!(fault(flags).failed(libc::EHWPOISON), exit);
    }
}

#[test]
fn what_the_guest_was_about_to_do_is_one_bit() {
    use FaultKind::{Exec, Read, Write};
    for (bits, rwx) in [(1, Some(Read)), (2, Some(Write)), (4, Some(Exec)), (3, None), (7, None), (0, None), (16, None)]
    {
        let exit = expected(bits, FaultAccess::Shared, rwx, libc::EFAULT, FaultCause::Unknown);
        assert_eq!(fault(bits).failed(libc::EFAULT), exit, "{bits}");
        let private = bits | PRIVATE;
        let exit = expected(private, FaultAccess::Private, rwx, libc::EFAULT, FaultCause::Conversion);
        assert_eq!(fault(private).failed(libc::EFAULT), exit, "{bits} private");
    }
}

#[test]
fn a_memory_fault_without_a_failure_makes_no_sense() {
    let Exit::Unknown { reason: MEMORY_FAULT, bytes, .. } = fault(0).exit() else { panic!("believed") };
    assert_eq!(bytes[8..16], 0x1_2345_6000_u64.to_le_bytes());
}

#[test]
fn a_memory_fault_cut_short_is_its_errno() {
    let errno = Some(Errno(libc::EFAULT));
    let cut = |len: usize| decode_exit(RunBytes::of_page(&fault(0).bytes[..len]), errno, X86);
    assert_eq!(cut(56).kind(), "memory-fault");
    for len in [0, 8, 11, 12, 40, 55] {
        assert_eq!(cut(len), Exit::RunFailed { errno: Errno(libc::EFAULT) }, "{len}");
    }
}

#[test]
fn causes_and_kinds_have_names() {
    let names = [FaultKind::Read, FaultKind::Write, FaultKind::Exec].map(FaultKind::name);
    assert_eq!(names, ["read", "write", "exec"]);
    let names = [FaultCause::Conversion, FaultCause::Poison, FaultCause::Unknown].map(FaultCause::name);
    assert_eq!(names, ["conversion", "poison", "unknown"]);
}
