//! What the media of a call are told, and what they tell.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::string::String;
#[cfg(feature = "tls")]
use alloc::sync::Arc;

use http_connect::auth::Scheme;
use ice_proto::{
    Candidate, ComponentId, Event, Failure, RelayId, RouteLoss, ServerFailure, SessionConfig, Step,
    Transport,
};

use crate::conns::{ConnError, ConnId, ConnLimits, Endpoint, HttpProxy, PlanError};

/// How the media of a call behave.
///
/// ```
/// use http_connect::auth::Credentials;
/// use ice_proto::{Role, SessionConfig};
/// use ims_traversal::media::MediaConfig;
/// use ims_traversal::{Endpoint, HttpProxy};
///
/// let mut config = MediaConfig::new(SessionConfig::new(Role::Controlling));
/// let proxy = Endpoint::Name { host: "proxy.corp.example".into(), port: 3128 };
/// config.proxy = Some(HttpProxy::new(proxy, Some(Credentials::new("alice", "secret"))));
/// ```
#[derive(Clone, Debug)]
pub struct MediaConfig {
    /// Servers, role, components, timers of ICE.
    pub session: SessionConfig,
    /// The HTTP proxy every TCP connection goes through, if the network has one.
    pub proxy: Option<HttpProxy>,
    /// Has the proxy, or the host, connect to the name of a TURN server instead of its address,
    /// where it has one: no.
    pub by_name: bool,
    /// Roots, versions and suites for TURN servers over TLS; without it they are of no use.
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Limits of the TCP connections.
    pub conns: ConnLimits,
    /// How many bytes may wait inside one connection before media sent over it are dropped:
    /// 16 KiB, two seconds of G.711. What TURN itself has to say goes on up to
    /// [`ConnLimits::write_limit`].
    pub media_queue: usize,
    /// After how long without data of a stream's first component
    /// [`MediaEvent::Silent`] is told, while data are expected: never unless set.
    pub media_timeout: Option<Duration>,
}

impl MediaConfig {
    /// The defaults: no proxy, no TLS. Candidates do not trickle, because SIP needs more than
    /// descriptions for that (RFC 8840); instead gathering ends a second after every component has
    /// a relay, unless [`SessionConfig::enough`] says when.
    pub fn new(session: SessionConfig) -> Self {
        Self {
            session: SessionConfig {
                trickle: false,
                enough: session.enough.or(Some(Duration::from_secs(1))),
                ..session
            },
            proxy: None,
            by_name: false,
            #[cfg(feature = "tls")]
            tls: None,
            conns: ConnLimits::default(),
            media_queue: 16 * 1024,
            media_timeout: None,
        }
    }
}

/// What the host must do.
///
/// ```
/// use ims_traversal::media::MediaAction;
///
/// fn obey(action: MediaAction) -> String {
///     match action {
///         MediaAction::Connect { conn, to } => format!("connect {} to {to}", conn.0),
///         MediaAction::Close { conn } => format!("write the rest of {}, close it", conn.0),
///         MediaAction::OpenSocket { local, .. } => format!("bind a socket to {local}"),
///         MediaAction::CloseSocket { local } => format!("close the socket at {local}"),
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaAction {
    /// Connect, then [`Media::connected`](super::Media::connected) or
    /// [`Media::connection_failed`](super::Media::connection_failed).
    Connect {
        /// The number of the connection.
        conn: ConnId,
        /// A TURN server, or the proxy.
        to: Endpoint,
    },
    /// Close a connection once everything that can be polled for it is written, or give up
    /// connecting.
    Close {
        /// The number of the connection.
        conn: ConnId,
    },
    /// Bind one more UDP socket, then [`Media::socket_opened`](super::Media::socket_opened) or
    /// [`Media::socket_failed`](super::Media::socket_failed).
    OpenSocket {
        /// Whom it is for.
        relay: RelayId,
        /// On this local address, any port.
        local: IpAddr,
    },
    /// Close a UDP socket opened upon [`OpenSocket`](Self::OpenSocket).
    CloseSocket {
        /// Its local address.
        local: SocketAddr,
    },
}

/// What a connection to a server was waiting for.
///
/// ```
/// use ims_traversal::media::ConnStep;
///
/// assert_eq!(ConnStep::Proxy.to_string(), "HTTP CONNECT");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnStep {
    /// The TCP connection, to the proxy if there is one.
    Tcp,
    /// The proxy's answer.
    Proxy,
    /// The TLS handshake.
    Tls,
}

impl fmt::Display for ConnStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "the TCP connection",
            Self::Proxy => "HTTP CONNECT",
            Self::Tls => "the TLS handshake",
        })
    }
}

/// Why a server is of no use, down to the hop.
///
/// ```
/// use ims_traversal::media::ServerCause;
/// use ims_traversal::{ConnError, ConnFailure};
///
/// let cause = ServerCause::Conn(ConnError::Tcp(ConnFailure::Refused));
/// assert_eq!(cause.to_string(), "connection refused");
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerCause {
    /// The connection to it: TCP, the proxy, TLS.
    #[error(transparent)]
    Conn(#[from] ConnError),
    /// The connection was not even tried.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Gathering ended before the connection was there.
    #[error("not waited for any longer during {0}")]
    GivenUp(ConnStep),
    /// TLS is wanted and not configured, or the name is none a certificate can have.
    #[error("no TLS for this server")]
    NoTls,
    /// What it answered, or did not.
    #[error(transparent)]
    Server(#[from] ServerFailure),
}

/// How a relay is reached.
///
/// ```
/// use ims_traversal::media::RelayLeg;
///
/// fn show(leg: &RelayLeg) -> String {
///     let through = if leg.via_proxy { " in CONNECT" } else { "" };
///     format!("{} over {}{through}", leg.server, leg.transport)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLeg {
    /// The TURN server.
    pub server: SocketAddr,
    /// UDP, TCP or TLS.
    pub transport: Transport,
    /// Through the HTTP proxy.
    pub via_proxy: bool,
}

/// What happened.
///
/// ```
/// use ims_traversal::media::{Media, MediaEvent};
///
/// fn tell(media: &mut Media) {
///     while let Some(event) = media.poll_event() {
///         match event {
///             MediaEvent::Gathered => { /* describe it: media.local(0) */ }
///             MediaEvent::ServerFailed { server, cause, .. } => eprintln!("{server}: {cause}"),
///             MediaEvent::Completed => { /* every component has its way */ }
///             _ => {}
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MediaEvent {
    /// A candidate, for hosts that trickle. Others wait for [`Gathered`](Self::Gathered).
    LocalCandidate {
        /// The stream.
        stream: u16,
        /// The candidate.
        candidate: Candidate,
    },
    /// There will be no more local candidates: the description is complete.
    Gathered,
    /// The proxy has opened its tunnel to a server.
    Proxied {
        /// The server.
        server: SocketAddr,
    },
    /// A connection to a server is there, TLS included.
    Connected {
        /// The server.
        server: SocketAddr,
        /// TCP or TLS.
        transport: Transport,
        /// Through the HTTP proxy.
        via_proxy: bool,
    },
    /// A server is of no use.
    ServerFailed {
        /// The server.
        server: SocketAddr,
        /// How it was to be reached.
        transport: Transport,
        /// What was being done.
        step: Step,
        /// Why.
        cause: ServerCause,
    },
    /// The proxy wants credentials: [`Media::set_credentials`](super::Media::set_credentials).
    NeedCredentials {
        /// The connection.
        conn: ConnId,
        /// Whom they are for.
        realm: String,
        /// How they will be used.
        scheme: Scheme,
    },
    /// The proxy wants a token: [`Media::set_token`](super::Media::set_token).
    NeedToken {
        /// The connection.
        conn: ConnId,
        /// Negotiate or NTLM.
        scheme: Scheme,
        /// What the proxy sent, base64.
        token: Option<String>,
    },
    /// Data of a component goes this way from now on.
    Selected {
        /// Stream and component.
        component: ComponentId,
        /// This side's candidate.
        local: Candidate,
        /// The other side's.
        remote: Candidate,
        /// How this side's relay is reached, if it is one.
        relay: Option<RelayLeg>,
        /// Round trip of the check; nothing without one.
        rtt: Duration,
    },
    /// Every component has its way.
    Completed,
    /// The other side, which follows RFC 5245, has been told another default address than the one
    /// selected: a new offer is due (RFC 8839 section 4.3.4).
    OfferDue,
    /// The first data of a component have come, or the first after [`Silent`](Self::Silent).
    Heard {
        /// Stream and component.
        component: ComponentId,
    },
    /// No data have come for [`MediaConfig::media_timeout`].
    Silent {
        /// Stream and component.
        component: ComponentId,
    },
    /// Data of a component can no longer be sent. Only a restart helps.
    RouteLost {
        /// Stream and component.
        component: ComponentId,
        /// Why.
        cause: RouteLoss,
    },
    /// Nothing has been sent to another side without ICE for a while, and the host keeps the path
    /// open itself ([`PlainKeepAlive::Host`](ice_proto::PlainKeepAlive::Host)).
    KeepAliveDue {
        /// Stream and component.
        component: ComponentId,
    },
    /// No way was found. A restart may help.
    Failed(Failure),
    /// What else ICE has to say.
    Ice(Event),
    /// Every relay is given back. Terminal, after [`Media::close`](super::Media::close).
    Closed,
}

/// Why data cannot be sent.
///
/// ```
/// use ims_traversal::media::SendError;
///
/// // A codec that can do with less had better do so.
/// fn is_congested(error: SendError) -> bool {
///     matches!(error, SendError::Congested)
/// }
/// assert!(!is_congested(ice_proto::SendError::NoRoute.into()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no way, or not yet, or not for this.
    #[error(transparent)]
    Ice(#[from] ice_proto::SendError),
    /// Too much waits in the connection already: dropped, and counted in
    /// [`MediaStats::congested`].
    #[error("the connection to the relay is congested")]
    Congested,
}

/// Counters; they stop at their highest value.
///
/// ```
/// use ims_traversal::media::MediaStats;
///
/// assert_eq!(MediaStats::default().congested, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MediaStats {
    /// Datagrams of the application sent, over whatever.
    pub sent: u64,
    /// Those that have come.
    pub received: u64,
    /// Those dropped because too much waited in a connection.
    pub congested: u64,
    /// Messages of ICE and TURN dropped for the same reason, or with their connection.
    pub lost: u64,
}
