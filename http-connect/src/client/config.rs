//! What is fixed for a tunnel.

use core::fmt;
use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use crate::wire::{HeadLimits, Leniency, is_field_name, is_field_value};

/// Fields the client writes itself, or that have no place in a CONNECT.
const RESERVED: [&str; 6] = [
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Proxy-Connection",
    "Proxy-Authorization",
];

/// What is fixed for a tunnel, besides where it leads.
#[derive(Clone)]
pub struct ConnectConfig {
    /// Further fields of the request: name and value. `Debug` shows the names only: a value may be
    /// a token.
    pub fields: Vec<(String, String)>,
    /// Sends `Proxy-Connection: keep-alive`, which proxies that speak HTTP/1.0 want before a
    /// multi-leg handshake. Off.
    pub proxy_connection: bool,
    /// Sends these protocol IDs in an ALPN field (RFC 7639); they must be those of the ClientHello
    /// inside the tunnel. None, since a proxy may refuse because of them.
    pub alpn: Vec<Vec<u8>>,
    /// Limits on a response's head.
    pub limits: HeadLimits,
    /// What is forgiven in a response: folded fields, as RFC 9112 section 5.2 wants.
    /// [`Leniency::LENIENT`] takes all that other clients take.
    pub leniency: Leniency,
    /// Treats 401 like 407, for proxies that do not know the difference. Off.
    pub unauthorized_is_407: bool,
    /// Most bytes of a rejection's body that are read to keep the connection: 64 KiB.
    pub max_body: usize,
    /// How many bytes of a rejection's body are kept: 4 KiB.
    pub kept_body: usize,
    /// How many 1xx responses are passed over for one request: 4.
    pub max_interim: u8,
    /// How long one request may take, counted from its connection: 30 s.
    pub exchange_timeout: Duration,
    /// How long all of it may take: 60 s.
    pub total_timeout: Duration,
    /// How long the body of a rejection is waited for: 2 s.
    pub body_timeout: Duration,
    /// How often a new connection may be asked for: 2.
    pub max_reconnects: u8,
    /// The tunnel will carry TLS: [`Tunnel::read`](super::Tunnel::read) refuses anything else. Off.
    pub expect_tls: bool,
}

impl fmt::Debug for ConnectConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.fields.iter().map(|(name, _)| name).collect();
        f.debug_struct("ConnectConfig")
            .field("fields", &names)
            .field("proxy_connection", &self.proxy_connection)
            .field("alpn", &self.alpn)
            .field("limits", &self.limits)
            .field("leniency", &self.leniency)
            .field("unauthorized_is_407", &self.unauthorized_is_407)
            .field("max_body", &self.max_body)
            .field("kept_body", &self.kept_body)
            .field("max_interim", &self.max_interim)
            .field("exchange_timeout", &self.exchange_timeout)
            .field("total_timeout", &self.total_timeout)
            .field("body_timeout", &self.body_timeout)
            .field("max_reconnects", &self.max_reconnects)
            .field("expect_tls", &self.expect_tls)
            .finish()
    }
}

impl Default for ConnectConfig {
    fn default() -> Self {
        Self {
            fields: Vec::new(),
            proxy_connection: false,
            alpn: Vec::new(),
            limits: HeadLimits::default(),
            // deviates: SEC-H-07 folding is harmless where nothing is forwarded
            leniency: Leniency {
                folding: true,
                ..Leniency::STRICT
            },
            unauthorized_is_407: false,
            max_body: 64 * 1024,
            kept_body: 4096,
            max_interim: 4,
            exchange_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(2),
            max_reconnects: 2,
            expect_tls: false,
        }
    }
}

impl ConnectConfig {
    /// # Errors
    /// [`FieldError`] for the first field that cannot be sent.
    pub(super) fn check(&self) -> Result<(), FieldError> {
        let twice = |name: &str| !self.alpn.is_empty() && name.eq_ignore_ascii_case("ALPN");
        let unfit = self
            .fields
            .iter()
            .position(|field| !may_be_sent(field) || twice(&field.0));
        match unfit {
            Some(index) => Err(FieldError { index }),
            None => Ok(()),
        }
    }
}

/// A field of [`ConnectConfig::fields`] cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field {index} is reserved or holds illegal characters")]
pub struct FieldError {
    /// Which one.
    pub index: usize,
}

/// Whether a configured field is well-formed and not one the client writes itself.
fn may_be_sent((name, value): &(String, String)) -> bool {
    is_field_name(name)
        && is_field_value(value)
        && !RESERVED
            .iter()
            .any(|reserved| reserved.eq_ignore_ascii_case(name))
}
