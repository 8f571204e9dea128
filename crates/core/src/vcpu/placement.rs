//! Under which name and on which processors a vCPU's own thread runs. What is asked for is checked before KVM is asked
//! for the vCPU, which it would keep.

use std::thread::Builder;

use crate::{
    Cpus,
    error::{Errno, Error, Result},
    sys::{affinity::CpuSet, signal::KickSignal},
};

/// Bytes of a thread's name, as Linux has them (`TASK_COMM_LEN`, without the NUL).
const NAME_MAX: usize = 15;

/// Where a vCPU's own thread runs, and what it is called.
#[derive(Clone, Default)]
pub(crate) struct Placement {
    name: Option<String>,
    cpus: Option<CpuSet>,
}

impl Placement {
    /// What [`super::VcpuOptions`] ask for.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], [`Error::CpuNotAllowed`], [`Error::Os`] where no thread can be started to ask by.
    pub(crate) fn new(name: Option<String>, affinity: Option<&[u32]>) -> Result<Self> {
        let name = name.map(check_name).transpose()?;
        let cpus = affinity.map(check_affinity).transpose()?;
        Ok(Self { name, cpus })
    }

    /// The name of the thread of that vCPU.
    pub(crate) fn name(&self, id: u32) -> String {
        self.name.clone().unwrap_or_else(|| format!("kvm-vcpu{id}"))
    }

    /// The processors that were asked for; none: those of the thread that starts it.
    pub(crate) fn cpus(&self) -> Option<&CpuSet> {
        self.cpus.as_ref()
    }
}

fn check_name(name: String) -> Result<String> {
    if name.is_empty() || name.len() > NAME_MAX || name.contains('\0') {
        return Err(Error::InvalidArgument {
            what: "name",
            expected: "1 to 15 bytes without NUL, as names of threads are",
        });
    }
    Ok(name)
}

fn check_affinity(cpus: &[u32]) -> Result<CpuSet> {
    if cpus.is_empty() {
        return Err(Error::InvalidArgument { what: "affinity", expected: "at least one CPU" });
    }
    let allowed = allowed()?;
    match cpus.iter().find(|cpu| !allowed.contains(**cpu)) {
        Some(&cpu) => Err(Error::CpuNotAllowed { cpu, allowed: Cpus(allowed.iter().collect()) }),
        None => Ok(CpuSet::of(cpus)),
    }
}

/// Where threads of this process may be put: those online in its cpuset, which may be more than this thread has now
/// (`taskset`). No file says so everywhere, but a thread that asks for all gets these.
fn allowed() -> Result<CpuSet> {
    let ask = || {
        CpuSet::all().apply()?;
        CpuSet::of_this_thread()
    };
    let thread = KickSignal::with_all_blocked(|| Builder::new().name("kvm-affinity".into()).spawn(ask))
        .map_err(|error| Error::Os { call: "pthread_create", errno: Errno::from(error) })?;
    thread.join().unwrap_or_else(|panic| Err(Error::from_panic(&*panic)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(name: Option<&str>, affinity: Option<&[u32]>) -> Result<Placement> {
        Placement::new(name.map(str::to_owned), affinity)
    }

    #[test]
    fn names_are_those_that_linux_has() {
        assert_eq!(placement(None, None).unwrap().name(7), "kvm-vcpu7");
        for name in ["a", "fifteen bytes..", "äöü"] {
            assert_eq!(placement(Some(name), None).unwrap().name(7), name);
        }
        for name in ["", "sixteen bytes...", "äöüäöüäö", "a\0"] {
            assert!(matches!(placement(Some(name), None), Err(Error::InvalidArgument { what: "name", .. })), "{name}");
        }
    }

    #[test]
    fn processors_are_those_that_this_process_may_use() {
        let allowed: Vec<_> = allowed().unwrap().iter().collect();
        let placed = placement(None, Some(&allowed)).unwrap();
        assert_eq!(placed.cpus().unwrap().iter().collect::<Vec<_>>(), allowed);
        assert!(placement(None, None).unwrap().cpus().is_none());
        assert!(matches!(placement(None, Some(&[])), Err(Error::InvalidArgument { what: "affinity", .. })));
        let absent = (0..8192).find(|cpu| !allowed.contains(cpu)).unwrap();
        for cpu in [absent, 8191, 8192, u32::MAX] {
            let refused = placement(None, Some(&[allowed[0], cpu])).map(drop);
            assert!(matches!(&refused, Err(Error::CpuNotAllowed { cpu: named, .. }) if *named == cpu), "{refused:?}");
        }
    }

    /// A thread that is held to one processor may put others elsewhere.
    #[test]
    fn the_caller_s_own_processors_are_no_limit_and_stay_its_own() {
        std::thread::spawn(|| {
            let everywhere = allowed().unwrap();
            let one = CpuSet::of(&[everywhere.iter().next().expect("it runs somewhere")]);
            one.apply().unwrap();
            assert!(allowed().unwrap() == everywhere);
            assert!(CpuSet::of_this_thread().unwrap() == one);
        })
        .join()
        .unwrap();
    }
}
