//! Steps that all have to be taken, though each may run a program's own code, which may panic.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
};

/// The first panic of several steps. Every one has been told by the panic hook already.
#[derive(Default)]
pub(crate) struct Panics {
    first: Option<Box<dyn Any + Send>>,
}

impl Panics {
    /// Takes a step, and goes on whatever comes of it.
    pub(crate) fn catch(&mut self, step: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(step)) {
            match self.first {
                None => self.first = Some(panic),
                Some(_) => leave(panic),
            }
        }
    }

    /// Panics with the first one; but not where the thread does so already, as a second panic would end the process.
    pub(crate) fn resume(self) {
        match self.first {
            Some(panic) if thread::panicking() => leave(panic),
            Some(panic) => resume_unwind(panic),
            None => {}
        }
    }
}

/// What nobody will look at is not dropped either: that could panic again.
fn leave(panic: Box<dyn Any + Send>) {
    let _left = Box::leak(panic);
}

/// A value of a program's: what its drop does is not ours, and may be to panic. Where the thread unwinds already, that
/// panic goes no further.
#[derive(Debug)]
pub(crate) struct Foreign<T>(Option<T>);

impl<T> Foreign<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T> Drop for Foreign<T> {
    fn drop(&mut self) {
        let mut panics = Panics::default();
        panics.catch(|| drop(self.0.take()));
        panics.resume();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts, and panics with what it is.
    struct Bad<'a>(&'static str, &'a std::cell::Cell<u32>);

    impl Drop for Bad<'_> {
        fn drop(&mut self) {
            self.1.set(self.1.get() + 1);
            std::panic::panic_any(self.0);
        }
    }

    fn message(panics: impl FnOnce()) -> &'static str {
        catch_unwind(AssertUnwindSafe(panics)).unwrap_err().downcast_ref::<&'static str>().copied().unwrap()
    }

    #[test]
    fn all_steps_are_taken_and_the_first_panic_goes_on() {
        let dropped = std::cell::Cell::new(0);
        let steps = || {
            let mut panics = Panics::default();
            panics.catch(|| ());
            panics.catch(|| drop(Bad("first", &dropped)));
            panics.catch(|| drop(Bad("second", &dropped)));
            panics.resume();
        };
        assert_eq!((message(steps), dropped.get()), ("first", 2));
        Panics::default().resume();
    }

    /// Any other way the process ends at the second one.
    #[test]
    fn values_that_panic_as_they_are_dropped_are_all_dropped() {
        let dropped = std::cell::Cell::new(0);
        let all = || drop(["one", "two", "three"].map(|name| Foreign::new(Bad(name, &dropped))));
        assert_eq!((message(all), dropped.get()), ("one", 3));
    }
}
