#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::vec::Vec;

use stun_proto::auth::Credentials;
use stun_proto::wire::{
    AttributeType, ErrorCode, IntegrityAlgorithm, Key, Nonce, PasswordAlgorithmId, Realm,
    TransactionId, Username, XorMappedAddress,
};

use super::*;
use crate::wire::{
    ChannelNumber, Lifetime, RequestedTransport, XorRelayedAddress, channel_header, code,
};

const REALM: &str = "example.org";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// A scripted server of RFC 5389 times, as coturn and pion are, over datagrams.
struct Rig {
    client: Client,
    at: FiveTuple,
    now: Instant,
    key: Key,
    nonce: &'static str,
}

/// A request as the server reads it.
#[derive(Debug)]
struct Seen {
    bytes: Vec<u8>,
    at: Instant,
}

impl Seen {
    fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }

    fn lifetime(&self) -> Option<u32> {
        self.message().find::<Lifetime>().map(|l| l.0)
    }
}

impl Rig {
    fn new() -> Self {
        let at = FiveTuple::udp(addr("10.0.0.2:40000"), addr("192.0.2.1:3478"));
        let mut config = ClientConfig::new(Some(Credentials::new("user", "secret")));
        config.keep_alive = None;
        let now = Instant::ZERO;
        let path = Path::Datagram(at);
        let key = Key::long_term(
            PasswordAlgorithmId::MD5,
            b"user",
            REALM.as_bytes(),
            b"secret",
        );
        Self {
            client: Client::new(config, path, Transport::Udp, [1; 32], now),
            at,
            now,
            key: key.unwrap(),
            nonce: "nonce-1",
        }
    }

    fn allocated() -> Self {
        let mut rig = Self::new();
        rig.client
            .allocate(rig.now, AllocateOptions::default())
            .unwrap();
        let first = rig.request();
        rig.challenge(&first, 401);
        let second = rig.request();
        rig.allocate_ok(&second);
        assert!(matches!(rig.event(), Some(Event::Allocated { .. })));
        rig
    }

    fn request(&mut self) -> Seen {
        self.try_request().expect("a request")
    }

    fn try_request(&mut self) -> Option<Seen> {
        let mut buf = [0; MAX_TRANSMIT];
        let sent = self.client.poll_transmit(&mut buf)?;
        assert_eq!(sent.to, Path::Datagram(self.at));
        Some(Seen {
            bytes: buf[..sent.len].to_vec(),
            at: self.now,
        })
    }

    fn event(&mut self) -> Option<Event> {
        self.client.poll_event()
    }

    fn advance(&mut self, to: u64) -> Vec<Seen> {
        let end = Instant::ZERO + secs(to);
        let mut seen = Vec::new();
        while let Some(at) = self.client.poll_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.client.handle_timeout(at);
            while let Some(request) = self.try_request() {
                seen.push(request);
            }
        }
        self.now = end;
        seen
    }

    fn input(&mut self, bytes: &[u8]) -> bool {
        let received = self.client.handle_datagram(self.now, self.at, bytes);
        matches!(received, Received::Data { .. })
    }

    fn answer(
        &mut self,
        to: &Seen,
        class: Class,
        protected: bool,
        attributes: impl for<'b> FnOnce(Writer<'b>) -> Writer<'b>,
    ) {
        let mut buf = [0; 500];
        let message = to.message();
        let ty = MessageType::new(class, message.method());
        let writer = attributes(Writer::new(&mut buf, ty, message.transaction_id()));
        let len = if protected {
            writer
                .integrity(IntegrityAlgorithm::Sha1, &self.key)
                .finish()
        } else {
            writer.finish()
        };
        let len = len.unwrap();
        self.input(&buf[..len]);
    }

    fn challenge(&mut self, to: &Seen, code: u16) {
        let nonce = self.nonce;
        self.answer(to, Class::Error, false, |w| {
            w.attribute(&ErrorCode::new(code))
                .attribute(&Realm::new(REALM).unwrap())
                .attribute(&Nonce::new(nonce).unwrap())
        });
    }

    fn error(&mut self, to: &Seen, code: u16) {
        self.answer(to, Class::Error, true, |w| {
            w.attribute(&ErrorCode::new(code))
        });
    }

    fn ok(&mut self, to: &Seen) {
        self.answer(to, Class::Success, true, |w| w);
    }

    fn allocate_ok(&mut self, to: &Seen) {
        self.answer(to, Class::Success, true, |w| {
            w.attribute(&XorRelayedAddress(addr("192.0.2.15:50000")))
                .attribute(&XorMappedAddress(addr("198.51.100.7:7000")))
                .attribute(&Lifetime(600))
        });
    }

    fn refresh_ok(&mut self, to: &Seen, lifetime: u32) {
        self.answer(to, Class::Success, true, |w| {
            w.attribute(&Lifetime(lifetime))
        });
    }

    fn permit(&mut self, peer: &str) {
        self.client
            .create_permission(self.now, peer.parse().unwrap())
            .unwrap();
        let request = self.request();
        self.ok(&request);
        assert!(matches!(
            self.event(),
            Some(Event::PermissionCreated { .. })
        ));
    }

    fn data_from(&mut self, peer: &str, payload: &[u8]) -> bool {
        let mut buf = [0; 500];
        let ty = MessageType::indication(wire::DATA);
        let len = Writer::new(&mut buf, ty, TransactionId([9; 12]))
            .attribute(&XorPeerAddress(addr(peer)))
            .attribute(&Data(payload))
            .finish()
            .unwrap();
        self.input(&buf[..len])
    }
}

fn find_raw(message: &Message<'_>, ty: u16) -> bool {
    message.has(AttributeType(ty))
}

// spec: TURN-7.1-2, STUN-9.2.3.1-1, STUN-9.2.5-2, TURN-7.3-2
#[test]
fn allocate_is_challenged_then_authenticated() {
    let mut rig = Rig::new();
    rig.client
        .allocate(rig.now, AllocateOptions::default())
        .unwrap();
    let first = rig.request();
    let message = first.message();
    assert_eq!(message.method(), wire::ALLOCATE);
    assert_eq!(message.find(), Some(RequestedTransport::UDP));
    for ty in [0x0006, 0x0014, 0x0015, 0x001D, 0x001E] {
        assert!(!find_raw(&message, ty));
    }
    assert!(!message.has_integrity());
    rig.challenge(&first, 401);
    let second = rig.request();
    let message = second.message();
    assert_ne!(message.transaction_id(), first.message().transaction_id());
    assert_eq!(
        message.find::<Username<'_>>().unwrap().as_str(),
        Some("user")
    );
    message.verify(&rig.key).unwrap();
    rig.allocate_ok(&second);
    assert_eq!(
        rig.event(),
        Some(Event::Allocated {
            relayed: addr("192.0.2.15:50000"),
            mapped: Some(addr("198.51.100.7:7000")),
            lifetime: secs(600),
        })
    );
}

// spec: TURN-8-1, TURN-8.3-1
#[test]
fn the_allocation_is_refreshed_a_minute_before_its_end_for_a_day() {
    let mut rig = Rig::allocated();
    let mut at = 0;
    for _ in 0..160 {
        at += 540;
        let seen = rig.advance(at);
        assert_eq!(seen.len(), 1, "at {at}");
        assert_eq!(seen[0].at, Instant::ZERO + secs(at));
        assert_eq!(seen[0].message().method(), wire::REFRESH);
        rig.refresh_ok(&seen[0], 600);
    }
    assert_eq!(rig.event(), None);
}

#[test]
fn short_lifetimes_are_refreshed_at_half_time_and_long_ones_before_an_hour() {
    for (granted, wait) in [(100, 50), (120, 60), (7200, 3540)] {
        let mut rig = Rig::allocated();
        let seen = rig.advance(540);
        rig.refresh_ok(&seen[0], granted);
        assert_eq!(
            rig.client.poll_timeout(),
            Some(Instant::ZERO + secs(540 + wait))
        );
    }
}

// spec: TURN-8.3-D1
#[test]
fn refreshing_goes_on_until_the_allocation_has_ended() {
    let mut rig = Rig::allocated();
    let seen = rig.advance(601);
    assert!(seen.len() > 6);
    assert_eq!(
        rig.event(),
        Some(Event::AllocationLost {
            cause: Cause::Timeout
        })
    );
    assert_eq!(rig.client.poll_timeout(), None);
    assert!(rig.try_request().is_none());
}

// spec: TURN-8.1-1, STUN-9.2.5-4
#[test]
fn a_stale_nonce_while_deleting_keeps_lifetime_zero() {
    let mut rig = Rig::allocated();
    rig.client.close(rig.now);
    let first = rig.request();
    assert_eq!(first.lifetime(), Some(0));
    rig.nonce = "nonce-2";
    rig.challenge(&first, 438);
    let second = rig.request();
    assert_eq!(second.lifetime(), Some(0));
    let message = second.message();
    assert_eq!(
        message.find::<Nonce<'_>>().unwrap().as_str(),
        Some("nonce-2")
    );
    rig.refresh_ok(&second, 0);
    assert_eq!(rig.event(), Some(Event::Closed));
    assert_eq!(rig.client.poll_timeout(), None);
}

#[test]
fn a_mismatch_while_deleting_is_as_good_as_success() {
    let mut rig = Rig::allocated();
    rig.client.close(rig.now);
    let request = rig.request();
    rig.error(&request, code::ALLOCATION_MISMATCH);
    assert_eq!(rig.event(), Some(Event::Closed));
}

// spec: TURN-5-4
#[test]
fn a_mismatch_means_that_the_allocation_is_gone() {
    let mut rig = Rig::allocated();
    rig.permit("203.0.113.9");
    let seen = rig.advance(240);
    rig.error(&seen[0], code::ALLOCATION_MISMATCH);
    assert_eq!(
        rig.event(),
        Some(Event::AllocationLost {
            cause: Cause::Code(437)
        })
    );
    assert!(!rig.client.is_permitted("203.0.113.9".parse().unwrap()));
}

fn allocate_error(code: u16) -> Event {
    let mut rig = Rig::new();
    rig.client
        .allocate(rig.now, AllocateOptions::default())
        .unwrap();
    let first = rig.request();
    rig.challenge(&first, 401);
    let second = rig.request();
    rig.error(&second, code);
    let event = rig.event().unwrap();
    assert_eq!(rig.client.poll_timeout(), None);
    event
}

#[test]
fn allocate_errors_say_whether_to_try_again() {
    for (code, wait, fresh) in [
        (400, None, false),
        (403, None, false),
        (437, Some(Duration::ZERO), true),
        (440, None, false),
        (442, None, false),
        (486, Some(secs(60)), false),
        (508, Some(secs(60)), false),
    ] {
        assert_eq!(
            allocate_error(code),
            Event::AllocateFailed {
                cause: Cause::Code(code),
                retry_after: wait,
                fresh_address: fresh,
                alternate: None
            }
        );
    }
}

// spec: STUN-9.2.5-3
#[test]
fn wrong_credentials_are_tried_once() {
    let mut rig = Rig::new();
    rig.client
        .allocate(rig.now, AllocateOptions::default())
        .unwrap();
    let first = rig.request();
    rig.challenge(&first, 401);
    let second = rig.request();
    rig.challenge(&second, 401);
    assert!(matches!(
        rig.event(),
        Some(Event::AllocateFailed {
            cause: Cause::Auth(stun_proto::auth::AuthFailure::WrongCredentials),
            ..
        })
    ));
}

// spec: SEC-C-01, STUN-9.1.4-2, STUN-9.2.5-7
#[test]
fn a_success_without_integrity_is_not_believed() {
    let mut rig = Rig::new();
    rig.client
        .allocate(rig.now, AllocateOptions::default())
        .unwrap();
    let first = rig.request();
    rig.challenge(&first, 401);
    let second = rig.request();
    rig.answer(&second, Class::Success, false, |w| {
        w.attribute(&XorRelayedAddress(addr("6.6.6.6:6")))
            .attribute(&Lifetime(600))
    });
    assert_eq!(rig.event(), None);
    assert_eq!(rig.client.stats().unverified, 1);
    rig.advance(40);
    assert!(matches!(
        rig.event(),
        Some(Event::AllocateFailed {
            cause: Cause::Integrity { code: None },
            ..
        })
    ));
}

// spec: TURN-10.3-1, TURN-9-1
#[test]
fn permissions_count_from_sending_and_are_refreshed_after_240_s() {
    let mut rig = Rig::allocated();
    let peer: IpAddr = "203.0.113.9".parse().unwrap();
    rig.client.create_permission(rig.now, peer).unwrap();
    let request = rig.request();
    rig.now = Instant::ZERO + Duration::from_millis(300);
    rig.ok(&request);
    assert!(rig.client.is_permitted(peer));
    let seen = rig.advance(240);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].message().method(), wire::CREATE_PERMISSION);
    // No answer: it ends 300 s after the first request.
    rig.advance(299);
    assert!(rig.client.is_permitted(peer));
    rig.advance(300);
    assert!(!rig.client.is_permitted(peer));
}

// spec: TURN-10-D1
#[test]
fn one_bad_address_does_not_block_the_others() {
    let mut rig = Rig::allocated();
    rig.permit("203.0.113.1");
    rig.permit("203.0.113.2");
    let seen = rig.advance(240);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].message().get_all::<XorPeerAddress>().count(), 2);
    rig.error(&seen[0], 403);
    let (a, b) = (rig.request(), rig.request());
    rig.error(&a, 403);
    rig.ok(&b);
    assert_eq!(
        rig.event(),
        Some(Event::PermissionFailed {
            peer: "203.0.113.1".parse().unwrap(),
            cause: Cause::Code(403)
        })
    );
    assert!(!rig.client.is_permitted("203.0.113.1".parse().unwrap()));
    assert!(rig.client.is_permitted("203.0.113.2".parse().unwrap()));
}

// spec: STUN-9.2.5-4
#[test]
fn one_new_nonce_serves_all_requests_under_way() {
    let mut rig = Rig::allocated();
    for peer in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        rig.client
            .create_permission(rig.now, peer.parse().unwrap())
            .unwrap();
    }
    let requests = [rig.request(), rig.request(), rig.request()];
    rig.nonce = "nonce-2";
    for request in &requests {
        rig.challenge(request, 438);
    }
    for _ in 0..3 {
        let again = rig.request();
        let message = again.message();
        assert_eq!(
            message.find::<Nonce<'_>>().unwrap().as_str(),
            Some("nonce-2")
        );
        rig.ok(&again);
    }
    assert!(rig.try_request().is_none());
}

// spec: TURN-11.1-1, TURN-11.4-1, SEC-C-03
#[test]
fn data_needs_a_permission_in_both_directions() {
    let mut rig = Rig::allocated();
    let peer = addr("192.0.2.150:32102");
    let mut buf = [0; 200];
    let sent = rig.client.send(rig.now, peer, b"hello", &mut buf);
    assert_eq!(sent, Err(SendError::NoPermission));
    assert!(!rig.data_from("192.0.2.150:32102", b"x"));
    rig.permit("192.0.2.150");
    assert!(rig.data_from("192.0.2.150:5", b""));
    assert!(!rig.data_from("192.0.2.151:5", b"x"));
    assert_eq!(rig.client.stats().not_permitted, 2);
    let sent = rig.client.send(rig.now, peer, b"hello", &mut buf).unwrap();
    let message = Message::parse(&buf[..sent.len]).unwrap();
    assert_eq!(message.message_type(), MessageType::indication(wire::SEND));
    assert_eq!(message.find(), Some(XorPeerAddress(peer)));
    assert_eq!(message.find(), Some(Data(b"hello")));
    assert!(!message.has_integrity());
    let mut room = [7; 100];
    room[60..65].copy_from_slice(b"hello");
    let (_, range) = rig
        .client
        .send_in_place(rig.now, peer, &mut room, 60..65)
        .unwrap();
    let in_place = Message::parse(&room[range]).unwrap();
    assert_eq!(in_place.find(), Some(Data(b"hello")));
    assert_eq!(
        rig.client.send(rig.now, peer, b"hello", &mut buf[..40]),
        Err(SendError::BufferTooSmall)
    );
    let long = alloc::vec![0; 65_530];
    let mut huge = alloc::vec![0; 70_000];
    assert_eq!(
        rig.client.send(rig.now, peer, &long, &mut huge),
        Err(SendError::TooLong)
    );
}

// spec: TURN-12-1, TURN-12.1-1, TURN-12-4, TURN-12.5-2
#[test]
fn a_channel_is_used_once_the_server_confirmed_it() {
    let mut rig = Rig::allocated();
    let peer = addr("192.0.2.210:49191");
    rig.client.bind_channel(rig.now, peer).unwrap();
    let request = rig.request();
    let ChannelNumber(number) = request.message().find().unwrap();
    assert!((0x4000..=0x4FFF).contains(&number));
    assert_eq!(request.message().find(), Some(XorPeerAddress(peer)));
    let channel = Channel::new(number).unwrap();
    let mut early = channel_header(channel, 2).unwrap().to_vec();
    early.extend_from_slice(b"hi");
    // Data may come as soon as the request was sent.
    assert!(rig.input(&early));
    rig.ok(&request);
    let mut buf = [0; 100];
    let sent = rig.client.send(rig.now, peer, b"abc", &mut buf).unwrap();
    assert_eq!(sent.len, 7);
    assert_eq!(&buf[..2], number.to_be_bytes());
    assert_eq!(&buf[2..7], b"\0\x03abc");
}

// spec: TURN-12-2, TURN-12-3, TURN-12-5
#[test]
fn an_expired_channel_rests_before_its_number_is_used_again() {
    let mut rig = Rig::allocated();
    let peer = addr("192.0.2.210:49191");
    rig.client.bind_channel(rig.now, peer).unwrap();
    let request = rig.request();
    let number: ChannelNumber = request.message().find().unwrap();
    rig.ok(&request);
    // Refreshes of the allocation are answered, those of the channel are not.
    for at in 1..=700 {
        for seen in rig.advance(at) {
            if seen.message().method() == wire::REFRESH {
                rig.refresh_ok(&seen, 600);
            }
        }
    }
    let mut buf = [0; 100];
    assert_eq!(
        rig.client.send(rig.now, peer, b"abc", &mut buf),
        Err(SendError::NoPermission)
    );
    rig.client.bind_channel(rig.now, peer).unwrap();
    let again = rig.request();
    assert_eq!(again.message().find(), Some(number));
    let other = addr("192.0.2.211:1");
    rig.client.bind_channel(rig.now, other).unwrap();
    let third = rig.request();
    assert_ne!(third.message().find(), Some(number));
}

#[test]
fn limits_are_reached() {
    let mut rig = Rig::allocated();
    for n in 0..128 {
        let peer = IpAddr::from([203, 0, 113, n]);
        // Not more than 64 requests can be under way.
        rig.client.create_permission(rig.now, peer).unwrap();
        if let Some(request) = rig.try_request() {
            rig.ok(&request);
        }
    }
    let peer = IpAddr::from([203, 0, 114, 0]);
    assert_eq!(
        rig.client.create_permission(rig.now, peer),
        Err(ClientError::Limit)
    );
    assert_eq!(
        rig.client
            .create_permission(rig.now, "2001:db8::1".parse().unwrap()),
        Err(ClientError::Family)
    );
    assert_eq!(
        rig.client.allocate(rig.now, AllocateOptions::default()),
        Err(ClientError::State)
    );
}

// spec: TURN-STR-3, TURN-STR-1, TURN-STR-2
#[test]
fn over_a_stream_anything_but_stun_before_the_allocation_is_fatal() {
    let id = StreamId(1);
    let config = ClientConfig::new(Some(Credentials::new("user", "secret")));
    let fresh = || {
        let now = Instant::ZERO;
        let mut client = Client::new(
            config.clone(),
            Path::Stream(id),
            Transport::Tcp,
            [1; 32],
            now,
        );
        client.allocate(now, AllocateOptions::default()).unwrap();
        client
    };
    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\x16\x03\x01\x00\x05\x01\x00\x00",
        b"\x40\x00\x00\x01x\0\0\0",
    ] {
        let mut client = fresh();
        let mut input = bytes;
        client.handle_stream(Instant::ZERO, id, &mut input);
        assert!(input.is_empty());
        assert!(matches!(
            client.poll_event(),
            Some(Event::AllocateFailed {
                cause: Cause::Framing(_),
                ..
            })
        ));
    }
    let mut client = fresh();
    client.handle_stream_closed(Instant::ZERO, id);
    assert!(matches!(
        client.poll_event(),
        Some(Event::AllocateFailed {
            cause: Cause::StreamClosed,
            ..
        })
    ));
}
