//! Being sent to another server (RFC 8489 section 10).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::string::String;

use smallvec::SmallVec;

use crate::Instant;
use crate::time::elapsed;
use crate::wire::{AlternateDomain, AlternateServer, Message};

/// A server is not asked again on behalf of another one within this time.
const MEMORY: Duration = Duration::from_secs(300);
/// Servers remembered.
const MAX_ASKED: usize = 16;
/// Redirections followed within [`MEMORY`].
const MAX_HOPS: usize = 3;

// deviates: STUN-15-1 whether an address is anycast cannot be seen: that servers there are asked
// over UDP and without credentials is up to the host.
/// Which redirections are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectPolicy {
    /// None.
    #[default]
    Never,
    /// Those that the server has proven to be its own.
    Protected,
    /// Those nobody has proven as well, which anycast servers and some others send before
    /// authentication: whoever sees the request can choose the server. Anycast is for UDP and
    /// without credentials (RFC 8489 section 15).
    Unprotected,
}

/// The server to ask instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// Its address: ask it over the same transport, with the same credentials.
    pub server: SocketAddr,
    /// The name its certificate is for; the name of the first server when `None`.
    pub domain: Option<String>,
}

/// Why a redirection is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedirectRefused {
    /// The policy does not allow it.
    #[error("redirection is not allowed")]
    Policy,
    /// There is no ALTERNATE-SERVER of the family in use, or ALTERNATE-DOMAIN is no name.
    #[error("redirection without a usable address or name")]
    Malformed,
    /// The address is no server's: unspecified, loopback, multicast, broadcast or port 0.
    #[error("redirection to an impossible address")]
    Address,
    /// That server was asked less than five minutes ago.
    #[error("redirection in a circle")]
    Loop,
    /// Three redirections within five minutes are enough.
    #[error("too many redirections")]
    TooMany,
}

/// What a client remembers of the servers it was sent to: 16 servers, five minutes.
///
/// ```
/// use stun_proto::binding::{RedirectPolicy, Redirects};
///
/// let redirects = Redirects::new(RedirectPolicy::Protected);
/// # let _ = redirects;
/// ```
#[derive(Clone, Debug)]
pub struct Redirects {
    policy: RedirectPolicy,
    asked: SmallVec<[(SocketAddr, Instant); 4]>,
    hops: SmallVec<[Instant; MAX_HOPS]>,
}

impl Redirects {
    /// A client that has asked nobody.
    pub fn new(policy: RedirectPolicy) -> Self {
        Self {
            policy,
            asked: SmallVec::new(),
            hops: SmallVec::new(),
        }
    }

    /// Notes that a server is being asked.
    pub fn note_asked(&mut self, now: Instant, server: SocketAddr) {
        self.forget_old(now);
        self.asked.retain(|(known, _)| *known != server);
        if self.asked.len() >= MAX_ASKED {
            self.asked.remove(0);
        }
        self.asked.push((server, now));
    }

    /// Judges a 300 that answered a request to `asked` (`None` for a stream, whose address is the
    /// host's secret); `protected` says that the response is proven to come from the server.
    ///
    /// # Errors
    /// [`RedirectRefused`]: the request has failed.
    pub fn follow(
        &mut self,
        now: Instant,
        asked: Option<SocketAddr>,
        response: &Message<'_>,
        protected: bool,
    ) -> Result<Alternative, RedirectRefused> {
        match self.policy {
            RedirectPolicy::Protected if protected => {}
            RedirectPolicy::Unprotected => {}
            RedirectPolicy::Never | RedirectPolicy::Protected => {
                return Err(RedirectRefused::Policy);
            }
        }
        let AlternateServer(server) = response
            .get_all::<AlternateServer>()
            .filter_map(Result::ok)
            .find(|found| asked.is_none_or(|asked| asked.is_ipv4() == found.0.is_ipv4()))
            .ok_or(RedirectRefused::Malformed)?;
        if !is_possible(server) {
            return Err(RedirectRefused::Address);
        }
        let domain = match response.get::<AlternateDomain<'_>>() {
            None => None,
            Some(Ok(domain)) => Some(dns_name(&domain).ok_or(RedirectRefused::Malformed)?),
            Some(Err(_)) => return Err(RedirectRefused::Malformed),
        };
        self.forget_old(now);
        if Some(server) == asked || self.asked.iter().any(|(known, _)| *known == server) {
            return Err(RedirectRefused::Loop);
        }
        if self.hops.len() >= MAX_HOPS {
            return Err(RedirectRefused::TooMany);
        }
        self.hops.push(now);
        self.note_asked(now, server);
        Ok(Alternative { server, domain })
    }

    fn forget_old(&mut self, now: Instant) {
        self.asked.retain(|(_, at)| elapsed(*at, now) < MEMORY);
        self.hops.retain(|at| elapsed(*at, now) < MEMORY);
    }
}

fn is_possible(server: SocketAddr) -> bool {
    let ip = server.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    server.port() != 0
        && !ip.is_unspecified()
        && !ip.is_loopback()
        && !ip.is_multicast()
        && !broadcast
}

/// A name of letters, digits and hyphens (A-labels for others), 1 to 63 in each label.
fn dns_name(domain: &AlternateDomain<'_>) -> Option<String> {
    let text = domain.as_str()?;
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    name.split('.').all(label).then(|| text.into())
}
