//! What a session is told, and what it tells.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use stun_proto::auth::Credentials;
use stun_proto::{RetransmitConfig, StreamId, Transport};
use turn_proto::client::Cause;
use turn_proto::wire::AddressFamily;

use crate::{AgentConfig, Candidate, CandidateError, Event, RelayId, Role};

/// Which candidates are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Every kind.
    #[default]
    All,
    /// Relayed ones only, so that the other side learns no address of this host.
    RelayOnly,
}

/// A TURN server, and how it is reached.
#[derive(Clone, Debug)]
pub struct TurnServer {
    /// Its address.
    pub addr: SocketAddr,
    /// [`Transport::Udp`] from every host address, or one stream per component over
    /// [`Transport::Tcp`] or [`Transport::Tls`]. DTLS is refused.
    pub transport: Transport,
    /// User name and password.
    pub credentials: Credentials,
    /// The name in the server's certificate, for the host's TLS.
    pub server_name: Option<String>,
    /// The family of the relayed address; the server's choice (IPv4) when `None`.
    pub family: Option<AddressFamily>,
}

/// How a [`Session`](super::Session) behaves.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The agent's part.
    pub agent: AgentConfig,
    /// Which candidates are used.
    pub policy: Policy,
    /// STUN servers, each asked from every host address of its family. The first 8 count.
    pub stun_servers: Vec<SocketAddr>,
    /// TURN servers, the most preferred first. The first 8 count.
    pub turn_servers: Vec<TurnServer>,
    /// Takes loopback addresses as host candidates, for demonstrations on one machine: no.
    pub allow_loopback: bool,
    /// When gathering ends, whatever is still missing: 10 s.
    pub gathering_timeout: Duration,
    /// How long the rest is waited for once every component has a relayed candidate, with which it
    /// will do; servers that never answer hold nothing up then: until the timeout unless set.
    pub enough: Option<Duration>,
    /// How often a server-reflexive address is kept alive until the session is concluded: 25 s.
    pub keep_binding: Duration,
    /// When requests to servers are sent again; the RTO is raised with their number.
    pub retransmit: RetransmitConfig,
    /// Says in the description that candidates may follow it (`trickle`): yes.
    pub trickle: bool,
}

impl SessionConfig {
    /// The defaults, for one stream with one component and no server.
    pub fn new(role: Role) -> Self {
        Self {
            agent: AgentConfig::new(role),
            policy: Policy::All,
            stun_servers: Vec::new(),
            turn_servers: Vec::new(),
            allow_loopback: false,
            gathering_timeout: Duration::from_secs(10),
            enough: None,
            keep_binding: Duration::from_secs(25),
            retransmit: RetransmitConfig::default(),
            trickle: true,
        }
    }
}

/// Why a command does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// It came too late: gathering, or the session, is over.
    #[error("not possible in this state")]
    State,
    /// The address cannot be a host candidate (RFC 8445 section 5.1.1.1).
    #[error("unusable local address")]
    Address,
    /// The candidate is not taken.
    #[error(transparent)]
    Candidate(#[from] CandidateError),
}

/// Why data cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No pair works yet, or none any more.
    #[error("no route to the other side")]
    NoRoute,
    /// The relay does not take it.
    #[error(transparent)]
    Relay(#[from] turn_proto::client::SendError),
    /// The buffer does not hold the payload.
    #[error("buffer too small")]
    BufferTooSmall,
}

/// Why the host could not open a stream, or lost it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamFailure {
    /// The server, or something in front of it, refused the connection.
    #[error("connection refused")]
    Refused,
    /// Nobody answered.
    #[error("connection timed out")]
    Timeout,
    /// An HTTP proxy on the way refused the tunnel.
    #[error("the proxy refused the tunnel")]
    Proxy,
    /// The TLS handshake failed.
    #[error("TLS handshake failed")]
    Tls,
    /// Something else.
    #[error("connection failed")]
    Other,
}

/// What was being done with a server when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opening the stream to it, or the socket towards it.
    Open,
    /// Asking for the server-reflexive address.
    Binding,
    /// Asking for a relayed address.
    Allocate,
    /// Keeping the relayed address.
    Refresh,
}

/// Why a server is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerFailure {
    /// No answer came in time.
    #[error("the server does not answer")]
    Timeout,
    /// A hard ICMP error came.
    #[error("the server cannot be reached")]
    Unreachable,
    /// The answer is no answer to the question.
    #[error("the server's answer is malformed")]
    Malformed,
    /// The STUN server refused.
    #[error("the server refused with code {0}")]
    Code(u16),
    /// The stream could not be opened.
    #[error(transparent)]
    Stream(#[from] StreamFailure),
    /// The TURN client gave up.
    #[error(transparent)]
    Turn(#[from] Cause),
    /// The host has no fresh socket for another try.
    #[error("no fresh local address")]
    NoSocket,
    /// This transport is not supported.
    #[error("unsupported transport to the server")]
    Unsupported,
}

/// What the host must do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionAction {
    /// Open a connection to a TURN server, through TLS or a proxy as need be; then
    /// [`Session::stream_opened`](super::Session::stream_opened) or
    /// [`Session::stream_failed`](super::Session::stream_failed).
    OpenStream {
        /// The name the connection has from now on.
        id: StreamId,
        /// TCP or TLS.
        transport: Transport,
        /// Where to.
        remote: SocketAddr,
        /// The name in the server's certificate.
        server_name: Option<String>,
    },
    /// Close a connection.
    CloseStream {
        /// Which one.
        id: StreamId,
    },
    /// Bind one more UDP socket, because the TURN server does not take the old one (437); then
    /// [`Session::socket_opened`](super::Session::socket_opened) or
    /// [`Session::socket_failed`](super::Session::socket_failed).
    OpenSocket {
        /// Whom it is for.
        relay: RelayId,
        /// On this local address, any port.
        local: IpAddr,
    },
    /// Close a UDP socket opened for a relay.
    CloseSocket {
        /// Its local address.
        local: SocketAddr,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// A candidate to signal to the other side.
    LocalCandidate {
        /// The stream.
        stream: u16,
        /// The candidate.
        candidate: Candidate,
    },
    /// There will be no more local candidates: the description is complete.
    GatheringDone,
    /// A server is of no use.
    ServerFailed {
        /// Which one.
        server: SocketAddr,
        /// How it was to be reached.
        transport: Transport,
        /// What was being done.
        step: Step,
        /// Why.
        cause: ServerFailure,
    },
    /// What the agent says.
    Ice(Event),
    /// Every relay is given back. Terminal, after [`Session::close`](super::Session::close).
    Closed,
}
