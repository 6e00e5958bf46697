//! Candidates, their priorities and foundations (RFC 8445 section 5).

use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use alloc::string::String;
use alloc::vec::Vec;

/// One component of one media stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentId {
    /// The stream, counted from 0 in the order of the description.
    pub stream: u16,
    /// The component, counted from 1: RTP 1, RTCP 2. At most 256.
    pub component: u16,
}

/// A relay of a TURN server, numbered by whoever owns the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub u32);

/// The way a datagram takes out of, or came into, this agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// Straight from a local address.
    Datagram(stun_proto::FiveTuple),
    /// Through a relay.
    Relay {
        /// Which one.
        relay: RelayId,
        /// The other side, as the TURN server sees it.
        peer: SocketAddr,
    },
}

impl Route {
    /// The other side's address.
    pub const fn remote(&self) -> SocketAddr {
        match self {
            Self::Datagram(at) => at.remote,
            Self::Relay { peer, .. } => *peer,
        }
    }
}

/// How a candidate was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateKind {
    /// An address of an interface.
    Host,
    /// An address a check brought to light.
    PeerReflexive,
    /// The outside of a NAT, told by a STUN server.
    ServerReflexive,
    /// An address of a TURN server.
    Relayed,
}

impl CandidateKind {
    /// The recommended type preference.
    pub const fn preference(self) -> u32 {
        match self {
            Self::Host => 126,
            Self::PeerReflexive => 110,
            Self::ServerReflexive => 100,
            Self::Relayed => 0,
        }
    }

    /// The word in a candidate line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::PeerReflexive => "prflx",
            Self::ServerReflexive => "srflx",
            Self::Relayed => "relay",
        }
    }
}

impl fmt::Display for CandidateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The priority of a candidate (RFC 8445 section 5.1.2.1).
///
/// ```
/// use ice_proto::{CandidateKind, priority};
///
/// assert_eq!(priority(CandidateKind::Host, 65535, 1), 2_130_706_431);
/// assert_eq!(priority(CandidateKind::Relayed, 65535, 2), 16_777_214);
/// ```
pub const fn priority(kind: CandidateKind, local_preference: u16, component: u16) -> u32 {
    let component = if component > 256 { 256 } else { component };
    (kind.preference() << 24)
        | ((local_preference as u32) << 8).saturating_add(256_u32.saturating_sub(component as u32))
}

/// The priority of a pair (RFC 8445 section 6.1.2.3), from the priorities of the controlling and
/// the controlled agent's candidates.
pub const fn pair_priority(controlling: u32, controlled: u32) -> u64 {
    let (g, d) = (controlling as u64, controlled as u64);
    let (low, high) = if g < d { (g, d) } else { (d, g) };
    (low << 32)
        .saturating_add(high << 1)
        .saturating_add((g > d) as u64)
}

/// A candidate, as it stands in a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Candidates of one kind, base and server share it: 1 to 32 characters.
    pub foundation: String,
    /// 1 to 256.
    pub component: u16,
    /// 1 to 2^31 - 1.
    pub priority: u32,
    /// The transport address.
    pub addr: SocketAddr,
    /// How it was found.
    pub kind: CandidateKind,
    /// The base of reflexive candidates, the mapped address of relayed ones.
    pub related: Option<SocketAddr>,
}

/// Whether an address can be a host candidate (RFC 8445 section 5.1.1.1); loopback only where
/// `loopback` says so, for demonstrations on one machine.
pub fn is_usable_host(ip: IpAddr, loopback: bool) -> bool {
    if ip.is_unspecified() || ip.is_multicast() || (ip.is_loopback() && !loopback) {
        return false;
    }
    match ip {
        IpAddr::V4(v4) => !v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_loopback() || !is_unfit(v6),
    }
}

/// The local preferences of host addresses, in their order: IPv6 first, then the families in turn,
/// so that neither waits for all of the other (RFC 8421 section 4). The order within a family
/// stays.
///
/// ```
/// use ice_proto::local_preferences;
///
/// let addresses = ["192.0.2.1", "2001:db8::1", "2001:db8::2"].map(|a| a.parse().unwrap());
/// assert_eq!(local_preferences(&addresses), [65533, 65535, 65534]);
/// assert_eq!(local_preferences(&addresses[..1]), [65535]);
/// ```
pub fn local_preferences(addresses: &[IpAddr]) -> Vec<u16> {
    let v4 = addresses.iter().filter(|ip| ip.is_ipv4()).count();
    let v6 = addresses.len().saturating_sub(v4);
    // So many addresses of IPv6 before the first of IPv4, and one less before each further one.
    let head = addresses.len().checked_div(v4).unwrap_or(0);
    let later = head.saturating_sub(1).max(1);
    let (mut seen4, mut seen6) = (0_usize, 0_usize);
    let ranks = addresses.iter().map(|ip| match ip {
        IpAddr::V4(_) => {
            let before = head.saturating_add(seen4.saturating_mul(later)).min(v6);
            seen4 = seen4.saturating_add(1);
            before.saturating_add(seen4)
        }
        IpAddr::V6(_) => {
            seen6 = seen6.saturating_add(1);
            let behind_head = seen6.saturating_sub(1).checked_sub(head);
            let between = behind_head.map(|n| n.checked_div(later).unwrap_or(0).saturating_add(1));
            seen6.saturating_add(between.unwrap_or(0).min(v4))
        }
    });
    ranks
        .map(|rank| u16::try_from(rank.saturating_sub(1)).unwrap_or(u16::MAX))
        .map(|rank| u16::MAX.saturating_sub(rank))
        .collect()
}

/// An address of this host, as its interfaces have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address.
    pub ip: IpAddr,
    /// The number of its interface.
    pub interface: u32,
    /// It changes from time to time, so that nobody can be tracked by it (RFC 8981).
    pub temporary: bool,
}

/// The addresses that become host candidates, in their order: usable ones
/// ([`is_usable_host`]), and where there is a temporary IPv6 address, neither the lasting ones of
/// the same interface and prefix nor any link-local ones (RFC 8445 section 5.1.1.1).
pub fn host_addresses(all: &[InterfaceAddress], loopback: bool) -> Vec<IpAddr> {
    let prefix = |ip: IpAddr| match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(u128::from(v6) >> 64),
    };
    let private: Vec<&InterfaceAddress> = all
        .iter()
        .filter(|a| a.temporary && a.ip.is_ipv6())
        .collect();
    let betrays = |it: &InterfaceAddress| {
        let link_local = matches!(it.ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let trackable = private.iter().any(|private| {
            private.interface == it.interface && prefix(private.ip) == prefix(it.ip)
        });
        it.ip.is_ipv6() && !it.temporary && (trackable || (link_local && !private.is_empty()))
    };
    all.iter()
        .filter(|it| is_usable_host(it.ip, loopback) && !betrays(it))
        .map(|it| it.ip)
        .collect()
}

/// IPv4-compatible, IPv4-mapped and site-local addresses.
const fn is_unfit(ip: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, ..] = ip.segments();
    let compatible = matches!([a, b, c, d, e], [0, 0, 0, 0, 0]) && matches!(f, 0 | 0xFFFF);
    compatible || a & 0xFFC0 == 0xFEC0
}

#[cfg(test)]
mod tests;
