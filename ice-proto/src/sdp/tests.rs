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

// spec: MDN-1
#[test]
fn names_of_multicast_dns_are_handed_on() {
    let text = "candidate:1 1 UDP 5 3AB0b1c4-0000-4000-8000-0123456789ab.Local 9 typ host";
    let Ok(Line::Named(named)) = text.parse() else {
        panic!("a name");
    };
    assert_eq!(named.name, "3ab0b1c4-0000-4000-8000-0123456789ab.local");
    let candidate = named.resolved("192.0.2.1".parse().unwrap());
    assert_eq!(candidate.addr, "192.0.2.1:9".parse().unwrap());
    let printed = Line::Named(named.clone()).to_string();
    assert_eq!(printed.parse(), Ok(Line::Named(named)));
    for other in ["a.b.local", ".local", "local", "a.locals"] {
        let text = alloc::format!("candidate:1 1 UDP 5 {other} 9 typ host");
        assert_eq!(text.parse::<Line>(), Err(LineError::Name), "{other}");
    }
}

#[test]
fn debug_shows_no_password() {
    let line: Line = "ice-pwd:asd88fgpdd777uzjYhagZg".parse().unwrap();
    assert_eq!(alloc::format!("{line:?}"), "Line(ice-pwd:..)");
    let line: Line = "ice-ufrag:abcd".parse().unwrap();
    assert_eq!(alloc::format!("{line:?}"), "Line(ice-ufrag:abcd)");
}

// spec: SDP-5.2-1
#[test]
fn remote_candidates_are_read_and_written() {
    let text = "remote-candidates:1 192.0.2.1 9 2 2001:db8::1 10";
    let line: Line = text.parse().unwrap();
    let Line::RemoteCandidates(all) = &line else {
        panic!("{line:?}");
    };
    assert_eq!(all[1], (2, "[2001:db8::1]:10".parse().unwrap()));
    assert_eq!(line.to_string(), text);
    for bad in [
        "",
        "1",
        "1 192.0.2.1",
        "0 192.0.2.1 9",
        "1 name 9",
        "1 192.0.2.1 0",
    ] {
        let text = alloc::format!("remote-candidates:{bad}");
        assert_eq!(text.parse::<Line>(), Err(LineError::Malformed), "{bad}");
    }
}

#[test]
fn leniency_takes_odd_foundations_and_priorities() {
    let odd = "candidate:Hc0a80101_1.2 1 UDP 4294967295 192.0.2.1 1 typ host";
    assert_eq!(odd.parse::<Line>(), Err(LineError::Malformed));
    let Ok(Line::Candidate(candidate)) = Line::parse(odd, true) else {
        panic!("lenient");
    };
    assert_eq!(candidate.foundation, "Hc0a80101_1.2");
    assert_eq!(candidate.priority, 0x7FFF_FFFF);
    let long = alloc::format!("candidate:{} 1 UDP 1 192.0.2.1 1 typ host", "x".repeat(65));
    assert!(Line::parse(&long, true).is_err());
}

proptest::proptest! {
    // spec: SEC-G-01
    #[test]
    fn no_line_panics(text in "(a=)?(candidate:|ice-|remote-candidates:)?\\PC{0,80}", lenient: bool) {
        let _ = Line::parse(&text, lenient);
    }

    // spec: SDP-5.1-1
    #[test]
    fn what_is_written_is_read_again(
        foundation in "[a-zA-Z0-9+/]{1,32}",
        component in 1u16..=256,
        priority in 1u32..=0x7FFF_FFFF,
        ip: core::net::IpAddr,
        port in 1u16..,
        kind in 0usize..4,
        related: Option<(core::net::IpAddr, u16)>,
    ) {
        use CandidateKind::{Host, PeerReflexive, Relayed, ServerReflexive};
        let ip = ip.to_canonical();
        proptest::prop_assume!(!ip.is_unspecified() && !ip.is_multicast());
        proptest::prop_assume!(ip != core::net::Ipv4Addr::BROADCAST);
        let candidate = Candidate {
            foundation,
            component,
            priority,
            addr: SocketAddr::new(ip, port),
            kind: [Host, PeerReflexive, ServerReflexive, Relayed][kind],
            related: related.map(|(ip, port)| SocketAddr::new(ip, port)),
        };
        proptest::prop_assert_eq!(candidate.to_string().parse(), Ok(candidate));
    }
}
