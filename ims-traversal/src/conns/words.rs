//! What the host of a role and its connections say to each other.

use core::fmt;
use core::net::SocketAddr;

use alloc::string::String;

use http_connect::auth::{ClientAuth, Credentials, Policy};
use http_connect::{ConnectConfig, FieldError, Leniency, TargetError};

use crate::tunnel::TunnelError;

/// A TCP connection of a machine's host. Numbered by the machine, never used again.
///
/// ```
/// use ims_traversal::ConnId;
///
/// assert!(ConnId(1) < ConnId(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Why a TCP connection was not made, or broke, as the host saw it.
///
/// ```
/// use ims_traversal::ConnFailure;
/// use std::io;
///
/// fn of(error: &io::Error) -> ConnFailure {
///     match error.kind() {
///         io::ErrorKind::ConnectionRefused => ConnFailure::Refused,
///         io::ErrorKind::ConnectionReset => ConnFailure::Reset,
///         io::ErrorKind::TimedOut => ConnFailure::TimedOut,
///         _ => ConnFailure::Other,
///     }
/// }
/// assert_eq!(of(&io::ErrorKind::ConnectionReset.into()), ConnFailure::Reset);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnFailure {
    /// The other side answered with a reset to the first segment.
    #[error("connection refused")]
    Refused,
    /// A connection that was up is reset.
    #[error("connection reset")]
    Reset,
    /// No route, or a firewall that says so.
    #[error("unreachable")]
    Unreachable,
    /// No answer; the machine itself gives up after 15 s.
    #[error("timed out")]
    TimedOut,
    /// The name has no address.
    #[error("name not resolved")]
    Unresolved,
    /// Something else.
    #[error("connection failed")]
    Other,
}

/// Where the host is to connect to.
///
/// ```
/// use ims_traversal::Endpoint;
///
/// let to = Endpoint::from("203.0.113.1:443".parse::<std::net::SocketAddr>().unwrap());
/// assert_eq!(to.port(), 443);
/// let to = Endpoint::Name { host: "turn.example".into(), port: 3478 };
/// assert_eq!(to.to_string(), "turn.example:3478");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A name for the host to resolve to addresses (A, AAAA), and a port.
    Name {
        /// The name.
        host: String,
        /// The port.
        port: u16,
    },
    /// An address.
    Addr(SocketAddr),
}

impl Endpoint {
    /// The port.
    pub const fn port(&self) -> u16 {
        match self {
            Self::Name { port, .. } => *port,
            Self::Addr(addr) => addr.port(),
        }
    }

    /// The host without the port: what a certificate is checked against.
    pub fn host(&self) -> String {
        match self {
            Self::Name { host, .. } => host.clone(),
            Self::Addr(addr) => alloc::format!("{}", addr.ip()),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self::Addr(addr)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Addr(addr) => addr.fmt(f),
        }
    }
}

/// The HTTP proxy of a network. Every connection goes through it with a CONNECT of its own, whose
/// target is where that connection is to lead.
///
/// ```
/// use http_connect::auth::Credentials;
/// use ims_traversal::{Endpoint, HttpProxy};
///
/// let endpoint = Endpoint::Name { host: "proxy.corp.example".into(), port: 3128 };
/// let proxy = HttpProxy::new(endpoint, Some(Credentials::new("alice", "secret")));
/// assert_eq!(proxy.endpoint.port(), 3128);
/// ```
#[derive(Clone, Debug)]
pub struct HttpProxy {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Fields, limits and timeouts of the exchange with it. By default its answers are read as
    /// leniently as other clients do ([`Leniency::LENIENT`]).
    pub connect: ConnectConfig,
    /// Credentials, and which schemes may be answered.
    pub auth: ClientAuth,
}

impl HttpProxy {
    /// The defaults: without credentials the application is asked for them. Basic and MD5 are not
    /// answered, since the way to the proxy is in the clear; allow them by
    /// [`ClientAuth::policy_mut`].
    pub fn new(endpoint: Endpoint, credentials: Option<Credentials>) -> Self {
        let policy = Policy {
            ask_host: true,
            ..Policy::default()
        };
        Self {
            endpoint,
            connect: ConnectConfig {
                leniency: Leniency::LENIENT,
                ..ConnectConfig::default()
            },
            auth: ClientAuth::new(credentials, policy),
        }
    }
}

/// What the host must do about a TCP connection.
///
/// ```
/// use ims_traversal::{ConnAction, ConnId, Endpoint};
///
/// fn obey(action: ConnAction) -> String {
///     match action {
///         ConnAction::Connect { conn: ConnId(n), to } => format!("{n}: connect to {to}"),
///         ConnAction::Close { conn: ConnId(n) } => format!("{n}: write the rest, close"),
///     }
/// }
/// assert_eq!(obey(ConnAction::Close { conn: ConnId(1) }), "1: write the rest, close");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnAction {
    /// Resolve and connect, then report.
    Connect {
        /// The number of the connection.
        conn: ConnId,
        /// Where to.
        to: Endpoint,
    },
    /// Give up connecting; or close, once everything that can be polled for it is written.
    /// Nothing is to be reported back.
    Close {
        /// The number of the connection.
        conn: ConnId,
    },
}

/// Why a connection is of no more use.
///
/// ```
/// use ims_traversal::{ConnError, ConnFailure};
///
/// let error = ConnError::from(ConnFailure::TimedOut);
/// assert_eq!(error.to_string(), "timed out");
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnError {
    /// The TCP connection.
    #[error(transparent)]
    Tcp(#[from] ConnFailure),
    /// What goes through it: the proxy, or TLS.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
}

/// Why a connection is not even tried.
///
/// ```
/// use ims_traversal::PlanError;
///
/// assert_eq!(PlanError::ConnectPort(80).to_string(), "no CONNECT to port 80");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Proxies let CONNECT through to 443; to the ports of plain HTTP and STUN it only raises
    /// suspicion.
    #[error("no CONNECT to port {0}")]
    ConnectPort(u16),
    /// The host cannot be named in a CONNECT.
    #[error("CONNECT target: {0}")]
    Target(TargetError),
    /// A field of the CONNECT cannot be sent.
    #[error("CONNECT: {0}")]
    Field(FieldError),
    /// As many connections as allowed are open.
    #[error("too many connections")]
    Full,
    /// There is one with this key already.
    #[error("connection exists")]
    Exists,
}
