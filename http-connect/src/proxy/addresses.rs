//! Which addresses a proxy may connect to (RFC 6890 and the registries behind it).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use alloc::vec::Vec;

/// A range of addresses: all that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// The addresses that share the first `bits` bits with `address`; more bits than an address
    /// has mean this address alone.
    pub const fn new(address: IpAddr, bits: u8) -> Self {
        Self { address, bits }
    }

    /// Whether `address` is one of them. Families do not mix.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let drop = 32_u32.saturating_sub(u32::from(self.bits));
                a.to_bits().checked_shr(drop) == b.to_bits().checked_shr(drop)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let drop = 128_u32.saturating_sub(u32::from(self.bits));
                a.to_bits().checked_shr(drop) == b.to_bits().checked_shr(drop)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Says which addresses may be connected to, after resolution.
///
/// Everything that is not public is refused: unspecified, loopback, link-local, private, shared,
/// unique-local, multicast, broadcast, documentation, benchmarking and reserved addresses. IPv4
/// addresses inside IPv6 ones (mapped, compatible, NAT64, 6to4, Teredo) are judged as well.
///
/// ```
/// use http_connect::{AddressPolicy, Prefix};
///
/// let mut policy = AddressPolicy::default();
/// assert!(policy.allows("192.88.1.1".parse().unwrap()));
/// assert!(!policy.allows("::ffff:10.0.0.1".parse().unwrap()));
/// policy.allowed.push(Prefix::new("10.0.0.0".parse().unwrap(), 8));
/// assert!(policy.allows("::ffff:10.0.0.1".parse().unwrap()));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Allowed although they are not public; an embedded IPv4 address counts as itself.
    pub allowed: Vec<Prefix>,
    /// Refused although they are public; wins over `allowed`.
    pub refused: Vec<Prefix>,
}

impl AddressPolicy {
    /// Whether this address may be connected to.
    pub fn allows(&self, address: IpAddr) -> bool {
        let embedded = match address {
            IpAddr::V4(_) => [None; 2],
            IpAddr::V6(v6) => embedded(v6).map(|v4| v4.map(IpAddr::V4)),
        };
        let inner = || embedded.into_iter().flatten();
        let refused =
            |address| -> bool { self.refused.iter().any(|range| range.contains(address)) };
        if refused(address) || inner().any(refused) {
            return false;
        }
        let allowed = |address: &IpAddr| -> bool {
            self.allowed.iter().any(|range| range.contains(*address))
        };
        if allowed(&address) || (inner().next().is_some() && inner().all(|ip| allowed(&ip))) {
            return true;
        }
        match address {
            IpAddr::V4(v4) => is_public_v4(v4),
            IpAddr::V6(v6) => {
                is_public_v6(v6)
                    && inner().all(|ip| match ip {
                        IpAddr::V4(v4) => is_public_v4(v4),
                        IpAddr::V6(_) => false,
                    })
            }
        }
    }
}

/// The same address without the disguise of IPv6, for comparing with one's own addresses.
pub(super) fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match embedded(v6) {
            [Some(v4), _] => IpAddr::V4(v4),
            [None, _] => address,
        },
    }
}

/// The IPv4 addresses an IPv6 address leads to or stands for.
fn embedded(v6: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let v4 = |high: u16, low: u16| {
        Some(Ipv4Addr::from_bits(
            (u32::from(high) << 16) | u32::from(low),
        ))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None, None],
        // Compatible, mapped, translated (RFC 2765), NAT64 (RFC 6052, RFC 8215).
        [0, 0, 0, 0, 0, 0 | 0xffff, h, l]
        | [0, 0, 0, 0, 0xffff, 0, h, l]
        | [0x64, 0xff9b, 0, 0, 0, 0, h, l]
        | [0x64, 0xff9b, 1, _, _, _, h, l] => [v4(h, l), None],
        [0x2002, h, l, ..] => [v4(h, l), None],
        // Teredo: the server, and the client inverted.
        [0x2001, 0, sh, sl, _, _, h, l] => [v4(sh, sl), v4(!h, !l)],
        _ => [None, None],
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    !matches!(
        v4.octets(),
        [0 | 10 | 127 | 224..=255, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
    )
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    match v6.segments() {
        // Unspecified, loopback.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => false,
        // IPv4 in disguise is judged by its IPv4 address.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, 0, 0, 0, 0, ..] => true,
        // Documentation, benchmarking, ORCHID.
        [0x2001, 0xdb8, ..] | [0x2001, 2, 0, ..] => false,
        [0x2001, 0x10..=0x2f, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Only 2000::/3 is given out as global unicast.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}
