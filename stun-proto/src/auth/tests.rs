#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::format;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::*;
use crate::wire::{
    AlternateDomain, AlternateServer, Attribute as _, AttributeType, Class, ErrorCode,
    IntegrityAlgorithm, Key, Message, MessageType, Method, Nonce, PasswordAlgorithm,
    PasswordAlgorithmId, PasswordAlgorithms, Realm, TransactionId, UnknownAttributes, Userhash,
    Username, WriteError, Writer, userhash,
};
use crate::{Instant, Rng};

const REALM: &str = "example.com";
const BINDING: MessageType = MessageType::request(Method::BINDING);

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.split_whitespace().collect::<alloc::string::String>()).unwrap()
}

fn client_addr() -> SocketAddr {
    "192.0.2.1:7000".parse().unwrap()
}

fn at(seconds: i64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

fn id(n: u8) -> TransactionId {
    TransactionId([n; 12])
}

fn write(f: impl FnOnce(&mut [u8]) -> Result<usize, WriteError>) -> Vec<u8> {
    let mut buf = [0xAA; 1024];
    let len = f(&mut buf).unwrap();
    buf[..len].to_vec()
}

fn client() -> LongTermClient {
    LongTermClient::new(Some(Credentials::new("George", "wilma-6.7")))
}

fn key(algorithm: PasswordAlgorithmId) -> Key {
    Key::long_term(algorithm, b"George", REALM.as_bytes(), b"wilma-6.7").unwrap()
}

fn server_with(change: impl FnOnce(&mut LongTermServerConfig)) -> LongTermServer {
    let mut config = LongTermServerConfig::new(REALM);
    change(&mut config);
    LongTermServer::new(config, &mut Rng::from_seed([3; 32])).unwrap()
}

fn server() -> LongTermServer {
    server_with(|_| {})
}

fn request(client: &LongTermClient, auth: &mut RequestAuth, n: u8) -> Vec<u8> {
    write(|buf| client.finish(Writer::new(buf, BINDING, id(n)), auth))
}

/// What a server with the one user George says: a success, or the refusal.
fn answer(server: &LongTermServer, now: Instant, from: SocketAddr, request: &[u8]) -> Vec<u8> {
    let message = Message::parse(request).unwrap();
    let (md5, sha256) = (
        key(PasswordAlgorithmId::MD5),
        key(PasswordAlgorithmId::SHA256),
    );
    let george = userhash(b"George", REALM.as_bytes());
    let result = server.authenticate(now, from, &message, |user, algorithm| {
        let known = user == User::Name(b"George") || user == User::Hash(george);
        let key = if algorithm == PasswordAlgorithmId::MD5 {
            &md5
        } else {
            &sha256
        };
        known.then_some(key)
    });
    write(|buf| match result {
        Ok(proven) => {
            let ty = message.message_type().success();
            Writer::new(buf, ty, message.transaction_id())
                .integrity(proven.protection, proven.key)
                .finish()
        }
        Err(refusal) => server.write_refusal(now, from, &message, &refusal, buf),
    })
}

fn code(bytes: &[u8]) -> Option<u16> {
    let message = Message::parse(bytes).unwrap();
    message.find::<ErrorCode<'_>>().map(|error| error.code())
}

fn challenge(code: u16, realm: &str, nonce: &str, list: Option<&[u8]>) -> Vec<u8> {
    write(|buf| {
        Writer::new(buf, BINDING.error(), id(1))
            .attribute(&ErrorCode::new(code))
            .maybe(
                (!realm.is_empty())
                    .then(|| Realm::new(realm).unwrap())
                    .as_ref(),
            )
            .maybe(
                (!nonce.is_empty())
                    .then(|| Nonce::new(nonce).unwrap())
                    .as_ref(),
            )
            .maybe(
                list.map(|l| PasswordAlgorithms::from_bytes(l).unwrap())
                    .as_ref(),
            )
            .finish()
    })
}

const BOTH: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0];
const MD5_FIRST: &[u8] = &[0, 1, 0, 0, 0, 2, 0, 0];

fn judge(client: &mut LongTermClient, auth: &mut RequestAuth, bytes: &[u8]) -> Judgement {
    client.judge(auth, &Message::parse(bytes).unwrap(), false)
}

// spec: STUN-9.2.5-2, STUN-9.2.5-8, STUN-9.2.3.2-1, STUN-14.11-1, STUN-14.12-1
#[test]
fn the_exchange_of_rfc8656_is_reproduced_byte_by_byte() {
    let challenge = hex(
        "011300582112a442a56250d3f17abe679422de850009001300000401556e61757468656e74696361746564000014000b
         6578616d706c652e636f6d00001500206f624d61744a6f73326741414161646c3757375065445534684b4537326a6461
         800200080002000000010000",
    );
    let expected = hex(
        "000300882112a442c271e932ad7446a32c234492000d000400000e1000190004110000000006000647656f7267650000
         0014000b6578616d706c652e636f6d00001500206f624d61744a6f73326741414161646c3757375065445534684b4537
         326a6461800200080002000000010000001d000400020000001c002083a0485c0f975a2c77b5289b649893d8cfc00299
         8808de602185afe1ceb8ad26",
    );
    let success = hex(
        "010300442112a442c271e932ad7446a32c234492001600080001e242e112a64d0020000800013a4ae112a643000d0004
         000004b0001c0020ba391c27b9565555acfbf222deedcc08f28d851d75e15aed1489b21fba8d239c",
    );
    let (mut client, mut auth) = (client(), RequestAuth::default());
    assert_eq!(judge(&mut client, &mut auth, &challenge), Judgement::Retry);
    let allocate = MessageType::request(Method::new(3));
    let id = TransactionId(hex("c271e932ad7446a32c234492").try_into().unwrap());
    let written = write(|buf| {
        let writer = Writer::new(buf, allocate, id)
            .raw(AttributeType(0x000D), &[0, 0, 0x0E, 0x10])
            .raw(AttributeType(0x0019), &[0x11, 0, 0, 0]);
        client.finish(writer, &mut auth)
    });
    assert_eq!(written, expected);
    assert_eq!(judge(&mut client, &mut auth, &success), Judgement::Accept);
    let mut forged = success.clone();
    forged[30] ^= 1;
    assert_eq!(
        judge(&mut client, &mut auth, &forged),
        Judgement::Discard(Discarded::Integrity { code: None })
    );
}

// Trap T3: such a server does not look at SHA-256 and would challenge for ever.
// spec: STUN-9.2.2-1
#[test]
fn a_challenge_without_algorithms_is_answered_as_in_rfc5389() {
    let expected = hex(
        "0003006c2112a442c271e932ad7446a32c234492000d000400000e1000190004110000000006000647656f7267650000
         0014000b6578616d706c652e636f6d000015001c662f2f3439396b39353464364f4c33346f4c39465354767936347341
         00080014fbb5b07d1994e5ac652924354d0399450d403f458028000442d972a3",
    );
    let challenge = challenge(401, REALM, "f//499k954d6OL34oL9FSTvy64sA", None);
    let (mut client, mut auth) = (client(), RequestAuth::default());
    assert_eq!(judge(&mut client, &mut auth, &challenge), Judgement::Retry);
    let id = TransactionId(hex("c271e932ad7446a32c234492").try_into().unwrap());
    let written = write(|buf| {
        let writer = Writer::new(buf, MessageType::request(Method::new(3)), id)
            .raw(AttributeType(0x000D), &[0, 0, 0x0E, 0x10])
            .raw(AttributeType(0x0019), &[0x11, 0, 0, 0]);
        client.finish(writer, &mut auth)
    });
    // The vector has a fingerprint behind it, which the length of the header counts.
    assert_eq!(written[4..], expected[4..expected.len() - 8]);
}

// spec: STUN-9.2.3.1-1
#[test]
fn the_first_request_carries_nothing_of_the_credentials() {
    let bytes = request(&client(), &mut RequestAuth::default(), 1);
    assert_eq!(bytes.len(), 20);
}

// spec: STUN-9.2.4-1, STUN-9.2.4-8, STUN-9.2-1, STUN-6.3.1.1-1, STUN-5-7, SEC-T-03
#[test]
fn client_and_server_agree_in_every_mode() {
    type Change = fn(&mut LongTermServerConfig);
    let cases: [(Change, &str, IntegrityAlgorithm); 4] = [
        (|_| {}, "obMatJos2gAAA", IntegrityAlgorithm::Sha256),
        (
            |c| c.username_anonymity = true,
            "obMatJos2wAAA",
            IntegrityAlgorithm::Sha256,
        ),
        (
            |c| c.password_algorithms = None,
            "obMatJos2AAAA",
            IntegrityAlgorithm::Sha1,
        ),
        (
            |c| {
                c.password_algorithms = None;
                c.username_anonymity = true;
            },
            "obMatJos2QAAA",
            IntegrityAlgorithm::Sha1,
        ),
    ];
    for (change, cookie, integrity) in cases {
        let server = server_with(change);
        let (mut client, mut auth) = (client(), RequestAuth::default());
        let refused = answer(
            &server,
            at(0),
            client_addr(),
            &request(&client, &mut auth, 1),
        );
        assert!(refused.len() <= 100, "{} bytes", refused.len());
        let message = Message::parse(&refused).unwrap();
        assert_eq!(code(&refused), Some(401));
        assert_eq!(message.message_type(), BINDING.error());
        assert_eq!(message.transaction_id(), id(1));
        assert!(!message.has_integrity());
        assert!(!message.has(Username::TYPE) && !message.has(Userhash::TYPE));
        assert_eq!(message.find::<Realm<'_>>().unwrap().as_str(), Some(REALM));
        let nonce: Nonce<'_> = message.find().unwrap();
        assert!(nonce.as_str().unwrap().starts_with(cookie));
        let offers = message.has(PasswordAlgorithms::TYPE);
        assert_eq!(offers, integrity == IntegrityAlgorithm::Sha256);

        assert_eq!(judge(&mut client, &mut auth, &refused), Judgement::Retry);
        let second = request(&client, &mut auth, 2);
        let message = Message::parse(&second).unwrap();
        let anonymous = cookie.contains('w') || cookie.contains('Q');
        assert_eq!(message.has(Userhash::TYPE), anonymous);
        assert_eq!(message.has(Username::TYPE), !anonymous);
        assert_eq!(message.has(PasswordAlgorithm::TYPE), offers);
        let accepted = answer(&server, at(1), client_addr(), &second);
        let message = Message::parse(&accepted).unwrap();
        assert_eq!(message.class(), Class::Success);
        let algorithm = if offers {
            PasswordAlgorithmId::SHA256
        } else {
            PasswordAlgorithmId::MD5
        };
        let proof = message.verify(&key(algorithm)).unwrap();
        assert_eq!(proof.algorithm(), integrity);
        assert_eq!(message.attributes().count(), 0);
        assert_eq!(judge(&mut client, &mut auth, &accepted), Judgement::Accept);
    }
}

// Trap T14.
// spec: STUN-9.2.2-2
#[test]
fn an_md5_key_and_sha256_integrity_go_together() {
    let list = PasswordAlgorithms::from_bytes(MD5_FIRST).unwrap();
    let server = server_with(|c| c.password_algorithms = Some(list));
    for prefer in [false, true] {
        let mut client = client();
        if prefer {
            client = client.prefer_sha256();
        }
        let mut auth = RequestAuth::default();
        let first = request(&client, &mut auth, 1);
        let refused = answer(&server, at(0), client_addr(), &first);
        assert_eq!(judge(&mut client, &mut auth, &refused), Judgement::Retry);
        let second = request(&client, &mut auth, 2);
        let message = Message::parse(&second).unwrap();
        let algorithm = if prefer {
            PasswordAlgorithmId::SHA256
        } else {
            PasswordAlgorithmId::MD5
        };
        assert_eq!(message.find(), Some(PasswordAlgorithm::new(algorithm)));
        let proof = message.verify(&key(algorithm)).unwrap();
        assert_eq!(proof.algorithm(), IntegrityAlgorithm::Sha256);
        let accepted = answer(&server, at(0), client_addr(), &second);
        assert_eq!(judge(&mut client, &mut auth, &accepted), Judgement::Accept);
    }
}

fn challenged(server: &LongTermServer, now: Instant) -> (LongTermClient, RequestAuth) {
    let (mut client, mut auth) = (client(), RequestAuth::default());
    let first = request(&client, &mut auth, 1);
    let refused = answer(server, now, client_addr(), &first);
    assert_eq!(judge(&mut client, &mut auth, &refused), Judgement::Retry);
    (client, auth)
}

// spec: STUN-9.2.5-3
#[test]
fn a_new_password_counts_for_new_requests_and_the_old_one_for_those_under_way() {
    let server = server();
    let (mut client, mut auth) = challenged(&server, at(0));
    let with_old = request(&client, &mut auth, 2);
    let mut early = auth;
    client.set_password("another".into());
    let with_new = request(&client, &mut auth, 3);
    // This server knows the old password only.
    let accepted = answer(&server, at(0), client_addr(), &with_old);
    assert_eq!(judge(&mut client, &mut early, &accepted), Judgement::Accept);
    let refused = answer(&server, at(0), client_addr(), &with_new);
    assert_eq!(code(&refused), Some(401));
    let failed = Judgement::Fail(AuthFailure::WrongCredentials);
    assert_eq!(judge(&mut client, &mut auth, &refused), failed);
    // One that knows the new one only: the request under way is made again with it.
    let message = Message::parse(&with_new).unwrap();
    let sha256 = PasswordAlgorithmId::SHA256;
    let new = Key::long_term(sha256, b"George", REALM.as_bytes(), b"another").unwrap();
    assert!(message.verify(&new).is_ok());
    assert_eq!(judge(&mut client, &mut early, &refused), Judgement::Retry);
}

/// A request with these attributes, protected by the SHA-256 key.
fn crafted(
    nonce: &str,
    leave_out: Option<AttributeType>,
    user: &str,
    realm: &str,
    password: &str,
    algorithms: (Option<&[u8]>, Option<PasswordAlgorithmId>),
) -> Vec<u8> {
    let keep = |ty| leave_out != Some(ty);
    let (list, choice) = algorithms;
    let key = Key::long_term(
        choice.unwrap_or(PasswordAlgorithmId::MD5),
        user.as_bytes(),
        realm.as_bytes(),
        password.as_bytes(),
    )
    .unwrap_or_else(|| Key::short_term("x"));
    write(|buf| {
        Writer::new(buf, BINDING, id(5))
            .maybe(
                keep(Username::TYPE)
                    .then(|| Username::new(user).unwrap())
                    .as_ref(),
            )
            .maybe(
                keep(Realm::TYPE)
                    .then(|| Realm::new(realm).unwrap())
                    .as_ref(),
            )
            .maybe(
                keep(Nonce::TYPE)
                    .then(|| Nonce::new(nonce).unwrap())
                    .as_ref(),
            )
            .maybe(
                list.map(|l| PasswordAlgorithms::from_bytes(l).unwrap())
                    .as_ref(),
            )
            .maybe(choice.map(PasswordAlgorithm::new).as_ref())
            .message_integrity_sha256(&key)
            .finish()
    })
}

fn nonce_of(server: &LongTermServer, now: Instant, from: SocketAddr) -> alloc::string::String {
    let plain = write(|buf| Writer::new(buf, BINDING, id(1)).finish());
    let refused = answer(server, now, from, &plain);
    let message = Message::parse(&refused).unwrap();
    message
        .find::<Nonce<'_>>()
        .unwrap()
        .as_str()
        .unwrap()
        .into()
}

// spec: STUN-9.2.4-3, STUN-9.2.4-4, STUN-9.2.4-5, STUN-9.2.4-6
#[test]
fn the_server_refuses_in_the_order_of_the_rfc() {
    let sha = Some(PasswordAlgorithmId::SHA256);
    let md5 = Some(PasswordAlgorithmId::MD5);
    let other = Some(PasswordAlgorithmId(7));
    let server = server();
    let nonce = nonce_of(&server, at(0), client_addr());
    let right = (Some(BOTH), sha);
    let check = |request: Vec<u8>, expected: Option<u16>| {
        let bytes = answer(&server, at(0), client_addr(), &request);
        assert_eq!(code(&bytes), expected);
        let message = Message::parse(&bytes).unwrap();
        let asks = expected == Some(401);
        assert_eq!(message.has(Nonce::TYPE), asks);
        assert_eq!(message.has(Realm::TYPE), asks);
        assert_eq!(message.has(PasswordAlgorithms::TYPE), asks);
        assert_eq!(message.has_integrity(), expected.is_none());
        assert!(!message.has(Username::TYPE) && !message.has(Userhash::TYPE));
    };
    let (user, pass) = ("George", "wilma-6.7");
    check(crafted(&nonce, None, user, REALM, pass, right), None);
    check(
        crafted(&nonce, None, user, REALM, pass, (Some(BOTH), md5)),
        None,
    );
    for ty in [Username::TYPE, Realm::TYPE, Nonce::TYPE] {
        check(
            crafted(&nonce, Some(ty), user, REALM, pass, right),
            Some(400),
        );
    }
    // List without choice, choice without list, another list, a choice that is not in it.
    for wrong in [
        (Some(BOTH), None),
        (None, sha),
        (Some(MD5_FIRST), sha),
        (Some(BOTH), other),
    ] {
        check(crafted(&nonce, None, user, REALM, pass, wrong), Some(400));
    }
    // Neither means MD5, and the answer comes with SHA-1.
    let implicit = crafted(&nonce, None, user, REALM, pass, (None, None));
    let bytes = answer(&server, at(0), client_addr(), &implicit);
    let message = Message::parse(&bytes).unwrap();
    let proof = message.verify(&key(PasswordAlgorithmId::MD5)).unwrap();
    assert_eq!(proof.algorithm(), IntegrityAlgorithm::Sha1);
    // Without the bit in the nonce the attributes mean nothing; such a nonce is not ours.
    let foreign = crafted("obMatJos2AAAAxyz", None, user, REALM, pass, (None, None));
    assert_eq!(
        code(&answer(&server, at(0), client_addr(), &foreign)),
        Some(438)
    );

    check(crafted(&nonce, None, "Fred", REALM, pass, right), Some(401));
    check(crafted(&nonce, None, user, "other", pass, right), Some(401));
    check(
        crafted(&nonce, None, user, REALM, "wrong", right),
        Some(401),
    );
}

// spec: STUN-6.3-2
#[test]
fn proof_comes_before_attributes_nobody_knows() {
    let server = server();
    let (client, mut auth) = challenged(&server, at(0));
    let unknown = |password_right: bool| {
        let mut bytes = write(|buf| {
            let writer = Writer::new(buf, BINDING, id(2)).raw(AttributeType(0x7FFF), &[]);
            client.finish(writer, &mut auth)
        });
        if !password_right {
            *bytes.last_mut().unwrap() ^= 1;
        }
        bytes
    };
    let mut unknown = unknown;
    let wrong = unknown(false);
    assert_eq!(
        code(&answer(&server, at(0), client_addr(), &wrong)),
        Some(401)
    );
    let right = unknown(true);
    let message = Message::parse(&right).unwrap();
    let sha256 = key(PasswordAlgorithmId::SHA256);
    let proven = server
        .authenticate(at(0), client_addr(), &message, |_, _| Some(&sha256))
        .unwrap();
    let list = UnknownAttributes([AttributeType(0x7FFF)].into_iter().collect());
    let bytes = write(|buf| proven.write_unknown_attributes(list, buf));
    assert_eq!(code(&bytes), Some(420));
    assert!(Message::parse(&bytes).unwrap().verify(&sha256).is_ok());
}

// Trap T2: every error is protected once the key is known.
// spec: STUN-9.2.4-7, STUN-9.2.4-2, STUN-6.3.1.1-2, STUN-16-1, SEC-T-02, 5389-10.2.2-1
#[test]
fn a_nonce_is_for_one_client_and_600_seconds() {
    let server = server();
    let (client, mut auth) = challenged(&server, at(0));
    let bytes = request(&client, &mut auth, 2);
    let from = |text: &str| text.parse::<SocketAddr>().unwrap();
    let sha256 = key(PasswordAlgorithmId::SHA256);
    let check = |seconds, from, expected: Option<u16>| {
        let answered = answer(&server, at(seconds), from, &bytes);
        assert_eq!(code(&answered), expected, "at {seconds}");
        // The key is known: every answer is protected by it, 438 included.
        let message = Message::parse(&answered).unwrap();
        assert!(message.verify(&sha256).is_ok());
        if expected == Some(438) {
            assert!(message.has(Realm::TYPE) && message.has(PasswordAlgorithms::TYPE));
            let fresh: Nonce<'_> = message.find().unwrap();
            let old = Message::parse(&bytes).unwrap();
            assert_ne!(old.find::<Nonce<'_>>().unwrap(), fresh);
        }
    };
    check(600, client_addr(), None);
    check(601, client_addr(), Some(438));
    check(1, from("192.0.2.1:7001"), Some(438));
    check(1, from("192.0.2.2:7000"), Some(438));
    // The host may have restarted its clock a little, not much.
    check(-5, client_addr(), None);
    check(-6, client_addr(), Some(438));

    let nonces: Vec<_> = [
        "192.0.2.1:1",
        "192.0.2.1:2",
        "192.0.2.2:1",
        "[2001:db8::1]:1",
    ]
    .map(|text| nonce_of(&server, at(0), from(text)))
    .into();
    for (i, nonce) in nonces.iter().enumerate() {
        assert!(!nonces[..i].contains(nonce));
    }
    // A wrong password together with a stale nonce is a wrong password.
    let mut wrong = bytes.clone();
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(
        code(&answer(&server, at(700), client_addr(), &wrong)),
        Some(401)
    );
}

// spec: SEC-T-02, SEC-G-08
#[test]
fn nonces_survive_one_change_of_the_key_and_any_clock() {
    let mut rng = Rng::from_seed([5; 32]);
    let mut keys = NonceKeys::new(&mut rng);
    let (life, features) = (Duration::from_secs(600), SecurityFeatures::default());
    let nonce = keys.issue(at(0), client_addr(), features);
    let check =
        |keys: &NonceKeys, nonce: &str| keys.check(at(1), client_addr(), nonce.as_bytes(), life);
    assert_eq!(check(&keys, &nonce), NonceState::Valid);
    keys.rotate(&mut rng);
    assert_eq!(check(&keys, &nonce), NonceState::Valid);
    keys.rotate(&mut rng);
    assert_eq!(check(&keys, &nonce), NonceState::Stale);

    // Every character is covered: cookie, features, time and tag.
    let nonce = keys.issue(at(0), client_addr(), features);
    for i in 0..nonce.len() {
        for replacement in ['A', 'B', '\0', '\u{7f}'] {
            let mut forged: Vec<u8> = nonce.bytes().collect();
            if forged[i] != replacement as u8 {
                forged[i] = replacement as u8;
                let state = keys.check(at(1), client_addr(), &forged, life);
                assert_eq!(state, NonceState::Stale, "character {i}");
            }
        }
        assert_eq!(check(&keys, &nonce[..i]), NonceState::Stale);
    }
    assert_eq!(check(&keys, &format!("{nonce}A")), NonceState::Stale);

    for nanos in [i64::MIN, -1, 0, i64::MAX] {
        let now = Instant::from_nanos(nanos);
        let nonce = keys.issue(now, client_addr(), features);
        let state = keys.check(now, client_addr(), nonce.as_bytes(), life);
        assert_eq!(state, NonceState::Valid);
    }
    // From just before the clock's zero to just after it.
    let nonce = keys.issue(at(-100), client_addr(), features);
    let state = |s| keys.check(at(s), client_addr(), nonce.as_bytes(), life);
    assert_eq!(state(500), NonceState::Valid);
    assert_eq!(state(501), NonceState::Stale);
}

// spec: STUN-9.2-1
#[test]
fn features_are_counted_from_the_first_bit() {
    let of = |nonce: &str| {
        let features = SecurityFeatures::of_nonce(nonce.as_bytes());
        (features.password_algorithms, features.username_anonymity)
    };
    assert_eq!(of("obMatJos2AAAA"), (false, false));
    assert_eq!(of("obMatJos2gAAA"), (true, false));
    assert_eq!(of("obMatJos2QAAA"), (false, true));
    assert_eq!(of("obMatJos2wAAAmore"), (true, true));
    assert_eq!(of("obMatJos2AAACmore"), (false, false));
    assert_eq!(of("obMatJos2gAA"), (false, false), "too short for features");
    assert_eq!(of("ObMatJos2gAAA"), (false, false), "no cookie");
}

// spec: STUN-9.2.5-1, STUN-9.2.5-5, SEC-S-08
#[test]
fn nobody_can_talk_the_client_down() {
    let fail = |failure| Judgement::Fail(failure);
    let check = |bytes: &[u8], expected| {
        let (mut client, mut auth) = (client(), RequestAuth::default());
        assert_eq!(judge(&mut client, &mut auth, bytes), expected);
    };
    // The nonce says there is a list, and there is none.
    check(
        &challenge(401, REALM, "obMatJos2gAAAx", None),
        fail(AuthFailure::BidDown),
    );
    check(
        &challenge(438, REALM, "obMatJos2gAAAx", None),
        fail(AuthFailure::BidDown),
    );
    check(
        &challenge(500, REALM, "obMatJos2gAAAx", None),
        Judgement::Discard(Discarded::HiddenAlgorithms),
    );
    check(
        &challenge(401, REALM, "obMatJos2gAAAx", Some(&[0, 9, 0, 0])),
        fail(AuthFailure::NoCommonAlgorithm),
    );
    // A server that has offered SHA-256 once does not forget it.
    for weaker in [
        challenge(438, REALM, "plain", None),
        challenge(438, REALM, "obMatJos2gAAAy", Some(&[0, 1, 0, 0])),
        challenge(401, REALM, "plain", None),
    ] {
        let (mut client, _) = challenged(&server(), at(0));
        let mut auth = RequestAuth::default();
        request(&client, &mut auth, 2);
        let judged = judge(&mut client, &mut auth, &weaker);
        assert_eq!(judged, fail(AuthFailure::BidDown));
        // New credentials do not help the attacker, a new server starts afresh.
        client.set_credentials(Some(Credentials::new("George", "x")));
        let mut auth = RequestAuth::default();
        request(&client, &mut auth, 3);
        assert_eq!(
            judge(&mut client, &mut auth, &weaker),
            fail(AuthFailure::BidDown)
        );
        client.forget_challenge();
        assert_eq!(
            judge(&mut client, &mut RequestAuth::default(), &weaker),
            Judgement::Retry
        );
    }
}

// spec: STUN-9.2.5-3, STUN-9.2.5-4, SEC-S-09
#[test]
fn a_server_that_never_has_enough_is_left() {
    let (mut client, mut auth) = (client(), RequestAuth::default());
    let mut rounds = 0;
    let last = loop {
        request(&client, &mut auth, rounds);
        let nonce = format!("nonce {rounds}");
        let judged = judge(&mut client, &mut auth, &challenge(401, REALM, &nonce, None));
        if judged != Judgement::Retry {
            break judged;
        }
        rounds += 1;
    };
    assert_eq!(last, Judgement::Fail(AuthFailure::WrongCredentials));
    assert_eq!(rounds, 1);

    let (mut client, mut auth) = challenged(&server(), at(0));
    let mut rounds = 0;
    let last = loop {
        request(&client, &mut auth, rounds);
        let nonce = format!("obMatJos2gAAA{rounds}");
        let bytes = challenge(438, REALM, &nonce, Some(BOTH));
        let judged = judge(&mut client, &mut auth, &bytes);
        if judged != Judgement::Retry {
            break judged;
        }
        rounds += 1;
    };
    assert_eq!(last, Judgement::Fail(AuthFailure::TooManyStale));
    assert_eq!(rounds, 3);
    // The bound is for one request, not for the session.
    for n in 0..20 {
        let mut auth = RequestAuth::default();
        request(&client, &mut auth, n);
        let bytes = challenge(438, "", &format!("obMatJos2gAAAn{n}"), Some(BOTH));
        assert_eq!(judge(&mut client, &mut auth, &bytes), Judgement::Retry);
    }
}

// Trap T8.
// spec: STUN-9.2.5-3
#[test]
fn a_401_with_a_new_nonce_may_mean_stale_once() {
    let (mut client, _) = challenged(&server(), at(0));
    let mut auth = RequestAuth::default();
    request(&client, &mut auth, 2);
    let renewed = |n| challenge(401, REALM, &format!("obMatJos2gAAA{n}"), Some(BOTH));
    assert_eq!(judge(&mut client, &mut auth, &renewed(1)), Judgement::Retry);
    request(&client, &mut auth, 3);
    let failed = Judgement::Fail(AuthFailure::WrongCredentials);
    assert_eq!(judge(&mut client, &mut auth, &renewed(2)), failed);
    // With the same nonce it means what it says.
    let mut auth = RequestAuth::default();
    request(&client, &mut auth, 4);
    assert_eq!(judge(&mut client, &mut auth, &renewed(1)), failed);
}

// spec: STUN-9.2.5-4
#[test]
fn one_new_nonce_serves_all_requests_under_way() {
    let (mut client, _) = challenged(&server(), at(0));
    let (mut first, mut second) = (RequestAuth::default(), RequestAuth::default());
    request(&client, &mut first, 2);
    request(&client, &mut second, 3);
    let stale = |n| challenge(438, REALM, &format!("obMatJos2gAAA{n}"), Some(BOTH));
    assert_eq!(judge(&mut client, &mut first, &stale(1)), Judgement::Retry);
    assert_eq!(judge(&mut client, &mut second, &stale(2)), Judgement::Retry);
    let bytes = request(&client, &mut second, 4);
    let message = Message::parse(&bytes).unwrap();
    let nonce: Nonce<'_> = message.find().unwrap();
    assert_eq!(nonce.as_str(), Some("obMatJos2gAAA1"));
}

// Trap T17: a challenge without REALM or NONCE, or with empty ones.
// spec: SEC-C-02, SEC-G-05
#[test]
fn challenges_that_cannot_be_answered() {
    let cases = [
        (challenge(401, "", "n", None), AuthFailure::Malformed),
        (challenge(401, REALM, "", None), AuthFailure::Malformed),
        (challenge(438, REALM, "", None), AuthFailure::Malformed),
        (challenge(438, "", "n", None), AuthFailure::Malformed),
        (
            challenge(401, "other", "n", None),
            AuthFailure::ForeignRealm,
        ),
    ];
    let mut credentials = Credentials::new("George", "wilma-6.7");
    credentials.realm = Some(REALM.into());
    for (bytes, failure) in cases {
        let mut client = LongTermClient::new(Some(credentials.clone()));
        let judged = judge(&mut client, &mut RequestAuth::default(), &bytes);
        assert_eq!(judged, Judgement::Fail(failure));
        assert!(!client.is_challenged());
    }
    let fails = |mut client: LongTermClient, bytes: &[u8]| {
        judge(&mut client, &mut RequestAuth::default(), bytes)
    };
    let plain = challenge(401, REALM, "n", None);
    assert_eq!(
        fails(LongTermClient::new(None), &plain),
        Judgement::Fail(AuthFailure::NoCredentials)
    );
    let long = Credentials::new("u".repeat(509), "p");
    assert_eq!(
        fails(LongTermClient::new(Some(long.clone())), &plain),
        Judgement::Fail(AuthFailure::UsernameTooLong)
    );
    // Hidden behind a hash it may be as long as it likes.
    let anonymous = challenge(401, REALM, "obMatJos2QAAA", None);
    assert_eq!(
        fails(LongTermClient::new(Some(long)), &anonymous),
        Judgement::Retry
    );
    // What may be read and not sent cannot be sent back.
    let long = write(|buf| {
        Writer::new(buf, BINDING.error(), id(1))
            .attribute(&ErrorCode::new(401))
            .attribute(&Realm::new(REALM).unwrap())
            .raw(Nonce::TYPE, &[b'n'; 600])
            .finish()
    });
    assert_eq!(
        fails(client(), &long),
        Judgement::Fail(AuthFailure::Malformed)
    );
}

// Traps T1 and T7.
// spec: STUN-9.2.5-6, STUN-9.2.5-7
#[test]
fn unprotected_errors_leave_a_hint_and_nothing_else() {
    let error = |code| {
        write(|buf| {
            Writer::new(buf, BINDING.error(), id(2))
                .attribute(&ErrorCode::new(code))
                .finish()
        })
    };
    let success = write(|buf| Writer::new(buf, BINDING.success(), id(2)).finish());
    let discarded = |code| Judgement::Discard(Discarded::Integrity { code });
    for lenient in [false, true] {
        let (mut client, mut auth) = challenged(&server(), at(0));
        if lenient {
            client = client.lenient_errors();
        }
        request(&client, &mut auth, 2);
        let mut judge = |bytes: &[u8], reliable| {
            client.judge(&mut auth, &Message::parse(bytes).unwrap(), reliable)
        };
        let accepted_if = |yes, code| {
            if yes {
                Judgement::Accept
            } else {
                discarded(Some(code))
            }
        };
        for code in [300, 400, 403] {
            assert_eq!(judge(&error(code), false), discarded(Some(code)));
        }
        for code in [437, 486, 500, 508] {
            assert_eq!(judge(&error(code), false), accepted_if(lenient, code));
        }
        assert_eq!(judge(&error(403), true), accepted_if(lenient, 403));
        assert_eq!(judge(&error(300), true), discarded(Some(300)));
        assert_eq!(judge(&success, true), discarded(None));
        // Protected by another code than the request was.
        let sha1 = write(|buf| {
            Writer::new(buf, BINDING.success(), id(2))
                .message_integrity(&key(PasswordAlgorithmId::SHA256))
                .finish()
        });
        assert_eq!(judge(&sha1, false), discarded(None));
    }
}

// spec: SEC-C-01, SEC-S-06
#[test]
fn a_success_before_the_challenge_is_believed_only_if_that_was_asked_for() {
    let success = write(|buf| Writer::new(buf, BINDING.success(), id(2)).finish());
    let error = write(|buf| {
        Writer::new(buf, BINDING.error(), id(2))
            .attribute(&ErrorCode::new(500))
            .finish()
    });
    let judged = |mut client: LongTermClient, bytes: &[u8]| {
        let mut auth = RequestAuth::default();
        request(&client, &mut auth, 2);
        judge(&mut client, &mut auth, bytes)
    };
    let doubted = Judgement::Discard(Discarded::Integrity { code: None });
    let none = LongTermClient::new(None);
    assert_eq!(judged(client(), &success), doubted);
    assert_eq!(judged(client().open_servers(), &success), Judgement::Accept);
    assert_eq!(judged(none.clone(), &success), Judgement::Accept);
    assert_eq!(judged(none.clone().expect_challenge(), &success), doubted);
    let mut token = none.clone();
    token.set_third_party_key("kid", Key::from_bytes(b"key"));
    assert_eq!(judged(token, &success), doubted);
    // An error to such a request cannot be protected.
    for client in [client(), client().open_servers(), none] {
        assert_eq!(judged(client, &error), Judgement::Accept);
    }
    // What answers a request of before the challenge late proves nothing either.
    let (mut client, _) = challenged(&server(), at(0));
    let mut early = RequestAuth::default();
    assert_eq!(judge(&mut client, &mut early, &success), doubted);
}

// spec: STUN-9.2-3, STUN-6.3.2-1, SEC-S-05
#[test]
fn the_server_answers_nothing_but_requests() {
    let server = server();
    for class in [Class::Indication, Class::Success, Class::Error] {
        let ty = MessageType::new(class, Method::BINDING);
        let bytes = write(|buf| Writer::new(buf, ty, id(1)).finish());
        let message = Message::parse(&bytes).unwrap();
        let refusal = server.identify(client_addr(), &message).unwrap_err();
        let mut buf = [0; 200];
        assert_eq!(
            server.write_refusal(at(0), client_addr(), &message, &refusal, &mut buf),
            Err(WriteError::NotARequest)
        );
    }
}

// spec: STUN-10-1, STUN-10-2, STUN-14.8-3
#[test]
fn a_300_is_protected_and_names_the_clients_family_first() {
    let server = server();
    let (client, mut auth) = challenged(&server, at(0));
    let bytes = request(&client, &mut auth, 2);
    let message = Message::parse(&bytes).unwrap();
    let sha256 = key(PasswordAlgorithmId::SHA256);
    let proven = server
        .authenticate(at(0), client_addr(), &message, |_, _| Some(&sha256))
        .unwrap();
    let mut alternate = Alternate {
        v4: Some("198.51.100.7:3478".parse().unwrap()),
        v6: Some("[2001:db8::7]:3478".parse().unwrap()),
        domain: Some(AlternateDomain::new("other.example").unwrap()),
    };
    for (from, first) in [
        ("192.0.2.1:7000", "198.51.100.7:3478"),
        ("[::ffff:192.0.2.1]:7000", "198.51.100.7:3478"),
        ("[2001:db8::1]:7000", "[2001:db8::7]:3478"),
    ] {
        let mut buf = [0; 300];
        let len = proven
            .write_try_alternate(from.parse().unwrap(), &alternate, &mut buf)
            .unwrap()
            .unwrap();
        let message = Message::parse(&buf[..len]).unwrap();
        assert_eq!(code(&buf[..len]), Some(300));
        assert!(message.verify(&sha256).is_ok());
        let servers: Vec<_> = message.get_all::<AlternateServer>().collect();
        assert_eq!(servers.len(), 2);
        assert_eq!(servers[0].unwrap().0, first.parse().unwrap());
        assert!(message.has(AlternateDomain::TYPE));
    }
    alternate.v4 = None;
    let mut buf = [0; 300];
    let none = proven.write_try_alternate(client_addr(), &alternate, &mut buf);
    assert_eq!(none, Ok(None));
}

#[test]
fn a_realm_is_neither_empty_nor_longer_than_127_bytes() {
    let new = |realm: &str| {
        let config = LongTermServerConfig::new(realm);
        LongTermServer::new(config, &mut Rng::from_seed([3; 32])).is_ok()
    };
    assert!(!new("") && new("r") && new(&"r".repeat(127)) && !new(&"r".repeat(128)));
}

// spec: SEC-G-15, SEC-G-16
#[test]
fn secrets_are_not_shown_and_compared_whole() {
    let (client, auth) = challenged(&server(), at(0));
    let key = key(PasswordAlgorithmId::MD5);
    let short = ShortTermClient::new("user", Key::short_term("wilma-6.7")).unwrap();
    let shown = format!(
        "{client:?} {auth:?} {:?} {:?} {key:?} {short:?} {:?}",
        Credentials::new("George", "wilma-6.7"),
        server(),
        Rng::from_seed([7; 32]),
    );
    assert!(!shown.contains("wilma"), "{shown}");
    assert!(Secret::new("abc") == Secret::new("abc"));
    for other in ["", "ab", "abd", "abcd", "Abc"] {
        assert!(Secret::new("abc") != Secret::new(other));
    }
}

fn short_term_request(f: impl FnOnce(Writer<'_>) -> Result<usize, WriteError>) -> Vec<u8> {
    write(|buf| f(Writer::new(buf, BINDING, id(1))))
}

// spec: STUN-9.1.2-1, STUN-9.1.4-1, STUN-9.1.5-1, STUN-9.1.3-2
#[test]
fn a_short_term_client_sends_both_kinds_until_it_knows_one() {
    let key = Key::short_term("secret");
    let new = || ShortTermClient::new("user", key.clone()).unwrap();
    let kinds = |client: &ShortTermClient| {
        let bytes = short_term_request(|w| client.finish(w));
        let message = Message::parse(&bytes).unwrap();
        assert!(message.find::<Username<'_>>().is_some());
        assert!(message.verify(&key).is_ok());
        bytes.len()
    };
    let (sha1, sha256, both) = (20 + 8 + 24, 20 + 8 + 36, 20 + 8 + 24 + 36);
    assert_eq!(kinds(&new()), both);
    assert_eq!(kinds(&new().only(IntegrityAlgorithm::Sha1)), sha1);
    for (algorithm, size) in [
        (IntegrityAlgorithm::Sha1, sha1),
        (IntegrityAlgorithm::Sha256, sha256),
    ] {
        let response = |algorithm, key: &Key| {
            write(|buf| {
                Writer::new(buf, BINDING.success(), id(1))
                    .integrity(algorithm, key)
                    .finish()
            })
        };
        let mut client = new();
        let wrong = response(algorithm, &Key::short_term("other"));
        assert!(client.judge(&Message::parse(&wrong).unwrap()).is_err());
        assert_eq!(kinds(&client), both, "a forgery teaches nothing");
        let right = response(algorithm, &key);
        assert!(client.judge(&Message::parse(&right).unwrap()).is_ok());
        assert_eq!(kinds(&client), size);
        let other = match algorithm {
            IntegrityAlgorithm::Sha1 => IntegrityAlgorithm::Sha256,
            IntegrityAlgorithm::Sha256 => IntegrityAlgorithm::Sha1,
        };
        let other = response(other, &key);
        assert!(client.judge(&Message::parse(&other).unwrap()).is_err());
    }
    assert!(ShortTermClient::new("u".repeat(509), key.clone()).is_err());
}

// spec: STUN-9.1.3-1, STUN-9.1.4-2
#[test]
fn short_term_requests_are_refused_in_the_order_of_the_rfc() {
    let key = Key::short_term("secret");
    let wrong = Key::short_term("wrong");
    let user = Username::new("user").unwrap();
    let stranger = Username::new("stranger").unwrap();
    let check = |bytes: Vec<u8>, expected: Result<IntegrityAlgorithm, ShortTermRefusal>| {
        let message = Message::parse(&bytes).unwrap();
        let key_of = |name: &[u8]| (name == b"user").then_some(&key);
        let result = authenticate_short_term(&message, key_of);
        assert_eq!(result.map(|verified| verified.algorithm()), expected);
    };
    check(
        short_term_request(|w| w.attribute(&user).finish()),
        Err(ShortTermRefusal::Incomplete),
    );
    check(
        short_term_request(|w| w.message_integrity(&key).finish()),
        Err(ShortTermRefusal::Incomplete),
    );
    check(
        short_term_request(|w| w.attribute(&stranger).message_integrity(&key).finish()),
        Err(ShortTermRefusal::UnknownUser),
    );
    check(
        short_term_request(|w| w.attribute(&user).message_integrity(&wrong).finish()),
        Err(ShortTermRefusal::WrongKey),
    );
    // The better code decides, whatever the other one says.
    check(
        short_term_request(|w| {
            w.attribute(&user)
                .message_integrity(&key)
                .message_integrity_sha256(&wrong)
                .finish()
        }),
        Err(ShortTermRefusal::WrongKey),
    );
    check(
        short_term_request(|w| {
            w.attribute(&user)
                .message_integrity(&wrong)
                .message_integrity_sha256(&key)
                .finish()
        }),
        Ok(IntegrityAlgorithm::Sha256),
    );
    check(
        short_term_request(|w| w.attribute(&user).message_integrity(&key).finish()),
        Ok(IntegrityAlgorithm::Sha1),
    );
    let codes = [
        ShortTermRefusal::Incomplete,
        ShortTermRefusal::UnknownUser,
        ShortTermRefusal::WrongKey,
    ];
    assert_eq!(codes.map(ShortTermRefusal::code), [400, 401, 401]);
}
