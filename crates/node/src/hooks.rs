//! Hooks that only test builds contain: ways to provoke a panic, to show that Node lives on.
#![expect(clippy::panic, reason = "what the hooks are for")]

use napi::bindgen_prelude::Null;
use napi_derive::napi;
use typevisor::bus::{Device, Written};

use crate::{
    failure::{Outcome, outcome},
    vm::NativeVm,
};

/// Panics in a call.
#[napi(catch_unwind)]
pub fn panic_in_call() {
    panic!("provoked in a call");
}

/// Gives a port to a device that panics, on whichever thread runs the vCPU.
#[napi(catch_unwind)]
pub fn panic_on_port(vm: &NativeVm, port: u16) -> Outcome<Null> {
    outcome(vm.bus().claim_ports(port, 1, Box::new(Broken)).map(|_| Null))
}

struct Broken;

impl Device for Broken {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {
        panic!("provoked on a vCPU's thread");
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Written {
        panic!("provoked on a vCPU's thread");
    }
}
