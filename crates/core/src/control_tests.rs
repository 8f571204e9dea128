//! The control thread: order, panics, closing from anywhere.

use std::sync::{
    atomic::{AtomicU32, Ordering::SeqCst},
    mpsc::sync_channel,
};

use super::*;

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

#[test]
fn closing_lets_the_jobs_it_has_run_and_takes_no_more() {
    let control = ControlThread::new();
    let done = Arc::new(AtomicU32::new(0));
    let (go, receiver) = sync_channel::<()>(0);
    control.submit(Box::new(move || receiver.recv().unwrap())).unwrap();
    for _ in 0..10 {
        let done = Arc::clone(&done);
        control.submit(Box::new(move || assert!(done.fetch_add(1, SeqCst) < 10))).unwrap();
    }
    thread::scope(|scope| {
        let closers = [(); 2].map(|()| {
            scope.spawn(|| {
                control.close();
                assert_eq!(done.load(SeqCst), 10, "it came back while jobs were left");
            })
        });
        while !control.state().unwrap().closed {
            thread::yield_now();
        }
        assert!(matches!(control.submit(Box::new(|| ())), Err(Error::Closed { what: "VM" })));
        go.send(()).unwrap();
        for closer in closers {
            closer.join().unwrap();
        }
    });
    control.close();
}

#[test]
fn a_job_may_close_and_submit() {
    let control = ControlThread::new();
    let (sender, receiver) = channel();
    let inner = control.clone();
    control
        .submit(Box::new(move || {
            let again = sender.clone();
            inner.submit(Box::new(move || again.send("second").unwrap())).unwrap();
            inner.close();
            sender.send("first").unwrap();
        }))
        .unwrap();
    assert_eq!(receiver.iter().collect::<Vec<_>>(), ["first", "second"]);
    control.close();
    assert!(control.state().unwrap().thread.is_none(), "whoever closes from elsewhere has joined it");
}

#[test]
fn a_vm_that_had_no_job_closes_without_a_thread() {
    let control = ControlThread::new();
    control.close();
    assert!(matches!(control.submit(Box::new(|| ())), Err(Error::Closed { .. })));
}
