use alloc::sync::Arc;

use core::time::Duration;

use http_connect::auth::{Allow, Credentials, Policy};
use http_connect::{ConnectConfig, NotATunnel};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

use super::*;
use crate::test_tls::self_signed;
use alloc::string::String;

fn configs(name: &str) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let (client, server) = self_signed(&[name]);
    (Arc::new(client), Arc::new(server))
}

fn tunnel(proxy: bool, tls: Option<Tls>) -> Tunnel {
    let hop = ProxyHop {
        target: "turn.example:443".parse().unwrap(),
        config: ConnectConfig::default(),
        auth: ClientAuth::new(
            Some(Credentials::new("user", "pass")),
            Policy {
                basic: Allow::Always,
                ..Policy::default()
            },
        ),
    };
    let config = TunnelConfig {
        proxy: proxy.then_some(hop),
        tls,
        ..TunnelConfig::default()
    };
    let mut tunnel = Tunnel::new(config, [1; 32], Instant::ZERO).unwrap();
    tunnel.handle_connected(Instant::ZERO);
    tunnel
}

fn output(tunnel: &mut Tunnel, size: usize) -> Vec<u8> {
    let (mut all, mut buf) = (Vec::new(), std::vec![0; size]);
    while let Some(len) = tunnel.poll_transmit(&mut buf) {
        all.extend_from_slice(&buf[..len]);
    }
    all
}

/// Moves bytes both ways, in pieces of `cut`, until nothing moves any more.
fn pump(a: &mut Tunnel, b: &mut Tunnel, cut: usize) {
    loop {
        let (to_b, to_a) = (output(a, cut), output(b, cut));
        if to_b.is_empty() && to_a.is_empty() {
            return;
        }
        to_b.chunks(cut)
            .for_each(|c| b.handle_input(Instant::ZERO, c));
        to_a.chunks(cut)
            .for_each(|c| a.handle_input(Instant::ZERO, c));
    }
}

fn events(tunnel: &mut Tunnel) -> Vec<TunnelEvent> {
    core::iter::from_fn(|| tunnel.poll_event()).collect()
}

fn sides(name: &'static str) -> (Tls, Tls) {
    let (client, server) = configs("turn.example");
    let name = ServerName::try_from(name).unwrap();
    (
        Tls::Client {
            config: client,
            name,
        },
        Tls::Server { config: server },
    )
}

fn read_all(tunnel: &mut Tunnel) -> Vec<u8> {
    let mut buf = std::vec![0; 200_000];
    let len = tunnel.read(&mut buf);
    buf.truncate(len);
    buf
}

#[test]
fn tls_carries_bytes_both_ways_however_they_are_cut() {
    for cut in [1, 7, 100_000] {
        let (client, server) = sides("turn.example");
        let (mut a, mut b) = (tunnel(false, Some(client)), tunnel(false, Some(server)));
        assert_eq!(a.write(b"early"), 0);
        pump(&mut a, &mut b, cut);
        assert_eq!(events(&mut a), [TunnelEvent::Ready { alpn: None }]);
        assert_eq!(events(&mut b), [TunnelEvent::Ready { alpn: None }]);
        assert_eq!(a.poll_timeout(), None);
        assert_eq!(a.write(b"hello"), 5);
        let long = std::vec![7; 60_000];
        assert_eq!(b.write(&long), 60_000);
        pump(&mut a, &mut b, cut);
        assert_eq!(read_all(&mut b), b"hello");
        assert_eq!(read_all(&mut a), long);
        a.close();
        let farewell = output(&mut a, cut);
        b.handle_input(Instant::ZERO, &farewell);
        assert_eq!(events(&mut b), [TunnelEvent::Closed]);
        // It is answered in kind.
        assert_eq!(output(&mut b, cut).len(), farewell.len());
        assert_eq!(b.write(b"late"), 0);
    }
}

// spec: SEC-H-04
#[test]
fn through_the_proxy_first_then_tls() {
    let (client, server) = sides("turn.example");
    let (mut a, mut b) = (tunnel(true, Some(client)), tunnel(false, Some(server)));
    let request = output(&mut a, 10);
    assert!(request.starts_with(b"CONNECT turn.example:443 HTTP/1.1\r\n"));
    let now = Instant::ZERO;
    let challenge =
        b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"r\"\r\nConnection: close\r\n\r\n";
    a.handle_input(now, challenge);
    assert_eq!(events(&mut a), [TunnelEvent::Reconnect]);
    assert!(output(&mut a, 100).is_empty());
    a.handle_connected(now);
    let request = output(&mut a, 1000);
    assert!(
        String::from_utf8(request)
            .unwrap()
            .contains("Basic dXNlcjpwYXNz")
    );
    a.handle_input(now, b"HTTP/1.1 200 OK\r\n\r\n");
    pump(&mut a, &mut b, 50);
    assert_eq!(
        events(&mut a),
        [TunnelEvent::Connected, TunnelEvent::Ready { alpn: None }]
    );
}

#[test]
fn failures_name_their_step() {
    let now = Instant::ZERO;
    let (client, _) = sides("turn.example");
    let mut a = tunnel(true, Some(client));
    output(&mut a, 1000);
    a.handle_input(now, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let all = events(&mut a);
    let [TunnelEvent::Failed(error @ TunnelError::Refused(_))] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!(std::format!("{error}"), "the proxy refused: status 403");
    assert!(output(&mut a, 100).is_empty());

    // A certificate for another name.
    let (client, server) = sides("other.example");
    let (mut a, mut b) = (tunnel(false, Some(client)), tunnel(false, Some(server)));
    pump(&mut a, &mut b, 1000);
    assert!(matches!(
        events(&mut a)[..],
        [TunnelEvent::Failed(TunnelError::Certificate(_))]
    ));
    assert!(matches!(
        events(&mut b)[..],
        [TunnelEvent::Failed(TunnelError::Tls(_))]
    ));

    let (client, _) = sides("turn.example");
    let mut a = tunnel(false, Some(client));
    output(&mut a, 1000);
    a.handle_input(now, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert!(matches!(
        events(&mut a)[..],
        [TunnelEvent::Failed(TunnelError::Tls(_))]
    ));
    // That was the last word; the alert still goes out.
    a.handle_input(now, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    a.handle_timeout(now + Duration::from_secs(60));
    assert!(events(&mut a).is_empty() && a.poll_timeout().is_none());
    assert_eq!(output(&mut a, 100)[0], 0x15);

    let (client, _) = sides("turn.example");
    let mut a = tunnel(false, Some(client));
    a.handle_eof(now);
    assert_eq!(
        events(&mut a),
        [TunnelEvent::Failed(TunnelError::ClosedDuring(Step::Tls))]
    );

    let (client, _) = sides("turn.example");
    let mut a = tunnel(false, Some(client));
    let late = a.poll_timeout().unwrap();
    a.handle_timeout(late);
    assert_eq!(
        events(&mut a),
        [TunnelEvent::Failed(TunnelError::HandshakeTimeout)]
    );
    assert_eq!(a.poll_timeout(), None);
}

#[test]
fn a_portal_behind_the_proxys_200_is_not_taken_for_tls() {
    // In one piece with the 200, and after the ClientHello.
    for early in [true, false] {
        let (client, _) = sides("turn.example");
        let mut a = tunnel(true, Some(client));
        output(&mut a, 1000);
        let (now, head, page) = (
            Instant::ZERO,
            b"HTTP/1.1 200 OK\r\n\r\n".as_slice(),
            b"<html>".as_slice(),
        );
        if early {
            a.handle_input(now, &[head, page].concat());
        } else {
            a.handle_input(now, head);
            assert_eq!(output(&mut a, 1000)[0], 0x16);
            a.handle_input(now, page);
        }
        let failed = TunnelEvent::Failed(TunnelError::NotATunnel(NotATunnel));
        assert_eq!(events(&mut a), [TunnelEvent::Connected, failed]);
        assert!(!a.wants_transmit() && a.poll_timeout().is_none());
    }
}

#[test]
fn clear_tunnels_are_limited_and_lose_nothing() {
    let mut a = tunnel(false, None);
    assert_eq!(events(&mut a), [TunnelEvent::Ready { alpn: None }]);
    let long = std::vec![1; 100_000];
    assert_eq!(a.write(&long), 64 * 1024);
    assert_eq!(output(&mut a, 999).len(), 64 * 1024);
    a.handle_input(Instant::ZERO, b"abc");
    a.write(b"rest");
    a.handle_eof(Instant::ZERO);
    assert_eq!(events(&mut a), [TunnelEvent::Closed]);
    // The other side may still read.
    assert_eq!((a.write(b"more"), output(&mut a, 2)), (0, b"rest".to_vec()));
    assert_eq!(read_all(&mut a), b"abc");
}
