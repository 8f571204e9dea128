//! The protocol of bench/lib/child.mjs.
#![expect(clippy::print_stdout, reason = "the harness reads it")]

use std::{
    error::Error,
    io::stdin,
    time::{Duration, Instant},
};

/// What a batch came to.
pub(crate) struct Figures {
    /// Of one operation: the one in the middle, where each was timed.
    pub(crate) each: Duration,
    /// What 99 of 100 do not exceed, where each was timed.
    pub(crate) p99: Option<Duration>,
}

/// Says that it is ready, then answers each `run COUNT` with the nanoseconds of one `operation`, until stdin ends.
pub(crate) fn serve(mut operation: impl FnMut() -> typevisor::Result<()>) -> Result<(), Box<dyn Error>> {
    serve_lines(|count| {
        let start = Instant::now();
        for _ in 0..count {
            operation()?;
        }
        Ok(format!("ns {}", nanoseconds(start.elapsed()) / f64::from(count)))
    })
}

/// The same with what `batch` found of that many operations.
pub(crate) fn serve_batches(
    mut batch: impl FnMut(u32) -> Result<Figures, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    serve_lines(|count| {
        let Figures { each, p99 } = batch(count)?;
        let p99 = p99.map(|p99| format!(" p99={}", nanoseconds(p99)));
        Ok(format!("ns {}{}", nanoseconds(each), p99.unwrap_or_default()))
    })
}

fn serve_lines(mut answer: impl FnMut(u32) -> Result<String, Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    println!("ready");
    for line in stdin().lines() {
        let count = line?.strip_prefix("run ").ok_or("run COUNT was expected")?.parse()?;
        println!("{}", answer(count)?);
    }
    Ok(())
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// Says why it cannot go on.
pub(crate) fn failed(error: &dyn Error) {
    println!("failed {error}");
}
