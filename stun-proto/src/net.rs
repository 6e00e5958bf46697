//! The words all crates of the workspace share for "where bytes come from and go to".

use core::net::SocketAddr;

/// How bytes reach the other side, as far as the STUN family of protocols cares.
///
/// Datagram transports are retransmitted by the protocol, stream transports are framed by it.
/// TLS and DTLS themselves are the host's; a machine only sees the clear text.
// deviates: STUN-6.2.3-1 cipher suites, BCP 195 and compression are those of the host's TLS stack.
// deviates: 7350-4.1-1 the cookie exchange is that of the host's DTLS stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// DTLS over UDP.
    Dtls,
}

impl Transport {
    /// Whether this transport delivers a reliable byte stream (TCP, TLS).
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }

    /// Whether the peer was authenticated and the bytes are confidential (TLS, DTLS).
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Dtls)
    }
}

impl core::fmt::Display for Transport {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Dtls => "DTLS",
        })
    }
}

/// Transport protocol plus both transport addresses, as seen by this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FiveTuple {
    /// The transport protocol.
    pub transport: Transport,
    /// Our own address: concrete, never a wildcard.
    pub local: SocketAddr,
    /// The other side's address.
    pub remote: SocketAddr,
}

impl FiveTuple {
    /// A UDP five-tuple.
    pub const fn udp(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            transport: Transport::Udp,
            local,
            remote,
        }
    }
}

/// A byte stream (TCP or TLS connection, HTTP CONNECT tunnel), numbered by the host.
///
/// A number is never used again during the life of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// The way out of (or into) this host that a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// One datagram between the two addresses.
    Datagram(FiveTuple),
    /// The next bytes of this stream.
    Stream(StreamId),
}

/// What `poll_transmit` wrote into the host's buffer: `buf[..len]`, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit<To = Path> {
    /// Where the bytes go.
    pub to: To,
    /// How many bytes of the buffer were written.
    pub len: usize,
}

/// What became of bytes handed to a machine.
///
/// `P` says which peer application data came from; the data borrows from the input (or, for a
/// unit that was split over several reads of a stream, from the machine).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'a, P = SocketAddr> {
    /// Not a message of this protocol and peer: offer it to somebody else. Nothing changed.
    NotMine,
    /// Taken in (or dropped and counted).
    Consumed,
    /// Application data.
    Data {
        /// Who sent it.
        peer: P,
        /// The payload, without any header or padding.
        data: &'a [u8],
    },
}
