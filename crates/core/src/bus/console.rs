//! Consoles: a debug port, as firmware writes its log to, and a serial port. Both write into a bounded queue of bytes.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use vm_superio::{Serial, Trigger, serial::NoEvents};

use super::{
    Device, Written,
    queue::{Queue, Wakeup},
};

/// What a read of a Bochs-style debug port gives, by which firmware knows that somebody listens.
const PRESENT: u8 = 0xe9;

/// Bytes a guest can be ahead of the reader before its vCPU waits.
const CAPACITY: usize = 64 << 10;

/// Bytes on their way from guest to reader: at most 64 KiB and one access more, then the writing vCPU waits.
pub type ConsoleBuffer = Queue<u8>;

impl ConsoleBuffer {
    /// A queue for a console. `wake` is called, on a vCPU's thread, as [`Queue::new`] says.
    #[must_use]
    pub fn console(wake: impl Fn(Wakeup) + Send + Sync + 'static) -> Arc<Self> {
        Self::new(CAPACITY, wake)
    }
}

/// One port: what is written is text, what is read is `0xe9`.
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
        written(&self.buffer, |buffer| buffer.push(data.iter().copied()))
    }
}

fn written(buffer: &Arc<ConsoleBuffer>, has_room: impl FnOnce(&ConsoleBuffer) -> bool) -> Written {
    if has_room(buffer) { Written::Done } else { Written::Full(Arc::<ConsoleBuffer>::clone(buffer)) }
}

/// No interrupt line: guests poll.
struct Polled;

impl Trigger for Polled {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

struct Output(Arc<ConsoleBuffer>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes.iter().copied());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Uart = Serial<Polled, NoEvents, Output>;

/// A 16550A serial port of eight ports, polled (it raises no interrupt).
pub struct SerialConsole {
    buffer: Arc<ConsoleBuffer>,
    uart: Arc<Mutex<Uart>>,
}

/// The other end of a [`SerialConsole`]'s line.
#[derive(Clone)]
pub struct SerialInput {
    uart: Arc<Mutex<Uart>>,
}

impl SerialConsole {
    /// A port that sends into `buffer`, and the way to send to it.
    #[must_use]
    pub fn new(buffer: Arc<ConsoleBuffer>) -> (Self, SerialInput) {
        let uart = Arc::new(Mutex::new(Serial::new(Polled, Output(Arc::clone(&buffer)))));
        (Self { buffer, uart: Arc::clone(&uart) }, SerialInput { uart })
    }
}

impl SerialInput {
    /// Sends bytes to the guest; gives how many fitted in the port's FIFO of 64 bytes.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let mut uart = self.uart.lock().unwrap_or_else(PoisonError::into_inner);
        let room = uart.fifo_capacity().min(bytes.len());
        let fitting = bytes.get(..room).unwrap_or_default();
        // In loopback mode the port takes nothing from its line.
        uart.enqueue_raw_bytes(fitting).unwrap_or(0)
    }
}

impl Device for SerialConsole {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let mut uart = self.uart.lock().unwrap_or_else(PoisonError::into_inner);
        // A 16550A has registers of one byte; wider reads find nothing in the rest.
        let (first, rest) = data.split_at_mut(1.min(data.len()));
        first.fill(u8::try_from(offset).map_or(0xff, |register| uart.read(register)));
        rest.fill(0xff);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Written {
        let mut uart = self.uart.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Ok(register), Some(byte)) = (u8::try_from(offset), data.first()) {
            // Neither the line nor the interrupt can fail here; a full loopback FIFO drops the byte, as the chip does.
            let _dropped_in_loopback = uart.write(register, *byte);
        }
        written(&self.buffer, Queue::has_room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_says_that_somebody_listens() {
        let mut data = [0];
        DebugConsole::new(ConsoleBuffer::console(drop)).read(0, &mut data);
        assert_eq!(data, [0xe9]);
    }

    #[test]
    fn a_serial_port_sends_and_receives() {
        let buffer = ConsoleBuffer::console(drop);
        let (mut port, input) = SerialConsole::new(Arc::clone(&buffer));
        assert!(matches!(port.write(0, b"A"), Written::Done));
        assert_eq!(buffer.take(), b"A");
        assert_eq!(input.send(b"xy"), 2);
        let mut data = [0];
        port.read(5, &mut data);
        assert_eq!(data[0] & 1, 1, "line status: data ready");
        for expected in *b"xy" {
            port.read(0, &mut data);
            assert_eq!(data, [expected]);
        }
        assert_eq!(input.send(&[0; 100]), 64, "no more than the FIFO holds");
    }

    #[test]
    fn a_full_buffer_holds_the_serial_port() {
        let buffer = ConsoleBuffer::console(drop);
        let (mut port, _) = SerialConsole::new(Arc::clone(&buffer));
        let full = (0..=CAPACITY).find(|_| matches!(port.write(0, b"x"), Written::Full(_)));
        assert_eq!(full, Some(CAPACITY - 1));
    }
}
