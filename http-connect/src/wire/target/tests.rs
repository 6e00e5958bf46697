use alloc::string::{String, ToString as _};

use super::*;

// spec: HS-9.3.6-4, PRH-6-1
#[test]
fn verdicts() {
    for (text, shown) in [
        ("pcscf.example.com:443", "pcscf.example.com:443"),
        ("192.0.2.15:443", "192.0.2.15:443"),
        ("[2001:db8::15]:443", "[2001:db8::15]:443"),
        ("[::ffff:192.0.2.15]:80", "[::ffff:192.0.2.15]:80"),
        ("xn--bcher-kva.example:443", "xn--bcher-kva.example:443"),
        ("a_b.Example:65535", "a_b.example:65535"),
        ("host.:443", "host:443"),
        ("host:0443", "host:443"),
    ] {
        assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
    }
    let long_label = alloc::format!("{}:443", "a".repeat(64));
    for text in [
        "",
        "host",
        "host:",
        ":443",
        "host:0",
        "host:65536",
        "host:+443",
        "host:0443x",
        "2001:db8::15:443",
        "[2001:db8::15]",
        "[fe80::1%25eth0]:443",
        "[::1:443",
        "http://host:443",
        "u@host:443",
        "host:443/",
        "ho st:443",
        "host%00:443",
        "..:443",
        &long_label,
    ] {
        assert!(text.parse::<Target>().is_err(), "{text}");
    }
}

#[test]
fn names_have_255_bytes_at_most() {
    let label = "a".repeat(63);
    let name = |last: usize| {
        [&label, &label, &label, &"b".repeat(last)]
            .map(|l| &**l)
            .join(".")
    };
    assert_eq!(name(63).len(), 255);
    assert!(Target::new(&name(63), 443).is_ok());
    let name = alloc::format!("a.{}", name(62));
    assert_eq!(name.len(), 256);
    assert_eq!(Target::new(&name, 443), Err(TargetError::Host));
}

#[test]
fn hosts_of_configuration_need_no_brackets() {
    assert_eq!(
        Target::new("::1", 80).unwrap().to_string(),
        String::from("[::1]:80")
    );
    assert_eq!(Target::new("a b", 80), Err(TargetError::Host));
    assert_eq!(Target::new("a", 0), Err(TargetError::Port));
}
