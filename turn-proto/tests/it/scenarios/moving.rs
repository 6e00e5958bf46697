//! Clients whose address changes (RFC 8016).

use core::net::SocketAddr;

use stun_proto::auth::{Credentials, LongTermClient};
use stun_proto::wire::Class;
use turn_proto::client::{AllocateOptions, Cause, Event};
use turn_proto::wire::{self, MobilityTicket};
use turn_proto::{FiveTuple, Path, Transport};

use crate::wired::*;

const PEER: &str = "9.9.9.9:9";
const NEW: &str = "198.51.100.99:9000";

fn world(transport: Transport) -> World {
    let mut config = server_config();
    config.mobility = true;
    let mut world = World::with(config);
    let end = world.end(client_config(), transport, 40_000);
    let options = AllocateOptions {
        mobility: true,
        ..AllocateOptions::default()
    };
    world.allocate(end, options);
    world.permit(end, "9.9.9.9");
    world.ends[end].elsewhere.push(addr(NEW));
    world
}

fn moves(world: &mut World) {
    let now = world.now;
    let path = Path::Datagram(FiveTuple::udp(addr(NEW), server_addr()));
    world
        .client(0)
        .path_changed(now, path, Transport::Udp)
        .unwrap();
    world.step();
}

/// Where the client's data comes from, as the server's host sees a peer's data leave.
fn goes_to(world: &mut World) -> Option<SocketAddr> {
    let relay = world.relay_of(0);
    let forward = world.server.handle_relay(world.now, relay, addr(PEER), 1)?;
    match forward.to {
        Path::Datagram(at) => Some(at.remote),
        Path::Stream(_) => None,
    }
}

// spec: 8016-3.2.1-1, 8016-3.2.2-2, 8016-3.2.2-4
#[test]
fn scenario_16_make_before_break() {
    let mut world = world(Transport::Udp);
    let old = world.ends[0].local;
    moves(&mut world);
    assert!(world.ends[0].saw(Event::PathChanged));
    // Until data comes from the new address the old one is used, and heard.
    assert_eq!(goes_to(&mut world), Some(old));
    assert!(world.hears(0, PEER, b"pong"));
    assert!(world.reaches(0, PEER));
    assert_eq!(goes_to(&mut world), Some(addr(NEW)));
    assert!(world.talks(0, PEER));
    world.run(at(3600));
    assert!(world.talks(0, PEER));
    assert_eq!(world.server.allocations(), 1);
}

// spec: TURN-STR-4, 8016-3.2.2-2
#[test]
fn scenario_16_break_before_make() {
    let mut world = world(Transport::Tcp);
    let Path::Stream(id) = world.ends[0].path else {
        panic!()
    };
    world.run(at(100));
    world.close_stream(id);
    world.step();
    assert!(world.ends[0].saw(Event::PathLost));
    assert_eq!(goes_to(&mut world), None);
    world.run(at(200));
    moves(&mut world);
    assert!(world.ends[0].saw(Event::PathChanged));
    assert!(world.talks(0, PEER));
    world.run(at(3600));
    assert!(world.talks(0, PEER));
}

// spec: 8016-3.2.2-3
#[test]
fn scenario_16_the_answer_to_the_move_is_lost() {
    let mut world = world(Transport::Udp);
    let mut lost = 0;
    world.loses = Box::new(move |flight| {
        let this = flight.is(wire::REFRESH, Class::Success);
        lost += usize::from(this);
        this && lost <= 4
    });
    moves(&mut world);
    assert!(!world.ends[0].saw(Event::PathChanged));
    world.run(at(16));
    assert!(world.ends[0].saw(Event::PathChanged));
    assert!(world.talks(0, PEER));
    let tickets: Vec<Vec<u8>> = world
        .flights
        .iter()
        .filter(|f| f.is(wire::REFRESH, Class::Success))
        .map(|f| f.message().find::<MobilityTicket<'_>>().unwrap().0.to_vec())
        .collect();
    assert_eq!(tickets.len(), 5);
    // Whichever answer had come through, its ticket would have counted.
    let mut auth = LongTermClient::new(Some(Credentials::new("alice", "secret")));
    let from = addr("198.51.100.98:1");
    let code = world.ask(from, &mut auth, wire::REFRESH, |w| {
        w.attribute(&MobilityTicket(&tickets[0]))
    });
    assert_eq!(code, 0);
}

// spec: 8016-3.2.2-3
#[test]
fn scenario_16_an_old_ticket_counts_for_the_same_move_and_thirty_seconds() {
    for (wait, code) in [(29, 0), (31, 400)] {
        let mut world = world(Transport::Udp);
        let allocated = world
            .flights
            .iter()
            .find(|f| f.is(wire::ALLOCATE, Class::Success));
        let allocated = allocated.unwrap().clone();
        let ticket = allocated
            .message()
            .find::<MobilityTicket<'_>>()
            .unwrap()
            .0
            .to_vec();
        moves(&mut world);
        world.run(at(wait));
        let mut auth = LongTermClient::new(Some(Credentials::new("alice", "secret")));
        let body = |ticket: &[u8], world: &mut World, auth: &mut LongTermClient, from: &str| {
            world.ask(addr(from), auth, wire::REFRESH, |w| {
                w.attribute(&MobilityTicket(ticket))
            })
        };
        assert_eq!(
            body(&ticket, &mut world, &mut auth, NEW),
            code,
            "after {wait} s"
        );
        // From elsewhere, or another user's, never.
        let mut auth = LongTermClient::new(Some(Credentials::new("alice", "secret")));
        assert_eq!(body(&ticket, &mut world, &mut auth, "198.51.100.98:1"), 400);
        assert_eq!(world.ends[0].cause(), None::<Cause>);
    }
}
