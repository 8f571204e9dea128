//! Signals between threads of the model; nobody forks.

pub(crate) mod fork {
    pub(crate) const fn generation() -> u32 {
        0
    }
}

pub(crate) mod signal {
    use std::sync::Arc;

    use crate::{
        error::Result,
        vcpu::machine::{self, Cpu},
    };

    #[derive(Clone, Copy)]
    pub(crate) struct KickSignal;

    /// A thread is known by what it runs.
    #[derive(Clone, Copy)]
    pub(crate) struct ThreadId(usize);

    impl ThreadId {
        pub(crate) fn current() -> Self {
            Self(machine::current())
        }
    }

    impl KickSignal {
        #[expect(clippy::unused_self, reason = "as the real one is called")]
        pub(crate) fn send(self, thread: ThreadId) {
            let cpu: Arc<Cpu> = machine::cpu(thread.0);
            cpu.signal();
        }

        #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as the real one is called")]
        pub(crate) const fn unblock_on_this_thread(self) -> Result<()> {
            Ok(())
        }
    }
}
