//! The protocol of bench/lib/child.mjs.
#![expect(clippy::print_stdout, reason = "the harness reads it")]

use std::{error::Error, io::stdin, time::Instant};

/// Says that it is ready, then answers each `run COUNT` with the nanoseconds of one `operation`, until stdin ends.
pub(crate) fn serve(mut operation: impl FnMut() -> typevisor::Result<()>) -> Result<(), Box<dyn Error>> {
    println!("ready");
    for line in stdin().lines() {
        let count: u32 = line?.strip_prefix("run ").ok_or("run COUNT was expected")?.parse()?;
        let start = Instant::now();
        for _ in 0..count {
            operation()?;
        }
        println!("ns {}", start.elapsed().as_secs_f64() * 1e9 / f64::from(count));
    }
    Ok(())
}

/// Says why it cannot go on.
pub(crate) fn failed(error: &dyn Error) {
    println!("failed {error}");
}
