//! Byte streams that behave as TCP connections look to a host.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use sans_io_time::Instant;

use super::topology::HostId;

/// One end of a byte stream. Both ends of a connection have numbers of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct End(pub u64);

impl End {
    /// The other end.
    pub const fn other(self) -> Self {
        Self(self.0 ^ 1)
    }
}

/// How what is written becomes what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cuts {
    /// As it was written.
    None,
    /// In pieces of at most so many bytes.
    Most(usize),
    /// Anything: pieces of one byte, several writes in one read.
    Wild,
}

#[derive(Debug)]
pub(super) struct Half {
    pub(super) host: HostId,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// Connected (or accepted), as far as this end knows.
    pub(super) open: bool,
    /// Its host will not write any more.
    pub(super) shut: bool,
    /// Its host will not read any more, or the connection is gone.
    pub(super) gone: bool,
    /// Its host does not want to read now.
    pub(super) paused: bool,
    /// It was told that it cannot write, and wants to hear when it can.
    pub(super) blocked: bool,
    /// What comes to this end, with the time it can be read at.
    pub(super) inbox: VecDeque<(Instant, Vec<u8>)>,
    /// Bytes in the inbox.
    pub(super) held: usize,
    /// After the inbox comes the end.
    pub(super) fin: Option<Instant>,
    pub(super) fin_read: bool,
    /// A delivery is due.
    pub(super) due: bool,
}

impl Half {
    pub(super) const fn new(host: HostId, local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            host,
            local,
            remote,
            open: false,
            shut: false,
            gone: false,
            paused: false,
            blocked: false,
            inbox: VecDeque::new(),
            held: 0,
            fin: None,
            fin_read: false,
            due: false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) halves: [Half; 2],
    pub(super) cuts: Cuts,
    pub(super) window: usize,
    /// Nothing arrives any more, and nobody is told.
    pub(super) dead: bool,
    /// When something was written last, from either end.
    pub(super) last: Instant,
}

impl Stream {
    pub(super) fn half(&mut self, end: End) -> &mut Half {
        let [first, second] = &mut self.halves;
        if end.0 & 1 == 0 { first } else { second }
    }
}
