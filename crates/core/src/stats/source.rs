//! The descriptors that KVM gives its statistics by: opened once, read at any time.

use std::{
    fs::File,
    os::{fd::AsRawFd, unix::fs::FileExt},
    sync::{Arc, Mutex, PoisonError},
};

use kvm_ioctls::VmFd;

use super::{KvmStats, parse};
use crate::{
    error::{Error, Result},
    host::Capability,
    sys::{fork::NotInherited, stats::stats_fd},
};

/// Bytes to begin with: on Linux 7.2 a vCPU's are 6 KiB.
const USUAL: usize = 16 << 10;
/// Bytes that no kernel's come near to.
const MOST: usize = 1 << 20;

/// A statistics descriptor. From Linux 6.5 on it keeps the VM alive by itself. Before, reading it after the VM's end reads
/// memory that the kernel has freed: so it keeps the VM's own descriptor.
pub(crate) struct Source {
    file: NotInherited<File>,
    _vm: Arc<VmFd>,
}

impl Source {
    /// Of a VM, or of one of its vCPUs. For a vCPU KVM takes the lock that `KVM_RUN` holds: while it runs, this waits. Reading
    /// takes none. So it is done once, before the first run.
    pub(crate) fn open(whose: &impl AsRawFd, vm: &Arc<VmFd>) -> Result<Self> {
        Ok(Self { file: NotInherited::new(stats_fd(whose)?.into()), _vm: Arc::clone(vm) })
    }

    /// What it has to say now. By `pread`, and from the start, so that everything is of one call.
    pub(crate) fn read(&self) -> Result<KvmStats> {
        let mut bytes = vec![0; USUAL];
        loop {
            let read = self.file.read_at(&mut bytes, 0);
            let read = read.map_err(|error| Error::Os { call: "pread", errno: error.into() })?;
            if read < bytes.len() || read >= MOST {
                return bytes.get(..read).and_then(parse).ok_or(UNREADABLE);
            }
            bytes.resize(read * 2, 0);
        }
    }
}

/// As [`crate::host::Capabilities::require`] has it.
pub(crate) const MISSING: Error = Error::CapabilityMissing {
    capability: Capability::BinaryStatsFd.name(),
    needed_by: "KVM's statistics",
    since: Capability::BinaryStatsFd.since(),
};

const UNREADABLE: Error = Error::InvalidArgument {
    what: "what KVM's statistics descriptor reads as",
    expected: "laid out as api.rst 4.133 says",
};

/// A vCPU's source, and whether there is one. The lock is held while KVM copies some kilobytes, no other is taken with it.
pub(crate) struct Kept(Mutex<State>);

enum State {
    /// KVM has none.
    Missing,
    Open(Source),
    Closed,
}

impl Kept {
    pub(crate) fn new(source: Option<Source>) -> Self {
        Self(Mutex::new(source.map_or(State::Missing, State::Open)))
    }

    /// # Errors
    /// [`Error::CapabilityMissing`]; [`Error::Closed`] for what is called `what`; [`Error::Os`].
    pub(crate) fn read(&self, what: &'static str) -> Result<KvmStats> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Missing => Err(MISSING),
            State::Open(source) => source.read(),
            State::Closed => Err(Error::Closed { what }),
        }
    }

    /// Lets go of the descriptor, and so of the VM.
    pub(crate) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::Closed;
    }
}
