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
        "Digest realm=\"x\",nonce=",
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
    assert!(value.contains("qop=auth-int") && value.contains("algorithm=MD5"));
}

struct Both {
    server: DigestServer,
    session: DigestSession,
    rng: Rng,
    now: Instant,
}

impl Both {
    fn new(hash: HashAlgorithm) -> Self {
        let mut rng = rng();
        let mut config = DigestServerConfig::new("realm");
        config.algorithms = alloc::vec![hash];
        config.max_nonces = 2;
        let server = DigestServer::new(config, &mut rng);
        let now = Instant::ZERO + Duration::from_secs(1000);
        let field = server.challenges(now, b"here", false, &mut rng);
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
                (*user == ClaimedUser::Name("user".into()))
                    .then(|| ha1(hash, b"user", b"realm", b"pass"))
            })
    }
}

// spec: DIG-3.6-1, DIG-3.5-1
#[test]
fn server_accepts_each_count_once_and_proves_itself() {
    for hash in [
        HashAlgorithm::Md5,
        HashAlgorithm::Sha256,
        HashAlgorithm::Sha512_256,
    ] {
        let mut both = Both::new(hash);
        let first = both.request();
        let proof = both.judge(&first, b"here").unwrap();
        assert_eq!(
            both.session.handle_info(&proof.info, "h:443", b""),
            InfoVerdict::Proven
        );
        assert_eq!(
            both.judge(&first, b"here").unwrap_err(),
            DigestRefusal::Stale
        );
        let (second, third) = (both.request(), both.request());
        both.judge(&third, b"here").unwrap();
        both.judge(&second, b"here").unwrap();
        assert!(both.judge(&second, b"here").is_err());
        let forged = proof.info.replace("rspauth=\"", "rspauth=\"0");
        assert_eq!(
            both.session.handle_info(&forged, "h:443", b""),
            InfoVerdict::Forged
        );
    }
}

// spec: PRJ-14-1, PRJ-14-2
#[test]
fn nonces_expire_and_are_bound_to_their_client() {
    let mut both = Both::new(HashAlgorithm::Sha256);
    let value = both.request();
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
    let wrong = value.replace("username=\"user\"", "username=\"other\"");
    assert_eq!(
        both.judge(&wrong, b"here").unwrap_err(),
        DigestRefusal::Wrong
    );
}

#[test]
fn watched_nonces_are_limited_and_the_oldest_become_stale() {
    let mut both = Both::new(HashAlgorithm::Sha256);
    let oldest = both.request();
    both.judge(&oldest, b"here").unwrap();
    let mut oldest = both.session.clone();
    for _ in 0..2 {
        both.now += Duration::from_secs(1);
        let field = both
            .server
            .challenges(both.now, b"here", false, &mut both.rng);
        both.session = digest(&field[0], "user", "pass");
        let value = both.request();
        both.judge(&value, b"here").unwrap();
    }
    let late = oldest.authorization(&mut both.rng, "CONNECT", "h:443", b"");
    assert_eq!(
        both.judge(&late, b"here").unwrap_err(),
        DigestRefusal::Stale
    );
}

fn client(basic: bool) -> ClientAuth {
    let policy = Policy {
        basic,
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
    auth.accepted(None, "h:1", b"");
    assert_eq!(
        auth.challenge(["Basic realm=\"r\""]),
        AuthStep::Refuse(AuthRefusal::Downgrade)
    );
    assert_eq!(
        client(false).challenge(["Basic realm=\"r\""]),
        AuthStep::Refuse(AuthRefusal::NoUsableScheme)
    );
    assert_eq!(
        ClientAuth::new(None, Policy::default()).challenge([DIGEST_MD5]),
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

// spec: HS-11.7-1
#[test]
fn foreign_realms_are_not_answered() {
    let policy = Policy {
        realms: alloc::vec!["mine".into()],
        ..Policy::default()
    };
    let mut auth = ClientAuth::new(Some(Credentials::new("u", "p")), policy);
    assert_eq!(
        auth.challenge([DIGEST_MD5]),
        AuthStep::Refuse(AuthRefusal::NoUsableScheme)
    );
}

// spec: SEC-G-15
#[test]
fn secrets_are_not_shown() {
    let mut auth = client(true);
    auth.challenge(["Basic realm=\"r\""]);
    let credentials = Credentials::new("u", "canary-password");
    let session = digest(DIGEST_MD5, "u", "canary-password");
    let server = DigestServer::new(DigestServerConfig::new("r"), &mut rng());
    let mut basic = ClientAuth::new(
        Some(credentials.clone()),
        Policy {
            basic: true,
            ..Policy::default()
        },
    );
    basic.challenge(["Basic realm=\"r\""]);
    let shown = alloc::format!(
        "{credentials:?} {session:?} {server:?} {basic:?} {:?}",
        rng()
    );
    assert!(!shown.contains("canary"), "{shown}");
    assert!(!shown.contains("Basic dTpj"), "{shown}");
}
