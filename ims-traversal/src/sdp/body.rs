//! The session description within the body of a message, which may have several parts (RFC 5621).

use core::str;

/// The type of a session description.
pub(crate) const SDP: &str = "application/sdp";
/// What bodies are looked into, for Accept.
pub(crate) const ACCEPT: &str = "application/sdp, multipart/mixed";

/// Parts of one level that are looked at.
const MAX_PARTS: usize = 16;
/// Levels of parts within parts.
const MAX_DEPTH: u32 = 3;
/// Longest boundary (RFC 2046 section 5.1.1).
const MAX_BOUNDARY: usize = 70;

/// The session description in a body of this type: the body itself, or a part of it. Of
/// alternatives the last is the best (RFC 2046 section 5.1.4), else the first counts. Parts that
/// are not understood are passed over, be they required or not: that is what others do.
pub(crate) fn description_in<'a>(content_type: &str, body: &'a [u8]) -> Option<&'a [u8]> {
    find(content_type, body, MAX_DEPTH)
}

fn find<'a>(content_type: &str, body: &'a [u8], depth: u32) -> Option<&'a [u8]> {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(SDP) {
        return Some(body);
    }
    let (group, subtype) = kind.split_once('/')?;
    let depth = depth.checked_sub(1)?;
    if !group.eq_ignore_ascii_case("multipart") {
        return None;
    }
    let boundary = boundary(content_type).or_else(|| first_boundary(body))?;
    let mut found = parts(body, boundary).filter_map(|part| in_part(part, depth));
    if subtype.eq_ignore_ascii_case("alternative") {
        found.last()
    } else {
        found.next()
    }
}

fn in_part(part: &[u8], depth: u32) -> Option<&[u8]> {
    let mut rest = part;
    let mut content_type = "text/plain";
    while !rest.is_empty() {
        let line;
        (line, rest) = take_line(rest);
        if line.is_empty() {
            return find(content_type, rest, depth);
        }
        let Some((name, value)) = str::from_utf8(line).ok().and_then(|l| l.split_once(':')) else {
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        if name.eq_ignore_ascii_case("Content-Type") || name.eq_ignore_ascii_case("c") {
            content_type = value;
        }
        let plain = ["7bit", "8bit", "binary"];
        let encoded = name.eq_ignore_ascii_case("Content-Transfer-Encoding")
            && !plain.iter().any(|known| value.eq_ignore_ascii_case(known));
        let packed = name.eq_ignore_ascii_case("Content-Encoding")
            && !value.eq_ignore_ascii_case("identity");
        if encoded || packed {
            // Not undone here.
            return None;
        }
    }
    None
}

/// The parts of a body; what is in front of the first boundary and behind the last is none.
fn parts<'a, 'b>(
    body: &'a [u8],
    boundary: &'b str,
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'b> {
    let mut rest = after_delimiter(body, boundary).map(|(_, rest)| rest);
    core::iter::from_fn(move || {
        let from = rest.take()?;
        let part = match after_delimiter(from, boundary) {
            Some((part, next)) => {
                rest = Some(next);
                part
            }
            // The last boundary is missing, as some do.
            None => from,
        };
        Some(part)
    })
    .take(MAX_PARTS)
}

/// What stands in front of the next delimiter and, unless it is the closing one, behind its line.
/// The closing one leaves nothing behind.
fn after_delimiter<'a>(body: &'a [u8], boundary: &str) -> Option<(&'a [u8], &'a [u8])> {
    let mut rest = body;
    let mut before = 0_usize;
    while !rest.is_empty() {
        let (line, next) = take_line(rest);
        let end = line
            .strip_prefix(b"--")
            .and_then(|line| line.strip_prefix(boundary.as_bytes()))
            .map(<[u8]>::trim_ascii_end);
        let closing = end == Some(b"--");
        if closing || end == Some(b"") {
            let part = body.get(..before).unwrap_or_default();
            // The line end in front of a delimiter belongs to it.
            let part = part.strip_suffix(b"\n").unwrap_or(part);
            let part = part.strip_suffix(b"\r").unwrap_or(part);
            return Some((part, if closing { &[] } else { next }));
        }
        before = body.len().saturating_sub(next.len());
        rest = next;
    }
    None
}

/// A line without its end, and what follows it.
fn take_line(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| *b == b'\n');
    let (line, rest) = match end {
        Some(end) => text.split_at_checked(end.saturating_add(1)),
        None => None,
    }
    .unwrap_or((text, &[]));
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

/// The boundary a Content-Type says.
fn boundary(content_type: &str) -> Option<&str> {
    let mut parameters = content_type.split(';').skip(1);
    let value = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let own = name.trim().eq_ignore_ascii_case("boundary");
        own.then(|| value.trim().trim_matches('"'))
    })?;
    (1..=MAX_BOUNDARY).contains(&value.len()).then_some(value)
}

/// The boundary as the body itself shows it, where nobody says it.
fn first_boundary(body: &[u8]) -> Option<&str> {
    let (line, _) = take_line(body);
    let value = str::from_utf8(line.strip_prefix(b"--")?).ok()?.trim_end();
    (1..=MAX_BOUNDARY).contains(&value.len()).then_some(value)
}
