//! Finding bytes in guest memory: copied piece by piece (the guest may change them at any time), searched in the copy.

use memchr::memmem::Finder;

use super::{
    access::{Part, refused},
    backing::Backed,
    guest_memory::GuestMemory,
    slot_map::{Piece, Pieces},
};
use crate::{
    error::{Error, Result},
    range::GpaRange,
};

/// How much is copied at a time, unless the pattern is longer (bytes): much against the cost of an access, little against
/// caches and the host's memory.
const CHUNK: usize = 256 << 10;

impl GuestMemory {
    /// The guest physical addresses in `range` at which `pattern` begins, in order, overlapping ones too; at most `limit`.
    /// A match lies in the range as a whole, across slot borders too. What the guest writes meanwhile may be found or not.
    ///
    /// The time it takes grows with the size of the range and not with what the guest put there; it needs host memory of
    /// 256 KiB and ten times the pattern.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an empty pattern, and those of [`GuestMemory::read`]: all of the range has to be
    /// memory, and to be reached, up to the last match.
    ///
    /// ```no_run
    /// use typevisor::{GpaRange, Kvm, Vm, VmOptions, memory::MapOptions};
    /// let vm = Vm::create(&Kvm::open(Default::default())?, &VmOptions::default())?;
    /// let ram = GpaRange::pages(0, 0x10_0000)?;
    /// vm.memory().map(&MapOptions::new(ram))?;
    /// vm.memory().write(0xf_5a40, b"RSD PTR ")?;
    /// assert_eq!(vm.memory().search(ram, b"RSD PTR ", 1)?, [0xf_5a40]);
    /// # Ok::<(), typevisor::Error>(())
    /// ```
    pub fn search(&self, range: GpaRange, pattern: &[u8], limit: usize) -> Result<Vec<u64>> {
        if pattern.is_empty() {
            return Err(Error::InvalidArgument { what: "the pattern", expected: "at least one byte" });
        }
        let pieces = self.look(|map| map.pieces(range, |region| region.backed().clone()))?;
        if pattern.len() as u64 > range.size() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        let mut window = Window::new(pattern);
        for chunk in Chunks::of(pieces, range.gpa(), CHUNK.max(pattern.len())) {
            if found.len() >= limit {
                break;
            }
            self.look(|_| Ok(()))?; // terabytes that nobody has touched take minutes: who closes the VM waits for a chunk
            let part = Part::of_slot(&chunk.backed, chunk.offset, chunk.size as u64)?;
            let bytes = window.room_for(chunk.size);
            part.read(bytes).map_err(|fault| refused(fault, chunk.gpa, range))?;
            let start = chunk.gpa + chunk.size as u64 - window.bytes.len() as u64;
            let matches = Matches::new(&window.finder, &window.bytes).take(limit - found.len());
            found.extend(matches.map(|offset| start + offset as u64));
        }
        Ok(found)
    }
}

/// A stretch of one slot.
struct Chunk {
    backed: Backed,
    /// In bytes from the start of the slot.
    offset: u64,
    size: usize,
    gpa: u64,
}

/// The pieces of an access, cut into chunks of at most `limit` bytes.
struct Chunks<I> {
    pieces: I,
    current: Option<Piece<Backed>>,
    gpa: u64,
    limit: usize,
}

impl Chunks<()> {
    fn of(pieces: Pieces<Backed>, gpa: u64, limit: usize) -> Chunks<impl Iterator<Item = Piece<Backed>>> {
        Chunks { pieces: pieces.into_iter(), current: None, gpa, limit }
    }
}

impl<I: Iterator<Item = Piece<Backed>>> Iterator for Chunks<I> {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        let Piece { value: backed, offset, size: left } = self.current.take().or_else(|| self.pieces.next())?;
        let size = usize::try_from(left).unwrap_or(self.limit).min(self.limit);
        let chunk = Chunk { backed: backed.clone(), offset, size, gpa: self.gpa };
        let taken = size as u64;
        self.gpa += taken;
        if taken < left {
            self.current = Some(Piece { value: backed, offset: offset + taken, size: left - taken });
        }
        Some(chunk)
    }
}

/// The bytes that are searched: the newest chunk, and before it the end of the last one, one byte less than a match has.
/// So each match is seen whole, once.
struct Window<'p> {
    finder: Finder<'p>,
    bytes: Vec<u8>,
}

impl<'p> Window<'p> {
    fn new(pattern: &'p [u8]) -> Self {
        Self { finder: Finder::new(pattern), bytes: Vec::new() }
    }

    /// Makes room for the next chunk and gives it.
    fn room_for(&mut self, size: usize) -> &mut [u8] {
        let kept = self.bytes.len().min(self.finder.needle().len() - 1);
        self.bytes.drain(..self.bytes.len() - kept);
        self.bytes.resize(kept + size, 0);
        self.bytes.get_mut(kept..).unwrap_or_default()
    }
}

/// Where a pattern begins, overlapping matches too, in time linear in the bytes: guests choose what is in their memory,
/// and "aaa…" must not cost a whole comparison at every byte.
///
/// A match can follow another after as many bytes as the pattern's period at the earliest, and to know whether it does it
/// is enough to compare that many new bytes. Where it does not, the next one begins half a pattern later or more.
struct Matches<'a> {
    finder: &'a Finder<'a>,
    bytes: &'a [u8],
    /// The smallest number of bytes by which the pattern can be shifted onto itself; known from the first match on.
    period: Option<usize>,
    last: Option<usize>,
}

impl<'a> Matches<'a> {
    fn new(finder: &'a Finder<'a>, bytes: &'a [u8]) -> Self {
        Self { finder, bytes, period: None, last: None }
    }

    fn search(&self, from: usize) -> Option<usize> {
        Some(from + self.finder.find(self.bytes.get(from..)?)?)
    }
}

impl Iterator for Matches<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let found = match self.last {
            None => self.search(0),
            Some(last) => {
                let pattern = self.finder.needle();
                let period = *self.period.get_or_insert_with(|| period(pattern));
                let (shifted, end) = (last + period, last + pattern.len());
                if self.bytes.get(end..end + period) == pattern.get(pattern.len() - period..) {
                    Some(shifted)
                } else {
                    self.search(shifted + 1)
                }
            }
        };
        self.last = found.or(self.last);
        found
    }
}

/// The smallest period of `pattern`, 1 at least and its length at most: by the failure function of Knuth, Morris and
/// Pratt.
fn period(pattern: &[u8]) -> usize {
    // borders[n]: how long the longest proper prefix of the first n + 1 bytes is that is their suffix too.
    let mut borders: Vec<usize> = Vec::with_capacity(pattern.len());
    let mut border = 0;
    for (index, byte) in pattern.iter().enumerate() {
        if index > 0 {
            while border > 0 && pattern.get(border) != Some(byte) {
                border = borders.get(border - 1).copied().unwrap_or(0);
            }
            if pattern.get(border) == Some(byte) {
                border += 1;
            }
        }
        borders.push(border);
    }
    pattern.len() - border
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(bytes: &[u8], pattern: &[u8]) -> Vec<usize> {
        Matches::new(&Finder::new(pattern), bytes).collect()
    }

    fn plain(bytes: &[u8], pattern: &[u8]) -> Vec<usize> {
        (0..bytes.len()).filter(|&at| bytes[at..].starts_with(pattern)).collect()
    }

    #[test]
    fn a_period_is_how_far_a_pattern_repeats() {
        for (pattern, expected) in [("a", 1), ("aaaa", 1), ("abab", 2), ("ababa", 2), ("abcab", 3), ("abcd", 4)] {
            assert_eq!(period(pattern.as_bytes()), expected, "{pattern}");
        }
    }

    #[test]
    fn a_miss_ends_the_search_and_not_the_iterator_s_memory() {
        assert_eq!(matches(b"aaaabaaa", b"aaa"), [0, 1, 5]);
        assert_eq!(matches(b"ababaXabab", b"aba"), [0, 2, 6]);
        assert_eq!(matches(b"ab", b"abc"), [0_usize; 0]);
    }

    proptest! {
        #[test]
        fn every_overlapping_match_is_found_once(
            bytes in prop::collection::vec(0_u8..2, 0..60),
            pattern in prop::collection::vec(0_u8..2, 1..7),
        ) {
            prop_assert_eq!(matches(&bytes, &pattern), plain(&bytes, &pattern));
        }

        #[test]
        fn chunks_hide_no_match_and_show_none_twice(
            bytes in prop::collection::vec(0_u8..2, 1..60),
            pattern in prop::collection::vec(0_u8..2, 1..7),
            sizes in prop::collection::vec(1_usize..9, 1..60),
        ) {
            let mut window = Window::new(&pattern);
            let (mut found, mut done) = (Vec::new(), 0);
            for size in sizes.iter().cycle() {
                let Some(chunk) = bytes.get(done..(done + size).min(bytes.len())).filter(|chunk| !chunk.is_empty()) else {
                    break;
                };
                window.room_for(chunk.len()).copy_from_slice(chunk);
                done += chunk.len();
                let start = done - window.bytes.len();
                found.extend(Matches::new(&window.finder, &window.bytes).map(|at| start + at));
            }
            prop_assert_eq!(found, plain(&bytes, &pattern));
        }
    }
}
