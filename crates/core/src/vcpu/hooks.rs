//! The bytes of a vCPU's `kvm_run` page, as only tests look at them: what [`crate::hooks`] offers.

use super::Vcpu;
use crate::{
    error::Result,
    exit::{EXIT_REASON, PAYLOAD, PAYLOAD_END, READABLE_FROM},
};

impl Vcpu {
    pub(crate) fn leave_exit_reason(&self, reason: u32) -> Result<()> {
        self.shared.with_engine(|engine| engine.put(EXIT_REASON, &reason.to_le_bytes()))
    }

    pub(crate) fn leave_payload(&self, byte: u8) -> Result<()> {
        self.shared.with_engine(|engine| engine.put(PAYLOAD, &[byte; PAYLOAD_END - PAYLOAD]))
    }

    pub(crate) fn run_page(&self) -> Result<Vec<u8>> {
        let before = [0; READABLE_FROM];
        self.shared.with_engine(|engine| Ok([&before, engine.bytes().tail()].concat()))
    }
}
