//! How long to wait before the next attempt (RFC 5626 section 4.5).

use core::time::Duration;

use stun_proto::Rng;

use super::Recovery;

/// The wait after `failures` failures in a row: between half and all of base * 2^failures, at most
/// `max`. None after no failure.
pub(super) fn delay(
    recovery: &Recovery,
    failures: u32,
    all_failed: bool,
    rng: &mut Rng,
) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let base = if all_failed {
        recovery.base_all_failed
    } else {
        recovery.base_some_alive
    };
    let factor = 1_u32 << failures.min(30);
    let upper = base.saturating_mul(factor).min(recovery.max);
    between(fraction(upper, 1, 2), upper, rng)
}

/// A uniform time from `low` to `high`, to the millisecond.
pub(super) fn between(low: Duration, high: Duration, rng: &mut Rng) -> Duration {
    let span = high.saturating_sub(low).as_millis();
    let span = u32::try_from(span).unwrap_or(u32::MAX).saturating_add(1);
    low.saturating_add(Duration::from_millis(u64::from(rng.below(span))))
}

/// `numerator / denominator` of a time.
pub(super) fn fraction(time: Duration, numerator: u32, denominator: u32) -> Duration {
    time.saturating_mul(numerator)
        .checked_div(denominator)
        .unwrap_or(time)
}
