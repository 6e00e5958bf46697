use super::*;

fn check(policy: &PeerPolicy, allowed: &[&str], denied: &[&str]) {
    for text in allowed {
        let ip: IpAddr = text.parse().unwrap();
        assert!(policy.allows(SocketAddr::new(ip, 9)), "{text}");
        assert!(!policy.allows(SocketAddr::new(ip, 0)), "{text} port 0");
    }
    for text in denied {
        let ip: IpAddr = text.parse().unwrap();
        assert!(!policy.allows(SocketAddr::new(ip, 9)), "{text}");
    }
}

// spec: SEC-T-05, TURN-21-D1, TURN-21.4-1
#[test]
fn special_addresses_are_denied_in_every_disguise() {
    check(
        &PeerPolicy::default(),
        &["8.8.8.8", "1.1.1.1", "2606:4700::1", "64:ff9b::808:808"],
        &[
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.31.0.1",
            "192.168.1.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2002:808:808::1",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ],
    );
}

// spec: SEC-T-05
#[test]
fn lists_and_presets() {
    let core = PeerPolicy {
        preset: Preset::ListedOnly,
        allow: alloc::vec!["10.9.0.0/16".parse().unwrap()],
        deny: Vec::new(),
    };
    check(
        &core,
        &["10.9.1.1"],
        &["10.8.1.1", "8.8.8.8", "::ffff:10.9.1.1"],
    );
    let lab = PeerPolicy {
        preset: Preset::Any,
        allow: Vec::new(),
        deny: alloc::vec!["192.0.2.1".parse().unwrap()],
    };
    check(
        &lab,
        &["127.0.0.1", "10.0.0.1", "::1", "192.0.2.2"],
        &["192.0.2.1", "224.0.0.1", "0.0.0.0", "::"],
    );
}

#[test]
fn prefixes_are_read_and_compared() {
    for bad in ["", "1.2.3", "1.2.3.4/33", "::/129", "1.2.3.4/", "x/8"] {
        assert_eq!(bad.parse::<Prefix>(), Err(PrefixError), "{bad}");
    }
    let all: Prefix = "0.0.0.0/0".parse().unwrap();
    assert!(all.contains("255.1.2.3".parse().unwrap()));
    assert!(!all.contains("::1".parse().unwrap()));
    let all: Prefix = "::/0".parse().unwrap();
    assert!(all.contains("ffff::1".parse().unwrap()));
}
