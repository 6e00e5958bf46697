//! Both machines under chance: any order of calls, any bytes, any clock.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_connect::auth::{Allow, ClientAuth, Credentials, Policy};
use http_connect::{
    AuthVerdict, ConnectClient, ConnectConfig, ConnectEvent, ConnectServer, Instant, ProxyAction,
    ProxyConfig, ProxyError, ProxyEvent, Side, Ticket,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Client(Vec<u8>),
    Upstream(Vec<u8>),
    Eof(bool),
    Reset(bool),
    Answer(u8),
    Wait(u16),
    ClockBack,
    Transmit(bool, u8),
    Overload,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"CONNECT h.example:443 HTTP/1.1\r\nHost: h.example\r\n\r\n".to_vec()),
        Just(b"CONNECT 192.88.1.1:443 HTTP/1.0\r\n\r\n".to_vec()),
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        Just(
            b"HTTP/1.1 407 x\r\nProxy-Authenticate: Digest realm=r,nonce=n,qop=auth\r\nContent-Length: 1\r\n\r\n"
                .to_vec()
        ),
        Just(b"HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM YQ==\r\nContent-Length: 0\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 403 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => bytes().prop_map(Step::Client),
        3 => bytes().prop_map(Step::Upstream),
        1 => any::<bool>().prop_map(Step::Eof),
        1 => any::<bool>().prop_map(Step::Reset),
        5 => any::<u8>().prop_map(Step::Answer),
        2 => any::<u16>().prop_map(Step::Wait),
        1 => Just(Step::ClockBack),
        3 => (any::<bool>(), any::<u8>()).prop_map(|(side, len)| Step::Transmit(side, len)),
        1 => Just(Step::Overload),
    ]
}

fn side(client: bool) -> Side {
    if client { Side::Client } else { Side::Upstream }
}

/// A proxy and what it has shown so far.
struct Watched {
    proxy: ConnectServer,
    now: Instant,
    asked: Option<(Ticket, u8)>,
    to_client: Vec<u8>,
    to_upstream: Vec<u8>,
    ended: bool,
    opened: bool,
    log: Vec<String>,
}

impl Watched {
    fn drain(&mut self) {
        let mut calls = 0;
        while let Some(action) = self.proxy.poll_action() {
            calls += 1;
            self.log.push(format!("{action:?}"));
            self.asked = match action {
                ProxyAction::CheckAuth { ticket, .. } => Some((ticket, 0)),
                ProxyAction::Resolve { ticket, .. } => Some((ticket, 1)),
                ProxyAction::Connect { ticket, .. } | ProxyAction::ConnectParent { ticket } => {
                    Some((ticket, 2))
                }
                _ => self.asked,
            };
        }
        while let Some(event) = self.proxy.poll_event() {
            calls += 1;
            assert!(!self.ended, "{event:?} after the last event");
            self.log.push(format!("{event:?}"));
            match event {
                ProxyEvent::Open { .. } => {
                    assert!(!self.opened);
                    self.opened = true;
                }
                ProxyEvent::Closed(_) => self.ended = true,
                _ => {}
            }
        }
        assert!(calls < 20, "draining does not end");
        if self.ended {
            assert_eq!(self.proxy.poll_timeout(), None);
        }
    }

    fn input(&mut self, from: Side, data: &[u8]) {
        let taken = self.proxy.handle_input(self.now, from, data);
        assert!(taken.len <= data.len());
        let (len, forward) = (taken.len, taken.forward.to_vec());
        self.log.push(format!("{len} {forward:?}"));
        // A third of it does not fit at once.
        let (written, rest) = forward.split_at(forward.len() - forward.len() / 3);
        if !forward.is_empty() {
            assert!(self.opened && !self.ended);
            match from.other() {
                Side::Client => self.to_client.extend_from_slice(written),
                Side::Upstream => self.to_upstream.extend_from_slice(written),
            }
            self.proxy.handle_unsent(self.now, from.other(), rest);
        }
    }

    fn answer(&mut self, how: u8) {
        let Some((ticket, question)) = self.asked else {
            return;
        };
        match (question, how % 6) {
            (0, 0) => {
                let verdict = AuthVerdict::Challenge(vec!["Basic realm=x".into()]);
                self.proxy.handle_auth(self.now, ticket, verdict);
            }
            (0, 1) => {
                let verdict = AuthVerdict::Continue("NTLM YQ==".into());
                self.proxy.handle_auth(self.now, ticket, verdict);
            }
            (0, 2) => self
                .proxy
                .handle_auth(self.now, ticket, AuthVerdict::Forbid),
            (0, _) => {
                let (user, info) = (None, None);
                let verdict = AuthVerdict::Allow { user, info };
                self.proxy.handle_auth(self.now, ticket, verdict);
            }
            (1, 1) => self
                .proxy
                .handle_failure(self.now, ticket, ProxyError::DnsTimeout),
            (1, _) => {
                let all: [IpAddr; 3] = [
                    "10.0.0.1".parse().unwrap(),
                    "192.88.1.1".parse().unwrap(),
                    "192.88.1.2".parse().unwrap(),
                ];
                let some = &all[..usize::from(how % 4).min(3)];
                self.proxy.handle_resolved(self.now, ticket, some);
            }
            (_, 0 | 1) => {
                let error = ProxyError::ConnectionRefused;
                self.proxy.handle_failure(self.now, ticket, error);
            }
            (_, _) => self.proxy.handle_connected(self.now, ticket),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Client(data) => self.input(Side::Client, data),
            Step::Upstream(data) => self.input(Side::Upstream, data),
            Step::Eof(from) => self.proxy.handle_eof(self.now, side(*from)),
            Step::Reset(from) => self.proxy.handle_reset(self.now, side(*from)),
            Step::Answer(how) => self.answer(*how),
            Step::Wait(ms) => {
                self.now += Duration::from_millis(u64::from(*ms));
                self.proxy.handle_timeout(self.now);
                let next = self.proxy.poll_timeout();
                assert!(next.is_none_or(|at| at > self.now));
            }
            Step::ClockBack => self.proxy.handle_timeout(Instant::from_nanos(i64::MIN)),
            Step::Transmit(to, len) => {
                let mut buf = vec![0; usize::from(*len)];
                let written = self.proxy.poll_transmit(side(*to), &mut buf);
                let data = &buf[..written.unwrap_or(0)];
                match side(*to) {
                    Side::Client => self.to_client.extend_from_slice(data),
                    Side::Upstream => self.to_upstream.extend_from_slice(data),
                }
            }
            Step::Overload => {
                self.proxy.refuse_overload(self.now, Duration::from_secs(1));
            }
        }
        self.drain();
    }
}

fn run(steps: &[Step], authenticate: bool, half_close: bool, parent: bool) -> Watched {
    let mut config = ProxyConfig::new("gate");
    config.authenticate = authenticate;
    config.half_close = half_close;
    config.limits.relay = 64;
    config.limits.early = 32;
    config.limits.linger_bytes = 100;
    if parent {
        let auth = ClientAuth::new(Some(Credentials::new("u", "p")), policy());
        config.parent = Some(http_connect::Parent::new(auth));
    }
    let now = Instant::ZERO;
    let mut watched = Watched {
        proxy: ConnectServer::new(Arc::new(config), [2; 32], now).unwrap(),
        now,
        asked: None,
        to_client: Vec::new(),
        to_upstream: Vec::new(),
        ended: false,
        opened: false,
        log: Vec::new(),
    };
    for step in steps {
        watched.step(step);
    }
    watched
}

fn policy() -> Policy {
    Policy {
        basic: Allow::Always,
        md5: Allow::Always,
        ntlm: Allow::Always,
        ..Policy::default()
    }
}

proptest! {
    // spec: SEC-G-01, SEC-G-07, SEC-G-18
    #[test]
    fn a_proxy_keeps_its_word_in_any_order_of_calls(
        steps in prop::collection::vec(step(), 0..40),
        authenticate in any::<bool>(),
        half_close in any::<bool>(),
        parent in any::<bool>(),
    ) {
        let mut watched = run(&steps, authenticate, half_close, parent);
        if !watched.opened {
            prop_assert!(parent || watched.to_upstream.is_empty());
        }
        // Given time and a host that writes, everything ends, with at most one final answer.
        for _ in 0..4 {
            watched.step(&Step::Transmit(true, 255));
            watched.step(&Step::Transmit(false, 255));
            watched.step(&Step::Eof(true));
            watched.step(&Step::Eof(false));
            for _ in 0..3 {
                watched.step(&Step::Wait(u16::MAX));
            }
        }
        prop_assert!(watched.ended);
        if !watched.opened {
            let text = String::from_utf8_lossy(&watched.to_client).into_owned();
            let finals = text.matches("\r\nConnection: close\r\n").count();
            prop_assert!(finals <= 1, "{}", text);
            prop_assert!(!text.contains("HTTP/1.1 2"));
        }
    }

    // spec: SEC-G-12
    #[test]
    fn the_same_calls_give_the_same_results(steps in prop::collection::vec(step(), 0..30)) {
        let (a, b) = (run(&steps, true, false, true), run(&steps, true, false, true));
        prop_assert_eq!(a.log, b.log);
        prop_assert_eq!(a.to_client, b.to_client);
        prop_assert_eq!(a.to_upstream, b.to_upstream);
    }

    // spec: PRH-7-4, HS-9.3.6-7
    #[test]
    fn an_open_tunnel_loses_nothing(
        pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..90)), 0..20),
        reads in prop::collection::vec((any::<bool>(), 0_u8..80), 0..40),
    ) {
        let head = b"CONNECT 192.88.1.1:443 HTTP/1.0\r\n\r\n".to_vec();
        let mut watched = run(&[Step::Client(head), Step::Answer(5)], false, false, false);
        prop_assert!(watched.opened);
        let (mut up, mut down) = (Vec::new(), Vec::new());
        let mut reads = reads.into_iter();
        for (client, data) in pieces {
            let from = side(client);
            let taken = watched.proxy.handle_input(watched.now, from, &data);
            if taken.len > 0 {
                prop_assert!(taken.forward.is_empty() || taken.forward.len() == taken.len);
            }
            let (len, forward) = (taken.len, taken.forward.to_vec());
            let (sent, out) = match from {
                Side::Client => (&mut up, &mut watched.to_upstream),
                Side::Upstream => (&mut down, &mut watched.to_client),
            };
            sent.extend_from_slice(&data[..len]);
            if !forward.is_empty() {
                let (written, rest) = forward.split_at(forward.len() / 2);
                out.extend_from_slice(written);
                watched.proxy.handle_unsent(watched.now, from.other(), rest);
            }
            if let Some((to, len)) = reads.next() {
                watched.step(&Step::Transmit(to, len));
            }
        }
        watched.step(&Step::Eof(true));
        for _ in 0..4 {
            watched.step(&Step::Transmit(true, 255));
            watched.step(&Step::Transmit(false, 255));
        }
        // The client closed: all it sent arrives, and what it got is a beginning of the rest.
        prop_assert_eq!(&watched.to_upstream, &up);
        let head = b"HTTP/1.1 200 Connection established\r\n\r\n";
        let got = &watched.to_client;
        let expected = [head.as_slice(), &down].concat();
        prop_assert!(expected.starts_with(got));
    }

    // spec: SEC-F-02, SEC-G-01, SEC-G-18, PRH-4-1
    #[test]
    fn a_client_gives_the_same_answer_however_the_bytes_are_cut(
        responses in prop::collection::vec(bytes(), 0..5),
        cuts in prop::collection::vec(1_usize..50, 1..20),
    ) {
        let stream = responses.concat();
        let whole = client(&stream, std::iter::repeat(usize::MAX));
        prop_assert_eq!(client(&stream, cuts.iter().copied().cycle()), whole);
    }

    // spec: SEC-G-08
    #[test]
    fn no_clock_breaks_a_client(times in prop::collection::vec(any::<i64>(), 1..8), data in bytes()) {
        let mut now = Instant::from_nanos(times[0]);
        let mut client = new_client(now);
        client.handle_connected(now);
        for time in times {
            now = now.max(Instant::from_nanos(time));
            let _ = client.handle_input(Instant::from_nanos(time), &data);
            client.handle_timeout(Instant::from_nanos(time));
            while client.poll_event().is_some() {}
            prop_assert!(client.poll_timeout().is_none_or(|at| at > now));
        }
    }
}

// spec: SEC-G-08
#[test]
fn the_ends_of_time_are_safe() {
    for nanos in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX] {
        let now = Instant::from_nanos(nanos);
        let mut client = new_client(now);
        client.handle_connected(now);
        client.handle_timeout(Instant::from_nanos(i64::MAX));
        let head = b"CONNECT 192.88.1.1:443 HTTP/1.0\r\n\r\n";
        let config = Arc::new(ProxyConfig::new("gate"));
        let mut proxy = ConnectServer::new(config, [0; 32], now).unwrap();
        let _ = proxy.handle_input(now, Side::Client, head);
        proxy.handle_timeout(Instant::from_nanos(i64::MAX));
        proxy.handle_timeout(Instant::from_nanos(i64::MIN));
    }
}

fn new_client(now: Instant) -> ConnectClient {
    let auth = ClientAuth::new(Some(Credentials::new("u", "p")), policy());
    let target = "h.example:443".parse().unwrap();
    ConnectClient::new(target, ConnectConfig::default(), auth, [2; 32], now).unwrap()
}

/// All events and all bytes of the tunnel, for a stream cut into pieces of these sizes.
fn client(stream: &[u8], mut sizes: impl Iterator<Item = usize>) -> (Vec<ConnectEvent>, Vec<u8>) {
    let now = Instant::ZERO;
    let mut client = new_client(now);
    client.handle_connected(now);
    let (mut events, mut heard) = (Vec::new(), Vec::new());
    let mut left = stream;
    // The request goes out once; nothing is sent between the pieces, since a peer that answers
    // before it was asked is told apart by that.
    let mut buf = [0; 2000];
    while client.poll_transmit(&mut buf).is_some() {}
    while !left.is_empty() {
        let len = sizes.next().unwrap_or(1).min(left.len());
        let (piece, rest) = left.split_at(len);
        heard.extend_from_slice(client.handle_input(now, piece));
        while let Some(event) = client.poll_event() {
            events.push(event);
        }
        left = rest;
    }
    client.handle_eof(now);
    while let Some(event) = client.poll_event() {
        events.push(event);
    }
    let terminal = events
        .iter()
        .filter(|event| {
            matches!(
                event,
                ConnectEvent::Established { .. }
                    | ConnectEvent::Rejected(_)
                    | ConnectEvent::Failed(_)
            )
        })
        .count();
    assert!(terminal <= 1);
    (events, heard)
}
