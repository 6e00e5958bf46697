//! TCP to the peers (RFC 6062). What happens to the bytes of spliced connections is the host's:
//! half-closes and back-pressure are tested with the program that copies them.

use turn_proto::client::{AllocateOptions, Cause, ClientError, Connection, Event};
use turn_proto::server::{PeerId, RelayId};
use turn_proto::wire::{self, ConnectionId, XorPeerAddress};
use turn_proto::{Path, Received, RelayProtocol};

use crate::wired::*;

const PEER: &str = "9.9.9.9:9";

fn world() -> (World, usize, RelayId) {
    let mut world = World::new();
    let end = world.tcp(40_000);
    let options = AllocateOptions {
        protocol: RelayProtocol::Tcp,
        ..AllocateOptions::default()
    };
    world.allocate(end, options);
    let relay = world.relay_of(end);
    (world, end, relay)
}

fn connect(world: &mut World, end: usize) -> Connection {
    let now = world.now;
    let connection = world.client(end).connect_peer(now, addr(PEER)).unwrap();
    world.step();
    connection
}

/// The peer has answered the server's SYN.
fn established(world: &mut World) -> PeerId {
    let (peer, to) = world.connects.pop().expect("the host is asked to connect");
    assert_eq!(to, addr(PEER));
    world.server.peer_connected(world.now, peer);
    world.step();
    peer
}

fn failed(connection: Connection, cause: Cause) -> Event {
    Event::ConnectionFailed {
        connection,
        peer: addr(PEER),
        cause,
    }
}

fn is_ready(world: &World, end: usize, connection: Connection) -> bool {
    let mut events = world.ends[end].events.iter();
    events.any(
        |event| matches!(event, Event::ConnectionReady { connection: c, .. } if *c == connection),
    )
}

// spec: 6062-4.3-1, 6062-5.2-1, 6062-5.4-1, 6062-4.5-1
#[test]
fn scenario_15_active() {
    let (mut world, end, _) = world();
    let connection = connect(&mut world, end);
    let peer = established(&mut world);
    assert!(is_ready(&world, end, connection));
    let (stream, spliced) = world.spliced.pop_first().unwrap();
    assert_eq!(spliced, peer);
    // The pipe is the host's on the server's side, and passes the client's machine unchanged.
    let mut bytes = &b"\x40\0\0\x01 not TURN"[..];
    let now = world.now;
    assert_eq!(
        world.server.handle_stream(now, stream, &mut bytes),
        Received::NotMine
    );
    let got = world.client(end).handle_stream(now, stream, &mut bytes);
    let data = &b"\x40\0\0\x01 not TURN"[..];
    assert_eq!(
        got,
        Received::Data {
            peer: addr(PEER),
            data
        }
    );
    // Its end on either side is the end of both.
    world.server.peer_closed(now, peer);
    world.step();
    assert!(world.ends[end].saw(Event::ConnectionClosed { connection }));
    let again = connect(&mut world, end);
    assert_ne!(again, connection);
}

// spec: 6062-4.4-1, 6062-5.3-1
#[test]
fn scenario_15_passive() {
    let (mut world, end, relay) = world();
    let (now, from) = (world.now, addr(PEER));
    // Without permission the peer is turned away.
    assert_eq!(world.server.peer_accepted(now, relay, from), None);
    world.permit(end, "9.9.9.9");
    let peer = world.server.peer_accepted(now, relay, from).unwrap();
    world.step();
    let attempt = world.ends[end].events.iter().find_map(|event| match event {
        Event::ConnectionAttempt { connection, peer } if *peer == from => Some(*connection),
        _ => None,
    });
    let connection = attempt.expect("the client is told");
    world.client(end).accept(now, connection).unwrap();
    world.step();
    assert!(is_ready(&world, end, connection));
    assert_eq!(world.spliced.into_values().collect::<Vec<_>>(), [peer]);
}

// spec: 6062-5.2-1, 6062-4.3-2
#[test]
fn scenario_15_simultaneous() {
    let (mut world, end, relay) = world();
    let now = world.now;
    world.permit(end, "9.9.9.9");
    // Both sides begin; the server has the peer's connection when Connect comes.
    world.server.peer_accepted(now, relay, addr(PEER)).unwrap();
    let connection = world.client(end).connect_peer(now, addr(PEER)).unwrap();
    world.step();
    assert!(world.ends[end].saw(failed(connection, Cause::Code(446))));
    // The client does not even ask when it knows.
    assert_eq!(
        world.client(end).connect_peer(now, addr(PEER)),
        Err(ClientError::Connected)
    );
}

// spec: 6062-5.2-1, 6062-4.3-2
#[test]
fn scenario_15_refused() {
    let (mut world, end, _) = world();
    let connection = connect(&mut world, end);
    let (peer, _) = world.connects.pop().unwrap();
    let now = world.now;
    world.server.peer_closed(now, peer);
    world.step();
    assert!(world.ends[end].saw(failed(connection, Cause::Code(447))));
    for (time, possible) in [(9, false), (10, true)] {
        world.run(at(time));
        let now = world.now;
        let connected = world.client(end).connect_peer(now, addr(PEER));
        assert_eq!(connected.is_ok(), possible, "{connected:?}");
    }
}

// spec: 6062-5.2-1
#[test]
fn scenario_15_timed_out() {
    let (mut world, end, _) = world();
    let connection = connect(&mut world, end);
    let (peer, _) = world.connects.pop().unwrap();
    world.run(at(29));
    assert!(!world.ends[end].saw(failed(connection, Cause::Code(447))));
    world.run(at(30));
    assert!(world.ends[end].saw(failed(connection, Cause::Code(447))));
    // What comes of it in the end is of no use.
    assert_eq!(world.closed_peers, [peer]);
    let now = world.now;
    world.server.peer_connected(now, peer);
    world.step();
    assert!(!is_ready(&world, end, connection));
}

// spec: 6062-5.3-2, SEC-T-08
#[test]
fn scenario_15_bound_too_late() {
    for (wait, bound) in [(29, true), (31, false)] {
        let (mut world, end, _) = world();
        world.ends[end].opens = false;
        let connection = connect(&mut world, end);
        let peer = established(&mut world);
        world.run(at(wait));
        if bound {
            assert_eq!(world.ends[end].opening, [connection]);
            world.open_stream(end, connection);
            world.step();
        } else {
            // Both sides have given up; a ConnectionBind made by hand is refused.
            assert_eq!(world.closed_peers, [peer]);
            assert!(world.ends[end].saw(failed(connection, Cause::Timeout)));
            let now = world.now;
            let id = world.path(turn_proto::Transport::Tcp, addr("198.51.100.7:1"));
            let Path::Stream(id) = id else { panic!() };
            assert!(
                world
                    .client(end)
                    .handle_stream_opened(now, connection, id)
                    .is_err()
            );
        }
        assert_eq!(is_ready(&world, end, connection), bound);
        assert_eq!(world.spliced.len(), usize::from(bound));
    }
}

// spec: 6062-5.2-2
#[test]
fn scenario_15_what_a_peer_sends_before_the_bind_stays_in_its_socket() {
    let (mut world, end, relay) = world();
    world.ends[end].opens = false;
    world.permit(end, "9.9.9.9");
    let now = world.now;
    let peer = world.server.peer_accepted(now, relay, addr(PEER)).unwrap();
    world.step();
    // The host is not asked to read, and the machine takes no bytes of a peer: they wait.
    let Event::ConnectionAttempt { connection, .. } = *world.ends[end].events.last().unwrap()
    else {
        panic!();
    };
    world.client(end).accept(now, connection).unwrap();
    world.step();
    let stream = world.open_stream(end, connection);
    world.step();
    // Spliced after the answer, which the host sends first: bytes never overtake it.
    assert_eq!(world.spliced.get(&stream), Some(&peer));
    let order: Vec<_> = world
        .flights
        .iter()
        .rev()
        .take(1)
        .map(|f| f.method)
        .collect();
    assert_eq!(order, [Some(wire::CONNECTION_BIND)]);
}

// spec: 6062-5.5-1, 6062-4.6-1
#[test]
fn scenario_15_the_allocation_is_refreshed_while_connections_live_and_ends_them() {
    let (mut world, end, _) = world();
    let connection = connect(&mut world, end);
    let peer = established(&mut world);
    world.run(at(7200));
    assert!(is_ready(&world, end, connection));
    assert_eq!(world.closed_peers, []);
    let now = world.now;
    world.client(end).close(now);
    world.step();
    assert_eq!(world.closed_peers, [peer]);
    assert_eq!(world.server.allocations(), 0);
    assert!(world.ends[end].saw(Event::Closed));
}

#[test]
fn the_layout_of_a_connection_attempt_is_that_of_the_rfc() {
    let (mut world, end, relay) = world();
    world.permit(end, "9.9.9.9");
    world
        .server
        .peer_accepted(world.now, relay, addr(PEER))
        .unwrap();
    world.step();
    let attempt = world.flights.last().unwrap();
    assert_eq!(attempt.method, Some(wire::CONNECTION_ATTEMPT));
    let message = attempt.message();
    assert_eq!(message.find(), Some(XorPeerAddress(addr(PEER))));
    assert!(message.find::<ConnectionId>().is_some());
}
