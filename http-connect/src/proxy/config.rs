//! What is fixed for a proxy, and what its host is told.

use core::net::SocketAddr;
use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use super::AddressPolicy;
use crate::auth::ClientAuth;
use crate::text::is_token_byte;
use crate::{HeadLimits, Leniency};

/// Limits of one [`ConnectServer`](super::ConnectServer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyLimits {
    /// Limits on the head of a request.
    pub head: HeadLimits,
    /// Bytes of a request target: 8,000. A longer one is answered with 414.
    pub target: usize,
    /// Bytes taken from the client before the tunnel is open: 16 KiB. Then reading stops.
    pub early: usize,
    /// Bytes held for each side of an open tunnel: 64 KiB. Then reading from the other side stops.
    pub relay: usize,
    /// Addresses of a name that are tried one after the other: 4.
    pub addresses: usize,
    /// Bytes read and thrown away before a refused client is cut off: 64 KiB.
    pub linger_bytes: usize,
    /// How long a request may take to arrive: 10 s, then 408.
    pub head_timeout: Duration,
    /// How long the host may take to judge credentials: 10 s, then 500.
    pub auth_timeout: Duration,
    /// How long resolving and, counted anew, connecting may take: 15 s, then 504.
    pub connect_timeout: Duration,
    /// How long a refused client may go on sending: 2 s.
    pub linger_timeout: Duration,
    /// How long a tunnel may be silent in both directions: unlimited.
    pub idle_timeout: Option<Duration>,
    /// How long the last bytes of a closed side may take to be delivered, and how long the other
    /// side may go on with [`ProxyConfig::half_close`]: 60 s.
    pub half_close_timeout: Duration,
    /// Requests on one connection: 10. More than one only come in a multi-leg handshake.
    pub requests: u8,
}

impl ProxyLimits {
    /// An upper bound of the bytes on the heap one connection can hold, growth of buffers included.
    pub const fn max_memory(&self) -> usize {
        let head = self.head.bytes.saturating_mul(6);
        let fields = self.head.fields.saturating_mul(128);
        let to_upstream = if self.early > self.relay {
            self.early
        } else {
            self.relay
        };
        // What is put back may come on top of a full queue, and buffers grow by doubling.
        let queues = to_upstream.saturating_add(self.relay).saturating_mul(4);
        head.saturating_add(fields)
            .saturating_add(queues)
            .saturating_add(16 * 1024)
    }
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self {
            head: HeadLimits::default(),
            target: 8000,
            early: 16 * 1024,
            relay: 64 * 1024,
            addresses: 4,
            linger_bytes: 64 * 1024,
            head_timeout: Duration::from_secs(10),
            auth_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(15),
            linger_timeout: Duration::from_secs(2),
            idle_timeout: None,
            half_close_timeout: Duration::from_secs(60),
            requests: 10,
        }
    }
}

/// The proxy that requests are passed on to.
#[derive(Clone, Debug)]
pub struct Parent {
    /// How to authenticate there. Fresh, or of a proxy that sees one tunnel at a time: nonces
    /// must not be counted twice.
    pub auth: ClientAuth,
    /// Passes the client's `Proxy-Authorization` on instead, and the challenges of the parent
    /// back. Off.
    pub share_credentials: bool,
    /// What is forgiven in the parent's answers.
    pub leniency: Leniency,
    /// How long the parent may take to answer: 30 s, then 504.
    pub timeout: Duration,
}

impl Parent {
    /// A parent with this authentication.
    pub const fn new(auth: ClientAuth) -> Self {
        Self {
            auth,
            share_credentials: false,
            leniency: Leniency::STRICT,
            timeout: Duration::from_secs(30),
        }
    }
}

/// How a [`ConnectServer`](super::ConnectServer) behaves.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Limits.
    pub limits: ProxyLimits,
    /// The ports that may be asked for: 443.
    pub ports: Vec<u16>,
    /// Hosts are only reached when one of these is their end: `example.com` (in lower case) allows
    /// itself and `a.example.com`. Empty: every host.
    pub hosts: Vec<String>,
    /// The addresses that may be connected to.
    pub addresses: AddressPolicy,
    /// Where this proxy itself listens, concretely: never connected to, whatever `addresses` says.
    pub own_addresses: Vec<SocketAddr>,
    /// Asks the host about the credentials of each request. Off.
    pub authenticate: bool,
    /// Goes on with a `Host` that differs from the target, which alone counts. Off: 400.
    pub ignore_host_mismatch: bool,
    /// Goes on with `Content-Length: 0`. Off: 400.
    pub tolerate_empty_body: bool,
    /// Keeps the connection in a multi-leg handshake of an HTTP/1.0 client as well, against
    /// RFC 9112 section 9.3. Off.
    pub keep_old_clients: bool,
    /// The name of this proxy in Via and Proxy-Status: a token.
    pub pseudonym: String,
    /// Tells clients in Proxy-Status what went wrong. Only for clients one trusts. Off.
    pub proxy_status: bool,
    /// Lets one direction of a tunnel go on when the other has ended. Off: both end.
    pub half_close: bool,
    /// Passes requests on to another proxy instead of connecting to their targets.
    pub parent: Option<Parent>,
}

impl ProxyConfig {
    /// A proxy of this name that asks nobody for credentials and allows port 443 of public
    /// addresses.
    pub fn new(pseudonym: impl Into<String>) -> Self {
        Self {
            limits: ProxyLimits::default(),
            ports: alloc::vec![443],
            hosts: Vec::new(),
            addresses: AddressPolicy::default(),
            own_addresses: Vec::new(),
            authenticate: false,
            ignore_host_mismatch: false,
            tolerate_empty_body: false,
            keep_old_clients: false,
            pseudonym: pseudonym.into(),
            proxy_status: false,
            half_close: false,
            parent: None,
        }
    }

    /// # Errors
    /// [`ProxyConfigError`].
    pub(super) fn check(&self) -> Result<(), ProxyConfigError> {
        let name = self.pseudonym.as_bytes();
        if name.is_empty() || !name.iter().copied().all(is_token_byte) {
            return Err(ProxyConfigError::Pseudonym);
        }
        let limits = &self.limits;
        let counts = [limits.relay, limits.early, limits.addresses, limits.target];
        let head = limits.head;
        if counts.contains(&0) || limits.requests == 0 || head.bytes < 64 || head.line < 16 {
            return Err(ProxyConfigError::Limits);
        }
        Ok(())
    }
}

/// A [`ProxyConfig`] that no proxy can work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyConfigError {
    /// The pseudonym is no token.
    #[error("the pseudonym is not a token")]
    Pseudonym,
    /// One of the limits leaves no room for anything.
    #[error("a limit is too small")]
    Limits,
}
