//! A byte pipe with a memory of its own, cut as the test wants it.

use std::collections::VecDeque;

/// Bytes on their way, delivered in pieces of at most `step` bytes.
#[derive(Debug)]
pub(crate) struct Pipe {
    bytes: VecDeque<u8>,
    step: usize,
    pub(crate) closed: bool,
}

impl Pipe {
    pub(crate) fn new(step: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            step,
            closed: false,
        }
    }

    pub(crate) fn write(&mut self, data: &[u8]) {
        assert!(!self.closed, "written after FIN");
        self.bytes.extend(data);
    }

    /// The next piece, to be shortened by what was taken with [`consume`](Self::consume).
    pub(crate) fn peek(&self) -> Vec<u8> {
        self.bytes.iter().take(self.step).copied().collect()
    }

    pub(crate) fn consume(&mut self, len: usize) {
        self.bytes.drain(..len);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}
