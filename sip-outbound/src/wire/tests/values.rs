use alloc::string::ToString as _;

use proptest::prelude::*;

use super::*;

const L: Limits = Limits::DEFAULT;

fn uri(text: &str) -> SipUri<'_> {
    SipUri::parse(text, &L).unwrap()
}

#[test]
fn uri_parts() {
    let full = uri("sips:al%40ice;x:pw@[2001:db8::1]:5061;transport=tcp;lr?a=b&c=d");
    assert!(full.is_secure() && full.is_loose());
    assert_eq!(full.user(), Some("al%40ice;x"));
    assert_eq!(full.host_ip(), Some("2001:db8::1".parse().unwrap()));
    assert_eq!(full.port(), Some(5061));
    assert_eq!(full.param("TRANSPORT"), Some("tcp"));
    assert_eq!(full.transport(), Some(stun_proto::Transport::Tls));
    assert_eq!(full.headers(), Some("a=b&c=d"));
    let short = uri("sip:example.com");
    assert_eq!(
        (short.user(), short.password(), short.port()),
        (None, None, None)
    );
    assert_eq!(short.port_or_default(), 5060);
    assert_eq!(uri("sips:a").port_or_default(), 5061);
    assert_eq!(uri("SIP:a:b@c").password(), Some("b"));
    assert_eq!(uri("sip:a:@c").password(), Some(""));
}

#[test]
fn malformed_uris() {
    for text in [
        "sip:",
        "sip:@b",
        "sip:a@",
        "sip:a@b@c",
        "sip:a b@c",
        "sip:a@b:",
        "sip:a@b:0",
        "sip:a@b:65536",
        "sip:a@b:5 ",
        "sip:a@b;",
        "sip:a@b;;x",
        "sip:a@b;x=",
        "sip:a@b;x;X",
        "sip:a@b?",
        "sip:a@b?x y",
        "sip:%4@b",
        "sip:%zz@b",
        "sip:a@b%41",
        "sip:2001:db8::10",
        "sip:[2001:db8::10",
        "sip:[2001:db8::10]x",
        "sip:[::g]",
        "sip:256.1.1.1",
        "sip:1.2.3",
        "sip:a..b",
        "sip:-a",
        "tel",
        "",
        ":x",
        "1a:x",
    ] {
        assert!(Uri::parse(text, &L).is_err(), "{text}");
    }
    assert!(matches!(Uri::parse("tel:+1-201", &L), Ok(Uri::Other(_))));
}

#[test]
fn uri_equality_table() {
    for (a, b, same) in [
        (
            "sip:%61l@EX.com;Transport=TCP",
            "sip:al@ex.COM;transport=tcp",
            true,
        ),
        ("sip:a@ex.com", "sip:a@ex.com:5060", false),
        ("sip:a@ex.com", "sip:a@ex.com;x=1", true),
        ("sip:a@ex.com;x=2", "sip:a@ex.com;x=1", false),
        ("sip:A@ex.com", "sip:a@ex.com", false),
        ("sip:a@ex.com", "sips:a@ex.com", false),
        ("sip:a@ex.com", "sip:ex.com", false),
        ("sip:a:p@ex.com", "sip:a@ex.com", false),
        ("sip:a@ex.com;transport=udp", "sip:a@ex.com", false),
        ("sip:a@ex.com;user=phone", "sip:a@ex.com", false),
        ("sip:a@ex.com;method=INVITE", "sip:a@ex.com", false),
        ("sip:a@ex.com;ttl=1", "sip:a@ex.com", false),
        ("sip:a@ex.com;maddr=1.2.3.4", "sip:a@ex.com", false),
        ("sip:a@ex.com;lr", "sip:a@ex.com;lr=on", false),
        ("sip:a%3Bb@ex.com", "sip:a;b@ex.com", false),
        ("sip:a@ex.com?x=1&y=2", "sip:a@ex.com?y=2&X=1", true),
        ("sip:a@ex.com?x=1", "sip:a@ex.com", false),
        ("sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0::1]", true),
        ("sip:a@ex.com.", "sip:a@ex.com", true),
    ] {
        assert_eq!(uri(a).is_equivalent(&uri(b)), same, "{a} {b}");
        assert_eq!(uri(b).is_equivalent(&uri(a)), same, "{b} {a}");
    }
}

// spec: SIP-19.1.2-1
#[test]
fn escapes_are_undone_once_and_never_in_hosts() {
    assert_eq!(unescape("sips%3Auser%2540"), "sips:user%40");
    assert_eq!(unescape("a%00b"), "a\0b");
    assert_eq!(unescape("%FF"), "%FF");
    assert!(SipUri::parse("sip:a@%65x.com", &L).is_err());
    assert!(!uri("sip:null-%00-null@h").is_equivalent(&uri("sip:null-@h")));
    assert_eq!(escape_user("a b@c;%"), "a%20b%40c%3B%25");
}

// spec: SIP-10.3-2
#[test]
fn address_of_record_of_a_uri() {
    for (text, aor) in [
        ("sip:%61lice@EX.com;x=1", "sip:alice@ex.com"),
        ("sip:Alice@ex.com:5070?a=b", "sip:Alice@ex.com:5070"),
        ("sips:ex.com", "sips:ex.com"),
        ("sip:a%40b@ex.com", "sip:a@b@ex.com"),
    ] {
        assert_eq!(uri(text).aor().as_str(), aor);
    }
}

// spec: SIP-20.10-1
#[test]
fn parameters_belong_to_the_field_unless_bracketed() {
    let bare = NameAddr::parse("sip:a@b;x=1;y", &L).unwrap();
    assert_eq!(bare.uri.as_str(), "sip:a@b");
    assert_eq!(bare.params.value("x"), Some("1"));
    let bracketed = NameAddr::parse("<sip:a@b;x=1>;y", &L).unwrap();
    assert_eq!(bracketed.uri.sip().unwrap().param("x"), Some("1"));
    assert!(!bracketed.params.has("x") && bracketed.params.has("y"));
    for text in [
        "sip:a@b?x=y",
        "sip:a,b@c",
        "<sip:a@b",
        "< sip:a@b>",
        "a, b <sip:a@b>",
        "\"a <sip:a@b>",
    ] {
        assert!(NameAddr::parse(text, &L).is_err(), "{text}");
    }
    assert!(NameAddr::parse_route("sip:a@b;lr", &L).is_err());
    assert!(NameAddr::parse_route("<tel:1>", &L).is_err());
    assert!(NameAddr::parse_route("x <sip:a@b;lr>;z=1", &L).is_ok());
}

// spec: OUT-10-1
#[test]
fn contact_parameters_of_outbound() {
    let text = "<sip:a@b>;reg-id=1;+sip.instance=\"<urn:uuid:0a1b>\";expires=60";
    let contact = NameAddr::parse(text, &L).unwrap();
    assert_eq!(contact.reg_id(), Some(1));
    assert_eq!(contact.instance().as_deref(), Some("urn:uuid:0a1b"));
    assert_eq!(contact.expires(), Some(60));
    for (value, id) in [
        ("0", None),
        ("2147483648", None),
        ("2147483647", Some(i32::MAX as u32)),
    ] {
        let text = alloc::format!("<sip:a@b>;reg-id={value};expires=x;+sip.instance=\"urn\"");
        let contact = NameAddr::parse(&text, &L).unwrap();
        assert_eq!((contact.reg_id(), contact.instance()), (id, None));
        assert_eq!(contact.expires(), Some(3600));
    }
}

// spec: SIP-18.2.1-2
#[test]
fn via_values() {
    let via = Via::parse(
        "SIP / 2.0 / UDP  [2001:db8::9:1]:5070 ;received=[2001:db8::9:255] ; rport",
        &L,
    )
    .unwrap();
    assert_eq!(
        (via.transport, via.host(), via.port),
        ("UDP", "[2001:db8::9:1]", Some(5070))
    );
    assert_eq!(via.received(), Some("2001:db8::9:255".parse().unwrap()));
    assert!(via.asks_rport());
    let bare = Via::parse("SIP/2.0/UDP a;received=2001:db8::1;rport=7;keep=30", &L).unwrap();
    assert_eq!(bare.received(), Some("2001:db8::1".parse().unwrap()));
    assert_eq!(
        (bare.rport(), bare.asks_rport(), bare.keep()),
        (Some(7), false, Keep::Granted(30))
    );
    for text in [
        "SIP/2.0/UDP",
        "SIP/2.0 a",
        "SIP/2.0/UDP a;;,",
        "SIP/2.0/UDP a b",
        "HTTP/2.0/TCP a",
        "",
    ] {
        assert!(Via::parse(text, &L).is_err(), "{text}");
    }
}

#[test]
fn via_parameters_are_filled_in_where_they_stand() {
    let via = Via::parse("SIP/2.0/TLS h:1 ;rport;x=\"a;b\";branch=z9hG4bK7", &L).unwrap();
    let set = [
        ("rport", Some("5")),
        ("received", Some("1.2.3.4")),
        ("x", None),
    ];
    assert_eq!(
        via.with_params(&set),
        "SIP/2.0/TLS h:1;rport=5;x;branch=z9hG4bK7;received=1.2.3.4"
    );
}

#[test]
fn quoted_strings() {
    assert_eq!(unquote(r#""a\"b\\c""#), r#"a"b\c"#);
    assert_eq!(quote("a\"b\\c\r\n\0"), r#""a\"b\\c""#);
    assert_eq!(unquote("plain"), "plain");
    let list: Vec<_> = split_list(r#""a,\"b" <sip:x,y>, c ,,d"#).collect();
    assert_eq!(list, [r#""a,\"b" <sip:x,y>"#, "c", "", "d"]);
}

#[test]
fn numbers_of_fields() {
    let message = request("Expires: 99999999999\r\nFlow-Timer: 120\r\nMin-Expires: x\r\n");
    assert_eq!(message.expires(), Some(3600));
    assert_eq!(message.seconds(Name::FLOW_TIMER), Ok(120));
    assert_eq!(
        message.seconds(Name::MIN_EXPIRES),
        Err(ValueError::Malformed)
    );
    assert_eq!(message.seconds(Name::RETRY_AFTER), Err(ValueError::Missing));
    assert_eq!(request("").expires(), None);
    for (text, seconds) in [
        ("7", Some(7)),
        ("120 (busy);duration=3600", Some(120)),
        ("18000;duration=3", Some(18000)),
        ("x", None),
    ] {
        assert_eq!(parse_retry_after(text), seconds);
    }
    assert_eq!(StatusCode::new(99), None);
    assert_eq!(StatusCode::new(430).unwrap().reason(), "Flow Failed");
    assert_eq!(StatusCode::new(499).unwrap().to_string(), "499");
    assert_eq!(Method::new("a b"), None);
    assert_eq!(Method::new("INVITE"), Some(Method::INVITE));
}

proptest! {
    // spec: SEC-P-06
    #[test]
    fn quoting_round_trips(text in "\\PC{0,40}") {
        let quoted = quote(&text);
        prop_assert_eq!(unquote(&quoted), text.as_str());
    }

    #[test]
    fn escaping_round_trips(text in "\\PC{1,40}") {
        let escaped = escape_user(&text);
        let uri = alloc::format!("sip:{escaped}@h");
        let uri = SipUri::parse(&uri, &L).unwrap();
        prop_assert_eq!(unescape(uri.user().unwrap()), text.as_str());
    }

    // spec: SEC-G-01
    #[test]
    fn parsers_never_panic(text in "[ -~\u{e9}]{0,60}") {
        for prefix in ["", "sip:", "<sip:", "SIP/2.0/TCP ", ";", "sip:a@b;", "\"", "sip:["] {
            let text = alloc::format!("{prefix}{text}");
            let _ = Uri::parse(&text, &L).map(|uri| uri.sip().map(|uri| (uri.aor(), uri.is_equivalent(&uri))));
            let _ = NameAddr::parse(&text, &L).map(|a| (a.display_name(), a.instance()));
            let _ = Via::parse(&text, &L).map(|via| via.with_params(&[("rport", Some("1"))]));
            let _ = Params::parse(&text, 32).map(|params| params.iter().count());
            let _ = CSeq::parse(&text);
            split_list(&text).count();
        }
    }

    #[test]
    fn a_uri_is_equivalent_to_itself(user in "[a-z%]{0,8}", host in "[a-z.]{1,8}", params in "(;[a-c]=[a-z]){0,4}") {
        let text = alloc::format!("sip:{user}@{host}{params}");
        if let Ok(uri) = SipUri::parse(&text, &L) {
            prop_assert!(uri.is_equivalent(&uri));
        }
    }
}
