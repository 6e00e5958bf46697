#![allow(
    clippy::arithmetic_side_effects,
    reason = "offsets of test vectors are small"
)]

use alloc::vec::Vec;

use super::*;

const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.split_whitespace().collect::<alloc::string::String>()).unwrap()
}

fn request() -> Vec<u8> {
    hex("000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff
         80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249
         c1b571a280280004e57a3bcf")
}

fn response_v4() -> Vec<u8> {
    hex("0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643
         000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96")
}

fn response_v6() -> Vec<u8> {
    hex("010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9fa
         a5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c")
}

fn long_term() -> Vec<u8> {
    hex("000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c
         662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f72670000080014
         f67024656dd64a3e02b8e0712e85c9a28ca89666")
}

fn both_integrities() -> Vec<u8> {
    hex("000100542112a442b7e7a701bc34d686fa87dfae000600096576746a3a68367659000000000800140382c46e3e4c413a
         025ec8c449f2c7694ab9c08c001c0020d923881dc8cd1261a43ea5cb5cb386678d4b8015cba2831db965df7e0301defb
         802800041df5f79b")
}

fn truncated_sha256() -> Vec<u8> {
    hex("0001002c2112a442b7e7a701bc34d686fa87dfae000600096576746a3a68367659000000001c001040e26b42f7542429
         12c2b6b9fbdca907802800047ef9382b")
}

fn corrected_b1() -> Vec<u8> {
    hex("000100882112a44278ad3433c6ad72c029da412e001e00204a3cf38fef6992bda952c6780417da0f24819415569e60b2
         05c46e41407f1704001500296f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c3946535476
         79363473410000000014000b6578616d706c652e6f726700001c0020234112fbd4e27f983eb4032836f998216f5b23f8
         d927753fbc4f882bfbdf0dec")
}

// spec: STUN-14-1, STUN-14.5-1, STUN-14.7-1, STUN-9.1.1-1, 5389-15-1
#[test]
fn rfc5769_request_has_the_values_and_codes_of_the_rfc() {
    let bytes = request();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(
        message.message_type(),
        MessageType::request(Method::BINDING)
    );
    let software: Software<'_> = message.find().unwrap();
    assert_eq!(software.as_str(), Some("STUN test client"));
    assert_eq!(message.find(), Some(Priority(0x6e00_01ff)));
    assert_eq!(message.find(), Some(IceControlled(0x932f_f9b1_5126_3b36)));
    let username: Username<'_> = message.find().unwrap();
    assert_eq!(username.as_str(), Some("evtj:h6vY"));
    let verified = message.verify(&Key::short_term(PASSWORD)).unwrap();
    assert_eq!(verified.algorithm(), IntegrityAlgorithm::Sha1);
    assert_eq!(message.check_fingerprint(), Some(true));
}

// spec: STUN-14.2-1
#[test]
fn rfc5769_responses_hold_the_mapped_address_of_each_family() {
    let cases = [
        (response_v4(), "192.0.2.1:32853"),
        (
            response_v6(),
            "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
        ),
    ];
    for (bytes, addr) in cases {
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.class(), Class::Success);
        let mapped: XorMappedAddress = message.find().unwrap();
        assert_eq!(mapped.0, addr.parse().unwrap());
        assert!(message.verify(&Key::short_term(PASSWORD)).is_ok());
        assert_eq!(message.check_fingerprint(), Some(true));
    }
}

// spec: STUN-9.2.2-1, STUN-18.5-1
#[test]
fn long_term_keys_and_the_rfc5769_long_term_request() {
    let user = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}".as_bytes();
    let key = |algorithm| Key::long_term(algorithm, user, b"example.org", b"TheMatrIX").unwrap();
    let bytes = long_term();
    let message = Message::parse(&bytes).unwrap();
    assert!(message.verify(&key(PasswordAlgorithmId::MD5)).is_ok());
    assert_eq!(message.check_fingerprint(), None);

    let bytes = corrected_b1();
    let message = Message::parse(&bytes).unwrap();
    let verified = message.verify(&key(PasswordAlgorithmId::SHA256)).unwrap();
    assert_eq!(verified.algorithm(), IntegrityAlgorithm::Sha256);

    // The keys themselves: a MAC by the derived key is one by the known bytes.
    let cases = [
        (PasswordAlgorithmId::MD5, "8493fbc53ba582fb4c044c456bdc40eb"),
        (
            PasswordAlgorithmId::SHA256,
            "07e934117abd40836e7c6329b54731b2b2d2a5f9a71f544922d75e0730d8251b",
        ),
    ];
    for (algorithm, bytes) in cases {
        for (realm, password) in [("realm", "pass"), ("\"realm\"", "pass\0")] {
            let derived =
                Key::long_term(algorithm, b"user", realm.as_bytes(), password.as_bytes()).unwrap();
            let known = Key::from_bytes(&hex(bytes));
            assert_eq!(derived.sha1(&[b"x"]), known.sha1(&[b"x"]));
        }
    }
    assert!(Key::long_term(PasswordAlgorithmId(3), b"u", b"r", b"p").is_none());
}

// spec: STUN-14.4-1
#[test]
fn userhash_of_rfc8489_b1() {
    let user = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}".as_bytes();
    let bytes = corrected_b1();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(
        message.find(),
        Some(Userhash(userhash(user, b"example.org")))
    );
    assert_eq!(
        Userhash::decode(&[0; 31], TransactionId([0; 12])),
        Err(AttributeError::Length)
    );
}

// spec: STUN-5-3
#[test]
fn rfc8489_b1_as_printed_has_a_wrong_length_and_does_not_parse() {
    let mut bytes = corrected_b1();
    bytes[3] = 0x9c;
    assert_eq!(
        Message::parse(&bytes).unwrap_err().kind,
        ParseErrorKind::Length
    );
}

// spec: STUN-14.6-1, STUN-14.6-2
#[test]
fn sha256_is_checked_first_and_truncation_needs_leave() {
    let key = Key::short_term(PASSWORD);
    let bytes = both_integrities();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(
        message.verify(&key).unwrap().algorithm(),
        IntegrityAlgorithm::Sha256
    );

    let bytes = truncated_sha256();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.verify(&key).unwrap_err(), IntegrityError::Mismatch);
    assert!(message.verify_truncated(&key, 16).is_ok());
    assert!(message.verify_truncated(&key, 20).is_err());
}

// spec: STUN-14.6-1
#[test]
fn sha256_of_an_illegal_length_is_a_mismatch_even_with_the_right_prefix() {
    let key = Key::short_term(PASSWORD);
    for len in [0_usize, 4, 12, 15, 17, 18, 33, 36] {
        let mut buf = [0; 128];
        let ty = MessageType::request(Method::BINDING);
        let id = TransactionId([9; 12]);
        let full = Writer::new(&mut buf, ty, id)
            .raw(AttributeType::MESSAGE_INTEGRITY_SHA256, &[0; 36][..len])
            .finish()
            .unwrap();
        let covered_len = ((4 + len).next_multiple_of(4)) as u16;
        buf[2..4].copy_from_slice(&covered_len.to_be_bytes());
        let code = key.sha256(&[&buf[..20]]);
        let n = len.min(32);
        buf[24..24 + n].copy_from_slice(&code[..n]);
        let message = Message::parse(&buf[..full]).unwrap();
        assert_eq!(
            message.verify_truncated(&key, 0).unwrap_err(),
            IntegrityError::Mismatch,
            "length {len}"
        );
    }
}

// Trap T13.
#[test]
fn writer_reproduces_the_vectors() {
    let key = Key::short_term(PASSWORD);
    let bytes = both_integrities();
    let message = Message::parse(&bytes).unwrap();
    let mut buf = [0xAA; 256];
    let len = Writer::new(&mut buf, message.message_type(), message.transaction_id())
        .attribute(&Username::new("evtj:h6vY").unwrap())
        .message_integrity(&key)
        .message_integrity_sha256(&key)
        .fingerprint()
        .finish()
        .unwrap();
    assert_eq!(&buf[..len], &bytes[..]);

    let bytes = truncated_sha256();
    let len = Writer::new(&mut buf, message.message_type(), message.transaction_id())
        .attribute(&Username::new("evtj:h6vY").unwrap())
        .message_integrity_sha256_truncated(&key, 16)
        .fingerprint()
        .finish()
        .unwrap();
    assert_eq!(&buf[..len], &bytes[..]);
}

// spec: STUN-14.14-1, STUN-14.9-1, STUN-14.10-1, STUN-14.3-1
#[test]
fn texts_have_a_sending_and_a_larger_reading_limit() {
    let text = "x".repeat(764);
    assert!(Username::new(&text[..508]).is_ok());
    assert_eq!(Username::new(&text[..509]), Err(TextTooLong { limit: 508 }));
    assert!(Realm::new(&text[..509]).is_ok() && Realm::new(&text[..510]).is_err());
    assert!(Nonce::new(&text[..509]).is_ok() && Nonce::new(&text[..510]).is_err());
    assert!(Software::new(&text[..509]).is_ok() && Software::new(&text[..510]).is_err());
    let id = TransactionId([0; 12]);
    let (most, more) = (&text.as_bytes()[..763], text.as_bytes());
    assert!(Username::decode(most, id).is_ok() && Username::decode(more, id).is_err());
    assert!(Realm::decode(most, id).is_ok() && Realm::decode(more, id).is_err());
    assert!(Nonce::decode(most, id).is_ok() && Nonce::decode(more, id).is_err());
    assert!(Software::decode(most, id).is_ok() && Software::decode(more, id).is_err());
    assert_eq!(Username::decode(&[0xFF], id).unwrap().as_str(), None);
}

// spec: STUN-5-4
#[test]
fn every_class_and_method_survives_the_type_field() {
    for method in 0..=0xFFF {
        for class in [
            Class::Request,
            Class::Indication,
            Class::Success,
            Class::Error,
        ] {
            let ty = MessageType::new(class, Method::new(method));
            assert_eq!((ty.class(), ty.method().number()), (class, method));
            assert_eq!(MessageType::from_wire(ty.to_wire()), Some(ty));
        }
    }
    let wire = |class, method| MessageType::new(class, Method::new(method)).to_wire();
    assert_eq!(wire(Class::Request, 0xFF), 0x02EF);
    assert_eq!(wire(Class::Indication, 0xFF), 0x02FF);
    assert_eq!(wire(Class::Success, 0xFF), 0x03EF);
    assert_eq!(wire(Class::Error, 0xFF), 0x03FF);
    assert_eq!(wire(Class::Error, 0xFFF), 0x3FFF);
    assert_eq!(wire(Class::Success, 0x00B), 0x010B);
}

fn kind_of(bytes: &[u8]) -> ParseErrorKind {
    Message::parse(bytes).unwrap_err().kind
}

// Trap T19: older dialects have no cookie.
// spec: STUN-5-1, STUN-5-2, STUN-5-3, SEC-S-01
#[test]
fn headers_that_are_not_stun() {
    let good = request();
    let with = |index: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[index] = value;
        bytes
    };
    assert_eq!(kind_of(&with(0, 0x40)), ParseErrorKind::NotStun);
    assert_eq!(kind_of(&with(0, 0x80)), ParseErrorKind::NotStun);
    for index in 4..8 {
        assert_eq!(kind_of(&with(index, 0)), ParseErrorKind::Cookie);
    }
    for len in [0x54, 0x57, 0x59, 0x5A, 0x5C] {
        assert_eq!(kind_of(&with(3, len)), ParseErrorKind::Length);
    }
    assert_eq!(kind_of(&with(2, 0xFF)), ParseErrorKind::Length);
    for len in 0..20 {
        assert_eq!(kind_of(&good[..len]), ParseErrorKind::Truncated);
    }
    for more in 1..=4 {
        let mut bytes = good.clone();
        bytes.resize(good.len() + more, 0);
        assert_eq!(kind_of(&bytes), ParseErrorKind::Length);
    }
}

/// A Binding request with these bytes as its attributes.
fn message_with(attributes: &[u8]) -> Vec<u8> {
    let mut bytes = hex("000100002112a442000102030405060708090a0b");
    bytes[2..4].copy_from_slice(&(attributes.len() as u16).to_be_bytes());
    bytes.extend_from_slice(attributes);
    bytes
}

// spec: STUN-14-2, SEC-S-02
#[test]
fn attributes_must_lie_inside_and_are_limited_in_number() {
    let overrun = [
        &[0x80, 0x22, 0, 1][..],
        &[0x80, 0x22, 0, 5, 1, 2, 3, 4],
        &[0x80, 0x22, 0xFF, 0xFF, 1, 2, 3, 4],
        &[0x80, 0x22, 0xFF, 0xFC],
    ];
    for attributes in overrun {
        let bytes = message_with(attributes);
        let error = Message::parse(&bytes).unwrap_err();
        assert_eq!(error.kind, ParseErrorKind::AttributeOverrun);
        assert_eq!(error.offset, 20);
    }
    let empty = [0x80, 0x99, 0, 0];
    assert!(Message::parse(&message_with(&empty.repeat(MAX_ATTRIBUTES))).is_ok());
    for count in [MAX_ATTRIBUTES + 1, 16_000] {
        assert_eq!(
            kind_of(&message_with(&empty.repeat(count))),
            ParseErrorKind::TooManyAttributes
        );
    }
}

// spec: STUN-14.7-2
#[test]
fn nothing_follows_the_fingerprint() {
    let fingerprint = [0x80, 0x28, 0, 4, 1, 2, 3, 4];
    let good = message_with(&fingerprint);
    assert_eq!(
        Message::parse(&good).unwrap().check_fingerprint(),
        Some(false)
    );
    let mut more = fingerprint.to_vec();
    more.extend_from_slice(&[0x80, 0x22, 0, 0]);
    assert_eq!(kind_of(&message_with(&more)), ParseErrorKind::Fingerprint);
    let twice = [fingerprint, fingerprint].concat();
    assert_eq!(kind_of(&message_with(&twice)), ParseErrorKind::Fingerprint);
    assert_eq!(
        kind_of(&message_with(&[0x80, 0x28, 0, 3, 1, 2, 3, 0])),
        ParseErrorKind::Fingerprint
    );
}

// Trap T9.
// spec: STUN-14-3, STUN-9-1, STUN-9-2, SEC-S-04
#[test]
fn only_the_first_in_front_of_integrity_counts() {
    let key = Key::short_term(PASSWORD);
    let mut buf = [0; 256];
    let ty = MessageType::request(Method::BINDING);
    let len = Writer::new(&mut buf, ty, TransactionId([1; 12]))
        .attribute(&Priority(1))
        .attribute(&Priority(2))
        .message_integrity(&key)
        .finish()
        .unwrap();
    let mut bytes = buf[..len].to_vec();
    bytes.extend_from_slice(&[0x00, 0x06, 0, 1, b'x', 0, 0, 0, 0x7F, 0x00, 0, 0]);
    let total = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&total.to_be_bytes());

    let message = Message::parse(&bytes).unwrap();
    assert!(message.verify(&key).is_ok());
    assert_eq!(message.find(), Some(Priority(1)));
    assert_eq!(message.get_all::<Priority>().count(), 2);
    assert!(message.find::<Username<'_>>().is_none());
    assert_eq!(message.unknown_required(|_| false).count(), 2);
    assert!(
        message
            .unknown_required(|ty| ty == Priority::TYPE)
            .next()
            .is_none()
    );
}

// spec: STUN-14.1-1, SEC-S-03
#[test]
fn addresses_have_the_length_of_their_family() {
    let id = TransactionId([3; 12]);
    for len in 0..40 {
        for family in 0..4 {
            let mut value = alloc::vec![0; len];
            if len > 1 {
                value[1] = family;
            }
            let right = (family == 1 && len == 8) || (family == 2 && len == 20);
            assert_eq!(XorMappedAddress::decode(&value, id).is_ok(), right);
            assert_eq!(MappedAddress::decode(&value, id).is_ok(), right);
            assert_eq!(AlternateServer::decode(&value, id).is_ok(), right);
        }
    }
    assert_eq!(
        MappedAddress::decode(&[0, 3, 0, 0, 1, 2, 3, 4], id),
        Err(AttributeError::AddressFamily)
    );
    // The first byte is ignored.
    assert!(MappedAddress::decode(&[0xFF, 1, 0, 0, 1, 2, 3, 4], id).is_ok());
}

// spec: SEC-S-03
#[test]
fn fixed_size_attributes_refuse_every_other_length() {
    let id = TransactionId([3; 12]);
    let zeros = alloc::vec![0_u8; 65_535];
    for len in (0..=40).chain([65_535]) {
        let value = &zeros[..len];
        assert_eq!(Priority::decode(value, id).is_ok(), len == 4);
        assert_eq!(IceControlled::decode(value, id).is_ok(), len == 8);
        assert_eq!(IceControlling::decode(value, id).is_ok(), len == 8);
        assert_eq!(UseCandidate::decode(value, id).is_ok(), len == 0);
        assert_eq!(ChangeRequest::decode(value, id).is_ok(), len == 4);
        assert_eq!(Userhash::decode(value, id).is_ok(), len == 32);
        assert_eq!(TransmitCounter::decode(value, id).is_ok(), len == 4);
        assert_eq!(PasswordAlgorithm::decode(value, id).is_ok(), len == 4);
        assert!(ErrorCode::decode(value, id).is_err());
        assert!(ResponsePort::decode(value, id).is_err(), "port 0");
        let even = len.is_multiple_of(2) && len <= 128;
        assert_eq!(UnknownAttributes::decode(value, id).is_ok(), even);
    }
}

// Trap T11.
// spec: STUN-14.8-1, STUN-14.8-2
#[test]
fn error_codes_and_their_reasons() {
    let id = TransactionId([0; 12]);
    for (code, head) in [
        (401, [0, 0, 4, 1]),
        (420, [0, 0, 4, 0x14]),
        (438, [0, 0, 4, 0x26]),
        (486, [0, 0, 4, 0x56]),
        (508, [0, 0, 5, 8]),
    ] {
        let error = ErrorCode::new(code);
        let mut out = alloc::vec![0; error.encoded_len()];
        error.encode(&mut out, id);
        assert_eq!(out[..4], head);
        assert_eq!(ErrorCode::decode(&out, id), Ok(error));
    }
    // Reserved bits are ignored, an empty reason is legal, a trailing NUL is not shown.
    assert_eq!(
        ErrorCode::decode(&[0xFF, 0xFF, 0xF4, 1], id)
            .unwrap()
            .code(),
        401
    );
    assert_eq!(
        ErrorCode::decode(b"\0\0\x04\x01no\0", id).unwrap().reason(),
        b"no"
    );
    assert!(ErrorCode::decode(b"\0\0\x04\x01\xFF\xFE", id).is_ok());
    for (class, number) in [(0, 1), (1, 1), (2, 0), (7, 0), (4, 100), (4, 255)] {
        assert!(ErrorCode::decode(&[0, 0, class, number], id).is_err());
    }
    let long = "é".repeat(100);
    assert_eq!(ErrorCode::new(400).with_reason(&long).reason().len(), 126);
}

// spec: STUN-14.11-1, STUN-14.12-1
#[test]
fn password_algorithms_are_a_list_of_padded_entries() {
    let id = TransactionId([0; 12]);
    let list = [0, 2, 0, 0, 0, 1, 0, 3, 9, 9, 9, 0, 0, 7, 0, 1, 5];
    let ids: Vec<_> = PasswordAlgorithms::decode(&list, id)
        .unwrap()
        .iter()
        .map(|entry| (entry.id.0, entry.parameters.len()))
        .collect();
    assert_eq!(ids, [(2, 0), (1, 3), (7, 1)]);
    for bad in [&[0][..], &[0, 1, 0], &[0, 1, 0, 1], &[0, 1, 0xFF, 0xFF, 0]] {
        assert!(PasswordAlgorithms::decode(bad, id).is_err());
    }
    assert!(PasswordAlgorithm::decode(&list, id).is_err());
    let md5 = PasswordAlgorithm::new(PasswordAlgorithmId::MD5);
    let mut out = [9; 4];
    md5.encode(&mut out, id);
    assert_eq!(out, [0, 1, 0, 0]);
    assert_eq!(PasswordAlgorithm::decode(&out, id), Ok(md5));
    assert_eq!(
        PasswordAlgorithms::SHA256_MD5.as_bytes(),
        [0, 2, 0, 0, 0, 1, 0, 0]
    );
}

// spec: STUN-14.13-1
#[test]
fn unknown_attributes_pad_like_any_other() {
    let mut buf = [0xAA; 64];
    let unknown = UnknownAttributes([AttributeType(0x7FFF)].into_iter().collect());
    let ty = MessageType::request(Method::BINDING).error();
    let len = Writer::new(&mut buf, ty, TransactionId([0; 12]))
        .attribute(&unknown)
        .finish()
        .unwrap();
    assert_eq!(&buf[20..len], [0x00, 0x0A, 0, 2, 0x7F, 0xFF, 0, 0]);
}

// spec: 5780-7.2-1, STUN-14.15-1, STUN-14.16-1
#[test]
fn the_other_attributes_in_bytes() {
    fn check<'a, A: Attribute<'a> + PartialEq + core::fmt::Debug>(attribute: A, wire: &'a [u8]) {
        let id = TransactionId([0; 12]);
        let mut out = alloc::vec![0xEE; attribute.encoded_len()];
        attribute.encode(&mut out, id);
        assert_eq!(out, wire);
        assert_eq!(A::decode(wire, id), Ok(attribute));
    }
    let change = |change_ip, change_port| ChangeRequest {
        change_ip,
        change_port,
    };
    check(change(true, true), &[0, 0, 0, 6]);
    check(change(true, false), &[0, 0, 0, 4]);
    check(change(false, true), &[0, 0, 0, 2]);
    let addr = "192.0.2.1:32853".parse().unwrap();
    check(AlternateServer(addr), &[0, 1, 0x80, 0x55, 192, 0, 2, 1]);
    check(ResponseOrigin(addr), &[0, 1, 0x80, 0x55, 192, 0, 2, 1]);
    check(OtherAddress(addr), &[0, 1, 0x80, 0x55, 192, 0, 2, 1]);
    check(ResponsePort(1), &[0, 1]);
    check(Padding { len: 5 }, &[0; 5]);
    check(
        TransmitCounter {
            request: 2,
            response: 1,
        },
        &[0, 0, 2, 1],
    );
    check(AlternateDomain::new("example.org").unwrap(), b"example.org");
    assert!(AlternateDomain::new(&"a".repeat(256)).is_err());
    check(UseCandidate, &[]);
}

#[test]
fn no_bit_of_a_vector_can_be_flipped_unnoticed() {
    let short = Key::short_term(PASSWORD);
    let vectors = [request(), response_v4(), response_v6(), both_integrities()];
    for good in vectors {
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 0x80 >> (bit % 8);
            let noticed = match Message::parse(&bytes) {
                Err(_) => true,
                Ok(message) => {
                    message.verify(&short).is_err() || message.check_fingerprint() != Some(true)
                }
            };
            assert!(noticed, "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(Message::parse(&good[..len]).is_err());
        }
    }
}

// Trap T12.
#[test]
fn writer_reports_what_does_not_fit_and_leaves_no_stale_bytes() {
    let ty = MessageType::request(Method::BINDING);
    let id = TransactionId([1; 12]);
    let key = Key::short_term(PASSWORD);
    let write = |buf: &mut [u8]| {
        Writer::new(buf, ty, id)
            .attribute(&Username::new("abc").unwrap())
            .message_integrity(&key)
            .fingerprint()
            .finish()
    };
    let mut buf = [0xAA; 60];
    assert_eq!(write(&mut buf), Ok(60));
    assert_eq!(buf[27], 0, "padding is zero");
    for len in 0..60 {
        assert_eq!(write(&mut buf[..len]), Err(WriteError::BufferTooSmall));
    }
    let mut large = alloc::vec![0; 140_000];
    let too_long = alloc::vec![0; 65_536];
    let result = Writer::new(&mut large, ty, id)
        .raw(AttributeType(0x8022), &too_long)
        .finish();
    assert_eq!(result, Err(WriteError::TooLong));
    let half = alloc::vec![0; 40_000];
    let result = Writer::new(&mut large, ty, id)
        .raw(AttributeType(0x8022), &half)
        .raw(AttributeType(0x8022), &half)
        .finish();
    assert_eq!(result, Err(WriteError::TooLong));
}

// spec: SEC-G-20
#[test]
fn what_others_send_is_shown_short_and_escaped() {
    let hostile = "\x1b[2J\r\nFAKE ".repeat(50);
    let value = &hostile.as_bytes()[..500];
    let bytes = message_with(&[&[0x00, 0x06, 0x01, 0xF4][..], value].concat());
    let message = Message::parse(&bytes).unwrap();
    let raw = message.attributes().next().unwrap();
    let reason = [&[0, 0, 4, 0][..], value].concat();
    let shown = [
        alloc::format!("{message:?}"),
        alloc::format!("{raw:?}"),
        alloc::format!("{:?}", message.find::<Username<'_>>().unwrap()),
        alloc::format!(
            "{:?}",
            ErrorCode::decode(&reason, TransactionId([0; 12])).unwrap()
        ),
    ];
    for text in shown {
        assert!(text.len() < 400, "{text}");
        assert!(
            text.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
            "{text}"
        );
    }
}

// spec: SEC-G-15
#[test]
fn keys_do_not_show_in_debug() {
    let text = alloc::format!("{:?}", Key::short_term("canary"));
    assert_eq!(text, "Key(..)");
}

proptest::proptest! {
    #[test]
    fn parsing_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        if let Ok(message) = Message::parse(&bytes) {
            let _ = message.verify(&Key::short_term("x"));
            let _ = message.check_fingerprint();
            assert!(message.attributes().count() <= MAX_ATTRIBUTES);
        }
    }

    #[test]
    fn any_padding_is_accepted(padding in proptest::array::uniform3(proptest::num::u8::ANY)) {
        let mut attributes = alloc::vec![0x00, 0x06, 0, 1, b'u'];
        attributes.extend_from_slice(&padding);
        let bytes = message_with(&attributes);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.find::<Username<'_>>().unwrap().as_bytes(), b"u");
    }
}
