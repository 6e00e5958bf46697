#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::string::String;
use alloc::vec::Vec;

use core::time::Duration;

use super::*;
use crate::auth::{Allow, Credentials, Policy};
use crate::wire::{HeadError, Leniency, RetryAfter};

const OK: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

fn established(status: u16) -> ConnectEvent {
    let token = None;
    ConnectEvent::Established { status, token }
}

struct Rig {
    client: ConnectClient,
    now: Instant,
    sent: Vec<String>,
    tunnel: Vec<u8>,
}

fn auth() -> ClientAuth {
    let policy = Policy {
        basic: Allow::Always,
        md5: Allow::Always,
        ntlm: Allow::Always,
        ..Policy::default()
    };
    ClientAuth::new(Some(Credentials::new("user", "pass")), policy)
}

impl Rig {
    fn with(config: ConnectConfig, auth: ClientAuth) -> Self {
        let now = Instant::ZERO;
        let target = "h.example:443".parse().unwrap();
        let client = ConnectClient::new(target, config, auth, [1; 32], now).unwrap();
        let mut rig = Self {
            client,
            now,
            sent: Vec::new(),
            tunnel: Vec::new(),
        };
        rig.connect();
        rig
    }

    fn new() -> Self {
        Self::with(ConnectConfig::default(), auth())
    }

    fn connect(&mut self) {
        self.client.handle_connected(self.now);
        self.drain();
    }

    /// Takes the request with buffers of seven bytes.
    fn drain(&mut self) {
        let (mut buf, mut request) = ([0; 7], Vec::new());
        loop {
            let wants = self.client.wants_transmit();
            let len = self.client.poll_transmit(&mut buf);
            assert_eq!(wants, len.is_some());
            let Some(len) = len else {
                break;
            };
            request.extend_from_slice(&buf[..len]);
        }
        if !request.is_empty() {
            self.sent.push(String::from_utf8(request).unwrap());
        }
    }

    fn input(&mut self, data: &[u8]) -> Option<ConnectEvent> {
        let rest = self.client.handle_input(self.now, data);
        self.tunnel.extend_from_slice(rest);
        self.drain();
        self.client.poll_event()
    }

    fn rejected(&mut self, data: &[u8]) -> Rejection {
        match self.input(data) {
            Some(ConnectEvent::Rejected(rejection)) => rejection,
            other => panic!("{other:?}"),
        }
    }

    fn new_lenient() -> Self {
        let config = ConnectConfig {
            leniency: Leniency::LENIENT,
            ..ConnectConfig::default()
        };
        Self::with(config, auth())
    }

    fn eof(&mut self) -> Option<ConnectEvent> {
        self.client.handle_eof(self.now);
        self.drain();
        self.client.poll_event()
    }

    fn token(&mut self, token: &str) {
        self.client.set_token(self.now, Some(token.into()));
        self.drain();
    }

    fn failed(data: &[u8]) -> ConnectError {
        match Self::new().input(data) {
            Some(ConnectEvent::Failed(error)) => error,
            other => panic!("{:?}: {other:?}", String::from_utf8_lossy(data)),
        }
    }
}

// spec: HS-9.3.6-1, HM-3.2-1, HM-2.2-1, HS-9.3.6-2, HM-3.2.3-1
#[test]
fn the_request_is_exactly_this() {
    assert_eq!(
        Rig::new().sent[0],
        "CONNECT h.example:443 HTTP/1.1\r\nHost: h.example:443\r\n\r\n"
    );
    let target = Target::new("2001:db8::15", 443).unwrap();
    let now = Instant::ZERO;
    let config = ConnectConfig::default();
    let mut client = ConnectClient::new(target, config, auth(), [0; 32], now).unwrap();
    client.handle_connected(now);
    let mut buf = [0; 500];
    let len = client.poll_transmit(&mut buf).unwrap();
    assert_eq!(
        &buf[..len],
        b"CONNECT [2001:db8::15]:443 HTTP/1.1\r\nHost: [2001:db8::15]:443\r\n\r\n"
    );
}

// spec: HM-5.2-1, PRH-3-1, PRH-3-2, SEC-H-01
#[test]
fn configured_fields_are_checked() {
    let with = |name: &str, value: &str| ConnectConfig {
        fields: alloc::vec![(name.into(), value.into())],
        proxy_connection: true,
        alpn: alloc::vec![b"h2".to_vec()],
        ..ConnectConfig::default()
    };
    let sent = Rig::with(with("User-Agent", "x"), auth()).sent;
    assert!(sent[0].contains("\r\nProxy-Connection: keep-alive\r\nALPN: h2\r\nUser-Agent: x\r\n"));
    for (name, value) in [
        ("X", "a\r\nEvil: 1"),
        ("X", "a\nb"),
        ("X", "nul\0"),
        ("X", "a\rb"),
        ("X:", "v"),
        ("X\r\nY", "v"),
        ("Proxy-Connection", "close"),
        ("alpn", "h2"),
        ("X y", "v"),
        ("", "v"),
        ("hoST", "v"),
        ("Content-Length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "close"),
        ("Proxy-Authorization", "Basic x"),
    ] {
        let target = "h:1".parse().unwrap();
        let now = Instant::ZERO;
        let client = ConnectClient::new(target, with(name, value), auth(), [0; 32], now);
        assert_eq!(client.unwrap_err(), FieldError { index: 0 }, "{name}");
    }
}

// spec: HS-9.3.6-3, HM-6.3-1, PRH-4-1, OPT-7-1, SEC-H-02
#[test]
fn any_2xx_opens_the_tunnel_right_behind_the_blank_line_wherever_it_is_cut() {
    for status in ["200", "201", "204", "206", "299"] {
        for fields in [
            "",
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1, 2\r\n",
            "Content-Length: x\r\n",
        ] {
            let whole = alloc::format!("HTTP/1.1 {status} Yes\r\n{fields}\r\n\x16\x03ServerHello");
            for cut in 0..whole.len() {
                let mut rig = Rig::new();
                let (a, b) = whole.as_bytes().split_at(cut);
                let event = rig.input(a);
                let event = event.or(rig.input(b));
                let status = status.parse().unwrap();
                assert_eq!(event, Some(established(status)));
                assert_eq!(rig.tunnel, b"\x16\x03ServerHello");
                assert_eq!(rig.client.poll_timeout(), None);
            }
        }
    }
}

// spec: HM-9.2-1, SEC-H-06
#[test]
fn interim_responses_are_passed_over_but_not_endlessly() {
    let mut rig = Rig::new();
    let mut bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n".to_vec();
    bytes.extend_from_slice(OK);
    assert_eq!(rig.input(&bytes), Some(established(200)));
    let interim = b"HTTP/1.1 102 x\r\n\r\n";
    assert_eq!(Rig::failed(&interim.repeat(5)), ConnectError::Interim);
    let switching = b"HTTP/1.1 101 x\r\n\r\n";
    assert_eq!(Rig::failed(switching), ConnectError::Interim);
}

// spec: HM-2.3-1, HM-4-1, SEC-H-07
#[test]
fn status_line_verdicts() {
    for line in [
        "HTTP/1.1 200 OK",
        "HTTP/1.0 200 Connection established",
        "HTTP/1.9 200 OK",
        "HTTP/1.1 200",
        "HTTP/1.1 204 ",
        "HTTP/1.1 299 \u{e9} 200",
    ] {
        let mut rig = Rig::new();
        let event = rig.input(alloc::format!("{line}\r\n\r\n").as_bytes());
        assert!(
            matches!(event, Some(ConnectEvent::Established { .. })),
            "{line}: {event:?}"
        );
    }
    for line in [
        "HTTP/1.1 20",
        "HTTP/1.1 2000 x",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "HTTP/1.1 +20 x",
        "HTTP/1.1 -20 x",
        "HTTP/2 200",
        "HTTP/2.0 200",
        "HTTP/11 200",
        "SIP/2.0 200 OK",
        "HTTP/1.1 600 x",
        "HTTP/1.1 099 x",
    ] {
        let error = Rig::failed(alloc::format!("{line}\r\n\r\n").as_bytes());
        assert_eq!(error, ConnectError::StatusLine, "{line}");
    }
    assert_eq!(
        Rig::failed(b"\r\nHTTP/1.1 200 OK"),
        ConnectError::StatusLine
    );
    for first in [b"\x15\x03\x01", b"\x16\x03\x01"] {
        assert_eq!(Rig::failed(first), ConnectError::PeerSpeaksTls);
    }
}

// spec: HM-2.2-2, HM-5.2-2, HM-5.1-1, SEC-H-07
#[test]
fn what_is_forgiven_is_forgiven_by_name_only() {
    for response in [
        "HTTP/1.1 200 OK\nA: b\r\nC: d\n\n",
        "HTTP/1.1 200 OK\r\nProxy-Agent : x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\td\r\nB: d\r\n\r\n",
        "\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
    ] {
        let mut rig = Rig::new_lenient();
        let event = rig.input(response.as_bytes());
        assert_eq!(event, Some(established(200)), "{response:?}");
        if response.contains("\r\n c") {
            // RFC 9112 section 5.2 has it replaced by a space.
            assert_eq!(
                Rig::new().input(response.as_bytes()),
                Some(established(200))
            );
            continue;
        }
        assert!(matches!(
            Rig::failed(response.as_bytes()),
            ConnectError::Head(_) | ConnectError::StatusLine
        ));
    }
    // Folded challenges and fields with blanks count.
    let folded = "Proxy-Authenticate: Basic\r\n  realm=\"r\"\r\nConnection : close\r\n";
    let mut rig = Rig::new_lenient();
    let event = rig.input(&challenge(folded, "Content-Length: 3\r\n"));
    assert_eq!(event, Some(ConnectEvent::Reconnect));
}

#[test]
fn a_folded_challenge_is_understood_by_default() {
    let folded = "Proxy-Authenticate: Basic\r\n\trealm=\"r\"\r\n";
    let mut rig = Rig::new();
    let event = rig.input(&challenge(folded, "Content-Length: 3\r\n"));
    assert_eq!(event, None);
    assert_eq!(rig.sent.len(), 2, "asked again, with credentials");
}

// Where the input is cut says nothing about what came: more than was announced.
#[test]
fn bytes_behind_the_body_of_a_challenge_cost_the_connection_wherever_they_are_cut() {
    let announced = challenge(
        "Proxy-Authenticate: Basic realm=\"r\"\r\n",
        "Content-Length: 3\r\n",
    );
    for tail in [&b"nineteen more bytes"[..], b"\x16\x03\x01\x00", b"HTTX"] {
        let mut whole = announced.clone();
        let end = whole.len();
        whole.extend_from_slice(tail);
        for cut in end - 3..=whole.len() {
            let mut rig = Rig::new();
            let (first, second) = whole.split_at(cut);
            let events = [rig.input(first), rig.input(second)];
            let told: Vec<_> = events.into_iter().flatten().collect();
            assert_eq!(
                told,
                [ConnectEvent::Reconnect],
                "cut at {cut}, body ends at {end}"
            );
        }
    }
}

// spec: HM-6.3-2, HM-7.1-1, PRH-4-4, SEC-H-04
#[test]
fn rejections_carry_their_class_and_the_beginning_of_their_body() {
    for (bytes, status, class, body) in [
        (
            "HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nhello",
            403,
            RejectionClass::Policy,
            "hello",
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n",
            302,
            RejectionClass::Other,
            "",
        ),
        (
            "HTTP/1.1 503 x\r\nRetry-After: 7\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3;a=\"b\"\r\nabc\r\n0\r\nT: 1\r\n\r\n",
            503,
            RejectionClass::Temporary,
            "abc",
        ),
        (
            "HTTP/1.1 502 x\r\nContent-Length: 2, 2\r\nProxy-Status: p; error=dns_error\r\n\r\nab",
            502,
            RejectionClass::Upstream,
            "ab",
        ),
        (
            "HTTP/1.1 501 x\r\nContent-Length: 0\r\n\r\n",
            501,
            RejectionClass::Permanent,
            "",
        ),
        ("HTTP/1.1 304 x\r\n\r\n", 304, RejectionClass::Other, ""),
    ] {
        for cut in 1..bytes.len() {
            let mut rig = Rig::new();
            let (a, b) = bytes.as_bytes().split_at(cut);
            let first = rig.input(a);
            let event = first.or(rig.input(b));
            let Some(ConnectEvent::Rejected(rejection)) = event else {
                panic!("{bytes}");
            };
            assert_eq!((rejection.status, rejection.class), (status, class));
            assert_eq!(rejection.body, body.as_bytes());
            assert!(rig.tunnel.is_empty());
        }
    }
    let rejection = Rig::new().rejected(
        b"HTTP/1.1 503 x\r\nRetry-After: 7\r\nProxy-Status: p\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(rejection.retry_after, Some(RetryAfter::Seconds(7)));
    assert_eq!(rejection.proxy_status.as_deref(), Some("p"));
}

// spec: PRH-4-4, SEC-G-05
#[test]
fn a_body_without_end_is_ended_by_its_close_or_its_kept_part_or_time() {
    let body = |event| match event {
        Some(ConnectEvent::Rejected(rejection)) => rejection.body.len(),
        other => panic!("{other:?}"),
    };
    let mut rig = Rig::new();
    assert_eq!(rig.input(b"HTTP/1.0 500 x\r\n\r\n"), None);
    assert_eq!(rig.input(&[b'x'; 4095]), None);
    assert_eq!(body(rig.eof()), 4095);
    let mut rig = Rig::new();
    rig.input(b"HTTP/1.0 500 x\r\n\r\n");
    assert_eq!(body(rig.input(&[b'x'; 9000])), 4096);
    let mut rig = Rig::new();
    rig.input(b"HTTP/1.0 500 x\r\n\r\nabc");
    let due = rig.client.poll_timeout().unwrap();
    assert_eq!(due, Instant::ZERO + Duration::from_secs(2));
    rig.client.handle_timeout(due);
    assert_eq!(body(rig.client.poll_event()), 3);
    assert_eq!(rig.client.poll_timeout(), None);
}

// spec: SEC-H-05, PRH-4-4
#[test]
fn a_body_beyond_64_kib_costs_the_connection() {
    for (len, event) in [
        (64 * 1024, None),
        (64 * 1024 + 1, Some(ConnectEvent::Reconnect)),
    ] {
        let mut rig = Rig::new();
        let head = alloc::format!("HTTP/1.1 407 x\r\n{BASIC}Content-Length: {len}\r\n\r\n");
        assert_eq!(rig.input(head.as_bytes()), None);
        assert_eq!(rig.input(&alloc::vec![0; len]), event);
    }
}

// spec: HM-7.1-1, HM-6.3-2
#[test]
fn chunk_sizes_that_overflow_end_the_body() {
    let mut rig = Rig::new();
    let rejection =
        rig.rejected(b"HTTP/1.1 403 x\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n");
    assert_eq!(rejection.status, 403);
}

const BASIC: &str = "Proxy-Authenticate: Basic realm=\"r\"\r\n";
const DIGEST: &str = "Proxy-Authenticate: Digest realm=\"r\",nonce=\"n\",qop=\"auth\"\r\n";

fn challenge(fields: &str, length: &str) -> Vec<u8> {
    alloc::format!("HTTP/1.1 407 Auth\r\n{fields}{length}\r\nabc").into_bytes()
}

// spec: DA-3.4-1, PRH-5-3
#[test]
fn credentials_follow_on_the_same_connection_and_at_once_on_the_next() {
    let mut rig = Rig::new();
    assert_eq!(rig.input(&challenge(DIGEST, "Content-Length: 3\r\n")), None);
    assert_eq!(rig.sent.len(), 2);
    assert!(rig.sent[1].contains("\r\nProxy-Authorization: Digest username=\"user\""));
    assert!(rig.sent[1].contains("uri=\"h.example:443\"") && rig.sent[1].contains("nc=00000001"));
    assert!(matches!(
        rig.input(OK),
        Some(ConnectEvent::Established { .. })
    ));
    let next = Rig::with(ConnectConfig::default(), rig.client.into_auth());
    assert!(next.sent[0].contains("nc=00000002"));
}

// spec: PRH-5-4, HM-9.3-1, PRH-4-2, HM-6.3-3, HM-6.3-4, SEC-H-05
#[test]
fn a_connection_that_cannot_be_used_again_is_replaced() {
    for (fields, reused) in [
        ("Content-Length: 3\r\n", true),
        ("Content-Length: 3\r\nConnection: close\r\n", false),
        ("Content-Length: 3\r\nProxy-Connection: close\r\n", false),
        (
            "Content-Length: 3\r\nConnection: keep-alive\r\nProxy-Connection: close\r\n",
            false,
        ),
        ("Content-Length: 3, 4\r\n", false),
        ("Content-Length: 3\r\nContent-Length: 4\r\n", false),
        ("Content-Length: 3, 3\r\n", true),
        ("Content-Length: +3\r\n", false),
        ("Content-Length: 9223372036854775808\r\n", false),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", false),
        ("", false),
    ] {
        let mut rig = Rig::new();
        let event = rig.input(&challenge(BASIC, fields));
        if reused {
            assert_eq!((event, rig.sent.len()), (None, 2), "{fields}");
            continue;
        }
        assert_eq!(event, Some(ConnectEvent::Reconnect), "{fields}");
        assert_eq!(rig.sent.len(), 1);
        // What the old connection still says does not matter.
        assert_eq!(rig.input(OK), None);
        rig.connect();
        assert!(rig.sent[1].contains("Basic dXNlcjpwYXNz"));
        assert!(matches!(
            rig.input(OK),
            Some(ConnectEvent::Established { .. })
        ));
    }
}

// spec: HM-9.3-1, PRH-4-2
#[test]
fn persistence_follows_version_and_connection() {
    for (version, fields, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: x, Close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Proxy-Connection: keep-alive\r\n", true),
        ("1.1", "Proxy-Connection: close\r\n", false),
        (
            "1.1",
            "Connection: close\r\nProxy-Connection: keep-alive\r\n",
            false,
        ),
        (
            "1.1",
            "Connection: keep-alive\r\nProxy-Connection: close\r\n",
            false,
        ),
    ] {
        let mut rig = Rig::new();
        let response =
            alloc::format!("HTTP/{version} 407 x\r\n{BASIC}{fields}Content-Length: 0\r\n\r\n");
        let event = rig.input(response.as_bytes());
        assert_eq!(event.is_none(), kept, "{version} {fields}");
        assert_eq!(rig.sent.len(), if kept { 2 } else { 1 });
    }
}

// spec: PRH-5-2
#[test]
fn wrong_credentials_end_it() {
    let mut rig = Rig::new();
    rig.input(&challenge(BASIC, "Content-Length: 3\r\n"));
    let rejection = rig.rejected(&challenge(BASIC, "Content-Length: 3\r\n"));
    assert_eq!(rejection.auth, Some(AuthRefusal::WrongCredentials));
    assert_eq!(rejection.class, RejectionClass::Authentication);
}

// spec: HS-11.7-1
#[test]
fn a_407_without_a_usable_challenge_is_a_rejection() {
    for fields in [
        "",
        "WWW-Authenticate: Basic realm=\"r\"\r\n",
        "Proxy-Authenticate: Foo x=y\r\n",
    ] {
        let rejection = Rig::new().rejected(&challenge(fields, "Content-Length: 3\r\n"));
        assert_eq!(rejection.auth, Some(AuthRefusal::NoUsableScheme));
    }
}

// spec: NEG-4-1, NEG-4-3
#[test]
fn three_ntlm_legs_on_one_connection() {
    let mut rig = Rig::new();
    let event = rig.input(&challenge(
        "Proxy-Authenticate: NTLM\r\n",
        "Content-Length: 3\r\n",
    ));
    let scheme = Scheme::Ntlm;
    assert_eq!(
        event,
        Some(ConnectEvent::NeedToken {
            scheme,
            token: None
        })
    );
    rig.client.set_token(rig.now, Some("dDE=".into()));
    rig.drain();
    assert!(rig.sent[1].contains("Proxy-Authorization: NTLM dDE=\r\n"));
    let event = rig.input(&challenge(
        "Proxy-Authenticate: NTLM dDI=\r\n",
        "Content-Length: 3\r\n",
    ));
    let token = Some("dDI=".into());
    assert_eq!(event, Some(ConnectEvent::NeedToken { scheme, token }));
    rig.client.set_token(rig.now, Some("dDM=".into()));
    rig.drain();
    assert!(rig.sent[2].contains("NTLM dDM="));
    assert!(matches!(
        rig.input(OK),
        Some(ConnectEvent::Established { .. })
    ));
}

const NTLM: &str = "Proxy-Authenticate: NTLM\r\n";
const NTLM2: &str = "Proxy-Authenticate: NTLM dDI=\r\n";
const THREE: &str = "Content-Length: 3\r\n";

// spec: NEG-4-2, NEG-4-4
#[test]
fn a_handshake_whose_connection_is_lost_between_legs_starts_over_once() {
    for how in ["close", "no length", "eof", "noise"] {
        let mut rig = Rig::new();
        for time in [1, 2] {
            rig.input(&challenge(NTLM, THREE));
            rig.token("dDE=");
            let mut event = match how {
                "close" => rig.input(&challenge(
                    NTLM2,
                    "Content-Length: 3\r\nConnection: close\r\n",
                )),
                "no length" => rig.input(&challenge(NTLM2, "Connection: keep-alive\r\n")),
                _ => {
                    rig.input(&challenge(NTLM2, THREE)).unwrap();
                    if how == "eof" {
                        rig.eof()
                    } else {
                        rig.input(b"x")
                    }
                }
            };
            if time == 1 {
                assert_eq!(event.take(), Some(ConnectEvent::Reconnect), "{how}");
                rig.connect();
                assert!(!rig.sent.last().unwrap().contains("Proxy-Authorization"));
            } else {
                assert_eq!(
                    event,
                    Some(ConnectEvent::Failed(ConnectError::AuthConnectionLost)),
                    "{how}"
                );
            }
        }
    }
}

// spec: PRH-4-3
#[test]
fn a_close_instead_of_the_answer_to_a_leg_is_a_failure() {
    for cut in 0..OK.len() {
        let mut rig = Rig::new();
        rig.input(&challenge(NTLM, THREE));
        rig.token("dDE=");
        assert_eq!(rig.input(&OK[..cut]), None);
        let error = ConnectError::AuthConnectionLost;
        assert_eq!(rig.eof(), Some(ConnectEvent::Failed(error)));
    }
}

// spec: NEG-4-1, NEG-4-4
#[test]
fn the_first_leg_may_go_over_a_new_connection() {
    let mut rig = Rig::new();
    let event = rig.input(&challenge(NTLM, "Connection: close\r\n"));
    assert!(matches!(
        event,
        Some(ConnectEvent::NeedToken { token: None, .. })
    ));
    assert_eq!(rig.eof(), None);
    rig.token("dDE=");
    assert_eq!(rig.client.poll_event(), Some(ConnectEvent::Reconnect));
    rig.connect();
    assert!(rig.sent[1].contains("NTLM dDE="));
}

// spec: NEG-4-3, NEG-4-1, NEG-4-5
#[test]
fn consent_to_the_first_leg_is_enough_and_its_token_is_handed_over() {
    let mut auth = auth();
    auth.begin(Scheme::Ntlm, "dDE=".into()).unwrap();
    let mut rig = Rig::with(ConnectConfig::default(), auth);
    assert!(rig.sent[0].contains("Proxy-Authorization: NTLM dDE=\r\n"));
    let answer = b"HTTP/1.1 200 OK\r\nProxy-Authenticate: NTLM ZW5k\r\n\r\n";
    let (status, token) = (200, Some("ZW5k".into()));
    assert_eq!(
        rig.input(answer),
        Some(ConnectEvent::Established { status, token })
    );
    // The next tunnel has a connection of its own and proves itself again.
    let next = Rig::with(ConnectConfig::default(), rig.client.into_auth());
    assert!(!next.sent[0].contains("Proxy-Authorization"));
}

#[test]
fn giving_up_a_handshake_is_a_rejection() {
    let mut rig = Rig::new();
    rig.input(&challenge(NTLM, THREE));
    rig.client.set_token(rig.now, None);
    let Some(ConnectEvent::Rejected(rejection)) = rig.client.poll_event() else {
        panic!();
    };
    assert_eq!(rejection.auth, Some(AuthRefusal::Unfinished));
    rig.client.set_token(rig.now, Some("dDE=".into()));
    assert_eq!(rig.client.poll_event(), None);
}

// spec: PRH-5-4
#[test]
fn a_proxy_that_closes_around_its_challenge_is_asked_again_over_a_new_connection() {
    let response = challenge(DIGEST, "Content-Length: 3\r\nConnection: close\r\n");
    let open = challenge(DIGEST, THREE);
    let head = open.len() - 3;
    // Said so, closed in the body, closed behind it.
    let mut rig = Rig::new();
    assert_eq!(rig.input(&response), Some(ConnectEvent::Reconnect));
    for cut in [head, head + 1, head + 2] {
        let mut rig = Rig::new();
        assert_eq!(rig.input(&open[..cut]), None);
        assert_eq!(rig.eof(), Some(ConnectEvent::Reconnect));
        rig.connect();
        assert!(rig.sent[1].contains("nonce=\"n\"") && rig.sent[1].contains("nc=00000001"));
        assert_eq!(rig.input(OK), Some(established(200)));
    }
    let mut rig = Rig::new();
    rig.input(&open);
    assert_eq!(rig.eof(), Some(ConnectEvent::Reconnect));
    rig.connect();
    assert!(rig.sent[2].contains("nc=00000002"));
    assert_eq!(rig.input(OK), Some(established(200)));
}

// spec: SEC-G-05
#[test]
fn there_are_two_new_connections_at_most() {
    let mut rig = Rig::new();
    let close = |nonce: &str| {
        let fields = DIGEST.replace("\"n\"", nonce);
        challenge(&fields, "Connection: close\r\n")
    };
    assert_eq!(rig.input(&close("\"1\"")), Some(ConnectEvent::Reconnect));
    rig.connect();
    let stale = close("\"2\",stale=true");
    assert_eq!(rig.input(&stale), Some(ConnectEvent::Reconnect));
    rig.connect();
    let timeout = b"HTTP/1.1 408 x\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(
        rig.input(timeout),
        Some(ConnectEvent::Failed(ConnectError::TooManyConnections))
    );
}

// spec: PRH-3-3, SEC-H-05
#[test]
fn nothing_is_sent_before_the_end_of_the_body_and_nothing_unasked_for_is_an_answer() {
    let response = challenge(BASIC, THREE);
    let mut rig = Rig::new();
    rig.input(&response[..response.len() - 1]);
    assert_eq!(rig.sent.len(), 1);
    rig.input(b"c");
    assert_eq!(rig.sent.len(), 2);

    // A 200 behind the body of the 407 is no answer to the request with credentials.
    for whole in [
        [response.as_slice(), OK].concat(),
        [challenge(BASIC, "Content-Length: 0\r\n").as_slice(), OK].concat(),
    ] {
        let mut rig = Rig::new();
        assert_eq!(rig.input(&whole), Some(ConnectEvent::Reconnect));
        assert!(rig.tunnel.is_empty());
    }
}

// spec: HM-6.3-4
#[test]
fn chunks_in_http_1_0_cost_the_connection() {
    let response = alloc::format!(
        "HTTP/1.0 407 x\r\n{BASIC}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    let mut rig = Rig::new();
    assert_eq!(
        rig.input(response.as_bytes()),
        Some(ConnectEvent::Reconnect)
    );
}

// spec: HS-11.7-1
#[test]
fn a_401_counts_as_407_only_by_option() {
    let answer =
        b"HTTP/1.1 401 x\r\nWWW-Authenticate: Basic realm=\"r\"\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(Rig::new().rejected(answer).status, 401);
    let config = ConnectConfig {
        unauthorized_is_407: true,
        ..ConnectConfig::default()
    };
    let mut rig = Rig::with(config, auth());
    assert_eq!(rig.input(answer), None);
    assert!(rig.sent[1].contains("Proxy-Authorization: Basic"));
}

#[test]
fn each_class_of_status_has_its_meaning() {
    for (status, class) in [
        (300, RejectionClass::Other),
        (400, RejectionClass::Permanent),
        (403, RejectionClass::Policy),
        (404, RejectionClass::Other),
        (405, RejectionClass::Permanent),
        (429, RejectionClass::Temporary),
        (500, RejectionClass::Other),
        (501, RejectionClass::Permanent),
        (502, RejectionClass::Upstream),
        (503, RejectionClass::Temporary),
        (504, RejectionClass::Upstream),
        (599, RejectionClass::Other),
    ] {
        let answer = alloc::format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
        let rejection = Rig::new().rejected(answer.as_bytes());
        assert_eq!((rejection.status, rejection.class), (status, class));
    }
}

#[test]
fn a_rejection_at_the_last_moment_is_no_timeout() {
    let mut rig = Rig::new();
    rig.now = Instant::ZERO + Duration::from_secs(29);
    rig.input(b"HTTP/1.1 403 x\r\nContent-Length: 6\r\n\r\nabc");
    rig.now += Duration::from_secs(1);
    rig.client.handle_timeout(rig.now);
    assert_eq!(rig.client.poll_event(), None);
    assert_eq!(rig.rejected(b"def").body, b"abcdef");
}

#[test]
fn a_handshake_is_forgotten_with_its_connection() {
    let mut rig = Rig::new();
    rig.input(&challenge(NTLM, THREE));
    rig.token("dDE=");
    let timeout = b"HTTP/1.1 408 x\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(rig.input(timeout), Some(ConnectEvent::Reconnect));
    rig.connect();
    assert_eq!(
        rig.eof(),
        Some(ConnectEvent::Failed(ConnectError::ProxyClosed))
    );
}

// spec: SEC-G-20
#[test]
fn foreign_texts_are_not_shown() {
    let answer = b"HTTP/1.1 502 \x1b[31mx\r\nContent-Length: 6\r\n\r\ncanary";
    let mut rig = Rig::new();
    assert_eq!(rig.input(b"HTTP/1.1 502 canary\r\n"), None);
    assert!(!alloc::format!("{:?}", rig.client).contains("canary"));
    // A control character in the reason ends it; a fine answer is shown by its numbers.
    assert!(matches!(Rig::failed(answer), ConnectError::Head(_)));
    let rejection = Rig::new().rejected(b"HTTP/1.1 502 x\r\nContent-Length: 6\r\n\r\ncanary");
    assert!(!alloc::format!("{rejection:?}").contains("canary"));
}

// spec: PS-2.1-1
#[test]
fn proxy_status_of_a_rejection_is_readable() {
    let answer = b"HTTP/1.1 504 x\r\nProxy-Status: far; error=dns_timeout; x=?1\r\n\
                   Proxy-Status: \"near\"; received-status=504; details=\"a \\\"b\\\"\"\r\nContent-Length: 0\r\n\r\n";
    let members = Rig::new().rejected(answer).proxy_status();
    assert_eq!(members.len(), 2);
    assert_eq!(members[0].error.as_deref(), Some("dns_timeout"));
    assert_eq!(members[1].received_status, Some(504));
    assert_eq!(members[1].details.as_deref(), Some("a \"b\""));
}

#[test]
fn credentials_can_be_asked_for() {
    let policy = Policy {
        basic: Allow::Always,
        ask_host: true,
        ..Policy::default()
    };
    let asked = || {
        let auth = ClientAuth::new(None, policy.clone());
        let mut rig = Rig::with(ConnectConfig::default(), auth);
        let (realm, scheme) = ("r".into(), Scheme::Basic);
        assert_eq!(
            rig.input(&challenge(BASIC, THREE)),
            Some(ConnectEvent::NeedCredentials { realm, scheme })
        );
        rig
    };
    let mut rig = asked();
    rig.client
        .set_credentials(rig.now, Some(Credentials::new("user", "pass")));
    rig.drain();
    assert!(rig.sent[1].contains("Basic dXNlcjpwYXNz"));
    let mut rig = asked();
    assert_eq!(rig.eof(), None);
    rig.client
        .set_credentials(rig.now, Some(Credentials::new("user", "pass")));
    assert_eq!(rig.client.poll_event(), Some(ConnectEvent::Reconnect));
    let mut rig = asked();
    rig.client.set_credentials(rig.now, None);
    let Some(ConnectEvent::Rejected(rejection)) = rig.client.poll_event() else {
        panic!();
    };
    assert_eq!(rejection.auth, Some(AuthRefusal::NoCredentials));
}

// spec: SEC-H-06, PRH-5-1
#[test]
fn basic_goes_over_tls_or_by_permission_only() {
    let policy = |hop_is_tls, basic| Policy {
        hop_is_tls,
        basic,
        ..Policy::default()
    };
    for (policy, sent) in [
        (policy(false, Allow::OverTls), false),
        (policy(true, Allow::OverTls), true),
        (policy(false, Allow::Always), true),
        (policy(true, Allow::Never), false),
    ] {
        let auth = ClientAuth::new(Some(Credentials::new("user", "pass")), policy);
        let mut rig = Rig::with(ConnectConfig::default(), auth);
        rig.input(&challenge(BASIC, THREE));
        assert_eq!(rig.sent.len() == 2, sent);
    }
}

// spec: AL-2.2-1, AL-2.3-2, PRH-8-1
#[test]
fn alpn_is_sent_by_option_only() {
    assert!(!Rig::new().sent[0].contains("ALPN"));
    let config = ConnectConfig {
        alpn: alloc::vec![b"http/1.1".to_vec(), b"sip/2".to_vec(), b"h2".to_vec()],
        ..ConnectConfig::default()
    };
    let rig = Rig::with(config, auth());
    assert!(rig.sent[0].contains("\r\nALPN: http%2F1.1, sip%2F2, h2\r\n"));
}

// spec: PRH-4-3
#[test]
fn a_close_before_the_answer_is_a_failure() {
    for cut in 0..OK.len() {
        let mut rig = Rig::new();
        assert_eq!(rig.input(&OK[..cut]), None);
        rig.client.handle_eof(rig.now);
        assert_eq!(
            rig.client.poll_event(),
            Some(ConnectEvent::Failed(ConnectError::ProxyClosed))
        );
        assert_eq!(rig.client.poll_timeout(), None);
        assert_eq!(rig.input(OK), None);
    }
}

#[test]
fn silence_is_a_timeout_after_30_s_and_60_s_in_all() {
    let mut rig = Rig::new();
    let at = |s| Instant::ZERO + Duration::from_secs(s);
    assert_eq!(rig.client.poll_timeout(), Some(at(30)));
    rig.now = at(29);
    rig.client.handle_timeout(rig.now);
    assert_eq!(rig.client.poll_event(), None);
    rig.input(&challenge(BASIC, "Content-Length: 3\r\n"));
    assert_eq!(rig.client.poll_timeout(), Some(at(59)));
    rig.client.handle_timeout(at(59));
    assert_eq!(
        rig.client.poll_event(),
        Some(ConnectEvent::Failed(ConnectError::Timeout))
    );
    assert_eq!(rig.client.poll_timeout(), None);
}

// spec: SEC-H-07
#[test]
fn heads_have_limits() {
    let long = alloc::format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(8200));
    assert_eq!(
        Rig::failed(long.as_bytes()),
        ConnectError::Head(HeadError::StartLineTooLong)
    );
    let fields = "A: b\r\n".repeat(101);
    let many = alloc::format!("HTTP/1.1 200 x\r\n{fields}\r\n");
    assert_eq!(
        Rig::failed(many.as_bytes()),
        ConnectError::Head(HeadError::TooLarge)
    );
    for bytes in [
        "HTTP/1.1 200 x\r\nA\0: b\r\n\r\n",
        "HTTP/1.1 200 x\rA: b\r\n\r\n",
    ] {
        assert_eq!(
            Rig::failed(bytes.as_bytes()),
            ConnectError::Head(HeadError::Control)
        );
    }
}

// spec: SEC-H-03
#[test]
fn a_captive_portal_is_not_a_tunnel_wherever_it_is_cut() {
    let config = || ConnectConfig {
        expect_tls: true,
        ..ConnectConfig::default()
    };
    let mut rig = Rig::with(config(), auth());
    assert_eq!(rig.client.tunnel(), None);
    assert_eq!(rig.input(OK), Some(established(200)));
    let mut tunnel = rig.client.tunnel().unwrap();
    assert_eq!(rig.client.tunnel(), None);
    assert_eq!(tunnel.read(b""), Ok(b"".as_slice()));
    assert_eq!(tunnel.read(b"<html>"), Err(NotATunnel));
    for (bytes, fine) in [
        ("\x16\x03\x01", true),
        ("\x15\x03\x03", true),
        ("\x16\x16", false),
        ("HTTP", false),
        ("\x16", true),
    ] {
        let mut rig = Rig::with(config(), auth());
        rig.input(OK).unwrap();
        let mut tunnel = rig.client.tunnel().unwrap();
        let bytewise = bytes
            .bytes()
            .try_for_each(|byte| tunnel.read(&[byte]).map(drop));
        assert_eq!(bytewise.is_ok(), fine, "{bytes:?}");
    }
    let mut rig = Rig::new();
    rig.input(OK).unwrap();
    let mut tunnel = rig.client.tunnel().unwrap();
    assert_eq!(tunnel.read(b"220 hello"), Ok(b"220 hello".as_slice()));
}

// spec: HS-11.7.3-1
#[test]
fn a_proof_of_the_proxy_is_taken_with_the_next_nonce() {
    let mut rig = Rig::new();
    rig.input(&challenge(DIGEST, THREE));
    let answer = b"HTTP/1.1 200 x\r\nProxy-Authentication-Info: nextnonce=\"m\"\r\n\r\n";
    assert_eq!(rig.input(answer), Some(established(200)));
    let next = Rig::with(ConnectConfig::default(), rig.client.into_auth());
    assert!(next.sent[0].contains("nonce=\"m\"") && next.sent[0].contains("nc=00000001"));
}

// spec: HS-11.7.3-1
#[test]
fn a_forged_proof_of_the_proxy_is_refused() {
    let mut rig = Rig::new();
    rig.input(&challenge(DIGEST, "Content-Length: 3\r\n"));
    let answer = b"HTTP/1.1 200 x\r\nProxy-Authentication-Info: rspauth=\"00\"\r\n\r\n";
    assert_eq!(
        rig.input(answer),
        Some(ConnectEvent::Failed(ConnectError::ForgedProof))
    );
}

#[test]
fn a_408_is_asked_again_once() {
    let mut rig = Rig::new();
    let answer = b"HTTP/1.1 408 x\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(rig.input(answer), Some(ConnectEvent::Reconnect));
    rig.connect();
    assert_eq!(rig.rejected(answer).status, 408);
}

// spec: SEC-G-15
#[test]
fn debug_output_shows_no_value_of_a_further_field() {
    let config = ConnectConfig {
        fields: alloc::vec![("X-Token".into(), "secret".into())],
        ..ConnectConfig::default()
    };
    let text = alloc::format!("{config:?}");
    assert!(
        text.contains("X-Token") && !text.contains("secret"),
        "{text}"
    );
}
