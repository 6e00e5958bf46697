//! Randomness that comes from the host's seed alone.

use core::fmt;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

use crate::wire::TransactionId;

// deviates: SEC-G-17 a seed cannot fail later: a source that fails does so in the host, before a
// machine is made. Identifiers that must differ are drawn again while they are taken.
/// A cryptographic generator, seeded by the host.
///
/// The same seed gives the same bytes; `Debug` shows nothing of the state.
#[derive(Clone)]
pub struct Rng(ChaCha20Rng);

impl Rng {
    /// A generator for this seed, which must come from a cryptographic source.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// A new seed for a machine inside this one.
    pub fn fork(&mut self) -> [u8; 32] {
        self.bytes()
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// A random number.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, as good as uniform for bounds below 2^32; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        let wide = u128::from(self.u64()).wrapping_mul(u128::from(bound));
        (wide >> 64) as u32
    }

    /// A fresh transaction ID (RFC 8489 section 5).
    pub fn transaction_id(&mut self) -> TransactionId {
        TransactionId(self.bytes())
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rng(..)")
    }
}
