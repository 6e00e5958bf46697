#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::format;
use alloc::string::ToString as _;

use proptest::prelude::*;

use super::*;

fn uri(text: &str) -> Uri {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn check(text: &str, secure: bool, port: Option<u16>, transport: Option<&str>) {
    let uri = uri(text);
    assert_eq!(uri.scheme().is_secure(), secure, "{text}");
    assert_eq!(uri.explicit_port(), port, "{text}");
    assert_eq!(
        uri.transport().map(UriTransport::as_str),
        transport,
        "{text}"
    );
}

// spec: 7064-3.1-1, 7064-3.2-1, 7350-3-2, STUN-8.1-1
#[test]
fn stun_uris() {
    check("stun:example.org", false, None, None);
    check("STUN:example.org", false, None, None);
    check("stun:example.org:8000", false, Some(8000), None);
    check("stun:example.org:", false, None, None);
    check("stun:192.0.2.1", false, None, None);
    check("stun:[2001:db8::1]", false, None, None);
    check("stun:[2001:db8::1]:3479", false, Some(3479), None);
    check("stuns:example.org", true, None, None);
    assert_eq!(uri("stun:example.org").port(), 3478);
    assert_eq!(uri("stuns:example.org").port(), 5349);
    let host = |text| uri(text).host().clone();
    assert_eq!(
        host("stun:192.0.2.1"),
        Host::Ip("192.0.2.1".parse().unwrap())
    );
    assert_eq!(
        host("stun:[2001:db8::1]:1"),
        Host::Ip("2001:db8::1".parse().unwrap())
    );
    assert_eq!(host("stun:EXample.org"), Host::Name("EXample.org".into()));
}

// spec: 7065-3.1-1, 7065-3.2-1
#[test]
fn turn_uris() {
    check("turn:example.org", false, None, None);
    check("turns:example.org", true, None, None);
    check("turn:example.org:8000", false, Some(8000), None);
    check("turn:example.org?transport=udp", false, None, Some("udp"));
    check("turn:example.org?transport=tcp", false, None, Some("tcp"));
    check("turns:example.org?transport=tcp", true, None, Some("tcp"));
    check("turns:example.net?transport=UDP", true, None, Some("udp"));
    check(
        "turn:[2001:db8::1]:443?transport=tcp",
        false,
        Some(443),
        Some("tcp"),
    );
    check("turn:h?transport=sctp", false, None, Some("sctp"));
    assert_eq!(uri("turn:h").port(), 3478);
    assert_eq!(uri("turns:h").port(), 5349);
}

// spec: 7064-3.1-1, 7065-3.1-1
#[test]
fn texts_that_are_no_such_uris() {
    let long = format!("stun:{}", "a".repeat(256));
    let cases = [
        ("", UriError::Scheme),
        ("stun", UriError::Scheme),
        ("http:example.org", UriError::Scheme),
        (" stun:h", UriError::Scheme),
        ("stun:", UriError::Host),
        ("stun:?transport=udp", UriError::Query),
        ("stun://example.org", UriError::Host),
        ("stun:user@example.org", UriError::Host),
        ("stun:example.org/path", UriError::Host),
        ("stun:exa mple.org", UriError::Host),
        ("stun:ex\u{e4}mple.org", UriError::Host),
        ("stun:a%2", UriError::Host),
        ("stun:a%zz", UriError::Host),
        ("stun:example.org\r\n", UriError::Host),
        ("stun:[::1", UriError::Host),
        ("stun:[::1]x", UriError::Host),
        ("stun:[::1]]", UriError::Host),
        ("stun:[192.0.2.1]", UriError::Host),
        ("stun:[v1.x]", UriError::Host),
        ("stun:[fe80::1%25eth0]", UriError::Host),
        (&long, UriError::Host),
        ("stun:example.org:99999", UriError::Port),
        ("stun:example.org:x", UriError::Port),
        ("stun:example.org:+1", UriError::Port),
        ("stun:2001:db8::1", UriError::Port),
        ("stun:example.org?transport=udp", UriError::Query),
        ("turn://h", UriError::Host),
        ("turn:", UriError::Host),
        ("turn:h?transport=", UriError::Query),
        ("turn:h?x=1", UriError::Query),
        ("turn:h?", UriError::Query),
        ("turn:h:70000", UriError::Port),
        ("turn:h?transport=tcp&x=1", UriError::Query),
        ("turn:h?transport=tcp?x", UriError::Query),
    ];
    for (text, error) in cases {
        assert_eq!(text.parse::<Uri>(), Err(error), "{text}");
    }
}

// spec: 7350-4.1.1-1, STUN-8.1-1
#[test]
fn an_address_is_no_name_for_a_certificate() {
    for text in ["stuns:192.0.2.1", "turns:[2001:db8::1]:443?transport=tcp"] {
        assert_eq!(text.parse::<Uri>(), Err(UriError::DomainNeeded));
        let uri = Uri::with_domain(text, "example.org").unwrap();
        assert_eq!(uri.tls_name(), Some("example.org"));
    }
    assert_eq!(
        Uri::with_domain("stuns:192.0.2.1", "exa mple"),
        Err(UriError::Host)
    );
    assert_eq!(uri("stuns:example.org").tls_name(), Some("example.org"));
    assert_eq!(uri("stun:example.org").tls_name(), None);
}

proptest! {
    #[test]
    fn what_is_displayed_reads_back(
        scheme in prop::sample::select(&["stun", "stuns", "turn", "turns"][..]),
        host in "[a-z][a-z0-9.-]{0,20}|\\[2001:db8::[0-9a-f]{1,4}\\]|[1-9]{1,2}\\.0\\.2\\.1",
        port in prop::option::of(any::<u16>()),
        transport in prop::option::of("udp|tcp|[a-z]{3,5}"),
    ) {
        let mut text = format!("{scheme}:{host}");
        if let Some(port) = port {
            text += &format!(":{port}");
        }
        if let Some(transport) = transport.filter(|_| scheme.starts_with("turn")) {
            text += &format!("?transport={transport}");
        }
        let uri = Uri::with_domain(&text, "example.org").unwrap();
        let again = Uri::with_domain(&uri.to_string(), "example.org").unwrap();
        prop_assert_eq!(uri, again);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(stun|turns):[\\[\\]:?%a-f0-9.= \u{e4}]{0,20}|.{0,20}") {
        if let Ok(uri) = text.parse::<Uri>() {
            prop_assert_eq!(uri.to_string().parse::<Uri>(), Ok(uri));
        }
    }
}
