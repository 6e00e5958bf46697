//! Candidates, their priorities and foundations (RFC 8445 section 5).

use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use alloc::string::String;

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

/// IPv4-compatible, IPv4-mapped and site-local addresses.
const fn is_unfit(ip: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, ..] = ip.segments();
    let compatible = matches!([a, b, c, d, e], [0, 0, 0, 0, 0]) && matches!(f, 0 | 0xFFFF);
    compatible || a & 0xFFC0 == 0xFEC0
}

#[cfg(test)]
mod tests;
