//! Plans: what KVM would be told, and what is refused before it is.

use super::*;
use crate::exit::MsrReason;

/// A VM whose processor and kernel have everything.
fn all() -> Capabilities {
    Capabilities::only(&[
        (Capability::X86UserSpaceMsr, 1),
        (Capability::X86MsrFilter, 1),
        (Capability::ExitHypercall, 1 << 12),
        (Capability::ExitOnEmulationFailure, 1),
        (Capability::X86DisableExits, 0x1f),
        (Capability::X86BusLockExit, 3),
        (Capability::X86NotifyVmexit, 1),
        (Capability::ArmNisvToUser, 1),
        (Capability::XenHvm, 0x3),
    ])
}

fn told(switches: &ExitSwitches) -> Vec<(Capability, u64)> {
    switches.plan(&all()).unwrap().capabilities
}

fn filtered(ranges: Vec<MsrRange>, deny_others: bool) -> ExitSwitches {
    let filter = Some(MsrFilter { ranges, deny_others });
    ExitSwitches { msr: Some(MsrExits { filter, ..MsrExits::default() }), ..ExitSwitches::default() }
}

fn bitmap(range: MsrRange) -> Vec<u64> {
    let plan = filtered(vec![range], false).plan(&all()).unwrap();
    plan.filter.unwrap().ranges[0].bitmap().to_vec()
}

fn why(ranges: Vec<MsrRange>) -> (usize, &'static str) {
    match filtered(ranges, false).plan(&all()) {
        Err(Error::Element { list: "exits.msr.filter", index, why }) => (index, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_chosen_is_nothing_told_and_needs_nothing() {
    let plan = ExitSwitches::default().plan(&Capabilities::none()).unwrap();
    assert_eq!(plan, Plan::default());
}

#[test]
fn each_switch_is_the_bits_of_its_capability() {
    let none = ExitSwitches::default;
    let msr = |reasons| Some(MsrExits { reasons, filter: None });
    let table = [
        (ExitSwitches { msr: Some(MsrExits::default()), ..none() }, Capability::X86UserSpaceMsr, 7),
        (ExitSwitches { msr: msr(vec![MsrReason::Unknown]), ..none() }, Capability::X86UserSpaceMsr, 2),
        (ExitSwitches { hypercalls: vec![ExitingHypercall::MapGpaRange], ..none() }, Capability::ExitHypercall, 0x1000),
        (ExitSwitches { emulation_failure: true, ..none() }, Capability::ExitOnEmulationFailure, 1),
        (ExitSwitches { disable: DisabledExit::ALL.to_vec(), ..none() }, Capability::X86DisableExits, 0x1f),
        (
            ExitSwitches { disable: vec![DisabledExit::Hlt, DisabledExit::Cstate, DisabledExit::Hlt], ..none() },
            Capability::X86DisableExits,
            0xa,
        ),
        (ExitSwitches { bus_lock: true, ..none() }, Capability::X86BusLockExit, 2),
        (ExitSwitches { notify: Some(0x1234), ..none() }, Capability::X86NotifyVmexit, 0x1234_0000_0003),
        (ExitSwitches { nisv: true, ..none() }, Capability::ArmNisvToUser, 0),
    ];
    for (switches, capability, argument) in table {
        assert_eq!(told(&switches), [(capability, argument)], "{switches:?}");
        let error = switches.plan(&Capabilities::none()).unwrap_err();
        assert!(
            matches!(error, Error::CapabilityMissing { capability: name, .. } if name == capability.name()),
            "{error}"
        );
    }
}

#[test]
fn all_of_them_go_together() {
    let switches = ExitSwitches {
        msr: Some(MsrExits::default()),
        hypercalls: ExitingHypercall::ALL.to_vec(),
        emulation_failure: true,
        disable: vec![DisabledExit::Pause],
        bus_lock: true,
        notify: Some(0),
        nisv: true,
        xen: Some(0x4000_0000),
    };
    assert_eq!(told(&switches).len(), 7);
    assert_eq!(switches.plan(&all()).unwrap().xen, Some(0x4000_0000));
}

#[test]
fn xen_has_a_register_that_is_no_processor_s() {
    let plan = |xen, vm: &Capabilities| ExitSwitches { xen: Some(xen), ..Default::default() }.plan(vm);
    for there in [0x4000_0000, 0x4fff_ffff] {
        assert_eq!(plan(there, &all()).unwrap(), Plan { xen: Some(there), ..Default::default() });
    }
    for wrong in [0, 0x10, 0x3fff_ffff, 0x5000_0000] {
        let error = plan(wrong, &all()).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { what: "exits.xen.msr", .. }), "{error}");
    }
    let error = plan(0x4000_0000, &Capabilities::none()).unwrap_err();
    assert!(matches!(error, Error::CapabilityMissing { capability: "xen-hvm", .. }), "{error}");
    // A kernel that copies a page of the program's own, and no more.
    let error = plan(0x4000_0000, &Capabilities::only(&[(Capability::XenHvm, 1)])).unwrap_err();
    assert!(matches!(error, Error::CapabilityPart { capability: "xen-hvm", value: 1, since: "5.12", .. }), "{error}");
}

#[test]
fn a_part_that_the_value_lacks_is_refused_with_its_own_kernel() {
    let vm = Capabilities::only(&[(Capability::X86DisableExits, 0xe), (Capability::X86BusLockExit, 1)]);
    let disable = |exit| ExitSwitches { disable: vec![DisabledExit::Hlt, exit], ..Default::default() }.plan(&vm);
    assert!(disable(DisabledExit::Cstate).is_ok());
    let error = disable(DisabledExit::Aperfmperf).unwrap_err();
    assert_eq!(
        error.to_string(),
        "'aperfmperf' in the VM option exits.disable is not in the value 0xe of the KVM capability x86-disable-exits here; \
         Linux 6.17 has it, processor permitting"
    );
    assert_eq!(error.code().as_str(), "ERR_CAPABILITY_MISSING");
    assert!(matches!(disable(DisabledExit::Mwait), Err(Error::CapabilityPart { since: "5.10 or earlier", .. })));
    let off_only = ExitSwitches { bus_lock: true, ..Default::default() }.plan(&vm);
    assert!(matches!(off_only, Err(Error::CapabilityPart { capability: "x86-bus-lock-exit", since: "5.12", .. })));
}

#[test]
fn names_are_found_again_and_others_are_not() {
    for exit in DisabledExit::ALL {
        assert_eq!(DisabledExit::from_name(exit.name()), Some(*exit));
    }
    assert_eq!(DisabledExit::from_name("HLT"), None);
    assert_eq!(ExitingHypercall::from_name("kick-cpu"), None);
}

#[test]
fn a_reason_that_is_none_is_refused() {
    let msr = Some(MsrExits { reasons: vec![MsrReason::Filter, MsrReason::Other], filter: None });
    let error = ExitSwitches { msr, ..Default::default() }.plan(&all()).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { what: "exits.msr.reasons", .. }), "{error}");
}

#[test]
fn a_filter_alone_needs_no_exits() {
    let msr = MsrExits {
        reasons: vec![],
        filter: Some(MsrFilter { ranges: vec![MsrRange::denied(1, 1)], deny_others: false }),
    };
    let switches = ExitSwitches { msr: Some(msr), ..Default::default() };
    let plan = switches.plan(&Capabilities::only(&[(Capability::X86MsrFilter, 1)])).unwrap();
    assert_eq!((plan.capabilities.len(), plan.filter.map(|filter| filter.ranges.len())), (0, Some(1)));
    let error = switches.plan(&Capabilities::only(&[(Capability::X86UserSpaceMsr, 1)])).unwrap_err();
    assert!(matches!(error, Error::CapabilityMissing { capability: "x86-msr-filter", .. }), "{error}");
}

#[test]
fn bitmaps_are_whole_words_that_allow_nothing_beyond_the_registers() {
    assert_eq!(bitmap(MsrRange::denied(0x10, 3)), [0]);
    assert_eq!(bitmap(MsrRange::allowed(0x10, 3)), [7]);
    assert_eq!(bitmap(MsrRange::allowed(0x10, 64)), [u64::MAX]);
    let bits = |bytes: &[u8]| MsrAccess::Bitmap(bytes.into());
    let of_65 = MsrRange { access: bits(&[1, 0, 0, 0, 0, 0, 0, 0x80, 0xff]), ..MsrRange::denied(0, 65) };
    assert_eq!(bitmap(of_65), [1 << 63 | 1, 1]);
}

#[test]
fn a_range_has_registers_and_an_access_and_its_bits() {
    assert!(why(vec![MsrRange::denied(0, 0)]).1.contains("12,288"));
    assert!(why(vec![MsrRange::allowed(0, 12_289)]).1.contains("12,288"));
    assert!(why(vec![MsrRange::denied(u32::MAX, 2)]).1.contains("12,288"));
    assert!(why(vec![MsrRange::denied(u32::MAX, 1)]).1.contains("12,288"));
    assert!(filtered(vec![MsrRange::denied(u32::MAX - 1, 1), MsrRange::allowed(0, 12_288)], true).plan(&all()).is_ok());
    let neither = MsrRange { read: false, write: false, ..MsrRange::denied(1, 1) };
    assert_eq!(why(vec![MsrRange::denied(0, 1), neither]), (1, "is about neither reads nor writes"));
    for bytes in [0, 1, 3] {
        let access = MsrAccess::Bitmap(vec![0; bytes].into());
        assert!(why(vec![MsrRange { access, ..MsrRange::denied(0, 9) }]).1.contains("bitmap"), "{bytes}");
    }
}

#[test]
fn a_filter_that_kvm_would_ignore_is_refused() {
    for (base, count) in [(0x800, 1), (0x8ff, 1), (0x7ff, 2), (0, 0x1000)] {
        assert!(why(vec![MsrRange::denied(base, count)]).1.contains("x2APIC"), "{base:#x}");
    }
    let around = vec![MsrRange::denied(0x7ff, 1), MsrRange::denied(0x900, 1), MsrRange::allowed(0x800, 0x100)];
    assert!(filtered(around, false).plan(&all()).is_ok());
}

#[test]
fn ranges_do_not_meet_in_one_access() {
    let [reads, writes] = [true, false].map(|read| MsrRange { read, write: !read, ..MsrRange::denied(0x10, 4) });
    assert!(
        filtered(vec![reads.clone(), writes, MsrRange::denied(0x14, 1), MsrRange::denied(0xf, 1)], false)
            .plan(&all())
            .is_ok()
    );
    let (index, meets) = why(vec![MsrRange::denied(0, 1), reads, MsrRange::allowed(0x13, 1)]);
    assert_eq!((index, meets), (2, "is about accesses that an earlier range is about, which alone would count"));
}

#[test]
fn a_filter_has_up_to_sixteen_ranges_and_one_where_others_are_denied() {
    let ranges = |count: u32| (0..count).map(|base| MsrRange::denied(base, 1)).collect::<Vec<_>>();
    assert!(filtered(ranges(16), true).plan(&all()).is_ok());
    for (ranges, deny_others) in [(ranges(17), false), (ranges(0), true)] {
        let error = filtered(ranges, deny_others).plan(&all()).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { what: "exits.msr.filter", .. }), "{error}");
    }
    assert!(filtered(ranges(0), false).plan(&all()).is_ok());
}
