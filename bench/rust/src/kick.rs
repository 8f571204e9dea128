//! The code under test of the kick benchmarks: what bench/c/kick.c does, by the public API.

use std::{
    error::Error,
    hint::spin_loop,
    result::Result,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
        },
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

use typevisor::{
    Exit, GpaRange, Kvm, Vcpu, Vm, VmOptions,
    host::KvmOptions,
    memory::MapOptions,
    vcpu::{BootMode, BootOptions, Outcome, Privilege, VcpuOptions},
};

use crate::child::{Figures, serve_batches};

/// No kick takes nearly as long.
const LIMIT: Duration = Duration::from_secs(60);

/// A run that ended in [`Guest::returned`] by something else than a kick.
const FAILED: u64 = u64::MAX;

/// A guest that counts for ever, and when its last run ended.
struct Guest {
    vcpu: Vcpu,
    vm: Vm,
    /// Where it counts.
    count_at: u64,
    began: Instant,
    /// Nanoseconds from `began` to the end of a run; 0: it has not ended.
    returned: AtomicU64,
}

/// A program's own thread runs the vCPU, as that of bench/c/kick.c does.
pub(crate) fn sync(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let guest = Arc::new(Guest::new(arguments)?);
    let (batches, counts) = channel::<u32>();
    let runner = Arc::clone(&guest);
    let run = move || {
        for _ in counts.iter().flat_map(|count| 0..count) {
            let ended = runner.vcpu.run_sync(LIMIT);
            runner.tell(matches!(ended, Ok(Exit::Intr)));
        }
    };
    // By that name the harness finds it.
    thread::Builder::new().name("kvm-vcpu".into()).spawn(run)?;
    serve_batches(|count| {
        batches.send(count)?;
        kicks(count, || guest.kick())
    })
}

/// The vCPU's own thread runs it.
pub(crate) fn on_its_own_thread(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let guest = Arc::new(Guest::new(arguments)?);
    let mut tickets = 0..;
    serve_batches(|count| {
        kicks(count, || {
            let runner = Arc::clone(&guest);
            let ended = move |outcome| runner.tell(matches!(outcome, Ok(Outcome::Exit(Exit::Intr))));
            guest.vcpu.start(tickets.next().ok_or("no ticket is left")?, ended)?;
            guest.kick()
        })
    })
}

/// The middle and the p99 of `count` kicks.
fn kicks(count: u32, mut kick: impl FnMut() -> Result<Duration, Box<dyn Error>>) -> Result<Figures, Box<dyn Error>> {
    let mut took = (0..count).map(|_| kick()).collect::<Result<Vec<_>, _>>()?;
    took.sort_unstable();
    let at = |index: usize| took.get(index).copied().ok_or("no kick was asked for");
    Ok(Figures { each: at(took.len() / 2)?, p99: Some(at(took.len() * 99 / 100)?) })
}

impl Guest {
    /// CODE `ENTRY` `COUNT_AT` `SLOT_SIZE`, as bench/c/kick.c has them.
    fn new(arguments: &[String]) -> Result<Self, Box<dyn Error>> {
        let [hex, numbers @ ..] = arguments else { return Err("which code?".into()) };
        let numbers: Vec<u64> = numbers.iter().map(|number| number.parse()).collect::<Result<_, _>>()?;
        let [entry, count_at, slot_size] = *numbers else { return Err("three numbers were expected".into()) };
        let vm = Vm::create(&Kvm::open(KvmOptions::default())?, &VmOptions::default())?;
        vm.memory().map(&MapOptions::new(GpaRange::pages(0, slot_size)?))?;
        vm.memory().write(entry, &bytes(hex)?)?;
        let vcpu = vm.create_vcpu(VcpuOptions::default())?;
        vcpu.boot(&BootOptions { privilege: Privilege::User, ..BootOptions::new(BootMode::Long, entry) })?;
        Ok(Self { vcpu, vm, count_at, began: Instant::now(), returned: AtomicU64::new(0) })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(FAILED)
    }

    /// A run has ended, on whichever thread this is.
    fn tell(&self, by_kick: bool) {
        let now = self.now();
        self.returned.store(if by_kick { now } else { FAILED }, Release);
    }

    /// When the run ended, once it has.
    fn ended(&self) -> Result<Option<u64>, Box<dyn Error>> {
        match self.returned.swap(0, Acquire) {
            0 => Ok(None),
            FAILED => Err("a run ended otherwise than by a kick".into()),
            at => Ok(Some(at)),
        }
    }

    fn counted(&self) -> typevisor::Result<[u8; 4]> {
        let mut count = [0; 4];
        self.vm.memory().read(self.count_at, &mut count)?;
        Ok(count)
    }

    /// One kick of the guest that is on its way in: from before it until the run has ended.
    fn kick(&self) -> Result<Duration, Box<dyn Error>> {
        let before = self.counted()?;
        while self.counted()? == before {
            if self.ended()?.is_some() {
                return Err("a run ended before its kick".into());
            }
        }
        let start = self.now();
        self.vcpu.kick()?;
        loop {
            if let Some(end) = self.ended()? {
                return Ok(Duration::from_nanos(end.saturating_sub(start)));
            }
            spin_loop();
        }
    }
}

fn bytes(hex: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err("an odd number of digits".into());
    }
    pairs.iter().map(|pair| Ok(u8::from_str_radix(str::from_utf8(pair)?, 16)?)).collect()
}
