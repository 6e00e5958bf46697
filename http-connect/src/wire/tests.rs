#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

/// Reads a head in chunks that end at these offsets; what is left over behind it.
fn read(
    bytes: &[u8],
    cuts: &[usize],
    leniency: Leniency,
) -> Result<Option<(Head, Vec<u8>)>, HeadError> {
    let mut reader = HeadReader::new(HeadLimits::default(), leniency);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let mut start = 0;
    for cut in cuts {
        let mut input = &bytes[start..cut];
        start = cut;
        if let Some(head) = reader.take(&mut input)? {
            let rest = [input, &bytes[cut..]].concat();
            return Ok(Some((head, rest)));
        }
    }
    Ok(None)
}

fn shown(head: &Head) -> (String, Vec<(String, String)>) {
    let fields = head
        .fields()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    (head.start_line().to_string(), fields)
}

#[test]
fn a_head_is_found_wherever_it_is_cut() {
    let bytes = b"HTTP/1.1 200 OK\r\nA: 1\r\nb:\t two \t\r\nA:3\r\nEmpty:\r\n\r\n\r\nrest";
    for cut in 0..=bytes.len() {
        let (head, rest) = read(bytes, &[cut], Leniency::STRICT).unwrap().unwrap();
        assert_eq!(rest, b"\r\nrest");
        assert_eq!(head.all("a").collect::<Vec<_>>(), ["1", "3"]);
        assert_eq!(head.first("B"), Some("two"));
        assert_eq!(head.first("empty"), Some(""));
        assert!(head.lists("B", "TWO") && !head.lists("B", "tw"));
    }
}

#[test]
fn folded_lines_are_joined_by_a_space() {
    let bytes = b"HTTP/1.1 200 OK\nA: 1\r\n \t 2\n\t3\nB: 4\n\n";
    let (head, _) = read(bytes, &[], Leniency::LENIENT).unwrap().unwrap();
    let value = head.first("A").unwrap();
    let words: Vec<_> = value.split_ascii_whitespace().collect();
    assert_eq!(words, ["1", "2", "3"]);
    assert!(!value.contains(['\r', '\n']));
    assert_eq!(head.first("B"), Some("4"));
    // Each line counts from its own beginning.
    let long = "B: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n".repeat(90);
    let folds = "C: 1\r\n ".to_string() + &"x".repeat(7000) + "\r\n 2\r\n";
    let bytes = alloc::format!("HTTP/1.1 200 OK\r\n{long}{folds}\r\n");
    let (head, _) = read(bytes.as_bytes(), &[], Leniency::LENIENT)
        .unwrap()
        .unwrap();
    assert_eq!(head.first("C").unwrap().len(), 7004);
    // The first line cannot be folded.
    let bytes = b"HTTP/1.1 200 OK\r\n x\r\n\r\n";
    assert_eq!(
        read(bytes, &[], Leniency::LENIENT).unwrap_err(),
        HeadError::Field
    );
}

// spec: SEC-F-01
#[test]
fn each_byte_is_looked_at_once_while_it_comes() {
    let limits = HeadLimits {
        bytes: 128 * 1024,
        line: 128 * 1024,
        fields: 20_000,
    };
    for line in ["A: b\r\n", "A: b\r\n c\r\n", " \r\n"] {
        let mut bytes = b"HTTP/1.1 200 OK\r\nX: y\r\n".to_vec();
        while bytes.len() < 64 * 1024 {
            bytes.extend_from_slice(line.as_bytes());
        }
        let mut reader = HeadReader::new(limits, Leniency::LENIENT);
        for byte in &bytes {
            assert!(reader.take(&mut [*byte].as_slice()).unwrap().is_none());
        }
        // The rest of the work is one walk over what was kept.
        assert!(reader.looked + reader.beginning().len() <= 2 * bytes.len() + 64);
    }
}

// spec: SEC-F-05
#[test]
fn an_error_in_a_head_is_found_with_the_byte_that_makes_it() {
    let check = |bytes: &[u8], error| {
        let mut reader = HeadReader::new(HeadLimits::default(), Leniency::STRICT);
        let last = bytes.len() - 1;
        for byte in &bytes[..last] {
            assert!(reader.take(&mut [*byte].as_slice()).unwrap().is_none());
        }
        let result = reader.take(&mut &bytes[last..]);
        assert_eq!(result.unwrap_err(), error, "{bytes:?}");
    };
    check(b"GET / HTTP/1.1\n", HeadError::Control);
    check(b"GET / HTTP/1.1\rx", HeadError::Control);
    check(b"GET / HTTP/1.1\r\r", HeadError::Control);
    check(b"GET \0", HeadError::Control);
    check(b"GET \x7f", HeadError::Control);
    check(b"GET \x1b", HeadError::Control);
    check(b"\r\n", HeadError::Control);
    check(b"GET / HTTP/1.1\r\nA: b\r\n ", HeadError::Field);
    check(b"GET / HTTP/1.1\r\n\t", HeadError::Field);
}

#[test]
fn status_lines() {
    let lenient = Leniency::LENIENT;
    assert!(StatusLine::parse("HTTP/1.1   200   OK", lenient).is_some());
    assert!(StatusLine::parse("HTTP/1.1 200OK", lenient).is_none());
    assert!(StatusLine::parse("HTTP/1. 200", lenient).is_none());
    assert!(StatusLine::parse("HTTP/1.1", lenient).is_none());
    assert!(StatusLine::parse("HTTP/1.1 ", lenient).is_none());
}

// spec: AL-2.2-1
#[test]
fn alpn_round_trips_all_bytes_and_is_strict() {
    let all: Vec<u8> = (0..=255).collect();
    let value = alpn_value([all.as_slice(), b"h2"]);
    assert!(value.is_ascii() && value.contains("%00%01") && value.contains("%25"));
    assert_eq!(
        parse_alpn(&value).unwrap(),
        [all.as_slice(), b"h2".as_slice()]
    );
    for (ids, value) in [
        (b"http/1.1".as_slice(), "http%2F1.1"),
        (b"stun.turn", "stun.turn"),
        (b"sip/2", "sip%2F2"),
        (b"\xff", "%FF"),
    ] {
        assert_eq!(alpn_value([ids]), value);
    }
    for bad in [
        "", "a,,b", "%2f", "%41", "%4", "%", "%GG", "a b", "a/b", "h2,",
    ] {
        assert_eq!(parse_alpn(bad), Err(AlpnError), "{bad}");
    }
}

// spec: PS-2.1-1
#[test]
fn proxy_status_members_are_read_and_unknown_parameters_passed_over() {
    let members = proxy_status(
        "a; error=connection_refused; next-hop=\"[::1]:443\"; x; y=?0; z=:YQ==:;next-protocol=h2 , \"b \\\"c\\\\\" ;received-status=abc",
    );
    // A blank in front of a semicolon is no structured field.
    assert_eq!(members, None);
    let members = proxy_status(
        "a; error=connection_refused; next-hop=\"[::1]:443\"; x; y=?0; z=:YQ==:;next-protocol=h2 , \"b \\\"c\\\\\";received-status=abc",
    )
    .unwrap();
    assert_eq!(members[0].next_hop.as_deref(), Some("[::1]:443"));
    assert_eq!(members[0].next_protocol.as_deref(), Some("h2"));
    assert_eq!(members[1].proxy, "b \"c\\");
    assert_eq!(members[1].received_status, None);
    for bad in [
        "a,",
        "a;=x",
        "\"a",
        "\"\\x\"",
        ";a",
        "a b",
        "a;X=1",
        "\"\u{e9}\"",
    ] {
        assert_eq!(proxy_status(bad), None, "{bad}");
    }
    assert_eq!(proxy_status("").unwrap(), []);
    assert_eq!(proxy_status(&"a,".repeat(17)[..33]).unwrap().len(), 16);
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let date = |text| RetryAfter::parse(text);
    for (text, time) in [
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Tue, 29 Feb 2000 12:00:00 GMT", 951_825_600),
        ("Wed, 31 Dec 2098 23:59:60 GMT", 4_070_908_800),
        ("Sun, 28 Feb 2100 00:00:00 GMT", 4_107_456_000),
        ("Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
    ] {
        assert_eq!(date(text), Some(RetryAfter::UnixTime(time)), "{text}");
    }
    for bad in [
        "",
        "-1",
        "1.5",
        "99999999999999999999",
        "Thu, 01 Jan 1970 00:00:00",
        "Thu, 32 Jan 1970 00:00:00 GMT",
        "Thu, 01 Foo 1970 00:00:00 GMT",
        "Thu, 01 Jan 1969 00:00:00 GMT",
        "Thu, 01 Jan 1970 24:00:00 GMT",
        "Thu, 01 Jan 1970 00:00 GMT",
        "Thu, +1 Jan 1970 00:00:00 GMT",
        "Thursday, 01-Jan-70 00:00:00 GMT",
    ] {
        assert_eq!(date(bad), None, "{bad}");
    }
}

/// Reads a body in chunks of `step` bytes: what was kept, and how many bytes are left.
fn body(framing: Framing, bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize), BodyError> {
    let mut body = BodyReader::new(framing, 1000);
    let mut left = bytes;
    while !left.is_empty() && !body.is_done() {
        let (mut input, rest) = left.split_at(step.min(left.len()));
        body.take(&mut input)?;
        left = &left[left.len() - rest.len() - input.len()..];
    }
    Ok((body.into_prefix(), left.len()))
}

// spec: HM-7.1-1
#[test]
fn chunked_bodies_end_where_they_end() {
    let chunked = |text: &str| {
        let whole = body(Framing::Chunked, text.as_bytes(), text.len().max(1));
        for step in 1..text.len() {
            assert_eq!(
                body(Framing::Chunked, text.as_bytes(), step),
                whole,
                "{text}"
            );
        }
        whole
    };
    let good = |text: &str, data: &str, left| {
        assert_eq!(
            chunked(text),
            Ok((data.as_bytes().to_vec(), left)),
            "{text}"
        );
    };
    good("0\r\n\r\n", "", 0);
    good("3\r\nabc\r\n0\r\n\r\nHTTP", "abc", 4);
    good(
        "00003\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n000;z\r\nT: 1\r\nU: 2\r\n\r\n",
        "abc0123456789",
        0,
    );
    good("3 \r\nabc\r\n0\r\n\r\n", "abc", 0);
    for bad in [
        "g\r\n",
        "\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        "10000000000000000\r\n",
        "ffffffffffffffffff\r\n",
        " 1\r\n",
        "3\r\nabcd\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\nabc\r\n",
        "3\r\rabc",
        "0\r\n\n",
    ] {
        assert_eq!(chunked(bad), Err(BodyError), "{bad:?}");
    }
}

// spec: SEC-G-05, SEC-G-10
#[test]
fn lines_of_chunks_and_trailers_have_limits_and_sizes_reserve_nothing() {
    let mut body = BodyReader::new(Framing::Chunked, 10);
    let line = [b"1;".as_slice(), &[b'x'; BodyReader::MAX_LINE]].concat();
    assert_eq!(body.take(&mut line.as_slice()), Err(BodyError));
    let mut body = BodyReader::new(Framing::Chunked, 10);
    let trailers = "T: 12345678\r\n".repeat(BodyReader::MAX_TRAILERS / 11 + 1);
    let bytes = alloc::format!("0\r\n{trailers}");
    assert_eq!(body.take(&mut bytes.as_bytes()), Err(BodyError));

    let mut body = BodyReader::new(Framing::Length(u64::MAX), usize::MAX);
    body.take(&mut [0; 20].as_slice()).unwrap();
    assert!(body.into_prefix().capacity() <= 256);
}

// spec: HM-6.3-2, HM-6.3-3, HM-6.3-4
#[test]
fn framing_of_rejections() {
    let check = |status, fields: &str, expected| {
        let bytes = alloc::format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
        let (head, _) = read(bytes.as_bytes(), &[], Leniency::STRICT)
            .unwrap()
            .unwrap();
        let line = StatusLine::parse(head.start_line(), Leniency::STRICT).unwrap();
        assert_eq!(Framing::of_response(&head, line), expected, "{fields}");
    };
    use Framing::{Chunked, Length, UntilClose};
    check(204, "Content-Length: 5\r\n", (Length(0), true));
    check(304, "Transfer-Encoding: chunked\r\n", (Length(0), true));
    check(403, "", (UntilClose, false));
    check(403, "Content-Length: 0\r\n", (Length(0), true));
    let most = "Content-Length: 9223372036854775807\r\n";
    check(403, most, (Length(i64::MAX as u64), true));
    let more = "Content-Length: 9223372036854775808\r\n";
    check(403, more, (UntilClose, false));
    check(403, "Content-Length: 5, 6\r\n", (UntilClose, false));
    check(403, "Content-Length: 5,\r\n", (UntilClose, false));
    check(403, "Transfer-Encoding: gzip, Chunked\r\n", (Chunked, true));
    check(
        403,
        "Transfer-Encoding: chunked, gzip\r\n",
        (UntilClose, false),
    );
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    check(403, both, (Chunked, false));
    let two = "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n";
    check(403, two, (UntilClose, false));
}

/// The grammar of section 3, read off it as directly as possible.
fn is_target(text: &str) -> bool {
    let Some(colon) = text.rfind(':') else {
        return false;
    };
    let (host, port) = (&text[..colon], &text[colon + 1..]);
    let port_ok = !port.is_empty()
        && port.chars().all(|c| c.is_ascii_digit())
        && port
            .parse::<u64>()
            .is_ok_and(|port| (1..=65535).contains(&port));
    let bracketed = host.starts_with('[')
        && host.ends_with(']')
        && host[1..host.len() - 1]
            .parse::<core::net::Ipv6Addr>()
            .is_ok();
    let mut labels: Vec<&str> = host.split('.').collect();
    if labels.len() > 1 && labels.last() == Some(&"") {
        labels.pop();
    }
    let name = labels.iter().all(|label| {
        (1..=63).contains(&label.len())
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    });
    port_ok && (bracketed || (name && host.trim_end_matches('.').len() <= 255))
}

proptest! {
    // spec: SEC-F-02
    #[test]
    fn cuts_change_nothing(
        bytes in prop_oneof![
            "HTTP/1.1 200 OK\r\n([A-z :\t]{0,8}\r?\n){0,6}\r?\n[a-z]{0,4}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..60),
        ],
        cuts in prop::collection::vec(any::<usize>(), 0..6),
        lenient in any::<bool>(),
    ) {
        let leniency = if lenient { Leniency::LENIENT } else { Leniency::STRICT };
        let show = |result: Result<Option<(Head, Vec<u8>)>, HeadError>| {
            result.map(|read| read.map(|(head, rest)| (shown(&head), rest)))
        };
        let whole = show(read(&bytes, &[], leniency));
        prop_assert_eq!(show(read(&bytes, &cuts, leniency)), whole);
    }

    #[test]
    fn targets_follow_the_grammar(
        text in "(\\[?[0-9a-f:.]{0,12}\\]?|[A-Za-z0-9_.%@/ -]{0,12}|[a-z]{60,66})(:[0-9+x]{0,7})?",
    ) {
        let parsed = text.parse::<Target>();
        prop_assert_eq!(parsed.is_ok(), is_target(&text), "{}", text);
        if let Ok(target) = parsed {
            let written = target.to_string();
            prop_assert_eq!(written.parse::<Target>(), Ok(target));
        }
    }

    #[test]
    fn chunked_round_trip(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..6),
        step in 1_usize..20,
        behind in prop::collection::vec(any::<u8>(), 0..6),
    ) {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            bytes.extend_from_slice(alloc::format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes.extend_from_slice(&behind);
        let read = body(Framing::Chunked, &bytes, step);
        prop_assert_eq!(read, Ok((chunks.concat(), behind.len())));
    }

    // spec: SEC-G-01
    #[test]
    fn no_text_makes_a_parser_panic(text in "\\PC{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = text.parse::<Target>();
        let _ = RequestLine::parse(&text);
        let _ = StatusLine::parse(&text, Leniency::LENIENT);
        let _ = proxy_status(&text);
        let _ = parse_alpn(&text);
        let _ = RetryAfter::parse(&text);
        let _ = body(Framing::Chunked, &bytes, 7);
    }
}
