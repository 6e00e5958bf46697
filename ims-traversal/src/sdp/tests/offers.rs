//! Offer and answer (RFC 3264).

use super::*;

fn plain(at: &str) -> LocalTransport {
    LocalTransport::plain(addr(at), None)
}

#[test]
fn an_offer_reads_as_it_should() {
    let mut caller = negotiation(|c| {
        c.ptime = Some(20);
        c.bandwidth = Some(80);
        c.user = "alice".into();
    });
    let offer = caller
        .offer(&ice("192.0.2.1:4000", Some("192.0.2.1:4001")))
        .unwrap();
    assert_eq!(
        offer.replace("\r\n", "\n"),
        "v=0\no=alice 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\n\
         a=ice-options:ice2\n\
         m=audio 4000 RTP/AVP 0 8 101\nb=AS:80\n\
         a=rtpmap:0 PCMU/8000\na=rtpmap:8 PCMA/8000\n\
         a=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\n\
         a=ptime:20\na=rtcp:4001 IN IP4 192.0.2.1\na=rtcp-mux\n\
         a=ice-ufrag:8hhY\na=ice-pwd:asd88fgpdd777uzjYhagZg\n\
         a=candidate:1 1 udp 2130706431 192.0.2.1 4000 typ host\n\
         a=candidate:1 2 udp 2130706430 192.0.2.1 4001 typ host\n\
         a=end-of-candidates\na=sendrecv\n"
    );
}

/// The offer of RFC 3264 section 10.1: one audio stream is taken, the videos are refused.
#[test]
fn an_answer_has_a_line_for_each_of_the_offer() {
    let offer = "v=0\r\no=alice 2890844526 2890844526 IN IP4 host.anywhere.com\r\ns=\r\n\
        c=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 49170 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n\
        m=video 51372 RTP/AVP 31\r\na=rtpmap:31 H261/90000\r\n\
        m=video 53000 RTP/AVP 32\r\na=rtpmap:32 MPV/90000\r\n";
    let mut callee = negotiation(|_| {});
    let asked = callee.handle_offer(offer.as_bytes()).unwrap();
    assert_eq!(asked.codecs.len(), 1);
    assert_eq!(
        asked.transport,
        RemoteTransport::Plain {
            rtp: addr("192.0.2.9:49170"),
            rtcp: Some(addr("192.0.2.9:49171")),
        }
    );
    let answer = callee
        .answer(&ice("192.0.2.2:49920", Some("192.0.2.2:49921")))
        .unwrap();
    assert_eq!(
        answer.replace("\r\n", "\n"),
        "v=0\no=- 1 1 IN IP4 192.0.2.2\ns=-\nc=IN IP4 192.0.2.2\nt=0 0\n\
         m=audio 49920 RTP/AVP 0\na=rtpmap:0 PCMU/8000\na=rtcp:49921 IN IP4 192.0.2.2\n\
         a=sendrecv\nm=video 0 RTP/AVP 31\nm=video 0 RTP/AVP 32\n"
    );
    // Later offers keep the refused lines in their places.
    let again = callee
        .offer(&ice("192.0.2.2:49920", Some("192.0.2.2:49921")))
        .unwrap();
    assert!(again.contains("m=audio 49920 RTP/AVP 0 8 101\r\n"));
    assert!(again.ends_with("m=video 0 RTP/AVP 31\r\nm=video 0 RTP/AVP 32\r\n"));
}

#[test]
fn codecs_are_compared_by_what_they_are_and_keep_their_numbers() {
    let check = |media: &str, expected: Result<&str, NegotiationError>| {
        let mut callee = negotiation(|_| {});
        let text = with(media);
        let asked = callee.handle_offer(text.as_bytes()).cloned();
        let names = asked.map(|asked| {
            let names: Vec<_> = asked.codecs.iter().map(Codec::to_string).collect();
            names.join(", ")
        });
        assert_eq!(names, expected.map(String::from), "{media}");
    };
    check("m=audio 4 RTP/AVP 8 0\n", Ok("8 PCMA/8000, 0 PCMU/8000"));
    check(
        "m=audio 4 RTP/AVP 97\na=rtpmap:97 pcmu/8000\n",
        Ok("97 pcmu/8000"),
    );
    check(
        "m=audio 4 RTP/AVP 111 96 8\na=rtpmap:111 opus/48000/2\na=rtpmap:96 telephone-event/8000\n",
        Ok("96 telephone-event/8000, 8 PCMA/8000"),
    );
    check("m=audio 4 RTP/AVPF 0\n", Ok("0 PCMU/8000"));
    check(
        "m=audio 4 RTP/AVP 9\nm=audio 6 RTP/AVP 0\n",
        Ok("0 PCMU/8000"),
    );
    let nothing = Err(NegotiationError::Incompatible);
    check("m=audio 4 RTP/AVP 9 18\n", nothing);
    check(
        "m=audio 4 RTP/AVP 101\na=rtpmap:101 telephone-event/8000\n",
        nothing,
    );
    check("m=audio 4 RTP/SAVP 0\n", nothing);
    check("m=audio 4 TCP/RTP/AVP 0\n", nothing);
    check("m=audio 0 RTP/AVP 0\n", nothing);
    check("m=video 4 RTP/AVP 0\n", nothing);
    check("m=audio 4 RTP/AVP 0\na=rtpmap:0 L8/8000\n", nothing);
    check("", nothing);
    check(
        "m=audio 4 RTP/AVP 0\nc=IN IP4 far.example\n",
        Err(NegotiationError::Name),
    );
    check(
        "m=audio 4 RTP/AVP 0\nc=IN IP4 224.2.1.1\n",
        Err(NegotiationError::NoAddress),
    );
    check(
        "m=audio 4 RTP/AVP 0\nc=IN X 1\n",
        Err(NegotiationError::NoAddress),
    );
}

#[test]
fn parameters_go_to_the_side_they_are_for() {
    let mut callee = negotiation(|_| {});
    let offer = with("m=audio 4 RTP/AVP 0 97\na=rtpmap:97 telephone-event/8000\na=fmtp:97 0-11\n");
    callee.handle_offer(offer.as_bytes()).unwrap();
    let answer = callee.answer(&plain("192.0.2.2:5000")).unwrap();
    assert!(answer.contains("a=fmtp:97 0-15\r\n"));
    let agreed = callee.agreed().unwrap();
    assert_eq!(agreed.send[1].parameters.as_deref(), Some("0-11"));
    assert_eq!(agreed.receive[1].parameters.as_deref(), Some("0-15"));
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let check = |answer: &str, error: NegotiationError| {
        let mut caller = negotiation(|_| {});
        caller.offer(&plain("192.0.2.2:5000")).unwrap();
        let text = with(answer);
        assert_eq!(
            caller.handle_answer(text.as_bytes()),
            Err(error),
            "{answer}"
        );
        assert_eq!(caller.agreed(), None);
        // The offer is over; another may be made.
        caller.offer(&plain("192.0.2.2:5000")).unwrap();
    };
    check("", NegotiationError::Unfit);
    check(
        "m=audio 4 RTP/AVP 0\nm=audio 6 RTP/AVP 0\n",
        NegotiationError::Unfit,
    );
    check("m=video 4 RTP/AVP 0\n", NegotiationError::Unfit);
    check("m=audio 4 RTP/SAVP 0\n", NegotiationError::Unfit);
    check("m=audio 4 RTP/AVP 9\n", NegotiationError::Unfit);
    check("m=audio 0 RTP/AVP 0\n", NegotiationError::Refused);
    let mut caller = negotiation(|_| {});
    let nothing = caller.handle_answer(b"v=0\r\n").unwrap_err();
    assert_eq!(nothing, NegotiationError::State);
}

// spec: MUX-5761
#[test]
fn rtcp_shares_the_port_only_if_both_want_it() {
    use RtcpMux::{Never, Offer, Only};
    let check = |caller: RtcpMux, callee: RtcpMux, expected: Result<bool, NegotiationError>| {
        let mut a = negotiation(|c| c.rtcp_mux = caller);
        let mut b = negotiation(|c| c.rtcp_mux = callee);
        let offer = a
            .offer(&ice("192.0.2.1:4000", Some("192.0.2.1:4001")))
            .unwrap();
        let second = caller != Only;
        assert_eq!(count(&offer, "a=candidate:1 2 "), usize::from(second));
        assert_eq!(count(&offer, "a=rtcp:"), usize::from(second));
        assert_eq!(
            count(&offer, "a=rtcp-mux\r") + count(&offer, "a=rtcp-mux"),
            if caller == Never {
                0
            } else {
                1 + usize::from(caller == Only)
            }
        );
        let asked = b.handle_offer(offer.as_bytes()).map(|asked| asked.rtcp_mux);
        assert_eq!(asked, expected, "{caller:?} {callee:?}");
        let Ok(mux) = expected else { return };
        let answer = b
            .answer(&ice("192.0.2.2:5000", Some("192.0.2.2:5001")))
            .unwrap();
        assert_eq!(count(&answer, "a=rtcp-mux"), usize::from(mux));
        assert_eq!(count(&answer, "a=candidate:1 2 "), usize::from(!mux));
        let agreed = a.handle_answer(answer.as_bytes()).unwrap();
        assert_eq!(agreed.rtcp_mux, mux);
        // The component that is gone is not offered again.
        let again = a
            .offer(&ice("192.0.2.1:4000", Some("192.0.2.1:4001")))
            .unwrap();
        assert_eq!(count(&again, "a=candidate:1 2 "), usize::from(!mux));
    };
    check(Offer, Offer, Ok(true));
    check(Offer, Never, Ok(false));
    check(Offer, Only, Ok(true));
    check(Only, Offer, Ok(true));
    check(Only, Never, Err(NegotiationError::NoMux));
    check(Never, Offer, Ok(false));
    check(Never, Only, Err(NegotiationError::NoMux));

    // Nobody has offered it: an answer cannot bring it in.
    let mut caller = negotiation(|c| c.rtcp_mux = Never);
    caller.offer(&plain("192.0.2.2:5000")).unwrap();
    let answer = with("m=audio 4 RTP/AVP 0\na=rtcp-mux\n");
    assert!(!caller.handle_answer(answer.as_bytes()).unwrap().rtcp_mux);
    let mut caller = negotiation(|c| c.rtcp_mux = Only);
    caller.offer(&plain("192.0.2.2:5000")).unwrap();
    let answer = with("m=audio 4 RTP/AVP 0\n");
    let refused = caller.handle_answer(answer.as_bytes()).unwrap_err();
    assert_eq!(refused, NegotiationError::NoMux);
}

// spec: ICE-5.1.1.1-4
#[test]
fn an_offer_of_one_component_says_that_rtcp_has_no_other() {
    let mut caller = negotiation(|_| {});
    let offer = caller.offer(&ice("192.0.2.1:4000", None)).unwrap();
    assert!(
        offer.contains("a=rtcp-mux\r\na=rtcp-mux-only\r\n"),
        "{offer}"
    );
    // With a second one to fall back on, or without ICE, mux is no more than a wish.
    for local in [
        ice("192.0.2.1:4000", Some("192.0.2.1:4001")),
        plain("192.0.2.1:4000"),
    ] {
        let mut caller = negotiation(|_| {});
        let offer = caller.offer(&local).unwrap();
        assert!(!offer.contains("rtcp-mux-only"), "{offer}");
    }
}

// spec: MUX-5761
#[test]
fn a_component_for_rtcp_is_needed_until_the_port_is_shared() {
    let mut caller = negotiation(|_| {});
    let mut callee = negotiation(|_| {});
    assert!(caller.may_need_rtcp());
    let offer = caller
        .offer(&ice("192.0.2.1:4000", Some("192.0.2.1:4001")))
        .unwrap();
    assert!(caller.may_need_rtcp());
    callee.handle_offer(offer.as_bytes()).unwrap();
    assert!(!callee.may_need_rtcp());
    let answer = callee.answer(&ice("192.0.2.2:5000", None)).unwrap();
    caller.handle_answer(answer.as_bytes()).unwrap();
    assert!(!caller.may_need_rtcp() && !callee.may_need_rtcp());
    // A later offer of the other side may want its own port again.
    callee
        .handle_offer(with("m=audio 4 RTP/AVP 0\n").as_bytes())
        .unwrap();
    assert!(callee.may_need_rtcp());
    assert!(!negotiation(|c| c.rtcp_mux = RtcpMux::Only).may_need_rtcp());
}

// spec: SDP-4.2.2-1
#[test]
fn without_a_port_for_rtcp_there_is_no_rtcp() {
    let mut caller = negotiation(|c| c.rtcp_mux = RtcpMux::Never);
    let offer = caller.offer(&plain("192.0.2.1:4000")).unwrap();
    assert!(offer.contains("b=RS:0\r\nb=RR:0\r\n"));
    let mut callee = negotiation(|_| {});
    let asked = callee.handle_offer(offer.as_bytes()).unwrap();
    assert_eq!(asked.transport.addresses(), [addr("192.0.2.1:4000")]);
    let answer = callee.answer(&plain("192.0.2.2:5000")).unwrap();
    assert!(answer.contains("b=RS:0\r\nb=RR:0\r\n"));
    // Separate ports, on the other hand, are both candidates.
    let mut caller = negotiation(|c| c.rtcp_mux = RtcpMux::Never);
    let local = ice("192.0.2.1:4000", Some("192.0.2.1:5001"));
    let offer = caller.offer(&local).unwrap();
    assert!(offer.contains("a=rtcp:5001 IN IP4 192.0.2.1\r\n"));
    assert!(offer.contains("a=candidate:1 2 udp"));
    assert!(!offer.contains("b=RS"));
}

#[test]
fn directions_are_those_of_rfc_3264() {
    use Direction::{Inactive, RecvOnly, SendOnly, SendRecv};
    let check = |offered: Direction, wish: Direction, expected: Direction| {
        let mut callee = negotiation(|_| {});
        callee.set_direction(wish);
        let text = with(&format!("m=audio 4 RTP/AVP 0\na={}\n", offered.name()));
        callee.handle_offer(text.as_bytes()).unwrap();
        let answer = callee.answer(&plain("192.0.2.2:5000")).unwrap();
        let said = format!("a={}\r\n", expected.name());
        assert!(answer.ends_with(&said), "{offered:?} {wish:?}: {answer}");
        assert_eq!(callee.agreed().unwrap().direction, expected);
    };
    check(SendRecv, SendRecv, SendRecv);
    check(SendRecv, SendOnly, SendOnly);
    check(SendOnly, SendRecv, RecvOnly);
    check(SendOnly, SendOnly, Inactive);
    check(RecvOnly, SendRecv, SendOnly);
    check(Inactive, SendRecv, Inactive);
    check(SendRecv, Inactive, Inactive);
    // An attribute of the session counts where the stream says nothing.
    let mut callee = negotiation(|_| {});
    let text = with("a=sendonly\nm=audio 4 RTP/AVP 0\n");
    let asked = callee.handle_offer(text.as_bytes()).unwrap();
    assert_eq!(asked.direction, RecvOnly);
}

#[test]
fn holding_changes_the_version_and_nothing_of_the_transport() {
    let mut a = negotiation(|c| c.rtcp_mux = RtcpMux::Only);
    let mut b = negotiation(|_| {});
    let here = ice("192.0.2.1:4000", None);
    let there = ice("192.0.2.2:5000", None);
    let round = |a: &mut Negotiation, b: &mut Negotiation| {
        let offer = a.offer(&here).unwrap();
        b.handle_offer(offer.as_bytes()).unwrap();
        let answer = b.answer(&there).unwrap();
        a.handle_answer(answer.as_bytes()).unwrap();
        (offer, answer)
    };
    let (first, _) = round(&mut a, &mut b);
    let (again, answer) = round(&mut a, &mut b);
    assert_eq!(first, again, "no new version without a change");
    assert!(answer.starts_with("v=0\r\no=- 1 1 "));
    a.set_direction(Direction::SendOnly);
    let (held, answer) = round(&mut a, &mut b);
    assert!(held.starts_with("v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\n"));
    assert!(answer.starts_with("v=0\r\no=- 1 2 "));
    // spec: SDP-4.2.1.6
    assert_eq!(
        held.replace("sendonly", "sendrecv")
            .replace(" 1 2 IN", " 1 1 IN"),
        first
    );
    assert_eq!(b.agreed().unwrap().direction, Direction::RecvOnly);
    assert!(b.agreed().unwrap().transport.is_ice());
    // Another default address: o= keeps the first one.
    let moved = a.offer(&ice("203.0.113.1:4000", None)).unwrap();
    assert!(moved.starts_with("v=0\r\no=- 1 3 IN IP4 192.0.2.1\r\n"));
    assert_eq!(a.offer(&here).unwrap_err(), NegotiationError::State);
    let glare = a.handle_offer(first.as_bytes()).unwrap_err();
    assert_eq!(glare, NegotiationError::State);
    a.roll_back();
    assert_eq!(a.agreed().unwrap().direction, Direction::SendOnly);
    assert!(a.handle_offer(first.as_bytes()).is_ok());
}

#[test]
fn old_devices_hold_without_an_address() {
    let mut callee = negotiation(|_| {});
    let text = with("m=audio 4 RTP/AVP 0\nc=IN IP4 0.0.0.0\n");
    let asked = callee.handle_offer(text.as_bytes()).unwrap();
    assert_eq!(asked.transport, RemoteTransport::Nowhere);
    assert_eq!(asked.direction, Direction::RecvOnly);
    assert!(asked.transport.addresses().is_empty());
}

#[test]
fn each_branch_of_a_forked_call_takes_its_own_answer() {
    let mut first = negotiation(|_| {});
    first.offer(&plain("192.0.2.1:4000")).unwrap();
    let mut second = first.clone();
    let answer = |port: u16| with(&format!("m=audio {port} RTP/AVP 0\na=rtcp-mux\n"));
    first.handle_answer(answer(4).as_bytes()).unwrap();
    let agreed = second.handle_answer(answer(6).as_bytes()).unwrap();
    assert_eq!(agreed.transport.addresses(), [addr("192.0.2.1:6")]);
    let late = first.handle_answer(answer(8).as_bytes()).unwrap_err();
    assert_eq!(late, NegotiationError::State);
}
