//! What running has cost: KVM's own statistics (api.rst 4.133, `KVM_GET_STATS_FD`), and the exits of each kind with the
//! time they took, which the engine of a vCPU counts. Nothing here waits for a vCPU. Why it is as it is:
//! docs/design/stats.md.

mod block;
mod clock;
mod exits;
mod source;

pub(crate) use block::parse;
pub use block::{KvmStat, KvmStats, StatBase, StatKind, StatUnit};
pub(crate) use clock::Clock;
pub(crate) use exits::Tally;
pub use exits::{ExitStats, ExitTimes};
pub(crate) use source::{Kept, MISSING, Source};

use crate::error::{Error, Result};

/// What a VM or a vCPU has cost so far.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// KVM's own; none where the VM has not `KVM_CAP_BINARY_STATS_FD` (Linux 5.14).
    pub kvm: Option<KvmStats>,
    /// The exits of each kind.
    pub exits: ExitStats,
}

impl Stats {
    /// Where KVM has none that is no failure.
    pub(crate) fn if_any(read: Result<KvmStats>) -> Result<Option<KvmStats>> {
        match read {
            Err(Error::CapabilityMissing { .. }) => Ok(None),
            read => read.map(Some),
        }
    }
}
