//! How much memory a server takes, and from whom.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "test code"
)]

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use allocation_counter::measure;
use stun_proto::framing::MAX_FRAME;
use stun_proto::wire::{
    Class, Key, Message, MessageType, Method, Nonce, PasswordAlgorithmId, Realm, TransactionId,
    Username, Writer,
};
use stun_proto::{FiveTuple, Instant, Path, Received, StreamId, Transport};
use turn_proto::policy::Preset;
use turn_proto::server::{
    Action, Limits, MAX_TRANSMIT, RelayId, Server, ServerConfig, StaticUsers,
};
use turn_proto::wire::{self, ChannelNumber, Data, XorPeerAddress};

const REALM: &str = "example.org";

/// Fewer without optimization: the codes over the messages take their time.
const FLOOD: u32 = if cfg!(debug_assertions) {
    100_000
} else {
    1_000_000
};

struct Rig {
    server: Server<StaticUsers>,
    now: Instant,
    key: Key,
    nonce: Vec<u8>,
    id: u64,
    relays: Vec<RelayId>,
}

fn server_at() -> SocketAddr {
    "192.0.2.1:3478".parse().unwrap()
}

fn udp(remote: SocketAddr) -> FiveTuple {
    FiveTuple::udp(server_at(), remote)
}

fn source(n: u32) -> SocketAddr {
    let ip: IpAddr = (0x0100_0000 + n / 50_000).to_be_bytes().into();
    SocketAddr::new(ip, (n % 50_000) as u16 + 1024)
}

fn peer(n: u16) -> SocketAddr {
    SocketAddr::new([9, 9, (n >> 8) as u8, n as u8].into(), 9)
}

impl Rig {
    fn new(limits: Limits) -> Self {
        let mut config = ServerConfig::new(REALM);
        config.peers.preset = Preset::Any;
        config.limits = limits;
        config.unverified.per_second = if limits.responses == 1024 { 10 } else { 0 };
        let mut users = StaticUsers::new(REALM);
        users.add("alice", "secret");
        let now = Instant::ZERO;
        let md5 = PasswordAlgorithmId::MD5;
        Self {
            server: Server::new(config, users, [5; 32], now).unwrap(),
            now,
            key: Key::long_term(md5, b"alice", REALM.as_bytes(), b"secret").unwrap(),
            nonce: Vec::new(),
            id: 0,
            relays: Vec::new(),
        }
    }

    fn request(&mut self, method: Method, signed: bool, body: &[(u16, Vec<u8>)]) -> Vec<u8> {
        self.id += 1;
        let mut id = [0; 12];
        id[4..].copy_from_slice(&self.id.to_be_bytes());
        let mut buf = [0; 2048];
        let mut writer = Writer::new(&mut buf, MessageType::request(method), TransactionId(id));
        for (ty, value) in body {
            writer = writer.raw(stun_proto::wire::AttributeType(*ty), value);
        }
        let len = if signed {
            writer
                .attribute(&Username::new("alice").unwrap())
                .attribute(&Realm::new(REALM).unwrap())
                .attribute(&Nonce::from_bytes(&self.nonce).unwrap())
                .message_integrity(&self.key)
                .finish()
        } else {
            writer.finish()
        };
        buf[..len.unwrap()].to_vec()
    }

    /// Takes everything the server has; the last answer's class.
    fn drain(&mut self) -> Option<Class> {
        let mut class = None;
        while let Some(action) = self.server.poll_action() {
            if let Action::OpenRelay { relay, port, .. } = action {
                let at = SocketAddr::new([203, 0, 113, 1].into(), port);
                self.server.relay_opened(self.now, relay, at);
                self.relays.push(relay);
            }
        }
        let mut buf = [0; MAX_TRANSMIT];
        while let Some(sent) = self.server.poll_transmit(&mut buf) {
            let message = Message::parse(&buf[..sent.len]).unwrap();
            if let Some(nonce) = message.find::<Nonce<'_>>() {
                self.nonce = nonce.as_bytes().to_vec();
            }
            class = Some(message.class());
        }
        while self.server.poll_event().is_some() {}
        class
    }

    fn feed(&mut self, path: Path, bytes: &[u8]) -> Option<Class> {
        match path {
            Path::Datagram(at) => {
                self.server.handle_datagram(self.now, at, bytes);
            }
            Path::Stream(id) => {
                let mut input = bytes;
                while !input.is_empty() {
                    self.server.handle_stream(self.now, id, &mut input);
                }
            }
        }
        self.drain()
    }

    fn ask(&mut self, path: Path, method: Method, body: &[(u16, Vec<u8>)]) {
        let request = self.request(method, true, body);
        if self.feed(path, &request) != Some(Class::Success) {
            // The first answer brought a nonce for this client.
            let request = self.request(method, true, body);
            assert_eq!(self.feed(path, &request), Some(Class::Success));
        }
    }

    fn allocate(&mut self, path: Path) -> RelayId {
        self.ask(path, wire::ALLOCATE, &[(0x19, vec![17, 0, 0, 0])]);
        *self.relays.last().unwrap()
    }

    fn bind(&mut self, path: Path, number: u16, to: SocketAddr) {
        let mut buf = [0; 100];
        let len = Writer::new(
            &mut buf,
            MessageType::request(wire::CHANNEL_BIND),
            TransactionId([0; 12]),
        )
        .attribute(&ChannelNumber(number))
        .attribute(&XorPeerAddress(to))
        .finish()
        .unwrap();
        let message = Message::parse(&buf[..len]).unwrap();
        let body: Vec<(u16, Vec<u8>)> = message
            .attributes()
            .map(|raw| (raw.ty.0, raw.value.to_vec()))
            .collect();
        self.ask(path, wire::CHANNEL_BIND, &body);
    }
}

// spec: SEC-T-01, STUN-6.3.1-3
#[test]
fn a_flood_of_strangers_leaves_nothing_behind() {
    let mut rig = Rig::new(Limits::default());
    rig.nonce = b"obMatJos2gAAAforgedforgedforged".to_vec();
    let plain = rig.request(wire::ALLOCATE, false, &[(0x19, vec![17, 0, 0, 0])]);
    let forged = rig.request(wire::ALLOCATE, true, &[(0x19, vec![17, 0, 0, 0])]);
    let garbage: Vec<u8> = (0..200_u8).map(|n| n.wrapping_mul(37) ^ 0x5A).collect();
    let flood = |rig: &mut Rig, from: u32, to: u32| {
        let mut buf = [0; MAX_TRANSMIT];
        for n in from..to {
            let at = udp(source(n));
            rig.now += Duration::from_micros(20);
            let message = if n % 2 == 0 { &plain } else { &forged };
            rig.server.handle_datagram(rig.now, at, message);
            let skip = (n % 64) as usize;
            rig.server.handle_datagram(rig.now, at, &garbage[skip..]);
            while rig.server.poll_transmit(&mut buf).is_some() {}
            assert_eq!(rig.server.poll_action(), None);
            assert_eq!(rig.server.poll_event(), None);
        }
    };
    flood(&mut rig, 0, 1000);
    let used = measure(|| flood(&mut rig, 1000, 1000 + FLOOD));
    assert_eq!(used.bytes_current, 0);
    assert_eq!(used.count_current, 0);
    assert_eq!(rig.server.poll_timeout(), None);
    assert_eq!(rig.server.allocations(), 0);
}

// spec: SEC-T-01
#[test]
fn wrong_passwords_and_foreign_nonces_leave_nothing_behind() {
    let mut rig = Rig::new(Limits::default());
    let at = udp(source(7));
    let plain = rig.request(wire::ALLOCATE, false, &[]);
    rig.feed(Path::Datagram(at), &plain);
    rig.key = Key::from_bytes(b"guess");
    let guess = rig.request(wire::ALLOCATE, true, &[(0x19, vec![17, 0, 0, 0])]);
    let attack = |rig: &mut Rig| {
        for n in 0..1000 {
            rig.now += Duration::from_millis(200);
            rig.server.handle_datagram(rig.now, at, &guess);
            rig.server.handle_datagram(rig.now, udp(source(n)), &guess);
            let mut buf = [0; MAX_TRANSMIT];
            while rig.server.poll_transmit(&mut buf).is_some() {}
        }
    };
    attack(&mut rig);
    let used = measure(|| attack(&mut rig));
    assert_eq!(used.bytes_current, 0);
}

// spec: SEC-G-06, TURN-11.2-4, TURN-11.3-1
#[test]
fn relaying_takes_no_memory_either_way() {
    let mut rig = Rig::new(Limits::default());
    let at = udp(source(1));
    let relay = rig.allocate(Path::Datagram(at));
    rig.bind(Path::Datagram(at), 0x4000, peer(1));
    let stream = StreamId(1);
    let tcp = FiveTuple {
        transport: Transport::Tcp,
        ..udp(source(2))
    };
    rig.server.stream_opened(rig.now, stream, tcp).unwrap();
    let over_tcp = rig.allocate(Path::Stream(stream));
    rig.bind(Path::Stream(stream), 0x4000, peer(2));

    let channel = [&[0x40, 0, 4, 0][..], &[7; 1024]].concat();
    let mut send = [0; 1200];
    let len = Writer::new(
        &mut send,
        MessageType::indication(wire::SEND),
        TransactionId([1; 12]),
    )
    .attribute(&XorPeerAddress(peer(1)))
    .attribute(&Data(&[7; 1024]))
    .finish()
    .unwrap();
    let mut buf = [0; 1200];
    let used = measure(|| {
        for _ in 0..1000 {
            for datagram in [&channel, &send[..len]] {
                let received = rig.server.handle_datagram(rig.now, at, datagram);
                assert!(matches!(received, Received::Data { .. }));
            }
            let mut input = &channel[..];
            let received = rig.server.handle_stream(rig.now, stream, &mut input);
            assert!(matches!(received, Received::Data { .. }));
            for (relay, from) in [
                (relay, peer(1)),
                (relay, SocketAddr::new(peer(1).ip(), 99)),
                (over_tcp, peer(2)),
            ] {
                let sent = rig
                    .server
                    .forward(rig.now, relay, from, &[7; 1024], &mut buf);
                assert!(sent.is_some());
            }
            // What is not permitted costs nothing either.
            assert!(
                rig.server
                    .handle_relay(rig.now, relay, peer(3), 9)
                    .is_none()
            );
        }
    });
    assert_eq!(used.count_total, 0);
}

// spec: SEC-G-04, SEC-G-05
#[test]
fn full_tables_stay_below_the_bound() {
    let limits = Limits {
        allocations: 40,
        allocations_per_user: 40,
        permissions: 32,
        channels: 32,
        streams: 20,
        responses: 64,
        key_lookups: 1,
        reservations: 1,
        peer_connections: 1,
        pending_connects: 1,
        unbound_connections: 1,
        ..Limits::default()
    };
    let mut rig = None;
    let used = measure(|| {
        let mut full = Rig::new(limits);
        for n in 0..40 {
            let path = if n < 20 {
                let stream = StreamId(u64::from(n));
                let at = FiveTuple {
                    transport: Transport::Tcp,
                    ..udp(source(n))
                };
                full.server.stream_opened(full.now, stream, at).unwrap();
                Path::Stream(stream)
            } else {
                Path::Datagram(udp(source(n)))
            };
            full.allocate(path);
            for channel in 0..32 {
                full.bind(path, 0x4000 + channel, peer(channel));
            }
            if let Path::Stream(stream) = path {
                // The longest unit, all but its end.
                let mut unit = vec![0x40, 0, 0xFF, 0xFF];
                unit.resize(MAX_FRAME - 1, 0);
                let mut input = &unit[..];
                full.server.handle_stream(full.now, stream, &mut input);
            }
        }
        rig = Some(full);
    });
    let rig = rig.unwrap();
    let live = usize::try_from(used.bytes_current).unwrap();
    assert_eq!(rig.server.allocations(), 40);
    assert!(live <= rig.server.max_memory(), "{live}");
    assert_eq!(rig.server.max_memory(), limits.max_memory());
}

// spec: SEC-F-03, SEC-G-10
#[test]
fn a_unit_that_is_long_in_coming_holds_little_more_than_itself() {
    let mut rig = Rig::new(Limits::default());
    let stream = StreamId(1);
    let at = FiveTuple {
        transport: Transport::Tcp,
        ..udp(source(2))
    };
    rig.server.stream_opened(rig.now, stream, at).unwrap();
    // Before there is an allocation.
    let feed = |rig: &mut Rig, mut input: &[u8]| {
        while !input.is_empty() {
            rig.server.handle_stream(rig.now, stream, &mut input);
        }
    };
    let mut request = rig.request(wire::ALLOCATE, false, &[(0x8055, vec![0; 1000])]);
    let end = request.split_off(20);
    let used = measure(|| feed(&mut rig, &request));
    // The bytes themselves, and a timer.
    assert!(used.bytes_current <= 256 + 512, "{}", used.bytes_current);
    feed(&mut rig, &end);
    rig.drain();
    rig.allocate(Path::Stream(stream));
    let mut unit = vec![0x40, 0, 0xFF, 0xFF];
    unit.resize(MAX_FRAME - 1, 0);
    let used = measure(|| {
        for piece in unit.chunks(1000) {
            feed(&mut rig, piece);
        }
    });
    assert!(
        used.bytes_current <= 65_539 + 16 * 1024,
        "{}",
        used.bytes_current
    );
}

// What the documentation says about memory is measured here.
// spec: SEC-G-04
#[test]
fn memory_per_allocation_permission_and_channel() {
    let per = |permissions: u16| {
        let mut rig = Rig::new(Limits {
            allocations_per_user: 1000,
            responses: 64,
            ..Limits::default()
        });
        rig.allocate(Path::Datagram(udp(source(0))));
        let used = measure(|| {
            for n in 1..=500 {
                let path = Path::Datagram(udp(source(n)));
                rig.allocate(path);
                for channel in 0..permissions {
                    rig.bind(path, 0x4000 + channel, peer(channel));
                }
            }
        });
        usize::try_from(used.bytes_current).unwrap() / 500
    };
    let (empty, one, many) = (per(0), per(1), per(33));
    let each = (many - one) / 32;
    println!("allocation {empty} B, with a channel {one} B, each more {each} B");
    assert!(empty <= 950, "{empty}");
    assert!(one <= 2600, "{one}");
    assert!(each <= 560, "{each}");
}
