//! What REGISTER looks like, and what follows from its answers.

use super::*;

fn text(request: &Request) -> String {
    String::from_utf8(request.as_bytes().to_vec()).unwrap()
}

/// The text with random parts replaced.
fn masked(request: &Request) -> String {
    let mut text = text(request);
    for (value, name) in [
        (request.branch().unwrap(), "BRANCH"),
        (request.call_id(), "CALL"),
        (request.from_tag().unwrap(), "TAG"),
    ] {
        text = text.replace(value, name);
    }
    text
}

// spec: F-2.1-1, K-2.1-1, SIP-8.1.1-1, SIP-8.1.1-3, OUT-4.2.1-6, OUT-4.2.1-7, RPT-3-1, KEEP-4.3-1, SIP-10.2-1, OUT-4.1-3, GRUU-4.1-1, PATH-5.1-1
#[test]
fn register_as_it_is_sent() {
    let mut bench = bench(config(1));
    bench.start();
    let (_, register) = bench.next_request();
    assert_eq!(
        masked(&register),
        "REGISTER sip:ims.example.com SIP/2.0\r\nVia: SIP/2.0/TLS 10.7.0.9:40112;branch=BRANCH;rport;keep\r\n\
         Route: <sips:ep1.example.com;lr>\r\nMax-Forwards: 70\r\nFrom: <sip:alice@ims.example.com>;tag=TAG\r\n\
         To: <sip:alice@ims.example.com>\r\nCall-ID: CALL\r\nCSeq: 1 REGISTER\r\n\
         Contact: <sip:alice@10.7.0.9:40112;transport=tcp>;+sip.instance=\"<urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee>\"\
         ;reg-id=1;expires=3600\r\nSupported: path, outbound, gruu\r\nContent-Length: 0\r\n\r\n"
    );
}

// spec: MEM-5.1.1.2-1, MEM-5.1.1.2-2, MEM-5.1.1.2-3
#[test]
fn register_in_ims_names_the_private_identity_at_once() {
    let base = config(1);
    let mut config = UserAgentConfig::ims(
        base.aor.clone(),
        base.instance.clone(),
        base.proxies.clone(),
    );
    config.accounts = alloc::vec![Account::new(
        "private@ims.example.com",
        "secret",
        "ims.example.com"
    )];
    let mut bench = bench(config);
    bench.start();
    let (flow, register) = bench.next_request();
    assert_eq!(
        register.only(Name::AUTHORIZATION),
        Ok(
            "Digest username=\"private@ims.example.com\",realm=\"ims.example.com\",nonce=\"\",uri=\"sip:ims.example.com\",response=\"\""
        )
    );
    assert!(
        register
            .only(Name::CONTACT)
            .unwrap()
            .ends_with(";expires=600000")
    );
    assert!(
        register.supports("path") && register.supports("outbound") && register.supports("gruu")
    );
    let challenge = "Digest realm=\"ims.example.com\",nonce=\"n\",qop=\"auth\",algorithm=SHA-256";
    bench.answer(flow, &register, 401, &[("WWW-Authenticate", challenge)]);
    let (_, again) = bench.next_request();
    assert!(
        again
            .only(Name::AUTHORIZATION)
            .unwrap()
            .contains("nonce=\"n\"")
    );
}

// spec: SIP-22.2-1, SIP-10.2-2, SIP-8.1.1-4
#[test]
fn a_challenged_register_differs_in_cseq_branch_and_credentials_alone() {
    let mut bench = bench(config(1));
    bench.start();
    let (flow, first) = bench.next_request();
    let challenge = "Digest realm=\"ims.example.com\",nonce=\"n\",qop=\"auth\",algorithm=SHA-256";
    bench.answer(flow, &first, 401, &[("WWW-Authenticate", challenge)]);
    let (_, second) = bench.next_request();
    assert_eq!((first.cseq_number(), second.cseq_number()), (1, 2));
    assert_ne!(first.branch(), second.branch());
    assert!(second.branch().unwrap().starts_with("z9hG4bK"));
    assert_eq!(second.to_tag(), None);
    let strip = |request: &Request| {
        let rows: Vec<_> = masked(request)
            .split_inclusive("\r\n")
            .filter(|row| !row.starts_with("Authorization"))
            .map(|row| row.replace("CSeq: 2", "CSeq: 1"))
            .collect();
        rows.concat()
    };
    assert_eq!(strip(&first), strip(&second));
}

// spec: SIP-22.1-2, MEM-5.1.1.5-1
#[test]
fn a_wrong_password_stops_after_two_rejections() {
    let mut bench = bench(config(1));
    bench.start();
    for nonce in ["n1", "n2"] {
        let (flow, register) = bench.next_request();
        let challenge = alloc::format!(
            "Digest realm=\"ims.example.com\",nonce=\"{nonce}\",qop=\"auth\",algorithm=SHA-256"
        );
        bench.answer(flow, &register, 401, &[("WWW-Authenticate", &challenge)]);
    }
    let cause = Refusal::Authentication(crate::digest::AuthFailure::WrongCredentials);
    assert_eq!(bench.refusal(), Some(cause));
    bench.run_for(10_000_000);
    assert!(bench.sent.is_empty() && bench.ua.poll_timeout().is_none());
    assert!(
        bench
            .actions
            .iter()
            .all(|action| matches!(action, FlowAction::CloseFlow { .. }))
    );
}

// spec: OUT-4.1-1, OUT-4.2.1-2, OUT-4.2.1-4, OUT-4.2.1-5
#[test]
fn each_flow_has_its_own_names_and_they_survive_a_restart() {
    let collect = |seed| {
        let mut bench = seeded(config(2), seed);
        let flows = bench.start();
        assert_eq!(flows.len(), 2);
        let registers: Vec<_> = (0..2).map(|_| bench.next_request().1).collect();
        registers
            .iter()
            .map(|register| {
                let contact = register.contacts(&Limits::DEFAULT).next().unwrap().unwrap();
                let instance = contact.instance().unwrap().into_owned();
                let route = String::from(register.only(Name::ROUTE).unwrap());
                (
                    route,
                    contact.reg_id().unwrap(),
                    instance,
                    String::from(register.call_id()),
                )
            })
            .collect::<Vec<_>>()
    };
    let (first, second) = (collect(1), collect(2));
    assert_ne!(first[0].3, first[1].3);
    for (a, b) in first.iter().zip(&second) {
        assert_eq!((&a.0, a.1, &a.2), (&b.0, b.1, &b.2));
        assert_ne!(a.3, b.3);
    }
    assert_eq!((first[0].1, first[1].1), (1, 2));
    assert!(first[0].0.contains("ep1") && first[1].0.contains("ep2"));
}

// spec: OUT-4.1-2, OUT-4.2.1-1, OUT-4.2.1-3, SEC-G-19
#[test]
fn configurations_that_cannot_work_are_refused() {
    let check = |change: &dyn Fn(&mut UserAgentConfig), count: usize| {
        let mut config = config(count);
        change(&mut config);
        UserAgent::new(config, [0; 32], at(0)).err()
    };
    for count in [1, 2, 4, 8] {
        assert_eq!(check(&|_| {}, count), None);
    }
    assert_eq!(check(&|config| config.flows = 4, 4), None);
    assert_eq!(check(&|_| {}, 0), Some(ConfigError::Proxies));
    assert_eq!(check(&|_| {}, 9), Some(ConfigError::Proxies));
    assert_eq!(
        check(&|config| config.flows = 1, 2),
        Some(ConfigError::Flows)
    );
    assert_eq!(
        check(&|config| config.registrar = uri("sip:a@b"), 1),
        Some(ConfigError::Registrar)
    );
    assert_eq!(
        check(&|config| config.user_agent = Some("a\r\nb".into()), 1),
        Some(ConfigError::Text)
    );
    assert_eq!(
        check(&|config| config.expires = 0, 1),
        Some(ConfigError::Zero)
    );
    let param = ("a b".into(), None);
    assert_eq!(
        check(&|config| config.contact_params.push(param.clone()), 1),
        Some(ConfigError::Text)
    );
    for urn in [
        "urn:oid:1.2",
        "urn:uuid:1",
        "0a1b2c3d-0000-4000-8000-00aabbccddee",
        "urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddeg",
    ] {
        assert_eq!(InstanceId::new(urn), Err(ConfigError::Instance), "{urn}");
    }
}

// spec: OUT-4.2.1-8, OUT-4.2.1-9
#[test]
fn without_outbound_in_the_answer_the_binding_is_plain_or_removed() {
    let mut bench1 = bench(config(1));
    bench1.first_ping = FirstPing::Shown;
    bench1.start();
    let (flow, register) = bench1.next_request();
    let contact = String::from(register.only(Name::CONTACT).unwrap());
    bench1.answer(flow, &register, 200, &[("Contact", &contact)]);
    assert_eq!(bench1.kinds(), "NotOutbound Registered");
    bench1.run_for(3_600_000 - 33_000);
    bench1
        .sent
        .retain(|(_, bytes)| bytes.starts_with(b"REGISTER"));
    let (_, refresh) = bench1.next_request();
    assert!(
        !refresh.supports("outbound") && !refresh.only(Name::CONTACT).unwrap().contains("reg-id")
    );

    let mut strict = config(1);
    strict.without_outbound = WithoutOutbound::Refuse;
    let mut bench2 = bench(strict);
    bench2.start();
    let (flow, register) = bench2.next_request();
    bench2.answer(flow, &register, 200, &[("Contact", &contact)]);
    let (flow, removal) = bench2.next_request();
    assert!(removal.only(Name::CONTACT).unwrap().ends_with("expires=0"));
    bench2.answer(flow, &removal, 200, &[]);
    assert_eq!(bench2.kinds(), "Refused Unregistered");
    assert!(bench2.closed(flow));
}

// spec: SIP-10.2.4-1
#[test]
fn the_own_binding_is_found_by_name_or_uri_and_its_time_counts() {
    let granted = |contact: &str, rows: &[(&str, &str)]| {
        let mut bench = bench(config(1));
        bench.start();
        let (flow, register) = bench.next_request();
        let mut all = alloc::vec![("Contact", contact), ("Require", "outbound")];
        all.extend_from_slice(rows);
        bench.answer(flow, &register, 200, &all);
        bench.events.iter().find_map(|event| match event {
            UserAgentEvent::Registered { registration, .. } => Some(registration.expires),
            _ => None,
        })
    };
    let named =
        "<sip:x@y>;reg-id=1;+sip.instance=\"<urn:uuid:0A1B2C3D-0000-4000-8000-00AABBCCDDEE>\"";
    let other = "<sip:z@y>;reg-id=2;expires=9;+sip.instance=\"<urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee>\"";
    assert_eq!(
        granted(&alloc::format!("{other},{named};expires=600"), &[]),
        Some(600)
    );
    assert_eq!(granted(named, &[("Expires", "700")]), Some(700));
    let by_uri = "<sip:alice@10.7.0.9:40112;transport=tcp>;expires=50";
    assert_eq!(granted(by_uri, &[]), Some(50));
    assert_eq!(granted(other, &[]), None);
    assert_eq!(granted(&alloc::format!("{named};expires=0"), &[]), None);
}

// spec: GRUU-4.2-1, PRJ-6-1, MEM-5.1.1.4-1
#[test]
fn refreshes_come_in_time() {
    let refresh = |config: UserAgentConfig, granted: u64, seed| {
        let mut bench = seeded(config, seed);
        bench.start();
        let (flow, register) = bench.next_request();
        let contact =
            alloc::format!("<sip:x@y>;reg-id=1;+sip.instance=\"<{URN}>\";expires={granted}");
        bench.answer(
            flow,
            &register,
            200,
            &[("Contact", &contact), ("Require", "outbound")],
        );
        while !bench
            .sent
            .iter()
            .any(|(_, bytes)| bytes.starts_with(b"REGISTER"))
        {
            let next = bench.ua.poll_timeout().unwrap();
            bench.now = next;
            bench.ua.handle_timeout(next);
            bench.drain();
            if bench.sent.iter().any(|(_, bytes)| bytes == b"\r\n\r\n") {
                bench.sent.clear();
                bench.input(flow, b"\r\n");
            }
        }
        bench.now.duration_since(at(0)).as_millis() as u64
    };
    assert_eq!(refresh(config(1), 60, 1), 30_000);
    assert_eq!(refresh(config(1), 64, 1), 32_000);
    for seed in 0..30 {
        let at = refresh(config(1), 3600, seed);
        assert!((2_880_000..=3_240_000).contains(&at), "{at}");
        let at = refresh(config(1), 100, seed);
        assert!(at <= 68_000, "{at}");
    }
    let ims = || UserAgentConfig {
        profile: Profile::Ims,
        ..config(1)
    };
    assert_eq!(refresh(ims(), 1201, 1), 601_000);
    assert_eq!(refresh(ims(), 1200, 1), 600_000);
    assert_eq!(refresh(ims(), 600, 1), 300_000);
}

// spec: OUT-4.2.2-1, SIP-10.2-3
#[test]
fn a_refresh_and_the_removal_keep_names_and_flow() {
    let (mut bench, flows) = Bench::registered(config(1), &[]);
    bench.run_for(100_000);
    bench.sent.clear();
    bench.ua.handle_timeout(bench.now);
    // The keep-alive is answered.
    bench.input(flows[0], b"\r\n");
    while bench.sent.is_empty() || !bench.sent[0].1.starts_with(b"REGISTER") {
        bench.sent.clear();
        let next = bench.ua.poll_timeout().unwrap();
        bench.now = next;
        bench.ua.handle_timeout(next);
        bench.drain();
        if bench.sent.iter().any(|(_, bytes)| bytes == b"\r\n\r\n") {
            bench.input(flows[0], b"\r\n");
        }
    }
    let (flow, refresh) = bench.next_request();
    assert_eq!(flow, flows[0]);
    let contact = refresh.contacts(&Limits::DEFAULT).next().unwrap().unwrap();
    assert_eq!(
        (contact.reg_id(), contact.instance().as_deref()),
        (Some(1), Some(URN))
    );
    assert_eq!(refresh.cseq_number(), 2);
    // The removal waits for the answer.
    bench.ua.stop(bench.now);
    bench.drain();
    assert!(bench.sent.is_empty());
    let contact = alloc::string::ToString::to_string(refresh.only(Name::CONTACT).unwrap());
    bench.answer(
        flow,
        &refresh,
        200,
        &[("Contact", &contact), ("Require", "outbound")],
    );
    let (flow, removal) = bench.next_request();
    assert_eq!(flow, flows[0]);
    let contact = removal.contacts(&Limits::DEFAULT).next().unwrap().unwrap();
    assert_eq!(
        (contact.reg_id(), contact.expires(), removal.cseq_number()),
        (Some(1), Some(0), 3)
    );
    assert_eq!(removal.call_id(), refresh.call_id());
}

// spec: MEM-5.1.1.6-1, SEC-G-18
#[test]
fn stopping_removes_closes_and_then_is_silent() {
    let (mut bench, flows) = Bench::registered(config(2), &[]);
    bench.ua.stop(bench.now);
    bench.drain();
    for flow in &flows {
        let (on, removal) = bench.next_request();
        assert_eq!(on, *flow);
        bench.answer(on, &removal, 200, &[]);
        assert!(bench.closed(*flow));
    }
    assert_eq!(bench.kinds(), "Unregistered Unregistered Stopped");
    bench.actions.clear();
    bench.ua.start(bench.now);
    bench.input(flows[0], b"\r\n\r\n");
    bench.run_for(10_000_000);
    assert!(bench.sent.is_empty() && bench.events.is_empty() && bench.actions.is_empty());
    assert_eq!(bench.ua.poll_timeout(), None);
    let refused = bench
        .ua
        .request(bench.now, NewRequest::new(Method::MESSAGE, "sip:b@c"));
    assert_eq!(refused, Err(RequestError::NoFlow));
    let mut bench = Bench::registered(config(1), &[]).0;
    bench.ua.stop(bench.now);
    bench.run_for(32_000);
    assert_eq!(bench.kinds(), "Unregistered Stopped");
}

// spec: SIP-10.2.8-1
#[test]
fn a_longer_minimum_is_obeyed_once() {
    let mut bench1 = bench(config(1));
    bench1.start();
    let (flow, register) = bench1.next_request();
    bench1.answer(flow, &register, 423, &[("Min-Expires", "7200")]);
    let (flow, again) = bench1.next_request();
    assert!(again.only(Name::CONTACT).unwrap().ends_with("expires=7200"));
    bench1.answer(flow, &again, 423, &[("Min-Expires", "9000")]);
    assert_eq!(bench1.refusal(), Some(Refusal::MinExpires));
    for rows in [&[("Min-Expires", "3600")][..], &[]] {
        let mut bench = bench(config(1));
        bench.start();
        let (flow, register) = bench.next_request();
        bench.answer(flow, &register, 423, rows);
        assert_eq!(bench.refusal(), Some(Refusal::MinExpires));
        assert!(bench.sent.is_empty());
    }
}

// spec: OUT-4.2.1-10, OUT-11.5-1, SIP-8.1.3-1
#[test]
fn what_waiting_does_not_cure_is_not_tried_again() {
    for code in [400, 403, 404, 420, 430, 439, 499, 603, 305] {
        let mut bench = bench(config(1));
        bench.start();
        let (flow, register) = bench.next_request();
        bench.answer(flow, &register, code, &[]);
        let status = StatusCode::new(code).unwrap();
        assert_eq!(bench.refusal(), Some(Refusal::Status(status)));
        bench.run_for(10_000_000);
        assert!(bench.sent.is_empty() && bench.closed(flow));
    }
}

// spec: SRT-6.1-1, SRT-6.1-2, MEM-5.1.2A-1
#[test]
fn service_route_follows_the_edge_proxy_in_requests() {
    let routes = |bench: &mut Bench| {
        let message = NewRequest::new(Method::MESSAGE, "sip:bob@example.com");
        bench.ua.request(bench.now, message).unwrap();
        bench.drain();
        let (_, request) = bench.next_request();
        request
            .list(Name::ROUTE)
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let rows = [(
        "Service-Route",
        "<sip:sr1.example.com;lr>, <sip:sr2.example.com;lr>",
    )];
    let (mut bench, flows) = Bench::registered(config(1), &rows);
    assert_eq!(
        routes(&mut bench),
        [
            "<sips:ep1.example.com;lr>",
            "<sip:sr1.example.com;lr>",
            "<sip:sr2.example.com;lr>"
        ]
    );
    // The refresh brings none.
    while !bench
        .sent
        .iter()
        .any(|(_, bytes)| bytes.starts_with(b"REGISTER"))
    {
        let next = bench.ua.poll_timeout().unwrap();
        bench.now = next;
        bench.ua.handle_timeout(next);
        bench.drain();
        if bench.sent.iter().any(|(_, bytes)| bytes == b"\r\n\r\n") {
            bench.sent.clear();
            bench.input(flows[0], b"\r\n");
        }
    }
    bench
        .sent
        .retain(|(_, bytes)| bytes.starts_with(b"REGISTER"));
    bench.accept(&[]);
    assert_eq!(routes(&mut bench), ["<sips:ep1.example.com;lr>"]);
}

#[test]
fn the_event_tells_what_was_granted() {
    let mut bench = bench(config(1));
    bench.start();
    let (flow, register) = bench.next_request();
    let contact = alloc::format!(
        "<sip:x@y>;reg-id=1;+sip.instance=\"<{URN}>\";expires=60;pub-gruu=\"sip:alice@ims.example.com;gr=x\";temp-gruu=\"sip:t@ims.example.com;gr\""
    );
    let rows = [
        ("Contact", contact.as_str()),
        ("Require", "outbound"),
        ("Path", "<sip:t@ep1;lr;ob>"),
        ("P-Associated-URI", "<sip:alice@ims.example.com>, <tel:+1>"),
        ("Flow-Timer", "100"),
    ];
    bench.answer(flow, &register, 200, &rows);
    let registration = bench.events.iter().find_map(|event| match event {
        UserAgentEvent::Registered { registration, .. } => Some(registration.clone()),
        _ => None,
    });
    let expected = Registration {
        expires: 60,
        outbound: true,
        path: alloc::vec!["<sip:t@ep1;lr;ob>".into()],
        service_route: Vec::new(),
        pub_gruu: Some("sip:alice@ims.example.com;gr=x".into()),
        temp_gruu: Some("sip:t@ims.example.com;gr".into()),
        associated: alloc::vec!["<sip:alice@ims.example.com>".into(), "<tel:+1>".into()],
        keep_alive: Some(Duration::from_secs(100)),
        sec_agree: false,
    };
    assert_eq!(registration, Some(expected));
}

// spec: PRJ-15-1
#[test]
fn a_realm_the_peer_has_not_proven_is_suspicious() {
    let mut bench = bench(config(1));
    bench.ua.start(at(0));
    bench.drain();
    let FlowAction::OpenFlow { flow, .. } = bench.actions.remove(0) else {
        panic!()
    };
    bench.ua.flow_opened(
        at(0),
        flow,
        tuple(Transport::Tls, 1),
        alloc::vec!["ep1.elsewhere.example".into()],
    );
    bench.drain();
    let (_, register) = bench.next_request();
    let challenge = "Digest realm=\"ims.example.com\",nonce=\"n\",qop=\"auth\",algorithm=SHA-256";
    bench.answer(flow, &register, 401, &[("WWW-Authenticate", challenge)]);
    assert_eq!(bench.kinds(), "Suspicious");
}

// spec: PRI-7-1
#[test]
fn a_card_is_asked_through_the_host() {
    let mut config = config(1);
    config.accounts[0].password = crate::digest::Password::Card;
    let mut bench = bench(config);
    bench.start();
    let (flow, register) = bench.next_request();
    let challenge = "Digest realm=\"ims.example.com\",nonce=\"I1U8vpY3qJ0hiuZNrke/NVXzKLQ1d7m5Sp/6w1Tfr7M=\",qop=\"auth\",algorithm=AKAv1-MD5";
    bench.answer(flow, &register, 401, &[("WWW-Authenticate", challenge)]);
    assert_eq!(bench.kinds(), "CardNeeded");
    assert!(bench.sent.is_empty());
    bench
        .ua
        .card_answer(bench.now, 1, &crate::digest::AkaAnswer::MacFailure);
    bench
        .ua
        .card_answer(bench.now, 1, &crate::digest::AkaAnswer::MacFailure);
    bench.drain();
    assert_eq!(bench.sent.len(), 1);
    let (_, again) = bench.next_request();
    assert!(
        again
            .only(Name::AUTHORIZATION)
            .unwrap()
            .contains("response=\"\"")
    );
}

// spec: MEM-5.1.1.3-1
#[test]
fn the_network_may_end_a_registration() {
    let (mut bench, flows) = Bench::registered(config(2), &[]);
    let end = |bench: &mut Bench, reg_id, end| {
        let known = bench.ua.registration_ended(bench.now, reg_id, end);
        bench.drain();
        known
    };
    // Deactivated: anew, at once, over the same flow.
    assert!(end(&mut bench, 1, RegistrationEnd::Deactivated));
    let (flow, register) = bench.next_request();
    let contact = register.contacts(&Limits::DEFAULT).next().unwrap().unwrap();
    assert_eq!(
        (flow, contact.reg_id(), contact.expires()),
        (flows[0], Some(1), Some(3600))
    );
    assert_eq!(register.cseq_number(), 2);
    // There is nothing to end while it is being made.
    assert!(!end(&mut bench, 1, RegistrationEnd::Rejected));
    bench.answer(
        flow,
        &register,
        200,
        &[
            ("Contact", register.only(Name::CONTACT).unwrap()),
            ("Require", "outbound"),
        ],
    );
    assert_eq!(bench.kinds(), "Registered");
    // On probation: after the time that was named.
    assert!(end(
        &mut bench,
        1,
        RegistrationEnd::Probation(Duration::from_secs(77))
    ));
    assert!(bench.closed(flows[0]));
    bench.actions.clear();
    bench.run_for(76_999);
    assert!(bench.actions.is_empty());
    bench.run_for(1);
    assert_eq!(bench.open().len(), 1);
    bench.accept(&[]);
    bench.kinds();
    // Rejected: for good.
    assert!(end(&mut bench, 2, RegistrationEnd::Rejected));
    assert_eq!(bench.refusal(), Some(Refusal::Ended));
    assert!(bench.closed(flows[1]));
    assert!(!end(&mut bench, 2, RegistrationEnd::Deactivated));
    assert!(!end(&mut bench, 3, RegistrationEnd::Deactivated));
}

// spec: OUT-4.2.3-1, SIP-10.2.2-1
#[test]
fn contacts_of_others_and_all_at_once_carry_neither_instance_nor_reg_id() {
    let (mut bench, flows) = Bench::registered(config(2), &[]);
    let now = bench.now;
    let other = uri("sip:alice@192.0.2.77;ob");
    bench.ua.register_other(now, &other, 600).unwrap();
    bench.drain();
    let (flow, register) = bench.next_request();
    assert_eq!(flow, flows[0]);
    assert_eq!(
        masked(&register),
        "REGISTER sip:ims.example.com SIP/2.0\r\nVia: SIP/2.0/TLS 10.7.0.9:40112;branch=BRANCH;rport\r\n\
         Route: <sips:ep1.example.com;lr>\r\nMax-Forwards: 70\r\nFrom: <sip:alice@ims.example.com>;tag=TAG\r\n\
         To: <sip:alice@ims.example.com>\r\nCall-ID: CALL\r\nCSeq: 1 REGISTER\r\nSupported: path\r\n\
         Contact: <sip:alice@192.0.2.77;ob>;expires=600\r\nContent-Length: 0\r\n\r\n"
    );
    let challenge = "Digest realm=\"ims.example.com\",nonce=\"n\",qop=\"auth\",algorithm=SHA-256";
    bench.answer(flow, &register, 401, &[("WWW-Authenticate", challenge)]);
    let (_, register) = bench.next_request();
    assert!(register.has(Name::AUTHORIZATION));
    bench.answer(
        flow,
        &register,
        200,
        &[("Contact", "<sip:alice@192.0.2.77;ob>;expires=600")],
    );
    assert_eq!(bench.kinds(), "Response");

    bench.ua.remove_all_bindings(now).unwrap();
    bench.drain();
    let (_, register) = bench.next_request();
    assert_eq!(register.only(Name::CONTACT), Ok("*"));
    assert_eq!(register.only(Name::EXPIRES), Ok("0"));
    assert!(!text(&register).contains("instance") && !text(&register).contains("reg-id"));
    bench.answer(flow, &register, 200, &[]);
    // The own ones come back.
    let mut again: Vec<_> = (0..2)
        .map(|_| {
            let (_, register) = bench.next_request();
            register
                .contacts(&Limits::DEFAULT)
                .next()
                .unwrap()
                .unwrap()
                .reg_id()
        })
        .collect();
    again.sort();
    assert_eq!(again, [Some(1), Some(2)]);
    let mut idle = super::bench(super::config(1));
    assert_eq!(idle.ua.remove_all_bindings(now), Err(RequestError::NoFlow));
}
