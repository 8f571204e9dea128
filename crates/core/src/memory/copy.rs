//! Copies between guest memory that is reached directly and host buffers. The guest may read and write the same bytes at the same time, so
//! there is never a `&[u8]` over guest memory: every access is a relaxed atomic one of the widest aligned size, and
//! an aligned value of 2, 4 or 8 bytes that lies in an access is never torn. (`memcpy`, and with it vm-memory's bulk
//! copy, promises no such thing.) Two copies of ours of different alignment may race on the same word: Rust's memory
//! model does not define mixed sizes, both architectures do (no tearing below the smaller size), and so does codegen:
//! relaxed atomics of these widths are plain loads and stores.
#![expect(unsafe_code, reason = "access to memory that the guest shares")]

use std::{
    marker::PhantomData,
    ptr::NonNull,
    sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use crate::sys::mapping::Mapping;

/// A stretch of guest memory whose mapping is kept alive by the borrow.
#[derive(Debug, Clone, Copy)]
pub(super) struct GuestBytes<'a> {
    address: NonNull<u8>,
    size: usize,
    mapping: PhantomData<&'a Mapping>,
}

impl<'a> GuestBytes<'a> {
    /// `size` bytes of `mapping` from `offset` on, or nothing where it does not have those.
    pub(super) fn of(mapping: &'a Mapping, offset: usize, size: usize) -> Option<Self> {
        if offset.checked_add(size)? > mapping.size() {
            return None;
        }
        // SAFETY: `offset` is at most the mapping's size, so the result lies in it or one past its end.
        let address = unsafe { mapping.address().add(offset) };
        Some(Self { address, size, mapping: PhantomData })
    }

    /// First byte, valid for [`GuestBytes::size`] bytes while `'a` lasts.
    pub(super) const fn address(self) -> *mut u8 {
        self.address.as_ptr()
    }

    /// Length in bytes.
    pub(super) const fn size(self) -> usize {
        self.size
    }

    /// Copies guest memory to `target`; the shorter of the two decides how much.
    pub(super) fn read(self, mut target: &mut [u8]) {
        for run in self.runs(target.len()) {
            let Some((bytes, rest)) = target.split_at_mut_checked(run.size) else {
                return;
            };
            match run.width {
                8 => Word::load(self.words::<AtomicU64>(run), bytes),
                4 => Word::load(self.words::<AtomicU32>(run), bytes),
                2 => Word::load(self.words::<AtomicU16>(run), bytes),
                _ => Word::load(self.words::<AtomicU8>(run), bytes),
            }
            target = rest;
        }
    }

    /// Copies `source` to guest memory; the shorter of the two decides how much.
    pub(super) fn write(self, mut source: &[u8]) {
        for run in self.runs(source.len()) {
            let Some((bytes, rest)) = source.split_at_checked(run.size) else {
                return;
            };
            match run.width {
                8 => Word::store(self.words::<AtomicU64>(run), bytes),
                4 => Word::store(self.words::<AtomicU32>(run), bytes),
                2 => Word::store(self.words::<AtomicU16>(run), bytes),
                _ => Word::store(self.words::<AtomicU8>(run), bytes),
            }
            source = rest;
        }
    }

    /// Makes every byte `byte`.
    pub(super) fn fill(self, byte: u8) {
        for run in self.runs(self.size) {
            match run.width {
                8 => Word::fill(self.words::<AtomicU64>(run), byte),
                4 => Word::fill(self.words::<AtomicU32>(run), byte),
                2 => Word::fill(self.words::<AtomicU16>(run), byte),
                _ => Word::fill(self.words::<AtomicU8>(run), byte),
            }
        }
    }

    fn runs(self, limit: usize) -> Runs {
        Runs { address: self.address.addr().get(), offset: 0, end: self.size.min(limit) }
    }

    /// The words of `run`; none where the run is not one of these bytes, or not aligned.
    fn words<W: Word>(self, run: Run) -> &'a [W] {
        let inside = run.offset.checked_add(run.size).is_some_and(|end| end <= self.size);
        let aligned = self.address.addr().get().wrapping_add(run.offset).is_multiple_of(align_of::<W>());
        if !inside || !aligned {
            return &[];
        }
        // SAFETY: `offset` is at most `size`, which is how far `address` reaches.
        let first = unsafe { self.address.add(run.offset) }.cast::<W>();
        // SAFETY: aligned for `W` and inside the mapping by the checks above; the mapping outlives 'a and is readable
        // and writable. `W` is one of the four atomics below: every byte pattern is valid, and a shared reference
        // allows others, the guest included, to change it.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), run.size / size_of::<W>()) }
    }
}

/// Neighbouring words of one width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// Bytes from the start of the access.
    offset: usize,
    /// Bytes, a multiple of `width`.
    size: usize,
    /// 1, 2, 4 or 8 bytes; `address + offset` is a multiple of it.
    width: usize,
}

/// Cuts an access into runs of the widest words that are aligned and fit. An aligned word that lies in the access
/// whole is thus never cut: either a wider word holds it or a run begins with it.
struct Runs {
    address: usize,
    offset: usize,
    end: usize,
}

impl Iterator for Runs {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let left = self.end.checked_sub(self.offset).filter(|&left| left > 0)?;
        let aligned = 1_usize << self.address.wrapping_add(self.offset).trailing_zeros().min(3);
        let width = aligned.min(1 << left.ilog2());
        let size = if width == 8 { left & !7 } else { width };
        let run = Run { offset: self.offset, size, width };
        self.offset += size;
        Some(run)
    }
}

/// An atomic integer. Implemented for the four below and nothing else: `words` relies on it.
trait Word: Sized {
    /// Copies word after word to `bytes`.
    fn load(words: &[Self], bytes: &mut [u8]);
    /// Copies `bytes` to word after word.
    fn store(words: &[Self], bytes: &[u8]);
    /// Makes every byte of every word `byte`.
    fn fill(words: &[Self], byte: u8);
}

macro_rules! word {
    ($atomic:ty, $plain:ty) => {
        impl Word for $atomic {
            fn load(words: &[Self], bytes: &mut [u8]) {
                let (chunks, _) = bytes.as_chunks_mut::<{ size_of::<$plain>() }>();
                for (word, chunk) in words.iter().zip(chunks) {
                    *chunk = word.load(Relaxed).to_ne_bytes();
                }
            }

            fn store(words: &[Self], bytes: &[u8]) {
                let (chunks, _) = bytes.as_chunks::<{ size_of::<$plain>() }>();
                for (word, chunk) in words.iter().zip(chunks) {
                    word.store(<$plain>::from_ne_bytes(*chunk), Relaxed);
                }
            }

            fn fill(words: &[Self], byte: u8) {
                let value = <$plain>::from_ne_bytes([byte; size_of::<$plain>()]);
                for word in words {
                    word.store(value, Relaxed);
                }
            }
        }
    };
}

word!(AtomicU8, u8);
word!(AtomicU16, u16);
word!(AtomicU32, u32);
word!(AtomicU64, u64);

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;
    use crate::sys::mapping::Source;

    fn page() -> Mapping {
        Mapping::of(Source::Anonymous, 4096).unwrap()
    }

    fn runs(address: usize, size: usize) -> Vec<(usize, usize)> {
        Runs { address, offset: 0, end: size }.map(|run| (run.width, run.size)).collect()
    }

    #[test]
    fn runs_are_as_wide_as_they_can_be() {
        assert_eq!(runs(8, 16), [(8, 16)]);
        assert_eq!(runs(1, 7 + 16 + 7), [(1, 1), (2, 2), (4, 4), (8, 16), (4, 4), (2, 2), (1, 1)]);
        assert_eq!(runs(2, 3), [(2, 2), (1, 1)]);
        assert_eq!(runs(8, 7), [(4, 4), (2, 2), (1, 1)]);
        assert_eq!(runs(0, 0), []);
    }

    #[test]
    fn what_the_mapping_does_not_have_is_refused() {
        let mapping = page();
        assert!(GuestBytes::of(&mapping, 0, 4096).is_some());
        assert!(GuestBytes::of(&mapping, 4096, 0).is_some());
        assert!(GuestBytes::of(&mapping, 1, 4096).is_none());
        assert!(GuestBytes::of(&mapping, usize::MAX, 2).is_none());
    }

    proptest! {
        #[test]
        fn no_aligned_word_is_cut(address in 0_usize..16, size in 0_usize..80) {
            let mut covered = 0;
            let mut words = Vec::new();
            for run in (Runs { address, offset: 0, end: size }) {
                prop_assert_eq!(run.offset, covered);
                prop_assert!((address + run.offset).is_multiple_of(run.width) && run.size.is_multiple_of(run.width));
                words.extend((0..run.size / run.width).map(|n| (address + run.offset + n * run.width, run.width)));
                covered += run.size;
            }
            prop_assert_eq!(covered, size);
            for width in [2, 4, 8] {
                for first in (address..(address + size + 1).saturating_sub(width)).filter(|at| at.is_multiple_of(width)) {
                    let whole = words.iter().any(|&(at, wide)| at <= first && first + width <= at + wide);
                    prop_assert!(whole, "the {width} bytes at {first} are torn by {words:?}");
                }
            }
        }

        #[test]
        fn bytes_arrive_where_they_should(
            offset in 0_usize..24,
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            fill in any::<u8>(),
        ) {
            let mapping = page();
            let mut model = [0_u8; 128];
            let all = GuestBytes::of(&mapping, 0, 128).unwrap();
            let part = GuestBytes::of(&mapping, offset, bytes.len()).unwrap();
            let compare = |model: &[u8; 128]| {
                let mut found = [0xee; 128];
                all.read(&mut found);
                assert_eq!(&found, model);
                let mut found = vec![0xee; bytes.len()];
                part.read(&mut found);
                assert_eq!(found, model[offset..offset + bytes.len()]);
            };
            part.write(&bytes);
            model[offset..offset + bytes.len()].copy_from_slice(&bytes);
            compare(&model);
            part.fill(fill);
            model[offset..offset + bytes.len()].fill(fill);
            compare(&model);
        }
    }

    #[test]
    fn the_shorter_side_decides() {
        let mapping = page();
        let four = GuestBytes::of(&mapping, 0, 4).unwrap();
        four.write(&[1; 8]);
        let mut found = [9; 8];
        GuestBytes::of(&mapping, 0, 8).unwrap().read(&mut found);
        assert_eq!(found, [1, 1, 1, 1, 0, 0, 0, 0]);
        let mut found = [9; 8];
        four.read(&mut found);
        assert_eq!(found, [1, 1, 1, 1, 9, 9, 9, 9]);
    }

    /// One thread writes words of equal bytes, the other reads them in unaligned ranges: no word is ever a mixture.
    #[test]
    fn words_do_not_tear_between_threads() {
        let mapping = page();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let all = GuestBytes::of(&mapping, 0, 256).unwrap();
                let mut byte = 0_u8;
                while !stop.load(Relaxed) {
                    byte = byte.wrapping_add(1);
                    all.write(&[byte; 256]);
                }
            });
            let mut found = [0_u8; 250];
            for round in 0..20_000 {
                let offset = round % 6;
                GuestBytes::of(&mapping, offset, 250).unwrap().read(&mut found);
                let (words, _) = found[8 - offset..].as_chunks::<8>();
                if let Some(word) = words.iter().find(|word| word.iter().any(|byte| *byte != word[0])) {
                    stop.store(true, Relaxed);
                    panic!("a torn word: {word:x?}");
                }
            }
            stop.store(true, Relaxed);
        });
    }
}
