//! One pace for all agents of a process.

use core::time::Duration;

use stun_proto::Instant;
use stun_proto::time::deadline;

use super::MIN_PACING;

/// Keeps new transactions of all agents that share it at least 5 ms apart (RFC 8445
/// section 14.2).
///
/// ```
/// use core::time::Duration;
/// use ice_proto::{Instant, Pacer};
///
/// let mut pacer = Pacer::new();
/// let now = Instant::ZERO;
/// assert_eq!(pacer.take(now), Ok(()));
/// assert_eq!(pacer.take(now), Err(now + Duration::from_millis(5)));
/// ```
#[derive(Clone, Debug)]
pub struct Pacer {
    gap: Duration,
    next: Option<Instant>,
}

impl Pacer {
    /// A pacer with the shortest gap allowed.
    pub const fn new() -> Self {
        Self {
            gap: MIN_PACING,
            next: None,
        }
    }

    /// A pacer with a longer gap.
    pub fn with_gap(gap: Duration) -> Self {
        Self {
            gap: gap.max(MIN_PACING),
            next: None,
        }
    }

    /// Takes the slot that is free now.
    ///
    /// # Errors
    /// When the next one will be free.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        match self.next {
            Some(next) if now < next => Err(next),
            Some(_) | None => {
                self.next = deadline(now, self.gap);
                Ok(())
            }
        }
    }
}

impl Default for Pacer {
    fn default() -> Self {
        Self::new()
    }
}
