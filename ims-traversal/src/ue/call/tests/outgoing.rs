use super::*;

#[test]
fn a_call_is_made_and_hung_up() {
    let mut bench = bench();
    let (call, invite) = bench.invite();
    assert_eq!(invite.body(), b"offer");
    assert_eq!(invite.only(Name::CONTENT_TYPE), Ok("application/sdp"));
    let allow = "INVITE, ACK, CANCEL, BYE, OPTIONS, MESSAGE, INFO, UPDATE";
    assert_eq!(invite.only(Name::ALLOW), Ok(allow));
    bench.answer(&invite, 100, "", &[], "");
    bench.quiet();
    bench.answer(&invite, 180, "b", &[CONTACT], "");
    assert_eq!(bench.event(), "progress Some(0) 180 -");
    bench.answer(&invite, 183, "b", &[CONTACT], "early");
    assert_eq!(bench.event(), "progress Some(0) 183 early");
    let rows = [CONTACT, ROUTES];
    bench.answer(&invite, 200, "b", &rows, "answer");
    let ack = bench.request("ACK");
    assert_eq!(ack.uri_text(), "sip:bob@far.example.com");
    assert_eq!(ack.body(), b"");
    assert_eq!(bench.event(), "answered answer");
    assert_eq!(bench.event(), "established");
    // Its ACK was lost.
    bench.run(1_000);
    bench.answer(&invite, 200, "b", &rows, "answer");
    bench.request("ACK");
    bench.quiet();
    bench.hang_up(call);
    let bye = bench.request("BYE");
    assert_eq!(bye.to_tag(), Some("b"));
    assert_eq!(bye.cseq_number(), invite.cseq_number() + 1);
    bench.hang_up(call);
    bench.quiet();
    // Also while hanging up.
    bench.answer(&invite, 200, "b", &rows, "answer");
    bench.request("ACK");
    bench.answer(&bye, 200, "", &[], "");
    bench.over(&EndCause::HungUp);
    // And when it is over.
    bench.answer(&invite, 200, "b", &rows, "answer");
    bench.request("ACK");
    assert_eq!(bench.calls.accepted.len(), 1);
    // The next event sweeps it out.
    bench.run(32_000);
    bench.sent.clear();
    let (_, other) = bench.invite();
    bench.answer(&other, 100, "", &[], "");
    assert!(bench.calls.accepted.is_empty());
}

#[test]
fn the_first_fork_wins_and_the_others_are_ended() {
    let mut bench = bench();
    let (call, invite) = bench.invite();
    for (tag, fork) in [("a", 0), ("b", 1), ("a", 0)] {
        bench.answer(&invite, 180, tag, &[CONTACT], "");
        assert_eq!(bench.event(), alloc::format!("progress Some({fork}) 180 -"));
    }
    bench.answer(&invite, 200, "b", &[CONTACT], "answer");
    assert_eq!(bench.request("ACK").to_tag(), Some("b"));
    assert_eq!(bench.event(), "answered answer");
    assert_eq!(bench.event(), "established");
    bench.answer(&invite, 200, "a", &[CONTACT], "other");
    assert_eq!(bench.request("ACK").to_tag(), Some("a"));
    let bye = bench.request("BYE");
    assert_eq!(bye.to_tag(), Some("a"));
    bench.answer(&invite, 200, "a", &[CONTACT], "other");
    assert_eq!(bench.request("ACK").to_tag(), Some("a"));
    bench.answer(&bye, 200, "", &[], "");
    bench.quiet();
    assert!(bench.calls.strays.is_empty());
    bench.hang_up(call);
    assert_eq!(bench.request("BYE").to_tag(), Some("b"));
}

#[test]
fn forks_are_limited() {
    let mut bench = bench_with(CallConfig {
        max_forks: 2,
        ..CallConfig::default()
    });
    let (_, invite) = bench.invite();
    for tag in ["a", "b", "c"] {
        bench.answer(&invite, 180, tag, &[CONTACT], "");
    }
    assert_eq!(bench.events.len(), 2);
    for tag in ["a", "b", "c", "d"] {
        bench.answer(&invite, 200, tag, &[CONTACT], "answer");
    }
    let byes = bench.sent.iter().filter(|(_, m)| m.method() == "BYE");
    assert_eq!(byes.count(), 2);
}

// spec: SIP-9.1-1
#[test]
fn a_call_is_given_up_before_it_is_answered() {
    let mut bench = bench();
    let (call, invite) = bench.invite();
    bench.hang_up(call);
    bench.quiet();
    bench.answer(&invite, 180, "b", &[CONTACT], "");
    let cancel = bench.request("CANCEL");
    assert_eq!(cancel.branch(), invite.branch());
    bench.answer(&cancel, 200, "", &[], "");
    bench.events.clear();
    bench.answer(&invite, 487, "b", &[], "");
    bench.request("ACK");
    bench.over(&EndCause::HungUp);
}

#[test]
fn an_answer_that_crosses_cancel_is_acknowledged_and_ended() {
    let mut bench = bench();
    let (call, invite) = bench.invite();
    bench.hang_up(call);
    bench.answer(&invite, 200, "b", &[CONTACT], "answer");
    bench.request("ACK");
    let bye = bench.request("BYE");
    bench.answer(&bye, 200, "", &[], "");
    bench.over(&EndCause::HungUp);
}

#[test]
fn refusals_say_why() {
    let retry = [("Retry-After", "120 (in a meeting)")];
    let moved = [("Contact", "<sip:bob@new.example.com>, <tel:+123>")];
    for (code, rows, retry_after, contacts) in [
        (486, &retry[..], Some(120), &[][..]),
        (
            302,
            &moved[..],
            None,
            &["sip:bob@new.example.com", "tel:+123"],
        ),
        (422, &[], None, &[]),
        (603, &[], None, &[]),
    ] {
        let mut bench = bench();
        let (_, invite) = bench.invite();
        bench.answer(&invite, code, "b", rows, "");
        bench.request("ACK");
        bench.over(&EndCause::Refused {
            code: StatusCode::new(code).unwrap(),
            retry_after: retry_after.map(Duration::from_secs),
            contacts: contacts.iter().map(|c| String::from(*c)).collect(),
        });
    }
}

#[test]
fn a_challenge_without_account_ends_the_call_by_name() {
    let mut bench = bench();
    let (_, invite) = bench.invite();
    let challenge = "Digest realm=\"elsewhere\",nonce=\"n\",qop=\"auth\",algorithm=SHA-256";
    bench.answer(&invite, 407, "b", &[("Proxy-Authenticate", challenge)], "");
    bench.request("ACK");
    assert!(bench.event().starts_with("ended: "), "{:?}", bench.events);
    assert!(bench.calls.is_empty());
}

#[test]
fn no_answer_ends_the_call() {
    let mut bench = bench();
    bench.invite();
    bench.run(32_000);
    bench.over(&EndCause::TimedOut);
}

#[test]
fn an_accepted_call_without_description_is_ended() {
    for (rows, body) in [
        (&[CONTACT][..], ""),
        (&[CONTACT, ("Content-Encoding", "gzip")], "x"),
    ] {
        let mut bench = bench();
        let (_, invite) = bench.invite();
        bench.answer(&invite, 200, "b", rows, body);
        bench.request("ACK");
        let bye = bench.request("BYE");
        bench.answer(&bye, 481, "", &[], "");
        bench.over(&EndCause::Description);
    }
    let mut bench = bench();
    let (_, invite) = bench.invite();
    bench.answer(&invite, 200, "b", &[], "answer");
    bench.over(&EndCause::Malformed);
}

#[test]
fn a_lost_flow_ends_what_is_not_answered_yet() {
    let mut bench = bench();
    bench.invite();
    bench.lose_flow();
    bench.over(&EndCause::FlowLost);
}

#[test]
fn the_end_of_a_call_waits_for_a_flow() {
    let mut bench = bench();
    let call = bench.outgoing();
    bench.lose_flow();
    bench.hang_up(call);
    bench.quiet();
    bench.run(60_500);
    bench.register();
    let bye = bench.request("BYE");
    bench.answer(&bye, 200, "", &[], "");
    bench.over(&EndCause::HungUp);

    // BYE itself was under way.
    let call = bench.outgoing();
    bench.hang_up(call);
    bench.request("BYE");
    bench.lose_flow();
    bench.quiet();
    // Too late.
    bench.run(64_500);
    bench.over(&EndCause::HungUp);
}

#[test]
fn misuse_changes_nothing() {
    let mut bench = bench_with(CallConfig {
        max_calls: 1,
        ..CallConfig::default()
    });
    let call = bench.calls.prepare("sip:bob@c", Vec::new()).unwrap();
    assert_eq!(
        bench.calls.prepare("sip:b@c", Vec::new()),
        Err(CallError::Full)
    );
    let none = CallId(99);
    let (now, body) = (bench.now, Bytes::new());
    let ua = &mut bench.ua;
    let calls = &mut bench.calls;
    let (state, unknown) = (Err(CallError::State), Err(CallError::Unknown));
    let busy = StatusCode::BUSY_HERE;
    for (id, expected) in [(call, state), (none, unknown)] {
        assert_eq!(calls.ring(now, ua, id), expected);
        assert_eq!(calls.accept(now, ua, id, &body), expected);
        assert_eq!(calls.refuse(now, ua, id, busy), expected);
        assert_eq!(calls.info(now, ua, id, "a/b", body.clone()), expected);
        let offer = calls.offer(now, ua, id, Method::INVITE, body.clone());
        assert_eq!(offer, expected);
    }
    assert_eq!(calls.invite(now, ua, none, body.clone()), unknown);
    assert_eq!(calls.hang_up(now, ua, none, EndCause::HungUp), unknown);
    let busy = inbound("INVITE", 1, "", "", "offer");
    bench.input(busy.as_bytes());
    bench.response(486);
    bench.hang_up(call);
    bench.over(&EndCause::HungUp);
}

#[test]
fn a_callee_changes_nothing_before_it_answers() {
    let mut bench = bench();
    let (_, invite) = bench.invite();
    bench.answer(&invite, 180, "b", &[CONTACT], "");
    bench.events.clear();
    let own = invite.from_tag().unwrap().to_string();
    let call_id = alloc::format!("Call-ID: {}", invite.call_id());
    let update = |cseq, body| {
        let update = inbound("UPDATE", cseq, &own, "", body);
        let update = update.replace("Call-ID: call", &call_id);
        update.replace("tag=far", "tag=b")
    };
    bench.input(update(1, "offer").as_bytes());
    bench.response(491);
    bench.input(update(2, "").as_bytes());
    bench.response(200);
    bench.quiet();
    // No dialog of that tag is known.
    bench.input(update(3, "offer").replace("tag=b", "tag=c").as_bytes());
    bench.response(481);
}

#[test]
fn descriptions_are_not_shown() {
    let mut bench = bench();
    let (call, invite) = bench.invite();
    let secret = "a=ice-pwd:topsecret";
    bench.answer(&invite, 200, "b", &[CONTACT], secret);
    bench.request("ACK");
    assert!(!alloc::format!("{:?}", bench.events).contains("topsecret"));
    bench.events.clear();
    let body = Bytes::from_static(secret.as_bytes());
    bench
        .calls
        .offer(bench.now, &mut bench.ua, call, Method::INVITE, body)
        .unwrap();
    assert!(!alloc::format!("{:?}", bench.calls).contains("topsecret"));
}

/// RFC 5621 section 3.1.
#[test]
fn descriptions_are_found_among_other_parts_of_a_body() {
    const MIXED: (&str, &str) = ("Content-Type", "multipart/mixed;boundary=b");
    let among = |sdp: &str| {
        alloc::format!(
            "--b\r\nContent-Type: application/pidf+xml\r\n\r\n<x/>\r\n\
             --b\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--b--\r\n"
        )
    };
    let mut bench = bench();
    let (_, invite) = bench.invite();
    bench.answer(&invite, 183, "b", &[CONTACT, MIXED], &among("early"));
    assert_eq!(bench.event(), "progress Some(0) 183 early");
    bench.answer(&invite, 200, "b", &[CONTACT, MIXED], &among("answer"));
    bench.request("ACK");
    assert_eq!(bench.event(), "answered answer");
    assert_eq!(bench.event(), "established");

    let mixed = alloc::format!("{}: {}\r\n", MIXED.0, MIXED.1);
    let mut bench = super::bench();
    bench.input(inbound("INVITE", 1, "", &mixed, &among("offer")).as_bytes());
    assert_eq!(bench.event(), "incoming sip:bob@example.com offer");

    let mut bench = super::bench();
    let call = bench.called("");
    bench.accept(call, "offer");
    let ok = bench.response(200);
    let tag = ok.to(&Limits::DEFAULT).unwrap().tag().unwrap().to_string();
    bench.input(inbound("ACK", 1, &tag, &mixed, &among("answer")).as_bytes());
    assert_eq!(bench.event(), "answered answer");
    assert_eq!(bench.event(), "established");
    bench.input(inbound("INVITE", 2, &tag, &mixed, &among("again")).as_bytes());
    assert_eq!(bench.event(), "offer again");
}

#[test]
fn a_body_that_need_not_be_understood_is_passed_over() {
    let check = |rows: &str, body: &str, expected: &str| {
        let mut bench = bench();
        bench.input(inbound("INVITE", 1, "", rows, body).as_bytes());
        if expected == "415" {
            let refused = bench.response(415);
            let accept = refused.only(Name::ACCEPT).unwrap();
            assert!(accept.contains("multipart/mixed"), "{accept}");
        } else {
            assert_eq!(
                bench.event(),
                alloc::format!("incoming sip:bob@example.com {expected}")
            );
        }
    };
    let image = "Content-Type: image/gif\r\n";
    check(image, "x", "415");
    let optional = alloc::format!("{image}Content-Disposition: icon ; Handling=Optional\r\n");
    check(&optional, "x", "-");
    // No type at all, but nothing else begins like this.
    check("X-Content-Type: none\r\n", "v=0\r\n", "v=0\\r\\n");
}
