#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::vec::Vec;
use core::net::SocketAddr;

use stun_proto::{FiveTuple, Received};

use super::*;
use crate::{AgentConfig, Base, CandidateKind, ComponentId, LocalCandidate, Remote, Role};

const ONE: ComponentId = ComponentId {
    stream: 0,
    component: 1,
};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn agent(seed: u8, at: &str, role: Role, lite: bool) -> Agent {
    let config = AgentConfig {
        lite,
        ..AgentConfig::new(role)
    };
    let mut agent = Agent::new(config, [seed; 32], Instant::ZERO);
    let own = LocalCandidate {
        component: ONE,
        kind: CandidateKind::Host,
        addr: addr(at),
        base: Base::Host(addr(at)),
        local_preference: 65535,
        server: None,
        related: None,
    };
    agent.add_local_candidate(Instant::ZERO, own).unwrap();
    agent.local_gathering_done(Instant::ZERO);
    agent
}

fn introduce(to: &mut Agent, other: &Agent, lite: bool) {
    let remote = Remote {
        credentials: other.local_credentials().clone(),
        lite,
        ice2: true,
        pacing: None,
    };
    to.set_remote(Instant::ZERO, remote).unwrap();
    for (stream, candidate) in other.local_candidates() {
        to.add_remote_candidate(Instant::ZERO, stream, candidate)
            .unwrap();
    }
}

// spec: DMX-1
#[test]
fn every_first_byte_has_its_kind() {
    for byte in 0..=255_u8 {
        let expected = match byte {
            0..=3 => PacketKind::Stun,
            16..=19 => PacketKind::Zrtp,
            20..=63 => PacketKind::Dtls,
            64..=79 => PacketKind::TurnChannel,
            128..=191 => PacketKind::Rtp,
            _ => PacketKind::Unknown,
        };
        assert_eq!(PacketKind::of(&[byte, 0]), expected, "{byte}");
        let second = PacketKind::of(&[0x80, byte]);
        assert_eq!(second == PacketKind::Rtcp, (192..=223).contains(&byte));
    }
    assert_eq!(PacketKind::of(&[]), PacketKind::Unknown);
}

#[test]
fn many_lite_agents_share_one_socket() {
    const GATE: &str = "192.0.2.1:3000";
    let mut gateway: Vec<Agent> = (0..20)
        .map(|n| agent(100 + n, GATE, Role::Controlled, true))
        .collect();
    let mut phones: Vec<Agent> = (0..20)
        .map(|n| {
            let at = alloc::format!("198.51.100.{n}:4000");
            agent(n + 1, &at, Role::Controlling, false)
        })
        .collect();
    let mut mux = Mux::new(20);
    for (n, (ours, theirs)) in gateway.iter_mut().zip(&mut phones).enumerate() {
        mux.add(n, ours).unwrap();
        introduce(ours, theirs, false);
        introduce(theirs, ours, true);
    }
    assert_eq!(mux.add(99, &gateway[0]), Err(MuxError), "name taken");
    assert_eq!(mux.add(99, &phones[0]), Err(MuxError), "too many");
    let mut buf = [0; crate::MAX_TRANSMIT];
    let mut now = Instant::ZERO;
    for _ in 0..40 {
        for (n, phone) in phones.iter_mut().enumerate() {
            phone.handle_timeout(now);
            while let Some(sent) = phone.poll_transmit(&mut buf) {
                let Route::Datagram(at) = sent.to else {
                    panic!("no relays here");
                };
                let here = FiveTuple::udp(at.remote, at.local);
                let route = Route::Datagram(here);
                let key = mux.owner(now, route, &buf[..sent.len]).unwrap();
                assert_eq!(key, n);
                gateway[key].handle_datagram(now, here, &buf[..sent.len]);
                while let Some(answer) = gateway[key].poll_transmit(&mut buf) {
                    mux.sent(now, key, answer.to, &buf[..answer.len]);
                    phone.handle_datagram(now, at, &buf[..answer.len]);
                }
            }
        }
        now += Duration::from_millis(50);
    }
    for (n, agent) in gateway.iter_mut().enumerate() {
        let route = agent.route(ONE).unwrap();
        assert_eq!(mux.owner(now, route, b"\x80data"), Some(n));
        let Route::Datagram(at) = route else {
            panic!("no relays here");
        };
        let received = agent.handle_datagram(now, at, b"\x80data");
        let data = &b"\x80data"[..];
        assert_eq!(received, Received::Data { peer: ONE, data });
    }
    let route = gateway[3].route(ONE).unwrap();
    mux.remove(3);
    assert_eq!(mux.owner(now, route, b"\x80data"), None);
    let elsewhere = FiveTuple::udp(addr(GATE), addr("6.6.6.6:6"));
    assert_eq!(
        mux.owner(now, Route::Datagram(elsewhere), b"\x80data"),
        None
    );
}

#[test]
fn answers_find_the_agent_that_asked_and_a_restart_keeps_both_names() {
    let mut a = agent(1, "192.0.2.1:1", Role::Controlling, false);
    let b = agent(2, "192.0.2.2:2", Role::Controlled, false);
    let mut mux = Mux::new(10);
    mux.add('a', &a).unwrap();
    introduce(&mut a, &b, false);
    let mut buf = [0; crate::MAX_TRANSMIT];
    let sent = a.poll_transmit(&mut buf).unwrap();
    mux.sent(Instant::ZERO, 'a', sent.to, &buf[..sent.len]);
    let request = Message::parse(&buf[..sent.len]).unwrap();
    let mut answer = [0; 100];
    let ty = request.message_type().success();
    let len = stun_proto::wire::Writer::new(&mut answer, ty, request.transaction_id())
        .finish()
        .unwrap();
    assert_eq!(mux.owner(Instant::ZERO, sent.to, &answer[..len]), Some('a'));
    // Much later nobody waits for it.
    let later = Instant::ZERO + Duration::from_secs(200);
    let other = Message::parse(&buf[..sent.len]).unwrap();
    let mut again = [0; 100];
    let id = TransactionId([9; 12]);
    let len_again = stun_proto::wire::Writer::new(&mut again, other.message_type(), id)
        .finish()
        .unwrap();
    mux.sent(later, 'a', sent.to, &again[..len_again]);
    assert_eq!(mux.owner(later, sent.to, &answer[..len]), None);

    let old = a.local_credentials().ufrag.clone();
    a.restart(Instant::ZERO).unwrap();
    mux.add('a', &a).unwrap();
    assert_eq!(mux.names.len(), 2);
    mux.forget_old('a', &a);
    assert!(mux.names.len() == 1 && !mux.names.contains_key(&old));
}

/// A message of the Binding method without attributes.
fn bare(class: Class, id: u16) -> Vec<u8> {
    let mut id_bytes = [0; 12];
    id_bytes[..2].copy_from_slice(&id.to_be_bytes());
    let request = stun_proto::wire::MessageType::new(Class::Request, Method::BINDING);
    let ty = match class {
        Class::Request => request,
        Class::Success => request.success(),
        Class::Error => request.error(),
        Class::Indication => stun_proto::wire::MessageType::new(class, Method::BINDING),
    };
    let mut buf = [0; 20];
    let writer = stun_proto::wire::Writer::new(&mut buf, ty, TransactionId(id_bytes));
    let len = writer.finish().unwrap();
    buf[..len].to_vec()
}

fn route(port: u16) -> Route {
    let remote = SocketAddr::from(([198, 51, 100, 7], port));
    Route::Datagram(FiveTuple::udp(addr("192.0.2.1:3000"), remote))
}

/// Two agents known by their keys.
fn two() -> Mux<char> {
    let mut mux = Mux::new(10);
    for (key, seed) in [('a', 1), ('h', 2)] {
        let agent = agent(seed, "192.0.2.1:3000", Role::Controlled, false);
        mux.add(key, &agent).unwrap();
    }
    mux
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

const DATA: &[u8] = b"\x80data";

/// An agent's check goes out over a route, and its answer comes back over it.
fn prove(mux: &mut Mux<char>, now: Instant, key: char, route: Route, id: u16) {
    mux.sent(now, key, route, &bare(Class::Request, id));
    let answer = bare(Class::Success, id);
    assert_eq!(mux.owner(now, route, &answer), Some(key));
}

#[test]
fn a_forged_source_does_not_take_a_route_that_its_agent_has_proven() {
    let mut mux = two();
    prove(&mut mux, at(0), 'a', route(1), 1);
    // A peer of the other agent knows the address, and sends a check as if from there.
    mux.sent(at(1), 'h', route(1), &bare(Class::Success, 9));
    assert_eq!(mux.owner(at(1), route(1), DATA), Some('a'));
    assert_eq!(mux.refused(), 1);
}

#[test]
fn a_forged_source_that_came_first_gives_way_to_proof() {
    let mut mux = two();
    mux.sent(at(0), 'h', route(1), &bare(Class::Success, 9));
    assert_eq!(mux.owner(at(0), route(1), DATA), Some('h'));
    prove(&mut mux, at(1), 'a', route(1), 1);
    assert_eq!(mux.owner(at(1), route(1), DATA), Some('a'));
    mux.sent(at(40), 'h', route(2), &bare(Class::Success, 10));
    mux.remove('h');
    assert_eq!(mux.owner(at(40), route(1), DATA), Some('a'));
    assert_eq!(mux.owner(at(40), route(2), DATA), None);
}

#[test]
fn an_answer_from_elsewhere_proves_no_route() {
    let mut mux = two();
    mux.sent(at(0), 'a', route(1), &bare(Class::Request, 1));
    let owner = mux.owner(at(0), route(2), &bare(Class::Success, 1));
    assert_eq!(owner, Some('a'), "the agent itself judges it");
    assert_eq!(mux.owner(at(0), route(2), DATA), None);
    assert_eq!(mux.owner(at(0), route(1), DATA), None);
}

#[test]
fn a_silent_route_goes_to_who_is_there() {
    let mut mux = two();
    mux.sent(at(0), 'h', route(1), &bare(Class::Success, 9));
    mux.sent(at(29), 'a', route(1), &bare(Class::Success, 1));
    assert_eq!(mux.owner(at(29), route(1), DATA), Some('h'));
    mux.sent(at(30), 'a', route(1), &bare(Class::Success, 2));
    assert_eq!(mux.owner(at(30), route(1), DATA), Some('a'));
}

#[test]
fn a_hostile_peer_uses_up_nothing_but_its_own_agents_share() {
    let mut mux = two();
    prove(&mut mux, at(0), 'a', route(1), 1);
    mux.sent(at(0), 'a', route(1), &bare(Class::Request, 2));
    // The hostile agent's own way is proven, then come checks from everywhere.
    prove(&mut mux, at(0), 'h', route(2), 3);
    for n in 100..60_000 {
        mux.sent(at(1), 'h', route(n), &bare(Class::Success, n));
        mux.sent(at(1), 'h', route(n), &bare(Class::Request, n));
    }
    assert_eq!(mux.routes.len(), 1 + ROUTES_PER_AGENT);
    assert_eq!(mux.checks.len(), 2 + CHECKS_PER_AGENT);
    assert_eq!(
        mux.owner(at(2), route(1), &bare(Class::Success, 2)),
        Some('a')
    );
    assert_eq!(mux.owner(at(2), route(1), DATA), Some('a'));
    assert_eq!(
        mux.owner(at(2), route(2), DATA),
        Some('h'),
        "its proven way"
    );
    prove(&mut mux, at(2), 'a', route(60_001), 4);
    assert_eq!(mux.owner(at(2), route(60_001), DATA), Some('a'));
    mux.remove('h');
    assert_eq!((mux.routes.len(), mux.checks.len()), (2, 3));
}

#[test]
fn an_agent_that_restarts_without_end_has_two_names() {
    let mut mux = two();
    let mut agent = agent(3, "192.0.2.1:3000", Role::Controlled, false);
    for _ in 0..100 {
        mux.add('r', &agent).unwrap();
        agent.restart(Instant::ZERO).unwrap();
    }
    assert_eq!(mux.names.len(), 2 + NAMES_PER_AGENT);
}
