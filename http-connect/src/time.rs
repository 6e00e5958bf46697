//! Deadlines: the only place where a duration is added to an instant.

use core::time::Duration;

use crate::Instant;

/// The latest time a machine has been told, and the deadlines counted from it. Time that goes
/// backwards stands still instead; a deadline beyond the end of time is never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) const fn new(now: Instant) -> Self {
        Self(now)
    }

    pub(crate) fn advance(&mut self, now: Instant) -> Instant {
        self.0 = self.0.max(now);
        self.0
    }

    pub(crate) fn after(&self, wait: Duration) -> Option<Instant> {
        self.0.checked_add(wait)
    }

    pub(crate) fn has_reached(&self, deadline: Option<Instant>) -> bool {
        deadline.is_some_and(|at| self.0 >= at)
    }
}
