//! The words a proxy and its host exchange.

use core::fmt;
use core::net::SocketAddr;

use alloc::string::String;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::ProxyError;
use crate::{Host, Target};

/// One of the two connections of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The connection the request came over.
    Client,
    /// The connection to the target or to the parent proxy.
    Upstream,
}

impl Side {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

/// What a [`ProxyAction`] is answered with. Answers to older questions are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u32);

/// What the host is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyAction {
    /// Judge the credentials of a request, then call
    /// [`handle_auth`](super::ConnectServer::handle_auth).
    CheckAuth {
        /// For the answer.
        ticket: Ticket,
        /// What is to be judged.
        check: AuthCheck,
    },
    /// Resolve a name, then call [`handle_resolved`](super::ConnectServer::handle_resolved) or
    /// [`handle_failure`](super::ConnectServer::handle_failure).
    Resolve {
        /// For the answer.
        ticket: Ticket,
        /// The name, in lower case, without a final dot.
        name: String,
    },
    /// Connect to exactly this address, then call
    /// [`handle_connected`](super::ConnectServer::handle_connected) or
    /// [`handle_failure`](super::ConnectServer::handle_failure).
    Connect {
        /// For the answer.
        ticket: Ticket,
        /// The address, which the policy allows.
        address: SocketAddr,
    },
    /// Connect to the parent proxy; answers as for `Connect`.
    ConnectParent {
        /// For the answer.
        ticket: Ticket,
    },
    /// Send FIN to this side, behind all bytes that were to be sent.
    CloseWrite(Side),
    /// Close this connection, or give up opening it.
    Close(Side),
}

/// Credentials to be judged.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthCheck {
    pub(super) uri: String,
    pub(super) authorization: Option<Zeroizing<String>>,
    pub(super) target: Target,
}

impl AuthCheck {
    /// The request target exactly as it was sent, which Digest credentials have to name.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The value of `Proxy-Authorization`.
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_ref().map(|value| value.as_str())
    }

    /// Where the tunnel is to lead.
    pub const fn target(&self) -> &Target {
        &self.target
    }
}

impl fmt::Debug for AuthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthCheck")
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

/// What the host thinks of credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthVerdict {
    /// They are good.
    Allow {
        /// The user, for the record.
        user: Option<String>,
        /// The value of `Proxy-Authentication-Info`, if the answer is to carry one.
        info: Option<String>,
    },
    /// They are missing, wrong or stale: 407 with these values of `Proxy-Authenticate`, and the
    /// connection closes.
    Challenge(Vec<String>),
    /// A multi-leg handshake goes on: 407 with this value, and the connection stays.
    Continue(String),
    /// They are good and not enough: 403.
    Forbid,
}

/// What became of bytes read from one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what was not taken must be offered again, what is to be forwarded must be written"]
pub struct Taken<'i> {
    /// How many bytes were taken. The rest is offered again once
    /// [`wants_input`](super::ConnectServer::wants_input) says so.
    pub len: usize,
    /// The part of the input to be written to the other side, now. What that connection does not
    /// take goes back with [`handle_unsent`](super::ConnectServer::handle_unsent).
    pub forward: &'i [u8],
}

/// What the application may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyEvent {
    /// The tunnel is open and the 2xx is to be sent. From now on
    /// [`splice`](super::ConnectServer::splice) works.
    Open {
        /// Where it leads.
        target: Target,
        /// The address that was connected to; `None` through a parent proxy.
        address: Option<SocketAddr>,
        /// The user, as the host named it.
        user: Option<String>,
    },
    /// It is over: one entry of an access log. Terminal.
    Closed(Record),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The request was refused.
    Refused(ProxyError),
    /// The client went away before there was an answer.
    ClientGone,
    /// One side of the tunnel closed it.
    Closed(Side),
    /// Nothing came for too long.
    Idle,
    /// The last bytes could not be delivered in time.
    Undelivered,
    /// The host took the connections.
    Spliced,
}

/// What happened on one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The status code of the last answer; 0 when there was none.
    pub status: u16,
    /// How it ended.
    pub ended: Ended,
    /// What was asked for, if that was understood.
    pub target: Option<Target>,
    /// The user, as the host named it.
    pub user: Option<String>,
    /// Bytes from the client to the target.
    pub up: u64,
    /// Bytes from the target to the client.
    pub down: u64,
}

/// What a tunnel still holds when the host takes it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spliced {
    /// To be written to the client before anything else.
    pub to_client: Vec<u8>,
    /// To be written to the other side before anything else.
    pub to_upstream: Vec<u8>,
}

/// The tunnel is not open, or is closing already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no open tunnel")]
pub struct NotOpen;

/// The part of a host that names a place in the address policy.
pub(super) fn ends_with_host(host: &Host, end: &str) -> bool {
    match host {
        Host::Name(name) => name
            .to_ascii_lowercase()
            .strip_suffix(end)
            .is_some_and(|front| front.is_empty() || front.ends_with('.')),
        Host::Ip(ip) => end.parse() == Ok(*ip),
    }
}
