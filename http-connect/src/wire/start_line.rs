//! The first line of a request or response (RFC 9112 sections 3 and 4).

use super::Leniency;
use crate::text::is_token_byte;

/// The first line of a request: three words, one space between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLine<'a> {
    /// The method, with regard to case.
    pub method: &'a str,
    /// The request target, not judged.
    pub target: &'a str,
    /// Major and minor version.
    pub version: (u8, u8),
}

impl<'a> RequestLine<'a> {
    /// Reads the line; `None` when it is none.
    ///
    /// ```
    /// use http_connect::wire::RequestLine;
    ///
    /// let line = RequestLine::parse("CONNECT h.example:443 HTTP/1.1").unwrap();
    /// assert_eq!((line.method, line.version), ("CONNECT", (1, 1)));
    /// assert!(RequestLine::parse("CONNECT  h.example:443 HTTP/1.1").is_none());
    /// ```
    pub fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let legal = words.next().is_none()
            && !method.is_empty()
            && method.bytes().all(is_token_byte)
            && !target.is_empty()
            && !target.contains('\t');
        let [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] = version.as_bytes() else {
            return None;
        };
        let version = (digit(*major)?, digit(*minor)?);
        legal.then_some(Self {
            method,
            target,
            version,
        })
    }
}

/// The first line of a response of HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusLine {
    /// The minor version.
    pub minor: u8,
    /// The status code, 100 to 599.
    pub status: u16,
}

impl StatusLine {
    /// Reads the line; the reason phrase, which means nothing, may be missing together with the
    /// space in front of it. `None` when it is no status line of HTTP/1.
    ///
    /// ```
    /// use http_connect::wire::{Leniency, StatusLine};
    ///
    /// let line = StatusLine::parse("HTTP/1.0 200", Leniency::STRICT).unwrap();
    /// assert_eq!((line.minor, line.status), (0, 200));
    /// assert!(StatusLine::parse("ICY 200 OK", Leniency::LENIENT).is_none());
    /// ```
    pub fn parse(line: &str, leniency: Leniency) -> Option<Self> {
        let rest = line.strip_prefix("HTTP/1.")?;
        let (minor, mut rest) = rest.split_once(' ')?;
        let [minor] = minor.as_bytes() else {
            return None;
        };
        if leniency.extra_spaces {
            rest = rest.trim_start_matches(' ');
        }
        let code = rest.split(' ').next()?;
        let [a, b, c] = code.as_bytes() else {
            return None;
        };
        let status = [*a, *b, *c].into_iter().try_fold(0_u16, |sum, byte| {
            Some(sum.wrapping_mul(10).wrapping_add(u16::from(digit(byte)?)))
        })?;
        (100..600).contains(&status).then_some(Self {
            minor: digit(*minor)?,
            status,
        })
    }
}

fn digit(byte: u8) -> Option<u8> {
    byte.is_ascii_digit().then(|| byte.wrapping_sub(b'0'))
}
