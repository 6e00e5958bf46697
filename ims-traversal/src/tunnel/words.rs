//! What a tunnel and its host say to each other.

use core::fmt;
use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use http_connect::auth::{ClientAuth, Scheme};
use http_connect::{ConnectConfig, ConnectError, NotATunnel, Rejection, Target};

#[cfg(feature = "tls")]
use super::Tls;

/// The proxy on the way.
///
/// ```
/// use http_connect::ConnectConfig;
/// use http_connect::auth::{ClientAuth, Credentials, Policy};
/// use ims_traversal::tunnel::{ProxyHop, TunnelConfig};
///
/// let credentials = Credentials::new("alice", "secret");
/// let hop = ProxyHop {
///     target: "turn.example:443".parse().unwrap(),
///     config: ConnectConfig::default(),
///     auth: ClientAuth::new(Some(credentials), Policy::default()),
/// };
/// let config = TunnelConfig { proxy: Some(hop), ..TunnelConfig::default() };
/// # assert!(config.proxy.is_some());
/// ```
#[derive(Debug)]
pub struct ProxyHop {
    /// Where the tunnel is to lead.
    pub target: Target,
    /// Fields, limits, timeouts. With [`Tls::Client`] inside, TLS is expected whatever
    /// [`ConnectConfig::expect_tls`] says.
    pub config: ConnectConfig,
    /// Credentials and what is known of the proxy's wishes.
    pub auth: ClientAuth,
}

/// What a [`Tunnel`](super::Tunnel) is made of.
///
/// ```
/// use ims_traversal::tunnel::TunnelConfig;
///
/// let config = TunnelConfig { write_limit: 4096, ..TunnelConfig::default() };
/// assert!(config.proxy.is_none());
/// ```
#[derive(Debug)]
pub struct TunnelConfig {
    /// The proxy, if there is one.
    pub proxy: Option<ProxyHop>,
    /// TLS inside, if wanted.
    #[cfg(feature = "tls")]
    pub tls: Option<Tls>,
    /// How long the TLS handshake may take: 15 s.
    pub handshake_timeout: Duration,
    /// How many clear bytes may wait to be sent: 64 KiB.
    pub write_limit: usize,
}

impl Default for TunnelConfig {
    /// Nothing in between.
    fn default() -> Self {
        Self {
            proxy: None,
            #[cfg(feature = "tls")]
            tls: None,
            handshake_timeout: Duration::from_secs(15),
            write_limit: 64 * 1024,
        }
    }
}

/// Why there is no tunnel, or no more; each kind is a step on the way.
///
/// ```
/// use ims_traversal::tunnel::{Step, TunnelError};
///
/// let error = TunnelError::ClosedDuring(Step::Tls);
/// assert_eq!(error.to_string(), "the connection was closed during the TLS handshake");
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The proxy refused.
    #[error("the proxy refused: {}", ShownRejection(.0))]
    Refused(Rejection),
    /// The exchange with the proxy failed.
    #[error("HTTP CONNECT: {0}")]
    Connect(ConnectError),
    /// What answers behind the proxy's 2xx does not speak TLS: a captive portal says "200" to
    /// everything.
    #[error(transparent)]
    NotATunnel(NotATunnel),
    /// The other side's certificate is not acceptable: wrong name, unknown issuer, expired.
    #[cfg(feature = "tls")]
    #[error("TLS certificate: {0}")]
    Certificate(rustls::Error),
    /// TLS failed otherwise.
    #[cfg(feature = "tls")]
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// The TLS handshake took too long.
    #[error("TLS: the handshake took too long")]
    HandshakeTimeout,
    /// The connection was closed before the tunnel was ready.
    #[error("the connection was closed during {0}")]
    ClosedDuring(Step),
}

/// A step on the way to a ready tunnel.
///
/// ```
/// use ims_traversal::tunnel::Step;
///
/// assert_eq!(Step::Connect.to_string(), "HTTP CONNECT");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The exchange with the proxy.
    Connect,
    /// The TLS handshake.
    Tls,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "HTTP CONNECT",
            Self::Tls => "the TLS handshake",
        })
    }
}

struct ShownRejection<'a>(&'a Rejection);

impl fmt::Display for ShownRejection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.0.status)?;
        match self.0.auth {
            Some(auth) => write!(f, " ({auth})"),
            None => Ok(()),
        }
    }
}

/// What happened.
///
/// ```
/// use ims_traversal::tunnel::TunnelEvent;
///
/// fn is_terminal(event: &TunnelEvent) -> bool {
///     matches!(event, TunnelEvent::Closed | TunnelEvent::Failed(_))
/// }
/// assert!(!is_terminal(&TunnelEvent::Ready { alpn: None }));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TunnelEvent {
    /// The proxy opened its part; TLS, if wanted, comes next.
    Connected,
    /// Bytes may be written and read.
    Ready {
        /// The protocol agreed on by ALPN.
        alpn: Option<Vec<u8>>,
    },
    /// Close this connection, open another one to the same proxy, then call
    /// [`Tunnel::handle_connected`](super::Tunnel::handle_connected).
    Reconnect,
    /// The proxy wants user name and password and there are none:
    /// [`Tunnel::set_credentials`](super::Tunnel::set_credentials).
    NeedCredentials {
        /// What they are for, as the proxy says.
        realm: String,
        /// How they will be sent.
        scheme: Scheme,
    },
    /// The proxy's authentication needs a token:
    /// [`Tunnel::set_token`](super::Tunnel::set_token).
    NeedToken {
        /// Negotiate or NTLM.
        scheme: Scheme,
        /// What the proxy sent, base64.
        token: Option<String>,
    },
    /// The other side has closed; what came before can still be read. Terminal.
    Closed,
    /// It failed. Terminal.
    Failed(TunnelError),
}
