//! Any bytes for the exit decoder.
#![no_main]

#[path = "../src/decode_exit.rs"]
mod decode_exit;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| decode_exit::check(input));
