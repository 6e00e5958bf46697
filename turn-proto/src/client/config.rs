//! What a client is told, and what it tells.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::string::String;

use stun_proto::RetransmitConfig;
use stun_proto::auth::{AuthFailure, Credentials};

use crate::wire::{AddressFamily, Icmp};

/// How a [`Client`](super::Client) behaves.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// User name and password; without, only open servers will do.
    pub credentials: Option<Credentials>,
    /// What SOFTWARE says in Allocate and Refresh; nothing by default. At most 127 bytes.
    pub software: Option<String>,
    /// When requests are sent again.
    pub retransmit: RetransmitConfig,
    /// Accepts unprotected errors where real servers send them: yes.
    pub lenient_errors: bool,
    /// How often a Binding indication keeps a UDP path open: 25 s. Never when `None`.
    pub keep_alive: Option<Duration>,
    /// Most permissions: 128.
    pub max_permissions: usize,
    /// Most channels, those cooling down included: 128.
    pub max_channels: usize,
}

impl ClientConfig {
    /// The defaults, with these credentials.
    pub fn new(credentials: Option<Credentials>) -> Self {
        Self {
            credentials,
            software: None,
            retransmit: RetransmitConfig::default(),
            lenient_errors: true,
            keep_alive: Some(Duration::from_secs(25)),
            max_permissions: 128,
            max_channels: 128,
        }
    }
}

/// What to ask for in an Allocate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocateOptions {
    /// The family of the relayed address; the server decides (IPv4) when `None`.
    pub family: Option<AddressFamily>,
    /// The lifetime to ask for; the server decides when `None`.
    pub lifetime: Option<Duration>,
}

/// Why a command does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// It does not fit the state: there is an allocation already, or none, or it has ended.
    #[error("not possible in this state")]
    State,
    /// The peer's address family is not that of the relayed address.
    #[error("peer of another address family")]
    Family,
    /// A limit of the configuration is reached.
    #[error("too many permissions or channels")]
    Limit,
}

/// Why data cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no allocation.
    #[error("no allocation")]
    NoAllocation,
    /// There is no permission for this peer, or not yet.
    #[error("no permission for this peer")]
    NoPermission,
    /// The payload does not fit into one message.
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
    /// The stream to the server is gone.
    #[error("the connection to the server is closed")]
    StreamClosed,
    /// A hard ICMP error came.
    #[error("the server cannot be reached")]
    Unreachable,
    /// The stream carries something else than TURN.
    #[error("the connection carries something else than TURN: {0}")]
    Framing(#[from] stun_proto::framing::FramingError),
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// There is a relayed address.
    Allocated {
        /// The address peers see.
        relayed: SocketAddr,
        /// The client's address as the server sees it.
        mapped: Option<SocketAddr>,
        /// How long the allocation lasts unless it is refreshed, which happens by itself.
        lifetime: Duration,
    },
    /// There is none. Terminal.
    AllocateFailed {
        /// Why.
        cause: Cause,
        /// How long to leave this server alone; `None` when trying again is of no use.
        retry_after: Option<Duration>,
        /// Trying again needs another local address or connection.
        fresh_address: bool,
        /// The server to ask instead.
        alternate: Option<SocketAddr>,
    },
    /// The allocation is gone. Terminal.
    AllocationLost {
        /// Why.
        cause: Cause,
    },
    /// The allocation was given back. Terminal.
    Closed,
    /// Data can be exchanged with this address.
    PermissionCreated {
        /// The peer's address, all ports.
        peer: IpAddr,
    },
    /// It cannot, or no longer.
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
    /// It needs more, as without a channel.
    ChannelFailed {
        /// The peer.
        peer: SocketAddr,
        /// Why.
        cause: Cause,
    },
    /// An ICMP error came back for data sent to this peer.
    Icmp {
        /// The peer.
        peer: SocketAddr,
        /// Type, code and MTU.
        icmp: Icmp,
    },
}

/// Counters; they stop at their highest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages that are malformed, unexpected, or answers nobody waits for.
    pub dropped: u64,
    /// Answers without valid integrity.
    pub unverified: u64,
    /// Data from peers without permission or channel.
    pub not_permitted: u64,
}
