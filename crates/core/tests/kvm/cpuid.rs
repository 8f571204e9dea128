//! What a vCPU answers to CPUID: what KVM supports, or what was chosen. Guests are x86 code, and skipped by capability where
//! there is none of it.

use libtest_mimic::Trial;
use typevisor::{
    Error, Kvm, Vm, VmOptions,
    host::{Capability, CpuidEntry, KvmOptions},
    vcpu::{Registers, VcpuOptions},
};

use crate::{
    machine::Machine,
    support::{kvm, needs, trial, vm},
};

pub(crate) fn tests() -> Vec<Trial> {
    const CPUID: Capability = Capability::ExtCpuid;
    vec![
        needs(CPUID, "cpuid: what KVM supports is what a vCPU has for which nothing was chosen", as_supported),
        needs(CPUID, "cpuid: a guest gets what was chosen, leaf by leaf and index by index", chosen),
        needs(CPUID, "cpuid: each vCPU has its own APIC id, whatever was chosen", own_apic_id),
        needs(CPUID, "cpuid: entries that KVM would not obey are refused, and cost no id", refused),
        needs(Capability::SysHypervCpuid, "cpuid: KVM says what it has of Hyper-V, and a vCPU takes it", hyperv),
        trial("cpuid: what there is not is refused with the kernel that has it", lacking),
    ]
}

fn with(cpuid: Vec<CpuidEntry>) -> VcpuOptions {
    VcpuOptions { cpuid: Some(cpuid), ..Default::default() }
}

/// Real mode: `mov eax, function; mov ecx, index; cpuid`.
fn ask(function: u32, index: u32) -> Vec<u8> {
    [&[0x66, 0xb8][..], &function.to_le_bytes(), &[0x66, 0xb9], &index.to_le_bytes(), &[0x0f, 0xa2]].concat()
}

/// What a vCPU made so answers, for each question.
fn answers(options: VcpuOptions, questions: &[[u32; 2]]) -> Vec<[u32; 4]> {
    let code: Vec<u8> =
        questions.iter().flat_map(|&[function, index]| [ask(function, index), vec![0xf4]].concat()).collect();
    let machine = Machine::on(vm(), &code, options);
    questions
        .iter()
        .map(|_| {
            machine.assert_ends();
            words(&machine.vcpu.registers().unwrap().0)
        })
        .collect()
}

/// `eax`, `ebx`, `ecx`, `edx`.
fn words(registers: &Registers) -> [u32; 4] {
    let value = |name: &str| registers.scalars().find(|(scalar, _)| *scalar == name).map_or(0, |(_, value)| value);
    ["rax", "rbx", "rcx", "rdx"].map(|name| u32::try_from(value(name)).unwrap())
}

const fn entry(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> CpuidEntry {
    CpuidEntry { function, index: None, eax, ebx, ecx, edx }
}

fn as_supported() {
    let supported = kvm().supported_cpuid().unwrap().to_vec();
    let vendor = supported.iter().find(|entry| entry.function == 0).expect("every processor has leaf 0");
    assert!(supported.len() > 5 && supported.len() <= 256, "{}", supported.len());
    let questions = [[0, 0], [0x8000_0000, 0], [0x4000_0000, 0]];
    let default = answers(VcpuOptions::default(), &questions);
    assert_eq!(default[0], [vendor.eax, vendor.ebx, vendor.ecx, vendor.edx]);
    // What a program reads and gives back is the same, and passes every check.
    assert_eq!(answers(with(supported), &questions), default);
}

fn chosen() {
    let mut cpuid = kvm().supported_cpuid().unwrap().to_vec();
    cpuid.retain(|entry| !matches!(entry.function, 0x4 | 0x4000_0000..=0x4fff_ffff));
    let name = entry(0x4000_0000, [0x4000_0000, 0x6570_7954, 0x7369_7665, 0x2020_726f]);
    cpuid.push(name);
    cpuid.push(CpuidEntry { index: Some(0), ..entry(4, [1, 2, 3, 4]) });
    cpuid.push(CpuidEntry { index: Some(5), ..entry(4, [5, 6, 7, 8]) });
    let questions = [[0x4000_0000, 99], [4, 0], [4, 5]];
    assert_eq!(
        answers(with(cpuid), &questions),
        [[name.eax, name.ebx, name.ecx, name.edx], [1, 2, 3, 4], [5, 6, 7, 8]]
    );
}

fn own_apic_id() {
    let supported = kvm().supported_cpuid().unwrap().to_vec();
    for id in [0, 3] {
        for options in [VcpuOptions::default(), with(supported.clone())] {
            let [[_, ebx, ..]] = answers(VcpuOptions { id: Some(id), ..options }, &[[1, 0]])[..] else { panic!() };
            assert_eq!(ebx >> 24, id);
        }
    }
}

fn refused() {
    let vm = vm();
    let error = |cpuid| vm.create_vcpu(with(cpuid)).unwrap_err();
    let many = (0..257).map(|function| entry(function, [0; 4])).collect();
    let too_many = error(many);
    assert!(matches!(too_many, Error::InvalidArgument { what: "cpuid", .. }), "{too_many}");
    let twice = error(vec![entry(0, [0; 4]), entry(1, [1; 4]), entry(0, [2; 4])]);
    assert!(twice.to_string().starts_with("cpuid[2] answers what an earlier entry answers"), "{twice}");
    // One that has none is a processor, too.
    assert_eq!(vm.create_vcpu(with(Vec::new())).unwrap().id(), 0);
}

fn hyperv() {
    let kvm = kvm();
    let leaves = kvm.supported_hyperv_cpuid().unwrap();
    let interface = leaves.iter().find(|leaf| leaf.function == 0x4000_0001).expect("the interface leaf");
    assert_eq!((interface.eax, interface.index), (u32::from_le_bytes(*b"Hv#1"), None));
    let mut cpuid = kvm.supported_cpuid().unwrap().to_vec();
    cpuid.retain(|entry| !(0x4000_0000..0x4000_0100).contains(&entry.function));
    cpuid.extend(&leaves);
    assert_eq!(answers(with(cpuid), &[[0x4000_0001, 0]])[0][0], interface.eax);
}

fn lacking() {
    let hidden =
        |capability: Capability| Kvm::open(KvmOptions { hide: vec![capability], ..Default::default() }).unwrap();
    let assert_missing = |error: &Error, capability: Capability| {
        let Error::CapabilityMissing { capability: name, since, .. } = *error else { panic!("{error}") };
        assert_eq!((name, since), (capability.name(), capability.since()));
    };
    let kvm = hidden(Capability::ExtCpuid);
    assert_missing(&kvm.supported_cpuid().unwrap_err(), Capability::ExtCpuid);
    // A vCPU for which nothing is chosen asks nobody for it.
    let vm = Vm::create(&kvm, &VmOptions::default()).unwrap();
    assert_eq!(vm.create_vcpu(VcpuOptions::default()).unwrap().id(), 0);
    let kvm = hidden(Capability::SysHypervCpuid);
    assert_missing(&kvm.supported_hyperv_cpuid().unwrap_err(), Capability::SysHypervCpuid);
    if cfg!(target_arch = "aarch64") {
        let error = vm.create_vcpu(with(Vec::new())).unwrap_err();
        assert_eq!(error.to_string(), "cpuid must be absent on aarch64: x86_64 has it");
    }
}
