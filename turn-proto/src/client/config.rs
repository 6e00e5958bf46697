//! What a client is told, and what it tells.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::string::String;

use stun_proto::auth::{AuthFailure, Credentials};
use stun_proto::{RetransmitConfig, StreamId};

use super::Connection;
use crate::data::RelayProtocol;
use crate::wire::{AddressFamily, Icmp};

/// How a [`Client`](super::Client) behaves.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// User name and password; without, only servers that ask for none will do. With them,
    /// servers that ask for none will not, but for `open_servers`.
    pub credentials: Option<Credentials>,
    /// The user name says who somebody is: over anything but TLS and DTLS it is sent as a hash
    /// only, and not at all to servers that do not offer that (RFC 8656 section 21.1.6). No.
    pub private_username: bool,
    /// What SOFTWARE says in Allocate and Refresh; nothing by default. At most 127 bytes.
    pub software: Option<String>,
    /// When requests are sent again.
    pub retransmit: RetransmitConfig,
    /// Which errors without integrity are believed: those to Allocate.
    pub unprotected_errors: UnprotectedErrors,
    /// Believes a server that grants an allocation without asking for the credentials that are
    /// there, or for a token where one is expected: no. Anybody on the way could have sent that
    /// answer, so it counts as never received. Without credentials and `third_party` every server
    /// is believed.
    pub open_servers: bool,
    /// Which redirects (300) are passed on to the host: none.
    pub redirects: Redirects,
    /// Asks for a token when the server speaks of one (RFC 7635), even if there are credentials:
    /// no.
    pub third_party: bool,
    /// How long a datagram path may be silent before a Binding indication keeps it open: 25 s.
    /// When no answer has come for twice that, whatever else did, a Refresh asks for one, so that
    /// a NAT that shows the server another address is noticed. Never when `None`; at least 1 s.
    pub keep_alive: Option<Duration>,
    /// How long nothing may come over a stream before a Refresh asks for a sign of life: 10 s,
    /// below the shortest limits of firewalls and proxies for idle connections. Never when `None`;
    /// at least 1 s.
    pub stream_keep_alive: Option<Duration>,
    /// How long a request over a stream may stay without answer, and nothing else come, until the
    /// stream is dead ([`Cause::Timeout`]): 15 s. A Connect may take longer, as the peer does.
    pub stream_answer_timeout: Duration,
    /// Most permissions: 128.
    pub max_permissions: usize,
    /// Most channels, those cooling down included: 128. There are 4,096 numbers.
    pub max_channels: usize,
    /// Most TCP connections to peers, attempts included (RFC 6062): 32. Attempts beyond are
    /// ignored and counted.
    pub max_connections: usize,
    /// How many events may wait until ICMP errors and connection attempts are dropped and
    /// counted: 256. Of other events twice as many as there can be permissions, channels and
    /// connections wait besides.
    pub max_events: usize,
}

impl ClientConfig {
    /// The defaults, with these credentials.
    pub fn new(credentials: Option<Credentials>) -> Self {
        Self {
            credentials,
            private_username: false,
            software: None,
            retransmit: RetransmitConfig::default(),
            unprotected_errors: UnprotectedErrors::default(),
            open_servers: false,
            redirects: Redirects::default(),
            third_party: false,
            keep_alive: Some(Duration::from_secs(25)),
            stream_keep_alive: Some(Duration::from_secs(10)),
            stream_answer_timeout: Duration::from_secs(15),
            max_permissions: 128,
            max_channels: 128,
            max_connections: 32,
            max_events: 256,
        }
    }

    /// How many events wait at most, but for the last.
    pub(super) const fn event_limit(&self) -> usize {
        let things = self
            .max_permissions
            .saturating_add(self.max_channels)
            .saturating_add(self.max_connections);
        self.max_events.saturating_add(things.saturating_mul(2))
    }

    /// A bound for the bytes a client with these limits ever holds: 1.5 MB for the defaults, half of
    /// it for TCP connections to peers that are just being made, a fifth for a unit of 64 KiB on
    /// each of two streams. A client with an allocation and nothing else holds less than 12 KiB.
    pub const fn max_memory(&self) -> usize {
        // Measured (tests/it/client.rs) and rounded up; map nodes are half full at worst.
        const FIXED: usize = 16 * 1024;
        const PERMISSION: usize = 384;
        const CHANNEL: usize = 640;
        const CONNECTION: usize = 4096 + 2 * super::MAX_FIRST_UNIT;
        const REQUEST: usize = super::MAX_TRANSMIT + 768;
        const WAITING: usize = 512;
        const EVENT: usize = 2 * core::mem::size_of::<Event>();
        // A vector doubles: a unit may lie in one twice as long as itself. Two paths at a time.
        const UNITS: usize = 2 * 2 * super::MAX_UNIT;
        let things = self.max_permissions.saturating_add(self.max_channels);
        FIXED
            .saturating_add(UNITS)
            .saturating_add(super::dispatch::MAX_TRANSACTIONS.saturating_mul(REQUEST))
            .saturating_add(self.max_permissions.saturating_mul(PERMISSION))
            .saturating_add(self.max_channels.saturating_mul(CHANNEL))
            .saturating_add(things.saturating_mul(WAITING))
            .saturating_add(
                self.max_connections
                    .saturating_mul(CONNECTION.saturating_add(REQUEST)),
            )
            .saturating_add(self.event_limit().saturating_mul(EVENT))
    }
}

/// Which errors are believed although they lack the integrity they should have: of those 437, 486,
/// 500 and 508, and over streams and DTLS all but 300. The others are a hint for when nothing
/// better comes ([`Cause::Integrity`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnprotectedErrors {
    /// None.
    Refuse,
    /// Those to Allocate, which coturn refuses before it authenticates: an attempt may be lost by
    /// them, but nothing that is there.
    #[default]
    ToAllocate,
    /// Those to every request, which other servers send: whoever sees the requests can end the
    /// allocation with one.
    Accept,
}

/// Which redirects to another server count (RFC 8489 section 10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redirects {
    /// None: a 300 is a failure like others.
    #[default]
    Refuse,
    /// Those the server has proven to come from it.
    Protected,
    /// Unprotected ones as well: anycast servers (RFC 8155) and coturn send them before they
    /// authenticate anybody. Whoever sits on the way can send them, too.
    Unprotected,
}

/// What to ask for in an Allocate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocateOptions {
    /// UDP or TCP to the peers.
    pub protocol: RelayProtocol,
    /// The family of the relayed address; the server decides (IPv4) when `None`.
    pub family: Option<AddressFamily>,
    /// A second relayed address, of IPv6 (RFC 8656 section 7.1). Excludes `family`,
    /// `reservation`, and an `even_port` that reserves.
    pub additional_v6: bool,
    /// The lifetime to ask for, at least 1 s; the server decides when `None`.
    pub lifetime: Option<Duration>,
    /// An even port, and with `true` the next one reserved as well.
    pub even_port: Option<bool>,
    /// The port an earlier allocation has reserved. Excludes `family` and `even_port`.
    pub reservation: Option<[u8; 8]>,
    /// Asks whether datagrams to peers can be sent unfragmented. A server that cannot is asked
    /// again without: see [`Event::Allocated`].
    pub dont_fragment: bool,
    /// Asks for a ticket to move to another address with (RFC 8016). A server that forbids it is
    /// asked again without.
    pub mobility: bool,
    /// Stops when the server asks for credentials, with [`Event::Challenged`], until
    /// [`Client::proceed`](super::Client::proceed): for racing paths against each other.
    pub stop_at_challenge: bool,
}

/// Why a command does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// It does not fit the state: there is an allocation already, or none, or it has ended.
    #[error("not possible in this state")]
    State,
    /// The peer's address family is not that of a relayed address.
    #[error("peer of another address family")]
    Family,
    /// A limit of the configuration is reached.
    #[error("too many permissions, channels or connections")]
    Limit,
    /// The options exclude each other, or do not go with the transport.
    #[error("the options exclude each other")]
    Options,
    /// The address cannot be a peer: its port is 0.
    #[error("no peer has port 0")]
    Peer,
    /// The server could not connect to this peer a moment ago: 10 s must pass.
    #[error("too early to connect to this peer again")]
    TooEarly,
    /// There is, or soon will be, a connection to this peer.
    #[error("there is a connection to this peer already")]
    Connected,
}

/// Why data cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no allocation, or not for UDP.
    #[error("no allocation")]
    NoAllocation,
    /// There is no permission for this peer, or not yet.
    #[error("no permission for this peer")]
    NoPermission,
    /// The payload does not fit into one message, or into one UDP datagram.
    #[error("payload too long")]
    TooLong,
    /// The buffer does not hold payload, header and padding.
    #[error("buffer too small")]
    BufferTooSmall,
}

/// Why a request came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// No answer came.
    #[error("the server does not answer")]
    Timeout,
    /// Only answers without valid integrity came; the code of the last, if it was an error.
    #[error("the server's answers do not prove that they are the server's (code {code:?})")]
    Integrity {
        /// A hint at what the server meant.
        code: Option<u16>,
    },
    /// The server refused.
    #[error("the server refused with code {0}")]
    Code(u16),
    /// Authentication failed.
    #[error("authentication failed: {0}")]
    Auth(#[from] AuthFailure),
    /// The answer lacks what it must have, or has what is not understood.
    #[error("the server's answer is malformed")]
    Malformed,
    /// The relayed or mapped address is of a family nobody asked for.
    #[error("the server's answer is for another address family")]
    Family,
    /// The request is longer than a message may be: credentials, nonce, token or ticket are huge.
    #[error("the request is too long")]
    TooLong,
    /// Client and server have different ideas of the channels: the allocation was given back.
    #[error("client and server disagree about channels")]
    OutOfSync,
    /// The stream to the server is gone.
    #[error("the connection to the server is closed")]
    StreamClosed,
    /// A hard ICMP error came.
    #[error("the server cannot be reached")]
    Unreachable,
    /// The stream stopped in the middle of a message for 30 s.
    #[error("the connection stopped in the middle of a message")]
    Stalled,
    /// The stream carries something else than TURN.
    #[error("the connection carries something else than TURN: {0}")]
    Framing(#[from] stun_proto::framing::FramingError),
}

/// What the host must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Open a connection like the one to the server: same transport address of the server, another
    /// local port. Answer with [`Client::handle_stream_opened`](super::Client::handle_stream_opened)
    /// or [`Client::handle_stream_failed`](super::Client::handle_stream_failed).
    OpenStream {
        /// What it is for.
        connection: Connection,
    },
    /// Close this stream.
    CloseStream {
        /// Which one.
        id: StreamId,
    },
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The server is there and asks for credentials: see [`AllocateOptions::stop_at_challenge`].
    Challenged,
    /// The server asks for a token of a third party, named by
    /// [`Client::token_server`](super::Client::token_server): hand it in with
    /// [`Client::set_token`](super::Client::set_token), or close.
    TokenNeeded,
    /// There is a relayed address.
    Allocated {
        /// The address peers see.
        relayed: SocketAddr,
        /// The second one, when two families were asked for and granted.
        additional: Option<SocketAddr>,
        /// The family that was asked for and not granted, and the code that says why: 440 never
        /// to be asked for again, 508 not within 60 s.
        refused: Option<(AddressFamily, u16)>,
        /// The client's address as the server sees it.
        mapped: Option<SocketAddr>,
        /// How long the allocation lasts unless it is refreshed, which happens by itself.
        lifetime: Duration,
        /// What to ask for the reserved port with, within 30 s.
        reservation: Option<[u8; 8]>,
        /// Whether [`Client::set_dont_fragment`](super::Client::set_dont_fragment) is possible.
        dont_fragment: bool,
        /// Whether [`Client::path_changed`](super::Client::path_changed) is possible.
        mobile: bool,
    },
    /// There is none. Terminal.
    AllocateFailed {
        /// Why.
        cause: Cause,
        /// How long to leave this server alone; `None` when trying again is of no use. Zero after
        /// a 508 means: try again without `even_port` and `reservation`.
        retry_after: Option<Duration>,
        /// Trying again needs another local address or connection.
        fresh_address: bool,
        /// The server to ask instead, over the same transport and with the same credentials. Its
        /// certificate is for [`Client::alternate_domain`](super::Client::alternate_domain).
        alternate: Option<SocketAddr>,
    },
    /// The allocation is gone. Terminal.
    AllocationLost {
        /// Why.
        cause: Cause,
    },
    /// The allocation was given back. Terminal.
    Closed,
    /// The server has confirmed that the allocation is there: the answer to
    /// [`Client::refresh`](super::Client::refresh).
    Refreshed {
        /// How long it lasts from now on.
        lifetime: Duration,
    },
    /// It has not, for whatever reason; the allocation may be there or not. Never after what asks
    /// by itself.
    RefreshFailed {
        /// Why.
        cause: Cause,
    },
    /// One of two relayed addresses was given back.
    FamilyReleased {
        /// The family that is left out from now on.
        family: AddressFamily,
    },
    /// Data can be exchanged with this address.
    PermissionCreated {
        /// The peer's address, all ports.
        peer: IpAddr,
    },
    /// It cannot, or no longer. Unless the server forbids it (403, 443), it is asked again.
    PermissionFailed {
        /// The peer's address.
        peer: IpAddr,
        /// Why.
        cause: Cause,
    },
    /// Data to this peer needs four bytes of header only.
    ChannelBound {
        /// The peer.
        peer: SocketAddr,
    },
    /// It needs more, as without a channel. Unless the server forbids it, it is asked again.
    ChannelFailed {
        /// The peer.
        peer: SocketAddr,
        /// Why.
        cause: Cause,
    },
    /// An ICMP error came back for data sent to this peer.
    Icmp {
        /// The peer; port 0 when it is not known.
        peer: SocketAddr,
        /// Type, code and MTU.
        icmp: Icmp,
    },
    /// Everything goes over the new path now (RFC 8016).
    PathChanged,
    /// The new path does not work; the old one stays in use if there still is one.
    PathChangeFailed {
        /// Why.
        cause: Cause,
    },
    /// The stream is gone but the allocation waits for a new path (RFC 8016).
    PathLost,
    /// A peer has connected to the relayed address: accept it, ignore it, or let it lapse after
    /// 30 s (RFC 6062).
    ConnectionAttempt {
        /// Its number.
        connection: Connection,
        /// The peer.
        peer: SocketAddr,
    },
    /// The stream leads to the peer from now on: raw bytes in both directions.
    ConnectionReady {
        /// Its number.
        connection: Connection,
        /// The stream.
        id: StreamId,
        /// The peer.
        peer: SocketAddr,
    },
    /// There will be no connection.
    ConnectionFailed {
        /// Its number.
        connection: Connection,
        /// The peer.
        peer: SocketAddr,
        /// Why.
        cause: Cause,
    },
    /// The connection has ended.
    ConnectionClosed {
        /// Its number.
        connection: Connection,
    },
}

/// Counters; they stop at their highest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages that are malformed or unexpected, and what did not fit the limits.
    pub dropped: u64,
    /// Answers without valid integrity.
    pub unverified: u64,
    /// Data from peers without permission or channel.
    pub not_permitted: u64,
}
