//! How a vCPU's thread waits for its next job: awake for as long as jobs have lately come quickly one after the other,
//! asleep otherwise. A thread that sleeps takes tens of microseconds to wake on another processor; a program that
//! answers exits one by one comes back sooner than that.

use std::{
    sync::mpsc::{Receiver, TryRecvError},
    thread,
    time::{Duration, Instant},
};

/// About what it costs to be woken: to wait longer than this awake never pays.
const AWAKE: Duration = Duration::from_micros(50);

/// After as many waits in vain it sleeps at once, until one would have been short enough again.
const VAIN: u32 = 4;

/// Waits for jobs, and remembers how that went.
#[derive(Debug)]
pub(crate) struct Waiting {
    in_vain: u32,
    /// With one processor for all, only sleeping lets the sender run.
    alone: bool,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { in_vain: 0, alone: thread::available_parallelism().is_ok_and(|processors| processors.get() == 1) }
    }
}

impl Waiting {
    /// The next item; none once nobody can send any more.
    pub(crate) fn next<T>(&mut self, items: &Receiver<T>) -> Option<T> {
        let began = Instant::now();
        if self.in_vain < VAIN && !self.alone {
            loop {
                match items.try_recv() {
                    Ok(item) => {
                        self.in_vain = 0;
                        return Some(item);
                    }
                    Err(TryRecvError::Disconnected) => return None,
                    Err(TryRecvError::Empty) if began.elapsed() >= AWAKE => break,
                    // Where the sender shares this processor, it gets it.
                    Err(TryRecvError::Empty) => thread::yield_now(),
                }
            }
        }
        let item = items.recv().ok()?;
        // A short sleep, being woken included, would have been a shorter wait awake.
        self.in_vain = if began.elapsed() < 3 * AWAKE { 0 } else { self.in_vain.saturating_add(1) };
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn items_come_in_order_whether_it_waits_awake_or_asleep() {
        let (sender, receiver) = channel();
        let producer = thread::spawn(move || {
            for item in 0..200 {
                if item % 20 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
                sender.send(item).unwrap();
            }
        });
        let mut waiting = Waiting::default();
        let seen: Vec<i32> = std::iter::from_fn(|| waiting.next(&receiver)).collect();
        producer.join().unwrap();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn waits_in_vain_end_in_sleeping_at_once_and_a_quick_item_ends_that() {
        let mut waiting = Waiting { in_vain: VAIN - 1, alone: false };
        let (sender, receiver) = channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(20));
                sender.send(1).unwrap();
            });
            assert_eq!(waiting.next(&receiver), Some(1));
        });
        assert_eq!(waiting.in_vain, VAIN);
        sender.send(2).unwrap();
        assert_eq!(waiting.next(&receiver), Some(2));
        assert_eq!(waiting.in_vain, 0);
        drop(sender);
        assert_eq!(waiting.next(&receiver), None);
    }
}
