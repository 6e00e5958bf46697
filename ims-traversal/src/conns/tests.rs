#![allow(
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "test code"
)]

use http_connect::auth::{Allow, AuthRefusal};
use http_connect::{ConnectError, NotATunnel, Rejection};

use super::*;
use crate::tunnel::TunnelError;

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn name(host: &str, port: u16) -> Endpoint {
    Endpoint::Name {
        host: host.into(),
        port,
    }
}

fn proxy(credentials: bool) -> HttpProxy {
    let credentials = credentials.then(|| Credentials::new("user", "pass"));
    let mut proxy = HttpProxy::new(name("proxy.example", 3128), credentials);
    proxy.auth.policy_mut().basic = Allow::Always;
    proxy
}

fn addrs() -> (SocketAddr, SocketAddr) {
    (
        SocketAddr::from(([10, 0, 0, 2], 40000)),
        SocketAddr::from(([192, 0, 2, 7], 443)),
    )
}

struct Bench {
    conns: Conns<u32>,
    now: Instant,
}

fn bench(limits: ConnLimits) -> Bench {
    Bench {
        conns: Conns::new(limits, [3; 32], at(0)),
        now: at(0),
    }
}

impl Bench {
    fn open(&mut self, key: u32, to: &Endpoint, via: Option<&HttpProxy>) -> Result<(), PlanError> {
        let plan = ConnPlan {
            to: to.clone(),
            via,
            #[cfg(feature = "tls")]
            tls: None,
        };
        self.conns.open(self.now, key, plan).map(|_| ())
    }

    fn actions(&mut self) -> Vec<ConnAction> {
        core::iter::from_fn(|| self.conns.poll_action()).collect()
    }

    fn events(&mut self) -> Vec<(u32, ConnEvent)> {
        core::iter::from_fn(|| self.conns.poll_event()).collect()
    }

    /// The connection that is to be made.
    fn connect(&mut self) -> ConnId {
        let actions = self.actions();
        let Some(ConnAction::Connect { conn, .. }) = actions.last() else {
            panic!("{actions:?}");
        };
        *conn
    }

    fn connected(&mut self) -> ConnId {
        let id = self.connect();
        let (local, remote) = addrs();
        self.conns.connected(self.now, id, local, remote);
        id
    }

    fn output(&mut self, id: ConnId) -> String {
        let (mut all, mut buf) = (Vec::new(), [0; 50]);
        while let Some(len) = self.conns.poll_conn(id, &mut buf) {
            all.extend_from_slice(&buf[..len]);
        }
        String::from_utf8(all).unwrap()
    }

    fn input(&mut self, id: ConnId, data: &str) -> Option<u32> {
        self.conns.handle_input(self.now, id, data.as_bytes())
    }

    /// Lets time pass until something is due.
    fn next(&mut self) -> u64 {
        self.now = self.conns.poll_timeout().unwrap();
        self.conns.handle_timeout(self.now);
        assert!(self.conns.poll_timeout().is_none_or(|at| at > self.now));
        self.now.duration_since(at(0)).as_millis() as u64
    }
}

fn ready() -> ConnEvent {
    let (local, remote) = addrs();
    ConnEvent::Ready {
        local,
        remote,
        alpn: None,
    }
}

fn rejection(error: &ConnError) -> &Rejection {
    match error {
        ConnError::Tunnel(TunnelError::Refused(rejection)) => rejection,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bytes_pass_both_ways_and_what_was_written_outlives_the_close() {
    let mut b = bench(ConnLimits::default());
    b.open(1, &name("far.example", 5060), None).unwrap();
    let to = name("far.example", 5060);
    let id = ConnId(0);
    assert_eq!(b.actions(), [ConnAction::Connect { conn: id, to }]);
    assert_eq!(b.conns.write(1, b"early"), 0);
    let (local, remote) = addrs();
    b.conns.connected(b.now, id, local, remote);
    assert_eq!(b.events(), [(1, ready())]);
    assert_eq!((b.conns.id(1), b.conns.key(id)), (Some(id), Some(1)));
    assert_eq!(b.conns.poll_timeout(), None);

    assert_eq!(b.input(id, "answer"), Some(1));
    assert_eq!(b.conns.received(1), b"answer");
    b.conns.consume(1, 3);
    assert_eq!(b.conns.received(1), b"wer");

    assert_eq!(b.conns.write(1, b"last words"), 10);
    assert_eq!(b.conns.writable().collect::<Vec<_>>(), [id]);
    b.conns.close(b.now, 1);
    assert_eq!(b.actions(), [ConnAction::Close { conn: id }]);
    assert_eq!(b.conns.id(1), None);
    assert_eq!(b.output(id), "last words");
    assert_eq!(b.conns.writable().count(), 0);
    assert_eq!((b.conns.poll_timeout(), b.conns.conns.len()), (None, 0));
    // The key is free again.
    b.open(1, &name("far.example", 5060), None).unwrap();
    assert_eq!(b.connect(), ConnId(1));
}

// spec: PRI-2-1
#[test]
fn a_connection_has_15_seconds_to_be_made() {
    let mut b = bench(ConnLimits::default());
    b.open(1, &name("far.example", 443), None).unwrap();
    let id = b.connect();
    b.now = at(14_999);
    b.conns.handle_timeout(b.now);
    assert!(b.events().is_empty());
    assert_eq!(b.next(), 15_000);
    let error = ConnError::Tcp(ConnFailure::TimedOut);
    assert_eq!(b.events(), [(1, ConnEvent::Failed(error))]);
    assert_eq!(b.actions(), [ConnAction::Close { conn: id }]);
    // Too late.
    let (local, remote) = addrs();
    b.conns.connected(b.now, id, local, remote);
    assert!(b.events().is_empty() && b.conns.poll_timeout().is_none());
    b.conns.close(b.now, 1);
    assert!(b.actions().is_empty() && b.conns.conns.is_empty());
}

#[test]
fn failures_of_tcp_are_passed_on_as_they_are() {
    for failure in [
        ConnFailure::Refused,
        ConnFailure::Unreachable,
        ConnFailure::Unresolved,
    ] {
        let mut b = bench(ConnLimits::default());
        b.open(1, &name("far.example", 443), None).unwrap();
        let id = b.connect();
        b.conns.failed(b.now, id, failure);
        b.conns.failed(b.now, id, failure);
        assert_eq!(b.events(), [(1, ConnEvent::Failed(failure.into()))]);
        assert_eq!(b.actions(), [ConnAction::Close { conn: id }]);
    }
    // A reset: nothing can be written any more, what came before can be read.
    let mut b = bench(ConnLimits::default());
    b.open(1, &name("far.example", 443), None).unwrap();
    let id = b.connected();
    b.events();
    b.conns.write(1, b"lost");
    b.input(id, "before");
    b.conns.failed(b.now, id, ConnFailure::Reset);
    let error = ConnError::Tcp(ConnFailure::Reset);
    assert_eq!(b.events(), [(1, ConnEvent::Failed(error))]);
    assert_eq!(b.output(id), "");
    assert_eq!(b.conns.received(1), b"before");
    b.conns.close(b.now, 1);
    assert!(b.conns.conns.is_empty());
}

#[test]
fn the_other_sides_close_leaves_its_bytes_to_be_read() {
    let mut b = bench(ConnLimits::default());
    b.open(1, &name("far.example", 443), None).unwrap();
    let id = b.connected();
    b.input(id, "bye");
    b.conns.handle_eof(b.now, id);
    assert_eq!(b.events(), [(1, ready()), (1, ConnEvent::Closed)]);
    assert_eq!(b.actions(), [ConnAction::Close { conn: id }]);
    assert_eq!(b.input(id, "more"), None);
    assert_eq!(b.conns.received(1), b"bye");
    b.conns.close(b.now, 1);
    assert_eq!(b.conns.received(1), b"");
    assert!(b.events().is_empty() && b.actions().is_empty());
}

// spec: T-5.2.2.3-1
#[test]
fn the_target_of_a_connect_is_where_the_connection_is_to_lead() {
    let mut b = bench(ConnLimits::default());
    b.open(1, &name("eftf.example", 443), Some(&proxy(true)))
        .unwrap();
    let to = Endpoint::Addr(SocketAddr::from(([192, 0, 2, 9], 443)));
    b.open(2, &to, Some(&proxy(true))).unwrap();
    let hop = name("proxy.example", 3128);
    let connect = |conn| ConnAction::Connect {
        conn: ConnId(conn),
        to: hop.clone(),
    };
    assert_eq!(b.actions(), [connect(0), connect(1)]);
    let (local, remote) = addrs();
    for (id, target) in [(0, "eftf.example:443"), (1, "192.0.2.9:443")] {
        b.conns.connected(b.now, ConnId(id), local, remote);
        let request = b.output(ConnId(id));
        assert!(request.starts_with(&alloc::format!("CONNECT {target} HTTP/1.1\r\n")));
        b.input(ConnId(id), "HTTP/1.1 200 OK\r\n\r\nhello");
    }
    let events = b.events();
    assert_eq!(events[..2], [(1, ConnEvent::Proxied), (1, ready())]);
    assert_eq!(b.conns.received(2), b"hello");
}

// spec: PRI-5-1
#[test]
fn no_proxy_is_asked_for_the_ports_of_plain_http_and_stun() {
    let mut b = bench(ConnLimits::default());
    for port in [80, 3478] {
        let refused = b.open(1, &name("turn.example", port), Some(&proxy(true)));
        assert_eq!(refused, Err(PlanError::ConnectPort(port)));
        assert!(b.actions().is_empty() && b.conns.poll_timeout().is_none());
    }
    // Without a proxy they are ports like any other.
    assert_eq!(b.open(1, &name("turn.example", 80), None), Ok(()));
    let bad = b.open(2, &name("turn example", 443), Some(&proxy(true)));
    assert!(matches!(bad, Err(PlanError::Target(_))));
    let mut odd = proxy(true);
    odd.connect.fields.push(("Host".into(), "x".into()));
    let bad = b.open(2, &name("turn.example", 443), Some(&odd));
    assert!(matches!(bad, Err(PlanError::Field(_))));
}

#[test]
fn a_proxy_that_closes_after_its_407_is_connected_to_again() {
    let mut b = bench(ConnLimits::default());
    b.open(1, &name("far.example", 443), Some(&proxy(true)))
        .unwrap();
    let id = b.connected();
    assert!(!b.output(id).contains("Proxy-Authorization"));
    let challenge =
        "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"r\"\r\nConnection: close\r\n\r\n";
    assert_eq!(b.input(id, challenge), Some(1));
    let next = ConnId(1);
    let to = name("proxy.example", 3128);
    assert_eq!(
        b.actions(),
        [
            ConnAction::Close { conn: id },
            ConnAction::Connect { conn: next, to }
        ]
    );
    assert_eq!((b.conns.id(1), b.conns.key(id)), (Some(next), None));
    // The old one has nothing to say any more.
    b.conns.handle_eof(b.now, id);
    b.conns.failed(b.now, id, ConnFailure::Reset);
    assert_eq!(b.input(id, "HTTP/1.1 200 OK\r\n\r\n"), None);
    assert!(b.events().is_empty());
    let (local, remote) = addrs();
    b.conns.connected(b.now, next, local, remote);
    assert!(
        b.output(next)
            .contains("Proxy-Authorization: Basic dXNlcjpwYXNz\r\n")
    );
    b.input(next, "HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(b.events(), [(1, ConnEvent::Proxied), (1, ready())]);
}

#[test]
fn the_connection_that_a_proxy_asks_for_has_15_seconds_as_well() {
    let mut b = bench(ConnLimits::default());
    b.open(1, &name("far.example", 443), Some(&proxy(true)))
        .unwrap();
    let id = b.connected();
    b.output(id);
    b.now = at(1000);
    b.input(
        id,
        "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"r\"\r\nConnection: close\r\n\r\n",
    );
    b.actions();
    assert_eq!(b.next(), 16_000);
    let error = ConnError::Tcp(ConnFailure::TimedOut);
    assert_eq!(b.events(), [(1, ConnEvent::Failed(error))]);
}

#[test]
fn credentials_are_asked_for_and_may_be_refused() {
    let challenge =
        "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"gate\"\r\nContent-Length: 0\r\n\r\n";
    for given in [true, false] {
        let mut b = bench(ConnLimits::default());
        b.open(1, &name("far.example", 443), Some(&proxy(false)))
            .unwrap();
        let id = b.connected();
        b.output(id);
        b.input(id, challenge);
        let asked = ConnEvent::NeedCredentials {
            realm: "gate".into(),
            scheme: Scheme::Basic,
        };
        assert_eq!(b.events(), [(1, asked)]);
        let answer = given.then(|| Credentials::new("user", "pass"));
        b.conns.set_credentials(b.now, 1, answer);
        if given {
            assert!(b.output(id).contains("Basic dXNlcjpwYXNz"));
            continue;
        }
        let [(1, ConnEvent::Failed(error))] = &b.events()[..] else {
            panic!();
        };
        assert_eq!(rejection(error).auth, Some(AuthRefusal::NoCredentials));
    }
}

#[test]
fn a_proxy_that_resets_the_connection_behind_its_407_gets_another_one() {
    let close = "Connection: close\r\nContent-Length: 10\r\n\r\n";
    let challenge =
        alloc::format!("HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"r\"\r\n{close}");
    // With the credentials at hand: in the middle of the body.
    let mut b = bench(ConnLimits::default());
    b.open(1, &name("far.example", 443), Some(&proxy(true)))
        .unwrap();
    let id = b.connected();
    b.output(id);
    b.input(id, &challenge);
    b.conns.failed(b.now, id, ConnFailure::Reset);
    let id = b.connected();
    assert!(b.output(id).contains("Basic dXNlcjpwYXNz"));
    assert!(b.events().is_empty());
    // While they are asked for.
    let mut b = bench(ConnLimits::default());
    b.open(1, &name("far.example", 443), Some(&proxy(false)))
        .unwrap();
    let id = b.connected();
    b.output(id);
    b.input(id, &challenge);
    b.input(id, "0123456789");
    b.conns.failed(b.now, id, ConnFailure::Reset);
    b.conns.failed(b.now, id, ConnFailure::Reset);
    assert!(matches!(
        b.events()[..],
        [(1, ConnEvent::NeedCredentials { .. })]
    ));
    b.conns
        .set_credentials(b.now, 1, Some(Credentials::new("user", "pass")));
    let next = b.connected();
    assert_ne!(next, id);
    assert!(b.output(next).contains("Basic dXNlcjpwYXNz"));
    // But not when there was no answer at all.
    b.conns.failed(b.now, next, ConnFailure::Reset);
    let error = ConnError::Tcp(ConnFailure::Reset);
    assert_eq!(b.events(), [(1, ConnEvent::Failed(error))]);
}

#[test]
fn what_a_proxy_asks_for_outlives_a_reset_in_the_body_of_its_407() {
    let head = "HTTP/1.1 407 x\r\nContent-Length: 10\r\nProxy-Authenticate: ";
    for (challenge, basic) in [("Basic realm=\"gate\"", true), ("Negotiate", false)] {
        let mut b = bench(ConnLimits::default());
        let mut via = proxy(false);
        via.auth.policy_mut().negotiate = Allow::Always;
        b.open(1, &name("far.example", 443), Some(&via)).unwrap();
        let id = b.connected();
        b.output(id);
        b.input(id, &alloc::format!("{head}{challenge}\r\n\r\n01234"));
        assert_eq!(b.events(), [], "{challenge}");
        b.conns.failed(b.now, id, ConnFailure::Reset);
        let asked = if basic {
            ConnEvent::NeedCredentials {
                realm: "gate".into(),
                scheme: Scheme::Basic,
            }
        } else {
            ConnEvent::NeedToken {
                scheme: Scheme::Negotiate,
                token: None,
            }
        };
        assert_eq!(b.events(), [(1, asked)]);
        // The proxy's answer is there: what counts now is how long the application takes.
        let tunnel = b.conns.conns[&id].tunnel.poll_timeout();
        assert_eq!(b.conns.poll_timeout(), tunnel);
        let answer = if basic {
            let credentials = Credentials::new("user", "pass");
            b.conns.set_credentials(b.now, 1, Some(credentials));
            "Basic dXNlcjpwYXNz"
        } else {
            b.conns.set_token(b.now, 1, Some("YIIB".into()));
            "Negotiate YIIB"
        };
        let next = b.connected();
        assert_ne!(next, id);
        assert!(b.output(next).contains(answer));
    }
}

#[test]
fn tokens_are_asked_for() {
    let mut b = bench(ConnLimits::default());
    let mut via = proxy(false);
    via.auth.policy_mut().negotiate = Allow::Always;
    b.open(1, &name("far.example", 443), Some(&via)).unwrap();
    let id = b.connected();
    b.output(id);
    b.input(
        id,
        "HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n",
    );
    let asked = ConnEvent::NeedToken {
        scheme: Scheme::Negotiate,
        token: None,
    };
    assert_eq!(b.events(), [(1, asked)]);
    b.conns.set_token(b.now, 1, Some("YIIB".into()));
    assert!(b.output(id).contains("Negotiate YIIB\r\n"));
}

#[test]
fn rejections_and_silence_of_a_proxy_are_typed() {
    let mut b = bench(ConnLimits::default());
    b.open(1, &name("far.example", 443), Some(&proxy(true)))
        .unwrap();
    let id = b.connected();
    b.output(id);
    b.input(id, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let [(1, ConnEvent::Failed(error))] = &b.events()[..] else {
        panic!();
    };
    assert_eq!(rejection(error).status, 403);
    b.conns.close(b.now, 1);

    b.open(2, &name("far.example", 443), Some(&proxy(true)))
        .unwrap();
    let id = b.connected();
    b.output(id);
    assert_eq!(b.next(), 30_000);
    let error = ConnError::Tunnel(TunnelError::Connect(ConnectError::Timeout));
    assert_eq!(b.events(), [(2, ConnEvent::Failed(error))]);
}

#[test]
fn a_portal_that_says_200_to_everything_is_no_tunnel() {
    let mut b = bench(ConnLimits::default());
    let mut via = proxy(true);
    via.connect.expect_tls = true;
    b.open(1, &name("far.example", 443), Some(&via)).unwrap();
    let id = b.connected();
    b.output(id);
    b.input(id, "HTTP/1.1 200 OK\r\n\r\n<html>Welcome!");
    let events = b.events();
    let error = ConnError::Tunnel(TunnelError::NotATunnel(NotATunnel));
    assert_eq!(events.last(), Some(&(1, ConnEvent::Failed(error))));
    assert_eq!(b.conns.received(1), b"");
}

#[test]
fn slow_connections_push_back() {
    let limits = ConnLimits {
        write_limit: 100,
        ..ConnLimits::default()
    };
    let mut b = bench(limits);
    b.open(1, &name("far.example", 443), None).unwrap();
    let id = b.connected();
    assert_eq!(b.conns.write(1, &[b'x'; 300]), 100);
    assert_eq!(b.conns.write(1, b"y"), 0);
    let mut buf = [0; 40];
    assert_eq!(b.conns.poll_conn(id, &mut buf), Some(40));
    assert_eq!(b.conns.write(1, &[b'x'; 300]), 40);
    // The rest is given up when the host does not write it in time.
    b.conns.close(b.now, 1);
    assert_eq!(b.next(), 10_000);
    assert_eq!((b.output(id).len(), b.conns.conns.len()), (0, 0));
}

#[test]
fn there_are_only_so_many_connections_and_one_for_each_key() {
    let limits = ConnLimits {
        max_conns: 2,
        ..ConnLimits::default()
    };
    let mut b = bench(limits);
    let to = name("far.example", 443);
    b.open(1, &to, None).unwrap();
    assert_eq!(b.open(1, &to, None), Err(PlanError::Exists));
    b.open(2, &to, None).unwrap();
    assert_eq!(b.open(3, &to, None), Err(PlanError::Full));
    b.actions();
    b.conns.close_all(b.now);
    assert_eq!(b.actions().len(), 2);
    b.open(3, &to, None).unwrap();
}
