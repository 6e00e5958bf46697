//! When to send a request again (RFC 8489 section 6.2).

use core::time::Duration;

use crate::Instant;
use crate::time::deadline;

/// The numbers of the retransmission ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetransmitConfig {
    /// Wait between the first and the second transmission over datagrams; doubles each time.
    /// 500 ms unless something is known about the path.
    pub rto: Duration,
    /// How often a request is sent in all over datagrams (Rc): 7.
    pub sends: u8,
    /// How many initial RTOs to wait after the last transmission (Rm): 16.
    pub last_wait: u32,
    /// How long to wait over streams, where nothing is sent again (Ti): 39.5 s.
    pub reliable_timeout: Duration,
}

impl Default for RetransmitConfig {
    fn default() -> Self {
        Self {
            rto: Duration::from_millis(500),
            sends: 7,
            last_wait: 16,
            reliable_timeout: Duration::from_millis(39_500),
        }
    }
}

/// What to do now that time has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is due.
    Wait,
    /// Send the same bytes again.
    Send,
    /// No answer will come any more.
    TimedOut,
}

/// The schedule of one request.
///
/// ```
/// use core::time::Duration;
/// use stun_proto::{Instant, Retransmit, RetransmitConfig, Step};
///
/// let start = Instant::ZERO;
/// let mut schedule = Retransmit::datagram(RetransmitConfig::default(), start);
/// assert_eq!(schedule.deadline(), Some(start + Duration::from_millis(500)));
/// assert_eq!(schedule.on_timeout(start + Duration::from_millis(499)), Step::Wait);
/// assert_eq!(schedule.on_timeout(start + Duration::from_millis(500)), Step::Send);
/// ```
#[derive(Clone, Debug)]
pub struct Retransmit {
    next: Option<Instant>,
    interval: Duration,
    final_wait: Duration,
    sends: u8,
    max_sends: u8,
}

impl Retransmit {
    /// The schedule of a request whose first datagram leaves at `now`.
    pub fn datagram(config: RetransmitConfig, now: Instant) -> Self {
        let final_wait = config.rto.saturating_mul(config.last_wait);
        let only_one = config.sends <= 1;
        let wait = if only_one { final_wait } else { config.rto };
        Self {
            next: deadline(now, wait),
            interval: config.rto,
            final_wait,
            sends: 1,
            max_sends: config.sends,
        }
    }

    /// The schedule of a request written to a stream at `now`: one wait, no repetition.
    pub fn stream(config: RetransmitConfig, now: Instant) -> Self {
        Self {
            next: deadline(now, config.reliable_timeout),
            interval: Duration::ZERO,
            final_wait: Duration::ZERO,
            sends: 1,
            max_sends: 1,
        }
    }

    /// When [`on_timeout`](Self::on_timeout) has something to do.
    pub const fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// How often the request has been sent.
    pub const fn sends(&self) -> u8 {
        self.sends
    }

    /// Takes in that it is `now`. Steps that were missed count as taken: the end does not move,
    /// and what should have been sent meanwhile is sent once.
    pub fn on_timeout(&mut self, now: Instant) -> Step {
        let mut step = Step::Wait;
        while let Some(due) = self.next.filter(|due| *due <= now) {
            if self.sends >= self.max_sends {
                self.next = None;
                return Step::TimedOut;
            }
            self.sends = self.sends.saturating_add(1);
            self.interval = self.interval.saturating_mul(2);
            let wait = if self.sends >= self.max_sends {
                self.final_wait
            } else {
                self.interval
            };
            self.next = deadline(due, wait);
            step = Step::Send;
        }
        step
    }
}

/// Estimates the retransmission timeout of a path from measured round trips (RFC 6298, with
/// a resolution of 1 ms and without rounding up to seconds: RFC 8489 section 6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RttEstimator {
    floor: Duration,
    smoothed: Option<(Duration, Duration)>,
}

impl RttEstimator {
    const GRANULARITY: Duration = Duration::from_millis(1);
    const MAX: Duration = Duration::from_secs(60);

    /// An estimator that knows nothing and never answers less than `floor`.
    pub const fn new(floor: Duration) -> Self {
        Self {
            floor,
            smoothed: None,
        }
    }

    /// Takes in the round trip of a request that was sent exactly once (Karn's rule is the
    /// caller's).
    #[expect(clippy::arithmetic_side_effects, reason = "divisors are constants")]
    pub fn sample(&mut self, rtt: Duration) {
        let rtt = rtt.min(Self::MAX);
        self.smoothed = Some(match self.smoothed {
            None => (rtt, rtt / 2),
            Some((srtt, rttvar)) => {
                let rttvar = (rttvar.saturating_mul(3) / 4).saturating_add(srtt.abs_diff(rtt) / 4);
                let srtt = (srtt.saturating_mul(7) / 8).saturating_add(rtt / 8);
                (srtt, rttvar)
            }
        });
    }

    /// The retransmission timeout: smoothed round trip plus four times its variation.
    pub fn rto(&self) -> Duration {
        match self.smoothed {
            None => self.floor,
            Some((srtt, rttvar)) => srtt
                .saturating_add(rttvar.saturating_mul(4).max(Self::GRANULARITY))
                .clamp(self.floor, Self::MAX),
        }
    }
}
