//! Application data in both directions.

use super::*;
use crate::wire::{DontFragment, Icmp};

// spec: TURN-11.1-1, TURN-11.4-1, SEC-C-03, STUN-9.2-3
#[test]
fn data_needs_a_permission_in_both_directions() {
    let mut rig = Rig::allocated();
    let peer = addr("192.0.2.150:32102");
    let mut buf = [0; 200];
    // Trap U27: servers drop what comes before the permission; here it is an error.
    let sent = rig.client.send(rig.now, peer, b"hello", &mut buf);
    assert_eq!(sent, Err(SendError::NoPermission));
    assert!(rig.data_from("192.0.2.150:32102", b"x").is_none());
    rig.permit("192.0.2.150");
    let from = addr("192.0.2.150:5");
    assert_eq!(
        rig.data_from("192.0.2.150:5", b""),
        Some((from, Vec::new()))
    );
    assert!(rig.data_from("192.0.2.151:5", b"x").is_none());
    assert_eq!(rig.client.stats().not_permitted, 2);
    let sent = rig.client.send(rig.now, peer, b"hello", &mut buf).unwrap();
    let message = Message::parse(&buf[..sent.len]).unwrap();
    assert_eq!(message.message_type(), MessageType::indication(wire::SEND));
    assert_eq!(message.find(), Some(XorPeerAddress(peer)));
    assert_eq!(message.find(), Some(Data(b"hello")));
    assert!(!message.has_integrity());
}

// spec: TURN-11.4-1, STUN-6.3.2-1
#[test]
fn data_indications_that_lack_or_hold_the_wrong_things_are_dropped() {
    let mut rig = Rig::allocated();
    rig.permit("192.0.2.150");
    let peer = XorPeerAddress(addr("192.0.2.150:5"));
    let unknown = stun_proto::wire::AttributeType(0x7F00);
    assert!(
        rig.indication(wire::DATA, |w| w.attribute(&Data(b"x")))
            .is_none()
    );
    assert!(rig.indication(wire::DATA, |w| w.attribute(&peer)).is_none());
    assert!(
        rig.indication(wire::DATA, |w| w
            .attribute(&peer)
            .attribute(&Data(b"x"))
            .raw(unknown, &[]))
            .is_none()
    );
    assert_eq!(rig.client.stats().dropped, 3);
}

// spec: TURN-11.6-1
#[test]
fn icmp_errors_about_permitted_peers_are_reported() {
    let mut rig = Rig::allocated();
    rig.permit("192.0.2.150");
    let vector = "001700182112a4428231ae8f9242da9ff287feff0012000800015c74e112a6d4\
                  800400080000030400000500";
    let bytes = hex::decode(vector).unwrap();
    assert!(rig.input(&bytes).is_none());
    let icmp = Icmp {
        ty: 3,
        code: 4,
        data: 1280,
    };
    let peer = addr("192.0.2.150:32102");
    assert_eq!(rig.event(), Some(Event::Icmp { peer, icmp }));
    rig.indication(wire::DATA, |w| {
        w.attribute(&XorPeerAddress(addr("192.0.2.151:1")))
            .attribute(&icmp)
    });
    assert_eq!(rig.event(), None);
}

// spec: SEC-G-14, SEC-G-05
#[test]
fn icmp_errors_nobody_takes_away_are_dropped() {
    let config = ClientConfig {
        max_events: 10,
        ..config()
    };
    let mut rig = Rig::with(config, udp_path(40000), Transport::Udp).allocate();
    rig.permit("192.0.2.150");
    let icmp = Icmp {
        ty: 3,
        code: 1,
        data: 0,
    };
    for _ in 0..100 {
        rig.indication(wire::DATA, |w| {
            w.attribute(&XorPeerAddress(addr("192.0.2.150:1")))
                .attribute(&icmp)
        });
    }
    assert_eq!(rig.events().len(), 10);
    assert_eq!(rig.client.stats().dropped, 90);
}

// spec: SEC-G-14, SEC-G-05
#[test]
fn a_host_that_takes_no_events_away_loses_all_but_the_last() {
    let config = ClientConfig {
        max_events: 0,
        max_permissions: 1,
        max_channels: 0,
        max_connections: 0,
        ..config()
    };
    let mut rig = Rig::with(config, udp_path(40000), Transport::Udp).allocate_quietly();
    for round in 1..100 {
        rig.client
            .create_permission(rig.now, ip("192.0.2.150"))
            .unwrap();
        let request = rig.request();
        rig.ok(&request);
        rig.client.release_permission(rig.now, ip("192.0.2.150"));
        rig.run(round * 301, |rig, request| rig.serve(request));
    }
    rig.client.close(rig.now);
    let delete = rig.request();
    rig.refresh_ok(&delete, 0);
    let events = rig.events();
    assert_eq!(events.len(), 3);
    assert_eq!(events.last(), Some(&Event::Closed));
    assert!(rig.client.stats().dropped > 100);
}

// spec: TURN-12.6-1, TURN-12.6-2, TURN-12.6-4, SEC-T-10
#[test]
fn channel_datagrams_are_judged_by_number_and_length() {
    let mut rig = Rig::allocated();
    let peer = addr("192.0.2.210:49191");
    let channel = rig.bind("192.0.2.210:49191");
    let [c1, c0] = channel.number().to_be_bytes();
    for (len, total, delivered) in [(3, 3, true), (3, 8, true), (3, 2, false), (0, 0, true)] {
        let mut bytes = alloc::vec![c1, c0, 0, len];
        bytes.resize(4 + total, b'x');
        let expected = delivered.then(|| (peer, alloc::vec![b'x'; usize::from(len)]));
        assert_eq!(rig.input(&bytes), expected);
    }
    let unbound = 0x4000 | (channel.number() + 1) & 0xFFF;
    assert!(
        rig.channel_data(Channel::new(unbound).unwrap(), b"x")
            .is_none()
    );
    assert!(rig.input(&[c1, c0]).is_none());
    assert_eq!(rig.client.stats().not_permitted, 1);
    assert_eq!(rig.client.stats().dropped, 2);
    // Reserved numbers are somebody else's.
    let Path::Datagram(at) = rig.path else { return };
    for first in 0x50..=0xFF {
        let bytes = [first, 0, 0, 0];
        let received = rig.client.handle_datagram(rig.now, at, &bytes);
        assert_eq!(received, Received::NotMine);
    }
}

// spec: TURN-12.6-2
#[test]
fn a_channel_without_permission_delivers_nothing() {
    let mut rig = Rig::allocated();
    let channel = rig.bind("192.0.2.210:49191");
    rig.client.release_permission(rig.now, ip("192.0.2.210"));
    rig.run(299, |rig, request| rig.serve(request));
    assert!(rig.channel_data(channel, b"x").is_some());
    rig.run(300, |rig, request| rig.serve(request));
    assert!(rig.channel_data(channel, b"x").is_none());
}

// spec: SEC-C-03
#[test]
fn nothing_is_delivered_before_the_allocation_and_while_it_is_given_back() {
    let mut rig = Rig::new();
    let request = rig.ask(AllocateOptions::default());
    assert!(rig.data_from("192.0.2.150:5", b"x").is_none());
    rig.allocate_ok(&request);
    rig.event();
    rig.permit("192.0.2.150");
    let channel = rig.bind("192.0.2.150:5");
    rig.client.close(rig.now);
    assert!(rig.data_from("192.0.2.150:5", b"x").is_none());
    assert!(rig.channel_data(channel, b"x").is_none());
    let mut buf = [0; 200];
    let sent = rig
        .client
        .send(rig.now, addr("192.0.2.150:5"), b"x", &mut buf);
    assert_eq!(sent, Err(SendError::NoAllocation));
}

#[test]
fn the_three_ways_to_send_agree() {
    let mut rig = Rig::allocated();
    let peer = addr("192.0.2.210:49191");
    rig.permit("192.0.2.210");
    for bound in [false, true] {
        if bound {
            rig.bind("192.0.2.210:49191");
        }
        let mut whole = [0; 100];
        let sent = rig
            .client
            .send(rig.now, peer, b"hello", &mut whole)
            .unwrap();
        assert_eq!(sent.to, rig.path);
        let (to, header) = rig.client.send_header(rig.now, peer, 5).unwrap();
        assert_eq!(to, rig.path);
        let mut parts = header.as_bytes().to_vec();
        parts.extend_from_slice(b"hello");
        parts.resize(parts.len() + header.padding(), 0);
        let mut room = [7; 100];
        room[60..65].copy_from_slice(b"hello");
        let (to, range) = rig
            .client
            .send_in_place(rig.now, peer, &mut room, 60..65)
            .unwrap();
        assert_eq!(to, rig.path);
        // Indications differ in their transaction IDs only.
        let strip = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            if !bound {
                // The address is XORed with the cookie alone for IPv4.
                bytes[8..20].fill(0);
            }
            bytes
        };
        assert_eq!(strip(&whole[..sent.len]), strip(&parts));
        assert_eq!(strip(&whole[..sent.len]), strip(&room[range]));
    }
}

#[test]
fn overhead_is_4_36_or_48_bytes() {
    let mut rig = Rig::new();
    let options = AllocateOptions {
        additional_v6: true,
        ..AllocateOptions::default()
    };
    let request = rig.ask(options);
    rig.answer(&request, Class::Success, true, |w| {
        w.attribute(&XorRelayedAddress(addr(RELAYED)))
            .attribute(&XorRelayedAddress(addr("[2001:db8::15]:50000")))
            .attribute(&Lifetime(600))
    });
    rig.events();
    rig.permit("192.0.2.1");
    rig.permit("2001:db8::1");
    rig.bind("192.0.2.1:2");
    for (peer, overhead) in [
        ("192.0.2.1:1", 36),
        ("[2001:db8::1]:1", 48),
        ("192.0.2.1:2", 4),
    ] {
        let (_, header) = rig.client.send_header(rig.now, addr(peer), 8).unwrap();
        assert_eq!(header.as_bytes().len(), overhead);
    }
    // Scope and flow label do not come back from the server: they do not matter.
    let scoped = SocketAddr::V6(core::net::SocketAddrV6::new(
        "2001:db8::1".parse().unwrap(),
        1,
        5,
        7,
    ));
    assert!(rig.client.send_header(rig.now, scoped, 8).is_ok());
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let mut rig = Rig::allocated();
    let peer = addr("192.0.2.210:49191");
    let mut huge = alloc::vec![0; 70_000];
    let mut buf = [0; 40];
    rig.bind("192.0.2.210:49191");
    rig.permit_more("192.0.2.211");
    let other = addr("192.0.2.211:1");
    for (peer, longest) in [(peer, 65_503), (other, 65_507 - 36 - 3)] {
        let payload = alloc::vec![0; longest + 4];
        let sent = rig.client.send(rig.now, peer, &payload, &mut huge);
        assert_eq!(sent, Err(SendError::TooLong));
        let sent = rig
            .client
            .send(rig.now, peer, &payload[..longest], &mut huge)
            .unwrap();
        assert!(sent.len <= 65_507);
        let sent = rig.client.send(rig.now, peer, &[0; 40], &mut buf);
        assert_eq!(sent, Err(SendError::BufferTooSmall));
    }
    let sent = rig.client.send_in_place(rig.now, peer, &mut buf, 3..10);
    assert_eq!(sent.map(|_| ()), Err(SendError::BufferTooSmall));
}

impl Rig {
    fn permit_more(&mut self, peer: &str) {
        self.events();
        self.permit(peer);
    }
}

// spec: TURN-7.1-6, TURN-11.1-1
#[test]
fn data_that_must_not_be_fragmented_goes_as_indications() {
    let mut rig = Rig::new();
    let options = AllocateOptions {
        dont_fragment: true,
        ..AllocateOptions::default()
    };
    let request = rig.ask(options);
    assert_eq!(request.message().find(), Some(DontFragment));
    rig.allocate_ok(&request);
    assert!(matches!(
        rig.event(),
        Some(Event::Allocated {
            dont_fragment: true,
            ..
        })
    ));
    let peer = addr("192.0.2.150:32102");
    rig.bind("192.0.2.150:32102");
    rig.client.set_dont_fragment(true).unwrap();
    let mut buf = [0; 100];
    let sent = rig.client.send(rig.now, peer, b"hello", &mut buf).unwrap();
    let expected = "0016001c2112a4421278e9aca2711637ef7d33280012000800015c74e112a6d4001a0000\
                    0013000568656c6c6f000000";
    let mut expected = hex::decode(expected).unwrap();
    expected[8..20].copy_from_slice(&buf[8..20]);
    assert_eq!(buf[..sent.len], expected[..]);
    rig.client.set_dont_fragment(false).unwrap();
    let sent = rig.client.send(rig.now, peer, b"hello", &mut buf).unwrap();
    assert_eq!(sent.len, 9);
}

// spec: SEC-S-06, SEC-S-05
#[test]
fn what_is_not_the_clients_leaves_it_unchanged() {
    let mut rig = Rig::allocated();
    let Path::Datagram(at) = rig.path else { return };
    let other = FiveTuple::udp(at.local, addr("192.0.2.66:3478"));
    let mut buf = [0; 100];
    let id = TransactionId([5; 12]);
    let mut write = |class| {
        let ty = MessageType::new(class, Method::BINDING);
        let len = Writer::new(&mut buf, ty, id).finish().unwrap();
        buf[..len].to_vec()
    };
    // A server-reflexive check of ICE may share the five-tuple.
    let cases = [
        Class::Request,
        Class::Indication,
        Class::Success,
        Class::Error,
    ]
    .map(&mut write);
    let before = (rig.client.stats(), rig.client.poll_timeout());
    for bytes in &cases {
        let received = rig.client.handle_datagram(rig.now, at, bytes);
        assert_eq!(received, Received::NotMine);
        let received = rig.client.handle_datagram(rig.now, other, bytes);
        assert_eq!(received, Received::NotMine);
    }
    for bytes in [&b""[..], b"\x80", b"\x16\xfe\xfd", b"\xC0QUIC", &[0; 19]] {
        let received = rig.client.handle_datagram(rig.now, at, bytes);
        assert_eq!(received, Received::NotMine);
    }
    assert_eq!((rig.client.stats(), rig.client.poll_timeout()), before);
    assert!(rig.try_request().is_none());
}

// spec: SEC-S-06, STUN-6.3-1
#[test]
fn an_answer_from_elsewhere_or_to_another_method_does_not_count() {
    let mut rig = Rig::new();
    let request = rig.ask(AllocateOptions::default());
    let Path::Datagram(at) = rig.path else { return };
    let mut buf = [0; 200];
    let id = request.message().transaction_id();
    let mut write = |method| {
        let ty = MessageType::new(Class::Error, method);
        let len = Writer::new(&mut buf, ty, id)
            .attribute(&ErrorCode::new(437))
            .finish()
            .unwrap();
        buf[..len].to_vec()
    };
    let forged = write(wire::ALLOCATE);
    let elsewhere = FiveTuple::udp(at.local, addr("192.0.2.66:3478"));
    rig.client.handle_datagram(rig.now, elsewhere, &forged);
    let other_method = write(wire::REFRESH);
    rig.client.handle_datagram(rig.now, at, &other_method);
    assert_eq!(rig.event(), None);
    rig.allocate_ok(&request);
    assert!(matches!(rig.event(), Some(Event::Allocated { .. })));
}

fn kept() -> Rig {
    let config = ClientConfig {
        keep_alive: Some(secs(25)),
        ..config()
    };
    Rig::with(config, udp_path(40000), Transport::Udp).allocate()
}

// Trap U22.
// spec: STUN-6.1-1
#[test]
fn a_silent_path_is_kept_open_every_25_s_and_proven_every_50_s() {
    let mut rig = kept();
    let seen = rig.run(101, |rig, request| {
        if request.method() == wire::REFRESH {
            rig.refresh_ok(request, 600);
        }
    });
    let times: Vec<_> = seen.iter().map(|s| s.at).collect();
    assert_eq!(times, [at(25), at(50), at(75), at(100)]);
    for (keep_alive, proves) in seen.iter().zip([false, true, false, true]) {
        if proves {
            assert_eq!(keep_alive.method(), wire::REFRESH);
            continue;
        }
        let message = keep_alive.message();
        assert_eq!(
            message.message_type(),
            MessageType::indication(Method::BINDING)
        );
        assert_eq!(keep_alive.bytes.len(), 20);
    }
}

// Trap U22.
#[test]
fn a_busy_path_needs_no_keep_alive_but_is_proven_every_50_s() {
    let mut rig = kept();
    rig.permit("192.0.2.150");
    let mut buf = [0; 100];
    let mut seen = Vec::new();
    for second in 1..=125 {
        seen.extend(rig.run(second, |rig, request| rig.serve(request)));
        rig.client
            .send(rig.now, addr("192.0.2.150:1"), b"x", &mut buf)
            .unwrap();
    }
    let seen: Vec<_> = seen.iter().map(|s| (s.at, s.method())).collect();
    assert_eq!(seen, [(at(50), wire::REFRESH), (at(100), wire::REFRESH)]);
}

// Trap U22: the server knows the client by an address the NAT has given to nobody any more.
#[test]
fn a_nat_that_moves_the_client_is_noticed_within_a_minute_although_media_flow() {
    let mut rig = kept();
    rig.bind("192.0.2.150:1");
    let mut buf = [0; 100];
    let moved = 60;
    let mut lost = None;
    for tenth in 10.. {
        let now = Instant::ZERO + Duration::from_millis(100) * tenth;
        rig.run(tenth as u64 / 10, |rig, request| {
            if rig.now < at(moved) {
                rig.serve(request);
            } else {
                rig.error(request, 437);
            }
        });
        if let Some(Event::AllocationLost { cause }) = rig.event() {
            assert_eq!(cause, Cause::Code(437));
            lost = Some(rig.now);
            break;
        }
        let peer = addr("192.0.2.150:1");
        rig.client.send(now, peer, b"x", &mut buf).unwrap();
    }
    assert!(lost.is_some_and(|lost| lost < at(moved + 60)), "{lost:?}");
}

#[test]
fn a_proof_without_answer_costs_no_allocation() {
    let mut rig = kept();
    let seen = rig.run(500, |_, _| {});
    assert!(seen.iter().any(|s| s.method() == wire::REFRESH));
    assert_eq!(rig.event(), None);
}

#[test]
fn a_host_in_doubt_is_told_whether_the_allocation_is_there() {
    let mut rig = Rig::allocated();
    rig.now = at(5);
    rig.client.refresh(rig.now).unwrap();
    let request = rig.request();
    assert_eq!(request.method(), wire::REFRESH);
    rig.refresh_ok(&request, 500);
    let lifetime = secs(500);
    assert_eq!(rig.event(), Some(Event::Refreshed { lifetime }));

    // A second question does not wait for the first, which would be sent again much later.
    rig.client.refresh(rig.now).unwrap();
    rig.advance(20);
    rig.client.refresh(rig.now).unwrap();
    let request = rig.request();
    rig.refresh_ok(&request, 600);
    assert!(matches!(rig.event(), Some(Event::Refreshed { .. })));
    assert_eq!(rig.event(), None);

    rig.client.refresh(rig.now).unwrap();
    rig.advance(60);
    let cause = Cause::Timeout;
    assert_eq!(rig.event(), Some(Event::RefreshFailed { cause }));

    rig.client.refresh(rig.now).unwrap();
    let request = rig.request();
    rig.error(&request, 437);
    let cause = Cause::Code(437);
    assert_eq!(rig.event(), Some(Event::AllocationLost { cause }));
    assert_eq!(rig.client.refresh(rig.now), Err(ClientError::State));
}
