//! The flags of a vCPU's exits (`kvm_run.flags`), kept for the program: those of the exit that was delivered last, with what
//! happened in the exits between that somebody on the bus dealt with. Why they are apart from it: docs/design/exit.md.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use crate::exit::{Arch, RunFlags};

/// The engine's half: it alone stores.
pub(super) struct Flags {
    told: Told,
    /// Of exits that the program has not seen.
    unseen: u16,
}

/// The half of the vCPU's handle, to be read at any time.
#[derive(Clone, Default)]
pub(super) struct Told(Arc<AtomicU16>);

impl Told {
    /// `Acquire`, with the `Release` below: whoever has been given an exit reads its flags, or a later one's.
    pub(super) fn read(&self) -> RunFlags {
        RunFlags::from_bits(self.0.load(Ordering::Acquire), Arch::HOST)
    }
}

impl Flags {
    pub(super) const fn new(told: Told) -> Self {
        Self { told, unseen: 0 }
    }

    /// Of an exit that the program is about to be given.
    pub(super) fn tell(&mut self, flags: RunFlags) {
        self.told.0.store(flags.bits | std::mem::take(&mut self.unseen), Ordering::Release);
    }

    /// Of one that it is not given.
    #[inline]
    pub(super) const fn keep(&mut self, flags: RunFlags) {
        self.unseen |= flags.happened();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_of_the_exit_told_last_and_what_happened_before_is_told_once() {
        let told = Told::default();
        let mut flags = Flags::new(told.clone());
        let of = |bits| RunFlags::from_bits(bits, Arch::HOST);
        assert_eq!(told.read(), RunFlags::default());
        flags.keep(of(0b111));
        flags.keep(of(0));
        assert_eq!(told.read(), RunFlags::default(), "nothing is delivered yet");
        flags.tell(of(0b001));
        // A bus lock, where there is such a thing.
        assert_eq!(told.read().bits, if cfg!(target_arch = "x86_64") { 0b011 } else { 0b001 });
        flags.tell(of(0b100));
        assert_eq!(told.read(), of(0b100));
    }
}
