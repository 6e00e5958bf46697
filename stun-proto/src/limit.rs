//! Keeping answers to strangers few (RFC 8656 section 21.1.5; a server is no amplifier).

use core::net::IpAddr;

use alloc::boxed::Box;
use alloc::vec;

use crate::time::Clock;
use crate::wire::Key;
use crate::{Instant, Rng};

/// Entries of the table: 4,096 of 12 bytes.
const SLOTS: usize = 4096;

/// How many answers per second each network gets, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Answers per second, and the most that may be saved up: 10. 0 means no limit.
    pub per_second: u16,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { per_second: 10 }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Thousandths of an answer.
    saved: u32,
    /// Milliseconds of the host's clock, the low 32 bits.
    seen: u32,
    used: bool,
}

/// Counts answers by network: IPv4 /32, IPv6 /64; ports do not matter.
///
/// The table has a fixed size. Two networks that fall on the same slot take turns with it, each
/// starting with what is left, so that a flood from many networks gets less, never more.
///
/// ```
/// use stun_proto::limit::{RateLimit, RateLimiter};
/// use stun_proto::{Instant, Rng};
///
/// let mut limiter = RateLimiter::new(RateLimit { per_second: 2 }, &mut Rng::from_seed([7; 32]));
/// let from = "192.0.2.1".parse().unwrap();
/// let now = Instant::ZERO;
/// assert!(limiter.allows(now, from) && limiter.allows(now, from));
/// assert!(!limiter.allows(now, from));
/// ```
#[derive(Debug)]
pub struct RateLimiter {
    limit: RateLimit,
    key: Key,
    clock: Clock,
    slots: Box<[Slot]>,
}

impl RateLimiter {
    /// An empty table; all its memory (48 KiB) is taken now.
    pub fn new(limit: RateLimit, rng: &mut Rng) -> Self {
        Self {
            limit,
            key: Key::from_bytes(&rng.bytes::<32>()),
            clock: Clock::new(Instant::from_nanos(i64::MIN)),
            slots: vec![Slot::default(); SLOTS].into_boxed_slice(),
        }
    }

    /// Whether this network may have one more answer now; takes it if so.
    pub fn allows(&mut self, now: Instant, from: IpAddr) -> bool {
        if self.limit.per_second == 0 {
            return true;
        }
        let now = self.clock.advance(now);
        // A dual-stack socket shows IPv4 clients as mapped addresses, all in one /64.
        let network = match from.to_canonical() {
            IpAddr::V4(ip) => u64::from(u32::from(ip)),
            IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
        };
        let family = [u8::from(from.to_canonical().is_ipv4())];
        let hash = self.key.sha1(&[&family, &network.to_be_bytes()]);
        let [h1, h0, ..] = hash;
        let index = usize::from(u16::from_be_bytes([h1, h0])) % SLOTS;
        let Some(slot) = self.slots.get_mut(index) else {
            return false;
        };
        let full = u32::from(self.limit.per_second).saturating_mul(1000);
        let millis = (now.as_nanos() / 1_000_000) as u32;
        if slot.used {
            let idle = millis.wrapping_sub(slot.seen);
            let gained = idle.saturating_mul(u32::from(self.limit.per_second));
            slot.saved = slot.saved.saturating_add(gained).min(full);
        } else {
            slot.saved = full;
        }
        slot.used = true;
        slot.seen = millis;
        match slot.saved.checked_sub(1000) {
            Some(left) => {
                slot.saved = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests;
