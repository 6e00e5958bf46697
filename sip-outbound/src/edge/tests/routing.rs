use super::*;

// spec: OUT-5.1-1, PATH-5.2-1, SIP-16.6-1, SIP-16.4-1, OUT-5.3-2, RPT-4-1, F-4.2-1, SIP-18.2.1-1
#[test]
fn a_register_gets_path_and_via_and_loses_our_route() {
    let mut bench = bench(config());
    bench.input(
        bench.client,
        register(1, "Path: <sip:other;lr>\r\nX:  odd ,;\r\n"),
    );
    let (_, request) = bench.next_request();
    let token = request
        .list(Name::PATH)
        .next()
        .unwrap()
        .split(['<', '@'])
        .nth(1)
        .unwrap();
    let branch = request.branch().unwrap();
    let text = String::from_utf8(request.as_bytes().to_vec()).unwrap();
    let text = text.replace(token, "sip:TOKEN").replace(branch, "BRANCH");
    assert_eq!(
        text,
        "REGISTER sip:ims.example.com SIP/2.0\r\nVia: SIP/2.0/TCP ep1.example.com;branch=BRANCH\r\n\
         Via: SIP/2.0/TLS 10.7.0.9:40112;branch=z9hG4bKr1;rport=51044;keep;received=203.0.113.7\r\n\
         From: <sip:alice@ims.example.com>;tag=1\r\nTo: <sip:alice@ims.example.com>\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\n\
         Supported: path, outbound\r\nContact: <sip:alice@10.7.0.9:40112>;reg-id=1;+sip.instance=\"<urn:uuid:x>\"\r\n\
         Path: <sip:TOKEN@ep1.example.com;lr;ob>\r\nPath: <sip:other;lr>\r\nX:  odd ,;\r\nContent-Length: 0\r\nMax-Forwards: 70\r\n\r\n"
    );
}

// spec: OUT-5.1-2, PATH-5.2-2, PATH-5.2-3
#[test]
fn path_depends_on_the_first_hop_and_on_what_the_client_offers() {
    let path = |config: EdgeConfig, text: String| {
        let mut bench = bench(config);
        bench.input(bench.client, text);
        let (_, message) = bench.next();
        match message.is_request() {
            true => Ok((
                message.only(Name::PATH).map(String::from).ok(),
                message.has_tag(Name::REQUIRE, "path"),
            )),
            false => Err(String::from_utf8(message.as_bytes()[8..11].to_vec()).unwrap()),
        }
    };
    let second = register(1, "").replace("Route:", "Via: SIP/2.0/TLS ua;branch=z9hG4bKq\r\nRoute:");
    assert_eq!(path(config(), second.clone()), Ok((None, false)));
    let always = || EdgeConfig {
        path_always: true,
        ..config()
    };
    let (found, _) = path(always(), second).unwrap();
    assert!(!found.unwrap().contains("ob"));
    let unwilling = register(1, "").replace("path, outbound", "outbound");
    assert_eq!(path(config(), unwilling.clone()), Ok((None, false)));
    let required = || EdgeConfig {
        require_path: true,
        ..config()
    };
    assert_eq!(path(required(), unwilling), Err("421".into()));
    let (found, require) = path(required(), register(1, "")).unwrap();
    assert!(found.unwrap().contains(";lr;ob>") && require);
    let plain = register(1, "").replace("reg-id=1;", "");
    assert_eq!(path(config(), plain), Ok((None, false)));
}

// spec: OUT-5.4-3, KEEP-4.4-1, KEEP-5-1, F-4.2-2, SIP-16.7-1
#[test]
fn the_answer_to_register_asks_for_keep_alives() {
    for (rows, timer) in [(&[("Require", "outbound")][..], true), (&[], false)] {
        let mut bench = bench(config());
        bench.input(bench.client, register(1, ""));
        let (flow, request) = bench.next_request();
        bench.answer(flow, &request, 200, rows);
        let (on, response) = bench.next_response();
        assert_eq!(on, bench.client);
        assert_eq!(
            response.seconds(Name::FLOW_TIMER).ok(),
            timer.then_some(120)
        );
        assert_eq!(
            response.list(Name::VIA).collect::<Vec<_>>(),
            [
                "SIP/2.0/TLS 10.7.0.9:40112;branch=z9hG4bKr1;rport=51044;keep=120;received=203.0.113.7"
            ]
        );
    }
}

// spec: KEEP-4.4-1, KEEP-5-1
#[test]
fn keep_alives_for_a_dialog_are_asked_in_all_its_responses_when_we_stay_in_it() {
    let granted = |contact: &str, method: &str, codes: &[u16]| {
        let mut bench = bench(config());
        bench.register();
        let rows = alloc::format!("Contact: <sip:a@h{contact}>\r\n");
        bench.input(bench.client, text(method, "sip:bob@far", &rows));
        let (flow, request) = bench.next_request();
        let routes: Vec<&str> = request.list(Name::RECORD_ROUTE).collect();
        let route = (!routes.is_empty()).then(|| routes.join(", "));
        bench.sent.clear();
        let mut found = Vec::new();
        for code in codes {
            let rows: Vec<_> = route
                .as_deref()
                .map(|route| ("Record-Route", route))
                .into_iter()
                .collect();
            bench.answer(flow, &request, *code, &rows);
            let (_, response) = bench.next_response();
            found.push(response.via(&Limits::DEFAULT).unwrap().keep());
        }
        found
    };
    use crate::wire::Keep::{Granted, Offered};
    assert_eq!(granted(";ob", "INVITE", &[183, 200]), [Granted(120); 2]);
    assert_eq!(granted(";ob", "SUBSCRIBE", &[200]), [Granted(120)]);
    // Not in the way of the dialog, no dialog, or none in the end.
    assert_eq!(granted("", "INVITE", &[183, 200]), [Offered; 2]);
    assert_eq!(granted(";ob", "MESSAGE", &[200]), [Offered]);
    assert_eq!(granted(";ob", "INVITE", &[486]), [Offered]);
}

// spec: SEED-2.2-2
#[test]
fn a_challenge_passes_unchanged() {
    let mut bench = bench(EdgeConfig {
        next_hop: config().next_hop,
        ..EdgeConfig::pcscf("ep1.example.com")
    });
    bench.input(bench.client, register(1, ""));
    let (flow, request) = bench.next_request();
    let row = "Digest  realm=\"a\\\"b\",nonce=\"n\" , qop=\"auth\",x=y";
    bench.answer(
        flow,
        &request,
        401,
        &[
            ("WWW-Authenticate", row),
            ("WWW-Authenticate", "Digest realm=\"c\""),
        ],
    );
    let (_, response) = bench.next_response();
    let rows: Vec<_> = response.rows(Name::WWW_AUTHENTICATE).collect();
    assert_eq!(rows, [row, "Digest realm=\"c\""]);
}

// spec: OUT-5.3-1, OUT-5.3.1-1, OUT-5.3.1-2
#[test]
fn a_request_from_the_core_goes_down_the_flow_of_its_token() {
    let mut bench = bench(config());
    let token = bench.register();
    for (method, ob, record) in [
        ("INVITE", ";ob", true),
        ("OPTIONS", ";ob", false),
        ("INVITE", "", false),
    ] {
        let route = alloc::format!("Route: <sip:{token}@ep1.example.com;lr{ob}>\r\n");
        let text = text(method, "sip:alice@unresolvable.invalid;x=1", &route)
            .replace("z9hG4bK", &alloc::format!("z9hG4bK{}", ob.len()));
        bench.input(bench.core, text);
        let (flow, request) = bench.next_request();
        assert_eq!(flow, bench.client);
        assert_eq!(request.uri_text(), "sip:alice@unresolvable.invalid;x=1");
        assert!(!request.has(Name::ROUTE));
        // The client is told where it has connected to, the core the name it knows.
        let both = [
            alloc::format!("<sip:{token}@192.0.2.15:443;transport=tls;lr>"),
            alloc::format!("<sip:{token}@ep1.example.com;lr>"),
        ];
        let recorded: Vec<&str> = request.list(Name::RECORD_ROUTE).collect();
        assert_eq!(
            recorded,
            both.iter()
                .take(if record { 2 } else { 0 })
                .collect::<Vec<_>>()
        );
        assert_eq!(request.via_transport(), "TLS");
        let via = request.via(&Limits::DEFAULT).unwrap();
        assert_eq!(via.sent_by, "192.0.2.15:443");
    }
}

// spec: OUT-5.3.2-1, OUT-5.3.2-2, SIP-16.6-2
#[test]
fn a_request_of_the_client_goes_out_and_is_record_routed_when_it_asks() {
    let mut bench = bench(config());
    let token = bench.register();
    let own = alloc::format!("<sip:{token}@ep1.example.com;lr>");
    for (n, (rows, record)) in [
        ("Contact: <sip:a@10.7.0.9;ob>\r\n", true),
        ("Contact: <sip:a@10.7.0.9>\r\n", false),
        (
            "Contact: <sip:a@10.7.0.9>\r\nRoute: <sip:ep1.example.com;lr;ob>\r\n",
            true,
        ),
        (
            "Contact: <sip:a@10.7.0.9;ob>\r\nRecord-Route: <sip:z;lr>\r\n",
            true,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let text = text("INVITE", "sip:bob@far.example.com", rows)
            .replace("z9hG4bK", &alloc::format!("z9hG4bK{n}"));
        bench.input(bench.client, text);
        let (flow, request) = bench.next_request();
        assert!(flow != bench.client && flow != bench.core);
        let first = request.list(Name::RECORD_ROUTE).next();
        assert_eq!(first == Some(&own), record, "{rows}");
        assert!(!request.has(Name::ROUTE));
    }
    // Within the dialog.
    let route = alloc::format!("Route: {own}, <sip:far.example.com;lr>\r\n");
    bench.input(bench.client, text("BYE", "sip:bob@far.example.com", &route));
    let (_, bye) = bench.next_request();
    assert_eq!(bye.only(Name::ROUTE), Ok("<sip:far.example.com;lr>"));
    let sips = text(
        "INVITE",
        "sips:bob@far.example.com",
        "Contact: <sips:a@10.7.0.9;ob>\r\n",
    );
    bench.input(bench.client, sips.replace("z9hG4bK", "z9hG4bKs"));
    let (_, invite) = bench.next_request();
    let recorded: Vec<&str> = invite.list(Name::RECORD_ROUTE).collect();
    assert_eq!(recorded.len(), 2);
    assert!(recorded.iter().all(|uri| uri.starts_with("<sips:")));
    assert!(recorded.iter().all(|uri| !uri.contains("transport")));
}

#[test]
fn each_side_has_a_name_of_its_own_and_both_are_taken_away() {
    let mut bench = bench(EdgeConfig {
        port: Some(5070),
        ..config()
    });
    let token = bench.register();
    let invite = text("INVITE", "sip:bob@far", "Contact: <sip:a@10.7.0.9;ob>\r\n");
    bench.input(bench.client, invite);
    let (core, request) = bench.next_request();
    let here = alloc::format!("<sip:{token}@192.0.2.15:443;transport=tls;lr>");
    let there = alloc::format!("<sip:{token}@ep1.example.com:5070;lr>");
    let recorded: Vec<&str> = request.list(Name::RECORD_ROUTE).collect();
    assert_eq!(recorded, [&there, &here]);
    let via = request.via(&Limits::DEFAULT).unwrap();
    assert_eq!(via.sent_by, "ep1.example.com:5070");
    // The caller's route set, and the callee's.
    let bye = |uri: &str, route: &str, n: u8| {
        let row = alloc::format!("Route: {route}\r\n");
        text("BYE", uri, &row).replace("z9hG4bK", &alloc::format!("z9hG4bK{n}"))
    };
    let from_caller = alloc::format!("{here}, {there}, <sip:far.example.com;lr>");
    bench.input(bench.client, bye("sip:bob@far", &from_caller, 1));
    let (_, request) = bench.next_request();
    assert_eq!(request.only(Name::ROUTE), Ok("<sip:far.example.com;lr>"));
    bench.input(
        core,
        bye("sip:a@10.7.0.9", &alloc::format!("{there}, {here}"), 2),
    );
    let (flow, request) = bench.next_request();
    assert_eq!(flow, bench.client);
    assert!(!request.has(Name::ROUTE));
    // A client that has taken the token of its old flow out, from one of them or from both.
    let plain = "<sip:192.0.2.15:443;transport=tls;lr>";
    for (n, second) in [(5, there.as_str()), (6, "<sip:ep1.example.com:5070;lr>")] {
        let moved = alloc::format!("{plain}, {second}, <sip:far.example.com;lr>");
        bench.input(bench.client, bye("sip:bob@far", &moved, n));
        let (_, request) = bench.next_request();
        assert_eq!(request.only(Name::ROUTE), Ok("<sip:far.example.com;lr>"));
    }
    // Clients preload where they have connected to.
    let preloaded = "<sip:192.0.2.15:443;transport=tls;lr>, <sip:far.example.com;lr>";
    bench.input(bench.client, bye("sip:bob@far", preloaded, 3));
    let (_, request) = bench.next_request();
    assert_eq!(request.only(Name::ROUTE), Ok("<sip:far.example.com;lr>"));
}

#[test]
fn clients_are_told_the_configured_name_and_addresses_of_all_kinds() {
    let name = |access_host: Option<&str>, local: &str, transport| {
        let mut bench = bench(EdgeConfig {
            access_host: access_host.map(String::from),
            ..config()
        });
        let at = FiveTuple {
            transport,
            local: local.parse().unwrap(),
            remote: tuple(51060).remote,
        };
        bench.client = bench
            .edge
            .flow_accepted(self::at(0), at, Side::Access)
            .unwrap();
        bench.register();
        let invite = text("INVITE", "sip:bob@far", "Contact: <sip:a@10.7.0.9;ob>\r\n");
        bench.input(bench.client, invite);
        let (_, request) = bench.next_request();
        let here = request.list(Name::RECORD_ROUTE).nth(1).unwrap();
        String::from(here.split('@').nth(1).unwrap())
    };
    use Transport::{Tcp, Tls};
    for (host, local, transport, expected) in [
        (
            None,
            "203.0.113.41:80",
            Tcp,
            "203.0.113.41:80;transport=tcp;lr>",
        ),
        (
            None,
            "[2001:db8::41]:443",
            Tls,
            "[2001:db8::41]:443;transport=tls;lr>",
        ),
        (
            Some("p.example.com"),
            "10.0.0.1:443",
            Tls,
            "p.example.com:443;transport=tls;lr>",
        ),
        (
            None,
            "0.0.0.0:443",
            Tls,
            "ep1.example.com:443;transport=tls;lr>",
        ),
    ] {
        assert_eq!(name(host, local, transport), expected);
    }
}

// spec: OUT-5.3.1-3, PRJ-10-2, SEC-P-12, PRJ-10-1
#[test]
fn dead_forged_and_foreign_tokens_are_refused() {
    let mut bench = bench(config());
    let token = bench.register();
    let other = bench
        .edge
        .flow_accepted(at(0), tuple(2000), Side::Access)
        .unwrap();
    let to = |token: &str, method: &str, n: u8| {
        text(
            method,
            "sip:alice@x",
            &alloc::format!("Route: <sip:{token}@ep1.example.com;lr>\r\n"),
        )
        .replace("z9hG4bK", &alloc::format!("z9hG4bK{n}"))
    };
    let mut forged = token.clone();
    forged.replace_range(3..4, "x");
    bench.input(bench.core, to(&forged, "MESSAGE", 1));
    assert_eq!(bench.code(bench.core), 403);
    bench.input(other, to(&token, "MESSAGE", 2));
    assert_eq!(bench.code(other), 403);
    bench.input(bench.core, to(&token, "ACK", 3));
    let (flow, ack) = bench.next_request();
    assert_eq!((flow, ack.method().as_str()), (bench.client, "ACK"));
    bench.edge.flow_failed(at(0), bench.client);
    bench.input(bench.core, to(&token, "MESSAGE", 4));
    assert_eq!(bench.code(bench.core), 430);
    bench.input(other, to(&token, "MESSAGE", 5));
    assert_eq!(bench.code(other), 430);
    bench.input(bench.core, to(&token, "ACK", 6));
    bench.input(bench.core, to(&forged, "ACK", 7));
    assert!(bench.sent.is_empty());
    // The same addresses again are another flow.
    let again = bench
        .edge
        .flow_accepted(at(0), tuple(51044), Side::Access)
        .unwrap();
    bench.input(bench.core, to(&token, "MESSAGE", 8));
    assert_eq!(bench.code(bench.core), 430);
    assert_ne!(again, bench.client);
}

// spec: MEM-5.2.8-1
#[test]
fn with_one_flow_gone_the_other_one_still_leads_to_the_client() {
    let mut bench = bench(config());
    let first = bench.register();
    let (one, two) = (bench.client, tuple(51050));
    let two = bench.edge.flow_accepted(at(0), two, Side::Access).unwrap();
    bench.client = two;
    let second = bench.register();
    bench.edge.flow_failed(at(0), one);
    bench.drain();
    assert!(
        bench
            .events
            .contains(&EdgeEvent::Unregistered { flow: one })
    );
    assert!(bench.edge.registered(two).is_some());
    let to = |token: &str| {
        let row = alloc::format!("Route: <sip:{token}@ep1.example.com;lr;ob>\r\n");
        text("MESSAGE", "sip:alice@x", &row)
    };
    bench.input(bench.core, to(&first));
    assert_eq!(bench.code(bench.core), 430);
    bench.input(bench.core, to(&second).replace("z9hG4bK", "z9hG4bKsecond"));
    let (flow, request) = bench.next_request();
    assert_eq!(
        (flow, request.method()),
        (two, &crate::wire::Method::MESSAGE)
    );
}

#[test]
fn a_question_about_the_proxy_is_answered_here() {
    let mut bench = bench(config());
    bench.register();
    bench.input(bench.client, text("OPTIONS", "sip:ep1.example.com", ""));
    let (flow, response) = bench.next_response();
    assert_eq!((flow, response.code().number()), (bench.client, 200));
    assert!(response.has(Name::ACCEPT) && response.to_tag().is_some());
    // One about somebody goes on.
    let user = text("OPTIONS", "sip:bob@ep1.example.com", "").replace("z9hG4bK", "z9hG4bKu");
    bench.input(bench.client, user);
    assert!(bench.next().1.is_request());
}

#[test]
fn requests_without_names_are_refused_on_streams() {
    for missing in ["From", "To", "Call-ID", "CSeq"] {
        let mut bench = bench(config());
        let whole = text("MESSAGE", "sip:bob@far", "");
        let lines = whole.split_inclusive("\r\n");
        let text: String = lines
            .filter(|line| !line.starts_with(&alloc::format!("{missing}:")))
            .collect();
        bench.input(bench.client, text);
        let (flow, message) = bench.next();
        assert_eq!(flow, bench.client, "{missing}");
        assert!(!message.is_request());
        assert!(message.as_bytes().starts_with(b"SIP/2.0 400 "), "{missing}");
    }
}

#[test]
fn a_dialog_follows_its_client_to_the_flow_it_has_now() {
    let mut bench = bench(config());
    let first = bench.register();
    let (core, old) = (bench.core, bench.client);
    let bye = |n: u8| {
        let row = alloc::format!("Route: <sip:{first}@ep1.example.com;lr>\r\n");
        text("BYE", "sip:alice@10.7.0.9", &row)
            .replace(
                "<sip:bob@ims.example.com>",
                "<sip:bob@ims.example.com>;tag=2",
            )
            .replace("z9hG4bK", &alloc::format!("z9hG4bK{n}"))
    };
    bench.edge.flow_failed(at(0), old);
    bench.input(core, bye(1));
    assert_eq!(bench.code(core), 430, "it has none yet");
    bench.client = bench
        .edge
        .flow_accepted(at(0), tuple(51050), Side::Access)
        .unwrap();
    bench.register();
    bench.input(core, bye(2));
    let (flow, request) = bench.next_request();
    assert_eq!((flow, request.method().as_str()), (bench.client, "BYE"));
    // Its own requests have the dead flow in their route set as well.
    bench.input(bench.client, bye(3));
    let (flow, request) = bench.next_request();
    assert_ne!(flow, bench.client);
    assert!(!request.has(Name::ROUTE));
    // No other client follows, and nobody follows to where nothing is registered any more.
    let other = bench
        .edge
        .flow_accepted(at(0), tuple(2000), Side::Access)
        .unwrap();
    bench.input(other, bye(4));
    assert_eq!(bench.code(other), 403);
    bench.edge.flow_failed(at(0), bench.client);
    bench.sent.clear();
    bench.input(core, bye(5));
    assert_eq!(bench.code(core), 430);
}

// spec: OUT-5.3.1-3, SIP-16.9-1
#[test]
fn a_flow_that_dies_under_a_request_fails_it() {
    let mut bench = bench(config());
    let token = bench.register();
    let route = alloc::format!("Route: <sip:{token}@ep1.example.com;lr>\r\n");
    bench.input(bench.core, text("MESSAGE", "sip:alice@x", &route));
    bench.sent.clear();
    bench.edge.flow_failed(at(0), bench.client);
    bench.drain();
    assert_eq!(bench.code(bench.core), 430);
    let mut bench = super::bench(config());
    bench.input(bench.client, text("MESSAGE", "sip:bob@far", ""));
    let (flow, _) = bench.next_request();
    bench.edge.flow_failed(at(0), flow);
    bench.drain();
    assert_eq!(bench.code(bench.client), 500);
}

// spec: SIP-16.3-1, SEC-P-07
#[test]
fn each_check_refuses_alone() {
    for (text, code) in [
        (
            text("OPTIONS", "nobodyKnowsThisScheme:totallyopaque", ""),
            416,
        ),
        (text("OPTIONS", "<sip:bob@far>", ""), 400),
        (
            text("OPTIONS", "sip:bob@far", "").replace("Max-Forwards: 70", "Max-Forwards: 0"),
            483,
        ),
        (
            text("OPTIONS", "sip:bob@far", "Proxy-Require: foo, bar\r\n"),
            420,
        ),
        (text("OPTIONS", "sip:bob@far", "Route: sip:x\r\n"), 400),
        (
            text("OPTIONS", "sip:bob@far", "").replace("1 OPTIONS", "1 INFO"),
            400,
        ),
        (text("CANCEL", "sip:bob@far", ""), 481),
    ] {
        let mut bench = bench(config());
        bench.input(bench.client, &text);
        let (_, response) = bench.next_response();
        assert_eq!(response.code().number(), code, "{text}");
        assert_eq!(
            response.only(Name::UNSUPPORTED).ok(),
            (code == 420).then_some("foo, bar")
        );
        bench.input(
            bench.client,
            text.replace("OPTIONS", "ACK")
                .replace("CANCEL sip", "ACK ftp"),
        );
        // Proxy-Require means nothing in an ACK.
        assert_eq!(bench.sent.is_empty(), code != 420);
    }
}

// spec: SIP-16.3-2, SIP-16.6-1, SEC-P-18
#[test]
fn what_is_not_understood_passes_byte_for_byte() {
    let mut bench = bench(config());
    let odd = "Date: Fri, 01 Jan 2010 16:00:00 EST\r\nUnknown-\u{e9}: x\r\n".replace('\u{e9}', "e");
    let text = text(
        "FROBNICATE",
        "sip:bob@far",
        &alloc::format!("{odd}Contact: <sip:broken\r\n"),
    )
    .replace(
        "Content-Length: 0\r\n\r\n",
        "Content-Length: 3\r\n\r\n\0\r\n",
    );
    bench.input(bench.client, &text);
    let (_, request) = bench.next_request();
    let out = String::from_utf8(request.as_bytes().to_vec()).unwrap();
    let rest: Vec<_> = out.split("\r\n").skip(2).collect();
    let expected = text.replace("Max-Forwards: 70", "Max-Forwards: 69");
    let expected: Vec<_> = expected.split("\r\n").skip(1).collect();
    assert_eq!(rest[1..], expected[1..]);
}

// spec: SIP-16.6-1
#[test]
fn content_length_is_added_on_streams() {
    let mut config = config();
    config.parse.leniency.assume_zero_length = true;
    let mut bench = bench(config);
    bench.input(
        bench.client,
        text("OPTIONS", "sip:bob@far", "").replace("Content-Length: 0\r\n", ""),
    );
    let (_, request) = bench.next_request();
    assert_eq!(request.content_length(), Ok(Some(0)));
}

// spec: SIP-16.4-1, SIP-16.6-3
#[test]
fn strict_routers_before_and_behind_us() {
    let mut bench = bench(config());
    let own = "sip:ep1.example.com;lr";
    bench.input(
        bench.client,
        text(
            "OPTIONS",
            own,
            "Route: <sip:next.example.com;lr>, <sip:bob@far>\r\n",
        ),
    );
    let (_, request) = bench.next_request();
    assert_eq!(request.uri_text(), "sip:bob@far");
    assert_eq!(request.only(Name::ROUTE), Ok("<sip:next.example.com;lr>"));
    bench.input(
        bench.client,
        text(
            "INFO",
            "sip:bob@far",
            "Route: <sip:strict.example.com>, <sip:z;lr>\r\n",
        ),
    );
    let (_, request) = bench.next_request();
    assert_eq!(request.uri_text(), "sip:strict.example.com");
    assert_eq!(
        request.list(Name::ROUTE).collect::<Vec<_>>(),
        ["<sip:z;lr>", "<sip:bob@far>"]
    );
    let FlowAction::OpenFlow { target, .. } = bench.actions.last().unwrap() else {
        panic!()
    };
    assert_eq!(target.uri.as_str(), "sip:strict.example.com");
}

// spec: SIP-16.7-2, ACC-7.2-1
#[test]
fn responses_go_back_as_they_should() {
    let mut bench = bench(config());
    bench.input(bench.client, text("INVITE", "sip:bob@far", ""));
    let (flow, invite) = bench.next_request();
    bench.answer(flow, &invite, 100, &[]);
    assert!(bench.sent.is_empty());
    for code in [180, 183, 200, 200] {
        bench.answer(flow, &invite, code, &[]);
        assert_eq!(bench.code(bench.client), code);
    }
    bench.answer(flow, &invite, 486, &[]);
    assert!(bench.sent.is_empty());
    bench.input(bench.client, text("OPTIONS", "sip:bob@far", ""));
    let (flow, options) = bench.next_request();
    bench.answer(flow, &options, 503, &[("Retry-After", "7")]);
    let (_, response) = bench.next_response();
    assert_eq!(
        (response.code().number(), response.only(Name::RETRY_AFTER)),
        (500, Ok("7"))
    );
    bench.answer(flow, &options, 200, &[]);
    assert!(bench.sent.is_empty());
    // The proxy's own inability is told.
    let mut full = config();
    full.max_client_transactions = 1;
    let mut bench = super::bench(full);
    bench.input(bench.client, text("OPTIONS", "sip:bob@far", ""));
    bench.sent.clear();
    bench.input(bench.client, text("INFO", "sip:bob@far", ""));
    assert_eq!(bench.code(bench.client), 503);
}

// spec: NIT-4.2-1
#[test]
fn silence_downstream_is_silence_upstream_but_for_invite() {
    let mut bench = bench(EdgeConfig {
        unregistered_timeout: Duration::from_secs(1000),
        ..config()
    });
    bench.input(bench.client, text("MESSAGE", "sip:bob@far", ""));
    bench.sent.clear();
    bench.run_to(40_000);
    assert_eq!(bench.code(bench.client), 100);
    assert!(bench.sent.is_empty());
    bench.input(bench.client, text("INVITE", "sip:bob@far", ""));
    bench.sent.clear();
    bench.run_to(80_000);
    assert_eq!(bench.code(bench.client), 100);
    assert_eq!(bench.code(bench.client), 408);
}

// spec: SIP-16.10-1
#[test]
fn a_cancel_follows_its_invite() {
    let mut bench = bench(config());
    bench.input(bench.client, text("INVITE", "sip:bob@far", ""));
    let (flow, invite) = bench.next_request();
    let cancel = text("CANCEL", "sip:bob@far", "").replace("z9hG4bKCANCEL", "z9hG4bKINVITE");
    bench.input(bench.client, &cancel);
    assert_eq!(bench.code(bench.client), 200);
    assert!(bench.sent.is_empty());
    bench.answer(flow, &invite, 180, &[]);
    assert_eq!(bench.code(bench.client), 180);
    let (on, cancel) = bench.next_request();
    assert_eq!((on, cancel.method().as_str()), (flow, "CANCEL"));
    assert_eq!(cancel.branch(), invite.branch());
    bench.answer(flow, &invite, 487, &[]);
    assert_eq!(bench.code(bench.client), 487);
    let (on, ack) = bench.next_request();
    assert_eq!((on, ack.method().as_str()), (flow, "ACK"));
    bench.input(
        bench.client,
        text("ACK", "sip:bob@far", "").replace("z9hG4bKACK", "z9hG4bKINVITE"),
    );
    assert!(bench.sent.is_empty());
}

#[test]
fn what_a_lost_client_was_calling_rings_no_longer() {
    let mut bench = bench(config());
    bench.input(bench.client, text("INVITE", "sip:bob@far", ""));
    let (flow, invite) = bench.next_request();
    bench.answer(flow, &invite, 180, &[]);
    bench.sent.clear();
    bench.edge.flow_failed(bench.now, bench.client);
    bench.drain();
    let (on, cancel) = bench.next_request();
    assert_eq!((on, cancel.method().as_str()), (flow, "CANCEL"));
    assert_eq!(cancel.branch(), invite.branch());
    bench.answer(flow, &cancel, 200, &[]);
    bench.answer(flow, &invite, 487, &[]);
    let (on, ack) = bench.next_request();
    assert_eq!((on, ack.method().as_str()), (flow, "ACK"));
    assert!(bench.sent.is_empty());
}

#[test]
fn a_client_lost_before_the_first_response_is_cancelled_with_it() {
    let mut bench = bench(config());
    bench.input(bench.client, text("INVITE", "sip:bob@far", ""));
    let (flow, invite) = bench.next_request();
    bench.edge.flow_failed(bench.now, bench.client);
    bench.drain();
    assert!(bench.sent.is_empty(), "CANCEL waits for a response");
    bench.answer(flow, &invite, 180, &[]);
    assert_eq!(bench.next_request().1.method().as_str(), "CANCEL");
    // An answered call is left to its two ends.
    let mut bench = self::bench(config());
    bench.input(bench.client, text("INVITE", "sip:bob@far", ""));
    let (flow, invite) = bench.next_request();
    bench.answer(flow, &invite, 200, &[]);
    bench.sent.clear();
    bench.edge.flow_failed(bench.now, bench.client);
    bench.drain();
    assert!(bench.sent.is_empty());
}

// spec: LOOP-4.2-1
#[test]
fn a_loop_is_seen_and_a_spiral_passes() {
    let mut bench = bench(EdgeConfig {
        next_hop: None,
        ..config()
    });
    bench.input(bench.client, text("OPTIONS", "sip:bob@far", ""));
    let (_, request) = bench.next_request();
    let text = String::from_utf8(request.as_bytes().to_vec()).unwrap();
    bench.input(bench.core, &text);
    assert_eq!(bench.code(bench.core), 482);
    let spiral = text
        .replace("sip:bob@far", "sip:carol@far")
        .replace("ep1.example.com;branch=z9hG4bK", "x;branch=z9hG4bKq");
    bench.input(bench.core, spiral);
    assert!(bench.next().1.is_request());
}

// spec: SEC-P-07
#[test]
fn two_proxies_in_a_ring_come_to_an_end() {
    let ring = |host: &str, other: &str| {
        let mut config = EdgeConfig::new(host);
        config.next_hop = Some(crate::wire::UriBuf::parse(alloc::format!("sip:{other}")).unwrap());
        config
    };
    let mut first = bench(ring("one.example", "two.example"));
    let mut second = bench(ring("two.example", "one.example"));
    first.input(first.client, text("OPTIONS", "sip:x@y", ""));
    let mut hops = 0;
    loop {
        let (_, message) = first.next();
        if !message.is_request() {
            break;
        }
        hops += 1;
        second.input(second.client, message.as_bytes());
        let (_, message) = second.next();
        if !message.is_request() {
            break;
        }
        hops += 1;
        first.input(first.client, message.as_bytes());
        assert!(hops <= 70);
    }
}

// spec: OUT-5.4-2
#[test]
fn datagrams_get_stun_answers_and_responses_where_rport_says() {
    use stun_proto::wire::{Class, MessageType, Method, TransactionId, Writer, XorMappedAddress};
    let mut bench = bench(config());
    let at0 = FiveTuple {
        transport: Transport::Udp,
        ..tuple(4000)
    };
    let mut buf = [0; 100];
    let len = Writer::new(
        &mut buf,
        MessageType::request(Method::BINDING),
        TransactionId([7; 12]),
    )
    .finish()
    .unwrap();
    bench.edge.handle_datagram(at(0), at0, &buf[..len]);
    bench.drain();
    let (_, answer) = bench.sent.remove(0);
    let answer = stun_proto::wire::Message::parse(&answer).unwrap();
    assert_eq!(answer.class(), Class::Success);
    assert_eq!(answer.find(), Some(XorMappedAddress(at0.remote)));
    assert_eq!(bench.edge.flow_count(), 2);
    bench.edge.handle_datagram(at(0), at0, b"\r\n\r\n");
    bench
        .edge
        .handle_datagram(at(0), at0, b"SIP/2.0 200 OK\r\n\r\n");
    bench.drain();
    assert!(bench.sent.is_empty() && bench.edge.flow_count() == 2);
    for (rport, port) in [(";rport", 4000), ("", 40112)] {
        let text = text("CANCEL", "sip:bob@far", "")
            .replace(";rport", rport)
            .replace("z9hG4bK", &alloc::format!("z9hG4bK{port}"));
        bench.edge.handle_datagram(at(0), at0, text.as_bytes());
        let mut buf = [0; 2000];
        let sent = bench.edge.poll_transmit(&mut buf).unwrap();
        let Path::Datagram(to) = sent.to else {
            panic!()
        };
        assert_eq!(
            (to.local, to.remote),
            (at0.local, SocketAddr::from(([203, 0, 113, 7], port)))
        );
    }
}

// spec: RPT-4-2
#[test]
fn a_response_leaves_from_the_socket_its_request_came_to() {
    let mut bench = bench(config());
    for local in [5060, 5070] {
        let at0 = FiveTuple {
            transport: Transport::Udp,
            local: SocketAddr::from(([192, 0, 2, 15], local)),
            remote: SocketAddr::from(([203, 0, 113, 7], 4000)),
        };
        let text =
            text("CANCEL", "sip:bob@far", "").replace("z9hG4bK", &alloc::format!("z9hG4bK{local}"));
        bench.edge.handle_datagram(at(0), at0, text.as_bytes());
        let mut buf = [0; 2000];
        assert_eq!(
            bench.edge.poll_transmit(&mut buf).unwrap().to,
            Path::Datagram(at0)
        );
    }
}

// spec: PRJ-5-1, ACC-7.1-2
#[test]
fn a_response_to_a_dead_flow_is_dropped_with_an_event() {
    let mut bench = bench(config());
    bench.input(bench.client, text("INVITE", "sip:bob@far", ""));
    let (flow, invite) = bench.next_request();
    bench.edge.flow_failed(at(0), bench.client);
    bench.drain();
    bench.events.clear();
    bench.answer(flow, &invite, 200, &[]);
    assert!(bench.sent.is_empty());
    assert_eq!(
        bench.events,
        [EdgeEvent::ResponseLost { flow: bench.client }]
    );
}
