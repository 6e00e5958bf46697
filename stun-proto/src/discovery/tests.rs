#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::string::ToString as _;

use super::*;

fn srv(priority: u16, weight: u16, target: &str) -> SrvRecord {
    SrvRecord {
        priority,
        weight,
        port: 5000,
        target: target.into(),
    }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn search(uri: &str, transport: Transport) -> Discovery {
    Discovery::new(Service::Stun, &uri.parse().unwrap(), transport, [7; 32])
}

fn ask_srv(name: &str) -> Next {
    Next::Ask(Query::Srv(name.into()))
}

fn ask(name: &str) -> Next {
    Next::Ask(Query::Addresses(name.into()))
}

fn try_at(text: &str) -> Next {
    Next::Try(text.parse().unwrap())
}

// spec: 7064-3.2-2, 7350-3-2, 5780-5.1-1
#[test]
fn services_have_names_by_transport() {
    let cases = [
        (Service::Stun, Transport::Udp, "_stun._udp.h"),
        (Service::Stun, Transport::Tcp, "_stun._tcp.h"),
        (Service::Stun, Transport::Tls, "_stuns._tcp.h"),
        (Service::Stun, Transport::Dtls, "_stuns._udp.h"),
        (
            Service::StunBehavior,
            Transport::Udp,
            "_stun-behavior._udp.h",
        ),
        (
            Service::StunBehavior,
            Transport::Tcp,
            "_stun-behavior._tcp.h",
        ),
        (
            Service::StunBehavior,
            Transport::Tls,
            "_stun-behaviors._tcp.h",
        ),
    ];
    for (service, transport, expected) in cases {
        assert_eq!(srv_name(service, transport, "h"), expected);
    }
    assert_eq!(default_transport(Scheme::Stun), Transport::Udp);
    assert_eq!(default_transport(Scheme::Stuns), Transport::Tls);
}

// spec: 7443-1-1
#[test]
fn application_protocols_in_bytes() {
    let hex = |text: &str| hex::decode(text.replace(' ', "")).unwrap();
    assert_eq!(ALPN_TURN, hex("73 74 75 6E 2E 74 75 72 6E"));
    assert_eq!(
        ALPN_NAT_DISCOVERY,
        hex("73 74 75 6E 2E 6E 61 74 2D 64 69 73 63 6F 76 65 72 79")
    );
}

// spec: STUN-8.1-1
#[test]
fn an_address_needs_no_dns() {
    let mut at = search("stun:192.0.2.1", Transport::Tcp);
    assert_eq!(at.next(), try_at("192.0.2.1:3478"));
    assert_eq!(at.next(), Next::Exhausted);
    let uri = Uri::with_domain("stuns:[2001:db8::1]", "example.org").unwrap();
    let mut at = Discovery::new(Service::Stun, &uri, Transport::Dtls, [7; 32]);
    assert_eq!(at.next(), try_at("[2001:db8::1]:5349"));
}

// spec: STUN-8.1-2, STUN-8.1-3
#[test]
fn servers_come_by_priority_and_family_until_there_are_no_more() {
    let mut at = search("stun:example.org", Transport::Udp);
    assert_eq!(at.next(), ask_srv("_stun._udp.example.org"));
    assert_eq!(at.next(), Next::Wait);
    at.handle_addresses(&ips(&["192.0.2.9"]));
    assert_eq!(at.next(), Next::Wait, "not what was asked");
    at.handle_srv(&[
        srv(20, 0, "second"),
        srv(10, 0, "first"),
        srv(30, 0, "third"),
    ]);
    assert_eq!(at.next(), ask("first"));
    at.handle_addresses(&ips(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]));
    assert_eq!(at.next(), try_at("[2001:db8::1]:5000"));
    assert_eq!(at.next(), try_at("192.0.2.1:5000"));
    assert_eq!(at.next(), try_at("192.0.2.2:5000"));
    assert_eq!(at.next(), ask("second"));
    at.handle_addresses(&[]);
    assert_eq!(at.next(), ask("third"));
    at.handle_addresses(&ips(&["192.0.2.3"]));
    assert_eq!(at.next(), try_at("192.0.2.3:5000"));
    assert_eq!((at.next(), at.next()), (Next::Exhausted, Next::Exhausted));
    at.handle_srv(&[srv(1, 1, "late")]);
    assert_eq!(at.next(), Next::Exhausted);
}

// spec: STUN-8.1-3, 7064-3.2-1
#[test]
fn without_srv_records_the_name_itself_is_the_server() {
    for (uri, transport, end) in [
        ("stun:example.org", Transport::Udp, "192.0.2.1:3478"),
        ("stuns:example.org", Transport::Tls, "192.0.2.1:5349"),
    ] {
        let mut at = search(uri, transport);
        at.next();
        at.handle_srv(&[]);
        assert_eq!(at.next(), ask("example.org"));
        at.handle_addresses(&ips(&["192.0.2.1"]));
        assert_eq!(at.next(), try_at(end));
    }
    let mut at = search("stun:example.org:9", Transport::Udp);
    assert_eq!(at.next(), ask("example.org"));
    at.handle_addresses(&ips(&["192.0.2.1"]));
    assert_eq!(at.next(), try_at("192.0.2.1:9"));
    // A dot: the service is decidedly not there.
    let mut at = search("stun:example.org", Transport::Udp);
    at.next();
    at.handle_srv(&[srv(0, 0, ".")]);
    assert_eq!(at.next(), Next::Exhausted);
}

// spec: STUN-8.1-2
#[test]
fn weights_share_the_clients() {
    let records = [
        srv(1, 0, "zero"),
        srv(1, 10, "ten"),
        srv(1, 30, "thirty"),
        srv(0, 1, "best"),
    ];
    let mut rng = Rng::from_seed([1; 32]);
    let mut first = [0_u32; 3];
    for _ in 0..4000 {
        let ordered = order_srv(&records, &mut rng);
        assert_eq!(ordered.len(), 4);
        assert_eq!(ordered[0].target, "best");
        let names = ["zero", "ten", "thirty"];
        first[names
            .iter()
            .position(|name| *name == ordered[1].target)
            .unwrap()] += 1;
    }
    assert!(first[0] > 20 && first[0] < 300, "{first:?}");
    assert!(first[1] > 800 && first[1] < 1200, "{first:?}");
    assert!(first[2] > 2600 && first[2] < 3200, "{first:?}");
}

// spec: SEC-G-05
#[test]
fn long_answers_are_cut() {
    let records: Vec<_> = (0..100).map(|n| srv(n, 0, &n.to_string())).collect();
    assert_eq!(order_srv(&records, &mut Rng::from_seed([1; 32])).len(), 16);
    let mut at = search("stun:example.org:1", Transport::Udp);
    at.next();
    at.handle_addresses(&ips(&["192.0.2.1"]).repeat(100));
    let tries = core::iter::from_fn(|| matches!(at.next(), Next::Try(_)).then_some(()));
    assert_eq!(tries.count(), 16);
}
