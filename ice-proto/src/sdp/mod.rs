//! The lines of ICE in a description (RFC 8839 section 5).
//!
//! Every line is taken with or without `a=` in front and with or without CR behind.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::str::FromStr;

use alloc::string::String;

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

/// One line of ICE.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Line {
    /// `candidate:`
    Candidate(Candidate),
    /// `ice-ufrag:`, 4 to 256 characters.
    Ufrag(String),
    /// `ice-pwd:`, 22 to 256 characters.
    Pwd(String),
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

    fn from_str(text: &str) -> Result<Self, LineError> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        let text = text.strip_prefix("a=").unwrap_or(text);
        if text.len() > MAX_LINE {
            return Err(LineError::Malformed);
        }
        let (name, value) = text.split_once(':').unwrap_or((text, ""));
        match name {
            "candidate" => candidate(value).map(Self::Candidate),
            "ice-ufrag" => credential(value, 4).map(Self::Ufrag),
            "ice-pwd" => credential(value, 22).map(Self::Pwd),
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

impl fmt::Display for Line {
    /// Without `a=`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Candidate(candidate) => candidate.fmt(f),
            Self::Ufrag(ufrag) => write!(f, "ice-ufrag:{ufrag}"),
            Self::Pwd(pwd) => write!(f, "ice-pwd:{pwd}"),
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
            Line::Ufrag(_)
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
        write!(
            f,
            "candidate:{} {} udp {} {} {} typ {}",
            self.foundation,
            self.component,
            self.priority,
            self.addr.ip(),
            self.addr.port(),
            self.kind
        )?;
        match self.related {
            Some(related) => write!(f, " raddr {} rport {}", related.ip(), related.port()),
            None => Ok(()),
        }
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

fn candidate(value: &str) -> Result<Candidate, LineError> {
    // Exactly one space between words; an extension may have an empty value.
    let mut words = value.split(' ');
    let foundation = words.next().unwrap_or_default();
    let ice_chars = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    if !(1..=32).contains(&foundation.len()) || !foundation.bytes().all(ice_chars) {
        return Err(LineError::Malformed);
    }
    let component = number(words.next(), 3, 1..=256)? as u16;
    let transport = words.next().ok_or(LineError::Malformed)?;
    let priority = number(words.next(), 10, 1..=0x7FFF_FFFF)? as u32;
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
    let ip: IpAddr = match address.parse() {
        Ok(ip) => ip,
        Err(_) if is_name(address) => return Err(LineError::Name),
        Err(_) => return Err(LineError::Malformed),
    };
    // An IPv4 address in IPv6 clothes is the IPv4 address.
    let ip = ip.to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || broadcast || port == 0 {
        return Err(LineError::Malformed);
    }
    Ok(Candidate {
        foundation: foundation.into(),
        component,
        priority,
        addr: SocketAddr::new(ip, port),
        kind,
        related,
    })
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
