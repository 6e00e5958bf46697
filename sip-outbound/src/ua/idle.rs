//! Learning how long a way may be idle: a proxy or NAT that forgets flows sooner than their edge
//! says shows it by the age at which they die.

use core::time::Duration;

use super::backoff::fraction;
use super::keepalive::SHORTEST;

/// What the deaths of one registration's flows have taught.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Idle {
    last: Option<Duration>,
    cap: Option<Duration>,
}

impl Idle {
    /// A flow has died after nothing passed over it for `age`. The second death at about the same
    /// age (within a fifth) is taken for a rule.
    pub(super) fn died(&mut self, age: Duration) {
        if age < SHORTEST {
            return;
        }
        let last = self.last.replace(age);
        let Some(last) = last else {
            return;
        };
        let (low, high) = (age.min(last), age.max(last));
        if high.saturating_sub(low) <= fraction(high, 1, 5) {
            let cap = fraction(low, 4, 5).max(SHORTEST);
            self.cap = Some(self.cap.map_or(cap, |before| before.min(cap)));
        }
    }

    /// No interval between keep-alives may be longer, once this is known.
    pub(super) const fn cap(&self) -> Option<Duration> {
        self.cap
    }
}
