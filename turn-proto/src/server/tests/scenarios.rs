//! Longer stories, each told by one client against the server alone.

use super::*;

fn udp(writer: Writer<'_>) -> Writer<'_> {
    writer.attribute(&RequestedTransport::UDP)
}

// spec: TURN-5-8
#[test]
fn clients_come_over_every_transport() {
    for transport in [Transport::Udp, Transport::Dtls] {
        let mut rig = Rig::with(|config| config.relay_tcp = true);
        let at = FiveTuple {
            transport,
            ..client(1)
        };
        rig.allocate(at);
        assert_eq!(rig.bind(at, 0x4000, "9.9.9.9:9"), 0);
        assert!(rig.channel(at, 0x4000, b"x").is_some());
        // The same addresses over another transport are another five-tuple.
        let other = FiveTuple {
            transport: match transport {
                Transport::Udp => Transport::Dtls,
                Transport::Dtls | Transport::Tcp | Transport::Tls => Transport::Udp,
            },
            ..at
        };
        assert_eq!(rig.channel(other, 0x4000, b"x"), None);
        // No TCP relays over datagrams.
        rig.learn_nonce(other);
        let answer = rig.ask(other, wire::ALLOCATE, |w| {
            w.attribute(&RequestedTransport::TCP)
        });
        assert_eq!(code_of(&answer), 400);
    }
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut rig = Rig::new();
        let at = FiveTuple {
            transport,
            ..client(9)
        };
        rig.server.stream_opened(rig.now, STREAM, at).unwrap();
        allocate_on_stream(&mut rig);
    }
}

fn allocate_on_stream(rig: &mut Rig) {
    let request = rig.bare(wire::ALLOCATE);
    rig.stream(&request, 1000);
    let answer = rig.answer().unwrap().1;
    let nonce: Nonce<'_> = Message::parse(&answer).unwrap().find().unwrap();
    rig.nonce = nonce.as_bytes().to_vec();
    let request = rig.signed(ALICE, wire::ALLOCATE, udp);
    rig.stream(&request, 1000);
    assert_eq!(code_of(&rig.answer().unwrap().1), 0);
}

// spec: TURN-5-3, TURN-STR-3, TURN-12.6-2
#[test]
fn channel_data_behind_the_end_of_an_allocation_is_only_dropped() {
    let mut rig = stream_rig();
    allocate_on_stream(&mut rig);
    let request = rig.signed(ALICE, wire::REFRESH, |w| w.attribute(&Lifetime(0)));
    rig.stream(&request, 1000);
    assert_eq!(code_of(&rig.answer().unwrap().1), 0);
    assert!(rig.stream(b"\x40\0\0\x01a\0\0\0", 3).is_empty());
    assert!(rig.answer().is_none());
    assert_eq!(rig.server.stats().not_permitted, 1);
    // The stream can have another allocation, or is idle.
    let request = rig.signed(ALICE, wire::ALLOCATE, udp);
    rig.stream(&request, 1000);
    assert_eq!(code_of(&rig.answer().unwrap().1), 0);
    let request = rig.signed(ALICE, wire::REFRESH, |w| w.attribute(&Lifetime(0)));
    rig.stream(&request, 1000);
    rig.answer();
    rig.actions.clear();
    rig.advance(30);
    assert_eq!(rig.closed(), Some(CloseReason::Idle));
}

// spec: TURN-5-6, STUN-9.2.4-7, TURN-6-4
#[test]
fn an_allocation_lives_through_a_day_of_stale_nonces() {
    let mut rig = Rig::new();
    let at = client(1);
    let relay = rig.allocate(at);
    let peer = XorPeerAddress(addr("9.9.9.9:9"));
    rig.bind(at, 0x4000, "9.9.9.9:9");
    for _ in 0..(24 * 3600 / 240) {
        rig.advance(240);
        // Data prolongs nothing by itself.
        assert!(rig.channel(at, 0x4000, b"x").is_some());
        for method in [wire::REFRESH, wire::CREATE_PERMISSION, wire::CHANNEL_BIND] {
            let request = match method {
                wire::REFRESH => rig.signed(ALICE, method, |w| w),
                wire::CREATE_PERMISSION => rig.signed(ALICE, method, |w| w.attribute(&peer)),
                _ => rig.signed(ALICE, method, |w| {
                    w.attribute(&ChannelNumber(0x4000)).attribute(&peer)
                }),
            };
            let answer = rig.send(at, &request).unwrap();
            if code_of(&answer) == 438 {
                let message = Message::parse(&answer).unwrap();
                rig.nonce = message.find::<Nonce<'_>>().unwrap().as_bytes().to_vec();
                // The same again, with the new nonce.
                let answer = match method {
                    wire::REFRESH => rig.ask(at, method, |w| w),
                    wire::CREATE_PERMISSION => rig.ask(at, method, |w| w.attribute(&peer)),
                    _ => rig.ask(at, method, |w| {
                        w.attribute(&ChannelNumber(0x4000)).attribute(&peer)
                    }),
                };
                assert_eq!(code_of(&answer), 0);
            } else {
                assert_eq!(code_of(&answer), 0);
            }
        }
        while let Some(event) = rig.server.poll_event() {
            assert!(!matches!(event, Event::ChannelUnbound { .. }));
        }
    }
    let from = addr("9.9.9.9:9");
    assert!(rig.server.handle_relay(rig.now, relay, from, 1).is_some());
    assert_eq!(code_of(&rig.refresh(at, 0)), 0);
    assert_eq!(rig.deleted(), Some(DeleteReason::Client));
}

#[test]
fn after_a_restart_nonces_are_stale_and_allocations_unknown() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.allocate(at);
    let old = rig.nonce.clone();
    let restarted = Rig::with(|_| {});
    rig.server = {
        let mut users = StaticUsers::new(REALM);
        users.add("alice", "secret");
        let config = restarted.server.core.config.clone();
        Server::new(config, users, [99; 32], rig.now).unwrap()
    };
    assert_eq!(rig.channel(at, 0x4000, b"x"), None);
    let request = rig.signed(ALICE, wire::REFRESH, |w| w);
    assert_eq!(code_of(&rig.send(at, &request).unwrap()), 438);
    assert_eq!(rig.nonce, old);
    rig.learn_nonce(at);
    let answer = rig.ask(at, wire::REFRESH, |w| w);
    assert_eq!(code_of(&answer), 437);
}

// spec: STUN-16-1, SEC-T-02
#[test]
fn servers_that_share_keys_understand_each_others_nonces() {
    let build = |seed: u8, shared: Option<[u8; 32]>| {
        let mut rig = Rig::with(|config| config.shared_keys = shared.map(SharedKeys::new));
        let mut users = StaticUsers::new(REALM);
        users.add("alice", "secret");
        let config = rig.server.core.config.clone();
        rig.server = Server::new(config, users, [seed; 32], rig.now).unwrap();
        rig
    };
    let at = client(1);
    for (shared, code) in [(Some([7; 32]), 0), (None, 438)] {
        let mut first = build(1, shared);
        let mut second = build(2, shared);
        first.learn_nonce(at);
        second.nonce = first.nonce.clone();
        let request = second.signed(ALICE, wire::ALLOCATE, udp);
        assert_eq!(code_of(&second.send(at, &request).unwrap()), code);
    }
    let shown = alloc::format!("{:?}", SharedKeys::new([0x41; 32]));
    assert_eq!(shown, "SharedKeys(..)");
    // Nonces outlive one change of the key, not two.
    let mut rig = Rig::new();
    rig.learn_nonce(at);
    rig.server.rotate_nonce_key();
    let request = rig.signed(ALICE, wire::ALLOCATE, |w| w);
    assert_eq!(code_of(&rig.send(at, &request).unwrap()), 400);
    rig.server.rotate_nonce_key();
    let request = rig.signed(ALICE, wire::ALLOCATE, |w| w);
    assert_eq!(code_of(&rig.send(at, &request).unwrap()), 438);
}

// spec: TURN-12-2, TURN-12.2-1
#[test]
fn four_thousand_channels_and_no_more() {
    let mut rig = Rig::with(|config| {
        config.limits.channels = 5000;
        config.limits.permissions = 5000;
    });
    let at = client(1);
    let relay = rig.allocate(at);
    for n in 0..4096_u16 {
        let peer = alloc::format!("9.9.9.9:{}", n + 1);
        assert_eq!(rig.bind(at, 0x4000 + n, &peer), 0);
        while rig.server.poll_event().is_some() {}
    }
    assert_eq!(rig.bind(at, 0x5000, "9.9.9.9:9999"), 400);
    assert_eq!(rig.bind(at, 0x4000, "9.9.9.9:9999"), 400);
    for n in [0, 1, 77, 4095_u16] {
        let peer = addr(&alloc::format!("9.9.9.9:{}", n + 1));
        assert_eq!(rig.channel(at, 0x4000 + n, b"x").unwrap().0, peer);
        let mut buf = [0; 10];
        let sent = rig.server.forward(rig.now, relay, peer, b"x", &mut buf);
        assert_eq!(sent.unwrap().len, 5);
        assert_eq!(buf[..2], (0x4000 + n).to_be_bytes());
    }
}

// spec: TURN-12.2-D1, TURN-9-2
#[test]
fn a_channel_that_ended_is_free_at_once_for_others() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.allocate(at);
    assert_eq!(rig.bind(at, 0x4000, "9.9.9.9:9"), 0);
    rig.refresh(at, 3600);
    rig.advance(599);
    rig.learn_nonce(at);
    assert_eq!(rig.bind(at, 0x4000, "9.9.9.8:9"), 400);
    rig.advance(1);
    assert_eq!(rig.bind(at, 0x4000, "9.9.9.8:9"), 0);
    assert_eq!(rig.bind(at, 0x4001, "9.9.9.9:9"), 0);
    // Another allocation has nothing of all this.
    let other = client(2);
    rig.allocate(other);
    assert_eq!(rig.indication(other, "9.9.9.9:9", b"x"), None);
}

// spec: TURN-11.2-4, TURN-12.6-3
#[test]
fn the_largest_and_the_smallest_payloads_pass() {
    let mut rig = Rig::new();
    let at = client(1);
    let relay = rig.allocate(at);
    rig.bind(at, 0x4000, "9.9.9.9:9");
    let peer = addr("9.9.9.9:9");
    for len in [0, 1, 65_507, 65_535] {
        let data = alloc::vec![7; len];
        let relayed = rig.channel(at, 0x4000, &data).unwrap();
        assert_eq!(relayed.1.len(), len);
        let forward = rig.server.handle_relay(rig.now, relay, peer, len);
        let forward = forward.unwrap();
        assert_eq!(forward.header.as_bytes().len(), 4);
    }
}

#[test]
fn the_host_may_end_an_allocation() {
    let mut rig = Rig::new();
    let at = client(1);
    let relay = rig.allocate(at);
    rig.server.close_allocation(rig.now, relay);
    assert_eq!(rig.deleted(), Some(DeleteReason::Host));
    rig.server.close_allocation(rig.now, relay);
    assert_eq!(rig.server.poll_event(), None);
    // A relay that fails later ends it too.
    let relay = rig.allocate(at);
    rig.server.relay_failed(rig.now, relay);
    assert_eq!(rig.deleted(), Some(DeleteReason::RelayFailed));
    rig.learn_nonce(at);
    assert_eq!(code_of(&rig.ask(at, wire::REFRESH, |w| w)), 437);
}

// spec: SEC-G-12
#[test]
fn the_same_seed_and_inputs_give_the_same_bytes() {
    let run = || {
        let mut rig = Rig::new();
        let mut all = Vec::new();
        for n in 1..5 {
            let at = client(n);
            let request = rig.bare(wire::ALLOCATE);
            all.extend(rig.send(at, &request).unwrap());
            let relay = rig.allocate(at);
            rig.permit(at, "9.9.9.9:9");
            let from = addr("9.9.9.9:9");
            let forward = rig.server.handle_relay(rig.now, relay, from, 5).unwrap();
            all.extend(forward.header.as_bytes());
        }
        all
    };
    assert_eq!(run(), run());
}

// spec: SEC-F-04
#[test]
fn a_unit_has_30_s_to_arrive_once_there_is_an_allocation() {
    for (late, closed) in [(29, false), (30, true)] {
        let mut rig = stream_rig();
        allocate_on_stream(&mut rig);
        rig.stream(b"\x40\0\0\x04ab", 1);
        rig.advance(late);
        rig.stream(b"cd", 1);
        assert_eq!(rig.closed().is_some(), closed);
    }
    // The time counts anew for each.
    let mut rig = stream_rig();
    allocate_on_stream(&mut rig);
    for _ in 0..4 {
        rig.stream(b"\x40\0\0\x04ab", 1);
        rig.advance(20);
        rig.stream(b"cd\x40\0", 1);
        rig.advance(20);
        rig.stream(b"\0\x04abcd", 1);
    }
    assert_eq!(rig.closed(), None);
}

/// The request of the vectors in RFC 8656 style: everything but the nonce, which is ours.
fn george(max_lifetime: u64, algorithm: IntegrityAlgorithm, fingerprint: bool) -> Vec<u8> {
    let mut rig = Rig::new();
    let mut users = StaticUsers::new("example.com");
    users.add("George", "wilma-6.7");
    let mut config = ServerConfig::new("example.com");
    config.max_lifetime = secs(max_lifetime);
    rig.server = Server::new(config, users, [3; 32], rig.now).unwrap();
    let at = FiveTuple::udp(addr("192.0.2.15:3478"), addr("192.0.2.1:7000"));
    rig.learn_nonce(at);
    let id = hex::decode("c271e932ad7446a32c234492").unwrap();
    let id = TransactionId(id.try_into().unwrap());
    let mut buf = [0; 500];
    let nonce = rig.nonce.clone();
    let writer = udp(Writer::new(
        &mut buf,
        MessageType::request(wire::ALLOCATE),
        id,
    ))
    .attribute(&Lifetime(3600))
    .attribute(&Username::new("George").unwrap())
    .attribute(&Realm::new("example.com").unwrap())
    .attribute(&Nonce::from_bytes(&nonce).unwrap());
    let derive =
        |algorithm| Key::long_term(algorithm, b"George", b"example.com", b"wilma-6.7").unwrap();
    let sha256 = PasswordAlgorithmId::SHA256;
    let len = match algorithm {
        IntegrityAlgorithm::Sha256 => writer
            .attribute(&PasswordAlgorithms::SHA256_MD5)
            .attribute(&PasswordAlgorithm::new(sha256))
            .message_integrity_sha256(&derive(sha256))
            .finish(),
        IntegrityAlgorithm::Sha1 if fingerprint => writer
            .message_integrity(&derive(PasswordAlgorithmId::MD5))
            .fingerprint()
            .finish(),
        IntegrityAlgorithm::Sha1 => panic!(),
    };
    rig.server
        .handle_datagram(rig.now, at, &buf[..len.unwrap()]);
    let Some(Action::OpenRelay { relay, .. }) = rig.server.poll_action() else {
        panic!();
    };
    rig.server
        .relay_opened(rig.now, relay, addr("192.0.2.15:50000"));
    rig.answer().unwrap().1
}

// spec: TURN-7.2-14, TURN-7.2-13, STUN-9.2.4-8
#[test]
fn success_is_the_known_answer_byte_for_byte() {
    let answer = george(1200, IntegrityAlgorithm::Sha256, false);
    let known = "010300442112a442c271e932ad7446a32c234492001600080001e242e112a64d0020000800013a4a\
                 e112a643000d0004000004b0001c0020ba391c27b9565555acfbf222deedcc08f28d851d75e15aed\
                 1489b21fba8d239c";
    assert_eq!(hex::encode(answer), known);
    let answer = george(600, IntegrityAlgorithm::Sha1, true);
    let known = "010300402112a442c271e932ad7446a32c234492001600080001e242e112a64d0020000800013a4a\
                 e112a643000d0004000002580008001430a8a541b4e325fc7dbdaf8815359b27996fdb0b80280004\
                 574b7d20";
    assert_eq!(hex::encode(answer), known);
}

// spec: SEC-G-16
#[test]
fn unknown_users_and_wrong_passwords_get_the_same_bytes() {
    let at = client(1);
    let answer = |user| {
        let mut rig = Rig::new();
        rig.learn_nonce(at);
        let request = rig.signed(user, wire::ALLOCATE, udp);
        rig.send(at, &request).unwrap()
    };
    assert_eq!(answer(("alice", "wrong")), answer(("nobody", "secret")));
}

// spec: TURN-7.2-1, STUN-6.3-2, TURN-5-2
#[test]
fn nothing_but_a_challenge_is_learned_without_proof() {
    // Neither that there is an allocation, nor that an attribute is unknown, nor a quota.
    let mut rig = Rig::new();
    let at = client(1);
    rig.allocate(at);
    for method in [
        wire::ALLOCATE,
        wire::REFRESH,
        wire::CREATE_PERMISSION,
        wire::CHANNEL_BIND,
        wire::CONNECT,
        wire::CONNECTION_BIND,
    ] {
        rig.advance(1);
        let request = rig.bare(method);
        let answer = rig.send(at, &request).unwrap();
        assert_eq!(code_of(&answer), 401);
        assert!(!Message::parse(&answer).unwrap().has_integrity());
    }
    // With it, every error is protected.
    for (method, code) in [
        (wire::ALLOCATE, 437),
        (wire::CREATE_PERMISSION, 400),
        (wire::CHANNEL_BIND, 400),
        (wire::CONNECT, 400),
        (wire::CONNECTION_BIND, 400),
    ] {
        let answer = rig.ask(at, method, udp);
        assert_eq!(code_of(&answer), code);
    }
}
