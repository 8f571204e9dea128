//! A vCPU: runs, kicks, answers, registers.

use std::{sync::Arc, time::Duration};

use napi::bindgen_prelude::{AsyncTask, BigInt, Either, Null, Uint8Array};
use napi_derive::napi;
use typevisor::{Error, Result, Vcpu};

use crate::{
    closing::{Close, Closing},
    convert::{NativeRange, register, unsigned},
    environment::Mailbox,
    exit::NativeExit,
    failure::{Outcome, outcome},
    registers::{NativeRegisters, apply, to_native},
};

/// `NativeVcpu` in ts/native.ts.
#[napi]
pub struct NativeVcpu {
    vcpu: Arc<Vcpu>,
    mailbox: Mailbox,
}

impl NativeVcpu {
    pub(crate) fn new(vcpu: Vcpu, mailbox: Mailbox) -> Self {
        Self { vcpu: Arc::new(vcpu), mailbox }
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

    #[napi(catch_unwind, ts_return_type = "Failure | NativeExit | null")]
    pub fn run_sync(&self, timeout_ms: f64) -> Outcome<Either<NativeExit, Null>> {
        let limit = Duration::try_from_secs_f64(timeout_ms / 1e3).map_err(|_| Error::InvalidArgument {
            what: "timeoutMs",
            expected: "a finite number of milliseconds from 0 on",
        });
        let exit = limit.and_then(|limit| self.vcpu.run_sync_until_full(limit));
        outcome(exit.map(|exit| exit.map_or(Either::B(Null), |exit| Either::A(exit.into()))))
    }

    #[napi(catch_unwind)]
    pub fn kick(&self) -> Outcome<Null> {
        outcome(self.vcpu.kick().map(|()| Null))
    }

    #[napi(catch_unwind)]
    pub fn answer(&self, value: Either<BigInt, Uint8Array>) -> Outcome<Null> {
        outcome(self.answer_with(value).map(|()| Null))
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
    pub fn close(&self) -> Null {
        self.vcpu.close();
        Null
    }

    #[napi(catch_unwind, ts_return_type = "Promise<null>")]
    pub fn close_async(&self) -> AsyncTask<Close> {
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
}

#[cfg(target_arch = "x86_64")]
fn boot(vcpu: &Vcpu, options: &NativeBootOptions) -> Result<NativeBoot> {
    use typevisor::vcpu::{BootMode, BootOptions, Privilege};

    let mode = match options.mode.as_str() {
        "real" => BootMode::Real,
        "protected" => BootMode::Protected,
        "long" => BootMode::Long,
        _ => return Err(Error::InvalidArgument { what: "mode", expected: "'real', 'protected' or 'long' on x86_64" }),
    };
    let options = BootOptions {
        mode,
        privilege: if options.user { Privilege::User } else { Privilege::Kernel },
        entry: unsigned("entry", options.entry)?,
        stack: options.stack.map(|stack| unsigned("stack", stack)).transpose()?,
        tables: options.tables.map(|tables| unsigned("tables", tables)).transpose()?,
    };
    Ok(NativeBoot { tables: vcpu.boot(&options)?.tables.map(Into::into) })
}

#[cfg(target_arch = "aarch64")]
fn boot(_vcpu: &Vcpu, _options: &NativeBootOptions) -> Result<NativeBoot> {
    Err(Error::InvalidArgument { what: "mode", expected: "absent: boot is x86_64's until now; set pc and sp instead" })
}

impl NativeVcpu {
    fn answer_with(&self, value: Either<BigInt, Uint8Array>) -> Result<()> {
        match value {
            Either::A(word) => self.vcpu.answer_word(register("answer", &word)?),
            Either::B(bytes) => self.vcpu.answer(&bytes),
        }
    }
}
