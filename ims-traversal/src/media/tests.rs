#![allow(
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "test code"
)]

mod world;

use core::time::Duration;

use alloc::string::ToString as _;
use alloc::vec::Vec;
use alloc::{format, vec};
use std::sync::OnceLock;

use http_connect::auth::{Allow, Credentials};
use ice_proto::{
    CandidateKind, Policy, Role, SessionConfig, Step, Transport, TurnServer, sdp::Line,
};
use stun_proto::auth::Credentials as TurnCredentials;

use self::world::{PROXY, TURN, TURN_TCP, TURN_TLS, World, tls_configs};
use super::*;
use crate::conns::{ConnError, Endpoint, HttpProxy};
use crate::sdp::{Negotiation, NegotiationConfig, RemoteTransport};
use crate::tunnel::TunnelError;

type Configs = (
    alloc::sync::Arc<rustls::ClientConfig>,
    alloc::sync::Arc<rustls::ServerConfig>,
);

/// Made once, because keys take their time.
fn configs() -> &'static Configs {
    static CONFIGS: OnceLock<Configs> = OnceLock::new();
    CONFIGS.get_or_init(|| tls_configs("turn.example"))
}

const RTP: ComponentId = ComponentId {
    stream: 0,
    component: 1,
};
const RTCP: ComponentId = ComponentId {
    stream: 0,
    component: 2,
};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn turn(at: &str, transport: Transport) -> TurnServer {
    TurnServer {
        addr: addr(at),
        transport,
        credentials: TurnCredentials::new("George", "wilma-6.7"),
        server_name: Some("turn.example".into()),
        family: None,
    }
}

fn proxy(credentials: Option<Credentials>) -> HttpProxy {
    let mut proxy = HttpProxy::new(Endpoint::Addr(addr(PROXY)), credentials);
    proxy.auth.policy_mut().basic = Allow::Always;
    proxy
}

fn config(role: Role, servers: &[(&str, Transport)]) -> MediaConfig {
    let mut session = SessionConfig::new(role);
    session.turn_servers = servers.iter().map(|(at, by)| turn(at, *by)).collect();
    MediaConfig {
        tls: Some(configs().0.clone()),
        ..MediaConfig::new(session)
    }
}

fn world() -> World {
    World::new(configs().1.clone())
}

/// Alice with this configuration, and Bob who has nothing but a host address.
fn alice_and_bob(alice: MediaConfig) -> World {
    let mut world = world();
    let bob = config(Role::Controlled, &[]);
    for (config, seed, host) in [(alice, 1, "192.0.2.1:4000"), (bob, 2, "192.0.2.2:5000")] {
        let media = Media::new(config, [seed; 32], Instant::ZERO);
        let node = world.add(media, &[(RTP, host)]);
        world.nodes[node].media.gather(Instant::ZERO).unwrap();
    }
    world
}

/// The whole exchange of descriptions.
fn negotiate(world: &mut World) {
    let side = |session| Negotiation::new(NegotiationConfig::default(), session).unwrap();
    let (mut alice, mut bob) = (side(2), side(4));
    let local = |world: &World, node: usize| world.nodes[node].media.local(0).unwrap();
    let offer = alice.offer(&local(world, 0)).unwrap();
    bob.handle_offer(offer.as_bytes()).unwrap();
    let answer = bob.answer(&local(world, 1)).unwrap();
    alice.handle_answer(answer.as_bytes()).unwrap();
    for (node, side) in [(1, &bob), (0, &alice)] {
        let agreed = side.agreed().unwrap();
        let now = world.now;
        let media = &mut world.nodes[node].media;
        if agreed.rtcp_mux {
            media.limit_components(now, 0, 1);
        }
        match &agreed.transport {
            RemoteTransport::Ice(description) => {
                media.set_remote(now, description).unwrap();
            }
            RemoteTransport::Plain { .. } => {
                let peers = agreed.transport.addresses();
                media.set_remote_plain(now, 0, &peers).unwrap();
            }
            RemoteTransport::Nowhere => {}
        }
    }
}

fn chat(world: &mut World) {
    let (ping, pong) = (vec![0x80; 172], vec![0x81; 160]);
    assert!(world.send(0, RTP, &ping) && world.send(1, RTP, &pong));
    world.run(100);
    let got = |world: &World, node: usize| world.nodes[node].data.clone();
    assert_eq!(got(world, 1), [(RTP, ping)]);
    assert_eq!(got(world, 0), [(RTP, pong)]);
    world.nodes.iter_mut().for_each(|node| node.data.clear());
}

fn completed(world: &World) -> bool {
    let done = |node: &world::Node| node.is_told(&MediaEvent::Completed);
    world.nodes.iter().all(done)
}

fn failures(world: &World, node: usize) -> Vec<(SocketAddr, Step, ServerCause)> {
    let events = world.nodes[node].events.iter();
    let failed = events.filter_map(|event| match event {
        MediaEvent::ServerFailed {
            server,
            step,
            cause,
            ..
        } => Some((*server, *step, cause.clone())),
        _ => None,
    });
    failed.collect()
}

fn relay_leg(world: &World, node: usize) -> Option<RelayLeg> {
    let events = world.nodes[node].events.iter();
    let mut selected = events.filter_map(|event| match event {
        MediaEvent::Selected { relay, .. } => Some(*relay),
        _ => None,
    });
    selected.next_back().flatten()
}

// spec: UE-1
#[test]
fn media_flow_through_every_kind_of_leg() {
    let check = |server: &str, transport: Transport, via_proxy: bool, cut: usize| {
        let mut alice = config(Role::Controlling, &[(server, transport)]);
        alice.session.policy = Policy::RelayOnly;
        alice.proxy = via_proxy.then(|| proxy(None));
        let mut world = alice_and_bob(alice);
        world.cut = cut;
        world.nodes[0].udp_blocked = transport != Transport::Udp;
        world.run(1000);
        assert!(world.nodes[0].is_told(&MediaEvent::Gathered));
        negotiate(&mut world);
        world.run(3000);
        assert!(completed(&world), "{server} {:?}", world.nodes[0].events);
        let leg = RelayLeg {
            server: addr(server),
            transport,
            via_proxy,
        };
        assert_eq!(relay_leg(&world, 0), Some(leg));
        assert_eq!(relay_leg(&world, 1), None);
        chat(&mut world);
        // Through consent, channels and refreshed permissions.
        world.run(700_000);
        chat(&mut world);
        assert_eq!(failures(&world, 0), []);
        let to = match (transport, via_proxy) {
            (Transport::Udp, _) => vec![],
            (_, true) => vec![PROXY.into()],
            (_, false) => vec![alloc::string::String::from(server)],
        };
        assert_eq!(world.nodes[0].connects, to);
        assert_eq!(world.server.allocations(), 1);
        let now = world.now;
        world.nodes[0].media.close(now);
        world.run(1000);
        assert!(world.nodes[0].is_told(&MediaEvent::Closed));
        assert_eq!(world.nodes[0].events.last(), Some(&MediaEvent::Closed));
        assert_eq!(world.server.allocations(), 0, "given back");
        assert_eq!(world.nodes[0].closed, to.len());
        assert_eq!(world.nodes[0].media.poll_timeout(), None);
    };
    check(TURN, Transport::Udp, false, 100_000);
    check(TURN_TCP, Transport::Tcp, false, 100_000);
    check(TURN_TLS, Transport::Tls, false, 100_000);
    check(TURN_TLS, Transport::Tls, true, 100_000);
    check(TURN_TCP, Transport::Tcp, false, 1);
    check(TURN_TLS, Transport::Tls, true, 7);
}

#[test]
fn with_udp_both_ways_no_connection_is_used_for_media() {
    let alice = config(
        Role::Controlling,
        &[(TURN, Transport::Udp), (TURN_TLS, Transport::Tls)],
    );
    let mut world = alice_and_bob(alice);
    world.run(1000);
    assert_eq!(world.server.allocations(), 2);
    negotiate(&mut world);
    world.run(10_000);
    assert!(completed(&world));
    assert_eq!(relay_leg(&world, 0), None);
    chat(&mut world);
    assert_eq!(world.server.allocations(), 0, "nobody needs them");
    assert_eq!(world.nodes[0].closed, 1);
}

#[test]
fn a_proxy_that_wants_a_password_gets_it_over_a_new_connection() {
    let credentials = Credentials::new("user", "pass");
    let mut alice = config(Role::Controlling, &[(TURN_TLS, Transport::Tls)]);
    alice.session.policy = Policy::RelayOnly;
    alice.proxy = Some(proxy(Some(credentials)));
    let mut world = alice_and_bob(alice);
    world.password = Some("dXNlcjpwYXNz");
    world.run(1000);
    assert_eq!(world.nodes[0].connects, [PROXY, PROXY]);
    let server = addr(TURN_TLS);
    assert!(world.nodes[0].is_told(&MediaEvent::Proxied { server }));
    negotiate(&mut world);
    world.run(3000);
    assert!(completed(&world));
    chat(&mut world);
}

#[test]
fn a_password_the_application_knows_is_asked_for_once() {
    let mut alice = config(Role::Controlling, &[(TURN_TLS, Transport::Tls)]);
    alice.session.policy = Policy::RelayOnly;
    alice.session.agent.components = vec![2];
    alice.proxy = Some(proxy(None));
    let mut world = world();
    world.password = Some("dXNlcjpwYXNz");
    let media = Media::new(alice, [1; 32], Instant::ZERO);
    let hosts = [(RTP, "192.0.2.1:4000"), (RTCP, "192.0.2.1:4001")];
    world.add(media, &hosts);
    world.nodes[0].media.gather(Instant::ZERO).unwrap();
    world.run(500);
    let asked = |world: &World| {
        let events = world.nodes[0].events.iter();
        let conns = events.filter_map(|event| match event {
            MediaEvent::NeedCredentials { conn, realm, .. } => {
                assert_eq!(realm, "corp");
                Some(*conn)
            }
            _ => None,
        });
        conns.collect::<Vec<_>>()
    };
    let conns = asked(&world);
    assert_eq!(conns.len(), 2, "both components are under way");
    let now = world.now;
    for conn in conns {
        let credentials = Some(Credentials::new("user", "pass"));
        world.nodes[0].media.set_credentials(now, conn, credentials);
    }
    world.run(500);
    assert!(world.nodes[0].is_told(&MediaEvent::Gathered));
    assert_eq!(world.server.allocations(), 2);
    // Connections that come later use it without a question.
    let (now, media) = (world.now, &mut world.nodes[0].media);
    media.restart(now).unwrap();
    world.cut_off(0);
    world.nodes[0].media.gather(now).unwrap();
    world.run(1000);
    assert_eq!(asked(&world).len(), 2);
    assert_eq!(world.server.allocations(), 2);
}

#[test]
fn failures_name_the_server_and_the_step() {
    let check = |change: &dyn Fn(&mut MediaConfig), refuse: Option<ConnFailure>, told: &str| {
        let mut alice = config(Role::Controlling, &[(TURN_TLS, Transport::Tls)]);
        alice.session.policy = Policy::RelayOnly;
        change(&mut alice);
        let mut world = alice_and_bob(alice);
        let to = [TURN_TLS, PROXY].map(alloc::string::String::from);
        let refuses = to.into_iter().zip(refuse.into_iter().cycle());
        world.nodes[0].refuses.extend(refuses);
        world.password = Some("dXNlcjpwYXNz");
        world.run(16_000);
        let failed = failures(&world, 0);
        let [(server, Step::Open, cause)] = &failed[..] else {
            panic!("{told}: {failed:?}");
        };
        assert_eq!(
            (*server, format!("{cause}").as_str()),
            (addr(TURN_TLS), told)
        );
        assert!(world.nodes[0].is_told(&MediaEvent::Gathered));
        assert_eq!(world.nodes[0].media.local(0), None);
    };
    let nothing: &dyn Fn(&mut MediaConfig) = &|_| {};
    check(nothing, Some(ConnFailure::Refused), "connection refused");
    check(nothing, Some(ConnFailure::Unreachable), "unreachable");
    check(nothing, Some(ConnFailure::TimedOut), "timed out");
    let via = |c: &mut MediaConfig| c.proxy = Some(proxy(None));
    check(&via, Some(ConnFailure::Refused), "connection refused");
    let wrong = |c: &mut MediaConfig| c.proxy = Some(proxy(Some(Credentials::new("user", "x"))));
    check(
        &wrong,
        None,
        "the proxy refused: status 407 (user name or password was rejected)",
    );
    let other = |c: &mut MediaConfig| {
        c.session.turn_servers[0].server_name = Some("other.example".into());
    };
    let mut alice = config(Role::Controlling, &[(TURN_TLS, Transport::Tls)]);
    other(&mut alice);
    let mut world = alice_and_bob(alice);
    world.run(1000);
    assert!(matches!(
        failures(&world, 0)[..],
        [(
            _,
            Step::Open,
            ServerCause::Conn(ConnError::Tunnel(TunnelError::Certificate(_)))
        )]
    ));
    check(&|c| c.tls = None, None, "no TLS for this server");
    let bad = |c: &mut MediaConfig| c.session.turn_servers[0].server_name = Some("a b".into());
    check(&bad, None, "no TLS for this server");
    // A proxy is not asked for the ports of plain HTTP and STUN.
    let mut alice = config(Role::Controlling, &[("198.51.100.9:80", Transport::Tcp)]);
    alice.proxy = Some(proxy(None));
    let mut world = alice_and_bob(alice);
    world.run(1000);
    let failed = failures(&world, 0);
    assert_eq!(format!("{}", failed[0].2), "no CONNECT to port 80");
    assert_eq!(world.nodes[0].connects, [""; 0]);
}

#[test]
fn a_connection_that_does_not_come_about_is_given_up_where_it_is() {
    let check = |via_proxy: bool, mute: &str, told: &str| {
        let mut alice = config(Role::Controlling, &[(TURN_TLS, Transport::Tls)]);
        alice.proxy = via_proxy.then(|| proxy(None));
        let mut world = alice_and_bob(alice);
        world.mute = Some(mute.into());
        world.run(9000);
        assert!(!world.nodes[0].is_told(&MediaEvent::Gathered));
        world.run(2000);
        assert!(world.nodes[0].is_told(&MediaEvent::Gathered));
        let failed = failures(&world, 0);
        let [(server, Step::Open, cause)] = &failed[..] else {
            panic!("{told}: {failed:?}");
        };
        assert_eq!(*server, addr(TURN_TLS));
        assert_eq!(
            cause.to_string(),
            format!("not waited for any longer during {told}")
        );
        assert_eq!(world.nodes[0].closed, 1);
    };
    check(false, "connect", "the TCP connection");
    check(true, "connect", "the TCP connection");
    check(true, "input", "HTTP CONNECT");
    check(false, "input", "the TLS handshake");
    check(true, "upstream", "the TLS handshake");
}

#[test]
fn wrong_credentials_of_turn_are_the_server_s_answer() {
    let mut alice = config(Role::Controlling, &[(TURN_TLS, Transport::Tls)]);
    alice.session.turn_servers[0].credentials = TurnCredentials::new("George", "x");
    let mut world = alice_and_bob(alice);
    world.run(12_000);
    let failed = failures(&world, 0);
    assert!(
        matches!(failed[..], [(_, Step::Allocate, ServerCause::Server(_))]),
        "{failed:?}"
    );
    assert_eq!(world.nodes[0].closed, 1);
}

#[test]
fn proxies_may_be_asked_for_the_name() {
    let mut alice = config(Role::Controlling, &[("0.0.0.1:443", Transport::Tls)]);
    alice.session.policy = Policy::RelayOnly;
    alice.by_name = true;
    alice.proxy = Some(proxy(None));
    let mut world = alice_and_bob(alice);
    world.run(1000);
    negotiate(&mut world);
    world.run(3000);
    assert!(completed(&world), "{:?}", world.nodes[0].events);
    chat(&mut world);
}

/// Alice sends through a connection that takes nothing.
#[test]
fn a_full_connection_drops_media_and_does_not_grow() {
    for (server, transport) in [(TURN_TCP, Transport::Tcp), (TURN_TLS, Transport::Tls)] {
        let mut alice = config(Role::Controlling, &[(server, transport)]);
        alice.session.policy = Policy::RelayOnly;
        alice.media_queue = 4000;
        let mut world = alice_and_bob(alice);
        world.run(1000);
        negotiate(&mut world);
        world.run(3000);
        chat(&mut world);
        world.nodes[0].stuck = true;
        let mut buf = [0; 1500];
        let (now, media) = (world.now, &mut world.nodes[0].media);
        let mut sent = 0;
        for _ in 0..1000 {
            match media.send(now, RTP, &[0x80; 172], &mut buf) {
                Ok(None) => sent += 1,
                other => assert_eq!(other, Err(SendError::Congested)),
            }
        }
        assert!((15..=22).contains(&sent), "{sent}");
        let stats = media.stats();
        assert_eq!((stats.congested, stats.lost), (1000 - sent, 0));
        let waiting: usize = {
            let conn = media.writable().next().unwrap();
            core::iter::from_fn(|| media.poll_conn(conn, &mut buf)).sum()
        };
        assert!(waiting <= 4000, "{waiting}");
        // What comes after is whole.
        assert_eq!(media.send(now, RTP, &[0x80; 172], &mut buf), Ok(None));
    }
}

#[test]
fn a_connection_that_breaks_takes_its_relay_with_it() {
    let mut alice = config(Role::Controlling, &[(TURN_TLS, Transport::Tls)]);
    alice.session.policy = Policy::RelayOnly;
    let mut world = alice_and_bob(alice);
    world.run(1000);
    negotiate(&mut world);
    world.run(3000);
    chat(&mut world);
    world.cut_off(0);
    world.run(100);
    let failed = failures(&world, 0);
    let reset = ServerCause::Conn(ConnError::Tcp(ConnFailure::Reset));
    assert_eq!(
        failed.first(),
        Some(&(addr(TURN_TLS), Step::Refresh, reset))
    );
    let lost = |event: &MediaEvent| matches!(event, MediaEvent::RouteLost { .. });
    assert!(world.nodes[0].events.iter().any(lost));
    assert!(!world.send(0, RTP, b"\x80"));
    // A restart finds another relay.
    for node in 0..2 {
        let now = world.now;
        let media = &mut world.nodes[node].media;
        media.restart(now).unwrap();
        media.gather(now).unwrap();
        world.nodes[node].events.clear();
    }
    world.run(1000);
    negotiate(&mut world);
    world.run(3000);
    assert!(completed(&world));
    chat(&mut world);
}

// spec: UE-2, UE-5
#[test]
fn a_far_end_without_ice_is_reached_through_the_relay() {
    let far = addr("203.0.113.77:30000");
    for (server, transport) in [(TURN, Transport::Udp), (TURN_TLS, Transport::Tls)] {
        let mut alice = config(Role::Controlling, &[(server, transport)]);
        alice.media_timeout = Some(Duration::from_secs(60));
        let mut world = world();
        let media = Media::new(alice, [1; 32], Instant::ZERO);
        world.add(media, &[(RTP, "192.0.2.1:4000")]);
        world.nodes[0].media.gather(Instant::ZERO).unwrap();
        world.run(1000);
        let mut side = Negotiation::new(NegotiationConfig::default(), 2).unwrap();
        let local = world.nodes[0].media.local(0).unwrap();
        assert_eq!(local.rtp.ip(), addr(TURN).ip(), "the relay is the default");
        side.offer(&local).unwrap();
        let answer = b"v=0\r\no=- 1 1 IN IP4 203.0.113.77\r\ns=-\r\nc=IN IP4 203.0.113.77\r\n\
            t=0 0\r\nm=audio 30000 RTP/AVP 0\r\na=rtcp-mux\r\n";
        let agreed = side.handle_answer(answer).unwrap();
        let peers = agreed.transport.addresses();
        let now = world.now;
        world.nodes[0]
            .media
            .set_remote_plain(now, 0, &peers)
            .unwrap();
        world.run(500);
        assert!(world.nodes[0].is_told(&MediaEvent::Completed));
        assert!(world.send(0, RTP, b"\x80media"));
        world.run(100);
        let got = world.plain.last().unwrap();
        assert_eq!(*got, (local.rtp, far, b"\x80media".to_vec()));
        // What comes back from there is data, what comes from elsewhere is not.
        world.datagram(far, local.rtp, b"\x80back");
        world.datagram(addr("203.0.113.77:30002"), local.rtp, b"\x80astray");
        world.run(100);
        assert_eq!(world.nodes[0].data, [(RTP, b"\x80back".to_vec())]);
        assert!(world.nodes[0].is_told(&MediaEvent::Heard { component: RTP }));
        // The path is kept open, and silence is told.
        world.plain.clear();
        world.run(61_000);
        assert_eq!(world.plain.len(), 4, "every 15 s");
        assert!(
            world
                .plain
                .iter()
                .all(|(from, to, _)| (*from, *to) == (local.rtp, far))
        );
        assert!(world.nodes[0].is_told(&MediaEvent::Silent { component: RTP }));
    }
}

#[test]
fn silence_counts_only_while_data_are_expected() {
    let mut alice = config(Role::Controlling, &[]);
    alice.media_timeout = Some(Duration::from_secs(20));
    let mut world = alice_and_bob(alice);
    world.run(100);
    negotiate(&mut world);
    world.run(1000);
    let count = |world: &World, event: MediaEvent| {
        let events = world.nodes[0].events.iter();
        events.filter(|known| **known == event).count()
    };
    let (silent, heard) = (
        MediaEvent::Silent { component: RTP },
        MediaEvent::Heard { component: RTP },
    );
    for _ in 0..5 {
        world.run(15_000);
        assert!(world.send(1, RTP, b"\x80"));
    }
    world.run(1000);
    assert_eq!(count(&world, silent.clone()), 0);
    assert_eq!(count(&world, heard.clone()), 1);
    world.run(30_000);
    assert_eq!(count(&world, silent.clone()), 1);
    world.run(30_000);
    assert_eq!(count(&world, silent.clone()), 1, "told once");
    assert!(world.send(1, RTP, b"\x80"));
    world.run(1000);
    assert_eq!(count(&world, heard), 2);
    let now = world.now;
    world.nodes[0].media.expect_data(now, false);
    world.run(100_000);
    assert_eq!(count(&world, silent.clone()), 1, "on hold");
    let now = world.now;
    world.nodes[0].media.expect_data(now, true);
    world.run(19_000);
    assert_eq!(count(&world, silent.clone()), 1);
    world.run(2000);
    assert_eq!(count(&world, silent), 2);
}

// spec: UE-3
#[test]
fn against_a_lite_side_this_one_controls_whoever_offered() {
    for role in [Role::Controlling, Role::Controlled] {
        let mut world = world();
        let alice = config(role, &[(TURN_TLS, Transport::Tls)]);
        let mut gateway = config(Role::Controlling, &[]);
        gateway.session.agent.lite = true;
        for (config, seed, host) in [(alice, 1, "192.0.2.1:4000"), (gateway, 2, "192.0.2.2:5000")] {
            let media = Media::new(config, [seed; 32], Instant::ZERO);
            let node = world.add(media, &[(RTP, host)]);
            world.nodes[node].media.gather(Instant::ZERO).unwrap();
        }
        // Nothing but the relay gets through.
        world.nodes[0].udp_blocked = true;
        world.run(1000);
        negotiate(&mut world);
        world.run(3000);
        assert!(completed(&world));
        assert_eq!(world.nodes[0].media.agent().role(), Role::Controlling);
        assert_eq!(world.nodes[1].media.agent().role(), Role::Controlled);
        assert!(relay_leg(&world, 0).is_some());
        chat(&mut world);
        assert!(
            !world.nodes[0].is_told(&MediaEvent::OfferDue),
            "both know ice2"
        );
    }
}

// spec: UE-6
#[test]
fn without_any_server_the_host_address_is_offered() {
    let servers = [(TURN_TLS, Transport::Tls), (TURN, Transport::Udp)];
    let mut world = world();
    let media = Media::new(config(Role::Controlling, &servers), [1; 32], Instant::ZERO);
    world.add(media, &[(RTP, "192.0.2.1:4000")]);
    let node = &mut world.nodes[0];
    node.udp_blocked = true;
    node.refuses
        .insert(TURN_TLS.into(), ConnFailure::Unreachable);
    node.media.gather(Instant::ZERO).unwrap();
    world.run(11_000);
    assert!(world.nodes[0].is_told(&MediaEvent::Gathered));
    assert_eq!(failures(&world, 0).len(), 2);
    let local = world.nodes[0].media.local(0).unwrap();
    assert_eq!(local.rtp, addr("192.0.2.1:4000"));
    let mut side = Negotiation::new(NegotiationConfig::default(), 2).unwrap();
    let offer = side.offer(&local).unwrap();
    assert_eq!(offer.matches("a=candidate:").count(), 1);
}

// spec: UE-4
#[test]
fn rtp_and_rtcp_leave_from_where_they_are_told_to_come() {
    let mut world = world();
    let mut alice = config(Role::Controlling, &[(TURN, Transport::Udp)]);
    alice.session.agent.components = vec![2];
    let media = Media::new(alice, [1; 32], Instant::ZERO);
    world.add(media, &[(RTP, "192.0.2.1:4000"), (RTCP, "192.0.2.1:4001")]);
    world.nodes[0].media.gather(Instant::ZERO).unwrap();
    world.run(1000);
    let local = world.nodes[0].media.local(0).unwrap();
    let mut side = Negotiation::new(NegotiationConfig::default(), 2).unwrap();
    let offer = side.offer(&local).unwrap();
    let rtcp = local.rtcp.unwrap();
    assert!(offer.contains(&format!("a=rtcp:{} IN IP4 198.51.100.9\r\n", rtcp.port())));
    let answer = b"v=0\r\no=- 1 1 IN IP4 203.0.113.77\r\ns=-\r\nc=IN IP4 203.0.113.77\r\n\
        t=0 0\r\nm=audio 30000 RTP/AVP 0\r\na=rtcp:30009\r\n";
    let peers = side.handle_answer(answer).unwrap().transport.addresses();
    let now = world.now;
    let media = &mut world.nodes[0].media;
    media.set_remote_plain(now, 0, &peers).unwrap();
    world.run(500);
    assert!(world.send(0, RTP, b"\x80rtp") && world.send(0, RTCP, b"\x80rtcp"));
    world.run(100);
    let far = |port| SocketAddr::new(addr("203.0.113.77:1").ip(), port);
    let sent = [
        (local.rtp, far(30_000), b"\x80rtp".to_vec()),
        (rtcp, far(30_009), b"\x80rtcp".to_vec()),
    ];
    assert_eq!(world.plain, sent);
}

#[test]
fn sending_and_receiving_over_udp_allocate_nothing() {
    let mut world = alice_and_bob(config(Role::Controlling, &[]));
    world.run(100);
    negotiate(&mut world);
    world.run(3000);
    chat(&mut world);
    let at = FiveTuple::udp(addr("192.0.2.1:4000"), addr("192.0.2.2:5000"));
    let (now, media) = (world.now, &mut world.nodes[0].media);
    let (mut buf, payload) = ([0; 1500], [0x80; 172]);
    let used = allocation_counter::measure(|| {
        for _ in 0..1000 {
            assert!(media.send(now, RTP, &payload, &mut buf).is_ok());
            let received = media.handle_datagram(now, at, &payload);
            assert!(matches!(received, Received::Data { .. }));
        }
    });
    assert_eq!(used.count_total, 0);
}

// spec: ICE-5.1.1.1-4
#[test]
fn a_second_component_is_there_until_rtcp_shares_the_first() {
    let mut world = world();
    let mut alice = config(Role::Controlling, &[(TURN, Transport::Udp)]);
    alice.session.agent.components = vec![2];
    let media = Media::new(alice, [1; 32], Instant::ZERO);
    world.add(media, &[(RTP, "192.0.2.1:4000"), (RTCP, "192.0.2.1:4001")]);
    let bob = config(Role::Controlled, &[]);
    let media = Media::new(bob, [2; 32], Instant::ZERO);
    world.add(media, &[(RTP, "192.0.2.2:5000")]);
    for node in &mut world.nodes {
        node.media.gather(Instant::ZERO).unwrap();
    }
    world.run(1000);
    assert_eq!(world.server.allocations(), 2);
    let local = world.nodes[0].media.local(0).unwrap();
    assert!(local.rtcp.is_some());
    let of_second = |line: &&Line| matches!(line, Line::Candidate(c) if c.component == 2);
    assert_eq!(local.ice.iter().filter(of_second).count(), 2);
    negotiate(&mut world);
    world.run(1000);
    assert!(completed(&world));
    let local = world.nodes[0].media.local(0).unwrap();
    assert_eq!(local.rtcp, None);
    chat(&mut world);
}

// spec: SDP-4.3.4-1
#[test]
fn peers_of_rfc_5245_are_told_the_selected_address() {
    for (ice2, due) in [(true, false), (false, true)] {
        let alice = config(Role::Controlling, &[(TURN, Transport::Udp)]);
        let mut world = alice_and_bob(alice);
        world.run(1000);
        let text: alloc::string::String = world.nodes[1]
            .media
            .local(0)
            .unwrap()
            .ice
            .iter()
            .filter(|line| ice2 || !matches!(line, Line::Options(_)))
            .map(|line| format!("a={line}\n"))
            .collect();
        let bob = RemoteDescription::parse(&text).unwrap();
        let text: alloc::string::String = world.nodes[0]
            .media
            .local(0)
            .unwrap()
            .ice
            .iter()
            .map(|line| format!("a={line}\n"))
            .collect();
        let alice = RemoteDescription::parse(&text).unwrap();
        let now = world.now;
        world.nodes[0].media.set_remote(now, &bob).unwrap();
        world.nodes[1].media.set_remote(now, &alice).unwrap();
        world.run(3000);
        assert!(completed(&world));
        assert_eq!(world.nodes[0].is_told(&MediaEvent::OfferDue), due);
        assert!(!world.nodes[1].is_told(&MediaEvent::OfferDue));
        let local = world.nodes[0].media.local(0).unwrap();
        assert_eq!(local.rtp, addr("192.0.2.1:4000"));
        let remote = Line::RemoteCandidates(vec![(1, addr("192.0.2.2:5000"))]);
        assert!(local.ice.contains(&remote));
    }
}

#[test]
fn nothing_is_left_after_the_end() {
    let mut world = alice_and_bob(config(Role::Controlling, &[(TURN_TLS, Transport::Tls)]));
    let now = world.now;
    world.nodes[0].media.close(now);
    world.run(1000);
    let events = world.nodes[0].events.clone();
    assert_eq!(events.last(), Some(&MediaEvent::Closed));
    world.run(100_000);
    assert_eq!(world.nodes[0].events, events);
    let media = &mut world.nodes[0].media;
    assert_eq!(media.poll_timeout(), None);
    assert!(media.gather(now).is_err() && media.restart(now).is_err());
    let kind = |c: &ice_proto::Candidate| c.kind == CandidateKind::Relayed;
    assert!(!media.agent().local_candidates().any(|(_, c)| kind(&c)));
}
