use alloc::string::ToString as _;

use http_connect::auth::{HashAlgorithm, ha1};
use proptest::prelude::*;

use super::*;

fn list(text: &str) -> SecMechanisms {
    SecMechanisms::parse(text).unwrap()
}

// spec: SEC-2.3.1-4, SEC-2.2-1
#[test]
fn the_highest_preference_that_is_known_is_chosen() {
    let known = ["tls", "digest"];
    let choose = |text: &str| {
        list(text)
            .choose(&known)
            .map(|chosen| String::from(chosen.name()))
    };
    for (text, expected) in [
        ("ipsec-ike;q=0.1, tls;q=0.2", Ok("tls")),
        ("ipsec-ike;q=0.9, tls;q=0.2", Ok("tls")),
        ("tls;q=0.1, digest;d-alg=MD5;q=0.25", Ok("digest")),
        ("TLS;q=1.000, digest;q=0.999", Ok("TLS")),
        ("tls", Ok("tls")),
        ("tls, digest;q=0.001", Ok("digest")),
        ("ipsec-ike;q=0.1", Err(SecAgreeError::NothingCommon)),
        (
            "tls;q=0.1, digest;q=0.1",
            Err(SecAgreeError::SamePreference),
        ),
        (
            "tls;q=0.1, digest;q=0.100",
            Err(SecAgreeError::SamePreference),
        ),
        // Also when the two are none of ours.
        (
            "tls;q=0.9, a;q=0.1, b;q=0.1",
            Err(SecAgreeError::SamePreference),
        ),
        ("tls, digest", Err(SecAgreeError::SamePreference)),
    ] {
        assert_eq!(choose(text).as_deref(), expected.as_deref(), "{text}");
    }
}

#[test]
fn lists_are_read_strictly_and_in_limits() {
    for text in [
        "",
        ",",
        "t ls",
        "tls;q=2",
        "tls;q=1.1",
        "tls;q=0.0001",
        "tls;q=x",
        "tls;q",
        "tls;q=0.1;q=0.1",
        "tls;;",
        "\"tls\"",
    ] {
        assert!(SecMechanisms::parse(text).is_err(), "{text}");
    }
    let many = |count| ["tls"].repeat(count).join(",");
    assert!(SecMechanisms::parse(&many(16)).is_ok());
    assert_eq!(SecMechanisms::parse(&many(17)), Err(ValueError::Limit));
    let params = |count: usize| {
        (0..count)
            .map(|n| alloc::format!(";x{n}"))
            .collect::<String>()
    };
    assert!(SecMechanisms::parse(&alloc::format!("tls{}", params(16))).is_ok());
    assert!(SecMechanisms::parse(&alloc::format!("tls{}", params(17))).is_err());
    assert_eq!(
        list("digest ; d-alg=\"MD5\";d-qop = auth ; q=0.5").0[0]
            .parameter("D-ALG")
            .as_deref(),
        Some("MD5")
    );
}

// spec: SEC-2.3.1-2, SEC-2.3.1-3
#[test]
fn lists_of_both_sides_are_built() {
    assert_eq!(
        SecMechanisms::of_client(&["tls", "digest"])
            .unwrap()
            .to_string(),
        "tls, digest"
    );
    assert!(SecMechanisms::of_client(&[]).is_err());
    assert!(SecMechanisms::of_client(&["a b"]).is_err());
    let server = |preferences: &[u16]| {
        let mechanism = |q: &u16| SecMechanism::new("tls").unwrap().with_preference(*q);
        SecMechanisms::new(preferences.iter().map(mechanism).collect())
    };
    assert_eq!(
        server(&[200, 1000, 5]).unwrap().to_string(),
        "tls;q=0.200, tls;q=1.000, tls;q=0.005"
    );
    assert_eq!(server(&[1, 1]), Err(SecAgreeError::SamePreference));
    assert!(server(&[]).is_err());
}

// spec: SEC-2.3.1-6
#[test]
fn a_mirror_has_the_same_mechanisms_in_the_same_order_with_the_same_parameters() {
    let server = list("tls;q=0.2, digest;d-alg=SHA-256;d-qop=auth;q=0.1");
    for (verify, same) in [
        ("tls;q=0.2, digest;d-alg=SHA-256;d-qop=auth;q=0.1", true),
        (
            "TLS ; Q=0.2,digest;d-alg=\"SHA-256\";d-qop=auth;q=0.1",
            true,
        ),
        (
            "tls;q=0.2, digest;d-alg=SHA-256;d-qop=auth;q=0.1;d-ver=\"00\"",
            true,
        ),
        ("tls;q=0.3, digest;d-alg=SHA-256;d-qop=auth;q=0.1", false),
        ("tls, digest;d-alg=SHA-256;d-qop=auth;q=0.1", false),
        ("tls;q=0.2, digest;d-alg=MD5;d-qop=auth;q=0.1", false),
        ("tls;q=0.2, digest;d-alg=SHA-256;q=0.1", false),
        ("tls;q=0.2, digest;d-alg=SHA-256;d-qop=auth;q=0.1;x", false),
        ("digest;d-alg=SHA-256;d-qop=auth;q=0.1, tls;q=0.2", false),
        ("tls;q=0.2", false),
        ("tls;q=0.2, digest;d-alg=SHA-256;d-qop=auth;q=0.1, x", false),
    ] {
        assert_eq!(server.is_mirrored_by(&list(verify)), same, "{verify}");
    }
}

// spec: SEC-2.4-1
#[test]
fn the_digest_of_a_list_covers_it_with_blanks_as_one() {
    let hash = HashAlgorithm::Md5;
    let key = ha1(hash, b"Mufasa", b"testrealm@host.com", b"Circle Of Life");
    let exchange = |qop| Exchange {
        hash,
        nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
        nc: 1,
        cnonce: "0a4f113b",
        qop,
        uri: "sip:b",
    };
    let verify = |qop, body: &[u8], server: &str| {
        let found = digest_verify(&exchange(qop), &key, "REGISTER", body, server);
        String::from(found.as_str())
    };
    let server = "tls;q=0.2, digest;q=0.1";
    let found = verify(Some(Qop::Auth), b"", server);
    // H(HA1:nonce:nc:cnonce:qop:H(Method:uri:list)), by hand.
    let second = hash_joined(hash, &[b"REGISTER", b"sip:b", server.as_bytes()]);
    let text = alloc::format!(
        "939e7578ed9e3c518a452acee763bce9:dcd98b7102dd2f0e8b11d0f600bfb0c093:00000001:0a4f113b:auth:{}",
        second.as_str()
    );
    assert_eq!(found, hash_joined(hash, &[text.as_bytes()]).as_str());
    assert_eq!(found.len(), 32);
    assert_eq!(
        found,
        verify(Some(Qop::Auth), b"body", "tls;q=0.2,\t  digest;q=0.1")
    );
    assert_ne!(
        found,
        verify(Some(Qop::Auth), b"", "tls;q=0.1, digest;q=0.2")
    );
    assert_ne!(found, verify(None, b"", server));
    let int = verify(Some(Qop::AuthInt), b"body", server);
    assert_ne!(int, verify(Some(Qop::AuthInt), b"other", server));
}

proptest! {
    #[test]
    fn what_is_written_is_read_again_and_nothing_panics(text in "[a-z;=,q0-9. \"\\\\-]{0,80}") {
        if let Ok(read) = SecMechanisms::parse(&text) {
            let again = SecMechanisms::parse(&read.to_string()).unwrap();
            prop_assert!(read.is_mirrored_by(&again));
            let _ = read.choose(&["tls"]);
        }
    }
}
