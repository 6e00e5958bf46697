//! What the control plane of a UE and its host say to each other.

use alloc::string::String;
use alloc::vec::Vec;

use http_connect::auth::Scheme;
use sip_outbound::wire::UriBuf;
use sip_outbound::{FlowId, UserAgentEvent};
use stun_proto::FiveTuple;

use crate::conns::{ConnAction, ConnError, ConnFailure, ConnId, Endpoint, PlanError};
use crate::ladder::Rung;
use crate::tunnel::{Step, TunnelError};

/// A UDP socket of the host, for ordinary access. Numbered by the machine, never used again.
///
/// ```
/// use ims_traversal::access::AccessSocket;
///
/// assert!(AccessSocket(1) < AccessSocket(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccessSocket(pub u64);

/// What the host must do.
///
/// ```
/// use ims_traversal::access::AccessAction;
///
/// fn obey(action: AccessAction) -> &'static str {
///     match action {
///         AccessAction::Connect { .. } => "connect, then connected or connection_failed",
///         AccessAction::Close { .. } => "write what can be polled, close",
///         AccessAction::OpenSocket { .. } => "resolve, bind, then socket_opened or socket_failed",
///         AccessAction::CloseSocket { .. } => "close",
///         AccessAction::OpenTunnel { .. } => "tunnel_opened or tunnel_failed",
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessAction {
    /// Resolve and connect by TCP; then [`connected`](super::Access::connected) or
    /// [`connection_failed`](super::Access::connection_failed).
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
    /// Resolve, and bind a UDP socket to the address from which the P-CSCF is reached; then
    /// [`socket_opened`](super::Access::socket_opened) or
    /// [`socket_failed`](super::Access::socket_failed).
    OpenSocket {
        /// The number of the socket.
        socket: AccessSocket,
        /// Where its datagrams will go.
        to: Endpoint,
    },
    /// Close a UDP socket.
    CloseSocket {
        /// The number of the socket.
        socket: AccessSocket,
    },
    /// Set up the tunnel to the EFTF, if it is not there, and lead what follows for this flow
    /// through it; then [`tunnel_opened`](super::Access::tunnel_opened) or
    /// [`tunnel_failed`](super::Access::tunnel_failed). Only with
    /// [`Rung::Tunnel`](crate::ladder::Rung) in the ladder.
    OpenTunnel {
        /// The flow that wants it.
        flow: FlowId,
    },
}

impl From<ConnAction> for AccessAction {
    fn from(action: ConnAction) -> Self {
        match action {
            ConnAction::Connect { conn, to } => Self::Connect { conn, to },
            ConnAction::Close { conn } => Self::Close { conn },
        }
    }
}

/// What bytes go out over.
///
/// ```
/// use ims_traversal::ConnId;
/// use ims_traversal::access::ConnPath;
///
/// assert!(matches!(ConnPath::Conn(ConnId(1)), ConnPath::Conn(_)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnPath {
    /// A TCP connection.
    Conn(ConnId),
    /// A datagram.
    Datagram(FiveTuple),
}

/// Why a way to the P-CSCF failed.
///
/// ```
/// use ims_traversal::ConnFailure;
/// use ims_traversal::access::RungFailure;
///
/// assert_eq!(RungFailure::Tcp(ConnFailure::Refused).to_string(), "connection refused");
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RungFailure {
    /// No TCP connection, or it broke.
    #[error(transparent)]
    Tcp(ConnFailure),
    /// The HTTP proxy does not open a tunnel, or only says so.
    #[error(transparent)]
    Proxy(TunnelError),
    /// TLS failed.
    #[error(transparent)]
    Tls(TunnelError),
    /// The certificate is for another name: somebody else answers, a captive portal most likely.
    #[error("intercepted: {0}")]
    Intercepted(TunnelError),
    /// The other side closed the connection before it answered REGISTER.
    #[error("closed before an answer came")]
    Closed,
    /// REGISTER was not answered in time, or not taken.
    #[error("no answer")]
    NoAnswer,
    /// The connection is not even tried.
    #[error(transparent)]
    Plan(PlanError),
    /// The P-CSCF's URI wants TLS, and this way has none, or its name cannot be checked.
    #[error("TLS is wanted and impossible")]
    Insecure,
    /// The host has no socket or tunnel for it.
    #[error("the host could not open it")]
    Host,
}

impl From<ConnError> for RungFailure {
    fn from(error: ConnError) -> Self {
        let error = match error {
            ConnError::Tcp(failure) => return Self::Tcp(failure),
            ConnError::Tunnel(error) => error,
        };
        match &error {
            TunnelError::Refused(_)
            | TunnelError::Connect(_)
            | TunnelError::NotATunnel(_)
            | TunnelError::ClosedDuring(Step::Connect) => Self::Proxy(error),
            TunnelError::HandshakeTimeout | TunnelError::ClosedDuring(Step::Tls) => {
                Self::Tls(error)
            }
            #[cfg(feature = "tls")]
            TunnelError::Certificate(rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidForName
                | rustls::CertificateError::NotValidForNameContext { .. },
            )) => Self::Intercepted(error),
            #[cfg(feature = "tls")]
            TunnelError::Certificate(_) | TunnelError::Tls(_) => Self::Tls(error),
        }
    }
}

/// What the application wants to know.
///
/// ```
/// use ims_traversal::access::AccessEvent;
///
/// fn show(event: AccessEvent) -> String {
///     match event {
///         AccessEvent::Trying { rung, target, .. } => format!("{rung} to {target}"),
///         AccessEvent::RungFailed { rung, cause, .. } => format!("{rung}: {cause}"),
///         AccessEvent::Ready { rung, via_proxy, .. } => format!("{rung}, {via_proxy}"),
///         other => format!("{other:?}"),
///     }
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "passed on, not kept")]
pub enum AccessEvent {
    /// A flow is led this way.
    Trying {
        /// The flow.
        flow: FlowId,
        /// The way.
        rung: Rung,
        /// The P-CSCF.
        target: UriBuf,
    },
    /// That did not work; the next way is tried, or [`AccessEvent::Exhausted`] follows.
    RungFailed {
        /// The flow.
        flow: FlowId,
        /// The way.
        rung: Rung,
        /// Why.
        cause: RungFailure,
    },
    /// The way is open, TLS included; REGISTER goes out now.
    Ready {
        /// The flow.
        flow: FlowId,
        /// The way.
        rung: Rung,
        /// Through the HTTP proxy.
        via_proxy: bool,
        /// The protocol agreed on by ALPN.
        alpn: Option<Vec<u8>>,
    },
    /// Every way has failed for a flow. It is tried again when its time has come (RFC 5626
    /// section 4.5).
    Exhausted {
        /// The flow.
        flow: FlowId,
    },
    /// The HTTP proxy wants user name and password:
    /// [`set_proxy_credentials`](super::Access::set_proxy_credentials), once for all flows, within
    /// the `exchange_timeout` of [`HttpProxy::connect`](crate::HttpProxy), or the way has failed.
    ProxyCredentials {
        /// The flow whose CONNECT waits.
        flow: FlowId,
        /// What they are for, as the proxy says.
        realm: String,
        /// How they will be sent.
        scheme: Scheme,
    },
    /// The HTTP proxy's authentication needs a token:
    /// [`set_proxy_token`](super::Access::set_proxy_token).
    ProxyToken {
        /// The flow whose CONNECT waits.
        flow: FlowId,
        /// Negotiate or NTLM.
        scheme: Scheme,
        /// What the proxy sent, base64.
        token: Option<String>,
    },
    /// What the user agent says.
    Agent(UserAgentEvent),
}
