#![allow(clippy::arithmetic_side_effects, reason = "test code")]

//! The codec against the vectors of the specification, and round trips.

use core::fmt::Debug;
use core::net::SocketAddr;

use alloc::vec::Vec;

use proptest::prelude::*;
use stun_proto::wire::{
    Attribute, AttributeError, AttributeType, Class, ErrorCode, IntegrityAlgorithm, Key, Message,
    MessageType, Nonce, PasswordAlgorithm, PasswordAlgorithmId, PasswordAlgorithms, Realm,
    TransactionId, Username, Writer, XorMappedAddress,
};

use super::*;

fn bytes(hex_text: &str) -> Vec<u8> {
    let text: Vec<u8> = hex_text
        .bytes()
        .filter(|b| !b.is_ascii_whitespace())
        .collect();
    hex::decode(text).unwrap()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn key(algorithm: PasswordAlgorithmId) -> Key {
    Key::long_term(algorithm, b"George", b"example.com", b"wilma-6.7").unwrap()
}

const ALLOCATE: &str = "000300102112a442a56250d3f17abe679422de85000d000400000e100019000411000000";

const CHALLENGE: &str = "
    011300582112a442a56250d3f17abe679422de850009001300000401556e61757468656e74696361746564000014000b
    6578616d706c652e636f6d00001500206f624d61744a6f73326741414161646c3757375065445534684b4537326a6461
    800200080002000000010000";

const AUTHENTICATED: &str = "
    000300882112a442c271e932ad7446a32c234492000d000400000e1000190004110000000006000647656f7267650000
    0014000b6578616d706c652e636f6d00001500206f624d61744a6f73326741414161646c3757375065445534684b4537
    326a6461800200080002000000010000001d000400020000001c002083a0485c0f975a2c77b5289b649893d8cfc00299
    8808de602185afe1ceb8ad26";

const SUCCESS: &str = "
    010300442112a442c271e932ad7446a32c234492001600080001e242e112a64d0020000800013a4ae112a643000d0004
    000004b0001c0020ba391c27b9565555acfbf222deedcc08f28d851d75e15aed1489b21fba8d239c";

const AUTHENTICATED_5389: &str = "
    0003006c2112a442c271e932ad7446a32c234492000d000400000e1000190004110000000006000647656f7267650000
    0014000b6578616d706c652e636f6d000015001c662f2f3439396b39353464364f4c33346f4c39465354767936347341
    00080014fbb5b07d1994e5ac652924354d0399450d403f458028000442d972a3";

const SUCCESS_5389: &str = "
    010300402112a442c271e932ad7446a32c234492001600080001e242e112a64d0020000800013a4ae112a643000d0004
    000002580008001430a8a541b4e325fc7dbdaf8815359b27996fdb0b80280004574b7d20";

const CHANNEL_BIND_VECTOR: &str = "
    000900682112a4426490d3bc175aff3d84513212000c000440000000001200080001e135e112a6900006000647656f72
    676500000014000b6578616d706c652e636f6d000015001c662f2f3439396b39353464364f4c33346f4c394653547679
    363473410008001435d9b1b25ecd8cd120bf7842583b1d31e9c7a616";

const SEND_VECTOR: &str = "0016001c2112a4421278e9aca2711637ef7d33280012000800015c74e112a6d4001a0000\
                           0013000568656c6c6f000000";

const DATA_VECTOR: &str = "001700202112a4428231ae8f9242da9ff287feff001200140002a1470113a9fa9005f8f7\
                           9253f8acb6d298880013000268690000";

const ICMP_VECTOR: &str = "001700182112a4428231ae8f9242da9ff287feff0012000800015c74e112a6d480040008\
                           0000030400000500";

const ATTEMPT_VECTOR: &str = "001c00142112a4420102030405060708090a0b0c002a0004deadbeef00120008\
                              0001e135e112a690";

const CONNECTION_BIND_VECTOR: &str = "000b00082112a4420102030405060708090a0b0c002a0004deadbeef";

// spec: TURN-7.1-2, TURN-7.1-6
#[test]
fn the_first_allocate_is_written_byte_for_byte() {
    let expected = bytes(ALLOCATE);
    let message = Message::parse(&expected).unwrap();
    let mut buf = [0xFF; 100];
    let len = Writer::new(
        &mut buf,
        MessageType::request(super::ALLOCATE),
        message.transaction_id(),
    )
    .attribute(&Lifetime(3600))
    .attribute(&RequestedTransport::UDP)
    .finish()
    .unwrap();
    assert_eq!(buf[..len], expected[..]);
}

// spec: STUN-9.2.4-1
#[test]
fn the_challenge_is_read() {
    let challenge = bytes(CHALLENGE);
    let message = Message::parse(&challenge).unwrap();
    assert_eq!(
        message.message_type(),
        MessageType::request(super::ALLOCATE).error()
    );
    let error: ErrorCode<'_> = message.find().unwrap();
    assert_eq!(error.code(), 401);
    let realm: Realm<'_> = message.find().unwrap();
    assert_eq!(realm.as_str(), Some("example.com"));
    let offered: PasswordAlgorithms<'_> = message.find().unwrap();
    assert_eq!(offered, PasswordAlgorithms::SHA256_MD5);
    assert!(!message.has_integrity());
}

// spec: STUN-9.2.3.2-1, STUN-9.2.5-8
#[test]
fn the_authenticated_allocate_is_written_byte_for_byte() {
    let expected = bytes(AUTHENTICATED);
    let message = Message::parse(&expected).unwrap();
    let sha256 = key(PasswordAlgorithmId::SHA256);
    let proven = message.verify(&sha256).unwrap();
    assert_eq!(proven.algorithm(), IntegrityAlgorithm::Sha256);
    let mut buf = [0xFF; 300];
    let len = Writer::new(&mut buf, message.message_type(), message.transaction_id())
        .attribute(&Lifetime(3600))
        .attribute(&RequestedTransport::UDP)
        .attribute(&Username::new("George").unwrap())
        .attribute(&Realm::new("example.com").unwrap())
        .attribute(&Nonce::new("obMatJos2gAAAadl7W7PeDU4hKE72jda").unwrap())
        .attribute(&PasswordAlgorithms::SHA256_MD5)
        .attribute(&PasswordAlgorithm::new(PasswordAlgorithmId::SHA256))
        .message_integrity_sha256(&sha256)
        .finish()
        .unwrap();
    assert_eq!(buf[..len], expected[..]);
}

// spec: TURN-7.2-14
#[test]
fn the_successes_hold_both_addresses_and_the_lifetime() {
    for (vector, algorithm, lifetime) in [
        (SUCCESS, PasswordAlgorithmId::SHA256, 1200),
        (SUCCESS_5389, PasswordAlgorithmId::MD5, 600),
    ] {
        let expected = bytes(vector);
        let message = Message::parse(&expected).unwrap();
        message.verify(&key(algorithm)).unwrap();
        let relayed = XorRelayedAddress(addr("192.0.2.15:50000"));
        let mapped = XorMappedAddress(addr("192.0.2.1:7000"));
        assert_eq!(message.find(), Some(relayed));
        assert_eq!(message.find(), Some(mapped));
        assert_eq!(message.find(), Some(Lifetime(lifetime)));
        let mut buf = [0xFF; 200];
        let writer = Writer::new(&mut buf, message.message_type(), message.transaction_id())
            .attribute(&relayed)
            .attribute(&mapped)
            .attribute(&Lifetime(lifetime));
        let len = if algorithm == PasswordAlgorithmId::SHA256 {
            writer.message_integrity_sha256(&key(algorithm)).finish()
        } else {
            let sealed = writer.message_integrity(&key(algorithm));
            sealed.fingerprint().finish()
        };
        assert_eq!(buf[..len.unwrap()], expected[..]);
    }
}

// spec: STUN-14.5-1, STUN-14.7-1
#[test]
fn the_vector_of_rfc_5389_times_verifies() {
    let request = bytes(AUTHENTICATED_5389);
    let message = Message::parse(&request).unwrap();
    let proven = message.verify(&key(PasswordAlgorithmId::MD5)).unwrap();
    assert_eq!(proven.algorithm(), IntegrityAlgorithm::Sha1);
    assert_eq!(message.check_fingerprint(), Some(true));
    assert_eq!(message.find(), Some(RequestedTransport::UDP));
}

// spec: TURN-12.1-1
#[test]
fn channel_bind_is_written_byte_for_byte() {
    let expected = bytes(CHANNEL_BIND_VECTOR);
    let message = Message::parse(&expected).unwrap();
    assert_eq!(message.method(), CHANNEL_BIND);
    let mut buf = [0xFF; 200];
    let len = Writer::new(&mut buf, message.message_type(), message.transaction_id())
        .attribute(&ChannelNumber::of(Channel::FIRST))
        .attribute(&XorPeerAddress(addr("192.0.2.210:49191")))
        .attribute(&Username::new("George").unwrap())
        .attribute(&Realm::new("example.com").unwrap())
        .attribute(&Nonce::new("f//499k954d6OL34oL9FSTvy64sA").unwrap())
        .message_integrity(&key(PasswordAlgorithmId::MD5))
        .finish()
        .unwrap();
    assert_eq!(buf[..len], expected[..]);
}

/// Reads a message, compares one attribute after the other, and writes it again.
macro_rules! check {
    ($vector:expr, $ty:expr, $($attribute:expr),+ $(,)?) => {{
        let expected = bytes($vector);
        let message = Message::parse(&expected).unwrap();
        assert_eq!(message.message_type(), $ty);
        $(assert_eq!(message.find(), Some($attribute));)+
        let mut buf = [0xFF; 200];
        let writer = Writer::new(&mut buf, $ty, message.transaction_id());
        let len = writer$(.attribute(&$attribute))+.finish().unwrap();
        assert_eq!(buf[..len], expected[..]);
    }};
}

// spec: TURN-11.1-1, TURN-11.5-3, TURN-18.13-1, 6062-4.4-1
#[test]
fn indications_and_connection_bind_are_read_and_written() {
    let peer = XorPeerAddress(addr("192.0.2.150:32102"));
    check!(
        SEND_VECTOR,
        MessageType::indication(SEND),
        peer,
        DontFragment,
        Data(b"hello"),
    );
    check!(
        DATA_VECTOR,
        MessageType::indication(DATA),
        XorPeerAddress(addr("[2001:db8:1234:5678:11:2233:4455:6677]:32853")),
        Data(b"hi"),
    );
    let icmp = Icmp {
        ty: 3,
        code: 4,
        data: 1280,
    };
    check!(ICMP_VECTOR, MessageType::indication(DATA), peer, icmp);
    let id = ConnectionId([0xDE, 0xAD, 0xBE, 0xEF]);
    check!(
        ATTEMPT_VECTOR,
        MessageType::indication(CONNECTION_ATTEMPT),
        id,
        XorPeerAddress(addr("192.0.2.210:49191")),
    );
    check!(
        CONNECTION_BIND_VECTOR,
        MessageType::request(CONNECTION_BIND),
        id,
    );
}

// spec: STUN-5-4
#[test]
fn message_types_are_those_of_the_registry() {
    for (class, method, number) in [
        (Class::Request, super::ALLOCATE, 0x0003),
        (Class::Success, super::ALLOCATE, 0x0103),
        (Class::Error, super::ALLOCATE, 0x0113),
        (Class::Request, REFRESH, 0x0004),
        (Class::Indication, SEND, 0x0016),
        (Class::Indication, DATA, 0x0017),
        (Class::Request, CREATE_PERMISSION, 0x0008),
        (Class::Error, CREATE_PERMISSION, 0x0118),
        (Class::Success, CHANNEL_BIND, 0x0109),
        (Class::Error, CONNECT, 0x011A),
        (Class::Success, CONNECTION_BIND, 0x010B),
        (Class::Indication, CONNECTION_ATTEMPT, 0x001C),
    ] {
        assert_eq!(MessageType::new(class, method).to_wire(), number);
    }
}

// spec: TURN-12.5-2, TURN-12.6-1, TURN-12.6-4
#[test]
fn channel_data_vectors() {
    let channel = Channel::FIRST;
    let datagram = bytes("4000000568656c6c6f");
    let stream = bytes("4000000568656c6c6f000000");
    let hello = ChannelData {
        channel,
        data: b"hello",
    };
    assert_eq!(ChannelData::parse(&datagram), Some(hello));
    assert_eq!(ChannelData::parse(&stream), Some(hello));
    let empty = ChannelData { channel, data: b"" };
    assert_eq!(ChannelData::parse(&bytes("40000000")), Some(empty));
    assert_eq!(channel_header(channel, 5), Some([0x40, 0, 0, 5]));
    assert_eq!(channel_header(channel, 65_536), None);
    for (len, padding) in [(0, 0), (1, 3), (2, 2), (3, 1), (4, 0), (5, 3)] {
        assert_eq!(ChannelData::padding(len), padding);
    }
    for cut in 0..datagram.len() {
        assert_eq!(ChannelData::parse(&datagram[..cut]), None);
    }
}

// spec: TURN-12-1, TURN-12.6-1
#[test]
fn channel_numbers_end_where_rfc_8656_says() {
    for (number, strict, old) in [
        (0x0000, false, false),
        (0x3FFF, false, false),
        (0x4000, true, true),
        (0x4FFF, true, true),
        (0x5000, false, true),
        (0x7FFF, false, true),
        (0x8000, false, false),
        (0xFFFF, false, false),
    ] {
        assert_eq!(Channel::new(number).is_some(), strict, "{number:#x}");
        assert_eq!(Channel::new_rfc5766(number).is_some(), old, "{number:#x}");
        let parsed = ChannelData::parse(&[(number >> 8) as u8, number as u8, 0, 0]).is_some();
        assert_eq!(parsed, strict, "{number:#x}");
    }
}

/// Whether this attribute accepts values of these lengths and no others, up to 40.
fn check_lengths<A: for<'a> Attribute<'a> + Debug>(good: &[usize], value: u8) {
    for len in 0..=40 {
        let bytes = alloc::vec![value; len];
        let read = A::decode(&bytes, TransactionId([0; 12]));
        assert_eq!(read.is_ok(), good.contains(&len), "{len}: {read:?}");
        if !good.contains(&len) {
            let error = read.unwrap_err();
            assert_eq!(error, AttributeError::Length);
        }
    }
}

// spec: SEC-S-03
#[test]
fn fixed_attributes_have_one_length() {
    check_lengths::<ChannelNumber>(&[4], 1);
    check_lengths::<Lifetime>(&[4], 1);
    check_lengths::<RequestedAddressFamily>(&[4], 1);
    check_lengths::<AdditionalAddressFamily>(&[4], 1);
    check_lengths::<RequestedTransport>(&[4], 1);
    check_lengths::<ReservationToken>(&[8], 1);
    check_lengths::<ConnectionId>(&[4], 1);
    check_lengths::<EvenPort>(&[1], 1);
    check_lengths::<DontFragment>(&[0], 1);
    check_lengths::<Icmp>(&[8], 1);
    check_lengths::<XorPeerAddress>(&[8], 1);
    check_lengths::<XorRelayedAddress>(&[20], 2);
}

#[test]
fn reserved_bits_are_sent_as_zero_and_ignored() {
    let id = TransactionId([0; 12]);
    let channel = ChannelNumber::decode(&[0x40, 1, 0xFF, 0xFF], id).unwrap();
    assert_eq!(channel, ChannelNumber(0x4001));
    let transport = RequestedTransport::decode(&[17, 1, 2, 3], id).unwrap();
    assert_eq!(transport, RequestedTransport::UDP);
    let even = EvenPort::decode(&[0x7F], id).unwrap();
    assert!(!even.reserve_next);
    let icmp = Icmp::decode(&[9, 9, 3, 4, 0, 0, 5, 0], id).unwrap();
    assert_eq!((icmp.ty, icmp.code, icmp.data), (3, 4, 1280));
    let family = RequestedAddressFamily::decode(&[2, 9, 9, 9], id).unwrap();
    assert_eq!(family.0, AddressFamily::V6);
    for bad in [0, 3, 255] {
        let family = RequestedAddressFamily::decode(&[bad, 0, 0, 0], id);
        assert_eq!(family, Err(AttributeError::AddressFamily));
    }
    let mut out = [0xFF; 4];
    RequestedTransport::TCP.encode(&mut out, id);
    assert_eq!(out, [6, 0, 0, 0]);
    let mut out = [0xFF; 8];
    Icmp {
        ty: 3,
        code: 0,
        data: 0,
    }
    .encode(&mut out, id);
    assert_eq!(out, [0, 0, 3, 0, 0, 0, 0, 0]);
}

#[test]
fn attribute_numbers_are_those_of_the_registry() {
    let numbers = [
        (ChannelNumber::TYPE, 0x000C),
        (Lifetime::TYPE, 0x000D),
        (XorPeerAddress::TYPE, 0x0012),
        (<Data<'_> as Attribute<'_>>::TYPE, 0x0013),
        (XorRelayedAddress::TYPE, 0x0016),
        (RequestedAddressFamily::TYPE, 0x0017),
        (EvenPort::TYPE, 0x0018),
        (RequestedTransport::TYPE, 0x0019),
        (DontFragment::TYPE, 0x001A),
        (<AccessToken<'_> as Attribute<'_>>::TYPE, 0x001B),
        (ReservationToken::TYPE, 0x0022),
        (ConnectionId::TYPE, 0x002A),
        (AdditionalAddressFamily::TYPE, 0x8000),
        (<AddressErrorCode<'_> as Attribute<'_>>::TYPE, 0x8001),
        (Icmp::TYPE, 0x8004),
        (<ThirdPartyAuthorization<'_> as Attribute<'_>>::TYPE, 0x802E),
        (<MobilityTicket<'_> as Attribute<'_>>::TYPE, 0x8030),
    ];
    for (ty, number) in numbers {
        assert_eq!(ty, AttributeType(number));
    }
}

#[test]
fn an_address_error_names_family_and_code() {
    let id = TransactionId([0; 12]);
    let error = AddressErrorCode {
        family: AddressFamily::V6,
        error: ErrorCode::new(440).with_reason("no"),
    };
    let mut out = [0xFF; 6];
    assert_eq!(error.encoded_len(), 6);
    error.encode(&mut out, id);
    assert_eq!(out, [2, 0, 4, 40, b'n', b'o']);
    assert_eq!(AddressErrorCode::decode(&out, id), Ok(error));
    for bad in [&[][..], &[3, 0, 4, 40], &[2, 0, 4], &[2, 0, 7, 40]] {
        assert!(AddressErrorCode::decode(bad, id).is_err());
    }
}

/// Writes an attribute, reads it again, and compares.
fn check_round_trip<A>(attribute: A)
where
    A: for<'a> Attribute<'a> + Copy + Debug + PartialEq,
{
    let id = TransactionId(*b"abcdefghijkl");
    let mut buf = [0xEE; 200];
    let len = Writer::new(&mut buf, MessageType::request(super::ALLOCATE), id)
        .attribute(&attribute)
        .finish()
        .unwrap();
    let message = Message::parse(&buf[..len]).unwrap();
    assert_eq!(message.get::<A>(), Some(Ok(attribute)));
}

proptest! {
    #[test]
    fn attributes_survive_a_round_trip(
        peer: SocketAddr,
        number: u32,
        token: [u8; 8],
        flag: bool,
        payload in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        // Scope and flow label are not sent.
        let peer = SocketAddr::new(peer.ip(), peer.port());
        check_round_trip(XorPeerAddress(peer));
        check_round_trip(XorRelayedAddress(peer));
        check_round_trip(ChannelNumber(number as u16));
        check_round_trip(Lifetime(number));
        check_round_trip(RequestedTransport(number as u8));
        check_round_trip(RequestedAddressFamily(AddressFamily::of(peer.ip())));
        check_round_trip(EvenPort { reserve_next: flag });
        check_round_trip(ReservationToken(token));
        check_round_trip(ConnectionId(number.to_be_bytes()));
        check_round_trip(Icmp { ty: number as u8, code: token[0], data: number });
        let id = TransactionId(*b"abcdefghijkl");
        let mut buf = [0xEE; 300];
        let ty = MessageType::indication(DATA);
        let len = Writer::new(&mut buf, ty, id)
            .attribute(&Data(&payload))
            .attribute(&MobilityTicket(&payload))
            .attribute(&AccessToken(&payload))
            .finish()
            .unwrap();
        let message = Message::parse(&buf[..len]).unwrap();
        prop_assert_eq!(message.find(), Some(Data(&payload)));
        prop_assert_eq!(message.find(), Some(MobilityTicket(&payload)));
        prop_assert_eq!(message.find(), Some(AccessToken(&payload)));
    }

    // spec: SEC-T-10
    #[test]
    fn channel_data_never_holds_more_than_came(datagram in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Some(ChannelData { data, .. }) = ChannelData::parse(&datagram) {
            prop_assert!(data.len() + 4 <= datagram.len());
        }
    }

    // spec: SEC-S-03
    #[test]
    fn no_value_makes_a_decoder_panic(value in prop::collection::vec(any::<u8>(), 0..80)) {
        let id = TransactionId([7; 12]);
        let _ = XorPeerAddress::decode(&value, id);
        let _ = AddressErrorCode::decode(&value, id);
        let _ = Icmp::decode(&value, id);
        let _ = EvenPort::decode(&value, id);
        let _ = AdditionalAddressFamily::decode(&value, id);
    }
}

// spec: STUN-5-3
#[test]
fn every_flipped_bit_is_noticed_and_every_cut_refused() {
    for (vector, algorithm) in [
        (AUTHENTICATED, PasswordAlgorithmId::SHA256),
        (SUCCESS, PasswordAlgorithmId::SHA256),
        (AUTHENTICATED_5389, PasswordAlgorithmId::MD5),
        (SUCCESS_5389, PasswordAlgorithmId::MD5),
        (CHANNEL_BIND_VECTOR, PasswordAlgorithmId::MD5),
    ] {
        let good = bytes(vector);
        let key = key(algorithm);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(message) = Message::parse(&bad) {
                let proven = message.verify(&key).is_ok();
                let whole = message.check_fingerprint() == Some(true);
                // What follows the integrity attribute is covered by the fingerprint alone.
                let behind = bit / 8 >= good.len() - 8 && algorithm == PasswordAlgorithmId::MD5;
                assert!(!proven || (behind && !whole), "bit {bit}");
            }
        }
        for cut in 0..good.len() {
            assert!(Message::parse(&good[..cut]).is_err());
        }
    }
}
