//! What ends a run whose vCPU is held out of the guest, as while another one sleeps in a missing page, and where that
//! leaves it.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

use libtest_mimic::Trial;
use typevisor::{
    Error, Exit, Result,
    hooks::{hold, ioctls},
    vcpu::{Outcome, Vcpu, VcpuOptions},
};

use crate::{
    machine::{CODE, LIMIT, Machine, Op, boot, input, out, start},
    support::trial,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("hold: a time limit ends a run, and nothing is entered", time_limit),
        trial("hold: the first run of a vCPU ends as well", first_run),
        trial("hold: a kick and an abort end a run with its completion left pending", completion_stays),
        trial("hold: a kick is used up by the run that it ended", sticky),
        trial("hold: an abort ends settling, a kick does not", settling),
        trial("hold: closing the VM ends runs and settling", closing),
    ]
}

/// Of a run that cannot get anywhere.
const SHORT: Duration = Duration::from_millis(20);

fn settle(vcpu: &Vcpu, ticket: u64) -> Receiver<Result<Outcome>> {
    let (sender, outcome) = channel();
    vcpu.start_settle(ticket, move |outcome| sender.send(outcome).unwrap()).unwrap();
    outcome
}

fn end(outcome: &Receiver<Result<Outcome>>) -> Result<Outcome> {
    outcome.recv_timeout(LIMIT).expect("it waits for the end of the hold")
}

const STOPPED: Outcome = Outcome::Exit(Exit::Intr);

/// Does it on another thread, as a call that never comes back would hang the test.
fn elsewhere<T: Send + 'static>(machine: &Arc<Machine>, act: impl FnOnce(&Machine) -> T + Send + 'static) -> T {
    let (sender, done) = channel();
    let machine = Arc::clone(machine);
    thread::spawn(move || sender.send(act(&machine)).unwrap());
    done.recv_timeout(LIMIT).expect("it waits for the end of the hold")
}

/// A limited run gives up, without having asked the kernel for anything.
fn assert_gives_up(machine: &Arc<Machine>) {
    let (end, issued) = elsewhere(machine, |machine| {
        let before = ioctls();
        (machine.vcpu.run_sync(SHORT), ioctls() - before)
    });
    assert!(matches!(end, Err(Error::Timeout { .. })), "{end:?}");
    assert_eq!(issued, 0);
}

fn is_pending(vcpu: &Vcpu) -> bool {
    vcpu.registers().unwrap().1
}

fn time_limit() {
    let machine = Arc::new(Machine::of(&[Op::Load(7), Op::Out(0), Op::Load(8), Op::Out(1), Op::End]));
    assert_eq!(machine.run(), out(0, 7));
    machine.vcpu.kick().unwrap();
    assert_eq!(machine.run(), Exit::Intr);
    assert!(!is_pending(&machine.vcpu), "it is completed where nobody holds");
    let held = hold(&machine.vm);
    assert_gives_up(&machine);
    drop(held);
    assert_eq!(machine.run(), out(1, 8));
    machine.assert_ends();
}

fn first_run() {
    let machine = Arc::new(Machine::of(&[Op::Load(7), Op::Out(0), Op::End]));
    let held = hold(&machine.vm);
    assert_gives_up(&machine);
    drop(held);
    assert_eq!(machine.run(), out(0, 7));
    machine.assert_ends();
}

fn completion_stays() {
    let machine = Arc::new(Machine::of(&[Op::In(0), Op::Out(1), Op::Again]));
    let vcpu = &machine.vcpu;
    for value in 0..10 {
        assert_eq!(machine.run(), input(0));
        vcpu.answer(&[value]).unwrap();
        let held = hold(&machine.vm);
        let kicked = start(vcpu, 2 * u64::from(value));
        vcpu.kick().unwrap();
        assert_eq!(end(&kicked).unwrap(), STOPPED);
        assert!(is_pending(vcpu));
        let aborted = start(vcpu, 2 * u64::from(value) + 1);
        vcpu.cancel(2 * u64::from(value) + 1);
        assert_eq!(end(&aborted).unwrap(), STOPPED);
        assert!(is_pending(vcpu));
        assert_gives_up(&machine);
        assert!(is_pending(vcpu));
        assert!(matches!(vcpu.update_registers(|_| Ok(())), Err(Error::Busy { .. })));
        drop(held);
        assert_eq!(machine.run(), out(1, value), "what was pending is done once, with its answer");
    }
}

fn sticky() {
    let machine = Machine::of(&[Op::Load(7), Op::Out(0), Op::End]);
    let held = hold(&machine.vm);
    machine.vcpu.kick().unwrap(); // before the run, for which it stays
    assert_eq!(end(&start(&machine.vcpu, 1)).unwrap(), STOPPED);
    drop(held);
    assert_eq!(machine.run(), out(0, 7), "it was used up");
    machine.assert_ends();
}

fn settling() {
    let machine = Machine::of(&[Op::In(0), Op::Out(1), Op::End]);
    let vcpu = &machine.vcpu;
    assert_eq!(machine.run(), input(0));
    vcpu.answer(&[7]).unwrap();
    let held = hold(&machine.vm);
    vcpu.kick().unwrap();
    let aborted = settle(vcpu, 1);
    vcpu.cancel(1);
    assert_eq!(end(&aborted).unwrap(), STOPPED);
    assert!(is_pending(vcpu));
    let settled = settle(vcpu, 2);
    drop(held);
    assert_eq!(end(&settled).unwrap(), Outcome::Settled);
    assert!(!is_pending(vcpu));
    assert_eq!(machine.run(), Exit::Intr, "the kick was for a run");
    assert_eq!(machine.run(), out(1, 7));
    machine.assert_ends();
}

fn closing() {
    let machine = Arc::new(Machine::of(&[Op::In(0), Op::Out(1), Op::End]));
    let other = machine.vm.create_vcpu(VcpuOptions::default()).unwrap();
    boot(&other, CODE);
    for vcpu in [&machine.vcpu, &other] {
        assert_eq!(vcpu.run_sync(LIMIT).unwrap(), input(0));
        vcpu.answer(&[7]).unwrap();
    }
    let _held = hold(&machine.vm);
    let outcomes = [start(&machine.vcpu, 1), settle(&other, 1)];
    elsewhere(&machine, |machine| machine.vm.close());
    for outcome in outcomes {
        assert!(matches!(end(&outcome), Err(Error::Closed { .. })));
    }
}
