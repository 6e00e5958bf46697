//! What a P-CSCF and its host say to each other.

use core::net::SocketAddr;

use alloc::string::String;
use alloc::vec::Vec;

use http_connect::auth::{ClaimedUser, HashAlgorithm};
use sip_outbound::wire::Aor;
use sip_outbound::{BindingId, EdgeFlowEnd, FlowId, Side, Ticket};

use crate::ConnId;
use crate::tunnel::TunnelError;

/// What kind of listener a connection was accepted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Clients, with TLS: port 443.
    #[cfg(feature = "tls")]
    Tls,
    /// Clients, without TLS: port 80.
    Tcp,
    /// Registrars. Only addresses of [`CoreHop`](super::CoreHop)s are let in.
    Core,
}

impl Listener {
    pub(super) const fn side(self) -> Side {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls => Side::Access,
            Self::Tcp => Side::Access,
            Self::Core => Side::Core,
        }
    }
}

/// Why a connection is not taken: close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// There are as many connections of this kind as allowed.
    #[error("too many connections")]
    Conns,
    /// There are as many unfinished handshakes as allowed.
    #[error("too many unfinished TLS handshakes")]
    Handshakes,
    /// The P-CSCF is being shut down.
    #[error("shutting down")]
    ShuttingDown,
    /// There is no TLS configuration.
    #[error("TLS is not configured")]
    NoTls,
    /// This is not the address of a registrar.
    #[error("not a registrar")]
    Stranger,
}

/// A question whether a user exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserQuery(pub(super) u64);

/// What the host must do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PcscfAction {
    /// Open a TCP connection, then call [`Pcscf::connected`](super::Pcscf::connected) or
    /// [`Pcscf::connection_failed`](super::Pcscf::connection_failed).
    Connect {
        /// Its number.
        conn: ConnId,
        /// Where to.
        to: SocketAddr,
    },
    /// Close a TCP connection; everything for it has been polled, or need not be any more. Its
    /// number is forgotten.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Look a user's key up, then call [`Pcscf::key_found`](super::Pcscf::key_found).
    FindKey {
        /// To be given back.
        ticket: Ticket,
        /// Whom the request says it is from.
        user: ClaimedUser,
        /// The hash function of the key.
        hash: HashAlgorithm,
        /// Who is to be registered.
        aor: Aor,
    },
    /// Find out whether this user exists, though not registered, then call
    /// [`Pcscf::user_found`](super::Pcscf::user_found).
    FindUser {
        /// To be given back.
        query: UserQuery,
        /// Who.
        aor: Aor,
    },
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseCause {
    /// The other side closed it, or it was lost.
    #[error("closed by the other side")]
    Peer,
    /// TLS did not come about, or broke.
    #[error(transparent)]
    Tunnel(TunnelError),
    /// What came is neither SIP nor HTTP.
    #[error("neither SIP nor HTTP")]
    Foreign,
    /// What came is HTTP, which is not wanted here.
    #[error("HTTP")]
    Http,
    /// The edge proxy ended the flow.
    #[error(transparent)]
    Flow(EdgeFlowEnd),
    /// There are as many flows as allowed.
    #[error("too many flows")]
    Flows,
    /// The other side does not take what is sent.
    #[error("too much waits to be sent")]
    Unsent,
    /// The host closed it.
    #[error("closed by the host")]
    Host,
    /// A registrar cannot be reached.
    #[error("no connection to the registrar")]
    NoConnection,
    /// The P-CSCF was shut down.
    #[error("shut down")]
    ShutDown,
}

/// What the host may want to know.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PcscfEvent {
    /// A connection is ready for messages.
    Ready {
        /// The connection.
        conn: ConnId,
        /// The protocol agreed on by ALPN.
        alpn: Option<Vec<u8>>,
        /// The name the client asked for by SNI.
        name: Option<String>,
    },
    /// A client speaks HTTP: [`Pcscf::received`](super::Pcscf::received),
    /// [`Pcscf::consume`](super::Pcscf::consume), [`Pcscf::write`](super::Pcscf::write) and
    /// [`Pcscf::close`](super::Pcscf::close) are the host's from now on.
    Http {
        /// The connection.
        conn: ConnId,
    },
    /// A client has registered over a connection, or refreshed.
    Registered {
        /// The connection.
        conn: ConnId,
        /// Who.
        aor: Aor,
    },
    /// The registration over a connection has ended.
    Unregistered {
        /// The connection.
        conn: ConnId,
    },
    /// The bindings of a user of the registrar inside have changed.
    Bindings {
        /// Who.
        aor: Aor,
        /// How many there are now.
        count: usize,
    },
    /// A binding of the registrar inside ran out, or its flow is gone.
    BindingLost {
        /// Who.
        aor: Aor,
        /// Which one.
        binding: BindingId,
    },
    /// A response could not be delivered: the client is gone.
    ResponseLost {
        /// The flow its request came over.
        flow: FlowId,
    },
    /// A request leads to a domain that is not configured, and was refused.
    NoRoute {
        /// The host in its URI.
        host: String,
    },
    /// A connection has ended.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Why.
        cause: CloseCause,
    },
    /// The last connection is closed after [`Pcscf::shut_down`](super::Pcscf::shut_down). Nothing
    /// follows.
    Stopped,
}
