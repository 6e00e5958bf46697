//! What a host still has to write to its streams.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::net::Net;
use super::stream::End;

/// Bytes waiting for room, for each stream of a host.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: BTreeMap<End, Vec<u8>>,
    closing: BTreeMap<End, bool>,
}

impl Outbox {
    /// Nothing waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes bytes, now or when there is room.
    pub fn write(&mut self, net: &mut Net, end: End, data: &[u8]) {
        self.waiting.entry(end).or_default().extend_from_slice(data);
        self.flush(net, end);
    }

    /// Writes what waits. To be called when a stream is writable again.
    pub fn flush(&mut self, net: &mut Net, end: End) {
        if let Some(waiting) = self.waiting.get_mut(&end) {
            let taken = net.write(end, waiting);
            waiting.drain(..taken);
            if !waiting.is_empty() {
                return;
            }
            self.waiting.remove(&end);
        }
        match self.closing.remove(&end) {
            Some(true) => net.close(end),
            Some(false) => net.shutdown(end),
            None => {}
        }
    }

    /// How many bytes wait.
    pub fn waiting(&self, end: End) -> usize {
        self.waiting.get(&end).map_or(0, Vec::len)
    }

    /// Ends writing behind what waits.
    pub fn shutdown(&mut self, net: &mut Net, end: End) {
        self.closing.entry(end).or_insert(false);
        self.flush(net, end);
    }

    /// Closes a stream behind what waits.
    pub fn close(&mut self, net: &mut Net, end: End) {
        self.closing.insert(end, true);
        self.flush(net, end);
    }

    /// Forgets a stream that is gone.
    pub fn forget(&mut self, end: End) {
        self.waiting.remove(&end);
        self.closing.remove(&end);
    }
}
