//! Running one scenario with many seeds.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use core::any::Any;
use core::hash::BuildHasher as _;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::hash_map::RandomState;
use std::io::Write as _;
use std::panic::catch_unwind;
use std::sync::{Mutex, OnceLock};

use super::choices::Choices;
use super::trace::Trace;

/// A scenario: builds a network from the decisions, runs it and asserts.
pub type Scenario = fn(Choices, Trace);

/// Runs a scenario with `count` seeds, beginning at a random one. Uses all processors for more than
/// a few, and writes a line to the standard error stream: which seeds, how many a second.
///
/// | environment variable | replaces |
/// |---|---|
/// | `SIM_FIRST` | the random first seed |
/// | `SIM_SEEDS` | `count` |
/// | `SIM_SEED` | both: this seed alone |
///
/// # Panics
/// Panics with the seed, the reason and the trace when a run fails.
pub fn seeds(name: &str, count: u64, scenario: Scenario) {
    if let Some(seed) = number("SIM_SEED") {
        return one(name, seed, scenario);
    }
    let count = number("SIM_SEEDS").unwrap_or(count);
    let first = number("SIM_FIRST").unwrap_or_else(random_first);
    let end = first.saturating_add(count);
    let begun = std::time::Instant::now();
    let next = AtomicU64::new(first);
    let failed: Mutex<Option<(u64, Box<dyn Any + Send>)>> = Mutex::new(None);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let is_failed = failed.lock().is_ok_and(|failed| failed.is_some());
            if seed >= end || is_failed {
                return;
            }
            let run = || scenario(Choices::from_seed(seed), Trace::off());
            if let Err(reason) = catch_unwind(AssertUnwindSafe(run))
                && let Ok(mut failed) = failed.lock()
                && failed.as_ref().is_none_or(|(other, _)| seed < *other)
            {
                *failed = Some((seed, reason));
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 1..workers.min(usize::try_from(count / 16).unwrap_or(1)) {
            scope.spawn(work);
        }
        work();
    });
    let failed = failed.into_inner().ok().flatten();
    summary(name, first, count, begun.elapsed(), failed.is_some());
    if let Some((seed, reason)) = failed {
        explain(name, seed, &text(&*reason), scenario);
    }
}

/// A seed below 2^32 to begin with, another one in every process.
fn random_first() -> u64 {
    static FIRST: OnceLock<u64> = OnceLock::new();
    *FIRST.get_or_init(|| RandomState::new().hash_one(0u8) >> 32)
}

/// Writes past the test harness, which keeps to itself what tests that pass have to say.
fn summary(name: &str, first: u64, count: u64, time: Duration, is_failed: bool) {
    let rate = count as f64 / time.as_secs_f64().max(1e-6);
    let verdict = if is_failed {
        "FAILED".to_string()
    } else {
        format!("{rate:.1} seeds/s")
    };
    let line = format!("scenario {name}: {count} seeds from SIM_FIRST={first}, {verdict}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Runs a scenario with one seed.
///
/// # Panics
/// As [`seeds`].
pub fn one(name: &str, seed: u64, scenario: Scenario) {
    let run = || scenario(Choices::from_seed(seed), Trace::off());
    if let Err(reason) = catch_unwind(AssertUnwindSafe(run)) {
        explain(name, seed, &text(&*reason), scenario);
    }
}

/// Runs a scenario with the decisions in `data`: what property tests, corpora and fuzzers call.
///
/// # Panics
/// As [`seeds`].
pub fn bytes(name: &str, data: &[u8], scenario: Scenario) {
    let run = || scenario(Choices::from_bytes(data), Trace::off());
    if let Err(reason) = catch_unwind(AssertUnwindSafe(run)) {
        let which = format!("bytes {data:02x?}");
        again(name, &which, &text(&*reason), |trace| {
            scenario(Choices::from_bytes(data), trace);
        });
    }
}

/// Runs a seed again with a trace, and panics with it.
fn explain(name: &str, seed: u64, reason: &str, scenario: Scenario) -> ! {
    let which = format!("seed {seed} (this run alone again: SIM_SEED={seed})");
    again(name, &which, reason, |trace| {
        scenario(Choices::from_seed(seed), trace);
    })
}

/// Runs again with a trace, and panics with it.
fn again(name: &str, which: &str, reason: &str, run: impl FnOnce(Trace)) -> ! {
    let trace = Trace::on();
    let again = catch_unwind(AssertUnwindSafe(|| run(trace.clone())));
    let again = match again {
        Ok(()) => "NOT REPRODUCED: the run is not deterministic".to_string(),
        Err(other) if text(&*other) == reason => "again, with a trace".to_string(),
        Err(other) => format!("the second time: {}", text(&*other)),
    };
    panic!("scenario {name}, {which}: {reason}\n({again})\n{trace}");
}

fn text(reason: &(dyn Any + Send)) -> String {
    match (
        reason.downcast_ref::<String>(),
        reason.downcast_ref::<&str>(),
    ) {
        (Some(text), _) => text.clone(),
        (None, Some(text)) => (*text).to_string(),
        (None, None) => "panic".to_string(),
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
