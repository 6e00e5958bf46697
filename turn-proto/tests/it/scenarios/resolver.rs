//! From a URI to an allocation (RFC 5928).

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;

use stun_proto::discovery::SrvRecord;
use turn_proto::Transport;
use turn_proto::client::{AllocateOptions, Servers};
use turn_proto::resolve::{NaptrRecord, Next, Query, Resolver};

use crate::wired::*;

#[derive(Default)]
struct Zone {
    naptr: BTreeMap<&'static str, Vec<NaptrRecord>>,
    srv: BTreeMap<&'static str, Vec<SrvRecord>>,
    addresses: BTreeMap<&'static str, Vec<IpAddr>>,
}

/// Tries what the URI leads to until one server answers; all that was tried.
fn connects(zone: &Zone, uri: &str, alive: &str, servers: &mut Servers) -> Vec<String> {
    let supported = [Transport::Tls, Transport::Tcp, Transport::Udp];
    let mut resolver = Resolver::new(&uri.parse().unwrap(), &supported, [1; 32]).unwrap();
    let mut tried = Vec::new();
    loop {
        match resolver.next() {
            Next::Ask(Query::Naptr(name)) => {
                resolver.handle_naptr(zone.naptr.get(name.as_str()).map_or(&[], Vec::as_slice));
            }
            Next::Ask(Query::Srv(name)) => {
                resolver.handle_srv(zone.srv.get(name.as_str()).map_or(&[], Vec::as_slice));
            }
            Next::Ask(Query::Addresses(name)) => {
                resolver
                    .handle_addresses(zone.addresses.get(name.as_str()).map_or(&[], Vec::as_slice));
            }
            Next::Try(server) => {
                if !servers.may_ask(at(0), server.address.ip()) {
                    continue;
                }
                let name = format!("{} {}", server.transport, server.address);
                tried.push(name.clone());
                let mut world = World::new();
                world.loses = Box::new({
                    let lost = name != alive;
                    move |_| lost
                });
                let end = world.end(client_config(), server.transport, 40_000);
                world.allocate(end, AllocateOptions::default());
                world.run(at(40));
                if world.ends[end].cause().is_none() {
                    return tried;
                }
            }
            Next::Wait => panic!("every question was answered"),
            Next::Exhausted => {
                tried.push("exhausted".into());
                return tried;
            }
        }
    }
}

fn naptr(order: u16, flags: &str, service: &str, replacement: &str) -> NaptrRecord {
    NaptrRecord {
        order,
        preference: 10,
        flags: flags.into(),
        service: service.into(),
        replacement: replacement.into(),
    }
}

fn srv(port: u16) -> Vec<SrvRecord> {
    vec![SrvRecord {
        priority: 0,
        weight: 0,
        port,
        target: "a.example.net".into(),
    }]
}

fn zone() -> Zone {
    let mut zone = Zone::default();
    zone.naptr.insert(
        "example.net",
        vec![
            naptr(100, "S", "RELAY:turn.udp", "_turn._udp.example.net"),
            naptr(200, "S", "RELAY:turn.tcp", "_turn._tcp.example.net"),
            naptr(200, "A", "RELAY:turn.tls", "a.example.net"),
        ],
    );
    zone.srv.insert("_turn._udp.example.net", srv(3478));
    zone.srv.insert("_turn._tcp.example.net", srv(5000));
    zone.srv.insert("_turns._tcp.example.net", srv(443));
    let addresses = vec![ip("192.0.2.1")];
    zone.addresses.insert("a.example.net", addresses.clone());
    zone.addresses.insert("plain.example.net", addresses);
    zone
}

// spec: 5928-3-2, 5928-3-3, 5928-3-4, 5928-3-5, 5928-3-6, STUN-8.1-2
#[test]
fn scenario_25_names_lead_to_a_server_that_answers() {
    let zone = zone();
    let check = |uri: &str, alive: &str, expected: &[&str]| {
        assert_eq!(
            connects(&zone, uri, alive, &mut Servers::new()),
            expected,
            "{uri}"
        );
    };
    // Step 1: an address. 2: a name and port. 3: a transport. 4 and 5: nothing but the name.
    check(
        "turn:192.0.2.1?transport=udp",
        "UDP 192.0.2.1:3478",
        &["UDP 192.0.2.1:3478"],
    );
    check(
        "turn:plain.example.net:80?transport=tcp",
        "TCP 192.0.2.1:80",
        &["TCP 192.0.2.1:80"],
    );
    check(
        "turns:example.net?transport=tcp",
        "TLS 192.0.2.1:443",
        &["TLS 192.0.2.1:443"],
    );
    let all = [
        "UDP 192.0.2.1:3478",
        "TLS 192.0.2.1:5349",
        "TCP 192.0.2.1:5000",
    ];
    for tries in 1..=3 {
        check("turn:example.net", all[tries - 1], &all[..tries]);
    }
    check(
        "turn:example.net",
        "none",
        &[all[0], all[1], all[2], "exhausted"],
    );
    // No records but addresses: the default ports, in the application's order.
    check(
        "turn:plain.example.net",
        "UDP 192.0.2.1:3478",
        &[
            "TLS 192.0.2.1:5349",
            "TCP 192.0.2.1:3478",
            "UDP 192.0.2.1:3478",
        ],
    );
    // A server that had no room a moment ago is left out.
    let mut servers = Servers::new();
    let server: SocketAddr = addr("192.0.2.1:3478");
    servers.asked(at(0), server);
    let failed = turn_proto::client::Event::AllocateFailed {
        cause: turn_proto::client::Cause::Code(486),
        retry_after: Some(secs(60)),
        fresh_address: false,
        alternate: None,
    };
    servers.note(at(0), server, &failed);
    let tried = connects(&zone, "turn:example.net", all[0], &mut servers);
    assert_eq!(tried, ["exhausted"]);
}
