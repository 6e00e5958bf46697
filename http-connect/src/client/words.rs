//! What the host is told.

use core::fmt;

use alloc::string::String;
use alloc::vec::Vec;

use crate::auth::{AuthRefusal, Scheme};
use crate::wire::{HeadError, ProxyStatus, RetryAfter, proxy_status};

/// What a rejection says about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectionClass {
    /// The proxy does not do CONNECT, or disliked the request: never again.
    Permanent,
    /// Host or port are forbidden: another one may not be.
    Policy,
    /// The proxy wants credentials: see [`Rejection::auth`].
    Authentication,
    /// Later, perhaps: see [`Rejection::retry_after`].
    Temporary,
    /// The proxy could not reach the target.
    Upstream,
    /// Anything else.
    Other,
}

/// The proxy's "no". Its texts come from the proxy and prove nothing; `Debug` leaves them out.
#[derive(Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The status code.
    pub status: u16,
    /// What it means.
    pub class: RejectionClass,
    /// Why a challenge was not answered.
    pub auth: Option<AuthRefusal>,
    /// The values of `Proxy-Authenticate`, whatever became of them.
    pub challenges: Vec<String>,
    /// When the proxy wants to be asked again.
    pub retry_after: Option<RetryAfter>,
    /// The value of `Proxy-Status` (RFC 9209): see [`Rejection::proxy_status()`].
    pub proxy_status: Option<String>,
    /// The beginning of the body, at most [`ConnectConfig::kept_body`](crate::ConnectConfig) bytes.
    pub body: Vec<u8>,
}

/// What a status code other than 2xx means.
pub(super) const fn class_of(status: u16) -> RejectionClass {
    match status {
        400 | 405 | 501 => RejectionClass::Permanent,
        403 => RejectionClass::Policy,
        407 => RejectionClass::Authentication,
        408 | 429 | 503 => RejectionClass::Temporary,
        502 | 504 => RejectionClass::Upstream,
        _ => RejectionClass::Other,
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection")
            .field("status", &self.status)
            .field("class", &self.class)
            .field("auth", &self.auth)
            .field("retry_after", &self.retry_after)
            .finish_non_exhaustive()
    }
}

impl Rejection {
    /// What the proxies on the way say about it, the one nearest to the target first.
    pub fn proxy_status(&self) -> Vec<ProxyStatus> {
        let field = self.proxy_status.as_deref();
        field.and_then(proxy_status).unwrap_or_default()
    }

    /// Whether the same request may do better later.
    pub const fn is_temporary(&self) -> bool {
        match self.class {
            RejectionClass::Temporary | RejectionClass::Upstream => true,
            RejectionClass::Permanent
            | RejectionClass::Policy
            | RejectionClass::Authentication
            | RejectionClass::Other => false,
        }
    }
}

/// Why there is no tunnel, other than by the proxy's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The proxy closed the connection without an answer.
    #[error("the proxy closed the connection")]
    ProxyClosed,
    /// The proxy closed the connection while an answer in a handshake bound to it was due, or
    /// between legs for the second time.
    #[error("the proxy closed the connection during authentication")]
    AuthConnectionLost,
    /// The answer is not HTTP.
    #[error("the answer is not HTTP: {0}")]
    Head(#[from] HeadError),
    /// The answer's first line is no status line of HTTP/1.
    #[error("the answer has no HTTP/1 status line")]
    StatusLine,
    /// 101, or more than four interim responses.
    #[error("unexpected interim response")]
    Interim,
    /// The proxy wants TLS on the connection to itself.
    #[error("the proxy speaks TLS")]
    PeerSpeaksTls,
    /// The proxy's proof of knowing the password is wrong.
    #[error("the proxy failed to prove that it knows the password")]
    ForgedProof,
    /// More connections would be needed than are allowed.
    #[error("too many connections were needed")]
    TooManyConnections,
    /// No answer in time.
    #[error("the proxy did not answer in time")]
    Timeout,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectEvent {
    /// The tunnel is open: from now on the connection carries its bytes, see
    /// [`ConnectClient::tunnel`](super::ConnectClient::tunnel). Terminal.
    Established {
        /// The 2xx.
        status: u16,
        /// The last token of a multi-leg scheme, base64 as it came, for the host to check whom
        /// it talks to.
        token: Option<String>,
    },
    /// User name and password are needed: [`ConnectClient::set_credentials`](super::ConnectClient::set_credentials).
    NeedCredentials {
        /// What they are for, as the proxy says.
        realm: String,
        /// How they will be sent.
        scheme: Scheme,
    },
    /// A multi-leg scheme needs its next token: [`ConnectClient::set_token`](super::ConnectClient::set_token).
    NeedToken {
        /// Negotiate or NTLM.
        scheme: Scheme,
        /// What the proxy sent, base64 as it came.
        token: Option<String>,
    },
    /// This connection is of no more use: close it, open another one to the same proxy, then call
    /// [`ConnectClient::handle_connected`](super::ConnectClient::handle_connected).
    Reconnect,
    /// The proxy refuses. Terminal.
    Rejected(Rejection),
    /// It failed. Terminal.
    Failed(ConnectError),
}
