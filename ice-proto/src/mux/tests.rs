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
                let key = mux.owner(route, &buf[..sent.len]).unwrap();
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
        assert_eq!(mux.owner(route, b"\x80data"), Some(n));
        let Route::Datagram(at) = route else {
            panic!("no relays here");
        };
        let received = agent.handle_datagram(now, at, b"\x80data");
        let data = &b"\x80data"[..];
        assert_eq!(received, Received::Data { peer: ONE, data });
    }
    let route = gateway[3].route(ONE).unwrap();
    mux.remove(3);
    assert_eq!(mux.owner(route, b"\x80data"), None);
    let elsewhere = FiveTuple::udp(addr(GATE), addr("6.6.6.6:6"));
    assert_eq!(mux.owner(Route::Datagram(elsewhere), b"\x80data"), None);
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
    assert_eq!(mux.owner(sent.to, &answer[..len]), Some('a'));
    // Much later nobody waits for it.
    let later = Instant::ZERO + Duration::from_secs(200);
    let other = Message::parse(&buf[..sent.len]).unwrap();
    let mut again = [0; 100];
    let id = TransactionId([9; 12]);
    let len_again = stun_proto::wire::Writer::new(&mut again, other.message_type(), id)
        .finish()
        .unwrap();
    mux.sent(later, 'a', sent.to, &again[..len_again]);
    assert_eq!(mux.owner(sent.to, &answer[..len]), None);

    let old = a.local_credentials().ufrag.clone();
    a.restart(Instant::ZERO).unwrap();
    mux.add('a', &a).unwrap();
    assert_eq!(mux.names.len(), 2);
    mux.forget_old('a', &a);
    assert!(mux.names.len() == 1 && !mux.names.contains_key(&old));
}
