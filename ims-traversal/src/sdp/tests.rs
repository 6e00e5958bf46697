#![allow(
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "test code"
)]

use alloc::string::ToString as _;
use alloc::{format, vec};

use ice_proto::{Candidate, RemoteDescription};
use proptest::prelude::*;

use super::*;

mod body;
mod ice;
mod offers;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn limits() -> SdpLimits {
    SdpLimits::default()
}

/// The lines every description has, with `\r\n` and the media part given.
fn with(media: &str) -> String {
    let head = "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\n";
    format!("{head}{media}").replace('\n', "\r\n")
}

fn negotiation(change: impl Fn(&mut NegotiationConfig)) -> Negotiation {
    let mut config = NegotiationConfig::default();
    change(&mut config);
    Negotiation::new(config, 2).unwrap()
}

/// An ICE transport with host candidates, as an agent would describe it.
fn ice(rtp: &str, rtcp: Option<&str>) -> LocalTransport {
    let mut lines = vec![
        Line::Options("ice2".into()),
        Line::Ufrag("8hhY".into()),
        Line::Pwd("asd88fgpdd777uzjYhagZg".into()),
    ];
    for (component, at) in (1_u32..).zip(core::iter::once(rtp).chain(rtcp)) {
        let at = addr(at);
        let priority = 2_130_706_432 - component;
        let line = format!(
            "candidate:1 {component} udp {priority} {} {} typ host",
            at.ip(),
            at.port()
        );
        lines.push(line.parse().unwrap());
    }
    lines.push(Line::EndOfCandidates);
    LocalTransport {
        rtp: addr(rtp),
        rtcp: rtcp.map(addr),
        ice: lines,
    }
}

fn count(text: &str, what: &str) -> usize {
    text.lines().filter(|line| line.starts_with(what)).count()
}

#[test]
fn lines_survive_byte_for_byte() {
    let strange = [
        b"v=0\r\no=- 1 1 IN IP4 h\r\ns=\xFF\xFE\r\ni=Gr\xFC\xDFe\r\nm=audio 1 X 0\r\na=x:\x01\x02 \r\n\r\n"
            .as_slice(),
        b"v=0\no=x\ns= \nm=\na=",
        b"v=0\r\nm=audio 1 RTP/AVP 0\na=b",
        b"v=0",
        b"v=0\r\na=\xF0\r\n\n\r\n",
    ];
    for text in strange {
        let sdp = Sdp::parse(text, &limits()).unwrap();
        assert_eq!(sdp.to_bytes(), text);
    }
}

#[test]
fn what_is_no_description_is_refused_with_its_line() {
    let check = |text: &str, line: usize, kind: SdpErrorKind| {
        let error = Sdp::parse(text.as_bytes(), &limits()).unwrap_err();
        assert_eq!((error.line, error.kind), (line, kind), "{text:?}");
    };
    check("", 1, SdpErrorKind::Version);
    check("\r\n", 1, SdpErrorKind::Malformed);
    check("v=1\r\n", 1, SdpErrorKind::Version);
    check("o=- 1 1 IN IP4 h\r\n", 1, SdpErrorKind::Version);
    check("v=0\r\nA=x\r\n", 2, SdpErrorKind::Malformed);
    check("v=0\r\n a=x\r\n", 2, SdpErrorKind::Malformed);
    check("v=0\r\n\r\na=x\r\n", 2, SdpErrorKind::Malformed);
    check("v=0\r\na=x\ry\r\n", 2, SdpErrorKind::Malformed);
    check("v=0\r\na=x\0y\r\n", 2, SdpErrorKind::Malformed);
    check("v=0\r\ns=-\r\nq=1\r\n", 3, SdpErrorKind::UnknownType);
    let kept = SdpLimits {
        unknown_types: true,
        ..limits()
    };
    let text = b"v=0\r\ns=-\r\nq=1\r\n";
    assert_eq!(Sdp::parse(text, &kept).unwrap().to_bytes(), text);
}

#[test]
fn every_limit_is_reached() {
    let text = with("m=audio 1 RTP/AVP 0\na=ptime:20\nm=video 2 RTP/AVP 31\n");
    let check = |limits: SdpLimits, line: usize, kind: SdpErrorKind| {
        let error = Sdp::parse(text.as_bytes(), &limits).unwrap_err();
        assert_eq!((error.line, error.kind), (line, kind));
    };
    let exact = SdpLimits {
        bytes: text.len(),
        lines: 8,
        line: 24,
        media: 2,
        unknown_types: false,
    };
    assert!(Sdp::parse(text.as_bytes(), &exact).is_ok());
    let bytes = text.len() - 1;
    check(
        SdpLimits {
            bytes,
            ..exact.clone()
        },
        0,
        SdpErrorKind::TooLong,
    );
    check(
        SdpLimits {
            lines: 7,
            ..exact.clone()
        },
        8,
        SdpErrorKind::TooManyLines,
    );
    check(
        SdpLimits {
            line: 23,
            ..exact.clone()
        },
        2,
        SdpErrorKind::LineTooLong,
    );
    check(
        SdpLimits { media: 1, ..exact },
        8,
        SdpErrorKind::TooManyMedia,
    );
}

#[test]
fn secrets_are_not_shown() {
    let text = with("m=audio 1 RTP/AVP 0\na=ice-pwd:hush\na=crypto:1 hush\na=ice-ufrag:8hhY\n");
    let shown = format!("{:?}", Sdp::parse(text.as_bytes(), &limits()).unwrap());
    assert!(
        shown.contains("a=ice-ufrag:8hhY") && !shown.contains("hush"),
        "{shown}"
    );
    let mut side = negotiation(|_| {});
    let local = ice("192.0.2.1:4000", None);
    side.offer(&local).unwrap();
    assert!(!format!("{side:?}{local:?}").contains("asd88fgpdd777uzjYhagZg"));
}

#[test]
fn lines_are_put_where_they_belong() {
    let text = with("m=audio 1 RTP/AVP 0\na=rtcp:5\nm=video 2 RTP/AVP 31\n");
    let mut sdp = Sdp::parse(text.as_bytes(), &limits()).unwrap();
    let session = sdp.session_mut();
    session.push(Field::new('a', "ice-lite").unwrap());
    session.set(Field::new('i', "about").unwrap());
    session.set(Field::new('c', "IN IP6 2001:db8::1").unwrap());
    let audio = &mut sdp.media_mut()[0];
    audio.set(Field::new('c', "IN IP4 203.0.113.1").unwrap());
    audio.set(Field::new('a', "rtcp:7").unwrap());
    audio.set(Field::new('a', "ptime:20").unwrap());
    let video = &mut sdp.media_mut()[1];
    video.retain(|field| field.kind() == b'm');
    video.push(Field::new('b', "AS:100").unwrap());
    assert_eq!(
        sdp.to_text().replace("\r\n", "\n"),
        "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\ni=about\nc=IN IP6 2001:db8::1\nt=0 0\na=ice-lite\n\
         m=audio 1 RTP/AVP 0\nc=IN IP4 203.0.113.1\na=rtcp:7\na=ptime:20\n\
         m=video 2 RTP/AVP 31\nb=AS:100\n"
    );
    assert_eq!(sdp.rtp(1), Some(Destination::Addr(addr("[2001:db8::1]:2"))));
}

#[test]
fn addresses_are_found_on_both_levels() {
    let check = |media: &str, rtp: Option<&str>, rtcp: Option<&str>| {
        let text = with(media);
        let sdp = Sdp::parse(text.as_bytes(), &limits()).unwrap();
        let at = |to: Option<Destination>| to.and_then(|to| to.addr());
        assert_eq!(at(sdp.rtp(0)), rtp.map(addr), "{media}");
        assert_eq!(at(sdp.rtcp(0)), rtcp.map(addr), "{media}");
    };
    let (rtp, next) = (Some("192.0.2.1:4000"), Some("192.0.2.1:4001"));
    check("m=audio 4000 RTP/AVP 0\n", rtp, next);
    check("m=audio 4000/2 RTP/AVP 0\n", rtp, next);
    check(
        "m=audio 4000 RTP/AVP 0\na=rtcp:9\n",
        rtp,
        Some("192.0.2.1:9"),
    );
    let other = "m=audio 4000 RTP/AVP 0\nc=IN IP6 2001:db8::1\na=rtcp:5 IN IP4 192.0.2.9\n";
    check(other, Some("[2001:db8::1]:4000"), Some("192.0.2.9:5"));
    check(
        "m=audio 4000 RTP/AVP 0\nc=IN IP4 192.0.2.7/127\n",
        Some("192.0.2.7:4000"),
        Some("192.0.2.7:4001"),
    );
    check("m=audio 65535 RTP/AVP 0\n", Some("192.0.2.1:65535"), None);
    check("m=audio 4000 RTP/AVP 0\nc=IN IP4 2001:db8::1\n", None, None);
    check(
        "m=audio 4000 RTP/AVP 0\nc=IN IP4 host.example\n",
        None,
        None,
    );
    check("m=audio x RTP/AVP 0\n", None, None);
    check("m=audio +4 RTP/AVP 0\n", None, None);
    check("m=audio 4000 RTP/AVP 0\na=rtcp:x\n", rtp, None);
}

#[test]
fn configurations_that_cannot_be_written_are_refused() {
    let check = |change: &dyn Fn(&mut NegotiationConfig), error: ConfigError| {
        let mut config = NegotiationConfig::default();
        change(&mut config);
        assert_eq!(Negotiation::new(config, 1).unwrap_err(), error);
    };
    let numbered = |payload_type| Codec {
        payload_type,
        ..Codec::PCMA
    };
    check(
        &|c| c.codecs = vec![Codec::TELEPHONE_EVENT],
        ConfigError::NoCodec,
    );
    check(&|c| c.codecs = vec![], ConfigError::NoCodec);
    check(
        &|c| c.codecs = vec![numbered(128)],
        ConfigError::PayloadType(128),
    );
    check(
        &|c| c.codecs = vec![numbered(9), numbered(9)],
        ConfigError::PayloadType(9),
    );
    // spec: MUX-5761
    check(
        &|c| c.codecs = vec![numbered(64)],
        ConfigError::PayloadType(64),
    );
    check(
        &|c| c.codecs = vec![numbered(95)],
        ConfigError::PayloadType(95),
    );
    check(&|c| c.user = "a b".into(), ConfigError::Text);
    check(&|c| c.user = String::new(), ConfigError::Text);
    check(&|c| c.codecs[0].name = "a/b".into(), ConfigError::Text);
    check(
        &|c| c.codecs[0].parameters = Some("a\r\nb".into()),
        ConfigError::Text,
    );
    let mut config = NegotiationConfig {
        rtcp_mux: RtcpMux::Never,
        ..NegotiationConfig::default()
    };
    config.codecs.push(numbered(95));
    assert!(Negotiation::new(config, 1).is_ok());
}

/// Bits of descriptions, put together at random.
fn bits() -> impl Strategy<Value = String> {
    let lines = [
        "m=audio 4000 RTP/AVP 0 8 101",
        "m=audio 0 RTP/AVP 0",
        "m=video 9 UDP/TLS/RTP/SAVPF 96",
        "m=audio 4000 RTP/AVP 99999 -1 0",
        "m=",
        "c=IN IP4 192.0.2.1",
        "c=IN IP6 ::",
        "c=IN IP4 0.0.0.0",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:101 telephone-event/8000/1",
        "a=rtpmap:",
        "a=fmtp:101 0-15",
        "a=rtcp-mux",
        "a=rtcp:53020 IN IP4 126.16.64.4",
        "a=sendonly",
        "a=inactive",
        "a=ice-lite",
        "a=ice-mismatch",
        "a=ice-ufrag:8hhY",
        "a=ice-pwd:asd88fgpdd777uzjYhagZg",
        "a=candidate:1 1 UDP 2130706431 192.0.2.1 4000 typ host",
        "a=candidate:1 2 UDP 2130706430 192.0.2.1 4001 typ host",
        "a=candidate:1 1 UDP",
        "a=end-of-candidates",
        "a=ptime:70000",
        "b=RS:0",
        "b=RR:0",
        "z=0",
    ];
    let line = proptest::sample::select(lines.to_vec());
    proptest::collection::vec(line, 0..24).prop_map(|lines| {
        let mut text = String::from("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\n");
        for line in lines {
            text.push_str(line);
            text.push_str("\r\n");
        }
        text
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut text = b"v=0\r\n".to_vec();
        text.extend(bytes);
        if let Ok(sdp) = Sdp::parse(&text, &SdpLimits { unknown_types: true, ..limits() }) {
            prop_assert_eq!(sdp.to_bytes(), text);
        }
    }

    #[test]
    fn arbitrary_descriptions_never_panic_and_answers_fit(text in bits()) {
        let sdp = Sdp::parse(text.as_bytes(), &limits()).unwrap();
        prop_assert_eq!(sdp.to_bytes(), text.as_bytes());
        let mut callee = negotiation(|_| {});
        if let Ok(offer) = callee.handle_offer(text.as_bytes()) {
            let offer = offer.clone();
            let answer = callee.answer(&ice("192.0.2.2:5000", Some("192.0.2.2:5001"))).unwrap();
            let read = Sdp::parse(answer.as_bytes(), &limits()).unwrap();
            prop_assert_eq!(read.media().len(), sdp.media().len());
            let has_ice = answer.contains("a=ice-") || answer.contains("a=candidate");
            prop_assert_eq!(has_ice, offer.transport.is_ice());
        }
        let mut caller = negotiation(|_| {});
        caller.offer(&ice("192.0.2.2:5000", Some("192.0.2.2:5001"))).unwrap();
        let _ = caller.handle_answer(text.as_bytes());
    }

    #[test]
    fn both_sides_agree_on_the_same(
        (mux, muxed) in (0_usize..3, 0_usize..3),
        (order, ours) in (any::<bool>(), 1_usize..3),
        (hold, held) in (0_usize..4, 0_usize..4),
        (here_ice, there_ice) in (any::<bool>(), any::<bool>()),
    ) {
        let modes = [RtcpMux::Offer, RtcpMux::Only, RtcpMux::Never];
        let ways = [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive];
        let mut caller = negotiation(|c| {
            c.rtcp_mux = modes[mux];
            if order { c.codecs.swap(0, 1) }
        });
        let mut callee = negotiation(|c| {
            c.rtcp_mux = modes[muxed];
            c.codecs.truncate(ours);
        });
        caller.set_direction(ways[hold]);
        callee.set_direction(ways[held]);
        let side = |ice_on: bool, rtp: &str, rtcp: &str| {
            let mut side = ice(rtp, Some(rtcp));
            if !ice_on { side.ice.clear() }
            side
        };
        let here = side(here_ice, "192.0.2.1:4000", "192.0.2.1:4001");
        let there = side(there_ice, "192.0.2.2:5000", "192.0.2.2:5001");
        let offer = caller.offer(&here).unwrap();
        match callee.handle_offer(offer.as_bytes()) {
            Err(error) => {
                prop_assert_eq!(error, NegotiationError::NoMux);
                prop_assert_ne!(modes[mux], modes[muxed]);
            }
            Ok(_) => {
                let answer = callee.answer(&there).unwrap();
                let a = caller.handle_answer(answer.as_bytes()).unwrap().clone();
                let b = callee.agreed().unwrap();
                prop_assert_eq!(a.rtcp_mux, b.rtcp_mux);
                prop_assert_eq!(a.direction, b.direction.reversed());
                let names = |codecs: &[Codec]| codecs.iter().map(Codec::to_string).collect::<Vec<_>>();
                prop_assert_eq!(names(&a.send), names(&b.receive));
                prop_assert_eq!(a.transport.is_ice(), here_ice && there_ice);
                prop_assert_eq!(b.transport.is_ice(), here_ice && there_ice);
                prop_assert_eq!(a.transport.addresses().len() == 2, !a.transport.is_ice() && !a.rtcp_mux);
            }
        }
    }
}
