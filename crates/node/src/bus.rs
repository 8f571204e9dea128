//! Claims on the bus: by the program, and by devices in Rust.

use std::{
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use napi::bindgen_prelude::{BigInt, Float64Array, Uint8Array};
use napi_derive::napi;
use typevisor::{
    Error, GpaRange, Result,
    bus::{
        Bus, ClaimId, ConsoleBuffer, DebugConsole, Device, Doorbell, Latch, Owner, PostedCounters, PostedWrite, Queue,
        SerialConsole, SerialInput, Wakeup,
    },
};
use vmm_sys_util::eventfd::EventFd;

use crate::{
    convert::{signed, unsigned, unsigned_u32},
    environment::{Mailbox, Message},
};

/// `claim`'s argument: which addresses, who answers, and the number that is delivered when there is something to take.
#[napi(object, object_to_js = false, use_nullable = true)]
pub struct NativeClaimOptions {
    pub mmio: bool,
    pub base: i64,
    pub size: i64,
    pub owner: String,
    pub id: i64,
    /// By which value an eventfd is rung.
    pub value: Option<BigInt>,
}

/// What posted writes have cost.
#[napi(object, object_from_js = false)]
pub struct NativeClaimStats {
    pub writes: i64,
    pub exits: i64,
}

/// `NativeClaim` in ts/native.ts.
#[napi]
pub struct NativeClaim {
    bus: Bus,
    claim: ClaimId,
    kind: Kind,
    /// Of posted writes.
    counters: Option<Arc<PostedCounters>>,
    /// KVM does what it can of it; not once released.
    kernel: bool,
    /// Held while the reader looks by itself.
    quiet: Option<Wakeup>,
}

enum Kind {
    Program,
    Posted(Arc<Queue<PostedWrite>>),
    Console(Arc<ConsoleBuffer>),
    Serial(Arc<ConsoleBuffer>, SerialInput),
    Latch(Arc<AtomicU64>),
    /// None once released: its fd is closed then.
    Doorbell(Option<Arc<EventFd>>),
}

pub(crate) fn claim(bus: &Bus, options: &NativeClaimOptions, mailbox: &Mailbox) -> Result<NativeClaim> {
    let (mailbox, id) = (mailbox.clone(), options.id);
    let wake = move |wakeup| mailbox.post(Message { id, payload: Ok(None), claim: 0, wakeup: Some(wakeup) });
    let (owner, kind) = owner(options, unsigned("id", id)?, wake)?;
    let base = unsigned("base", options.base)?;
    let claim = if options.mmio {
        bus.claim_mmio(GpaRange::new(base, unsigned("size", options.size)?)?, owner)
    } else {
        let port = u16::try_from(base).map_err(|_| Error::InvalidArgument { what: "port", expected: "at most 65,535" });
        bus.claim_ports(port?, unsigned_u32("count", options.size)?, owner)
    };
    let claim = claim?;
    let (counters, kernel) = (bus.posted_counters(claim), bus.is_in_kernel(claim));
    Ok(NativeClaim { bus: bus.clone(), claim, kind, counters, kernel, quiet: None })
}

fn owner(
    options: &NativeClaimOptions,
    id: u64,
    wake: impl Fn(Wakeup) + Send + Sync + 'static,
) -> Result<(Owner, Kind)> {
    Ok(match options.owner.as_str() {
        "program" => (Owner::Program(id), Kind::Program),
        "posted" => {
            let queue = Queue::posted(wake);
            (Owner::Posted { queue: Arc::clone(&queue), program: id }, Kind::Posted(queue))
        }
        "debug-console" => {
            let buffer = ConsoleBuffer::console(wake);
            (device(DebugConsole::new(Arc::clone(&buffer))), Kind::Console(buffer))
        }
        "serial-console" => {
            let buffer = ConsoleBuffer::console(wake);
            let (port, input) = SerialConsole::new(Arc::clone(&buffer));
            (device(port), Kind::Serial(buffer, input))
        }
        "latch" => {
            let (latch, value) = Latch::new();
            (device(latch), Kind::Latch(value))
        }
        "eventfd" => {
            let (doorbell, fd) = match &options.value {
                Some(value) => Doorbell::rung_by(word(value)?)?,
                None => Doorbell::new()?,
            };
            (Owner::Doorbell(doorbell), Kind::Doorbell(Some(fd)))
        }
        _ => return Err(Error::InvalidArgument { what: "owner", expected: "the name of a device" }),
    })
}

fn word(value: &BigInt) -> Result<u64> {
    let (negative, word, lossless) = value.get_u64();
    let expected = "from 0n to 2n ** 64n - 1n";
    if negative || !lossless { Err(Error::InvalidArgument { what: "match", expected }) } else { Ok(word) }
}

fn device(device: impl Device + 'static) -> Owner {
    Owner::Device(Box::new(device))
}

#[napi]
impl NativeClaim {
    /// Bytes of a console since the last call.
    #[napi(catch_unwind)]
    pub fn take_bytes(&self) -> Uint8Array {
        match &self.kind {
            Kind::Console(buffer) | Kind::Serial(buffer, _) => buffer.take().into(),
            _ => Vec::new().into(),
        }
    }

    /// Posted writes since the last call: offset, size, value below 2^32, value above, for each.
    #[napi(catch_unwind)]
    pub fn take_writes(&self) -> Float64Array {
        let Kind::Posted(queue) = &self.kind else { return Vec::new().into() };
        let writes = queue.take();
        let mut numbers = Vec::with_capacity(4 * writes.len());
        for write in writes {
            // Offsets stay below 2^52, halves of values below 2^32: all are exact.
            numbers.extend([write.offset, write.size.into(), write.value & 0xffff_ffff, write.value >> 32].map(exact));
        }
        numbers.into()
    }

    /// Posted writes: with `true` no wake-up comes until `false`, after which the reader has to look once more.
    #[napi(catch_unwind)]
    pub fn look(&mut self, quiet: bool) {
        if !quiet {
            self.quiet = None;
        } else if let (Kind::Posted(queue), None) = (&self.kind, &self.quiet) {
            self.quiet = queue.quiet();
        }
    }

    /// Sends bytes to a serial console; gives how many it took.
    #[napi(catch_unwind)]
    pub fn send(&self, bytes: &[u8]) -> u32 {
        let Kind::Serial(_, input) = &self.kind else { return 0 };
        u32::try_from(input.send(bytes)).unwrap_or(u32::MAX)
    }

    /// What a latch holds.
    #[napi(catch_unwind)]
    pub fn value(&self) -> BigInt {
        match &self.kind {
            Kind::Latch(value) => value.load(Ordering::Relaxed).into(),
            _ => 0_u64.into(),
        }
    }

    /// What posted writes have cost so far; zeros for any other claim.
    #[napi(catch_unwind)]
    pub fn stats(&self) -> NativeClaimStats {
        let count = |read: fn(&PostedCounters) -> u64| self.counters.as_deref().map_or(0, |it| signed(read(it)));
        NativeClaimStats { writes: count(PostedCounters::writes), exits: count(PostedCounters::exits) }
    }

    /// Posted writes: puts what KVM has gathered so far where `take_writes` finds it.
    #[napi(catch_unwind)]
    pub fn flush(&self) {
        self.bus.flush();
    }

    /// Whether KVM does what it can of it: gathers posted writes, rings an eventfd; not once released.
    #[napi(catch_unwind)]
    pub fn kernel(&self) -> bool {
        self.kernel
    }

    /// The number of an eventfd; -1 once it is closed.
    #[napi(catch_unwind)]
    pub fn fd(&self) -> i32 {
        match &self.kind {
            Kind::Doorbell(Some(fd)) => fd.as_raw_fd(),
            _ => -1,
        }
    }

    /// Gives the addresses back. What was written and not taken stays to be taken.
    #[napi(catch_unwind)]
    pub fn release(&mut self) {
        self.bus.release(self.claim);
        self.kernel = false;
        self.abandon();
        if let Kind::Doorbell(fd) = &mut self.kind {
            *fd = None;
        }
    }
}

impl NativeClaim {
    fn abandon(&self) {
        match &self.kind {
            Kind::Posted(queue) => queue.abandon(),
            Kind::Console(buffer) | Kind::Serial(buffer, _) => buffer.abandon(),
            Kind::Program | Kind::Latch(_) | Kind::Doorbell(_) => {}
        }
    }
}

impl Drop for NativeClaim {
    fn drop(&mut self) {
        // Collected without a release: nobody can take anything any more, so no vCPU may wait for that.
        self.abandon();
    }
}

/// Exact below 2^53.
fn exact(value: u64) -> f64 {
    let (high, low) = (u32::try_from(value >> 32).unwrap_or(0), u32::try_from(value & 0xffff_ffff).unwrap_or(0));
    f64::from(high).mul_add(4_294_967_296.0, f64::from(low))
}
