//! What a UE and its host say to each other.

use core::net::IpAddr;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use ice_proto::ComponentId;
use sip_outbound::wire::StatusCode;
use sip_outbound::{FlowId, RequestError, RequestFailure, RequestId};

use super::call::{CallError, CallId, EndCause};
use crate::access::{AccessError, AccessEvent};
use crate::ladder::NetworkKey;
use crate::media::MediaEvent;
use crate::sdp::{Codec, Direction};
use crate::{ConnId, Endpoint};

/// The network the host is in.
///
/// ```
/// use ims_traversal::ladder::NetworkKey;
/// use ims_traversal::ue::Network;
///
/// let office = Network::new(NetworkKey(1), vec!["192.168.1.20".parse().unwrap()]);
/// assert_eq!(office.addresses.len(), 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// What the ladder remembers it by.
    pub key: NetworkKey,
    /// The host's addresses in it, the most preferred first; for media over UDP. The first 8
    /// count.
    pub addresses: Vec<IpAddr>,
}

impl Network {
    /// A network.
    pub const fn new(key: NetworkKey, addresses: Vec<IpAddr>) -> Self {
        Self { key, addresses }
    }
}

/// The media of a call. A call gets new ones when the network changes.
///
/// ```
/// use ims_traversal::ue::{CallId, MediaId};
///
/// let (old, new) = (MediaId { call: CallId(1), instance: 0 }, MediaId { call: CallId(1), instance: 1 });
/// assert!(old < new);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaId {
    /// The call.
    pub call: CallId,
    /// Counted from 0.
    pub instance: u32,
}

/// A TCP connection of the host.
///
/// ```
/// use ims_traversal::ConnId;
/// use ims_traversal::ue::UeConn;
///
/// assert_ne!(UeConn::Control(ConnId(0)), UeConn::Control(ConnId(1)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UeConn {
    /// To the P-CSCF.
    Control(ConnId),
    /// To a TURN server.
    Media(MediaId, ConnId),
}

/// Whose connection an HTTP proxy wants a token for.
///
/// ```
/// use ims_traversal::ue::ProxyAsker;
/// use sip_outbound::FlowId;
///
/// assert_ne!(ProxyAsker::Control(FlowId(1)), ProxyAsker::Control(FlowId(2)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyAsker {
    /// A flow, as [`AccessEvent::ProxyToken`] says.
    Control(FlowId),
    /// A connection of a call's media, as [`MediaEvent::NeedToken`] says.
    Media(CallId, ConnId),
}

/// A UDP socket of the host. Numbered by the machine, never used again.
///
/// ```
/// use ims_traversal::ue::SocketId;
///
/// assert!(SocketId(1) < SocketId(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// What the host must do.
///
/// ```
/// use ims_traversal::ue::UeAction;
///
/// fn obey(action: UeAction) -> &'static str {
///     match action {
///         UeAction::Connect { .. } => "resolve, connect, then Ue::connected or connection_failed",
///         UeAction::Close { .. } => "write what can be polled, close",
///         UeAction::OpenSocket { .. } => "bind, then Ue::socket_opened or socket_failed",
///         UeAction::CloseSocket { .. } => "close",
///         UeAction::OpenTunnel { .. } => "Ue::tunnel_opened or tunnel_failed",
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UeAction {
    /// Make a TCP connection; then [`connected`](super::Ue::connected) or
    /// [`connection_failed`](super::Ue::connection_failed).
    Connect {
        /// The name of the connection from now on.
        conn: UeConn,
        /// Where to.
        to: Endpoint,
    },
    /// Give up connecting; or close, once everything that can be polled for it is written.
    Close {
        /// The connection.
        conn: UeConn,
    },
    /// Bind a UDP socket; then [`socket_opened`](super::Ue::socket_opened) or
    /// [`socket_failed`](super::Ue::socket_failed).
    OpenSocket {
        /// The name of the socket from now on.
        socket: SocketId,
        /// On which address; any port.
        place: SocketPlace,
    },
    /// Close a UDP socket.
    CloseSocket {
        /// The socket.
        socket: SocketId,
    },
    /// As [`AccessAction::OpenTunnel`](crate::access::AccessAction).
    OpenTunnel {
        /// The flow that wants it.
        flow: FlowId,
    },
}

/// Where a UDP socket is to be bound.
///
/// ```
/// use ims_traversal::ue::SocketPlace;
///
/// let place = SocketPlace::Address("10.0.0.1".parse().unwrap());
/// assert!(matches!(place, SocketPlace::Address(_)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketPlace {
    /// On this address.
    Address(IpAddr),
    /// On the address from which this far end is reached, which the host resolves: for SIP over
    /// UDP.
    Towards(Endpoint),
}

/// One component of a call's media.
///
/// ```
/// use ims_traversal::ue::{CallId, CallMedia};
/// use ice_proto::ComponentId;
///
/// let rtp = CallMedia { call: CallId(1), component: ComponentId { stream: 0, component: 1 } };
/// assert_eq!(rtp.component.component, 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallMedia {
    /// The call.
    pub call: CallId,
    /// RTP is component 1; RTCP is 2, or shares it.
    pub component: ComponentId,
}

/// What the application wants to know.
///
/// ```
/// use ims_traversal::media::MediaEvent;
/// use ims_traversal::ue::UeEvent;
///
/// fn show(event: &UeEvent) -> String {
///     match event {
///         UeEvent::Incoming { from, .. } => format!("{from} calls"),
///         UeEvent::Established { .. } => "taken".into(),
///         UeEvent::Media { event, .. } if **event == MediaEvent::Completed => "talk".into(),
///         UeEvent::Ended { cause, .. } => format!("over: {cause}"),
///         other => format!("{other:?}"),
///     }
/// }
/// assert_eq!(show(&UeEvent::Stopped), "Stopped");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum UeEvent {
    /// About the ways to the P-CSCF and the registrations.
    Access(Box<AccessEvent>),
    /// The other side calls, and has been told that it rings: [`answer`](super::Ue::answer) or
    /// [`reject`](super::Ue::reject).
    Incoming {
        /// The call.
        call: CallId,
        /// The URI of From.
        from: String,
        /// Its display name.
        display_name: Option<String>,
        /// The URI of To.
        to: String,
    },
    /// The INVITE of an outgoing call is sent.
    Calling {
        /// The call.
        call: CallId,
    },
    /// 101 to 199: 180 says that it rings.
    Ringing {
        /// The call.
        call: CallId,
        /// The code.
        code: StatusCode,
        /// Which of several called devices; counted from 0.
        fork: Option<usize>,
    },
    /// The call is taken, and both sides know.
    Established {
        /// The call.
        call: CallId,
    },
    /// What has been agreed on, at first or after a change.
    Agreed {
        /// The call.
        call: CallId,
        /// The codecs the other side takes, the best first.
        codecs: Vec<Codec>,
        /// Which way media may flow, seen from here.
        direction: Direction,
        /// The other side uses ICE.
        ice: bool,
    },
    /// About the way of the media. Everything but `Gathered` and `Closed`.
    Media {
        /// The call.
        call: CallId,
        /// What happened.
        event: Box<MediaEvent>,
    },
    /// This side's change was refused (`None`: could not be sent); all is as before.
    ChangeRefused {
        /// The call.
        call: CallId,
        /// The code.
        code: Option<StatusCode>,
    },
    /// INFO within a call.
    Info {
        /// The call.
        call: CallId,
        /// Its Content-Type.
        content_type: String,
        /// The body.
        body: Bytes,
    },
    /// The call is over.
    Ended {
        /// The call.
        call: CallId,
        /// Why.
        cause: EndCause,
    },
    /// MESSAGE; has been answered.
    Message {
        /// The URI of From.
        from: String,
        /// Its Content-Type.
        content_type: String,
        /// The body.
        body: Bytes,
    },
    /// What became of [`message`](super::Ue::message).
    Delivered {
        /// Its number.
        request: RequestId,
        /// The final response, or why there is none.
        outcome: Result<StatusCode, RequestFailure>,
    },
    /// Everything is given back; nothing follows.
    Stopped,
}

/// Why a configuration does not work.
///
/// ```
/// use ims_traversal::ue::UeConfigError;
///
/// let error = UeConfigError::from(sip_outbound::ConfigError::Proxies);
/// assert!(error.to_string().contains("proxy"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UeConfigError {
    /// Control.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The words of the session descriptions.
    #[error(transparent)]
    Sdp(#[from] crate::sdp::ConfigError),
    /// A limit of calls is zero.
    #[error("limit of calls is zero")]
    Zero,
    /// The components of the media are not those that
    /// [`rtcp_mux`](crate::sdp::NegotiationConfig::rtcp_mux) speaks of.
    #[error("components and rtcp-mux do not go together")]
    Components,
}

impl From<sip_outbound::ConfigError> for UeConfigError {
    fn from(error: sip_outbound::ConfigError) -> Self {
        Self::Access(error.into())
    }
}

/// Why a command is refused; nothing has changed then.
///
/// ```
/// use ims_traversal::ue::UeError;
///
/// assert_eq!(UeError::NotRunning.to_string(), "not started, or stopping");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UeError {
    /// [`start`](super::Ue::start) was not called, or [`stop`](super::Ue::stop) was.
    #[error("not started, or stopping")]
    NotRunning,
    /// The command does not fit the call.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The request is not sent.
    #[error(transparent)]
    Request(#[from] RequestError),
}
