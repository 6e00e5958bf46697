//! Collecting the bytes of one unit over several reads.

use alloc::vec::Vec;

/// How long the unit is that begins with the bytes seen so far.
pub(super) enum Measure {
    /// Cannot tell before there are so many bytes.
    Unknown { until: usize },
    /// `len` bytes make the unit, `padding` more follow and mean nothing.
    Known { len: usize, padding: usize },
}

/// What a read brought.
pub(super) enum Taken<'s> {
    /// A whole unit.
    Unit(&'s [u8]),
    /// The beginning of a unit; the rest is to come.
    Partial,
    /// Nothing.
    Nothing,
}

/// The bytes of the current unit that came with earlier reads.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    held: Vec<u8>,
    /// The unit in `held` has been handed out.
    spent: bool,
    /// Padding that is still to come and be thrown away.
    padding: usize,
}

/// Buffers that grew beyond this are given back once their unit is done.
const KEEP_CAPACITY: usize = 4096;

impl Reassembly {
    /// Takes the next unit from the held bytes and `input`, advancing `input`.
    pub(super) fn next<'s, 'i: 's, E>(
        &'s mut self,
        input: &mut &'i [u8],
        measure: impl Fn(&[u8]) -> Result<Measure, E>,
    ) -> Result<Taken<'s>, E> {
        if self.spent {
            self.spent = false;
            self.held.clear();
            self.held.shrink_to(KEEP_CAPACITY);
        }
        let skip = self.padding.min(input.len());
        self.padding = self.padding.saturating_sub(skip);
        advance(input, skip);
        if self.held.is_empty() {
            if input.is_empty() {
                return Ok(Taken::Nothing);
            }
            if let Measure::Known { len, padding } = measure(input)?
                && let Some((unit, rest)) = input.split_at_checked(len)
            {
                let skip = padding.min(rest.len());
                self.padding = padding.saturating_sub(skip);
                *input = rest;
                advance(input, skip);
                return Ok(Taken::Unit(unit));
            }
        }
        self.collect(input, measure)
    }

    fn collect<'s, E>(
        &'s mut self,
        input: &mut &[u8],
        measure: impl Fn(&[u8]) -> Result<Measure, E>,
    ) -> Result<Taken<'s>, E> {
        loop {
            let (target, padding) = match measure(&self.held)? {
                Measure::Unknown { until } => (until, None),
                Measure::Known { len, padding } => (len, Some(padding)),
            };
            let missing = target.saturating_sub(self.held.len());
            if missing == 0 {
                let Some(padding) = padding else {
                    return Ok(Taken::Partial);
                };
                self.spent = true;
                self.padding = padding;
                let skip = padding.min(input.len());
                self.padding = padding.saturating_sub(skip);
                advance(input, skip);
                return Ok(Taken::Unit(&self.held));
            }
            if input.is_empty() {
                return Ok(Taken::Partial);
            }
            let take = missing.min(input.len());
            self.make_room(take, target);
            self.held
                .extend_from_slice(input.get(..take).unwrap_or_default());
            advance(input, take);
        }
    }

    /// Makes room for `more` bytes: twice the room there was, as a vector does by itself, but never
    /// more than the unit needs.
    fn make_room(&mut self, more: usize, unit: usize) {
        let needed = self.held.len().saturating_add(more);
        if needed > self.held.capacity() {
            let goal = self.held.capacity().saturating_mul(2).min(unit);
            let goal = goal.max(needed);
            self.held
                .reserve_exact(goal.saturating_sub(self.held.len()));
        }
    }

    /// Bytes held for the current unit.
    pub(super) const fn held(&self) -> usize {
        self.held.len()
    }
}

fn advance(input: &mut &[u8], by: usize) {
    *input = input.get(by..).unwrap_or_default();
}
