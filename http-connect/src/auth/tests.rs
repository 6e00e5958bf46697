#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use super::*;
use crate::{Instant, Rng};

fn rng() -> Rng {
    Rng::from_seed([7; 32])
}

fn digest(field: &str, user: &str, password: &str) -> DigestSession {
    let challenge = Challenge::parse(field).unwrap();
    DigestSession::new(&challenge, &Credentials::new(user, password)).unwrap()
}

// spec: HS-11.6.1-1
#[test]
fn several_challenges_in_one_field_are_told_apart() {
    let field = r#"Negotiate, NTLM,Basic realm="a, b" , Foo x = "y\"z",  bar=baz, Digest realm="x", nonce="n=",, Bearer abc=="#;
    let all: Vec<_> = challenges(field).map(Result::unwrap).collect();
    let schemes: Vec<_> = all.iter().map(|c| c.scheme).collect();
    assert_eq!(
        schemes,
        ["Negotiate", "NTLM", "Basic", "Foo", "Digest", "Bearer"]
    );
    assert_eq!(all[2].parameter("REALM").unwrap(), "a, b");
    assert_eq!(all[3].parameter("x").unwrap(), "y\"z");
    assert_eq!(all[3].parameter("bar").unwrap(), "baz");
    assert_eq!(all[5].token68, Some("abc=="));
}

#[test]
fn malformed_challenges_end_the_list_with_their_offset() {
    for field in [
        "Basic realm=\"open",
        "Digest realm=\"x\",nonce=\"",
        "Digest realm=\"x\",nonce=,a=b",
        "Digest a=b c=d",
        "\"quoted\"",
        "Basic\trealm=x",
    ] {
        let last = challenges(field).last().unwrap();
        assert!(last.is_err(), "{field}");
    }
}

// spec: BA-2-1, BA-2.1-1
#[test]
fn basic_vectors() {
    for (user, password, expected) in [
        ("Aladdin", "open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("test", "123\u{a3}", "dGVzdDoxMjPCow=="),
        ("proxyuser", "s3cret", "cHJveHl1c2VyOnMzY3JldA=="),
    ] {
        let value = basic_authorization(&Credentials::new(user, password)).unwrap();
        assert_eq!(*value, alloc::format!("Basic {expected}"));
        let read = parse_basic(&Challenge::parse(&value).unwrap()).unwrap();
        assert_eq!(read, Credentials::new(user, password));
    }
    assert!(basic_authorization(&Credentials::new("a:b", "c")).is_err());
    assert!(basic_authorization(&Credentials::new("a", "c\n")).is_err());
}

fn response(
    hash: HashAlgorithm,
    who: (&str, &str, &str),
    what: (&str, &str),
    nonce: &str,
    cnonce: &str,
) -> String {
    let key = ha1(hash, who.0.as_bytes(), who.1.as_bytes(), who.2.as_bytes());
    let exchange = Exchange {
        hash,
        qop: Some(Qop::Auth),
        nonce,
        nc: 1,
        cnonce,
        uri: what.1,
    };
    exchange.response(&key, what.0, b"").as_str().to_string()
}

// spec: DA-3.4-1, DA-3.4-2
#[test]
fn digest_vectors() {
    use HashAlgorithm::{Md5, Sha256, Sha512_256};
    let proxy = ("proxyuser", "proxy.corp.example", "s3cret");
    let connect = ("CONNECT", "pcscf.example.com:443");
    let nonce = "bm9uY2U=";
    assert_eq!(
        response(Md5, proxy, connect, nonce, "deadbeef"),
        "52d479a8c40ca79d7a3ef96b923eee6b"
    );
    assert_eq!(
        response(Sha256, proxy, connect, nonce, "deadbeef"),
        "908a59f90eef8bf7b0a3393a40b2233d05774fb20ae465dc82a7ed57fd1c28ac"
    );
    let get = ("GET", "/dir/index.html");
    assert_eq!(
        response(
            Md5,
            ("Mufasa", "testrealm@host.com", "Circle Of Life"),
            get,
            "dcd98b7102dd2f0e8b11d0f600bfb0c093",
            "0a4f113b"
        ),
        "6629fae49393a05397450978507c4ef1"
    );
    let mufasa = ("Mufasa", "http-auth@example.org", "Circle of Life");
    let (nonce, cnonce) = (
        "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    );
    assert_eq!(
        response(Md5, mufasa, get, nonce, cnonce),
        "8ca523f5e9506fed4657c9700eebdbec"
    );
    assert_eq!(
        response(Sha256, mufasa, get, nonce, cnonce),
        "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
    );
    let jason = ("J\u{e4}s\u{f8}n Doe", "api@example.org", "Secret, or not?");
    assert_eq!(
        response(
            Sha512_256,
            jason,
            ("GET", "/doe.json"),
            "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
            "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v"
        ),
        "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"
    );
    let userhash = hash_joined(Sha512_256, &[jason.0.as_bytes(), jason.1.as_bytes()]);
    assert_eq!(
        userhash.as_str(),
        "793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b"
    );
}

#[test]
fn digests_match_whole_and_without_regard_to_case() {
    for hash in [HashAlgorithm::Md5, HashAlgorithm::Sha256] {
        let digest = ha1(hash, b"u", b"r", b"p");
        let text = digest.as_str();
        assert!(digest.matches(text) && digest.matches(&text.to_ascii_uppercase()));
        assert!(!digest.matches(&text[1..]));
        assert!(!digest.matches(&text[..text.len() - 1]));
        for more in ["0", "\0"] {
            assert!(!digest.matches(&alloc::format!("{text}{more}")));
        }
        for at in 0..text.len() {
            let mut other = text.as_bytes().to_vec();
            other[at] ^= 1;
            assert!(!digest.matches(core::str::from_utf8(&other).unwrap()));
        }
    }
}

const CHALLENGE: &str =
    r#"Digest realm="r", nonce="n1", qop="auth,auth-int", algorithm=SHA-256, opaque="o\"p""#;

// spec: DIG-3.4-1, DIG-3.4-2, DIG-3.3-1
#[test]
fn nonce_count_grows_and_opaque_is_echoed() {
    let mut session = digest(CHALLENGE, "u", "p");
    let mut rng = rng();
    let first = session.authorization(&mut rng, "CONNECT", "h:443", b"");
    let second = session.authorization(&mut rng, "CONNECT", "h:443", b"");
    let (first, second) = (
        Challenge::parse(&first).unwrap(),
        Challenge::parse(&second).unwrap(),
    );
    assert_eq!(first.parameter("nc").unwrap(), "00000001");
    assert_eq!(second.parameter("nc").unwrap(), "00000002");
    assert_ne!(first.parameter("cnonce"), second.parameter("cnonce"));
    assert_eq!(first.parameter("opaque").unwrap(), "o\"p");
    assert_eq!(first.parameter("uri").unwrap(), "h:443");
    assert!(
        session.renew(
            &Challenge::parse(
                r#"Digest realm="r",nonce="n2",qop="auth",algorithm=SHA-256,stale=TRUE"#
            )
            .unwrap()
        )
    );
    let third = session.authorization(&mut rng, "CONNECT", "h:443", b"");
    assert!(third.contains("nc=00000001") && third.contains("nonce=\"n2\""));
}

// spec: DIG-3.3-2, DA-3.4.3-1
#[test]
fn unknown_algorithms_are_skipped_and_auth_int_is_answered() {
    let unknown = Challenge::parse(r#"Digest realm="r",nonce="n",algorithm=FOO-1"#).unwrap();
    assert_eq!(
        DigestSession::new(&unknown, &Credentials::new("u", "p")).unwrap_err(),
        DigestError::Algorithm
    );
    let mut session = digest(r#"Digest realm="r",nonce="n",qop="auth-int""#, "u", "p");
    let value = session.authorization(&mut rng(), "CONNECT", "h:443", b"");
    assert!(value.contains("qop=auth-int"));
}

struct Both {
    server: DigestServer,
    session: DigestSession,
    rng: Rng,
    now: Instant,
}

impl Both {
    fn new(algorithm: Algorithm) -> Self {
        Self::with(algorithm, false)
    }

    fn with(algorithm: Algorithm, hidden: bool) -> Self {
        let mut rng = rng();
        let mut config = DigestServerConfig::new("realm");
        config.algorithms = alloc::vec![algorithm];
        config.max_nonces = 2;
        config.auth_int = true;
        config.userhash = hidden;
        let mut server = DigestServer::new(config, &mut rng).unwrap();
        let now = Instant::ZERO + Duration::from_secs(1000);
        let field = server.challenges(now, b"here", false);
        Self {
            session: digest(&field[0], "user", "pass"),
            server,
            rng,
            now,
        }
    }

    fn request(&mut self) -> String {
        self.session
            .authorization(&mut self.rng, "CONNECT", "h:443", b"")
    }

    fn judge(&mut self, value: &str, binding: &[u8]) -> Result<DigestProof, DigestRefusal> {
        let request = DigestRequest {
            method: "CONNECT",
            uri: "h:443",
            body: b"",
        };
        let credentials = Challenge::parse(value).unwrap();
        self.server
            .verify(self.now, binding, request, &credentials, |user, hash| {
                let hashed = userhash(hash, b"user", b"realm").as_str().to_string();
                let known = [ClaimedUser::Name("user".into()), ClaimedUser::Hash(hashed)];
                known
                    .contains(user)
                    .then(|| ha1(hash, b"user", b"realm", b"pass"))
            })
    }
}

// spec: DIG-3.6-1, DIG-3.5-1, SEC-P-11
#[test]
fn server_accepts_each_count_once_and_proves_itself() {
    let plain = [Algorithm::MD5, Algorithm::SHA256, Algorithm::SHA512_256];
    for algorithm in plain.into_iter().flat_map(|a| [a, a.session()]) {
        for hidden in [false, true] {
            let mut both = Both::with(algorithm, hidden);
            let first = both.request();
            let proof = both.judge(&first, b"here").unwrap();
            let info = proof.info(b"");
            assert_eq!(both.session.handle_info(&info, b""), InfoVerdict::Proven);
            assert_eq!(
                both.judge(&first, b"here").unwrap_err(),
                DigestRefusal::Stale
            );
            let (second, third) = (both.request(), both.request());
            both.judge(&third, b"here").unwrap();
            both.judge(&second, b"here").unwrap();
            assert!(both.judge(&second, b"here").is_err());
            let forged = info.replace("rspauth=\"", "rspauth=\"0");
            assert_eq!(both.session.handle_info(&forged, b""), InfoVerdict::Forged);
        }
    }
}

// spec: SEC-P-11, SEC-G-05
#[test]
fn counts_may_come_out_of_order_within_a_window_of_64() {
    let mut both = Both::new(Algorithm::SHA256);
    let all: Vec<_> = (0..70).map(|_| both.request()).collect();
    both.judge(&all[10], b"here").unwrap();
    both.judge(&all[69], b"here").unwrap();
    both.judge(&all[6], b"here").unwrap();
    assert_eq!(
        both.judge(&all[10], b"here").unwrap_err(),
        DigestRefusal::Stale
    );
    assert_eq!(
        both.judge(&all[5], b"here").unwrap_err(),
        DigestRefusal::Stale
    );
    assert_eq!(
        both.judge(&all[6], b"here").unwrap_err(),
        DigestRefusal::Stale
    );
}

// spec: PRJ-14-1
#[test]
fn nonces_expire_and_are_bound_to_their_client_and_cannot_be_forged() {
    let mut both = Both::new(Algorithm::SHA256);
    let value = both.request();
    // Right password, right nonce, other client: not a wrong password.
    assert_eq!(
        both.judge(&value, b"elsewhere").unwrap_err(),
        DigestRefusal::Stale
    );
    both.now += Duration::from_secs(299);
    both.judge(&value, b"here").unwrap();
    both.now += Duration::from_secs(2);
    let value = both.request();
    assert_eq!(
        both.judge(&value, b"here").unwrap_err(),
        DigestRefusal::Stale
    );
    both.now += Duration::from_secs(3600);
    both.now = Instant::ZERO + Duration::from_secs(900);
    assert_eq!(
        both.judge(&value, b"here").unwrap_err(),
        DigestRefusal::Stale
    );

    let forged = r#"Digest realm="realm",nonce="bm9uY2U",qop="auth",algorithm=SHA-256"#;
    both.session = digest(forged, "user", "pass");
    let value = both.request();
    assert_eq!(
        both.judge(&value, b"here").unwrap_err(),
        DigestRefusal::Forged
    );
    let mut other = Both::new(Algorithm::SHA256);
    other.server = DigestServer::new(
        DigestServerConfig::new("realm"),
        &mut Rng::from_seed([9; 32]),
    )
    .unwrap();
    let value = other.request();
    assert_eq!(
        other.judge(&value, b"here").unwrap_err(),
        DigestRefusal::Forged
    );
}

// spec: PRJ-14-2, SEC-G-16
#[test]
fn unknown_users_and_wrong_passwords_look_alike() {
    let mut both = Both::new(Algorithm::SHA256);
    let value = both.request();
    let unknown = value.replace("username=\"user\"", "username=\"nobody\"");
    assert_eq!(
        both.judge(&unknown, b"here").unwrap_err(),
        DigestRefusal::Wrong
    );
    let wrong = value.replace("response=\"", "response=\"0");
    assert_eq!(
        both.judge(&wrong, b"here").unwrap_err(),
        DigestRefusal::Wrong
    );
    // Neither has used up the count.
    both.judge(&value, b"here").unwrap();
}

#[test]
fn nonces_of_the_last_key_still_count_after_a_change_and_those_before_do_not() {
    let mut both = Both::new(Algorithm::SHA256);
    both.server.rotate_nonce_key();
    let value = both.request();
    both.judge(&value, b"here").unwrap();
    both.server.rotate_nonce_key();
    let value = both.request();
    assert_eq!(
        both.judge(&value, b"here").unwrap_err(),
        DigestRefusal::Forged
    );
}

// spec: SEC-P-11, SEC-G-05
#[test]
fn watched_nonces_are_limited_and_the_oldest_become_stale() {
    let mut both = Both::new(Algorithm::SHA256);
    let oldest = both.request();
    both.judge(&oldest, b"here").unwrap();
    let mut oldest = both.session.clone();
    for _ in 0..2 {
        both.now += Duration::from_secs(1);
        let field = both.server.challenges(both.now, b"here", false);
        both.session = digest(&field[0], "user", "pass");
        let value = both.request();
        both.judge(&value, b"here").unwrap();
    }
    let late = oldest.authorization(&mut both.rng, "CONNECT", "h:443", b"");
    assert_eq!(
        both.judge(&late, b"here").unwrap_err(),
        DigestRefusal::Stale
    );
    // Challenges alone are never remembered.
    for _ in 0..100 {
        both.server.challenges(both.now, b"there", false);
    }
    let value = both.request();
    both.judge(&value, b"here").unwrap();
}

// spec: DIG-3.5-1
#[test]
fn a_fresh_nonce_is_handed_out_at_half_time() {
    let mut both = Both::new(Algorithm::SHA256);
    let value = both.request();
    let proof = both.judge(&value, b"here").unwrap();
    assert!(!proof.info(b"").contains("nextnonce"));
    both.now += Duration::from_secs(150);
    let value = both.request();
    let proof = both.judge(&value, b"here").unwrap();
    let old = both.session.nonce().to_string();
    let info = proof.info(b"");
    assert_eq!(both.session.handle_info(&info, b""), InfoVerdict::Proven);
    assert_ne!(both.session.nonce(), old);
    both.now += Duration::from_secs(299);
    let value = both.request();
    assert!(value.contains("nc=00000001"));
    both.judge(&value, b"here").unwrap();

    // A session is kept with its first nonce, by both sides.
    let mut both = Both::new(Algorithm::SHA256.session());
    both.now += Duration::from_secs(150);
    let value = both.request();
    let proof = both.judge(&value, b"here").unwrap();
    assert!(!proof.info(b"").contains("nextnonce"));
    let mut session = both.session.clone();
    session.handle_info("nextnonce=\"other\"", b"");
    let key = |session: &DigestSession| session.sent().unwrap().key().as_str().to_string();
    let before = key(&session);
    session.authorization(&mut both.rng, "CONNECT", "h:443", b"");
    assert_eq!(key(&session), before);
}

// spec: DS-2.6-1, DS-2.6-2, DIG-3.3-1
#[test]
fn credentials_must_name_the_request_and_what_was_offered() {
    let mut both = Both::new(Algorithm::SHA256);
    let value = both.request();
    let check = |both: &mut Both, from: &str, to: &str, refusal| {
        let changed = value.replace(from, to);
        assert_ne!(changed, value, "{from}");
        assert_eq!(both.judge(&changed, b"here").unwrap_err(), refusal, "{to}");
    };
    use DigestRefusal::{Foreign, Malformed, Wrong};
    check(&mut both, "h:443", "other:443", Malformed);
    check(&mut both, "realm=\"realm\"", "realm=\"x\"", Foreign);
    check(&mut both, "algorithm=SHA-256", "algorithm=MD5", Foreign);
    check(&mut both, "algorithm=SHA-256", "algorithm=FOO", Malformed);
    check(&mut both, "qop=auth", "qop=foo", Malformed);
    check(&mut both, "nc=00000001", "nc=1", Malformed);
    check(&mut both, "nc=00000001", "nc=0000000g", Malformed);
    check(&mut both, "nc=00000001", "nc=+0000001", Malformed);
    check(&mut both, "nc=00000001", "nc=00000002", Wrong);
    check(&mut both, "cnonce=\"", "cnonce=\"\\\"", Malformed);
    check(&mut both, "nc=", "realm=\"realm\",nc=", Malformed);
    check(
        &mut both,
        "username=",
        "username*=UTF-8''user,username=",
        Malformed,
    );
    // No qop at all is the old form, which was not allowed.
    let parts = value.split(',').filter(|part| {
        !["qop=", "nc=", "cnonce="]
            .iter()
            .any(|name| part.starts_with(name))
    });
    let old: Vec<_> = parts.collect();
    assert_eq!(both.judge(&old.join(","), b"here").unwrap_err(), Foreign);
    // Unusual quoting is fine.
    let odd = value
        .replace("qop=auth", "QOP=\"auth\"")
        .replace("nc=00000001", "Nc=\"00000001\"")
        .replace("uri=\"h:443\"", "uri=h:443")
        .replace("algorithm=SHA-256", "algorithm=\"sha-256\"");
    both.judge(&odd, b"here").unwrap();
}

// spec: DS-2.6-2
#[test]
fn the_old_form_is_accepted_once_per_nonce_where_allowed() {
    let mut rng = rng();
    let mut config = DigestServerConfig::new("realm");
    config.allow_no_qop = true;
    let mut server = DigestServer::new(config, &mut rng).unwrap();
    let now = Instant::ZERO;
    let field = server.challenges(now, b"", false)[0].replace("qop=\"auth\",", "");
    let value = digest(&field, "u", "p").authorization(&mut rng, "M", "u:1", b"");
    assert!(!value.contains("cnonce"));
    let mut verify = || {
        let request = DigestRequest {
            method: "M",
            uri: "u:1",
            body: b"",
        };
        let credentials = Challenge::parse(&value).unwrap();
        server
            .verify(now, b"", request, &credentials, |_, hash| {
                Some(ha1(hash, b"u", b"realm", b"p"))
            })
            .map(|proof| proof.info(b""))
    };
    assert!(verify().unwrap().starts_with("rspauth=\""));
    assert_eq!(verify().unwrap_err(), DigestRefusal::Stale);
}

// spec: DS-2.3-1, DIG-3.3-1
#[test]
fn challenges_are_one_row_per_algorithm_best_first() {
    let mut rng = rng();
    let mut config = DigestServerConfig::new("a \"b\"");
    config.algorithms = alloc::vec![Algorithm::SHA512_256, Algorithm::SHA256, Algorithm::MD5];
    let mut server = DigestServer::new(config, &mut rng).unwrap();
    let rows = server.challenges(Instant::ZERO, b"", true);
    let names: Vec<_> = rows
        .iter()
        .map(|row| {
            let row = Challenge::parse(row).unwrap();
            assert_eq!(row.parameter("realm").unwrap(), "a \"b\"");
            row.parameter("algorithm").unwrap().into_owned()
        })
        .collect();
    assert_eq!(names, ["SHA-512-256", "SHA-256", "MD5"]);
    for row in rows {
        assert!(row.contains("qop=\"auth\"") && row.contains("stale=true"));
        assert!(!row.contains("algorithm=\""));
    }
}

// spec: SEC-G-19
#[test]
fn servers_that_cannot_work_are_not_made() {
    let check = |change: fn(&mut DigestServerConfig)| {
        let mut config = DigestServerConfig::new("realm");
        change(&mut config);
        DigestServer::new(config, &mut rng()).unwrap_err();
    };
    check(|c| c.realm = String::new());
    check(|c| c.realm = "a\r\nb".into());
    check(|c| c.algorithms.clear());
    check(|c| c.algorithms[0].aka = Some(Aka::V1));
    check(|c| c.max_nonces = 0);
    check(|c| c.nonce_lifetime = Duration::ZERO);
}

const SIP_NONCE: &str = "MTcwMDAwMDAwMDphYmNkZWY=";
const SIP_CNONCE: &str = "0123456789abcdef0123456789abcdef";

/// What a session shows for the SIP vectors, and the `rspauth` it expects.
fn sip(fields: &str, password: &[u8], nth: u32) -> (String, String) {
    let field = alloc::format!("Digest realm=\"ims.example.com\",{fields}");
    let challenge = Challenge::parse(&field).unwrap();
    let secret = Secret::new(password);
    let credentials = Credentials::new("alice@ims.example.com", secret);
    let mut session = DigestSession::new(&challenge, &credentials).unwrap();
    let uri = "sip:ims.example.com";
    let mut value = String::new();
    for _ in 0..nth {
        value = session.authorization_with(SIP_CNONCE.into(), "REGISTER", uri, b"");
    }
    let response = {
        let credentials = Challenge::parse(&value).unwrap();
        credentials.parameter("response").unwrap().into_owned()
    };
    (value, response)
}

// spec: DA-3.4-2, DIG-3.4-1, DIG-3.4-2, DS-2.6-1
#[test]
fn sip_vectors() {
    let check = |fields: &str, nth, expected: &str, rspauth: Option<&str>| {
        let fields = alloc::format!("nonce=\"{SIP_NONCE}\"{fields}");
        let (_, response) = sip(&fields, b"correct horse", nth);
        assert_eq!(response, expected, "{fields}");
        let Some(rspauth) = rspauth else { return };
        let field = alloc::format!("Digest realm=\"ims.example.com\",{fields}");
        let mut session = digest(&field, "alice@ims.example.com", "correct horse");
        let uri = "sip:ims.example.com";
        session.authorization_with(SIP_CNONCE.into(), "REGISTER", uri, b"");
        let sent = session.sent().unwrap();
        let info = alloc::format!("rspauth=\"{rspauth}\"");
        assert_eq!(sent.check(&info, b""), InfoVerdict::Proven);
        assert_eq!(sent.check("rspauth=\"00\"", b""), InfoVerdict::Forged);
        for odd in ["qop=foo", "rspauth=\"00\""] {
            let odd = alloc::format!("{info},{odd}");
            assert_eq!(sent.check(&odd, b""), InfoVerdict::Forged);
        }
        assert_eq!(sent.check("nc=00000001", b""), InfoVerdict::Unproven);
    };
    let md5 = Some("81229e53a39090e48989e52aeccbff42");
    check(",qop=\"auth\"", 1, "f1a164de8c70ca9f90ecd6ea3fdb065d", md5);
    check(",qop=\"auth\"", 2, "4fafd889fbfa1ae356e061046b47865a", None);
    check(
        ",qop=\"auth-int\"",
        1,
        "62ce9a891e7f3be44be15d894ec74d45",
        None,
    );
    check("", 1, "5a33d366cdd46ee71e666402205df247", None);
    check(
        ",qop=\"auth\",algorithm=MD5-sess",
        1,
        "f25319a12743e0fd9b9f94bb7062a01a",
        Some("ed31caa49a436907e257bddcdb63ea82"),
    );
    check(
        ",qop=\"auth\",algorithm=SHA-256",
        1,
        "bb8f01346e30e2da5cf2f9783998ab02e0222925f1b11dcd3b1bcadd827bcf2b",
        Some("040f9d7871b0858b7679c929c677dd74532f93ce3d991303fc1c19d2098e73de"),
    );
    check(
        ",qop=\"auth\",algorithm=SHA-256-sess",
        1,
        "46604cb61059bc23ced013fea799da72b72a0ee2fb665f199715423a6ba1e603",
        Some("d415daae35e32a0ec21ae1691119dbe45e9be8e3b260d6330446658eb87b024f"),
    );
    check(
        ",qop=\"auth\",algorithm=SHA-512-256",
        1,
        "c2457df896648b42ff287a62a6ee8856d045e20ff6605383bf3ad7d45f65695c",
        Some("9156c3a0411afb3c2fdadaea600a1ad115928be1f45d67ce703480013964f3e9"),
    );
    let user = b"alice@ims.example.com";
    assert_eq!(
        userhash(HashAlgorithm::Sha256, user, b"ims.example.com").as_str(),
        "d18c12ec92613f9c7cc9b9ee990c3202b57f24fee25da94c81f5d7e03752ba7b"
    );
    // INVITE with a body, third use.
    let key = ha1(
        HashAlgorithm::Sha256,
        user,
        b"ims.example.com",
        b"correct horse",
    );
    let exchange = Exchange {
        hash: HashAlgorithm::Sha256,
        qop: Some(Qop::AuthInt),
        nonce: SIP_NONCE,
        nc: 3,
        cnonce: SIP_CNONCE,
        uri: "sip:bob@example.com",
    };
    assert_eq!(
        exchange.response(&key, "INVITE", b"v=0\r\n").as_str(),
        "907ae6c8de60069e75cd404b21835b3415a666a0c7745547cb92a82bfd5c6547"
    );
}

// spec: AKA-3.1-1, AKA-3.3-1, AKA-3.4-1
#[test]
fn aka_vectors() {
    let nonce = "I1U8vpY3qJ0hiuZNrke/NVXzKLQ1d7m5Sp/6w1Tfr7M=";
    let v1 = alloc::format!("nonce=\"{nonce}\",qop=\"auth\",algorithm=AKAv1-MD5");
    let v2 = alloc::format!("nonce=\"{nonce}\",qop=\"auth\",algorithm=AKAv2-MD5");
    let res = hex::decode("a54211d5e3ba50bf").unwrap();
    let (value, response) = sip(&v1, &res, 1);
    assert_eq!(response, "ce9e9f323220869fa7276d721a7ab56a");
    assert!(value.contains("algorithm=AKAv1-MD5,"));
    let (_, response) = sip(&v1, b"", 1);
    assert_eq!(response, "53ff325b9c030c9421754e0f085417bc");
    let (_, response) = sip(&v2, b"shzt3q8CWaZnCAWqs3WmEQ==", 1);
    assert_eq!(response, "83f937a52af23d56b0139d3c70414e0b");

    let field = alloc::format!("Digest realm=\"r\",{v1}");
    let session = digest(&field, "u", "").with_auts("AAAAAAAAAAAAAAAAAAA=");
    let value = session.clone().authorization(&mut rng(), "M", "u", b"");
    assert!(value.contains(",auts=\"AAAAAAAAAAAAAAAAAAA=\","));
    assert!(session.empty_authorization("u").contains(",response=\"\","));
    // Nobody answers it without a card.
    assert_eq!(Scheme::of(&Challenge::parse(&field).unwrap()), None);
    assert_eq!(Algorithm::from_name("AKAv1-FOO"), None);
}

// spec: DIG-3.3-1, DIG-3.4-2
#[test]
fn user_names_that_are_not_ascii_are_hidden_or_extended_or_sent_as_they_are() {
    let name = "J\u{e4}s\u{f8}n \"D\" Doe";
    let plain = digest(DIGEST_MD5, name, "p");
    let value = plain
        .clone()
        .authorization(&mut rng(), "CONNECT", "h:1", b"");
    assert!(value.contains("username=\"J\u{e4}s\u{f8}n \\\"D\\\" Doe\""));
    let value = plain
        .with_extended_username()
        .authorization(&mut rng(), "CONNECT", "h:1", b"");
    assert!(value.contains("username*=UTF-8''J%C3%A4s%C3%B8n%20%22D%22%20Doe,"));
    let claim = DigestClaim::read(&Challenge::parse(&value).unwrap()).unwrap();
    assert_eq!(*claim.user(), ClaimedUser::Name(name.into()));
    let hidden = alloc::format!("{DIGEST_MD5},userhash=true");
    let value = digest(&hidden, name, "p").authorization(&mut rng(), "CONNECT", "h:1", b"");
    assert!(!value.contains("Doe") && value.ends_with("userhash=true"));
    let ascii = digest(DIGEST_MD5, "u", "p")
        .with_extended_username()
        .authorization(&mut rng(), "CONNECT", "h:1", b"");
    assert!(ascii.starts_with("Digest username=\"u\","));
}

// spec: DIG-3.3-2, DIG-3.4-2
#[test]
fn the_algorithm_is_echoed_as_it_was_named_or_not_at_all() {
    let value = digest(DIGEST_MD5, "u", "p").authorization(&mut rng(), "M", "u", b"");
    assert!(!value.contains("algorithm"));
    let odd = alloc::format!("{DIGEST_MD5},algorithm=\"md5\",unknown=1");
    let value = digest(&odd, "u", "p").authorization(&mut rng(), "M", "u", b"");
    assert!(value.contains("algorithm=md5,"));
}

// spec: SEC-P-10
#[test]
fn challenges_that_are_too_long_or_ambiguous_are_not_taken_up() {
    let refused = |field: &str| {
        let challenge = Challenge::parse(field).unwrap();
        DigestSession::new(&challenge, &Credentials::new("u", "p")).unwrap_err()
    };
    let nonce = "n".repeat(1025);
    for field in [
        alloc::format!("Digest realm=\"r\",nonce=\"{nonce}\""),
        alloc::format!("Digest realm=\"r\",nonce=\"n\",opaque=\"{nonce}\""),
        "Digest realm=\"r\",nonce=\"n\",Nonce=\"m\"".to_string(),
        "Digest realm=\"r\"".to_string(),
        "Digest nonce=\"r\"".to_string(),
    ] {
        assert_eq!(refused(&field), DigestError::Malformed, "{field}");
    }
    let qop = "Digest realm=\"r\",nonce=\"n\",qop=\"foo\"";
    assert_eq!(refused(qop), DigestError::Qop);
    assert_eq!(refused("Basic realm=\"r\""), DigestError::Scheme);
    let many = alloc::format!("Foo {}", "a=b,".repeat(33));
    assert!(challenges(&many).last().unwrap().is_err());
}

fn client(basic: bool) -> ClientAuth {
    let policy = Policy {
        basic: if basic { Allow::Always } else { Allow::Never },
        md5: Allow::Always,
        ..Policy::default()
    };
    ClientAuth::new(Some(Credentials::new("u", "p")), policy)
}

const DIGEST_MD5: &str = r#"Digest realm="r",nonce="n",qop="auth""#;

// spec: HS-11.4-1, PRH-5-1
#[test]
fn the_strongest_allowed_scheme_is_taken_and_never_a_weaker_one_later() {
    let offers = ["Basic realm=\"r\"", DIGEST_MD5, CHALLENGE];
    let mut auth = client(true);
    assert_eq!(auth.challenge(offers), AuthStep::Retry);
    let value = auth
        .authorization(&mut rng(), "CONNECT", "h:1", b"")
        .unwrap();
    assert!(value.contains("SHA-256"));
    auth.accepted(None, b"");
    assert_eq!(
        auth.challenge(["Basic realm=\"r\""]),
        AuthStep::Refuse(AuthRefusal::Downgrade)
    );
    assert_eq!(
        client(false).challenge(["Basic realm=\"r\""]),
        AuthStep::Refuse(AuthRefusal::NoUsableScheme)
    );
    assert_eq!(
        ClientAuth::new(None, Policy::default()).challenge([CHALLENGE]),
        AuthStep::Refuse(AuthRefusal::NoCredentials)
    );
}

// spec: PRH-5-2
#[test]
fn a_second_challenge_means_wrong_credentials_unless_once_stale() {
    let mut auth = client(true);
    auth.challenge(["Basic realm=\"r\""]);
    auth.authorization(&mut rng(), "CONNECT", "h:1", b"")
        .unwrap();
    assert_eq!(
        auth.challenge(["Basic realm=\"r\""]),
        AuthStep::Refuse(AuthRefusal::WrongCredentials)
    );

    let mut auth = client(true);
    let stale = r#"Digest realm="r",nonce="m",qop="auth",stale=true"#;
    auth.challenge([DIGEST_MD5]);
    auth.authorization(&mut rng(), "CONNECT", "h:1", b"")
        .unwrap();
    assert_eq!(auth.challenge([stale]), AuthStep::Retry);
    auth.authorization(&mut rng(), "CONNECT", "h:1", b"")
        .unwrap();
    assert_eq!(
        auth.challenge([stale]),
        AuthStep::Refuse(AuthRefusal::WrongCredentials)
    );
}

// spec: HS-11.7-1, SEC-P-09
#[test]
fn foreign_realms_are_not_answered() {
    let policy = Policy {
        realms: alloc::vec!["mine".into()],
        ..Policy::default()
    };
    let mut auth = ClientAuth::new(Some(Credentials::new("u", "p")), policy);
    assert_eq!(
        auth.challenge([CHALLENGE]),
        AuthStep::Refuse(AuthRefusal::NoUsableScheme)
    );
    assert_eq!(
        auth.challenge([CHALLENGE.replace("\"r\"", "\"mine\"").as_str()]),
        AuthStep::Retry
    );
}

// spec: HS-11.4-1, PRH-5-1, SEC-P-09
#[test]
fn ranks_follow_the_policy_and_the_kind_of_hop() {
    let rank = |change: fn(&mut Policy), field: &str| {
        let mut policy = Policy::default();
        change(&mut policy);
        policy
            .rank(&Challenge::parse(field).unwrap())
            .map(|strength| strength.scheme)
    };
    let (basic, md5, ntlm) = ("Basic realm=\"r\"", DIGEST_MD5, "NTLM");
    let plain: fn(&mut Policy) = |_| {};
    let tls: fn(&mut Policy) = |policy| policy.hop_is_tls = true;
    let always: fn(&mut Policy) = |policy| {
        policy.basic = Allow::Always;
        policy.md5 = Allow::Always;
        policy.ntlm = Allow::OverTls;
        policy.negotiate = Allow::Always;
        policy.no_qop = Allow::Always;
    };
    for field in [basic, md5, ntlm, "Negotiate", "Foo a=b"] {
        assert_eq!(rank(plain, field), None, "{field}");
    }
    assert_eq!(rank(tls, basic), Some(Scheme::Basic));
    assert_eq!(rank(tls, md5), Some(Scheme::Digest(HashAlgorithm::Md5)));
    assert_eq!(rank(tls, ntlm), None);
    assert_eq!(rank(always, basic), Some(Scheme::Basic));
    assert_eq!(rank(always, ntlm), None);
    let no_qop = "Digest realm=\"r\",nonce=\"n\",algorithm=SHA-256";
    assert_eq!(rank(tls, no_qop), None);
    assert!(rank(always, no_qop).is_some());

    let digest = |hash| Scheme::Digest(hash);
    let order = [
        Scheme::Basic,
        digest(HashAlgorithm::Md5),
        digest(HashAlgorithm::Sha256),
        digest(HashAlgorithm::Sha512_256),
        Scheme::Ntlm,
        Scheme::Negotiate,
    ];
    assert!(order.is_sorted());
}

// spec: PRH-5-1, SEC-P-09
#[test]
fn offers_that_shrink_are_a_downgrade_until_it_is_forgiven() {
    for weaker in [
        DIGEST_MD5,
        "Basic realm=\"r\"",
        "Digest realm=\"r\",nonce=\"n\",algorithm=SHA-256",
        "Digest realm=\"r\",nonce=\"n\",algorithm=SHA-512-256",
    ] {
        let mut auth = client(true);
        auth.policy_mut().no_qop = Allow::Always;
        assert_eq!(auth.challenge([CHALLENGE]), AuthStep::Retry);
        assert_eq!(
            auth.challenge([weaker]),
            AuthStep::Refuse(AuthRefusal::Downgrade),
            "{weaker}"
        );
        auth.forgive_downgrade();
        assert_eq!(auth.challenge([weaker]), AuthStep::Retry);
    }
}

// spec: SEC-H-07, SEC-G-05
#[test]
fn only_so_many_challenges_and_legs_are_looked_at() {
    let mut auth = client(false);
    let mut many = alloc::vec!["Foo a=b"; 8];
    many.push(CHALLENGE);
    assert_eq!(
        auth.challenge(many.iter().copied()),
        AuthStep::Refuse(AuthRefusal::NoUsableScheme)
    );
    assert_eq!(auth.challenge(many[1..].iter().copied()), AuthStep::Retry);

    let mut auth = client(false);
    auth.policy_mut().negotiate = Allow::Always;
    let mut step = auth.challenge(["Negotiate"]);
    for _ in 0..8 {
        assert!(matches!(step, AuthStep::NeedToken { .. }), "{step:?}");
        auth.set_token(Some("YWJj".into())).unwrap();
        auth.authorization(&mut rng(), "CONNECT", "h:1", b"")
            .unwrap();
        step = auth.challenge(["Negotiate eHl6"]);
    }
    assert_eq!(step, AuthStep::Refuse(AuthRefusal::Unfinished));
}

// spec: NEG-4-1, NEG-4-3
#[test]
fn tokens_are_passed_on_and_a_handshake_may_be_begun_unasked() {
    let mut auth = client(false);
    let begin = |auth: &mut ClientAuth, scheme| auth.begin(scheme, "dDE=".into());
    assert_eq!(
        begin(&mut auth, Scheme::Negotiate),
        Err(AuthRefusal::NoUsableScheme)
    );
    auth.policy_mut().negotiate = Allow::Always;
    assert_eq!(
        begin(&mut auth, Scheme::Basic),
        Err(AuthRefusal::NoUsableScheme)
    );
    begin(&mut auth, Scheme::Negotiate).unwrap();
    let value = auth.authorization(&mut rng(), "CONNECT", "h:1", b"");
    assert_eq!(value.unwrap().as_str(), "Negotiate dDE=");
    assert_eq!(
        auth.final_token(["Basic realm=x", "Negotiate ZmluYWw="]),
        Some("ZmluYWw=".into())
    );
    auth.accepted(None, b"");
    // That connection is authenticated, no other one is.
    assert!(!auth.is_bound_to_connection());
    assert_eq!(auth.authorization(&mut rng(), "CONNECT", "h:1", b""), None);

    auth.challenge(["Negotiate"]);
    for bad in ["", "=", "a b", "a\r\nEvil: 1", "a=b"] {
        let mut auth = auth.clone();
        assert_eq!(
            auth.set_token(Some(bad.into())),
            Err(AuthRefusal::Unfinished)
        );
    }
}

// spec: PRH-5-3, PRH-5-2
#[test]
fn a_nonce_of_an_earlier_tunnel_may_be_forgotten_once() {
    let mut auth = client(false);
    let ask = |auth: &mut ClientAuth| {
        auth.authorization(&mut rng(), "CONNECT", "h:1", b"")
            .unwrap()
    };
    auth.challenge([DIGEST_MD5]);
    ask(&mut auth);
    auth.accepted(None, b"");
    assert!(ask(&mut auth).contains("nc=00000002"));
    let other = DIGEST_MD5.replace("\"n\"", "\"new\"");
    assert_eq!(auth.challenge([other.as_str()]), AuthStep::Retry);
    assert!(ask(&mut auth).contains("nonce=\"new\""));
    assert_eq!(
        auth.challenge([other.as_str()]),
        AuthStep::Refuse(AuthRefusal::WrongCredentials)
    );
}

// spec: DIG-3.3-3
#[test]
fn only_stale_true_keeps_the_password() {
    for (stale, step) in [
        (",stale=TRUE", AuthStep::Retry),
        (",stale=\"true\"", AuthStep::Retry),
        (
            ",stale=false",
            AuthStep::Refuse(AuthRefusal::WrongCredentials),
        ),
        ("", AuthStep::Refuse(AuthRefusal::WrongCredentials)),
    ] {
        let mut auth = client(false);
        auth.challenge([DIGEST_MD5]);
        auth.authorization(&mut rng(), "CONNECT", "h:1", b"")
            .unwrap();
        let field = alloc::format!("{DIGEST_MD5}{stale}");
        assert_eq!(auth.challenge([field.as_str()]), step, "{stale}");
    }
    // A new nonce without the qop of the old one is not followed.
    let mut session = digest(DIGEST_MD5, "u", "p");
    let bare = "Digest realm=\"r\",nonce=\"m\",stale=true";
    assert!(!session.renew(&Challenge::parse(bare).unwrap()));
}

#[test]
fn missing_credentials_can_be_asked_for() {
    let policy = Policy {
        ask_host: true,
        ..Policy::default()
    };
    let mut auth = ClientAuth::new(None, policy);
    let scheme = Scheme::Digest(HashAlgorithm::Sha256);
    let realm = "r".into();
    assert_eq!(
        auth.challenge([CHALLENGE]),
        AuthStep::NeedCredentials { realm, scheme }
    );
    let mut declined = auth.clone();
    assert_eq!(
        declined.set_credentials(None),
        AuthStep::Refuse(AuthRefusal::NoCredentials)
    );
    let credentials = Some(Credentials::new("u", "p"));
    assert_eq!(auth.set_credentials(credentials), AuthStep::Retry);
    assert!(
        auth.authorization(&mut rng(), "CONNECT", "h:1", b"")
            .unwrap()
            .contains("username=\"u\"")
    );
}

// spec: HS-11.7-2, SEC-G-16
#[test]
fn a_server_offers_digest_and_basic_and_accepts_both() {
    let digest_server = DigestServer::new(DigestServerConfig::new("gate"), &mut rng()).unwrap();
    let mut auth = ServerAuth::new(digest_server).with_basic();
    let mut check = |authorization: Option<&str>| {
        let request = DigestRequest {
            method: "CONNECT",
            uri: "h:443",
            body: b"",
        };
        auth.check_named(Instant::ZERO, b"", request, authorization, |hash, user| {
            (user == "me").then(|| ha1(hash, b"me", b"gate", b"pass"))
        })
    };
    let ServerVerdict::Challenge(rows) = check(None) else {
        panic!();
    };
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[2], "Basic realm=\"gate\",charset=\"UTF-8\"");
    let basic = |user: &str, password: &str| {
        basic_authorization(&Credentials::new(user, password))
            .unwrap()
            .to_string()
    };
    let user = "me".to_string();
    let info = None;
    assert_eq!(
        check(Some(&basic("me", "pass"))),
        ServerVerdict::Allow { user, info }
    );
    for wrong in [basic("me", "no"), basic("you", "pass"), "Bearer x".into()] {
        assert!(matches!(check(Some(&wrong)), ServerVerdict::Challenge(_)));
    }
    for odd in ["Basic !", "Basic YQ==", "Digest a=b", "Basic a, Basic b"] {
        assert_eq!(check(Some(odd)), ServerVerdict::Malformed, "{odd}");
    }
    let mut session = digest(&rows[0], "me", "pass");
    let value = session.authorization(&mut rng(), "CONNECT", "h:443", b"");
    let ServerVerdict::Allow { info, .. } = check(Some(&value)) else {
        panic!();
    };
    assert_eq!(
        session.handle_info(&info.unwrap(), b""),
        InfoVerdict::Proven
    );
    let ServerVerdict::Challenge(rows) = check(Some(&value)) else {
        panic!();
    };
    assert!(rows[0].contains("stale=true"));
}

// spec: SEC-G-15
#[test]
fn secrets_are_not_shown() {
    let credentials = Credentials::new("u", "canary-password");
    let mut basic = ClientAuth::new(
        Some(credentials.clone()),
        Policy {
            basic: Allow::Always,
            ..Policy::default()
        },
    );
    basic.challenge(["Basic realm=\"r\""]);
    let value = basic
        .authorization(&mut rng(), "CONNECT", "h:1", b"")
        .unwrap();
    let mut opaque = client(false);
    opaque.policy_mut().ntlm = Allow::Always;
    opaque.begin(Scheme::Ntlm, "Y2FuYXJ5".into()).unwrap();
    let session = digest(DIGEST_MD5, "u", "canary-password");
    let digest_server = DigestServer::new(DigestServerConfig::new("r"), &mut rng()).unwrap();
    let server = ServerAuth::new(digest_server);
    let parsed = Challenge::parse(&value).unwrap();
    let read = parse_basic(&parsed).unwrap();
    let head = alloc::format!(
        "CONNECT h:1 HTTP/1.1\r\nProxy-Authorization: {}\r\n\r\n",
        *value
    );
    let mut reader =
        crate::wire::HeadReader::new(crate::wire::HeadLimits::default(), crate::Leniency::STRICT);
    let (mut first, mut rest) = head.as_bytes().split_at(head.len() - 1);
    reader.take(&mut first).unwrap();
    let reader_shown = alloc::format!("{reader:?}");
    let head = reader.take(&mut rest).unwrap().unwrap();
    let key = ha1(HashAlgorithm::Md5, b"u", b"r", b"canary-password");
    let shown = alloc::format!(
        "{credentials:?} {basic:?} {opaque:?} {session:?} {server:?} {parsed:?} {read:?} {head:?} \
         {reader_shown} {key:?} {:?} {:?}",
        challenges(&value),
        rng()
    );
    let decimal = alloc::format!("{:?}", b"canary").replace(['[', ']'], "");
    let (base64, key) = (&value["Basic ".len()..], key.as_str());
    for secret in ["canary", base64, "Y2FuYXJ5", &decimal, key] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn token() -> impl Strategy<Value = String> {
        "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,8}"
    }

    /// A challenge as written, and its scheme, token and parameters as meant.
    type Written = (String, String, Option<String>, Vec<(String, String)>);

    fn challenge() -> impl Strategy<Value = Written> {
        let value = prop_oneof![
            token().prop_map(|text| (text.clone(), text)),
            "[ -~\u{e9}\t]{0,10}".prop_map(|text| {
                let mut written = String::new();
                super::super::challenge::push_quoted(&mut written, &text);
                (written, text)
            }),
        ];
        let blank = "[ \t]{0,2}";
        let parameter = (token(), blank, blank, value);
        let bare = token().prop_map(|scheme| (scheme.clone(), scheme, None, Vec::new()));
        let with_token = (token(), "[A-Za-z0-9._~+/-]{1,9}={0,2}").prop_map(|(scheme, token)| {
            let written = alloc::format!("{scheme} {token}");
            (written, scheme, Some(token), Vec::new())
        });
        let with_parameters =
            (token(), prop::collection::vec(parameter, 1..4)).prop_map(|(scheme, parameters)| {
                let text: Vec<String> = parameters
                    .iter()
                    .map(|(name, a, b, (written, _))| alloc::format!("{name}{a}={b}{written}"))
                    .collect();
                let meant = parameters
                    .into_iter()
                    .map(|(name, _, _, (_, text))| (name, text))
                    .collect();
                let written = alloc::format!("{scheme} {}", text.join(","));
                (written, scheme, None, meant)
            });
        prop_oneof![bare, with_token, with_parameters]
    }

    proptest! {
        // spec: HS-11.6.1-1
        #[test]
        fn challenges_round_trip(all in prop::collection::vec(challenge(), 1..5)) {
            let field: Vec<&str> = all.iter().map(|(written, ..)| written.as_str()).collect();
            let field = field.join(" , ");
            let read: Vec<_> = challenges(&field).map(Result::unwrap).collect();
            prop_assert_eq!(read.len(), all.len(), "{}", field);
            for (read, (_, scheme, token, parameters)) in read.iter().zip(&all) {
                prop_assert_eq!(read.scheme, scheme.as_str());
                prop_assert_eq!(read.token68, token.as_deref());
                let found: Vec<(String, String)> = read
                    .parameters()
                    .map(|(name, value)| (name.to_string(), value.into_owned()))
                    .collect();
                prop_assert_eq!(&found, parameters);
            }
        }

        // spec: SEC-G-01
        #[test]
        fn no_field_makes_authentication_panic(text in "\\PC{0,60}", loose in "[A-Za-z=,\" \\\\]{0,40}") {
            for text in [text, loose, String::from("Digest realm=\"r\",nonce=\"n\",qop=\"auth")] {
                let _ = challenges(&text).last();
                let mut auth = client(true);
                let _ = auth.challenge([text.as_str()]);
                let _ = auth.authorization(&mut rng(), "CONNECT", "h:1", b"");
                let _ = auth.accepted(Some(&text), b"");
                if let Ok(credentials) = Challenge::parse(&text) {
                    let _ = DigestClaim::read(&credentials);
                    let _ = parse_basic(&credentials);
                }
            }
        }

        #[test]
        fn user_names_survive_the_way_to_the_server(name in "[ -~\u{e9}\u{4e2d}]{1,20}", extended in any::<bool>()) {
            let mut session = digest(DIGEST_MD5, &name, "p");
            if extended {
                session = session.with_extended_username();
            }
            let value = session.authorization(&mut rng(), "CONNECT", "h:1", b"");
            let claim = DigestClaim::read(&Challenge::parse(&value).unwrap()).unwrap();
            prop_assert_eq!(claim.user(), &ClaimedUser::Name(name));
        }
    }
}
