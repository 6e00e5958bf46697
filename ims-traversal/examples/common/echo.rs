//! Numbered messages to peers that echo them, one under way to each.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use stun_proto::Instant;

/// After so long a datagram that did not come back is sent again.
const RESEND: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Echo {
    /// Messages that came back.
    back: u32,
    /// The message under way, and when it was sent last.
    waiting: Option<(u32, Instant)>,
    /// Bytes of it that came back over a stream.
    received: Vec<u8>,
    ready: bool,
    resent: u32,
}

/// All peers.
#[derive(Debug)]
pub struct Echoes {
    peers: BTreeMap<SocketAddr, Echo>,
    messages: u32,
    size: usize,
}

impl Echoes {
    /// So many messages of so many bytes, at least 16, to each of these.
    pub fn new(peers: &[SocketAddr], messages: u32, size: usize) -> Self {
        let peers = peers.iter().map(|peer| (*peer, Echo::default()));
        Self {
            peers: peers.collect(),
            messages,
            size,
        }
    }

    /// The peers.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.peers.keys().copied().collect()
    }

    /// Messages may be sent to this peer from now on.
    pub fn ready(&mut self, peer: SocketAddr) {
        if let Some(echo) = self.peers.get_mut(&peer) {
            echo.ready = true;
        }
    }

    /// The same for all at this address.
    pub fn ready_at(&mut self, ip: IpAddr) {
        let there = self.peers.iter_mut().filter(|(peer, _)| peer.ip() == ip);
        there.for_each(|(_, echo)| echo.ready = true);
    }

    /// Whether everything came back.
    pub fn done(&self) -> bool {
        self.peers.values().all(|echo| echo.back >= self.messages)
    }

    /// How many messages came back, of how many.
    pub fn back(&self) -> (u32, u32) {
        let back = self.peers.values().map(|echo| echo.back).sum();
        (back, self.messages * self.peers.len() as u32)
    }

    /// How many were sent more than once.
    pub fn resent(&self) -> u32 {
        self.peers.values().map(|echo| echo.resent).sum()
    }

    fn message(&self, number: u32) -> Vec<u8> {
        let mut message = format!("message {number:6} ").into_bytes();
        message.resize(self.size, b'.');
        message
    }

    /// The next message to a peer whose last one has come back, or that one again when it is late
    /// and went as a datagram.
    pub fn next(&mut self, now: Instant, peer: SocketAddr, datagram: bool) -> Option<Vec<u8>> {
        let messages = self.messages;
        let echo = self.peers.get_mut(&peer).filter(|echo| echo.ready)?;
        let number = match echo.waiting {
            Some((number, sent)) if datagram && now.duration_since(sent) >= RESEND => {
                echo.resent += 1;
                number
            }
            None if echo.back < messages => echo.back,
            Some(_) | None => return None,
        };
        echo.waiting = Some((number, now));
        Some(self.message(number))
    }

    /// A datagram came from a peer.
    pub fn datagram(&mut self, peer: SocketAddr, data: &[u8]) {
        let waiting = self.peers.get(&peer).and_then(|echo| echo.waiting);
        let expected = waiting.map(|(number, _)| self.message(number));
        if expected.is_some_and(|message| message == data)
            && let Some(echo) = self.peers.get_mut(&peer)
        {
            echo.waiting = None;
            echo.back += 1;
        }
    }

    /// Bytes came from a peer over its stream; `false` when they are not what was sent.
    pub fn stream(&mut self, peer: SocketAddr, data: &[u8]) -> bool {
        if let Some(echo) = self.peers.get_mut(&peer) {
            echo.received.extend_from_slice(data);
        }
        while let Some(echo) = self.peers.get(&peer)
            && echo.received.len() >= self.size
        {
            let expected = echo.waiting.map(|(number, _)| self.message(number));
            let Some(echo) = self.peers.get_mut(&peer) else {
                return false;
            };
            if expected.is_none_or(|message| message != echo.received[..self.size]) {
                return false;
            }
            echo.received.drain(..self.size);
            echo.waiting = None;
            echo.back += 1;
        }
        true
    }
}
