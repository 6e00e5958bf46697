//! Permissions, channels and what flows through them.

use core::net::SocketAddr;

use turn_proto::client::{AllocateOptions, Cause, ClientConfig, ClientError, Event, SendError};
use turn_proto::policy::Preset;
use turn_proto::wire::{self, AddressFamily, Icmp};
use turn_proto::{RelayProtocol, Transport};

use crate::wired::*;

// spec: TURN-9-1, TURN-9-2, TURN-12.6-D1, SEC-T-09
#[test]
fn scenario_07_a_permission_ends_after_exactly_300_s_though_a_channel_is_bound() {
    let mut world = World::allocated();
    let (number, data) = ([0x40; 1], "9.9.9.9:9");
    world.bind(0, data);
    let now = world.now;
    world.client(0).release_permission(now, ip("9.9.9.9"));
    world.run(at(300) - secs(1) / 1000);
    assert!(world.talks(0, data));
    let relay = world.relay_of(0);
    let mut buf = [0; 100];
    world.run(at(300));
    // The peer's data is dropped by the server, the client's by both.
    let forward = world
        .server
        .forward(world.now, relay, addr(data), b"x", &mut buf);
    assert_eq!(forward, None);
    let now = world.now;
    let refused = world.client(0).send(now, addr(data), b"x", &mut buf);
    assert_eq!(refused, Err(SendError::NoPermission));
    let channel = world.requests(wire::CHANNEL_BIND)[0]
        .message()
        .find::<wire::ChannelNumber>()
        .unwrap()
        .0;
    assert_eq!(channel.to_be_bytes()[0] & 0xF0, number[0]);
    let [c1, c0] = channel.to_be_bytes();
    let path = world.ends[0].path;
    world.feed_server(path, &[c1, c0, 0, 1, b'x']);
    assert_eq!(world.sent, []);
    // The channel is still there: its refresh brings the permission back.
    world.run(at(480));
    assert!(world.talks(0, data));
}

fn one_channel() -> ClientConfig {
    ClientConfig {
        max_channels: 1,
        ..client_config()
    }
}

// spec: TURN-12-2, TURN-12-3, TURN-12.2-D1
#[test]
fn scenario_08_a_channel_rests_before_its_number_leads_elsewhere() {
    let mut world = World::new();
    let end = world.end(one_channel(), Transport::Udp, 40_000);
    world.allocate(end, AllocateOptions::default());
    world.permit(end, "9.9.9.9");
    world.bind(end, "9.9.9.9:9");
    let numbers = |world: &World| -> Vec<u16> {
        let requests = world.requests(wire::CHANNEL_BIND);
        let number = |f: &&Flight| f.message().find::<wire::ChannelNumber>().unwrap().0;
        requests.iter().map(number).collect()
    };
    let now = world.now;
    world.client(end).release_channel(now, addr("9.9.9.9:9"));
    // Bound at the server until 600 s; then its data comes as indications.
    world.run(at(599));
    assert!(world.hears(end, "9.9.9.9:9", b"x"));
    world.run(at(700));
    assert!(world.talks(end, "9.9.9.9:9"));
    // The same pair may be bound again at once, with the same number.
    world.bind(end, "9.9.9.9:9");
    assert_eq!(numbers(&world)[0], numbers(&world)[1]);
    assert!(world.talks(end, "9.9.9.9:9"));
    let now = world.now;
    world.client(end).release_channel(now, addr("9.9.9.9:9"));
    // Another pair only 900 s after the last refresh.
    for (time, refused) in [(1300, true), (1599, true), (1600, false)] {
        world.run(at(time));
        let now = world.now;
        let bound = world.client(end).bind_channel(now, addr("9.9.9.8:8"));
        assert_eq!(
            bound == Err(ClientError::Limit),
            refused,
            "{time} s: {bound:?}"
        );
    }
    world.step();
    assert!(world.ends[end].saw(Event::ChannelBound {
        peer: addr("9.9.9.8:8")
    }));
    assert!(world.talks(end, "9.9.9.8:8"));
}

// spec: TURN-12-1, TURN-12-5
#[test]
fn scenario_09_there_are_4096_channels() {
    let mut config = server_config();
    config.limits.channels = 5000;
    config.limits.permissions = 5000;
    config.limits.responses = 5000;
    let mut world = World::with(config);
    let end = world.end(
        ClientConfig {
            max_channels: 5000,
            max_permissions: 5000,
            ..client_config()
        },
        Transport::Udp,
        40_000,
    );
    world.allocate(end, AllocateOptions::default());
    let peer = |n: u16| SocketAddr::new([9, 9, 9, 9].into(), 1000 + n);
    let now = world.now;
    for n in 0..4096 {
        world.client(end).bind_channel(now, peer(n)).unwrap();
    }
    assert_eq!(
        world.client(end).bind_channel(now, peer(4096)),
        Err(ClientError::Limit)
    );
    world.step();
    let bound = world.ends[end]
        .events
        .iter()
        .filter(|e| matches!(e, Event::ChannelBound { .. }));
    assert_eq!(bound.count(), 4096);
    assert!(world.talks(end, "9.9.9.9:1000") && world.talks(end, "9.9.9.9:5095"));
}

// spec: TURN-11.5-1, TURN-11.5-2, TURN-11.5-3, TURN-11.6-1, TURN-18.13-1
#[test]
fn scenario_12_icmp_errors_of_the_listed_types_come_through() {
    let mut world = World::new();
    let end = world.udp(40_000);
    let options = AllocateOptions {
        additional_v6: true,
        ..AllocateOptions::default()
    };
    world.allocate(end, options);
    let (v4, v6) = ("9.9.9.9:9", "[2600::9]:9");
    // A channel does not matter, a permission does.
    world.bind(end, v4);
    world.permit(end, "2600::9");
    let relays: Vec<_> = world
        .relays
        .iter()
        .map(|(id, (at, _))| (*id, *at))
        .collect();
    for (peer, stranger, accepted, mtu) in [
        (v4, "9.9.9.8:9", &[3, 11][..], (3, 4)),
        (v6, "[2600::8]:9", &[1, 2, 3][..], (2, 0)),
    ] {
        let peer = addr(peer);
        let (relay, _) = *relays
            .iter()
            .find(|(_, at)| at.is_ipv4() == peer.is_ipv4())
            .unwrap();
        for ty in 0..=127 {
            let icmp = Icmp {
                ty,
                code: mtu.1,
                data: 1280,
            };
            let before = world.ends[end].events.len();
            world
                .server
                .handle_relay_icmp(world.now, relay, addr(stranger), icmp);
            world.step();
            assert_eq!(world.ends[end].events.len(), before, "nobody permitted");
            world.server.handle_relay_icmp(world.now, relay, peer, icmp);
            world.step();
            let data = if ty == mtu.0 { 1280 } else { 0 };
            let told = Event::Icmp {
                peer,
                icmp: Icmp { data, ..icmp },
            };
            let expected: &[Event] = if accepted.contains(&ty) { &[told] } else { &[] };
            assert_eq!(&world.ends[end].events[before..], expected, "type {ty}");
        }
    }
    // A whole packet finds its way by the addresses inside it, whoever sent it.
    let (_, relayed) = relays.iter().find(|(_, at)| at.is_ipv4()).copied().unwrap();
    let SocketAddr::V4(relayed) = relayed else {
        panic!()
    };
    let mut packet = vec![3, 3, 0, 0, 0, 0, 0, 0];
    packet.extend([0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(relayed.ip().octets());
    packet.extend([9, 9, 9, 9]);
    packet.extend(relayed.port().to_be_bytes());
    packet.extend([0, 9, 0, 16, 0, 0]);
    world
        .server
        .handle_icmp_packet(world.now, AddressFamily::V4, &packet);
    world.step();
    let icmp = Icmp {
        ty: 3,
        code: 3,
        data: 0,
    };
    let last = world.ends[end].events.last();
    assert_eq!(
        last,
        Some(&Event::Icmp {
            peer: addr(v4),
            icmp
        })
    );
}

// spec: TURN-11.2-1, TURN-12.6-3, TURN-11.2-4, TURN-12.6-4
#[test]
fn scenario_13_payloads_of_every_length_go_through_and_none_that_is_too_long() {
    for transport in [Transport::Udp, Transport::Tcp] {
        for channel in [false, true] {
            let mut world = World::new();
            let end = world.end(client_config(), transport, 40_000);
            world.allocate(end, AllocateOptions::default());
            if channel {
                world.bind(end, "9.9.9.9:9");
            } else {
                world.permit(end, "9.9.9.9");
            }
            let header = if channel { 4 } else { 36 };
            let longest = if transport == Transport::Udp {
                // Header, payload and padding are one datagram.
                (65_507 - header) / 4 * 4 + if channel { 3 } else { 0 }
            } else if channel {
                65_507
            } else {
                65_500
            };
            let peer = addr("9.9.9.9:9");
            for len in [0, 1, 2, 3, 4, 5, 1200, longest] {
                let payload = vec![7; len];
                let mut buf = vec![0; len + 100];
                let now = world.now;
                let sent = world
                    .client(end)
                    .send(now, peer, &payload, &mut buf)
                    .unwrap();
                world.feed_server(sent.to, &buf[..sent.len]);
                let relayed = world.sent.pop().expect("a datagram");
                assert_eq!((relayed.to, relayed.data.len()), (peer, len));
                assert!(world.hears(end, "9.9.9.9:9", &payload), "{len} bytes");
            }
            let now = world.now;
            let mut buf = vec![0; 70_000];
            let sent = world
                .client(end)
                .send(now, peer, &vec![7; 65_508], &mut buf);
            assert_eq!(sent, Err(SendError::TooLong));
        }
    }
}

// spec: SEC-T-05, TURN-21-D1, TURN-10.2-1, TURN-11.2-3
#[test]
fn scenario_24_no_way_leads_to_the_inside() {
    let inside = [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "240.0.0.1",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "2001:0:7f00:1::1",
    ];
    let mut config = server_config();
    config.peers.preset = Preset::Public;
    let mut world = World::with(config);
    let udp = world.udp(40_000);
    world.allocate(
        udp,
        AllocateOptions {
            additional_v6: true,
            ..AllocateOptions::default()
        },
    );
    let tcp = world.tcp(40_000);
    let options = AllocateOptions {
        protocol: RelayProtocol::Tcp,
        ..AllocateOptions::default()
    };
    world.allocate(tcp, options);
    let now = world.now;
    for peer in inside {
        let peer = ip(peer);
        let to = SocketAddr::new(peer, 80);
        let before = world.ends[udp].events.len();
        world.client(udp).create_permission(now, peer).unwrap();
        world.client(udp).bind_channel(now, to).unwrap();
        world.step();
        let cause = Cause::Code(403);
        let told = &world.ends[udp].events[before..];
        assert!(
            told.contains(&Event::PermissionFailed { peer, cause }),
            "{peer}: {told:?}"
        );
        assert!(
            told.contains(&Event::ChannelFailed { peer: to, cause }),
            "{peer}: {told:?}"
        );
        if peer.is_ipv4() {
            let connection = world.client(tcp).connect_peer(now, to).unwrap();
            world.step();
            let failed = Event::ConnectionFailed {
                connection,
                peer: to,
                cause,
            };
            assert!(world.ends[tcp].saw(failed), "{peer}");
        }
        // A client that does not ask but sends is not heard.
        let mut buf = [0; 200];
        let id = stun_proto::wire::TransactionId([1; 12]);
        let ty = stun_proto::wire::MessageType::indication(wire::SEND);
        let len = stun_proto::wire::Writer::new(&mut buf, ty, id)
            .attribute(&wire::XorPeerAddress(to))
            .attribute(&wire::Data(b"GET /"))
            .finish()
            .unwrap();
        let path = world.ends[udp].path;
        world.feed_server(path, &buf[..len]);
    }
    assert_eq!(world.sent, []);
    assert_eq!(world.connects, []);
    // And from there nothing gets out.
    let relay = world.relay_of(udp);
    let mut buf = [0; 200];
    for peer in inside {
        let from = SocketAddr::new(ip(peer), 80);
        let forward = world.server.forward(now, relay, from, b"x", &mut buf);
        assert_eq!(forward, None, "{peer}");
    }
}
