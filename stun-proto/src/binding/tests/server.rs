use super::*;
use crate::auth::LongTermServerConfig;
use crate::framing::{Deframer, Next, Unit};
use crate::limit::RateLimit;
use crate::wire::{
    Attribute as _, AttributeType, Class, ErrorCode, IntegrityAlgorithm, Key, MappedAddress,
    Message, Nonce, PasswordAlgorithmId, Software, TransactionId, UnknownAttributes, Username,
    XorMappedAddress, userhash,
};
use crate::{Received, Rng};

fn new(change: impl FnOnce(&mut BindingServerConfig)) -> BindingServer {
    let mut config = BindingServerConfig {
        unverified: RateLimit::NONE,
        ..BindingServerConfig::default()
    };
    change(&mut config);
    BindingServer::new(config, [9; 32]).unwrap()
}

fn plain() -> BindingServer {
    new(|_| {})
}

fn answer(server: &mut BindingServer, at: FiveTuple, data: &[u8]) -> Option<Vec<u8>> {
    let mut buf = [0xAA; MAX_TRANSMIT];
    let answer = server.respond(START, at, data, &mut buf)?;
    assert_eq!(answer.to, at);
    Some(buf[..answer.len].to_vec())
}

fn request(f: impl FnOnce(Writer<'_>) -> Result<usize, WriteError>) -> Vec<u8> {
    write(|buf| f(Writer::new(buf, BINDING, TransactionId([5; 12]))))
}

fn bare() -> Vec<u8> {
    request(|w| w.finish())
}

fn code(bytes: &[u8]) -> Option<u16> {
    let message = Message::parse(bytes).unwrap();
    message.find::<ErrorCode<'_>>().map(|error| error.code())
}

// Trap T16: only the form that no NAT rewrites.
// spec: STUN-5-7, STUN-6.3.1.1-4, STUN-6.3.1.2-1, STUN-12-1, STUN-6.2.2-9, STUN-6.2.2-8
#[test]
fn a_request_is_answered_with_its_source_the_way_it_came() {
    let v6 = FiveTuple::udp(addr("[2001:db8::1]:3478"), addr("[2001:db8::5]:40000"));
    for transport in [
        Transport::Udp,
        Transport::Tcp,
        Transport::Tls,
        Transport::Dtls,
    ] {
        for path in [there(), v6] {
            let path = FiveTuple { transport, ..path };
            // Two local addresses, one server.
            for port in [3478, 3479] {
                let mut path = path;
                path.local.set_port(port);
                let bytes = answer(&mut plain(), path, &bare()).unwrap();
                let message = Message::parse(&bytes).unwrap();
                assert_eq!(message.message_type(), BINDING.success());
                assert_eq!(message.transaction_id(), TransactionId([5; 12]));
                assert_eq!(message.find(), Some(XorMappedAddress(path.remote)));
                assert_eq!(message.attributes().count(), 1);
            }
        }
    }
}

// spec: STUN-6.3.1-2, STUN-6.3.1-3, SEC-S-11, SEC-T-01
#[test]
fn a_repeated_request_gets_the_same_answer_from_nowhere() {
    let mut server = plain();
    let first = answer(&mut server, there(), &bare());
    for seconds in [0, 39, 41, 10_000] {
        let mut buf = [0; MAX_TRANSMIT];
        let now = at(seconds * 1000);
        let again = server.respond(now, there(), &bare(), &mut buf).unwrap();
        assert_eq!(first.as_deref(), buf.get(..again.len));
    }
}

// spec: STUN-6.3.1-1, STUN-6.3-3, STUN-9-1, STUN-14.13-1, 5780-6-1
#[test]
fn attributes_that_must_be_known_and_are_not() {
    let listed = |data: &[u8]| {
        let bytes = answer(&mut plain(), there(), data).unwrap();
        let message = Message::parse(&bytes).unwrap();
        let unknown: Option<UnknownAttributes> = message.find();
        assert_eq!(unknown.is_some(), code(&bytes) == Some(420));
        unknown.map(|unknown| unknown.0.iter().map(|ty| ty.0).collect::<Vec<_>>())
    };
    let with = |types: &[u16]| {
        request(|mut w| {
            for ty in types {
                w = w.raw(AttributeType(*ty), &[0, 0, 0, 6]);
            }
            w.finish()
        })
    };
    assert_eq!(
        listed(&with(&[0x7FFF, 0x0055])),
        Some(alloc::vec![0x7FFF, 0x0055])
    );
    // CHANGE-REQUEST and RESPONSE-PORT are for servers with two addresses.
    assert_eq!(listed(&with(&[0x0003])), Some(alloc::vec![0x0003]));
    assert_eq!(listed(&with(&[0x0027])), Some(alloc::vec![0x0027]));
    // Unknown and optional, known and out of place.
    assert_eq!(listed(&with(&[0x8055, 0xC057])), None);
    assert_eq!(listed(&with(&[0x0001, 0x0009, 0x0020])), None);
    // Behind integrity nothing counts.
    let mut behind = request(|w| w.message_integrity(&Key::short_term("x")).finish());
    behind.extend_from_slice(&[0x7F, 0xFF, 0, 0]);
    let len = (behind.len() - 20) as u16;
    behind[2..4].copy_from_slice(&len.to_be_bytes());
    assert_eq!(listed(&behind), None);
}

// spec: STUN-6.3.2-1, STUN-6.3.2-2, SEC-S-05, STUN-6.3-1
#[test]
fn nothing_but_a_binding_request_is_answered() {
    let mut server = plain();
    let typed = |class, method| {
        let ty = MessageType::new(class, Method::new(method));
        write(|buf| Writer::new(buf, ty, TransactionId([5; 12])).finish())
    };
    for class in [Class::Indication, Class::Success, Class::Error] {
        assert_eq!(answer(&mut server, there(), &typed(class, 1)), None);
    }
    for method in [0, 2, 3, 0xFFF] {
        assert_eq!(
            answer(&mut server, there(), &typed(Class::Request, method)),
            None
        );
    }
    let indication = write(|buf| {
        Writer::new(
            buf,
            MessageType::indication(Method::BINDING),
            TransactionId([5; 12]),
        )
        .raw(AttributeType(0x7FFF), &[])
        .finish()
    });
    assert_eq!(answer(&mut server, there(), &indication), None);
    let mut misprinted = request(|w| w.fingerprint().finish());
    *misprinted.last_mut().unwrap() ^= 1;
    for data in [
        misprinted,
        Vec::new(),
        b"\x80\x60".to_vec(),
        bare()[..19].to_vec(),
    ] {
        assert_eq!(answer(&mut server, there(), &data), None);
    }
    assert_eq!(server.stats().answered + server.stats().refused, 0);
    assert_eq!(server.stats().dropped, 12);
}

// spec: SEC-S-05
#[test]
fn client_and_server_wired_together_fall_silent() {
    let mut rng = Rng::from_seed([1; 32]);
    let mut server = plain();
    let mut buf = [0; MAX_TRANSMIT];
    for seed in 0..20_000_u32 {
        // Something that may look like STUN, in either direction.
        let mut data = rng.bytes::<40>();
        let len = (rng.below(6) * 4) as usize;
        data[0] = (rng.below(4)) as u8;
        data[1] = [0x01, 0x11, 0x01, 0x11, 0x03][rng.below(5) as usize];
        data[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        if seed % 3 != 0 {
            data[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
        }
        let mut message = data[..20 + len].to_vec();
        let mut messages = 1;
        while let Some(answer) = server.respond(START, there(), &message, &mut buf) {
            message = buf[..answer.len].to_vec();
            messages += 1;
            assert!(messages <= 4);
        }
    }
    assert!(server.stats().answered > 0);
}

// spec: STUN-6.3.1.1-3, SEC-S-12, STUN-6.3.1.1-1, SEC-T-03
#[test]
fn strangers_get_neither_software_nor_reasons_unless_configured() {
    let unknown = request(|w| w.raw(AttributeType(0x7FFF), &[]).finish());
    for data in [bare(), unknown.clone()] {
        let bytes = answer(&mut plain(), there(), &data).unwrap();
        assert!(
            bytes.len() <= data.len() * 2,
            "{} for {}",
            bytes.len(),
            data.len()
        );
        let message = Message::parse(&bytes).unwrap();
        assert!(!message.has(Software::TYPE));
        let reason = message.find::<ErrorCode<'_>>().map(|error| error.reason());
        assert!(reason.unwrap_or_default().is_empty());
        let mut server = new(|c| c.software = Some("us".into()));
        let bytes = answer(&mut server, there(), &data).unwrap();
        assert!(Message::parse(&bytes).unwrap().has(Software::TYPE));
    }
    let long = BindingServerConfig {
        software: Some("s".repeat(510)),
        ..BindingServerConfig::default()
    };
    assert_eq!(
        BindingServer::new(long, [9; 32]).unwrap_err(),
        ConfigError::Software
    );
}

// spec: STUN-7-1
#[test]
fn a_fingerprint_is_answered_with_one() {
    let printed = request(|w| w.fingerprint().finish());
    let bytes = answer(&mut plain(), there(), &printed).unwrap();
    assert_eq!(
        Message::parse(&bytes).unwrap().check_fingerprint(),
        Some(true)
    );
    let bytes = answer(&mut plain(), there(), &bare()).unwrap();
    assert_eq!(Message::parse(&bytes).unwrap().check_fingerprint(), None);
}

// spec: SEC-T-04
#[test]
fn answers_to_one_network_are_few() {
    let mut server = new(|c| c.unverified = RateLimit::default());
    let (mut sent, mut received) = (0, 0);
    let mut buf = [0; MAX_TRANSMIT];
    for n in 0..100_000_u64 {
        // Ten seconds; the port changes all the time.
        let mut path = there();
        path.remote.set_port(n as u16);
        received += bare().len();
        if let Some(answer) = server.respond(at(n / 10), path, &bare(), &mut buf) {
            sent += answer.len;
        }
    }
    assert!(sent * 100 < received * 2, "{sent} of {received}");
    assert!(server.stats().limited > 99_000);
    // A stream shows where it comes from.
    let stream = FiveTuple {
        transport: Transport::Tcp,
        ..there()
    };
    assert!((0..100).all(|_| {
        server
            .respond(at(10_000), stream, &bare(), &mut buf)
            .is_some()
    }));
}

// spec: 5389-12.2-1, 5389-12.2-2, 5389-12.2-3, 3489-11.2-1
#[test]
fn classic_clients_are_answered_in_their_way() {
    let classic = |attributes: &[u8]| {
        let mut bytes = hex("00010000000102030405060708090a0b0c0d0e0f");
        bytes[3] = attributes.len() as u8;
        bytes.extend_from_slice(attributes);
        bytes
    };
    let path = FiveTuple::udp(addr("198.51.100.1:3478"), addr("192.0.2.1:32853"));
    let mapped = hex("0101000c000102030405060708090a0b0c0d0e0f0001000800018055c0000201");
    let mut server = plain();
    assert_eq!(
        answer(&mut server, path, &classic(&[])),
        Some(mapped.clone())
    );
    // With a code over a padding nobody uses any more: as if it were not there.
    let code = [&[0x00, 0x08, 0, 20][..], &[1; 20]].concat();
    assert_eq!(answer(&mut server, path, &classic(&code)), Some(mapped));
    for ty in [2, 3] {
        let old = [0, ty, 0, 8, 0, 1, 0x80, 0x55, 192, 0, 2, 1];
        let bytes = answer(&mut server, path, &classic(&old)).unwrap();
        let expected = [
            &hex("01110010000102030405060708090a0b0c0d0e0f")[..],
            &[0, 9, 0, 4, 0, 0, 4, 20, 0, 10, 0, 2, 0, ty, 0, 0],
        ];
        assert_eq!(bytes, expected.concat());
    }
    let indication = [&[0x00, 0x11][..], &classic(&[])[2..]].concat();
    assert_eq!(answer(&mut server, path, &indication), None);
    assert_eq!(answer(&mut server, path, &classic(&[0, 1, 0, 9])), None);
    let tcp = FiveTuple {
        transport: Transport::Tcp,
        ..path
    };
    assert_eq!(answer(&mut server, tcp, &classic(&[])), None);
    let mut off = new(|c| c.classic = false);
    assert_eq!(answer(&mut off, path, &classic(&[])), None);
}

// spec: STUN-11-1
#[test]
fn over_dtls_a_request_without_cookie_is_an_error() {
    let request = hex("00010000000102030405060708090a0b0c0d0e0f");
    let dtls = FiveTuple {
        transport: Transport::Dtls,
        ..there()
    };
    let bytes = answer(&mut plain(), dtls, &request).unwrap();
    let expected = hex("01110008000102030405060708090a0b0c0d0e0f 0009000400000500");
    assert_eq!(bytes, expected);
    let indication = hex("00110000000102030405060708090a0b0c0d0e0f");
    assert_eq!(answer(&mut plain(), dtls, &indication), None);
}

fn respond_with(server: &mut BindingServer, data: &[u8], key: &Key) -> Vec<u8> {
    let mut buf = [0; MAX_TRANSMIT];
    let answer = server.respond_with(START, there(), data, &mut buf, |user, _| {
        use crate::auth::User;
        let hash = User::Hash(userhash(b"user", b"example.com"));
        (user == User::Name(b"user") || user == hash).then_some(key)
    });
    buf[..answer.unwrap().len].to_vec()
}

// Traps T2 and T15: errors are protected by the key that proved the request.
// spec: STUN-9.1.3-1, STUN-9.1.3-2, STUN-9.1.3-3, STUN-6.3.1.1-2, STUN-6.3-2
#[test]
fn short_term_requests() {
    let key = Key::short_term("secret");
    let wrong = Key::short_term("wrong");
    let user = Username::new("user").unwrap();
    let mut server = new(|c| c.auth = ServerAuth::ShortTerm);
    let mut check = |data: Vec<u8>, expected: Option<u16>, proof: Option<IntegrityAlgorithm>| {
        let bytes = respond_with(&mut server, &data, &key);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(code(&bytes), expected);
        assert!(!message.has(Username::TYPE));
        let found = message
            .verify(&key)
            .ok()
            .map(|verified| verified.algorithm());
        assert_eq!(found, proof);
        assert_eq!(message.has_integrity(), proof.is_some());
    };
    let unknown = AttributeType(0x7FFF);
    check(bare(), Some(400), None);
    check(request(|w| w.attribute(&user).finish()), Some(400), None);
    check(
        request(|w| w.message_integrity(&key).finish()),
        Some(400),
        None,
    );
    check(
        request(|w| {
            let stranger = Username::new("stranger").unwrap();
            w.attribute(&stranger).message_integrity(&key).finish()
        }),
        Some(401),
        None,
    );
    check(
        request(|w| {
            w.attribute(&user)
                .raw(unknown, &[])
                .message_integrity(&wrong)
                .finish()
        }),
        Some(401),
        None,
    );
    let (sha1, sha256) = (IntegrityAlgorithm::Sha1, IntegrityAlgorithm::Sha256);
    check(
        request(|w| {
            w.attribute(&user)
                .raw(unknown, &[])
                .message_integrity(&key)
                .finish()
        }),
        Some(420),
        Some(sha1),
    );
    check(
        request(|w| w.attribute(&user).message_integrity(&key).finish()),
        None,
        Some(sha1),
    );
    check(
        request(|w| {
            w.attribute(&user)
                .message_integrity(&key)
                .message_integrity_sha256(&key)
                .finish()
        }),
        None,
        Some(sha256),
    );
}

// spec: STUN-9.2.4-1, STUN-9.2.4-7
#[test]
fn long_term_requests() {
    let realm = LongTermServerConfig::new("example.com");
    let mut server = new(|c| c.auth = ServerAuth::LongTerm(realm));
    let key = Key::long_term(PasswordAlgorithmId::MD5, b"user", b"example.com", b"secret").unwrap();
    let challenge = respond_with(&mut server, &request(|w| w.fingerprint().finish()), &key);
    let message = Message::parse(&challenge).unwrap();
    assert_eq!(
        (code(&challenge), message.check_fingerprint()),
        (Some(401), Some(true))
    );
    let nonce: Nonce<'_> = message.find().unwrap();
    let proven = request(|w| {
        w.attribute(&Username::new("user").unwrap())
            .attribute(&crate::wire::Realm::new("example.com").unwrap())
            .attribute(&nonce)
            .message_integrity(&key)
            .finish()
    });
    let bytes = respond_with(&mut server, &proven, &key);
    let message = Message::parse(&bytes).unwrap();
    assert!(message.verify(&key).is_ok() && message.has(XorMappedAddress::TYPE));
    // Two changes of the key make it stale.
    server.rotate_nonce_key();
    assert_eq!(code(&respond_with(&mut server, &proven, &key)), None);
    server.rotate_nonce_key();
    assert_eq!(code(&respond_with(&mut server, &proven, &key)), Some(438));
    // Classic clients cannot prove anything.
    let classic = hex("00010000000102030405060708090a0b0c0d0e0f");
    assert_eq!(answer(&mut server, there(), &classic), None);
    let empty = BindingServerConfig {
        auth: ServerAuth::LongTerm(LongTermServerConfig::new("")),
        ..BindingServerConfig::default()
    };
    assert_eq!(
        BindingServer::new(empty, [9; 32]).unwrap_err(),
        ConfigError::Realm
    );
}

// spec: STUN-6.2.2-4, STUN-6.2.2-5
#[test]
fn a_stream_is_served_unit_by_unit() {
    let mut server = plain();
    let stream = FiveTuple {
        transport: Transport::Tcp,
        ..there()
    };
    let mut client = BindingClient::new(BindingClientConfig::default(), [7; 32], START).unwrap();
    for _ in 0..3 {
        client.request(START, Path::Stream(StreamId(1))).unwrap();
    }
    let sent: Vec<_> = drain(&mut client)
        .into_iter()
        .map(|(_, bytes)| bytes)
        .collect();
    let mut deframer = Deframer::stun_only(2048);
    let mut back = Vec::new();
    for mut input in sent.concat().chunks(5) {
        while let Ok(Next::Unit(Unit::Message(bytes))) = deframer.next(&mut input) {
            back.extend(answer(&mut server, stream, bytes).unwrap());
        }
    }
    let mut input = &back[..];
    while !input.is_empty() {
        let received = client.handle_stream(at(1), StreamId(1), &mut input);
        assert_eq!(received, Received::Consumed);
    }
    assert_eq!(events(&mut client).len(), 3);
}

// spec: STUN-14-1
#[test]
fn nothing_of_the_buffer_shines_through() {
    let mut server = new(|c| c.software = Some("abc".into()));
    let mut buf = [0xAA; MAX_TRANSMIT];
    let answer = server.respond(START, there(), &bare(), &mut buf).unwrap();
    let message = Message::parse(&buf[..answer.len]).unwrap();
    assert_eq!(message.find::<MappedAddress>(), None);
    assert_eq!(buf[answer.len - 1], 0, "padding of SOFTWARE");
}
