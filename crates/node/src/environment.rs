//! One per JavaScript environment: the thread-safe function by which vCPU threads reach it, and the list of VMs to close
//! when it ends.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use napi::{
    Env, Status,
    bindgen_prelude::{Either4, FnArgs, Function, Null},
    threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode},
};
use napi_derive::napi;
use typevisor::{Error, Vm, bus::Wakeup, vcpu::Outcome as RunOutcome};

use crate::{
    change::Done,
    convert::signed,
    exit::NativeExit,
    failure::{Failure, Outcome},
    host::{NativeKvm, OpenOptions, open_kvm},
    memory::NativeDone,
};

/// What is delivered: why it failed, an exit, what a job did to slots, or a mere word.
pub(crate) type Payload = Either4<Failure, NativeExit, NativeDone, Null>;

/// What there may be to tell.
pub(crate) enum Content {
    Exit(typevisor::Exit),
    Done(Done),
}

/// A message for whoever waits under `id`.
pub(crate) struct Message {
    pub(crate) id: i64,
    pub(crate) payload: Result<Option<Content>, Error>,
    /// Whose access the exit is, where the program claimed it; else 0.
    pub(crate) claim: i64,
    /// Where this is a mere wake-up: the queue posts no second one before this has arrived.
    pub(crate) wakeup: Option<Wakeup>,
}

type Deliver = ThreadsafeFunction<Message, (), FnArgs<(i64, Payload, i64)>, Status, false, true, 0>;

/// The way from any thread to one environment.
#[derive(Clone)]
pub(crate) struct Mailbox {
    deliver: Arc<Deliver>,
    vms: Arc<Mutex<Vec<Weak<Vm>>>>,
}

impl Mailbox {
    /// Posts a message. An environment that is ending takes none, and nobody waits there any more.
    pub(crate) fn post(&self, message: Message) {
        self.deliver.call(message, ThreadsafeFunctionCallMode::NonBlocking);
    }

    /// The outcome of a run, for whoever waits under `id`.
    pub(crate) fn post_outcome(&self, id: i64, outcome: typevisor::Result<RunOutcome>) {
        let (payload, claim) = match outcome {
            Ok(RunOutcome::Exit(exit)) => (Ok(Some(Content::Exit(exit))), 0),
            Ok(RunOutcome::Claimed(claimed)) => {
                let claim = signed(claimed.claim);
                (Ok(Some(Content::Exit(claimed.into()))), claim)
            }
            Ok(_) => (Ok(None), 0),
            Err(error) => (Err(error), 0),
        };
        self.post(Message { id, payload, claim, wakeup: None });
    }

    /// Remembers a VM, to be closed with the environment.
    pub(crate) fn adopt(&self, vm: &Arc<Vm>) {
        let mut vms = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        vms.retain(|vm| vm.strong_count() > 0);
        vms.push(Arc::downgrade(vm));
    }
}

/// `NativeEnvironment` in ts/native.ts.
#[napi]
pub struct NativeEnvironment {
    mailbox: Mailbox,
}

#[napi]
impl NativeEnvironment {
    #[napi(catch_unwind)]
    pub fn open_kvm(&self, options: OpenOptions) -> Outcome<NativeKvm> {
        open_kvm(options, self.mailbox.clone())
    }
}

/// Begins the life of an environment; see ts/native.ts.
#[napi(
    catch_unwind,
    ts_args_type = "deliver: (id: number, payload: Failure | NativeExit | NativeDone | null, claim: number) => void",
    ts_return_type = "Failure | NativeEnvironment"
)]
pub fn attach(env: Env, deliver: Function<'_, FnArgs<(i64, Payload, i64)>, ()>) -> napi::Result<NativeEnvironment> {
    let deliver =
        deliver.build_threadsafe_function::<Message>().weak::<true>().callee_handled::<false>().build_callback(
            |context| {
                let Message { id, payload: outcome, claim, wakeup } = context.value;
                // On the JavaScript thread, and before it reads the queue.
                drop(wakeup);
                Ok(FnArgs::from((id, payload(outcome), claim)))
            },
        )?;
    let vms: Arc<Mutex<Vec<Weak<Vm>>>> = Arc::default();
    // Hooks run last-in first-out: this one, which joins the threads that call the function, before the function's.
    env.add_env_cleanup_hook(Arc::clone(&vms), |vms| close_all(&vms))?;
    Ok(NativeEnvironment { mailbox: Mailbox { deliver: Arc::new(deliver), vms } })
}

fn payload(result: Result<Option<Content>, Error>) -> Payload {
    // Runs in a callback of napi's, where a panic would abort Node.
    let converted = catch_unwind(AssertUnwindSafe(|| match result {
        Ok(Some(Content::Exit(exit))) => Either4::B(exit.into()),
        Ok(Some(Content::Done(done))) => Either4::C(done.into()),
        Ok(None) => Either4::D(Null),
        Err(error) => Either4::A(error.into()),
    }));
    converted.unwrap_or_else(|panic| Either4::A(Error::from_panic(&*panic).into()))
}

fn close_all(vms: &Mutex<Vec<Weak<Vm>>>) {
    let vms = std::mem::take(&mut *vms.lock().unwrap_or_else(PoisonError::into_inner));
    for vm in vms.iter().filter_map(Weak::upgrade) {
        // A panic must not cross into Node; the other VMs are closed all the same.
        let _ = catch_unwind(AssertUnwindSafe(|| vm.close()));
    }
}
