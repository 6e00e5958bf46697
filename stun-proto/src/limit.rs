//! Keeping answers to strangers few (RFC 8656 section 21.1.5; a server is no amplifier).

use core::net::IpAddr;

use alloc::boxed::Box;
use alloc::vec;

use crate::time::Clock;
use crate::wire::Key;
use crate::{Instant, Rng};

/// Entries of the table of strangers: 4,096 of 12 bytes.
const STRANGERS: usize = 4096;

/// Entries of the table of networks that have proven themselves: 1,024 of 16 bytes.
const PROVEN: usize = 1024;

/// How long proof lasts, in milliseconds: ten minutes, as long as a nonce.
const PROOF_LASTS: u32 = 600_000;

/// What counts as one answer; a longer one counts as several.
const ANSWER: usize = 100;

/// How many answers per second each network gets, and how many at once. An answer is 100 bytes
/// long; a longer one counts for each 100 bytes it has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Answers per second, and the most that may be saved up. Default: 10; 0 means no limit.
    pub per_second: u16,
    /// The same for networks from which somebody has proven within the last ten minutes that
    /// answers reach them, so that the first of many clients behind one address lets the others
    /// in. Default: 1,000.
    pub proven_per_second: u16,
}

impl RateLimit {
    /// Everybody gets all answers.
    pub const NONE: Self = Self {
        per_second: 0,
        proven_per_second: 0,
    };

    /// So many answers per second for networks that have proven nothing.
    pub fn new(per_second: u16) -> Self {
        Self {
            per_second,
            ..Self::default()
        }
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            per_second: 10,
            proven_per_second: 1000,
        }
    }
}

/// What is left of an allowance that grows with time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Thousandths of an answer.
    saved: u32,
    /// Milliseconds of the host's clock, the low 32 bits.
    seen: u32,
}

impl Bucket {
    const fn full(per_second: u16, millis: u32) -> Self {
        Self {
            saved: full(per_second),
            seen: millis,
        }
    }

    /// Takes this many answers, if they are there.
    fn take(&mut self, per_second: u16, millis: u32, answers: u32) -> bool {
        let idle = millis.wrapping_sub(self.seen);
        let gained = idle.saturating_mul(u32::from(per_second));
        self.saved = self.saved.saturating_add(gained).min(full(per_second));
        self.seen = millis;
        // One that costs more than a second's worth is sent when all of that is there.
        let cost = answers.saturating_mul(1000).min(full(per_second));
        match self.saved.checked_sub(cost) {
            Some(left) => {
                self.saved = left;
                true
            }
            None => false,
        }
    }
}

const fn full(per_second: u16) -> u32 {
    (per_second as u32).saturating_mul(1000)
}

#[derive(Clone, Copy, Debug)]
struct Proof {
    /// Which network it is of.
    tag: u32,
    /// When it was shown, in milliseconds of the host's clock.
    shown: u32,
    bucket: Bucket,
}

/// Counts answers by network: IPv4 /32, IPv6 /64; ports do not matter.
///
/// The tables have a fixed size. Two strangers that fall on the same slot take turns with it, each
/// starting with what is left, so that a flood from many networks gets less, never more. Networks
/// that have [proven](Self::proven) themselves have a table of their own, which no flood reaches.
///
/// ```
/// use stun_proto::limit::{RateLimit, RateLimiter};
/// use stun_proto::{Instant, Rng};
///
/// let mut limiter = RateLimiter::new(RateLimit::new(2), &mut Rng::from_seed([7; 32]));
/// let from = "192.0.2.1".parse().unwrap();
/// let now = Instant::ZERO;
/// assert!(limiter.allows(now, from, 90) && limiter.allows(now, from, 90));
/// assert!(!limiter.allows(now, from, 90));
/// // Somebody there has answered a challenge.
/// limiter.proven(now, from);
/// assert!(limiter.allows(now, from, 90));
/// ```
#[derive(Debug)]
pub struct RateLimiter {
    limit: RateLimit,
    key: Key,
    clock: Clock,
    strangers: Box<[Option<Bucket>]>,
    proven: Box<[Option<Proof>]>,
}

impl RateLimiter {
    /// Empty tables; all their memory (72 KiB) is taken now.
    pub fn new(limit: RateLimit, rng: &mut Rng) -> Self {
        Self {
            limit,
            key: Key::from_bytes(&rng.bytes::<32>()),
            clock: Clock::new(Instant::from_nanos(i64::MIN)),
            strangers: vec![None; STRANGERS].into_boxed_slice(),
            proven: vec![None; PROVEN].into_boxed_slice(),
        }
    }

    /// Whether this network may have one more answer of this many bytes now; takes it if so.
    pub fn allows(&mut self, now: Instant, from: IpAddr, bytes: usize) -> bool {
        let limit = self.limit;
        if limit.per_second == 0 {
            return true;
        }
        let millis = self.millis(now);
        let network = self.network(from);
        let answers = u32::try_from(bytes.div_ceil(ANSWER)).unwrap_or(u32::MAX);
        if let Some(Some(proof)) = self.proven.get_mut(network.proven)
            && proof.tag == network.tag
            && millis.wrapping_sub(proof.shown) < PROOF_LASTS
        {
            return proof.bucket.take(limit.proven_per_second, millis, answers);
        }
        let Some(slot) = self.strangers.get_mut(network.stranger) else {
            return false;
        };
        let bucket = slot.get_or_insert(Bucket::full(limit.per_second, millis));
        bucket.take(limit.per_second, millis, answers)
    }

    /// Somebody in this network has shown that what is sent there arrives: by an authentic
    /// request with a nonce that was sent there, for instance.
    pub fn proven(&mut self, now: Instant, from: IpAddr) {
        if self.limit.per_second == 0 {
            return;
        }
        let millis = self.millis(now);
        let network = self.network(from);
        let Some(slot) = self.proven.get_mut(network.proven) else {
            return;
        };
        match slot {
            Some(proof) if proof.tag == network.tag => proof.shown = millis,
            Some(_) | None => {
                *slot = Some(Proof {
                    tag: network.tag,
                    shown: millis,
                    bucket: Bucket::full(self.limit.proven_per_second, millis),
                });
            }
        }
    }

    fn millis(&mut self, now: Instant) -> u32 {
        (self.clock.advance(now).as_nanos() / 1_000_000) as u32
    }

    /// Where a network stands in the tables: nobody outside can tell.
    fn network(&self, from: IpAddr) -> Network {
        // A dual-stack socket shows IPv4 clients as mapped addresses, all in one /64.
        let from = from.to_canonical();
        let network = match from {
            IpAddr::V4(ip) => u64::from(u32::from(ip)),
            IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
        };
        let family = [u8::from(from.is_ipv4())];
        let hash = self.key.sha1(&[&family, &network.to_be_bytes()]);
        let [a, b, c, d, e, f, g, h, ..] = hash;
        let slot = |high, low| usize::from(u16::from_be_bytes([high, low]));
        Network {
            stranger: slot(a, b) % STRANGERS,
            proven: slot(c, d) % PROVEN,
            tag: u32::from_be_bytes([e, f, g, h]),
        }
    }
}

struct Network {
    stranger: usize,
    proven: usize,
    tag: u32,
}

#[cfg(test)]
mod tests;
