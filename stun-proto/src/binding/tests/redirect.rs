use super::*;
use crate::auth::ShortTermClient;
use crate::wire::{
    AlternateDomain, AlternateServer, Attribute as _, ErrorCode, Key, Message, TransactionId,
};

fn try_alternate(
    servers: &[&str],
    domain: Option<&str>,
    id: TransactionId,
    key: Option<&Key>,
) -> Vec<u8> {
    write(|buf| {
        let mut writer = Writer::new(buf, BINDING.error(), id).attribute(&ErrorCode::new(300));
        for server in servers {
            writer = writer.attribute(&AlternateServer(addr(server)));
        }
        if let Some(domain) = domain {
            writer = writer.raw(AlternateDomain::TYPE, domain.as_bytes());
        }
        match key {
            Some(key) => writer.message_integrity(key).finish(),
            None => writer.finish(),
        }
    })
}

fn judge(
    redirects: &mut Redirects,
    now: Instant,
    servers: &[&str],
    domain: Option<&str>,
) -> Result<SocketAddr, RedirectRefused> {
    let bytes = try_alternate(servers, domain, TransactionId([1; 12]), None);
    let message = Message::parse(&bytes).unwrap();
    let asked = Some(addr("198.51.100.1:3478"));
    redirects
        .follow(now, asked, &message, true)
        .map(|to| to.server)
}

// spec: STUN-10-4
#[test]
fn a_server_is_not_asked_twice_within_five_minutes() {
    let mut redirects = Redirects::new(RedirectPolicy::Protected);
    let other = "198.51.100.2:3478";
    redirects.note_asked(START, addr(other));
    for (seconds, expected) in [
        (0, false),
        (299, false),
        (300, true),
        (301, false),
        (600, true),
    ] {
        let result = judge(&mut redirects, at(seconds * 1000), &[other], None);
        assert_eq!(result.is_ok(), expected, "after {seconds} s");
        if !expected {
            assert_eq!(result, Err(RedirectRefused::Loop));
        }
    }
    let same = judge(&mut redirects, at(0), &["198.51.100.1:3478"], None);
    assert_eq!(same, Err(RedirectRefused::Loop));
}

// spec: SEC-S-10
#[test]
fn redirections_are_few_possible_and_of_the_same_family() {
    let new = || Redirects::new(RedirectPolicy::Protected);
    let mut redirects = new();
    for n in 2..5 {
        let server = alloc::format!("198.51.100.{n}:3478");
        assert!(judge(&mut redirects, START, &[&server], None).is_ok());
    }
    let fourth = judge(&mut redirects, START, &["198.51.100.5:3478"], None);
    assert_eq!(fourth, Err(RedirectRefused::TooMany));
    assert!(judge(&mut redirects, at(300_000), &["198.51.100.5:3478"], None).is_ok());

    for impossible in [
        "0.0.0.0:1",
        "127.0.0.1:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "198.51.100.9:0",
    ] {
        let result = judge(&mut new(), START, &[impossible], None);
        assert_eq!(result, Err(RedirectRefused::Address), "{impossible}");
    }
    for (servers, domain) in [
        (&[][..], None),
        (&["[2001:db8::1]:3478"][..], None),
        (&["198.51.100.9:1"][..], Some("exa mple")),
        (&["198.51.100.9:1"][..], Some("-a.example")),
        (&["198.51.100.9:1"][..], Some("a..example")),
        (&["198.51.100.9:1"][..], Some("")),
        (&["198.51.100.9:1"][..], Some("b\u{fc}cher.example")),
    ] {
        let result = judge(&mut new(), START, servers, domain);
        assert_eq!(
            result,
            Err(RedirectRefused::Malformed),
            "{servers:?} {domain:?}"
        );
    }
    let both = ["[2001:db8::1]:3478", "198.51.100.9:1"];
    let result = judge(&mut new(), START, &both, Some("xn--bcher-kva.example"));
    assert_eq!(result, Ok(addr("198.51.100.9:1")));
}

// spec: SEC-G-05
#[test]
fn sixteen_servers_are_remembered() {
    let mut redirects = Redirects::new(RedirectPolicy::Unprotected);
    for n in 1..=17_u16 {
        redirects.note_asked(START, ([198, 51, 100, 7], n).into());
    }
    assert!(judge(&mut redirects, START, &["198.51.100.7:1"], None).is_ok());
    let known = judge(&mut redirects, START, &["198.51.100.7:3"], None);
    assert_eq!(known, Err(RedirectRefused::Loop));
}

fn client(policy: RedirectPolicy, key: Option<&Key>) -> (BindingClient, TransactionId) {
    let mut config = BindingClientConfig {
        redirect: policy,
        ..BindingClientConfig::default()
    };
    if let Some(key) = key {
        let short = ShortTermClient::new("user", key.clone()).unwrap();
        config.authentication = Authentication::ShortTerm(short);
    }
    let mut client = BindingClient::new(config, [7; 32], START).unwrap();
    client.request(START, Path::Datagram(here())).unwrap();
    let sent = drain(&mut client);
    let id = Message::parse(&sent[0].1).unwrap().transaction_id();
    (client, id)
}

// spec: STUN-10-3, STUN-6.3.4-2
#[test]
fn a_proven_redirection_is_followed_over_udp_with_the_same_credentials() {
    let key = Key::short_term("secret");
    let (mut client, id) = client(RedirectPolicy::Protected, Some(&key));
    let answer = try_alternate(&["198.51.100.2:3479"], None, id, Some(&key));
    client.handle_datagram(at(1), here(), &answer);
    assert!(events(&mut client).is_empty());
    let sent = drain(&mut client);
    let to = FiveTuple {
        remote: addr("198.51.100.2:3479"),
        ..here()
    };
    assert_eq!(sent[0].0, Path::Datagram(to));
    let message = Message::parse(&sent[0].1).unwrap();
    assert!(message.verify(&key).is_ok());
    assert_ne!(message.transaction_id(), id);
    // And back: a circle.
    let back = try_alternate(
        &["198.51.100.1:3478"],
        None,
        message.transaction_id(),
        Some(&key),
    );
    client.handle_datagram(at(2), to, &back);
    assert!(matches!(
        events(&mut client)[..],
        [BindingEvent::Failed {
            cause: FailureCause::RedirectRefused(RedirectRefused::Loop),
            path: Path::Datagram(from),
            ..
        }] if from == to
    ));
}

// spec: STUN-10-3, SEC-S-10
#[test]
fn other_redirections_end_the_request() {
    let key = Key::short_term("secret");
    let server = ["198.51.100.2:3478"];
    let check = |policy, key: Option<&Key>, expected: Option<FailureCause>| {
        let (mut client, id) = client(policy, key);
        client.handle_datagram(at(1), here(), &try_alternate(&server, None, id, key));
        match (&events(&mut client)[..], expected) {
            ([], None) => assert_eq!(drain(&mut client).len(), 1),
            ([BindingEvent::Failed { cause, .. }], Some(expected)) => assert_eq!(*cause, expected),
            other => panic!("{other:?}"),
        }
    };
    let policy = Some(FailureCause::RedirectRefused(RedirectRefused::Policy));
    check(RedirectPolicy::Never, None, policy.clone());
    check(RedirectPolicy::Never, Some(&key), policy.clone());
    check(RedirectPolicy::Protected, None, policy);
    check(RedirectPolicy::Unprotected, None, None);

    // Over a stream the host has to connect first, and to check the name.
    let config = BindingClientConfig {
        redirect: RedirectPolicy::Unprotected,
        ..BindingClientConfig::default()
    };
    let mut client = BindingClient::new(config, [7; 32], START).unwrap();
    client.request(START, Path::Stream(StreamId(1))).unwrap();
    let sent = drain(&mut client);
    let id = Message::parse(&sent[0].1).unwrap().transaction_id();
    let answer = try_alternate(&server, Some("other.example"), id, None);
    client.handle_stream(at(1), StreamId(1), &mut &answer[..]);
    let alternative = Alternative {
        server: addr(server[0]),
        domain: Some("other.example".into()),
    };
    assert!(matches!(
        &events(&mut client)[..],
        [BindingEvent::Failed { cause: FailureCause::Redirected(to), .. }] if *to == alternative
    ));
}
