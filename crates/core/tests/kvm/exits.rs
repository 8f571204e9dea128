//! Exits that a guest can bring about on any VM, with their payload.

use libtest_mimic::Trial;

use crate::support::x86_only;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        x86_only!("exit: an instruction that KVM cannot emulate comes with its bytes", emulation_failure),
        x86_only!("exit: a failing run is no fault of long ago", stale_reason),
        x86_only!("exit: a lowered task priority comes with its value", task_priority),
    ]
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
