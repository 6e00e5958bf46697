//! The search for the time a NAT keeps an idle binding (RFC 5780 section 4.6).

use core::time::Duration;

/// A binary search: `alive` is the longest time a binding has survived, `dead` the shortest it has
/// not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    alive: Duration,
    dead: Option<Duration>,
    longest: Duration,
    precision: Duration,
}

impl Search {
    pub(super) const fn new(longest: Duration, precision: Duration) -> Self {
        Self {
            alive: Duration::ZERO,
            dead: None,
            longest,
            precision,
        }
    }

    /// How long to wait in the next round; `None` when enough is known.
    pub(super) fn next(&self) -> Option<Duration> {
        let Some(dead) = self.dead else {
            return (self.alive < self.longest).then_some(self.longest);
        };
        let gap = dead.saturating_sub(self.alive);
        let half = Duration::from_nanos(u64::try_from(gap.as_nanos() >> 1).unwrap_or(u64::MAX));
        (gap > self.precision).then(|| self.alive.saturating_add(half))
    }

    /// Takes in whether the binding survived `waited`.
    pub(super) fn learn(&mut self, waited: Duration, survived: bool) {
        if survived {
            self.alive = self.alive.max(waited);
        } else {
            self.dead = Some(self.dead.map_or(waited, |dead| dead.min(waited)));
        }
    }

    /// The longest survived, and the shortest not survived (`None`: none).
    pub(super) const fn bounds(&self) -> (Duration, Option<Duration>) {
        (self.alive, self.dead)
    }
}
