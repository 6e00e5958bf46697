//! The control plane against a scripted host: what it asks for, and what follows from each answer.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "test code"
)]

use core::time::Duration;

use alloc::string::ToString as _;
use alloc::vec::Vec;

use sip_outbound::wire::{
    Builder, Limits, Message, Name, ParseConfig, Request, StatusCode, UriBuf,
};
use sip_outbound::{Account, InstanceId, UserAgentConfig, UserAgentEvent};
use stun_proto::Transport;

use super::*;
use crate::conns::PlanError;
use crate::ladder::{LadderConfig, Rung};

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

#[cfg(feature = "tls")]
fn tls() -> alloc::sync::Arc<rustls::ClientConfig> {
    let provider = alloc::sync::Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
        .into()
}

fn config(pcscfs: &[&str], rungs: &[Rung]) -> AccessConfig {
    let instance = InstanceId::new("urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee").unwrap();
    let uris = pcscfs.iter().map(|uri| UriBuf::parse(*uri).unwrap());
    let aor = UriBuf::parse("sip:alice@ims.example").unwrap();
    let mut agent = UserAgentConfig::ims(aor, instance, uris.collect());
    agent.accounts = alloc::vec![Account::new("alice@ims.example", "secret", "ims.example")];
    let mut config = AccessConfig::new(
        agent,
        #[cfg(feature = "tls")]
        tls(),
    );
    config.ladder = LadderConfig {
        rungs: rungs.into(),
        ..LadderConfig::default()
    };
    config
}

const UDP: Rung = Rung::Ordinary(Transport::Udp);
const TCP: Rung = Rung::Ordinary(Transport::Tcp);
const TLS: Rung = Rung::Ordinary(Transport::Tls);

struct Bench {
    access: Access,
    now: Instant,
}

fn bench(pcscfs: &[&str], rungs: &[Rung]) -> Bench {
    from(config(pcscfs, rungs))
}

fn from(config: AccessConfig) -> Bench {
    let mut access = Access::new(config, [4; 32], at(0)).unwrap();
    access.start(at(0), NetworkKey(1));
    Bench { access, now: at(0) }
}

const LOCAL: ([u8; 4], u16) = ([10, 0, 0, 9], 40_000);
const REMOTE: ([u8; 4], u16) = ([192, 0, 2, 1], 5060);

impl Bench {
    fn actions(&mut self) -> Vec<AccessAction> {
        core::iter::from_fn(|| self.access.poll_action()).collect()
    }

    /// The connection that is asked for last, and where to.
    fn connect(&mut self) -> (ConnId, String) {
        let actions = self.actions();
        let found = actions.into_iter().rev().find_map(|action| match action {
            AccessAction::Connect { conn, to } => Some((conn, to.to_string())),
            _ => None,
        });
        found.unwrap()
    }

    fn connected(&mut self) -> ConnId {
        let (conn, _) = self.connect();
        self.access
            .connected(self.now, conn, LOCAL.into(), REMOTE.into());
        conn
    }

    /// The socket that is asked for.
    fn socket(&mut self) -> AccessSocket {
        match &self.actions()[..] {
            [.., AccessAction::OpenSocket { socket, .. }] => *socket,
            other => panic!("{other:?}"),
        }
    }

    fn opened(&mut self) -> FiveTuple {
        let socket = self.socket();
        self.access
            .socket_opened(self.now, socket, LOCAL.into(), REMOTE.into());
        FiveTuple::udp(LOCAL.into(), REMOTE.into())
    }

    fn next_request(&mut self) -> Request {
        let mut buf = [0; 65_535];
        let sent = self.access.poll_transmit(&mut buf).unwrap();
        let message = Message::parse(&buf[..sent.len], &ParseConfig::default()).unwrap();
        Request::check(message, &Limits::DEFAULT).unwrap()
    }

    fn answer(&self, request: &Request, code: u16) -> Vec<u8> {
        let mut builder = Builder::reply(request, StatusCode::new(code).unwrap(), Some("t"));
        if code == 200 {
            let contact = request.only(Name::CONTACT).unwrap();
            builder = builder
                .header(Name::CONTACT, contact)
                .header(Name::REQUIRE, "outbound");
        }
        builder.finish(b"").unwrap().as_bytes().to_vec()
    }

    /// Registers over a connection that is up.
    fn accept(&mut self, conn: ConnId) {
        let request = self.next_request();
        let answer = self.answer(&request, 200);
        self.access.handle_input(self.now, conn, &answer);
        // The ping that proves the flow.
        let mut buf = [0; 100];
        let sent = self.access.poll_transmit(&mut buf).unwrap();
        assert_eq!(&buf[..sent.len], b"\r\n\r\n");
        self.access.handle_input(self.now, conn, b"\r\n");
    }

    /// Lets time pass until the next thing is due; the network takes what is sent.
    fn next(&mut self) -> u64 {
        let mut buf = [0; 65_535];
        while self.access.poll_transmit(&mut buf).is_some() {}
        self.wait()
    }

    /// As `next`, with a network that takes nothing.
    fn wait(&mut self) -> u64 {
        self.now = self.access.poll_timeout().unwrap();
        self.access.handle_timeout(self.now);
        assert!(self.access.poll_timeout().is_none_or(|at| at > self.now));
        self.now.duration_since(at(0)).as_secs()
    }

    /// What was reported since the last time.
    fn story(&mut self) -> String {
        let mut story = Vec::new();
        while let Some(event) = self.access.poll_event() {
            story.push(match event {
                AccessEvent::Trying { rung, target, .. } => alloc::format!("{rung} {target}"),
                AccessEvent::RungFailed { cause, .. } => alloc::format!("({cause})"),
                AccessEvent::Ready { .. } => "ready".into(),
                AccessEvent::Exhausted { .. } => "exhausted".into(),
                AccessEvent::Agent(UserAgentEvent::FlowFailed { cause, .. }) => {
                    alloc::format!("[{cause}]")
                }
                AccessEvent::Agent(UserAgentEvent::Registered { .. }) => "registered".into(),
                AccessEvent::Agent(UserAgentEvent::Refused { cause, .. }) => {
                    alloc::format!("[{cause}]")
                }
                other => alloc::format!("{other:?}"),
            });
        }
        story.join(", ")
    }
}

// spec: F-2.1-1, K-2.1-1, W-2-1
#[test]
fn ordinary_access_is_what_it_always_was() {
    let mut b = bench(&["sip:pcscf.ims.example"], &[UDP]);
    assert_eq!(
        b.actions(),
        [AccessAction::OpenSocket {
            socket: AccessSocket(0),
            to: Endpoint::Name {
                host: "pcscf.ims.example".into(),
                port: 5060
            }
        }]
    );
    b.access
        .socket_opened(b.now, AccessSocket(0), LOCAL.into(), REMOTE.into());
    let register = b.next_request();
    let via = register.only(Name::VIA).unwrap();
    assert!(via.starts_with("SIP/2.0/UDP 10.0.0.9:40000;") && via.contains(";rport"));
    let contact = register.only(Name::CONTACT).unwrap();
    for part in [
        "<sip:alice@10.0.0.9:40000>",
        "+sip.instance=\"<urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee>\"",
        "reg-id=1",
    ] {
        assert!(contact.contains(part), "{contact}");
    }
    let answer = b.answer(&register, 200);
    let at = FiveTuple::udp(LOCAL.into(), REMOTE.into());
    let stranger = FiveTuple::udp(LOCAL.into(), ([192, 0, 2, 2], 5060).into());
    assert_eq!(
        b.access.handle_datagram(b.now, stranger, &answer),
        Received::NotMine
    );
    assert_eq!(
        b.access.handle_datagram(b.now, at, &answer),
        Received::Consumed
    );
    assert_eq!(
        b.story(),
        "ordinary/UDP sip:pcscf.ims.example, ready, registered"
    );
    b.access.socket_failed(b.now, AccessSocket(0));
    let close = AccessAction::CloseSocket {
        socket: AccessSocket(0),
    };
    assert!(b.actions().contains(&close));
    assert_eq!(b.story(), "[closed by the other side]");
}

#[test]
fn ports_are_those_of_the_uri_or_the_usual_ones() {
    for (uri, rung, to) in [
        ("sip:p.example", TCP, "p.example:5060"),
        ("sip:p.example", TLS, "p.example:5061"),
        ("sips:p.example:6000", TLS, "p.example:6000"),
        ("sips:p.example:6000", Rung::Direct, "p.example:443"),
        ("sips:192.0.2.7", Rung::Direct, "192.0.2.7:443"),
        ("sips:[2001:db8::7]", Rung::Direct, "[2001:db8::7]:443"),
    ] {
        #[cfg(not(feature = "tls"))]
        if rung.transport().is_secure() {
            continue;
        }
        assert_eq!(bench(&[uri], &[rung]).connect().1, to);
    }
}

// spec: SEED-2.1-3
#[test]
fn a_p_cscf_that_wants_tls_is_never_spoken_to_without() {
    let mut b = bench(&["sips:p.example"], &[UDP, TCP]);
    assert!(b.actions().is_empty());
    let insecure = "(TLS is wanted and impossible)";
    assert_eq!(
        b.story(),
        alloc::format!(
            "ordinary/UDP sips:p.example, {insecure}, ordinary/TCP sips:p.example, {insecure}, \
             exhausted, [could not be opened]"
        )
    );
    // The ways that look like the web are TLS over TCP whatever the URI says.
    #[cfg(feature = "tls")]
    {
        let mut b = bench(&["sip:p.example;transport=udp"], &[Rung::Direct]);
        b.connected();
        let mut buf = [0; 1000];
        b.access.poll_transmit(&mut buf).unwrap();
        assert_eq!(buf[0], 0x16);
    }
}

// spec: PRI-2-1
#[test]
fn each_kind_of_failure_leads_to_the_next_way() {
    for failure in [
        ConnFailure::Refused,
        ConnFailure::Unreachable,
        ConnFailure::Unresolved,
        ConnFailure::TimedOut,
    ] {
        let mut b = bench(&["sip:p.example"], &[TCP, UDP]);
        let (conn, _) = b.connect();
        b.access.connection_failed(b.now, conn, failure);
        assert_eq!(
            b.actions().last(),
            Some(&AccessAction::OpenSocket {
                socket: AccessSocket(0),
                to: Endpoint::Name {
                    host: "p.example".into(),
                    port: 5060
                }
            })
        );
        assert_eq!(
            b.story(),
            alloc::format!("ordinary/TCP sip:p.example, ({failure}), ordinary/UDP sip:p.example")
        );
    }
    // A socket the host cannot open, or does not answer for.
    for answers in [true, false] {
        let mut b = bench(&["sip:p.example"], &[UDP, TCP]);
        let socket = b.socket();
        if answers {
            b.access.socket_failed(b.now, socket);
        } else {
            assert_eq!(b.next(), 15);
        }
        assert!(
            b.story()
                .ends_with("(the host could not open it), ordinary/TCP sip:p.example")
        );
        let close = AccessAction::CloseSocket { socket };
        assert!(b.actions().contains(&close));
    }
}

// spec: PRI-2-1
#[test]
fn a_register_without_answer_is_a_failure_of_the_way() {
    let mut b = bench(&["sip:p.example"], &[TCP, UDP]);
    b.connected();
    b.next_request();
    // F: 64 times 500 ms. The next way is begun with at once.
    while b.next() < 32 {}
    assert_eq!(
        b.story(),
        "ordinary/TCP sip:p.example, ready, (no answer), [registration timed out], \
         ordinary/UDP sip:p.example"
    );
    b.opened();
    b.next_request();
    while b.next() < 64 {}
    let story = b.story();
    assert_eq!(
        story,
        "ready, (no answer), exhausted, [registration timed out]"
    );
    // Now the wait of RFC 5626 counts, which has grown by the two failures: 60 to 120 s.
    let again = b.next();
    assert!((64 + 60..=64 + 120).contains(&again), "{again}");
    assert_eq!(b.story(), "ordinary/TCP sip:p.example");
}

#[test]
fn a_connection_that_ends_before_an_answer_is_a_failure_of_the_way() {
    for eof in [true, false] {
        let mut b = bench(&["sip:p.example"], &[TCP, UDP]);
        let conn = b.connected();
        b.next_request();
        let cause = if eof {
            b.access.handle_eof(b.now, conn);
            "closed before an answer came"
        } else {
            b.access.connection_failed(b.now, conn, ConnFailure::Reset);
            "connection reset"
        };
        assert_eq!(
            b.story(),
            alloc::format!(
                "ordinary/TCP sip:p.example, ready, ({cause}), [closed by the other side], \
                 ordinary/UDP sip:p.example"
            )
        );
    }
}

// spec: PRI-2-1
#[test]
fn a_rejection_of_register_is_not_the_ways_fault() {
    for (code, end) in [
        (403, "[refused with 403]"),
        (503, "[registration failed with 503]"),
    ] {
        let mut b = bench(&["sip:p.example"], &[UDP, TCP]);
        let socket = b.socket();
        b.access.socket_failed(b.now, socket);
        let conn = b.connected();
        b.story();
        let register = b.next_request();
        let answer = b.answer(&register, code);
        b.access.handle_input(b.now, conn, &answer);
        assert_eq!(b.story(), end);
        assert!(b.access.flows.is_empty());
        // The way is good, and remembered.
        let known: Vec<_> = b
            .access
            .ladder()
            .export(b.now)
            .map(|row| row.rung)
            .collect();
        assert_eq!(known, [TCP]);
    }
}

#[test]
fn bytes_and_close_in_one_read_are_both_seen() {
    let mut b = bench(&["sip:p.example"], &[TCP]);
    let conn = b.connected();
    let register = b.next_request();
    let answer = b.answer(&register, 200);
    b.access.handle_input(b.now, conn, &answer);
    b.access.handle_eof(b.now, conn);
    let story = b.story();
    assert!(
        story.contains("ready, registered, [closed by the other side]"),
        "{story}"
    );
}

// spec: PRI-2-1
#[test]
fn an_answer_that_comes_together_with_the_close_counts_for_the_way() {
    for (code, end) in [
        (200, "registered, [closed by the other side]"),
        (403, "[refused with 403]"),
        (503, "[registration failed with 503]"),
    ] {
        for reset in [false, true] {
            let mut b = bench(&["sip:p.example"], &[TCP, UDP]);
            let conn = b.connected();
            let register = b.next_request();
            b.story();
            let mut answer = Builder::reply(&register, StatusCode::new(code).unwrap(), Some("t"));
            if code == 200 {
                let contact = register.only(Name::CONTACT).unwrap();
                answer = answer
                    .header(Name::CONTACT, contact)
                    .header(Name::REQUIRE, "outbound");
            } else {
                answer = answer.header(Name::RETRY_AFTER, 700);
            }
            let answer = answer.finish(b"").unwrap();
            // As TLS hands over what came before a close_notify in one read.
            b.access.conns.handle_input(b.now, conn, answer.as_bytes());
            if reset {
                b.access.conns.failed(b.now, conn, ConnFailure::Reset);
            } else {
                b.access.conns.handle_eof(b.now, conn);
            }
            assert_eq!(b.story(), end, "{code}");
            let known: Vec<_> = b
                .access
                .ladder()
                .export(b.now)
                .map(|row| row.rung)
                .collect();
            assert_eq!(known, [TCP]);
            if code == 503 {
                let asked = |action: &AccessAction| {
                    matches!(
                        action,
                        AccessAction::OpenSocket { .. } | AccessAction::Connect { .. }
                    )
                };
                assert!(!b.actions().iter().any(asked));
                // Not before it is time to.
                while !b.actions().iter().any(asked) {
                    b.next();
                }
                assert!(b.now >= at(700), "{:?}", b.now);
            }
        }
    }
}

#[test]
fn bytes_that_are_not_sip_together_with_the_close_are_one_failure() {
    let mut b = bench(&["sip:p.example"], &[TCP, UDP]);
    let conn = b.connected();
    b.next_request();
    b.story();
    b.access
        .conns
        .handle_input(b.now, conn, b"HTTP/1.1 400\r\n\r\n");
    b.access.conns.handle_eof(b.now, conn);
    let story = b.story();
    assert_eq!(story.matches('(').count(), 1, "{story}");
    assert!(story.ends_with("ordinary/UDP sip:p.example"), "{story}");
}

#[test]
fn the_answer_that_says_why_goes_out_before_the_close() {
    let mut b = bench(&["sip:p.example"], &[TCP]);
    let conn = b.connected();
    b.accept(conn);
    b.story();
    let bad = b"MESSAGE sip:alice@10.0.0.9 SIP/2.0\r\nVia: SIP/2.0/TCP p;branch=z9hG4bK1\r\nFrom: <sip:b@c>;tag=1\r\n\
        To: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\nContent-Length: -5\r\n\r\n";
    b.access.handle_input(b.now, conn, bad);
    assert!(b.actions().contains(&AccessAction::Close { conn }));
    let mut buf = [0; 2000];
    let len = b.access.poll_conn(conn, &mut buf).unwrap();
    assert!(buf[..len].starts_with(b"SIP/2.0 400"));
    assert_eq!(b.access.poll_conn(conn, &mut buf), None);
}

#[test]
fn everything_queued_goes_out_before_the_close() {
    let mut b = bench(&["sip:p.example"], &[TCP]);
    let conn = b.connected();
    b.accept(conn);
    for _ in 0..4 {
        let body = alloc::vec![b'x'; 60_000];
        let request = sip_outbound::NewRequest::new(
            sip_outbound::wire::Method::MESSAGE,
            "sip:bob@ims.example",
        )
        .body("text/plain", body);
        b.access.agent_mut().request(b.now, request).unwrap();
    }
    // Buffers of no size take nothing, and lose nothing.
    for _ in 0..100 {
        assert_eq!(b.access.poll_conn(conn, &mut []), None);
    }
    let bad = b"MESSAGE sip:alice@10.0.0.9 SIP/2.0\r\nVia: SIP/2.0/TCP p;branch=z9hG4bK1\r\nFrom: <sip:b@c>;tag=1\r\n\
        To: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\nContent-Length: -5\r\n\r\n";
    b.access.handle_input(b.now, conn, bad);
    assert!(b.actions().contains(&AccessAction::Close { conn }));
    let (mut all, mut buf) = (Vec::new(), [0; 999]);
    while let Some(len) = b.access.poll_conn(conn, &mut buf) {
        all.extend_from_slice(&buf[..len]);
    }
    let found = all.windows(11).rposition(|part| part == b"SIP/2.0 400");
    assert!(found.unwrap() > 240_000);
}

// spec: PRI-10-2
#[test]
fn slow_sockets_push_back_on_the_user_agent() {
    let mut b = bench(&["sip:p.example"], &[TCP]);
    let conn = b.connected();
    // One byte at a time: what is not polled stays with the user agent but for one chunk.
    let mut all = Vec::new();
    let mut byte = [0];
    while let Some(1) = b.access.poll_conn(conn, &mut byte) {
        all.push(byte[0]);
    }
    assert!(all.starts_with(b"REGISTER ") && all.ends_with(b"\r\n\r\n"));
    assert_eq!(b.access.writable().count(), 0);
    // What is not taken for 10 s fails the flow.
    let mut b = bench(&["sip:p.example"], &[TCP]);
    b.connected();
    while b.wait() < 10 {}
    assert!(b.story().contains("(no answer)"));
}

#[test]
fn the_hosts_tunnel_is_a_way_when_it_is_wanted() {
    let mut b = bench(&["sip:p.example"], &[Rung::Tunnel(Transport::Tcp), UDP]);
    let flow = FlowId(1);
    assert_eq!(b.actions(), [AccessAction::OpenTunnel { flow }]);
    b.access.tunnel_opened(b.now, flow);
    let conn = b.connected();
    b.accept(conn);
    assert_eq!(b.story(), "tunnel/TCP sip:p.example, ready, registered");

    for answers in [true, false] {
        let mut b = bench(&["sip:p.example"], &[Rung::Tunnel(Transport::Tcp), UDP]);
        b.actions();
        if answers {
            b.access.tunnel_failed(b.now, flow);
        } else {
            assert_eq!(b.next(), 60);
        }
        assert!(
            b.story()
                .ends_with("(the host could not open it), ordinary/UDP sip:p.example")
        );
        // Too late.
        b.access.tunnel_opened(b.now, flow);
        b.access.tunnel_failed(b.now, flow);
        assert_eq!(b.story(), "");
    }
}

// spec: SEED-2.1-1, PRI-2-1
#[test]
fn without_a_way_that_applies_everything_is_exhausted() {
    let mut b = bench(&["sip:p.example"], &[Rung::Connect]);
    assert!(b.actions().is_empty());
    assert_eq!(b.story(), "exhausted, [could not be opened]");
    let again = b.next();
    assert!((30..=60).contains(&again), "{again}");
    assert_eq!(b.story(), "exhausted, [could not be opened]");
}

#[cfg(feature = "tls")]
#[test]
fn a_connect_that_is_not_planned_is_a_failure_of_the_way() {
    let mut config = config(&["sip:p.example"], &[Rung::Connect]);
    config.tls_port = 80;
    let endpoint = Endpoint::Name {
        host: "proxy.example".into(),
        port: 3128,
    };
    config.proxy = Some(HttpProxy::new(endpoint, None));
    let mut b = from(config);
    let story = b.story();
    let plan = PlanError::ConnectPort(80);
    assert!(story.contains(&alloc::format!("({plan})")), "{story}");
}

#[cfg(feature = "tls")]
fn through_proxy() -> Bench {
    let mut config = config(&["sips:p.example"], &[Rung::Connect, UDP]);
    let endpoint = Endpoint::Name {
        host: "proxy.example".into(),
        port: 3128,
    };
    config.proxy = Some(HttpProxy::new(endpoint, None));
    from(config)
}

// spec: PRI-2-1
#[cfg(feature = "tls")]
#[test]
fn what_a_proxy_or_portal_says_instead_of_opening_a_tunnel_is_told() {
    for (answer, cause) in [
        ("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "status 403"),
        ("HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n", "status 502"),
        ("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "status 503"),
        ("HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", "status 407"),
        (
            "HTTP/1.1 302 Portal\r\nContent-Length: 0\r\n\r\n",
            "status 302",
        ),
        ("SSH-2.0-x\r\n", "HTTP CONNECT: "),
        (
            "HTTP/1.1 200 OK\r\n\r\n<html>Welcome",
            "the proxy did not open a tunnel",
        ),
    ] {
        let mut b = through_proxy();
        let conn = b.connected();
        let mut buf = [0; 1000];
        let len = b.access.poll_conn(conn, &mut buf).unwrap();
        assert!(buf[..len].starts_with(b"CONNECT p.example:443 HTTP/1.1\r\n"));
        b.access.handle_input(b.now, conn, answer.as_bytes());
        let mut causes = Vec::new();
        while let Some(event) = b.access.poll_event() {
            if let AccessEvent::RungFailed { rung, cause, .. } = event {
                causes.push((rung, cause));
            }
        }
        let [
            (Rung::Connect, RungFailure::Proxy(error)),
            (UDP, RungFailure::Insecure),
        ] = &causes[..]
        else {
            panic!("{causes:?}");
        };
        assert!(error.to_string().contains(cause), "{error}");
    }
    // Silence: 30 s for the answer.
    let mut b = through_proxy();
    b.connected();
    assert_eq!(b.next(), 30);
    assert!(b.story().contains("(HTTP CONNECT: "));
}

// spec: PRI-2-1
#[cfg(feature = "tls")]
#[test]
fn what_answers_without_tls_is_told() {
    let mut b = bench(&["sip:p.example"], &[Rung::Direct, TCP]);
    let conn = b.connected();
    b.access
        .handle_input(b.now, conn, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let story = b.story();
    assert!(story.starts_with("direct sip:p.example, (TLS: "), "{story}");
    assert!(story.ends_with("ordinary/TCP sip:p.example"), "{story}");
    // Silence: 15 s for the handshake.
    let mut b = bench(&["sip:p.example"], &[Rung::Direct, TCP]);
    b.connected();
    assert_eq!(b.next(), 15);
    assert!(
        b.story()
            .contains("(TLS: the handshake took too long), ordinary/TCP")
    );
    let mut b = bench(&["sip:p.example"], &[Rung::Direct, TCP]);
    let conn = b.connected();
    b.access.handle_eof(b.now, conn);
    assert!(
        b.story()
            .contains("(the connection was closed during the TLS handshake)")
    );
}

#[test]
fn a_new_network_begins_anew_without_a_wait() {
    let mut b = bench(&["sip:p.example"], &[UDP, TCP]);
    let socket = b.socket();
    b.access.socket_failed(b.now, socket);
    let conn = b.connected();
    b.accept(conn);
    b.story();
    b.access.network_changed(b.now, NetworkKey(2));
    assert_eq!(b.story(), "[network changed], ordinary/UDP sip:p.example");
    assert!(b.actions().contains(&AccessAction::Close { conn }));
    // Nothing works there, and the wait is long; another change ends it.
    b.access.socket_failed(b.now, AccessSocket(1));
    let (conn, _) = b.connect();
    b.access
        .connection_failed(b.now, conn, ConnFailure::Refused);
    assert!(b.story().ends_with("exhausted, [could not be opened]"));
    b.access.network_changed(b.now, NetworkKey(1));
    assert_eq!(b.story(), "ordinary/TCP sip:p.example");
}

#[test]
fn next_hops_of_the_application_are_taken_as_they_are() {
    let mut b = bench(&["sip:p.example"], &[TCP]);
    let conn = b.connected();
    b.accept(conn);
    b.story();
    let uri = UriBuf::parse("sip:other.example").unwrap();
    let address = (Transport::Tcp, ([192, 0, 2, 44], 5070).into());
    let mut request =
        sip_outbound::NewRequest::new(sip_outbound::wire::Method::MESSAGE, "sip:bob@other.example");
    request.next_hop = sip_outbound::NextHop::Resolved { uri, address };
    b.access.agent_mut().request(b.now, request).unwrap();
    let (conn, to) = b.connect();
    assert_eq!(to, "192.0.2.44:5070");
    b.access
        .connection_failed(b.now, conn, ConnFailure::Refused);
    let story = b.story();
    assert!(
        story.starts_with("ordinary/TCP sip:other.example, (connection refused), exhausted"),
        "{story}"
    );
}

#[test]
fn after_stopped_nothing_follows() {
    let mut b = bench(&["sip:p.example"], &[TCP]);
    let conn = b.connected();
    b.accept(conn);
    b.access.stop(b.now);
    let register = b.next_request();
    assert!(register.only(Name::CONTACT).unwrap().contains("expires=0"));
    let answer = b.answer(&register, 200);
    b.access.handle_input(b.now, conn, &answer);
    b.story();
    assert!(b.actions().contains(&AccessAction::Close { conn }));
    b.access.network_changed(b.now, NetworkKey(3));
    b.access.start(b.now, NetworkKey(3));
    b.access.handle_input(b.now, conn, b"\r\n\r\n");
    b.access.handle_eof(b.now, conn);
    assert_eq!(b.access.poll_timeout(), None);
    assert!(b.actions().is_empty() && b.story().is_empty());
    assert_eq!(b.access.writable().count(), 0);
}

/// Whatever a host and a network do: draining ends, deadlines lie ahead, and the same inputs give
/// the same outputs.
fn chaos(seed: u8) -> String {
    let mut rng = Rng::from_seed([seed; 32]);
    let rungs = [
        UDP,
        TCP,
        TLS,
        Rung::Direct,
        Rung::Connect,
        Rung::Tunnel(Transport::Udp),
    ];
    let mut config = config(
        &["sip:p1.example", "sip:p2.example", "sip:p3.example"],
        &rungs,
    );
    let endpoint = Endpoint::Name {
        host: "proxy.example".into(),
        port: 3128,
    };
    config.proxy = seed
        .is_multiple_of(2)
        .then(|| HttpProxy::new(endpoint, None));
    let mut b = from(config);
    let mut trace = String::new();
    let words: [&[u8]; 8] = [
        b"\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"r\"\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 403 x\r\nContent-Length: 0\r\n\r\n",
        b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"MESSAGE sip:a@b SIP/2.0\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
    ];
    for _ in 0..80 {
        let (now, conn) = (b.now, ConnId(u64::from(rng.below(30))));
        let (socket, flow) = (
            AccessSocket(u64::from(rng.below(6))),
            FlowId(u64::from(rng.below(12))),
        );
        let word = words[rng.below(8) as usize];
        match rng.below(16) {
            0..4 => b.access.connected(now, conn, LOCAL.into(), REMOTE.into()),
            4 => b.access.connection_failed(now, conn, ConnFailure::Reset),
            5..8 => b.access.handle_input(now, conn, word),
            8 => b.access.handle_eof(now, conn),
            9 => b
                .access
                .socket_opened(now, socket, LOCAL.into(), REMOTE.into()),
            10 => b.access.socket_failed(now, socket),
            11 => b.access.tunnel_opened(now, flow),
            12 => b.access.tunnel_failed(now, flow),
            13 => {
                let at = FiveTuple::udp(LOCAL.into(), REMOTE.into());
                b.access.handle_datagram(now, at, word);
            }
            14 => b.access.set_proxy_credentials(now, None),
            _ if rng.below(8) == 0 => b.access.network_changed(now, NetworkKey(seed.into())),
            _ => {
                b.now = b.access.poll_timeout().unwrap_or(now);
                b.access.handle_timeout(b.now);
            }
        }
        let mut buf = [0; 65_535];
        let mut sent = 0;
        for round in 0.. {
            assert!(round < 1000);
            let Some(transmit) = b.access.poll_transmit(&mut buf) else {
                break;
            };
            sent += transmit.len;
        }
        let actions = b.actions();
        assert!(b.access.poll_timeout().is_none_or(|at| at > b.now));
        trace.push_str(&alloc::format!("{sent} {actions:?} {}\n", b.story()));
    }
    b.access.stop(b.now);
    for _ in 0..1000 {
        let mut buf = [0; 65_535];
        while b.access.poll_transmit(&mut buf).is_some() {}
        b.actions();
        trace.push_str(&b.story());
        let Some(next) = b.access.poll_timeout() else {
            break;
        };
        b.now = next;
        b.access.handle_timeout(next);
    }
    assert!(trace.ends_with("Stopped)"), "{trace}");
    assert_eq!(b.access.poll_timeout(), None);
    trace
}

#[test]
fn the_contract_holds_whatever_the_host_does() {
    for seed in 0..150 {
        let trace = chaos(seed);
        if seed < 10 {
            assert_eq!(trace, chaos(seed));
        }
    }
}
