//! A ceiling for REGISTER requests, whatever they are sent for: a registrar that misbehaves in a way
//! nobody has thought of is not stormed either.

use core::time::Duration;

use alloc::collections::VecDeque;

use crate::Instant;
use crate::time::{deadline, elapsed};

const MINUTE: Duration = Duration::from_secs(60);

/// When the last REGISTER requests of one registration were sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace(VecDeque<Instant>);

impl Pace {
    /// How long the next one has to wait, so that no minute sees more than `most`.
    pub(super) fn wait(&self, now: Instant, most: usize) -> Duration {
        let ahead = self.0.len().checked_sub(most);
        let oldest = ahead.and_then(|at| self.0.get(at));
        let free = oldest.and_then(|oldest| deadline(*oldest, MINUTE));
        free.map_or(Duration::ZERO, |free| elapsed(now, free))
    }

    /// One was sent.
    pub(super) fn sent(&mut self, now: Instant, most: usize) {
        while self.0.len() >= most {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }
}
