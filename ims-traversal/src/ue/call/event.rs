//! What calls have to say.

use core::fmt;
use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use sip_outbound::wire::StatusCode;
use sip_outbound::{AuthFailure, RequestError};

use super::CallId;

/// Why a call ended.
///
/// ```
/// use ims_traversal::ue::EndCause;
///
/// assert_eq!(EndCause::RemoteHungUp.to_string(), "the other side hung up");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndCause {
    /// This side hung up, gave up calling, or refused.
    #[error("this side hung up")]
    HungUp,
    /// The other side hung up.
    #[error("the other side hung up")]
    RemoteHungUp,
    /// The caller gave up before the call was answered.
    #[error("the caller gave up")]
    Cancelled,
    /// The other side, or something on the way, says no.
    #[error("refused with {code}")]
    Refused {
        /// 300 to 699. 486: busy; 488: no common media.
        code: StatusCode,
        /// When it may be tried again.
        retry_after: Option<Duration>,
        /// Contact of a 3xx or 485: where to try instead; at most 8.
        contacts: Vec<String>,
    },
    /// A challenge cannot be answered.
    #[error(transparent)]
    Authentication(AuthFailure),
    /// No answer came.
    #[error("timed out")]
    TimedOut,
    /// The flow was lost before the call was there.
    #[error("flow lost")]
    FlowLost,
    /// Nobody took the incoming call.
    #[error("not answered")]
    NotAnswered,
    /// The other side never acknowledged that the call was taken.
    #[error("not acknowledged")]
    NotAcknowledged,
    /// The other side's session description is missing, or of no use.
    #[error("unusable session description")]
    Description,
    /// The other side's message cannot be used.
    #[error("malformed response")]
    Malformed,
    /// No way for the media, or no more.
    #[error("media: {0}")]
    Media(String),
    /// The user agent has stopped.
    #[error("stopped")]
    Stopped,
}

/// Why a command about a call is refused; nothing has changed then.
///
/// ```
/// use ims_traversal::ue::CallError;
///
/// assert_eq!(CallError::Unknown.to_string(), "no such call");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// There is no such call.
    #[error("no such call")]
    Unknown,
    /// The call is not in a state for this.
    #[error("not possible in this state of the call")]
    State,
    /// There are as many calls as allowed.
    #[error("too many calls")]
    Full,
    /// An offer of either side is not answered yet.
    #[error("an offer is under way")]
    Pending,
    /// The user agent does not send it.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// What happened to a call. `Debug` shows how long bodies are: descriptions have passwords.
#[derive(Clone)]
pub(in crate::ue) enum CallEvent {
    /// The other side calls.
    Incoming {
        call: CallId,
        /// The URI of From.
        from: String,
        /// Its display name.
        display_name: Option<String>,
        /// The URI of To.
        to: String,
        /// Without, this side offers when it answers.
        offer: Option<Bytes>,
    },
    /// 101 to 199. Several early dialogs have several `fork` numbers.
    Progress {
        call: CallId,
        fork: Option<usize>,
        code: StatusCode,
        /// The answer to the offer, as far as the other side says.
        answer: Option<Bytes>,
    },
    /// The other side's answer to this side's offer.
    Answered {
        call: CallId,
        /// That of the early dialog the call has become, for the first offer.
        fork: Option<usize>,
        answer: Bytes,
    },
    /// Both sides know that the call is open.
    Established { call: CallId },
    /// The other side wants to change the session; to be accepted or refused. Without offer, this
    /// side is to make one.
    Offer { call: CallId, offer: Option<Bytes> },
    /// What it wanted is accepted, and acknowledged where that is due: this side may offer.
    Settled { call: CallId },
    /// It gave that up.
    OfferWithdrawn { call: CallId },
    /// This side's change of the session was refused (`None`: could not be sent); all is as before.
    OfferRefused {
        call: CallId,
        code: Option<StatusCode>,
    },
    /// INFO; has been answered.
    Info {
        call: CallId,
        content_type: String,
        body: Bytes,
    },
    /// The call is over.
    Ended { call: CallId, cause: EndCause },
}

impl fmt::Debug for CallEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |body: &Option<Bytes>| body.as_ref().map(Bytes::len);
        let name = match self {
            Self::Incoming { .. } => "Incoming",
            Self::Progress { .. } => "Progress",
            Self::Answered { .. } => "Answered",
            Self::Established { .. } => "Established",
            Self::Offer { .. } => "Offer",
            Self::Settled { .. } => "Settled",
            Self::OfferWithdrawn { .. } => "OfferWithdrawn",
            Self::OfferRefused { .. } => "OfferRefused",
            Self::Info { .. } => "Info",
            Self::Ended { .. } => "Ended",
        };
        let mut shown = f.debug_struct(name);
        match self {
            Self::Incoming {
                call, from, offer, ..
            } => shown
                .field("call", call)
                .field("from", from)
                .field("offer", &length(offer)),
            Self::Progress {
                call,
                fork,
                code,
                answer,
            } => shown
                .field("call", call)
                .field("fork", fork)
                .field("code", code)
                .field("answer", &length(answer)),
            Self::Answered { call, fork, answer } => shown
                .field("call", call)
                .field("fork", fork)
                .field("answer", &answer.len()),
            Self::Offer { call, offer } => shown.field("call", call).field("offer", &length(offer)),
            Self::OfferRefused { call, code } => shown.field("call", call).field("code", code),
            Self::Info {
                call,
                content_type,
                body,
            } => shown
                .field("call", call)
                .field("content_type", content_type)
                .field("body", &body.len()),
            Self::Ended { call, cause } => shown.field("call", call).field("cause", cause),
            Self::Established { call } | Self::Settled { call } | Self::OfferWithdrawn { call } => {
                shown.field("call", call)
            }
        };
        shown.finish()
    }
}
