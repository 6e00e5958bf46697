//! Transport addresses, plain and XORed (RFC 8489 sections 14.1 and 14.2).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{AttributeError, MAGIC_COOKIE, TransactionId};

const FAMILY_V4: u8 = 1;
const FAMILY_V6: u8 = 2;
const COOKIE_HIGH: u16 = (MAGIC_COOKIE >> 16) as u16;

/// Bytes of the value of an address attribute that holds `addr`.
pub(crate) const fn encoded_len(addr: &SocketAddr) -> usize {
    match addr {
        SocketAddr::V4(_) => 8,
        SocketAddr::V6(_) => 20,
    }
}

/// Reads the value of MAPPED-ADDRESS and its kin.
///
/// # Errors
/// [`AttributeError::Length`] unless the length fits the family,
/// [`AttributeError::AddressFamily`] when the family is neither IPv4 nor IPv6.
pub fn decode_address(value: &[u8]) -> Result<SocketAddr, AttributeError> {
    let [_, family, p1, p0, ip @ ..] = value else {
        return Err(AttributeError::Length);
    };
    let ip = match *family {
        FAMILY_V4 => IpAddr::V4(Ipv4Addr::from(
            <[u8; 4]>::try_from(ip).map_err(|_| AttributeError::Length)?,
        )),
        FAMILY_V6 => IpAddr::V6(Ipv6Addr::from(
            <[u8; 16]>::try_from(ip).map_err(|_| AttributeError::Length)?,
        )),
        _ => return Err(AttributeError::AddressFamily),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes([*p1, *p0])))
}

/// Reads the value of XOR-MAPPED-ADDRESS and its kin.
///
/// # Errors
/// As [`decode_address`].
pub fn decode_xor_address(value: &[u8], id: TransactionId) -> Result<SocketAddr, AttributeError> {
    decode_address(value).map(|addr| xor(addr, id))
}

/// Writes `addr` into `out`, which must be 8 (IPv4) or 20 bytes (IPv6) long; other lengths leave
/// the rest untouched.
pub fn encode_address(addr: SocketAddr, out: &mut [u8]) {
    let (family, ip): (u8, &[u8]) = match addr.ip() {
        IpAddr::V4(ref v4) => (FAMILY_V4, &v4.octets()),
        IpAddr::V6(ref v6) => (FAMILY_V6, &v6.octets()),
    };
    let [p1, p0] = addr.port().to_be_bytes();
    let bytes = [0, family, p1, p0].into_iter().chain(ip.iter().copied());
    for (slot, byte) in out.iter_mut().zip(bytes) {
        *slot = byte;
    }
}

/// Writes `addr` XORed with the magic cookie and, for IPv6, the transaction ID.
pub fn encode_xor_address(addr: SocketAddr, id: TransactionId, out: &mut [u8]) {
    encode_address(xor(addr, id), out);
}

/// The XOR transformation; its own inverse.
fn xor(addr: SocketAddr, TransactionId(id): TransactionId) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from(u32::from(v4) ^ MAGIC_COOKIE)),
        IpAddr::V6(v6) => {
            let mut mask = [0; 16];
            let (cookie, rest) = mask.split_at_mut(4);
            cookie.copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            rest.copy_from_slice(&id);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) ^ u128::from_be_bytes(mask)))
        }
    };
    SocketAddr::new(ip, addr.port() ^ COOKIE_HIGH)
}
