//! Two agents and a network that does what it likes for five seconds.

use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, prop_assert_ne, proptest};

use super::super::schedule::ListState;
use super::*;

const BAD: Duration = Duration::from_secs(5);

struct World {
    sides: [Side; 2],
    now: Instant,
    wire: Vec<(Instant, usize, FiveTuple, Vec<u8>)>,
    rng: Rng,
    loss: u32,
    duplicates: u32,
    jitter: u32,
}

impl World {
    fn check(&mut self) {
        for side in &self.sides {
            let agent = &side.agent;
            assert!(agent.poll_timeout().is_none_or(|at| at > self.now));
            assert!(agent.pairs.len() <= agent.config.max_pairs);
            assert!(agent.remotes.len() <= agent.config.max_remote);
            for list in &agent.lists {
                for (n, id) in list.triggered.iter().enumerate() {
                    assert!(agent.pairs.contains_key(id), "queued but gone");
                    assert!(!list.triggered.iter().skip(n + 1).any(|other| other == id));
                }
                if list.state == ListState::Failed {
                    assert!(list.triggered.is_empty());
                }
            }
            assert!(agent.checks.len() <= 3 * agent.config.max_pairs);
        }
    }

    fn drain(&mut self) {
        let bad = self.now < Instant::ZERO + BAD;
        for index in 0..2 {
            let mut buf = [0; MAX_TRANSMIT];
            while let Some(sent) = self.sides[index].agent.poll_transmit(&mut buf) {
                let state = self.sides[index].agent.state();
                assert!(matches!(state, AgentState::Running | AgentState::Completed));
                let Route::Datagram(at) = sent.to else {
                    panic!("no relays here");
                };
                let back = FiveTuple::udp(at.remote, at.local);
                let copies = match bad {
                    true if self.rng.below(100) < self.loss => 0,
                    true if self.rng.below(100) < self.duplicates => 2,
                    _ => 1,
                };
                for _ in 0..copies {
                    let jitter = if bad {
                        self.rng.below(self.jitter + 1)
                    } else {
                        0
                    };
                    let arrival = self.now + Duration::from_millis(u64::from(5 + jitter));
                    let bytes = buf[..sent.len].to_vec();
                    self.wire.push((arrival, 1 - index, back, bytes));
                }
            }
            while let Some(event) = self.sides[index].agent.poll_event() {
                self.sides[index].events.push(event);
            }
        }
        self.check();
    }

    fn run(&mut self, end: Instant) {
        self.drain();
        for _ in 0..100_000 {
            let arrivals = self.wire.iter().map(|(at, ..)| *at);
            let timeouts = self.sides.iter().filter_map(|s| s.agent.poll_timeout());
            let Some(next) = arrivals.chain(timeouts).min().filter(|at| *at <= end) else {
                self.now = end;
                return;
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
        panic!("it never comes to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    // spec: SEC-G-07, SEC-I-07, ICE-6.1.4.1-1
    #[test]
    fn two_agents_agree_once_the_network_has_come_to_its_senses(
        seed: [u8; 32],
        roles: [bool; 2],
        streams in proptest::collection::vec(1u16..3, 1..3),
        hosts in [1usize..4, 1usize..4],
        late in 0u64..3000,
        loss in 0u32..90,
        duplicates in 0u32..50,
        jitter in 0u32..400,
        consent: bool,
        restart: bool,
    ) {
        let side = |index: usize| {
            let role = if roles[index] { Role::Controlling } else { Role::Controlled };
            let config = AgentConfig {
                components: streams.clone(),
                consent: consent.then_some(Duration::from_secs(5)),
                ..AgentConfig::new(role)
            };
            let mut ids = Vec::new();
            for (stream, count) in streams.iter().enumerate() {
                for c in 1..=*count {
                    for host in 0..hosts[index] {
                        let port = 1000 + 10 * stream + usize::from(c);
                        let at = alloc::format!("10.{index}.0.{}:{port}", host + 1);
                        ids.push((component(stream as u16, c), at));
                    }
                }
            }
            let ids: Vec<_> = ids.iter().map(|(id, at)| (*id, at.as_str())).collect();
            Side::new(config, seed[index] ^ index as u8, &ids)
        };
        let mut world = World {
            sides: [side(0), side(1)],
            now: Instant::ZERO,
            wire: Vec::new(),
            rng: Rng::from_seed(seed),
            loss,
            duplicates,
            jitter,
        };
        let [a, b] = &mut world.sides;
        a.learn(Instant::ZERO, b);
        world.run(Instant::ZERO + Duration::from_millis(late));
        let [a, b] = &mut world.sides;
        b.learn(world.now, a);
        world.run(Instant::ZERO + Duration::from_secs(39));
        if restart {
            let now = world.now;
            let [a, b] = &mut world.sides;
            for side in [&mut *a, &mut *b] {
                side.agent.restart(now).unwrap();
                side.agent.local_gathering_done(now);
                side.events.clear();
            }
            a.learn(now, b);
            b.learn(now, a);
            world.run(now + Duration::from_secs(30));
        }
        for side in &world.sides {
            prop_assert!(
                side.events.iter().any(is_completed),
                "{:?} {:?}",
                side.agent.state(),
                side.events
            );
        }
        let [a, b] = &world.sides;
        prop_assert_ne!(a.agent.role(), b.agent.role());
        for (stream, count) in streams.iter().enumerate() {
            for c in 1..=*count {
                let id = component(stream as u16, c);
                let (Some(Route::Datagram(there)), Some(Route::Datagram(back))) =
                    (a.agent.route(id), b.agent.route(id))
                else {
                    panic!("no route for {id:?}: {:?} {:?}", a.events, b.events);
                };
                prop_assert_eq!(there, FiveTuple::udp(back.remote, back.local));
            }
        }
    }
}
