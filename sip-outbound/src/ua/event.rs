//! What a user agent has to say.

use core::net::SocketAddr;
use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use stun_proto::Transport;

use crate::digest::{AkaChallenge, AuthFailure};
use crate::framing::FramingError;
use crate::sec_agree::SecAgreeError;
use crate::transaction::ServerId;
use crate::wire::{Request, Response, StatusCode, UriBuf};

/// A flow: one connection, or one pair of datagram addresses, to an edge proxy. Numbered by the
/// machine, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

/// A request of the application, over all its repetitions with credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

/// Where a flow is to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowTarget {
    /// The next hop. Resolve it anew for each flow, for example with a
    /// [`Locator`](crate::locate::Locator), unless `address` is there.
    pub uri: UriBuf,
    /// Transport and address, when the application has resolved them.
    pub address: Option<(Transport, SocketAddr)>,
}

impl FlowTarget {
    /// The name the peer's certificate must hold: the host of the URI, not what it was resolved to.
    /// [`is_proven`](crate::locate::is_proven) compares.
    pub fn verify_name(&self) -> &str {
        self.uri.as_uri().host()
    }

    /// Whether the flow must be TLS (or DTLS).
    pub fn needs_tls(&self) -> bool {
        let uri = self.uri.as_uri();
        uri.is_secure() || uri.transport().is_some_and(Transport::is_secure)
    }
}

/// What the host must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowAction {
    /// Resolve, connect, and finish TLS; then call
    /// [`flow_opened`](super::UserAgent::flow_opened) or
    /// [`flow_failed`](super::UserAgent::flow_failed).
    OpenFlow {
        /// The number of the flow.
        flow: FlowId,
        /// Where to.
        target: FlowTarget,
    },
    /// Close a flow, or stop opening it, once everything that can still be polled for it is
    /// written. Nothing is to be reported back.
    CloseFlow {
        /// The number of the flow.
        flow: FlowId,
    },
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowFailure {
    /// The host could not open it.
    #[error("could not be opened")]
    NotOpened,
    /// TLS was needed and is not there.
    #[error("not protected by TLS")]
    Insecure,
    /// The other side, or the network, closed it.
    #[error("closed by the other side")]
    Closed,
    /// No pong, or no answer to STUN.
    #[error("keep-alive not answered")]
    KeepAlive,
    /// STUN shows another public address than before.
    #[error("public address changed")]
    AddressChanged,
    /// The stream cannot be read.
    #[error(transparent)]
    Framing(FramingError),
    /// REGISTER was not answered.
    #[error("registration timed out")]
    TimedOut,
    /// REGISTER was answered with a failure that may pass.
    #[error("registration failed with {0}")]
    Failed(StatusCode),
    /// A registrar that had accepted before now refuses; that may pass as well.
    #[error("registration refused: {0}")]
    Refused(Refusal),
    /// The peer does not take what is sent: too much waits, or for too long.
    #[error("what is to be sent is not taken")]
    Unsent,
    /// The binding ran out before it could be refreshed.
    #[error("binding expired")]
    Expired,
    /// The host has moved to another network.
    #[error("network changed")]
    NetworkChanged,
}

/// Why a registration is given up, until [`retry_now`](super::UserAgent::retry_now).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The registrar says no.
    #[error("refused with {0}")]
    Status(StatusCode),
    /// A challenge cannot be answered.
    #[error(transparent)]
    Authentication(AuthFailure),
    /// The registrar accepted, but the binding is not in its answer.
    #[error("binding missing in the answer")]
    NotBound,
    /// The registrar or the way to it does not support outbound, and the configuration wants it.
    #[error("outbound is not supported")]
    NotOutbound,
    /// No security mechanism was agreed on with the edge proxy.
    #[error("security agreement: {0}")]
    SecAgree(SecAgreeError),
    /// The network has ended the registration, see [`RegistrationEnd::Rejected`].
    #[error("ended by the network")]
    Ended,
    /// Min-Expires makes no sense.
    #[error("contradictory Min-Expires")]
    MinExpires,
}

/// What has become of a registration, as the registrar says to those who subscribe to the event
/// package `reg` (RFC 3680). Reading the body of its NOTIFY is the application's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationEnd {
    /// `deactivated` or `expired`: to be made anew at once.
    Deactivated,
    /// `probation`: to be made anew after this time.
    Probation(Duration),
    /// `rejected` or `unregistered`: for good.
    Rejected,
}

/// What the registrar granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Seconds.
    pub expires: u32,
    /// RFC 5626 is in force.
    pub outbound: bool,
    /// Path as the registrar echoed it.
    pub path: Vec<String>,
    /// Service-Route (RFC 3608); used by requests from now on.
    pub service_route: Vec<UriBuf>,
    /// The public GRUU (RFC 5627).
    pub pub_gruu: Option<String>,
    /// The temporary GRUU.
    pub temp_gruu: Option<String>,
    /// P-Associated-URI.
    pub associated: Vec<String>,
    /// Longest interval between keep-alives, if any are sent.
    pub keep_alive: Option<Duration>,
    /// A security mechanism was agreed on with the edge proxy: TLS.
    pub sec_agree: bool,
}

/// Why a request got no final response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestFailure {
    /// Counts as 408.
    #[error("timed out")]
    TimedOut,
    /// Counts as 503.
    #[error("flow lost")]
    FlowLost,
    /// The challenge cannot be answered; the response is reported as well.
    #[error(transparent)]
    Authentication(AuthFailure),
}

/// What the application wants to know.
#[derive(Clone, Debug)]
pub enum UserAgentEvent {
    /// A registration was made or refreshed.
    Registered {
        /// Which one.
        reg_id: u32,
        /// Its flow.
        flow: FlowId,
        /// What was granted.
        registration: Registration,
    },
    /// The registrar does not confirm outbound; the binding stays as a plain one.
    NotOutbound {
        /// Which one.
        reg_id: u32,
    },
    /// A flow is gone.
    FlowFailed {
        /// The flow.
        flow: FlowId,
        /// The registration that used it.
        reg_id: Option<u32>,
        /// Why.
        cause: FlowFailure,
        /// When the registration is tried again.
        retry_in: Option<Duration>,
    },
    /// A registration is given up.
    Refused {
        /// Which one.
        reg_id: u32,
        /// Why.
        cause: Refusal,
    },
    /// A registration was removed.
    Unregistered {
        /// Which one.
        reg_id: u32,
    },
    /// The smart card is to be asked; answer with
    /// [`card_answer`](super::UserAgent::card_answer).
    CardNeeded {
        /// For which registration.
        reg_id: u32,
        /// The question.
        challenge: AkaChallenge,
    },
    /// The server's proof that it knows the password is wrong, or the realm has nothing to do with
    /// the verified name of the peer.
    Suspicious {
        /// Which registration.
        reg_id: u32,
    },
    /// A response to a request of the application.
    Response {
        /// The request.
        request: RequestId,
        /// The flow it came over.
        flow: FlowId,
        /// The response.
        response: Response,
    },
    /// A request of the application got no final response.
    RequestFailed {
        /// The request.
        request: RequestId,
        /// Why.
        cause: RequestFailure,
    },
    /// A request for the application; to be answered with
    /// [`respond`](super::UserAgent::respond).
    Request {
        /// Its transaction.
        id: ServerId,
        /// The flow it came over.
        flow: FlowId,
        /// The request.
        request: Request,
    },
    /// The ACK for a 2xx.
    Ack {
        /// The flow it came over.
        flow: FlowId,
        /// The ACK.
        request: Request,
    },
    /// The other side gives an INVITE up; it has been answered with 487.
    Cancelled {
        /// The INVITE.
        id: ServerId,
    },
    /// No ACK came for the response to an INVITE; after a 2xx send BYE.
    NoAck {
        /// The INVITE.
        id: ServerId,
    },
    /// Everything is closed; nothing follows.
    Stopped,
}
