//! Second families, reserved ports, users of all kinds, tokens, moving clients, redirection.

use alloc::vec;

use stun_proto::wire::{AlternateDomain, AlternateServer, AttributeType, Software};

use super::*;
use crate::wire::{AdditionalAddressFamily, AddressErrorCode, DontFragment, Icmp, MobilityTicket};

const V6: AdditionalAddressFamily = AdditionalAddressFamily(AddressFamily::V6);

fn dual() -> Rig {
    Rig::with(|config| config.addresses_v6 = 1)
}

fn relayed(answer: &[u8]) -> Vec<SocketAddr> {
    let message = Message::parse(answer).unwrap();
    let all = message.get_all::<XorRelayedAddress>();
    all.map(|addr| addr.unwrap().0).collect()
}

fn created(rig: &mut Rig) -> Vec<RelayId> {
    let mut relays = Vec::new();
    while let Some(event) = rig.server.poll_event() {
        if let Event::AllocationCreated { relay, .. } = event {
            relays.push(relay);
        }
    }
    relays
}

// spec: TURN-7.2-9
#[test]
fn an_additional_family_is_allocated_as_far_as_it_can_be() {
    let at = client(1);
    let ask = |rig: &mut Rig| {
        rig.learn_nonce(at);
        rig.ask(at, wire::ALLOCATE, |w| {
            w.attribute(&RequestedTransport::UDP).attribute(&V6)
        })
    };
    let mut rig = dual();
    let answer = ask(&mut rig);
    let families: Vec<bool> = relayed(&answer).iter().map(SocketAddr::is_ipv4).collect();
    assert_eq!(families, [true, false]);
    for (v4, v6, missing) in [
        (true, false, AddressFamily::V6),
        (false, true, AddressFamily::V4),
    ] {
        let mut rig = Rig::with(|config| {
            config.addresses_v4 = u16::from(v4);
            config.addresses_v6 = u16::from(v6);
        });
        let answer = ask(&mut rig);
        assert_eq!(relayed(&answer).len(), 1);
        let message = Message::parse(&answer).unwrap();
        let error: AddressErrorCode<'_> = message.find().unwrap();
        assert_eq!((error.family, error.error.code()), (missing, 440));
    }
    // The host cannot open one of them, then neither.
    for fail in [1, 2] {
        let mut rig = dual();
        rig.learn_nonce(at);
        let request = rig.signed(ALICE, wire::ALLOCATE, |w| {
            w.attribute(&RequestedTransport::UDP).attribute(&V6)
        });
        rig.server.handle_datagram(rig.now, at, &request);
        let mut relays = Vec::new();
        while let Some(Action::OpenRelay { relay, .. }) = rig.server.poll_action() {
            relays.push(relay);
        }
        assert_eq!(relays.len(), 2);
        rig.server.relay_failed(rig.now, relays[1]);
        if fail == 1 {
            rig.server
                .relay_opened(rig.now, relays[0], addr("203.0.113.1:50000"));
        } else {
            rig.server.relay_failed(rig.now, relays[0]);
        }
        let answer = rig.answer().unwrap().1;
        if fail == 1 {
            let message = Message::parse(&answer).unwrap();
            let error: AddressErrorCode<'_> = message.find().unwrap();
            assert_eq!((error.family, error.error.code()), (AddressFamily::V6, 508));
        } else {
            assert_eq!(code_of(&answer), 508);
            assert_eq!(rig.server.allocations(), 0);
        }
    }
    let v4 = AdditionalAddressFamily(AddressFamily::V4);
    let code = dual().allocate_code(|w| w.attribute(&RequestedTransport::UDP).attribute(&v4));
    assert_eq!(code, 400);
}

// spec: TURN-8.2-1, TURN-8.2-2
#[test]
fn families_are_refreshed_and_deleted_one_by_one() {
    let mut rig = dual();
    let at = client(1);
    rig.learn_nonce(at);
    rig.ask(at, wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::UDP).attribute(&V6)
    });
    let relays = created(&mut rig);
    assert_eq!(rig.permit(at, "9.9.9.9:1"), 0);
    assert_eq!(rig.bind(at, 0x4000, "[2606::1]:1"), 0);
    assert_eq!(rig.bind(at, 0x4001, "9.9.9.9:1"), 0);
    let answer = rig.ask(at, wire::REFRESH, |w| {
        w.attribute(&Lifetime(1200))
            .attribute(&RequestedAddressFamily(AddressFamily::V4))
    });
    assert_eq!(code_of(&answer), 0);
    let answer = rig.ask(at, wire::REFRESH, |w| {
        w.attribute(&Lifetime(0))
            .attribute(&RequestedAddressFamily(AddressFamily::V6))
    });
    assert_eq!(code_of(&answer), 0);
    assert_eq!(rig.deleted(), Some(DeleteReason::Client));
    // What belonged to the other family is still there.
    assert!(rig.channel(at, 0x4001, b"x").is_some());
    assert_eq!(rig.channel(at, 0x4000, b"x"), None);
    assert_eq!(rig.bind(at, 0x4002, "[2606::1]:1"), 443);
    let answer = rig.ask(at, wire::REFRESH, |w| {
        w.attribute(&RequestedAddressFamily(AddressFamily::V6))
    });
    assert_eq!(code_of(&answer), 443);
    let peer = addr("[2606::1]:1");
    assert!(
        rig.server
            .handle_relay(rig.now, relays[1], peer, 1)
            .is_none()
    );
    rig.advance(1199);
    assert_eq!(rig.server.allocations(), 1);
    rig.advance(1);
    assert_eq!(rig.server.allocations(), 0);
    assert_eq!(rig.server.poll_timeout(), None);
}

fn reserve(rig: &mut Rig, at: FiveTuple) -> (SocketAddr, ReservationToken) {
    rig.learn_nonce(at);
    let answer = rig.ask(at, wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::UDP)
            .attribute(&EvenPort { reserve_next: true })
    });
    let message = Message::parse(&answer).unwrap();
    (relayed(&answer)[0], message.find().unwrap())
}

fn redeem(rig: &mut Rig, user: (&str, &str), at: FiveTuple, token: ReservationToken) -> Vec<u8> {
    rig.learn_nonce(at);
    let request = rig.signed(user, wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::UDP).attribute(&token)
    });
    rig.send(at, &request).unwrap()
}

// spec: TURN-7.2-11, SEC-T-08
#[test]
fn the_port_above_is_kept_for_30_s_for_one_use_by_the_same_user() {
    let mut rig = Rig::new();
    let (first, token) = reserve(&mut rig, client(1));
    assert!(first.port().is_multiple_of(2));
    assert_eq!(code_of(&redeem(&mut rig, BOB, client(2), token)), 508);
    assert_eq!(
        code_of(&redeem(
            &mut rig,
            ALICE,
            client(2),
            ReservationToken([0; 8])
        )),
        508
    );
    rig.advance(29);
    let answer = redeem(&mut rig, ALICE, client(3), token);
    let second = relayed(&answer)[0];
    assert_eq!((second.ip(), second.port()), (first.ip(), first.port() + 1));
    assert_eq!(code_of(&redeem(&mut rig, ALICE, client(4), token)), 508);
    // It does not end with the reservation's time.
    rig.advance(100);
    assert_eq!(rig.server.allocations(), 2);

    let mut rig = Rig::new();
    let (_, token) = reserve(&mut rig, client(1));
    rig.advance(30);
    assert!(matches!(
        rig.server.poll_action(),
        Some(Action::CloseRelay { .. })
    ));
    assert_eq!(code_of(&redeem(&mut rig, ALICE, client(3), token)), 508);
}

// spec: TURN-7.2-2
#[test]
fn a_retransmitted_allocate_gets_the_same_token() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.learn_nonce(at);
    let request = rig.signed(ALICE, wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::UDP)
            .attribute(&EvenPort { reserve_next: true })
    });
    let first = rig.send(at, &request).unwrap();
    assert_eq!(rig.send(at, &request).unwrap(), first);
    assert_eq!(rig.server.allocations(), 1);
}

// spec: TURN-7.2-8, SEC-T-06
#[test]
fn reservations_are_limited_and_fail_together() {
    let reserve = EvenPort { reserve_next: true };
    let mut rig = Rig::with(|config| config.limits.reservations = 1);
    super::extensions::reserve(&mut rig, client(1));
    let code = rig.allocate_code(|w| w.attribute(&RequestedTransport::UDP).attribute(&reserve));
    assert_eq!(code, 508);
    // One of the two cannot be opened, or not side by side.
    for second in [None, Some(addr("203.0.113.1:50003"))] {
        let mut rig = Rig::new();
        let at = client(1);
        rig.learn_nonce(at);
        let request = rig.signed(ALICE, wire::ALLOCATE, |w| {
            w.attribute(&RequestedTransport::UDP).attribute(&reserve)
        });
        rig.server.handle_datagram(rig.now, at, &request);
        let mut asked = Vec::new();
        while let Some(Action::OpenRelay { relay, port, .. }) = rig.server.poll_action() {
            asked.push((relay, port));
        }
        assert_eq!(asked[0].1 + 1, asked[1].1);
        let first = addr("203.0.113.1:50000");
        rig.server.relay_opened(rig.now, asked[0].0, first);
        match second {
            None => rig.server.relay_failed(rig.now, asked[1].0),
            Some(second) => rig.server.relay_opened(rig.now, asked[1].0, second),
        }
        assert_eq!(code_of(&rig.answer().unwrap().1), 508);
        assert_eq!(rig.server.allocations(), 0);
        assert_eq!(rig.server.poll_timeout(), None);
    }
}

// spec: TURN-7.2-12
#[test]
fn ports_are_random_in_range_and_another_one_is_tried_when_taken() {
    let mut seen = alloc::collections::BTreeSet::new();
    let mut rig = Rig::new();
    for n in 0..8 {
        let at = client(n + 1);
        rig.learn_nonce(at);
        let request = rig.signed(ALICE, wire::ALLOCATE, |w| {
            w.attribute(&RequestedTransport::UDP)
        });
        rig.server.handle_datagram(rig.now, at, &request);
        // Eight tries, then 508.
        let mut tries = 0;
        while let Some(action) = rig.server.poll_action() {
            if let Action::OpenRelay { relay, port, .. } = action {
                assert!(port >= 49_152);
                seen.insert(port);
                tries += 1;
                rig.server.relay_port_taken(rig.now, relay);
            }
        }
        assert_eq!(tries, 8);
        assert_eq!(code_of(&rig.answer().unwrap().1), 508);
        rig.advance(1);
    }
    assert!(seen.len() > 60);
    let ordered: Vec<u16> = seen.iter().copied().collect();
    let low = ordered.iter().filter(|port| **port < 57_344).count();
    assert!((10..50).contains(&low), "{ordered:?}");
    // A range of three ports: all are found, and no fourth.
    let mut rig = Other::new(OpenAccess, |config| config.ports = 50_001..=50_003);
    let mut found = Vec::new();
    for port in 1..=4 {
        let answer = rig.ask(client(port), wire::ALLOCATE, None, udp).unwrap();
        found.extend(relayed(&answer).first().map(SocketAddr::port));
    }
    found.sort_unstable();
    assert_eq!(found, [50_001, 50_002, 50_003]);
}

// spec: TURN-7.2-4, TURN-11.2-2
#[test]
fn dont_fragment_is_passed_on_where_it_can_be_set() {
    let at = client(1);
    for settable in [true, false] {
        let mut rig = Rig::with(|config| config.dont_fragment = settable);
        rig.allocate(at);
        rig.permit(at, "192.168.2.150:32102");
        let mut buf = [0; 100];
        let len = Writer::new(&mut buf, MessageType::indication(wire::SEND), rig.id())
            .attribute(&XorPeerAddress(addr("192.168.2.150:32102")))
            .attribute(&DontFragment)
            .attribute(&Data(b"hello"))
            .finish()
            .unwrap();
        match rig.server.handle_datagram(rig.now, at, &buf[..len]) {
            Received::Data { peer, data } => {
                assert!(settable && peer.dont_fragment);
                assert_eq!(data, b"hello");
            }
            Received::Consumed => assert!(!settable),
            Received::NotMine => panic!(),
        }
    }
}

fn icmp_v4(ty: u8, code: u8, relayed: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (relayed, peer) else {
        panic!();
    };
    let mut packet = vec![ty, code, 0, 0, 0, 0, 5, 0];
    packet.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend([0, 8, 0, 0]);
    packet
}

// spec: TURN-11.5-1, TURN-11.5-2, TURN-11.5-3, TURN-18.13-1, SEC-T-13
#[test]
fn whole_icmp_packets_find_their_allocation_by_the_address_inside() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.allocate(at);
    rig.bind(at, 0x4000, "9.9.9.9:7");
    let relayed = addr("203.0.113.1:50000");
    let peer = addr("9.9.9.9:7");
    let good = icmp_v4(3, 4, relayed, peer);
    rig.server
        .handle_icmp_packet(rig.now, AddressFamily::V4, &good);
    let answer = rig.answer().unwrap().1;
    let message = Message::parse(&answer).unwrap();
    // Though a channel is bound.
    assert_eq!(message.message_type(), MessageType::indication(wire::DATA));
    assert_eq!(message.find(), Some(XorPeerAddress(peer)));
    let icmp = Icmp {
        ty: 3,
        code: 4,
        data: 1280,
    };
    assert_eq!(message.find(), Some(icmp));
    for bad in [
        icmp_v4(8, 0, relayed, peer),
        icmp_v4(3, 4, addr("203.0.113.1:50002"), peer),
        icmp_v4(3, 4, relayed, addr("9.9.9.8:7")),
        good[..good.len() - 5].to_vec(),
    ] {
        rig.server
            .handle_icmp_packet(rig.now, AddressFamily::V4, &bad);
        assert!(rig.answer().is_none());
    }
    for len in 0..good.len() {
        let _ = parse_icmp(AddressFamily::V4, &good[..len]);
        let _ = parse_icmp(AddressFamily::V6, &good[..len]);
    }
    let mut v6 = vec![2, 0, 0, 0, 0, 0, 5, 0];
    v6.extend([0x60, 0, 0, 0, 0, 8, 17, 64]);
    v6.extend([0x20; 16]);
    v6.extend([0x30; 16]);
    v6.extend([0xC3, 0x50, 0, 7]);
    let report = parse_icmp(AddressFamily::V6, &v6).unwrap();
    assert_eq!((report.relayed.port(), report.peer.port()), (50_000, 7));
    assert_eq!(report.icmp.data, 1280);
}

/// A server whose users are something else than a list.
struct Other<U> {
    server: Server<U>,
    now: Instant,
    nonce: Vec<u8>,
    id: u8,
}

impl<U: Users> Other<U> {
    fn new(users: U, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = ServerConfig::new("example.com");
        config.peers.preset = Preset::Any;
        change(&mut config);
        let now = Instant::ZERO + secs(1000);
        Self {
            server: Server::new(config, users, [9; 32], now).unwrap(),
            now,
            nonce: Vec::new(),
            id: 0,
        }
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let mut buf = [0; MAX_TRANSMIT];
        let sent = self.server.poll_transmit(&mut buf)?;
        Some(buf[..sent.len].to_vec())
    }

    /// Sends a request; opens what the server asks for; the answer.
    fn ask(
        &mut self,
        at: FiveTuple,
        method: Method,
        user: Option<(&[u8], &Key)>,
        attributes: impl for<'b> FnOnce(Writer<'b>) -> Writer<'b>,
    ) -> Option<Vec<u8>> {
        self.id = self.id.wrapping_add(1);
        let mut buf = [0; 1200];
        let id = TransactionId([self.id; 12]);
        let writer = attributes(Writer::new(&mut buf, MessageType::request(method), id));
        let len = match user {
            None => writer.finish(),
            Some((name, key)) => writer
                .attribute(&Username::from_bytes(name).unwrap())
                .attribute(&Realm::new("example.com").unwrap())
                .attribute(&Nonce::from_bytes(&self.nonce).unwrap())
                .message_integrity(key)
                .finish(),
        };
        let request = buf[..len.unwrap()].to_vec();
        self.server.handle_datagram(self.now, at, &request);
        while let Some(action) = self.server.poll_action() {
            if let Action::OpenRelay { relay, port, .. } = action {
                let at = SocketAddr::new([203, 0, 113, 1].into(), port);
                self.server.relay_opened(self.now, relay, at);
            }
        }
        self.take()
    }

    fn challenge(&mut self, at: FiveTuple) -> Vec<u8> {
        let answer = self.ask(at, wire::ALLOCATE, None, udp).unwrap();
        assert_eq!(code_of(&answer), 401);
        let message = Message::parse(&answer).unwrap();
        self.nonce = message.find::<Nonce<'_>>().unwrap().as_bytes().to_vec();
        answer
    }
}

fn udp(writer: Writer<'_>) -> Writer<'_> {
    writer.attribute(&RequestedTransport::UDP)
}

fn md5(name: &[u8], password: &str) -> Key {
    Key::long_term(
        PasswordAlgorithmId::MD5,
        name,
        b"example.com",
        password.as_bytes(),
    )
    .unwrap()
}

// spec: REST-2.2-1, REST-4.2-1, REST-5.2-1, REST-D1
#[test]
fn rest_users_are_let_in_until_their_time_is_over() {
    const USER: &[u8] = b"1433895918:user2";
    let mut users = RestUsers::new("north");
    assert_eq!(
        users.password(USER).expose(),
        "Zs/dKU9OyrtO2tTalcDnVzae8KU="
    );
    users.hash = RestHash::Sha256;
    assert_eq!(
        users.password(USER).expose(),
        "HHna42cw3XPaChaum2ExYQ+DFcWAHzO/AlMPpQ6LSuA="
    );
    users.hash = RestHash::Sha1;
    users.add_secret("south");
    let key = md5(USER, "Zs/dKU9OyrtO2tTalcDnVzae8KU=");
    let at = client(1);
    let mut rig = Other::new(users, |_| {});
    rig.challenge(at);
    let user = Some((USER, &key));
    // Without knowing the time of day, nobody.
    assert_eq!(
        code_of(&rig.ask(at, wire::ALLOCATE, user, udp).unwrap()),
        401
    );
    rig.server.set_unix_time(rig.now, 1_433_895_917);
    // The older of two secrets.
    assert_eq!(code_of(&rig.ask(at, wire::ALLOCATE, user, udp).unwrap()), 0);
    // Its time over, the allocation can be used and ended, not prolonged, and no other made.
    rig.now += secs(1);
    let peer = XorPeerAddress(addr("9.9.9.9:9"));
    assert_eq!(
        code_of(
            &rig.ask(at, wire::CREATE_PERMISSION, user, |w| w.attribute(&peer))
                .unwrap()
        ),
        0
    );
    assert_eq!(
        code_of(&rig.ask(at, wire::REFRESH, user, |w| w).unwrap()),
        401
    );
    rig.server.users_mut().refresh_after_expiry = true;
    assert_eq!(
        code_of(&rig.ask(at, wire::REFRESH, user, |w| w).unwrap()),
        0
    );
    assert_eq!(rig.server.allocations(), 1);
    rig.challenge(client(2));
    let answer = rig.ask(client(2), wire::ALLOCATE, user, udp).unwrap();
    assert_eq!(code_of(&answer), 401);
    rig.challenge(at);
    let answer = rig.ask(at, wire::REFRESH, user, |w| w.attribute(&Lifetime(0)));
    assert_eq!(code_of(&answer.unwrap()), 0);
    // Neither too far in the future, nor something that is no time.
    let mut users = RestUsers::new("north");
    users.longest = Some(3600);
    let query = |name: &'static [u8], now| {
        let query = KeyQuery {
            user: User::Name(name),
            algorithm: PasswordAlgorithmId::MD5,
            realm: "example.com",
            purpose: Purpose::Create,
            unix_time: Some(now),
        };
        !matches!(users.key(&query), Lookup::Unknown)
    };
    assert!(query(USER, 1_433_895_918 - 3600));
    assert!(!query(USER, 1_433_895_918 - 3601));
    assert!(!query(b"+1433895918:x", 0) && !query(b"", 0) && !query(b":", 0));
    assert!(!alloc::format!("{users:?}").contains("north"));
}

#[derive(Debug)]
struct Asked;

impl Users for Asked {
    fn key(&self, _: &KeyQuery<'_>) -> Lookup {
        Lookup::Later
    }
}

// spec: SEC-T-01, SEC-G-05
#[test]
fn keys_may_come_later_but_only_for_those_who_answered_a_challenge() {
    let at = client(1);
    let key = md5(b"alice", "secret");
    let mut rig = Other::new(Asked, |config| config.limits.key_lookups = 2);
    rig.nonce = b"obMatJos2gAAAforged".to_vec();
    // No question is asked for a stranger.
    let ask = |rig: &mut Other<Asked>, at| {
        rig.id = rig.id.wrapping_add(1);
        let mut buf = [0; 500];
        let id = TransactionId([rig.id; 12]);
        let ty = MessageType::request(wire::ALLOCATE);
        let len = udp(Writer::new(&mut buf, ty, id))
            .attribute(&Username::new("alice").unwrap())
            .attribute(&Realm::new("example.com").unwrap())
            .attribute(&Nonce::from_bytes(&rig.nonce).unwrap())
            .message_integrity(&key)
            .finish()
            .unwrap();
        let request = buf[..len].to_vec();
        rig.server.handle_datagram(rig.now, at, &request);
        request
    };
    ask(&mut rig, at);
    assert_eq!(code_of(&rig.take().unwrap()), 438);
    assert_eq!(rig.server.poll_action(), None);
    rig.challenge(at);
    let request = ask(&mut rig, at);
    // The same again asks no second question.
    rig.server.handle_datagram(rig.now, at, &request);
    let Some(Action::LookUpKey {
        ticket,
        user: who,
        algorithm,
    }) = rig.server.poll_action()
    else {
        panic!();
    };
    assert_eq!(who, KeyOwner::Name(b"alice".to_vec()));
    assert_eq!(algorithm, PasswordAlgorithmId::MD5);
    assert_eq!(rig.server.poll_action(), None);
    assert_eq!(rig.take(), None);
    rig.server.key_found(rig.now, ticket, Some(key.clone()));
    let Some(Action::OpenRelay { relay, port, .. }) = rig.server.poll_action() else {
        panic!();
    };
    let relayed = SocketAddr::new([203, 0, 113, 1].into(), port);
    rig.server.relay_opened(rig.now, relay, relayed);
    assert_eq!(code_of(&rig.take().unwrap()), 0);
    // No such user; too many questions; no answer.
    ask(&mut rig, at);
    let Some(Action::LookUpKey { ticket, .. }) = rig.server.poll_action() else {
        panic!();
    };
    rig.server.key_found(rig.now, ticket, None);
    assert_eq!(code_of(&rig.take().unwrap()), 401);
    for code in [None, None, Some(500)] {
        ask(&mut rig, at);
        assert_eq!(rig.take().map(|answer| code_of(&answer)), code);
    }
    rig.now += secs(5);
    rig.server.handle_timeout(rig.now);
    assert_eq!(code_of(&rig.take().unwrap()), 500);
    assert_eq!(code_of(&rig.take().unwrap()), 500);
    // An answer that comes too late changes nothing.
    rig.server.key_found(rig.now, ticket, Some(key.clone()));
    assert_eq!(rig.take(), None);
}

// spec: TURN-7.2-1, STUN-9.2.4-8
#[test]
fn open_access_needs_no_proof_and_counts_addresses() {
    let mut rig = Other::new(OpenAccess, |config| config.limits.allocations_per_user = 2);
    for (port, code) in [(1, 0), (2, 0), (3, 486)] {
        let answer = rig.ask(client(port), wire::ALLOCATE, None, udp).unwrap();
        assert_eq!(code_of(&answer), code);
        assert!(!Message::parse(&answer).unwrap().has_integrity());
    }
    let peer = XorPeerAddress(addr("9.9.9.9:9"));
    let answer = rig.ask(client(1), wire::CREATE_PERMISSION, None, |w| {
        w.attribute(&peer)
    });
    assert_eq!(code_of(&answer.unwrap()), 0);
}

/// Opens the tokens of the test: their inside is not encrypted, but names key and server.
#[derive(Debug)]
struct Authorized;

const SERVER_NAME: &str = "blackdow.carleon.gov";

impl Users for Authorized {
    fn key(&self, _: &KeyQuery<'_>) -> Lookup {
        Lookup::Unknown
    }

    fn third_party(&self) -> Option<&str> {
        Some(SERVER_NAME)
    }

    fn open_token(&self, kid: &[u8], nonce: &[u8], sealed: &[u8], name: &[u8]) -> Option<Vec<u8>> {
        let good = kid == b"kid" && nonce == b"h4j3k2l2n4b5" && name == SERVER_NAME.as_bytes();
        good.then(|| sealed.to_vec())
    }
}

const ISSUED: u64 = 1_410_984_813;

fn token(mac_key: &[u8]) -> Vec<u8> {
    let mut token = vec![0, 12];
    token.extend(b"h4j3k2l2n4b5");
    token.extend((mac_key.len() as u16).to_be_bytes());
    token.extend(mac_key);
    token.extend(92_470_300_704_768_u64.to_be_bytes());
    token.extend(3600_u32.to_be_bytes());
    token
}

// spec: 7635-4-1, 7635-7-1, 7635-7-2, 7635-9-2, 7635-6.2-1
#[test]
fn tokens_of_an_authorization_server_are_keys() {
    const MAC_KEY: &[u8] = b"ZksjpweoixXmvn67534m";
    let at = client(1);
    let key = Key::from_bytes(MAC_KEY);
    let user = Some((&b"kid"[..], &key));
    let token_type = AttributeType(0x001B);
    let token = token(MAC_KEY);
    let mut rig = Other::new(Authorized, |config| config.unverified.per_second = 0);
    let challenge = rig.challenge(at);
    let message = Message::parse(&challenge).unwrap();
    let name = message
        .attributes()
        .find(|raw| raw.ty == AttributeType(0x802E))
        .unwrap();
    assert_eq!(name.value, SERVER_NAME.as_bytes());
    assert!(message.find::<Realm<'_>>().is_some());
    let mut ask = |age: i64, at: FiveTuple, token: &[u8]| {
        let unix = ISSUED.checked_add_signed(age).unwrap();
        rig.server.set_unix_time(rig.now, unix);
        rig.challenge(at);
        let answer = rig
            .ask(at, wire::ALLOCATE, user, |w| udp(w).raw(token_type, token))
            .unwrap();
        if code_of(&answer) == 0 {
            Message::parse(&answer).unwrap().verify(&key).unwrap();
            Some(
                Message::parse(&answer)
                    .unwrap()
                    .find::<Lifetime>()
                    .unwrap()
                    .0,
            )
        } else {
            assert_eq!(code_of(&answer), 401);
            None
        }
    };
    // Fresh while lifetime + 5 s are more than its age; never longer than what is left.
    assert_eq!(ask(0, client(2), &token), Some(600));
    assert_eq!(ask(3600, client(3), &token), Some(5));
    assert_eq!(ask(3604, client(4), &token), Some(1));
    assert_eq!(ask(3605, client(5), &token), None);
    assert_eq!(ask(-5, client(6), &token), Some(600));
    // Altered, cut, for another server.
    assert_eq!(ask(0, client(7), &token[..20]), None);
    let mut altered = token.clone();
    altered[5] ^= 1;
    assert_eq!(ask(0, client(7), &altered), None);
    // The text form of it.
    use base64ct::Encoding as _;
    let text = base64ct::Base64::encode_string(&token);
    assert_eq!(ask(0, client(8), text.as_bytes()), Some(600));
    // Later requests are protected with its key and do not carry it.
    let peer = XorPeerAddress(addr("9.9.9.9:9"));
    rig.challenge(client(2));
    let answer = rig.ask(client(2), wire::CREATE_PERMISSION, user, |w| {
        w.attribute(&peer)
    });
    assert_eq!(code_of(&answer.unwrap()), 0);
    let answer = rig.ask(client(2), wire::REFRESH, user, |w| {
        w.raw(token_type, &token).attribute(&Lifetime(3600))
    });
    let answer = answer.unwrap();
    let lifetime: Lifetime = Message::parse(&answer).unwrap().find().unwrap();
    assert_eq!(lifetime, Lifetime(3600));

    // Where no token was offered, the attribute is unknown.
    let mut rig = Rig::new();
    let code = rig.allocate_code(|w| udp(w).raw(token_type, &token));
    assert_eq!(code, 420);
}

fn mobile() -> (Rig, RelayId, Vec<u8>) {
    let mut rig = Rig::with(|config| config.mobility = true);
    let at = client(1);
    rig.learn_nonce(at);
    let answer = rig.ask(at, wire::ALLOCATE, |w| {
        udp(w).attribute(&MobilityTicket(&[]))
    });
    let relay = created(&mut rig)[0];
    let ticket = ticket(&answer);
    assert_eq!(rig.permit(at, "9.9.9.9:9"), 0);
    (rig, relay, ticket)
}

fn ticket(answer: &[u8]) -> Vec<u8> {
    let message = Message::parse(answer).unwrap();
    message.find::<MobilityTicket<'_>>().unwrap().0.to_vec()
}

fn move_to(rig: &mut Rig, user: (&str, &str), at: FiveTuple, ticket: &[u8]) -> Vec<u8> {
    rig.learn_nonce(at);
    let request = rig.signed(user, wire::REFRESH, |w| {
        w.attribute(&MobilityTicket(ticket))
    });
    rig.send(at, &request).unwrap()
}

fn goes_to(rig: &mut Rig, relay: RelayId) -> Option<Path> {
    let from = addr("9.9.9.9:9");
    let forward = rig.server.handle_relay(rig.now, relay, from, 3)?;
    Some(forward.to)
}

// spec: 8016-3.1.2-1, 8016-3.2.2-1, 8016-3.2.2-2, 8016-5-1
#[test]
fn a_client_moves_before_it_leaves() {
    let (mut rig, relay, first) = mobile();
    let (old, new) = (client(1), client(2));
    assert!(first.len() < 500);
    let answer = move_to(&mut rig, ALICE, new, &first);
    assert_eq!(code_of(&answer), 0);
    let second = ticket(&answer);
    assert_ne!(first, second);
    // Data still goes where it went, and is taken from there.
    assert_eq!(goes_to(&mut rig, relay), Some(Path::Datagram(old)));
    assert!(rig.indication(old, "9.9.9.9:9", b"x").is_some());
    assert_eq!(goes_to(&mut rig, relay), Some(Path::Datagram(old)));
    // Until some comes from the new address.
    assert!(rig.indication(new, "9.9.9.9:9", b"x").is_some());
    assert_eq!(goes_to(&mut rig, relay), Some(Path::Datagram(new)));
    assert_eq!(rig.indication(old, "9.9.9.9:9", b"x"), None);
    assert_eq!(code_of(&move_to(&mut rig, ALICE, client(3), &second)), 0);
    assert_eq!(rig.server.allocations(), 1);
}

// spec: 8016-3.2.2-1, 8016-3.2.2-3
#[test]
fn tickets_are_checked() {
    let (mut rig, _, first) = mobile();
    let mut forged = first.clone();
    forged[20] ^= 1;
    assert_eq!(code_of(&move_to(&mut rig, ALICE, client(2), &forged)), 400);
    assert_eq!(code_of(&move_to(&mut rig, ALICE, client(2), &[])), 400);
    assert_eq!(code_of(&move_to(&mut rig, ALICE, client(1), &first)), 400);
    assert_eq!(code_of(&move_to(&mut rig, BOB, client(2), &first)), 441);
    // The old ticket is good for the same request again, for 30 s, and for nothing else.
    let answer = move_to(&mut rig, ALICE, client(2), &first);
    assert_eq!(code_of(&answer), 0);
    rig.advance(29);
    assert_eq!(code_of(&move_to(&mut rig, ALICE, client(2), &first)), 0);
    assert_eq!(code_of(&move_to(&mut rig, ALICE, client(3), &first)), 400);
    rig.advance(1);
    assert_eq!(code_of(&move_to(&mut rig, ALICE, client(2), &first)), 400);
    let second = ticket(&answer);
    rig.refresh(client(1), 0);
    assert_eq!(rig.server.allocations(), 0);
    assert_eq!(code_of(&move_to(&mut rig, ALICE, client(4), &second)), 437);

    let forbidden = Rig::new().allocate_code(|w| udp(w).attribute(&MobilityTicket(&[])));
    assert_eq!(forbidden, 405);
    let mut rig = Rig::with(|config| config.mobility = true);
    let filled = rig.allocate_code(|w| udp(w).attribute(&MobilityTicket(b"x")));
    assert_eq!(filled, 400);
    let mut rig = Rig::new();
    rig.allocate(client(1));
    assert_eq!(code_of(&move_to(&mut rig, ALICE, client(1), &first)), 405);
}

// spec: 8016-3.2.2-2, TURN-STR-4
#[test]
fn a_mobile_client_may_lose_its_stream_and_come_back() {
    let mut rig = Rig::with(|config| config.mobility = true);
    let at = FiveTuple {
        transport: Transport::Tls,
        ..client(9)
    };
    rig.server.stream_opened(rig.now, STREAM, at).unwrap();
    let request = rig.bare(wire::ALLOCATE);
    rig.stream(&request, 1000);
    let challenge = rig.answer().unwrap().1;
    let nonce: Nonce<'_> = Message::parse(&challenge).unwrap().find().unwrap();
    rig.nonce = nonce.as_bytes().to_vec();
    let request = rig.signed(ALICE, wire::ALLOCATE, |w| {
        udp(w).attribute(&MobilityTicket(&[]))
    });
    rig.stream(&request, 1000);
    let first = ticket(&rig.answer().unwrap().1);
    let relay = created(&mut rig)[0];
    let peer = XorPeerAddress(addr("9.9.9.9:9"));
    let request = rig.signed(ALICE, wire::CREATE_PERMISSION, |w| w.attribute(&peer));
    rig.stream(&request, 1000);
    rig.answer().unwrap();
    rig.server.handle_stream_closed(rig.now, STREAM);
    assert_eq!(rig.server.allocations(), 1);
    assert_eq!(goes_to(&mut rig, relay), None);
    assert_eq!(code_of(&move_to(&mut rig, ALICE, client(2), &first)), 0);
    // There is no old way left, so the new one counts at once.
    assert_eq!(goes_to(&mut rig, relay), Some(Path::Datagram(client(2))));
    rig.advance(600);
    assert_eq!(rig.server.allocations(), 0);
}

// spec: 8016-5-1
#[test]
fn nobody_moves_by_ticket_alone() {
    for (transport, code) in [(Transport::Udp, 405), (Transport::Dtls, 0)] {
        let mut rig = Other::new(OpenAccess, |config| config.mobility = true);
        let at = FiveTuple {
            transport,
            ..client(1)
        };
        let answer = rig.ask(at, wire::ALLOCATE, None, |w| {
            udp(w).attribute(&MobilityTicket(&[]))
        });
        assert_eq!(code_of(&answer.unwrap()), code);
    }
}

// spec: TURN-7.2-10, 8155-6-1, STUN-10-1, STUN-10-2, STUN-14.8-3
#[test]
fn new_clients_are_sent_elsewhere() {
    let mut rig = Rig::new();
    rig.allocate(client(1));
    let (v4, v6) = (addr("192.0.2.77:3478"), addr("[2001:db8::77]:3478"));
    rig.server.set_redirect(Some(Redirect {
        v4: Some(v4),
        v6: Some(v6),
        domain: Some("other.example.org".into()),
    }));
    // Not before the request is proven and in order.
    assert_eq!(rig.allocate_code(|w| w), 400);
    rig.learn_nonce(client(2));
    let answer = rig.ask(client(2), wire::ALLOCATE, udp);
    assert_eq!(code_of(&answer), 300);
    let message = Message::parse(&answer).unwrap();
    let servers: Vec<SocketAddr> = message
        .get_all::<AlternateServer>()
        .map(|server| server.unwrap().0)
        .collect();
    assert_eq!(servers, [v4, v6]);
    // The name belongs to a certificate: UDP has none.
    assert!(message.find::<AlternateDomain<'_>>().is_none());
    // Who is here already may stay.
    assert_eq!(code_of(&rig.refresh(client(1), 600)), 0);
    rig.server.set_redirect(None);
    rig.allocate(client(3));
}

// spec: TURN-5-5, STUN-16.1.2-1, SEC-S-12, STUN-6.3.1.1-3
#[test]
fn software_is_told_to_users_only_and_fingerprints_are_answered() {
    let mut rig = Rig::with(|config| config.software = Some("relay 1".into()));
    let at = client(1);
    let request = rig.bare(wire::ALLOCATE);
    let answer = rig.send(at, &request).unwrap();
    let software = |answer: &[u8]| {
        let message = Message::parse(answer).unwrap();
        message.find::<Software<'_>>().is_some()
    };
    assert!(!software(&answer));
    rig.learn_nonce(at);
    assert!(software(&rig.ask(at, wire::ALLOCATE, udp)));
    let mut buf = [0; 500];
    let nonce = rig.nonce.clone();
    let len = Writer::new(&mut buf, MessageType::request(wire::REFRESH), rig.id())
        .attribute(&Username::new("alice").unwrap())
        .attribute(&Realm::new(REALM).unwrap())
        .attribute(&Nonce::from_bytes(&nonce).unwrap())
        .message_integrity(&key(ALICE))
        .fingerprint()
        .finish()
        .unwrap();
    let answer = rig.send(at, &buf[..len]).unwrap();
    assert_eq!(
        Message::parse(&answer).unwrap().check_fingerprint(),
        Some(true)
    );
    // A wrong one is not answered.
    buf[len - 1] ^= 1;
    assert!(rig.send(at, &buf[..len]).is_none());
}

// spec: STUN-14.4-1, TURN-5-2
#[test]
fn users_may_hide_behind_their_hash() {
    let mut rig = Rig::with(|config| config.auth.username_anonymity = true);
    let at = client(1);
    rig.learn_nonce(at);
    let hash = stun_proto::wire::userhash(b"alice", REALM.as_bytes());
    let mut buf = [0; 500];
    let nonce = rig.nonce.clone();
    let len = udp(Writer::new(
        &mut buf,
        MessageType::request(wire::ALLOCATE),
        rig.id(),
    ))
    .attribute(&stun_proto::wire::Userhash(hash))
    .attribute(&Realm::new(REALM).unwrap())
    .attribute(&Nonce::from_bytes(&nonce).unwrap())
    .message_integrity(&key(ALICE))
    .finish()
    .unwrap();
    assert_eq!(code_of(&rig.send(at, &buf[..len]).unwrap()), 0);
    // The same user by name.
    assert_eq!(code_of(&rig.refresh(at, 600)), 0);
}

#[test]
fn old_channel_numbers_are_an_option() {
    let mut rig = Rig::with(|config| config.rfc5766_channels = true);
    let at = client(1);
    rig.allocate(at);
    assert_eq!(rig.bind(at, 0x7FFF, "9.9.9.9:9"), 0);
    assert_eq!(rig.bind(at, 0x8000, "9.9.9.9:10"), 400);
    let message = [0x7F, 0xFF, 0, 1, b'x'];
    assert!(rig.relayed(at, &message).is_some());
    let mut rig = Rig::new();
    rig.allocate(at);
    assert_eq!(rig.bind(at, 0x7FFF, "9.9.9.9:9"), 400);
    // Which does not harm the allocation.
    assert_eq!(rig.bind(at, 0x4000, "9.9.9.9:9"), 0);
    assert_eq!(rig.relayed(at, &message), None);
}

// spec: TURN-21.4-1
#[test]
fn tunnels_are_refused() {
    for ip in ["2001:0:1::1", "2002:505:505::1"] {
        let at = FiveTuple::udp(
            addr("[2606::1]:3478"),
            SocketAddr::new(ip.parse().unwrap(), 4000),
        );
        let mut rig = dual();
        rig.learn_nonce(at);
        let answer = rig.ask(at, wire::ALLOCATE, udp);
        assert_eq!(code_of(&answer), 403);
        let peer = alloc::format!("[{ip}]:9");
        rig.learn_nonce(client(1));
        rig.ask(client(1), wire::ALLOCATE, |w| udp(w).attribute(&V6));
        assert_eq!(rig.bind(client(1), 0x4000, &peer), 403);
    }
}

// spec: STUN-6.3.1-2, TURN-5-9
#[test]
fn the_same_requests_again_have_the_same_effect() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.allocate(at);
    let peer = XorPeerAddress(addr("9.9.9.9:9"));
    let requests = [
        rig.signed(ALICE, wire::REFRESH, |w| w),
        rig.signed(ALICE, wire::CREATE_PERMISSION, |w| w.attribute(&peer)),
        rig.signed(ALICE, wire::CHANNEL_BIND, |w| {
            w.attribute(&ChannelNumber(0x4000)).attribute(&peer)
        }),
    ];
    for request in &requests {
        let first = rig.send(at, request).unwrap();
        assert_eq!(code_of(&first), 0);
        assert_eq!(rig.send(at, request).unwrap(), first);
    }
    while rig.server.poll_event().is_some() {}
    rig.send(at, &requests[2]);
    assert_eq!(rig.server.poll_event(), None);
}
