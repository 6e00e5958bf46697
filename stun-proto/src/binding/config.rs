//! What a Binding client is told: the usage, in the words of RFC 8489 section 13.

use core::time::Duration;

use alloc::string::String;

use super::redirect::RedirectPolicy;
use crate::RetransmitConfig;
use crate::auth::{Credentials, ShortTermClient};
use crate::wire::Software;

/// How requests are proven.
#[expect(clippy::large_enum_variant, reason = "one per machine")]
#[derive(Clone, Debug, Default)]
pub enum Authentication {
    /// Not at all.
    #[default]
    None,
    /// With a password of the session (RFC 8489 section 9.1).
    ShortTerm(ShortTermClient),
    /// With user name and password, once the server has asked for them (section 9.2). A success
    /// without counts as never received.
    LongTerm(Credentials),
    /// The same, but a server that does not ask is believed, and with it anybody on the way.
    LongTermIfAsked(Credentials),
}

// deviates: STUN-13-1 no object for all usages: each machine's configuration fixes its own, and
// `Discovery` is the search for a server.
/// The usage a client follows.
///
/// The defaults are those of NAT discovery with a basic server (RFC 8489 section 12).
#[derive(Clone, Debug)]
pub struct BindingClientConfig {
    /// The retransmission ladder.
    pub retransmit: RetransmitConfig,
    /// SOFTWARE in requests, at most 509 bytes; `None` keeps it to oneself.
    pub software: Option<String>,
    /// FINGERPRINT in every message, and required of every response: where the socket is shared
    /// with other protocols.
    pub fingerprint: bool,
    /// The server may speak RFC 3489: requests have no attributes, and MAPPED-ADDRESS will do.
    /// Only over UDP, and not where the socket is shared with other protocols.
    pub classic: bool,
    /// How requests are proven.
    pub authentication: Authentication,
    /// Which redirections to another server are followed: none.
    pub redirect: RedirectPolicy,
    /// How often a request that met a server error (500 to 599) is made again: 4.
    pub server_error_retries: u8,
    /// How long to wait before the first of these; doubles each time: 1 s.
    pub server_error_delay: Duration,
    /// Most requests under way: 64.
    pub max_requests: usize,
    /// Most requests under way with one server; others wait: 10.
    pub max_requests_per_server: usize,
    /// Most streams, and most paths kept alive: 16 each.
    pub max_paths: usize,
    /// Numbers the transmissions of each request (RFC 7982). Not together with authentication.
    pub count_transmissions: bool,
}

impl Default for BindingClientConfig {
    fn default() -> Self {
        Self {
            retransmit: RetransmitConfig::default(),
            software: Some(concat!("stun-proto ", env!("CARGO_PKG_VERSION")).into()),
            fingerprint: false,
            classic: false,
            authentication: Authentication::None,
            redirect: RedirectPolicy::Never,
            server_error_retries: 4,
            server_error_delay: Duration::from_secs(1),
            max_requests: 64,
            max_requests_per_server: 10,
            max_paths: 16,
            count_transmissions: false,
        }
    }
}

/// Why a configuration makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// SOFTWARE is longer than 509 bytes.
    #[error("SOFTWARE is longer than 509 bytes")]
    Software,
    /// Classic servers know neither FINGERPRINT nor credentials nor counters.
    #[error("classic STUN excludes fingerprint, credentials and counters")]
    Classic,
    /// A counted retransmission would have to be proven again.
    #[error("counters exclude credentials")]
    Counters,
    /// The realm is empty or longer than 127 bytes.
    #[error("the realm is empty or longer than 127 bytes")]
    Realm,
    /// A limit, or a time between transmissions, is zero.
    #[error("a limit or time is zero")]
    Zero,
}

impl BindingClientConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let authenticated = !matches!(self.authentication, Authentication::None);
        let software = self.software.as_deref().map(Software::new);
        if software.is_some_and(|software| software.is_err()) {
            return Err(ConfigError::Software);
        }
        if self.classic && (self.fingerprint || authenticated || self.count_transmissions) {
            return Err(ConfigError::Classic);
        }
        if self.count_transmissions && authenticated {
            return Err(ConfigError::Counters);
        }
        let times = [self.retransmit.rto, self.retransmit.reliable_timeout];
        let limits = [
            self.max_requests,
            self.max_requests_per_server,
            self.max_paths,
            self.retransmit.sends.into(),
        ];
        if times.contains(&Duration::ZERO) || limits.contains(&0) {
            return Err(ConfigError::Zero);
        }
        Ok(())
    }
}

/// Why a request or indication cannot be made; nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// As many requests, indications, streams or kept paths as allowed.
    #[error("too many requests, streams or paths")]
    TooMany,
    /// The message would not fit the smallest packet every path carries (RFC 8489 section 6.1).
    #[error("the message would be too long for an unknown path")]
    TooLong,
    /// Classic STUN is for UDP alone.
    #[error("classic STUN is for UDP alone")]
    ClassicTransport,
}
