//! Hosts and ports, in URIs and Via.

use core::net::{IpAddr, Ipv6Addr};

/// Reads `host[:port]` up to a byte that ends it: length of the host, port, length of both.
pub(crate) fn parse_hostport(
    text: &str,
    ends: impl Fn(u8) -> bool,
) -> Option<(usize, Option<u16>, usize)> {
    let len = text.bytes().position(ends).unwrap_or(text.len());
    let hostport = text.get(..len)?;
    let host_len = if hostport.starts_with('[') {
        hostport.find(']')?.checked_add(1)?
    } else {
        hostport.find(':').unwrap_or(len)
    };
    let host = hostport.get(..host_len)?;
    if !is_host(host) {
        return None;
    }
    let port = match hostport.get(host_len..)? {
        "" => None,
        rest => {
            let digits = rest.strip_prefix(':')?;
            let plain = digits.bytes().all(|b| b.is_ascii_digit());
            let port = super::values::decimal_padded(digits).filter(|_| plain)?;
            Some(u16::try_from(port).ok().filter(|&port| port != 0)?)
        }
    };
    Some((host_len, port, len))
}

/// Whether `text` is a host name, an IPv4 address, or an IPv6 address in brackets.
pub(crate) fn is_host(text: &str) -> bool {
    if text.starts_with('[') {
        return host_ip(text).is_some();
    }
    let last = text.trim_end_matches('.').rsplit('.').next();
    let numeric = last.is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    if numeric {
        return host_ip(text).is_some();
    }
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    name.len() <= 255 && name.split('.').all(label)
}

/// The address a host is, IPv6 with or without brackets. Three colons in a row, an error of an
/// old grammar (RFC 5118 section 4.9), are read as two.
pub(crate) fn host_ip(text: &str) -> Option<IpAddr> {
    let inner = text
        .strip_prefix('[')
        .map_or(Some(text), |text| text.strip_suffix(']'))?;
    if text.starts_with('[') || inner.contains(':') {
        let fixed;
        let inner = if inner.contains(":::") {
            fixed = inner.replacen(":::", "::", 1);
            &fixed
        } else {
            inner
        };
        return inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    inner.parse().ok().map(IpAddr::V4)
}

/// Whether two hosts are the same: addresses by value, names without regard to case.
pub(crate) fn same_host(a: &str, b: &str) -> bool {
    match (host_ip(a), host_ip(b)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => {
            let name = |text: &str| text.strip_suffix('.').map_or(text.len(), str::len);
            let (a, b) = (a.get(..name(a)), b.get(..name(b)));
            a.zip(b).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
        }
        (Some(_), None) | (None, Some(_)) => false,
    }
}
