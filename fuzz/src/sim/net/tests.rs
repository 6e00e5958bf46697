use alloc::vec::Vec;
use core::net::IpAddr;

use super::*;
use crate::sim::{ConnectFailure, Firewall, Gateway, Link, NatKind};

/// Keeps what arrives.
#[derive(Default)]
struct Keep(Vec<(HostId, Arrival)>);

impl World for Keep {
    fn deliver(&mut self, _: &mut Net, to: HostId, arrival: Arrival) {
        self.0.push((to, arrival));
    }
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn wake(&mut self, _: &mut Net) {}
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn net() -> Net {
    Net::new(Choices::from_seed(1), Trace::off())
}

fn clean() -> Link {
    Link::clean(Duration::from_millis(10))
}

fn natted(net: &mut Net, kind: NatKind) -> (HostId, SiteId) {
    let gateway = Gateway::nat(clean(), kind, ip("192.0.2.1"));
    let site = net.site(INTERNET, gateway);
    (net.host("inside", &[(ip("10.0.0.2"), site)]), site)
}

fn datagrams(world: &Keep) -> Vec<(HostId, SocketAddr, Vec<u8>)> {
    let only = |(host, arrival): &'_ (HostId, Arrival)| match arrival {
        Arrival::Datagram { remote, data, .. } => Some((*host, *remote, data.clone())),
        Arrival::Unreachable { .. }
        | Arrival::Accepted { .. }
        | Arrival::Connected { .. }
        | Arrival::ConnectFailed { .. }
        | Arrival::Bytes { .. }
        | Arrival::Eof { .. }
        | Arrival::Reset { .. }
        | Arrival::Writable { .. }
        | Arrival::Alarm(_) => None,
    };
    world.0.iter().filter_map(only).collect()
}

#[test]
fn a_datagram_and_its_answer_cross_a_nat() {
    use crate::sim::Dependence::AddressAndPort;
    let mut net = net();
    let (inside, _) = natted(&mut net, NatKind::new(AddressAndPort, AddressAndPort));
    let outside = net.host("outside", &[(ip("198.51.100.1"), INTERNET)]);
    net.bind(inside, at("10.0.0.2:5000"));
    net.bind(outside, at("198.51.100.1:3478"));
    net.send(inside, at("10.0.0.2:5000"), at("198.51.100.1:3478"), b"a");
    let mut world = Keep::default();
    net.run_for(&mut world, Duration::from_secs(1));
    let (host, mapped, data) = datagrams(&world)[0].clone();
    assert_eq!(
        (host, mapped.ip(), data),
        (outside, ip("192.0.2.1"), b"a".to_vec())
    );
    net.send(outside, at("198.51.100.1:3478"), mapped, b"b");
    net.bind(outside, at("198.51.100.1:9"));
    net.send(outside, at("198.51.100.1:9"), mapped, b"filtered");
    let mut world = Keep::default();
    net.run_for(&mut world, Duration::from_secs(1));
    assert_eq!(
        datagrams(&world),
        [(inside, at("198.51.100.1:3478"), b"b".to_vec())]
    );
}

#[test]
fn hosts_behind_one_nat_meet_at_its_outside_only_with_hairpinning() {
    use crate::sim::Dependence::Endpoint;
    for hairpin in [false, true] {
        let mut net = net();
        let kind = NatKind {
            hairpin,
            ..NatKind::new(Endpoint, Endpoint)
        };
        let (inside, site) = natted(&mut net, kind);
        let other = net.host("other", &[(ip("10.0.0.3"), site)]);
        let server = net.host("server", &[(ip("198.51.100.1"), INTERNET)]);
        net.bind(inside, at("10.0.0.2:1"));
        net.bind(other, at("10.0.0.3:1"));
        net.bind(server, at("198.51.100.1:1"));
        net.send(other, at("10.0.0.3:1"), at("198.51.100.1:1"), b"map");
        let mut world = Keep::default();
        net.run_for(&mut world, Duration::from_secs(1));
        let mapped = datagrams(&world)[0].1;
        net.send(inside, at("10.0.0.2:1"), mapped, b"hairpin");
        net.send(inside, at("10.0.0.2:1"), at("10.0.0.3:1"), b"direct");
        let mut world = Keep::default();
        net.run_for(&mut world, Duration::from_secs(1));
        let seen: Vec<_> = datagrams(&world)
            .into_iter()
            .map(|(_, _, data)| data)
            .collect();
        let expected: &[&[u8]] = if hairpin {
            &[b"direct", b"hairpin"]
        } else {
            &[b"direct"]
        };
        assert_eq!(seen, expected);
    }
}

#[test]
fn a_firewall_blocks_or_rejects() {
    use crate::sim::Allowed;
    let mut net = net();
    let firewall = Firewall {
        allowed: Allowed::Web,
        rejects: true,
    };
    let site = net.site(INTERNET, Gateway::routed(clean()).with_firewall(firewall));
    let inside = net.host("inside", &[(ip("192.0.2.9"), site)]);
    let server = net.host("server", &[(ip("198.51.100.1"), INTERNET)]);
    net.bind(inside, at("192.0.2.9:1"));
    net.listen(server, at("198.51.100.1:443"));
    net.listen(server, at("198.51.100.1:5061"));
    net.send(inside, at("192.0.2.9:1"), at("198.51.100.1:1"), b"udp");
    let web = net.connect(inside, ip("192.0.2.9"), at("198.51.100.1:443"));
    let sip = net.connect(inside, ip("192.0.2.9"), at("198.51.100.1:5061"));
    let mut world = Keep::default();
    net.run_for(&mut world, Duration::from_secs(1));
    let seen = |arrival: &Arrival| world.0.iter().any(|(_, seen)| seen == arrival);
    assert!(seen(&Arrival::Unreachable {
        local: at("192.0.2.9:1"),
        remote: at("198.51.100.1:1")
    }));
    let local = net.addresses(web).unwrap().0;
    assert!(seen(&Arrival::Connected { end: web, local }));
    let why = ConnectFailure::Refused;
    assert!(seen(&Arrival::ConnectFailed { end: sip, why }));
}

#[test]
fn a_stream_delivers_everything_once_in_order_however_it_is_cut() {
    for cuts in [Cuts::None, Cuts::Most(7), Cuts::Wild] {
        let mut net = net();
        net.cuts = cuts;
        net.window = 1000;
        let a = net.host("a", &[(ip("192.0.2.1"), INTERNET)]);
        let b = net.host("b", &[(ip("192.0.2.2"), INTERNET)]);
        net.listen(b, at("192.0.2.2:80"));
        let end = net.connect(a, ip("192.0.2.1"), at("192.0.2.2:80"));
        let mut world = Keep::default();
        net.run_for(&mut world, Duration::from_secs(1));
        let sent: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let taken = net.write(end, rest);
            rest = &rest[taken..];
            net.run_for(&mut world, Duration::from_millis(1));
        }
        net.shutdown(end);
        net.run_for(&mut world, Duration::from_secs(1));
        let mut read = Vec::new();
        for (_, arrival) in &world.0 {
            if let Arrival::Bytes { data, .. } = arrival {
                read.extend_from_slice(data);
            }
        }
        assert_eq!(read, sent);
        let eof = Arrival::Eof { end: end.other() };
        assert_eq!(world.0.last(), Some(&(b, eof)));
    }
}

#[test]
fn a_reader_that_pauses_stops_the_writer() {
    let mut net = net();
    net.window = 100;
    let a = net.host("a", &[(ip("192.0.2.1"), INTERNET)]);
    let b = net.host("b", &[(ip("192.0.2.2"), INTERNET)]);
    net.listen(b, at("192.0.2.2:80"));
    let end = net.connect(a, ip("192.0.2.1"), at("192.0.2.2:80"));
    let mut world = Keep::default();
    net.run_for(&mut world, Duration::from_secs(1));
    net.pause(end.other(), true);
    assert_eq!(net.write(end, &[1; 150]), 100);
    net.run_for(&mut world, Duration::from_secs(1));
    assert_eq!(net.write(end, &[1; 50]), 0);
    net.pause(end.other(), false);
    net.run_for(&mut world, Duration::from_secs(1));
    assert!(world.0.contains(&(a, Arrival::Writable { end })));
    assert_eq!(net.write(end, &[1; 50]), 50);
}
