//! SIP or HTTP on one port.

use alloc::vec;

use sip_outbound::wire::StatusCode;

use super::super::first::{Verdict, by_alpn, by_name, by_octets};
use super::world::*;

use super::super::*;

#[track_caller]
fn check(first: &str, verdict: Option<Verdict>) {
    assert_eq!(by_octets(first.as_bytes()), verdict, "{first:?}");
    // It makes no difference how much comes at a time; once told, it stays so.
    let told = (0..=first.len()).filter_map(|len| by_octets(first.get(..len).unwrap().as_bytes()));
    assert!(told.into_iter().all(|told| Some(told) == verdict));
}

// spec: PRI-4-1, SEC-P-17
#[test]
fn the_first_line_tells_sip_from_http() {
    use Verdict::{Foreign, Http, Sip};
    for first in [
        "REGISTER sip:ims.example.com SIP/2.0\r\n",
        "OPTIONS sip:a SIP/2.0\r\n",
        "XYZZY sip:a sip/2.0\n",
        "\r\n\r\n",
    ] {
        check(first, Some(Sip));
    }
    for first in [
        "GET / HTTP/1.1\r\n",
        "OPTIONS * HTTP/1.1\r\n",
        "CONNECT a:443 HTTP/1.0\r\n",
    ] {
        check(first, Some(Http));
    }
    for first in [
        "PRI * HTTP/2.0\r\n",
        "REGISTER / HTTP/1.1\r\n",
        "GET /\r\n",
        "GET  / HTTP/1.1\r\n",
        "SIP/2.0 200 OK\r\n",
        "SSH-2.0-x\r\n",
        "\u{16}\u{3}\u{1}\u{2}",
        "\0\u{1}\0\0!\u{12}",
        "\n\n",
        " GET / HTTP/1.1\r\n",
    ] {
        check(first, Some(Foreign));
    }
    for first in ["", "\r", "REGI", "GET / HTTP/1.1"] {
        check(first, None);
    }
    check(&"A".repeat(2048), Some(Foreign));
    check(&"A".repeat(2047), None);
}

// spec: PRI-4-1
#[test]
fn alpn_and_the_name_come_first() {
    assert_eq!(by_alpn(b"sip/2"), Verdict::Sip);
    assert_eq!(by_alpn(b"http/1.1"), Verdict::Http);
    assert_eq!(by_alpn(b"h2"), Verdict::Http);
    assert_eq!(by_alpn(b"imap"), Verdict::Foreign);
    let (sip, http) = (["Sip.example".into()], ["www.example".into()]);
    assert_eq!(by_name("sip.Example", &sip, &http), Some(Verdict::Sip));
    assert_eq!(by_name("www.example", &sip, &http), Some(Verdict::Http));
    assert_eq!(by_name("example", &sip, &http), None);
}

/// What becomes of a client with this ALPN, name and first octets.
fn meet(config: &ServiceConfig, alpn: Option<&[u8]>, name: &'static str, first: &[u8]) -> String {
    let mut world = World::new(config.clone());
    let conn = world.connect(Listener::Tls).unwrap();
    let mut client = (*tls().1).clone();
    client.alpn_protocols = alpn.into_iter().map(<[u8]>::to_vec).collect();
    let tunnel_config = TunnelConfig {
        tls: Some(crate::tunnel::Tls::Client {
            config: client.into(),
            name: rustls::pki_types::ServerName::try_from(name).unwrap(),
        }),
        ..TunnelConfig::default()
    };
    let mut tunnel = Tunnel::new(tunnel_config, [1; 32], world.now).unwrap();
    tunnel.handle_connected(world.now);
    let mut buf = vec![0; 4096];
    let mut said = false;
    loop {
        let mut idle = true;
        while let Some(len) = tunnel.poll_transmit(&mut buf) {
            idle = false;
            world.input(conn, &buf[..len]);
        }
        let back = core::mem::take(world.raw.get_mut(&conn).unwrap());
        if !back.is_empty() {
            idle = false;
            tunnel.handle_input(world.now, &back);
        }
        if matches!(tunnel.poll_event(), Some(TunnelEvent::Ready { .. })) && !said {
            said = true;
            idle = false;
            tunnel.write(first);
        }
        if idle {
            break;
        }
    }
    let named = |event: &&PcscfEvent| matches!(event, PcscfEvent::Ready { name: Some(asked), .. } if asked == name);
    assert_eq!(world.events.iter().filter(named).count(), 1);
    if let Some(cause) = world.closed(conn) {
        assert_eq!(tunnel.readable(), 0);
        return std::format!("closed: {cause}");
    }
    if world.events.contains(&PcscfEvent::Http { conn }) {
        assert_eq!(world.pcscf.received(conn), first);
        world.pcscf.consume(conn, first.len());
        assert_eq!(
            world.pcscf.write(conn, b"HTTP/1.1 204 No Content\r\n\r\n"),
            27
        );
        world.pcscf.close(world.now, conn);
        world.settle();
        tunnel.handle_input(world.now, &world.raw[&conn].clone());
        assert_eq!(tunnel.received(), b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(world.closed(conn), Some(CloseCause::Host));
        return "http".into();
    }
    String::from_utf8_lossy(tunnel.received())
        .lines()
        .next()
        .unwrap_or_default()
        .into()
}

// spec: PRI-4-1
#[test]
fn one_port_serves_both() {
    let mut config = home_config();
    config.http = HttpPolicy::HandOver;
    config.sip_names = vec!["sip.example.com".into()];
    config.http_names = vec!["www.example.com".into()];
    let get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let invite = b"INVITE sip:b SIP/2.0\r\nVia: SIP/2.0/TLS h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
        To: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\nContact: <sip:a@h>\r\nContent-Length: 0\r\n\r\n";
    let forbidden = std::format!("SIP/2.0 403 {}", StatusCode::FORBIDDEN.reason());
    let foreign = "closed: neither SIP nor HTTP";
    // By the first line, when nothing else tells.
    assert_eq!(meet(&config, None, HOST, get), "http");
    assert_eq!(meet(&config, None, HOST, invite), forbidden);
    assert_eq!(meet(&config, None, HOST, b"EHLO x\r\n"), foreign);
    // By ALPN, whatever the name and the first line say.
    assert_eq!(
        meet(&config, Some(b"sip/2"), "www.example.com", invite),
        forbidden
    );
    assert_eq!(
        meet(&config, Some(b"http/1.1"), "sip.example.com", invite),
        "http"
    );
    // By the name, whatever the first line says.
    assert_eq!(meet(&config, None, "www.example.com", invite), "http");
    let sip = meet(&config, None, "sip.example.com", get);
    assert!(
        sip.starts_with("SIP/2.0 4") || sip.starts_with("closed: "),
        "{sip}"
    );
    // And without a host for HTTP it is closed without a word.
    config.http = HttpPolicy::Close;
    assert_eq!(meet(&config, None, HOST, get), "closed: HTTP");
    assert_eq!(meet(&config, Some(b"http/1.1"), HOST, get), "closed: HTTP");
}
