//! Another side without ICE.

use super::*;

const FAR: &str = "192.0.2.9:4000";

fn side(change: impl Fn(&mut AgentConfig), hosts: &[(ComponentId, &str)]) -> Agent {
    let mut config = AgentConfig::new(Role::Controlling);
    change(&mut config);
    Side::new(config, 1, hosts).agent
}

fn add(agent: &mut Agent, kind: CandidateKind, at: &str, base: Base) {
    let candidate = LocalCandidate {
        kind,
        base,
        local_preference: 60_000,
        ..host(ONE, addr(at))
    };
    agent.gathering_done = false;
    agent.add_local_candidate(Instant::ZERO, candidate).unwrap();
}

fn run(agent: &mut Agent, seconds: u64) -> Vec<(u64, Route, Vec<u8>)> {
    let end = Instant::ZERO + Duration::from_secs(seconds);
    let (mut now, mut all, mut buf) = (Instant::ZERO, Vec::new(), [0; MAX_TRANSMIT]);
    loop {
        agent.handle_timeout(now);
        while let Some(sent) = agent.poll_transmit(&mut buf) {
            let at = now.duration_since(Instant::ZERO).as_secs();
            all.push((at, sent.to, buf[..sent.len].to_vec()));
        }
        match agent.poll_timeout() {
            Some(next) if next <= end => now = next,
            Some(_) | None => return all,
        }
    }
}

fn events(agent: &mut Agent) -> Vec<Event> {
    core::iter::from_fn(|| agent.poll_event()).collect()
}

// spec: SDP-4.2.5-3
#[test]
fn data_goes_to_the_address_said_and_comes_from_there_only() {
    let mut agent = side(|_| {}, &[(ONE, "192.0.2.1:1000")]);
    assert_eq!(agent.route(ONE), None);
    agent
        .set_remote_plain(Instant::ZERO, 0, &[addr(FAR)])
        .unwrap();
    let at = FiveTuple::udp(addr("192.0.2.1:1000"), addr(FAR));
    assert_eq!(agent.route(ONE), Some(Route::Datagram(at)));
    let told = events(&mut agent);
    let [
        Event::Selected { local, remote, .. },
        Event::Completed { .. },
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!((local.addr, remote.addr), (at.local, at.remote));
    let now = Instant::ZERO;
    assert!(matches!(
        agent.handle_datagram(now, at, b"\x80hello"),
        Received::Data { peer: ONE, .. }
    ));
    // Whoever else sends is not believed: no latching.
    let other = FiveTuple::udp(at.local, addr("192.0.2.9:4001"));
    let stranger = agent.handle_datagram(now, other, b"\x80hello");
    assert_eq!(stranger, Received::NotMine);
    assert_eq!(agent.route(ONE), Some(Route::Datagram(at)));
    // A description later says another address.
    let moved = addr("192.0.2.77:4");
    agent.set_remote_plain(now, 0, &[moved]).unwrap();
    let there = FiveTuple::udp(at.local, moved);
    assert_eq!(agent.route(ONE), Some(Route::Datagram(there)));
    assert_eq!(
        agent.handle_datagram(now, at, b"\x80hello"),
        Received::NotMine
    );
    assert_eq!(events(&mut agent).len(), 1);
    agent.set_remote_plain(now, 0, &[moved]).unwrap();
    assert!(events(&mut agent).is_empty(), "nothing new");
}

#[test]
fn the_path_is_kept_open_without_consent() {
    let check = |keep: PlainKeepAlive, first: Option<u8>| {
        let mut agent = side(
            |config| config.plain_keep_alive = keep,
            &[(ONE, "192.0.2.1:1000")],
        );
        agent
            .set_remote_plain(Instant::ZERO, 0, &[addr(FAR)])
            .unwrap();
        let sent = run(&mut agent, 100);
        let told = events(&mut agent);
        let due = Event::KeepAliveDue { component: ONE };
        let due = told.iter().filter(|event| **event == due).count();
        let at: Vec<u64> = sent.iter().map(|(at, ..)| *at).collect();
        if keep == PlainKeepAlive::Host {
            assert_eq!((at.len(), due), (0, 6));
        } else {
            assert_eq!((at, due), (alloc::vec![15, 30, 45, 60, 75, 90], 0));
        }
        assert!(
            sent.iter()
                .all(|(.., bytes)| bytes.first().copied() == first)
        );
        assert!(agent.route(ONE).is_some(), "no consent to lose");
    };
    check(PlainKeepAlive::Indication, Some(0));
    check(PlainKeepAlive::Empty, None);
    check(PlainKeepAlive::Host, None);

    // Data keeps it open as well.
    let mut agent = side(|_| {}, &[(ONE, "192.0.2.1:1000")]);
    agent
        .set_remote_plain(Instant::ZERO, 0, &[addr(FAR)])
        .unwrap();
    for second in (0..40).step_by(10) {
        agent.data_sent(Instant::ZERO + Duration::from_secs(second), ONE);
    }
    assert_eq!(run(&mut agent, 46).first().map(|(at, ..)| *at), Some(45));
}

// spec: SDP-4.2.1.2-1
#[test]
fn the_default_candidate_is_used_relayed_before_reflexive_before_host() {
    let base = Base::Host(addr("10.0.0.1:1000"));
    let relay = Base::Relay(RelayId(7));
    let mut agent = side(|_| {}, &[(ONE, "10.0.0.1:1000")]);
    let default = |agent: &Agent| agent.default_candidate(ONE).unwrap().addr;
    assert_eq!(default(&agent), addr("10.0.0.1:1000"));
    let reflexive = CandidateKind::ServerReflexive;
    add(&mut agent, reflexive, "203.0.113.1:61000", base);
    assert_eq!(default(&agent), addr("203.0.113.1:61000"));
    agent
        .set_remote_plain(Instant::ZERO, 0, &[addr(FAR)])
        .unwrap();
    let at = FiveTuple::udp(addr("10.0.0.1:1000"), addr(FAR));
    assert_eq!(agent.route(ONE), Some(Route::Datagram(at)));
    let shown = agent.selected(ONE).unwrap().0;
    assert_eq!(shown.addr, addr("203.0.113.1:61000"));

    let mut agent = side(|_| {}, &[(ONE, "10.0.0.1:1000")]);
    add(&mut agent, reflexive, "203.0.113.1:61000", base);
    add(
        &mut agent,
        CandidateKind::Relayed,
        "198.51.100.9:50000",
        relay,
    );
    assert_eq!(default(&agent), addr("198.51.100.9:50000"));
    agent
        .set_remote_plain(Instant::ZERO, 0, &[addr(FAR)])
        .unwrap();
    let peer = addr(FAR);
    let relay = RelayId(7);
    assert_eq!(agent.route(ONE), Some(Route::Relay { relay, peer }));
    let actions: Vec<Action> = core::iter::from_fn(|| agent.poll_action()).collect();
    let ip = peer.ip();
    assert_eq!(
        actions,
        [
            Action::CreatePermission { relay, peer: ip },
            Action::BindChannel { relay, peer },
        ]
    );
    // The relay does not want to.
    agent.permission_failed(Instant::ZERO, relay, ip);
    let cause = RouteLoss::NotPermitted;
    let lost = Event::RouteLost {
        component: ONE,
        cause,
        generation: 0,
    };
    assert_eq!(events(&mut agent).last(), Some(&lost));
    assert_eq!(agent.route(ONE), None);
    // An address of the other family wants a candidate of that family.
    let v6 = addr("[2001:db8::9]:4000");
    let none = agent.set_remote_plain(Instant::ZERO, 0, &[v6]);
    assert_eq!(none, Err(PlainError::NoCandidate));
}

#[test]
fn impossible_addresses_change_nothing() {
    let mut agent = side(
        |config| config.components = alloc::vec![2],
        &[(ONE, "192.0.2.1:1000"), (component(0, 2), "192.0.2.1:1001")],
    );
    let mut check = |stream: u16, peers: &[&str], error: PlainError| {
        let peers: Vec<_> = peers.iter().map(|peer| addr(peer)).collect();
        let refused = agent.set_remote_plain(Instant::ZERO, stream, &peers);
        assert_eq!(refused, Err(error));
        assert!(events(&mut agent).is_empty());
        assert_eq!(agent.route(ONE), None);
    };
    check(1, &[FAR], PlainError::Component);
    check(0, &[], PlainError::Component);
    check(0, &[FAR, FAR, FAR], PlainError::Component);
    check(0, &[FAR, "192.0.2.9:0"], PlainError::Address);
    check(0, &["0.0.0.0:4"], PlainError::Address);
    check(0, &["224.0.0.1:4"], PlainError::Address);
    check(0, &[FAR, "[2001:db8::1]:4"], PlainError::NoCandidate);
    agent.close();
    let closed = agent.set_remote_plain(Instant::ZERO, 0, &[addr(FAR)]);
    assert_eq!(closed, Err(PlainError::Closed));
}

#[test]
fn components_without_an_address_are_given_up() {
    let two = component(0, 2);
    let hosts = [(ONE, "192.0.2.1:1000"), (two, "192.0.2.1:1001")];
    let set = |config: &mut AgentConfig| config.components = alloc::vec![2];
    let mut agent = side(set, &hosts);
    agent
        .set_remote_plain(Instant::ZERO, 0, &[addr(FAR)])
        .unwrap();
    assert_eq!(agent.state(), AgentState::Completed);
    assert_eq!(agent.route(two), None);
    let released = agent.poll_action();
    let base = Base::Host(addr("192.0.2.1:1001"));
    assert_eq!(released, Some(Action::Release { base }));

    let mut agent = side(set, &hosts);
    let rtcp = addr("192.0.2.9:4001");
    agent
        .set_remote_plain(Instant::ZERO, 0, &[addr(FAR), rtcp])
        .unwrap();
    let at = FiveTuple::udp(addr("192.0.2.1:1001"), rtcp);
    assert_eq!(agent.route(two), Some(Route::Datagram(at)));
}

// spec: SDP-4.4.3.1-1
#[test]
fn ice_that_is_gone_from_a_later_description_ends_without_a_gap() {
    let mut net = pair(Role::Controlling, Role::Controlled);
    net.exchange();
    net.run(5000);
    assert!(net.both_completed());
    let now = Instant::ZERO + Duration::from_secs(5);
    let agent = &mut net.sides[0].agent;
    let before = agent.route(ONE);
    agent.set_remote_plain(now, 0, &[addr(FAR)]).unwrap();
    assert_ne!(agent.route(ONE), before);
    net.run(100_000);
    let agent = &mut net.sides[0].agent;
    assert!(agent.route(ONE).is_some(), "no consent is asked for");
    let checks = |log: &[alloc::string::String]| {
        let line = |l: &&alloc::string::String| l.contains("0 Request");
        log.iter().rev().find(line).cloned()
    };
    assert!(checks(&net.log).is_some_and(|line| !line.starts_with("9")));
    // The next exchange may bring it back.
    let now = Instant::ZERO + Duration::from_secs(100);
    let agent = &mut net.sides[0].agent;
    agent.restart(now).unwrap();
    assert_eq!(agent.state(), AgentState::Running);
}

#[test]
fn a_stream_that_has_failed_may_still_go_plainly() {
    let mut agent = side(|_| {}, &[(ONE, "192.0.2.1:1000")]);
    let remote = Remote {
        credentials: Credentials {
            ufrag: "8hhY".into(),
            pwd: "asd88fgpdd777uzjYhagZg".into(),
        },
        lite: false,
        ice2: true,
        pacing: None,
    };
    agent.set_remote(Instant::ZERO, remote).unwrap();
    agent.end_of_remote_candidates(Instant::ZERO);
    run(&mut agent, 60);
    assert_eq!(agent.state(), AgentState::Failed);
    let now = Instant::ZERO + Duration::from_secs(60);
    agent.set_remote_plain(now, 0, &[addr(FAR)]).unwrap();
    assert_eq!(agent.state(), AgentState::Completed);
    assert!(agent.route(ONE).is_some());
}

#[test]
fn a_side_that_turns_out_to_have_ice_is_checked() {
    let mut net = pair(Role::Controlling, Role::Controlled);
    let agent = &mut net.sides[0].agent;
    agent
        .set_remote_plain(Instant::ZERO, 0, &[addr(FAR)])
        .unwrap();
    let plain = agent.route(ONE);
    assert!(plain.is_some());
    net.exchange();
    net.run(5000);
    assert!(net.both_completed());
    let route = net.sides[0].agent.route(ONE);
    assert!(route.is_some() && route != plain);
    net.run(100_000);
    assert!(net.sides[0].agent.route(ONE).is_some(), "consent is given");
}

// spec: ICE-5.2-2
#[test]
fn the_family_of_the_default_candidate_can_be_chosen() {
    use turn_proto::wire::AddressFamily::{V4, V6};
    let check = |family, hosts: &[&str], expected: &str| {
        let hosts: Vec<_> = hosts.iter().map(|host| (ONE, *host)).collect();
        let set = |config: &mut AgentConfig| {
            config.lite = true;
            config.default_family = family;
        };
        let agent = side(set, &hosts);
        let default = agent.default_candidate(ONE).map(|known| known.addr);
        assert_eq!(default, Some(addr(expected)), "{family:?}");
    };
    let (v6, v4) = ("[2001:db8::1]:1000", "192.0.2.1:1000");
    check(None, &[v6, v4], v6);
    check(Some(V6), &[v4, v6], v6);
    check(Some(V4), &[v6, v4], v4);
    check(Some(V4), &[v6], v6);
}
