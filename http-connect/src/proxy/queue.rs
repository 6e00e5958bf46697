//! Bytes that wait for their connection.

use alloc::vec::Vec;

/// A bounded queue of bytes; the bound is the caller's.
#[derive(Default)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    /// How many of them are gone already.
    start: usize,
}

/// Buffers that grew beyond this are given back once they are empty.
const KEEP_CAPACITY: usize = 16 * 1024;

impl Queue {
    pub(super) const fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.start)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends as much as fits below `limit`; how much.
    pub(super) fn push(&mut self, data: &[u8], limit: usize) -> usize {
        let len = data.len().min(limit.saturating_sub(self.len()));
        self.append(data.get(..len).unwrap_or_default());
        len
    }

    /// Appends all of it.
    pub(super) fn append(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(data);
    }

    /// Puts bytes in front of all others.
    pub(super) fn put_back(&mut self, data: &[u8]) {
        self.bytes.splice(..self.start, data.iter().copied());
        self.start = 0;
    }

    /// Moves as much as there is into `buf`; how much.
    pub(super) fn take(&mut self, buf: &mut [u8]) -> usize {
        let waiting = self.bytes.get(self.start..).unwrap_or_default();
        let len = waiting.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), waiting.get(..len)) {
            to.copy_from_slice(from);
        }
        self.start = self.start.saturating_add(len);
        if self.is_empty() {
            self.clear();
        }
        len
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEEP_CAPACITY);
        self.start = 0;
    }

    /// Gives up all of it.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.drain(..self.start);
        self.bytes
    }
}
