//! The decoder on pages made by hand, as the structs of the header lay them out, and on any bytes at all.

mod accesses;
mod faults;
mod plain;
mod properties;
mod requests;

use super::*;

/// Where the payload begins, counted in the header by hand.
const PAYLOAD_AT: usize = 32;

/// A page in which everything that is not given is stale.
#[derive(Clone)]
struct Page {
    bytes: Vec<u8>,
    at: usize,
}

const STALE: u8 = 0xa5;

impl Page {
    /// `kvm_run.exit_reason` is the third word of the page.
    fn of(reason: u32) -> Self {
        let mut bytes = vec![STALE; 8192];
        bytes[8..12].copy_from_slice(&reason.to_le_bytes());
        Self { bytes, at: PAYLOAD_AT }
    }

    /// The next bytes of the payload.
    fn with(mut self, next: &[u8]) -> Self {
        self.bytes[self.at..self.at + next.len()].copy_from_slice(next);
        self.at += next.len();
        self
    }

    fn u8(self, next: u8) -> Self {
        self.with(&[next])
    }

    fn u16(self, next: u16) -> Self {
        self.with(&next.to_le_bytes())
    }

    fn u32(self, next: u32) -> Self {
        self.with(&next.to_le_bytes())
    }

    fn u64(self, next: u64) -> Self {
        self.with(&next.to_le_bytes())
    }

    /// Bytes anywhere in the page.
    fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn view(&self) -> RunBytes<'_> {
        RunBytes::of_page(&self.bytes)
    }

    fn exit(&self) -> Exit {
        self.exit_on(X86)
    }

    fn exit_on(&self, abi: Abi) -> Exit {
        decode_exit(self.view(), None, abi)
    }

    fn failed(&self, errno: i32) -> Exit {
        decode_exit(self.view(), Some(Errno(errno)), X86)
    }

    /// What the exit needs, which is no access.
    fn pending(&self) -> Pending {
        self.pending_on(X86)
    }

    fn pending_on(&self, abi: Abi) -> Pending {
        match decode(self.view(), abi) {
            Raw::Access(access) => access.pending(),
            Raw::Other(_, pending) => pending,
        }
    }

    /// The same page of which only the first bytes are there.
    fn cut(&self, len: usize) -> Exit {
        decode_exit(RunBytes::of_page(&self.bytes[..len]), None, X86)
    }
}

const X86: Abi = Abi { arch: Arch::X86_64, system_event_data: true };
const ARM: Abi = Abi { arch: Arch::Aarch64, system_event_data: true };

/// Every page of a kind as long as it has to be, and not a byte less: a page that ends earlier is unknown with the bytes
/// that there are.
#[track_caller]
fn assert_needs(page: &Page, end: usize, abi: Abi) {
    let exit = page.exit_on(abi);
    let cut = |len: usize| decode_exit(RunBytes::of_page(&page.bytes[..len]), None, abi);
    assert_eq!(cut(end).kind(), exit.kind());
    let Exit::Unknown { bytes, .. } = cut(end - 1) else { panic!("decoded {:?} from {} bytes", exit, end - 1) };
    assert_eq!(*bytes, page.bytes[PAYLOAD_AT.min(end - 1)..end - 1]);
}
