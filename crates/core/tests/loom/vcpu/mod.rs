//! The files that are looked at, as they are.
#![expect(dead_code, reason = "not all of what they offer is of the protocol")]

#[path = "../../../src/vcpu/control.rs"]
pub(crate) mod control;
#[path = "../../../src/vcpu/hold.rs"]
pub(crate) mod hold;
pub(crate) mod machine;

/// The kickers' half of the `kvm_run` page.
pub(crate) mod run_page {
    use std::sync::Arc;

    use super::machine::Cpu;

    #[derive(Clone)]
    pub(crate) struct ImmediateExit(pub(crate) Arc<Cpu>);

    impl ImmediateExit {
        pub(crate) fn set(&self) {
            self.0.set_immediate_exit(true);
        }

        pub(crate) fn clear(&self) {
            self.0.set_immediate_exit(false);
        }
    }
}
