#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::string::ToString as _;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::*;
use crate::auth::{Allow, ClientAuth, Credentials, Policy};

pub(super) const OK: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
const NAME: &str = "CONNECT pcscf.example.com:443 HTTP/1.1\r\nHost: pcscf.example.com:443\r\n\r\n";

struct Rig {
    proxy: ConnectServer,
    now: Instant,
    client: Vec<u8>,
    upstream: Vec<u8>,
    actions: Vec<ProxyAction>,
    events: Vec<ProxyEvent>,
}

impl Rig {
    fn with(change: impl FnOnce(&mut ProxyConfig)) -> Self {
        let mut config = ProxyConfig::new("gate");
        change(&mut config);
        let now = Instant::ZERO;
        Self {
            proxy: ConnectServer::new(Arc::new(config), [1; 32], now).unwrap(),
            now,
            client: Vec::new(),
            upstream: Vec::new(),
            actions: Vec::new(),
            events: Vec::new(),
        }
    }

    fn new() -> Self {
        Self::with(|_| {})
    }

    /// A tunnel to `pcscf.example.com` whose answer was read.
    fn open(change: impl FnOnce(&mut ProxyConfig)) -> Self {
        let mut rig = Self::with(change);
        rig.send(Side::Client, NAME.as_bytes());
        rig.resolve(&["192.88.1.1"]);
        rig.connected();
        assert_eq!(rig.client, OK);
        rig.client.clear();
        rig.events.clear();
        rig
    }

    fn drain(&mut self) {
        let mut buf = [0; 7];
        loop {
            let mut idle = true;
            while let Some(len) = self.proxy.poll_transmit(Side::Client, &mut buf) {
                self.client.extend_from_slice(&buf[..len]);
                idle = false;
            }
            while let Some(len) = self.proxy.poll_transmit(Side::Upstream, &mut buf) {
                self.upstream.extend_from_slice(&buf[..len]);
                idle = false;
            }
            while let Some(action) = self.proxy.poll_action() {
                self.actions.push(action);
                idle = false;
            }
            while let Some(event) = self.proxy.poll_event() {
                self.events.push(event);
                idle = false;
            }
            if idle {
                break;
            }
        }
        assert!(self.proxy.poll_timeout().is_none_or(|at| at > self.now));
    }

    /// Offers bytes and writes what is to be forwarded at once; how many were taken.
    fn send(&mut self, from: Side, data: &[u8]) -> usize {
        let taken = self.proxy.handle_input(self.now, from, data);
        match from {
            Side::Client => self.upstream.extend_from_slice(taken.forward),
            Side::Upstream => self.client.extend_from_slice(taken.forward),
        }
        self.drain();
        taken.len
    }

    fn action(&mut self) -> ProxyAction {
        assert_eq!(self.actions.len(), 1, "{:?}", self.actions);
        self.actions.remove(0)
    }

    fn resolve(&mut self, addresses: &[&str]) {
        let ProxyAction::Resolve { ticket, .. } = self.action() else {
            panic!();
        };
        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        self.proxy.handle_resolved(self.now, ticket, &addresses);
        self.drain();
    }

    fn connected(&mut self) {
        let (ProxyAction::Connect { ticket, .. } | ProxyAction::ConnectParent { ticket }) =
            self.action()
        else {
            panic!();
        };
        self.proxy.handle_connected(self.now, ticket);
        self.drain();
    }

    fn fail(&mut self, error: ProxyError) {
        let (ProxyAction::Connect { ticket, .. }
        | ProxyAction::ConnectParent { ticket }
        | ProxyAction::Resolve { ticket, .. }) = self.action()
        else {
            panic!();
        };
        self.proxy.handle_failure(self.now, ticket, error);
        self.drain();
    }

    fn auth(&mut self, verdict: AuthVerdict) {
        let ProxyAction::CheckAuth { ticket, .. } = self.action() else {
            panic!();
        };
        self.proxy.handle_auth(self.now, ticket, verdict);
        self.drain();
    }

    fn eof(&mut self, from: Side) {
        self.proxy.handle_eof(self.now, from);
        self.drain();
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.proxy.handle_timeout(self.now);
        self.drain();
    }

    /// The status code the client was answered with.
    fn status(&self) -> u16 {
        let text = core::str::from_utf8(&self.client).unwrap();
        text.split(' ').nth(1).unwrap_or("0").parse().unwrap()
    }

    fn record(&self) -> &Record {
        match self.events.last() {
            Some(ProxyEvent::Closed(record)) => record,
            other => panic!("{other:?}"),
        }
    }

    /// Checks that the request was refused: one well-formed answer that closes, nothing opened.
    fn check_refusal(&mut self, status: u16) {
        assert_eq!(self.status(), status);
        let text = core::str::from_utf8(&self.client).unwrap().to_string();
        assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&alloc::format!("\r\nContent-Length: {}", body.len())));
        assert!(!head.contains("Transfer-Encoding"));
        assert_eq!(
            self.actions.pop(),
            Some(ProxyAction::CloseWrite(Side::Client))
        );
        // Nothing that follows is interpreted.
        let before = self.client.len();
        self.send(Side::Client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(self.client.len(), before);
        self.eof(Side::Client);
        assert_eq!(self.actions.pop(), Some(ProxyAction::Close(Side::Client)));
        assert_eq!(self.record().status, status);
        assert_eq!(self.proxy.poll_timeout(), None);
    }
}

fn verdict(request: &[u8]) -> u16 {
    verdict_with(request, |_| {})
}

/// The status code for a request that is answered at once; 0 when it is gone along with. However
/// it is cut.
fn verdict_with(request: &[u8], change: impl Fn(&mut ProxyConfig)) -> u16 {
    let mut whole = Rig::with(&change);
    whole.send(Side::Client, request);
    let mut bytewise = Rig::with(&change);
    for byte in request {
        bytewise.send(Side::Client, &[*byte]);
    }
    assert_eq!(whole.client, bytewise.client);
    let open = |action: &ProxyAction| !matches!(action, ProxyAction::Connect { .. });
    whole.actions.retain(open);
    bytewise.actions.retain(open);
    assert_eq!(whole.actions, bytewise.actions);
    whole.status()
}

fn request(head: &str) -> Vec<u8> {
    alloc::format!("{head}\r\n\r\n")
        .replace('|', "\r\n")
        .into_bytes()
}

// spec: HM-2.2-3, HM-3-1, HM-2.2-4, HM-5.1-2, HM-5.2-3, SEC-H-07, SEC-F-02
#[test]
fn requests_are_read_strictly() {
    let good = "CONNECT h.example:443 HTTP/1.1|Host: h.example:443";
    assert_eq!(verdict(&request(good)), 0);
    assert_eq!(verdict(&request(&alloc::format!("||{good}"))), 0);
    for bad in [
        "CONNECT  h.example:443 HTTP/1.1|Host: h.example:443",
        "CONNECT h.example:443  HTTP/1.1|Host: h.example:443",
        "CONNECT\th.example:443 HTTP/1.1|Host: h.example:443",
        "CONNECT h.example\t:443 HTTP/1.1|Host: h.example:443",
        "CONNECT h.example\x0b:443 HTTP/1.1|Host: h.example:443",
        "CONNECT h.example:443|Host: h.example:443",
        "CONNECT h.example:443 HTTP/1.1 |Host: h.example:443",
        " CONNECT h.example:443 HTTP/1.1|Host: h.example:443",
        "CONNECT h.example:443 HTTP/1.1\nHost: h.example:443",
        "CONNECT h.example:443 HTTP/1.1\rHost: h.example:443",
        "CONNECT h.example:443 HTTP/1.1|Host: h.example:443\nX: y",
        "CONNECT h.example:443 HTTP/1.1|Host: h.example:443|X: a\rb",
        "CONNECT h.example:443 HTTP/1.1|Host: h.example:443|X: a\0b",
        "CONNECT h.example:443 HTTP/1.1|Host : h.example:443",
        "CONNECT h.example:443 HTTP/1.1|Host: h.example:443|X: y| z",
        "CONNECT h.example:443 HTTP/1.1|Host: h.example:443|X: y|\tz",
        "CONNECT h.example:443 HTTP/1.1| Host: h.example:443",
        "CONNECT h.example:443 HTTP/1.1|Host: h.example:443|no colon",
        "CONNECT h.example:443 HTTP/1.1|Host: h.example:443|: no name",
        "CONNECT h.example:443 HTTP/1.1|Host: h.example:443|a b: c",
        "CONNECT h.example:443 http/1.1|Host: h.example:443",
        "CONNECT h.example:443 HTTP/1.10|Host: h.example:443",
        "CONNECT h.example:443 HTTP/x.1|Host: h.example:443",
    ] {
        assert_eq!(verdict(&request(bad)), 400, "{bad:?}");
    }
}

// spec: HM-3.2-2, HM-3.3-1, SEC-H-08
#[test]
fn there_is_one_host_and_it_does_not_contradict_the_target() {
    for (fields, status) in [
        ("HTTP/1.1", 400),
        ("HTTP/1.1|Host: h.example:443|Host: h.example:443", 400),
        ("HTTP/1.1|Host:", 400),
        ("HTTP/1.1|Host: a b", 400),
        ("HTTP/1.1|Host: u@h.example", 400),
        ("HTTP/1.1|Host: h.example:99999", 400),
        ("HTTP/1.1|Host: other.example:443", 400),
        ("HTTP/1.1|Host: h.example:80", 400),
        ("HTTP/1.1|Host: h.example", 0),
        ("HTTP/1.1|Host: h.example:", 0),
        ("HTTP/1.1|HOST: H.Example.:443", 0),
        ("HTTP/1.0", 0),
        ("HTTP/1.0|Host: h.example", 0),
        ("HTTP/1.0|Host: h.example|Host: h.example", 400),
    ] {
        let head = alloc::format!("CONNECT h.example:443 {fields}");
        assert_eq!(verdict(&request(&head)), status, "{fields}");
    }
    let mut rig = Rig::with(|config| config.ignore_host_mismatch = true);
    rig.send(
        Side::Client,
        &request("CONNECT h.example:443 HTTP/1.1|Host: other.example"),
    );
    let ProxyAction::Resolve { name, .. } = rig.action() else {
        panic!();
    };
    assert_eq!(name, "h.example");
}

// spec: HS-9.3.6-4, PRH-6-1
#[test]
fn targets_that_are_no_authority_are_refused() {
    for target in [
        "h",
        "h:",
        "h:0",
        "h:65536",
        "h:4a",
        ":443",
        "http://h:443",
        "u@h:443",
        "h:443/",
        "h:443?x",
        "[::1:443",
        "[fe80::1%25eth0]:443",
        "h%00:443",
        "..:443",
        "*",
        "/",
    ] {
        let head = alloc::format!("CONNECT {target} HTTP/1.0");
        assert_eq!(verdict(&request(&head)), 400, "{target}");
    }
}

// spec: HS-9.1-1, HS-2.5-1
#[test]
fn other_methods_and_versions_have_their_own_answers() {
    let check = |head: &str, status| assert_eq!(verdict(&request(head)), status, "{head}");
    check("FOO x HTTP/1.1|Host: x", 501);
    check("connect h.example:443 HTTP/1.1|Host: h.example:443", 501);
    check("PRI * HTTP/2.0", 505);
    check("CONNECT h.example:443 HTTP/0.9", 505);
    let mut rig = Rig::new();
    rig.send(Side::Client, &request("GET / HTTP/1.1|Host: x"));
    assert!(
        core::str::from_utf8(&rig.client)
            .unwrap()
            .contains("\r\nAllow: CONNECT\r\n")
    );
    rig.check_refusal(405);
}

// spec: HM-3-2, SEC-H-07, SEC-G-05
#[test]
fn heads_beyond_the_limits_are_refused() {
    let long = |len: usize| {
        let target = "a".repeat(len - 4) + ":443";
        request(&alloc::format!("CONNECT {target} HTTP/1.0"))
    };
    assert_eq!(verdict(&long(8000)), 400);
    assert_eq!(verdict(&long(8001)), 414);
    assert_eq!(verdict(&long(9000)), 414);
    let fields = |count: usize| {
        let fields = "|A: b".repeat(count);
        request(&alloc::format!("CONNECT h.example:443 HTTP/1.0{fields}"))
    };
    assert_eq!(verdict(&fields(100)), 0);
    assert_eq!(verdict(&fields(101)), 431);
    let sized = |limit: usize, size: usize| {
        let head = "CONNECT h.example:443 HTTP/1.0|A: ";
        let line = "x".repeat(7000);
        let full = alloc::format!("{head}{line}|B: {line}|C: ");
        let rest = "x".repeat(size - request(&full).len());
        verdict_with(&request(&alloc::format!("{full}{rest}")), |config| {
            config.limits.head.bytes = limit;
        })
    };
    assert_eq!(sized(16 * 1024, 16 * 1024), 0);
    assert_eq!(sized(16 * 1024, 16 * 1024 + 1), 431);
    let line = request(&alloc::format!(
        "CONNECT h.example:443 HTTP/1.0|A: {}",
        "x".repeat(8192)
    ));
    assert_eq!(verdict(&line), 431);
}

// spec: PRH-6-2, SEC-H-08
#[test]
fn a_body_is_refused() {
    let head = |field: &str| {
        request(&alloc::format!(
            "CONNECT h.example:443 HTTP/1.1|Host: h.example:443|{field}"
        ))
    };
    for field in [
        "Content-Length: 5",
        "Content-Length: 0",
        "Content-Length: 0, 0",
        "Content-Length: +0",
        "Content-Length:",
        "Content-Length: 5|Content-Length: 0",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
        "transfer-encoding: chunked|Content-Length: 0",
    ] {
        assert_eq!(verdict(&head(field)), 400, "{field}");
    }
    let tolerant =
        |field: &str| verdict_with(&head(field), |config| config.tolerate_empty_body = true);
    assert_eq!(tolerant("Content-Length: 0"), 0);
    assert_eq!(tolerant("Content-Length: 1"), 400);
    assert_eq!(tolerant("Transfer-Encoding: chunked"), 400);
}

// spec: HS-9.3.6-5, PRH-6-3, PRH-7-5, SEC-H-08
#[test]
fn ports_hosts_and_addresses_are_judged_before_anything_is_opened() {
    let mut rig = Rig::new();
    rig.send(Side::Client, &request("CONNECT h.example:25 HTTP/1.0"));
    assert_eq!(rig.status(), 403);
    rig.check_refusal(403);

    for target in [
        "127.0.0.1:443",
        "[::1]:443",
        "[::ffff:10.0.0.1]:443",
        "[64:ff9b::7f00:1]:443",
        "[2002:a00:1::]:443",
        "0.0.0.0:443",
        "169.254.169.254:443",
    ] {
        let head = alloc::format!("CONNECT {target} HTTP/1.0");
        assert_eq!(verdict(&request(&head)), 403, "{target}");
    }

    // `127.1` is a name here; what it resolves to is judged.
    let mut rig = Rig::new();
    rig.send(Side::Client, &request("CONNECT 127.1:443 HTTP/1.0"));
    rig.resolve(&["127.0.0.1", "::ffff:127.0.0.1"]);
    rig.check_refusal(403);

    // The very address that was judged is connected to.
    let mut rig = Rig::new();
    rig.send(Side::Client, NAME.as_bytes());
    rig.resolve(&["10.0.0.1", "192.88.1.7", "192.88.1.8"]);
    let ProxyAction::Connect { address, .. } = rig.action() else {
        panic!();
    };
    assert_eq!(address, "192.88.1.7:443".parse().unwrap());

    let own = |config: &mut ProxyConfig| {
        config.own_addresses = alloc::vec!["192.88.1.1:443".parse().unwrap()];
    };
    for target in ["192.88.1.1:443", "[::ffff:192.88.1.1]:443"] {
        let head = request(&alloc::format!("CONNECT {target} HTTP/1.0"));
        assert_eq!(verdict_with(&head, own), 403, "{target}");
    }
    let mut rig = Rig::with(own);
    rig.send(Side::Client, NAME.as_bytes());
    rig.resolve(&["192.88.1.1"]);
    rig.check_refusal(403);

    let hosts = |config: &mut ProxyConfig| {
        config.hosts = alloc::vec!["example.com".into(), "192.88.1.2".into()];
    };
    for (target, status) in [
        ("example.com:443", 0),
        ("A.EXAMPLE.com.:443", 0),
        ("badexample.com:443", 403),
        ("192.88.1.2:443", 0),
        ("192.88.1.3:443", 403),
    ] {
        let head = request(&alloc::format!("CONNECT {target} HTTP/1.0"));
        assert_eq!(verdict_with(&head, hosts), status, "{target}");
    }
}

#[test]
fn address_policy_knows_what_is_not_public() {
    let policy = AddressPolicy::default();
    for (address, allowed) in [
        ("8.8.8.8", true),
        ("0.1.2.3", false),
        ("100.64.0.1", false),
        ("100.128.0.1", true),
        ("172.31.0.1", false),
        ("172.32.0.1", true),
        ("192.0.2.1", false),
        ("192.168.1.1", false),
        ("198.19.0.1", false),
        ("198.51.100.1", false),
        ("203.0.113.1", false),
        ("224.0.0.1", false),
        ("255.255.255.255", false),
        ("240.0.0.1", false),
        ("::", false),
        ("::1", false),
        ("2600::1", true),
        ("2001:db8::1", false),
        ("2001:2::1", false),
        ("fc00::1", false),
        ("fd00::1", false),
        ("fe80::1", false),
        ("fec0::1", false),
        ("ff02::1", false),
        ("::ffff:8.8.8.8", true),
        ("::ffff:127.0.0.1", false),
        ("::127.0.0.1", false),
        ("::8.8.8.8", true),
        ("64:ff9b::808:808", true),
        ("64:ff9b::a00:1", false),
        ("64:ff9b:1::808:808", false),
        ("2002:808:808::1", true),
        ("2002:7f00:1::1", false),
        ("2001:0:808:808::f7f7:f7f7", true),
        ("2001:0:a00:1::f7f7:f7f7", false),
        ("2001:0:808:808::80ff:fffe", false),
    ] {
        assert_eq!(
            policy.allows(address.parse().unwrap()),
            allowed,
            "{address}"
        );
    }
    let own = AddressPolicy {
        allowed: alloc::vec![
            Prefix::new("10.0.0.0".parse().unwrap(), 8),
            Prefix::new("fd00::".parse().unwrap(), 8),
        ],
        refused: alloc::vec![
            Prefix::new("10.9.0.0".parse().unwrap(), 16),
            Prefix::new("8.8.8.8".parse().unwrap(), 32),
        ],
    };
    for (address, allowed) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("10.9.2.3", false),
        ("::ffff:10.9.2.3", false),
        ("64:ff9b::808:808", false),
        ("fd00::1", true),
        ("11.0.0.1", true),
        ("192.168.0.1", false),
    ] {
        assert_eq!(own.allows(address.parse().unwrap()), allowed, "{address}");
    }
}

// spec: HS-11.7-2, PRH-6-4, HM-9.6-1, HM-6.1-1, OPT-7-2
#[test]
fn credentials_come_before_policy_and_syntax_before_both() {
    let ask = |config: &mut ProxyConfig| config.authenticate = true;
    assert_eq!(verdict_with(&request("CONNECT h HTTP/1.0"), ask), 400);

    let mut rig = Rig::with(ask);
    rig.send(Side::Client, &request("CONNECT h.example:25 HTTP/1.0"));
    let rows = alloc::vec!["Digest a".to_string(), "Basic realm=\"x\"".to_string()];
    rig.auth(AuthVerdict::Challenge(rows));
    let text = core::str::from_utf8(&rig.client).unwrap();
    assert!(
        text.contains(
            "\r\nProxy-Authenticate: Digest a\r\nProxy-Authenticate: Basic realm=\"x\"\r\n"
        )
    );
    rig.check_refusal(407);

    let mut rig = Rig::with(ask);
    let head = "CONNECT h.example:25 HTTP/1.0|Proxy-Authorization: Basic Zm9vOmJhcg==";
    rig.send(Side::Client, &request(head));
    let ProxyAction::CheckAuth { check, .. } = &rig.actions[0] else {
        panic!();
    };
    assert_eq!(check.authorization(), Some("Basic Zm9vOmJhcg=="));
    assert_eq!(check.uri(), "h.example:25");
    assert!(!alloc::format!("{:?} {:?}", rig.actions, rig.proxy).contains("Zm9v"));
    let user = Some("foo".to_string());
    rig.auth(AuthVerdict::Allow { user, info: None });
    rig.check_refusal(403);
    assert_eq!(rig.record().user.as_deref(), Some("foo"));

    let mut rig = Rig::with(ask);
    rig.send(Side::Client, NAME.as_bytes());
    rig.auth(AuthVerdict::Forbid);
    rig.check_refusal(403);

    for verdict in [
        AuthVerdict::Challenge(alloc::vec!["Basic\r\nEvil: 1".to_string()]),
        AuthVerdict::Challenge(Vec::new()),
        AuthVerdict::Continue("NTLM\nx".to_string()),
    ] {
        let mut rig = Rig::with(ask);
        rig.send(Side::Client, NAME.as_bytes());
        rig.auth(verdict);
        rig.check_refusal(500);
    }
    let mut rig = Rig::with(ask);
    rig.send(
        Side::Client,
        &request("CONNECT h.example:443 HTTP/1.0|Proxy-Authorization: a|Proxy-Authorization: b"),
    );
    rig.check_refusal(400);
}

// spec: PRH-6-5, HM-9.3-2
#[test]
fn a_handshake_keeps_its_connection_unless_something_slipped_in_behind_the_request() {
    let ask = |config: &mut ProxyConfig| config.authenticate = true;
    let verdict = || AuthVerdict::Continue("NTLM dDI=".to_string());
    let mut rig = Rig::with(ask);
    for _ in 0..2 {
        rig.client.clear();
        rig.send(Side::Client, NAME.as_bytes());
        rig.auth(verdict());
        assert_eq!(rig.status(), 407);
        let text = core::str::from_utf8(&rig.client).unwrap();
        assert!(text.contains("\r\nConnection: keep-alive\r\nProxy-Authenticate: NTLM dDI=\r\n"));
    }
    rig.send(Side::Client, NAME.as_bytes());
    let (user, info) = (None, None);
    rig.auth(AuthVerdict::Allow { user, info });
    rig.resolve(&["192.88.1.1"]);

    let mut rig = Rig::with(ask);
    rig.send(Side::Client, alloc::format!("{NAME}x").as_bytes());
    rig.auth(verdict());
    rig.check_refusal(407);

    let old = request("CONNECT h.example:443 HTTP/1.0|Proxy-Connection: keep-alive");
    let mut rig = Rig::with(ask);
    rig.send(Side::Client, &old);
    rig.auth(verdict());
    rig.check_refusal(407);
    let mut rig = Rig::with(|config| {
        config.authenticate = true;
        config.keep_old_clients = true;
        config.limits.requests = 2;
    });
    rig.send(Side::Client, &old);
    rig.auth(verdict());
    assert!(rig.actions.is_empty());
    rig.client.clear();
    rig.send(Side::Client, &old);
    rig.auth(verdict());
    rig.check_refusal(407);
}

// spec: UP-5.3-1, HS-9.3.6-6, PRH-7-2, SEC-H-09, AL-2.3-1
#[test]
fn the_answer_is_39_bytes_and_follows_the_connection_and_early_bytes_go_first() {
    let mut rig = Rig::new();
    let head = "CONNECT pcscf.example.com:443 HTTP/1.1|Host: pcscf.example.com|ALPN: x%2Fy";
    let mut bytes = request(head);
    bytes.extend_from_slice(b"ClientHello");
    assert_eq!(rig.send(Side::Client, &bytes), bytes.len());
    rig.resolve(&["192.88.1.1"]);
    assert!(rig.client.is_empty() && rig.upstream.is_empty());
    rig.send(Side::Client, b" and more");
    rig.connected();
    assert_eq!(rig.client, OK);
    assert_eq!(OK.len(), 39);
    assert_eq!(rig.upstream, b"ClientHello and more");
    let Some(ProxyEvent::Open { address, .. }) = rig.events.first() else {
        panic!();
    };
    assert_eq!(*address, Some("192.88.1.1:443".parse().unwrap()));
}

// spec: PRH-7-2, SEC-H-09, SEC-G-14
#[test]
fn early_bytes_are_limited_and_thrown_away_with_the_request() {
    let mut rig = Rig::new();
    rig.send(Side::Client, NAME.as_bytes());
    let early = alloc::vec![7; 20 * 1024];
    assert_eq!(rig.send(Side::Client, &early), 16 * 1024);
    assert!(!rig.proxy.wants_input(Side::Client));
    assert_eq!(rig.send(Side::Client, &early), 0);
    rig.resolve(&["10.0.0.1"]);
    assert!(rig.upstream.is_empty());
    rig.check_refusal(403);
    assert!(rig.upstream.is_empty());
    assert_eq!(rig.record().up, 0);
}

// spec: PRH-7-1
#[test]
fn a_target_that_speaks_first_is_heard_behind_the_answer() {
    let mut rig = Rig::new();
    rig.send(Side::Client, NAME.as_bytes());
    rig.resolve(&["192.88.1.1"]);
    // Offered too early, the bytes stay with the host.
    assert!(!rig.proxy.wants_input(Side::Upstream));
    assert_eq!(rig.send(Side::Upstream, b"220 hello"), 0);
    let ProxyAction::Connect { ticket, .. } = rig.action() else {
        panic!();
    };
    rig.proxy.handle_connected(rig.now, ticket);
    let taken = rig
        .proxy
        .handle_input(rig.now, Side::Upstream, b"220 hello");
    assert_eq!((taken.len, taken.forward), (9, &b""[..]));
    rig.drain();
    assert_eq!(rig.client, [OK, b"220 hello"].concat());
}

// spec: PRH-7-4, SEC-G-14
#[test]
fn relay_is_exact_and_bounded_and_slow_readers_stop_the_other_side() {
    let mut rig = Rig::open(|config| config.limits.relay = 100);
    let data: Vec<u8> = (0..=255).collect();
    let taken = rig.proxy.handle_input(rig.now, Side::Client, &data);
    assert_eq!((taken.len, taken.forward), (100, &data[..100]));
    // The connection took 40 of them.
    rig.proxy
        .handle_unsent(rig.now, Side::Upstream, &data[40..100]);
    assert!(rig.proxy.wants_input(Side::Client));
    let taken = rig.proxy.handle_input(rig.now, Side::Client, &data[100..]);
    assert_eq!((taken.len, taken.forward), (40, &b""[..]));
    assert!(!rig.proxy.wants_input(Side::Client));
    assert!(rig.proxy.wants_input(Side::Upstream));
    let taken = rig.proxy.handle_input(rig.now, Side::Client, &data[140..]);
    assert_eq!(taken.len, 0);
    let mut seen = data[..40].to_vec();
    let mut buf = [0; 33];
    while let Some(len) = rig.proxy.poll_transmit(Side::Upstream, &mut buf) {
        seen.extend_from_slice(&buf[..len]);
    }
    assert_eq!(seen, data[..140]);
    assert!(rig.proxy.wants_input(Side::Client));
    rig.send(Side::Client, &data[140..240]);
    assert_eq!(rig.upstream, data[140..240]);
    rig.send(Side::Upstream, b"back");
    assert_eq!(rig.client, b"back");
}

// spec: HS-9.3.6-7
#[test]
fn when_one_side_closes_its_last_bytes_are_delivered_and_both_are_closed() {
    for from in [Side::Client, Side::Upstream] {
        let mut rig = Rig::open(|_| {});
        let data = alloc::vec![3; 10 * 1024];
        let taken = rig.proxy.handle_input(rig.now, from, &data);
        rig.proxy
            .handle_unsent(rig.now, from.other(), taken.forward);
        rig.proxy.handle_eof(rig.now, from);
        // Not before all of it is on its way.
        assert_eq!(rig.proxy.poll_action(), None);
        let mut buf = alloc::vec![0; 10 * 1024 - 1];
        rig.proxy.poll_transmit(from.other(), &mut buf).unwrap();
        assert_eq!(rig.proxy.poll_action(), None);
        rig.drain();
        assert_eq!(rig.actions, [ProxyAction::CloseWrite(from.other())]);
        rig.actions.clear();
        // What the other side still says is thrown away.
        let taken = rig.proxy.handle_input(rig.now, from.other(), b"late");
        assert_eq!((taken.len, taken.forward), (4, &b""[..]));
        rig.eof(from.other());
        assert_eq!(
            rig.actions,
            [
                ProxyAction::Close(Side::Client),
                ProxyAction::Close(Side::Upstream)
            ]
        );
        let record = rig.record();
        assert_eq!(record.ended, Ended::Closed(from));
        assert_eq!(record.up + record.down, 10 * 1024);
    }
}

// spec: HS-9.3.6-7
#[test]
fn a_side_that_never_closes_or_never_reads_is_cut_off() {
    let mut rig = Rig::open(|_| {});
    rig.eof(Side::Client);
    rig.wait(1);
    assert_eq!(rig.events, []);
    rig.wait(1);
    assert_eq!(rig.record().ended, Ended::Closed(Side::Client));

    let mut rig = Rig::open(|_| {});
    let taken = rig.proxy.handle_input(rig.now, Side::Upstream, b"x");
    rig.proxy
        .handle_unsent(rig.now, Side::Client, taken.forward);
    rig.proxy.handle_eof(rig.now, Side::Upstream);
    rig.now += Duration::from_secs(60);
    rig.proxy.handle_timeout(rig.now);
    rig.drain();
    assert_eq!(rig.record().ended, Ended::Undelivered);
    assert_eq!(rig.proxy.poll_timeout(), None);

    // The side that has closed may vanish while its last bytes are on their way.
    let mut rig = Rig::open(|_| {});
    let taken = rig.proxy.handle_input(rig.now, Side::Client, b"x");
    rig.proxy
        .handle_unsent(rig.now, Side::Upstream, taken.forward);
    rig.proxy.handle_eof(rig.now, Side::Client);
    rig.proxy.handle_reset(rig.now, Side::Client);
    rig.drain();
    assert_eq!(rig.upstream, b"x");
    rig.proxy.handle_reset(rig.now, Side::Client);
    rig.drain();
    assert_eq!(rig.events, []);

    let mut rig = Rig::open(|_| {});
    rig.proxy.handle_reset(rig.now, Side::Upstream);
    rig.drain();
    assert_eq!(rig.actions, [ProxyAction::CloseWrite(Side::Client)]);
    rig.proxy.handle_reset(rig.now, Side::Client);
    rig.drain();
    assert_eq!(rig.record().ended, Ended::Closed(Side::Upstream));
}

// spec: PRH-7-3
#[test]
fn half_close_lets_the_other_direction_go_on_for_60_s() {
    for (seconds, heard) in [(59, true), (61, false)] {
        let mut rig = Rig::open(|config| config.half_close = true);
        rig.send(Side::Client, b"last words");
        rig.eof(Side::Client);
        assert_eq!(rig.upstream, b"last words");
        assert_eq!(rig.actions, [ProxyAction::CloseWrite(Side::Upstream)]);
        rig.wait(seconds);
        rig.send(Side::Upstream, b"answer");
        assert_eq!(rig.client.is_empty(), !heard);
        if heard {
            rig.actions.clear();
            rig.eof(Side::Upstream);
            assert_eq!(rig.actions[0], ProxyAction::CloseWrite(Side::Client));
        }
        assert_eq!(rig.record().ended, Ended::Closed(Side::Client));
    }
}

// spec: PRH-7-3
#[test]
fn a_fin_is_passed_on_behind_the_last_byte() {
    for from in [Side::Client, Side::Upstream] {
        let mut rig = Rig::open(|config| config.half_close = true);
        let taken = rig.proxy.handle_input(rig.now, from, b"last");
        rig.proxy
            .handle_unsent(rig.now, from.other(), taken.forward);
        rig.proxy.handle_eof(rig.now, from);
        assert_eq!(rig.proxy.poll_action(), None);
        rig.drain();
        assert_eq!(rig.actions, [ProxyAction::CloseWrite(from.other())]);
    }
}

// spec: HM-9.6-1
#[test]
fn a_refused_client_may_go_on_for_2_s_or_64_kib() {
    let refused = || {
        let mut rig = Rig::new();
        rig.send(Side::Client, &request("CONNECT h.example:25 HTTP/1.0"));
        assert_eq!(rig.actions, [ProxyAction::CloseWrite(Side::Client)]);
        rig
    };
    let mut rig = refused();
    rig.wait(1);
    assert_eq!(rig.actions.len(), 1);
    rig.wait(1);
    assert_eq!(rig.actions[1], ProxyAction::Close(Side::Client));
    let mut rig = refused();
    rig.send(Side::Client, &alloc::vec![0; 64 * 1024 - 1]);
    assert_eq!(rig.actions.len(), 1);
    rig.send(Side::Client, b"x");
    assert_eq!(rig.actions[1], ProxyAction::Close(Side::Client));
    assert_eq!(rig.send(Side::Client, b"x"), 1);
    assert_eq!(rig.actions.len(), 2);
    assert_eq!(rig.events.len(), 1);
}

// spec: SEC-F-04
#[test]
fn each_step_has_its_deadline() {
    let mut rig = Rig::new();
    for byte in &NAME.as_bytes()[..9] {
        rig.send(Side::Client, &[*byte]);
        rig.wait(1);
    }
    assert!(rig.client.is_empty());
    rig.wait(1);
    rig.check_refusal(408);

    let mut rig = Rig::new();
    rig.send(Side::Client, NAME.as_bytes());
    rig.wait(15);
    rig.actions.remove(0);
    rig.check_refusal(504);

    let mut rig = Rig::new();
    rig.send(Side::Client, NAME.as_bytes());
    rig.resolve(&["192.88.1.1"]);
    rig.wait(14);
    assert!(rig.client.is_empty());
    rig.wait(1);
    assert!(rig.actions.contains(&ProxyAction::Close(Side::Upstream)));
    rig.check_refusal(504);

    let mut rig = Rig::with(|config| config.authenticate = true);
    rig.send(Side::Client, NAME.as_bytes());
    rig.wait(10);
    rig.actions.remove(0);
    rig.check_refusal(500);

    // A step that is done has no deadline any more.
    let mut rig = Rig::with(|config| config.authenticate = true);
    rig.wait(9);
    rig.send(Side::Client, NAME.as_bytes());
    rig.wait(9);
    let (user, info) = (None, None);
    rig.auth(AuthVerdict::Allow { user, info });
    rig.wait(14);
    rig.resolve(&["192.88.1.1"]);
    rig.wait(14);
    rig.connected();
    rig.wait(3600);
    assert_eq!(rig.client, OK);

    let mut rig = Rig::open(|config| config.limits.idle_timeout = Some(Duration::from_secs(30)));
    rig.wait(29);
    rig.send(Side::Upstream, b"x");
    rig.wait(29);
    assert!(rig.actions.is_empty());
    rig.wait(1);
    assert_eq!(rig.record().ended, Ended::Idle);
}

#[test]
fn the_other_addresses_of_a_name_are_tried_in_turn() {
    let mut rig = Rig::with(|config| config.limits.addresses = 2);
    rig.send(Side::Client, NAME.as_bytes());
    rig.resolve(&["192.88.1.1", "2600::1", "192.88.1.2"]);
    rig.fail(ProxyError::ConnectionRefused);
    let ProxyAction::Connect { address, .. } = &rig.actions[0] else {
        panic!();
    };
    assert_eq!(*address, "[2600::1]:443".parse().unwrap());
    rig.fail(ProxyError::ConnectionTimeout);
    rig.check_refusal(504);
}

#[test]
fn answers_to_older_questions_are_ignored() {
    let mut rig = Rig::new();
    rig.send(Side::Client, NAME.as_bytes());
    let ProxyAction::Resolve { ticket: old, .. } = rig.actions[0].clone() else {
        panic!();
    };
    rig.resolve(&["192.88.1.1"]);
    rig.proxy.handle_failure(rig.now, old, ProxyError::Internal);
    rig.proxy.handle_connected(rig.now, old);
    rig.proxy.handle_resolved(rig.now, old, &[]);
    rig.drain();
    assert!(rig.client.is_empty());
    rig.connected();
    assert_eq!(rig.client, OK);
}

#[test]
fn an_answer_to_another_kind_of_question_is_ignored_as_well() {
    let mut rig = Rig::with(|config| config.authenticate = true);
    rig.send(Side::Client, NAME.as_bytes());
    let ProxyAction::CheckAuth { ticket: old, .. } = rig.actions[0].clone() else {
        panic!();
    };
    let (user, info) = (None, None);
    rig.auth(AuthVerdict::Allow { user, info });
    rig.proxy
        .handle_resolved(rig.now, old, &["192.88.1.9".parse().unwrap()]);
    rig.proxy.handle_auth(rig.now, old, AuthVerdict::Forbid);
    rig.drain();
    assert!(matches!(
        rig.actions.as_slice(),
        [ProxyAction::Resolve { .. }]
    ));
}

#[test]
fn bytes_that_are_put_back_come_first() {
    let mut queue = Queue::default();
    assert_eq!(queue.push(b"abcdef", 4), 4);
    let mut buf = [0; 2];
    assert_eq!(queue.take(&mut buf), 2);
    queue.put_back(b"xyz");
    queue.append(b"!");
    assert_eq!(queue.len(), 6);
    assert_eq!(queue.into_bytes(), b"xyzcd!");
}

#[test]
fn a_client_that_leaves_ends_everything() {
    let mut rig = Rig::new();
    rig.send(Side::Client, NAME.as_bytes());
    rig.resolve(&["192.88.1.1"]);
    rig.actions.clear();
    rig.eof(Side::Client);
    assert_eq!(
        rig.actions,
        [
            ProxyAction::Close(Side::Client),
            ProxyAction::Close(Side::Upstream)
        ]
    );
    assert_eq!(rig.record().ended, Ended::ClientGone);
    assert_eq!(rig.record().status, 0);
}

#[test]
fn errors_have_their_status_and_their_proxy_status() {
    let check = |error: ProxyError, status, member: &str| {
        let mut rig = Rig::with(|config| config.proxy_status = true);
        rig.send(Side::Client, NAME.as_bytes());
        rig.fail(error);
        let text = core::str::from_utf8(&rig.client).unwrap();
        let line = alloc::format!("\r\nProxy-Status: gate; error={member}\r\n");
        assert!(text.contains(&line), "{text}");
        rig.check_refusal(status);
        let mut rig = Rig::new();
        rig.send(Side::Client, NAME.as_bytes());
        rig.fail(error);
        assert!(
            !core::str::from_utf8(&rig.client)
                .unwrap()
                .contains("Proxy-Status")
        );
    };
    let rcode = Some("NXDOMAIN");
    check(
        ProxyError::Dns { rcode },
        502,
        "dns_error; rcode=\"NXDOMAIN\"",
    );
    check(ProxyError::DnsTimeout, 504, "dns_timeout");
    check(ProxyError::ConnectionRefused, 502, "connection_refused");
    check(ProxyError::ConnectionTimeout, 504, "connection_timeout");
    check(ProxyError::Unroutable, 502, "destination_ip_unroutable");
    check(
        ProxyError::AddressProhibited,
        403,
        "destination_ip_prohibited",
    );
    check(ProxyError::ConnectionLimit, 503, "connection_limit_reached");
    check(ProxyError::Unavailable, 503, "destination_unavailable");
    check(
        ProxyError::ConnectionTerminated,
        502,
        "connection_terminated",
    );
    check(ProxyError::ReadTimeout, 504, "connection_read_timeout");
    let received = Some(403);
    check(
        ProxyError::HttpProtocol { received },
        502,
        "http_protocol_error; received-status=403",
    );
    check(
        ProxyError::ResponseTooLarge,
        502,
        "http_response_header_section_size",
    );
    check(
        ProxyError::TlsAlert { id: 40 },
        502,
        "tls_alert_received; alert-id=40",
    );
    check(ProxyError::TlsCertificate, 502, "tls_certificate_error");
    check(ProxyError::Loop, 502, "proxy_loop_detected");
    check(ProxyError::Internal, 500, "proxy_internal_error");
    let mut rig = Rig::new();
    rig.send(Side::Client, NAME.as_bytes());
    rig.actions.clear();
    rig.proxy.refuse_overload(rig.now, Duration::from_secs(7));
    rig.drain();
    assert!(
        core::str::from_utf8(&rig.client)
            .unwrap()
            .contains("\r\nRetry-After: 7\r\n")
    );
    rig.check_refusal(503);
}

#[test]
fn a_spliced_tunnel_gives_up_what_it_holds() {
    let mut rig = Rig::new();
    let now = rig.now;
    rig.send(Side::Client, NAME.as_bytes());
    assert_eq!(rig.proxy.splice(now), Err(NotOpen));
    rig.send(Side::Client, b"early");
    rig.resolve(&["192.88.1.1"]);
    let ProxyAction::Connect { ticket, .. } = rig.action() else {
        panic!();
    };
    rig.proxy.handle_connected(now, ticket);
    let spliced = rig.proxy.splice(now).unwrap();
    assert_eq!(spliced.to_client, OK);
    assert_eq!(spliced.to_upstream, b"early");
    rig.drain();
    assert_eq!(rig.actions, []);
    assert_eq!(rig.record().ended, Ended::Spliced);
    assert_eq!(rig.proxy.splice(now), Err(NotOpen));

    // Too late when one side has closed: the host would not know.
    let mut rig = Rig::open(|config| config.half_close = true);
    rig.eof(Side::Client);
    assert_eq!(rig.proxy.splice(now), Err(NotOpen));
}

fn parent(config: &mut ProxyConfig) {
    let policy = Policy {
        basic: Allow::Always,
        ..Policy::default()
    };
    let auth = ClientAuth::new(Some(Credentials::new("us", "secret")), policy);
    config.parent = Some(Parent::new(auth));
    config.proxy_status = true;
}

// spec: UP-5.3-2, UP-5.3-1, HS-7.6.3-1, HS-7.6.1-1, HS-11.7.2-1
#[test]
fn a_parent_gets_the_request_without_what_concerns_one_hop() {
    let mut rig = Rig::with(parent);
    let head = "CONNECT pcscf.example.com:443 HTTP/1.1|Host: pcscf.example.com|Via: 1.0 one|\
                Connection: x-a, Close|X-A: 1|X-B: 2|Proxy-Connection: keep-alive|Keep-Alive: 3|\
                TE: trailers|Upgrade: x|ALPN: h2|Proxy-Authorization: Basic Zm9v|via: 1.1 two (c)";
    let mut bytes = request(head);
    bytes.extend_from_slice(b"early");
    rig.send(Side::Client, &bytes);
    rig.connected();
    assert_eq!(
        core::str::from_utf8(&rig.upstream).unwrap(),
        "CONNECT pcscf.example.com:443 HTTP/1.1\r\nHost: pcscf.example.com:443\r\nX-B: 2\r\nALPN: h2\r\n\
         Via: 1.0 one, 1.1 two (c), 1.1 gate\r\n\r\n"
    );
    assert!(rig.client.is_empty());
    rig.upstream.clear();
    rig.send(Side::Upstream, b"HTTP/1.1 200 OK\r\n\r\nhello");
    assert_eq!(rig.client, [OK, b"hello"].concat());
    assert_eq!(rig.upstream, b"early");
    rig.send(Side::Upstream, b" again");
    assert!(rig.client.ends_with(b"hello again"));
}

// spec: HS-7.6.3-1
#[test]
fn a_request_that_was_here_before_is_refused() {
    for via in [
        "1.1 gate",
        "1.0 a, 1.1 GATE (x), 1.1 b",
        "1.1 a|Via: 1.1 gate",
    ] {
        let head = alloc::format!("CONNECT h.example:443 HTTP/1.0|Via: {via}");
        assert_eq!(verdict_with(&request(&head), parent), 502, "{via}");
    }
    let head = request("CONNECT h.example:443 HTTP/1.0|Via: 1.1 gateway");
    assert_eq!(verdict_with(&head, parent), 0);
}

// spec: UP-5.3-2, PS-2-1
#[test]
fn the_refusal_of_a_parent_is_passed_on_as_502() {
    let refused = |answer: &[u8]| {
        let mut rig = Rig::with(parent);
        rig.send(Side::Client, NAME.as_bytes());
        rig.connected();
        rig.send(Side::Upstream, answer);
        rig
    };
    let mut rig = refused(
        b"HTTP/1.1 403 No\r\nProxy-Status: far; error=http_request_denied\r\nContent-Length: 0\r\n\r\n",
    );
    assert!(core::str::from_utf8(&rig.client).unwrap().contains(
        "\r\nProxy-Status: far; error=http_request_denied, gate; error=http_protocol_error; received-status=403\r\n"
    ));
    assert_eq!(rig.actions.remove(0), ProxyAction::Close(Side::Upstream));
    rig.check_refusal(502);
    let mut rig = refused(b"RUBBISH");
    rig.actions.remove(0);
    rig.check_refusal(502);
    let mut rig = refused(b"HTTP/1.1 200");
    rig.eof(Side::Upstream);
    rig.actions.remove(0);
    assert!(
        core::str::from_utf8(&rig.client)
            .unwrap()
            .contains("error=connection_terminated")
    );
    rig.check_refusal(502);
    let mut rig = refused(b"");
    rig.wait(30);
    rig.actions.remove(0);
    rig.check_refusal(504);
    let mut rig = refused(&[b"HTTP/1.1 200 ".as_slice(), &[b'x'; 9000]].concat());
    rig.actions.remove(0);
    assert!(
        core::str::from_utf8(&rig.client)
            .unwrap()
            .contains("error=http_response_header_section_size")
    );
    rig.check_refusal(502);
}

// spec: UP-5.3-2, HS-11.7.2-1
#[test]
fn the_proxy_authenticates_itself_to_its_parent_over_a_new_connection_if_need_be() {
    let mut rig = Rig::with(parent);
    rig.send(Side::Client, NAME.as_bytes());
    rig.connected();
    let challenge =
        b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"p\"\r\nConnection: close\r\n\r\n";
    rig.send(Side::Upstream, challenge);
    assert_eq!(rig.actions.remove(0), ProxyAction::Close(Side::Upstream));
    rig.upstream.clear();
    rig.connected();
    let text = core::str::from_utf8(&rig.upstream).unwrap();
    assert!(text.contains("Proxy-Authorization: Basic dXM6c2VjcmV0\r\n"));
    assert!(rig.client.is_empty());
    rig.send(Side::Upstream, b"HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(rig.client, OK);
}

#[test]
fn the_end_of_an_old_connection_to_the_parent_is_not_that_of_the_new_one() {
    let mut rig = Rig::with(|config| {
        parent(config);
        config.half_close = true;
    });
    rig.send(Side::Client, NAME.as_bytes());
    rig.connected();
    let challenge =
        b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"p\"\r\nContent-Length: 5\r\n\r\n";
    rig.send(Side::Upstream, challenge);
    rig.eof(Side::Upstream);
    assert_eq!(rig.actions.remove(0), ProxyAction::Close(Side::Upstream));
    rig.connected();
    rig.send(Side::Upstream, b"HTTP/1.1 200 OK\r\n\r\nhello");
    assert_eq!(rig.client, [OK, b"hello"].concat());
    assert_eq!(rig.actions, []);
}

// spec: HS-11.7.2-1, UP-5.3-2
#[test]
fn shared_credentials_go_to_the_parent_and_its_challenges_come_back() {
    let mut rig = Rig::with(|config| {
        parent(config);
        let auth = ClientAuth::new(None, Policy::default());
        config.parent = Some(Parent {
            share_credentials: true,
            ..Parent::new(auth)
        });
    });
    let head = "CONNECT h.example:443 HTTP/1.0|Proxy-Authorization: Basic Zm9vOmJhcg==";
    rig.send(Side::Client, &request(head));
    rig.connected();
    let text = core::str::from_utf8(&rig.upstream).unwrap();
    assert!(text.contains("\r\nProxy-Authorization: Basic Zm9vOmJhcg==\r\n"));
    rig.send(
        Side::Upstream,
        b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"p\"\r\nContent-Length: 0\r\n\r\n",
    );
    rig.actions.remove(0);
    assert!(
        core::str::from_utf8(&rig.client)
            .unwrap()
            .contains("\r\nProxy-Authenticate: Basic realm=\"p\"\r\n")
    );
    rig.check_refusal(407);
}

// spec: SEC-G-19
#[test]
fn configurations_that_cannot_work_are_refused() {
    let check = |change: fn(&mut ProxyConfig), error| {
        let mut config = ProxyConfig::new("gate");
        change(&mut config);
        let server = ConnectServer::new(Arc::new(config), [0; 32], Instant::ZERO);
        assert_eq!(server.unwrap_err(), error);
    };
    check(|c| c.pseudonym = "".into(), ProxyConfigError::Pseudonym);
    check(|c| c.pseudonym = "a b".into(), ProxyConfigError::Pseudonym);
    check(|c| c.limits.relay = 0, ProxyConfigError::Limits);
    check(|c| c.limits.early = 0, ProxyConfigError::Limits);
    check(|c| c.limits.requests = 0, ProxyConfigError::Limits);
    check(|c| c.limits.head.bytes = 0, ProxyConfigError::Limits);
}
