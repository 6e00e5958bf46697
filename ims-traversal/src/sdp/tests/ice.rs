//! ICE in descriptions (RFC 8839).

use super::*;

const CREDENTIALS: &str = "a=ice-ufrag:9uB6\na=ice-pwd:YH75Fviy6338Vbrhrlp8Yh\n";

fn remote(callee: &mut Negotiation, media: &str) -> Result<RemoteTransport, NegotiationError> {
    let text = with(media);
    let asked = callee.handle_offer(text.as_bytes());
    asked.map(|asked| asked.transport.clone())
}

fn candidates(transport: &RemoteTransport) -> Option<Vec<Candidate>> {
    match transport {
        RemoteTransport::Ice(RemoteDescription { streams, .. }) => {
            Some(streams[0].candidates.clone())
        }
        RemoteTransport::Plain { .. } | RemoteTransport::Nowhere => None,
    }
}

/// RFC 8839 appendix A.
#[test]
fn the_example_of_rfc_8839_is_understood() {
    let offer = "v=0\r\n\
        o=jdoe 2890844526 2890842807 IN IP6 fe80::6676:baff:fe9c:ee4a\r\ns=\r\n\
        c=IN IP6 2001:db8:8101:3a55:4858:a2a9:22ff:99b9\r\nt=0 0\r\n\
        a=ice-options:ice2\r\na=ice-pacing:50\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\n\
        a=ice-ufrag:8hhY\r\nm=audio 45664 RTP/AVP 0\r\nb=RS:0\r\nb=RR:0\r\n\
        a=rtpmap:0 PCMU/8000\r\n\
        a=candidate:1 1 UDP 2130706431 fe80::6676:baff:fe9c:ee4a 8998 typ host\r\n\
        a=candidate:2 1 UDP 1694498815 2001:db8:8101:3a55:4858:a2a9:22ff:99b9 45664 typ srflx \
        raddr fe80::6676:baff:fe9c:ee4a rport 8998\r\n";
    let mut callee = negotiation(|c| c.rtcp_mux = RtcpMux::Never);
    let asked = callee.handle_offer(offer.as_bytes()).unwrap();
    let RemoteTransport::Ice(description) = &asked.transport else {
        panic!("{asked:?}");
    };
    assert_eq!(description.remote.credentials.ufrag, "8hhY");
    assert!(description.remote.ice2);
    assert_eq!(description.streams[0].candidates.len(), 2);
    let answer = callee.answer(&ice("192.0.2.1:3478", None)).unwrap();
    assert_eq!(
        answer.replace("\r\n", "\n"),
        "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\n\
         a=ice-options:ice2\nm=audio 3478 RTP/AVP 0\nb=RS:0\nb=RR:0\na=rtpmap:0 PCMU/8000\n\
         a=ice-ufrag:8hhY\na=ice-pwd:asd88fgpdd777uzjYhagZg\n\
         a=candidate:1 1 udp 2130706431 192.0.2.1 3478 typ host\na=end-of-candidates\na=sendrecv\n"
    );
}

// spec: MUX-5761
#[test]
fn an_answer_keeps_the_components_of_an_offer_without_mux() {
    let first = "a=candidate:1 1 UDP 9 192.0.2.1 4000 typ host\n";
    let second = "a=rtcp:4005\na=candidate:1 2 UDP 8 192.0.2.1 4005 typ host\n";
    for (more, both) in [(second, true), ("b=RS:0\nb=RR:0\n", false), ("", false)] {
        let mut callee = negotiation(|_| {});
        let offer = format!("m=audio 4000 RTP/AVP 0\n{CREDENTIALS}{first}{more}");
        remote(&mut callee, &offer).unwrap();
        let local = ice("192.0.2.2:5000", Some("192.0.2.2:5001"));
        let answer = callee.answer(&local).unwrap();
        let said = ["a=rtcp:5001 ", "a=candidate:1 2 "].map(|line| answer.contains(line));
        assert_eq!(said, [both; 2], "{answer}");
        assert!(!answer.contains("rtcp-mux"), "{answer}");
        assert_eq!(answer.contains("b=RS:0"), !both, "{answer}");
    }
}

#[test]
fn a_side_that_does_not_trickle_has_said_all() {
    let complete = |options: &str, end: &str| {
        let mut callee = negotiation(|_| {});
        let found = remote(
            &mut callee,
            &format!(
                "{options}m=audio 4 RTP/AVP 0\na=rtcp-mux\n{CREDENTIALS}\
                 a=candidate:1 1 UDP 9 192.0.2.1 4 typ host\n{end}"
            ),
        );
        match found.unwrap() {
            RemoteTransport::Ice(ice) => ice.streams[0].complete,
            other @ (RemoteTransport::Plain { .. } | RemoteTransport::Nowhere) => {
                panic!("{other:?}")
            }
        }
    };
    assert!(complete("", ""));
    assert!(complete("a=ice-options:ice2\n", ""));
    assert!(!complete("a=ice-options:ice2 trickle\n", ""));
    assert!(complete("a=ice-options:trickle\n", "a=end-of-candidates\n"));
}

// spec: SDP-4.3.2-1
#[test]
fn without_ice_in_the_offer_there_is_none_in_the_answer() {
    let mut callee = negotiation(|_| {});
    remote(&mut callee, "m=audio 4 RTP/AVP 0\na=rtcp-mux\n").unwrap();
    let answer = callee.answer(&ice("192.0.2.2:5000", None)).unwrap();
    assert!(
        !answer.contains("ice") && !answer.contains("candidate"),
        "{answer}"
    );
    // And an answer brings in no ICE that nobody has offered.
    let mut caller = negotiation(|_| {});
    let here = LocalTransport::plain(addr("192.0.2.1:4000"), None);
    caller.offer(&here).unwrap();
    let text = with(&format!(
        "m=audio 4 RTP/AVP 0\na=rtcp-mux\n{CREDENTIALS}a=candidate:1 1 UDP 9 192.0.2.1 4 typ host\n"
    ));
    let agreed = caller.handle_answer(text.as_bytes()).unwrap();
    assert_eq!(agreed.transport.addresses(), [addr("192.0.2.1:4")]);
    // The transport protocol of the answer is that of the offer.
    let mut callee = negotiation(|_| {});
    remote(&mut callee, "m=audio 4 RTP/AVPF 0\n").unwrap();
    let answer = callee.answer(&ice("192.0.2.2:5000", None)).unwrap();
    assert!(answer.contains("m=audio 5000 RTP/AVPF 0\r\n"));
    // No candidate: port 9 of nowhere.
    let mut caller = negotiation(|_| {});
    let mut nowhere = ice("192.0.2.1:4000", None);
    nowhere.rtp = addr("0.0.0.0:9");
    let offer = caller.offer(&nowhere).unwrap();
    assert!(offer.contains("c=IN IP4 0.0.0.0\r\n") && offer.contains("m=audio 9 RTP/AVP"));
}

// spec: SDP-4.2.5-1
#[test]
fn there_is_ice_if_the_default_addresses_are_candidates() {
    let own = "a=candidate:1 1 UDP 9 192.0.2.1 4000 typ host\n";
    let rtcp = "a=candidate:1 2 UDP 8 192.0.2.1 4001 typ host\n";
    let check = |media: &str, expected: bool| {
        let mut callee = negotiation(|c| c.mismatch = Mismatch::Refuse);
        let found = remote(&mut callee, &format!("m=audio 4000 RTP/AVP 0\n{media}"));
        assert_eq!(found.unwrap().is_ice(), expected, "{media}");
    };
    check(&format!("{CREDENTIALS}{own}"), true);
    check(&format!("{CREDENTIALS}{own}{rtcp}"), true);
    check(own, false);
    check("a=ice-ufrag:9uB6\n", false);
    check(CREDENTIALS, false);
    let elsewhere = own.replace("192.0.2.1", "192.0.2.7");
    check(&format!("{CREDENTIALS}{elsewhere}"), false);
    let other_port = own.replace("4000", "4002");
    check(&format!("{CREDENTIALS}{other_port}"), false);
    let other_component = own.replace("1 1 UDP", "1 2 UDP");
    check(&format!("{CREDENTIALS}{other_component}"), false);
    check(&format!("{CREDENTIALS}{own}a=rtcp:4005\n"), false);
    check(&format!("{CREDENTIALS}{own}{rtcp}a=rtcp:4005\n"), false);
    check(
        &format!("{CREDENTIALS}{own}a=rtcp:4005\na=rtcp-mux\n"),
        true,
    );
    check(
        &format!("{CREDENTIALS}{own}{rtcp}a=rtcp:4001 IN IP4 192.0.2.1\n"),
        true,
    );
    // Nowhere, and names, are no mismatch.
    check(&format!("c=IN IP4 host.example\n{CREDENTIALS}{own}"), true);
    let nowhere = format!("m=audio 9 RTP/AVP 0\nc=IN IP4 0.0.0.0\n{CREDENTIALS}");
    let mut callee = negotiation(|c| c.mismatch = Mismatch::Refuse);
    assert!(remote(&mut callee, &nowhere).unwrap().is_ice());
    let mut callee = negotiation(|c| c.mismatch = Mismatch::Refuse);
    let nowhere = nowhere.replace("IP4 0.0.0.0", "IP6 ::");
    assert!(remote(&mut callee, &nowhere).unwrap().is_ice());
}

// spec: SDP-4.2.5-2
#[test]
fn a_default_address_beside_the_candidates_becomes_one_or_ends_ice() {
    let media = format!(
        "m=audio 4000 RTP/AVP 0\na=rtcp-mux\n{CREDENTIALS}a=candidate:1 1 UDP 9 10.0.0.1 8 typ host\n"
    );
    let mut callee = negotiation(|_| {});
    let found = candidates(&remote(&mut callee, &media).unwrap()).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].addr, addr("192.0.2.1:4000"));
    assert_eq!((found[1].priority, found[1].component), (1, 1));
    let answer = callee.answer(&ice("192.0.2.2:5000", None)).unwrap();
    assert!(answer.contains("a=candidate") && !answer.contains("ice-mismatch"));

    let mut callee = negotiation(|c| c.mismatch = Mismatch::Refuse);
    let found = remote(&mut callee, &media).unwrap();
    assert_eq!(found.addresses(), [addr("192.0.2.1:4000")]);
    let answer = callee.answer(&ice("192.0.2.2:5000", None)).unwrap();
    assert!(answer.contains("a=ice-mismatch\r\n"));
    assert!(!answer.contains("candidate") && !answer.contains("ice-ufrag"));
}

// spec: SDP-4.2.5-3
#[test]
fn a_mismatch_in_an_answer_ends_ice() {
    let check = |media: &str, ice_holds: bool| {
        let mut caller = negotiation(|_| {});
        caller.offer(&ice("192.0.2.2:5000", None)).unwrap();
        let text = with(media);
        let agreed = caller.handle_answer(text.as_bytes()).unwrap();
        assert_eq!(agreed.transport.is_ice(), ice_holds, "{media}");
        if !ice_holds {
            assert_eq!(agreed.transport.addresses(), [addr("192.0.2.1:4000")]);
        }
    };
    let audio = "m=audio 4000 RTP/AVP 0\na=rtcp-mux\n";
    let own = "a=candidate:1 1 UDP 9 192.0.2.1 4000 typ host\n";
    check(&format!("{audio}{CREDENTIALS}{own}"), true);
    check(audio, false);
    check(&format!("{audio}a=ice-mismatch\n"), false);
    check(&format!("{audio}{CREDENTIALS}{own}a=ice-mismatch\n"), false);
    check(
        &format!("{audio}{CREDENTIALS}{}", own.replace("4000", "5")),
        false,
    );
}

// spec: SDP-4.2.1.6
#[test]
fn streams_that_rest_keep_ice_and_refused_ones_have_no_candidates() {
    let mut caller = negotiation(|_| {});
    caller.set_direction(Direction::Inactive);
    let offer = caller.offer(&ice("192.0.2.1:4000", None)).unwrap();
    assert!(offer.ends_with("a=inactive\r\n"));
    assert!(offer.contains("a=candidate:") && offer.contains("a=ice-pwd:"));
    let mut callee = negotiation(|_| {});
    let text =
        format!("{offer}m=video 9 RTP/AVP 31\r\na=candidate:1 1 UDP 9 192.0.2.1 4 typ host\r\n");
    callee.handle_offer(text.as_bytes()).unwrap();
    let answer = callee.answer(&ice("192.0.2.2:5000", None)).unwrap();
    assert!(answer.ends_with("m=video 0 RTP/AVP 31\r\n"));
    assert!(answer.contains("a=inactive\r\n"));
}

#[test]
fn lines_of_ice_stand_where_they_belong() {
    let mut local = ice("192.0.2.1:4000", None);
    local.ice.insert(0, Line::Lite);
    local
        .ice
        .push("remote-candidates:1 192.0.2.9 7".parse().unwrap());
    let mut caller = negotiation(|_| {});
    let offer = caller.offer(&local).unwrap();
    let (session, media) = offer.split_once("m=audio").unwrap();
    assert!(session.contains("a=ice-lite\r\na=ice-options:ice2\r\n"));
    assert!(!session.contains("ufrag"));
    assert!(media.contains("a=remote-candidates:1 192.0.2.9 7\r\n"));
    let mut callee = negotiation(|_| {});
    callee.handle_offer(offer.as_bytes()).unwrap();
    let answer = callee.answer(&local).unwrap();
    assert!(!answer.contains("remote-candidates"));
}

#[test]
fn credentials_of_the_session_count_for_its_stream() {
    let mut callee = negotiation(|_| {});
    let media = format!(
        "{CREDENTIALS}m=video 7 RTP/AVP 31\na=ice-ufrag:else\nm=audio 4000 RTP/AVP 0\na=candidate:1 1 UDP 9 192.0.2.1 4000 typ host\n"
    );
    let found = remote(&mut callee, &media).unwrap();
    let RemoteTransport::Ice(description) = &found else {
        panic!("{found:?}");
    };
    assert_eq!(description.remote.credentials.ufrag, "9uB6");
    assert_eq!(description.streams.len(), 1);
    assert!(format!("{found:?}").find("YH75").is_none());
}

// spec: SDP-4.4.1.1.1-1, SDP-5.4-1
#[test]
fn later_offers_start_over_with_new_credentials_or_leave_ice_alone() {
    let own = "a=candidate:1 1 UDP 9 192.0.2.1 4000 typ host\n";
    let audio = "m=audio 4000 RTP/AVP 0\na=rtcp-mux\n";
    let with_ice = |options: &str, credentials: &str| format!("{options}{audio}{credentials}{own}");
    let options = "a=ice-options:ice2\n";
    let first = with_ice(options, CREDENTIALS);
    let check = |first: &str, media: &str, expected: Result<bool, NegotiationError>| {
        let mut callee = negotiation(|_| {});
        remote(&mut callee, first).unwrap();
        assert!(!callee.asked().unwrap().restart);
        callee.answer(&ice("192.0.2.2:5000", None)).unwrap();
        let before = callee.agreed().cloned();
        let found = remote(&mut callee, media).map(|_| callee.asked().unwrap().restart);
        assert_eq!(found, expected, "{media}");
        assert_eq!(callee.agreed().cloned(), before);
    };
    check(&first, &first, Ok(false));
    // The level does not matter.
    let moved = with_ice(&format!("{options}{CREDENTIALS}"), "");
    check(&first, &moved, Ok(false));
    // Nor do candidates, or another default address among them.
    let more = format!("{first}a=candidate:2 1 UDP 7 192.0.2.7 4 typ host\n");
    check(&first, &more, Ok(false));
    let both = "a=ice-ufrag:9uB7\na=ice-pwd:ZH75Fviy6338Vbrhrlp8Yh\n";
    check(&first, &with_ice(options, both), Ok(true));
    check(&first, &with_ice("", both), Ok(true));
    let half = CREDENTIALS.replace("9uB6", "9uB7");
    let refused = Err(NegotiationError::IceChanged);
    check(&first, &with_ice(options, &half), refused);
    let half = CREDENTIALS.replace("YH75", "ZH75");
    check(&first, &with_ice(options, &half), refused);
    check(&first, &with_ice("", CREDENTIALS), refused);
    let lite = format!("{options}a=ice-lite\n");
    check(&first, &with_ice(&lite, CREDENTIALS), refused);
    let pacing = format!("{options}a=ice-pacing:20\n");
    check(&first, &with_ice(&pacing, CREDENTIALS), refused);
    // ICE may go, and come back.
    check(&first, audio, Ok(false));
    check(audio, &first, Ok(true));
    check(audio, audio, Ok(false));
}

#[test]
fn without_ice_in_the_answer_there_is_none() {
    let mut caller = negotiation(|_| {});
    let offer = caller.offer(&ice("192.0.2.1:4000", None)).unwrap();
    let mut callee = negotiation(|_| {});
    let asked = callee.handle_offer(offer.as_bytes()).unwrap();
    assert!(asked.transport.is_ice());
    let there = LocalTransport::plain(addr("192.0.2.2:5000"), None);
    let answer = callee.answer(&there).unwrap();
    let peers = callee.agreed().unwrap().transport.addresses();
    assert_eq!(peers, [addr("192.0.2.1:4000")]);
    let agreed = caller.handle_answer(answer.as_bytes()).unwrap();
    assert_eq!(agreed.transport.addresses(), [addr("192.0.2.2:5000")]);
}
