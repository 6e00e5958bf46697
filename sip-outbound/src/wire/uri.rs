//! SIP and SIPS URIs: reading, comparing, naming users (RFC 3261 section 19.1).

use core::fmt;
use core::net::IpAddr;

use alloc::string::String;

use stun_proto::Transport;

use super::ValueError;
use super::chars::{all_or_escaped, is_control, is_password, is_uri_header, is_uri_param, is_user};
use super::escape::{Case, eq_escaped, same_headers, same_params, unescape};
use super::host::{host_ip, parse_hostport, same_host};
use super::limits::Limits;

/// A URI as it stands in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uri<'a> {
    /// `sip:` or `sips:`.
    Sip(SipUri<'a>),
    /// Any other scheme, unread.
    Other(&'a str),
}

impl<'a> Uri<'a> {
    /// Reads a URI of any scheme.
    ///
    /// # Errors
    /// [`ValueError::Malformed`], or [`ValueError::Limit`] for more than `limits.uri` bytes or
    /// `limits.params` parameters.
    pub fn parse(text: &'a str, limits: &Limits) -> Result<Self, ValueError> {
        if text.len() > limits.uri {
            return Err(ValueError::Limit);
        }
        let (scheme, rest) = text.split_once(':').ok_or(ValueError::Malformed)?;
        if scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips") {
            return SipUri::parse(text, limits).map(Self::Sip);
        }
        let scheme_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        let plain = |b: u8| !is_control(b) && !matches!(b, b' ' | b'\t' | b'<' | b'>' | b'"');
        let alpha = scheme
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic());
        if alpha && scheme.bytes().all(scheme_char) && !rest.is_empty() && rest.bytes().all(plain) {
            Ok(Self::Other(text))
        } else {
            Err(ValueError::Malformed)
        }
    }

    /// The text of the URI.
    pub const fn as_str(&self) -> &'a str {
        match self {
            Self::Sip(uri) => uri.as_str(),
            Self::Other(text) => text,
        }
    }

    /// The SIP or SIPS URI, if it is one.
    pub const fn sip(&self) -> Option<SipUri<'a>> {
        match self {
            Self::Sip(uri) => Some(*uri),
            Self::Other(_) => None,
        }
    }
}

/// Where the parts of a SIP URI stand in its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    secure: bool,
    /// The user ends here; `None` when there is no user part.
    user_end: Option<usize>,
    /// The host starts here: behind the scheme or the `@`.
    host: usize,
    host_end: usize,
    port: Option<u16>,
    /// The parameters start here, at their `;`.
    params: usize,
    /// The headers start here, at their `?`, or the text ends.
    headers: usize,
}

/// A `sip:` or `sips:` URI, checked once and then read without failure.
///
/// ```
/// use sip_outbound::wire::{Limits, SipUri};
///
/// let uri = SipUri::parse("sips:alice;x=1@[2001:db8::1]:5070;lr?subject=a", &Limits::DEFAULT).unwrap();
/// assert_eq!(uri.user(), Some("alice;x=1"));
/// assert_eq!(uri.host(), "[2001:db8::1]");
/// assert_eq!(uri.port(), Some(5070));
/// assert!(uri.is_loose());
/// ```
#[derive(Clone, Copy)]
pub struct SipUri<'a> {
    text: &'a str,
    parts: Parts,
}

impl<'a> SipUri<'a> {
    /// Reads a URI.
    ///
    /// # Errors
    /// As [`Uri::parse`]; other schemes are malformed here.
    pub fn parse(text: &'a str, limits: &Limits) -> Result<Self, ValueError> {
        if text.len() > limits.uri {
            return Err(ValueError::Limit);
        }
        let parts = parse_parts(text).ok_or(ValueError::Malformed)?;
        let uri = Self { text, parts };
        uri.check_params(limits)?;
        let headers = uri.headers().unwrap_or("x");
        if !all_or_escaped(headers, |b| is_uri_header(b) || matches!(b, b'&' | b'=')) {
            return Err(ValueError::Malformed);
        }
        Ok(uri)
    }

    fn check_params(&self, limits: &Limits) -> Result<(), ValueError> {
        let text = self.param_text();
        for (count, (name, value)) in self.params().enumerate() {
            if count >= limits.params {
                return Err(ValueError::Limit);
            }
            let good = all_or_escaped(name, is_uri_param)
                && value.is_none_or(|value| all_or_escaped(value, is_uri_param));
            if !good {
                return Err(ValueError::Malformed);
            }
            let same = |n: &str| n.eq_ignore_ascii_case(name);
            if self.params().filter(|(n, _)| same(n)).count() > 1 {
                return Err(ValueError::DuplicateParameter);
            }
        }
        if text.is_empty() || text.starts_with(';') {
            Ok(())
        } else {
            Err(ValueError::Malformed)
        }
    }

    fn part(&self, from: usize, to: usize) -> &'a str {
        self.text.get(from..to).unwrap_or_default()
    }

    /// The text of the URI.
    pub const fn as_str(&self) -> &'a str {
        self.text
    }

    /// Whether it is `sips:`.
    pub const fn is_secure(&self) -> bool {
        self.parts.secure
    }

    fn scheme_len(&self) -> usize {
        if self.parts.secure { 5 } else { 4 }
    }

    /// The user part, escapes and all.
    pub fn user(&self) -> Option<&'a str> {
        let end = self.parts.user_end?;
        Some(self.part(self.scheme_len(), end))
    }

    /// The password, escapes and all.
    pub fn password(&self) -> Option<&'a str> {
        let end = self.parts.user_end?;
        let info = self.part(end, self.parts.host);
        info.strip_suffix('@')?.strip_prefix(':')
    }

    /// The host as written; IPv6 addresses with their brackets.
    pub fn host(&self) -> &'a str {
        self.part(self.parts.host, self.parts.host_end)
    }

    /// The host as an address, if it is one.
    pub fn host_ip(&self) -> Option<IpAddr> {
        host_ip(self.host())
    }

    /// The port, if it is given.
    pub const fn port(&self) -> Option<u16> {
        self.parts.port
    }

    /// The port that counts: 5060, or 5061 with `sips` and for TLS, unless another is given.
    pub fn port_or_default(&self) -> u16 {
        let secure = self.parts.secure || self.transport() == Some(Transport::Tls);
        self.parts.port.unwrap_or(if secure { 5061 } else { 5060 })
    }

    fn param_text(&self) -> &'a str {
        self.part(self.parts.params, self.parts.headers)
    }

    /// The parameters in their order, escapes and all.
    pub fn params(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let text = self.param_text().strip_prefix(';');
        let params = text.into_iter().flat_map(|text| text.split(';'));
        params.map(|param| match param.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (param, None),
        })
    }

    /// Whether there is a parameter of this name.
    pub fn has_param(&self, name: &str) -> bool {
        self.params()
            .any(|(n, _)| eq_escaped(n, name, Case::Ignored))
    }

    /// The value of a parameter; `None` when it is absent or has none.
    pub fn param(&self, name: &str) -> Option<&'a str> {
        self.params()
            .find(|(n, _)| eq_escaped(n, name, Case::Ignored))
            .and_then(|(_, value)| value)
    }

    /// Whether this names a loose router (`lr`, RFC 3261 section 16.12).
    pub fn is_loose(&self) -> bool {
        self.has_param("lr")
    }

    /// Whether this stands for an outbound flow (`ob`, RFC 5626 section 5.3).
    pub fn is_outbound(&self) -> bool {
        self.has_param("ob")
    }

    /// The transport the URI itself asks for: its `transport` parameter, on TLS with `sips`.
    pub fn transport(&self) -> Option<Transport> {
        let transport = transport_of(self.param("transport")?)?;
        Some(match transport {
            Transport::Tcp if self.parts.secure => Transport::Tls,
            Transport::Tcp | Transport::Tls | Transport::Udp | Transport::Dtls => transport,
        })
    }

    /// What stands behind the `?`: header fields for a request to be made from the URI.
    pub fn headers(&self) -> Option<&'a str> {
        self.text
            .get(self.parts.headers..)
            .and_then(|text| text.strip_prefix('?'))
    }

    /// Whether both URIs are the same by the rules of RFC 3261 section 19.1.4. Not transitive.
    pub fn is_equivalent(&self, other: &SipUri<'_>) -> bool {
        let same = |a: Option<&str>, b: Option<&str>, case| match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => eq_escaped(a, b, case),
            (Some(_), None) | (None, Some(_)) => false,
        };
        self.is_secure() == other.is_secure()
            && same(self.user(), other.user(), Case::Counts)
            && same(self.password(), other.password(), Case::Counts)
            && same_host(self.host(), other.host())
            && self.port() == other.port()
            && same_params(self, other)
            && same_params(other, self)
            && same_headers(self.headers(), other.headers())
    }

    /// The name of the user this URI is the address of record of.
    pub fn aor(&self) -> Aor {
        let scheme = if self.is_secure() { "sips:" } else { "sip:" };
        let mut text = String::from(scheme);
        if let Some(user) = self.user() {
            text.push_str(&unescape(user));
            text.push('@');
        }
        for c in self.host().chars() {
            text.push(c.to_ascii_lowercase());
        }
        if let Some(port) = self.port() {
            text.push_str(&alloc::format!(":{port}"));
        }
        Aor(text)
    }
}

impl fmt::Debug for SipUri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.text)
    }
}

impl fmt::Display for SipUri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// Equal text; see [`SipUri::is_equivalent`] for equal meaning.
impl PartialEq for SipUri<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for SipUri<'_> {}

/// The transport of a `transport` parameter or of a Via value.
pub(crate) fn transport_of(text: &str) -> Option<Transport> {
    [
        ("udp", Transport::Udp),
        ("tcp", Transport::Tcp),
        ("tls", Transport::Tls),
        ("dtls", Transport::Dtls),
    ]
    .into_iter()
    .find(|(name, _)| text.eq_ignore_ascii_case(name))
    .map(|(_, transport)| transport)
}

fn parse_parts(text: &str) -> Option<Parts> {
    let (scheme, rest) = text.split_once(':')?;
    let secure = if scheme.eq_ignore_ascii_case("sip") {
        false
    } else if scheme.eq_ignore_ascii_case("sips") {
        true
    } else {
        return None;
    };
    let start = text.len().checked_sub(rest.len())?;
    let (user_end, host) = match rest.find('@') {
        None => (None, start),
        Some(at) => {
            let info = rest.get(..at)?;
            let (user, password) = match info.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (info, None),
            };
            let password = password.unwrap_or_default();
            let good = all_or_escaped(user, is_user)
                && (password.is_empty() || all_or_escaped(password, is_password));
            if !good {
                return None;
            }
            let user_end = start.checked_add(user.len())?;
            let host = start.checked_add(at)?.checked_add(1)?;
            (Some(user_end), host)
        }
    };
    let rest = text.get(host..)?;
    let (host_len, port, hostport_len) = parse_hostport(rest, |b| matches!(b, b';' | b'?'))?;
    let params = host.checked_add(hostport_len)?;
    let headers = text
        .get(params..)?
        .find('?')
        .map_or(Some(text.len()), |at| params.checked_add(at))?;
    Some(Parts {
        secure,
        user_end,
        host,
        host_end: host.checked_add(host_len)?,
        port,
        params,
        headers,
    })
}

/// An address of record: the name bindings are kept under (RFC 3261 section 10.3 step 5).
///
/// Scheme, unescaped user and lower-case host; without parameters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aor(String);

impl Aor {
    /// The text of the name. It is not a URI: escapes are undone.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Aor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0.escape_debug())
    }
}

/// A SIP or SIPS URI that owns its text.
#[derive(Clone, PartialEq, Eq)]
pub struct UriBuf {
    text: String,
    parts: Parts,
}

impl UriBuf {
    /// Reads a URI; [`Limits::DEFAULT`] applies.
    ///
    /// # Errors
    /// As [`SipUri::parse`].
    pub fn parse(text: impl Into<String>) -> Result<Self, ValueError> {
        let text = text.into();
        let parts = SipUri::parse(&text, &Limits::DEFAULT)?.parts;
        Ok(Self { text, parts })
    }

    /// The URI.
    pub fn as_uri(&self) -> SipUri<'_> {
        SipUri {
            text: &self.text,
            parts: self.parts,
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<SipUri<'_>> for UriBuf {
    fn from(uri: SipUri<'_>) -> Self {
        Self {
            text: String::from(uri.text),
            parts: uri.parts,
        }
    }
}

impl core::str::FromStr for UriBuf {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::parse(text)
    }
}

impl fmt::Debug for UriBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.text)
    }
}

impl fmt::Display for UriBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
