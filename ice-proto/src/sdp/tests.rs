use alloc::string::ToString as _;

use super::*;

fn parse(text: &str) -> Result<Candidate, LineError> {
    text.parse()
}

// spec: SDP-5.1-1, SDP-5.1-3
#[test]
fn accepted_candidates() {
    let plain = parse("candidate:1 1 UDP 2130706431 203.0.113.141 8998 typ host").unwrap();
    assert_eq!(plain.kind, CandidateKind::Host);
    assert_eq!(
        plain.to_string(),
        "candidate:1 1 udp 2130706431 203.0.113.141 8998 typ host"
    );
    let srflx = parse(
        "a=candidate:842163049 1 udp 1677729535 192.0.2.3 45664 typ srflx raddr 0.0.0.0 rport 9 generation 0 ufrag 8hhY network-cost 999\r\n",
    )
    .unwrap();
    assert_eq!(srflx.related, Some("0.0.0.0:9".parse().unwrap()));
    let relay = parse("candidate:a+/Z 2 UDP 1 2001:db8::1 1 typ relay raddr 192.0.2.3 rport 1");
    assert_eq!(relay.as_ref().unwrap().component, 2);
    assert_eq!(parse(&relay.clone().unwrap().to_string()), relay);
    assert!(parse("candidate:1 1 UDP 1 192.0.2.3 1 typ host x ").is_ok());
    let mapped = parse("candidate:1 1 UDP 1 ::ffff:192.0.2.3 1 typ host").unwrap();
    assert!(mapped.addr.is_ipv4());
}

// spec: SDP-5.1-2, SEC-I-10
#[test]
fn skipped_candidates() {
    for (line, error) in [
        (
            "candidate:1 1 SCTP 1 192.0.2.1 1 typ host",
            LineError::Unsupported,
        ),
        (
            "candidate:1 1 UDP 1 192.0.2.1 1 typ foo",
            LineError::Unsupported,
        ),
        (
            "candidate:3 1 tcp 1 2001:db8::1 9 typ host tcptype active",
            LineError::Unsupported,
        ),
        (
            "candidate:1 1 UDP 1 host.example 1 typ host",
            LineError::Name,
        ),
        (
            "candidate:1 1 UDP 1 aabb-cc.local 1 typ host",
            LineError::Name,
        ),
        (
            "candidate:1 0 UDP 1 192.0.2.1 1 typ host",
            LineError::Malformed,
        ),
        (
            "candidate:1 257 UDP 1 192.0.2.1 1 typ host",
            LineError::Malformed,
        ),
        (
            "candidate:1 1 UDP 0 192.0.2.1 1 typ host",
            LineError::Malformed,
        ),
        (
            "candidate:1 1 UDP 2147483648 192.0.2.1 1 typ host",
            LineError::Malformed,
        ),
        (
            "candidate:1 1 UDP 21307064310 192.0.2.1 1 typ host",
            LineError::Malformed,
        ),
        (
            "candidate:1 1 UDP 1 192.0.2.1 65536 typ host",
            LineError::Malformed,
        ),
        ("candidate:1 1 UDP 1 192.0.2.1 1 host", LineError::Malformed),
        (
            "candidate:1 1 UDP 1 192.0.2.1 1 typ host x",
            LineError::Malformed,
        ),
        (
            "candidate:1 1  UDP 1 192.0.2.1 1 typ host",
            LineError::Malformed,
        ),
        (
            "candidate:1 1\tUDP 1 192.0.2.1 1 typ host",
            LineError::Malformed,
        ),
        (
            "candidate:1 1 UDP 1 0.0.0.0 1 typ host",
            LineError::Malformed,
        ),
        (
            "candidate:1 1 UDP 1 224.0.0.1 1 typ host",
            LineError::Malformed,
        ),
        (
            "candidate:1 1 UDP 1 255.255.255.255 1 typ host",
            LineError::Malformed,
        ),
        (
            "candidate:abcdefghijklmnopqrstuvwxyz0123456 1 UDP 1 192.0.2.1 1 typ host",
            LineError::Malformed,
        ),
        ("ice-ufrag:abcd", LineError::Foreign),
    ] {
        assert_eq!(parse(line), Err(error), "{line}");
    }
}

// spec: SDP-5.4-1, SDP-5.5-1
#[test]
fn other_lines() {
    for (text, line) in [
        ("a=ice-ufrag:8hhY", Line::Ufrag("8hhY".into())),
        (
            "ice-pwd:asd88fgpdd777uzjYhagZg\r",
            Line::Pwd("asd88fgpdd777uzjYhagZg".into()),
        ),
        (
            "a=ice-options:ice2 rtp+ecn",
            Line::Options("ice2 rtp+ecn".into()),
        ),
        ("a=ice-pacing:50", Line::Pacing(50)),
        ("a=ice-lite", Line::Lite),
        ("a=ice-mismatch", Line::Mismatch),
        ("a=end-of-candidates", Line::EndOfCandidates),
    ] {
        assert_eq!(text.parse(), Ok(line.clone()), "{text}");
        assert_eq!(line.to_string().parse(), Ok(line));
    }
    assert!(Line::Options("ice2 trickle".into()).has_option("trickle"));
    for bad in [
        "ice-ufrag:abc",
        "ice-pwd:asd88fgpdd777uzjYhagZ",
        "ice-ufrag:ab cd",
        "ice-ufrag:ab-cd",
        "ice-options:",
        "ice-pacing:x",
    ] {
        assert_eq!(bad.parse::<Line>(), Err(LineError::Malformed), "{bad}");
    }
    let long = alloc::format!("ice-ufrag:{}", "a".repeat(257));
    assert_eq!(long.parse::<Line>(), Err(LineError::Malformed));
    assert_eq!("m=audio 9".parse::<Line>(), Err(LineError::Foreign));
}

proptest::proptest! {
    #[test]
    fn no_line_makes_it_panic(text in ".{0,200}") {
        let _ = text.parse::<Line>();
        let _ = alloc::format!("candidate:{text}").parse::<Line>();
    }
}
