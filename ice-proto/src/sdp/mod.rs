//! The lines of ICE in a description (RFC 8839 section 5).
//!
//! Every line is taken with or without `a=` in front and with or without CR behind.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::str::FromStr;

use alloc::string::String;
use alloc::vec::Vec;

use stun_proto::auth::Secret;

use crate::{Candidate, CandidateKind};

/// Longest line taken, in bytes.
const MAX_LINE: usize = 512;

/// Why a line is not taken. The rest of the description may still be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// It does not follow the grammar, or a value is out of range.
    #[error("malformed line")]
    Malformed,
    /// It is no line of ICE.
    #[error("not a line of ICE")]
    Foreign,
    /// A candidate of a transport, kind or address family that is not known here.
    #[error("unsupported candidate")]
    Unsupported,
    /// A candidate with a name instead of an address.
    #[error("candidate with a name instead of an address")]
    Name,
}

/// A candidate of the other side that hides its address behind a multicast DNS name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCandidate {
    /// `<something>.local`, in lower case. Resolving it is the host's decision; names that are no
    /// version 4 UUID had better not be.
    pub name: String,
    /// The candidate, without its address.
    candidate: Candidate,
}

impl NamedCandidate {
    /// The candidate, now that its name has turned out to stand for exactly this address.
    pub fn resolved(&self, ip: IpAddr) -> Candidate {
        let addr = SocketAddr::new(ip.to_canonical(), self.candidate.addr.port());
        Candidate {
            addr,
            ..self.candidate.clone()
        }
    }
}

/// One line of ICE. `Debug` does not show passwords.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Line {
    /// `candidate:`
    Candidate(Candidate),
    /// `candidate:` with a name of multicast DNS; read only.
    Named(NamedCandidate),
    /// `remote-candidates:`, the candidates of the other side that were selected: component and
    /// address of each.
    RemoteCandidates(Vec<(u16, SocketAddr)>),
    /// `ice-ufrag:`, 4 to 256 characters.
    Ufrag(String),
    /// `ice-pwd:`, 22 to 256 characters.
    Pwd(Secret),
    /// `ice-options:`, the tags as they stand.
    Options(String),
    /// `ice-pacing:` in milliseconds.
    Pacing(u32),
    /// `ice-lite`
    Lite,
    /// `ice-mismatch`
    Mismatch,
    /// `end-of-candidates`
    EndOfCandidates,
}

impl Line {
    /// Whether `ice-options` has this tag.
    pub fn has_option(&self, tag: &str) -> bool {
        match self {
            Self::Options(tags) => tags.split(' ').any(|t| t == tag),
            Self::Candidate(_)
            | Self::Named(_)
            | Self::RemoteCandidates(_)
            | Self::Ufrag(_)
            | Self::Pwd(_)
            | Self::Pacing(_)
            | Self::Lite
            | Self::Mismatch
            | Self::EndOfCandidates => false,
        }
    }
}

impl FromStr for Line {
    type Err = LineError;

    /// Reads a line as strictly as the grammar is.
    fn from_str(text: &str) -> Result<Self, LineError> {
        Self::parse(text, false)
    }
}

impl Line {
    /// Reads a line; if `lenient`, foundations may have up to 64 characters other than blanks, and
    /// priorities above 2^31 - 1 are brought down to it.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn parse(text: &str, lenient: bool) -> Result<Self, LineError> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        let text = text.strip_prefix("a=").unwrap_or(text);
        if text.len() > MAX_LINE {
            return Err(LineError::Malformed);
        }
        let (name, value) = text.split_once(':').unwrap_or((text, ""));
        match name {
            "candidate" => candidate(value, lenient),
            "remote-candidates" => remote_candidates(value).map(Self::RemoteCandidates),
            "ice-ufrag" => credential(value, 4).map(Self::Ufrag),
            "ice-pwd" => credential(value, 22).map(|pwd| Self::Pwd(Secret::new(pwd))),
            "ice-options" => {
                let legal = value.split(' ').all(|tag| is_ice_chars(tag, 1));
                legal
                    .then(|| Self::Options(value.into()))
                    .ok_or(LineError::Malformed)
            }
            "ice-pacing" => {
                let digits = value.len() <= 10 && value.bytes().all(|b| b.is_ascii_digit());
                let value = value.parse().ok().filter(|_| digits);
                value.map(Self::Pacing).ok_or(LineError::Malformed)
            }
            "ice-lite" => Ok(Self::Lite),
            "ice-mismatch" => Ok(Self::Mismatch),
            "end-of-candidates" => Ok(Self::EndOfCandidates),
            _ => Err(LineError::Foreign),
        }
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pwd(_) => f.write_str("Line(ice-pwd:..)"),
            Self::Candidate(_)
            | Self::Named(_)
            | Self::RemoteCandidates(_)
            | Self::Ufrag(_)
            | Self::Options(_)
            | Self::Pacing(_)
            | Self::Lite
            | Self::Mismatch
            | Self::EndOfCandidates => write!(f, "Line({self})"),
        }
    }
}

impl fmt::Display for Line {
    /// Without `a=`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Candidate(candidate) => candidate.fmt(f),
            Self::Named(NamedCandidate { name, candidate }) => line(f, candidate, name),
            Self::RemoteCandidates(all) => {
                f.write_str("remote-candidates:")?;
                for (index, (component, addr)) in all.iter().enumerate() {
                    let gap = if index == 0 { "" } else { " " };
                    write!(f, "{gap}{component} {} {}", addr.ip(), addr.port())?;
                }
                Ok(())
            }
            Self::Ufrag(ufrag) => write!(f, "ice-ufrag:{ufrag}"),
            Self::Pwd(pwd) => write!(f, "ice-pwd:{}", pwd.expose()),
            Self::Options(tags) => write!(f, "ice-options:{tags}"),
            Self::Pacing(ms) => write!(f, "ice-pacing:{ms}"),
            Self::Lite => f.write_str("ice-lite"),
            Self::Mismatch => f.write_str("ice-mismatch"),
            Self::EndOfCandidates => f.write_str("end-of-candidates"),
        }
    }
}

impl FromStr for Candidate {
    type Err = LineError;

    /// Reads a candidate line.
    fn from_str(text: &str) -> Result<Self, LineError> {
        match text.parse()? {
            Line::Candidate(candidate) => Ok(candidate),
            Line::Named(_) => Err(LineError::Name),
            Line::RemoteCandidates(_)
            | Line::Ufrag(_)
            | Line::Pwd(_)
            | Line::Options(_)
            | Line::Pacing(_)
            | Line::Lite
            | Line::Mismatch
            | Line::EndOfCandidates => Err(LineError::Foreign),
        }
    }
}

impl fmt::Display for Candidate {
    /// The line without `a=`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, self, &self.addr.ip())
    }
}

fn line(f: &mut fmt::Formatter<'_>, it: &Candidate, address: &dyn fmt::Display) -> fmt::Result {
    write!(
        f,
        "candidate:{} {} udp {} {address} {} typ {}",
        it.foundation,
        it.component,
        it.priority,
        it.addr.port(),
        it.kind
    )?;
    match it.related {
        Some(related) => write!(f, " raddr {} rport {}", related.ip(), related.port()),
        None => Ok(()),
    }
}

/// Whether all characters are letters, digits, `+` or `/`, and there are so many at least.
fn is_ice_chars(text: &str, least: usize) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-');
    text.len() >= least && text.bytes().all(legal)
}

fn credential(value: &str, least: usize) -> Result<String, LineError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    if value.len() < least || value.len() > 256 || !value.bytes().all(legal) {
        return Err(LineError::Malformed);
    }
    Ok(value.into())
}

/// A number of at most `digits` digits in a range.
fn number(
    text: Option<&str>,
    digits: usize,
    range: core::ops::RangeInclusive<u64>,
) -> Result<u64, LineError> {
    let text = text.ok_or(LineError::Malformed)?;
    if text.is_empty() || text.len() > digits || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(LineError::Malformed);
    }
    let value = text.parse().map_err(|_| LineError::Malformed)?;
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(LineError::Malformed)
    }
}

fn remote_candidates(value: &str) -> Result<Vec<(u16, SocketAddr)>, LineError> {
    let mut words = value.split(' ').peekable();
    let mut all = Vec::new();
    while words.peek().is_some() {
        let component = number(words.next(), 3, 1..=256)? as u16;
        let ip = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        let ip = ip.ok_or(LineError::Malformed)?;
        let port = number(words.next(), 5, 1..=65535)? as u16;
        all.push((component, SocketAddr::new(ip.to_canonical(), port)));
    }
    Ok(all)
}

fn candidate(value: &str, lenient: bool) -> Result<Line, LineError> {
    // Exactly one space between words; an extension may have an empty value.
    let mut words = value.split(' ');
    let foundation = words.next().unwrap_or_default();
    let ice_chars = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    let strict = foundation.len() <= 32 && foundation.bytes().all(ice_chars);
    let tolerable =
        lenient && foundation.len() <= 64 && foundation.bytes().all(|b| b.is_ascii_graphic());
    if foundation.is_empty() || !(strict || tolerable) {
        return Err(LineError::Malformed);
    }
    let component = number(words.next(), 3, 1..=256)? as u16;
    let transport = words.next().ok_or(LineError::Malformed)?;
    let most = if lenient { 9_999_999_999 } else { 0x7FFF_FFFF };
    let priority = number(words.next(), 10, 1..=most)?.min(0x7FFF_FFFF) as u32;
    let address = words.next().ok_or(LineError::Malformed)?;
    let port = number(words.next(), 5, 0..=65535)? as u16;
    if words
        .next()
        .is_none_or(|word| !word.eq_ignore_ascii_case("typ"))
    {
        return Err(LineError::Malformed);
    }
    let kind = words.next().ok_or(LineError::Malformed)?;
    let related = extensions(words)?;
    if !transport.eq_ignore_ascii_case("udp") {
        return Err(LineError::Unsupported);
    }
    let kind = [
        CandidateKind::Host,
        CandidateKind::PeerReflexive,
        CandidateKind::ServerReflexive,
        CandidateKind::Relayed,
    ]
    .into_iter()
    .find(|k| k.name().eq_ignore_ascii_case(kind))
    .ok_or(LineError::Unsupported)?;
    let candidate = |ip| Candidate {
        foundation: foundation.into(),
        component,
        priority,
        addr: SocketAddr::new(ip, port),
        kind,
        related,
    };
    let ip: IpAddr = match address.parse() {
        Ok(ip) => ip,
        Err(_) if is_local_name(address) && port != 0 => {
            return Ok(Line::Named(NamedCandidate {
                name: address.to_ascii_lowercase(),
                candidate: candidate(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            }));
        }
        Err(_) if is_name(address) => return Err(LineError::Name),
        Err(_) => return Err(LineError::Malformed),
    };
    // An IPv4 address in IPv6 clothes is the IPv4 address.
    let ip = ip.to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || broadcast || port == 0 {
        return Err(LineError::Malformed);
    }
    Ok(Line::Candidate(candidate(ip)))
}

/// Whether a name is one of multicast DNS: one label and `.local`.
fn is_local_name(text: &str) -> bool {
    let (label, rest) = text.split_once('.').unwrap_or((text, ""));
    is_name(text) && !label.is_empty() && rest.eq_ignore_ascii_case("local")
}

/// Reads what stands behind the kind: the related address; everything else is passed over.
fn extensions<'a>(
    mut words: impl Iterator<Item = &'a str>,
) -> Result<Option<SocketAddr>, LineError> {
    let (mut raddr, mut rport) = (None, None);
    while let Some(name) = words.next() {
        let value = words.next().ok_or(LineError::Malformed)?;
        if name.is_empty() || name.contains('\t') {
            return Err(LineError::Malformed);
        }
        if name.eq_ignore_ascii_case("raddr") {
            raddr = value.parse::<IpAddr>().ok();
        } else if name.eq_ignore_ascii_case("rport") {
            rport = Some(number(Some(value), 5, 0..=65535)? as u16);
        }
    }
    Ok(raddr.zip(rport).map(|(ip, port)| SocketAddr::new(ip, port)))
}

fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !text.is_empty() && text.bytes().all(legal) && text.bytes().any(|b| b.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests;
