#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::collections::BTreeMap;

use super::*;

use Transport::{Dtls, Tcp, Tls, Udp};

/// DNS in a table.
#[derive(Default)]
struct Zone {
    naptr: BTreeMap<&'static str, Vec<NaptrRecord>>,
    srv: BTreeMap<&'static str, Vec<SrvRecord>>,
    addresses: BTreeMap<&'static str, Vec<IpAddr>>,
}

impl Zone {
    fn naptr(
        mut self,
        name: &'static str,
        (order, preference): (u16, u16),
        flags: &str,
        service: &str,
        replacement: &str,
    ) -> Self {
        self.naptr.entry(name).or_default().push(NaptrRecord {
            order,
            preference,
            flags: flags.into(),
            service: service.into(),
            replacement: replacement.into(),
        });
        self
    }

    fn srv(mut self, name: &'static str, priority: u16, port: u16, target: &str) -> Self {
        self.srv.entry(name).or_default().push(SrvRecord {
            priority,
            weight: 0,
            port,
            target: target.into(),
        });
        self
    }

    fn address(mut self, name: &'static str, ip: &str) -> Self {
        let list = self.addresses.entry(name).or_default();
        list.push(ip.parse().unwrap());
        self
    }

    /// The servers a URI leads to, and the questions asked on the way.
    fn resolve(&self, uri: &str, supported: &[Transport]) -> (Vec<String>, Vec<Query>) {
        let uri = uri.parse().unwrap();
        let mut resolver = Resolver::new(&uri, supported, [1; 32]).unwrap();
        let (mut servers, mut queries) = (Vec::new(), Vec::new());
        loop {
            match resolver.next() {
                Next::Ask(query) => {
                    assert_eq!(resolver.next(), Next::Wait);
                    match &query {
                        Query::Naptr(name) => {
                            let found = self.naptr.get(name.as_str());
                            resolver.handle_naptr(found.map_or(&[], Vec::as_slice));
                        }
                        Query::Srv(name) => {
                            let found = self.srv.get(name.as_str());
                            resolver.handle_srv(found.map_or(&[], Vec::as_slice));
                        }
                        Query::Addresses(name) => {
                            let found = self.addresses.get(name.as_str());
                            resolver.handle_addresses(found.map_or(&[], Vec::as_slice));
                        }
                    }
                    queries.push(query);
                }
                Next::Try(Server { transport, address }) => {
                    servers.push(alloc::format!("{transport} {address}"));
                }
                Next::Wait => panic!("every question was answered"),
                Next::Exhausted => return (servers, queries),
            }
        }
    }
}

/// The zone of RFC 5928 section 4.1 and 4.2.
fn example() -> Zone {
    let stream = "stream.example.net";
    Zone::default()
        .naptr(
            "example.net",
            (100, 10),
            "",
            "RELAY:turn.udp",
            "datagram.example.net.",
        )
        .naptr(
            "example.net",
            (200, 10),
            "",
            "RELAY:turn.tcp:turn.tls",
            "stream.example.net.",
        )
        .naptr(
            "datagram.example.net",
            (100, 10),
            "S",
            "RELAY:turn.udp",
            "_turn._udp.example.net.",
        )
        .naptr(
            stream,
            (100, 10),
            "S",
            "RELAY:turn.tcp",
            "_turn._tcp.example.net.",
        )
        .naptr(stream, (200, 10), "A", "RELAY:turn.tls", "a.example.net.")
        .naptr(
            "example.com",
            (100, 10),
            "",
            "RELAY:turn.udp:turn.tcp:turn.tls",
            "example.net.",
        )
        .srv("_turn._udp.example.net", 0, 3478, "a.example.net")
        .srv("_turn._tcp.example.net", 0, 5000, "a.example.net")
        .address("a.example.net", "192.0.2.1")
}

#[track_caller]
fn check(zone: &Zone, uri: &str, supported: &[Transport], expected: &[&str]) {
    let (servers, _) = zone.resolve(uri, supported);
    assert_eq!(servers, expected, "{uri}");
}

// spec: 5928-3-5
#[test]
fn the_zone_of_the_rfc_is_resolved_as_there() {
    check(
        &example(),
        "turn:example.net",
        &[Tls, Tcp, Udp],
        &[
            "UDP 192.0.2.1:3478",
            "TLS 192.0.2.1:5349",
            "TCP 192.0.2.1:5000",
        ],
    );
}

// spec: 5928-3-5
#[test]
fn remote_hosting_keeps_the_applications_order() {
    check(
        &example(),
        "turn:example.com",
        &[Tls, Tcp, Udp],
        &[
            "TLS 192.0.2.1:5349",
            "TCP 192.0.2.1:5000",
            "UDP 192.0.2.1:3478",
        ],
    );
    check(
        &example(),
        "turns:example.net",
        &[Udp, Tcp, Tls],
        &["TLS 192.0.2.1:5349"],
    );
}

// spec: 5928-3-1, 7350-4.6-1, TURN-4.1-1
#[test]
fn scheme_and_parameter_choose_among_the_supported_transports() {
    let all = [Udp, Tcp, Tls, Dtls];
    let choose = |uri: &str, supported: &[Transport]| {
        let uri = Uri::with_domain(uri, "example.org").unwrap();
        transports(&uri, supported)
    };
    for (uri, expected) in [
        ("turn:h?transport=udp", &[Udp][..]),
        ("turn:h?transport=tcp", &[Tcp]),
        ("turns:h?transport=tcp", &[Tls]),
        ("turns:h?transport=udp", &[Dtls]),
        ("turns:h", &[Tls, Dtls]),
        ("turn:h", &all),
    ] {
        assert_eq!(choose(uri, &all), Ok(expected.to_vec()), "{uri}");
    }
    for uri in ["turns:h", "turns:h?transport=tcp", "turns:h?transport=udp"] {
        assert_eq!(choose(uri, &[Udp, Tcp]), Err(ResolveError::Unsupported));
    }
    let udp_only = choose("turn:h?transport=tcp", &[Udp]);
    assert_eq!(udp_only, Err(ResolveError::Unsupported));
    assert_eq!(choose("turn:h", &[]), Err(ResolveError::Unsupported));
    let unknown = choose("turn:h?transport=sctp", &all);
    assert_eq!(unknown, Err(ResolveError::UnknownTransport));
    let stun = "stun:example.org".parse().unwrap();
    let refused = Resolver::new(&stun, &all, [0; 32]).map(|_| ());
    assert_eq!(refused, Err(ResolveError::Scheme));
}

// spec: 5928-3-2, 7065-3.2-1
#[test]
fn an_address_is_used_as_it_is() {
    let zone = Zone::default();
    let list = [Tcp, Udp];
    check(
        &zone,
        "turn:192.0.2.1",
        &list,
        &["TCP 192.0.2.1:3478", "UDP 192.0.2.1:3478"],
    );
    check(
        &zone,
        "turn:[2001:db8::1]:443?transport=tcp",
        &list,
        &["TCP [2001:db8::1]:443"],
    );
    let uri = Uri::with_domain("turns:192.0.2.1", "example.org").unwrap();
    let mut resolver = Resolver::new(&uri, &[Udp, Tls], [0; 32]).unwrap();
    let server = Server {
        transport: Tls,
        address: "192.0.2.1:5349".parse().unwrap(),
    };
    assert_eq!(resolver.next(), Next::Try(server));
    assert_eq!(resolver.next(), Next::Exhausted);
}

// spec: 5928-3-3
#[test]
fn a_name_with_a_port_is_asked_for_both_families() {
    let zone = Zone::default()
        .address("example.org", "192.0.2.1")
        .address("example.org", "192.0.2.2")
        .address("example.org", "2001:db8::1");
    check(
        &zone,
        "turn:example.org:8000?transport=udp",
        &[Udp],
        &[
            "UDP [2001:db8::1]:8000",
            "UDP 192.0.2.1:8000",
            "UDP 192.0.2.2:8000",
        ],
    );
    let (servers, queries) = zone.resolve("turn:example.org:8000", &[Tcp, Udp]);
    assert_eq!(servers.len(), 6);
    assert_eq!(servers[0], "TCP [2001:db8::1]:8000");
    assert_eq!(queries, [Query::Addresses("example.org".into())]);
}

// spec: 5928-3-4, 7350-4.6-1
#[test]
fn a_name_with_a_transport_is_asked_for_srv_records() {
    let zone = Zone::default()
        .srv("_turn._udp.example.org", 20, 3478, "b.example.org")
        .srv("_turn._udp.example.org", 10, 3479, "a.example.org")
        .srv("_turns._udp.example.org", 10, 5350, "a.example.org")
        .srv("_turns._tcp.example.org", 10, 443, ".")
        .address("a.example.org", "192.0.2.1")
        .address("b.example.org", "192.0.2.2")
        .address("example.org", "192.0.2.3");
    let all = [Udp, Tcp, Tls, Dtls];
    check(
        &zone,
        "turn:example.org?transport=udp",
        &all,
        &["UDP 192.0.2.1:3479", "UDP 192.0.2.2:3478"],
    );
    check(
        &zone,
        "turns:example.org?transport=udp",
        &all,
        &["DTLS 192.0.2.1:5350"],
    );
    // No records: the name itself; a lone dot: nothing at all.
    check(
        &zone,
        "turn:example.org?transport=tcp",
        &all,
        &["TCP 192.0.2.3:3478"],
    );
    check(&zone, "turns:example.org?transport=tcp", &all, &[]);
}

// spec: 5928-3-5
#[test]
fn without_naptr_records_srv_records_are_asked_for_each_transport() {
    let zone = Zone::default()
        .naptr(
            "example.org",
            (1, 1),
            "S",
            "SIP+D2U",
            "_sip._udp.example.org",
        )
        .srv("_turn._tcp.example.org", 0, 80, "a.example.org")
        .address("a.example.org", "192.0.2.1")
        .address("example.org", "192.0.2.3");
    check(
        &zone,
        "turn:example.org",
        &[Tls, Tcp, Udp],
        &[
            "TLS 192.0.2.3:5349",
            "TCP 192.0.2.1:80",
            "UDP 192.0.2.3:3478",
        ],
    );
    let secure = zone.resolve("turns:example.org", &[Tls]);
    assert!(
        secure
            .1
            .contains(&Query::Srv("_turns._tcp.example.org".into()))
    );
}

// spec: 5928-3-6
#[test]
fn every_failure_leads_to_the_next_server() {
    let uri = "turn:example.net".parse().unwrap();
    let mut resolver = Resolver::new(&uri, &[Udp, Tcp], [1; 32]).unwrap();
    // Answers nobody asked for change nothing.
    resolver.handle_addresses(&["192.0.2.66".parse().unwrap()]);
    resolver.handle_srv(&[]);
    resolver.handle_naptr(&[]);
    assert_eq!(
        resolver.next(),
        Next::Ask(Query::Naptr("example.net".into()))
    );
    resolver.handle_srv(&[]);
    resolver.handle_addresses(&["192.0.2.66".parse().unwrap()]);
    assert_eq!(resolver.next(), Next::Wait);
    let (servers, _) = example().resolve("turn:example.net", &[Udp, Tcp]);
    assert_eq!(servers, ["UDP 192.0.2.1:3478", "TCP 192.0.2.1:5000"]);
}

// spec: SEC-G-11, SEC-G-05
#[test]
fn records_that_point_at_each_other_come_to_an_end() {
    let service = "RELAY:turn.udp:turn.tcp";
    let mut zone = Zone::default();
    for _ in 0..16 {
        zone = zone
            .naptr("a.example", (1, 1), "", service, "b.example")
            .naptr("b.example", (1, 1), "", service, "a.example");
    }
    let (servers, queries) = zone.resolve("turn:a.example", &[Udp, Tcp]);
    assert!(servers.is_empty());
    assert_eq!(queries.len(), MAX_QUERIES);
}

// spec: 5928-5-1
#[test]
fn the_certificate_is_for_the_configured_name() {
    let uri: Uri = "turns:example.org".parse().unwrap();
    assert_eq!(uri.tls_name(), Some("example.org"));
}

// spec: 8155-3-1
#[test]
fn what_is_configured_comes_before_what_is_discovered() {
    let configured: Uri = "turn:example.org".parse().unwrap();
    let domain = String::from("access.example");
    let sources = sources(
        core::slice::from_ref(&configured),
        core::slice::from_ref(&domain),
    );
    assert_eq!(
        sources,
        [
            Source::Configured(configured),
            Source::Domain(domain),
            Source::ServiceDiscovery,
            Source::Anycast("2001:1::2".parse().unwrap()),
            Source::Anycast("192.0.0.10".parse().unwrap()),
        ]
    );
    assert!(SERVICE_TYPES.contains(&"_turns._tcp"));
}

// spec: 8155-9-1
#[test]
fn without_credentials_a_discovered_server_needs_tls_or_a_trusted_network() {
    for (transport, credentials, trusted, expected) in [
        (Udp, false, false, false),
        (Tcp, false, false, false),
        (Tls, false, false, true),
        (Dtls, false, false, true),
        (Udp, true, false, true),
        (Udp, false, true, true),
    ] {
        assert_eq!(is_acceptable(transport, credentials, trusted), expected);
    }
}
