//! Connections of clients: how many, how long, how much.

use sip_outbound::wire::{Builder, StatusCode};

use super::world::*;

use super::super::*;

fn register(user: &str, branch: &str) -> String {
    std::format!(
        "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.2;branch=z9hG4bK{branch}\r\nFrom: <sip:{user}@{DOMAIN}>;tag=1\r\n\
         To: <sip:{user}@{DOMAIN}>\r\nCall-ID: {branch}\r\nCSeq: 1 REGISTER\r\nContact: <sip:{user}@10.0.0.2>;reg-id=1;\
         +sip.instance=\"<urn:uuid:00000000-0000-4000-8000-000000000001>\"\r\nSupported: path, outbound\r\nContent-Length: 0\r\n\r\n"
    )
}

/// A registrar that asks nobody.
fn open_config() -> ServiceConfig {
    let mut config = home_config();
    config.home.as_mut().unwrap().registrar.digest = None;
    config
}

// spec: PRI-4-3
#[test]
fn a_handshake_may_take_ten_seconds() {
    let mut world = World::new(home_config());
    let silent = world.connect(Listener::Tls).unwrap();
    world.run_for(Duration::from_millis(9_999));
    assert_eq!(world.closed(silent), None);
    world.run_for(Duration::from_millis(1));
    assert_eq!(
        world.closed(silent),
        Some(CloseCause::Tunnel(
            crate::tunnel::TunnelError::HandshakeTimeout
        ))
    );
    assert_eq!(world.pcscf.conn_count(), 0);
}

// spec: PRI-4-3
#[test]
fn a_client_has_64_seconds_to_register() {
    for first in ["", "\r\n\r\n", "REGISTER sip"] {
        let mut world = World::new(home_config());
        let silent = world.connect(Listener::Tcp).unwrap();
        let refused = world.connect(Listener::Tcp).unwrap();
        world.input(silent, first.as_bytes());
        for _ in 0..63 {
            world.run_for(Duration::from_secs(1));
            // Signs of life do not help, nor does a challenge.
            world.input(refused, b"\r\n\r\n");
        }
        world.input(refused, register("alice", "1").as_bytes());
        assert!(world.output(refused).contains("SIP/2.0 401"));
        assert_eq!(world.closed(silent), None);
        assert_eq!(world.closed(refused), None);
        world.run_for(Duration::from_secs(2));
        assert!(world.closed(silent).is_some());
        let idle = CloseCause::Flow(sip_outbound::EdgeFlowEnd::Idle);
        assert_eq!(world.closed(refused), Some(idle));
    }
}

// spec: PRI-4-4
#[test]
fn a_registered_client_may_be_silent_for_92_seconds() {
    let mut world = World::new(open_config());
    let conn = world.connect(Listener::Tcp).unwrap();
    world.input(conn, register("alice", "1").as_bytes());
    let answer = world.output(conn);
    assert!(
        answer.starts_with("SIP/2.0 200") && answer.contains("Flow-Timer: 60\r\n"),
        "{answer}"
    );
    assert!(answer.contains("P-Associated-URI: <sip:alice@ims.example.com>\r\n"));
    assert!(answer.contains("Service-Route: <sip:orig@ims.example.com;lr>\r\n"));
    world.run_for(Duration::from_secs(60));
    world.input(conn, b"\r\n\r\n");
    assert_eq!(world.output(conn), "\r\n");
    world.run_for(Duration::from_millis(91_999));
    assert_eq!(world.closed(conn), None);
    assert_eq!(
        world.pcscf.registered(conn).unwrap().as_str(),
        "sip:alice@ims.example.com"
    );
    world.run_for(Duration::from_millis(1));
    let idle = CloseCause::Flow(sip_outbound::EdgeFlowEnd::Idle);
    assert_eq!(world.closed(conn), Some(idle));
    assert!(world.events.contains(&PcscfEvent::Unregistered { conn }));
}

// spec: PRI-4-2
#[test]
fn a_thousand_clients_come_through_one_proxy() {
    let mut world = World::new(open_config());
    let conns: Vec<_> = (0..1000)
        .map(|_| world.connect(Listener::Tcp).unwrap())
        .collect();
    for (at, conn) in conns.iter().enumerate() {
        world.input(
            *conn,
            register(&std::format!("user{at}"), &std::format!("{at}")).as_bytes(),
        );
        assert!(world.output(*conn).starts_with("SIP/2.0 200"));
    }
    assert_eq!(world.pcscf.binding_count(), 1000);
    // One of them goes, and another one comes from the same port: not its heir.
    let old = conns[0];
    let token_at = world.pcscf.conns[&old].at;
    world.pcscf.handle_eof(world.now, old);
    let new = world
        .pcscf
        .accept(world.now, token_at, Listener::Tcp)
        .unwrap();
    world.raw.insert(new, Vec::new());
    let message = std::format!(
        "MESSAGE sip:user0@{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.2;branch=z9hG4bKm\r\nFrom: <sip:user1@{DOMAIN}>;tag=1\r\n\
         To: <sip:user0@{DOMAIN}>\r\nCall-ID: m\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n"
    );
    world.input(conns[1], message.as_bytes());
    assert!(world.output(conns[1]).starts_with("SIP/2.0 480"));
    assert_eq!(world.output(new), "");
}

#[test]
fn connections_and_handshakes_are_limited() {
    let mut config = home_config();
    (config.max_conns, config.max_handshakes) = (4, 2);
    let mut world = World::new(config);
    let first = world.connect(Listener::Tls).unwrap();
    world.connect(Listener::Tls).unwrap();
    assert_eq!(world.connect(Listener::Tls), Err(Refused::Handshakes));
    world.connect(Listener::Tcp).unwrap();
    world.connect(Listener::Tcp).unwrap();
    assert_eq!(world.connect(Listener::Tcp), Err(Refused::Conns));
    // What is not TLS makes room.
    world.input(first, b"GET / HTTP/1.1\r\n\r\n");
    assert!(matches!(world.closed(first), Some(CloseCause::Tunnel(_))));
    world.connect(Listener::Tls).unwrap();
    assert_eq!(world.pcscf.conn_count(), 4);
    // That is no matter of those who come to the other port.
    assert_eq!(world.connect(Listener::Core), Err(Refused::Stranger));
}

#[test]
fn flows_are_limited_as_well() {
    let mut config = home_config();
    config.edge.max_flows = 1;
    let mut world = World::new(config);
    world.connect(Listener::Tcp).unwrap();
    let second = world.connect(Listener::Tcp).unwrap();
    assert_eq!(world.closed(second), Some(CloseCause::Flows));
}

#[test]
fn who_does_not_read_is_not_read_and_then_closed() {
    let mut config = open_config();
    config.max_unsent = 100_000;
    let mut world = World::new(config);
    let conn = world.connect(Listener::Tcp).unwrap();
    world.stuck.insert(conn);
    let mut sent = 0;
    while world.pcscf.wants_input(conn) {
        world.input(conn, register("alice", &std::format!("{sent}")).as_bytes());
        sent += 1;
    }
    // The tunnel holds 64 KiB.
    let waiting = world.pcscf.conns[&conn].waiting();
    assert!((25_000..26_500).contains(&waiting), "{waiting}");
    assert_eq!(world.closed(conn), None);
    while !matches!(world.pcscf.conns[&conn].phase, Phase::Closing { .. }) {
        world.input(conn, register("alice", &std::format!("{sent}")).as_bytes());
        sent += 1;
    }
    // What is in the tunnel may still be read for a while.
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.closed(conn), Some(CloseCause::Unsent));
    assert_eq!(world.pcscf.conn_count(), 0);
}

#[test]
fn who_reads_again_gets_everything_in_order() {
    let mut world = World::new(open_config());
    let conn = world.connect(Listener::Tcp).unwrap();
    world.stuck.insert(conn);
    let mut sent = 0;
    while world.pcscf.wants_input(conn) {
        world.input(
            conn,
            register("alice", &std::format!("{sent:06}")).as_bytes(),
        );
        sent += 1;
    }
    world.stuck.clear();
    let mut buf = [0; 1000];
    while let Some(len) = world.pcscf.poll_conn(conn, &mut buf) {
        world
            .raw
            .get_mut(&conn)
            .unwrap()
            .extend_from_slice(&buf[..len]);
    }
    assert!(world.pcscf.wants_input(conn));
    let all = world.output(conn);
    let ids: Vec<_> = all
        .split("Call-ID: ")
        .skip(1)
        .map(|rest| &rest[..6])
        .collect();
    let wanted: Vec<_> = (0..sent).map(|at| std::format!("{at:06}")).collect();
    assert_eq!(ids, wanted);
}

#[test]
fn a_shut_down_lets_clients_go_one_after_the_other() {
    let mut world = World::new(home_config());
    world.listener = Listener::Tcp;
    let alice = world.phone("alice", 1, 2);
    let bob = world.phone("bob", 2, 2);
    let stranger = world.connect(Listener::Tcp).unwrap();
    world.events.clear();
    for phone in [alice, bob] {
        world.phones[phone].offline = true;
    }
    world.pcscf.shut_down(world.now);
    world.settle();
    assert_eq!(world.closed(stranger), Some(CloseCause::ShutDown));
    assert_eq!(world.connect(Listener::Tcp), Err(Refused::ShuttingDown));
    assert_eq!(world.pcscf.conn_count(), 4);
    let mut counts = Vec::new();
    for _ in 0..5 {
        world.run_for(Duration::from_secs(1));
        counts.push(world.pcscf.conn_count());
    }
    assert_eq!(counts.last(), Some(&0));
    assert!(counts[0] > 0, "{counts:?}");
    assert_eq!(world.events.last(), Some(&PcscfEvent::Stopped));
    assert_eq!(world.pcscf.poll_timeout(), None);
    assert_eq!(world.phones[bob].lines.len(), 0);
}

#[test]
fn without_connections_a_shut_down_is_over_at_once() {
    let mut world = World::new(home_config());
    world.pcscf.shut_down(world.now);
    world.settle();
    assert_eq!(world.events, [PcscfEvent::Stopped]);
}

#[test]
fn a_new_certificate_is_shown_to_the_next_client() {
    let mut world = World::new(home_config());
    let alice = world.phone("alice", 1, 1);
    assert_eq!(world.phones[alice].count("Registered"), 1);
    let (server, _) = fresh_tls();
    world.pcscf.set_tls(alloc::sync::Arc::new(server));
    let bob = world.phone("bob", 2, 1);
    assert_eq!(world.phones[bob].count("Registered"), 0);
    let tls = |event: &PcscfEvent| {
        matches!(
            event,
            PcscfEvent::Closed {
                cause: CloseCause::Tunnel(_),
                ..
            }
        )
    };
    assert!(world.events.iter().any(tls));
    let conn = world.phones[alice].lines.values().next().unwrap().0;
    assert!(world.pcscf.registered(conn).is_some());
}

// spec: MEM-33.310-1
#[test]
fn nothing_older_than_tls_1_2_is_spoken() {
    // A ClientHello of TLS 1.1 with TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA.
    let mut hello = std::vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0xc0, 0x13, 1, 0]);
    let mut world = World::new(home_config());
    let conn = world.connect(Listener::Tls).unwrap();
    world.input(conn, &hello);
    assert!(matches!(world.closed(conn), Some(CloseCause::Tunnel(_))));
    // A fatal alert, and nothing else.
    assert_eq!(world.raw[&conn][..1], [21]);
}

#[test]
fn inputs_for_connections_that_are_gone_change_nothing() {
    let mut world = World::new(home_config());
    let conn = world.connect(Listener::Tcp).unwrap();
    world.pcscf.handle_eof(world.now, conn);
    world.settle();
    assert_eq!(world.closed(conn), Some(CloseCause::Peer));
    world.events.clear();
    let now = world.now;
    let pcscf = &mut world.pcscf;
    pcscf.handle_input(now, conn, b"x");
    pcscf.handle_eof(now, conn);
    pcscf.connected(now, conn, "10.0.0.1:1".parse().unwrap());
    pcscf.connection_failed(now, conn);
    pcscf.close(now, conn);
    assert_eq!(pcscf.write(conn, b"x"), 0);
    assert_eq!(pcscf.received(conn), b"");
    pcscf.consume(conn, 1);
    assert_eq!(pcscf.poll_conn(conn, &mut [0; 10]), None);
    assert!(!pcscf.wants_input(conn));
    world.settle();
    assert_eq!(world.events, []);
    assert_eq!(world.pcscf.poll_timeout(), None);
}

#[test]
fn a_configuration_that_does_not_work_is_told() {
    let check = |config: ServiceConfig| Pcscf::new(config, [0; 32], Instant::ZERO).map(drop);
    assert_eq!(check(config()), Err(ServiceConfigError::NoRegistrar));
    let mut hop = CoreHop::udp("b", "203.0.113.21:5060".parse().unwrap());
    hop.transport = Transport::Tls;
    let secure = ServiceConfig {
        hops: std::vec![hop],
        ..config()
    };
    assert_eq!(check(secure), Err(ServiceConfigError::SecureHop));
    let zero = ServiceConfig {
        max_handshakes: 0,
        ..home_config()
    };
    assert_eq!(check(zero), Err(ServiceConfigError::Zero));
    let mut edge = home_config();
    edge.edge.host = "a b".into();
    assert!(matches!(check(edge), Err(ServiceConfigError::Edge(_))));
    let mut registrar = home_config();
    registrar.home.as_mut().unwrap().registrar.domains.clear();
    assert!(matches!(
        check(registrar),
        Err(ServiceConfigError::Registrar(_))
    ));
}

/// A request of `size` bytes, nearly all of which its answers repeat.
fn many_vias(method: &str, branch: &str, size: usize) -> String {
    let rest = std::format!(
        "From: <sip:alice@{DOMAIN}>;tag=1\r\nTo: <sip:nobody@{DOMAIN}>\r\nCall-ID: {branch}\r\n\
         CSeq: 7 {method}\r\nSupported: path\r\nContent-Length: 0\r\n\r\n"
    );
    let via = |branch: &str| std::format!("Via: SIP/2.0/TCP h;branch=z9hG4bK{branch}\r\n");
    let uri = if method == "REGISTER" { "" } else { "nobody@" };
    let mut text = std::format!("{method} sip:{uri}{DOMAIN} SIP/2.0\r\n");
    text += &via(branch);
    let long = via(&"x".repeat(1000));
    while text.len() + rest.len() + 2 * long.len() < size {
        text += &long;
    }
    let left = size - text.len() - rest.len() - via("").len();
    text += &via(&"y".repeat(left));
    text + &rest
}

// spec: SEC-G-01
#[test]
fn no_client_breaks_the_way_to_the_home_network_for_all() {
    let mut world = World::new(open_config());
    let alice = world.connect(Listener::Tcp).unwrap();
    world.input(alice, register("alice", "a").as_bytes());
    let bob = world.connect(Listener::Tcp).unwrap();
    world.input(bob, register("bob", "b").as_bytes());
    assert!(world.output(alice).starts_with("SIP/2.0 200"));
    assert!(world.output(bob).starts_with("SIP/2.0 200"));
    // Bob asks alice, who takes her time.
    let text = std::format!(
        "MESSAGE sip:alice@{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.2;branch=z9hG4bKq\r\nFrom: <sip:bob@{DOMAIN}>;tag=1\r\n\
         To: <sip:alice@{DOMAIN}>\r\nCall-ID: q\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n"
    );
    world.input(bob, text.as_bytes());
    let asked = world.output(alice);
    assert!(asked.starts_with("MESSAGE "), "{asked}");
    let links = world.pcscf.owners.clone();
    // Meanwhile her requests are answered with more than the edge proxy takes.
    for method in ["MESSAGE", "OPTIONS", "INVITE", "REGISTER"] {
        for size in (64_900..=65_536).step_by(53) {
            let big = many_vias(method, &std::format!("{method}{size}"), size);
            assert_eq!(big.len(), size);
            world.input(alice, big.as_bytes());
            assert_eq!(world.output(bob), "", "{method} {size}");
        }
    }
    assert_eq!(world.pcscf.owners, links);
    // What is small enough is answered, or the reason why it is not.
    let sent = world.output(alice);
    for code in [404, 513] {
        assert!(sent.contains(&std::format!("SIP/2.0 {code} ")), "{code}");
    }
    let answer = Builder::reply(&checked(asked.as_bytes()), StatusCode::OK, Some("t"));
    let answer = answer.finish(b"").unwrap();
    world.input(alice, answer.as_bytes());
    assert!(world.output(bob).starts_with("SIP/2.0 200"));
}

// spec: SEC-G-01
#[test]
fn idle_clients_do_not_lock_registrars_out() {
    let hop = |transport, last| CoreHop {
        domain: "out.example.com".into(),
        address: SocketAddr::from(([203, 0, 113, last], 5060)),
        transport,
    };
    let mut config = open_config();
    config.hops = std::vec![hop(Transport::Tcp, 21)];
    config.max_conns = 2;
    config.edge.max_core_flows = 1;
    let mut world = World::new(config);
    let client = world.connect(Listener::Tcp).unwrap();
    world.connect(Listener::Tcp).unwrap();
    assert_eq!(world.connect(Listener::Tcp), Err(Refused::Conns));
    // Out to one of them.
    let text = register("alice", "a").replace(DOMAIN, "out.example.com");
    world.input(client, text.as_bytes());
    assert_eq!(world.output(client), "");
    let Some(PcscfAction::Connect { conn: core, .. }) = world.actions.pop() else {
        panic!()
    };
    let local = "203.0.113.40:43210".parse().unwrap();
    world.pcscf.connected(world.now, core, local);
    // And in from one, up to the limit of those.
    let from = |port| FiveTuple {
        transport: Transport::Tcp,
        local: "203.0.113.40:5060".parse().unwrap(),
        remote: SocketAddr::from(([203, 0, 113, 21], port)),
    };
    let accepted = world.pcscf.accept(world.now, from(4000), Listener::Core);
    assert!(accepted.is_ok());
    let refused = world.pcscf.accept(world.now, from(4001), Listener::Core);
    assert_eq!(refused, Err(Refused::Conns));
    // Nor do registrars take the clients' places.
    world.pcscf.handle_eof(world.now, client);
    world.settle();
    world.connect(Listener::Tcp).unwrap();
    assert_eq!(world.connect(Listener::Tcp), Err(Refused::Conns));
}
