//! What a hostile client, or an idle host, cannot do to the server.

use alloc::vec;

use proptest::prelude::*;
use stun_proto::wire::AttributeType;

use super::*;

/// Every form of an address inside this host or its network.
const HOSTILE: [&str; 37] = [
    "168.63.129.16",
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "100.100.100.200",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::",
    "2001::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "2001:db8::1",
    "2001:2::1",
    "3fff::1",
    "100::1",
];

// spec: SEC-T-05, TURN-21-D1, TURN-10.2-1, TURN-12.2-1
#[test]
fn no_address_of_the_inside_is_ever_reached() {
    let mut rig = Rig::with(|config| {
        config.peers = Default::default();
        config.addresses_v6 = 1;
        config.unverified.per_second = 0;
    });
    let at = client(1);
    rig.learn_nonce(at);
    let both = crate::wire::AdditionalAddressFamily(AddressFamily::V6);
    rig.ask(at, wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::UDP).attribute(&both)
    });
    let mut relays = Vec::new();
    while let Some(event) = rig.server.poll_event() {
        if let Event::AllocationCreated { relay, .. } = event {
            relays.push(relay);
        }
    }
    for ip in HOSTILE {
        let ip: IpAddr = ip.parse().unwrap();
        let peer = SocketAddr::new(ip, 80);
        let text = alloc::format!("{peer}");
        assert_eq!(rig.permit(at, &text), 403, "{ip}");
        assert_eq!(rig.bind(at, 0x4000, &text), 403, "{ip}");
        assert_eq!(rig.indication(at, &text, b"x"), None, "{ip}");
        assert_eq!(rig.channel(at, 0x4000, b"x"), None, "{ip}");
        for relay in &relays {
            assert!(rig.server.handle_relay(rig.now, *relay, peer, 1).is_none());
            let icmp = Icmp {
                ty: 3,
                code: 1,
                data: 0,
            };
            rig.server.handle_relay_icmp(rig.now, *relay, peer, icmp);
            assert!(rig.answer().is_none());
        }
    }
    assert_eq!(rig.permit(at, "9.9.9.9:80"), 0);
    assert_eq!(rig.permit(at, "[2606:4700::1]:80"), 0);
}

// spec: SEC-T-05, TURN-21-D1
#[test]
fn the_server_itself_is_no_peer() {
    let mut rig = Rig::with(|config| {
        config.listeners = vec![addr("203.0.113.1:3478"), addr("0.0.0.0:5349")];
        config.peers.deny.clear();
    });
    let at = client(1);
    rig.allocate(at);
    // Other relays at the same address are peers.
    for ip in ["203.0.113.1", "192.0.2.1"] {
        assert_eq!(rig.permit(at, &alloc::format!("{ip}:1")), 0);
    }
    for (peer, code) in [
        ("203.0.113.1:3478", 403),
        ("203.0.113.1:5349", 403),
        ("192.0.2.1:3478", 403),
        ("192.0.2.1:5349", 403),
        ("203.0.113.1:50001", 0),
    ] {
        assert_eq!(rig.bind(at, 0x4000, peer), code, "{peer}");
        let sent = rig.indication(at, peer, b"x").is_some();
        assert_eq!(sent, code == 0, "{peer}");
    }
    assert_eq!(rig.indication(at, "203.0.113.1:0", b"x"), None);
}

// spec: SEC-T-09, TURN-11.2-3
#[test]
fn what_has_ended_does_not_wait_for_the_timer() {
    let at = client(1);
    let peer = addr("9.9.9.9:9");
    for (after, lives) in [
        (secs(300) - Duration::from_nanos(1), true),
        (secs(300), false),
    ] {
        let mut rig = Rig::new();
        let relay = rig.allocate(at);
        rig.bind(at, 0x4000, "9.9.9.9:9");
        // The host is late with the timeout.
        rig.now += after;
        assert_eq!(rig.channel(at, 0x4000, b"x").is_some(), lives);
        assert_eq!(rig.indication(at, "9.9.9.9:9", b"x").is_some(), lives);
        let forward = rig.server.handle_relay(rig.now, relay, peer, 1);
        assert_eq!(forward.is_some(), lives);
    }
    for (after, lives) in [(599, true), (600, false)] {
        let mut rig = Rig::new();
        let relay = rig.allocate(at);
        rig.advance(400);
        rig.learn_nonce(at);
        assert_eq!(rig.permit(at, "9.9.9.9:9"), 0);
        rig.now += secs(after - 400);
        assert_eq!(rig.indication(at, "9.9.9.9:9", b"x").is_some(), lives);
        let forward = rig.server.handle_relay(rig.now, relay, peer, 1);
        assert_eq!(forward.is_some(), lives);
        // Requests make up for it.
        let answer = rig.ask(at, wire::REFRESH, |w| w);
        assert_eq!(code_of(&answer), if lives { 0 } else { 437 });
    }
}

// spec: SEC-T-11, TURN-12.5-2, TURN-11.4-1
#[test]
fn little_is_added_to_what_is_relayed() {
    let mut rig = Rig::with(|config| config.addresses_v6 = 1);
    let at = client(1);
    rig.learn_nonce(at);
    let both = crate::wire::AdditionalAddressFamily(AddressFamily::V6);
    rig.ask(at, wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::UDP).attribute(&both)
    });
    let mut relays = Vec::new();
    while let Some(event) = rig.server.poll_event() {
        if let Event::AllocationCreated { relay, .. } = event {
            relays.push(relay);
        }
    }
    rig.permit(at, "9.9.9.9:9");
    rig.bind(at, 0x4000, "9.9.9.9:10");
    rig.permit(at, "[2606::1]:9");
    let mut room = [0xEE; HEADROOM + 1500 + 3];
    for len in [0, 1, 2, 3, 4, 1200, 1500] {
        let payload = vec![7; len];
        for (relay, peer, most) in [
            (relays[0], "9.9.9.9:9", 36),
            (relays[0], "9.9.9.9:10", 4),
            (relays[1], "[2606::1]:9", 48),
        ] {
            let peer = addr(peer);
            let mut buf = [0xEE; 1600];
            let sent = rig.server.forward(rig.now, relay, peer, &payload, &mut buf);
            let sent = sent.unwrap();
            let padding = if most == 4 { 0 } else { len.wrapping_neg() & 3 };
            assert_eq!(sent.len, len + most + padding);
            let header = rig.server.handle_relay(rig.now, relay, peer, len).unwrap();
            assert!(header.header.as_bytes().len() <= HEADROOM);
            room[HEADROOM..HEADROOM + len].copy_from_slice(&payload);
            let place = HEADROOM..HEADROOM + len;
            let now = rig.now;
            let server = &mut rig.server;
            let (to, whole) = server
                .forward_in_place(now, relay, peer, &mut room, place)
                .unwrap();
            assert_eq!(to, Path::Datagram(at));
            // The transaction IDs of indications differ.
            let (there, here) = (&buf[..sent.len], &room[whole]);
            assert_eq!(there.len(), here.len());
            assert!(there[most..] == here[most..] && there[..4] == here[..4]);
        }
    }
    // Too long for what the client's header can say.
    let peer = addr("9.9.9.9:9");
    let none = rig.server.handle_relay(rig.now, relays[0], peer, 65_535);
    assert!(none.is_none());
}

// spec: SEC-T-03, SEC-T-04
#[test]
fn short_questions_get_no_long_answers() {
    let mut rig = Rig::with(|config| {
        config.auth = LongTermServerConfig::new("r".repeat(127));
        config.unverified.per_second = 0;
    });
    let at = client(1);
    for size in (0..1000).step_by(4) {
        for method in [Method::BINDING, wire::ALLOCATE, wire::REFRESH] {
            let mut buf = [0; 1200];
            let ty = MessageType::request(method);
            let filler = AttributeType(0x8055);
            let writer = Writer::new(&mut buf, ty, TransactionId([1; 12]));
            let writer = match size {
                0 => writer,
                _ => writer.raw(filler, &vec![0; size - 4]),
            };
            let len = writer.finish().unwrap();
            if let Some(answer) = rig.send(at, &buf[..len]) {
                assert!(answer.len() <= len * 5);
            }
        }
    }
    let mut rig = Rig::with(|config| config.shortest_unverified = 29);
    let request = rig.bare(wire::ALLOCATE);
    assert_eq!(request.len(), 28);
    assert!(rig.send(at, &request).is_none());
    // Streams prove the address.
    let mut rig = stream_rig();
    let mut buf = [0; 20];
    let id = rig.id();
    let ty = MessageType::request(wire::ALLOCATE);
    Writer::new(&mut buf, ty, id).finish().unwrap();
    rig.stream(&buf, 20);
    assert!(rig.answer().is_some());
}

// spec: SEC-G-14, SEC-G-04
#[test]
fn a_host_that_takes_nothing_makes_requests_fail_not_memory_grow() {
    let mut rig = Rig::with(|config| {
        config.limits.responses = 8;
        config.limits.allocations_per_user = 100;
    });
    let at = client(1);
    rig.learn_nonce(at);
    for _ in 0..1000 {
        let request = rig.signed(ALICE, wire::REFRESH, |w| w);
        rig.server.handle_datagram(rig.now, at, &request);
    }
    assert_eq!(rig.server.stats().responses_dropped, 992);
    let mut taken = 0;
    while rig.answer().is_some() {
        taken += 1;
    }
    assert_eq!(taken, 8);
    // Expiry waits as well, and then goes on by itself.
    for port in 1..=8 {
        rig.allocate(client(port));
        for n in 1..=20 {
            rig.permit(client(port), &alloc::format!("9.9.9.{n}:1"));
            while rig.server.poll_event().is_some() {}
        }
    }
    rig.now += secs(1000);
    rig.server.handle_timeout(rig.now);
    assert!(rig.server.allocations() > 0);
    let mut events = 0;
    while rig.server.poll_event().is_some() {
        events += 1;
        while rig.server.poll_action().is_some() {}
    }
    assert_eq!(rig.server.allocations(), 0);
    assert!(events >= 8 + 160);
    assert_eq!(rig.server.poll_timeout(), None);
}

// spec: TURN-5-10
#[test]
fn a_user_has_so_many_bytes_a_second() {
    let mut rig = Rig::with(|config| config.limits.user_bandwidth = 1000);
    let at = client(1);
    let relay = rig.allocate(at);
    rig.bind(at, 0x4000, "9.9.9.9:9");
    let peer = addr("9.9.9.9:9");
    assert!(rig.channel(at, 0x4000, &[0; 600]).is_some());
    assert!(rig.server.handle_relay(rig.now, relay, peer, 400).is_some());
    assert!(rig.server.handle_relay(rig.now, relay, peer, 1).is_none());
    assert!(rig.channel(at, 0x4000, b"x").is_none());
    assert_eq!(rig.server.stats().over_bandwidth, 2);
    rig.now += Duration::from_millis(500);
    assert!(rig.channel(at, 0x4000, &[0; 500]).is_some());
    assert!(rig.channel(at, 0x4000, b"x").is_none());
    rig.now += secs(100);
    assert!(rig.channel(at, 0x4000, &[0; 1001]).is_none());
    assert!(rig.channel(at, 0x4000, &[0; 1000]).is_some());
}

// spec: SEC-T-10, TURN-12.6-1
#[test]
fn channel_numbers_and_lengths_at_their_edges() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.allocate(at);
    rig.bind(at, 0x4000, "9.9.9.9:9");
    for channel in (0x4000..=0x4FFF_u16)
        .step_by(17)
        .chain([0x3FFF, 0x5000, 0x7FFF, 0xFFFF])
    {
        for (declared, sent) in [(0, 0), (1, 0), (1, 1), (4, 5), (0xFFFF, 8), (3, 4), (8, 7)] {
            let mut message = channel.to_be_bytes().to_vec();
            message.extend(u16::to_be_bytes(declared));
            message.extend(vec![1; sent]);
            let relayed = rig.relayed(at, &message);
            let whole = usize::from(declared) <= sent;
            let expected = (channel == 0x4000 && whole).then_some(usize::from(declared));
            assert_eq!(relayed.map(|(_, data)| data.len()), expected);
        }
    }
}

// spec: SEC-F-03, SEC-G-10
#[test]
fn unfinished_units_hold_no_more_than_has_come() {
    let config = ServerConfig::new(REALM);
    assert!(config.limits.unauthenticated_unit <= 8192);
    let check = |change: &dyn Fn(&mut ServerConfig)| {
        let mut config = ServerConfig::new(REALM);
        change(&mut config);
        let users = StaticUsers::new(REALM);
        Server::new(config, users, [0; 32], Instant::ZERO).err()
    };
    let unit = Some(ConfigError::MessageLimit);
    assert_eq!(check(&|c| c.limits.unauthenticated_unit = 8193), unit);
    assert_eq!(check(&|c| c.limits.request = 100), unit);
    let short = Some(ConfigError::TooShort);
    assert_eq!(check(&|c| c.reservation_lifetime = secs(29)), short);
    assert_eq!(check(&|c| c.connect_timeout = secs(29)), short);
    assert_eq!(check(&|c| c.ports = 0..=9), Some(ConfigError::Ports));
    assert_eq!(check(&|c| c.relay_udp = false), Some(ConfigError::NoFamily));
    // Requests are bounded too.
    let mut rig = Rig::new();
    let mut buf = vec![0; 6000];
    let ty = MessageType::request(wire::ALLOCATE);
    let len = Writer::new(&mut buf, ty, TransactionId([1; 12]))
        .raw(AttributeType(0x8055), &[0; 5000])
        .finish()
        .unwrap();
    assert!(rig.send(client(1), &buf[..len]).is_none());
}

// spec: SEC-G-08
#[test]
fn time_may_stand_still_run_back_or_end() {
    for start in [i64::MIN, -1, 0, i64::MAX - 1, i64::MAX] {
        let mut rig = Rig::new();
        let now = Instant::from_nanos(start);
        let config = ServerConfig::new(REALM);
        let mut users = StaticUsers::new(REALM);
        users.add("alice", "secret");
        rig.server = Server::new(config, users, [3; 32], now).unwrap();
        rig.now = now;
        let at = client(1);
        rig.allocate(at);
        rig.bind(at, 0x4000, "9.9.9.9:9");
        assert!(rig.channel(at, 0x4000, b"x").is_some());
        rig.now = Instant::from_nanos(start.saturating_sub(1_000_000_000));
        assert!(rig.channel(at, 0x4000, b"x").is_some());
        // A jump ends everything.
        if let Ok(later) = i64::try_from(i128::from(start) + 320_000_000_000_000_000) {
            rig.server.handle_timeout(Instant::from_nanos(later));
            assert_eq!(rig.server.allocations(), 0);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Bytes(u8, Vec<u8>),
    Signed(u8, bool, u16, Vec<(u16, Vec<u8>)>),
    Stream(u8, Vec<u8>),
    FromPeer(u8, u8, u16),
    Icmp(Vec<u8>),
    Open(u8, bool),
    Later(u32),
    Closed(u8),
    Taken(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..60);
    let methods = prop::sample::select(vec![3_u16, 3, 3, 4, 8, 8, 9, 9, 10, 11]);
    let values = prop::sample::select(vec![
        (0x0019, vec![17, 0, 0, 0]),
        (0x0019, vec![6, 0, 0, 0]),
        (0x0012, vec![0, 1, 0x21, 0x13, 0x28, 0x1B, 0xAD, 0x4B]),
        (0x0012, vec![0, 1, 0x21, 0x13, 0x28, 0x1B, 0xAD, 0x4A]),
        (0x000C, vec![0x40, 0, 0, 0]),
        (0x000C, vec![0x40, 1, 0, 0]),
        (0x000D, vec![0, 0, 0, 0]),
        (0x000D, vec![0, 0, 9, 0]),
        (0x0018, vec![0x80]),
        (0x0017, vec![2, 0, 0, 0]),
        (0x8000, vec![2, 0, 0, 0]),
        (0x8030, vec![]),
        (0x002A, vec![1, 2, 3, 4]),
    ]);
    let attributes = prop::collection::vec(values, 0..4);
    prop_oneof![
        1 => (any::<u8>(), bytes()).prop_map(|(n, b)| Step::Bytes(n, b)),
        8 => (0..4_u8, any::<bool>(), methods, attributes)
            .prop_map(|(n, stream, m, a)| Step::Signed(n, stream, m, a)),
        1 => (0..4_u8, bytes()).prop_map(|(n, b)| Step::Stream(n, b)),
        4 => (0..4_u8, any::<u8>(), any::<u16>()).prop_map(|(r, p, l)| Step::FromPeer(r, p, l)),
        1 => bytes().prop_map(Step::Icmp),
        8 => (any::<u8>(), any::<bool>()).prop_map(|(n, ok)| Step::Open(n, ok)),
        1 => (0..400_000_u32).prop_map(Step::Later),
        1 => (0..4_u8).prop_map(Step::Closed),
        1 => (0..4_u8).prop_map(Step::Taken),
    ]
}

/// The clauses every machine keeps, and those of a relay: nothing leaves without permission, no
/// relayed address is shared, what is deleted is silent.
struct Model {
    rig: Rig,
    asked: Vec<RelayId>,
    tcp: alloc::collections::BTreeSet<RelayId>,
    addresses: alloc::collections::BTreeMap<RelayId, (bool, SocketAddr)>,
    permitted: alloc::collections::BTreeSet<(RelayId, IpAddr)>,
    peers: Vec<PeerId>,
    streams: [bool; 4],
}

impl Model {
    fn drain(&mut self) {
        let mut buf = [0; MAX_TRANSMIT];
        let mut rounds = 0;
        while let Some(sent) = self.rig.server.poll_transmit(&mut buf) {
            let message = Message::parse(&buf[..sent.len]).unwrap();
            assert!(sent.len <= 548);
            if let Some(nonce) = message.find::<Nonce<'_>>() {
                self.rig.nonce = nonce.as_bytes().to_vec();
            }
        }
        while let Some(action) = self.rig.server.poll_action() {
            rounds += 1;
            assert!(rounds < 10_000);
            match action {
                Action::OpenRelay {
                    relay, protocol, ..
                } => {
                    self.asked.push(relay);
                    if protocol == RelayProtocol::Tcp {
                        self.tcp.insert(relay);
                    }
                }
                Action::CloseRelay { relay } => {
                    self.asked.retain(|asked| *asked != relay);
                }
                Action::ConnectPeer { peer, .. } => self.peers.push(peer),
                Action::ClosePeer { peer } => self.peers.retain(|p| *p != peer),
                Action::CloseStream { id, .. } => {
                    self.rig.server.handle_stream_closed(self.rig.now, id);
                    self.streams[id.0 as usize % 4] = false;
                }
                Action::Splice { .. } | Action::LookUpKey { .. } => {}
            }
        }
        while let Some(event) = self.rig.server.poll_event() {
            match event {
                Event::AllocationCreated { relay, relayed, .. } => {
                    let at = (self.tcp.contains(&relay), relayed);
                    assert!(self.addresses.values().all(|other| *other != at));
                    self.addresses.insert(relay, at);
                }
                Event::AllocationDeleted { relay, .. } => {
                    assert!(self.addresses.remove(&relay).is_some());
                    self.permitted.retain(|(held, _)| *held != relay);
                }
                Event::PermissionAdded { relay, peer } => {
                    assert!(self.permitted.insert((relay, peer)));
                }
                Event::PermissionExpired { relay, peer } => {
                    assert!(self.permitted.remove(&(relay, peer)));
                }
                Event::AllocationRefreshed { .. }
                | Event::AllocationMoved { .. }
                | Event::ChannelBound { .. }
                | Event::ChannelUnbound { .. }
                | Event::LoginFailed { .. } => {}
            }
        }
        let next = self.rig.server.poll_timeout();
        assert!(next.is_none_or(|at| at > self.rig.now));
    }

    fn check(&self, received: Received<'_, RelayTo>) {
        if let Received::Data { peer, .. } = received {
            assert!(self.permitted.contains(&(peer.relay, peer.peer.ip())));
        }
    }

    fn step(&mut self, step: Step) {
        let now = self.rig.now;
        match step {
            Step::Bytes(n, bytes) => {
                let received = self
                    .rig
                    .server
                    .handle_datagram(now, client(u16::from(n)), &bytes);
                self.check(received);
            }
            // The first one may only bring a nonce for this client.
            Step::Signed(n, stream, method, attributes) => (0..2).for_each(|_| {
                let request = self.rig.signed(ALICE, Method::new(method), |mut w| {
                    if method == wire::ALLOCATE.number() {
                        w = w.attribute(&match (stream, n) {
                            (true, 0) => RequestedTransport::TCP,
                            _ => RequestedTransport::UDP,
                        });
                    }
                    for (ty, value) in &attributes {
                        w = w.raw(AttributeType(*ty), value);
                    }
                    w
                });
                if stream {
                    self.stream(n, &request);
                } else {
                    let at = client(u16::from(n) + 1);
                    let received = self.rig.server.handle_datagram(now, at, &request);
                    self.check(received);
                }
                self.drain();
            }),
            Step::Stream(n, bytes) => self.stream(n, &bytes),
            Step::FromPeer(relay, last, len) => {
                let relays: Vec<RelayId> = self.addresses.keys().copied().collect();
                let Some(relay) = relays.get(usize::from(relay)) else {
                    return;
                };
                let ip: IpAddr = [9, 9, 9, last % 12].into();
                let from = SocketAddr::new(ip, 9);
                let len = usize::from(len);
                let forward = self.rig.server.handle_relay(now, *relay, from, len);
                if forward.is_some() {
                    assert!(self.permitted.contains(&(*relay, ip)));
                }
                let _ = self.rig.server.peer_accepted(now, *relay, from);
            }
            Step::Icmp(packet) => {
                self.rig
                    .server
                    .handle_icmp_packet(now, AddressFamily::V4, &packet);
            }
            Step::Open(n, ok) => self.host_answers(n, ok),
            Step::Later(millis) => {
                let end = now + Duration::from_millis(u64::from(millis));
                while let Some(at) = self.rig.server.poll_timeout().filter(|at| *at <= end) {
                    self.rig.now = at;
                    self.rig.server.handle_timeout(at);
                    self.drain();
                }
                self.rig.now = end;
            }
            Step::Closed(n) => {
                let id = StreamId(u64::from(n));
                self.rig.server.handle_stream_closed(now, id);
                self.streams[usize::from(n)] = false;
            }
            Step::Taken(n) => {
                if let Some(relay) = self.asked.get(usize::from(n)).copied() {
                    self.rig.server.relay_port_taken(now, relay);
                }
            }
        }
        self.drain();
    }

    fn stream(&mut self, n: u8, mut input: &[u8]) {
        let id = StreamId(u64::from(n));
        if !self.streams[usize::from(n)] {
            let at = FiveTuple {
                transport: Transport::Tcp,
                ..client(900 + u16::from(n))
            };
            let opened = self.rig.server.stream_opened(self.rig.now, id, at);
            self.streams[usize::from(n)] = opened.is_ok();
        }
        while !input.is_empty() {
            let now = self.rig.now;
            let received = self.rig.server.handle_stream(now, id, &mut input);
            if let Received::Data { peer, .. } = received {
                assert!(self.permitted.contains(&(peer.relay, peer.peer.ip())));
            }
            if received == Received::NotMine {
                break;
            }
        }
    }

    fn host_answers(&mut self, n: u8, ok: bool) {
        let now = self.rig.now;
        if let Some(peer) = self.peers.pop() {
            if ok {
                self.rig.server.peer_connected(now, peer);
            } else {
                self.rig.server.peer_closed(now, peer);
            }
        }
        if self.asked.is_empty() {
            return;
        }
        let relay = self.asked.remove(usize::from(n) % self.asked.len());
        if ok {
            let port = 50_000 + u16::from(n);
            let ip: IpAddr = [203, 0, 113, 1].into();
            self.rig
                .server
                .relay_opened(now, relay, SocketAddr::new(ip, port));
        } else {
            self.rig.server.relay_failed(now, relay);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // spec: SEC-G-01, SEC-G-07, SEC-T-09, TURN-6-1, TURN-9-2
    #[test]
    fn whatever_comes_in_the_clauses_hold(steps in prop::collection::vec(step(), 1..120)) {
        let mut model = Model {
            rig: Rig::with(|config| {
                config.relay_tcp = true;
                config.addresses_v6 = 1;
                config.mobility = true;
                config.unverified.per_second = 0;
            }),
            asked: Vec::new(),
            tcp: Default::default(),
            addresses: Default::default(),
            permitted: Default::default(),
            peers: Vec::new(),
            streams: [false; 4],
        };
        for n in 0..2 {
            model.step(Step::Signed(n, false, 3, Vec::new()));
            model.step(Step::Open(n, true));
        }
        for step in steps {
            model.step(step);
        }
        // In the end everything ends.
        for n in 0..4 {
            model.step(Step::Closed(n));
        }
        model.step(Step::Later(4_000_000));
        prop_assert_eq!(model.rig.server.allocations(), 0);
        prop_assert_eq!(model.rig.server.poll_timeout(), None);
        prop_assert!(model.addresses.is_empty());
    }
}

/// As many allocations as there are ports on three addresses; then the port a client gave back is the
/// one that the next gets.
// spec: TURN-7.2-10
#[test]
fn relays_are_opened_down_to_the_last_port_of_the_last_address() {
    let mut rig = Rig::with(|config| {
        config.addresses_v4 = 3;
        config.ports = 50_001..=50_100;
        config.limits.allocations_per_user = 1000;
        config.unverified.per_second = 0;
    });
    let allocate = |rig: &mut Rig, n: u16| {
        rig.learn_nonce(client(n));
        let request = rig.signed(ALICE, wire::ALLOCATE, |w| {
            w.attribute(&RequestedTransport::UDP)
        });
        rig.server.handle_datagram(rig.now, client(n), &request);
        let Some(Action::OpenRelay {
            relay,
            address,
            port,
            ..
        }) = rig.server.poll_action()
        else {
            return None;
        };
        let ip = IpAddr::from([203, 0, 113, u8::try_from(address).unwrap()]);
        rig.server
            .relay_opened(rig.now, relay, SocketAddr::new(ip, port));
        assert_eq!(code_of(&rig.answer().unwrap().1), 0);
        while rig.server.poll_event().is_some() {}
        Some((address, port))
    };
    let mut seen = alloc::collections::BTreeMap::new();
    for n in 1..=300 {
        let at = allocate(&mut rig, n).unwrap();
        assert_eq!(seen.insert(at, n), None, "{at:?}");
    }
    assert_eq!(allocate(&mut rig, 301), None);
    assert_eq!(code_of(&rig.answer().unwrap().1), 508);
    let (at, owner) = seen.iter().nth(137).unwrap();
    rig.refresh(client(*owner), 0);
    while rig.server.poll_action().is_some() {}
    assert_eq!(allocate(&mut rig, 302), Some(*at));
}

// spec: SEC-G-04
#[test]
fn the_bound_for_the_defaults_is_what_the_documentation_says() {
    let bound = Limits::default().max_memory();
    assert!((3_600_000_000..3_700_000_000).contains(&bound), "{bound}");
}
