//! Learning how long a way may be idle. A firewall, NAT or proxy may forget connections sooner than
//! their edge says, and then swallows what comes: so the first intervals between keep-alives are
//! short, grow with each pong, and stop growing below what a flow has died of.

use core::time::Duration;

use super::backoff::fraction;
use super::keepalive::SHORTEST;
use crate::Instant;
use crate::time::{deadline, elapsed};

/// How long a limit holds. It may have been another fault that looked like one, and firewalls are
/// reconfigured: then intervals may grow again from what has been survived.
const HOLD: Duration = Duration::from_secs(24 * 3600);

/// What is known of how long a stream may be silent in one network.
///
/// ```
/// use core::time::Duration;
/// use sip_outbound::IdleTime;
///
/// // A firewall that is known to forget connections after 30 s.
/// let known = IdleTime { survived: Duration::from_secs(25), limit: Some(Duration::from_secs(25)) };
/// assert!(IdleTime::default().limit.is_none());
/// # let _ = known;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdleTime {
    /// The longest silence after which a pong came; zero when there was none yet.
    pub survived: Duration,
    /// No interval between keep-alives may be longer: longer ones have cost a flow.
    pub limit: Option<Duration>,
}

/// What the streams of one user agent have taught about the present network.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Idle {
    survived: Duration,
    limit: Option<Limit>,
    /// A ping after this long a silence was lost with its flow. A rule once the next flow shows that
    /// the network is there.
    suspect: Option<Duration>,
    /// After how long a silence a flow was closed last, and when.
    closed: Option<(Duration, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    longest: Duration,
    /// `None` is never.
    until: Option<Instant>,
}

impl Idle {
    pub(super) fn new(now: Instant, known: IdleTime) -> Self {
        let mut idle = Self {
            survived: known.survived,
            ..Self::default()
        };
        if let Some(longest) = known.limit {
            idle.set_limit(now, longest);
        }
        idle
    }

    pub(super) fn known(&self, now: Instant) -> IdleTime {
        IdleTime {
            survived: self.survived,
            limit: self.limit(now),
        }
    }

    /// A pong has come after this long a silence.
    pub(super) fn survived(&mut self, silence: Duration) {
        self.survived = self.survived.max(silence);
    }

    /// A ping after this long a silence was not answered, or by a reset.
    pub(super) fn silenced(&mut self, silence: Duration) {
        self.suspect = Some(self.suspect.map_or(silence, |before| before.min(silence)));
    }

    /// No other flow comes through either: it was not for the silence.
    pub(super) const fn acquitted(&mut self) {
        self.suspect = None;
    }

    /// Another flow comes through: once is enough. Back to what has been survived, or else to half
    /// of what has not.
    pub(super) fn convicted(&mut self, now: Instant) {
        let Some(silence) = self.suspect.take() else {
            return;
        };
        let half = fraction(silence, 1, 2);
        let longest = if self.survived < silence {
            self.survived.max(half)
        } else {
            // It had been survived: the way is not what it was.
            half
        };
        self.survived = self.survived.min(longest);
        self.set_limit(now, longest);
    }

    /// A flow was closed after this long a silence. That may have been for any reason; the second
    /// time at about the same age, within a fifth, is taken for a rule.
    pub(super) fn closed(&mut self, now: Instant, silence: Duration) {
        if silence < SHORTEST {
            return;
        }
        let Some((last, when)) = self.closed.replace((silence, now)) else {
            return;
        };
        // Two flows that were closed together are one sign.
        if elapsed(when, now) < silence {
            return;
        }
        let (low, high) = (silence.min(last), silence.max(last));
        if high.saturating_sub(low) <= fraction(high, 1, 5) {
            self.set_limit(now, fraction(low, 4, 5));
        }
    }

    fn set_limit(&mut self, now: Instant, longest: Duration) {
        let longest = longest.max(SHORTEST);
        let longest = self
            .limit(now)
            .map_or(longest, |before| before.min(longest));
        self.limit = Some(Limit {
            longest,
            until: deadline(now, HOLD),
        });
    }

    /// No interval between keep-alives may be longer.
    pub(super) fn limit(&self, now: Instant) -> Option<Duration> {
        let limit = self.limit?;
        let holds = limit
            .until
            .is_none_or(|until| !elapsed(now, until).is_zero());
        holds.then_some(limit.longest)
    }

    /// The longest interval that is worth a try: half as long again as what has been survived, and
    /// `first` in the beginning.
    pub(super) fn next(&self, first: Duration) -> Duration {
        fraction(self.survived, 3, 2).max(first)
    }
}
