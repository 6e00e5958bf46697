//! `stun:`, `stuns:`, `turn:` and `turns:` URIs (RFC 7064, RFC 7065).
//!
//! They look like `turn:example.org:3478?transport=udp`: no slashes, no user, no path. The parts
//! are handed on to name resolution as they are.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use core::str::FromStr;

use alloc::string::String;

/// The longest host name.
const MAX_HOST: usize = 255;
/// The longest name of a transport.
const MAX_TRANSPORT: usize = 32;

// deviates: 7064-4-1 how the host comes by a URI and by credentials, it alone can see.
// deviates: STUN-8-1 no URI stands anywhere in the crate: all of them are the host's.
/// Which service, and whether over TLS or DTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// STUN over UDP or TCP.
    Stun,
    /// STUN over DTLS or TLS.
    Stuns,
    /// TURN over UDP or TCP.
    Turn,
    /// TURN over DTLS or TLS.
    Turns,
}

impl Scheme {
    /// Whether TLS or DTLS is to be used.
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Stuns | Self::Turns)
    }

    /// Whether this is a TURN service.
    pub const fn is_turn(self) -> bool {
        matches!(self, Self::Turn | Self::Turns)
    }

    /// The port when the URI names none: 3478, or 5349 for the secure ones.
    pub const fn default_port(self) -> u16 {
        if self.is_secure() { 5349 } else { 3478 }
    }

    /// The scheme as it is written, which is the name of the service in DNS as well.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stun => "stun",
            Self::Stuns => "stuns",
            Self::Turn => "turn",
            Self::Turns => "turns",
        }
    }
}

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address: no name resolution.
    Ip(IpAddr),
    /// A name to be resolved.
    Name(String),
}

/// The `transport` parameter of a TURN URI.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UriTransport {
    /// `udp`: UDP, or DTLS for `turns`.
    Udp,
    /// `tcp`: TCP, or TLS for `turns`.
    Tcp,
    /// A transport nobody here knows: legal to write down, impossible to resolve.
    Other(String),
}

impl UriTransport {
    /// The parameter as it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Other(name) => name,
        }
    }
}

/// Why a text is no URI of a STUN or TURN server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// It does not begin with one of the four schemes.
    #[error("the scheme is not stun, stuns, turn or turns")]
    Scheme,
    /// The host is missing, too long, or neither an address nor a name.
    #[error("malformed host")]
    Host,
    /// The port is not a number from 0 to 65535.
    #[error("malformed port")]
    Port,
    /// There is a query other than one `transport` parameter, or one in a STUN URI.
    #[error("malformed query")]
    Query,
    /// A certificate cannot be checked against an address: see [`Uri::with_domain`].
    #[error("a secure URI with an address needs a domain name")]
    DomainNeeded,
}

/// A STUN or TURN server as users write it down.
///
/// It has to come over a channel as secure as the one user name and password come over.
///
/// ```
/// use stun_proto::uri::{Scheme, Uri, UriTransport};
///
/// let uri: Uri = "turns:example.org?transport=tcp".parse().unwrap();
/// assert_eq!(uri.scheme(), Scheme::Turns);
/// assert_eq!(uri.port(), 5349);
/// assert_eq!(uri.transport(), Some(&UriTransport::Tcp));
/// assert_eq!(uri.tls_name(), Some("example.org"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Uri {
    scheme: Scheme,
    host: Host,
    port: Option<u16>,
    transport: Option<UriTransport>,
    domain: Option<String>,
}

impl Uri {
    /// Reads a URI that came together with the domain name of the server, over an equally secure
    /// channel; certificates are checked against that name (RFC 7350 section 4.1.1).
    ///
    /// # Errors
    /// [`UriError`].
    pub fn with_domain(text: &str, domain: &str) -> Result<Self, UriError> {
        if domain.len() > MAX_HOST || !is_name(domain) {
            return Err(UriError::Host);
        }
        let uri = Self::read(text)?;
        Ok(Self {
            domain: Some(domain.into()),
            ..uri
        })
    }

    /// The scheme.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port as written; its absence has a meaning in name resolution.
    pub const fn explicit_port(&self) -> Option<u16> {
        self.port
    }

    /// The port as written, or that of the scheme.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(self.scheme.default_port())
    }

    /// The transport parameter; never there in STUN URIs.
    pub const fn transport(&self) -> Option<&UriTransport> {
        self.transport.as_ref()
    }

    /// The name the server's certificate must be for; `None` for the schemes without TLS. It is
    /// the name that was configured, never one that DNS answered with.
    pub fn tls_name(&self) -> Option<&str> {
        if !self.scheme.is_secure() {
            return None;
        }
        match (&self.domain, &self.host) {
            (Some(domain), _) => Some(domain),
            (None, Host::Name(name)) => Some(name),
            (None, Host::Ip(_)) => None,
        }
    }

    fn read(text: &str) -> Result<Self, UriError> {
        let (scheme, rest) = text.split_once(':').ok_or(UriError::Scheme)?;
        let scheme = [Scheme::Stun, Scheme::Stuns, Scheme::Turn, Scheme::Turns]
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(scheme))
            .ok_or(UriError::Scheme)?;
        let (authority, query) = match rest.split_once('?') {
            Some((authority, query)) => (authority, Some(query)),
            None => (rest, None),
        };
        let (host, port) = split_port(authority)?;
        let transport = match query {
            None => None,
            Some(query) if scheme.is_turn() => Some(read_transport(query)?),
            Some(_) => return Err(UriError::Query),
        };
        Ok(Self {
            scheme,
            host: read_host(host)?,
            port: read_port(port)?,
            transport,
            domain: None,
        })
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let uri = Self::read(text)?;
        if uri.scheme.is_secure() && matches!(uri.host, Host::Ip(_)) {
            return Err(UriError::DomainNeeded);
        }
        Ok(uri)
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme.as_str())?;
        match &self.host {
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}")?,
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            Host::Name(name) => f.write_str(name)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if let Some(transport) = &self.transport {
            write!(f, "?transport={}", transport.as_str())?;
        }
        Ok(())
    }
}

/// Splits at the colon in front of the port; what is inside brackets is no port.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), UriError> {
    if authority.starts_with('[') {
        let (_, behind) = authority.split_once(']').ok_or(UriError::Host)?;
        let host = authority.strip_suffix(behind).ok_or(UriError::Host)?;
        return match behind.strip_prefix(':') {
            None if behind.is_empty() => Ok((host, None)),
            None => Err(UriError::Host),
            port => Ok((host, port)),
        };
    }
    Ok(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

fn read_host(host: &str) -> Result<Host, UriError> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(UriError::Host)?;
        let ip: Ipv6Addr = inner.parse().map_err(|_| UriError::Host)?;
        return Ok(Host::Ip(ip.into()));
    }
    if let Ok(ip) = host.parse() {
        return Ok(Host::Ip(IpAddr::V4(ip)));
    }
    if host.len() > MAX_HOST || !is_name(host) {
        return Err(UriError::Host);
    }
    Ok(Host::Name(host.into()))
}

/// `reg-name` of RFC 3986, and not empty.
fn is_name(name: &str) -> bool {
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        let legal = match byte {
            b'%' => [rest.next(), rest.next()]
                .iter()
                .all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit())),
            byte => is_unreserved(byte) || b"!$&'()*+,;=".contains(&byte),
        };
        if !legal {
            return false;
        }
    }
    !name.is_empty()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Digits only; an empty port is as good as none (RFC 3986 section 3.2.3).
fn read_port(port: Option<&str>) -> Result<Option<u16>, UriError> {
    match port {
        None | Some("") => Ok(None),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map(Some).map_err(|_| UriError::Port)
        }
        Some(_) => Err(UriError::Port),
    }
}

fn read_transport(query: &str) -> Result<UriTransport, UriError> {
    let name = query.strip_prefix("transport=").ok_or(UriError::Query)?;
    let legal = (1..=MAX_TRANSPORT).contains(&name.len()) && name.bytes().all(is_unreserved);
    match name {
        _ if !legal => Err(UriError::Query),
        name if name.eq_ignore_ascii_case("udp") => Ok(UriTransport::Udp),
        name if name.eq_ignore_ascii_case("tcp") => Ok(UriTransport::Tcp),
        name => Ok(UriTransport::Other(name.into())),
    }
}

#[cfg(test)]
mod tests;
