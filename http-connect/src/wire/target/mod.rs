//! What a CONNECT asks for: host and port (RFC 9110 section 9.3.6, RFC 9112 section 3.2.3).

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use alloc::string::String;

/// The host of a target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name, to be resolved by the proxy.
    Name(String),
    /// An address.
    Ip(IpAddr),
}

/// Why a text is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The host is empty or holds what hosts cannot hold.
    #[error("not a host name or address")]
    Host,
    /// The port is missing or not a number from 1 to 65535.
    #[error("port missing or out of range")]
    Port,
}

/// Where a tunnel is to lead.
///
/// ```
/// use http_connect::Target;
///
/// let target: Target = "[2001:db8::15]:443".parse().unwrap();
/// assert_eq!(target.port(), 443);
/// assert_eq!(target.to_string(), "[2001:db8::15]:443");
/// assert!("pcscf.example.com".parse::<Target>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    host: Host,
    port: u16,
}

impl Target {
    /// A target from a host as it stands in configuration (an IPv6 address without brackets).
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn new(host: &str, port: u16) -> Result<Self, TargetError> {
        if port == 0 {
            return Err(TargetError::Port);
        }
        let host = match host.parse::<IpAddr>() {
            Ok(ip) => Host::Ip(ip),
            Err(_) => Host::Name(reg_name(host)?),
        };
        Ok(Self { host, port })
    }

    /// The host.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port, 1 to 65535.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Target {
    type Err = TargetError;

    /// Reads the authority form: `host:port` and nothing else.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (host, port) = text.rsplit_once(':').ok_or(TargetError::Port)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or(TargetError::Host)?;
                let ip = inner.parse::<Ipv6Addr>().map_err(|_| TargetError::Host)?;
                Host::Ip(IpAddr::V6(ip))
            }
            None => match host.parse::<Ipv4Addr>() {
                Ok(ip) => Host::Ip(IpAddr::V4(ip)),
                Err(_) => Host::Name(reg_name(host)?),
            },
        };
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(TargetError::Port);
        }
        match port.parse() {
            Ok(0) | Err(_) => Err(TargetError::Port),
            Ok(port) => Ok(Self { host, port }),
        }
    }
}

/// A host name in lower case and without its final dot.
fn reg_name(text: &str) -> Result<String, TargetError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(legal);
    if name.len() > 255 || !name.split('.').all(label) {
        return Err(TargetError::Host);
    }
    Ok(name.to_ascii_lowercase())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests;
