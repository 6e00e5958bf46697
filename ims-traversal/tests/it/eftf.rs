//! IP packets through TLS to an EFTF, directly and through an HTTP proxy (3GPP TS 24.322).

use http_connect::ConnectConfig;
use http_connect::auth::{ClientAuth, Policy};
use ims_traversal::eftf::{Envelopes, envelope_header};
use ims_traversal::tunnel::{ProxyHop, Tls, Tunnel, TunnelConfig, TunnelEvent};
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use stun_proto::Instant;

use crate::access::world::tls;

const NAME: &str = "pcscf1.ims.example";
const NOW: Instant = Instant::ZERO;

/// One side of the connection: a tunnel, and the packets that came through it.
struct Side {
    tunnel: Tunnel,
    envelopes: Envelopes,
    packets: Vec<Vec<u8>>,
    events: Vec<TunnelEvent>,
}

fn side(proxy: Option<ProxyHop>, tls: Tls) -> Side {
    let config = TunnelConfig {
        proxy,
        tls: Some(tls),
        ..TunnelConfig::default()
    };
    let mut tunnel = Tunnel::new(config, [3; 32], NOW).unwrap();
    tunnel.handle_connected(NOW);
    Side {
        tunnel,
        envelopes: Envelopes::new(1500),
        packets: Vec::new(),
        events: Vec::new(),
    }
}

impl Side {
    fn send(&mut self, packet: &[u8]) {
        let header = envelope_header(packet).unwrap();
        assert_eq!(
            self.tunnel.write(&header) + self.tunnel.write(packet),
            packet.len() + 3
        );
    }

    fn output(&mut self) -> Vec<u8> {
        let (mut all, mut buf) = (Vec::new(), [0; 7]);
        while let Some(len) = self.tunnel.poll_transmit(&mut buf) {
            all.extend_from_slice(&buf[..len]);
        }
        all
    }

    fn input(&mut self, bytes: &[u8]) {
        self.tunnel.handle_input(NOW, bytes);
        let received = self.tunnel.received().to_vec();
        self.tunnel.consume(received.len());
        let mut input = &received[..];
        while let Some(packet) = self.envelopes.next(&mut input) {
            self.packets.push(packet.unwrap().to_vec());
        }
        self.events
            .extend(core::iter::from_fn(|| self.tunnel.poll_event()));
    }
}

fn pump(a: &mut Side, b: &mut Side) {
    loop {
        let (to_b, to_a) = (a.output(), b.output());
        if to_a.is_empty() && to_b.is_empty() {
            return;
        }
        to_b.chunks(11).for_each(|piece| b.input(piece));
        to_a.chunks(11).for_each(|piece| a.input(piece));
    }
}

fn client(name: &str) -> Tls {
    Tls::Client {
        config: tls(0).0,
        name: ServerName::try_from(name.to_string()).unwrap(),
    }
}

fn server() -> Side {
    side(None, Tls::Server { config: tls(1).1 })
}

fn hop() -> ProxyHop {
    ProxyHop {
        target: format!("{NAME}:443").parse().unwrap(),
        config: ConnectConfig::default(),
        auth: ClientAuth::new(None, Policy::default()),
    }
}

fn packet(last: u8) -> Vec<u8> {
    let mut packet = b"\x45\0\0\x14\0\0\0\0\x40\x06\0\0\x0a\0\0\x0a\x0a\0\0\x0b".to_vec();
    packet[19] = last;
    packet
}

// spec: T-5.2.2.2-1
#[test]
fn a_name_is_sent_by_sni_and_an_address_is_not() {
    for (name, shown) in [(NAME, Some(NAME)), ("192.0.2.7", None)] {
        let mut ue = side(None, client(name));
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut &ue.output()[..]).unwrap();
        let accepted = acceptor.accept().unwrap().unwrap();
        assert_eq!(accepted.client_hello().server_name(), shown);
    }
}

// spec: T-5.1-1, T-5.2.2.2-1, T-5.2.2.3-1, T-7.1.2.1-1
#[test]
fn packets_go_both_ways_until_one_side_releases_the_tunnel() {
    for proxy in [false, true] {
        for ue_releases in [false, true] {
            let mut ue = side(proxy.then(hop), client(NAME));
            let mut eftf = server();
            if proxy {
                let request = ue.output();
                assert!(request.starts_with(b"CONNECT pcscf1.ims.example:443 HTTP/1.1\r\n"));
                ue.input(b"HTTP/1.1 200 OK\r\n\r\n");
            }
            pump(&mut ue, &mut eftf);
            assert_eq!(ue.events.last(), Some(&TunnelEvent::Ready { alpn: None }));
            for n in 0..20 {
                ue.send(&packet(n));
                eftf.send(&packet(100 + n));
            }
            pump(&mut ue, &mut eftf);
            assert_eq!(eftf.packets, (0..20).map(packet).collect::<Vec<_>>());
            assert_eq!(ue.packets, (100..120).map(packet).collect::<Vec<_>>());
            let (from, to) = if ue_releases {
                (&mut ue, &mut eftf)
            } else {
                (&mut eftf, &mut ue)
            };
            from.send(&packet(99));
            from.tunnel.close();
            pump(from, to);
            assert_eq!(to.packets.last(), Some(&packet(99)));
            assert_eq!(to.events.last(), Some(&TunnelEvent::Closed));
        }
    }
}
