#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::*;
use crate::limit::RateLimit;
use crate::nat::{NatAddresses, NatServer, NatServerConfig};
use crate::{FiveTuple, Transport};

use AddressDependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn main() -> SocketAddr {
    addr("198.51.100.1:3478")
}

fn local() -> SocketAddr {
    addr("192.0.2.9:40000")
}

/// A client, a NAT that maps connections, and a server with two addresses.
struct Rig {
    client: NatStreamClient,
    server: NatServer,
    now: Instant,
    /// The port a destination is seen from; the local address without a NAT.
    maps: fn(SocketAddr) -> Option<u16>,
    next: u64,
    /// Connections: where they lead.
    open: BTreeMap<StreamId, SocketAddr>,
    times: Vec<Instant>,
    events: Vec<NatEvent>,
    /// Bytes in each piece of an answer.
    piece: usize,
}

impl Rig {
    fn new(maps: fn(SocketAddr) -> Option<u16>) -> Self {
        let ips = ["198.51.100.1", "198.51.100.2"].map(|ip| ip.parse().unwrap());
        let config = NatServerConfig {
            addresses: NatAddresses::new(ips, [3478, 3479]).unwrap(),
            response_port: true,
            limit: RateLimit::NONE,
        };
        let now = Instant::ZERO;
        Self {
            client: NatStreamClient::new(main(), [7; 32], now),
            server: NatServer::new(config, [9; 32]),
            now,
            maps,
            next: 1,
            open: BTreeMap::new(),
            times: Vec::new(),
            events: Vec::new(),
            piece: 7,
        }
    }

    /// The connection the client asks for next, after time has passed as it wants.
    fn asked(&mut self) -> Option<(SocketAddr, Option<SocketAddr>)> {
        loop {
            match self.client.poll_action() {
                Some(NatStreamAction::Connect { to, from }) => return Some((to, from)),
                Some(NatStreamAction::Close(id)) => {
                    assert!(self.open.remove(&id).is_some(), "{id:?} is not open");
                    continue;
                }
                None => {}
            }
            self.events
                .extend(core::iter::from_fn(|| self.client.poll_event()));
            let next = self.client.poll_timeout()?;
            assert!(next >= self.now);
            self.now = next;
            self.client.handle_timeout(next);
        }
    }

    fn connect(&mut self, to: SocketAddr, from: SocketAddr) -> StreamId {
        let id = StreamId(self.next);
        self.next += 1;
        self.open.insert(id, to);
        self.times.push(self.now);
        self.client.handle_connected(self.now, id, from);
        id
    }

    /// Lets the server answer what the client has sent.
    fn answer(&mut self) {
        let mut buf = [0; NatStreamClient::MAX_TRANSMIT];
        let mut answer = [0; NatServer::MAX_TRANSMIT];
        while let Some(sent) = self.client.poll_transmit(&mut buf) {
            let Path::Stream(id) = sent.to else { panic!() };
            let to = self.open[&id];
            let remote = match (self.maps)(to) {
                Some(port) => SocketAddr::new([203, 0, 113, 5].into(), port),
                None => local(),
            };
            let at = FiveTuple {
                transport: Transport::Tcp,
                local: to,
                remote,
            };
            let response = self
                .server
                .respond(self.now, at, &buf[..sent.len], &mut answer)
                .unwrap();
            assert_eq!(response.to, at);
            self.input(id, &answer[..response.len]);
        }
    }

    fn input(&mut self, id: StreamId, bytes: &[u8]) {
        for mut piece in bytes.chunks(self.piece) {
            while !piece.is_empty() {
                self.client.handle_stream(self.now, id, &mut piece);
            }
        }
    }

    fn run(mut self) -> Vec<NatEvent> {
        while let Some((to, from)) = self.asked() {
            assert!(from.is_none_or(|from| from == local()));
            self.connect(to, local());
            self.answer();
        }
        assert!(self.open.is_empty(), "{:?}", self.open);
        assert_eq!(self.client.poll_timeout(), None);
        let pauses = self.times.windows(2).map(|pair| pair[1] - pair[0]);
        // Ten new transactions a second at most.
        assert!(pauses.into_iter().all(|pause| pause >= PACE));
        self.events
    }
}

fn found(depends_on: AddressDependence, port: u16) -> [NatEvent; 2] {
    let mapped = SocketAddr::new([203, 0, 113, 5].into(), port);
    [NatEvent::Mapping { depends_on, mapped }, NatEvent::Done]
}

// spec: 5780-4.3-1, 5780-5-2
#[test]
fn every_kind_of_mapping_is_named() {
    assert_eq!(Rig::new(|_| Some(1)).run(), found(EndpointIndependent, 1));
    let by_address: fn(SocketAddr) -> Option<u16> = |to| match to.ip() {
        ip if ip == main().ip() => Some(1),
        _ => Some(2),
    };
    assert_eq!(Rig::new(by_address).run(), found(AddressDependent, 1));
    let by_both: fn(SocketAddr) -> Option<u16> = |to| match (to.ip() == main().ip(), to.port()) {
        (true, _) => Some(1),
        (false, port) => Some(port),
    };
    assert_eq!(Rig::new(by_both).run(), found(AddressAndPortDependent, 1));
    let none = Rig::new(|_| None).run();
    assert_eq!(none, [NatEvent::NoNat, NatEvent::Done]);
}

fn failed(why: NatFailure) -> [NatEvent; 2] {
    let test = NatTest::Mapping;
    [NatEvent::Failed { test, why }, NatEvent::Done]
}

impl Rig {
    /// Everything is closed and over.
    #[track_caller]
    fn ends(mut self, why: NatFailure) {
        assert_eq!(self.asked(), None);
        assert_eq!(self.events, failed(why));
        assert!(self.open.is_empty());
        // Nothing changes that any more, and late connections are closed.
        self.client.handle_failed(self.now);
        let late = self.connect(main(), local());
        assert_eq!(
            self.client.poll_action(),
            Some(NatStreamAction::Close(late))
        );
        self.client
            .handle_timeout(self.now + Duration::from_secs(1000));
        assert_eq!(self.client.poll_event(), None);
        assert!(self.client.poll_transmit(&mut [0; 64]).is_none());
    }
}

// spec: STUN-6.2.2-2, STUN-6.2.2-3, SEC-F-05
#[test]
fn connections_that_fail_end_the_test() {
    let begun = || {
        let mut rig = Rig::new(|_| Some(1));
        assert_eq!(rig.asked(), Some((main(), None)));
        rig
    };
    let mut rig = begun();
    rig.client.handle_failed(rig.now);
    rig.ends(NatFailure::NoResponse);

    // No answer within 39.5 s.
    let mut rig = begun();
    rig.connect(main(), local());
    assert!(rig.client.poll_transmit(&mut [0; 64]).is_some());
    assert_eq!(rig.asked(), None);
    assert_eq!(rig.now, Instant::ZERO + Duration::from_millis(39_500));
    rig.ends(NatFailure::NoResponse);

    let mut rig = begun();
    let id = rig.connect(main(), local());
    rig.open.remove(&id);
    rig.client.handle_stream_closed(rig.now, id);
    rig.ends(NatFailure::NoResponse);

    let mut rig = begun();
    let id = rig.connect(main(), local());
    rig.input(id, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    rig.ends(NatFailure::Malformed);

    // The second connection begins at another port.
    let mut rig = begun();
    rig.connect(main(), local());
    rig.answer();
    let (to, from) = rig.asked().unwrap();
    assert_eq!((to, from), (addr("198.51.100.2:3478"), Some(local())));
    rig.connect(to, addr("192.0.2.9:40001"));
    rig.ends(NatFailure::NoSocket);
}

// spec: STUN-6.3-1, 5780-6-1
#[test]
fn only_the_answer_counts_and_a_server_without_second_address_cannot_help() {
    let mut rig = Rig::new(|_| Some(1));
    rig.asked();
    let id = rig.connect(main(), local());
    let mut request = [0; 64];
    let len = rig.client.poll_transmit(&mut request).unwrap().len;
    // An answer to something else, a request, and the right ID on another connection.
    let mut other = request;
    other[..2].copy_from_slice(&[1, 1]);
    other[19] ^= 1;
    rig.input(id, &other[..len]);
    rig.input(id, &request[..len]);
    other[19] ^= 1;
    rig.input(StreamId(99), &other[..len]);
    assert_eq!(rig.client.poll_event(), None);
    // A basic server has no OTHER-ADDRESS.
    let mut answer = [0; 100];
    let config = crate::binding::BindingServerConfig::default();
    let mut basic = crate::binding::BindingServer::new(config, [1; 32]).unwrap();
    let at = FiveTuple {
        transport: Transport::Tcp,
        local: main(),
        remote: addr("203.0.113.5:1"),
    };
    let mut buf = [0; crate::binding::MAX_TRANSMIT];
    let sent = basic
        .respond(rig.now, at, &request[..len], &mut buf)
        .unwrap();
    answer[..sent.len].copy_from_slice(&buf[..sent.len]);
    rig.input(id, &answer[..sent.len]);
    rig.ends(NatFailure::Unsupported);
}
