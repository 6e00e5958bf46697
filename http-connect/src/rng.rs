//! Randomness that comes from the host's seed alone.

use core::fmt;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// A cryptographic generator, seeded by the host. `Debug` shows nothing of its state.
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
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rng(..)")
    }
}
