#![allow(clippy::arithmetic_side_effects, reason = "test code")]

mod build;
mod torture;
mod values;

use alloc::string::String;
use alloc::vec::Vec;

use super::*;

fn parse(text: &str) -> Message {
    Message::parse(text.as_bytes(), &ParseConfig::default()).unwrap()
}

fn parse_error(text: &[u8]) -> ParseErrorKind {
    Message::parse(text, &ParseConfig::default())
        .unwrap_err()
        .kind
}

const HEADERS: &str = "Via: SIP/2.0/TCP h.example.com;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
    To: <sip:b@c>\r\nCall-ID: x@y\r\nCSeq: 1 OPTIONS\r\n";

/// A request with the needed fields and these rows.
fn request(rows: &str) -> Message {
    parse(&alloc::format!(
        "OPTIONS sip:example.com SIP/2.0\r\n{HEADERS}{rows}\r\n"
    ))
}

fn check(message: Message) -> Result<Request, StatusCode> {
    Request::check(message, &Limits::DEFAULT).map_err(|refusal| refusal.status)
}

// spec: SIP-7.1-1
#[test]
fn version_is_accepted_in_any_case_and_others_get_505() {
    for (version, verdict) in [
        ("SIP/2.0", Ok(())),
        ("sip/2.0", Ok(())),
        ("SIP/7.0", Err(StatusCode::VERSION_NOT_SUPPORTED)),
        ("SIP/2.1", Err(StatusCode::VERSION_NOT_SUPPORTED)),
    ] {
        let message = parse(&alloc::format!("OPTIONS sip:a {version}\r\n{HEADERS}\r\n"));
        assert_eq!(check(message).map(|_| ()), verdict, "{version}");
    }
    let built = Builder::request(&Method::OPTIONS, "sip:a")
        .finish(b"")
        .unwrap();
    assert!(built.as_bytes().starts_with(b"OPTIONS sip:a SIP/2.0\r\n"));
}

// spec: SIP-7.1-2
#[test]
fn superfluous_blanks_in_the_start_line_are_refused() {
    for line in [
        "OPTIONS  sip:a SIP/2.0",
        "OPTIONS sip:a  SIP/2.0",
        "OPTIONS sip:a SIP/2.0 ",
        "OPTIONS sip:a; lr SIP/2.0",
    ] {
        let message = parse(&alloc::format!("{line}\r\n{HEADERS}\r\n"));
        assert_eq!(
            check(message).unwrap_err(),
            StatusCode::BAD_REQUEST,
            "{line}"
        );
    }
}

#[test]
fn other_first_lines_are_no_sip() {
    for line in [
        "GET / HTTP/1.1",
        "SIP/2.0 abc OK",
        "SIP/2.0",
        "OPTIONS",
        "OPTIONS sip:a",
        " OPTIONS sip:a SIP/2.0",
        "OPT(IONS sip:a SIP/2.0",
        "",
    ] {
        let kind = parse_error(alloc::format!("{line}\r\nA: b\r\n\r\n").as_bytes());
        let expected = matches!(
            kind,
            ParseErrorKind::StartLine | ParseErrorKind::Fold | ParseErrorKind::HeaderName
        );
        assert!(expected, "{line}: {kind:?}");
    }
}

// spec: SIP-7.3.1-1, SEC-P-03
#[test]
fn a_fold_is_one_space() {
    let message = request("Subject: a\r\n \t b  \r\n\tc\r\nX:\r\n y\r\n");
    assert_eq!(message.only(Name::SUBJECT), Ok("a b c"));
    assert_eq!(message.only("x"), Ok("y"));
    assert!(!message.as_bytes().windows(3).any(|w| w == b"\r\n "));
    let cseq = parse("OPTIONS sip:a SIP/2.0\r\nCSeq: 9\r\n OPTIONS\r\n\r\n");
    assert_eq!(cseq.cseq().unwrap().number, 9);
}

// spec: SEC-P-03
#[test]
fn bare_line_ends_and_controls_are_errors() {
    for (text, kind) in [
        (
            &b"OPTIONS sip:a SIP/2.0\nA: b\r\n\r\n"[..],
            ParseErrorKind::LineEnd,
        ),
        (
            b"OPTIONS sip:a SIP/2.0\r\nA: b\rc\r\n\r\n",
            ParseErrorKind::LineEnd,
        ),
        (
            b"OPTIONS sip:a SIP/2.0\r\nA: b\0\r\n\r\n",
            ParseErrorKind::Control,
        ),
        (
            b"OPTIONS sip:a SIP/2.0\r\nA: \x7f\r\n\r\n",
            ParseErrorKind::Control,
        ),
        (b"\x16\x03\x01\x02", ParseErrorKind::Control),
        (
            b"OPTIONS sip:a SIP/2.0\r\n A: b\r\n\r\n",
            ParseErrorKind::Fold,
        ),
        (
            b"OPTIONS sip:a SIP/2.0\r\nA: b\r\n",
            ParseErrorKind::Incomplete,
        ),
        (
            b"OPTIONS sip:a SIP/2.0\r\nA b\r\n\r\n",
            ParseErrorKind::HeaderName,
        ),
        (
            b"OPTIONS sip:a SIP/2.0\r\nA b: c\r\n\r\n",
            ParseErrorKind::HeaderName,
        ),
        (
            b"OPTIONS sip:a SIP/2.0\r\n: c\r\n\r\n",
            ParseErrorKind::HeaderName,
        ),
    ] {
        assert_eq!(parse_error(text), kind, "{}", text.escape_ascii());
    }
    let quoted = b"OPTIONS sip:a SIP/2.0\r\nA: \"\\\x07\\\0\"\r\n\r\n";
    assert_eq!(parse_error(quoted), ParseErrorKind::Control);
    let mut config = ParseConfig::default();
    config.leniency.quoted_controls = true;
    assert!(Message::parse(quoted, &config).is_ok());
    let bare = b"OPTIONS sip:a SIP/2.0\r\nA: \"\x07\"\r\n\r\n";
    assert!(Message::parse(bare, &config).is_err());
}

// spec: SEC-P-02
#[test]
fn blanks_before_the_colon_do_not_make_another_name() {
    let message = request("Route \t : <sip:a;lr>\r\nX-A\t: 1\r\n");
    assert_eq!(message.list(Name::ROUTE).count(), 1);
    assert!(message.has("Route") && message.has("x-a"));
    assert!(
        message
            .headers()
            .all(|header| header.name == header.name.trim())
    );
    let copy = message
        .edit()
        .remove(Name::ROUTE)
        .remove("X-A")
        .finish()
        .unwrap();
    assert!(!copy.has(Name::ROUTE) && !copy.has("X-A"));
}

// spec: SIP-7.3.3-1, SIP-7.3.1-2
#[test]
fn long_and_compact_names_and_all_layouts_give_the_same_list() {
    let expected = ["<sip:a;lr>", "<sip:b;lr>", "<sip:c;x=\"1,2\">"];
    for rows in [
        "Route: <sip:a;lr>, <sip:b;lr>, <sip:c;x=\"1,2\">\r\n",
        "Route: <sip:a;lr>\r\nrOUTE: <sip:b;lr>\r\nRoute: <sip:c;x=\"1,2\">\r\n",
        "Route: <sip:a;lr> ,<sip:b;lr>\r\nX: y\r\nRoute: <sip:c;x=\"1,2\">\r\n",
    ] {
        let message = request(rows);
        assert_eq!(message.list(Name::ROUTE).collect::<Vec<_>>(), expected);
    }
    let message = request("v: SIP/2.0/UDP a\r\nK: gruu\r\nSupported: path\r\n");
    assert_eq!(message.via_count(), 2);
    assert_eq!(
        message.list(Name::SUPPORTED).collect::<Vec<_>>(),
        ["gruu", "path"]
    );
    assert!(message.supports("PATH") && !message.supports("outbound"));
}

// spec: SIP-7.3.1-3
#[test]
fn authentication_rows_stay_apart_and_whole() {
    let message = request(
        "WWW-Authenticate: Digest realm=\"a\", nonce=\"1\"\r\nWWW-Authenticate: Digest realm=\"b\"\r\n",
    );
    let rows: Vec<_> = message.rows(Name::WWW_AUTHENTICATE).collect();
    assert_eq!(
        rows,
        ["Digest realm=\"a\", nonce=\"1\"", "Digest realm=\"b\""]
    );
    let copy = message.edit().push_back("X", "y").finish().unwrap();
    let copied: Vec<_> = copy.rows(Name::WWW_AUTHENTICATE).collect();
    assert_eq!(rows, copied);
}

// spec: SIP-7.3.1-4, SEC-P-05, SIP-8.1.1-2
#[test]
fn each_needed_field_missing_doubled_or_malformed_is_400() {
    assert!(check(request("")).is_ok());
    for (name, bad) in [
        ("Via", "SIP/2.0/TCP"),
        ("Via", "SIP/2.0/TCP h;branch=1;branch=2"),
        ("From", "<sip:a@b>;tag=a;tag=b"),
        ("From", "\"a <sip:a@b>"),
        ("To", "<sip:a@b"),
        ("Call-ID", "a b"),
        ("CSeq", "2147483648 OPTIONS"),
        ("CSeq", "-1 OPTIONS"),
        ("CSeq", "1"),
        ("CSeq", "1 INVITE"),
        ("Max-Forwards", "256"),
        ("Max-Forwards", "x"),
    ] {
        let rows: String = HEADERS
            .split_inclusive("\r\n")
            .filter(|row| !row.starts_with(name))
            .collect();
        let with = |value: &str| {
            let text = alloc::format!("OPTIONS sip:a SIP/2.0\r\n{rows}{value}\r\n");
            check(parse(&text)).map(|_| ()).err()
        };
        let refused = Some(StatusCode::BAD_REQUEST);
        assert_eq!(with(&alloc::format!("{name}: {bad}\r\n")), refused, "{bad}");
        if name != "Max-Forwards" {
            assert_eq!(with(""), refused, "{name} missing");
        }
        if name != "Via" {
            let good = if name == "Max-Forwards" {
                "1"
            } else {
                "1 OPTIONS"
            };
            let doubled = alloc::format!("{name}: {good}\r\n{name}: {good}\r\n");
            assert_eq!(with(&doubled), refused, "{name} doubled");
        }
    }
}

#[test]
fn the_checked_fields_are_at_hand() {
    let request = check(request("")).unwrap();
    assert_eq!(request.method(), &Method::OPTIONS);
    assert_eq!(request.cseq_number(), 1);
    assert_eq!(request.branch(), Some("z9hG4bK1"));
    assert_eq!(request.cookie_branch(), Some("z9hG4bK1"));
    assert_eq!(request.sent_by(), "h.example.com");
    assert_eq!(request.via_transport(), "TCP");
    assert_eq!(request.call_id(), "x@y");
    assert_eq!((request.from_tag(), request.to_tag()), (Some("1"), None));
    assert_eq!(request.uri_text(), "sip:example.com");
}

// spec: SEC-P-04, PRJ-2-1
#[test]
fn every_limit_holds_at_its_border() {
    let limits = Limits::DEFAULT;
    let start = |len: usize| {
        let uri = "a".repeat(len - "OPTIONS sip: SIP/2.0".len());
        Message::parse(
            alloc::format!("OPTIONS sip:{uri} SIP/2.0\r\n\r\n").as_bytes(),
            &ParseConfig::default(),
        )
    };
    assert!(start(limits.start_line).is_ok());
    assert_eq!(
        start(limits.start_line + 1).unwrap_err().kind,
        ParseErrorKind::StartLineTooLong
    );

    let line = |len: usize| {
        let text = alloc::format!(
            "OPTIONS sip:a SIP/2.0\r\nX: {}\r\n\r\n",
            "a".repeat(len - 3)
        );
        Message::parse(text.as_bytes(), &ParseConfig::default())
    };
    assert!(line(limits.line).is_ok());
    assert_eq!(
        line(limits.line + 1).unwrap_err().kind,
        ParseErrorKind::LineTooLong
    );

    let rows = |count: usize| {
        let text = alloc::format!("OPTIONS sip:a SIP/2.0\r\n{}\r\n", "X: y\r\n".repeat(count));
        Message::parse(text.as_bytes(), &ParseConfig::default())
    };
    assert!(rows(limits.headers).is_ok());
    assert_eq!(
        rows(limits.headers + 1).unwrap_err().kind,
        ParseErrorKind::TooManyHeaders
    );

    let head = |len: usize| {
        let mut text = String::from("OPTIONS sip:a SIP/2.0\r\n");
        while text.len() + 8000 < len - 2 {
            text.push_str(&alloc::format!("X: {}\r\n", "a".repeat(7000)));
        }
        let rest = len - 2 - text.len();
        text.push_str(&alloc::format!("X: {}\r\n\r\n", "a".repeat(rest - 5)));
        assert_eq!(text.len(), len);
        Message::parse(text.as_bytes(), &ParseConfig::default())
    };
    assert!(head(limits.head).is_ok());
    assert_eq!(
        head(limits.head + 1).unwrap_err().kind,
        ParseErrorKind::HeadTooLong
    );

    let body = |len: usize| {
        let mut text = alloc::format!("OPTIONS sip:a SIP/2.0\r\n{HEADERS}\r\n").into_bytes();
        text.resize(text.len() + len, b'x');
        check(Message::parse(&text, &ParseConfig::default()).unwrap()).map(|_| ())
    };
    assert_eq!(body(limits.body), Ok(()));
    assert_eq!(
        body(limits.body + 1),
        Err(StatusCode::REQUEST_ENTITY_TOO_LARGE)
    );

    let uri = |len: usize| {
        let text = alloc::format!("sip:{}@b", "a".repeat(len - 6));
        Uri::parse(&text, &limits).map(|_| ())
    };
    assert_eq!(uri(limits.uri), Ok(()));
    assert_eq!(uri(limits.uri + 1), Err(ValueError::Limit));
    let params = |count: usize| {
        let text: String = (0..count).map(|n| alloc::format!(";p{n}=v")).collect();
        assert_eq!(
            Uri::parse(&alloc::format!("sip:a@b{text}"), &limits).map(|_| ()),
            Params::parse(&text, limits.params).map(|_| ())
        );
        Params::parse(&text, limits.params).map(|_| ())
    };
    assert_eq!(params(limits.params), Ok(()));
    assert_eq!(params(limits.params + 1), Err(ValueError::Limit));

    let vias = |count: usize| {
        let value = "SIP/2.0/TCP a,".repeat(count - 1);
        check(request(&alloc::format!(
            "Via: {}\r\n",
            value.trim_end_matches(',')
        )))
        .map(|_| ())
    };
    assert_eq!(vias(limits.vias), Ok(()));
    assert_eq!(vias(limits.vias + 1), Err(StatusCode::BAD_REQUEST));
    for name in [
        Name::ROUTE,
        Name::PATH,
        Name::SERVICE_ROUTE,
        Name::RECORD_ROUTE,
    ] {
        let message = request(&alloc::format!(
            "{name}: <sip:a;lr>{}\r\n",
            ",<sip:b;lr>".repeat(16)
        ));
        let results: Vec<_> = message.routes(name, &limits).collect();
        assert!(results[..16].iter().all(Result::is_ok));
        assert_eq!(results[16], Err(ValueError::Limit));
    }
}

// spec: SEC-P-01
#[test]
fn content_length_is_one_field_of_plain_digits() {
    for (rows, expected) in [
        ("", Ok(None)),
        ("Content-Length: 0\r\n", Ok(Some(0))),
        ("l:0000000005\r\n", Ok(Some(5))),
        ("Content-Length: +5\r\n", Err(ValueError::Malformed)),
        ("Content-Length: -5\r\n", Err(ValueError::Malformed)),
        ("Content-Length: 5,5\r\n", Err(ValueError::Malformed)),
        ("Content-Length: 5 5\r\n", Err(ValueError::Malformed)),
        ("Content-Length:\r\n", Err(ValueError::Malformed)),
        ("Content-Length: 5\r\nl: 5\r\n", Err(ValueError::Repeated)),
        ("Content-Length: 4294967301\r\n", Err(ValueError::Malformed)),
        (
            "Content-Length: 18446744073709551616\r\n",
            Err(ValueError::Malformed),
        ),
        (
            "Content-Length: 00000000005\r\n",
            Err(ValueError::Malformed),
        ),
    ] {
        assert_eq!(request(rows).content_length(), expected, "{rows}");
    }
}

// spec: SIP-18.3-2
#[test]
fn a_datagram_ends_with_its_content_length() {
    let with = |rows: &str, body: &str| {
        let text = alloc::format!("OPTIONS sip:a SIP/2.0\r\n{HEADERS}{rows}\r\n{body}");
        Message::parse(text.as_bytes(), &ParseConfig::default()).unwrap()
    };
    assert_eq!(with("l: 2\r\n", "abcd").body(), b"ab");
    assert_eq!(with("", "abcd").body(), b"abcd");
    let short = with("l: 5\r\n", "abcd");
    assert_eq!(short.defect(), Some(Defect::BodyTooShort));
    assert_eq!(check(short).unwrap_err(), StatusCode::BAD_REQUEST);
    let response = parse(&alloc::format!(
        "SIP/2.0 200 OK\r\n{HEADERS}l: 5\r\n\r\nabcd"
    ));
    assert!(Response::check(response, &Limits::DEFAULT).is_err());
}

// spec: SIP-7.4.2-1, SEC-P-18
#[test]
fn transfer_codings_and_bodies_are_not_looked_at() {
    let body = "5\r\nabcde\r\n0\r\n\r\n";
    let text = alloc::format!(
        "OPTIONS sip:a SIP/2.0\r\n{HEADERS}TE: chunked\r\nTransfer-Encoding: chunked\r\nl: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(parse(&text).body(), body.as_bytes());
}

// spec: PRJ-2-2
#[test]
fn what_cannot_be_copied_into_a_response_is_not_answerable() {
    let answerable = |text: &str| is_answerable(&parse(text), &Limits::DEFAULT);
    assert!(answerable(&alloc::format!(
        "OPTIONS <sip:a> SIP/2.0\r\n{HEADERS}\r\n"
    )));
    assert!(!answerable(&alloc::format!(
        "ACK <sip:a> SIP/2.0\r\n{HEADERS}\r\n"
    )));
    assert!(!answerable(&alloc::format!(
        "SIP/2.0 200 OK\r\n{HEADERS}\r\n"
    )));
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        let rows: String = HEADERS
            .split_inclusive("\r\n")
            .filter(|row| !row.starts_with(name))
            .collect();
        assert!(
            !answerable(&alloc::format!("OPTIONS sip:a SIP/2.0\r\n{rows}\r\n")),
            "{name}"
        );
    }
}

#[test]
fn debug_shows_neither_headers_nor_more_than_the_first_line() {
    let message = request("Authorization: Digest username=\"canary\"\r\n");
    let shown = alloc::format!("{message:?}");
    assert!(
        !shown.contains("canary") && shown.contains("OPTIONS"),
        "{shown}"
    );
    let long = parse(&alloc::format!(
        "OPTIONS sip:{} SIP/2.0\r\n\r\n",
        "a".repeat(500)
    ));
    assert!(alloc::format!("{long:?}").len() < 200);
}
