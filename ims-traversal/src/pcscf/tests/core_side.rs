//! Towards registrars elsewhere.

use sip_outbound::wire::{Builder, Message, Name, StatusCode};

use super::world::*;

use super::super::*;

const REGISTRAR: &str = "203.0.113.21:5060";

fn hop_config(transport: Transport) -> ServiceConfig {
    let hop = CoreHop {
        domain: DOMAIN.into(),
        address: REGISTRAR.parse().unwrap(),
        transport,
    };
    ServiceConfig {
        hops: std::vec![hop],
        ..config()
    }
}

fn register(world: &mut World, conn: ConnId, domain: &str) {
    let text = std::format!(
        "REGISTER sip:{domain} SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.2;branch=z9hG4bK{domain};keep\r\nFrom: <sip:alice@{DOMAIN}>;tag=1\r\n\
         To: <sip:alice@{DOMAIN}>\r\nCall-ID: x\r\nCSeq: 1 REGISTER\r\nContact: <sip:alice@10.0.0.2>;reg-id=1;\
         +sip.instance=\"<urn:uuid:00000000-0000-4000-8000-000000000001>\"\r\nSupported: path, outbound\r\nContent-Length: 0\r\n\r\n"
    );
    world.input(conn, text.as_bytes());
}

fn udp() -> FiveTuple {
    FiveTuple::udp(
        "203.0.113.40:5060".parse().unwrap(),
        REGISTRAR.parse().unwrap(),
    )
}

/// The 200 of a registrar.
fn accepted(request: &[u8]) -> Message {
    let request = checked(request);
    Builder::reply(&request, StatusCode::OK, Some("r"))
        .copy_all(request.message(), Name::CONTACT)
        .copy_all(request.message(), Name::PATH)
        .header(Name::REQUIRE, "outbound")
        .header(Name::EXPIRES, 600)
        .header(Name::SERVICE_ROUTE, "<sip:orig@203.0.113.21:5060;lr>")
        .finish(b"")
        .unwrap()
}

fn message(route: &str) -> Vec<u8> {
    std::format!(
        "MESSAGE sip:alice@10.0.0.2 SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.21:5060;branch=z9hG4bKm\r\nRoute: {route}\r\n\
         From: <sip:bob@{DOMAIN}>;tag=1\r\nTo: <sip:alice@{DOMAIN}>\r\nCall-ID: m\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

// spec: MEM-5.2.2-1, F-4.2-1, F-4.2-2
#[test]
fn registrations_go_to_the_registrar_of_their_domain_by_datagrams() {
    let mut world = World::new(hop_config(Transport::Udp));
    let conn = world.connect(Listener::Tcp).unwrap();
    register(&mut world, conn, DOMAIN);
    let (to, bytes) = world.datagrams.pop().unwrap();
    assert_eq!(to, udp());
    let sent = checked(&bytes);
    let path = String::from(sent.only(Name::PATH).unwrap());
    assert!(
        path.starts_with("<sip:") && path.ends_with("@203.0.113.40;lr;ob>"),
        "{path}"
    );
    assert!(sent.has_tag(Name::REQUIRE, "path"));
    assert!(
        sent.list(Name::VIA)
            .nth(1)
            .unwrap()
            .ends_with(";received=198.51.100.9")
    );

    let answer = accepted(&bytes);
    let received = world
        .pcscf
        .handle_datagram(world.now, udp(), answer.as_bytes());
    assert_eq!(received, Received::Consumed);
    world.settle();
    let answer = world.output(conn);
    assert!(answer.contains(";keep=60;received="), "{answer}");
    assert!(answer.contains("Flow-Timer: 60\r\n"));
    assert!(world.pcscf.registered(conn).is_some());

    // And requests come back the same way.
    world
        .pcscf
        .handle_datagram(world.now, udp(), &message(&path));
    world.settle();
    assert!(
        world
            .output(conn)
            .starts_with("MESSAGE sip:alice@10.0.0.2 SIP/2.0\r\n")
    );
}

// spec: PRJ-10-2
#[test]
fn only_registrars_are_heard() {
    let mut world = World::new(hop_config(Transport::Udp));
    let conn = world.connect(Listener::Tcp).unwrap();
    register(&mut world, conn, DOMAIN);
    let (_, bytes) = world.datagrams.pop().unwrap();
    let path = String::from(checked(&bytes).only(Name::PATH).unwrap());
    let ours = udp();
    let strange_port = FiveTuple {
        remote: "203.0.113.21:5061".parse().unwrap(),
        ..ours
    };
    let stranger = FiveTuple {
        remote: "198.51.100.7:5060".parse().unwrap(),
        ..ours
    };
    let socket = FiveTuple {
        local: "203.0.113.40:5061".parse().unwrap(),
        ..ours
    };
    let message = message(&path);
    for at in [strange_port, stranger, socket] {
        let received = world.pcscf.handle_datagram(world.now, at, &message);
        assert_eq!(received, Received::NotMine);
    }
    assert_eq!(world.output(conn), "");
    assert_eq!(world.connect(Listener::Core), Err(Refused::Stranger));
}

#[test]
fn a_registrar_that_speaks_first_is_told_that_the_flow_is_gone() {
    let mut config = hop_config(Transport::Udp);
    config.edge.token_key = Some([5; 32]);
    let mut world = World::new(config.clone());
    let conn = world.connect(Listener::Tcp).unwrap();
    register(&mut world, conn, DOMAIN);
    let (_, bytes) = world.datagrams.pop().unwrap();
    let path = String::from(checked(&bytes).only(Name::PATH).unwrap());

    // The P-CSCF has been restarted.
    let mut world = World::new(config);
    world
        .pcscf
        .handle_datagram(world.now, udp(), &message(&path));
    world.settle();
    let (to, bytes) = world.datagrams.pop().unwrap();
    assert_eq!(to, udp());
    assert!(bytes.starts_with(b"SIP/2.0 430 "));
}

#[test]
fn other_domains_are_refused() {
    let mut world = World::new(hop_config(Transport::Udp));
    let conn = world.connect(Listener::Tcp).unwrap();
    register(&mut world, conn, "elsewhere.example");
    assert!(world.output(conn).starts_with("SIP/2.0 500"));
    assert_eq!(world.datagrams, []);
    let host = "elsewhere.example".into();
    assert!(world.events.contains(&PcscfEvent::NoRoute { host }));
}

#[test]
fn a_registrar_may_be_reached_over_tcp() {
    let mut world = World::new(hop_config(Transport::Tcp));
    let conn = world.connect(Listener::Tcp).unwrap();
    register(&mut world, conn, DOMAIN);
    let Some(PcscfAction::Connect { conn: core, to }) = world.actions.pop() else {
        panic!()
    };
    assert_eq!(to, REGISTRAR.parse().unwrap());
    world.raw.insert(core, Vec::new());
    let local = "203.0.113.40:43210".parse().unwrap();
    world.pcscf.connected(world.now, core, local);
    world.settle();
    let sent = world.output(core);
    assert!(sent.starts_with("REGISTER "));
    world.input(core, accepted(sent.as_bytes()).as_bytes());
    assert!(world.output(conn).starts_with("SIP/2.0 200"));
    // It goes; the next request opens another one.
    world.pcscf.handle_eof(world.now, core);
    world.settle();
    assert_eq!(world.closed(core), Some(CloseCause::Peer));
    register(&mut world, conn, "203.0.113.21:5060");
    assert_eq!(world.actions.len(), 1);
}

#[test]
fn a_registrar_that_cannot_be_reached_is_a_500() {
    for refused in [true, false] {
        let mut world = World::new(hop_config(Transport::Tcp));
        let conn = world.connect(Listener::Tcp).unwrap();
        register(&mut world, conn, DOMAIN);
        let Some(PcscfAction::Connect { conn: core, .. }) = world.actions.pop() else {
            panic!()
        };
        if refused {
            world.pcscf.connection_failed(world.now, core);
            world.settle();
        } else {
            world.run_for(Duration::from_secs(15));
        }
        assert!(world.output(conn).contains("SIP/2.0 500"));
        assert_eq!(world.closed(core), Some(CloseCause::NoConnection));
    }
}

#[test]
fn a_registrar_may_open_connections_itself() {
    let mut world = World::new(hop_config(Transport::Udp));
    let conn = world.connect(Listener::Tcp).unwrap();
    register(&mut world, conn, DOMAIN);
    let (_, bytes) = world.datagrams.pop().unwrap();
    let path = String::from(checked(&bytes).only(Name::PATH).unwrap());
    let tuple = FiveTuple {
        transport: Transport::Tcp,
        local: "203.0.113.40:5060".parse().unwrap(),
        remote: "203.0.113.21:43999".parse().unwrap(),
    };
    let core = world
        .pcscf
        .accept(world.now, tuple, Listener::Core)
        .unwrap();
    world.raw.insert(core, Vec::new());
    world.input(core, &message(&path));
    assert!(world.output(conn).starts_with("MESSAGE "));
}

#[test]
fn clients_call_it_by_the_port_they_came_to() {
    let mut config = hop_config(Transport::Udp);
    config.core_socket.set_port(5070);
    let mut world = World::new(config);
    let conn = world.connect(Listener::Tcp).unwrap();
    for name in ["203.0.113.40:80", "203.0.113.40", "pcscf.example.com:443"] {
        let text = std::format!(
            "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.2;branch=z9hG4bK{name}\r\nRoute: <sip:{name};lr>\r\n\
             From: <sip:alice@{DOMAIN}>;tag=1\r\nTo: <sip:alice@{DOMAIN}>\r\nCall-ID: x\r\nCSeq: 1 REGISTER\r\n\
             Contact: <sip:alice@10.0.0.2>\r\nSupported: path\r\nContent-Length: 0\r\n\r\n"
        );
        world.input(conn, text.as_bytes());
        let (_, bytes) = world.datagrams.pop().unwrap();
        let sent = checked(&bytes);
        assert!(!sent.has(Name::ROUTE));
        let path = sent.only(Name::PATH).unwrap();
        assert!(path.ends_with("@203.0.113.40:5070;lr>"), "{path}");
    }
}

#[test]
fn a_registrar_that_was_silent_for_long_is_still_known() {
    let mut world = World::new(hop_config(Transport::Udp));
    let conn = world.connect(Listener::Tcp).unwrap();
    register(&mut world, conn, DOMAIN);
    let (_, bytes) = world.datagrams.pop().unwrap();
    let path = String::from(checked(&bytes).only(Name::PATH).unwrap());
    let answer = accepted(&bytes);
    world
        .pcscf
        .handle_datagram(world.now, udp(), answer.as_bytes());
    // The registrar is called by its address as well.
    register(&mut world, conn, "203.0.113.21:5060");
    world.output(conn);
    for minute in 0..60 {
        world.run_for(Duration::from_secs(60));
        world.input(conn, b"\r\n\r\n");
        if minute % 9 == 0 {
            register(&mut world, conn, DOMAIN);
            let (_, bytes) = world.datagrams.pop().unwrap();
            let answer = accepted(&bytes);
            world
                .pcscf
                .handle_datagram(world.now, udp(), answer.as_bytes());
            world.settle();
        }
    }
    world.output(conn);
    // Requests of the core may be large from the first one on.
    let text = message(&path);
    let body = "x".repeat(5000);
    let text = String::from_utf8(text).unwrap();
    let text = text.replace(
        "Length: 0\r\n\r\n",
        &std::format!("Length: 5000\r\n\r\n{body}"),
    );
    world
        .pcscf
        .handle_datagram(world.now, udp(), text.as_bytes());
    world.settle();
    let got = world.output(conn);
    assert!(got.starts_with("MESSAGE ") && got.ends_with(&body), "{got}");
}

#[test]
fn a_connection_to_a_registrar_that_comes_late_does_not_hold_up_the_shut_down() {
    let mut world = World::new(hop_config(Transport::Tcp));
    let conn = world.connect(Listener::Tcp).unwrap();
    // Its first line has been read.
    world.input(conn, b"\r\n\r\nREGISTER ");
    world.pcscf.shut_down(world.now);
    let rest = std::format!(
        "sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.2;branch=z9hG4bKr\r\nFrom: <sip:alice@{DOMAIN}>;tag=1\r\n\
         To: <sip:alice@{DOMAIN}>\r\nCall-ID: x\r\nCSeq: 1 REGISTER\r\nContact: <sip:alice@10.0.0.2>\r\n\
         Supported: path\r\nContent-Length: 0\r\n\r\n"
    );
    world.input(conn, rest.as_bytes());
    let Some(PcscfAction::Connect { conn: core, .. }) = world.actions.pop() else {
        panic!()
    };
    let local = "203.0.113.40:43210".parse().unwrap();
    world.raw.insert(core, Vec::new());
    world.pcscf.connected(world.now, core, local);
    world.settle();
    assert!(world.output(core).starts_with("REGISTER "));
    // The registrar keeps it busy.
    for _ in 0..12 {
        world.run_for(Duration::from_secs(1));
        world.input(core, b"\r\n\r\n");
    }
    assert_eq!(world.closed(core), Some(CloseCause::ShutDown));
    assert_eq!(world.events.last(), Some(&PcscfEvent::Stopped));
    assert_eq!(world.pcscf.poll_timeout(), None);
}

#[test]
fn nothing_is_reported_behind_the_end() {
    let mut world = World::new(hop_config(Transport::Tcp));
    let conn = world.connect(Listener::Tcp).unwrap();
    register(&mut world, conn, DOMAIN);
    let Some(PcscfAction::Connect { conn: core, .. }) = world.actions.pop() else {
        panic!()
    };
    world.pcscf.shut_down(world.now);
    world.settle();
    // The client goes, and nobody is left to be told that its request failed.
    world.pcscf.handle_eof(world.now, conn);
    world.settle();
    world.pcscf.connection_failed(world.now, core);
    world.settle();
    assert_eq!(world.closed(core), Some(CloseCause::NoConnection));
    assert_eq!(world.events.last(), Some(&PcscfEvent::Stopped));
    let stops = |event: &&PcscfEvent| **event == PcscfEvent::Stopped;
    assert_eq!(world.events.iter().filter(stops).count(), 1);
    assert!(world.actions.is_empty(), "{:?}", world.actions);
}

#[test]
fn debug_output_shows_no_keys() {
    let mut config = hop_config(Transport::Udp);
    config.edge.token_key = Some([203; 32]);
    let pcscf = Pcscf::new(config.clone(), [2; 32], Instant::ZERO).unwrap();
    for text in [std::format!("{config:?}"), std::format!("{pcscf:?}")] {
        assert!(text.contains("token_key: true"), "{text}");
        assert!(!text.contains("203, 203"), "{text}");
    }
}
