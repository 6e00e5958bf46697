use sip_outbound::RequestError;

use super::*;

#[test]
fn the_other_side_changes_the_session() {
    let mut bench = bench();
    let (call, tag) = bench.incoming();
    bench.input(inbound("INVITE", 2, &tag, "", "hold").as_bytes());
    assert_eq!(bench.event(), "offer hold");
    // One at a time, whichever method.
    for (method, number) in [("INVITE", 3), ("UPDATE", 4)] {
        bench.input(inbound(method, number, &tag, "", "more").as_bytes());
        let busy = bench.response(500);
        let wait: u32 = busy.only(Name::RETRY_AFTER).unwrap().parse().unwrap();
        assert!(wait <= 10);
        if method == "INVITE" {
            bench.input(
                inbound("ACK", 3, &tag, "", "")
                    .replace("bKACK", "bKINVITE")
                    .as_bytes(),
            );
        }
    }
    assert_eq!(bench.offer(call, Method::INVITE), Err(CallError::Pending));
    bench.accept(call, "held");
    let ok = bench.response(200);
    assert_eq!(ok.body(), b"held");
    assert!(ok.has(Name::CONTACT));
    assert_eq!(bench.offer(call, Method::INVITE), Err(CallError::Pending));
    bench.input(inbound("ACK", 2, &tag, "", "").as_bytes());
    assert_eq!(bench.event(), "settled");
    bench.quiet();

    bench.input(inbound("UPDATE", 5, &tag, "", "resume").as_bytes());
    assert_eq!(bench.event(), "offer resume");
    bench.accept(call, "resumed");
    let ok = bench.response(200);
    assert!(ok.has(Name::CONTACT));
    assert_eq!(ok.body(), b"resumed");
    assert_eq!(bench.event(), "settled");

    bench.input(inbound("UPDATE", 6, &tag, "", "").as_bytes());
    bench.response(200);
    bench.quiet();

    bench.input(inbound("INVITE", 7, &tag, "", "video").as_bytes());
    assert_eq!(bench.event(), "offer video");
    let no = StatusCode::NOT_ACCEPTABLE_HERE;
    bench
        .calls
        .refuse(bench.now, &mut bench.ua, call, no)
        .unwrap();
    bench.drain();
    bench.response(488);
    let again = bench.calls.refuse(bench.now, &mut bench.ua, call, no);
    assert_eq!(again, Err(CallError::State));

    let odd = "Content-Type: text/plain\r\n";
    bench.input(inbound("UPDATE", 8, &tag, odd, "x").as_bytes());
    assert!(bench.response(415).has(Name::ACCEPT));
    bench.quiet();
}

#[test]
fn an_invite_without_offer_within_a_call_gets_one() {
    let mut bench = bench();
    let (call, tag) = bench.incoming();
    bench.input(inbound("INVITE", 2, &tag, "", "").as_bytes());
    assert_eq!(bench.event(), "offer -");
    bench.accept(call, "ours");
    bench.response(200);
    bench.input(inbound("ACK", 2, &tag, "", "theirs").as_bytes());
    assert_eq!(bench.event(), "answered theirs");
    bench.quiet();
}

#[test]
fn a_change_is_withdrawn_or_dropped_with_the_call() {
    let mut bench = bench();
    let (call, tag) = bench.incoming();
    bench.input(inbound("INVITE", 2, &tag, "", "hold").as_bytes());
    let cancel = inbound("CANCEL", 2, &tag, "", "").replace("z9hG4bKCANCEL", "z9hG4bKINVITE");
    bench.input(cancel.as_bytes());
    bench.response(200);
    bench.response(487);
    assert_eq!(bench.event(), "offer hold");
    assert_eq!(bench.event(), "withdrawn");
    bench.input(inbound("UPDATE", 3, &tag, "", "hold").as_bytes());
    bench.hang_up(call);
    bench.response(487);
    bench.request("BYE");
}

#[test]
fn this_side_changes_the_session() {
    for method in [Method::INVITE, Method::UPDATE] {
        let mut bench = bench();
        let call = bench.outgoing();
        bench.offer(call, method.clone()).unwrap();
        assert_eq!(bench.offer(call, method.clone()), Err(CallError::Pending));
        let offer = bench.request(method.as_str());
        assert_eq!(offer.body(), b"new offer");
        assert!(offer.has(Name::CONTACT));
        bench.answer(
            &offer,
            200,
            "",
            &[("Contact", "<sip:bob@new>")],
            "new answer",
        );
        if method == Method::INVITE {
            assert_eq!(bench.request("ACK").uri_text(), "sip:bob@new");
            bench.answer(
                &offer,
                200,
                "",
                &[("Contact", "<sip:bob@new>")],
                "new answer",
            );
            bench.request("ACK");
        }
        assert_eq!(bench.event(), "answered new answer");
        bench.quiet();
        // The new Contact counts from now on.
        bench.hang_up(call);
        assert_eq!(bench.request("BYE").uri_text(), "sip:bob@new");
    }
}

#[test]
fn a_refused_change_leaves_the_call_as_it_was() {
    let mut bench = bench();
    let call = bench.outgoing();
    bench.offer(call, Method::INVITE).unwrap();
    let offer = bench.request("INVITE");
    bench.answer(&offer, 488, "", &[], "");
    bench.request("ACK");
    assert_eq!(bench.event(), "offer refused Some(488)");
    bench.quiet();
    assert!(bench.offer(call, Method::UPDATE).is_ok());
}

#[test]
fn a_change_shows_that_the_dialog_is_gone() {
    for (code, bye) in [(481, false), (408, true)] {
        let mut bench = bench();
        let call = bench.outgoing();
        bench.offer(call, Method::INVITE).unwrap();
        let offer = bench.request("INVITE");
        bench.answer(&offer, code, "", &[], "");
        bench.request("ACK");
        if bye {
            let bye = bench.request("BYE");
            bench.answer(&bye, 481, "", &[], "");
            bench.over(&EndCause::TimedOut);
        } else {
            assert!(bench.event().starts_with("ended: refused with 481"));
        }
    }
    // A 2xx without answer.
    let mut bench = bench();
    let call = bench.outgoing();
    bench.offer(call, Method::INVITE).unwrap();
    let offer = bench.request("INVITE");
    bench.answer(&offer, 200, "", &[CONTACT], "");
    bench.request("ACK");
    bench.request("BYE");
}

/// How long the offer of this side waits after meeting one of the other side.
fn glare(bench: &mut Bench, call: CallId) -> u64 {
    bench.offer(call, Method::INVITE).unwrap();
    let offer = bench.request("INVITE");
    bench.answer(&offer, 491, "", &[], "");
    bench.request("ACK");
    let start = bench.now;
    for _ in 0..4_001 {
        if !bench.sent.is_empty() {
            break;
        }
        bench.run(1);
    }
    let again = bench.request("INVITE");
    let waited = bench.now.duration_since(start).as_millis() as u64;
    bench.answer(&again, 200, "", &[CONTACT], "answer");
    bench.request("ACK");
    bench.events.clear();
    waited
}

#[test]
fn offers_that_meet_are_made_again_at_different_times() {
    let mut bench = bench();
    let call = bench.outgoing();
    for _ in 0..10 {
        let waited = glare(&mut bench, call);
        assert!((2_100..=4_000).contains(&waited), "{waited}");
    }
    let mut bench = bench_with(CallConfig::default());
    let (call, tag) = bench.incoming();
    for _ in 0..10 {
        let waited = glare(&mut bench, call);
        assert!(waited <= 2_000, "{waited}");
    }
    // The other side's meets ours.
    bench.offer(call, Method::INVITE).unwrap();
    let offer = bench.request("INVITE");
    bench.input(inbound("INVITE", 2, &tag, "", "theirs").as_bytes());
    bench.response(491);
    bench.answer(&offer, 200, "", &[CONTACT], "answer");
    bench.request("ACK");
    assert_eq!(bench.event(), "answered answer");
}

#[test]
fn an_offer_that_met_another_gives_way_to_the_next_of_the_other_side() {
    for body in ["theirs", ""] {
        let mut bench = bench();
        let (call, tag) = bench.incoming();
        bench.offer(call, Method::UPDATE).unwrap();
        let offer = bench.request("UPDATE");
        bench.answer(&offer, 491, "", &[], "");
        bench.input(inbound("INVITE", 2, &tag, "", body).as_bytes());
        assert!(bench.event().starts_with("offer "));
        assert_eq!(bench.calls.poll_timeout(), None);
        bench.run(5_000);
        bench.response(100);
        bench.quiet();
        assert_eq!(bench.offer(call, Method::INVITE), Err(CallError::Pending));
        bench.accept(call, "answer");
        bench.response(200);
        bench.input(inbound("ACK", 2, &tag, "", "late").as_bytes());
        let _ = bench.event();
        assert_eq!(bench.offer(call, Method::INVITE), Ok(()));
    }
}

#[test]
fn an_offer_is_not_made_again_for_ever() {
    let mut bench = bench_with(CallConfig {
        offer_attempts: 2,
        ..CallConfig::default()
    });
    let (call, _) = bench.incoming();
    bench.offer(call, Method::UPDATE).unwrap();
    let offer = bench.request("UPDATE");
    bench.answer(&offer, 491, "", &[], "");
    bench.run(2_001);
    let offer = bench.request("UPDATE");
    bench.answer(&offer, 491, "", &[], "");
    assert_eq!(bench.event(), "offer refused Some(491)");
    bench.quiet();
}

#[test]
fn a_change_that_is_lost_with_its_flow_is_given_back() {
    let mut bench = bench();
    let call = bench.outgoing();
    bench.offer(call, Method::INVITE).unwrap();
    bench.request("INVITE");
    bench.lose_flow();
    assert_eq!(bench.event(), "offer refused None");
    bench.quiet();
    let none = bench.offer(call, Method::INVITE);
    assert_eq!(none, Err(CallError::Request(RequestError::NoFlow)));
    bench.run(60_500);
    bench.register();
    bench.quiet();
    assert_eq!(bench.offer(call, Method::INVITE), Ok(()));
    bench.request("INVITE");
}

#[test]
fn the_other_sides_change_is_lost_with_its_flow() {
    let mut bench = bench();
    let (_, tag) = bench.incoming();
    bench.input(inbound("INVITE", 2, &tag, "", "hold").as_bytes());
    assert_eq!(bench.event(), "offer hold");
    bench.lose_flow();
    assert_eq!(bench.event(), "withdrawn");

    // Taken, not acknowledged: the call goes on, unless the ACK would bring the answer.
    let mut bench = bench_with(CallConfig::default());
    let call = bench.called("offer");
    bench.accept(call, "answer");
    bench.lose_flow();
    assert_eq!(bench.event(), "established");

    let mut bench = bench_with(CallConfig::default());
    let call = bench.called("");
    bench.accept(call, "offer");
    bench.lose_flow();
    bench.run(64_500);
    assert!(bench.events.iter().any(|event| matches!(
        event,
        CallEvent::Ended {
            cause: EndCause::Description,
            ..
        }
    )));
}
