//! What lies between a vCPU that produces and a reader on another thread: bounded, so that no guest makes it grow.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::Thread,
};

use super::Gate;

struct State<T> {
    items: Vec<T>,
    waiting: Vec<Thread>,
    abandoned: bool,
}

/// Items on their way from guest to reader, in order: at most as many as its capacity and one access more, then the
/// vCPU that wrote them waits.
pub struct Queue<T> {
    state: Mutex<State<T>>,
    capacity: usize,
    wake: Box<dyn Fn(Wakeup) + Send + Sync>,
    /// A wake-up is on its way to the reader, who will find whatever was put in before it arrives.
    wakes: Arc<AtomicBool>,
}

/// A wake-up on its way. Drop it when it arrives, before the queue is read: until then there is no second one, so that
/// a reader who empties the queue without waiting for wake-ups is not buried in them.
pub struct Wakeup(Arc<AtomicBool>);

impl Drop for Wakeup {
    fn drop(&mut self) {
        // Partner: the swap in `wake`. Whoever put something in and saw `true` did so before the reader reads.
        self.0.store(false, Ordering::SeqCst);
    }
}

/// What came of putting something in.
pub(super) struct Put {
    /// There is room left.
    pub(super) has_room: bool,
    /// The reader has to be woken.
    pub(super) wakes: bool,
}

impl<T> Queue<T> {
    /// A queue for `capacity` items. `wake` is called, on a vCPU's thread or on that which looks into the kernel's ring, when
    /// the queue was empty and is not any more, unless an earlier [`Wakeup`] still lives. It must not block. It may claim and
    /// release, and close the VM.
    #[must_use]
    pub fn new(capacity: usize, wake: impl Fn(Wakeup) + Send + Sync + 'static) -> Arc<Self> {
        let state = Mutex::new(State { items: Vec::new(), waiting: Vec::new(), abandoned: false });
        Arc::new(Self { state, capacity, wake: Box::new(wake), wakes: Arc::default() })
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All there is since the last call, and lets waiting vCPUs go on.
    pub fn take(&self) -> Vec<T> {
        let mut state = self.state();
        state.waiting.drain(..).for_each(|waiter| waiter.unpark());
        mem::take(&mut state.items)
    }

    /// For a reader who looks by itself for a while: as long as this lives there is no wake-up. None where one is on its
    /// way already. After dropping it, look once more: what came before was not announced.
    #[must_use]
    pub fn quiet(&self) -> Option<Wakeup> {
        (!self.wakes.swap(true, Ordering::SeqCst)).then(|| Wakeup(Arc::clone(&self.wakes)))
    }

    /// Nobody will read any more: what comes from now on goes nowhere, and no vCPU waits.
    pub fn abandon(&self) {
        let mut state = self.state();
        state.abandoned = true;
        state.waiting.drain(..).for_each(|waiter| waiter.unpark());
    }

    /// Puts something in and wakes the reader; gives whether there is room left afterwards.
    pub(super) fn push(&self, items: impl IntoIterator<Item = T>) -> bool {
        let put = self.put(items);
        if put.wakes {
            self.wake();
        }
        put.has_room
    }

    /// Puts something in, for a caller who holds a lock and calls [`Queue::wake`] afterwards.
    pub(super) fn put(&self, items: impl IntoIterator<Item = T>) -> Put {
        let mut state = self.state();
        if state.abandoned {
            return Put { has_room: true, wakes: false };
        }
        let was_empty = state.items.is_empty();
        state.items.extend(items);
        Put { has_room: state.items.len() < self.capacity, wakes: was_empty && !state.items.is_empty() }
    }

    /// Wakes the reader, unless a wake-up is on its way.
    pub(super) fn wake(&self) {
        if !self.wakes.swap(true, Ordering::SeqCst) {
            (self.wake)(Wakeup(Arc::clone(&self.wakes)));
        }
    }

    /// How many items it takes before it is full.
    pub(super) fn room(&self) -> usize {
        let state = self.state();
        if state.abandoned { usize::MAX } else { self.capacity.saturating_sub(state.items.len()) }
    }

    /// Whether a writer may go on.
    pub(super) fn has_room(&self) -> bool {
        let state = self.state();
        state.abandoned || state.items.len() < self.capacity
    }
}

impl<T: Send> Gate for Queue<T> {
    fn pass_or_register(&self, waiter: &Thread) -> bool {
        let mut state = self.state();
        let pass = state.abandoned || state.items.len() < self.capacity;
        if !pass {
            state.waiting.push(waiter.clone());
        }
        pass
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const CAPACITY: usize = 16;

    fn counted() -> (Arc<Queue<u8>>, Arc<AtomicUsize>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&wakes);
        let wake = move |_arrived| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        (Queue::new(CAPACITY, wake), wakes)
    }

    #[test]
    fn the_reader_is_woken_once_for_all_that_waits() {
        let (queue, wakes) = counted();
        for byte in *b"hello" {
            assert!(queue.push([byte]));
        }
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        assert_eq!(queue.take(), b"hello");
        queue.push(*b"!");
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_reader_who_looks_by_itself_is_not_woken() {
        let (queue, wakes) = counted();
        let quiet = queue.quiet();
        assert!(quiet.is_some() && queue.quiet().is_none());
        queue.push(*b"a");
        assert_eq!(wakes.load(Ordering::Relaxed), 0);
        drop(quiet);
        assert_eq!(queue.take(), b"a", "seen by looking once more");
        queue.push(*b"b");
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn one_wake_up_at_most_is_on_its_way() {
        let posted: Arc<Mutex<Vec<Wakeup>>> = Arc::default();
        let box_of = Arc::clone(&posted);
        let queue = Queue::new(CAPACITY, move |wakeup| box_of.lock().unwrap().push(wakeup));
        for round in 0..1000_u32 {
            queue.push([round]);
            assert_eq!(queue.take(), [round], "read without waiting for the wake-up");
            assert_eq!(posted.lock().unwrap().len(), 1);
        }
        queue.push([1]);
        posted.lock().unwrap().clear(); // it arrives
        queue.push([2]);
        assert_eq!(posted.lock().unwrap().len(), 0, "the reader who was woken is about to read");
        assert_eq!(queue.take(), [1, 2]);
        queue.push([3]);
        assert_eq!(posted.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_full_queue_holds_the_writer_until_it_is_read_or_abandoned() {
        let (queue, _) = counted();
        assert!(queue.push([1; CAPACITY - 1]));
        assert!(!queue.push([2]));
        let this = std::thread::current();
        assert!(!queue.pass_or_register(&this));
        assert_eq!(queue.take().len(), CAPACITY);
        assert!(queue.pass_or_register(&this));
        queue.push([1; CAPACITY]);
        assert!(!queue.pass_or_register(&this));
        queue.abandon();
        assert!(queue.pass_or_register(&this));
        assert!(queue.push([1; CAPACITY]), "an abandoned queue takes nothing, and never fills");
    }
}
