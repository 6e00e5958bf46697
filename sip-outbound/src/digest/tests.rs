#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use http_connect::Rng;
use http_connect::auth::{Allow, HashAlgorithm, InfoVerdict, ha1};

use super::*;
use crate::wire::{Limits, Message, Name, ParseConfig, Response};

const URI: &str = "sip:ims.example.com";

fn response(code: u16, rows: &str) -> Response {
    let text = alloc::format!(
        "SIP/2.0 {code} X\r\nVia: SIP/2.0/TLS h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
         To: <sip:a@b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 REGISTER\r\n{rows}\r\n"
    );
    let message = Message::parse(text.as_bytes(), &ParseConfig::default()).unwrap();
    Response::check(message, &Limits::DEFAULT).unwrap()
}

/// A 401 with these challenges, a row each.
fn challenge(rows: &[&str]) -> Response {
    let rows: String = rows
        .iter()
        .map(|row| alloc::format!("WWW-Authenticate: {row}\r\n"))
        .collect();
    response(401, &rows)
}

fn digest(realm: &str, nonce: &str, more: &str) -> String {
    alloc::format!("Digest realm=\"{realm}\",nonce=\"{nonce}\"{more}")
}

const QOP: &str = ",qop=\"auth\",algorithm=SHA-256";

const TOLERANT: DigestPolicy = DigestPolicy {
    md5: Allow::OverTls,
    no_qop: Allow::Never,
};

struct Setup {
    client: DigestClient,
    attempt: DigestAttempt,
    rng: Rng,
}

fn setup() -> Setup {
    let accounts = alloc::vec![
        Account::new("alice@ims.example.com", "correct horse", "ims.example.com"),
        Account::new("al", "other", "proxy.example.com"),
    ];
    Setup {
        client: DigestClient::new(accounts, TOLERANT),
        attempt: DigestAttempt::default(),
        rng: Rng::from_seed([7; 32]),
    }
}

impl Setup {
    fn challenge(&mut self, response: &Response) -> ChallengeStep {
        self.client
            .handle_challenge(&mut self.attempt, response, URI, true)
    }

    fn fields(&mut self) -> Vec<(Name, String)> {
        self.client
            .authorize(&mut self.attempt, &mut self.rng, "REGISTER", URI, b"")
    }

    fn field(&mut self) -> String {
        let mut fields = self.fields();
        assert_eq!(fields.len(), 1);
        fields.pop().unwrap().1
    }
}

const REFUSED: ChallengeStep = ChallengeStep::Refuse(AuthFailure::WrongCredentials);

// spec: SIP-22.1-2, DIG-3.3-3
#[test]
fn wrong_credentials_are_sent_once_and_stale_nonces_renewed() {
    let first = challenge(&[&digest("ims.example.com", "n1", QOP)]);
    let mut s = setup();
    assert_eq!(s.challenge(&first), ChallengeStep::Retry);
    s.field();
    let again = challenge(&[&digest("ims.example.com", "n2", QOP)]);
    assert_eq!(s.challenge(&again), REFUSED);
    assert!(s.fields().is_empty());

    for stale in ["TRUE", "true"] {
        let mut s = setup();
        s.challenge(&first);
        s.field();
        let more = alloc::format!("{QOP},stale={stale}");
        let stale = challenge(&[&digest("ims.example.com", "n2", &more)]);
        assert_eq!(s.challenge(&stale), ChallengeStep::Retry);
        let field = s.field();
        assert!(field.contains("nonce=\"n2\"") && field.contains("nc=00000001"));
    }
    let mut s = setup();
    s.challenge(&first);
    s.field();
    let more = alloc::format!("{QOP},stale=false");
    assert_eq!(
        s.challenge(&challenge(&[&digest("ims.example.com", "n2", &more)])),
        REFUSED
    );
}

// spec: SEC-P-10
#[test]
fn two_stale_rounds_are_enough() {
    let mut s = setup();
    s.challenge(&challenge(&[&digest("ims.example.com", "n0", QOP)]));
    for round in 1..=3 {
        s.field();
        let more = alloc::format!("{QOP},stale=true");
        let nonce = alloc::format!("n{round}");
        let step = s.challenge(&challenge(&[&digest("ims.example.com", &nonce, &more)]));
        let expected = if round <= 2 {
            ChallengeStep::Retry
        } else {
            ChallengeStep::Refuse(AuthFailure::Stale)
        };
        assert_eq!(step, expected);
    }
}

// spec: DIG-3.4-1, SEC-P-10
#[test]
fn the_count_rises_and_every_cnonce_is_new() {
    let mut s = setup();
    s.challenge(&challenge(&[&digest("ims.example.com", "n1", QOP)]));
    let mut cnonces = Vec::new();
    for nc in 1..=1000_u32 {
        let field = s.field();
        assert!(field.contains(&alloc::format!("nc={nc:08x},")));
        let cnonce = field
            .split("cnonce=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        assert!(cnonce.len() >= 16);
        cnonces.push(cnonce.to_string());
    }
    cnonces.sort();
    cnonces.dedup();
    assert_eq!(cnonces.len(), 1000);
}

#[test]
fn a_later_operation_may_be_challenged_anew() {
    let mut s = setup();
    s.challenge(&challenge(&[&digest("ims.example.com", "n1", QOP)]));
    s.field();
    s.attempt.restart();
    assert!(s.field().contains("nc=00000002"));
    let anew = challenge(&[&digest("ims.example.com", "n2", QOP)]);
    assert_eq!(s.challenge(&anew), ChallengeStep::Retry);
    assert!(s.field().contains("nonce=\"n2\""));
    assert_eq!(s.challenge(&anew), REFUSED);
}

// spec: DIG-3.3-2, DIG-3.7-1, SIP-22.4-1, SEC-P-09
#[test]
fn the_best_allowed_challenge_of_a_realm_is_answered() {
    let realm = "ims.example.com";
    let cases: [(&[&str], Option<&str>); 8] = [
        (
            &[
                ",qop=\"auth\",algorithm=SHA-256",
                ",qop=\"auth\",algorithm=MD5",
            ],
            Some("SHA-256"),
        ),
        (
            &[
                ",qop=\"auth\",algorithm=MD5",
                ",qop=\"auth\",algorithm=SHA-256",
            ],
            Some("SHA-256"),
        ),
        (
            &[
                ",qop=\"auth\",algorithm=FOO-1",
                ",qop=\"auth\",algorithm=MD5,foo=bar",
            ],
            Some("MD5"),
        ),
        (
            &[
                ",qop=\"auth\",algorithm=SHA-512-256",
                ",qop=\"auth\",algorithm=SHA-256",
            ],
            Some("SHA-512-256"),
        ),
        (&[",qop=\"auth\""], Some("none")),
        (&[",algorithm=SHA-256"], None),
        (&[",qop=\"auth\",algorithm=FOO-1"], None),
        (&[",qop=\"foo\",algorithm=SHA-256"], None),
    ];
    for (offers, expected) in cases {
        let rows: Vec<_> = offers.iter().map(|more| digest(realm, "n", more)).collect();
        let rows: Vec<_> = rows.iter().map(String::as_str).collect();
        let mut s = setup();
        match expected {
            None => {
                let step = s.challenge(&challenge(&rows));
                assert_eq!(
                    step,
                    ChallengeStep::Refuse(AuthFailure::NoUsableChallenge),
                    "{rows:?}"
                );
                assert!(s.fields().is_empty());
            }
            Some(name) => {
                assert_eq!(
                    s.challenge(&challenge(&rows)),
                    ChallengeStep::Retry,
                    "{rows:?}"
                );
                let field = s.field();
                let given = field
                    .split("algorithm=")
                    .nth(1)
                    .map(|rest| rest.split(',').next().unwrap());
                assert_eq!(given.unwrap_or("none"), name);
            }
        }
    }
    let mut s = setup();
    let basic = challenge(&["Basic realm=\"ims.example.com\""]);
    assert!(matches!(s.challenge(&basic), ChallengeStep::Refuse(_)));
    let none = response(401, "");
    assert!(matches!(s.challenge(&none), ChallengeStep::Refuse(_)));
    let odd = challenge(&["NoOneKnowsThisScheme opaque-data=here", "("]);
    assert!(matches!(s.challenge(&odd), ChallengeStep::Refuse(_)));
}

// spec: SEC-P-09
#[test]
fn md5_needs_permission() {
    assert_eq!(DigestPolicy::default().md5, Allow::Never);
    let md5 = challenge(&[&digest("ims.example.com", "n", ",qop=\"auth\"")]);
    for (allow, secure, step) in [
        (Allow::OverTls, true, ChallengeStep::Retry),
        (
            Allow::OverTls,
            false,
            ChallengeStep::Refuse(AuthFailure::NoUsableChallenge),
        ),
        (Allow::Always, false, ChallengeStep::Retry),
        (
            Allow::Never,
            true,
            ChallengeStep::Refuse(AuthFailure::NoUsableChallenge),
        ),
    ] {
        let mut s = setup();
        let policy = DigestPolicy {
            md5: allow,
            ..DigestPolicy::default()
        };
        s.client = DigestClient::new(
            alloc::vec![Account::new("a", "b", "ims.example.com")],
            policy,
        );
        assert_eq!(
            s.client.handle_challenge(&mut s.attempt, &md5, URI, secure),
            step
        );
    }
}

// spec: SEC-P-09
#[test]
fn nobody_gets_an_answer_in_a_foreign_realm_or_a_weaker_one_than_before() {
    let mut s = setup();
    let foreign = challenge(&[&digest("evil.example.com", "n", QOP)]);
    assert_eq!(
        s.challenge(&foreign),
        ChallengeStep::Refuse(AuthFailure::NoAccount)
    );
    s.challenge(&challenge(&[&digest("ims.example.com", "n1", QOP)]));
    s.field();
    s.attempt.restart();
    let weaker = challenge(&[&digest(
        "ims.example.com",
        "n2",
        ",qop=\"auth\",algorithm=MD5",
    )]);
    assert_eq!(
        s.challenge(&weaker),
        ChallengeStep::Refuse(AuthFailure::Downgrade)
    );
    s.attempt.restart();
    let policy = DigestPolicy {
        md5: Allow::Always,
        no_qop: Allow::Always,
    };
    let mut s = setup();
    s.client = DigestClient::new(
        alloc::vec![Account::new("a", "b", "ims.example.com")],
        policy,
    );
    s.challenge(&challenge(&[&digest("ims.example.com", "n1", QOP)]));
    s.attempt.restart();
    let bare = challenge(&[&digest("ims.example.com", "n2", ",algorithm=SHA-256")]);
    assert_eq!(
        s.challenge(&bare),
        ChallengeStep::Refuse(AuthFailure::Downgrade)
    );
}

#[test]
fn an_account_for_every_realm_answers_what_no_other_is_for() {
    for (realm, user) in [
        ("other.example.com", "anywhere"),
        ("ims.example.com", "home"),
    ] {
        let mut s = setup();
        s.client = DigestClient::new(
            alloc::vec![
                Account::new("anywhere", "b", "*"),
                Account::new("home", "b", "ims.example.com"),
            ],
            DigestPolicy::default(),
        );
        s.challenge(&challenge(&[&digest(realm, "n1", QOP)]));
        let field = s.field();
        let user = alloc::format!("username=\"{user}\"");
        assert!(field.contains(&user), "{field}");
        let realm = alloc::format!("realm=\"{realm}\"");
        assert!(field.contains(&realm), "{field}");
    }
}

// spec: DIG-3.7-1
#[test]
fn several_realms_are_answered_once_each() {
    let mut s = setup();
    let proxy = alloc::format!(
        "Proxy-Authenticate: {}\r\n",
        digest("proxy.example.com", "p1", QOP)
    );
    assert_eq!(s.challenge(&response(407, &proxy)), ChallengeStep::Retry);
    let fields = s.fields();
    assert_eq!(fields.len(), 1);
    assert_eq!(fields[0].0, Name::PROXY_AUTHORIZATION);
    assert_eq!(
        s.challenge(&challenge(&[&digest("ims.example.com", "n1", QOP)])),
        ChallengeStep::Retry
    );
    let fields = s.fields();
    assert_eq!(fields.len(), 2);
    assert!(fields[0].1.contains("nc=00000002") && fields[0].1.contains("username=\"al\""));
    assert_eq!(fields[1].0, Name::AUTHORIZATION);
    assert!(fields[1].1.contains("nc=00000001"));
    assert_eq!(s.challenge(&response(407, &proxy)), REFUSED);
    // The far end's challenge is answered before it asks only where it asked before.
    let elsewhere = s
        .client
        .authorize(&mut s.attempt, &mut s.rng, "MESSAGE", "sip:bob@x", b"");
    assert!(elsewhere.is_empty());
}

// spec: DIG-3.4-2, DIG-3.3-1
#[test]
fn opaque_comes_back_as_it_was() {
    let mut s = setup();
    let more = alloc::format!("{QOP},opaque=\"a\\\"b\"");
    s.challenge(&challenge(&[&digest("ims.example.com", "n", &more)]));
    let field = s.field();
    assert!(field.contains("opaque=\"a\\\"b\""));
    assert!(field.contains("algorithm=SHA-256") && field.contains("qop=auth,"));
}

fn proof(field: &str, right: bool) -> String {
    let part = |name: &str| {
        let rest = field.split(&alloc::format!("{name}=\"")).nth(1).unwrap();
        rest.split('"').next().unwrap().to_string()
    };
    let sha = HashAlgorithm::Sha256;
    let (user, realm) = (b"alice@ims.example.com", b"ims.example.com");
    let key = ha1(sha, user, realm, b"correct horse");
    let md5 = HashAlgorithm::Md5;
    let res = hex::decode("a54211d5e3ba50bf").unwrap();
    // The card's password is RES, which the server knows as XRES.
    let (hash, key) = match field.contains("AKAv1-MD5") {
        true => (md5, ha1(md5, user, realm, &res)),
        false => (sha, key),
    };
    let exchange = http_connect::auth::Exchange {
        hash,
        qop: Some(http_connect::auth::Qop::Auth),
        nonce: &part("nonce"),
        nc: 1,
        cnonce: &part("cnonce"),
        uri: URI,
    };
    let mut proof = exchange.response(&key, "", b"").as_str().to_string();
    if !right {
        let last = proof.pop().unwrap();
        proof.push(if last == '0' { '1' } else { '0' });
    }
    alloc::format!("qop=auth,rspauth=\"{proof}\",nextnonce=\"n9\"")
}

// spec: DIG-3.5-1
#[test]
fn the_server_may_prove_itself_and_name_the_next_nonce() {
    for (right, verdict, nonce) in [
        (true, InfoVerdict::Proven, "n9"),
        (false, InfoVerdict::Forged, "n1"),
    ] {
        let mut s = setup();
        s.challenge(&challenge(&[&digest("ims.example.com", "n1", QOP)]));
        let info = proof(&s.field(), right);
        let ok = response(200, &alloc::format!("Authentication-Info: {info}\r\n"));
        assert_eq!(s.client.accepted(&s.attempt, &ok), verdict);
        let next = s.field();
        assert!(next.contains(&alloc::format!("nonce=\"{nonce}\"")));
        assert!(next.contains("nc=00000001") == right);
    }
    let mut s = setup();
    s.challenge(&challenge(&[&digest("ims.example.com", "n1", QOP)]));
    s.field();
    assert_eq!(
        s.client.accepted(&s.attempt, &response(200, "")),
        InfoVerdict::Unproven
    );
}

const AKA_NONCE: &str = "I1U8vpY3qJ0hiuZNrke/NVXzKLQ1d7m5Sp/6w1Tfr7M=";

fn card() -> Setup {
    let mut s = setup();
    let account = Account {
        username: "alice@ims.example.com".into(),
        password: Password::Card,
        realms: alloc::vec!["ims.example.com".into()],
    };
    s.client = DigestClient::new(alloc::vec![account], DigestPolicy::default());
    s
}

fn hex_secret(text: &str) -> http_connect::auth::Secret {
    http_connect::auth::Secret::new(hex::decode(text).unwrap())
}

fn answer() -> AkaAnswer {
    AkaAnswer::Response {
        res: hex_secret("a54211d5e3ba50bf"),
        ik: hex_secret("f769bcd751044604127672711c6d3441"),
        ck: hex_secret("b40ba9a3c58b2a05bbf0d987b21bf8cb"),
    }
}

/// The value of `response` in credentials must be what this key gives.
fn check_aka(field: &str, ha1: &str, sent_auts: bool) {
    let part = |name: &str| {
        let rest = field.split(&alloc::format!("{name}=\"")).nth(1).unwrap();
        rest.split('"').next().unwrap().to_string()
    };
    let cnonce = part("cnonce");
    let hash = |parts: &[&[u8]]| http_connect::auth::hash_joined(HashAlgorithm::Md5, parts);
    let ha2 = hash(&[b"REGISTER", URI.as_bytes()]);
    let expected = hash(&[
        ha1.as_bytes(),
        AKA_NONCE.as_bytes(),
        b"00000001",
        cnonce.as_bytes(),
        b"auth",
        ha2.as_bytes(),
    ]);
    assert_eq!(part("response"), expected.as_str());
    assert_eq!(field.contains("auts="), sent_auts);
}

// spec: AKA-3.1-1, AKA-3.2-1, AKA-3.3-1, AKA-3.4-1, AKA-4169-2.1-1, AKA-4169-4.1-1, PRI-7-1
#[test]
fn a_card_answers_as_the_vectors_say() {
    let v1 = digest(
        "ims.example.com",
        AKA_NONCE,
        ",qop=\"auth\",algorithm=AKAv1-MD5",
    );
    let v2 = digest(
        "ims.example.com",
        AKA_NONCE,
        ",qop=\"auth\",algorithm=AKAv2-MD5",
    );
    let auts = AkaAnswer::SyncFailure {
        auts: *b"0123456789abcd",
    };
    for (rows, answer, ha1, sent_auts) in [
        (
            &[v1.as_str()][..],
            answer(),
            "c4c1e5d874af7c06eed18582e12ec4d7",
            false,
        ),
        (&[&v1], auts, "b465d7f8ee3b37050a4ec6a85c01da59", true),
        (
            &[&v1, &v2],
            answer(),
            "918c945e7750bc21a3091796c022d7a3",
            false,
        ),
    ] {
        let mut s = card();
        let ChallengeStep::AskCard(question) = s.challenge(&challenge(rows)) else {
            panic!()
        };
        assert_eq!(
            hex::encode(question.rand),
            "23553cbe9637a89d218ae64dae47bf35"
        );
        assert_eq!(
            hex::encode(question.autn),
            "55f328b43577b9b94a9ffac354dfafb3"
        );
        assert!(s.fields().is_empty());
        assert_eq!(s.client.handle_aka(&answer), ChallengeStep::Retry);
        check_aka(&s.field(), ha1, sent_auts);
    }
}

// spec: AKA-3.5-1
#[test]
fn the_proof_of_the_server_is_made_with_what_it_expects_of_the_card() {
    for (right, verdict) in [(true, InfoVerdict::Proven), (false, InfoVerdict::Forged)] {
        let mut s = card();
        let more = ",qop=\"auth\",algorithm=AKAv1-MD5";
        s.challenge(&challenge(&[&digest("ims.example.com", AKA_NONCE, more)]));
        assert_eq!(s.client.handle_aka(&answer()), ChallengeStep::Retry);
        let info = proof(&s.field(), right);
        let ok = response(200, &alloc::format!("Authentication-Info: {info}\r\n"));
        assert_eq!(s.client.accepted(&s.attempt, &ok), verdict);
    }
}

// spec: AKA-3.1-1, AKA-3.2-1
#[test]
fn a_card_is_not_asked_about_what_it_cannot_answer() {
    for (nonce, algorithm) in [
        ("AAAA", "AKAv1-MD5"),
        ("!", "AKAv1-MD5"),
        (&"A".repeat(40), "AKAv1-MD5"),
        (AKA_NONCE, "AKAv1-FOO"),
        (AKA_NONCE, "MD5"),
    ] {
        let more = alloc::format!(",qop=\"auth\",algorithm={algorithm}");
        let step = card().challenge(&challenge(&[&digest("ims.example.com", nonce, &more)]));
        assert_eq!(
            step,
            ChallengeStep::Refuse(AuthFailure::NoUsableChallenge),
            "{nonce} {algorithm}"
        );
    }
    let more = ",qop=\"auth\",algorithm=AKAv1-MD5";
    let step = setup().challenge(&challenge(&[&digest("ims.example.com", AKA_NONCE, more)]));
    assert_eq!(step, ChallengeStep::Refuse(AuthFailure::NoUsableChallenge));
}

// spec: AKA-3.4-1, PRI-7-1
#[test]
fn a_card_may_ask_for_another_number_or_refuse_the_network() {
    let fresh = challenge(&[&digest(
        "ims.example.com",
        AKA_NONCE,
        ",qop=\"auth\",algorithm=AKAv1-MD5",
    )]);
    let mut s = card();
    s.challenge(&fresh);
    s.client
        .handle_aka(&AkaAnswer::SyncFailure { auts: [1; 14] });
    s.field();
    assert!(matches!(s.challenge(&fresh), ChallengeStep::AskCard(_)));
    assert_eq!(s.client.handle_aka(&answer()), ChallengeStep::Retry);
    check_aka(&s.field(), "c4c1e5d874af7c06eed18582e12ec4d7", false);
    assert_eq!(s.challenge(&fresh), REFUSED);

    let mut s = card();
    s.challenge(&fresh);
    assert_eq!(
        s.client.handle_aka(&AkaAnswer::MacFailure),
        ChallengeStep::Retry
    );
    assert!(s.field().contains("response=\"\""));
    assert_eq!(
        s.challenge(&fresh),
        ChallengeStep::Refuse(AuthFailure::Network)
    );
    assert!(matches!(
        s.client.handle_aka(&answer()),
        ChallengeStep::Refuse(_)
    ));
}

// spec: SEC-G-15
#[test]
fn secrets_are_not_shown() {
    let mut s = card();
    s.challenge(&challenge(&[&digest(
        "ims.example.com",
        AKA_NONCE,
        ",qop=\"auth\",algorithm=AKAv1-MD5",
    )]));
    let text = alloc::format!("{:?} {:?} {:?}", s.client, setup().client, answer());
    for canary in ["correct horse", "99, 111, 114", "a54211d5", "165, 66, 17"] {
        assert!(!text.contains(canary));
    }
}
