//! What a site lets out.

use core::net::SocketAddr;

use super::choices::Choices;

/// What may leave a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Everything.
    All,
    /// TCP only.
    Tcp,
    /// TCP to ports 443 and 80 only.
    Web,
    /// TCP to the HTTP proxy only.
    Proxy(SocketAddr),
}

/// A firewall for what leaves a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firewall {
    /// What may leave.
    pub allowed: Allowed,
    /// Whether the rest is answered (ICMP error, TCP reset) instead of being swallowed.
    pub rejects: bool,
}

impl Firewall {
    /// Lets everything out.
    pub const OPEN: Self = Self {
        allowed: Allowed::All,
        rejects: false,
    };

    /// Any firewall; `proxy` is the proxy that may be the only way out.
    pub fn drawn(choices: &mut Choices, proxy: SocketAddr) -> Self {
        Self {
            allowed: *choices.pick(&[
                Allowed::All,
                Allowed::Tcp,
                Allowed::Web,
                Allowed::Proxy(proxy),
            ]),
            rejects: choices.flip(),
        }
    }

    pub(super) const fn lets_udp_out(&self) -> bool {
        matches!(self.allowed, Allowed::All)
    }

    pub(super) fn lets_tcp_out(&self, to: SocketAddr) -> bool {
        match self.allowed {
            Allowed::All | Allowed::Tcp => true,
            Allowed::Web => matches!(to.port(), 443 | 80),
            Allowed::Proxy(proxy) => to == proxy,
        }
    }
}
