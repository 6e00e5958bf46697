use super::*;
use crate::wire::{Limits, UriBuf};

use alloc::string::ToString as _;

const ALL: [Transport; 3] = [Transport::Tls, Transport::Tcp, Transport::Udp];

fn locator(uri: &str, supported: &[Transport]) -> Result<Locator, LocateError> {
    let uri = UriBuf::parse(uri).unwrap();
    Locator::new(&uri.as_uri(), supported, [7; 32])
}

/// The answers of a name server: lines of `name TYPE data`.
fn zone<'z>(
    zone: &'z [&'z str],
    name: &'z str,
    kind: &'z str,
) -> impl Iterator<Item = Vec<&'z str>> {
    zone.iter().filter_map(move |line| {
        let mut words = line.split(' ');
        let fits = words.next() == Some(name) && words.next() == Some(kind);
        fits.then(|| words.collect())
    })
}

/// Goes on until nothing is left: what was asked and tried.
fn trace(mut locator: Locator, records: &[&str]) -> String {
    let mut out: Vec<String> = Vec::new();
    loop {
        let next = locator.next();
        match next {
            Next::Ask(Query::Naptr(name)) => {
                out.push(alloc::format!("NAPTR {name}"));
                let found: Vec<_> = zone(records, &name, "NAPTR")
                    .map(|words| NaptrRecord {
                        order: words[0].parse().unwrap(),
                        preference: words[1].parse().unwrap(),
                        flags: words[2].into(),
                        service: words[3].into(),
                        replacement: words[4].into(),
                    })
                    .collect();
                assert_eq!(locator.next(), Next::Wait);
                locator.handle_srv(&[]);
                locator.handle_addresses(&[]);
                locator.handle_naptr(&found);
            }
            Next::Ask(Query::Srv(name)) => {
                out.push(alloc::format!("SRV {name}"));
                let found: Vec<_> = zone(records, &name, "SRV")
                    .map(|words| SrvRecord {
                        priority: words[0].parse().unwrap(),
                        weight: words[1].parse().unwrap(),
                        port: words[2].parse().unwrap(),
                        target: words[3].into(),
                    })
                    .collect();
                locator.handle_naptr(&[]);
                locator.handle_srv(&found);
            }
            Next::Ask(Query::Addresses(name)) => {
                out.push(alloc::format!("A {name}"));
                let found: Vec<IpAddr> = zone(records, &name, "A")
                    .map(|words| words[0].parse().unwrap())
                    .collect();
                locator.handle_addresses(&found);
            }
            Next::Try(place) => out.push(alloc::format!("{} {}", place.transport, place.address)),
            Next::Wait => panic!(),
            Next::Exhausted => return out.join(", "),
        }
    }
}

fn check(uri: &str, records: &[&str], expected: &str) {
    let found = match locator(uri, &ALL) {
        Ok(locator) => trace(locator, records),
        Err(error) => error.to_string(),
    };
    assert_eq!(found, expected, "{uri}");
}

// spec: LOC-4-1, LOC-4.1-1, LOC-4.2-1
#[test]
fn transport_and_port_follow_from_the_uri() {
    let a = &["h A 192.0.2.1", "m A 192.0.2.2", "h A 2001:db8::1"][..];
    for (uri, expected) in [
        // A numeric host, or a port: UDP, with sips TLS.
        ("sip:192.0.2.9", "UDP 192.0.2.9:5060"),
        ("sips:192.0.2.9", "TLS 192.0.2.9:5061"),
        ("sip:[2001:db8::9]:99", "UDP [2001:db8::9]:99"),
        (
            "sip:h:5070",
            "A h, UDP [2001:db8::1]:5070, UDP 192.0.2.1:5070",
        ),
        (
            "sips:h:443",
            "A h, TLS [2001:db8::1]:443, TLS 192.0.2.1:443",
        ),
        // The transport is named.
        ("sip:192.0.2.9;transport=tcp", "TCP 192.0.2.9:5060"),
        ("sip:192.0.2.9;transport=tls", "TLS 192.0.2.9:5061"),
        ("sips:192.0.2.9;transport=tcp", "TLS 192.0.2.9:5061"),
        (
            "sip:h:443;transport=tcp",
            "A h, TCP [2001:db8::1]:443, TCP 192.0.2.1:443",
        ),
        // Another way than the host.
        ("sip:u@h:5070;maddr=m", "A m, UDP 192.0.2.2:5070"),
        ("sip:u@h;maddr=192.0.2.8", "UDP 192.0.2.8:5060"),
        // What cannot be.
        ("sips:h;transport=udp", "no supported transport"),
        ("sip:h;transport=sctp", "no supported transport"),
    ] {
        check(uri, a, expected);
    }
    assert_eq!(
        locator("sip:h:5060", &[Transport::Tls]).err(),
        Some(LocateError::Unsupported)
    );
    assert_eq!(locator("sip:h", &[]).err(), Some(LocateError::Unsupported));
    assert_eq!(
        locator("sips:h", &[Transport::Udp]).err(),
        Some(LocateError::Unsupported)
    );
}

// spec: LOC-4.1-1
#[test]
fn naptr_records_choose_the_transport() {
    let records = [
        "example.com NAPTR 100 50 s SIP+D2U _sip._udp.example.com.",
        "example.com NAPTR 50 50 s SIPS+D2T _sips._tcp.example.com.",
        "example.com NAPTR 90 60 S sip+d2t _sip._tcp.other",
        "example.com NAPTR 1 1 s SIP+D2S _sip._sctp.example.com.",
        "example.com NAPTR 1 1 u E2U+sip x",
        "_sips._tcp.example.com SRV 1 0 5061 s1.",
        "_sip._tcp.other SRV 2 0 5070 s2",
        "_sip._tcp.other SRV 1 0 5060 s1",
        "s1 A 192.0.2.1",
        "s2 A 192.0.2.2",
        "example.com A 192.0.2.9",
    ];
    check(
        "sip:alice@example.com",
        &records,
        "NAPTR example.com, SRV _sips._tcp.example.com, A s1, TLS 192.0.2.1:5061, \
         SRV _sip._tcp.other, A s1, TCP 192.0.2.1:5060, A s2, TCP 192.0.2.2:5070, \
         SRV _sip._udp.example.com, A example.com, UDP 192.0.2.9:5060",
    );
    // With sips only what is TLS.
    check(
        "sips:alice@example.com",
        &records,
        "NAPTR example.com, SRV _sips._tcp.example.com, A s1, TLS 192.0.2.1:5061",
    );
}

// spec: LOC-4.1-1
#[test]
fn without_naptr_each_transport_is_looked_for_and_without_srv_one_is_left() {
    let some = [
        "_sip._tcp.x SRV 1 0 5070 s1",
        "s1 A 192.0.2.1",
        "x A 192.0.2.9",
    ];
    check(
        "sip:x",
        &some,
        "NAPTR x, SRV _sips._tcp.x, SRV _sip._tcp.x, A s1, TCP 192.0.2.1:5070, SRV _sip._udp.x",
    );
    check(
        "sip:x",
        &["x A 192.0.2.9"],
        "NAPTR x, SRV _sips._tcp.x, SRV _sip._tcp.x, SRV _sip._udp.x, A x, UDP 192.0.2.9:5060",
    );
    check(
        "sips:x",
        &["x A 192.0.2.9"],
        "NAPTR x, SRV _sips._tcp.x, A x, TLS 192.0.2.9:5061",
    );
    // A transport that is named needs no NAPTR.
    check(
        "sip:x;transport=tcp",
        &some,
        "SRV _sip._tcp.x, A s1, TCP 192.0.2.1:5070",
    );
    check(
        "sip:x;transport=tls",
        &some,
        "SRV _sips._tcp.x, A x, TLS 192.0.2.9:5061",
    );
    // A lone dot: not there.
    check(
        "sip:x;transport=tcp",
        &["_sip._tcp.x SRV 0 0 0 ."],
        "SRV _sip._tcp.x",
    );
}

// spec: LOC-5-1
#[test]
fn a_lost_response_goes_to_where_its_request_says_it_is_from() {
    let records = [
        "h A 192.0.2.1",
        "_sip._tcp.h SRV 1 0 5070 s",
        "s A 192.0.2.2",
    ];
    for (via, expected) in [
        ("SIP/2.0/TCP 192.0.2.7", "TCP 192.0.2.7:5060"),
        ("SIP/2.0/TLS 192.0.2.7:7", "TLS 192.0.2.7:7"),
        (
            "SIP/2.0/TCP h:5080;received=192.0.2.3;rport=999",
            "TCP 192.0.2.3:5080",
        ),
        ("SIP/2.0/TCP h:5080", "A h, TCP 192.0.2.1:5080"),
        ("SIP/2.0/TCP h", "SRV _sip._tcp.h, A s, TCP 192.0.2.2:5070"),
        ("SIP/2.0/UDP h:5080", "A h, UDP 192.0.2.1:5080"),
    ] {
        let via = Via::parse(via, &Limits::DEFAULT).unwrap();
        let locator = Locator::for_response(&via, [7; 32]).unwrap();
        assert_eq!(trace(locator, &records), expected, "{via:?}");
    }
    let via = Via::parse("SIP/2.0/SCTP h", &Limits::DEFAULT).unwrap();
    assert!(Locator::for_response(&via, [7; 32]).is_none());
}

#[test]
fn a_search_comes_to_an_end() {
    let many: Vec<String> = (0..100)
        .map(|n| alloc::format!("_sip._tcp.x SRV {n} 0 5060 s{n}"))
        .collect();
    let mut lines: Vec<&str> = many.iter().map(String::as_str).collect();
    lines.push("s0 A 192.0.2.1");
    let found = trace(locator("sip:x;transport=tcp", &ALL).unwrap(), &lines);
    assert!(found.split(", ").count() <= MAX_QUERIES + 1, "{found}");
}

fn names(uris: &[&str], dns: &[&str], common_name: Option<&str>) -> CertificateNames {
    let owned = |list: &[&str]| list.iter().map(|name| String::from(*name)).collect();
    CertificateNames {
        has_alt_names: !uris.is_empty() || !dns.is_empty(),
        uris: owned(uris),
        dns: owned(dns),
        addresses: Vec::new(),
        common_name: common_name.map(String::from),
    }
}

// spec: CERT-7.2-1
#[test]
fn a_certificate_stands_for_its_sip_uris_else_its_dns_names_else_its_cn() {
    for (uris, dns, cn, expected) in [
        (
            &["sip:a.com"][..],
            &["b.com"][..],
            Some("c.com"),
            &["a.com"][..],
        ),
        (&["SIP:a.com", "sip:x@b.com"], &[], None, &["a.com"]),
        (
            &["sip:x@a.com"],
            &["b.com", "c.com"],
            Some("d.com"),
            &["b.com", "c.com"],
        ),
        (
            &["sips:a.com", "https://a.com", "im:a.com"],
            &["b.com"],
            None,
            &["b.com"],
        ),
        (&["https://a.com"], &[], Some("c.com"), &[]),
        (&[], &[], Some("c.com"), &["c.com"]),
        (&[], &[], None, &[]),
    ] {
        assert_eq!(
            names(uris, dns, cn).domains(),
            expected,
            "{uris:?} {dns:?} {cn:?}"
        );
    }
    let other = CertificateNames {
        has_alt_names: true,
        common_name: Some("c.com".into()),
        ..CertificateNames::default()
    };
    assert!(other.domains().is_empty());
}

// spec: CERT-7.2-1, CERT-7.2-2
#[test]
fn the_whole_name_has_to_be_the_one_that_was_asked_for() {
    let strict =
        |host: &str, name: &str| is_proven(host, &names(&[], &[name], None), Wildcards::Refuse);
    assert!(strict("example.com", "EXAMPLE.com"));
    assert!(strict("example.com.", "example.com"));
    for (host, name) in [
        ("foo.example.com", "example.com"),
        ("example.com", "foo.example.com"),
        ("foo.example.com", ".example.com"),
        ("foo.example.com", "*.example.com"),
        ("*.example.com", "*.example.com"),
        ("", ""),
        ("192.0.2.1", "192.0.2.1"),
    ] {
        assert!(!strict(host, name), "{host} {name}");
    }
    let one =
        |host: &str, name: &str| is_proven(host, &names(&[], &[name], None), Wildcards::OneLabel);
    assert!(one("foo.example.com", "*.example.com") && one("foo.EXAMPLE.com", "*.example.com."));
    for (host, name) in [
        ("example.com", "*.example.com"),
        ("a.foo.example.com", "*.example.com"),
        ("foo.example.com", "f*.example.com"),
        ("foo.com", "*.com"),
        ("foo.example.com", "*"),
    ] {
        assert!(!one(host, name), "{host} {name}");
    }
    let ip: IpAddr = "2001:db8::1".parse().unwrap();
    let by_address = CertificateNames {
        addresses: alloc::vec![ip],
        ..names(&[], &[], None)
    };
    assert!(is_proven("[2001:db8::1]", &by_address, Wildcards::Refuse));
    assert!(!is_proven("[2001:db8::2]", &by_address, Wildcards::Refuse));
    let by_uri = names(&["sip:192.0.2.1"], &[], None);
    assert!(is_proven("192.0.2.1", &by_uri, Wildcards::Refuse));
}
