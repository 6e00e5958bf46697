//! Which ports relays have: on several addresses of a family, down to the last one.

use core::ops::RangeInclusive;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use stun_proto::Rng;

use super::output::RelayProtocol;
use crate::wire::AddressFamily;

/// How often a port is drawn at random before the next free one after a random one is taken.
const DRAWS: u32 = 8;

const WORDS: usize = 1024;

/// Where relays of one kind can be: one of the host's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) protocol: RelayProtocol,
    pub(super) family: AddressFamily,
    /// Which of the addresses of the family.
    pub(super) address: u16,
}

/// What is asked of a port (RFC 8656 section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parity {
    Any,
    Even,
    /// An even one with the one above free as well.
    Pair,
}

/// A bit for each port that is taken: 8 KiB for each place that relays are in.
#[derive(Debug)]
struct Taken(Box<[u64; WORDS]>);

impl Taken {
    fn new() -> Self {
        Self(Box::new([0; WORDS]))
    }

    fn word(&self, word: usize) -> u64 {
        self.0.get(word).copied().unwrap_or(u64::MAX)
    }

    fn set(&mut self, port: u16, taken: bool) {
        let (word, bit) = split(port);
        if let Some(word) = self.0.get_mut(word) {
            if taken {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        }
    }
}

/// The word of a port and its bit in it.
const fn split(port: u16) -> (usize, u64) {
    ((port >> 6) as usize, 1 << (port & 63))
}

/// The ports of all relays.
#[derive(Debug)]
pub(super) struct Ports {
    range: RangeInclusive<u16>,
    taken: BTreeMap<Place, Taken>,
}

impl Ports {
    pub(super) const fn new(range: RangeInclusive<u16>) -> Self {
        Self {
            range,
            taken: BTreeMap::new(),
        }
    }

    /// A free port, unpredictable from outside: `None` only when there is none.
    pub(super) fn pick(&self, rng: &mut Rng, place: Place, parity: Parity) -> Option<u16> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let size = u32::from(last.abs_diff(first)).saturating_add(1);
        let draw = |rng: &mut Rng| {
            let offset = u16::try_from(rng.below(size)).unwrap_or(0);
            first.saturating_add(offset)
        };
        for _ in 0..DRAWS {
            let (word, bit) = split(match parity {
                Parity::Any => draw(rng),
                Parity::Even | Parity::Pair => draw(rng) & !1,
            });
            if self.free(place, parity, word) & bit != 0 {
                return port_of(word, bit);
            }
        }
        let (start, bit) = split(draw(rng));
        let low = bit.wrapping_sub(1);
        // The first word again in the end, for what lies below the start.
        for step in 0..=WORDS {
            let word = start.wrapping_add(step) & WORDS.wrapping_sub(1);
            let within = match step {
                0 => !low,
                WORDS => low,
                _ => u64::MAX,
            };
            let free = self.free(place, parity, word) & within;
            if free != 0 {
                return port_of(word, free);
            }
        }
        None
    }

    /// The bits of the ports of this word that will do.
    fn free(&self, place: Place, parity: Parity, word: usize) -> u64 {
        const EVEN: u64 = 0x5555_5555_5555_5555;
        let taken = self.taken.get(&place).map_or(0, |taken| taken.word(word));
        let open = !taken & self.within(word);
        match parity {
            Parity::Any => open,
            Parity::Even => open & EVEN,
            Parity::Pair => open & (open >> 1) & EVEN,
        }
    }

    /// The bits of the ports of this word that are in the range.
    fn within(&self, word: usize) -> u64 {
        let (first, low) = split(*self.range.start());
        let (last, high) = split(*self.range.end());
        if word < first || word > last {
            return 0;
        }
        let above = if word == first {
            !low.wrapping_sub(1)
        } else {
            u64::MAX
        };
        let below = if word == last {
            high | high.wrapping_sub(1)
        } else {
            u64::MAX
        };
        above & below
    }

    pub(super) fn take(&mut self, place: Place, port: u16) {
        self.taken
            .entry(place)
            .or_insert_with(Taken::new)
            .set(port, true);
    }

    pub(super) fn release(&mut self, place: Place, port: u16) {
        if let Some(taken) = self.taken.get_mut(&place) {
            taken.set(port, false);
        }
    }
}

/// The port of the lowest of these bits.
fn port_of(word: usize, bits: u64) -> Option<u16> {
    let base = u16::try_from(word).ok()?.checked_mul(64)?;
    base.checked_add(u16::try_from(bits.trailing_zeros()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    const PLACE: Place = Place {
        protocol: RelayProtocol::Udp,
        family: AddressFamily::V4,
        address: 0,
    };

    #[test]
    fn every_port_is_found_down_to_the_last() {
        let check = |range: RangeInclusive<u16>, parity: Parity, expected: usize| {
            let mut rng = Rng::from_seed([3; 32]);
            let mut ports = Ports::new(range.clone());
            let mut seen = BTreeSet::new();
            while let Some(port) = ports.pick(&mut rng, PLACE, parity) {
                assert!(range.contains(&port) && seen.insert(port), "{port}");
                ports.take(PLACE, port);
                match parity {
                    Parity::Any => {}
                    Parity::Even => assert!(port.is_multiple_of(2)),
                    Parity::Pair => {
                        let above = port + 1;
                        assert!(port.is_multiple_of(2) && range.contains(&above));
                        assert!(seen.insert(above));
                        ports.take(PLACE, above);
                    }
                }
            }
            assert_eq!(seen.len(), expected, "{range:?} {parity:?}");
            if let Some(port) = seen.first() {
                ports.release(PLACE, *port);
                if parity == Parity::Pair {
                    ports.release(PLACE, port + 1);
                }
                assert_eq!(ports.pick(&mut rng, PLACE, parity), Some(*port));
            }
        };
        check(1024..=65_535, Parity::Any, 64_512);
        check(1024..=65_535, Parity::Even, 32_256);
        check(1024..=65_535, Parity::Pair, 64_512);
        check(50_001..=50_130, Parity::Any, 130);
        check(50_001..=50_130, Parity::Even, 65);
        check(50_001..=50_130, Parity::Pair, 128);
        check(65_535..=65_535, Parity::Any, 1);
        check(65_535..=65_535, Parity::Pair, 0);
        check(1..=63, Parity::Any, 63);
    }

    #[test]
    fn places_do_not_share_ports() {
        let mut rng = Rng::from_seed([3; 32]);
        let mut ports = Ports::new(7..=7);
        ports.take(PLACE, 7);
        assert_eq!(ports.pick(&mut rng, PLACE, Parity::Any), None);
        let other = Place {
            address: 1,
            ..PLACE
        };
        assert_eq!(ports.pick(&mut rng, other, Parity::Any), Some(7));
        ports.release(PLACE, 7);
        assert_eq!(ports.pick(&mut rng, PLACE, Parity::Any), Some(7));
    }
}
