//! What a stretch of network does to datagrams.

use alloc::vec::Vec;
use core::time::Duration;

use sans_io_time::Instant;

use super::choices::Choices;

/// How a stretch of network treats what passes over it. Chances are in permille.
///
/// Byte streams only feel `delay` and `jitter`: the rest is what TCP hides.
#[derive(Clone, Debug)]
pub struct Link {
    /// Time every datagram takes.
    pub delay: Duration,
    /// Further time, drawn anew for each datagram: more than the gap between two reorders them.
    pub jitter: Duration,
    /// Chance that a datagram is lost.
    pub loss: u16,
    /// Chance that a datagram begins a gap, in which all are lost.
    pub burst: u16,
    /// The longest gap.
    pub burst_len: Duration,
    /// Chance that a datagram arrives again, up to four more times.
    pub duplicate: u16,
    /// Chance that a datagram is overtaken: it takes up to `reorder_by` longer.
    pub reorder: u16,
    /// The most a datagram is held back.
    pub reorder_by: Duration,
    /// Chance that up to three bits flip.
    pub corrupt: u16,
    /// Chance that the end of a datagram is cut off.
    pub truncate: u16,
    /// The longest UDP payload that passes, in bytes.
    pub mtu: usize,
    dark_until: Option<Instant>,
}

/// The longest UDP payload there is.
pub const NO_MTU: usize = 65_507;

impl Link {
    /// Delays and does nothing else.
    pub const fn clean(delay: Duration) -> Self {
        Self {
            delay,
            jitter: Duration::ZERO,
            loss: 0,
            burst: 0,
            burst_len: Duration::ZERO,
            duplicate: 0,
            reorder: 0,
            reorder_by: Duration::ZERO,
            corrupt: 0,
            truncate: 0,
            mtu: NO_MTU,
            dark_until: None,
        }
    }

    /// A link with drawn faults: about half the draws are clean in each respect.
    pub fn drawn(choices: &mut Choices) -> Self {
        let mut link = Self::clean(Duration::from_micros(choices.range(50..=120_000)));
        let kinds = choices.byte();
        let on = |bit: u8| kinds & (1 << bit) != 0;
        if on(0) {
            link.jitter = choices.duration(Duration::from_millis(60));
        }
        if on(1) {
            link.loss = *choices.pick(&[5, 20, 100, 300, 500]);
        }
        if on(2) {
            link.burst = *choices.pick(&[2, 10, 40]);
            link.burst_len = choices.duration(Duration::from_secs(8));
        }
        if on(3) {
            link.duplicate = *choices.pick(&[10, 100, 500]);
        }
        if on(4) {
            link.reorder = *choices.pick(&[10, 100, 300]);
            link.reorder_by = *choices.pick(&[
                Duration::from_millis(20),
                Duration::from_millis(400),
                Duration::from_secs(3),
                Duration::from_secs(30),
            ]);
        }
        if on(5) && on(6) {
            link.corrupt = *choices.pick(&[5, 50, 200]);
        }
        if on(5) && on(7) {
            link.truncate = *choices.pick(&[5, 50, 200]);
        }
        link
    }

    /// Takes the faults away; delay and MTU stay.
    pub fn heal(&mut self) {
        let healed = Self {
            mtu: self.mtu,
            ..Self::clean(self.delay)
        };
        *self = healed;
    }

    /// What becomes of a datagram that enters now: copies, each with the time it takes.
    pub(super) fn pass(
        &mut self,
        now: Instant,
        choices: &mut Choices,
        data: Vec<u8>,
    ) -> Vec<(Duration, Vec<u8>)> {
        if self.dark_until.is_some_and(|until| now < until) {
            return Vec::new();
        }
        if choices.chance(self.burst) {
            let gap = choices.duration(self.burst_len);
            self.dark_until = now.checked_add(gap);
            return Vec::new();
        }
        if choices.chance(self.loss) || data.len() > self.mtu {
            return Vec::new();
        }
        let extra = if choices.chance(self.duplicate) {
            choices.range(1..=4)
        } else {
            0
        };
        let mut copies = Vec::with_capacity(1);
        for _ in 0..extra {
            let copy = self.alter(choices, data.clone());
            copies.push((self.time(choices), copy));
        }
        let data = self.alter(choices, data);
        copies.push((self.time(choices), data));
        copies
    }

    /// How long one datagram (or piece of a byte stream) takes now.
    pub(super) fn time(&self, choices: &mut Choices) -> Duration {
        let mut time = self.delay.saturating_add(choices.duration(self.jitter));
        if choices.chance(self.reorder) {
            time = time.saturating_add(choices.duration(self.reorder_by));
        }
        time
    }

    fn alter(&self, choices: &mut Choices, mut data: Vec<u8>) -> Vec<u8> {
        if choices.chance(self.corrupt) && !data.is_empty() {
            for _ in 0..choices.range(1..=3) {
                let at = choices.index(data.len());
                if let Some(byte) = data.get_mut(at) {
                    *byte ^= 1 << choices.below(8);
                }
            }
        }
        if choices.chance(self.truncate) {
            let len = choices.index(data.len().saturating_add(1));
            data.truncate(len);
        }
        data
    }
}
