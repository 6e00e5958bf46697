//! Bytes that wait for the host to take them.

use alloc::collections::{BTreeMap, VecDeque};

use bytes::{Buf as _, Bytes};

use crate::ua::FlowId;

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutboxFull;

/// What a unit counts besides its bytes.
const UNIT: usize = 64;

/// Whole messages and keep-alives in their order. Nothing gets between the parts of one.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    units: VecDeque<Bytes>,
    bytes: usize,
    limit: usize,
    /// Bytes that ever went in, and out.
    pushed: u64,
    taken: u64,
}

impl Outbox {
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            units: VecDeque::new(),
            bytes: 0,
            limit,
            pushed: 0,
            taken: 0,
        }
    }

    pub(crate) fn push(&mut self, unit: Bytes) -> Result<(), OutboxFull> {
        let bytes = self.bytes.saturating_add(unit.len()).saturating_add(UNIT);
        if bytes > self.limit {
            return Err(OutboxFull);
        }
        self.bytes = bytes;
        self.pushed = self.pushed.saturating_add(unit.len() as u64);
        self.units.push_back(unit);
        Ok(())
    }

    /// A mark behind what has been pushed so far.
    pub(crate) const fn mark(&self) -> u64 {
        self.pushed
    }

    /// Whether everything in front of the mark has been taken.
    pub(crate) const fn is_past(&self, mark: u64) -> bool {
        self.taken >= mark
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Fills as much of `buf` as there is; a stream may be cut anywhere.
    pub(crate) fn take_stream(&mut self, buf: &mut [u8]) -> usize {
        let mut filled = 0_usize;
        while let Some(unit) = self.units.front_mut() {
            let Some(room) = buf.get_mut(filled..) else {
                break;
            };
            let len = unit.len().min(room.len());
            if len == 0 && !unit.is_empty() {
                break;
            }
            unit.copy_to_slice(room.get_mut(..len).unwrap_or_default());
            filled = filled.saturating_add(len);
            self.bytes = self.bytes.saturating_sub(len);
            self.taken = self.taken.saturating_add(len as u64);
            if unit.is_empty() {
                self.units.pop_front();
                self.bytes = self.bytes.saturating_sub(UNIT);
            }
        }
        filled
    }

    /// Copies the next unit whole.
    ///
    /// # Panics
    /// When `buf` is shorter than the unit: the host's bug.
    pub(crate) fn take_datagram(&mut self, buf: &mut [u8]) -> Option<usize> {
        let unit = self.units.pop_front()?;
        self.bytes = self.bytes.saturating_sub(unit.len()).saturating_sub(UNIT);
        self.taken = self.taken.saturating_add(unit.len() as u64);
        assert!(unit.len() <= buf.len(), "transmit buffer too small");
        if let Some(slot) = buf.get_mut(..unit.len()) {
            slot.copy_from_slice(&unit);
        }
        Some(unit.len())
    }
}

/// Closed streams of which something is left to write.
pub(crate) const MAX_LEFT: usize = 64;

/// What closed streams still have to send: an answer that says why, most of the time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leftovers(BTreeMap<FlowId, Outbox>);

impl Leftovers {
    /// Keeps what is left of a flow; of too many the oldest is dropped.
    pub(crate) fn keep(&mut self, flow: FlowId, out: Outbox) {
        if out.is_empty() {
            return;
        }
        if self.0.len() >= MAX_LEFT {
            self.0.pop_first();
        }
        self.0.insert(flow, out);
    }

    pub(crate) fn forget(&mut self, flow: FlowId) {
        self.0.remove(&flow);
    }

    pub(crate) fn flows(&self) -> impl Iterator<Item = FlowId> {
        self.0.keys().copied()
    }

    pub(crate) fn take(&mut self, flow: FlowId, buf: &mut [u8]) -> Option<usize> {
        let out = self.0.get_mut(&flow)?;
        let len = out.take_stream(buf);
        if out.is_empty() {
            self.0.remove(&flow);
        }
        (len > 0).then_some(len)
    }
}
