//! Where guests start: modes, privileges, host-made tables, firmware. The guests are x86 code.

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
    Vec::new()
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::tests;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use libtest_mimic::Trial;
    use typevisor::{
        Error, Exit, GpaRange, Vm, VmOptions,
        host::Capability,
        memory::MapOptions,
        vcpu::{BootMode, BootOptions, Privilege, VcpuOptions},
    };

    use crate::{
        machine::{CODE, LIMIT, Machine},
        support::{kvm, needs, trial, vm},
    };

    pub(crate) fn tests() -> Vec<Trial> {
        vec![
            trial("boot: real mode code above 64 KiB starts in a segment of its own", real_above_64_kib),
            trial("boot: protected mode runs flat 32-bit code", protected),
            trial("boot: protected mode with user privilege has ports and no kernel instructions", protected_user),
            trial("boot: long mode with kernel privilege has a GDT and a TSS that work", long_kernel),
            trial("boot: ring 3 in long mode does port I/O", long_user_ports),
            trial("boot: ring 3 in long mode has SSE", long_user_sse),
            trial("boot: ring 3 may load its segments again", long_user_segments),
            trial("boot: a kernel instruction in ring 3 ends in shutdown", long_user_halt),
            trial("boot: ring 3 cannot write one page of its tables", long_user_tables),
            trial("boot: ring 3 reaches the pages beside its tables", long_user_neighbours),
            trial("boot: tables may lie above 4 GiB", tables_above_4_gib),
            trial("boot: tables overlap no slot, and the search finds room", tables_place),
            trial("boot: a hundred boots of one vCPU use one slot, and real mode none", boot_again),
            trial("boot: each vCPU has tables of its own", two_vcpus),
            trial("boot: a second vCPU of a VM with an irqchip runs without being started", second_with_irqchip),
            trial("boot: refused options change nothing", refused),
            trial("registers: what is set is what is read", registers),
            trial("cpuid: each vCPU sees its own APIC id", apic_id),
            trial("firmware: without RAM below 1 MiB it is refused and no slot stays", firmware_hole),
            trial("firmware: a bad image is refused and no slot stays", firmware_bad),
            needs(Capability::ReadonlyMem, "firmware: starts at the reset vector and jumps to its copy", firmware_runs),
        ]
    }

    fn machine(options: &BootOptions, code: &[u8]) -> Machine {
        let vm = vm();
        map(&vm, 0, 0x1_0000);
        vm.memory().write(CODE, code).unwrap();
        let vcpu = vm.create_vcpu(VcpuOptions::default()).unwrap();
        vcpu.boot(options).unwrap();
        Machine { vcpu, vm }
    }

    fn map(vm: &Vm, gpa: u64, end: u64) {
        vm.memory().map(&MapOptions::new(GpaRange::pages(gpa, end - gpa).unwrap())).unwrap();
    }

    fn long(privilege: Privilege) -> BootOptions {
        BootOptions { privilege, stack: Some(0x8000), ..BootOptions::new(BootMode::Long, CODE) }
    }

    fn out(port: u16, byte: u8) -> Exit {
        Exit::IoOut { port, size: 1, count: 1, data: Box::new([byte]) }
    }

    fn slots(vm: &Vm) -> Vec<GpaRange> {
        vm.memory().slots().unwrap().into_iter().map(|slot| slot.range).collect()
    }

    fn real_above_64_kib() {
        let vm = vm();
        map(&vm, 0, 0x11_0000);
        let vcpu = vm.create_vcpu(VcpuOptions::default()).unwrap();
        for (entry, selector) in [(0x2_3456, 0x2345_u16), (0x10_0010, 0xffff)] {
            // mov ax, cs; out 0x42, ax; hlt
            vm.memory().write(entry, &[0x8c, 0xc8, 0xe7, 0x42, 0xf4]).unwrap();
            vcpu.boot(&BootOptions::new(BootMode::Real, entry)).unwrap();
            let data = Box::new(selector.to_le_bytes());
            assert_eq!(vcpu.run_sync(LIMIT).unwrap(), Exit::IoOut { port: 0x42, size: 2, count: 1, data });
            assert_eq!(vcpu.run_sync(LIMIT).unwrap(), Exit::Hlt);
        }
    }

    fn protected() {
        // mov eax, 0x12345678; mov [0x3000], eax; push eax; out 0x42, al; hlt
        let code = [0xb8, 0x78, 0x56, 0x34, 0x12, 0xa3, 0, 0x30, 0, 0, 0x50, 0xe6, 0x42, 0xf4];
        let options = BootOptions { stack: Some(0x8000), ..BootOptions::new(BootMode::Protected, CODE) };
        let machine = machine(&options, &code);
        assert_eq!(machine.run(), out(0x42, 0x78));
        assert_eq!(machine.run(), Exit::Hlt);
        for gpa in [0x3000, 0x7ffc] {
            let mut bytes = [0; 4];
            machine.vm.memory().read(gpa, &mut bytes).unwrap();
            assert_eq!(bytes, 0x1234_5678_u32.to_le_bytes());
        }
    }

    fn protected_user() {
        // mov al, 7; out 0x42, al; hlt
        let code = [0xb0, 7, 0xe6, 0x42, 0xf4];
        let options = BootOptions { privilege: Privilege::User, ..BootOptions::new(BootMode::Protected, CODE) };
        let machine = machine(&options, &code);
        assert_eq!(machine.run(), out(0x42, 7));
        assert_eq!(machine.run(), Exit::Shutdown);
    }

    fn long_kernel() {
        let code = [
            0x66, 0xb8, 0x10, 0, // mov ax, 0x10
            0x8e, 0xd8, 0x8e, 0xd0, // mov ds, ax; mov ss, ax
            0x0f, 0, 0xc9, // str ecx
            0x89, 0xc8, 0xe6, 0x42, // mov eax, ecx; out 0x42, al
            0x50, 0xf4, // push rax; hlt
        ];
        let machine = machine(&long(Privilege::Kernel), &code);
        assert_eq!(machine.run(), out(0x42, 0x28));
        assert_eq!(machine.run(), Exit::Hlt);
        assert_eq!(machine.vcpu.registers().unwrap().0.rsp, 0x7ff8);
    }

    fn long_user_ports() {
        let code = [
            0xb9, 3, 0, 0, 0, // mov ecx, 3
            0x89, 0xc8, 0xe6, 0x42, // again: mov eax, ecx; out 0x42, al
            0xff, 0xc9, 0x75, 0xf8, // dec ecx; jnz again
            0xe6, 0x43, // out 0x43, al
        ];
        let machine = machine(&long(Privilege::User), &code);
        for byte in [3, 2, 1] {
            assert_eq!(machine.run(), out(0x42, byte));
        }
        assert_eq!(machine.run(), out(0x43, 1));
        assert_eq!(machine.vcpu.registers().unwrap().0.ss.dpl, 3);
    }

    fn long_user_sse() {
        let code = [
            0xf2, 0x0f, 0x10, 0x04, 0x25, 0, 0x20, 0, 0, // movsd xmm0, [0x2000]
            0xf2, 0x0f, 0x58, 0x04, 0x25, 8, 0x20, 0, 0, // addsd xmm0, [0x2008]
            0xf2, 0x0f, 0x11, 0x04, 0x25, 0x10, 0x20, 0, 0, // movsd [0x2010], xmm0
            0xe6, 0x42, // out 0x42, al
        ];
        let machine = machine(&long(Privilege::User), &code);
        machine.vm.memory().write(0x2000, &[1.5_f64, 2.25].map(f64::to_le_bytes).concat()).unwrap();
        assert_eq!(machine.run(), out(0x42, 0));
        let mut sum = [0; 8];
        machine.vm.memory().read(0x2010, &mut sum).unwrap();
        assert_eq!(sum, 3.75_f64.to_le_bytes());
    }

    fn long_user_segments() {
        // mov ax, 0x1b; mov ds, ax; mov ss, ax; out 0x42, al
        let code = [0x66, 0xb8, 0x1b, 0, 0x8e, 0xd8, 0x8e, 0xd0, 0xe6, 0x42];
        let machine = machine(&long(Privilege::User), &code);
        assert_eq!(machine.run(), out(0x42, 0x1b));
    }

    fn long_user_halt() {
        let machine = machine(&long(Privilege::User), &[0xf4]);
        assert_eq!(machine.run(), Exit::Shutdown);
    }

    /// mov eax, `gpa`; mov [rax], eax; out 0x42, al
    fn write_to(gpa: u64) -> [u8; 9] {
        let [a, b, c, d] = u32::try_from(gpa).unwrap().to_le_bytes();
        [0xb8, a, b, c, d, 0x89, 0x00, 0xe6, 0x42]
    }

    fn long_user_tables() {
        let machine = machine(&long(Privilege::User), &[]);
        let tables = machine.vcpu.boot(&long(Privilege::User)).unwrap().tables.unwrap();
        let content = || {
            let mut bytes = vec![0; usize::try_from(tables.size()).unwrap()];
            machine.vm.memory().read(tables.gpa(), &mut bytes).unwrap();
            bytes
        };
        let before = content();
        for page in (tables.gpa()..tables.end()).step_by(4096) {
            machine.vm.memory().write(CODE, &write_to(page)).unwrap();
            // The same vCPU again, after its shutdown.
            machine.vcpu.boot(&long(Privilege::User)).unwrap();
            assert_eq!(machine.run(), Exit::Shutdown, "a write to {page:#x}");
        }
        assert_eq!(content(), before);
    }

    fn long_user_neighbours() {
        let tables = GpaRange::pages(0x1f_8000, 0x2_0000).unwrap(); // across a border of 2 MiB
        let vm = vm();
        map(&vm, 0, tables.gpa());
        map(&vm, tables.end(), 0x40_0000);
        let places = [tables.gpa() - 8, tables.end()];
        let code: Vec<u8> = places.into_iter().flat_map(write_to).collect();
        vm.memory().write(CODE, &code).unwrap();
        let vcpu = vm.create_vcpu(VcpuOptions::default()).unwrap();
        let boot = vcpu.boot(&BootOptions { tables: Some(tables.gpa()), ..long(Privilege::User) }).unwrap();
        assert_eq!(boot.tables, Some(tables));
        for place in places {
            assert!(matches!(vcpu.run_sync(LIMIT).unwrap(), Exit::IoOut { port: 0x42, .. }));
            let mut bytes = [0; 8];
            vm.memory().read(place, &mut bytes).unwrap();
            assert_eq!(u64::from_le_bytes(bytes), place);
        }
    }

    fn tables_above_4_gib() {
        let gpa = (5 << 30) - 0x8000;
        // mov ax, 0x1b; mov ds, ax; out 0x42, al: the GDT is read there
        let code = [0x66, 0xb8, 0x1b, 0, 0x8e, 0xd8, 0xe6, 0x42];
        let options = BootOptions { tables: Some(gpa), ..long(Privilege::User) };
        let machine = machine(&options, &code);
        assert_eq!(machine.run(), out(0x42, 0x1b));
        assert_eq!(slots(&machine.vm)[1].gpa(), gpa);
    }

    fn tables_place() {
        let vm = vm();
        map(&vm, 0, 0x1_0000);
        let vcpu = vm.create_vcpu(VcpuOptions::default()).unwrap();
        let overlapping = BootOptions { tables: Some(0x8000), ..long(Privilege::User) };
        assert!(matches!(vcpu.boot(&overlapping), Err(Error::SlotOverlap { .. })));
        assert_eq!(slots(&vm).len(), 1);
        map(&vm, 0xd000_0000, 0xd000_1000);
        map(&vm, 0xdfff_f000, 0xe000_1000);
        let tables = vcpu.boot(&long(Privilege::User)).unwrap().tables;
        assert_eq!(tables, Some(GpaRange::pages(0xdffd_f000, 0x2_0000).unwrap()));
    }

    fn boot_again() {
        let machine = machine(&long(Privilege::User), &[0xf4]);
        let before = slots(&machine.vm);
        for _ in 0..100 {
            machine.vcpu.boot(&long(Privilege::User)).unwrap();
        }
        assert_eq!(slots(&machine.vm), before);
        // Moving over where it lies, too.
        let tables = before[1].gpa() - 0x1000;
        machine.vcpu.boot(&BootOptions { tables: Some(tables), ..long(Privilege::Kernel) }).unwrap();
        assert_eq!(slots(&machine.vm)[1].gpa(), tables);
        assert_eq!(machine.run(), Exit::Hlt);
        // And the program may have unmapped it.
        machine.vm.memory().slot_at(tables).unwrap().unwrap().unmap().unwrap();
        machine.vcpu.boot(&long(Privilege::Kernel)).unwrap();
        assert_eq!(slots(&machine.vm), before);
        let real = machine.vcpu.boot(&BootOptions::new(BootMode::Real, CODE)).unwrap();
        assert_eq!((real.tables, slots(&machine.vm).len()), (None, 1));
        assert_eq!(machine.run(), Exit::Hlt);
    }

    fn two_vcpus() {
        let machine = machine(&long(Privilege::User), &[0xe6, 0x42]); // out 0x42, al
        let second = machine.vm.create_vcpu(VcpuOptions::default()).unwrap();
        let tables = second.boot(&long(Privilege::User)).unwrap().tables.unwrap();
        assert_eq!(slots(&machine.vm).len(), 3);
        assert_eq!(second.registers().unwrap().0.gdt.base, tables.gpa());
        assert_ne!(machine.vcpu.registers().unwrap().0.gdt.base, tables.gpa());
        assert_eq!(machine.run(), out(0x42, 0));
        assert_eq!(second.run_sync(LIMIT).unwrap(), out(0x42, 0));
    }

    fn second_with_irqchip() {
        let vm = Vm::create(&kvm(), &VmOptions { irqchip: true, ..Default::default() }).unwrap();
        map(&vm, 0, 0x1_0000);
        vm.memory().write(CODE, &[0xe6, 0x90]).unwrap(); // out 0x90, al: 0x40 to 0x43 are the timer's
        let _first = vm.create_vcpu(VcpuOptions::default()).unwrap();
        let second = vm.create_vcpu(VcpuOptions::default()).unwrap();
        second.boot(&BootOptions::new(BootMode::Real, CODE)).unwrap();
        assert_eq!(second.run_sync(LIMIT).unwrap(), out(0x90, 0));
    }

    fn refused() {
        let machine = machine(&long(Privilege::User), &[]);
        let before = (machine.vcpu.registers().unwrap(), slots(&machine.vm));
        let real = BootOptions::new(BootMode::Real, CODE);
        for options in [
            BootOptions { privilege: Privilege::User, ..real },
            BootOptions { entry: 1 << 32, ..long(Privilege::User) },
            BootOptions { stack: Some(0x8001), ..long(Privilege::User) },
            BootOptions { tables: Some(0x10_0001), ..long(Privilege::User) },
        ] {
            let error = machine.vcpu.boot(&options).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument { .. } | Error::Unaligned { .. }), "{error}");
            assert_eq!((machine.vcpu.registers().unwrap(), slots(&machine.vm)), before);
        }
    }

    fn registers() {
        let machine = machine(&BootOptions::new(BootMode::Real, CODE), &[0xf4]);
        let (before, pending) = machine.vcpu.registers().unwrap();
        assert!(!pending);
        machine
            .vcpu
            .update_registers(|registers| {
                registers.set_scalar("r15", u64::MAX).ok_or(Error::NoAnswerExpected)?;
                registers.rax = 0x1234;
                registers.ds.base = 0x2_0000;
                registers.ds.selector = 0x2000;
                registers.idt.limit = 0x1ff;
                Ok(())
            })
            .unwrap();
        let mut expected = before;
        (expected.r15, expected.rax) = (u64::MAX, 0x1234);
        (expected.ds.base, expected.ds.selector, expected.idt.limit) = (0x2_0000, 0x2000, 0x1ff);
        assert_eq!(machine.vcpu.registers().unwrap(), (expected, false));
        // Long mode without physical address extension: KVM refuses, and the general register is as it was.
        let contradiction = machine.vcpu.update_registers(|registers| {
            registers.rax = 1;
            (registers.cr0, registers.efer) = (0x8000_0011, 0x500);
            Ok(())
        });
        assert!(matches!(contradiction, Err(Error::Ioctl { request: "KVM_SET_SREGS", .. })));
        assert_eq!(machine.vcpu.registers().unwrap().0, expected);
    }

    fn apic_id() {
        let code = [
            0x66, 0xb8, 1, 0, 0, 0, 0x0f, 0xa2, // mov eax, 1; cpuid
            0x66, 0xc1, 0xeb, 24, 0x88, 0xd8, // shr ebx, 24; mov al, bl
            0xe6, 0x42, // out 0x42, al
        ];
        let vm = vm();
        map(&vm, 0, 0x1_0000);
        vm.memory().write(CODE, &code).unwrap();
        for id in [0, 1, 5_u8] {
            let vcpu = vm.create_vcpu(VcpuOptions { id: Some(id.into()), ..Default::default() }).unwrap();
            vcpu.boot(&BootOptions::new(BootMode::Real, CODE)).unwrap();
            assert_eq!(vcpu.run_sync(LIMIT).unwrap(), out(0x42, id));
        }
    }

    /// 128 KiB of `hlt`; the reset vector jumps to f000:1000, which says `S` and halts.
    fn firmware() -> Vec<u8> {
        let mut image = vec![0xf4; 128 << 10];
        image[0x1_fff0..0x1_fff5].copy_from_slice(&[0xea, 0x00, 0x10, 0x00, 0xf0]); // jmp 0xf000:0x1000
        image[0x1_1000..0x1_1005].copy_from_slice(&[0xb0, b'S', 0xe6, 0x42, 0xf4]); // mov al, 'S'; out 0x42, al; hlt
        image
    }

    fn firmware_runs() {
        let vm = vm();
        map(&vm, 0, 0x10_0000);
        let layout = vm.load_firmware(&firmware()).unwrap();
        assert_eq!(layout.rom, GpaRange::pages(0xfffe_0000, 0x2_0000).unwrap());
        assert_eq!(layout.shadow, GpaRange::pages(0xe_0000, 0x2_0000).unwrap());
        let rom = vm.memory().slot_at(layout.rom.gpa()).unwrap().unwrap();
        assert_eq!((rom.range(), rom.readonly()), (layout.rom, true));
        let vcpu = vm.create_vcpu(VcpuOptions::default()).unwrap();
        assert_eq!(vcpu.run_sync(LIMIT).unwrap(), out(0x42, b'S'));
        assert_eq!(vcpu.run_sync(LIMIT).unwrap(), Exit::Hlt);
        let (registers, _) = vcpu.registers().unwrap();
        assert_eq!((registers.cs.base, registers.rip), (0xf_0000, 0x1005));
    }

    fn firmware_hole() {
        let vm = vm();
        map(&vm, 0, 0xe_8000);
        match vm.load_firmware(&firmware()) {
            Err(error @ Error::FirmwareRam { gpa: 0xe_8000, .. }) => {
                assert_eq!(error.code().as_str(), "ERR_MEMORY_HOLE");
                assert!(error.to_string().contains("0xe0000..0x100000"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(slots(&vm).len(), 1);
        let mut untouched = vec![1; 0x8000];
        vm.memory().read(0xe_0000, &mut untouched).unwrap();
        assert_eq!(untouched, vec![0; 0x8000]);
    }

    fn firmware_bad() {
        let vm = vm();
        map(&vm, 0, 0x10_0000);
        let long = firmware().len();
        for image in [&[][..], &firmware()[..0xf000], &firmware()[1..], &vec![0; long], &vec![0xf4; (16 << 20) + 4096]]
        {
            assert!(matches!(vm.load_firmware(image), Err(Error::GuestImage { .. })), "{} bytes", image.len());
        }
        assert_eq!(slots(&vm).len(), 1);
    }
}
