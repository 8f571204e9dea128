//! What a vCPU needs after an exit before it goes on: api.rst section 5 names the exits that only re-entry completes, and
//! the field that each of them reads its answer from. Pure; who writes the answer is `vcpu::engine`.

use crate::error::{Error, Result};

/// What the guest's last exit still needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pending {
    Nothing,
    /// Re-entry completes it.
    Completion,
    /// Re-entry completes it, with what was put there.
    Answer(Wanted),
}

/// What an exit takes as its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Where the value goes; absent where only a fault can be asked for.
    value: Option<Place>,
    /// Where a longer answer goes, that has more than the one value.
    whole: Option<Place>,
    /// The byte that makes the guest's instruction fault.
    fault: Option<usize>,
    /// Whether the guest must not go on without. Else the kernel has put an answer there itself.
    needed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    at: usize,
    size: usize,
}

impl Wanted {
    /// An answer of `size` bytes, which go to `at` in the page.
    pub(crate) const fn bytes(at: usize, size: usize) -> Self {
        Self { value: Some(Place { at, size }), whole: None, fault: None, needed: true }
    }

    /// A register's worth.
    pub(super) const fn long(at: usize) -> Self {
        Self::bytes(at, size_of::<u64>())
    }

    /// Nothing but a fault, by a 1 at `at`, and not even that.
    pub(super) const fn only_fault(at: usize) -> Self {
        Self { value: None, whole: None, fault: Some(at), needed: false }
    }

    /// Or a fault, by a 1 at `at`.
    pub(super) const fn or_fault(self, at: usize) -> Self {
        Self { fault: Some(at), ..self }
    }

    /// Or `size` bytes at `at`.
    pub(super) const fn or_whole(self, at: usize, size: usize) -> Self {
        Self { whole: Some(Place { at, size }), ..self }
    }

    /// Or none: the kernel has put one there.
    pub(super) const fn or_none(self) -> Self {
        Self { needed: false, ..self }
    }

    /// Refuses to go on where the guest waits for an answer.
    pub(crate) const fn check_given(&self) -> Result<()> {
        match self.value {
            Some(Place { size, .. }) if self.needed => Err(Error::ExitUnanswered { size }),
            _ => Ok(()),
        }
    }

    /// Where an answer of that many bytes goes.
    pub(crate) fn place(&self, given: usize) -> Result<usize> {
        let Place { at, size: expected } = self.value()?;
        if given == expected {
            return Ok(at);
        }
        let whole = self.whole.filter(|whole| whole.size == given);
        whole.map(|whole| whole.at).ok_or(Error::AnswerSize { expected, given })
    }

    /// Bytes that a number takes.
    pub(crate) fn size(&self) -> Result<usize> {
        self.value().map(|value| value.size)
    }

    /// Where a fault is asked for.
    pub(crate) fn fault(&self) -> Result<usize> {
        self.fault.ok_or(Error::InvalidArgument { what: "answer", expected: "a value: this exit takes no fault" })
    }

    fn value(&self) -> Result<Place> {
        self.value
            .ok_or(Error::InvalidArgument { what: "answer", expected: "a fault, or none: this exit takes no value" })
    }

    /// Every part of the page that an answer may write.
    #[cfg(test)]
    pub(super) fn places(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let spans = [self.value, self.whole, self.fault.map(|at| Place { at, size: 1 })];
        spans.into_iter().flatten().map(|Place { at, size }| at..at + size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_size_of_the_value_or_of_the_whole() {
        let wanted = Wanted::long(40).or_whole(32, 16);
        assert_eq!(wanted.size().unwrap(), 8);
        assert_eq!(wanted.place(8).unwrap(), 40);
        assert_eq!(wanted.place(16).unwrap(), 32);
        for given in [0, 1, 7, 9, 15, 17] {
            let refused = wanted.place(given).unwrap_err();
            assert!(matches!(refused, Error::AnswerSize { expected: 8, given: same } if same == given));
        }
        assert!(matches!(Wanted::long(40).place(16), Err(Error::AnswerSize { expected: 8, given: 16 })));
    }

    #[test]
    fn a_guest_goes_on_without_an_answer_only_where_the_kernel_has_put_one() {
        assert!(matches!(Wanted::bytes(40, 3).check_given(), Err(Error::ExitUnanswered { size: 3 })));
        assert!(matches!(Wanted::long(40).or_fault(32).check_given(), Err(Error::ExitUnanswered { size: 8 })));
        assert!(Wanted::long(40).or_none().check_given().is_ok());
        assert!(Wanted::only_fault(32).check_given().is_ok());
    }

    #[test]
    fn a_fault_is_for_those_that_take_one() {
        assert_eq!(Wanted::long(40).or_fault(32).fault().unwrap(), 32);
        assert_eq!(Wanted::only_fault(33).fault().unwrap(), 33);
        assert!(matches!(Wanted::long(40).fault(), Err(Error::InvalidArgument { what: "answer", .. })));
        let only = Wanted::only_fault(32);
        assert!(matches!(only.place(8), Err(Error::InvalidArgument { what: "answer", .. })));
        assert!(matches!(only.size(), Err(Error::InvalidArgument { what: "answer", .. })));
    }
}
