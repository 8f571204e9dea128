//! Exits that want nothing.

use super::*;

#[test]
fn reasons_alone() {
    for (reason, exit) in [
        (5, Exit::Hlt),
        (7, Exit::IrqWindowOpen),
        (8, Exit::Shutdown),
        (10, Exit::Intr),
        (16, Exit::Nmi),
        (31, Exit::DirtyRingFull),
        (32, Exit::ApResetHold),
        (33, Exit::BusLock),
    ] {
        let page = Page::of(reason);
        assert_eq!(page.exit(), exit);
        assert_eq!(page.pending(), Pending::Nothing, "{}", exit.kind());
        // These need nothing of the payload.
        assert_eq!(page.cut(12), exit);
    }
}

#[test]
fn a_page_without_a_reason_is_unknown_and_has_no_bytes() {
    for len in [0, 7, 8, 11] {
        let nothing = Exit::Unknown { reason: u32::MAX, bytes: Box::default(), hardware_reason: None };
        assert_eq!(Page::of(5).cut(len), nothing, "{len}");
    }
}

#[test]
fn a_refused_entry_says_why_and_where() {
    let page = Page::of(9).u64(0x8000_0021).u32(3);
    assert_eq!(page.exit(), Exit::FailEntry { reason: 0x8000_0021, cpu: 3 });
    assert_eq!(page.pending(), Pending::Nothing);
    assert_needs(&page, 44, X86);
}

#[test]
fn an_exception_says_which() {
    let page = Page::of(1).u32(17).u32(0xdead);
    assert_eq!(page.exit(), Exit::Exception { exception: 17, error_code: 0xdead });
    assert_needs(&page, 40, X86);
}

#[test]
fn the_task_priority_comes_with_its_exits() {
    let set = Page::of(11).put(16, &9_u64.to_le_bytes());
    assert_eq!(set.exit(), Exit::SetTpr { cr8: 9 });
    assert_needs(&set, 24, X86);
    let read = Page::of(12).u64(0xffff_8000_0000_1234).u32(0);
    assert_eq!(read.exit(), Exit::TprAccess { rip: 0xffff_8000_0000_1234, write: false });
    let write = Page::of(12).u64(1).u32(1);
    assert_eq!(write.exit(), Exit::TprAccess { rip: 1, write: true });
    assert_eq!(write.pending(), Pending::Nothing);
    assert_needs(&write, 44, X86);
}

#[test]
fn the_end_of_an_interrupt_says_its_vector() {
    let page = Page::of(26).u8(0x31);
    assert_eq!(page.exit(), Exit::IoapicEoi { vector: 0x31 });
    assert_needs(&page, 33, X86);
}

#[test]
fn a_notification_says_whether_the_state_is_lost() {
    for (flags, context_invalid) in [(0, false), (1, true), (2, false), (3, true)] {
        assert_eq!(Page::of(37).u32(flags).exit(), Exit::Notify { flags, context_invalid });
    }
    assert_needs(&Page::of(37), 36, X86);
}

#[test]
fn a_debug_exit_of_x86_has_debug_registers_with_their_exception_alone() {
    let debug = |exception| Page::of(4).u32(exception).u32(0).u64(0xfff0).u64(0x4ff0).u64(0x400);
    let registers = Some(DebugRegisters { dr6: 0x4ff0, dr7: 0x400 });
    assert_eq!(debug(1).exit(), Exit::Debug(Debug::X86 { exception: 1, pc: 0xfff0, registers }));
    assert_eq!(debug(3).exit(), Exit::Debug(Debug::X86 { exception: 3, pc: 0xfff0, registers: None }));
    assert_eq!(debug(1).pending(), Pending::Nothing);
    assert_needs(&debug(1), 64, X86);
}

#[test]
fn a_debug_exit_of_aarch64_has_an_address_at_watchpoints_alone() {
    // Software breakpoint (class 0x3c), then watchpoint (0x34).
    let debug = |hsr: u32, flags: u16| Page::of(4).u32(hsr).u32(7).u64(0x8000).put(14, &flags.to_le_bytes());
    let exit = |hsr, far| Exit::Debug(Debug::Aarch64 { hsr, far });
    assert_eq!(debug(0xf200_0001, 0).exit_on(ARM), exit(0xf200_0001, None));
    assert_eq!(debug(0xd200_0022, 0).exit_on(ARM), exit(0xd200_0022, Some(0x8000)));
    assert_eq!(debug(0xd200_0022, 1).exit_on(ARM), exit(7 << 32 | 0xd200_0022, Some(0x8000)));
    assert_eq!(debug(0xd200_0022, 2).exit_on(ARM), exit(0xd200_0022, Some(0x8000)));
    assert_eq!(debug(0xd200_0022, 3).exit_on(ARM), exit(7 << 32 | 0xd200_0022, Some(0x8000)));
    assert_needs(&debug(0, 0), 48, ARM);
}

#[test]
fn an_instruction_that_arm_does_not_describe_says_where() {
    let nisv = Page::of(28).u64(0x1000).u64(1 << 51);
    assert_eq!(nisv.exit(), Exit::ArmNisv { esr_iss: 0x1000, fault_ipa: 1 << 51 });
    assert_eq!(nisv.pending(), Pending::Nothing);
    assert_needs(&nisv, 48, ARM);
    let wide = Page::of(42).u64(2).u64(3);
    assert_eq!(wide.exit(), Exit::ArmLdst64b { esr_iss: 2, fault_ipa: 3 });
    assert_eq!(wide.pending(), Pending::Nothing);
    assert_needs(&wide, 48, ARM);
}

#[test]
fn an_external_abort_has_the_addresses_that_are_known() {
    let sea = |flags: u64, esr: u64| Page::of(41).u64(flags).u64(esr).u64(0x1111).u64(0x2222);
    let exit = |flags, esr, gva, gpa| Exit::ArmSea { flags, esr, gva, gpa };
    assert_eq!(sea(0, 0x10).exit(), exit(0, 0x10, Some(0x1111), None));
    assert_eq!(sea(1, 0x10).exit(), exit(1, 0x10, Some(0x1111), Some(0x2222)));
    assert_eq!(sea(2, 0x410).exit(), exit(2, 0x410, None, None));
    assert_eq!(sea(3, 0x410).exit(), exit(3, 0x410, None, Some(0x2222)));
    assert_needs(&sea(0, 0), 64, ARM);
}

/// `flags`, then an instruction, then what the kernel likes to add.
fn emulation_failure(ndata: u32, flags: u64) -> Page {
    Page::of(17).u32(1).u32(ndata).u64(flags).u8(200).with(&[0x0f, 0x28, 0xc1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7])
}

#[test]
fn an_emulation_failure_brings_its_instruction_bytes() {
    let Exit::InternalError { suberror: 1, data, flags: Some(1), instruction } = emulation_failure(4, 1).exit() else {
        panic!("not an emulation failure");
    };
    assert_eq!(data.len(), 4);
    assert_eq!(data[0], 1);
    assert_eq!(*instruction.unwrap(), [0x0f, 0x28, 0xc1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    let three = emulation_failure(3, 1).put(48, &[2]);
    let Exit::InternalError { instruction: Some(instruction), .. } = three.exit() else { panic!("no instruction") };
    assert_eq!(*instruction, [0x0f, 0x28]);
    assert_eq!(three.pending(), Pending::Nothing);
}

#[test]
fn instruction_bytes_are_believed_where_the_flag_and_the_count_say_so() {
    for (ndata, flags) in [(4, 0), (4, 2), (2, 1), (1, 1)] {
        let exit = emulation_failure(ndata, flags).exit();
        let Exit::InternalError { flags: found, instruction, .. } = exit else { panic!("{exit:?}") };
        assert_eq!((found, instruction), (Some(flags), None), "ndata {ndata}");
    }
    let none = emulation_failure(0, 1).exit();
    assert_eq!(none, Exit::InternalError { suberror: 1, data: Box::default(), flags: None, instruction: None });
}

#[test]
fn other_internal_errors_have_words_and_no_flags() {
    let error = Page::of(17).u32(3).u32(2).u64(1).u64(2);
    let words = Box::from([1, 2]);
    assert_eq!(error.exit(), Exit::InternalError { suberror: 3, data: words, flags: None, instruction: None });
    assert_needs(&error, 168, X86);
}

#[test]
fn an_internal_error_believes_at_most_sixteen_words() {
    for ndata in [16, 17, 1000, u32::MAX] {
        let exit = Page::of(17).u32(4).u32(ndata).exit();
        let Exit::InternalError { data, instruction: None, .. } = exit else { panic!("{exit:?}") };
        assert_eq!(*data, [0xa5a5_a5a5_a5a5_a5a5; 16]);
    }
}

#[test]
fn suberrors_have_the_headers_names() {
    let names: Vec<_> = (0..6).map(|number| InternalError::from_number(number).name()).collect();
    assert_eq!(names, ["unknown", "emulation", "simul-ex", "delivery-ev", "unexpected-exit-reason", "unknown"]);
}

#[test]
fn what_kvm_itself_does_not_know_keeps_the_processors_reason() {
    let page = Page::of(0).u64(77);
    let Exit::Unknown { reason: 0, bytes, hardware_reason: Some(77) } = page.exit() else {
        panic!("{:?}", page.exit())
    };
    assert_eq!(*bytes, page.bytes[32..288]);
    assert_eq!(page.cut(39).kind(), "unknown");
}

#[test]
fn reasons_that_nobody_has_keep_their_bytes_and_may_have_to_be_completed() {
    for reason in [13, 35, 39, 44, 1000, u32::MAX] {
        let page = Page::of(reason);
        let Exit::Unknown { reason: found, bytes, hardware_reason: None } = page.exit() else { panic!("{reason}") };
        assert_eq!((found, &*bytes), (reason, &page.bytes[32..288]));
        assert_eq!(page.pending(), Pending::Completion);
    }
}
