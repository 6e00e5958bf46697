//! What comes to hosts, and what the machines of a run are to the network.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use sans_io_time::Instant;

use super::net::Net;
use super::stream::End;
use super::topology::{HostId, SiteId};

/// A datagram on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The source address, as it is on this stretch.
    pub from: SocketAddr,
    /// The destination address, as it is on this stretch.
    pub to: SocketAddr,
    /// The payload.
    pub data: Vec<u8>,
}

/// Why a connection did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// Nobody listens there, or a firewall says so.
    Refused,
    /// No answer.
    TimedOut,
}

/// What comes to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A datagram.
    Datagram {
        /// The host's address.
        local: SocketAddr,
        /// Where it seems to come from.
        remote: SocketAddr,
        /// The payload.
        data: Vec<u8>,
    },
    /// An ICMP error for a datagram sent before.
    Unreachable {
        /// Its source.
        local: SocketAddr,
        /// Its destination.
        remote: SocketAddr,
    },
    /// Somebody connected to a listening address.
    Accepted {
        /// The new stream.
        end: End,
        /// The listening address.
        local: SocketAddr,
        /// Who.
        remote: SocketAddr,
    },
    /// A stream asked for is open.
    Connected {
        /// Which one.
        end: End,
        /// The local address it got.
        local: SocketAddr,
    },
    /// A stream asked for is not to be had.
    ConnectFailed {
        /// Which one.
        end: End,
        /// Why.
        why: ConnectFailure,
    },
    /// Bytes of a stream.
    Bytes {
        /// Which one.
        end: End,
        /// At least one byte.
        data: Vec<u8>,
    },
    /// The other side will not write any more.
    Eof {
        /// Which one.
        end: End,
    },
    /// A stream is gone, with what was under way.
    Reset {
        /// Which one.
        end: End,
    },
    /// A stream that was full takes bytes again.
    Writable {
        /// Which one.
        end: End,
    },
    /// An alarm that was set.
    Alarm(u64),
}

/// The machines of a run.
pub trait World {
    /// Something comes to a host.
    fn deliver(&mut self, net: &mut Net, to: HostId, arrival: Arrival);
    /// The earliest deadline of all machines.
    fn deadline(&self) -> Option<Instant>;
    /// It is time for the machines whose deadline has come.
    fn wake(&mut self, net: &mut Net);
    /// Called after every step: what must always hold is asserted here.
    fn check(&mut self, _net: &Net) {}
}

#[derive(Debug)]
pub(super) enum Event {
    /// A packet is in a site, on its way down to its destination.
    Descend {
        site: SiteId,
        packet: Packet,
        origin: Option<(HostId, SocketAddr, SocketAddr)>,
    },
    /// A connection attempt is in a site, on its way down.
    Syn {
        site: SiteId,
        from: SocketAddr,
        to: SocketAddr,
        end: End,
        path: Duration,
    },
    Tell(HostId, Arrival),
    /// The answer to a Syn.
    SynAck(End),
    ReadStream(End),
    ResetStream(End),
    StreamWritable(End),
}
