//! Lost, late and cut messages.

use stun_proto::Rng;
use stun_proto::wire::{Class, ErrorCode, Key, MessageType, Method, TransactionId, Writer};
use turn_proto::client::{AllocateOptions, ClientConfig, Event, UnprotectedErrors};
use turn_proto::wire::{self, Channel, Data, XorPeerAddress, channel_header};
use turn_proto::{Path, Received, RelayProtocol, Transport};

use crate::wired::*;

/// The answer of somebody who does not know the key.
fn forged(flight: &Flight, round: usize) -> Vec<u8> {
    let message = flight.message();
    // 401 and 438 cannot be protected, and make the client ask again.
    let codes = [300, 400, 403, 420, 437, 441, 486, 500, 508, 600];
    let mut buf = [0; 300];
    let (ty, id) = (message.message_type(), message.transaction_id());
    let len = match round % 3 {
        0 => {
            let code = codes[round / 3 % codes.len()];
            Writer::new(&mut buf, ty.error(), id)
                .attribute(&ErrorCode::new(code))
                .finish()
        }
        kind => {
            let writer = Writer::new(&mut buf, ty.success(), id)
                .attribute(&wire::XorRelayedAddress(addr("6.6.6.6:6")))
                .attribute(&wire::Lifetime(if round.is_multiple_of(2) {
                    0
                } else {
                    86_400
                }));
            if kind == 1 {
                writer.finish()
            } else {
                let guessed = Key::from_bytes(b"guessed");
                writer.message_integrity_sha256(&guessed).finish()
            }
        }
    };
    buf[..len.unwrap()].to_vec()
}

// spec: SEC-C-01, SEC-S-06, STUN-9.1.4-2, STUN-9.2.5-7
#[test]
fn somebody_who_answers_first_without_the_key_changes_nothing() {
    for first in 0..30 {
        let mut world = World::new();
        let config = ClientConfig {
            unprotected_errors: UnprotectedErrors::Refuse,
            ..client_config()
        };
        let end = world.end(config, Transport::Udp, 40_000);
        let mut round: usize = first;
        world.forges = Box::new(move |flight| {
            // An error to what carries no credentials cannot be told from the server's.
            if flight.class != Class::Request {
                return None;
            }
            let bare = !flight.message().has_integrity();
            round += 1 + usize::from(bare && (round + 1).is_multiple_of(3));
            Some(forged(flight, round))
        });
        world.allocate(end, AllocateOptions::default());
        let relayed = world.ends[end].relayed();
        assert_ne!(relayed, addr("6.6.6.6:6"));
        world.bind(end, "9.9.9.9:9");
        world.permit(end, "9.9.9.8");
        world.run(at(3600));
        assert!(world.talks(end, "9.9.9.9:9") && world.talks(end, "9.9.9.8:8"));
        let told = world.ends[end].events.len();
        assert_eq!(told, 4, "{:?}", world.ends[end].events);
        let now = world.now;
        world.client(end).close(now);
        world.step();
        assert!(world.ends[end].saw(Event::Closed));
        assert_eq!(world.server.allocations(), 0);
        assert!(world.ends[end].client.stats().unverified > 10);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Allocate,
    Refresh,
    Permission,
    Bind,
    Delete,
}

impl Step {
    fn method(self) -> Method {
        match self {
            Self::Allocate => wire::ALLOCATE,
            Self::Refresh | Self::Delete => wire::REFRESH,
            Self::Permission => wire::CREATE_PERMISSION,
            Self::Bind => wire::CHANNEL_BIND,
        }
    }
}

/// Loses the first `copies` of the request, or of its answers, while `step` is made.
fn survives(step: Step, answers: bool, copies: usize) {
    let mut world = World::new();
    let end = world.udp(40_000);
    let method = step.method();
    let mut lost = 0;
    let rule = Box::new(move |flight: &Flight| {
        // The first Allocate is the one that is challenged; a Refresh that deletes is answered by
        // 437 the second time.
        let this = flight.method == Some(method)
            && answers == (flight.class != Class::Request)
            && flight.message().has_integrity();
        lost += usize::from(this);
        this && lost <= copies
    });
    if step == Step::Allocate {
        world.loses = rule;
        world.allocate(end, AllocateOptions::default());
        world.run(at(39));
    } else {
        world.allocate(end, AllocateOptions::default());
        world.bind(end, "9.9.9.1:1");
        world.loses = rule;
        let now = world.now;
        match step {
            Step::Refresh => world.run(at(540)),
            Step::Permission => world.permit(end, "9.9.9.9"),
            Step::Bind => world.bind(end, "9.9.9.9:9"),
            Step::Delete => {
                world.client(end).close(now);
                world.step();
            }
            Step::Allocate => {}
        }
        world.run(world.now + secs(39));
    }
    let name = format!("{step:?}, answers {answers}, {copies} copies");
    let sends: Vec<_> = world
        .requests(method)
        .into_iter()
        .filter(|f| f.message().has_integrity())
        .collect();
    let last = sends.last().unwrap();
    let same = sends.iter().filter(|f| f.bytes == last.bytes).count();
    assert_eq!(same, copies + 1, "{name}");
    let allocations = usize::from(step != Step::Delete);
    assert_eq!(world.server.allocations(), allocations, "{name}");
    assert_eq!(world.relays.len(), allocations, "{name}");
    match step {
        Step::Delete => assert!(world.ends[end].saw(Event::Closed), "{name}"),
        Step::Permission | Step::Bind => assert!(world.talks(end, "9.9.9.9:9"), "{name}"),
        Step::Refresh => assert!(world.talks(end, "9.9.9.1:1"), "{name}"),
        Step::Allocate => drop(world.ends[end].relayed()),
    }
    assert_eq!(world.ends[end].cause(), None, "{name}");
}

// spec: TURN-5-9, STUN-6.3.1-2, TURN-7.2-2, TURN-8.2-3
#[test]
fn scenario_03_every_request_survives_the_loss_of_all_copies_but_one() {
    let steps = [
        Step::Allocate,
        Step::Refresh,
        Step::Permission,
        Step::Bind,
        Step::Delete,
    ];
    for step in steps {
        for answers in [false, true] {
            for copies in 0..=6 {
                survives(step, answers, copies);
            }
        }
    }
}

fn rotate(world: &mut World) {
    // The keys of before and of before that.
    world.server.rotate_nonce_key();
    world.server.rotate_nonce_key();
    world.flights.clear();
}

// spec: STUN-9.2.5-4, STUN-9.2.4-7, TURN-8.3-1
#[test]
fn scenario_04_one_new_nonce_serves_everything_that_is_under_way() {
    let mut world = World::allocated();
    world.run(at(539));
    rotate(&mut world);
    world.now = at(540);
    let now = world.now;
    let client = world.client(0);
    client.handle_timeout(now);
    client.create_permission(now, ip("9.9.9.8")).unwrap();
    client.bind_channel(now, addr("9.9.9.9:9")).unwrap();
    world.step();
    assert_eq!(world.errors(438), 3);
    for method in [wire::REFRESH, wire::CREATE_PERMISSION, wire::CHANNEL_BIND] {
        assert_eq!(world.requests(method).len(), 2, "{method:?}");
    }
    assert!(world.talks(0, "9.9.9.8:1") && world.talks(0, "9.9.9.9:9"));
    // The nonce expires in the moment the allocation is given back: it still is.
    rotate(&mut world);
    world.client(0).close(now);
    world.step();
    assert_eq!(world.errors(438), 1);
    let lifetimes: Vec<_> = world
        .requests(wire::REFRESH)
        .into_iter()
        .map(|f| f.message().find())
        .collect();
    assert_eq!(lifetimes, [Some(wire::Lifetime(0)); 2]);
    assert!(world.ends[0].saw(Event::Closed));
    assert_eq!(world.server.allocations(), 0);
}

// spec: 6062-D2, STUN-9.2.5-4
#[test]
fn scenario_04_connect_and_connection_bind_meet_stale_nonces_too() {
    let mut world = World::new();
    let end = world.tcp(40_000);
    world.ends[end].opens = false;
    let options = AllocateOptions {
        protocol: RelayProtocol::Tcp,
        ..AllocateOptions::default()
    };
    world.allocate(end, options);
    rotate(&mut world);
    let now = world.now;
    let connection = world
        .client(end)
        .connect_peer(now, addr("9.9.9.9:9"))
        .unwrap();
    world.step();
    assert_eq!(world.errors(438), 1);
    let (peer, _) = world.connects.pop().unwrap();
    world.server.peer_connected(now, peer);
    world.step();
    rotate(&mut world);
    assert_eq!(world.ends[end].opening.pop(), Some(connection));
    let stream = world.open_stream(end, connection);
    world.step();
    // The connection waited at the server meanwhile.
    assert_eq!(world.errors(438), 1);
    assert_eq!(world.spliced.get(&stream), Some(&peer));
    let ready = Event::ConnectionReady {
        connection,
        id: stream,
        peer: addr("9.9.9.9:9"),
    };
    assert!(world.ends[end].saw(ready));
}

/// One unit of a stream: ChannelData with its padding, or an indication.
fn unit(rng: &mut Rng, channel: Channel, peer: &str, method: Method) -> (Vec<u8>, Vec<u8>) {
    let len = rng.below(40) as usize;
    let payload: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
    let unit = if rng.below(2) == 0 {
        let mut unit = channel_header(channel, len).unwrap().to_vec();
        unit.extend_from_slice(&payload);
        unit.resize(unit.len().next_multiple_of(4), 0);
        unit
    } else {
        let mut buf = [0; 200];
        let ty = MessageType::indication(method);
        let len = Writer::new(&mut buf, ty, TransactionId(rng.bytes()))
            .attribute(&XorPeerAddress(addr(peer)))
            .attribute(&Data(&payload))
            .finish()
            .unwrap();
        buf[..len].to_vec()
    };
    (unit, payload)
}

// spec: TURN-STR-1, TURN-STR-2, TURN-12.5-2, SEC-F-02
#[test]
fn scenario_14_streams_may_be_interleaved_and_cut_anyhow() {
    const ROUNDS: u32 = if cfg!(debug_assertions) {
        10_000
    } else {
        100_000
    };
    let peer = "9.9.9.9:9";
    let mut world = World::new();
    let end = world.tcp(40_000);
    world.allocate(end, AllocateOptions::default());
    world.bind(end, peer);
    let bind = world.requests(wire::CHANNEL_BIND).pop().unwrap();
    let number = bind.message().find::<wire::ChannelNumber>().unwrap().0;
    let channel = Channel::new(number).unwrap();
    let Path::Stream(id) = world.ends[end].path else {
        panic!()
    };
    let now = world.now;
    let mut rng = Rng::from_seed([14; 32]);
    for round in 0..ROUNDS {
        let to_server = round % 2 == 0;
        let method = if to_server { wire::SEND } else { wire::DATA };
        let mut expected = Vec::new();
        let mut bytes = Vec::new();
        for _ in 0..1 + rng.below(5) {
            let (unit, payload) = unit(&mut rng, channel, peer, method);
            bytes.extend(unit);
            expected.push(payload);
        }
        let mut got = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let cut = 1 + rng.below(rest.len().min(60) as u32) as usize;
            let (mut piece, later) = rest.split_at(cut);
            rest = later;
            while !piece.is_empty() {
                let data = if to_server {
                    match world.server.handle_stream(now, id, &mut piece) {
                        Received::Data { data, .. } => Some(data.to_vec()),
                        Received::Consumed | Received::NotMine => None,
                    }
                } else {
                    match world.ends[end].client.handle_stream(now, id, &mut piece) {
                        Received::Data { data, .. } => Some(data.to_vec()),
                        Received::Consumed | Received::NotMine => None,
                    }
                };
                got.extend(data);
            }
        }
        assert_eq!(got, expected, "round {round}");
    }
    assert_eq!(world.server.stats().malformed, 0);
}
