//! Closing off the JavaScript thread: what `Symbol.asyncDispose` promises.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use napi::{Env, Task, bindgen_prelude::Null};
use typevisor::{Vcpu, Vm};

/// Closes on a thread of libuv's pool; the promise keeps Node alive until it is done.
pub struct Close(pub(crate) Closing);

pub(crate) enum Closing {
    Vm(Arc<Vm>),
    Vcpu(Arc<Vcpu>),
}

impl Task for Close {
    type Output = ();
    type JsValue = Null;

    fn compute(&mut self) -> napi::Result<()> {
        // A panic here would abort Node.
        catch_unwind(AssertUnwindSafe(|| match &self.0 {
            Closing::Vm(vm) => vm.close(),
            Closing::Vcpu(vcpu) => vcpu.close(),
        }))
        .map_err(|panic| napi::Error::from_reason(typevisor::Error::from_panic(&*panic).to_string()))
    }

    fn resolve(&mut self, _env: Env, (): ()) -> napi::Result<Null> {
        Ok(Null)
    }
}
