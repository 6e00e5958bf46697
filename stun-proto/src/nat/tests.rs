#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::*;
use crate::limit::RateLimit;
use crate::wire::{
    Attribute as _, ChangeRequest, ErrorCode, MappedAddress, Message, MessageType, Method,
    OtherAddress, Padding, ResponseOrigin, ResponsePort, TransactionId, UnknownAttributes,
    WriteError, Writer, XorMappedAddress,
};
use crate::{FiveTuple, Instant, Received, Transmit, Transport};

use AddressDependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn addresses() -> NatAddresses {
    let ips = ["198.51.100.1", "198.51.100.2"].map(|ip| ip.parse().unwrap());
    NatAddresses::new(ips, [3478, 3479]).unwrap()
}

fn server_with(change: impl FnOnce(&mut NatServerConfig)) -> NatServer {
    let mut config = NatServerConfig {
        addresses: addresses(),
        response_port: true,
        limit: RateLimit::NONE,
    };
    change(&mut config);
    NatServer::new(config, [9; 32])
}

fn main() -> SocketAddr {
    addr("198.51.100.1:3478")
}

type Inside = (SocketAddr, Option<IpAddr>, Option<u16>);

/// A NAT with the public address 203.0.113.5, one client inside.
struct Nat {
    mapping: AddressDependence,
    filtering: AddressDependence,
    hairpin: bool,
    lifetime: Duration,
    /// Inside address and what the mapping depends on, to outside port and last use.
    bindings: BTreeMap<Inside, (u16, Instant)>,
    /// Who was sent to from an outside port.
    sent: Vec<(u16, SocketAddr)>,
    next_port: u16,
}

impl Nat {
    fn new(mapping: AddressDependence, filtering: AddressDependence) -> Self {
        Self {
            mapping,
            filtering,
            hairpin: false,
            lifetime: Duration::from_secs(100_000),
            bindings: BTreeMap::new(),
            sent: Vec::new(),
            next_port: 40_000,
        }
    }

    fn out(&mut self, now: Instant, from: SocketAddr, to: SocketAddr) -> SocketAddr {
        let key = match self.mapping {
            EndpointIndependent => (from, None, None),
            AddressDependent => (from, Some(to.ip()), None),
            AddressAndPortDependent => (from, Some(to.ip()), Some(to.port())),
        };
        let lifetime = self.lifetime;
        self.bindings.retain(|_, (_, used)| now - *used <= lifetime);
        let live = self.bindings.get(&key).copied();
        let port = live.map_or_else(
            || {
                self.next_port += 1;
                self.next_port
            },
            |(port, _)| port,
        );
        self.bindings.insert(key, (port, now));
        self.sent.push((port, to));
        SocketAddr::from(([203, 0, 113, 5], port))
    }

    fn into(&mut self, now: Instant, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let lifetime = self.lifetime;
        self.bindings.retain(|_, (_, used)| now - *used <= lifetime);
        let live = self
            .bindings
            .iter()
            .find(|(_, (port, _))| *port == to.port());
        let inside = live.map(|((inside, ..), _)| *inside)?;
        let mut sent = self.sent.iter().filter(|(port, _)| *port == to.port());
        let open = sent.any(|(_, peer)| match self.filtering {
            EndpointIndependent => true,
            AddressDependent => peer.ip() == from.ip(),
            AddressAndPortDependent => *peer == from,
        });
        open.then_some(inside)
    }
}

struct World {
    client: NatClient,
    server: NatServer,
    nat: Option<Nat>,
    now: Instant,
    starts: Vec<Instant>,
    events: Vec<NatEvent>,
}

fn run(config: NatClientConfig, server: NatServer, nat: Option<Nat>) -> World {
    let now = Instant::ZERO;
    let mut world = World {
        client: NatClient::new(config, main(), [7; 32], now),
        server,
        nat,
        now,
        starts: Vec::new(),
        events: Vec::new(),
    };
    world.open();
    while let Some(next) = world.client.poll_timeout() {
        assert!(next >= world.now);
        world.now = next;
        world.client.handle_timeout(next);
        world.exchange();
    }
    assert_eq!(world.events.pop(), Some(NatEvent::Done));
    world
}

impl World {
    fn open(&mut self) {
        let mut port = 5000;
        while let Some(action) = self.client.poll_action() {
            let NatAction::Open(socket) = action else {
                panic!("{action:?}")
            };
            port += 1;
            let bound = SocketAddr::from(([192, 0, 2, 9], port));
            self.client.handle_socket(self.now, socket, Some(bound));
        }
    }

    fn exchange(&mut self) {
        let mut buf = [0; NatClient::MAX_TRANSMIT];
        while let Some(Transmit { to: sent, len }) = self.client.poll_transmit(&mut buf) {
            let data = buf[..len].to_vec();
            let id = Message::parse(&data).unwrap().transaction_id();
            self.starts.push(self.now);
            let source = match &mut self.nat {
                Some(nat) => nat.out(self.now, sent.local, sent.remote),
                None => sent.local,
            };
            if sent.remote.ip() == source.ip() {
                self.hairpin(source, sent.remote, &data);
                continue;
            }
            let at = FiveTuple::udp(sent.remote, source);
            let mut out = [0; 1500];
            let Some(answer) = self.server.respond(self.now, at, &data, &mut out) else {
                continue;
            };
            let answered = Message::parse(&out[..answer.len]).unwrap();
            assert_eq!(answered.transaction_id(), id);
            self.deliver(answer.to.local, answer.to.remote, &out[..answer.len]);
        }
        while let Some(event) = self.client.poll_event() {
            self.events.push(event);
        }
    }

    fn hairpin(&mut self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        if self.nat.as_ref().is_none_or(|nat| nat.hairpin) {
            self.deliver(from, to, data);
        }
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let inside = match &mut self.nat {
            Some(nat) => nat.into(self.now, from, to),
            None => Some(to),
        };
        if let Some(inside) = inside {
            let at = FiveTuple::udp(inside, from);
            self.client.handle_datagram(self.now, at, data);
        }
    }
}

fn only(test: NatTest) -> NatClientConfig {
    NatClientConfig {
        mapping: test == NatTest::Mapping,
        filtering: test == NatTest::Filtering,
        hairpin: test == NatTest::Hairpin,
        lifetime: None,
        ..NatClientConfig::default()
    }
}

// spec: 5780-4.3-1, 5780-4.4-1
#[test]
fn every_kind_of_mapping_and_filtering_is_named() {
    let all = [
        EndpointIndependent,
        AddressDependent,
        AddressAndPortDependent,
    ];
    for mapping in all {
        for filtering in all {
            let config = NatClientConfig {
                hairpin: false,
                ..NatClientConfig::default()
            };
            let world = run(
                config,
                server_with(|_| {}),
                Some(Nat::new(mapping, filtering)),
            );
            let mapped = addr("203.0.113.5:40001");
            let expected = [
                NatEvent::Mapping {
                    depends_on: mapping,
                    mapped,
                },
                NatEvent::Filtering(filtering),
            ];
            assert_eq!(world.events, expected);
        }
    }
}

// spec: 5780-4.3-1, 5780-3.4-1
#[test]
fn without_a_nat_there_is_none() {
    let world = run(NatClientConfig::default(), server_with(|_| {}), None);
    let expected = [
        NatEvent::NoNat,
        NatEvent::Filtering(EndpointIndependent),
        NatEvent::Hairpin(true),
    ];
    assert_eq!(world.events, expected);
}

// spec: 5780-3.4-1
#[test]
fn hairpins_are_found() {
    for hairpin in [false, true] {
        let mut nat = Nat::new(EndpointIndependent, EndpointIndependent);
        nat.hairpin = hairpin;
        let world = run(only(NatTest::Hairpin), server_with(|_| {}), Some(nat));
        assert_eq!(world.events, [NatEvent::Hairpin(hairpin)]);
    }
}

// spec: 5780-4.6-1
#[test]
fn the_lifetime_of_a_binding_is_searched_for() {
    for (lifetime, longest, precision) in [(30, 600, 5), (65, 600, 1), (599, 600, 5), (120, 60, 5)]
    {
        let mut nat = Nat::new(EndpointIndependent, AddressAndPortDependent);
        nat.lifetime = Duration::from_secs(lifetime);
        let config = NatClientConfig {
            lifetime: Some(Duration::from_secs(longest)),
            lifetime_precision: Duration::from_secs(precision),
            hairpin: false,
            filtering: false,
            mapping: false,
            ..NatClientConfig::default()
        };
        let world = run(config, server_with(|_| {}), Some(nat));
        let [
            NatEvent::Lifetime {
                at_least,
                less_than,
            },
        ] = world.events[..]
        else {
            panic!("{:?}", world.events)
        };
        assert!(at_least.as_secs() <= lifetime, "{at_least:?} {lifetime}");
        match less_than {
            None => assert!(lifetime >= longest && at_least.as_secs() == longest),
            Some(less_than) => {
                assert!(less_than.as_secs() >= lifetime, "{less_than:?} {lifetime}");
                assert!(less_than - at_least <= Duration::from_secs(precision));
            }
        }
    }
}

// spec: 5780-5-1, 5780-6-1
#[test]
fn a_server_that_cannot_is_told_from_a_nat_that_does_not() {
    // No RESPONSE-PORT.
    let config = NatClientConfig {
        lifetime: Some(Duration::from_secs(60)),
        hairpin: false,
        filtering: false,
        mapping: false,
        ..NatClientConfig::default()
    };
    let nat = Nat::new(EndpointIndependent, EndpointIndependent);
    let server = server_with(|config| config.response_port = false);
    let world = run(config, server, Some(nat));
    let unsupported = |test| NatEvent::Failed {
        test,
        why: NatFailure::Unsupported,
    };
    assert_eq!(world.events, [unsupported(NatTest::Lifetime)]);
    assert!(world.starts.len() <= 4, "no search");

    // No second address: answers of a plain Binding server.
    let mut server = crate::binding::BindingServer::new(Default::default(), [9; 32]).unwrap();
    let now = Instant::ZERO;
    let mut client = NatClient::new(NatClientConfig::default(), main(), [7; 32], now);
    for (socket, port) in [
        (NatSocket::Mapping, 1),
        (NatSocket::Filtering, 2),
        (NatSocket::Helper, 3),
    ] {
        client.handle_socket(now, socket, Some(([192, 0, 2, 9], port).into()));
    }
    client.handle_timeout(now);
    let mut buf = [0; 1500];
    let sent = client.poll_transmit(&mut buf).unwrap();
    let request = buf[..sent.len].to_vec();
    let seen = FiveTuple::udp(main(), addr("203.0.113.5:40001"));
    let answer = server.respond(now, seen, &request, &mut buf).unwrap();
    client.handle_datagram(now, sent.to, &buf[..answer.len]);
    let events: Vec<_> = core::iter::from_fn(|| client.poll_event()).collect();
    assert_eq!(
        events,
        [
            unsupported(NatTest::Mapping),
            unsupported(NatTest::Filtering)
        ]
    );
}

// spec: 5780-5-2
#[test]
fn ten_requests_per_second_are_enough() {
    let nat = Nat::new(AddressAndPortDependent, EndpointIndependent);
    let world = run(only(NatTest::Mapping), server_with(|_| {}), Some(nat));
    assert_eq!(world.starts.len(), 3);
    for pair in world.starts.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(100));
    }
}

/// The client's first request and where it went.
fn started(config: NatClientConfig) -> (NatClient, FiveTuple, TransactionId) {
    let now = Instant::ZERO;
    let mut client = NatClient::new(config, main(), [7; 32], now);
    let mut port = 5000;
    while let Some(action) = client.poll_action() {
        let NatAction::Open(socket) = action else {
            panic!("{action:?}")
        };
        port += 1;
        client.handle_socket(now, socket, Some(([192, 0, 2, 9], port).into()));
    }
    client.handle_timeout(now);
    let mut buf = [0; NatClient::MAX_TRANSMIT];
    let sent = client.poll_transmit(&mut buf).unwrap();
    let id = Message::parse(&buf[..sent.len]).unwrap().transaction_id();
    (client, sent.to, id)
}

fn response(id: TransactionId, f: impl FnOnce(Writer<'_>) -> Result<usize, WriteError>) -> Vec<u8> {
    let mut buf = [0; 200];
    let ty = MessageType::request(Method::BINDING).success();
    let len = f(Writer::new(&mut buf, ty, id)).unwrap();
    buf[..len].to_vec()
}

// spec: 5780-3.4-1
#[test]
fn an_alg_on_the_way_is_noticed() {
    let (mut client, at, id) = started(only(NatTest::Mapping));
    let other = addr("198.51.100.2:3479");
    let data = response(id, |w| {
        w.attribute(&MappedAddress(addr("192.0.2.9:5001")))
            .attribute(&XorMappedAddress(addr("203.0.113.5:40001")))
            .attribute(&OtherAddress(other))
            .finish()
    });
    assert_eq!(
        client.handle_datagram(Instant::ZERO, at, &data),
        Received::Consumed
    );
    let to = addr("192.0.2.9:5001");
    assert_eq!(client.poll_event(), Some(NatEvent::Rewritten { to }));
}

// spec: SEC-S-06, SEC-S-10, 5780-5-2
#[test]
fn answers_from_elsewhere_and_redirections_are_not_followed() {
    let (mut client, at, id) = started(only(NatTest::Mapping));
    let good = response(id, |w| {
        w.attribute(&XorMappedAddress(addr("203.0.113.5:1")))
            .finish()
    });
    let mut elsewhere = at;
    elsewhere.remote = addr("198.51.100.66:3478");
    let mut unknown_socket = at;
    unknown_socket.local = addr("192.0.2.9:1");
    for path in [elsewhere, unknown_socket] {
        let received = client.handle_datagram(Instant::ZERO, path, &good);
        assert_eq!(received, Received::NotMine);
    }
    let mut buf = [0; 200];
    let ty = MessageType::request(Method::BINDING).error();
    let len = Writer::new(&mut buf, ty, id)
        .attribute(&ErrorCode::new(300))
        .attribute(&crate::wire::AlternateServer(addr("198.51.100.66:3478")))
        .finish()
        .unwrap();
    client.handle_datagram(Instant::ZERO, at, &buf[..len]);
    let failed = NatEvent::Failed {
        test: NatTest::Mapping,
        why: NatFailure::Code(300),
    };
    assert_eq!(client.poll_event(), Some(failed));
    assert_eq!(client.poll_event(), Some(NatEvent::Done));
    assert_eq!(
        client.poll_action(),
        Some(NatAction::Close(NatSocket::Mapping))
    );
    assert_eq!((client.poll_action(), client.poll_timeout()), (None, None));
}

#[test]
fn no_socket_and_no_answer() {
    let now = Instant::ZERO;
    let mut client = NatClient::new(only(NatTest::Mapping), main(), [7; 32], now);
    client.handle_socket(now, NatSocket::Mapping, None);
    client.handle_timeout(now);
    let failed = |why| NatEvent::Failed {
        test: NatTest::Mapping,
        why,
    };
    assert_eq!(client.poll_event(), Some(failed(NatFailure::NoSocket)));
    assert_eq!(client.poll_event(), Some(NatEvent::Done));

    let (mut client, ..) = started(only(NatTest::Mapping));
    while let Some(next) = client.poll_timeout() {
        client.handle_timeout(next);
    }
    assert_eq!(client.poll_event(), Some(failed(NatFailure::NoResponse)));
}

fn ask(
    server: &mut NatServer,
    at: FiveTuple,
    f: impl FnOnce(Writer<'_>) -> Result<usize, WriteError>,
) -> Option<(FiveTuple, Vec<u8>)> {
    let mut request = [0; 3000];
    let ty = MessageType::request(Method::BINDING);
    let len = f(Writer::new(&mut request, ty, TransactionId([5; 12]))).unwrap();
    let mut buf = [0xAA; 1500];
    let answer = server.respond(Instant::ZERO, at, &request[..len], &mut buf)?;
    Some((answer.to, buf[..answer.len].to_vec()))
}

fn code(bytes: &[u8]) -> Option<u16> {
    let message = Message::parse(bytes).unwrap();
    message.find::<ErrorCode<'_>>().map(|error| error.code())
}

// spec: 5780-6.1-1, 5780-6.1-2, STUN-6.3.1.2-1
#[test]
fn answers_leave_by_the_socket_that_was_asked_for() {
    let mut server = server_with(|_| {});
    let remote = addr("203.0.113.5:40000");
    for local in addresses().all() {
        let other = addresses()
            .all()
            .into_iter()
            .find(|other| other.ip() != local.ip() && other.port() != local.port())
            .unwrap();
        let cases = [
            (None, local),
            (Some((false, false)), local),
            (
                Some((true, false)),
                SocketAddr::new(other.ip(), local.port()),
            ),
            (
                Some((false, true)),
                SocketAddr::new(local.ip(), other.port()),
            ),
            (Some((true, true)), other),
        ];
        for (change, from) in cases {
            let change = change.map(|(change_ip, change_port)| ChangeRequest {
                change_ip,
                change_port,
            });
            let at = FiveTuple::udp(local, remote);
            let asked = ask(&mut server, at, |w| w.maybe(change.as_ref()).finish());
            let (to, bytes) = asked.unwrap();
            assert_eq!(to, FiveTuple::udp(from, remote));
            let message = Message::parse(&bytes).unwrap();
            assert_eq!(message.find(), Some(MappedAddress(remote)));
            assert_eq!(message.find(), Some(XorMappedAddress(remote)));
            assert_eq!(message.find(), Some(ResponseOrigin(from)));
            assert_eq!(message.find(), Some(OtherAddress(other)));
            assert!(!message.has(crate::wire::AlternateServer::TYPE));
        }
    }
    let foreign = FiveTuple::udp(addr("198.51.100.3:3478"), remote);
    assert_eq!(ask(&mut server, foreign, |w| w.finish()), None);
}

// spec: 5780-6.1-3, 5780-6.1-4, 5780-7.6-1, SEC-T-03
#[test]
fn padding_and_another_port() {
    let mut server = server_with(|_| {});
    let at = FiveTuple::udp(main(), addr("203.0.113.5:40000"));
    let port = ResponsePort(9);
    let (to, _) = ask(&mut server, at, |w| w.attribute(&port).finish()).unwrap();
    assert_eq!(to.remote, addr("203.0.113.5:9"));
    for (asked, expected) in [(0, 0), (7, 4), (1000, 1000), (2000, 1372)] {
        let padding = Padding { len: asked };
        let (_, bytes) = ask(&mut server, at, |w| w.attribute(&padding).finish()).unwrap();
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.find(), Some(Padding { len: expected }));
        assert!(bytes.len() <= (24 + usize::from(asked)) * 5);
    }
    let padding = Padding { len: 8 };
    let both = ask(&mut server, at, |w| {
        w.attribute(&port).attribute(&padding).finish()
    });
    assert_eq!(code(&both.unwrap().1), Some(400));
    let zero = ask(&mut server, at, |w| {
        w.raw(ResponsePort::TYPE, &[0, 0]).finish()
    });
    assert_eq!(code(&zero.unwrap().1), Some(400));
    let odd = ask(&mut server, at, |w| {
        w.raw(ChangeRequest::TYPE, &[0]).finish()
    });
    assert_eq!(code(&odd.unwrap().1), Some(400));
}

// spec: 5780-6-1, SEC-S-05, SEC-T-04
#[test]
fn what_a_server_does_not_do() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let (a, b) = (ip("198.51.100.1"), ip("198.51.100.2"));
    assert_eq!(NatAddresses::new([a, a], [1, 2]), None);
    assert_eq!(NatAddresses::new([a, b], [1, 1]), None);
    assert_eq!(NatAddresses::new([a, ip("2001:db8::1")], [1, 2]), None);

    let mut server = server_with(|config| {
        config.response_port = false;
        config.limit = RateLimit::new(10);
    });
    let mut at = FiveTuple::udp(main(), addr("203.0.113.5:40000"));
    let port = ResponsePort(9);
    let (_, bytes) = ask(&mut server, at, |w| w.attribute(&port).finish()).unwrap();
    let message = Message::parse(&bytes).unwrap();
    let unknown: UnknownAttributes = message.find().unwrap();
    assert_eq!(unknown.0[..], [ResponsePort::TYPE]);
    let answered = (0..100).filter(|_| ask(&mut server, at, |w| w.finish()).is_some());
    assert_eq!(answered.count(), 9);
    // Over a connection nothing can be changed.
    at.transport = Transport::Tcp;
    let change = ChangeRequest {
        change_ip: true,
        change_port: true,
    };
    let (to, bytes) = ask(&mut server, at, |w| w.attribute(&change).finish()).unwrap();
    assert_eq!((to, code(&bytes)), (at, Some(420)));

    let mut buf = [0; 1500];
    let indication = [
        0, 0x11, 0, 0, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let answer = server.respond(Instant::ZERO, at, &indication, &mut buf);
    assert_eq!(answer, None);
}
