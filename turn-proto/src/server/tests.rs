#![allow(clippy::arithmetic_side_effects, reason = "test code")]

mod extensions;
mod hosts;
mod limits;
mod scenarios;
mod tcp;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::vec::Vec;

use stun_proto::auth::LongTermServerConfig;
use stun_proto::framing::FramingError;
use stun_proto::wire::{
    ErrorCode, IntegrityAlgorithm, Key, MessageType, Nonce, PasswordAlgorithm, PasswordAlgorithmId,
    PasswordAlgorithms, Realm, TransactionId, UnknownAttributes, Username, Writer,
    XorMappedAddress,
};
use stun_proto::{Transport, auth::User};

use super::*;
use crate::policy::Preset;
use crate::wire::{
    Channel, ChannelNumber, Data, EvenPort, Lifetime, RequestedAddressFamily, RequestedTransport,
    ReservationToken, XorPeerAddress, XorRelayedAddress, channel_header, code,
};

const REALM: &str = "example.org";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn client(n: u16) -> FiveTuple {
    FiveTuple::udp(
        addr("192.0.2.1:3478"),
        SocketAddr::new([198, 51, 100, 7].into(), n),
    )
}

/// Clients written with the codec alone; they use the old algorithms, as most do.
struct Rig {
    server: Server<StaticUsers>,
    now: Instant,
    nonce: Vec<u8>,
    next_id: u8,
    next_port: u16,
    /// What the server asked for besides relays.
    actions: Vec<Action>,
}

impl Rig {
    fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut users = StaticUsers::new(REALM);
        users.add("alice", "secret");
        users.add("bob", "hidden");
        let mut config = ServerConfig::new(REALM);
        config.peers.preset = Preset::Any;
        config.peers.deny.push("192.0.2.0/24".parse().unwrap());
        change(&mut config);
        let now = Instant::ZERO + secs(1_000_000);
        Self {
            server: Server::new(config, users, [3; 32], now).unwrap(),
            now,
            nonce: Vec::new(),
            next_id: 0,
            next_port: 50_000,
            actions: Vec::new(),
        }
    }

    fn new() -> Self {
        Self::with(|_| {})
    }

    fn id(&mut self) -> TransactionId {
        self.next_id = self.next_id.wrapping_add(1);
        TransactionId([self.next_id; 12])
    }

    /// Takes what the server sends; opens relays as it asks.
    fn answer(&mut self) -> Option<(Path, Vec<u8>)> {
        while let Some(action) = self.server.poll_action() {
            let Action::OpenRelay { relay, family, .. } = action else {
                self.actions.push(action);
                continue;
            };
            let ip: IpAddr = match family {
                AddressFamily::V4 => [203, 0, 113, 1].into(),
                AddressFamily::V6 => [0x2001, 0xDB8, 1, 0, 0, 0, 0, 1].into(),
            };
            let at = SocketAddr::new(ip, self.next_port);
            self.next_port += 1;
            self.server.relay_opened(self.now, relay, at);
        }
        let mut buf = [0; MAX_TRANSMIT];
        let sent = self.server.poll_transmit(&mut buf)?;
        Some((sent.to, buf[..sent.len].to_vec()))
    }

    fn send(&mut self, at: FiveTuple, bytes: &[u8]) -> Option<Vec<u8>> {
        let received = self.server.handle_datagram(self.now, at, bytes);
        assert_eq!(received, Received::Consumed);
        let (to, bytes) = self.answer()?;
        assert_eq!(to, Path::Datagram(at));
        Some(bytes)
    }

    fn bare(&mut self, method: Method) -> Vec<u8> {
        let mut buf = [0; 500];
        let id = self.id();
        let len = Writer::new(&mut buf, MessageType::request(method), id)
            .attribute(&RequestedTransport::UDP)
            .finish()
            .unwrap();
        buf[..len].to_vec()
    }

    fn learn_nonce(&mut self, at: FiveTuple) {
        let request = self.bare(wire::ALLOCATE);
        let answer = self.send(at, &request).unwrap();
        let message = Message::parse(&answer).unwrap();
        assert_eq!(code_of(&answer), 401);
        self.nonce = message.find::<Nonce<'_>>().unwrap().as_bytes().to_vec();
    }

    /// A request of `user` with the current nonce.
    fn signed(
        &mut self,
        user: (&str, &str),
        method: Method,
        attributes: impl for<'b> FnOnce(Writer<'b>) -> Writer<'b>,
    ) -> Vec<u8> {
        let mut buf = [0; 1200];
        let id = self.id();
        let writer = Writer::new(&mut buf, MessageType::request(method), id);
        let len = attributes(writer)
            .attribute(&Username::new(user.0).unwrap())
            .attribute(&Realm::new(REALM).unwrap())
            .attribute(&Nonce::from_bytes(&self.nonce).unwrap())
            .message_integrity(&key(user))
            .finish()
            .unwrap();
        buf[..len].to_vec()
    }

    fn ask(
        &mut self,
        at: FiveTuple,
        method: Method,
        attributes: impl for<'b> FnOnce(Writer<'b>) -> Writer<'b>,
    ) -> Vec<u8> {
        let request = self.signed(ALICE, method, attributes);
        let answer = self.send(at, &request).unwrap();
        Message::parse(&answer)
            .unwrap()
            .verify(&key(ALICE))
            .unwrap();
        answer
    }

    fn allocate(&mut self, at: FiveTuple) -> RelayId {
        self.learn_nonce(at);
        let answer = self.ask(at, wire::ALLOCATE, |w| {
            w.attribute(&RequestedTransport::UDP)
        });
        assert_eq!(code_of(&answer), 0);
        loop {
            if let Event::AllocationCreated { relay, .. } = self.server.poll_event().unwrap() {
                return relay;
            }
        }
    }

    fn permit(&mut self, at: FiveTuple, peer: &str) -> u16 {
        let peer = addr(peer);
        let answer = self.ask(at, wire::CREATE_PERMISSION, |w| {
            w.attribute(&XorPeerAddress(peer))
        });
        code_of(&answer)
    }

    fn bind(&mut self, at: FiveTuple, number: u16, peer: &str) -> u16 {
        let peer = addr(peer);
        let answer = self.ask(at, wire::CHANNEL_BIND, |w| {
            w.attribute(&ChannelNumber(number))
                .attribute(&XorPeerAddress(peer))
        });
        code_of(&answer)
    }

    fn allocate_code(&mut self, attributes: impl for<'b> FnOnce(Writer<'b>) -> Writer<'b>) -> u16 {
        let at = client(1000);
        self.learn_nonce(at);
        let answer = self.ask(at, wire::ALLOCATE, attributes);
        code_of(&answer)
    }

    fn indication(
        &mut self,
        at: FiveTuple,
        peer: &str,
        data: &[u8],
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let mut buf = [0; 500];
        let id = self.id();
        let len = Writer::new(&mut buf, MessageType::indication(wire::SEND), id)
            .attribute(&XorPeerAddress(addr(peer)))
            .attribute(&Data(data))
            .finish()
            .unwrap();
        self.relayed(at, &buf[..len])
    }

    fn channel(
        &mut self,
        at: FiveTuple,
        number: u16,
        data: &[u8],
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let channel = Channel::new(number).unwrap();
        let mut message = channel_header(channel, data.len()).unwrap().to_vec();
        message.extend_from_slice(data);
        self.relayed(at, &message)
    }

    fn relayed(&mut self, at: FiveTuple, bytes: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        match self.server.handle_datagram(self.now, at, bytes) {
            Received::Data { peer, data } => Some((peer.peer, data.to_vec())),
            Received::Consumed | Received::NotMine => None,
        }
    }

    fn advance(&mut self, by: u64) {
        let end = self.now + secs(by);
        while let Some(at) = self.server.poll_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.server.handle_timeout(at);
        }
        self.now = end;
    }

    /// Keeps alice's allocation at `at` alive while time passes.
    fn refresh(&mut self, at: FiveTuple, lifetime: u32) -> Vec<u8> {
        self.learn_nonce(at);
        self.ask(at, wire::REFRESH, |w| w.attribute(&Lifetime(lifetime)))
    }

    fn deleted(&mut self) -> Option<DeleteReason> {
        while let Some(event) = self.server.poll_event() {
            if let Event::AllocationDeleted { reason, .. } = event {
                return Some(reason);
            }
        }
        None
    }
}

const ALICE: (&str, &str) = ("alice", "secret");
const BOB: (&str, &str) = ("bob", "hidden");

fn key((name, password): (&str, &str)) -> Key {
    Key::long_term(
        PasswordAlgorithmId::MD5,
        name.as_bytes(),
        REALM.as_bytes(),
        password.as_bytes(),
    )
    .unwrap()
}

/// The error code of an answer; 0 for success.
fn code_of(answer: &[u8]) -> u16 {
    let message = Message::parse(answer).unwrap();
    match message.class() {
        Class::Success => 0,
        Class::Error => message.find::<ErrorCode<'_>>().unwrap().code(),
        Class::Request | Class::Indication => panic!(),
    }
}

// spec: STUN-9.2.4-1, STUN-9.2-1, TURN-7.2-1, SEC-T-03, STUN-9.2.4-2
#[test]
fn strangers_are_challenged_with_few_bytes() {
    let mut rig = Rig::new();
    let request = rig.bare(wire::ALLOCATE);
    let answer = rig.send(client(1), &request).unwrap();
    assert!(answer.len() <= 100, "{}", answer.len());
    let message = Message::parse(&answer).unwrap();
    assert_eq!(code_of(&answer), 401);
    assert_eq!(message.find::<Realm<'_>>().unwrap().as_str(), Some(REALM));
    let nonce: Nonce<'_> = message.find().unwrap();
    assert!(nonce.as_bytes().starts_with(b"obMatJos2gAAA"));
    assert_eq!(message.find(), Some(PasswordAlgorithms::SHA256_MD5));
    assert!(!message.has_integrity());
    let other = rig.send(client(2), &request).unwrap();
    let other = Message::parse(&other).unwrap();
    assert_ne!(other.find::<Nonce<'_>>(), Some(nonce));
}

// spec: STUN-9.2.4-3, STUN-9.2.4-4, STUN-9.2.4-5, STUN-9.2.4-6, STUN-9.2.4-7
#[test]
fn incomplete_wrong_and_stale_proofs() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.learn_nonce(at);
    let mut buf = [0; 500];
    let len = Writer::new(&mut buf, MessageType::request(wire::ALLOCATE), rig.id())
        .attribute(&Username::new("alice").unwrap())
        .message_integrity(&key(ALICE))
        .finish()
        .unwrap();
    let answer = rig.send(at, &buf[..len]).unwrap();
    assert_eq!(code_of(&answer), 400);
    assert!(!Message::parse(&answer).unwrap().has_integrity());
    assert_eq!(rig.server.stats().failed_logins, 0);
    for (user, failed) in [(("alice", "wrong"), 1), (("nobody", "secret"), 2)] {
        let request = rig.signed(user, wire::ALLOCATE, |w| w);
        let answer = rig.send(at, &request).unwrap();
        assert_eq!(code_of(&answer), 401);
        assert!(!Message::parse(&answer).unwrap().has_integrity());
        // Which the host is told.
        assert_eq!(rig.server.stats().failed_logins, failed);
        let told = Event::LoginFailed {
            client: at,
            username: user.0.into(),
        };
        assert_eq!(rig.server.poll_event(), Some(told));
        assert_eq!(rig.server.poll_event(), None);
    }
    // A choice without the list it is from.
    let request = rig.signed(ALICE, wire::ALLOCATE, |w| {
        w.attribute(&PasswordAlgorithm::new(PasswordAlgorithmId::MD5))
    });
    assert_eq!(code_of(&rig.send(at, &request).unwrap()), 400);
    // A nonce of another address, and one that is too old.
    let request = rig.signed(ALICE, wire::ALLOCATE, |w| w);
    assert_eq!(code_of(&rig.send(client(2), &request).unwrap()), 438);
    rig.advance(601);
    let answer = rig.send(at, &request).unwrap();
    assert_eq!(code_of(&answer), 438);
    Message::parse(&answer)
        .unwrap()
        .verify(&key(ALICE))
        .unwrap();
}

// spec: STUN-9.2.4-8, TURN-6-3
#[test]
fn sha256_is_served_as_well() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.learn_nonce(at);
    let sha256 = PasswordAlgorithmId::SHA256;
    let key = Key::long_term(sha256, b"alice", REALM.as_bytes(), b"secret").unwrap();
    let mut buf = [0; 500];
    let nonce = rig.nonce.clone();
    let len = Writer::new(&mut buf, MessageType::request(wire::ALLOCATE), rig.id())
        .attribute(&RequestedTransport::UDP)
        .attribute(&Username::new("alice").unwrap())
        .attribute(&Realm::new(REALM).unwrap())
        .attribute(&Nonce::from_bytes(&nonce).unwrap())
        .attribute(&PasswordAlgorithms::SHA256_MD5)
        .attribute(&PasswordAlgorithm::new(sha256))
        .integrity(IntegrityAlgorithm::Sha256, &key)
        .finish()
        .unwrap();
    let answer = rig.send(at, &buf[..len]).unwrap();
    assert_eq!(code_of(&answer), 0);
    let verified = Message::parse(&answer).unwrap().verify(&key).unwrap();
    assert_eq!(verified.algorithm(), IntegrityAlgorithm::Sha256);
}

// spec: TURN-7.2-14, TURN-6-1
#[test]
fn success_tells_relayed_and_mapped_address_and_lifetime() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.learn_nonce(at);
    let answer = rig.ask(at, wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::UDP)
    });
    let message = Message::parse(&answer).unwrap();
    assert_eq!(
        message.find(),
        Some(XorRelayedAddress(addr("203.0.113.1:50000")))
    );
    assert_eq!(message.find(), Some(XorMappedAddress(at.remote)));
    assert_eq!(message.find(), Some(Lifetime(600)));
}

// spec: TURN-7.2-2
#[test]
fn the_same_allocate_again_is_answered_again_another_one_is_not() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.learn_nonce(at);
    let request = rig.signed(ALICE, wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::UDP)
    });
    // Twice before the relay is open: one answer.
    rig.server.handle_datagram(rig.now, at, &request);
    let first = rig.send(at, &request).unwrap();
    assert!(rig.answer().is_none());
    assert_eq!(rig.send(at, &request).unwrap(), first);
    let other = rig.signed(ALICE, wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::UDP)
    });
    assert_eq!(
        code_of(&rig.send(at, &other).unwrap()),
        code::ALLOCATION_MISMATCH
    );
    assert_eq!(rig.server.allocations(), 1);
}

// spec: TURN-7.2-3, TURN-7.2-4, TURN-7.2-5, TURN-7.2-6, TURN-7.2-7, TURN-7.2-8, TURN-3.7-1
#[test]
fn allocate_checks_in_their_order() {
    let udp = RequestedTransport::UDP;
    let token = ReservationToken([1; 8]);
    let v4 = RequestedAddressFamily(AddressFamily::V4);
    let v6 = RequestedAddressFamily(AddressFamily::V6);
    let both = crate::wire::AdditionalAddressFamily(AddressFamily::V6);
    let reserve = EvenPort { reserve_next: true };
    let raw = stun_proto::wire::AttributeType;
    assert_eq!(Rig::new().allocate_code(|w| w), 400);
    assert_eq!(
        Rig::new().allocate_code(|w| w.raw(raw(0x0019), &[17, 0, 0])),
        400
    );
    assert_eq!(
        Rig::new().allocate_code(|w| w.attribute(&RequestedTransport(99))),
        442
    );
    assert_eq!(
        Rig::new().allocate_code(|w| w.attribute(&udp).raw(raw(0x001A), &[])),
        420
    );
    assert_eq!(
        Rig::new().allocate_code(|w| w.attribute(&udp).attribute(&token)),
        508
    );
    assert_eq!(
        Rig::new().allocate_code(|w| w.attribute(&udp).attribute(&token).attribute(&v4)),
        400
    );
    assert_eq!(
        Rig::new().allocate_code(|w| w.attribute(&udp).attribute(&v4).attribute(&both)),
        400
    );
    assert_eq!(
        Rig::new().allocate_code(|w| w.attribute(&udp).attribute(&v6)),
        440
    );
    assert_eq!(
        Rig::new().allocate_code(|w| w.attribute(&udp).raw(raw(0x0017), &[9, 0, 0, 0])),
        440
    );
    assert_eq!(
        Rig::new().allocate_code(|w| w.attribute(&udp).attribute(&reserve).attribute(&both)),
        400
    );
    assert_eq!(
        Rig::new().allocate_code(|w| w.attribute(&udp).attribute(&reserve)),
        0
    );
    assert_eq!(
        Rig::new().allocate_code(|w| w.attribute(&udp).attribute(&v4)),
        0
    );
}

// spec: TURN-7.2-13, TURN-7.2-D1
#[test]
fn lifetimes_are_brought_between_default_and_longest() {
    for (asked, granted) in [
        (0, 600),
        (10, 600),
        (600, 600),
        (1200, 1200),
        (86_400, 3600),
    ] {
        let mut rig = Rig::new();
        let at = client(1);
        rig.learn_nonce(at);
        let answer = rig.ask(at, wire::ALLOCATE, |w| {
            w.attribute(&RequestedTransport::UDP)
                .attribute(&Lifetime(asked))
        });
        let message = Message::parse(&answer).unwrap();
        assert_eq!(message.find(), Some(Lifetime(granted)), "{asked}");
    }
    let raw = stun_proto::wire::AttributeType(0x000D);
    let code =
        Rig::new().allocate_code(|w| w.attribute(&RequestedTransport::UDP).raw(raw, &[0, 0, 1]));
    assert_eq!(code, 400);
}

// spec: STUN-6.3-2, STUN-6.3.1-1, STUN-6.3.1.1-2
#[test]
fn unknown_attributes_are_listed_only_to_those_who_proved_themselves() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.learn_nonce(at);
    let raw = stun_proto::wire::AttributeType;
    let answer = rig.ask(at, wire::ALLOCATE, |w| {
        w.raw(raw(0x7FFF), &[]).raw(raw(0x0055), &[1])
    });
    let unknown: UnknownAttributes = Message::parse(&answer).unwrap().find().unwrap();
    assert_eq!(unknown.0[..], [raw(0x7FFF), raw(0x0055)]);
    let request = rig.signed(("alice", "wrong"), wire::ALLOCATE, |w| {
        w.raw(raw(0x7FFF), &[])
    });
    assert_eq!(code_of(&rig.send(at, &request).unwrap()), 401);
}

// spec: TURN-5-2, TURN-5-3, SEC-T-07
#[test]
fn an_allocation_belongs_to_its_user_and_five_tuple() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.allocate(at);
    let request = rig.signed(BOB, wire::REFRESH, |w| w);
    let answer = rig.send(at, &request).unwrap();
    assert_eq!(code_of(&answer), code::WRONG_CREDENTIALS);
    Message::parse(&answer).unwrap().verify(&key(BOB)).unwrap();
    let request = rig.signed(BOB, wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::UDP)
    });
    assert_eq!(code_of(&rig.send(at, &request).unwrap()), 437);
    let elsewhere = client(2);
    for method in [wire::REFRESH, wire::CREATE_PERMISSION, wire::CHANNEL_BIND] {
        rig.learn_nonce(elsewhere);
        let answer = rig.ask(elsewhere, method, |w| w);
        assert_eq!(code_of(&answer), code::ALLOCATION_MISMATCH);
    }
    assert_eq!(rig.indication(elsewhere, "9.9.9.9:9", b"x"), None);
}

// spec: TURN-8.2-1, TURN-8.2-2, TURN-8.2-3
#[test]
fn refresh_prolongs_and_deletes() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.allocate(at);
    rig.advance(500);
    rig.learn_nonce(at);
    let answer = rig.ask(at, wire::REFRESH, |w| {
        w.attribute(&RequestedAddressFamily(AddressFamily::V6))
    });
    assert_eq!(code_of(&answer), code::PEER_FAMILY_MISMATCH);
    let answer = rig.refresh(at, 700);
    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.find(), Some(Lifetime(700)));
    rig.advance(699);
    assert_eq!(rig.server.allocations(), 1);
    rig.advance(1);
    assert_eq!(rig.deleted(), Some(DeleteReason::Expired));
    assert_eq!(rig.server.allocations(), 0);

    let mut rig = Rig::new();
    rig.allocate(at);
    let answer = rig.refresh(at, 0);
    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.find(), Some(Lifetime(0)));
    assert_eq!(rig.deleted(), Some(DeleteReason::Client));
    let answer = rig.refresh(at, 0);
    assert_eq!(code_of(&answer), code::ALLOCATION_MISMATCH);
    assert_eq!(rig.server.poll_timeout(), None);
}

// spec: TURN-9-1, TURN-9-2, TURN-11.2-3, SEC-T-09
#[test]
fn permissions_end_after_exactly_300_s_in_both_directions() {
    let mut rig = Rig::new();
    let at = client(1);
    let relay = rig.allocate(at);
    assert_eq!(rig.permit(at, "9.9.9.9:0"), 0);
    rig.advance(299);
    // Sending does not prolong it; the port does not matter.
    let sent = rig.indication(at, "9.9.9.9:77", b"data").unwrap();
    assert_eq!(sent, (addr("9.9.9.9:77"), b"data".to_vec()));
    assert!(
        rig.server
            .handle_relay(rig.now, relay, addr("9.9.9.9:5"), 3)
            .is_some()
    );
    assert_eq!(rig.indication(at, "9.9.9.8:77", b"data"), None);
    rig.advance(1);
    assert_eq!(rig.indication(at, "9.9.9.9:77", b"data"), None);
    assert!(
        rig.server
            .handle_relay(rig.now, relay, addr("9.9.9.9:5"), 3)
            .is_none()
    );
}

// spec: TURN-10.2-1, TURN-10.2-2, TURN-10.2-3
#[test]
fn one_bad_address_installs_nothing() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.allocate(at);
    let answer = rig.ask(at, wire::CREATE_PERMISSION, |w| w);
    assert_eq!(code_of(&answer), 400);
    let good = XorPeerAddress(addr("9.9.9.9:1"));
    for (bad, code) in [("192.0.2.9:1", 403), ("[2001:db8::1]:1", 443)] {
        let bad = XorPeerAddress(addr(bad));
        let answer = rig.ask(at, wire::CREATE_PERMISSION, |w| {
            w.attribute(&good).attribute(&bad)
        });
        assert_eq!(code_of(&answer), code);
    }
    let answer = rig.ask(at, wire::CREATE_PERMISSION, |w| {
        w.attribute(&good)
            .raw(stun_proto::wire::AttributeType(0x0012), &[0, 1, 2])
    });
    assert_eq!(code_of(&answer), 400);
    assert_eq!(rig.indication(at, "9.9.9.9:1", b"x"), None);
}

// spec: TURN-12.2-1, TURN-12.2-2, TURN-12.2-D1, TURN-12-2
#[test]
fn channel_bind_conflicts() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.allocate(at);
    let answer = rig.ask(at, wire::CHANNEL_BIND, |w| {
        w.attribute(&ChannelNumber(0x4000))
    });
    assert_eq!(code_of(&answer), 400);
    for (number, peer, code) in [
        (0x3FFF, "9.9.9.9:1", 400),
        (0x5000, "9.9.9.9:1", 400),
        (0x4000, "9.9.9.9:0", 400),
        (0x4000, "[2001:db8::1]:1", 443),
        (0x4000, "192.0.2.9:1", 403),
        (0x4000, "9.9.9.9:1", 0),
        (0x4000, "9.9.9.9:1", 0),
        (0x4000, "9.9.9.9:2", 400),
        (0x4001, "9.9.9.9:1", 400),
        (0x4FFF, "9.9.9.9:2", 0),
    ] {
        assert_eq!(rig.bind(at, number, peer), code, "{number:x} {peer}");
    }
    assert!(rig.indication(at, "9.9.9.9:99", b"x").is_some());
}

// spec: TURN-11.3-1, TURN-12.5-1, TURN-12.6-1, TURN-12.6-2, TURN-12.6-3, TURN-12.6-4, TURN-12.6-D1, TURN-11.2-4
#[test]
fn channel_data_flows_while_channel_and_permission_live() {
    let mut rig = Rig::new();
    let at = client(1);
    let relay = rig.allocate(at);
    assert_eq!(rig.bind(at, 0x4000, "9.9.9.9:5"), 0);
    let peer = addr("9.9.9.9:5");
    for data in [&b""[..], b"a", b"abc", b"abcd"] {
        assert_eq!(rig.channel(at, 0x4000, data), Some((peer, data.to_vec())));
    }
    assert_eq!(rig.channel(at, 0x4001, b"x"), None);
    let truncated = [0x40, 0, 0, 9, 1];
    assert_eq!(
        rig.server.handle_datagram(rig.now, at, &truncated),
        Received::NotMine
    );
    let with_padding = [0x40, 0, 0, 1, b'x', 0, 0, 0];
    assert_eq!(rig.relayed(at, &with_padding), Some((peer, b"x".to_vec())));
    // From the peer: ChannelData from exactly its port, a Data indication from others.
    let mut buf = [0; 100];
    let sent = rig
        .server
        .forward(rig.now, relay, peer, b"hey", &mut buf)
        .unwrap();
    assert_eq!(&buf[..sent.len], b"\x40\0\0\x03hey");
    let other = addr("9.9.9.9:6");
    let sent = rig
        .server
        .forward(rig.now, relay, other, b"hey", &mut buf)
        .unwrap();
    let message = Message::parse(&buf[..sent.len]).unwrap();
    assert_eq!(message.message_type(), MessageType::indication(wire::DATA));
    assert_eq!(message.find(), Some(XorPeerAddress(other)));
    assert_eq!(message.find(), Some(Data(b"hey")));
    // The permission ends before the channel.
    rig.advance(300);
    assert_eq!(rig.channel(at, 0x4000, b"x"), None);
    assert!(rig.server.handle_relay(rig.now, relay, peer, 1).is_none());
    // A new permission lets the channel live on, until it ends after 600 s.
    rig.refresh(at, 3600);
    assert_eq!(rig.permit(at, "9.9.9.9:1"), 0);
    assert!(rig.channel(at, 0x4000, b"x").is_some());
    rig.advance(299);
    rig.refresh(at, 3600);
    assert_eq!(rig.permit(at, "9.9.9.9:1"), 0);
    assert!(rig.channel(at, 0x4000, b"x").is_some());
    rig.advance(1);
    assert_eq!(rig.channel(at, 0x4000, b"x"), None);
    assert!(rig.indication(at, "9.9.9.9:5", b"x").is_some());
}

// spec: TURN-11.2-1, TURN-11.2-2
#[test]
fn send_indications_without_address_or_data_are_dropped() {
    let mut rig = Rig::new();
    let at = client(1);
    rig.allocate(at);
    rig.permit(at, "9.9.9.9:1");
    assert_eq!(
        rig.indication(at, "9.9.9.9:1", b"").unwrap().1,
        Vec::<u8>::new()
    );
    let peer = XorPeerAddress(addr("9.9.9.9:1"));
    let mut buf = [0; 100];
    let ty = MessageType::indication(wire::SEND);
    let id = rig.id();
    let len = Writer::new(&mut buf, ty, id).attribute(&peer).finish();
    assert_eq!(rig.relayed(at, &buf[..len.unwrap()]), None);
    let len = Writer::new(&mut buf, ty, id)
        .attribute(&Data(b"x"))
        .finish();
    assert_eq!(rig.relayed(at, &buf[..len.unwrap()]), None);
    let unknown = stun_proto::wire::AttributeType(0x7F00);
    let len = Writer::new(&mut buf, ty, id)
        .attribute(&peer)
        .raw(unknown, &[])
        .attribute(&Data(b"x"))
        .finish();
    assert_eq!(rig.relayed(at, &buf[..len.unwrap()]), None);
}

// spec: TURN-11.5-1, TURN-11.5-2, TURN-11.5-3, TURN-18.13-1, SEC-T-13
#[test]
fn icmp_errors_are_passed_on_for_permitted_peers() {
    let mut rig = Rig::new();
    let at = client(1);
    let relay = rig.allocate(at);
    rig.permit(at, "9.9.9.9:1");
    for (peer, ty, icmp_code, seen) in [
        ("9.9.9.9:7", 3, 4, Some(1280)),
        ("9.9.9.9:7", 3, 1, Some(0)),
        ("9.9.9.9:7", 11, 0, Some(0)),
        ("9.9.9.9:7", 8, 0, None),
        ("9.9.9.8:7", 3, 4, None),
    ] {
        let icmp = Icmp {
            ty,
            code: icmp_code,
            data: 1280,
        };
        let peer = addr(peer);
        rig.server.handle_relay_icmp(rig.now, relay, peer, icmp);
        let got = rig.answer().map(|(_, bytes)| {
            let message = Message::parse(&bytes).unwrap();
            assert_eq!(message.find(), Some(XorPeerAddress(peer)));
            message.find::<Icmp>().unwrap().data
        });
        assert_eq!(got, seen);
    }
}

// spec: SEC-T-06, TURN-5-10, TURN-7.2-10, SEC-G-05
#[test]
fn quotas_and_limits_are_reached_and_freed() {
    let mut rig = Rig::with(|config| {
        config.limits.allocations = 3;
        config.limits.allocations_per_user = 2;
        config.limits.permissions = 2;
        config.limits.channels = 2;
    });
    rig.allocate(client(1));
    rig.allocate(client(2));
    rig.learn_nonce(client(3));
    let answer = rig.ask(client(3), wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::UDP)
    });
    assert_eq!(code_of(&answer), code::QUOTA_REACHED);
    for (port, code) in [(4, 0), (5, code::INSUFFICIENT_CAPACITY)] {
        rig.learn_nonce(client(port));
        let request = rig.signed(BOB, wire::ALLOCATE, |w| {
            w.attribute(&RequestedTransport::UDP)
        });
        assert_eq!(code_of(&rig.send(client(port), &request).unwrap()), code);
    }
    rig.refresh(client(1), 0);
    rig.allocate(client(3));
    let at = client(3);
    assert_eq!(rig.permit(at, "9.9.9.1:1"), 0);
    assert_eq!(rig.permit(at, "9.9.9.2:1"), 0);
    assert_eq!(rig.permit(at, "9.9.9.2:1"), 0);
    assert_eq!(rig.permit(at, "9.9.9.3:1"), 508);
    assert_eq!(rig.bind(at, 0x4000, "9.9.9.1:1"), 0);
    assert_eq!(rig.bind(at, 0x4001, "9.9.9.1:2"), 0);
    assert_eq!(rig.bind(at, 0x4002, "9.9.9.1:3"), 508);
    assert_eq!(rig.bind(at, 0x4000, "9.9.9.1:1"), 0);
}

// spec: SEC-T-04
#[test]
fn unverified_requests_are_answered_ten_times_a_second() {
    let mut rig = Rig::new();
    let mut answers = 0;
    for port in 1..=1000 {
        let request = rig.bare(wire::ALLOCATE);
        answers += u32::from(rig.send(client(port), &request).is_some());
    }
    assert_eq!(answers, 10);
    assert_eq!(rig.server.stats().rate_limited, 990);
    rig.advance(1);
    let request = rig.bare(wire::ALLOCATE);
    assert!(rig.send(client(1), &request).is_some());
}

// spec: SEC-T-04
#[test]
fn two_thousand_clients_behind_one_address_are_challenged_once_one_of_them_has_logged_in() {
    let mut rig = Rig::new();
    rig.learn_nonce(client(1));
    let mut waiting: Vec<u16> = (2..=2001).collect();
    // As clients do: they ask again after 0.5, 1.5, 3.5 s.
    for wait in [0, 500, 1000, 2000] {
        rig.now += Duration::from_millis(wait);
        let request = rig.bare(wire::ALLOCATE);
        waiting.retain(|port| rig.send(client(*port), &request).is_none());
        if wait == 0 {
            assert_eq!(waiting.len(), 1991);
            // Whoever has a nonce logs in at once.
            let answer = rig.ask(client(1), wire::ALLOCATE, |w| {
                w.attribute(&RequestedTransport::UDP)
            });
            assert_eq!(code_of(&answer), 0);
        }
    }
    assert_eq!(waiting, []);
}

// spec: STUN-6.3.1.1-4, STUN-5-7
#[test]
fn binding_is_answered_without_proof() {
    let mut rig = Rig::new();
    let at = client(77);
    let mut buf = [0; 100];
    let id = rig.id();
    let len = Writer::new(&mut buf, MessageType::request(Method::BINDING), id).finish();
    let answer = rig.send(at, &buf[..len.unwrap()]).unwrap();
    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.transaction_id(), id);
    assert_eq!(message.find(), Some(XorMappedAddress(at.remote)));
}

#[test]
fn only_requests_are_answered() {
    let mut rig = Rig::new();
    let at = client(1);
    for ty in [
        MessageType::new(Class::Success, Method::BINDING),
        MessageType::new(Class::Error, wire::ALLOCATE),
        MessageType::indication(Method::BINDING),
        MessageType::indication(wire::DATA),
        MessageType::request(wire::SEND),
        MessageType::request(Method::new(0x055)),
    ] {
        let mut buf = [0; 100];
        let id = rig.id();
        let len = Writer::new(&mut buf, ty, id).finish().unwrap();
        assert!(rig.send(at, &buf[..len]).is_none(), "{ty:?}");
    }
    let garbage = rig.server.handle_datagram(rig.now, at, b"garbage");
    assert_eq!(garbage, Received::NotMine);
}

#[test]
fn a_relay_that_does_not_open_is_a_508() {
    for late in [false, true] {
        let mut rig = Rig::new();
        let at = client(1);
        rig.learn_nonce(at);
        let request = rig.signed(ALICE, wire::ALLOCATE, |w| {
            w.attribute(&RequestedTransport::UDP)
        });
        rig.server.handle_datagram(rig.now, at, &request);
        let Some(Action::OpenRelay { relay, .. }) = rig.server.poll_action() else {
            panic!();
        };
        if late {
            rig.advance(5);
        } else {
            rig.server.relay_failed(rig.now, relay);
        }
        let answer = rig.answer().unwrap().1;
        assert_eq!(code_of(&answer), code::INSUFFICIENT_CAPACITY);
        rig.server
            .relay_opened(rig.now, relay, addr("9.9.9.9:50000"));
        assert_eq!(rig.server.allocations(), 0);
        assert_eq!(rig.server.poll_timeout(), None);
    }
}

const STREAM: StreamId = StreamId(7);

fn stream_rig() -> Rig {
    let mut rig = Rig::new();
    let at = FiveTuple {
        transport: Transport::Tls,
        ..client(9)
    };
    rig.server.stream_opened(rig.now, STREAM, at).unwrap();
    rig
}

impl Rig {
    /// Feeds bytes cut into pieces of `cut`; what is relayed to peers.
    fn stream(&mut self, bytes: &[u8], cut: usize) -> Vec<Vec<u8>> {
        let mut relayed = Vec::new();
        for piece in bytes.chunks(cut) {
            let mut input = piece;
            while !input.is_empty() {
                if let Received::Data { data, .. } =
                    self.server.handle_stream(self.now, STREAM, &mut input)
                {
                    relayed.push(data.to_vec());
                }
            }
        }
        relayed
    }

    fn closed(&mut self) -> Option<CloseReason> {
        while let Some(action) = self.server.poll_action() {
            if let Action::CloseStream { reason, .. } = action {
                return Some(reason);
            }
        }
        None
    }
}

// spec: TURN-STR-1, TURN-STR-2, TURN-STR-4, TURN-12.5-2
#[test]
fn a_stream_client_allocates_and_relays_however_it_is_cut() {
    for cut in [1, 3, 1000] {
        let mut rig = stream_rig();
        let request = rig.bare(wire::ALLOCATE);
        rig.stream(&request, cut);
        let (to, answer) = rig.answer().unwrap();
        assert_eq!(to, Path::Stream(STREAM));
        let nonce: Nonce<'_> = Message::parse(&answer).unwrap().find().unwrap();
        rig.nonce = nonce.as_bytes().to_vec();
        let request = rig.signed(ALICE, wire::ALLOCATE, |w| {
            w.attribute(&RequestedTransport::UDP)
        });
        rig.stream(&request, cut);
        assert_eq!(code_of(&rig.answer().unwrap().1), 0);
        let request = rig.signed(ALICE, wire::CHANNEL_BIND, |w| {
            w.attribute(&ChannelNumber(0x4000))
                .attribute(&XorPeerAddress(addr("9.9.9.9:5")))
        });
        rig.stream(&request, cut);
        assert_eq!(code_of(&rig.answer().unwrap().1), 0);
        let bytes = b"\x40\0\0\x01a\0\0\0\x40\0\0\x05hello\0\0\0\x40\0\0\x00\x40\0\0\x04abcd";
        let relayed = rig.stream(bytes, cut);
        assert_eq!(relayed, [&b"a"[..], b"hello", b"", b"abcd"]);
        rig.server.handle_stream_closed(rig.now, STREAM);
        assert_eq!(rig.deleted(), Some(DeleteReason::StreamClosed));
        assert_eq!(rig.server.poll_timeout(), None);
    }
}

// spec: TURN-STR-3, SEC-F-05, SEC-T-12, SEC-F-04, SEC-F-03
#[test]
fn streams_that_are_no_turn_or_idle_are_closed() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03",
        b"\x40\0\0\x01a\0\0\0",
        b"\x80",
    ] {
        let mut rig = stream_rig();
        rig.stream(bytes, 1);
        assert!(rig.closed().is_some(), "{bytes:?}");
        rig.stream(bytes, 1);
        assert!(rig.answer().is_none());
    }
    let mut rig = stream_rig();
    rig.advance(29);
    assert_eq!(rig.closed(), None);
    rig.advance(1);
    assert_eq!(rig.closed(), Some(CloseReason::Idle));
    // One byte a second does not help.
    let mut rig = stream_rig();
    let request = rig.bare(wire::ALLOCATE);
    for byte in &request[..10] {
        rig.stream(&[*byte], 1);
        rig.advance(1);
    }
    assert_eq!(rig.closed(), Some(CloseReason::Idle));
    // No room is made for what is only declared.
    let mut rig = stream_rig();
    rig.stream(b"\0\x03\xff\xfc\x21\x12\xa4\x42", 1);
    assert_eq!(
        rig.closed(),
        Some(CloseReason::Framing(FramingError::TooLong))
    );
}

#[test]
fn streams_are_limited() {
    let mut rig = Rig::with(|config| config.limits.streams = 1);
    let at = client(1);
    assert!(rig.server.stream_opened(rig.now, StreamId(1), at).is_ok());
    assert!(rig.server.stream_opened(rig.now, StreamId(1), at).is_err());
    assert!(rig.server.stream_opened(rig.now, StreamId(2), at).is_err());
    rig.server.handle_stream_closed(rig.now, StreamId(1));
    assert!(rig.server.stream_opened(rig.now, StreamId(2), at).is_ok());
}

// spec: SEC-G-19
#[test]
fn contradictory_configurations_make_no_server() {
    let check = |change: &dyn Fn(&mut ServerConfig)| {
        let mut config = ServerConfig::new(REALM);
        change(&mut config);
        Server::new(config, StaticUsers::new(REALM), [0; 32], Instant::ZERO).err()
    };
    assert_eq!(check(&|_| {}), None);
    assert_eq!(
        check(&|c| c.auth = LongTermServerConfig::new("")),
        Some(ConfigError::Realm)
    );
    assert_eq!(
        check(&|c| c.default_lifetime = secs(4000)),
        Some(ConfigError::Lifetime)
    );
    assert_eq!(
        check(&|c| c.limits.channels = 0),
        Some(ConfigError::ZeroLimit)
    );
    assert_eq!(check(&|c| c.addresses_v4 = 0), Some(ConfigError::NoFamily));
}

// spec: SEC-T-03
#[test]
fn a_server_says_who_is_too_short_to_be_challenged() {
    for (realm, gain, shortest) in [
        (12, 5, 20),
        (48, 5, 27),
        (56, 5, 28),
        (57, 5, 29),
        (127, 8, 27),
    ] {
        let realm = "r".repeat(realm);
        let mut config = ServerConfig::new(realm.as_str());
        config.largest_gain = gain;
        config.unverified.per_second = 0;
        let users = StaticUsers::new(realm);
        let mut server = Server::new(config, users, [0; 32], Instant::ZERO).unwrap();
        assert_eq!(server.shortest_challenged(), shortest);
        // With an attribute nobody has to know, of whatever length.
        for len in [20, 24, 28, 32] {
            let mut request = alloc::vec![0, 3, 0, 0, 0x21, 0x12, 0xA4, 0x42];
            request.resize(len, 0);
            request[3] = len as u8 - 20;
            if len > 20 {
                request[20..24].copy_from_slice(&[0xC0, 0, 0, len as u8 - 24]);
            }
            server.handle_datagram(Instant::ZERO, client(1), &request);
            let mut buf = [0; MAX_TRANSMIT];
            let answered = server.poll_transmit(&mut buf).is_some();
            assert_eq!(answered, len >= shortest, "{len} bytes, {shortest}");
        }
    }
}

// spec: TURN-6-2, SEC-G-15
#[test]
fn users_are_kept_as_keys_and_not_shown() {
    let mut users = StaticUsers::new(REALM);
    users.add("alice", "canary");
    assert!(!alloc::format!("{users:?}").contains("canary"));
    let hash = stun_proto::wire::userhash(b"alice", REALM.as_bytes());
    let sha256 = PasswordAlgorithmId::SHA256;
    assert!(users.key_of(User::Hash(hash), sha256).is_some());
    assert!(users.key_of(User::Hash([0; 32]), sha256).is_none());
}

#[test]
fn users_may_be_known_by_a_key_only() {
    let mut users = StaticUsers::new(REALM);
    assert!(users.add_key("carol", PasswordAlgorithmId::MD5, &[7; 16]));
    assert!(!users.add_key("dave", PasswordAlgorithmId::SHA256, &[7; 16]));
    let found = |name, algorithm| users.key_of(User::Name(name), algorithm);
    assert!(found(b"carol", PasswordAlgorithmId::MD5).is_some());
    assert!(found(b"carol", PasswordAlgorithmId::SHA256).is_none());
    assert!(found(b"dave", PasswordAlgorithmId::SHA256).is_none());
}
