//! Which peers a server relays to (RFC 8656 section 21; everything special is denied by default).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::str::FromStr;

use alloc::vec::Vec;

/// A range of addresses: `192.0.2.0/24`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    ip: IpAddr,
    bits: u8,
}

/// A text is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address range")]
pub struct PrefixError;

impl Prefix {
    /// The addresses that share the first `bits` bits with `ip`; `None` when there are fewer bits.
    pub const fn new(ip: IpAddr, bits: u8) -> Option<Self> {
        let most = match ip {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        if bits <= most {
            Some(Self { ip, bits })
        } else {
            None
        }
    }

    /// Whether an address lies in the range.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (ours, theirs, most) = match (self.ip, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u128::from(a.to_bits()), u128::from(b.to_bits()), 32)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        let free = u32::from(u8::saturating_sub(most, self.bits));
        (ours ^ theirs).checked_shr(free).unwrap_or(0) == 0
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| PrefixError)?;
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => whole,
            Some(bits) => bits.parse().map_err(|_| PrefixError)?,
        };
        Self::new(ip, bits).ok_or(PrefixError)
    }
}

/// What is allowed where the lists say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// Every address of the public Internet, nothing special: private, shared, loopback,
    /// link-local, multicast, documentation, benchmarking, tunnelled and reserved addresses.
    #[default]
    Public,
    /// Nothing but what is allowed by name: for an operator's core network.
    ListedOnly,
    /// Everything that can be sent to, private and loopback included: for laboratories.
    Any,
}

/// Which peers may be reached. An allowed prefix wins over a denied one, both over the preset.
///
/// ```
/// use turn_proto::policy::{PeerPolicy, Preset};
///
/// let mut policy = PeerPolicy::default();
/// assert!(!policy.allows("10.0.0.1:5000".parse().unwrap()));
/// assert!(!policy.allows("[::ffff:127.0.0.1]:5000".parse().unwrap()));
/// assert!(policy.allows("8.8.8.8:5000".parse().unwrap()));
/// policy.allow.push("10.0.0.0/8".parse().unwrap());
/// assert!(policy.allows("10.0.0.1:5000".parse().unwrap()));
/// ```
#[derive(Clone, Debug, Default)]
pub struct PeerPolicy {
    /// What holds for addresses on neither list.
    pub preset: Preset,
    /// Allowed whatever the preset says.
    pub allow: Vec<Prefix>,
    /// Denied unless allowed by name; the server's own addresses belong here.
    pub deny: Vec<Prefix>,
}

impl PeerPolicy {
    /// Whether this peer may be reached. Port 0, unspecified, multicast and broadcast never.
    pub fn allows(&self, peer: SocketAddr) -> bool {
        peer.port() != 0 && self.allows_ip(peer.ip())
    }

    /// Whether permissions for this address may be made. An IPv4 address inside an IPv6 one must be
    /// allowed as well.
    pub fn allows_ip(&self, ip: IpAddr) -> bool {
        let inner = match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => embedded(v6).map(IpAddr::V4),
        };
        self.allows_one(ip) && inner.is_none_or(|inner| self.allows_one(inner))
    }

    fn allows_one(&self, ip: IpAddr) -> bool {
        let unreachable = ip.is_unspecified()
            || ip.is_multicast()
            || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        if unreachable {
            return false;
        }
        if self.allow.iter().any(|prefix| prefix.contains(ip)) {
            return true;
        }
        if self.deny.iter().any(|prefix| prefix.contains(ip)) {
            return false;
        }
        match self.preset {
            Preset::Public => !is_special(ip),
            Preset::ListedOnly => false,
            Preset::Any => true,
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Prefix {
    Prefix {
        ip: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        bits,
    }
}

const fn v6(a: u16, b: u16, c: u16, bits: u8) -> Prefix {
    Prefix {
        ip: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)),
        bits,
    }
}

/// The ranges of the special-purpose registries that no peer on the Internet has.
const SPECIAL: [Prefix; 26] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    // Where a large host keeps the metadata and keys of its guests, though the range is public.
    v4(168, 63, 129, 16, 32),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 3),
    // IPv6: unspecified, loopback and IPv4-compatible; mapped; NAT64; discard; tunnels (Teredo,
    // ORCHID, benchmarking); documentation; 6to4; unique-local; link-local; site-local; multicast.
    v6(0, 0, 0, 96),
    Prefix {
        ip: IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xFFFF, 0, 0)),
        bits: 96,
    },
    v6(0x64, 0xFF9B, 1, 48),
    v6(0x100, 0, 0, 64),
    v6(0x2001, 0, 0, 23),
    v6(0x2001, 0xDB8, 0, 32),
    v6(0x3FFF, 0, 0, 20),
    v6(0x2002, 0, 0, 16),
    v6(0xFC00, 0, 0, 7),
    v6(0xFE80, 0, 0, 9),
    v6(0xFF00, 0, 0, 8),
];

fn is_special(ip: IpAddr) -> bool {
    SPECIAL.iter().any(|prefix| prefix.contains(ip))
}

/// The IPv4 address that an IPv6 address leads to: mapped, compatible, NAT64, 6to4, Teredo.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let last = Ipv4Addr::from((u32::from(g) << 16) | u32::from(h));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0) if ip != Ipv6Addr::LOCALHOST => Some(last),
        (0, 0, 0, 0, 0, 0xFFFF) | (0, 0, 0, 0, 0xFFFF, 0) | (0x64, 0xFF9B, 0, 0, 0, 0) => {
            Some(last)
        }
        (0x64, 0xFF9B, 1, _, _, _) => Some(last),
        (0x2002, hi, lo, _, _, _) => Some(Ipv4Addr::from((u32::from(hi) << 16) | u32::from(lo))),
        (0x2001, 0, _, _, _, _) => Some(Ipv4Addr::from(!u32::from(last))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
