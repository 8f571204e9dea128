//! Exits that the program may or must answer.

use super::*;

/// A value goes to that place, and nothing else is an answer.
fn wants_long(at: usize) -> Pending {
    Pending::Answer(Wanted::long(at))
}

#[test]
fn a_hypercall_of_x86_has_arguments_and_wants_a_result() {
    let page = Page::of(3).u64(12).u64(1).u64(2).u64(3).u64(4).u64(5).u64(6).u64(0xbad).u64(1);
    let args = Some([1, 2, 3].into());
    assert_eq!(page.exit(), Exit::Hypercall { nr: 12, args, flags: 1 });
    assert_eq!(page.pending(), wants_long(88));
    assert_needs(&page, 104, X86);
    // Kernels before 6.4 write 32 bits of the flags; of another number nobody knows how many arguments it has.
    let stale = Page::of(3).u64(13).u64(1).u64(2).u64(3).u64(4).u64(5).u64(6).u64(0xbad).u64(0xa5a5_a5a5_0000_0001);
    let args = Some([1, 2, 3, 4, 5, 6].into());
    assert_eq!(stale.exit(), Exit::Hypercall { nr: 13, args, flags: 1 });
}

#[test]
fn a_hypercall_of_aarch64_leaves_everything_in_registers() {
    let page = Page::of(3).u64(0xc600_0001).put(96, &1_u64.to_le_bytes());
    assert_eq!(page.exit_on(ARM), Exit::Hypercall { nr: 0xc600_0001, args: None, flags: 1 });
    assert_eq!(page.pending_on(ARM), Pending::Nothing);
    assert_needs(&page, 104, ARM);
}

fn msr(reason: u32, why: u32, index: u32, data: u64) -> Page {
    Page::of(reason).u8(0).with(&[0; 7]).u32(why).u32(index).u64(data)
}

#[test]
fn reading_a_register_wants_its_value_or_a_fault() {
    let page = msr(29, 4, 0xc000_0080, 0);
    assert_eq!(page.exit(), Exit::Rdmsr { reason: 4, index: 0xc000_0080 });
    assert_eq!(page.pending(), Pending::Answer(Wanted::long(48).or_fault(32)));
    assert_needs(&page, 56, X86);
}

#[test]
fn writing_a_register_wants_a_fault_or_nothing() {
    let page = msr(30, 1, 0x1b, 0xfee0_0900);
    assert_eq!(page.exit(), Exit::Wrmsr { reason: 1, index: 0x1b, data: 0xfee0_0900 });
    assert_eq!(page.pending(), Pending::Answer(Wanted::only_fault(32)));
    assert_needs(&page, 56, X86);
}

#[test]
fn reasons_of_register_exits_have_the_headers_names() {
    let names: Vec<_> = (0..9).map(|bits| MsrReason::from_bits(bits).name()).collect();
    assert_eq!(names, ["other", "inval", "unknown", "other", "filter", "other", "other", "other", "other"]);
}

#[test]
fn a_reason_of_register_exits_is_found_by_its_bit_and_by_its_name() {
    for bits in [1, 2, 4] {
        let reason = MsrReason::from_bits(bits);
        assert_eq!(reason.bits(), Some(bits));
        assert_eq!(MsrReason::from_name(reason.name()), Some(reason));
    }
    assert_eq!((MsrReason::Other.bits(), MsrReason::from_name("other")), (None, None));
}

#[test]
fn hyper_v_synic_tells_and_wants_nothing() {
    let page = Page::of(27).u32(1).u32(0).u32(0x4000_0080).u32(0).u64(1).u64(0x2001).u64(0x3001);
    let synic = HypervExit::Synic { msr: 0x4000_0080, control: 1, evt_page: 0x2001, msg_page: 0x3001 };
    assert_eq!(page.exit(), Exit::Hyperv(synic));
    assert_eq!(page.pending(), Pending::Nothing);
    assert_needs(&page, 72, X86);
}

#[test]
fn a_hyper_v_call_wants_its_result() {
    let page = Page::of(27).u32(2).u32(0).u64(0x5c).u64(0xbad).u64(7).u64(8);
    assert_eq!(page.exit(), Exit::Hyperv(HypervExit::Hcall { input: 0x5c, params: [7, 8] }));
    assert_eq!(page.pending(), wants_long(48));
    assert_needs(&page, 72, X86);
}

#[test]
fn the_hyper_v_debugger_wants_its_status() {
    let page = Page::of(27).u32(3).u32(0).u32(0x4000_00f1).u32(0).u64(2).u64(0xbad).u64(3).u64(4).u64(5);
    let syndbg = HypervExit::Syndbg { msr: 0x4000_00f1, control: 2, send_page: 3, recv_page: 4, pending_page: 5 };
    assert_eq!(page.exit(), Exit::Hyperv(syndbg));
    assert_eq!(page.pending(), wants_long(56));
    assert_needs(&page, 88, X86);
}

#[test]
fn other_hyper_v_and_xen_exits_keep_their_bytes() {
    for number in [0, 4, u32::MAX] {
        let page = Page::of(27).u32(number);
        let bytes: Box<[u8]> = page.bytes[32..288].into();
        assert_eq!(page.exit(), Exit::Hyperv(HypervExit::Unknown { r#type: number, bytes }));
        assert_eq!(page.pending(), Pending::Completion);
    }
    let page = Page::of(34).u32(2);
    let bytes: Box<[u8]> = page.bytes[32..288].into();
    assert_eq!(page.exit(), Exit::Xen(XenExit::Unknown { r#type: 2, bytes }));
    assert_eq!(page.pending(), Pending::Completion);
    assert_needs(&Page::of(27).u32(9), 36, X86);
    assert_needs(&page, 36, X86);
}

#[test]
fn a_xen_call_wants_its_result() {
    let call = |longmode| {
        let head = Page::of(34).u32(1).u32(0).u32(longmode).u32(3).u64(17).u64(0xbad);
        head.u64(1).u64(2).u64(3).u64(4).u64(5).u64(6)
    };
    let exit =
        |longmode| Exit::Xen(XenExit::Hcall { longmode, cpl: 3, input: 17, params: Box::new([1, 2, 3, 4, 5, 6]) });
    assert_eq!(call(1).exit(), exit(true));
    assert_eq!(call(0).exit(), exit(false));
    assert_eq!(call(1).pending(), wants_long(56));
    assert_needs(&call(1), 112, X86);
}

#[test]
fn a_tdx_call_may_be_answered_with_a_status_or_with_everything() {
    let page = Page::of(40).u64(0).u64(0x10002).u64(1 << 63).u64(1).u64(2).u64(3).u64(4).u64(5);
    let exit = Exit::Tdx { flags: 0, nr: 0x10002, ret: 1 << 63, data: Box::new([1, 2, 3, 4, 5]) };
    assert_eq!(page.exit(), exit);
    assert_eq!(page.pending(), Pending::Answer(Wanted::long(48).or_whole(48, 48).or_none()));
    assert_needs(&page, 96, X86);
}

#[test]
fn a_request_for_certificates_wants_to_know_how_it_went() {
    let page = Page::of(43).u64(0x4_0000).u64(4).u64(0);
    assert_eq!(page.exit(), Exit::SnpReqCerts { gpa: 0x4_0000, npages: 4 });
    assert_eq!(page.pending(), Pending::Answer(Wanted::long(48).or_whole(40, 16)));
    assert_needs(&page, 56, X86);
}
