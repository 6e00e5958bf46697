//! Deadlines. The only place where a duration is added to an instant.

use core::time::Duration;

use alloc::collections::{BTreeMap, BTreeSet};

use crate::Instant;

/// `now + after`, or `None` ("never") when that is beyond the end of time.
pub fn deadline(now: Instant, after: Duration) -> Option<Instant> {
    now.checked_add(after)
}

/// How much time has passed since `earlier`: none when that is in the future, the longest possible
/// when the two are further apart than the clock can say.
pub fn elapsed(earlier: Instant, now: Instant) -> Duration {
    let nanos = i128::from(now.as_nanos()).saturating_sub(i128::from(earlier.as_nanos()));
    Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}

/// Named deadlines, ordered by time: O(log n) to arm, disarm and find the next.
///
/// A key has at most one deadline. A deadline beyond the end of time is never reached and not
/// kept.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
}

impl<K: Ord + Copy> Timers<K> {
    /// No deadlines.
    pub const fn new() -> Self {
        Self {
            by_time: BTreeSet::new(),
            by_key: BTreeMap::new(),
        }
    }

    /// Sets the deadline of `key` to `after` from now, whatever it was.
    pub fn arm(&mut self, key: K, now: Instant, after: Duration) {
        self.set(key, deadline(now, after));
    }

    /// Sets the deadline of `key`, or disarms it.
    pub fn set(&mut self, key: K, at: Option<Instant>) {
        self.disarm(key);
        if let Some(at) = at {
            self.by_key.insert(key, at);
            self.by_time.insert((at, key));
        }
    }

    /// Forgets the deadline of `key`.
    pub fn disarm(&mut self, key: K) {
        if let Some(at) = self.by_key.remove(&key) {
            self.by_time.remove(&(at, key));
        }
    }

    /// The deadline of `key`.
    pub fn get(&self, key: K) -> Option<Instant> {
        self.by_key.get(&key).copied()
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// Disarms and returns the earliest deadline that is not later than `now`.
    pub fn expired(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.disarm(key);
        Some(key)
    }

    /// How many deadlines are armed.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether none is armed.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        Self::new()
    }
}

/// The latest time a machine has been told: time that goes backwards stands still instead.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that shows `now`.
    pub const fn new(now: Instant) -> Self {
        Self(now)
    }

    /// Takes in what the host says the time is, and returns the time that counts.
    pub fn advance(&mut self, now: Instant) -> Instant {
        self.0 = self.0.max(now);
        self.0
    }

    /// The time that counts.
    pub const fn now(&self) -> Instant {
        self.0
    }
}
