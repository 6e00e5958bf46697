//! Traps other implementations have met, where no other test is named after them.

use stun_proto::auth::{Credentials, LongTermClient};
use turn_proto::client::{AllocateOptions, Cause, Event};
use turn_proto::wire::{self, ChannelNumber, Lifetime, RequestedTransport, XorPeerAddress};
use turn_proto::{Path, Received, Transport};

use crate::wired::*;

// Trap U10: libwebrtc counts channel numbers up and may pass the last one: the peer without channel
// is all that is lost.
#[test]
fn a_number_beyond_the_last_ends_nothing() {
    let mut world = World::new();
    let mut auth = LongTermClient::new(Some(Credentials::new("alice", "secret")));
    let from = addr("198.51.100.8:4000");
    let udp = RequestedTransport::UDP;
    assert_eq!(
        world.ask(from, &mut auth, wire::ALLOCATE, |w| w.attribute(&udp)),
        0
    );
    let mut bind = |number, peer: &str| {
        let peer = XorPeerAddress(addr(peer));
        world.ask(from, &mut auth, wire::CHANNEL_BIND, |w| {
            w.attribute(&ChannelNumber(number)).attribute(&peer)
        })
    };
    assert_eq!(bind(0x4FFF, "9.9.9.1:1"), 0);
    assert_eq!(bind(0x5000, "9.9.9.2:2"), 400);
    assert_eq!(bind(0x4FFF, "9.9.9.1:1"), 0);
    let refresh = Lifetime(600);
    assert_eq!(
        world.ask(from, &mut auth, wire::REFRESH, |w| w.attribute(&refresh)),
        0
    );
    let seen = turn_proto::FiveTuple::udp(server_addr(), from);
    let data = [0x4F, 0xFF, 0, 1, b'x'];
    let received = world.server.handle_datagram(world.now, seen, &data);
    assert!(
        matches!(received, Received::Data { data: b"x", .. }),
        "{received:?}"
    );
}

// Trap U22: the NAT forgets the client and gives it another port. The server does not know who that
// is; the client finds out with the next request, and begins anew.
#[test]
fn a_client_that_a_nat_has_moved_finds_out_and_begins_anew() {
    let mut world = World::allocated();
    world.bind(0, "9.9.9.9:9");
    let local = world.ends[0].local;
    world.nat.insert(local, addr("203.0.113.200:6000"));
    assert!(!world.reaches(0, "9.9.9.9:9"));
    assert!(!world.hears(0, "9.9.9.9:9", b"lost"));
    world.run(at(240));
    assert_eq!(world.ends[0].cause(), Some(Cause::Code(437)));
    let end = world.udp(40_001);
    world.allocate(end, AllocateOptions::default());
    world.bind(end, "9.9.9.9:9");
    assert!(world.talks(end, "9.9.9.9:9"));
    // The old allocation ends by itself.
    world.run(at(600));
    assert_eq!(world.server.allocations(), 1);
}

// Trap U22, where the client may move: it asks for its address to be taken over.
#[test]
fn a_client_that_may_move_survives_a_nat() {
    let mut config = server_config();
    config.mobility = true;
    let mut world = World::with(config);
    let end = world.udp(40_000);
    let options = AllocateOptions {
        mobility: true,
        ..AllocateOptions::default()
    };
    world.allocate(end, options);
    world.bind(end, "9.9.9.9:9");
    // Its host opens another socket.
    let local = addr("198.51.100.7:40001");
    world.ends[end].elsewhere.push(local);
    let path = Path::Datagram(turn_proto::FiveTuple::udp(local, server_addr()));
    let now = world.now;
    world
        .client(end)
        .path_changed(now, path, Transport::Udp)
        .unwrap();
    world.step();
    assert!(world.ends[end].saw(Event::PathChanged));
    assert!(world.talks(end, "9.9.9.9:9"));
}

// Trap U15 and U14, at both machines: the longest ChannelData over a stream leaves what follows in
// step, and no padding gets through.
// spec: TURN-12.5-2, TURN-12.6-4
#[test]
fn the_longest_channel_data_leaves_the_stream_in_step() {
    let mut world = World::new();
    let end = world.tcp(40_000);
    world.allocate(end, AllocateOptions::default());
    world.bind(end, "9.9.9.9:9");
    for len in 65_504..=65_507 {
        let payload = vec![5; len];
        let mut buf = vec![0; len + 100];
        let now = world.now;
        let sent = world
            .client(end)
            .send(now, addr("9.9.9.9:9"), &payload, &mut buf);
        let sent = sent.unwrap();
        world.feed_server(sent.to, &buf[..sent.len]);
        assert_eq!(world.sent.pop().unwrap().data, payload);
        assert!(world.hears(end, "9.9.9.9:9", &payload));
        assert!(world.talks(end, "9.9.9.9:9"), "after {len} bytes");
    }
}
