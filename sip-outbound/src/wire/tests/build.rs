use proptest::prelude::*;

use super::*;

// spec: SEC-P-06
#[test]
fn builders_refuse_what_could_end_a_line() {
    for evil in ["a\r\nVia: x", "a\nb", "a\rb", "a\0", "\x7f"] {
        let header = Builder::request(&Method::OPTIONS, "sip:a").header("X", evil);
        assert_eq!(
            header.finish(b"").unwrap_err(),
            BuildError::Control,
            "{evil:?}"
        );
        let name = Builder::request(&Method::OPTIONS, "sip:a").header(evil, "x");
        assert_eq!(name.finish(b"").unwrap_err(), BuildError::Token);
        assert!(
            Builder::request(&Method::OPTIONS, evil)
                .finish(b"")
                .is_err()
        );
        assert!(Builder::response(StatusCode::OK, evil).finish(b"").is_err());
        let checked = check(request("")).unwrap();
        assert!(
            Builder::reply(&checked, StatusCode::OK, Some(evil))
                .finish(b"")
                .is_err()
        );
        let message = request("Route: <sip:a;lr>\r\n");
        assert!(message.edit().push_front(Name::VIA, evil).finish().is_err());
        assert!(message.edit().push_back(evil, "x").finish().is_err());
        assert!(message.edit().set("X", evil).finish().is_err());
        assert!(
            message
                .edit()
                .replace_first(Name::ROUTE, evil)
                .finish()
                .is_err()
        );
        assert!(message.edit().set_uri(evil).finish().is_err());
        assert!(
            message
                .edit()
                .map_rows(Name::ROUTE, |_| Some(evil.into()))
                .finish()
                .is_err()
        );
    }
    assert!(
        Builder::request(&Method::OPTIONS, "sip:a")
            .header("a:b", "x")
            .finish(b"")
            .is_err()
    );
}

// spec: SIP-8.2.6-1
#[test]
fn a_reply_copies_what_it_must_byte_for_byte() {
    let text = "INVITE sip:a@b SIP/2.0\r\nv: SIP/2.0/TCP  one;branch=z9hG4bK1 , SIP/2.0/UDP two\r\nX: y\r\n\
        Via: SIP/2.0/TLS three\r\nt: \"T\\\"\" <sip:b@c>\r\nf: <sip:a@b>;tag=1\r\ni: x\r\ncseq: 007  INVITE\r\n\r\n";
    let invite = check(parse(text)).unwrap();
    let reply = Builder::reply(&invite, StatusCode::RINGING, Some("t2"))
        .finish(b"")
        .unwrap();
    assert_eq!(
        core::str::from_utf8(reply.as_bytes()).unwrap(),
        "SIP/2.0 180 Ringing\r\nVia: SIP/2.0/TCP  one;branch=z9hG4bK1 , SIP/2.0/UDP two\r\n\
         Via: SIP/2.0/TLS three\r\nFrom: <sip:a@b>;tag=1\r\nTo: \"T\\\"\" <sip:b@c>;tag=t2\r\nCall-ID: x\r\n\
         CSeq: 007  INVITE\r\nContent-Length: 0\r\n\r\n"
    );
    let trying = Builder::reply(&invite, StatusCode::TRYING, None)
        .finish(b"")
        .unwrap();
    assert_eq!(trying.to(&Limits::DEFAULT).unwrap().tag(), None);
    let tagged = text.replace("<sip:b@c>", "<sip:b@c>;tag=old");
    let again = Builder::reply(&check(parse(&tagged)).unwrap(), StatusCode::OK, Some("new"));
    assert_eq!(
        again
            .finish(b"")
            .unwrap()
            .to(&Limits::DEFAULT)
            .unwrap()
            .tag(),
        Some("old")
    );
}

#[test]
fn editing_leaves_everything_else_as_it_was() {
    let text = "INVITE sip:a@b SIP/2.0\r\nMax-forwards : 070\r\nX:  \"odd\" ;;,\r\nRoute : <sip:p;lr> , <sip:q;lr>\r\n\
        v: SIP/2.0/TCP x;branch=1, SIP/2.0/TCP y\r\nROUTE: <sip:r;lr>\r\nl: 4\r\n\r\nbody";
    let message = parse(text);
    let edited = |editor: Editor<'_>| {
        String::from_utf8(editor.finish().unwrap().as_bytes().to_vec()).unwrap()
    };
    assert_eq!(edited(message.edit()), text);
    assert_eq!(
        edited(message.edit().push_front(Name::VIA, "SIP/2.0/TLS p")),
        text.replace("v: SIP", "Via: SIP/2.0/TLS p\r\nv: SIP")
    );
    assert_eq!(
        edited(message.edit().push_front(Name::RECORD_ROUTE, "<sip:x;lr>")),
        text.replace("Max-forwards", "Record-Route: <sip:x;lr>\r\nMax-forwards")
    );
    assert_eq!(
        edited(message.edit().pop_first(Name::ROUTE)),
        text.replace("Route : <sip:p;lr> , <sip:q;lr>", "Route: <sip:q;lr>")
    );
    assert_eq!(
        edited(message.edit().pop_first(Name::ROUTE).pop_first(Name::ROUTE)),
        text.replace("Route : <sip:p;lr> , <sip:q;lr>\r\n", "")
    );
    assert_eq!(
        edited(message.edit().pop_last(Name::ROUTE).pop_last(Name::ROUTE)),
        text.replace("ROUTE: <sip:r;lr>\r\n", "")
            .replace("Route : <sip:p;lr> , <sip:q;lr>", "Route: <sip:p;lr>")
    );
    assert_eq!(
        edited(message.edit().set(Name::MAX_FORWARDS, "69")),
        text.replace("Max-forwards : 070", "Max-Forwards: 69")
    );
    assert_eq!(
        edited(
            message
                .edit()
                .replace_first(Name::VIA, "SIP/2.0/TCP x;rport=1")
        ),
        text.replace("v: SIP/2.0/TCP x;branch=1,", "Via: SIP/2.0/TCP x;rport=1,")
    );
    assert_eq!(
        edited(
            message
                .edit()
                .set_uri("sip:new@host")
                .remove(Name::ROUTE)
                .push_back("New", "1")
        ),
        text.replace("sip:a@b", "sip:new@host")
            .replace("Route : <sip:p;lr> , <sip:q;lr>\r\n", "")
            .replace("ROUTE: <sip:r;lr>\r\n", "")
            .replace("l: 4\r\n", "l: 4\r\nNew: 1\r\n")
    );
    let dropped = message
        .edit()
        .map_rows(Name::ROUTE, |row| row.contains("sip:p").then(|| row.into()));
    assert_eq!(dropped.finish().unwrap().list(Name::ROUTE).count(), 2);
    assert_eq!(
        message.edit().pop_first(Name::PATH).finish().unwrap_err(),
        BuildError::NoSuchValue
    );
    let response = parse("SIP/2.0 503 Busy\r\nX: y\r\n\r\n");
    let changed = response
        .edit()
        .set_status(StatusCode::SERVER_ERROR)
        .finish()
        .unwrap();
    assert!(
        changed
            .as_bytes()
            .starts_with(b"SIP/2.0 500 Server Internal Error\r\nX: y\r\n")
    );
}

proptest! {
    // spec: SEC-P-06
    #[test]
    fn whatever_is_built_parses_to_the_same(
        rows in proptest::collection::vec(("[A-Za-z-]{1,12}", "[ -~\u{e9}\r\n\0]{0,30}"), 0..8),
        body in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut builder = Builder::request(&Method::MESSAGE, "sip:a@b");
        for (name, value) in &rows {
            builder = builder.header(name.as_str(), value);
        }
        let evil = rows.iter().any(|(_, value)| value.contains(['\r', '\n', '\0']));
        let built = builder.finish(&body);
        prop_assert_eq!(built.is_err(), evil);
        if let Ok(message) = built {
            let mut headers: Vec<_> = message.headers().collect();
            let length = headers.pop().unwrap();
            prop_assert_eq!(length.known, Some(Name::CONTENT_LENGTH));
            prop_assert_eq!(headers.len(), rows.len());
            for (header, (name, value)) in headers.iter().zip(&rows) {
                prop_assert!(header.name.eq_ignore_ascii_case(name) || header.known == Name::parse(name));
                prop_assert_eq!(header.value, value.trim_matches(' ').as_bytes());
            }
            prop_assert_eq!(message.body(), &body[..]);
            if message.content_length().is_ok() {
                let again = Message::parse(message.as_bytes(), &ParseConfig::default()).unwrap();
                prop_assert_eq!(again.as_bytes(), message.as_bytes());
            }
        }
    }

    // spec: SEC-G-01
    #[test]
    fn any_bytes_are_read_without_panic(data in proptest::collection::vec(any::<u8>(), 0..200), good in any::<bool>()) {
        let mut text = Vec::new();
        if good {
            text.extend_from_slice(b"OPTIONS sip:a SIP/2.0\r\n");
            text.extend_from_slice(HEADERS.as_bytes());
        }
        text.extend_from_slice(&data);
        text.extend_from_slice(b"\r\n\r\n");
        if let Ok(message) = Message::parse(&text, &ParseConfig::default()) {
            let _ = message.headers().count();
            let _ = Request::check(message.clone(), &Limits::DEFAULT);
            let _ = Response::check(message, &Limits::DEFAULT);
        }
    }
}
