//! Transactions (RFC 3261 section 17, RFC 4320, RFC 6026): which response belongs to which
//! request, what is sent again, and when to give up.

mod client;
mod derive;
mod server;
mod table;

use core::time::Duration;

use bytes::Bytes;
use stun_proto::Path;

pub use client::{ClientEvent, ClientId, ClientTransactions, SendError};
pub use server::{Incoming, RespondError, ServerEvent, ServerId, ServerTransactions};

/// The base times of all transaction timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Estimate of the round trip: 500 ms.
    pub t1: Duration,
    /// Longest wait between two transmissions of a non-INVITE request: 4 s.
    pub t2: Duration,
    /// How long a message can stay in the network: 5 s.
    pub t4: Duration,
    /// Timer C, how long an INVITE may ring: 181 s. Each 101 to 199 starts it again; then the
    /// INVITE is cancelled.
    pub ringing: Duration,
    /// How long the answer to an INVITE may take before 100 is sent: 200 ms.
    pub trying: Duration,
    /// How long an INVITE may stay without a final answer of this side: 15 minutes.
    pub unanswered: Duration,
}

impl Timings {
    /// The values of RFC 3261 section 17.1.1.1.
    pub const RFC3261: Self = Self {
        t1: Duration::from_millis(500),
        t2: Duration::from_secs(4),
        t4: Duration::from_secs(5),
        ringing: Duration::from_secs(181),
        trying: Duration::from_millis(200),
        unanswered: Duration::from_secs(900),
    };

    /// The values of the air interface of IMS (3GPP TS 24.229 table 7.7.1).
    pub const IMS: Self = Self {
        t1: Duration::from_secs(2),
        t2: Duration::from_secs(16),
        t4: Duration::from_secs(17),
        ringing: Duration::from_secs(181),
        trying: Duration::from_millis(200),
        unanswered: Duration::from_secs(900),
    };

    /// 64 * T1: timers B, F, H, L, M, and D and J over datagrams.
    pub const fn timeout(&self) -> Duration {
        self.t1.saturating_mul(64)
    }

    /// How long a request other than INVITE may stay unanswered before 100 is sent: when timer E
    /// is first loaded with T2 (RFC 4320 section 4.1).
    pub fn non_invite_trying(&self) -> Duration {
        let (mut wait, mut sum) = (self.t1, Duration::ZERO);
        while wait < self.t2 && !wait.is_zero() {
            sum = sum.saturating_add(wait);
            wait = wait.saturating_mul(2);
        }
        sum
    }
}

impl Default for Timings {
    fn default() -> Self {
        Self::RFC3261
    }
}

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where to.
    pub path: Path,
    /// The bytes.
    pub bytes: Bytes,
}

const fn is_reliable(path: Path) -> bool {
    match path {
        Path::Stream(_) => true,
        Path::Datagram(at) => at.transport.is_stream(),
    }
}

/// A wait for repetitions, of which there are none on reliable ways.
const fn unless_reliable(path: Path, wait: Duration) -> Duration {
    if is_reliable(path) {
        Duration::ZERO
    } else {
        wait
    }
}

#[cfg(test)]
mod tests;
