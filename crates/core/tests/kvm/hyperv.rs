//! What guests of Hyper-V make exits of: reset and crash by its registers, its hypercalls, its synthetic interrupt controller
//! and debugger. Guests are x86 code, and skipped by capability where there is none of it.

use libtest_mimic::Trial;
use typevisor::{
    Error, Exit, Vcpu, Vm, VmOptions,
    exit::{HypervExit, SystemEvent, SystemEventPayload},
    hooks::{leave_payload, run_page},
    host::{Capability, CpuidEntry},
    vcpu::{BootMode, BootOptions, VcpuOptions},
};

use crate::{
    machine::{CODE, LIMIT, Machine, out},
    support::{kvm, needs},
    switches::{read, stored, write, wrmsr},
};

pub(crate) fn tests() -> Vec<Trial> {
    const HYPERV: Capability = Capability::Hyperv;
    const SYNIC: Capability = Capability::HypervSynic2;
    vec![
        needs(
            HYPERV,
            "hyperv: the reset register is a system event, of which the page holds a type and no data",
            reset,
        ),
        needs(
            HYPERV,
            "hyperv: the crash registers are a system event, of which the page holds a type and no data",
            crash,
        ),
        needs(HYPERV, "hyperv: without its leaves in CPUID the guest has none of its registers", without_cpuid),
        needs(SYNIC, "hyperv: the set-up of the synthetic interrupt controller is an exit each time", synic),
        needs(SYNIC, "hyperv: a message is a hypercall that exits; its answer is what the guest gets", hypercall),
        needs(SYNIC, "hyperv: a synthetic interrupt controller without irqchip is refused, and costs no id", refused),
        needs(HYPERV, "hyperv: a command to the synthetic debugger is an exit; its answer is the status", debugger),
    ]
}

const GUEST_OS_ID: u32 = 0x4000_0000;
const HYPERCALL: u32 = 0x4000_0001;
const RESET: u32 = 0x4000_0003;
const SCONTROL: u32 = 0x4000_0080;
const SIEFP: u32 = 0x4000_0082;
const SIMP: u32 = 0x4000_0083;
const SYNDBG_CONTROL: u32 = 0x4000_00f1;
const SYNDBG_STATUS: u32 = 0x4000_00f2;
const CRASH_P0: u32 = 0x4000_0100;
const CRASH_CTL: u32 = 0x4000_0105;
const CRASH_NOTIFY: u64 = 1 << 63;

const fn leaf(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> CpuidEntry {
    CpuidEntry { function, index: None, eax, ebx, ecx, edx }
}

/// The leaves of Hyper-V as such a guest looks for them, in the place of KVM's. Linux 5.10 does not say which it has.
fn cpuid() -> Vec<CpuidEntry> {
    let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
    let mut cpuid = kvm().supported_cpuid().unwrap().to_vec();
    cpuid.retain(|entry| !(0x4000_0000..0x4000_0100).contains(&entry.function));
    cpuid.extend([
        leaf(0x4000_0000, [0x4000_0082, word(b"Micr"), word(b"osof"), word(b"t Hv")]),
        leaf(0x4000_0001, [word(b"Hv#1"), 0, 0, 0]),
        // Registers of the synthetic controller, of hypercalls, of the index and of reset; messages, events and the debugger;
        // registers of the debugger and of crashes.
        leaf(0x4000_0003, [1 << 2 | 1 << 5 | 1 << 6 | 1 << 7, 1 << 4 | 1 << 5 | 1 << 11, 0, 1 << 10 | 1 << 11]),
        leaf(0x4000_0080, [0x4000_0082, word(b"Micr"), word(b"osof"), word(b"t VS")]),
        leaf(0x4000_0081, [word(b"VS#1"), 0, 0, 0]),
        leaf(0x4000_0082, [1 << 1, 0, 0, 0]), // debugging is allowed
    ]);
    cpuid
}

fn vcpu_options(synic: bool) -> VcpuOptions {
    VcpuOptions { cpuid: Some(cpuid()), hyperv_synic: synic, ..Default::default() }
}

fn vm(irqchip: bool) -> Vm {
    Vm::create(&kvm(), &VmOptions { irqchip, ..Default::default() }).unwrap()
}

/// Real mode.
fn real(irqchip: bool, code: &[Vec<u8>]) -> Machine {
    Machine::on(vm(irqchip), &code.concat(), vcpu_options(false))
}

/// 64-bit code in kernel mode, with a synthetic interrupt controller.
fn long(code: &[&[u8]]) -> Machine {
    let machine = Machine::on(vm(true), &code.concat(), vcpu_options(true));
    let options = BootOptions { stack: Some(0x8000), ..BootOptions::new(BootMode::Long, CODE) };
    machine.vcpu.boot(&options).unwrap();
    machine
}

/// mov al, 5; out 0x10, al; hlt (which, with an irqchip, is no exit)
const END: [u8; 5] = [0xb0, 5, 0xe6, 0x10, 0xf4];

/// What earlier exits may have left.
const STALE: u8 = 0xa5;
const EXIT_REASON: usize = 8;
const TYPE: usize = 32;
const NDATA: usize = 36;
const DATA: usize = 40;
const END_OF_PAYLOAD: usize = 288;

/// The next exit is that event, and the page is what such a kernel writes of one: with `system-event-data` no words, without
/// it nothing behind the type.
fn assert_event(machine: &Machine, event: SystemEvent, number: u32) {
    leave_payload(&machine.vcpu, STALE).unwrap();
    let told = machine.vm.capabilities().has(Capability::SystemEventData);
    let payload = if told { SystemEventPayload::Data(Box::new([])) } else { SystemEventPayload::None };
    assert_eq!(machine.run(), Exit::SystemEvent { event, r#type: number, payload });
    let page = run_page(&machine.vcpu).unwrap();
    let word = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
    assert_eq!((word(EXIT_REASON), word(TYPE)), (24, number));
    let written = if told { DATA } else { NDATA };
    if told {
        assert_eq!(word(NDATA), 0);
    }
    assert_eq!(page[written..END_OF_PAYLOAD], [STALE; END_OF_PAYLOAD][written..], "the kernel writes more than it did");
}

fn reset() {
    for irqchip in [false, true] {
        let code = [write(GUEST_OS_ID, 1), write(RESET, 1), write(RESET, 0), END.to_vec()];
        let machine = real(irqchip, &code);
        assert_event(&machine, SystemEvent::Reset, 2);
        // The vCPU goes on, as nobody has reset it.
        assert_eq!(machine.run(), out(0, 5));
    }
}

fn crash() {
    let code = [
        write(GUEST_OS_ID, 1),
        write(CRASH_P0, 0x1122_3344_5566_7788),
        write(CRASH_CTL, 1), // without the bit that notifies
        write(CRASH_CTL, CRASH_NOTIFY),
        read(CRASH_P0),
        END.to_vec(),
    ];
    for irqchip in [false, true] {
        let machine = real(irqchip, &code);
        assert_event(&machine, SystemEvent::Crash, 3);
        assert_eq!(machine.run(), out(0, 5));
        assert_eq!(stored(&machine), 0x1122_3344_5566_7788, "what the guest says of its crash is in the registers");
    }
}

/// `#GP`, for which this guest has no handler: it ends at a page of zeros' address, in vectors that lead to `hlt`.
fn without_cpuid() {
    let code = [write(RESET, 1), END.to_vec()].concat();
    let machine = Machine::on(vm(false), &code, VcpuOptions::default());
    machine.vm.memory().write(0x1800, &[0xb0, 0x77, 0xe6, 0x11]).unwrap(); // mov al, 0x77; out 0x11, al
    machine.vm.memory().write(13 * 4, &[0, 0x18, 0, 0]).unwrap();
    let exit = machine.run();
    // Before Linux 5.12 every guest had them.
    assert!(exit == out(1, 0x77) || matches!(exit, Exit::SystemEvent { event: SystemEvent::Reset, .. }), "{exit:?}");
}

fn synic() {
    let code = [
        wrmsr(GUEST_OS_ID, 1),
        wrmsr(SCONTROL, 1),
        wrmsr(SIMP, 0x4001), // a page, and the bit that enables it
        wrmsr(SIEFP, 0x5001),
    ]
    .concat();
    let machine = long(&[&code, &END]);
    let exit = |msr, evt_page, msg_page| Exit::Hyperv(HypervExit::Synic { msr, control: 1, evt_page, msg_page });
    assert_eq!(machine.run(), exit(SCONTROL, 0, 0));
    assert!(matches!(machine.vcpu.answer_word(0), Err(Error::NoAnswerExpected)));
    assert_eq!(machine.run(), exit(SIMP, 0, 0x4001));
    assert_eq!(machine.run(), exit(SIEFP, 0x5001, 0x4001));
    assert_eq!(machine.run(), out(0, 5));
}

fn hypercall() {
    let code = [wrmsr(GUEST_OS_ID, 1), wrmsr(HYPERCALL, 0x3001)].concat();
    let call = [
        &[0xb9, 0x5c, 0, 0, 0][..],            // mov ecx, 0x5c (HvCallPostMessage)
        &[0xba, 0, 0x60, 0, 0],                // mov edx, 0x6000
        &[0x41, 0xb8, 0, 0x70, 0, 0],          // mov r8d, 0x7000
        &[0xb8, 0, 0x30, 0, 0, 0xff, 0xd0],    // mov eax, 0x3000; call rax
        &[0x48, 0x89, 4, 0x25, 0, 0x20, 0, 0], // mov [0x2000], rax
    ]
    .concat();
    let machine = long(&[&code, &call, &END]);
    assert_eq!(machine.run(), Exit::Hyperv(HypervExit::Hcall { input: 0x5c, params: [0x6000, 0x7000] }));
    unanswered(&machine.vcpu);
    machine.vcpu.answer_word(0x12).unwrap(); // HV_STATUS_INVALID_CONNECTION_ID
    assert_eq!(machine.run(), out(0, 5));
    assert_eq!(stored(&machine), 0x12);
}

fn unanswered(vcpu: &Vcpu) {
    assert!(matches!(vcpu.run_sync(LIMIT), Err(Error::ExitUnanswered { size: 8 })));
    assert!(matches!(vcpu.answer(&[0; 2]), Err(Error::AnswerSize { expected: 8, given: 2 })));
}

fn refused() {
    let vm = vm(false);
    let error = vm.create_vcpu(vcpu_options(true)).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { what: "hyperv.synic", .. }), "{error}");
    assert_eq!(vm.create_vcpu(vcpu_options(false)).unwrap().id(), 0);
}

fn debugger() {
    let code = [write(GUEST_OS_ID, 1), write(SYNDBG_CONTROL, 0x22), read(SYNDBG_STATUS), END.to_vec()];
    let machine = real(false, &code);
    let (send_page, recv_page, pending_page) = (0, 0, 0);
    let command = HypervExit::Syndbg { msr: SYNDBG_CONTROL, control: 0x22, send_page, recv_page, pending_page };
    assert_eq!(machine.run(), Exit::Hyperv(command));
    unanswered(&machine.vcpu);
    machine.vcpu.answer_word(0x0102_0304_0506_0708).unwrap();
    assert_eq!(machine.run(), out(0, 5));
    assert_eq!(stored(&machine), 0x0102_0304_0506_0708);
}
