//! The fuzzer's corpus once more, without the fuzzer: what it has found stays found.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

#[path = "../../../fuzz/src/decode_exit.rs"]
mod decode_exit;

/// Runs a target's check over its corpus, and gives how many inputs there are.
fn replay(target: &str, check: fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let inputs = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    inputs.map(|input| check(&fs::read(input.unwrap().path()).unwrap())).count()
}

#[test]
fn the_exit_decoder_holds_over_its_corpus() {
    let inputs = replay("decode_exit", decode_exit::check);
    assert!(inputs >= 44, "{inputs} inputs: at least one for each exit of the header");
}
