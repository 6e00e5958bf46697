//! Deadlines: the only place where a duration is added to an instant.

use core::time::Duration;

use smallvec::SmallVec;

use crate::Instant;

/// The latest time a machine has been told: time that goes backwards stands still instead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) const fn new(now: Instant) -> Self {
        Self(now)
    }

    /// Takes in what the host says the time is, and returns the time that counts.
    pub(crate) fn advance(&mut self, now: Instant) -> Instant {
        self.0 = self.0.max(now);
        self.0
    }

    /// The time that counts.
    pub(crate) const fn now(&self) -> Instant {
        self.0
    }
}

/// The few named deadlines of one machine. A deadline beyond the end of time is never reached and
/// not kept.
#[derive(Clone, Debug)]
pub(crate) struct Timers<K>(SmallVec<[(K, Instant); 4]>);

impl<K: Copy + Eq> Timers<K> {
    pub(crate) fn new() -> Self {
        Self(SmallVec::new())
    }

    /// Sets the deadline of `key` to `after` from now, whatever it was.
    pub(crate) fn arm(&mut self, key: K, now: Instant, after: Duration) {
        self.disarm(key);
        if let Some(at) = now.checked_add(after) {
            self.0.push((key, at));
        }
    }

    /// Forgets the deadline of `key`.
    pub(crate) fn disarm(&mut self, key: K) {
        self.0.retain(|(armed, _)| *armed != key);
    }

    /// Forgets all deadlines.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().map(|(_, at)| *at).min()
    }

    /// Disarms and returns the earliest deadline that is not later than `now`.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<K> {
        let &(key, at) = self.0.iter().min_by_key(|(_, at)| *at)?;
        if at > now {
            return None;
        }
        self.disarm(key);
        Some(key)
    }
}
