//! A debug console on one port, as firmware writes its log to, and the bounded buffer between it and a reader.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    thread::Thread,
};

use super::{Device, Gate, Written};

/// What a read of a Bochs-style debug port gives, by which firmware knows that somebody listens.
const PRESENT: u8 = 0xe9;

/// Bytes a guest can be ahead of the reader before its vCPU waits.
const CAPACITY: usize = 64 << 10;

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    waiting: Vec<Thread>,
    abandoned: bool,
}

/// Bytes on their way from guest to reader: at most 64 KiB, then the writing vCPU waits.
pub struct ConsoleBuffer {
    state: Mutex<State>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl ConsoleBuffer {
    /// `wake` is called, on a vCPU's thread, whenever the buffer was empty and is not any more. It must not block.
    #[must_use]
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), wake: Box::new(wake) })
    }

    /// Everything written since the last call, and lets waiting vCPUs go on.
    pub fn take(&self) -> Vec<u8> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.drain(..).for_each(|waiter| waiter.unpark());
        mem::take(&mut state.bytes)
    }

    /// Nobody will read any more: what is written from now on goes nowhere, and no vCPU waits.
    pub fn abandon(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.abandoned = true;
        state.waiting.drain(..).for_each(|waiter| waiter.unpark());
    }

    /// Whether the buffer still takes bytes afterwards.
    fn push(&self, bytes: &[u8]) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.abandoned {
            return true;
        }
        let was_empty = state.bytes.is_empty();
        state.bytes.extend_from_slice(bytes);
        let has_room = state.bytes.len() < CAPACITY;
        drop(state);
        if was_empty {
            (self.wake)();
        }
        has_room
    }
}

impl Gate for ConsoleBuffer {
    fn pass_or_register(&self, waiter: &Thread) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let pass = state.abandoned || state.bytes.len() < CAPACITY;
        if !pass {
            state.waiting.push(waiter.clone());
        }
        pass
    }
}

/// The device: what is written is text, what is read is `0xe9`.
pub struct DebugConsole {
    buffer: Arc<ConsoleBuffer>,
}

impl DebugConsole {
    /// A console that writes into `buffer`.
    #[must_use]
    pub const fn new(buffer: Arc<ConsoleBuffer>) -> Self {
        Self { buffer }
    }
}

impl Device for DebugConsole {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(PRESENT);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Written {
        if self.buffer.push(data) { Written::Done } else { Written::Full(Arc::<ConsoleBuffer>::clone(&self.buffer)) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn counted() -> (Arc<ConsoleBuffer>, Arc<AtomicUsize>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&wakes);
        let wake = move || {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        (ConsoleBuffer::new(wake), wakes)
    }

    #[test]
    fn the_reader_is_woken_once_for_all_that_waits() {
        let (buffer, wakes) = counted();
        let mut console = DebugConsole::new(Arc::clone(&buffer));
        for byte in b"hello" {
            assert!(matches!(console.write(0, &[*byte]), Written::Done));
        }
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        assert_eq!(buffer.take(), b"hello");
        console.write(0, b"!");
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_full_buffer_holds_the_writer_until_it_is_read_or_abandoned() {
        let (buffer, _) = counted();
        let mut console = DebugConsole::new(Arc::clone(&buffer));
        for _ in 0..CAPACITY - 1 {
            assert!(matches!(console.write(0, &[1]), Written::Done));
        }
        let Written::Full(gate) = console.write(0, &[2]) else { panic!("a full buffer took more") };
        assert!(!gate.pass_or_register(&std::thread::current()));
        assert_eq!(buffer.take().len(), CAPACITY);
        assert!(gate.pass_or_register(&std::thread::current()));
        for _ in 0..CAPACITY {
            console.write(0, &[1]);
        }
        assert!(!gate.pass_or_register(&std::thread::current()));
        buffer.abandon();
        assert!(gate.pass_or_register(&std::thread::current()));
    }

    #[test]
    fn a_read_says_that_somebody_listens() {
        let mut data = [0];
        DebugConsole::new(counted().0).read(0, &mut data);
        assert_eq!(data, [0xe9]);
    }
}
