//! Requests of the application, and those of the other side.

use super::*;
use crate::wire::Response;

fn ua() -> (Bench, FlowId) {
    let (bench, flows) = Bench::registered(config(1), &[]);
    (bench, flows[0])
}

fn send(bench: &mut Bench, new: NewRequest) -> RequestId {
    let id = bench.ua.request(bench.now, new).unwrap();
    bench.drain();
    id
}

fn inbound(method: &str, cseq: u32, rows: &str) -> String {
    alloc::format!(
        "{method} sip:alice@10.7.0.9:40112;ob SIP/2.0\r\nVia: SIP/2.0/TLS ep1.example.com;branch=z9hG4bK{method}{cseq};rport\r\n\
         From: <sip:bob@example.com>;tag=far\r\nTo: <sip:alice@ims.example.com>\r\nCall-ID: call\r\nCSeq: {cseq} {method}\r\n\
         Max-Forwards: 69\r\n{rows}Content-Length: 0\r\n\r\n"
    )
}

// spec: OUT-4.3-1, OUT-4.3-4, SIP-8.1.1-1
#[test]
fn an_invite_as_it_is_sent() {
    let (mut bench, _) = ua();
    send(
        &mut bench,
        NewRequest::new(Method::INVITE, "sip:bob@example.com").header("Subject", "hi"),
    );
    let (_, invite) = bench.next_request();
    let mut text = String::from_utf8(invite.as_bytes().to_vec()).unwrap();
    for (value, name) in [
        (invite.branch().unwrap(), "BRANCH"),
        (invite.call_id(), "CALL"),
        (invite.from_tag().unwrap(), "TAG"),
    ] {
        text = text.replace(value, name);
    }
    assert_eq!(
        text,
        "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/TLS 10.7.0.9:40112;branch=BRANCH;rport\r\n\
         Route: <sips:ep1.example.com;lr>\r\nMax-Forwards: 70\r\nFrom: <sip:alice@ims.example.com>;tag=TAG\r\n\
         To: <sip:bob@example.com>\r\nCall-ID: CALL\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:alice@10.7.0.9:40112;transport=tcp;ob>\r\nSupported: outbound\r\nSubject: hi\r\nContent-Length: 0\r\n\r\n"
    );
}

// spec: OUT-4.1-4
#[test]
fn an_anonymous_request_names_neither_user_nor_device() {
    let (mut bench, _) = ua();
    let mut new = NewRequest::new(Method::MESSAGE, "sip:bob@example.com");
    new.anonymous = true;
    send(&mut bench, new);
    let (_, message) = bench.next_request();
    let text = String::from_utf8(message.as_bytes().to_vec()).unwrap();
    assert!(!text.contains("alice") && !text.contains("urn:uuid"));
    let mut new = NewRequest::new(Method::INVITE, "sips:bob@example.com");
    new.anonymous = true;
    send(&mut bench, new);
    let (_, invite) = bench.next_request();
    let text = String::from_utf8(invite.as_bytes().to_vec()).unwrap();
    assert!(!text.contains("alice") && !text.contains("urn:uuid"));
    // And who is called by sips answers by it.
    let contact = "<sips:anonymous@10.7.0.9:40112;transport=tcp;ob>";
    assert_eq!(invite.only(Name::CONTACT), Ok(contact));
}

#[test]
fn branches_never_repeat() {
    let (mut bench, _) = ua();
    let mut branches: Vec<_> = (0..10_000)
        .map(|_| bench.ua.new_via(FlowId(1), false).unwrap())
        .collect();
    branches.sort();
    branches.dedup();
    assert_eq!(branches.len(), 10_000);
    bench.drain();
}

#[test]
fn misuse_changes_nothing() {
    let (mut bench, flow) = ua();
    for method in [Method::REGISTER, Method::ACK, Method::CANCEL] {
        let refused = bench
            .ua
            .request(bench.now, NewRequest::new(method, "sip:b@c"));
        assert_eq!(refused, Err(RequestError::Method));
    }
    let evil = NewRequest::new(Method::MESSAGE, "sip:b@c\r\nX: y");
    assert!(matches!(
        bench.ua.request(bench.now, evil),
        Err(RequestError::Build(_))
    ));
    let evil = NewRequest::new(Method::MESSAGE, "sip:b@c").header("X", "a\r\nb");
    assert!(matches!(
        bench.ua.request(bench.now, evil),
        Err(RequestError::Build(_))
    ));
    assert_eq!(
        bench.ua.close_extra(bench.now, flow),
        Err(RequestError::Unknown)
    );
    assert_eq!(
        bench.ua.cancel(bench.now, RequestId(99)),
        Err(RequestError::Unknown)
    );
    bench.drain();
    assert!(bench.sent.is_empty() && bench.ua.requests.is_empty());
}

// spec: SEC-P-08
#[test]
fn open_requests_are_limited() {
    let mut config = config(1);
    config.max_transactions = 3;
    let (mut bench, _) = Bench::registered(config, &[]);
    let new = || NewRequest::new(Method::MESSAGE, "sip:b@c");
    for _ in 0..3 {
        send(&mut bench, new());
    }
    assert_eq!(bench.ua.request(bench.now, new()), Err(RequestError::Full));
    bench.run_for(32_000);
    assert_eq!(bench.kinds().matches("RequestFailed").count(), 3);
    assert!(bench.ua.request(bench.now, new()).is_ok());
}

#[test]
fn a_challenge_of_a_proxy_is_answered_under_the_same_number() {
    let (mut bench, flow) = ua();
    let id = send(
        &mut bench,
        NewRequest::new(Method::MESSAGE, "sip:bob@example.com"),
    );
    let (_, first) = bench.next_request();
    let challenge = "Digest realm=\"ims.example.com\",nonce=\"n\",qop=\"auth\",algorithm=SHA-256";
    bench.answer(flow, &first, 407, &[("Proxy-Authenticate", challenge)]);
    let (_, second) = bench.next_request();
    assert_eq!(
        (second.cseq_number(), second.call_id()),
        (2, first.call_id())
    );
    assert!(
        second
            .only(Name::PROXY_AUTHORIZATION)
            .unwrap()
            .contains("uri=\"sip:bob@example.com\"")
    );
    bench.answer(flow, &second, 200, &[]);
    assert!(
        matches!(&bench.events[..], [UserAgentEvent::Response { request, .. }] if *request == id)
    );
    bench.events.clear();
    // The next request is answered before it is challenged.
    send(
        &mut bench,
        NewRequest::new(Method::MESSAGE, "sip:bob@example.com"),
    );
    let (_, third) = bench.next_request();
    assert!(
        third
            .only(Name::PROXY_AUTHORIZATION)
            .unwrap()
            .contains("nc=00000002")
    );
    bench.answer(flow, &third, 407, &[("Proxy-Authenticate", challenge)]);
    let (_, fourth) = bench.next_request();
    bench.answer(flow, &fourth, 407, &[("Proxy-Authenticate", challenge)]);
    assert_eq!(bench.kinds(), "Response RequestFailed");
}

// spec: SIP-8.1.3-2
#[test]
fn a_response_with_another_via_is_not_ours() {
    let (mut bench, flow) = ua();
    send(
        &mut bench,
        NewRequest::new(Method::MESSAGE, "sip:bob@example.com"),
    );
    let (_, request) = bench.next_request();
    let ok = Builder::reply(&request, StatusCode::OK, Some("t"))
        .finish(b"")
        .unwrap();
    let two = ok
        .edit()
        .push_back(Name::VIA, "SIP/2.0/TLS x")
        .finish()
        .unwrap();
    bench.input(flow, two.as_bytes());
    assert!(bench.events.is_empty());
    bench.input(flow, ok.as_bytes());
    assert_eq!(bench.kinds(), "Response");
}

#[test]
fn a_lost_flow_ends_its_requests() {
    let (mut bench, flow) = ua();
    send(
        &mut bench,
        NewRequest::new(Method::MESSAGE, "sip:bob@example.com"),
    );
    bench.ua.handle_flow_closed(bench.now, flow);
    bench.drain();
    assert_eq!(bench.kinds(), "FlowFailed RequestFailed");
}

// spec: OUT-4.3-2, OUT-4.3-3, SEC-P-16
#[test]
fn a_flow_is_reused_for_the_same_address_and_proven_name_only() {
    let (mut bench, flow) = ua();
    let to = |host: &str, port: u16| {
        let address = (Transport::Tls, SocketAddr::from(([203, 0, 113, 1], port)));
        let next_hop = NextHop::Resolved {
            uri: uri(&alloc::format!("sips:{host}")),
            address,
        };
        NewRequest {
            next_hop,
            ..NewRequest::new(Method::MESSAGE, "sip:b@c")
        }
    };
    send(&mut bench, to("ep1.example.com", 443));
    assert_eq!(bench.sent.remove(0).0, flow);
    send(&mut bench, to("ep1.example.com", 5061));
    assert!(bench.sent.is_empty());
    send(&mut bench, to("other.example.com", 443));
    assert!(bench.sent.is_empty());
    let targets: Vec<_> = bench
        .actions
        .iter()
        .filter_map(|action| match action {
            FlowAction::OpenFlow { target, .. } => Some(String::from(target.verify_name())),
            FlowAction::CloseFlow { .. } => None,
        })
        .collect();
    assert_eq!(
        targets[targets.len() - 2..],
        ["ep1.example.com", "other.example.com"]
    );
    let FlowAction::OpenFlow { flow: extra, .. } = bench.actions.pop().unwrap() else {
        panic!()
    };
    let tuple = tuple(Transport::Tls, 1);
    bench.ua.flow_opened(
        bench.now,
        extra,
        tuple,
        alloc::vec!["other.example.com".into()],
    );
    bench.drain();
    assert_eq!(bench.sent.remove(0).0, extra);
    // Four at most.
    for n in 0..2 {
        send(&mut bench, to(&alloc::format!("h{n}.example.com"), 443));
    }
    let full = bench.ua.request(bench.now, to("h9.example.com", 443));
    assert_eq!(full, Err(RequestError::Full));
    bench.ua.close_extra(bench.now, extra).unwrap();
    bench.drain();
    assert!(bench.kinds().contains("RequestFailed"));
}

// spec: SIP-8.2.1-1, SIP-8.2.2-1, SIP-9.2-1
#[test]
fn what_the_application_does_not_handle_is_refused() {
    for (text, code, row) in [
        (inbound("REGISTER", 1, ""), 405, Some("Allow")),
        (inbound("SUBSCRIBE", 1, ""), 405, Some("Allow")),
        (inbound("FOO", 1, ""), 501, None),
        (
            inbound("OPTIONS", 1, "Require: nothingSupportsThis, norThis\r\n"),
            420,
            Some("Unsupported"),
        ),
        (inbound("CANCEL", 1, "Require: foo\r\n"), 481, None),
    ] {
        let (mut bench, flow) = ua();
        bench.input(flow, text.as_bytes());
        let (_, message) = bench.next();
        let response = Response::check(message, &Limits::DEFAULT).unwrap();
        assert_eq!(response.code().number(), code);
        assert!(row.is_none_or(|name| response.has(name)));
        assert!(bench.events.is_empty());
    }
    let (mut bench, flow) = ua();
    bench.input(flow, inbound("ACK", 1, "Require: foo\r\n").as_bytes());
    assert!(bench.sent.is_empty());
    bench.input(flow, b"BAD sip:a SIP/7.0\r\nVia: SIP/2.0/TLS x;branch=z9hG4bKq\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:b@c>\r\n\
        Call-ID: x\r\nCSeq: 1 BAD\r\nl: 0\r\n\r\n");
    let (_, message) = bench.next();
    assert!(message.as_bytes().starts_with(b"SIP/2.0 505"));
}

// spec: SIP-18.2.1-1, RPT-4-1, SIP-18.2.2-1
#[test]
fn responses_carry_the_source_and_go_back_over_the_flow() {
    let (mut bench, flow) = ua();
    bench.input(flow, inbound("MESSAGE", 1, "").as_bytes());
    let UserAgentEvent::Request { id, .. } = bench.events.remove(0) else {
        panic!()
    };
    bench
        .ua
        .respond(bench.now, id, StatusCode::OK, "t", &[], b"")
        .unwrap();
    bench.drain();
    let (on, response) = bench.next();
    assert_eq!(on, flow);
    let via = response.via(&Limits::DEFAULT).unwrap();
    assert_eq!(
        (via.rport(), via.received()),
        (Some(443), "203.0.113.1".parse().ok())
    );
    assert_eq!(
        bench
            .ua
            .respond(bench.now, id, StatusCode::OK, "t", &[], b""),
        Err(RequestError::Unknown)
    );
}

fn incoming_call(bench: &mut Bench, flow: FlowId) -> (ServerId, Request) {
    let rows = "Contact: <sip:bob@far.example.com>\r\nRecord-Route: <sip:tok@ep1.example.com;lr>, <sip:core;lr>\r\n";
    bench.input(flow, inbound("INVITE", 1, rows).as_bytes());
    let UserAgentEvent::Request { id, request, .. } = bench.events.remove(0) else {
        panic!()
    };
    (id, request)
}

#[test]
fn a_call_is_taken_and_hung_up() {
    let (mut bench, flow) = ua();
    let (id, invite) = incoming_call(&mut bench, flow);
    bench
        .ua
        .respond(bench.now, id, StatusCode::RINGING, "near", &[], b"")
        .unwrap();
    bench
        .ua
        .respond(bench.now, id, StatusCode::OK, "near", &[], b"")
        .unwrap();
    let mut dialog = Dialog::callee(flow, &invite, "near").unwrap();
    bench.drain();
    let (_, ringing) = bench.next();
    assert_eq!(ringing.list(Name::RECORD_ROUTE).count(), 2);
    let (_, ok) = bench.next();
    assert!(ok.only(Name::CONTACT).unwrap().contains(";ob>"));
    assert_eq!(ok.to(&Limits::DEFAULT).unwrap().tag(), Some("near"));
    // Repeated until the ACK comes.
    bench.run_for(1_500);
    assert_eq!(
        bench
            .sent
            .iter()
            .filter(|(_, bytes)| bytes == &ok.as_bytes()[..])
            .count(),
        2
    );
    bench.sent.clear();
    let ack = inbound("ACK", 1, "").replace(
        "ims.example.com>\r\nCall",
        "ims.example.com>;tag=near\r\nCall",
    );
    bench.input(flow, ack.as_bytes());
    assert_eq!(bench.kinds(), "Ack");
    bench.run_for(20_000);
    assert!(bench.sent.is_empty());
    let id = bench
        .ua
        .request_in_dialog(
            bench.now,
            &mut dialog,
            Method::BYE,
            Vec::new(),
            Bytes::new(),
        )
        .unwrap();
    bench.drain();
    let (on, bye) = bench.next_request();
    assert_eq!(on, flow);
    assert_eq!(bye.uri_text(), "sip:bob@far.example.com");
    let routes: Vec<_> = bye.list(Name::ROUTE).collect();
    assert_eq!(routes, ["<sip:tok@ep1.example.com;lr>", "<sip:core;lr>"]);
    assert_eq!(
        (bye.from_tag(), bye.to_tag(), bye.cseq_number()),
        (Some("near"), Some("far"), 1)
    );
    bench.answer(flow, &bye, 200, &[]);
    assert!(
        matches!(&bench.events[..], [UserAgentEvent::Response { request, .. }] if *request == id)
    );
}

#[test]
fn an_accepted_call_without_ack_is_reported() {
    let (mut bench, flow) = ua();
    let (id, _) = incoming_call(&mut bench, flow);
    bench
        .ua
        .respond(bench.now, id, StatusCode::OK, "near", &[], b"")
        .unwrap();
    bench.run_for(32_000);
    assert_eq!(bench.kinds(), "NoAck");
    // 0, .5, 1.5, 3.5, 7.5, then every 4 s.
    assert_eq!(bench.sent.len(), 11);
}

// spec: SIP-9.2-1
#[test]
fn a_cancelled_call_gets_487() {
    let (mut bench, flow) = ua();
    incoming_call(&mut bench, flow);
    let cancel = inbound("CANCEL", 1, "").replace("z9hG4bKCANCEL1", "z9hG4bKINVITE1");
    bench.input(flow, cancel.as_bytes());
    let codes: Vec<_> = (0..2)
        .map(|_| String::from_utf8(bench.next().1.as_bytes()[8..11].to_vec()).unwrap())
        .collect();
    assert_eq!(codes, ["200", "487"]);
    assert_eq!(bench.kinds(), "Cancelled");
}

// spec: SIP-22.1-1, SIP-9.1-1
#[test]
fn a_call_is_made_acknowledged_and_cancelled() {
    let (mut bench, flow) = ua();
    let id = send(
        &mut bench,
        NewRequest::new(Method::INVITE, "sip:bob@example.com"),
    );
    let (_, invite) = bench.next_request();
    let challenge = "Digest realm=\"ims.example.com\",nonce=\"n\",qop=\"auth\",algorithm=SHA-256";
    bench.answer(flow, &invite, 407, &[("Proxy-Authenticate", challenge)]);
    let (_, ack) = bench.next_request();
    assert_eq!(ack.method(), &Method::ACK);
    assert_eq!(ack.branch(), invite.branch());
    let (_, invite) = bench.next_request();
    let rows = [
        ("Contact", "<sip:bob@far.example.com;x=1>"),
        (
            "Record-Route",
            "<sip:core;lr>, <sip:tok@ep1.example.com;lr>",
        ),
    ];
    bench.answer(flow, &invite, 180, &rows);
    bench.answer(flow, &invite, 200, &rows);
    bench.events.remove(0);
    let UserAgentEvent::Response {
        request, response, ..
    } = bench.events.remove(0)
    else {
        panic!()
    };
    assert_eq!(request, id);
    let dialog = Dialog::caller(flow, &invite, &response).unwrap();
    for _ in 0..2 {
        bench.ua.ack(bench.now, &dialog, id, &[], b"").unwrap();
        bench.drain();
        let (_, ack) = bench.next_request();
        assert_eq!(
            (ack.uri_text(), ack.cseq_number()),
            ("sip:bob@far.example.com;x=1", 2)
        );
        assert_ne!(ack.branch(), invite.branch());
        let routes: Vec<_> = ack.list(Name::ROUTE).collect();
        assert_eq!(routes, ["<sip:tok@ep1.example.com;lr>", "<sip:core;lr>"]);
        assert_eq!(
            ack.only(Name::PROXY_AUTHORIZATION),
            invite.only(Name::PROXY_AUTHORIZATION)
        );
        bench.answer(flow, &invite, 200, &rows);
    }
    bench.events.clear();

    let id = send(
        &mut bench,
        NewRequest::new(Method::INVITE, "sip:bob@example.com"),
    );
    let (_, invite) = bench.next_request();
    bench.ua.cancel(bench.now, id).unwrap();
    bench.drain();
    assert!(bench.sent.is_empty());
    bench.answer(flow, &invite, 180, &[]);
    let (_, cancel) = bench.next_request();
    assert_eq!(cancel.method(), &Method::CANCEL);
    assert!(!cancel.has(Name::PROXY_AUTHORIZATION));
    bench.answer(flow, &cancel, 200, &[]);
    bench.answer(flow, &invite, 487, &[]);
    assert_eq!(bench.kinds(), "Response Response");
}

fn dialog(routes: &str) -> Dialog {
    let text = inbound(
        "INVITE",
        5,
        &alloc::format!("Contact: <sip:bob@far?x=y>\r\nRecord-Route: {routes}\r\n"),
    );
    let message = Message::parse(text.as_bytes(), &ParseConfig::default()).unwrap();
    Dialog::callee(
        FlowId(1),
        &Request::check(message, &Limits::DEFAULT).unwrap(),
        "near",
    )
    .unwrap()
}

// spec: SIP-12.2.1.1-1
#[test]
fn a_strict_router_gets_itself_as_request_uri() {
    let (uri, routes) = dialog("<sip:p1;lr>, <sip:p2>, <sip:p3;lr>, <sip:p4;lr>").route();
    assert_eq!(uri, "sip:bob@far");
    assert_eq!(
        routes,
        ["<sip:p1;lr>", "<sip:p2>", "<sip:p3;lr>", "<sip:p4;lr>"]
    );
    let (uri, routes) = dialog("<sip:p1>, <sip:p2;lr>").route();
    assert_eq!(uri, "sip:p1");
    assert_eq!(routes, ["<sip:p2;lr>", "<sip:bob@far?x=y>"]);
}

#[test]
fn a_dialog_knows_its_requests_and_their_order() {
    let mut dialog = dialog("<sip:p1;lr>");
    let request = |cseq: u32, rows: &str| {
        let text = inbound("INVITE", cseq, rows).replace(
            "ims.example.com>\r\nCall",
            "ims.example.com>;tag=near\r\nCall",
        );
        let message = Message::parse(text.as_bytes(), &ParseConfig::default()).unwrap();
        Request::check(message, &Limits::DEFAULT).unwrap()
    };
    assert_eq!(
        dialog.handle_request(&request(5, "")),
        Err(DialogError::OutOfOrder)
    );
    assert_eq!(
        dialog.handle_request(&request(6, "Contact: <sip:new@far>\r\n")),
        Ok(())
    );
    assert_eq!(dialog.remote_target().as_str(), "sip:new@far");
    let text = inbound("BYE", 9, "");
    let message = Message::parse(text.as_bytes(), &ParseConfig::default()).unwrap();
    let foreign = Request::check(message, &Limits::DEFAULT).unwrap();
    assert_eq!(dialog.handle_request(&foreign), Err(DialogError::Foreign));
}

// spec: SIP-18.1.1-2
#[test]
fn a_large_request_does_not_go_into_a_datagram() {
    let mut config = config(1);
    config.proxies[0] = uri("sip:ep1.example.com");
    let mut bench = bench(config);
    bench.transport = Transport::Udp;
    bench.start();
    bench.accept(&[]);
    let new = |len: usize| {
        NewRequest::new(Method::MESSAGE, "sip:b@c").body("text/plain", alloc::vec![b'x'; len])
    };
    assert!(bench.ua.request(bench.now, new(600)).is_ok());
    assert_eq!(
        bench.ua.request(bench.now, new(1300)),
        Err(RequestError::TooLarge)
    );
}

#[test]
fn a_request_after_a_challenged_one_takes_the_next_number() {
    let (mut bench, flow) = ua();
    let mut dialog = dialog("<sip:p1;lr>");
    let challenge = "Digest realm=\"ims.example.com\",nonce=\"n\",qop=\"auth\",algorithm=SHA-256";
    let mut number = |bench: &mut Bench, challenged: bool| {
        let (body, rows) = (Bytes::new(), Vec::new());
        let id = bench
            .ua
            .request_in_dialog(bench.now, &mut dialog, Method::INFO, rows, body)
            .unwrap();
        bench.drain();
        let (_, mut request) = bench.next_request();
        if challenged {
            bench.answer(flow, &request, 407, &[("Proxy-Authenticate", challenge)]);
            (_, request) = bench.next_request();
        }
        let sent = bench.ua.sent_request(id).map(|sent| sent.cseq_number());
        assert_eq!(sent, Some(request.cseq_number()));
        bench.answer(flow, &request, 200, &[]);
        assert_eq!(
            bench.ua.sent_request(id).map(|sent| sent.cseq_number()),
            None
        );
        let UserAgentEvent::Response { response, .. } = bench.events.remove(0) else {
            panic!()
        };
        dialog.handle_response(&response);
        request.cseq_number()
    };
    assert_eq!(number(&mut bench, true), 2);
    assert_eq!(number(&mut bench, false), 3);
}

// spec: LOC-4.3-1, LOC-4-1
#[test]
fn the_next_address_is_tried_with_another_branch() {
    let addresses = |n: u8| (Transport::Tls, SocketAddr::from(([203, 0, 113, n], 443)));
    for failure in ["503", "no answer", "connection", "closed"] {
        let (mut bench, _) = ua();
        let mut new = NewRequest::new(Method::INVITE, "sip:bob@pr2.example.com");
        new.next_hop = NextHop::Resolved {
            uri: uri("sips:pr2.example.com"),
            address: addresses(2),
        };
        new.alternatives = alloc::vec![addresses(3), addresses(4)];
        let id = bench.ua.request(bench.now, new).unwrap();
        let mut asked = Vec::new();
        let mut branches = Vec::new();
        for round in 0..3 {
            bench.drain();
            let open = bench.actions.iter().find_map(|action| match action {
                FlowAction::OpenFlow { flow, target } => Some((*flow, target.clone())),
                _ => None,
            });
            bench.actions.clear();
            let (flow, target) = open.unwrap();
            assert_eq!(target.verify_name(), "pr2.example.com");
            asked.push(target.address.unwrap());
            if failure == "connection" && round < 2 {
                bench.ua.flow_failed(bench.now, flow);
                continue;
            }
            let (transport, remote) = target.address.unwrap();
            let at = FiveTuple {
                transport,
                remote,
                ..tuple(transport, 2)
            };
            let names = alloc::vec![String::from("pr2.example.com")];
            bench.ua.flow_opened(bench.now, flow, at, names);
            bench.drain();
            let (on, invite) = bench.next_request();
            assert_eq!((on, invite.cseq_number()), (flow, 1));
            branches.push(String::from(invite.branch().unwrap()));
            match failure {
                "503" => bench.answer(flow, &invite, 503, &[]),
                "no answer" => bench.run_for(32_000),
                _ => bench.ua.handle_flow_closed(bench.now, flow),
            }
            bench.sent.clear();
        }
        bench.drain();
        assert_eq!(
            asked,
            [addresses(2), addresses(3), addresses(4)],
            "{failure}"
        );
        branches.dedup();
        assert_eq!(branches.len(), if failure == "connection" { 1 } else { 3 });
        // All have failed: now the application hears of it, once.
        let told = bench.events.iter().filter(|event| match event {
            UserAgentEvent::Response { request, .. }
            | UserAgentEvent::RequestFailed { request, .. } => *request == id,
            _ => false,
        });
        assert_eq!(told.count(), 1, "{failure}");
    }
    // Who has answered is not left.
    let (mut bench, _) = ua();
    let mut new = NewRequest::new(Method::INVITE, "sip:bob@pr2.example.com");
    new.next_hop = NextHop::Resolved {
        uri: uri("sips:pr2.example.com"),
        address: addresses(2),
    };
    new.alternatives = alloc::vec![addresses(3)];
    bench.ua.request(bench.now, new).unwrap();
    let flow = bench.open()[0];
    let (_, invite) = bench.next_request();
    bench.answer(flow, &invite, 180, &[]);
    bench.ua.handle_flow_closed(bench.now, flow);
    bench.drain();
    assert!(
        !bench
            .actions
            .iter()
            .any(|action| matches!(action, FlowAction::OpenFlow { .. }))
    );
}

#[test]
fn a_dialog_goes_over_to_the_next_flow_without_the_token_of_the_old_one() {
    let (mut bench, flow) = ua();
    let (id, invite) = incoming_call(&mut bench, flow);
    bench
        .ua
        .respond(bench.now, id, StatusCode::OK, "near", &[], b"")
        .unwrap();
    let mut dialog = Dialog::callee(flow, &invite, "near").unwrap();
    bench.ua.handle_flow_closed(bench.now, flow);
    bench.run_for(60_500);
    bench.sent.clear();
    let [next] = bench.open()[..] else { panic!() };
    bench.accept(&[]);
    for _ in 0..2 {
        let (rows, body) = (Vec::new(), Bytes::new());
        bench
            .ua
            .request_in_dialog(bench.now, &mut dialog, Method::INFO, rows, body)
            .unwrap();
        bench.drain();
        let (on, info) = bench.next_request();
        assert_eq!((on, dialog.flow), (next, next));
        let routes: Vec<_> = info.list(Name::ROUTE).collect();
        assert_eq!(routes, ["<sip:ep1.example.com;lr>", "<sip:core;lr>"]);
    }
}
