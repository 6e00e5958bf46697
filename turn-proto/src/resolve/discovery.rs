//! Where servers may be found that nobody has configured (RFC 8155).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use alloc::string::String;
use alloc::vec::Vec;

use stun_proto::Transport;
use stun_proto::uri::Uri;

/// The anycast addresses of TURN (RFC 8155 section 9): UDP only, and after the redirect (300) the
/// client talks to the unicast address alone.
pub const ANYCAST: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 2)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 10)),
];

/// What to look for with DNS-based service discovery, unicast or multicast (RFC 8155 section 5).
pub const SERVICE_TYPES: [&str; 4] = ["_turn._udp", "_turn._tcp", "_turns._udp", "_turns._tcp"];

/// A place to look for servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A URI that somebody has configured, for a [`Resolver`](super::Resolver).
    Configured(Uri),
    /// The domain of the access network: a [`Resolver`](super::Resolver) for `turn:` and this name.
    Domain(String),
    /// Service discovery with the [`SERVICE_TYPES`].
    ServiceDiscovery,
    /// One of the [`ANYCAST`] addresses, port 3478.
    Anycast(IpAddr),
}

/// Places to look for servers, in the order of RFC 8155 section 3: what is configured comes first.
/// To be gone through for each interface and family on its own.
pub fn sources(configured: &[Uri], domains: &[String]) -> Vec<Source> {
    let mut sources: Vec<Source> = configured.iter().cloned().map(Source::Configured).collect();
    sources.extend(domains.iter().cloned().map(Source::Domain));
    sources.push(Source::ServiceDiscovery);
    sources.extend(ANYCAST.map(Source::Anycast));
    sources
}

/// Whether a discovered server may be used: without credentials of its domain only over TLS or DTLS
/// with a verified certificate, unless the network is trusted (RFC 8155 section 9). There is no
/// falling back to less.
pub const fn is_acceptable(transport: Transport, credentials: bool, trusted_network: bool) -> bool {
    credentials || trusted_network || transport.is_secure()
}
