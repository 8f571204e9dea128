//! A VM: memory, bus, vCPUs.

use std::sync::Arc;

use napi::bindgen_prelude::{AsyncTask, Null, Uint32Array};
use napi_derive::napi;
use typevisor::{Error, Kvm, Result, Vm, bus::Unclaimed};

use crate::{
    bus::{NativeClaim, NativeClaimOptions, claim},
    closing::{Close, Closing},
    convert::NativeRange,
    cpuid::NativeVcpuOptions,
    environment::{Mailbox, Message},
    failure::{Outcome, outcome},
    host::{NativeCapability, capabilities},
    memory::NativeMemory,
    stats::NativeStats,
    switches::NativeExitSwitches,
    vcpu::NativeVcpu,
};

/// `createVm`'s argument.
#[napi(object, object_to_js = false)]
pub struct VmOptions {
    pub irqchip: bool,
    pub timing: bool,
    pub exits: NativeExitSwitches,
}

/// `setUnclaimed`'s argument.
#[napi(object, object_to_js = false)]
pub struct NativeUnclaimed {
    pub ports: String,
}

/// What `loadFirmware` gives.
#[napi(object, object_from_js = false)]
pub struct NativeFirmware {
    pub rom: NativeRange,
    pub shadow: NativeRange,
}

/// `NativeVm` in ts/native.ts.
#[napi]
pub struct NativeVm {
    vm: Arc<Vm>,
    mailbox: Mailbox,
}

pub(crate) fn create_vm(kvm: &Kvm, options: VmOptions, mailbox: &Mailbox) -> Result<NativeVm> {
    let VmOptions { irqchip, timing, exits } = options;
    let options = typevisor::VmOptions { irqchip, timing, exits: exits.try_into()? };
    let vm = Arc::new(Vm::create(kvm, &options)?);
    mailbox.adopt(&vm);
    Ok(NativeVm { vm, mailbox: mailbox.clone() })
}

#[napi]
impl NativeVm {
    #[napi(catch_unwind)]
    pub fn capabilities(&self) -> Vec<NativeCapability> {
        capabilities(self.vm.capabilities())
    }

    #[napi(catch_unwind)]
    pub fn memory(&self) -> NativeMemory {
        NativeMemory::new(&self.vm, &self.mailbox)
    }

    #[napi(catch_unwind)]
    pub fn load_firmware(&self, image: &[u8]) -> Outcome<NativeFirmware> {
        let layout = self.vm.load_firmware(image);
        outcome(layout.map(|layout| NativeFirmware { rom: layout.rom.into(), shadow: layout.shadow.into() }))
    }

    #[napi(catch_unwind)]
    pub fn create_vcpu(&self, options: NativeVcpuOptions, mail: Uint32Array) -> Outcome<NativeVcpu> {
        let vcpu = options.try_into().and_then(|options| self.vm.create_vcpu(options));
        outcome(vcpu.map(|vcpu| NativeVcpu::new(vcpu, self.mailbox.clone(), mail)))
    }

    #[napi(catch_unwind)]
    pub fn set_unclaimed(&self, options: NativeUnclaimed) -> Outcome<Null> {
        let policy = match options.ports.as_str() {
            "exit" => Ok(Unclaimed::Exit),
            "ones" => Ok(Unclaimed::Ones),
            _ => Err(Error::InvalidArgument { what: "ports", expected: "'exit' or 'ones'" }),
        };
        outcome(policy.map(|policy| {
            self.vm.bus().set_unclaimed_ports(policy);
            Null
        }))
    }

    /// Claims part of the bus for the program, or for a device in Rust: see `NativeClaimOptions`.
    #[napi(catch_unwind)]
    pub fn claim(&self, options: NativeClaimOptions) -> Outcome<NativeClaim> {
        outcome(claim(self.vm.bus(), &options, &self.mailbox))
    }

    /// Brings the vCPUs out of the guest; that they are is delivered under `id`, with `null`, or why not.
    #[napi(catch_unwind)]
    pub fn pause(&self, id: i64) -> Outcome<Null> {
        let mailbox = self.mailbox.clone();
        let paused = move |outcome: Result<()>| {
            mailbox.post(Message { id, payload: outcome.map(|()| None), claim: 0, wakeup: None });
        };
        outcome(self.vm.pause(paused).map(|()| Null))
    }

    #[napi(catch_unwind)]
    pub fn resume(&self) -> Outcome<Null> {
        outcome(self.vm.resume().map(|()| Null))
    }

    #[napi(catch_unwind)]
    pub fn stats(&self) -> Outcome<NativeStats> {
        outcome(self.vm.stats().map(Into::into))
    }

    #[napi(catch_unwind)]
    pub fn close(&self) -> Null {
        self.vm.close();
        Null
    }

    #[napi(catch_unwind, ts_return_type = "Promise<null>")]
    pub fn close_async(&self) -> AsyncTask<Close> {
        // What is called next finds its vCPUs closed, however late another thread begins with it.
        self.vm.begin_close();
        AsyncTask::new(Close(Closing::Vm(Arc::clone(&self.vm))))
    }
}

#[cfg(feature = "test-hooks")]
impl NativeVm {
    pub(crate) fn bus(&self) -> &typevisor::bus::Bus {
        self.vm.bus()
    }
}
