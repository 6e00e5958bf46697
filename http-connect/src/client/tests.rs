#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::*;
use crate::auth::{Allow, Credentials, Policy};

const OK: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

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
        while let Some(len) = self.client.poll_transmit(&mut buf) {
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
        ..ConnectConfig::default()
    };
    let sent = Rig::with(with("User-Agent", "x"), auth()).sent;
    assert!(sent[0].contains("\r\nProxy-Connection: keep-alive\r\nUser-Agent: x\r\n"));
    for (name, value) in [
        ("X", "a\r\nEvil: 1"),
        ("X", "a\nb"),
        ("X", "nul\0"),
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
                assert_eq!(event, Some(ConnectEvent::Established { status }));
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
    assert_eq!(
        rig.input(&bytes),
        Some(ConnectEvent::Established { status: 200 })
    );
    let interim = b"HTTP/1.1 102 x\r\n\r\n";
    assert_eq!(Rig::failed(&interim.repeat(5)), ConnectError::Interim);
    let switching = b"HTTP/1.1 101 x\r\n\r\n";
    assert_eq!(Rig::failed(switching), ConnectError::Interim);
}

// spec: HM-2.3-1, HM-4-1, HM-2.2-2, HM-5.2-2, HM-5.1-1
#[test]
fn status_line_verdicts() {
    for line in [
        "HTTP/1.1 200 OK",
        "HTTP/1.0 200 Connection established",
        "HTTP/1.1 200",
        "HTTP/1.1 204 ",
        "HTTP/1.1 200 OK\r\nProxy-Agent : x\r\nA: b\r\n c\nB: d",
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
        "http/1.1 200 OK",
        "ICY 200 OK",
        "HTTP/1.1 +20 x",
        "\r\nHTTP/1.1 200 OK",
        "HTTP/2 200",
        "SIP/2.0 200 OK",
        "HTTP/1.1 600 x",
        "HTTP/1.1 099 x",
    ] {
        let error = Rig::failed(alloc::format!("{line}\r\n\r\n").as_bytes());
        assert_eq!(error, ConnectError::StatusLine, "{line}");
    }
    assert_eq!(Rig::failed(b"\x15\x03\x01"), ConnectError::PeerSpeaksTls);
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
    assert_eq!(rejection.retry_after.as_deref(), Some("7"));
    assert_eq!(rejection.proxy_status.as_deref(), Some("p"));
}

#[test]
fn a_body_without_end_is_kept_short_and_ended_by_the_close() {
    let mut rig = Rig::new();
    assert_eq!(rig.input(b"HTTP/1.0 500 x\r\n\r\n"), None);
    assert_eq!(rig.input(&[b'x'; 9000]), None);
    rig.client.handle_eof(rig.now);
    let Some(ConnectEvent::Rejected(rejection)) = rig.client.poll_event() else {
        panic!();
    };
    assert_eq!(rejection.body.len(), 4096);
}

// spec: HM-7.1-1
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
    let mut rig = Rig::new();
    let old =
        b"HTTP/1.0 407 x\r\nProxy-Authenticate: Basic realm=\"r\"\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(rig.input(old), Some(ConnectEvent::Reconnect));
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

// spec: NEG-4-2, NEG-4-4, PRH-4-3
#[test]
fn a_handshake_starts_over_when_its_connection_is_lost() {
    let mut rig = Rig::new();
    rig.input(&challenge(
        "Proxy-Authenticate: NTLM\r\n",
        "Content-Length: 3\r\n",
    ));
    rig.client.set_token(rig.now, Some("dDE=".into()));
    rig.drain();
    rig.client.handle_eof(rig.now);
    assert_eq!(rig.client.poll_event(), Some(ConnectEvent::Reconnect));
    rig.connect();
    assert!(!rig.sent.last().unwrap().contains("Proxy-Authorization"));
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

#[test]
fn a_captive_portal_is_not_a_tunnel_wherever_its_answer_is_cut() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>";
    for cut in 0..=answer.len() {
        let config = ConnectConfig {
            expect_tls: true,
            ..ConnectConfig::default()
        };
        let mut rig = Rig::with(config, auth());
        let (first, second) = answer.split_at(cut);
        let mut events = alloc::vec::Vec::new();
        for piece in [first, second] {
            assert_eq!(rig.client.handle_input(rig.now, piece), b"");
            events.extend(core::iter::from_fn(|| rig.client.poll_event()));
        }
        let failed = ConnectEvent::Failed(ConnectError::NotATunnel);
        assert_eq!(events, [ConnectEvent::Established { status: 200 }, failed]);
    }
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
