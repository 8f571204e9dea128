//! The control thread: order, panics, closing from anywhere.

use std::{
    sync::{
        atomic::{AtomicU32, Ordering::SeqCst},
        mpsc::sync_channel,
    },
    time::Duration,
};

use super::*;

/// No test passes by it.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn jobs_run_in_order_on_one_named_thread_that_outlives_a_panic() {
    let control = ControlThread::new();
    assert!(control.state().unwrap().thread.is_none(), "no thread before the first job");
    let (sender, receiver) = channel();
    control.submit(Box::new(|| panic!("a job's own"))).unwrap();
    for number in 0..100 {
        let sender = sender.clone();
        control
            .submit(Box::new(move || sender.send((number, thread::current().name().map(str::to_owned))).unwrap()))
            .unwrap();
    }
    drop(sender);
    let seen: Vec<_> = receiver.iter().collect();
    assert_eq!(seen, (0..100).map(|number| (number, Some("kvm-control".to_owned()))).collect::<Vec<_>>());
    control.close();
}

/// Says how many were dropped, and on which thread.
struct Dropped(Sender<bool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.send(thread::current().name() == Some("kvm-control")).unwrap();
    }
}

#[test]
fn closing_waits_for_the_job_under_way_and_drops_the_others() {
    let control = ControlThread::new();
    let done = Arc::new(AtomicU32::new(0));
    let (go, receiver) = sync_channel::<()>(0);
    let first = Arc::clone(&done);
    let job = move || {
        receiver.recv().unwrap(); // it has begun
        receiver.recv().unwrap();
        first.fetch_add(1, SeqCst);
    };
    control.submit(Box::new(job)).unwrap();
    go.send(()).unwrap();
    let (sender, dropped) = channel();
    for _ in 0..10 {
        let (done, dropped) = (Arc::clone(&done), Dropped(sender.clone()));
        let job = move || {
            done.fetch_add(1, SeqCst);
            drop(dropped);
        };
        control.submit(Box::new(job)).unwrap();
    }
    drop(sender);
    let closers = [(); 2].map(|()| {
        let (control, done) = (control.clone(), Arc::clone(&done));
        thread::spawn(move || {
            control.close();
            assert_eq!(done.load(SeqCst), 1, "it came back during the first job, or ran another");
        })
    });
    while !control.shared.closing.load(SeqCst) {
        thread::yield_now();
    }
    assert!(matches!(control.submit(Box::new(|| ())), Err(Error::Closed { what: "VM" })));
    go.send(()).unwrap();
    for closer in closers {
        closer.join().unwrap();
    }
    assert_eq!(dropped.iter().collect::<Vec<_>>(), [true; 10]);
    control.close();
}

#[test]
fn a_panic_in_the_drop_of_a_job_leaves_the_others_alone() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("the job's own");
        }
    }
    let control = ControlThread::new();
    let (go, receiver) = sync_channel::<()>(0);
    let job = move || {
        receiver.recv().unwrap(); // it has begun
        receiver.recv().unwrap();
    };
    control.submit(Box::new(job)).unwrap();
    go.send(()).unwrap();
    let (bad, (sender, dropped)) = (Bad, channel());
    control.submit(Box::new(move || drop(bad))).unwrap();
    let good = Dropped(sender);
    control.submit(Box::new(move || drop(good))).unwrap();
    control.begin_close();
    go.send(()).unwrap();
    assert_eq!(dropped.iter().collect::<Vec<_>>(), [true]);
    control.close();
}

#[test]
fn a_job_may_close_and_submit() {
    let control = ControlThread::new();
    let (sender, receiver) = channel();
    let inner = control.clone();
    let job = move || {
        let again = sender.clone();
        inner.submit(Box::new(move || again.send("second").unwrap())).unwrap();
        inner.close();
        sender.send("first").unwrap();
    };
    control.submit(Box::new(job)).unwrap();
    assert_eq!(receiver.iter().collect::<Vec<_>>(), ["first"], "what has not begun is dropped");
    control.close();
    assert!(control.state().unwrap().thread.is_none(), "whoever closes from elsewhere has joined it");
}

/// No scope: it would wait for threads that wait for each other, and the test would hang instead of failing.
#[test]
fn a_job_may_close_while_others_do() {
    let control = ControlThread::new();
    let (go, receiver) = sync_channel::<()>(0);
    let (sender, ended) = channel();
    let (inner, told) = (control.clone(), sender.clone());
    let job = move || {
        receiver.recv().unwrap(); // it has begun
        receiver.recv().unwrap();
        inner.close();
        told.send("job").unwrap();
    };
    control.submit(Box::new(job)).unwrap();
    go.send(()).unwrap();
    for _ in 0..2 {
        let (control, told) = (control.clone(), sender.clone());
        thread::spawn(move || {
            control.close();
            told.send("closer").unwrap();
        });
    }
    while !control.state().unwrap().joining {
        thread::yield_now();
    }
    go.send(()).unwrap();
    let order = [(); 3].map(|()| ended.recv_timeout(LIMIT).expect("they wait for each other"));
    assert_eq!(order, ["job", "closer", "closer"]);
}

#[test]
fn a_vm_that_had_no_job_closes_without_a_thread() {
    let control = ControlThread::new();
    control.close();
    assert!(matches!(control.submit(Box::new(|| ())), Err(Error::Closed { .. })));
}
