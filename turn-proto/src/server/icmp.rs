//! Reading ICMP errors (RFC 8656 section 11.5), as they come from a raw socket.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::wire::{AddressFamily, Icmp};

/// An ICMP error about a UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpReport {
    /// The source of the datagram: a relayed transport address.
    pub relayed: SocketAddr,
    /// Its destination.
    pub peer: SocketAddr,
    /// What went wrong.
    pub icmp: Icmp,
}

const UDP: u8 = 17;

/// Reads an ICMP message, without the IP header in front of it, and the beginning of the datagram
/// inside it. `None` unless it is an error (ICMPv4 types 3 and 11, ICMPv6 types 1, 2 and 3) about a
/// UDP datagram whose ports are there.
///
/// ```
/// use turn_proto::server::parse_icmp;
/// use turn_proto::wire::AddressFamily;
///
/// let mut packet = vec![3, 4, 0, 0, 0, 0, 5, 0]; // too big, next hop 1,280 bytes
/// packet.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 15, 9, 9, 9, 9]);
/// packet.extend([0xC3, 0x50, 0, 7, 0, 8, 0, 0]);
/// let report = parse_icmp(AddressFamily::V4, &packet).unwrap();
/// assert_eq!(report.relayed, "192.0.2.15:50000".parse().unwrap());
/// assert_eq!(report.peer, "9.9.9.9:7".parse().unwrap());
/// assert_eq!(report.icmp.data, 1280);
/// ```
pub fn parse_icmp(family: AddressFamily, packet: &[u8]) -> Option<IcmpReport> {
    let ([ty, code, _, _, d3, d2, d1, d0], inner) = packet.split_first_chunk()?;
    let (source, destination, udp) = match family {
        AddressFamily::V4 if matches!(ty, 3 | 11) => ipv4(inner)?,
        AddressFamily::V6 if matches!(ty, 1..=3) => ipv6(inner)?,
        AddressFamily::V4 | AddressFamily::V6 => return None,
    };
    let ([s1, s0, p1, p0], _) = udp.split_first_chunk()?;
    // The MTU of ICMPv4 is 16 bits wide, behind two reserved bytes.
    let data = match family {
        AddressFamily::V4 => u32::from(u16::from_be_bytes([*d1, *d0])),
        AddressFamily::V6 => u32::from_be_bytes([*d3, *d2, *d1, *d0]),
    };
    Some(IcmpReport {
        relayed: SocketAddr::new(source, u16::from_be_bytes([*s1, *s0])),
        peer: SocketAddr::new(destination, u16::from_be_bytes([*p1, *p0])),
        icmp: Icmp {
            ty: *ty,
            code: *code,
            data,
        },
    })
}

fn ipv4(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let [
        first,
        _,
        _,
        _,
        _,
        _,
        f1,
        f0,
        _,
        protocol,
        _,
        _,
        addresses @ ..,
    ] = header;
    let [s3, s2, s1, s0, d3, d2, d1, d0] = *addresses;
    // Only the first fragment has a UDP header.
    let offset = u16::from_be_bytes([*f1, *f0]) & 0x1FFF;
    let length = usize::from(first & 0xF).checked_mul(4)?;
    if first >> 4 != 4 || length < 20 || *protocol != UDP || offset != 0 {
        return None;
    }
    let source = Ipv4Addr::new(s3, s2, s1, s0).into();
    let destination = Ipv4Addr::new(d3, d2, d1, d0).into();
    Some((source, destination, packet.get(length..)?))
}

fn ipv6(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let (header, rest): (&[u8; 40], _) = packet.split_first_chunk()?;
    let [first, _, _, _, _, _, next, _, addresses @ ..] = header;
    let (source, destination) = addresses.split_first_chunk::<16>()?;
    let destination: &[u8; 16] = destination.first_chunk()?;
    // Datagrams of relays have no extension headers.
    if first >> 4 != 6 || *next != UDP {
        return None;
    }
    let source = Ipv6Addr::from(*source).into();
    Some((source, Ipv6Addr::from(*destination).into(), rest))
}
