use super::*;

#[test]
fn a_call_is_taken_and_the_caller_hangs_up() {
    let mut bench = bench();
    let invite = inbound("INVITE", 1, "", "", "offer");
    bench.input(invite.as_bytes());
    let Some(CallEvent::Incoming {
        call,
        from,
        display_name,
        to,
        offer,
    }) = bench.events.pop_front()
    else {
        panic!()
    };
    assert_eq!(
        (from.as_str(), to.as_str()),
        ("sip:bob@example.com", "sip:alice@ims.example.com")
    );
    assert_eq!(display_name.as_deref(), Some("Bob"));
    assert_eq!(offer.as_deref(), Some(&b"offer"[..]));
    bench.calls.ring(bench.now, &mut bench.ua, call).unwrap();
    bench.drain();
    let ringing = bench.response(180);
    bench.accept(call, "answer");
    let ok = bench.response(200);
    let limits = Limits::DEFAULT;
    let tag = ok.to(&limits).unwrap().tag().unwrap();
    assert_eq!(ringing.to(&limits).unwrap().tag(), Some(tag));
    assert_eq!(ok.body(), b"answer");
    assert_eq!(ok.only(Name::CONTENT_TYPE), Ok("application/sdp"));
    assert!(ok.has(Name::ALLOW) && ok.has(Name::CONTACT));
    bench.quiet();
    bench.input(inbound("ACK", 1, tag, "", "").as_bytes());
    assert_eq!(bench.event(), "established");
    bench.input(inbound("BYE", 2, tag, "", "").as_bytes());
    bench.response(200);
    bench.over(&EndCause::RemoteHungUp);
    bench.input(inbound("INFO", 3, tag, "", "").as_bytes());
    bench.response(481);
}

#[test]
fn a_call_without_offer_gets_one() {
    for (answer, expected) in [("answer", "answered answer"), ("", "nothing")] {
        let mut bench = bench();
        let call = bench.called("");
        bench.accept(call, "our offer");
        let ok = bench.response(200);
        let tag = ok.to(&Limits::DEFAULT).unwrap().tag().unwrap();
        bench.input(inbound("ACK", 1, tag, "", answer).as_bytes());
        assert_eq!(bench.event(), expected);
        if answer.is_empty() {
            let bye = bench.request("BYE");
            bench.answer(&bye, 200, "", &[], "");
            bench.over(&EndCause::Description);
        } else {
            assert_eq!(bench.event(), "established");
        }
    }
}

#[test]
fn the_callee_hangs_up_when_the_caller_knows() {
    let mut bench = bench();
    let call = bench.called("offer");
    bench.accept(call, "answer");
    let ok = bench.response(200);
    let tag = ok.to(&Limits::DEFAULT).unwrap().tag().unwrap();
    bench.hang_up(call);
    bench.quiet();
    bench.input(inbound("ACK", 1, tag, "", "").as_bytes());
    let bye = bench.request("BYE");
    bench.answer(&bye, 200, "", &[], "");
    bench.over(&EndCause::HungUp);
}

#[test]
fn a_call_that_is_never_acknowledged_is_ended() {
    let mut bench = bench();
    let call = bench.called("offer");
    bench.accept(call, "answer");
    bench.run(32_000);
    let (_, bye) = bench.sent.pop_back().unwrap();
    assert_eq!(bye.method(), "BYE");
    bench.sent.clear();
    let bye = Request::check(bye, &Limits::DEFAULT).unwrap();
    bench.answer(&bye, 200, "", &[], "");
    bench.over(&EndCause::NotAcknowledged);
}

#[test]
fn a_call_is_refused_cancelled_or_forgotten() {
    let mut bench = bench();
    let call = bench.called("offer");
    let (now, busy) = (bench.now, StatusCode::BUSY_HERE);
    let ringing = bench
        .calls
        .refuse(now, &mut bench.ua, call, StatusCode::RINGING);
    assert_eq!(ringing, Err(CallError::State));
    bench.calls.refuse(now, &mut bench.ua, call, busy).unwrap();
    bench.drain();
    bench.response(486);
    bench.over(&EndCause::HungUp);

    let mut bench = bench_with(CallConfig::default());
    let call = bench.called("offer");
    bench.hang_up(call);
    bench.response(603);
    bench.over(&EndCause::HungUp);

    let mut bench = bench_with(CallConfig::default());
    bench.called("offer");
    let cancel = inbound("CANCEL", 1, "", "", "").replace("z9hG4bKCANCEL", "z9hG4bKINVITE");
    bench.input(cancel.as_bytes());
    bench.response(200);
    bench.response(487);
    bench.over(&EndCause::Cancelled);

    let mut bench = bench_with(CallConfig::default());
    bench.called("offer");
    bench.run(179_000);
    bench.sent.clear();
    bench.run(1_000);
    bench.response(480);
    bench.over(&EndCause::NotAnswered);

    let mut bench = bench_with(CallConfig::default());
    bench.called("offer");
    bench.lose_flow();
    bench.over(&EndCause::FlowLost);
}

#[test]
fn what_cannot_become_a_call_is_refused() {
    let too_long = "x".repeat(20_000);
    let invite = inbound("INVITE", 1, "", "", "offer");
    for (text, code, row) in [
        (
            invite.replace("Contact: <sip:bob@far.example.com>\r\n", ""),
            400,
            None,
        ),
        (
            invite.replace("application/sdp", "multipart/mixed"),
            415,
            Some("Accept"),
        ),
        (inbound("INVITE", 1, "", "", &too_long), 413, None),
        (inbound("INVITE", 1, "unknown", "", "offer"), 481, None),
        (inbound("BYE", 1, "unknown", "", ""), 481, None),
        (inbound("BYE", 1, "", "", ""), 481, None),
        (
            inbound("INVITE", 1, "", "Require: 100rel\r\n", "offer"),
            420,
            Some("Unsupported"),
        ),
    ] {
        let mut bench = bench();
        bench.input(text.as_bytes());
        let refusal = bench.response(code);
        assert!(row.is_none_or(|row| refusal.has(row)));
        bench.quiet();
        assert!(bench.calls.is_empty());
    }
}

#[test]
fn a_call_that_comes_twice_is_taken_once() {
    let mut bench = bench();
    bench.called("offer");
    let again = inbound("INVITE", 1, "", "", "offer").replace("z9hG4bKINVITE", "z9hG4bKother");
    bench.input(again.as_bytes());
    bench.response(482);
    bench.quiet();
}

#[test]
fn info_is_taken_within_a_call() {
    let mut bench = bench();
    let (call, tag) = bench.incoming();
    let dtmf = "Content-Type: application/dtmf-relay\r\n";
    bench.input(inbound("INFO", 2, &tag, dtmf, "Signal=5").as_bytes());
    bench.response(200);
    assert_eq!(bench.event(), "info application/dtmf-relay Signal=5");
    let package = "Info-Package: foo\r\n";
    bench.input(inbound("INFO", 3, &tag, package, "").as_bytes());
    bench.response(469);
    let long = "x".repeat(20_000);
    bench.input(inbound("INFO", 4, &tag, "", &long).as_bytes());
    bench.response(413);
    // Out of order.
    bench.input(inbound("INFO", 1, &tag, "", "").as_bytes());
    bench.response(500);
    bench.quiet();
    let (now, body) = (bench.now, Bytes::from_static(b"Signal=7"));
    let sent = bench
        .calls
        .info(now, &mut bench.ua, call, "application/dtmf-relay", body);
    assert_eq!(sent, Ok(()));
    bench.drain();
    let info = bench.request("INFO");
    assert_eq!(info.body(), b"Signal=7");
    bench.answer(&info, 200, "", &[], "");
    bench.quiet();
    assert!(bench.calls.strays.is_empty());
    // OPTIONS and MESSAGE go to whoever handles them outside of calls as well.
    bench.input(inbound("OPTIONS", 5, &tag, "", "").as_bytes());
    assert!(matches!(
        bench.others.last(),
        Some(UserAgentEvent::Request { .. })
    ));
}

#[test]
fn byes_that_cross_end_the_call() {
    let mut bench = bench();
    let (call, tag) = bench.incoming();
    bench.hang_up(call);
    let bye = bench.request("BYE");
    bench.input(inbound("BYE", 2, &tag, "", "").as_bytes());
    bench.response(200);
    bench.input(inbound("INVITE", 3, &tag, "", "offer").as_bytes());
    bench.response(481);
    bench.answer(&bye, 481, "", &[], "");
    bench.over(&EndCause::HungUp);
}

#[test]
fn a_stopped_user_agent_has_no_calls() {
    let mut bench = bench();
    bench.incoming();
    bench.ua.stop(bench.now);
    bench.drain();
    let register = bench.request("REGISTER");
    bench.answer(&register, 200, "", &[], "");
    bench.over(&EndCause::Stopped);
}

#[test]
fn a_user_agent_that_stops_keeps_why_its_calls_were_to_end() {
    let mut bench = bench();
    let (call, _) = bench.incoming();
    bench.hang_up(call);
    bench.request("BYE");
    bench.ua.stop(bench.now);
    bench.drain();
    let register = bench.request("REGISTER");
    bench.answer(&register, 200, "", &[], "");
    assert_eq!(bench.event(), "ended: this side hung up");
}

/// A call that rings, and the tag its 180 had.
fn ringing(bench: &mut Bench) -> String {
    let call = bench.called("offer");
    bench.calls.ring(bench.now, &mut bench.ua, call).unwrap();
    bench.drain();
    let ringing = bench.response(180);
    let to = ringing.to(&Limits::DEFAULT).unwrap();
    to.tag().unwrap().to_string()
}

// RFC 3261 section 15: the caller may end an early dialog by BYE.
#[test]
fn a_caller_ends_an_early_dialog() {
    let mut bench = bench();
    let tag = ringing(&mut bench);
    // Out of order, and not its dialog.
    bench.input(inbound("BYE", 1, &tag, "", "").as_bytes());
    bench.response(500);
    let other = inbound("BYE", 2, &tag, "", "").replace("tag=far", "tag=farther");
    bench.input(other.replace("z9hG4bK", "z9hG4bKo").as_bytes());
    bench.response(481);
    bench.input(inbound("BYE", 3, &tag, "", "").as_bytes());
    bench.response(200);
    bench.response(487);
    bench.over(&EndCause::Cancelled);
}

#[test]
fn what_comes_in_an_early_dialog_is_put_off() {
    let mut bench = bench();
    let tag = ringing(&mut bench);
    for (method, cseq) in [("UPDATE", 2), ("INFO", 3)] {
        bench.input(inbound(method, cseq, &tag, "", "offer").as_bytes());
        assert!(bench.response(500).has(Name::RETRY_AFTER));
    }
    bench.quiet();
    assert!(!bench.calls.is_empty());
}
