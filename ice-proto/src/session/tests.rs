#![allow(
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "test code"
)]

mod restart;
mod world;

use alloc::string::{String, ToString};

use stun_proto::Transport;
use stun_proto::auth::Credentials as TurnCredentials;
use turn_proto::client::Cause;

use self::world::{Mood, Net, Node, TURN, TURN_TLS, addr};
use super::*;
use crate::{Event, Failure, Role};

const ONE: ComponentId = ComponentId {
    stream: 0,
    component: 1,
};

fn turn(addr_text: &str, transport: Transport) -> TurnServer {
    TurnServer {
        addr: addr(addr_text),
        transport,
        credentials: TurnCredentials::new("George", "wilma-6.7"),
        server_name: Some("turn.example.com".into()),
        family: None,
    }
}

fn config(role: Role) -> SessionConfig {
    SessionConfig::new(role)
}

/// A node behind a NAT whose outside is `public`.
fn node(config: SessionConfig, seed: u8, host: &str, public: &str) -> Node {
    let mut session = Session::new(config, [seed; 32], Instant::ZERO);
    session.add_host(Instant::ZERO, ONE, addr(host)).unwrap();
    session.gather(Instant::ZERO).unwrap();
    Node::new(session, &[(host, public)])
}

fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

fn failures(node: &Node) -> Vec<(SocketAddr, Step, ServerFailure)> {
    node.events
        .iter()
        .filter_map(|event| match event {
            SessionEvent::ServerFailed {
                server,
                step,
                cause,
                ..
            } => Some((*server, *step, *cause)),
            _ => None,
        })
        .collect()
}

fn candidates(node: &Node) -> Vec<String> {
    node.events
        .iter()
        .filter_map(|event| match event {
            SessionEvent::LocalCandidate { candidate, .. } => Some(candidate.to_string()),
            _ => None,
        })
        .collect()
}

fn gathered(node: &Node) -> bool {
    node.events.contains(&SessionEvent::GatheringDone)
}

// spec: ICE-5.1.1.1-1, ICE-5.1.1.2-1, ICE-5.1.1.2-2, ICE-5.1.1.2-3, ICE-5.1.1.3-1, SDP-5.1-1
#[test]
fn host_reflexive_and_relayed_candidates_are_gathered_at_the_pace_of_ta() {
    let config = SessionConfig {
        stun_servers: alloc::vec![addr("198.51.100.5:3478")],
        turn_servers: alloc::vec![turn(TURN, Transport::Udp)],
        ..config(Role::Controlling)
    };
    let a = node(config, 1, "10.0.0.1:1000", "192.0.2.1:61000");
    let mut net = Net::new(alloc::vec![a]);
    net.run(3000);
    assert_eq!(
        candidates(&net.nodes[0]),
        [
            "candidate:1 1 udp 2130706431 10.0.0.1 1000 typ host",
            "candidate:2 1 udp 1694498815 192.0.2.1 61000 typ srflx raddr 10.0.0.1 rport 1000",
            "candidate:3 1 udp 16777215 198.51.100.9 50000 typ relay raddr 192.0.2.1 rport 61000",
        ]
    );
    assert!(gathered(&net.nodes[0]));
    let times: Vec<u128> = net
        .sent
        .iter()
        .map(|sent| sent.at.duration_since(Instant::ZERO).as_millis())
        .collect();
    assert_eq!(
        times,
        [0, 50, 100],
        "Binding, Allocate, Allocate with credentials"
    );
    assert!(failures(&net.nodes[0]).is_empty());
}

// spec: ICE-5.1.2.2-1, ICE-5.1.2-1, SDP-4.2.1.2-1
#[test]
fn several_turn_servers_have_different_preferences_udp_first() {
    let config = SessionConfig {
        turn_servers: alloc::vec![turn(TURN_TLS, Transport::Tls), turn(TURN, Transport::Udp)],
        ..config(Role::Controlling)
    };
    let a = node(config, 1, "10.0.0.1:1000", "192.0.2.1:61000");
    let default = a.session.default_address(ONE);
    assert_eq!(
        default,
        addr("10.0.0.1:1000"),
        "as long as there is no other"
    );
    let mut net = Net::new(alloc::vec![a]);
    net.run(3000);
    let mut relayed: Vec<(u32, u16)> = net.nodes[0]
        .session
        .agent()
        .local_candidates()
        .filter(|(_, candidate)| candidate.kind == CandidateKind::Relayed)
        .map(|(_, candidate)| (candidate.priority, candidate.addr.port()))
        .collect();
    relayed.sort();
    assert_eq!(relayed.len(), 2);
    assert!(relayed[0].0 < relayed[1].0);
    let default = net.nodes[0].session.default_address(ONE);
    assert_eq!(default.port(), relayed[1].1);
    let over_udp = net.server.relayed_over_udp();
    assert_eq!(default, over_udp, "the relay reached over UDP");
}

// spec: ICE-10-1, SDP-4.2.1.5-1, TRK-3-1, SDP-5.5-1, SDP-4.3.1-1
#[test]
fn descriptions_say_what_they_must_for_every_stream() {
    let mut config = config(Role::Controlling);
    config.agent.components = alloc::vec![1, 1];
    config.agent.pacing = core::time::Duration::from_millis(20);
    let mut session = Session::new(config, [1; 32], Instant::ZERO);
    session
        .add_host(Instant::ZERO, ONE, addr("192.0.2.1:1000"))
        .unwrap();
    for stream in 0..2 {
        let lines: Vec<String> = session
            .description(stream)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(lines[0].starts_with("ice-ufrag:") && lines[1].starts_with("ice-pwd:"));
        assert_eq!(lines[2..4], ["ice-options:trickle ice2", "ice-pacing:20"]);
        let shown = lines.iter().filter(|l| l.starts_with("candidate:")).count();
        assert_eq!(shown, usize::from(stream == 0));
        assert!(!lines.contains(&"end-of-candidates".into()));
    }
    session.gather(Instant::ZERO).unwrap();
    let last = session.description(1).pop().unwrap();
    assert_eq!(last.to_string(), "end-of-candidates");
}

// spec: ICE-5.1.3-1
#[test]
fn without_a_nat_the_reflexive_address_is_redundant() {
    let config = SessionConfig {
        stun_servers: alloc::vec![addr("198.51.100.5:3478")],
        ..config(Role::Controlling)
    };
    let a = node(config, 1, "192.0.2.1:1000", "192.0.2.1:1000");
    let mut net = Net::new(alloc::vec![a]);
    net.run(1000);
    assert_eq!(candidates(&net.nodes[0]).len(), 1);
    assert!(gathered(&net.nodes[0]));
}

// spec: ICE-5.1.1.1-2
#[test]
fn addresses_that_cannot_be_candidates_are_refused() {
    let mut session = Session::new(config(Role::Controlling), [1; 32], Instant::ZERO);
    for bad in ["127.0.0.1:1", "0.0.0.0:1", "[::1]:1", "[fec0::1]:1"] {
        let refused = session.add_host(Instant::ZERO, ONE, addr(bad));
        assert_eq!(refused, Err(SessionError::Address), "{bad}");
    }
    let other = ComponentId {
        stream: 1,
        component: 1,
    };
    let refused = session.add_host(Instant::ZERO, other, addr("192.0.2.1:1"));
    assert_eq!(refused, Err(CandidateError::Component.into()));
    session.gather(Instant::ZERO).unwrap();
    assert_eq!(session.gather(Instant::ZERO), Err(SessionError::State));
    let late = session.add_host(Instant::ZERO, ONE, addr("192.0.2.1:1"));
    assert_eq!(late, Err(SessionError::State));
}

#[test]
fn there_is_a_limit_to_host_addresses() {
    let mut session = Session::new(config(Role::Controlling), [1; 32], Instant::ZERO);
    for port in 1..=MAX_HOSTS as u16 {
        let host = SocketAddr::new("192.0.2.1".parse().unwrap(), port);
        session.add_host(Instant::ZERO, ONE, host).unwrap();
    }
    let one_more = session.add_host(Instant::ZERO, ONE, addr("192.0.2.1:9999"));
    assert_eq!(one_more, Err(CandidateError::Limit.into()));
}

#[test]
fn a_silent_server_is_given_up_when_gathering_ends() {
    let config = SessionConfig {
        stun_servers: alloc::vec![addr("203.0.113.99:3478")],
        turn_servers: alloc::vec![turn("203.0.113.98:3478", Transport::Udp)],
        ..config(Role::Controlling)
    };
    let a = node(config, 1, "10.0.0.1:1000", "192.0.2.1:61000");
    let mut net = Net::new(alloc::vec![a]);
    net.run(9_999);
    assert!(!gathered(&net.nodes[0]));
    net.run(10_000);
    assert!(gathered(&net.nodes[0]));
    assert_eq!(
        failures(&net.nodes[0]),
        [
            (
                addr("203.0.113.99:3478"),
                Step::Binding,
                ServerFailure::Timeout
            ),
            (
                addr("203.0.113.98:3478"),
                Step::Allocate,
                ServerFailure::Timeout
            ),
        ]
    );
    // The Allocate under way goes on to its end, so that a late relay is given back.
    net.run(40_000);
    let before = net.sent.len();
    net.run(120_000);
    assert_eq!(net.sent.len(), before, "nothing is asked any more");
    let last = net.nodes[0].session.description(0).pop();
    assert_eq!(last, Some(crate::sdp::Line::EndOfCandidates));
}

#[test]
fn an_icmp_error_ends_what_was_asked_of_a_server() {
    let config = SessionConfig {
        stun_servers: alloc::vec![addr("203.0.113.99:3478")],
        turn_servers: alloc::vec![turn("203.0.113.98:3478", Transport::Udp)],
        ..config(Role::Controlling)
    };
    let a = node(config, 1, "10.0.0.1:1000", "192.0.2.1:61000");
    let mut net = Net::new(alloc::vec![a]);
    net.run(500);
    for server in ["203.0.113.99:3478", "203.0.113.98:3478"] {
        let path = FiveTuple::udp(addr("10.0.0.1:1000"), addr(server));
        net.nodes[0].session.handle_icmp_error(at(500), path);
    }
    net.run(501);
    assert!(gathered(&net.nodes[0]));
    let causes: Vec<_> = failures(&net.nodes[0]).into_iter().map(|f| f.2).collect();
    let turn = ServerFailure::Turn(Cause::Unreachable);
    assert_eq!(causes, [ServerFailure::Unreachable, turn]);
}

fn connect(net: &mut Net) {
    for (from, to) in [(0, 1), (1, 0)] {
        let lines: String = net.nodes[from]
            .session
            .description(0)
            .iter()
            .map(|line| alloc::format!("a={line}\r\n"))
            .collect();
        let description = RemoteDescription::parse(&lines).unwrap();
        let now = net.now;
        let skipped = net.nodes[to]
            .session
            .set_remote_description(now, &description);
        assert_eq!(skipped, Ok(0), "{lines}");
    }
}

fn completed(node: &Node) -> bool {
    node.events
        .iter()
        .any(|event| matches!(event, SessionEvent::Ice(Event::Completed { .. })))
}

fn chat(net: &mut Net) {
    for (from, text) in [(0, "ping"), (1, "pong")] {
        net.send(from, ONE, text.as_bytes());
    }
    let end = net.now + Duration::from_millis(200);
    net.run_until(end);
    assert_eq!(net.nodes[1].data, [(ONE, b"ping".to_vec())]);
    assert_eq!(net.nodes[0].data, [(ONE, b"pong".to_vec())]);
    net.nodes.iter_mut().for_each(|node| node.data.clear());
}

// spec: SEC-I-04, SDP-4.2.1.2-1
#[test]
fn two_nodes_behind_nats_connect_through_reflexive_addresses() {
    let side = |role, seed, host, public| {
        let config = SessionConfig {
            stun_servers: alloc::vec![addr("198.51.100.5:3478")],
            ..config(role)
        };
        node(config, seed, host, public)
    };
    let mut net = Net::new(alloc::vec![
        side(Role::Controlling, 1, "10.0.0.1:1000", "192.0.2.1:61000"),
        side(Role::Controlled, 2, "10.0.1.1:1000", "192.0.2.2:62000"),
    ]);
    net.run(1000);
    let mut buf = [0; 100];
    let early = net.nodes[0].session.send(at(1000), ONE, b"x", &mut buf);
    assert_eq!(early, Err(SendError::NoRoute));
    connect(&mut net);
    net.run(4000);
    assert!(net.nodes.iter().all(completed));
    let route = net.nodes[0].session.route(ONE);
    let direct = FiveTuple::udp(addr("10.0.0.1:1000"), addr("192.0.2.2:62000"));
    assert_eq!(route, Some(Route::Datagram(direct)));
    let (local, remote) = net.nodes[0].session.agent().selected(ONE).unwrap();
    assert_eq!(local.addr, addr("192.0.2.1:61000"));
    assert_eq!(remote.addr, addr("192.0.2.2:62000"));
    assert_eq!(net.nodes[0].session.default_address(ONE), local.addr);
    chat(&mut net);
    let tiny = net.nodes[0]
        .session
        .send(at(5000), ONE, b"xyz", &mut [0; 2]);
    assert_eq!(tiny, Err(SendError::BufferTooSmall));
}

fn relayed_pair(transport: Transport, server: &str) -> Net {
    let side = |role, seed, host, public| {
        let config = SessionConfig {
            policy: Policy::RelayOnly,
            turn_servers: alloc::vec![turn(server, transport)],
            ..config(role)
        };
        node(config, seed, host, public)
    };
    Net::new(alloc::vec![
        side(Role::Controlling, 1, "10.0.0.1:1000", "192.0.2.1:61000"),
        side(Role::Controlled, 2, "10.0.1.1:1000", "192.0.2.2:62000"),
    ])
}

// spec: ICE-7.2.1-1
#[test]
fn relay_only_sessions_show_no_other_address_and_exchange_data_over_channels() {
    let mut net = relayed_pair(Transport::Udp, TURN);
    net.run(1000);
    for (node, port) in net.nodes.iter().zip([50000, 50001]) {
        assert_eq!(
            candidates(node),
            [alloc::format!(
                "candidate:1 1 udp 16777215 198.51.100.9 {port} typ relay raddr 0.0.0.0 rport 9"
            )]
        );
        let default = node.session.default_address(ONE);
        assert_eq!(default, addr(&alloc::format!("198.51.100.9:{port}")));
    }
    connect(&mut net);
    net.run(4000);
    assert!(net.nodes.iter().all(completed));
    chat(&mut net);
    let last = net.sent.iter().rev().take(2);
    for sent in last {
        assert!(
            matches!(sent.bytes.first(), Some(0x40..=0x4F)),
            "ChannelData"
        );
    }
    assert!(net.server.permissions_were_there());
}

// spec: ICE-7.2.1-1
#[test]
fn relays_over_tls_streams_work_with_any_cut() {
    for cut in [1, 7, 4096] {
        let mut net = relayed_pair(Transport::Tls, TURN_TLS);
        net.cut = cut;
        net.run(1000);
        let opened = &net.opened[0];
        assert_eq!(
            *opened,
            SessionAction::OpenStream {
                id: StreamId(0),
                transport: Transport::Tls,
                remote: addr(TURN_TLS),
                server_name: Some("turn.example.com".into()),
            }
        );
        assert!(net.nodes.iter().all(gathered), "cut {cut}");
        connect(&mut net);
        net.run(4000);
        assert!(net.nodes.iter().all(completed), "cut {cut}");
        chat(&mut net);
    }
}

#[test]
fn a_stream_that_cannot_be_opened_is_reported_with_server_and_cause() {
    let mut net = relayed_pair(Transport::Tls, TURN_TLS);
    net.streams_fail = Some(StreamFailure::Proxy);
    net.run(1000);
    for node in &net.nodes {
        let cause = ServerFailure::Stream(StreamFailure::Proxy);
        assert_eq!(failures(node), [(addr(TURN_TLS), Step::Open, cause)]);
        assert!(gathered(node));
        assert_eq!(
            node.session.default_address(ONE),
            addr("0.0.0.0:9"),
            "nothing to show"
        );
    }
}

#[test]
fn a_stream_lost_while_in_use_ends_its_relay() {
    let mut net = relayed_pair(Transport::Tls, TURN_TLS);
    net.run(1000);
    connect(&mut net);
    net.run(4000);
    assert!(net.nodes.iter().all(completed));
    let now = net.now;
    net.nodes[0].session.handle_stream_closed(now, StreamId(0));
    net.run(4100);
    let lost = ServerFailure::Turn(Cause::StreamClosed);
    assert_eq!(
        failures(&net.nodes[0]),
        [(addr(TURN_TLS), Step::Refresh, lost)]
    );
    let mut buf = [0; 100];
    let sent = net.nodes[0].session.send(at(4100), ONE, b"x", &mut buf);
    assert_eq!(sent, Err(SendError::NoRoute));
}

// spec: ICE-5.1.1.2-1
#[test]
fn a_full_turn_server_is_asked_for_the_reflexive_address_instead() {
    let config = SessionConfig {
        turn_servers: alloc::vec![turn(TURN, Transport::Udp)],
        ..config(Role::Controlling)
    };
    let a = node(config, 1, "10.0.0.1:1000", "192.0.2.1:61000");
    let mut net = Net::new(alloc::vec![a]);
    net.server.mood = Mood::Refuse(486);
    net.run(3000);
    assert_eq!(
        candidates(&net.nodes[0])[1..],
        ["candidate:2 1 udp 1694496767 192.0.2.1 61000 typ srflx raddr 10.0.0.1 rport 1000"]
    );
    let cause = ServerFailure::Turn(Cause::Code(486));
    assert_eq!(
        failures(&net.nodes[0]),
        [(addr(TURN), Step::Allocate, cause)]
    );
    assert!(gathered(&net.nodes[0]));
}

#[test]
fn a_mismatched_allocation_is_tried_again_from_a_fresh_socket() {
    let config = SessionConfig {
        turn_servers: alloc::vec![turn(TURN, Transport::Udp)],
        ..config(Role::Controlling)
    };
    let a = node(config, 1, "10.0.0.1:1000", "192.0.2.1:61000");
    let mut net = Net::new(alloc::vec![a]);
    net.server.mood = Mood::Mismatch(1);
    net.run(3000);
    assert_eq!(net.opened.len(), 1);
    assert!(matches!(net.opened[0], SessionAction::OpenSocket { .. }));
    let lines = candidates(&net.nodes[0]);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains("typ relay"));

    // Never more than two fresh sockets.
    let config = SessionConfig {
        turn_servers: alloc::vec![turn(TURN, Transport::Udp)],
        ..self::config(Role::Controlling)
    };
    let a = node(config, 1, "10.0.0.1:1000", "192.0.2.1:61000");
    let mut net = Net::new(alloc::vec![a]);
    net.server.mood = Mood::Mismatch(10);
    net.run(9000);
    assert_eq!(net.opened.len(), 2);
    assert_eq!(net.closed.len(), 2);
    let cause = ServerFailure::Turn(Cause::Code(437));
    assert_eq!(
        failures(&net.nodes[0]),
        [(addr(TURN), Step::Allocate, cause)]
    );
}

// spec: ICE-5.1.1.4-1
#[test]
fn reflexive_addresses_are_kept_alive_until_the_session_is_concluded() {
    let side = |role, seed, host, public| {
        let config = SessionConfig {
            stun_servers: alloc::vec![addr("198.51.100.5:3478")],
            ..config(role)
        };
        node(config, seed, host, public)
    };
    let mut net = Net::new(alloc::vec![
        side(Role::Controlling, 1, "10.0.0.1:1000", "192.0.2.1:61000"),
        side(Role::Controlled, 2, "10.0.1.1:1000", "192.0.2.2:62000"),
    ]);
    net.run(60_000);
    let to_server = |net: &Net| {
        net.sent
            .iter()
            .filter(|sent| matches!(sent.to, Path::Datagram(at) if at.remote.port() == 3478))
            .count()
    };
    assert_eq!(to_server(&net), 6, "at 0, 25 and 50 s from both");
    connect(&mut net);
    net.run(200_000);
    assert!(net.nodes.iter().all(completed));
    assert_eq!(to_server(&net), 6);
}

// spec: ICE-8.3.1-1
#[test]
fn relays_nobody_uses_are_given_back_three_seconds_after_the_conclusion() {
    let side = |role, seed, host, public| {
        let config = SessionConfig {
            turn_servers: alloc::vec![turn(TURN, Transport::Udp)],
            ..config(role)
        };
        node(config, seed, host, public)
    };
    let mut net = Net::new(alloc::vec![
        side(Role::Controlling, 1, "10.0.0.1:1000", "192.0.2.1:61000"),
        side(Role::Controlled, 2, "10.0.1.1:1000", "192.0.2.2:62000"),
    ]);
    net.run(1000);
    assert_eq!(net.server.allocations(), 2);
    connect(&mut net);
    net.run(3900);
    assert!(net.nodes.iter().all(completed));
    assert_eq!(net.server.allocations(), 2);
    net.run(7000);
    assert_eq!(net.server.allocations(), 0);
    assert!(
        net.nodes
            .iter()
            .all(|node| node.session.route(ONE).is_some())
    );
}

// spec: SEC-G-18
#[test]
fn closing_gives_the_relays_back_and_ends_everything() {
    let mut net = relayed_pair(Transport::Tls, TURN_TLS);
    net.run(1000);
    connect(&mut net);
    net.run(4000);
    let now = net.now;
    for node in &mut net.nodes {
        node.session.close(now);
        node.session.close(now);
    }
    net.run(6000);
    assert_eq!(net.server.allocations(), 0);
    assert_eq!(net.closed.len(), 2);
    for node in &mut net.nodes {
        assert_eq!(node.events.last(), Some(&SessionEvent::Closed));
        assert_eq!(node.session.poll_timeout(), None);
        let mut buf = [0; 100];
        let sent = node.session.send(at(6000), ONE, b"x", &mut buf);
        assert_eq!(sent, Err(SendError::NoRoute));
    }
}

// spec: ICE-9-1
#[test]
fn a_restarted_session_keeps_its_data_flowing_and_completes_again() {
    let side = |role, seed, host, public| {
        let config = SessionConfig {
            stun_servers: alloc::vec![addr("198.51.100.5:3478")],
            turn_servers: alloc::vec![turn(TURN, Transport::Udp)],
            ..config(role)
        };
        node(config, seed, host, public)
    };
    let mut net = Net::new(alloc::vec![
        side(Role::Controlling, 1, "10.0.0.1:1000", "192.0.2.1:61000"),
        side(Role::Controlled, 2, "10.0.1.1:1000", "192.0.2.2:62000"),
    ]);
    net.run(1000);
    connect(&mut net);
    net.run(10_000);
    assert!(net.nodes.iter().all(completed));
    assert_eq!(net.server.allocations(), 0, "given back");
    chat(&mut net);
    let now = net.now;
    for node in &mut net.nodes {
        node.events.clear();
        node.session.restart(now).unwrap();
        node.session.gather(now).unwrap();
    }
    net.run(11_000);
    assert!(net.nodes.iter().all(gathered));
    assert_eq!(net.server.allocations(), 2, "asked for again");
    chat(&mut net);
    connect(&mut net);
    net.run(20_000);
    assert!(net.nodes.iter().all(completed));
    chat(&mut net);
    assert_eq!(net.server.allocations(), 0);
    let now = net.now;
    net.nodes[0].session.remove_host(now, addr("10.0.0.1:1000"));
    let mut buf = [0; 100];
    let sent = net.nodes[0].session.send(now, ONE, b"x", &mut buf);
    assert_eq!(sent, Err(SendError::NoRoute));
}

// spec: SDP-4.4.1.2.1, SDP-4.4.1.2.2, SDP-5.2-1
#[test]
fn descriptions_show_all_candidates_before_and_the_selected_ones_after() {
    let side = |role, seed, host, public| {
        let config = SessionConfig {
            stun_servers: alloc::vec![addr("198.51.100.5:3478")],
            turn_servers: alloc::vec![turn(TURN, Transport::Udp)],
            ..config(role)
        };
        node(config, seed, host, public)
    };
    let mut net = Net::new(alloc::vec![
        side(Role::Controlling, 1, "10.0.0.1:1000", "192.0.2.1:61000"),
        side(Role::Controlled, 2, "10.0.1.1:1000", "192.0.2.2:62000"),
    ]);
    net.run(1000);
    let lines = |net: &Net, node: usize| {
        let lines = net.nodes[node].session.description(0);
        let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
        let keep = |line: &&String| line.contains("candidate");
        let candidates: Vec<_> = lines.iter().filter(keep).cloned().collect();
        candidates
    };
    let first = lines(&net, 0);
    assert_eq!(first.len(), 4, "three and their end: {first:?}");
    assert_eq!(
        lines(&net, 0),
        first,
        "repeated as long as nothing is settled"
    );
    connect(&mut net);
    net.run(10_000);
    assert!(net.nodes.iter().all(completed));
    assert_eq!(
        lines(&net, 0),
        [
            "remote-candidates:1 192.0.2.2 62000",
            "candidate:2 1 udp 1694498815 192.0.2.1 61000 typ srflx raddr 10.0.0.1 rport 1000",
            "end-of-candidates",
        ]
    );
    assert_eq!(
        net.nodes[0].session.default_address(ONE),
        addr("192.0.2.1:61000")
    );
    let other = lines(&net, 1);
    assert!(!other[0].starts_with("remote-candidates"), "{other:?}");
    assert_eq!(other.len(), 2);
    let now = net.now;
    net.nodes[0].session.restart(now).unwrap();
    assert!(!lines(&net, 0)[0].starts_with("remote"));
}

// spec: SDP-4.4.1.3
#[test]
fn lite_sides_describe_everything_before_and_what_was_selected_after() {
    let side = |role, lite, seed, host| {
        let mut config = config(role);
        config.agent.lite = lite;
        node(config, seed, host, host)
    };
    let candidates = |net: &Net, node: usize| {
        let lines = net.nodes[node].session.description(0);
        let keep = |line: &String| line.contains("candidate:") || line.contains("candidates:");
        let lines = lines.iter().map(ToString::to_string).filter(keep);
        lines.collect::<Vec<_>>()
    };
    for other_is_lite in [false, true] {
        let mut net = Net::new(alloc::vec![
            side(Role::Controlling, true, 1, "192.0.2.1:1000"),
            side(Role::Controlled, other_is_lite, 2, "192.0.2.2:2000"),
        ]);
        let own = "candidate:1 1 udp 2130706431 192.0.2.1 1000 typ host";
        assert_eq!(candidates(&net, 0), [own]);
        connect(&mut net);
        net.run(5000);
        assert!(net.nodes.iter().all(completed));
        let agent = net.nodes[0].session.agent();
        if other_is_lite {
            assert_eq!(agent.role(), Role::Controlling);
            let theirs = "remote-candidates:1 192.0.2.2 2000";
            assert_eq!(candidates(&net, 0), [theirs, own]);
        } else {
            assert_eq!(agent.role(), Role::Controlled);
            assert_eq!(candidates(&net, 0), [own]);
        }
        let default = net.nodes[0].session.default_address(ONE);
        assert_eq!(
            default,
            addr("192.0.2.1:1000"),
            "this side's, not the other's"
        );
        // Nothing new without starting over.
        let now = net.now;
        let session = &mut net.nodes[0].session;
        let late = session.add_host(now, ONE, addr("192.0.2.1:1001"));
        assert_eq!(late, Err(SessionError::State));
        let before = session.agent().local_credentials().clone();
        session.restart(now).unwrap();
        assert_ne!(*session.agent().local_credentials(), before);
        assert!(session.add_host(now, ONE, addr("192.0.2.1:1001")).is_ok());
    }
}

// spec: SDP-4.2.5-3
#[test]
fn a_side_without_ice_is_reached_through_the_relay() {
    for (transport, server) in [(Transport::Udp, TURN), (Transport::Tls, TURN_TLS)] {
        let mut net = relayed_pair(transport, server);
        net.run(1000);
        let now = net.now;
        let addresses = [0, 1].map(|i: usize| net.nodes[i].session.default_address(ONE));
        for (node, peer) in [(0, addresses[1]), (1, addresses[0])] {
            let session = &mut net.nodes[node].session;
            let mut buf = [0; 100];
            session.set_remote_plain(now, 0, &[peer]).unwrap();
            let early = session.send(now, ONE, b"x", &mut buf);
            assert!(
                matches!(early, Err(SendError::Relay(_))),
                "no permission yet"
            );
        }
        net.run(2000);
        assert!(net.nodes.iter().all(completed));
        chat(&mut net);
        net.run(100_000);
        chat(&mut net);
        assert!(net.server.permissions_were_there());
        let channel = |sent: &world::Sent| sent.bytes.first().is_some_and(|b| *b >= 0x40);
        assert!(net.sent.iter().any(channel));
        assert!(net.nodes.iter().all(|node| failures(node).is_empty()));
    }
}

#[test]
fn a_component_that_is_not_needed_gives_its_relay_back() {
    for (transport, server) in [(Transport::Udp, TURN), (Transport::Tls, TURN_TLS)] {
        let two = ComponentId {
            component: 2,
            ..ONE
        };
        let mut config = SessionConfig {
            turn_servers: alloc::vec![turn(server, transport)],
            ..config(Role::Controlling)
        };
        config.agent.components = alloc::vec![2];
        let mut session = Session::new(config, [1; 32], Instant::ZERO);
        for (component, host) in [(ONE, "10.0.0.1:1000"), (two, "10.0.0.1:1001")] {
            session
                .add_host(Instant::ZERO, component, addr(host))
                .unwrap();
        }
        session.gather(Instant::ZERO).unwrap();
        let nat = [
            ("10.0.0.1:1000", "192.0.2.1:61000"),
            ("10.0.0.1:1001", "192.0.2.1:61001"),
        ];
        let mut net = Net::new(alloc::vec![Node::new(session, &nat)]);
        net.run(1000);
        assert_eq!(net.server.allocations(), 2);
        let now = net.now;
        net.nodes[0].session.limit_components(now, 0, 1);
        net.run(2000);
        assert_eq!(net.server.allocations(), 1);
        let session = &net.nodes[0].session;
        assert!(
            session
                .agent()
                .local_candidates()
                .all(|(_, c)| c.component == 1)
        );
        assert_eq!(net.closed.len(), usize::from(transport == Transport::Tls));
        // Nor does it come back.
        let now = net.now;
        let session = &mut net.nodes[0].session;
        session.restart(now).unwrap();
        session.gather(now).unwrap();
        net.run(3000);
        assert_eq!(net.server.allocations(), 1);
    }
}

// spec: TRK-13-1
#[test]
fn servers_that_never_answer_hold_nothing_up_once_there_is_a_relay() {
    for (enough, done) in [(None, 10_000), (Some(Duration::from_secs(1)), 2000)] {
        let config = SessionConfig {
            turn_servers: alloc::vec![
                turn("198.51.100.77:3478", Transport::Udp),
                turn(TURN_TLS, Transport::Tls),
            ],
            enough,
            ..config(Role::Controlling)
        };
        let a = node(config, 1, "10.0.0.1:1000", "192.0.2.1:61000");
        let mut net = Net::new(alloc::vec![a]);
        if enough.is_none() {
            net.run(9000);
            assert!(!gathered(&net.nodes[0]));
        }
        net.run(done);
        assert!(gathered(&net.nodes[0]));
        assert_eq!(candidates(&net.nodes[0]).len(), 2);
        let missing = [(
            addr("198.51.100.77:3478"),
            Step::Allocate,
            ServerFailure::Timeout,
        )];
        assert_eq!(failures(&net.nodes[0]), missing);
        let now = net.now;
        net.nodes[0].events.clear();
        net.nodes[0].session.restart(now).unwrap();
        net.nodes[0].session.gather(now).unwrap();
        net.run_until(now + Duration::from_millis(1100));
        assert_eq!(gathered(&net.nodes[0]), enough.is_some());
    }
}

// spec: ICE-9-1
#[test]
fn a_restarted_session_forgets_what_a_nat_may_have_forgotten() {
    let side = |role, seed, host, public| {
        let config = SessionConfig {
            stun_servers: alloc::vec![addr("198.51.100.5:3478")],
            ..config(role)
        };
        node(config, seed, host, public)
    };
    let mut net = Net::new(alloc::vec![
        side(Role::Controlling, 1, "10.0.0.1:1000", "192.0.2.1:61000"),
        side(Role::Controlled, 2, "10.0.1.1:1000", "192.0.2.2:62000"),
    ]);
    net.run(1000);
    connect(&mut net);
    // Everything that was not selected has been let go of meanwhile.
    net.run(20_000);
    assert!(net.nodes.iter().all(completed));
    net.nodes[0].rebind("192.0.2.1:61111");
    let now = net.now;
    for node in &mut net.nodes {
        node.events.clear();
        node.session.restart(now).unwrap();
        node.session.gather(now).unwrap();
    }
    net.run(21_000);
    let shown = [
        "candidate:1 1 udp 2130706431 10.0.0.1 1000 typ host",
        "candidate:2 1 udp 1694498815 192.0.2.1 61111 typ srflx raddr 10.0.0.1 rport 1000",
    ];
    assert_eq!(candidates(&net.nodes[0]), shown);
    let known = net.nodes[0].session.agent().local_candidates();
    let known: Vec<_> = known.map(|(_, known)| known.to_string()).collect();
    assert_eq!(known, shown);
    connect(&mut net);
    net.run(24_000);
    assert!(net.nodes.iter().all(completed));
    chat(&mut net);
}

#[test]
fn a_restarted_session_shows_its_relays_again_and_asks_their_servers_for_reflexive_addresses() {
    let config = SessionConfig {
        turn_servers: alloc::vec![turn(TURN, Transport::Udp), turn(TURN_TLS, Transport::Tls)],
        ..config(Role::Controlling)
    };
    let a = node(config, 1, "10.0.0.1:1000", "192.0.2.1:61000");
    let mut net = Net::new(alloc::vec![a]);
    net.run(1000);
    // The numbers of the foundations may change.
    let shown = |net: &Net| {
        let all = candidates(&net.nodes[0]);
        let mut all: Vec<String> = all
            .iter()
            .filter_map(|line| Some(line.split_once(' ')?.1.to_string()))
            .collect();
        all.sort();
        all
    };
    let before = shown(&net);
    assert_eq!(before.len(), 4);
    let now = net.now;
    net.nodes[0].events.clear();
    net.nodes[0].session.restart(now).unwrap();
    // The relays are there when their server has confirmed them.
    assert_eq!(net.nodes[0].session.agent().local_candidates().count(), 1);
    net.nodes[0].session.gather(now).unwrap();
    net.run(2000);
    assert_eq!(shown(&net), before);
    assert!(gathered(&net.nodes[0]) && failures(&net.nodes[0]).is_empty());
    // The second connection has lost the race.
    assert_eq!((net.server.allocations(), net.opened.len()), (2, 2));
    assert_eq!(net.closed.len(), 1);
}

#[test]
fn local_addresses_that_are_gone_do_not_come_back_by_themselves() {
    let config = SessionConfig {
        stun_servers: alloc::vec![addr("198.51.100.5:3478")],
        ..config(Role::Controlling)
    };
    let a = node(config, 1, "10.0.0.1:1000", "192.0.2.1:61000");
    let mut net = Net::new(alloc::vec![a]);
    net.run(1000);
    let now = net.now;
    net.nodes[0].events.clear();
    let session = &mut net.nodes[0].session;
    session.remove_host(now, addr("10.0.0.1:1000"));
    session.restart(now).unwrap();
    session.gather(now).unwrap();
    net.run(2000);
    assert!(candidates(&net.nodes[0]).is_empty());
    let (now, session) = (net.now, &mut net.nodes[0].session);
    session.restart(now).unwrap();
    session.add_host(now, ONE, addr("10.0.0.1:1000")).unwrap();
    session.gather(now).unwrap();
    net.run(3000);
    assert_eq!(candidates(&net.nodes[0]).len(), 2);
}

#[test]
fn a_failed_session_gives_its_relays_back() {
    let mut net = relayed_pair(Transport::Udp, TURN);
    net.run(1000);
    let description = RemoteDescription::parse(
        "a=ice-ufrag:8hhY\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\na=end-of-candidates\r\n\
         a=candidate:1 1 UDP 2130706431 203.0.113.141 8998 typ host\r\n",
    )
    .unwrap();
    for node in &mut net.nodes {
        let set = node.session.set_remote_description(at(1000), &description);
        assert_eq!(set, Ok(0));
    }
    net.run(60_000);
    for node in &net.nodes {
        let failed = SessionEvent::Ice(Event::Failed {
            cause: Failure::NoPair,
            generation: 0,
        });
        assert!(node.events.contains(&failed));
    }
    assert_eq!(net.server.allocations(), 0);
}

#[test]
fn unknown_streams_and_sockets_are_closed_again() {
    let mut session = Session::new(config(Role::Controlling), [1; 32], Instant::ZERO);
    let local = addr("10.0.0.1:5");
    session.stream_opened(Instant::ZERO, StreamId(9), local);
    session.socket_opened(Instant::ZERO, RelayId(9), local);
    session.socket_failed(Instant::ZERO, RelayId(9));
    session.stream_failed(Instant::ZERO, StreamId(8), StreamFailure::Refused);
    session.handle_stream_closed(Instant::ZERO, StreamId(8));
    let mut input = &b"bytes"[..];
    let received = session.handle_stream(Instant::ZERO, StreamId(9), &mut input);
    assert_eq!(received, Received::NotMine);
    assert!(input.is_empty());
    assert_eq!(
        session.poll_action(),
        Some(SessionAction::CloseStream { id: StreamId(9) })
    );
    assert_eq!(
        session.poll_action(),
        Some(SessionAction::CloseSocket { local })
    );
    assert_eq!(session.poll_action(), None);
}

// spec: SDP-5.4-1, SDP-5.3-1
#[test]
fn descriptions_are_read_per_stream() {
    let text = "v=0\r\n\
        a=ice-lite\r\n\
        a=ice-ufrag:AAAA\r\n\
        a=ice-pwd:asd88fgpdd777uzjYhagZg\r\n\
        a=ice-options:trickle ice2\r\n\
        m=audio 1 RTP/AVP 0\r\n\
        a=candidate:1 1 UDP 2130706431 203.0.113.141 8998 typ host\r\n\
        a=candidate:1 1 SCTP 2130706431 203.0.113.141 8998 typ host\r\n\
        a=candidate:1 1 UDP 2130706431 host.local 8998 typ host\r\n\
        a=end-of-candidates\r\n\
        m=video 1 RTP/AVP 96\r\n\
        a=candidate:1 1 UDP 2130706431 203.0.113.141 9000 typ host\r\n";
    let description = RemoteDescription::parse(text).unwrap();
    assert!(description.remote.lite && description.remote.ice2);
    assert_eq!(description.remote.credentials.ufrag, "AAAA");
    let [audio, video] = &description.streams[..] else {
        panic!("two streams");
    };
    assert_eq!((audio.candidates.len(), audio.skipped), (1, 1));
    assert_eq!(audio.named[0].name, "host.local");
    assert!(audio.complete && !video.complete);
    assert_eq!(video.candidates[0].addr.port(), 9000);

    let own = "a=ice-ufrag:AAAA\na=ice-pwd:asd88fgpdd777uzjYhagZg\n\
               m=audio 1 RTP/AVP 0\na=ice-ufrag:BBBB\na=ice-pwd:bsd88fgpdd777uzjYhagZg\n";
    let description = RemoteDescription::parse(own).unwrap();
    assert_eq!(description.remote.credentials.ufrag, "BBBB");
    assert_eq!(RemoteDescription::parse("a=ice-ufrag:AAAA\n"), None);
    let differ = "m=a 1 x 0\na=ice-ufrag:AAAA\na=ice-pwd:asd88fgpdd777uzjYhagZg\n\
                  m=b 1 x 0\na=ice-ufrag:BBBB\na=ice-pwd:asd88fgpdd777uzjYhagZg\n";
    assert_eq!(RemoteDescription::parse(differ), None);
}

// spec: SEC-G-05
#[test]
fn descriptions_have_limits() {
    let mut text = String::from("a=ice-ufrag:AAAA\na=ice-pwd:asd88fgpdd777uzjYhagZg\n");
    for port in 1..=1000 {
        text += &alloc::format!("a=candidate:1 1 UDP 1 203.0.113.1 {port} typ host\n");
    }
    let description = RemoteDescription::parse(&text).unwrap();
    assert_eq!(description.streams[0].candidates.len(), 128);
    assert_eq!(description.streams[0].skipped, 872);
    text += &"m=a 1 x 0\n".repeat(1000);
    assert_eq!(RemoteDescription::parse(&text).unwrap().streams.len(), 32);
}

proptest::proptest! {
    // spec: SEC-G-01
    #[test]
    fn no_description_panics(text in "(a=(candidate|ice-ufrag|ice-pwd|m):?[ -~]{0,40}\r?\n|m=.*\n|\\PC{0,20}\n){0,20}") {
        let _ = RemoteDescription::parse(&text);
    }

    // spec: SEC-G-01, SEC-G-08
    #[test]
    fn no_input_panics_and_draining_ends(
        inputs in proptest::collection::vec(
            (0u64..200_000, 0usize..4, proptest::collection::vec(0u8..=255, 0..60)), 0..40),
    ) {
        let config = SessionConfig {
            stun_servers: alloc::vec![addr("198.51.100.5:3478")],
            turn_servers: alloc::vec![turn(TURN, Transport::Udp), turn(TURN_TLS, Transport::Tls)],
            ..config(Role::Controlling)
        };
        let mut node = node(config, 1, "10.0.0.1:1000", "192.0.2.1:61000");
        let session = &mut node.session;
        let local = addr("10.0.0.1:1000");
        for (millis, kind, bytes) in &inputs {
            let now = at(*millis);
            match kind {
                0 => session.stream_opened(now, StreamId(0), local),
                1 => {
                    let mut input = &bytes[..];
                    while !input.is_empty() {
                        session.handle_stream(now, StreamId(0), &mut input);
                    }
                }
                2 => {
                    let path = FiveTuple::udp(local, addr(TURN));
                    session.handle_datagram(now, path, bytes);
                }
                _ => {}
            }
            session.handle_timeout(now);
            let mut buf = [0; SESSION_MAX_TRANSMIT];
            while session.poll_transmit(&mut buf).is_some() {}
            while session.poll_action().is_some() {}
            while session.poll_event().is_some() {}
            let latest = session.clock.now();
            assert!(session.poll_timeout().is_none_or(|at| at > latest));
        }
    }
}
