//! Exits that a guest can bring about on any VM, with their payload.

use libtest_mimic::Trial;
use typevisor::{
    bus::Latch,
    exit::RunFlags,
    host::{Capability, CpuidEntry},
    switches::ExitSwitches,
    vcpu::Privilege,
};

use crate::{
    machine::{Machine, Op, out},
    support::{kvm, kvm_is_here, trial, with, x86_only},
    switches::{long, wrmsr},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        x86_only!("exit: an instruction that KVM cannot emulate comes with its bytes", emulation_failure),
        x86_only!("exit: a failing run is no fault of long ago", stale_reason),
        x86_only!("exit: a lowered task priority comes with its value", task_priority),
        with(Capability::X86Smm, x86_only!("exit: its flags say whether it is one of system management mode", smm)),
        with(Capability::X86GuestMode, nested("exit: its flags say whether it is of a guest's guest", guest_mode)),
        trial("exit: its flags are of the one that was delivered last", flags),
    ]
}

/// Nothing of what there are flags for happens here, and a device's exits change nothing.
fn flags() {
    let machine = Machine::of(&[Op::Load(5), Op::Out(0), Op::Out(1), Op::End]);
    assert_eq!(machine.vcpu.run_flags(), RunFlags::default());
    machine.claim(0, 1, Box::new(Latch::new().0));
    assert_eq!(machine.run(), out(1, 5));
    assert_eq!(machine.vcpu.run_flags(), RunFlags::default());
    machine.vm.close();
    assert_eq!(machine.vcpu.run_flags(), RunFlags::default());
}

/// For a guest that can have guests of its own, on processors of AMD.
fn nested(name: &'static str, test: fn()) -> Trial {
    let is_svm = |leaf: &CpuidEntry| leaf.function == 0x8000_0001 && leaf.ecx & 1 << 2 != 0;
    let missing = kvm_is_here().is_ok() && !kvm().supported_cpuid().is_ok_and(|leaves| leaves.iter().any(is_svm));
    let trial = trial(name, test);
    if missing { trial.with_kind("needs nested SVM").with_ignored_flag(true) } else { trial }
}

/// Where the guest keeps the control block of its own guest, which is in real mode, at [`INNER`].
const BLOCK: u64 = 0x5000;
const INNER: u16 = 0x7000;

/// AMD APM, volume 2, appendix B. No nested paging: with paging off the inner guest sees what the outer one has.
fn control_block() -> [u8; 0x1000] {
    let mut block = [0; 0x1000];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x00c, &(1_u32 << 24).to_le_bytes()); // HLT leaves it
    put(0x010, &1_u32.to_le_bytes()); // and VMRUN, as it has to
    put(0x058, &1_u32.to_le_bytes()); // its address space
    for (segment, kind) in [(0x400, 0x93), (0x410, 0x9b), (0x420, 0x93), (0x430, 0x93), (0x440, 0x93), (0x450, 0x93)] {
        put(segment + 2, &u16::to_le_bytes(kind));
        put(segment + 4, &0xffff_u32.to_le_bytes());
    }
    for (register, value) in [
        (0x4d0, 1 << 12),     // EFER: SVME
        (0x558, 0x10),        // CR0
        (0x560, 0x400),       // DR7
        (0x568, 0xffff_0ff0), // DR6
        (0x570, 2),           // RFLAGS
        (0x578, INNER.into()),
        (0x5d8, 0x8000), // RSP
        (0x5f8, 7),      // RAX
        (0x668, 0x0007_0406_0007_0406),
    ] {
        put(register, &u64::to_le_bytes(value));
    }
    block
}

fn guest_mode() {
    let code = [
        &[0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32, 0x0d, 0, 0x10, 0, 0, 0x0f, 0x30][..], // EFER |= SVME
        &wrmsr(0xc001_0117, 0x6000),                                                // VM_HSAVE_PA
        &[0xb8, 0, 0x50, 0, 0, 0x0f, 1, 0xd8],                                      // mov eax, BLOCK; vmrun
        &[0xb0, 9, 0xe6, 0x11, 0xf4],                                               // mov al, 9; out 0x11, al; hlt
    ]
    .concat();
    let machine = long(ExitSwitches::default(), Privilege::Kernel, &code);
    machine.vm.memory().write(BLOCK, &control_block()).unwrap();
    machine.vm.memory().write(INNER.into(), &[0xe6, 0x10, 0xf4]).unwrap(); // out 0x10, al; hlt
    assert_eq!(machine.run(), out(0, 7));
    let flags = machine.vcpu.run_flags();
    assert!(flags.guest_mode && !flags.smm && !flags.bus_lock && flags.bits == 4, "{flags:?}");
    assert_eq!(machine.run(), out(1, 9));
    assert_eq!(machine.vcpu.run_flags(), RunFlags::default());
}

/// The guest sends itself a system management interrupt. KVM shows the vCPU another address space then.
#[cfg(target_arch = "x86_64")]
fn smm() {
    use typevisor::{
        Vm, VmOptions,
        memory::MapOptions,
        vcpu::{BootMode, BootOptions, VcpuOptions},
    };

    use crate::{
        machine::CODE,
        support::{kvm, pages},
    };

    let vm = Vm::create(&kvm(), &VmOptions { irqchip: true, ..Default::default() }).unwrap();
    vm.memory().map(&MapOptions { address_space: Some(1), ..MapOptions::new(pages(0x3_0000, 0x1_0000)) }).unwrap();
    // out 0x10, al; rsm
    vm.memory().address_space(1).unwrap().write(0x3_8000, &[0xe6, 0x10, 0x0f, 0xaa]).unwrap();
    let code = [
        &[0xb0, 9][..],                                 // mov al, 9
        &[0xc7, 5, 0xf0, 0, 0xe0, 0xfe, 0xff, 1, 0, 0], // mov dword ptr [0xfee000f0], 0x1ff: the APIC is on
        &[0xc7, 5, 0, 3, 0xe0, 0xfe, 0, 0x42, 4, 0],    // mov dword ptr [0xfee00300], 0x44200: SMI, to itself
        &[0xe6, 0x11, 0xf4],                            // out 0x11, al; hlt
    ]
    .concat();
    let machine = Machine::on(vm, &code, VcpuOptions::default());
    let options = BootOptions { stack: Some(0x8000), ..BootOptions::new(BootMode::Protected, CODE) };
    machine.vcpu.boot(&options).unwrap();
    assert_eq!(machine.run(), out(0, 9));
    let flags = machine.vcpu.run_flags();
    assert!(flags.smm && !flags.bus_lock && !flags.guest_mode && flags.bits == 1, "{flags:?}");
    assert_eq!(machine.run(), out(1, 9));
    assert_eq!(machine.vcpu.run_flags(), RunFlags::default());
}

#[cfg(target_arch = "x86_64")]
fn emulation_failure() {
    use typevisor::{Exit, exit::InternalError};

    use crate::machine::Machine;

    // mov ax, 0xf000; mov ds, ax; pmaddwd mm0, [0]: no memory is there, and the emulator does not know it
    let machine = Machine::real_mode(&[0xb8, 0, 0xf0, 0x8e, 0xd8, 0x0f, 0xf5, 6, 0, 0, 0xf4]);
    let exit = machine.run();
    let Exit::InternalError { suberror, data, flags, instruction } = &exit else { panic!("{exit:?}") };
    assert_eq!(InternalError::from_number(*suberror), InternalError::Emulation);
    // Before Linux 5.14 there is nothing else.
    assert_eq!(*flags, data.first().copied());
    assert_eq!(instruction.is_some(), flags.is_some_and(|flags| flags & 1 != 0), "{exit:?}");
    if let Some(instruction) = instruction {
        assert!(instruction.starts_with(&[0x0f, 0xf5, 6, 0, 0]), "{instruction:02x?}");
    }
}

/// Kernels before 6.8 do not touch the reason where `KVM_RUN` fails; newer ones overwrite it at entry themselves.
#[cfg(target_arch = "x86_64")]
fn stale_reason() {
    use std::sync::Arc;

    use typevisor::{
        Errno, Exit,
        hooks::leave_exit_reason,
        memory::{Backing, FileSharing},
        vcpu::{BootMode, BootOptions, Privilege},
    };

    use crate::{
        backing_support::{map, new_file},
        machine::{CODE, Machine, THERE},
        support::PAGE,
    };

    // mov al, [THERE], in ring 3: no KVM interprets that
    let machine = Machine::real_mode(&[0x8a, 0x04, 0x25, 0, 0, 2, 0]);
    let long =
        BootOptions { privilege: Privilege::User, stack: Some(0x8000), ..BootOptions::new(BootMode::Long, CODE) };
    machine.vcpu.boot(&long).unwrap();
    let file = Arc::new(new_file(PAGE));
    let backing = Backing::File { file: Arc::clone(&file), offset: 0, sharing: FileSharing::Shared };
    map(machine.vm.memory(), THERE, PAGE, backing);
    file.set_len(0).unwrap();
    for _ in 0..2 {
        leave_exit_reason(&machine.vcpu, kvm_bindings::KVM_EXIT_MEMORY_FAULT).unwrap();
        assert_eq!(machine.run(), Exit::RunFailed { errno: Errno(libc::EFAULT) });
    }
}

/// kvm-pvm has no use for the exit, and makes none.
#[cfg(target_arch = "x86_64")]
fn task_priority() {
    use typevisor::{
        Exit,
        vcpu::{BootMode, BootOptions, Privilege},
    };

    use crate::machine::{CODE, Machine};

    // mov eax, 5; mov cr8, rax; mov al, 2; mov cr8, rax; hlt
    let code = [0xb8, 5, 0, 0, 0, 0x44, 0x0f, 0x22, 0xc0, 0xb0, 2, 0x44, 0x0f, 0x22, 0xc0, 0xf4];
    let machine = Machine::real_mode(&code);
    let long =
        BootOptions { privilege: Privilege::Kernel, stack: Some(0x8000), ..BootOptions::new(BootMode::Long, CODE) };
    machine.vcpu.boot(&long).unwrap();
    let mut exits = vec![machine.run()];
    while exits.last() != Some(&Exit::Hlt) {
        assert!(exits.len() < 2, "{exits:?}");
        exits.push(machine.run());
    }
    assert!(exits == [Exit::Hlt] || exits == [Exit::SetTpr { cr8: 2 }, Exit::Hlt], "{exits:?}");
}
