//! Work on memory for the VM's control thread, and the word back. What a job takes from JavaScript it takes when it is
//! asked for; what it does may wait, for a file system or for a vCPU, and JavaScript's thread does not.
#![expect(unsafe_code, reason = "reading into an array of JavaScript's without a second copy")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use napi::bindgen_prelude::{Reference, Uint8Array};
use napi_derive::napi;
use typevisor::{Error, GpaRange, Result, Vm, memory::GuestMemory};

use crate::{
    backing::{NativeMapOptions, Wanted},
    change::{Done, NativeChange, Wish, check_open, make},
    convert::unsigned,
    environment::{Content, Mailbox, Message},
    memory::NativeSlot,
};

/// `NativeJob` in ts/native.ts.
#[napi(discriminant = "kind", discriminant_case = "kebab-case", object_to_js = false, use_nullable = true)]
pub enum NativeJob {
    Map { options: NativeMapOptions },
    Unmap { slot: Reference<NativeSlot> },
    Move { slot: Reference<NativeSlot>, gpa: i64 },
    Change { changes: Vec<NativeChange> },
    Read { gpa: i64, target: Uint8Array },
    Write { gpa: i64, bytes: Uint8Array },
    Fill { gpa: i64, size: i64, byte: u8 },
    Search { gpa: i64, size: i64, pattern: Uint8Array, limit: u32 },
}

/// A job, free of JavaScript and its thread. Gives what it did to slots, or what it found.
type Job = Box<dyn FnOnce(&GuestMemory) -> Result<Option<Done>> + Send>;

/// Hands a job to the control thread. Nothing of it holds the VM: one that nobody can reach any more is closed, and the
/// job then ends as closed.
pub(crate) fn submit(
    vm: &Vm,
    memory: &GuestMemory,
    mailbox: &Mailbox,
    id: i64,
    job: NativeJob,
    watched: bool,
) -> Result<()> {
    let job = prepare(job, watched)?;
    let memory = memory.clone();
    let reply = Reply { mailbox: mailbox.clone(), id, told: false };
    vm.control().submit(Box::new(move || {
        // A panic on that thread would take the jobs behind this one with it.
        let done = catch_unwind(AssertUnwindSafe(|| job(&memory)));
        reply.tell(done.unwrap_or_else(|panic| Err(Error::from_panic(&*panic))));
    }))
}

fn prepare(job: NativeJob, watched: bool) -> Result<Job> {
    Ok(match job {
        NativeJob::Map { options } => {
            let wanted = Wanted::new(options)?;
            Box::new(move |memory| {
                check_open(memory)?;
                Done::map(memory, &wanted.open()?, watched).map(Some)
            })
        }
        NativeJob::Unmap { slot } => {
            let slot = slot.core().clone();
            Box::new(move |_| Done::one(&slot, watched, || slot.unmap()).map(Some))
        }
        NativeJob::Move { slot, gpa } => {
            let (slot, gpa) = (slot.core().clone(), unsigned("gpa", gpa)?);
            Box::new(move |_| Done::one(&slot, watched, || slot.move_to(gpa)).map(Some))
        }
        NativeJob::Change { changes } => {
            let wishes = Wish::all(changes)?;
            Box::new(move |memory| make(memory, wishes, watched).map(Some))
        }
        NativeJob::Read { gpa, target } => {
            let gpa = unsigned("gpa", gpa)?;
            Box::new(move |memory| read(memory, gpa, target).map(|()| None))
        }
        NativeJob::Write { gpa, bytes } => {
            let gpa = unsigned("gpa", gpa)?;
            Box::new(move |memory| memory.write(gpa, &bytes).map(|()| None))
        }
        NativeJob::Fill { gpa, size, byte } => {
            let (gpa, size) = (unsigned("gpa", gpa)?, unsigned("size", size)?);
            Box::new(move |memory| memory.fill(gpa, size, byte).map(|()| None))
        }
        NativeJob::Search { gpa, size, pattern, limit } => {
            let range = GpaRange::new(unsigned("gpa", gpa)?, unsigned("size", size)?)?;
            Box::new(move |memory| {
                let found = memory.search(range, &pattern, limit as usize)?;
                Ok(Some(Done { found, ..Done::default() }))
            })
        }
    })
}

fn read(memory: &GuestMemory, gpa: u64, mut target: Uint8Array) -> Result<()> {
    // SAFETY: the facade made the array for this job and shows it to nobody before the job is done, so nothing else touches
    // its bytes, and nobody can detach them.
    memory.read(gpa, unsafe { target.as_mut() })
}

/// Who waits for a job. Is told once, also where the job is dropped undone, as the VM is closed.
struct Reply {
    mailbox: Mailbox,
    id: i64,
    told: bool,
}

impl Reply {
    fn tell(mut self, done: Result<Option<Done>>) {
        self.post(done.map(|done| done.map(Content::Done)));
    }

    fn post(&mut self, payload: Result<Option<Content>>) {
        self.told = true;
        self.mailbox.post(Message { id: self.id, payload, claim: 0, wakeup: None });
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.told {
            self.post(Err(Error::Closed { what: "VM" }));
        }
    }
}
