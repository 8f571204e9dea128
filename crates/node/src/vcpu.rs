//! A vCPU: runs, kicks, answers, registers.
#![expect(unsafe_code, reason = "an array that JavaScript reads accesses from, without an object for each")]

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use napi::{
    Env,
    bindgen_prelude::{AsyncTask, BigInt, Either, Function, Null, Uint8Array, Uint32Array},
};
use napi_derive::napi;
use typevisor::{
    Error, Exit, Result, Vcpu,
    vcpu::{Boot, BootMode, BootOptions, Claimed, Privilege, Step, SyncRun, WhenFull},
};

use crate::{
    closing::{Close, Closing},
    convert::{NativeRange, register, signed, unsigned},
    cpuid::NativeRunFlags,
    environment::Mailbox,
    exit::NativeExit,
    failure::{Outcome, outcome},
    registers::{NativeRegisters, apply, to_native},
    stats::NativeStats,
};

/// `NativeVcpu` in ts/native.ts.
#[napi]
pub struct NativeVcpu {
    vcpu: Arc<Vcpu>,
    mailbox: Mailbox,
    sync: Rc<Steps>,
}

/// A run on JavaScript's own thread. Cells, as `close_async` borrows the object for as long as its task runs, and as steps
/// come from a function besides.
struct Steps {
    /// Where a step leaves an access: [`MAIL_WORDS`] numbers of 32 bits.
    mail: RefCell<Uint32Array>,
    run: RefCell<Option<SyncRun>>,
    kept: RefCell<Option<Result<Option<Exit>>>>,
}

const NO_RUN: Error = Error::Busy { why: "no run on this thread is under way" };

/// Write (1) or read (0), size, count, offset (low, high), value (low, high).
const MAIL_WORDS: usize = 7;

fn low(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

impl NativeVcpu {
    pub(crate) fn new(vcpu: Vcpu, mailbox: Mailbox, mail: Uint32Array) -> Self {
        let sync = Steps { mail: RefCell::new(mail), run: RefCell::default(), kept: RefCell::default() };
        Self { vcpu: Arc::new(vcpu), mailbox, sync: Rc::new(sync) }
    }
}

impl Steps {
    fn in_run<T>(&self, act: impl FnOnce(&mut SyncRun) -> Result<T>) -> Result<T> {
        self.run.borrow_mut().as_mut().map_or(Err(NO_RUN), act)
    }

    fn step(&self) -> i64 {
        let stepped = self.in_run(|run| run.step(WhenFull::Return));
        match stepped {
            Ok(Step::Claimed(claimed)) if claimed.elements.is_empty() && claimed.count == 1 => self.post(&claimed),
            Ok(Step::Claimed(claimed)) => {
                let claim = signed(claimed.claim);
                self.keep(Ok(Some(claimed.into())));
                -claim
            }
            Ok(Step::Exit(exit)) => self.keep(Ok(Some(exit))),
            Ok(_) => self.keep(Ok(None)),
            Err(error) => self.keep(Err(error)),
        }
    }

    /// As [`Steps::step`], after the access of the last step was answered, if that went well.
    fn answered(&self, how: impl FnOnce(&mut SyncRun) -> Result<()>) -> i64 {
        match self.in_run(how) {
            Ok(()) => self.step(),
            Err(error) => self.keep(Err(error)),
        }
    }

    fn keep(&self, outcome: Result<Option<Exit>>) -> i64 {
        *self.kept.borrow_mut() = Some(outcome);
        0
    }

    /// Puts an access into the mail and gives the number of its claim.
    fn post(&self, claimed: &Claimed) -> i64 {
        let words: [u32; MAIL_WORDS] = [
            claimed.write.into(),
            claimed.size.into(),
            claimed.count,
            low(claimed.offset),
            low(claimed.offset >> 32),
            low(claimed.value),
            low(claimed.value >> 32),
        ];
        let mut mail = self.mail.borrow_mut();
        // SAFETY: this runs on the thread of the environment that made the array, inside a call from it, so nothing
        // else touches it meanwhile. The facade made it, of ordinary memory, and never detaches it.
        let words_in_mail = unsafe { mail.as_mut() };
        words_in_mail.iter_mut().zip(words).for_each(|(target, word)| *target = word);
        signed(claimed.claim)
    }
}

#[napi]
impl NativeVcpu {
    #[napi(catch_unwind)]
    pub fn id(&self) -> u32 {
        self.vcpu.id()
    }

    #[napi(catch_unwind)]
    pub fn start(&self, ticket: i64) -> Outcome<Null> {
        let mailbox = self.mailbox.clone();
        let done = move |outcome| mailbox.post_outcome(ticket, outcome);
        outcome(unsigned("ticket", ticket).and_then(|ticket| self.vcpu.start(ticket, done)).map(|()| Null))
    }

    #[napi(catch_unwind)]
    pub fn settle(&self, ticket: i64) -> Outcome<Null> {
        let mailbox = self.mailbox.clone();
        let done = move |outcome| mailbox.post_outcome(ticket, outcome);
        outcome(unsigned("ticket", ticket).and_then(|ticket| self.vcpu.start_settle(ticket, done)).map(|()| Null))
    }

    #[napi(catch_unwind)]
    pub fn cancel(&self, ticket: i64) {
        // A ticket that is no number names no run.
        if let Ok(ticket) = unsigned("ticket", ticket) {
            self.vcpu.cancel(ticket);
        }
    }

    /// Begins a run on this thread, for `timeout_ms` in all. `sync_end` has to follow.
    #[napi(catch_unwind)]
    pub fn sync_begin(&self, timeout_ms: f64) -> Outcome<Null> {
        let limit = Duration::try_from_secs_f64(timeout_ms / 1e3).map_err(|_| Error::InvalidArgument {
            what: "timeoutMs",
            expected: "a finite number of milliseconds from 0 on",
        });
        let run = limit.and_then(|limit| self.vcpu.begin_sync(limit));
        outcome(run.map(|run| {
            *self.sync.run.borrow_mut() = Some(run);
            Null
        }))
    }

    /// A function that runs on, with two numbers after answering the access of the last step with their 64 bits, low ones
    /// first. It gives the number of the claim whose access then lies in the mail, or 0: see `sync_outcome`. Not a method,
    /// as finding and borrowing its object would take longer than all the rest of a step.
    #[napi(catch_unwind, ts_return_type = "(low?: number, high?: number) => number")]
    pub fn sync_stepper<'env>(&self, env: &'env Env) -> napi::Result<Function<'env, (u32, u32), i64>> {
        let sync = Rc::clone(&self.sync);
        env.create_function_from_closure("syncStep", move |call| {
            if call.length() == 0 {
                return Ok(sync.step());
            }
            let (low, high): (u32, u32) = (call.get(0)?, call.get(1)?);
            Ok(sync.answered(|run| run.answer_word(u64::from(high) << 32 | u64::from(low))))
        })
    }

    /// As that function, after answering with all the bytes of an access of several elements.
    #[napi(catch_unwind)]
    pub fn sync_answer_bytes(&self, bytes: &[u8]) -> i64 {
        self.sync.answered(|run| run.answer(bytes))
    }

    /// What a step gave that was no single access: the exit or failure that ends the run, an access of several
    /// elements, or `null` where a queue is full.
    #[napi(catch_unwind, ts_return_type = "Failure | NativeExit | null")]
    pub fn sync_outcome(&self) -> Outcome<Either<NativeExit, Null>> {
        let kept = self.sync.kept.borrow_mut().take().unwrap_or(Err(NO_RUN));
        outcome(kept.map(|exit| exit.map_or(Either::B(Null), |exit| Either::A(exit.into()))))
    }

    /// Ends the run where it stands.
    #[napi(catch_unwind)]
    pub fn sync_end(&self) {
        *self.sync.run.borrow_mut() = None;
    }

    #[napi(catch_unwind)]
    pub fn kick(&self) -> Outcome<Null> {
        outcome(self.vcpu.kick().map(|()| Null))
    }

    #[napi(catch_unwind)]
    pub fn answer(&self, value: Either<BigInt, Uint8Array>) -> Outcome<Null> {
        outcome(self.answer_with(value).map(|()| Null))
    }

    /// Makes the guest's instruction fault.
    #[napi(catch_unwind)]
    pub fn answer_fault(&self) -> Outcome<Null> {
        outcome(self.vcpu.answer_fault().map(|()| Null))
    }

    #[napi(catch_unwind)]
    pub fn run_flags(&self) -> NativeRunFlags {
        self.vcpu.run_flags().into()
    }

    #[napi(catch_unwind)]
    pub fn registers(&self) -> Outcome<NativeRegisters> {
        outcome(self.vcpu.registers().map(|(registers, pending)| to_native(&registers, pending)))
    }

    #[napi(catch_unwind)]
    pub fn set_registers(&self, some: NativeRegisters) -> Outcome<Null> {
        outcome(self.vcpu.update_registers(|registers| apply(&some, registers)).map(|()| Null))
    }

    #[napi(catch_unwind)]
    pub fn boot(&self, options: NativeBootOptions) -> Outcome<NativeBoot> {
        outcome(boot(&self.vcpu, &options))
    }

    #[napi(catch_unwind)]
    pub fn stats(&self) -> Outcome<NativeStats> {
        outcome(self.vcpu.stats().map(Into::into))
    }

    #[napi(catch_unwind)]
    pub fn close(&self) -> Null {
        self.vcpu.close();
        Null
    }

    #[napi(catch_unwind, ts_return_type = "Promise<null>")]
    pub fn close_async(&self) -> AsyncTask<Close> {
        // What is called next finds it closed, however late another thread begins with it.
        self.vcpu.begin_close();
        AsyncTask::new(Close(Closing::Vcpu(Arc::clone(&self.vcpu))))
    }
}

/// `boot`'s argument.
#[napi(object, object_to_js = false, use_nullable = true)]
pub struct NativeBootOptions {
    pub mode: String,
    pub user: bool,
    pub entry: i64,
    pub stack: Option<i64>,
    pub tables: Option<i64>,
}

/// What `boot` gives.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct NativeBoot {
    pub tables: Option<NativeRange>,
    pub exceptions: Option<NativeRange>,
}

fn boot(vcpu: &Vcpu, options: &NativeBootOptions) -> Result<NativeBoot> {
    let mode = match options.mode.as_str() {
        "real" => BootMode::Real,
        "protected" => BootMode::Protected,
        "long" => BootMode::Long,
        "el1" => BootMode::El1,
        _ => return Err(Error::InvalidArgument { what: "mode", expected: "'real', 'protected', 'long' or 'el1'" }),
    };
    let options = BootOptions {
        mode,
        privilege: if options.user { Privilege::User } else { Privilege::Kernel },
        entry: unsigned("entry", options.entry)?,
        stack: options.stack.map(|stack| unsigned("stack", stack)).transpose()?,
        tables: options.tables.map(|tables| unsigned("tables", tables)).transpose()?,
    };
    let Boot { tables, exceptions, .. } = vcpu.boot(&options)?;
    Ok(NativeBoot { tables: tables.map(Into::into), exceptions: exceptions.map(Into::into) })
}

impl NativeVcpu {
    fn answer_with(&self, value: Either<BigInt, Uint8Array>) -> Result<()> {
        match value {
            Either::A(word) => self.vcpu.answer_word(register("answer", &word)?),
            Either::B(bytes) => self.vcpu.answer(&bytes),
        }
    }
}
