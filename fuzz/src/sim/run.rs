//! Running one scenario with many seeds.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use core::any::Any;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicU64, Ordering};
use std::panic::catch_unwind;
use std::sync::Mutex;

use super::choices::Choices;
use super::trace::Trace;

/// A scenario: builds a network from the decisions, runs it and asserts.
pub type Scenario = fn(Choices, Trace);

/// Runs a scenario with `count` seeds, or as many as the environment variable `SIM_SEEDS` says, or
/// with the one that `SIM_SEED` says. Uses all processors for more than a few.
///
/// # Panics
/// Panics with the seed, the reason and the trace when a run fails.
pub fn seeds(name: &str, count: u64, scenario: Scenario) {
    if let Some(seed) = number("SIM_SEED") {
        return one(name, seed, scenario);
    }
    let count = number("SIM_SEEDS").unwrap_or(count);
    let first = number("SIM_FIRST").unwrap_or(0);
    let end = first.saturating_add(count);
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
    if let Ok(Some((seed, reason))) = failed.into_inner() {
        explain(name, &format!("seed {seed}"), &text(&*reason), |trace| {
            scenario(Choices::from_seed(seed), trace);
        });
    }
}

/// Runs a scenario with one seed.
///
/// # Panics
/// As [`seeds`].
pub fn one(name: &str, seed: u64, scenario: Scenario) {
    let run = || scenario(Choices::from_seed(seed), Trace::off());
    if let Err(reason) = catch_unwind(AssertUnwindSafe(run)) {
        explain(name, &format!("seed {seed}"), &text(&*reason), |trace| {
            scenario(Choices::from_seed(seed), trace);
        });
    }
}

/// Runs a scenario with the decisions in `data`: what property tests, corpora and fuzzers call.
///
/// # Panics
/// As [`seeds`].
pub fn bytes(name: &str, data: &[u8], scenario: Scenario) {
    let run = || scenario(Choices::from_bytes(data), Trace::off());
    if let Err(reason) = catch_unwind(AssertUnwindSafe(run)) {
        explain(
            name,
            &format!("bytes {data:02x?}"),
            &text(&*reason),
            |trace| {
                scenario(Choices::from_bytes(data), trace);
            },
        );
    }
}

/// Runs again with a trace, and panics with it.
fn explain(name: &str, which: &str, reason: &str, run: impl FnOnce(Trace)) -> ! {
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
