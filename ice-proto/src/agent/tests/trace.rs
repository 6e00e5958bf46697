//! The order of checks, to the millisecond.

use alloc::string::{String, ToString as _};

use super::*;

/// Name and round trip of each remote address of the example.
const REMOTES: [(&str, &str, u64); 8] = [
    ("A1a", "198.51.100.1:1001", 40),
    ("A2a", "198.51.100.1:1002", 40),
    ("V1a", "198.51.100.1:2001", 40),
    ("V2a", "198.51.100.1:2002", 40),
    ("A1b", "203.0.113.9:1001", 60),
    ("A2b", "203.0.113.9:1002", 60),
    ("V1b", "203.0.113.9:2001", 60),
    ("V2b", "203.0.113.9:2002", 60),
];

const OTHER: &str = "an other password of 22";

fn id_of(name: &str) -> ComponentId {
    let stream = u16::from(name.starts_with('V'));
    let component = if name.contains('1') { 1 } else { 2 };
    ComponentId { stream, component }
}

/// Two streams with two components each, checked against hosts and relays. `fails` fails.
fn example(fails: Option<&str>) -> Vec<String> {
    let config = AgentConfig {
        components: alloc::vec![2, 2],
        nomination: Nomination::Host,
        ..AgentConfig::new(Role::Controlling)
    };
    let mut agent = Agent::new(config, [1; 32], Instant::ZERO);
    for (port, (s, c)) in [(0, 1), (0, 2), (1, 1), (1, 2)].into_iter().enumerate() {
        let at = SocketAddr::new("10.0.1.1".parse().unwrap(), 5000 + port as u16);
        let outside = SocketAddr::new("192.0.2.3".parse().unwrap(), 6000 + port as u16);
        let own = host(component(s, c), at);
        let reflexive = LocalCandidate {
            kind: CandidateKind::ServerReflexive,
            addr: outside,
            server: Some("192.0.2.200".parse().unwrap()),
            ..own.clone()
        };
        agent.add_local_candidate(Instant::ZERO, own).unwrap();
        agent.add_local_candidate(Instant::ZERO, reflexive).unwrap();
    }
    agent.local_gathering_done(Instant::ZERO);
    let remote = Remote {
        credentials: Credentials {
            ufrag: "rfrag".into(),
            pwd: OTHER.into(),
        },
        lite: false,
        ice2: true,
        pacing: None,
    };
    agent.set_remote(Instant::ZERO, remote).unwrap();
    for (name, at, _) in REMOTES {
        let id = id_of(name);
        let relay = name.ends_with('b');
        let kind = if relay {
            CandidateKind::Relayed
        } else {
            CandidateKind::Host
        };
        let candidate = crate::Candidate {
            foundation: name[2..].into(),
            component: id.component,
            priority: crate::priority(kind, 65535, id.component),
            addr: addr(at),
            kind,
            related: None,
        };
        agent
            .add_remote_candidate(Instant::ZERO, id.stream, candidate)
            .unwrap();
    }

    let mut log = Vec::new();
    let mut answers: Vec<(Instant, FiveTuple, Vec<u8>)> = Vec::new();
    let mut now = Instant::ZERO;
    let mut buf = [0; MAX_TRANSMIT];
    loop {
        while let Some(sent) = agent.poll_transmit(&mut buf) {
            let Route::Datagram(at) = sent.to else {
                panic!("no relay here");
            };
            let (name, _, rtt) = REMOTES
                .iter()
                .find(|(_, remote, _)| addr(remote) == at.remote)
                .unwrap();
            let message = Message::parse(&buf[..sent.len]).unwrap();
            let id = message.transaction_id();
            let again = agent.timers.get(Timer::Check(id)).unwrap();
            log.push(alloc::format!(
                "{:.3}s tx {name} rto {}",
                now.duration_since(Instant::ZERO).as_secs_f32(),
                again.duration_since(now).as_millis()
            ));
            let at = FiveTuple::udp(at.local, at.remote);
            let key = Key::short_term(OTHER);
            let mut answer = [0; 200];
            let ty = if fails == Some(name) {
                message.message_type().error()
            } else {
                message.message_type().success()
            };
            let failed = fails == Some(name);
            let error = stun_proto::wire::ErrorCode::new(400);
            let mapped = stun_proto::wire::XorMappedAddress(at.local);
            let len = stun_proto::wire::Writer::new(&mut answer, ty, id)
                .maybe(failed.then_some(&error))
                .maybe((!failed).then_some(&mapped))
                .message_integrity(&key)
                .fingerprint()
                .finish()
                .unwrap();
            let arrival = now + Duration::from_millis(*rtt);
            answers.push((arrival, at, answer[..len].to_vec()));
        }
        let next = answers.iter().map(|(at, ..)| *at).min();
        let next = next.into_iter().chain(agent.poll_timeout()).min().unwrap();
        if next > Instant::ZERO + Duration::from_millis(450) {
            return log;
        }
        now = next;
        if let Some(due) = answers.iter().position(|(at, ..)| *at <= now) {
            let (_, at, bytes) = answers.remove(due);
            assert_eq!(agent.handle_datagram(now, at, &bytes), Received::Consumed);
        }
        agent.handle_timeout(now);
    }
}

// spec: ICE-6.1.2-1, ICE-6.1.2.4-1, ICE-6.1.2.6-1, ICE-6.1.4.2-1, ICE-6.1.4.2-2, ICE-7.2.5.3.3-1, ICE-14.3-1
#[test]
fn the_worked_example_of_two_streams_is_followed_exactly() {
    assert_eq!(
        example(None),
        [
            "0.000s tx A1a rto 800",
            "0.050s tx V1a rto 1600",
            "0.100s tx A2a rto 1200",
            "0.150s tx V2a rto 800",
            "0.200s tx A1b rto 500",
            "0.300s tx V1b rto 1200",
            "0.350s tx A2b rto 1200",
            "0.400s tx V2b rto 800",
        ]
    );
}

// spec: ICE-7.2.5.2.4-1, ICE-7.2.5.2.3-1
#[test]
fn a_failed_pair_unfreezes_nothing_but_its_foundation_gets_another_try() {
    let log = example(Some("A1a"));
    assert_eq!(log[1].split(" rto").next(), Some("0.050s tx V1a"));
}

// spec: ICE-6.1.4.2-2
#[test]
fn fresh_pairs_start_waiting_or_frozen_by_foundation() {
    // m1{f1,f2,f3} m2{f1..f4} m3{f1,f5}: the first stream with a foundation gets the waiting pair.
    let config = AgentConfig {
        components: alloc::vec![1, 1, 1],
        nomination: Nomination::Host,
        ..AgentConfig::new(Role::Controlling)
    };
    let mut agent = Agent::new(config, [1; 32], Instant::ZERO);
    for stream in 0..3 {
        let at = SocketAddr::new("10.0.0.1".parse().unwrap(), 1000 + stream);
        let own = host(component(stream, 1), at);
        agent.add_local_candidate(Instant::ZERO, own).unwrap();
    }
    let side = Side::new(AgentConfig::new(Role::Controlled), 2, &[]);
    agent.set_remote(Instant::ZERO, side.remote(true)).unwrap();
    for (stream, count) in [(0, &[1, 2, 3][..]), (1, &[1, 2, 3, 4]), (2, &[1, 5])] {
        for f in count {
            let line = alloc::format!("candidate:{f} 1 udp {f} 10.0.{stream}.{f} 9 typ host");
            let candidate = line.parse().unwrap();
            agent
                .add_remote_candidate(Instant::ZERO, stream, candidate)
                .unwrap();
        }
    }
    let mut buf = [0; MAX_TRANSMIT];
    agent.poll_transmit(&mut buf).unwrap();
    let mut active: Vec<(u16, String)> = agent
        .pairs
        .values()
        .filter(|pair| pair.is_active())
        .map(|pair| {
            let remote = &agent.remotes[&pair.remote].candidate;
            (pair.component.stream, remote.foundation.to_string())
        })
        .collect();
    active.sort();
    let expected = [(0, "1"), (0, "2"), (0, "3"), (1, "4"), (2, "5")];
    assert_eq!(active, expected.map(|(s, f)| (s, f.to_string())));
}
