//! The one error type; which code each variant has is said in `error_code.rs`.

use std::{ops::Range, path::PathBuf};

pub(crate) use crate::errno::Errno;
pub use crate::error_code::ErrorCode;
use crate::{
    error_words::{Bytes, Cpus},
    range::GpaRange,
};

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something was refused. The message says what was asked, why it was refused and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// KVM said no for a reason that was not foreseen; `request` is the ioctl's name.
    #[error("{request} failed: {errno}")]
    Ioctl {
        /// Name of the ioctl, as in the kernel's header.
        request: &'static str,
        /// What the kernel returned.
        #[source]
        errno: Errno,
    },
    /// Another system call failed.
    #[error("{call} failed: {errno}")]
    Os {
        /// Name of the system call.
        call: &'static str,
        /// What the kernel returned.
        #[source]
        errno: Errno,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {errno}", path = path.display())]
    File {
        /// The file as it was named.
        path: PathBuf,
        /// What the kernel returned.
        #[source]
        errno: Errno,
    },
    /// A capability that the running kernel (or this VM) lacks.
    #[error(
        "{needed_by} needs the KVM capability {capability}, not offered here; Linux {since} has it, processor permitting"
    )]
    CapabilityMissing {
        /// Kebab-case name of the capability.
        capability: &'static str,
        /// What needed it.
        needed_by: &'static str,
        /// First kernel release that has it.
        since: &'static str,
    },
    /// A capability that the VM has, but for the part that is needed.
    #[error(
        "{needed_by} is not in the value {value:#x} of the KVM capability {capability} here; Linux {since} has it, \
         processor permitting"
    )]
    CapabilityPart {
        /// Kebab-case name of the capability.
        capability: &'static str,
        /// What needed it.
        needed_by: &'static str,
        /// The capability's value.
        value: i32,
        /// First kernel release that has this part.
        since: &'static str,
    },
    /// An element of a list that KVM would not take, or not obey.
    #[error("{list}[{index}] {why}")]
    Element {
        /// The argument: `exits.msr.filter`, `cpuid`.
        list: &'static str,
        /// Which one, from 0.
        index: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An argument that can never be right.
    #[error("{what} must be {expected}")]
    InvalidArgument {
        /// The argument.
        what: &'static str,
        /// What would have been right.
        expected: &'static str,
    },
    /// A name that no capability has.
    #[error("no KVM capability is called '{name}': names are the kernel's without KVM_CAP_, in kebab-case")]
    UnknownCapability {
        /// The name given.
        name: Box<str>,
    },
    /// A vCPU id that a vCPU of this VM has, or has had: KVM keeps closed ones.
    #[error("vCPU id {id} is taken: an id is used once in the life of a VM; choose another, or let one be chosen")]
    VcpuIdTaken {
        /// The id asked for.
        id: u32,
    },
    /// A vCPU id that this VM does not have.
    #[error("vCPU id {id} is out of range: ids of this VM are below {limit} (max-vcpu-id)")]
    VcpuIdRange {
        /// The id asked for, or the next that would have been free.
        id: u32,
        /// The first that is too high.
        limit: u32,
    },
    /// A processor that this process may not use.
    #[error("CPU {cpu} is not one that threads of this process may run on: those are {allowed}")]
    CpuNotAllowed {
        /// By the kernel's number.
        cpu: u32,
        /// Those that can be asked for.
        allowed: Cpus,
    },
    /// A claim on the bus that shares addresses with one that is there.
    #[error("{what} {new:#x?} overlap {old:#x?}, which is claimed; release that claim first")]
    ClaimOverlap {
        /// `ports` or `MMIO addresses`.
        what: &'static str,
        /// The addresses asked for.
        new: Range<u64>,
        /// Those that are claimed.
        old: Range<u64>,
    },
    /// Another part of this process handles the signal that kicks vCPUs.
    #[error(
        "signal {signal}, by which vCPUs are kicked, is handled by another part of this process; set \
         TYPEVISOR_KICK_SIGNAL to another n of SIGRTMIN+n"
    )]
    KickSignalTaken {
        /// The signal's number.
        signal: i32,
    },
    /// A guest physical range that is empty or that no guest can have.
    #[error(
        "{size:#x} bytes at guest physical address {gpa:#x}: a range has at least one byte and ends at or below 2^52"
    )]
    OutOfRange {
        /// First address asked for.
        gpa: u64,
        /// Bytes asked for.
        size: u64,
    },
    /// A guest physical range past what this VM can have.
    #[error("{range} is past what this VM can have: its guest physical addresses have {bits} bits")]
    AddressWidth {
        /// The range asked for.
        range: GpaRange,
        /// Bits of an address.
        bits: u32,
    },
    /// An address or size off its alignment.
    #[error("{what} {value:#x} is not a multiple of {alignment:#x}")]
    Unaligned {
        /// `gpa` or `size`.
        what: &'static str,
        /// The value given.
        value: u64,
        /// What it has to be a multiple of, in bytes.
        alignment: u64,
    },
    /// A new slot that shares addresses with one that exists.
    #[error("slot range {new} overlaps {old}; unmap that slot first")]
    SlotOverlap {
        /// The range asked for.
        new: GpaRange,
        /// The range that is there.
        old: GpaRange,
    },
    /// A slot where KVM has pages of its own: on x86, in a VM with in-kernel interrupt controllers.
    #[error("slot range {new} overlaps {reserved}, which KVM keeps for itself beside an irqchip; map around it")]
    SlotReserved {
        /// The range asked for.
        new: GpaRange,
        /// KVM's own.
        reserved: GpaRange,
    },
    /// A slot number that another slot has.
    #[error("slot number {number} is taken by the slot at {range}; unmap that slot first, or let a number be chosen")]
    SlotNumberTaken {
        /// The number asked for.
        number: u32,
        /// Where the slot that has it lies.
        range: GpaRange,
    },
    /// A slot number that this VM does not have.
    #[error("slot number {number} is out of range: this VM has {limit} memory slots, numbered from 0")]
    SlotNumberRange {
        /// The number asked for.
        number: u32,
        /// How many slots KVM reports (`nr-memslots`).
        limit: u32,
    },
    /// An address space that this VM does not have.
    #[error("address space {id} is out of range: this VM has {limit}, numbered from 0 (multi-address-space)")]
    AddressSpaceRange {
        /// The one asked for.
        id: u32,
        /// How many there are.
        limit: u32,
    },
    /// No slot number is left.
    #[error("this VM has {limit} memory slots and all are taken")]
    SlotLimit {
        /// How many slots KVM reports.
        limit: u32,
    },
    /// Host access to guest addresses behind which there is no memory. Nothing was copied.
    #[error("no memory at guest physical address {gpa:#x} (in the access to {range}); nothing was copied")]
    MemoryHole {
        /// First address without memory.
        gpa: u64,
        /// The whole access.
        range: GpaRange,
    },
    /// The host cannot reach memory of the guest's: what stands behind it is gone (a file that was truncated) or may not be
    /// written. What comes before `gpa` in the access may have been copied; of a read, nothing is to be relied on.
    #[error(
        "the host cannot reach guest memory at {gpa:#x} (in an access of {size:#x} bytes): {errno}; what stands behind it \
         is gone, as where a file was truncated, or is not to be written; what comes before it may have been copied"
    )]
    HostAccess {
        /// First address that was not reached.
        gpa: u64,
        /// Bytes of the whole access.
        size: u64,
        /// By which system call.
        call: &'static str,
        /// What the kernel returned.
        #[source]
        errno: Errno,
    },
    /// No RAM where firmware's copy below 1 MiB goes. Nothing was mapped or written.
    #[error(
        "no RAM at {gpa:#x}: a copy of the firmware goes to {range}; map RAM there first, 16 MiB from 0 on for a PC"
    )]
    FirmwareRam {
        /// First address without memory.
        gpa: u64,
        /// Where the copy goes.
        range: GpaRange,
    },
    /// A limit of this process or machine was reached.
    #[error("{what}: the limit of {limit} is reached; {remedy}")]
    Limit {
        /// What ran out.
        what: &'static str,
        /// How many there are.
        limit: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// Too few huge pages are free. Nothing was mapped.
    #[error(
        "{wanted} huge pages of {page_size} bytes are wanted and {free} are free; reserve more: echo {enough} > \
         /sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages (as root)", kib = page_size >> 10
    )]
    HugePages {
        /// Bytes of one page.
        page_size: u64,
        /// Pages that were asked for.
        wanted: u64,
        /// Pages that nobody has reserved.
        free: u64,
        /// How many pages of this size the machine needs to have for it.
        enough: u64,
    },
    /// The host has no room for guest memory.
    #[error("the host has no room for {size:#x} bytes: {errno}; map less, or raise the limits on memory (ulimit -v)")]
    HostMemory {
        /// Bytes asked for.
        size: u64,
        /// What the kernel returned.
        #[source]
        errno: Errno,
    },
    /// The object was closed, or closes while this call waits.
    #[error("the {what} {}", if *what == "memory slot" { "was unmapped" } else { "is closed" })]
    Closed {
        /// `VM`, `vCPU` or `memory slot`.
        what: &'static str,
    },
    /// Somebody else drives the vCPU right now.
    #[error("the vCPU is busy: {why}")]
    Busy {
        /// What it is doing, and what to do.
        why: &'static str,
    },
    /// A wait for what only the waiting thread could bring about.
    #[error("{what} would wait for itself: the VM is paused; resume it first, or run the vCPU on its own thread")]
    WouldDeadlock {
        /// What was asked for.
        what: &'static str,
    },
    /// A state that cannot be trusted any more.
    #[error("the {what} cannot be used any more: {why}; close it")]
    Poisoned {
        /// `VM` or `vCPU`.
        what: &'static str,
        /// What happened.
        why: &'static str,
    },
    /// A change of slots failed, and KVM refused to undo it: what the guest sees is not known any more.
    #[error(
        "the VM cannot be used any more: {request} failed while a change of slots that had failed ({cause}) was undone: \
         {errno}; close it"
    )]
    SlotsLost {
        /// Name of the ioctl, as in the kernel's header.
        request: &'static str,
        /// What the kernel returned to the undoing.
        #[source]
        errno: Errno,
        /// What it had returned to the change.
        cause: Errno,
    },
    /// The object belongs to the process that was forked.
    #[error("this VM belongs to the parent process: a fork does not carry it over; create one here")]
    Forked,
    /// A time limit passed.
    #[error("{what} took longer than {limit_ms} ms")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The guest waits for a value that was not given.
    #[error("the last exit wants an answer of {}; call answer() before running on", Bytes(*size))]
    ExitUnanswered {
        /// Bytes wanted.
        size: usize,
    },
    /// An answer for an exit that wants none.
    #[error("the last exit wants no answer")]
    NoAnswerExpected,
    /// An answer of the wrong length. Nothing was written.
    #[error("the last exit wants an answer of {}, not {given}", Bytes(*expected))]
    AnswerSize {
        /// Bytes wanted.
        expected: usize,
        /// Bytes given.
        given: usize,
    },
    /// A number that is no answer to the last exit. Nothing was written.
    #[error("the last exit wants {0}: answer with a number that fits, or with {0}", Bytes(*size))]
    AnswerRange {
        /// Bytes wanted.
        size: usize,
    },
    /// A guest image that cannot be loaded.
    #[error("the guest image is refused: {why}")]
    GuestImage {
        /// What is wrong with it.
        why: &'static str,
    },
    /// `/dev/kvm` cannot be used; the reason names cause and remedy.
    #[error("{reason}")]
    KvmUnavailable {
        /// Why, and what to do.
        reason: Box<crate::host::Unavailable>,
    },
    /// A bug in Typevisor: a panic was caught.
    #[error("internal error in Typevisor, please report it: {message}")]
    Internal {
        /// The panic's message.
        message: Box<str>,
    },
}

impl Error {
    /// Of a VM after [`Error::SlotsLost`].
    pub(crate) const SLOTS_POISONED: Self =
        Self::Poisoned { what: "VM", why: "a failed change of its memory slots could not be undone" };

    /// What the kernel returned and the call that did, where the kernel said no.
    #[must_use]
    pub const fn errno(&self) -> Option<(Errno, &'static str)> {
        match self {
            Self::Ioctl { request, errno } | Self::SlotsLost { request, errno, .. } => Some((*errno, request)),
            Self::Os { call, errno } | Self::HostAccess { call, errno, .. } => Some((*errno, call)),
            Self::File { errno, .. } => Some((*errno, "open")),
            Self::HostMemory { errno, .. } => Some((*errno, "mmap")),
            Self::KvmUnavailable { reason } => reason.refusal(),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
