//! A rate limit.

use core::time::Duration;

use crate::Instant;

/// A bucket of tokens that is full in the beginning and refills with time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    tokens: u32,
    capacity: u32,
    /// Time in which one token comes back.
    refill: Duration,
    since: Instant,
}

impl Budget {
    pub(super) const fn new(capacity: u32, refill: Duration, now: Instant) -> Self {
        Self {
            tokens: capacity,
            capacity,
            refill,
            since: now,
        }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let refill = self.refill.as_millis().max(1);
        let passed = now.duration_since(self.since).as_millis();
        let back = u32::try_from(passed.checked_div(refill).unwrap_or(0)).unwrap_or(u32::MAX);
        if back > 0 {
            self.tokens = self.tokens.saturating_add(back).min(self.capacity);
            self.since = now;
        }
        match self.tokens.checked_sub(1) {
            None => false,
            Some(left) => {
                self.tokens = left;
                true
            }
        }
    }
}
