//! A connection to or from a peer (RFC 6062), and the bytes between it and a client.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use stun_proto::StreamId;
use turn_proto::server::RelayId;

use super::stream::{self, Stream, retry};

/// Bytes that may wait for either side before the other one is read no further.
const WINDOW: usize = 64 * 1024;

/// Bytes moved before others have their turn.
const TURN: usize = 256 * 1024;

/// One connection of a TCP relay.
#[derive(Debug)]
pub struct Peer {
    tcp: TcpStream,
    pub relay: RelayId,
    pub state: PeerState,
    /// Bytes of the client that the peer has not taken.
    out: Vec<u8>,
    written: usize,
    client_ended: bool,
    peer_ended: bool,
    closed: bool,
    /// Bytes moved so far.
    pub to_peer: u64,
    pub to_client: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    Connecting,
    /// For a client to take it over. Nothing is read: the peer's bytes wait in the socket.
    Waiting,
    Spliced(StreamId),
}

/// How far a splice has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Nothing more can be moved now.
    Idle,
    /// There is more to move.
    More,
    /// Both sides have ended.
    Over,
}

impl Peer {
    pub fn new(tcp: TcpStream, relay: RelayId, state: PeerState) -> Self {
        let _ = tcp.set_nodelay(true);
        Self {
            tcp,
            relay,
            state,
            out: Vec::new(),
            written: 0,
            client_ended: false,
            peer_ended: false,
            closed: false,
            to_peer: 0,
            to_client: 0,
        }
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut self.tcp, token, both)
    }

    pub fn deregister(&mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.tcp);
    }

    /// How the attempt to connect ended; `None` when it has not.
    pub fn connected(&self) -> Option<io::Result<()>> {
        match self.tcp.take_error() {
            Ok(Some(error)) | Err(error) => return Some(Err(error)),
            Ok(None) => {}
        }
        match self.tcp.peer_addr() {
            Ok(_) => Some(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Takes in bytes of the client that came before the splice.
    pub fn push(&mut self, data: &[u8]) {
        self.out.extend_from_slice(data);
        self.to_peer += data.len() as u64;
    }

    /// Moves bytes both ways.
    pub fn pump(&mut self, client: &mut Stream, buf: &mut [u8]) -> io::Result<Moved> {
        let forth = self.pull_client(client, buf)?;
        let back = self.pull_peer(client, buf)?;
        let over = self.client_ended && self.closed && self.peer_ended && client.is_finished();
        Ok(if over {
            Moved::Over
        } else if forth || back {
            Moved::More
        } else {
            Moved::Idle
        })
    }

    /// Whether there is more than one turn takes.
    fn pull_client(&mut self, client: &mut Stream, buf: &mut [u8]) -> io::Result<bool> {
        let mut budget = TURN;
        loop {
            self.flush()?;
            // A peer that does not read holds up its client.
            if self.out.len() - self.written >= WINDOW || self.client_ended {
                return Ok(false);
            }
            if budget == 0 {
                return Ok(true);
            }
            match client.read(buf)? {
                stream::Read::Bytes(len) => {
                    self.push(&buf[..len]);
                    budget = budget.saturating_sub(len);
                }
                stream::Read::Nothing => return Ok(false),
                stream::Read::End => self.client_ended = true,
            }
        }
    }

    fn pull_peer(&mut self, client: &mut Stream, buf: &mut [u8]) -> io::Result<bool> {
        let mut budget = TURN;
        loop {
            client.flush()?;
            if client.backlog() >= WINDOW || self.peer_ended {
                return Ok(false);
            }
            if budget == 0 {
                return Ok(true);
            }
            match retry(|| self.tcp.read(buf))? {
                Some(0) => {
                    self.peer_ended = true;
                    client.finish()?;
                }
                Some(len) => {
                    client.write(&[&buf[..len]])?;
                    self.to_client += len as u64;
                    budget = budget.saturating_sub(len);
                }
                None => return Ok(false),
            }
        }
    }

    /// Sends what the peer takes; passes the client's end on behind it.
    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            let left = &self.out[self.written..];
            match retry(|| self.tcp.write(left))? {
                Some(0) => return Err(io::ErrorKind::WriteZero.into()),
                Some(len) => self.written += len,
                None => return Ok(()),
            }
        }
        self.out.clear();
        self.written = 0;
        if self.client_ended && !self.closed {
            self.closed = true;
            self.tcp.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }
}
