//! Escapes, and what is equal in spite of them (RFC 3261 section 19.1.4).

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use super::SipUri;
use super::chars::{is_reserved, is_unreserved};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Counts,
    Ignored,
}

/// The characters of a text; an escape of a character that is not reserved is that character,
/// one of a reserved character is something of its own.
fn meaning(text: &str, case: Case) -> impl Iterator<Item = (u8, bool)> {
    let mut bytes = text.bytes();
    core::iter::from_fn(move || {
        let byte = bytes.next()?;
        let (byte, escaped) = if byte == b'%' {
            let digit = |b: Option<u8>| char::from(b.unwrap_or(b'0')).to_digit(16).unwrap_or(0);
            let (high, low) = (digit(bytes.next()), digit(bytes.next()));
            let byte = u8::try_from(high << 4 | low).unwrap_or(0);
            (byte, is_reserved(byte))
        } else {
            (byte, false)
        };
        let byte = match case {
            Case::Counts => byte,
            Case::Ignored => byte.to_ascii_lowercase(),
        };
        Some((byte, escaped))
    })
}

pub(super) fn eq_escaped(a: &str, b: &str, case: Case) -> bool {
    meaning(a, case).eq(meaning(b, case))
}

/// Whether the parameters of `a` do not contradict `b`.
pub(super) fn same_params(a: &SipUri<'_>, b: &SipUri<'_>) -> bool {
    const NEEDED: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];
    a.params().all(|(name, value)| {
        let other = b.params().find(|(n, _)| eq_escaped(n, name, Case::Ignored));
        match other {
            Some((_, other)) => match (value, other) {
                (Some(value), Some(other)) => eq_escaped(value, other, Case::Ignored),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            },
            None => !NEEDED
                .iter()
                .any(|needed| name.eq_ignore_ascii_case(needed)),
        }
    })
}

pub(super) fn same_headers(a: Option<&str>, b: Option<&str>) -> bool {
    let fields = |text: &str| -> Vec<Vec<(u8, bool)>> {
        let mut fields: Vec<_> = text
            .split('&')
            .map(|field| {
                let (name, value) = field.split_once('=').unwrap_or((field, ""));
                meaning(name, Case::Ignored)
                    .chain([(b'=', false)])
                    .chain(meaning(value, Case::Counts))
                    .collect()
            })
            .collect();
        fields.sort();
        fields
    };
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => fields(a) == fields(b),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// `text` with its escapes undone, once; as it is when that would not give UTF-8.
pub fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes: Vec<u8> = meaning(text, Case::Counts).map(|(byte, _)| byte).collect();
    match String::from_utf8(bytes) {
        Ok(plain) => Cow::Owned(plain),
        Err(_) => Cow::Borrowed(text),
    }
}

/// `text` as the user part of a URI: what may not stand there is escaped.
pub fn escape_user(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_unreserved(byte) || matches!(byte, b'&' | b'=' | b'+' | b'$' | b',') {
            out.push(char::from(byte));
        } else {
            out.push_str(&alloc::format!("%{byte:02X}"));
        }
    }
    out
}
