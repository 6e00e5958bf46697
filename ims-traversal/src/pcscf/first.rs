//! What speaks on an accepted connection, SIP or HTTP: told by ALPN, else by the name the client
//! asked for, else by the first line. Never by a guess.

/// What a connection turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Sip,
    Http,
    /// Neither: closed without a word.
    Foreign,
}

/// The longest first line that is waited for.
const MAX_LINE: usize = 2048;

/// The methods of RFC 9110 and RFC 5789. OPTIONS is one of SIP as well.
const HTTP_METHODS: [&[u8]; 9] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
];

/// What the protocol agreed on by ALPN says.
pub(super) fn by_alpn(alpn: &[u8]) -> Verdict {
    match alpn {
        b"sip/2" => Verdict::Sip,
        b"http/1.0" | b"http/1.1" | b"h2" => Verdict::Http,
        _ => Verdict::Foreign,
    }
}

/// What the name asked for by SNI says, if it is one of these.
pub(super) fn by_name(
    name: &str,
    sip: &[alloc::string::String],
    http: &[alloc::string::String],
) -> Option<Verdict> {
    let among = |names: &[alloc::string::String]| {
        names.iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    if among(sip) {
        Some(Verdict::Sip)
    } else if among(http) {
        Some(Verdict::Http)
    } else {
        None
    }
}

/// What the first octets say; `None` when more are needed.
pub(super) fn by_octets(first: &[u8]) -> Option<Verdict> {
    if first.is_empty() || first == b"\r" {
        return None;
    }
    if first.starts_with(b"\r\n") {
        return Some(Verdict::Sip);
    }
    // What cannot be a method need not be waited for.
    let method_end = first.iter().position(|byte| !is_token(*byte));
    if method_end.is_some_and(|end| end == 0 || first.get(end) != Some(&b' ')) {
        return Some(Verdict::Foreign);
    }
    let Some(end) = first.iter().position(|byte| *byte == b'\n') else {
        return (first.len() >= MAX_LINE).then_some(Verdict::Foreign);
    };
    let line = first.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Some(by_line(line))
}

fn by_line(line: &[u8]) -> Verdict {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(_), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Verdict::Foreign;
    };
    if version.eq_ignore_ascii_case(b"SIP/2.0") {
        Verdict::Sip
    } else if version.starts_with(b"HTTP/1.") && HTTP_METHODS.contains(&method) {
        Verdict::Http
    } else {
        Verdict::Foreign
    }
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~'
        )
}
