//! What a vCPU's thread is called, and where it runs.

use std::fs;

use libtest_mimic::Trial;
use typevisor::{Error, ErrorCode, vcpu::VcpuOptions};

use crate::{
    machine::{LIMIT, Machine, Op, assemble, out, start},
    support::{code, trial, vm},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("vcpu: its thread has the name and processors asked for before the guest's first exit", placed),
        trial("vcpu: without them it is called after its id and runs where its maker does", by_default),
        trial("vcpu: a name or processor that cannot be had is refused, and costs no id", refused),
        trial("run_sync: stays on the caller's thread and where that runs", run_sync),
    ]
}

/// The processors that this thread may run on.
pub(crate) fn allowed() -> Vec<u32> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let stretches = field(&status, "Cpus_allowed_list:");
    let number = |text: &str| text.parse::<u32>().unwrap();
    let stretch = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        number(first)..=number(last)
    };
    stretches.split(',').flat_map(stretch).collect()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel has it").trim()
}

/// Where the thread of that name may run; of one that is there.
fn processors_of(thread: &str) -> Option<String> {
    fs::read_dir("/proc/self/task").unwrap().find_map(|task| {
        let task = task.unwrap().path();
        // Others end meanwhile.
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        let status = (name.trim_end() == thread).then(|| fs::read_to_string(task.join("status")).unwrap())?;
        Some(field(&status, "Cpus_allowed_list:").to_owned())
    })
}

const GUEST: [Op; 3] = [Op::Load(7), Op::Out(0), Op::End];

fn placed() {
    let cpu = *allowed().last().unwrap();
    let (affinity, name) = (Some(vec![cpu, cpu]), Some("placed-guest".into()));
    let machine = Machine::on(vm(), &assemble(&GUEST), VcpuOptions { affinity, name, ..Default::default() });
    assert_eq!(processors_of("placed-guest"), None, "it is there before it is needed");
    assert_eq!(
        start(&machine.vcpu, 1).recv_timeout(LIMIT).unwrap().unwrap(),
        typevisor::vcpu::Outcome::Exit(out(0, 7))
    );
    assert_eq!(processors_of("placed-guest").unwrap(), cpu.to_string());
    machine.vcpu.close();
    // What was joined may be listed for a moment longer, but it is not looked for: ids of threads are used again.
}

fn by_default() {
    // An id that no other test here has.
    let machine = Machine::on(vm(), &assemble(&GUEST), VcpuOptions { id: Some(77), ..Default::default() });
    assert_eq!(
        start(&machine.vcpu, 1).recv_timeout(LIMIT).unwrap().unwrap(),
        typevisor::vcpu::Outcome::Exit(out(0, 7))
    );
    let own = fs::read_to_string("/proc/thread-self/status").unwrap();
    assert_eq!(processors_of("kvm-vcpu77").unwrap(), field(&own, "Cpus_allowed_list:"));
}

fn refused() {
    let vm = vm();
    let affinity = |cpus: &[u32]| VcpuOptions { affinity: Some(cpus.to_vec()), ..Default::default() };
    let name = |name: &str| VcpuOptions { name: Some(name.into()), ..Default::default() };
    assert_eq!(code(vm.create_vcpu(affinity(&[]))), ErrorCode::InvalidArgument);
    let absent = vm.create_vcpu(affinity(&[allowed()[0], 8191]));
    assert!(matches!(absent, Err(Error::CpuNotAllowed { cpu: 8191, .. })), "{absent:?}");
    assert_eq!(code(vm.create_vcpu(affinity(&[u32::MAX]))), ErrorCode::InvalidArgument);
    for wrong in ["", "sixteen bytes...", "\0"] {
        assert_eq!(code(vm.create_vcpu(name(wrong))), ErrorCode::InvalidArgument);
    }
    assert_eq!(vm.create_vcpu(VcpuOptions::default()).unwrap().id(), 0);
}

fn run_sync() {
    let before = allowed();
    let (affinity, name) = (Some(vec![before[0]]), Some("never-started".into()));
    let machine = Machine::on(vm(), &assemble(&GUEST), VcpuOptions { affinity, name, ..Default::default() });
    assert_eq!(machine.run(), out(0, 7));
    assert_eq!((allowed(), processors_of("never-started")), (before, None));
    machine.assert_ends();
}
