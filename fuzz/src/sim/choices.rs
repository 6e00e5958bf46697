//! Where every decision of a run comes from.

use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;

/// A source of decisions: the bytes it was given first, then bytes that a seed determines.
///
/// One generator serves them all: replay of a seed on a stable toolchain (no bytes, only a seed),
/// property tests and coverage-guided fuzzing (bytes, which both know how to shrink and mutate).
/// A decision takes as few bytes as it needs, so that a changed byte changes one decision.
#[derive(Clone, Debug)]
pub struct Choices {
    given: Vec<u8>,
    at: usize,
    state: u64,
    word: u64,
    left: u32,
}

impl Choices {
    /// Decisions that `seed` alone determines.
    pub const fn from_seed(seed: u64) -> Self {
        Self {
            given: Vec::new(),
            at: 0,
            state: seed,
            word: 0,
            left: 0,
        }
    }

    /// Decisions taken from `bytes`, and after their end from seed 0.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self {
            given: bytes.to_vec(),
            ..Self::from_seed(0)
        }
    }

    /// Whether the bytes it was given are used up. Loops over operations end here.
    pub fn is_spent(&self) -> bool {
        self.at >= self.given.len()
    }

    /// Independent decisions, for another part of the run.
    pub fn fork(&mut self) -> Self {
        Self::from_seed(self.u64())
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        if let Some(byte) = self.given.get(self.at) {
            self.at = self.at.saturating_add(1);
            return *byte;
        }
        if self.left == 0 {
            self.word = self.split_mix();
            self.left = 8;
        }
        let byte = self.word as u8;
        self.word >>= 8;
        self.left = self.left.saturating_sub(1);
        byte
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn split_mix(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        core::array::from_fn(|_| self.byte())
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    /// Any number.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number below `bound`; 0 when `bound` is 0 or 1, which takes no bytes.
    pub fn below(&mut self, bound: u64) -> u64 {
        let Some(most) = bound.checked_sub(1).filter(|most| *most > 0) else {
            return 0;
        };
        let bytes = 8u32.saturating_sub(most.leading_zeros() / 8);
        let drawn = (0..bytes).fold(0u64, |n, _| n << 8 | u64::from(self.byte()));
        drawn.checked_rem(bound).unwrap_or(0)
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number of the range, ends included.
    pub fn range(&mut self, range: RangeInclusive<u64>) -> u64 {
        let span = range.end().saturating_sub(*range.start());
        range
            .start()
            .saturating_add(self.below(span.saturating_add(1)))
    }

    /// Yes in `permille` of 1000 cases; for 0 and 1000 takes no bytes.
    pub fn chance(&mut self, permille: u16) -> bool {
        match permille {
            0 => false,
            1000.. => true,
            _ => self.below(1000) < u64::from(permille),
        }
    }

    /// Yes or no.
    pub fn flip(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// One of the items.
    ///
    /// # Panics
    /// Panics if there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        items
            .get(self.index(items.len()))
            .expect("something to pick from")
    }

    /// A time up to `most`, in whole microseconds.
    pub fn duration(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(most.saturating_add(1)))
    }

    /// Randomness for a machine.
    ///
    /// Takes one number of the source whatever its length, to spare the bytes of a fuzzer.
    pub fn machine_seed(&mut self) -> [u8; 32] {
        let mut seeds = Self::from_seed(self.below(1 << 16));
        seeds.array()
    }
}

#[cfg(test)]
mod tests {
    use super::Choices;

    #[test]
    fn bytes_come_first_and_the_seed_continues() {
        let mut choices = Choices::from_bytes(&[1, 2]);
        assert_eq!((choices.byte(), choices.byte()), (1, 2));
        assert!(choices.is_spent());
        let mut seeded = Choices::from_seed(0);
        assert_eq!(choices.bytes(20), seeded.bytes(20));
    }

    #[test]
    fn a_bound_is_never_reached_and_small_bounds_take_one_byte() {
        let mut choices = Choices::from_seed(7);
        for bound in [0, 1, 2, 3, 255, 256, 257, 1 << 40, u64::MAX] {
            for _ in 0..200 {
                assert!(choices.below(bound) < bound.max(1));
            }
        }
        let mut choices = Choices::from_bytes(&[200, 9]);
        assert_eq!(choices.below(256), 200);
        assert_eq!(choices.below(10), 9);
    }

    #[test]
    fn a_chance_comes_true_about_as_often_as_it_says() {
        let mut choices = Choices::from_seed(3);
        let hits = (0..10_000).filter(|_| choices.chance(250)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
    }
}
