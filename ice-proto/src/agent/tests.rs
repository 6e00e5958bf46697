#![allow(clippy::arithmetic_side_effects, reason = "test code")]

mod chaos;
mod plain;
mod rules;
mod trace;

use alloc::string::ToString as _;
use core::net::SocketAddr;

use super::*;
use crate::CandidateKind;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn component(stream: u16, component: u16) -> ComponentId {
    ComponentId { stream, component }
}

fn host(id: ComponentId, at: SocketAddr) -> LocalCandidate {
    LocalCandidate {
        component: id,
        kind: CandidateKind::Host,
        addr: at,
        base: Base::Host(at),
        local_preference: 65535,
        server: None,
        related: None,
    }
}

struct Side {
    agent: Agent,
    events: Vec<Event>,
}

impl Side {
    fn new(config: AgentConfig, seed: u8, hosts: &[(ComponentId, &str)]) -> Self {
        let mut agent = Agent::new(config, [seed; 32], Instant::ZERO);
        for (id, at) in hosts {
            let ip = addr(at).ip();
            let rank = hosts.iter().position(|(_, other)| addr(other).ip() == ip);
            let candidate = LocalCandidate {
                local_preference: 65535 - rank.unwrap() as u16,
                ..host(*id, addr(at))
            };
            agent.add_local_candidate(Instant::ZERO, candidate).unwrap();
        }
        agent.local_gathering_done(Instant::ZERO);
        Self {
            agent,
            events: Vec::new(),
        }
    }

    fn remote(&self, ice2: bool) -> Remote {
        Remote {
            credentials: self.agent.local_credentials().clone(),
            lite: false,
            ice2,
            pacing: None,
        }
    }

    fn learn(&mut self, now: Instant, other: &Self) {
        self.learn_as(now, other, "typ host");
    }

    /// Learns the other side's candidates, which are all told to be of one kind.
    fn learn_as(&mut self, now: Instant, other: &Self, kind: &str) {
        self.agent.set_remote(now, other.remote(true)).unwrap();
        for (stream, candidate) in other.agent.local_candidates() {
            let line = candidate.to_string().replace("typ host", kind);
            self.agent
                .add_remote_candidate(now, stream, line.parse().unwrap())
                .unwrap();
        }
        self.agent.end_of_remote_candidates(now);
    }

    fn selected(&self) -> Vec<(ComponentId, Route)> {
        self.events
            .iter()
            .filter_map(|event| {
                let Event::Selected {
                    component, route, ..
                } = event
                else {
                    return None;
                };
                Some((*component, *route))
            })
            .collect()
    }
}

/// Two agents and the network between them: a delay, and who can reach whom.
struct Net {
    sides: [Side; 2],
    now: Instant,
    wire: Vec<(Instant, usize, FiveTuple, Vec<u8>)>,
    log: Vec<alloc::string::String>,
    blocked: fn(&FiveTuple) -> bool,
}

impl Net {
    fn new(a: Side, b: Side) -> Self {
        Self {
            sides: [a, b],
            now: Instant::ZERO,
            wire: Vec::new(),
            log: Vec::new(),
            blocked: |_| false,
        }
    }

    fn exchange(&mut self) {
        let [a, b] = &mut self.sides;
        a.learn(self.now, b);
        b.learn(self.now, a);
    }

    fn drain(&mut self) {
        for (index, side) in self.sides.iter_mut().enumerate() {
            let mut buf = [0; MAX_TRANSMIT];
            while let Some(sent) = side.agent.poll_transmit(&mut buf) {
                let Route::Datagram(at) = sent.to else {
                    continue;
                };
                let message = Message::parse(&buf[..sent.len]).unwrap();
                let nominates = message.has(stun_proto::wire::AttributeType(0x25));
                let flag = if nominates { " USE-CANDIDATE" } else { "" };
                self.log.push(alloc::format!(
                    "{}ms {index} {:?}{flag} {} > {}",
                    self.now.duration_since(Instant::ZERO).as_millis(),
                    message.class(),
                    at.local,
                    at.remote,
                ));
                if !(self.blocked)(&at) {
                    let back = FiveTuple::udp(at.remote, at.local);
                    let arrival = self.now + Duration::from_millis(20);
                    self.wire
                        .push((arrival, 1 - index, back, buf[..sent.len].to_vec()));
                }
            }
            while let Some(event) = side.agent.poll_event() {
                side.events.push(event);
            }
            assert!(side.agent.poll_timeout().is_none_or(|at| at > self.now));
        }
    }

    fn run(&mut self, millis: u64) {
        let end = Instant::ZERO + Duration::from_millis(millis);
        self.drain();
        loop {
            let arrivals = self.wire.iter().map(|(at, ..)| *at);
            let timeouts = self.sides.iter().filter_map(|s| s.agent.poll_timeout());
            let Some(next) = arrivals.chain(timeouts).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = next;
            while let Some(index) = self.wire.iter().position(|(at, ..)| *at <= next) {
                let (_, side, at, bytes) = self.wire.remove(index);
                self.sides[side].agent.handle_datagram(next, at, &bytes);
            }
            for side in &mut self.sides {
                side.agent.handle_timeout(next);
            }
            self.drain();
        }
        self.now = end;
    }

    fn both_completed(&self) -> bool {
        self.sides
            .iter()
            .all(|side| side.events.iter().any(is_completed))
    }
}

const FAILED: [Event; 2] = [
    Event::StreamFailed {
        stream: 0,
        generation: 0,
    },
    Event::Failed {
        cause: Failure::NoPair,
        generation: 0,
    },
];

const fn is_completed(event: &Event) -> bool {
    matches!(event, Event::Completed { .. })
}

const ONE: ComponentId = ComponentId {
    stream: 0,
    component: 1,
};

fn pair(a: Role, b: Role) -> Net {
    Net::new(
        Side::new(AgentConfig::new(a), 1, &[(ONE, "192.0.2.1:1000")]),
        Side::new(AgentConfig::new(b), 2, &[(ONE, "192.0.2.2:2000")]),
    )
}

// spec: ICE-8.1.1-1, ICE-8.1.2-1, ICE-7.1.2-1, ICE-6.1.4.2-1
#[test]
fn two_hosts_connect_with_one_nomination() {
    let mut net = pair(Role::Controlling, Role::Controlled);
    net.exchange();
    net.run(1000);
    assert!(net.both_completed());
    let nominations: Vec<_> = net
        .log
        .iter()
        .filter(|line| line.contains("USE-CANDIDATE"))
        .collect();
    assert_eq!(nominations.len(), 1, "{:#?}", net.log);
    assert!(nominations[0].contains(" 0 "));
    assert_eq!(
        net.sides[1].selected(),
        [(
            ONE,
            Route::Datagram(FiveTuple::udp(
                addr("192.0.2.2:2000"),
                addr("192.0.2.1:1000")
            ))
        )]
    );
}

// spec: ICE-7.3.1.1-1, ICE-7.2.5.1-1
#[test]
fn role_conflicts_are_settled() {
    for role in [Role::Controlling, Role::Controlled] {
        let mut net = pair(role, role);
        net.exchange();
        net.run(2000);
        assert!(net.both_completed(), "{:#?}", net.log);
        assert_ne!(net.sides[0].agent.role(), net.sides[1].agent.role());
        let switches = net
            .sides
            .iter()
            .flat_map(|s| &s.events)
            .filter(|e| matches!(e, Event::RoleChanged(_)))
            .count();
        assert_eq!(switches, 1);
    }
}

// spec: ICE-7.3-2, SEC-I-13
#[test]
fn checks_before_the_description_are_answered_and_remembered() {
    let mut net = pair(Role::Controlling, Role::Controlled);
    let [a, b] = &mut net.sides;
    a.learn(Instant::ZERO, b);
    net.run(300);
    assert!(net.log.iter().any(|line| line.contains("1 Success")));
    let [a, b] = &mut net.sides;
    b.learn(net.now, a);
    net.run(2000);
    assert!(net.both_completed(), "{:#?}", net.log);
}

// spec: ICE-6.1.2.6-1, ICE-7.2.5.3.3-1
#[test]
fn several_streams_and_components_complete() {
    let ids = [(0, 1), (0, 2), (1, 1)].map(|(s, c)| component(s, c));
    let config = |role| AgentConfig {
        components: alloc::vec![2, 1],
        ..AgentConfig::new(role)
    };
    let hosts = |ip: &str, port: u16| {
        ids.iter()
            .zip(port..)
            .map(|(id, port)| (*id, alloc::format!("{ip}:{port}")))
            .collect::<Vec<_>>()
    };
    let side = |role, seed, ip| {
        let hosts = hosts(ip, 1000);
        let hosts: Vec<_> = hosts.iter().map(|(id, at)| (*id, at.as_str())).collect();
        Side::new(config(role), seed, &hosts)
    };
    let mut net = Net::new(
        side(Role::Controlling, 1, "192.0.2.1"),
        side(Role::Controlled, 2, "192.0.2.2"),
    );
    net.exchange();
    net.run(2000);
    assert!(net.both_completed(), "{:#?}", net.log);
    assert_eq!(net.sides[0].selected().len(), 3);
    // One foundation: only the first component's pair is checked before it has worked.
    let first: Vec<_> = net.log.iter().filter(|l| l.starts_with("0ms")).collect();
    assert_eq!(first.len(), 2, "{first:?}");
    assert!(
        !net.log
            .iter()
            .any(|l| l.starts_with("50ms 0 Request 192.0.2.1:1001 > 192.0.2.2:1000"))
    );
}

// spec: ICE-8.1.1-3
#[test]
fn a_better_pair_is_waited_for_half_a_second() {
    let mut net = Net::new(
        Side::new(
            AgentConfig::new(Role::Controlling),
            1,
            &[(ONE, "192.0.2.1:1000"), (ONE, "198.51.100.1:1000")],
        ),
        Side::new(
            AgentConfig::new(Role::Controlled),
            2,
            &[(ONE, "192.0.2.2:2000")],
        ),
    );
    // The way from the first address is dead, the second works.
    net.blocked = |at| at.local == addr("192.0.2.1:1000") || at.remote == addr("192.0.2.1:1000");
    let [a, b] = &mut net.sides;
    a.learn_as(net.now, b, "typ srflx");
    b.learn(net.now, a);
    net.run(3000);
    assert!(net.both_completed(), "{:#?}", net.log);
    let nomination = net
        .log
        .iter()
        .find(|l| l.contains("USE-CANDIDATE"))
        .unwrap();
    let millis: u64 = nomination.split("ms").next().unwrap().parse().unwrap();
    assert!((500..800).contains(&millis), "{nomination}");
}

// spec: PAC-4-1, PAC-4-2, PAC-5-1, ICE-8.1.2-3, ICE-7.2.5.4-1
#[test]
fn nothing_is_given_up_before_patience_ends() {
    let mut net = pair(Role::Controlling, Role::Controlled);
    net.blocked = |_| true;
    net.exchange();
    net.run(39_400);
    assert!(net.sides[0].events.is_empty());
    net.run(60_000);
    for side in &mut net.sides {
        assert_eq!(side.events, FAILED);
        assert_eq!(side.agent.poll_timeout(), None);
        assert_eq!(side.agent.route(ONE), None);
    }
}

#[test]
fn without_any_candidate_it_fails_in_the_end() {
    let config = AgentConfig::new(Role::Controlling);
    let mut net = Net::new(
        Side::new(config, 1, &[]),
        Side::new(AgentConfig::new(Role::Controlled), 2, &[]),
    );
    net.exchange();
    net.run(40_000);
    assert_eq!(net.sides[0].events, FAILED);
}

// spec: CON-5-1, CON-5.1-1, CON-5.1-3, SEC-I-05
#[test]
fn consent_is_asked_for_and_lost_after_30_s() {
    let mut net = pair(Role::Controlling, Role::Controlled);
    net.exchange();
    net.run(60_000);
    assert!(net.sides[0].agent.route(ONE).is_some());
    let checks = net
        .log
        .iter()
        .filter(|l| l.contains(" 0 Request") && !l.starts_with("0ms"))
        .count();
    assert!((10..=16).contains(&checks), "{checks}");
    net.blocked = |_| true;
    net.run(97_000);
    for side in &net.sides {
        assert_eq!(
            side.events.last(),
            Some(&Event::RouteLost {
                component: ONE,
                cause: RouteLoss::ConsentExpired,
                generation: 0,
            })
        );
        assert_eq!(side.agent.route(ONE), None);
        assert_eq!(side.agent.poll_timeout(), None);
    }
}

// spec: ICE-11-1, ICE-11-2
#[test]
fn without_consent_the_path_is_kept_open_by_indications() {
    let config = |role| AgentConfig {
        consent: None,
        ..AgentConfig::new(role)
    };
    let mut net = Net::new(
        Side::new(config(Role::Controlling), 1, &[(ONE, "192.0.2.1:1000")]),
        Side::new(config(Role::Controlled), 2, &[(ONE, "192.0.2.2:2000")]),
    );
    net.exchange();
    net.run(100_000);
    let count = net
        .log
        .iter()
        .filter(|l| l.contains("0 Indication"))
        .count();
    assert_eq!(count, 6);
    assert!(net.sides[0].agent.route(ONE).is_some());
}

/// A check from outside, with these credentials.
fn forged(user: &str, pwd: &str) -> Vec<u8> {
    use stun_proto::wire::{IceControlling, MessageType, Priority, Username, Writer};
    let mut buf = [0; 500];
    let ty = MessageType::request(Method::BINDING);
    let len = Writer::new(&mut buf, ty, TransactionId([5; 12]))
        .attribute(&Username::new(user).unwrap())
        .attribute(&Priority(1))
        .attribute(&IceControlling(1))
        .message_integrity(&Key::short_term(pwd))
        .fingerprint()
        .finish()
        .unwrap();
    buf[..len].to_vec()
}

// spec: SEC-I-01, ICE-7.3-1
#[test]
fn checks_that_prove_nothing_cause_nothing() {
    let mut net = pair(Role::Controlling, Role::Controlled);
    let agent = &mut net.sides[0].agent;
    let at = FiveTuple::udp(addr("192.0.2.1:1000"), addr("6.6.6.6:6"));
    let ours = alloc::format!("{}:x", agent.local_credentials().ufrag);
    let wrong = forged(&ours, "wrong password, long enough");
    assert_eq!(
        agent.handle_datagram(Instant::ZERO, at, &wrong),
        Received::Consumed
    );
    let foreign = forged("other:x", "wrong password, long enough");
    assert_eq!(
        agent.handle_datagram(Instant::ZERO, at, &foreign),
        Received::NotMine
    );
    let mut buf = [0; MAX_TRANSMIT];
    assert_eq!(agent.poll_transmit(&mut buf), None);
    assert_eq!(agent.poll_timeout(), None);
    assert_eq!(agent.stats().unverified, 1);
    assert_eq!(
        agent.handle_datagram(Instant::ZERO, at, b"\x80data"),
        Received::NotMine
    );
}

// spec: SEC-I-02
#[test]
fn remote_candidates_are_limited_and_the_most_important_stay() {
    let mut net = pair(Role::Controlling, Role::Controlled);
    let agent = &mut net.sides[0].agent;
    let mut add = |n: u32, priority: u32| {
        let [_, b, c, d] = n.to_be_bytes();
        let line = alloc::format!("candidate:1 1 udp {priority} 10.{b}.{c}.{d} 9 typ host");
        agent.add_remote_candidate(Instant::ZERO, 0, line.parse().unwrap())
    };
    for n in 0..1000 {
        assert_eq!(add(n, 1000 + n), Ok(()));
    }
    for n in 1000..2000 {
        assert_eq!(add(n, 2000 - n), Err(CandidateError::Limit));
    }
    assert_eq!(agent.remotes.len(), 64);
    assert_eq!(agent.poll_action(), None);
    assert_eq!(agent.pairs.len(), 64);
    let least = agent.remotes.values().map(|r| r.candidate.priority).min();
    assert_eq!(least, Some(1000 + 1000 - 64));
    assert_eq!(agent.stats().beyond_limit, 1000 - 64 + 1000);

    let mut net = pair(Role::Controlling, Role::Controlled);
    let agent = &mut net.sides[0].agent;
    let one_address = (1..100_u16)
        .filter(|port| {
            let line = alloc::format!("candidate:1 1 udp 9 10.0.0.1 {port} typ host");
            agent
                .add_remote_candidate(Instant::ZERO, 0, line.parse().unwrap())
                .is_ok()
        })
        .count();
    assert_eq!(one_address, 8);
}

// spec: ICE-12.2-1, SEC-I-12
#[test]
fn data_is_taken_from_proven_sources_only() {
    let mut net = pair(Role::Controlling, Role::Controlled);
    net.exchange();
    net.run(1000);
    let agent = &mut net.sides[0].agent;
    let good = FiveTuple::udp(addr("192.0.2.1:1000"), addr("192.0.2.2:2000"));
    let bad = FiveTuple::udp(addr("192.0.2.1:1000"), addr("192.0.2.2:2001"));
    assert_eq!(
        agent.handle_datagram(net.now, good, b"\x80x"),
        Received::Data {
            peer: ONE,
            data: b"\x80x"
        }
    );
    assert_eq!(
        agent.handle_datagram(net.now, bad, b"\x80x"),
        Received::NotMine
    );
}

// spec: ICE-7.2.1-1
#[test]
fn a_relayed_pair_waits_for_its_permission() {
    let relay = RelayId(3);
    let mut agent = Agent::new(AgentConfig::new(Role::Controlling), [1; 32], Instant::ZERO);
    agent
        .add_local_candidate(
            Instant::ZERO,
            LocalCandidate {
                kind: CandidateKind::Relayed,
                base: Base::Relay(relay),
                ..host(ONE, addr("203.0.113.1:50000"))
            },
        )
        .unwrap();
    let other = Side::new(
        AgentConfig::new(Role::Controlled),
        2,
        &[(ONE, "192.0.2.2:2000")],
    );
    let mut side = Side {
        agent,
        events: Vec::new(),
    };
    side.learn(Instant::ZERO, &other);
    let peer = "192.0.2.2".parse().unwrap();
    let agent = &mut side.agent;
    assert_eq!(
        agent.poll_action(),
        Some(Action::CreatePermission { relay, peer })
    );
    let mut buf = [0; MAX_TRANSMIT];
    assert_eq!(agent.poll_transmit(&mut buf), None);
    agent.permission_created(Instant::ZERO, relay, peer);
    let sent = agent.poll_transmit(&mut buf).unwrap();
    assert_eq!(
        sent.to,
        Route::Relay {
            relay,
            peer: addr("192.0.2.2:2000")
        }
    );
}

// spec: SEC-I-02
#[test]
#[cfg(not(debug_assertions))]
fn ten_thousand_candidates_take_less_than_ten_milliseconds() {
    extern crate std;
    for rising in [true, false] {
        let mut net = pair(Role::Controlling, Role::Controlled);
        let agent = &mut net.sides[0].agent;
        for n in 0..10_u32 {
            let at = alloc::format!("192.0.2.{}:1000", 10 + n);
            agent.gathering_done = false;
            let local = LocalCandidate {
                local_preference: 65535 - n as u16,
                ..host(ONE, addr(&at))
            };
            agent.add_local_candidate(Instant::ZERO, local).unwrap();
        }
        net.exchange();
        let agent = &mut net.sides[0].agent;
        agent.remote_done = false;
        let lines: Vec<crate::Candidate> = (0..10_000_u32)
            .map(|n| {
                let [_, b, c, d] = n.to_be_bytes();
                let priority = if rising { 1000 + n } else { 20_000 - n };
                alloc::format!("candidate:1 1 udp {priority} 10.{b}.{c}.{d} 9 typ host")
                    .parse()
                    .unwrap()
            })
            .collect();
        let start = std::time::Instant::now();
        for line in lines {
            let _ = agent.add_remote_candidate(Instant::ZERO, 0, line);
        }
        let took = start.elapsed();
        std::eprintln!("{took:?}");
        assert!(took < Duration::from_millis(10), "{took:?}");
        assert!(agent.pairs.len() <= 100);
    }
}
