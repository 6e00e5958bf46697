//! One rule after the other, against a scripted other side.

use stun_proto::wire::{
    ErrorCode, IceControlled, IceControlling, MessageType, Priority, UseCandidate, Username,
    Writer, XorMappedAddress,
};

use super::*;

mod restart;

const US: &str = "192.0.2.1:1000";
const THEM: &str = "198.51.100.2:2000";
const PWD: &str = "the other side's password";
const UFRAG: &str = "them";

fn remote() -> Remote {
    Remote {
        credentials: Credentials {
            ufrag: UFRAG.into(),
            pwd: PWD.into(),
        },
        lite: false,
        ice2: true,
        pacing: None,
    }
}

/// A request of the other side.
#[derive(Clone, Copy)]
struct Ask {
    from: &'static str,
    role: Option<Role>,
    tie: u64,
    nominates: bool,
    priority: u32,
    id: u8,
}

const ASK: Ask = Ask {
    from: THEM,
    role: Some(Role::Controlled),
    tie: 7,
    nominates: false,
    priority: 1_862_270_975,
    id: 1,
};

struct Script {
    agent: Agent,
    now: Instant,
    events: Vec<Event>,
    actions: Vec<Action>,
}

impl Script {
    fn new(config: AgentConfig) -> Self {
        let mut agent = Agent::new(config, [3; 32], Instant::ZERO);
        let own = host(ONE, addr(US));
        agent.add_local_candidate(Instant::ZERO, own).unwrap();
        agent.local_gathering_done(Instant::ZERO);
        Self {
            agent,
            now: Instant::ZERO,
            events: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// With the other side's description and its one host candidate.
    fn begun(config: AgentConfig) -> Self {
        let mut script = Self::new(config);
        script.begin(remote());
        script
    }

    fn begin(&mut self, remote: Remote) {
        self.agent.set_remote(self.now, remote).unwrap();
        self.signal(THEM, 2_130_706_431);
    }

    fn signal(&mut self, at: &str, priority: u32) {
        let candidate = crate::Candidate {
            foundation: "h".into(),
            component: 1,
            priority,
            addr: addr(at),
            kind: CandidateKind::Host,
            related: None,
        };
        self.agent
            .add_remote_candidate(self.now, 0, candidate)
            .unwrap();
    }

    fn at(&self, remote: &str) -> FiveTuple {
        FiveTuple::udp(addr(US), addr(remote))
    }

    /// Everything that is to be sent now.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut buf = [0; MAX_TRANSMIT];
        while let Some(sent) = self.agent.poll_transmit(&mut buf) {
            all.push(buf[..sent.len].to_vec());
        }
        self.events
            .extend(core::iter::from_fn(|| self.agent.poll_event()));
        self.actions
            .extend(core::iter::from_fn(|| self.agent.poll_action()));
        all
    }

    /// The one thing that is to be sent now.
    fn one(&mut self) -> Vec<u8> {
        let mut all = self.sent();
        assert_eq!(all.len(), 1, "{all:02x?}");
        all.remove(0)
    }

    fn none(&mut self) {
        assert_eq!(self.sent(), Vec::<Vec<u8>>::new());
    }

    /// Lets time pass, and returns what is sent meanwhile.
    fn wait(&mut self, millis: u64) -> Vec<Vec<u8>> {
        let end = self.now + Duration::from_millis(millis);
        let mut all = self.sent();
        while let Some(next) = self.agent.poll_timeout().filter(|at| *at <= end) {
            self.now = next;
            self.agent.handle_timeout(next);
            all.extend(self.sent());
        }
        self.now = end;
        all
    }

    fn ask(&mut self, ask: Ask) {
        let user = alloc::format!("{}:{UFRAG}", self.agent.local_credentials().ufrag);
        let key = Key::short_term(self.agent.local_credentials().pwd.expose());
        self.ask_as(ask, &user, &key);
    }

    fn ask_as(&mut self, ask: Ask, user: &str, key: &Key) {
        let mut buf = [0; 500];
        let ty = MessageType::request(Method::BINDING);
        let (controlling, controlled) = match ask.role {
            Some(Role::Controlling) => (Some(IceControlling(ask.tie)), None),
            Some(Role::Controlled) => (None, Some(IceControlled(ask.tie))),
            None => (None, None),
        };
        let len = Writer::new(&mut buf, ty, TransactionId([ask.id; 12]))
            .attribute(&Username::new(user).unwrap())
            .attribute(&Priority(ask.priority))
            .maybe(controlling.as_ref())
            .maybe(controlled.as_ref())
            .maybe(ask.nominates.then_some(&UseCandidate))
            .message_integrity(key)
            .fingerprint()
            .finish()
            .unwrap();
        let at = self.at(ask.from);
        let taken = self.agent.handle_datagram(self.now, at, &buf[..len]);
        assert_eq!(taken, Received::Consumed);
    }

    /// Answers a request of the agent with success, as seen from `mapped`.
    fn answer(&mut self, request: &[u8], from: &str, mapped: &str) {
        self.answer_with(request, from, Ok(addr(mapped)), PWD);
    }

    fn answer_with(
        &mut self,
        request: &[u8],
        from: &str,
        result: Result<SocketAddr, u16>,
        pwd: &str,
    ) {
        let message = Message::parse(request).unwrap();
        let ty = match result {
            Ok(_) => message.message_type().success(),
            Err(_) => message.message_type().error(),
        };
        let mut buf = [0; 200];
        let len = Writer::new(&mut buf, ty, message.transaction_id())
            .maybe(result.err().map(ErrorCode::new).as_ref())
            .maybe(result.ok().map(XorMappedAddress).as_ref())
            .message_integrity(&Key::short_term(pwd))
            .fingerprint()
            .finish()
            .unwrap();
        let at = self.at(from);
        self.agent.handle_datagram(self.now, at, &buf[..len]);
    }

    fn states(&self) -> Vec<PairState> {
        self.agent.pairs.values().map(|pair| pair.state).collect()
    }

    /// Until the pair is selected, as controlling agent.
    fn selected(config: AgentConfig) -> Self {
        let mut script = Self::begun(config);
        let check = script.one();
        script.answer(&check, THEM, US);
        let nomination = script.wait(50);
        assert!(nominates(&nomination[0]));
        script.answer(&nomination[0], THEM, US);
        script.none();
        assert!(script.events.last().is_some_and(is_completed));
        script
    }
}

use super::super::pairs::PairState;

fn controlling() -> AgentConfig {
    AgentConfig::new(Role::Controlling)
}

fn controlled() -> AgentConfig {
    AgentConfig::new(Role::Controlled)
}

fn parse(bytes: &[u8]) -> Message<'_> {
    Message::parse(bytes).unwrap()
}

fn nominates(bytes: &[u8]) -> bool {
    parse(bytes).find::<UseCandidate>().is_some()
}

fn code(bytes: &[u8]) -> Option<u16> {
    parse(bytes).find::<ErrorCode<'_>>().map(|e| e.code())
}

fn is_request(bytes: &[u8]) -> bool {
    parse(bytes).class() == stun_proto::wire::Class::Request
}

// spec: ICE-7.1.1-1, ICE-7.1.3-1, ICE-7.2.2-1, ICE-6.1.4.2-3, ICE-16.1-1, ICE-7.2.4-1
#[test]
fn a_check_says_what_it_must() {
    let mut script = Script::begun(controlling());
    let check = script.one();
    let message = parse(&check);
    let ours = &script.agent.local_credentials().ufrag;
    let name: Username<'_> = message.find().unwrap();
    assert_eq!(name.as_str(), Some(&*alloc::format!("{UFRAG}:{ours}")));
    assert_eq!(message.find(), Some(Priority(1_862_270_975)));
    let tie = script.agent.tie_breaker;
    assert_eq!(message.find(), Some(IceControlling(tie)));
    assert_eq!(message.find::<IceControlled>(), None);
    assert!(!nominates(&check));
    assert!(message.verify(&Key::short_term(PWD)).is_ok());
    assert_eq!(message.check_fingerprint(), Some(true));
    // Sent again it is the same.
    assert_eq!(script.wait(500), [check]);
}

// spec: ICE-7.3-1, ICE-7.3.1.2-1, ICE-5.3-2
#[test]
fn requests_are_answered_with_the_address_they_came_from() {
    let mut script = Script::new(controlling());
    script.ask(ASK);
    let answer = script.one();
    assert_eq!(parse(&answer).find(), Some(XorMappedAddress(addr(THEM))));
    let key = Key::short_term(script.agent.local_credentials().pwd.expose());
    assert!(parse(&answer).verify(&key).is_ok());
    assert_eq!(parse(&answer).check_fingerprint(), Some(true));
    assert!(parse(&answer).find::<Username<'_>>().is_none());
}

// spec: ICE-7.3-1
#[test]
fn what_proves_nothing_is_refused_in_the_open_only_if_so_configured() {
    let config = AgentConfig {
        answer_unverified: true,
        ..controlling()
    };
    let mut script = Script::new(config);
    let key = Key::short_term("some other password, long");
    script.ask_as(ASK, "nobody:them", &key);
    assert_eq!(code(&script.one()), Some(401));
    let user = alloc::format!("{}:them", script.agent.local_credentials().ufrag);
    for _ in 0..100 {
        script.ask_as(ASK, &user, &key);
    }
    let answers = script.sent();
    assert_eq!(answers.len(), 9, "ten each second");
    assert!(answers.iter().all(|a| !parse(a).has_integrity()));
    assert!(script.agent.pairs.is_empty() && script.agent.remotes.is_empty());
}

// spec: ICE-7.3.1.1-1
#[test]
fn the_role_conflict_table() {
    use Role::{Controlled, Controlling};
    // Own role, claimed role, their tie-breaker relative to ours; whether 487, and the role after.
    for (own, claimed, higher, refuses, after) in [
        (Controlling, Controlling, -1, true, Controlling),
        (Controlling, Controlling, 0, true, Controlling),
        (Controlling, Controlling, 1, false, Controlled),
        (Controlled, Controlled, -1, false, Controlling),
        (Controlled, Controlled, 0, false, Controlling),
        (Controlled, Controlled, 1, true, Controlled),
        (Controlling, Controlled, 1, false, Controlling),
        (Controlled, Controlling, 1, false, Controlled),
    ] {
        let mut script = Script::new(AgentConfig::new(own));
        let tie = script.agent.tie_breaker;
        script.ask(Ask {
            role: Some(claimed),
            tie: tie.wrapping_add_signed(higher),
            ..ASK
        });
        let answer = script.one();
        assert_eq!(code(&answer), refuses.then_some(487), "{own:?} {higher}");
        assert_eq!(script.agent.role(), after);
        assert_eq!(script.agent.tie_breaker, tie, "it stays");
    }
    let mut script = Script::new(controlling());
    script.ask(Ask { role: None, ..ASK });
    assert_eq!(code(&script.one()), Some(400), "no role at all");
}

// spec: SEC-I-07
#[test]
fn roles_switch_four_times_at_most() {
    let mut script = Script::new(controlling());
    for n in 0..20 {
        let (role, tie) = match script.agent.role() {
            Role::Controlling => (Role::Controlling, u64::MAX),
            Role::Controlled => (Role::Controlled, 0),
        };
        let role = Some(role);
        script.ask(Ask {
            role,
            tie,
            id: n,
            ..ASK
        });
    }
    let answers = script.sent();
    let refused = answers.iter().filter(|a| code(a) == Some(487)).count();
    assert_eq!(refused, 16);
    assert_eq!(script.events.len(), 4);
}

// spec: ICE-7.2.5.1-1, ICE-6.1.2.3-1
#[test]
fn a_refused_role_is_given_up_and_the_pair_checked_again() {
    let mut script = Script::begun(controlling());
    let tie = script.agent.tie_breaker;
    let check = script.one();
    script.answer_with(&check, THEM, Err(487), PWD);
    assert_eq!(script.agent.role(), Role::Controlled);
    assert_ne!(script.agent.tie_breaker, tie);
    // The same answer to what was sent in the old role would not switch it back.
    let again = script.wait(50);
    assert_eq!(again.len(), 1);
    assert!(parse(&again[0]).find::<IceControlled>().is_some());
}

// spec: ICE-7.2.5-1
#[test]
fn an_answer_without_proof_ends_nothing() {
    let mut script = Script::begun(controlling());
    let check = script.one();
    for result in [Err(400), Err(401), Err(487), Ok(addr(US))] {
        script.answer_with(&check, THEM, result, "not the right password..");
    }
    assert_eq!(script.states(), [PairState::InProgress]);
    assert_eq!(script.agent.stats().stray, 4);
    script.answer(&check, THEM, US);
    assert!(matches!(script.states()[0], PairState::Succeeded(_)));
}

// spec: ICE-7.2.5.2.1-1, SEC-I-06
#[test]
fn an_answer_from_elsewhere_fails_the_pair() {
    let mut script = Script::begun(controlling());
    let check = script.one();
    script.answer(&check, "198.51.100.2:2001", US);
    assert_eq!(script.states(), [PairState::Failed]);
}

// spec: ICE-7.2.5.2.2-1
#[test]
fn icmp_errors_count_only_if_so_configured() {
    for (counts, state) in [(false, PairState::InProgress), (true, PairState::Failed)] {
        let config = AgentConfig {
            icmp_fails_pairs: counts,
            ..controlling()
        };
        let mut script = Script::begun(config);
        script.one();
        let at = script.at(THEM);
        script.agent.handle_icmp_error(script.now, at);
        assert_eq!(script.states(), [state]);
    }
}

// spec: ICE-7.2.5.3.1-1, ICE-7.2.5.3.2-1
#[test]
fn an_unknown_mapped_address_is_a_new_local_candidate() {
    let mut script = Script::begun(controlling());
    let check = script.one();
    script.answer(&check, THEM, "203.0.113.3:45664");
    script.none();
    let Some(Event::LocalReflexive { candidate, .. }) = script.events.first() else {
        panic!("{:?}", script.events);
    };
    assert_eq!(candidate.priority, 1_862_270_975);
    assert_eq!(candidate.kind, CandidateKind::PeerReflexive);
    assert_eq!(script.agent.pairs.len(), 1, "it is not paired");
    let pair = script.agent.pairs.values().next().unwrap();
    assert_eq!(
        pair.valid().unwrap().priority,
        crate::pair_priority(1_862_270_975, 2_130_706_431)
    );
    // Descriptions do not show it.
    assert_eq!(script.agent.local_candidates().count(), 1);
}

// spec: ICE-7.2.5.3.2-1
#[test]
fn a_known_mapped_address_is_that_candidate() {
    let mut script = Script::new(controlling());
    script.agent.gathering_done = false;
    let reflexive = LocalCandidate {
        kind: CandidateKind::ServerReflexive,
        addr: addr("203.0.113.3:45664"),
        server: Some("203.0.113.200".parse().unwrap()),
        ..host(ONE, addr(US))
    };
    script
        .agent
        .add_local_candidate(Instant::ZERO, reflexive)
        .unwrap();
    script.begin(remote());
    let check = script.one();
    script.answer(&check, THEM, "203.0.113.3:45664");
    script.none();
    assert!(script.events.is_empty());
    let pair = script.agent.pairs.values().next().unwrap();
    assert_eq!(pair.valid().unwrap().priority, 7_277_816_997_797_167_102);
}

// spec: ICE-7.3.1.3-1, ICE-7.3.1.4-1, TRK-11-1
#[test]
fn a_check_from_an_unknown_address_is_a_candidate_that_may_be_signalled_later() {
    let mut script = Script::new(controlled());
    script.agent.set_remote(Instant::ZERO, remote()).unwrap();
    script.ask(Ask {
        role: Some(Role::Controlling),
        priority: 77,
        ..ASK
    });
    let sent = script.sent();
    assert!(!is_request(&sent[0]) && is_request(&sent[1]));
    let known = script.agent.remotes.values().next().unwrap();
    assert_eq!(known.candidate.kind, CandidateKind::PeerReflexive);
    assert_eq!(known.candidate.priority, 77);
    script.signal(THEM, 2_130_706_431);
    script.none();
    assert_eq!(script.agent.remotes.len(), 1);
    let known = script.agent.remotes.values().next().unwrap();
    assert_eq!(known.candidate.kind, CandidateKind::Host);
    assert_eq!(known.candidate.foundation, "h");
    assert_eq!(known.candidate.priority, 77, "pairs keep their order");
    assert_eq!(script.states(), [PairState::InProgress]);
    script.answer(&sent[1], THEM, US);
    assert!(matches!(script.states()[0], PairState::Succeeded(_)));
}

// spec: ICE-7.3.1.4-1, ICE-6.1.4.1-1
#[test]
fn inbound_checks_trigger_by_the_state_of_the_pair() {
    let mut script = Script::begun(controlled());
    let ask = Ask {
        role: Some(Role::Controlling),
        ..ASK
    };
    let first = script.one();
    // In progress: cancelled and queued once, checked again at the next tick.
    script.ask(ask);
    script.ask(Ask { id: 2, ..ask });
    assert_eq!(script.states(), [PairState::Waiting]);
    let sent = script.wait(50);
    assert_eq!(sent.iter().filter(|s| is_request(s)).count(), 1);
    assert_eq!(sent.len(), 3);
    // The cancelled one is not sent again, but its late success counts.
    script.answer(&first, THEM, US);
    assert!(matches!(script.states()[0], PairState::Succeeded(_)));
    // Succeeded: nothing but the answer.
    script.ask(Ask { id: 3, ..ask });
    assert_eq!(script.sent().len(), 1);
    // Failed: checked again.
    let mut script = Script::begun(controlled());
    let check = script.one();
    script.answer_with(&check, THEM, Err(400), PWD);
    assert_eq!(script.states(), [PairState::Failed]);
    script.ask(ask);
    assert_eq!(script.states(), [PairState::Waiting]);
}

// spec: ICE-7.3.1.5-1, SEC-I-08
#[test]
fn a_nomination_is_remembered_until_the_pair_works() {
    let ask = Ask {
        role: Some(Role::Controlling),
        nominates: true,
        ..ASK
    };
    // Before the check, while it is under way, and after it.
    for moment in 0..3 {
        let mut script = Script::begun(controlled());
        if moment == 0 {
            script.ask(ask);
        }
        let mut sent = script.sent();
        if moment == 1 {
            script.ask(ask);
            sent = script.wait(50);
        }
        let check = sent.iter().find(|s| is_request(s)).unwrap().clone();
        script.answer(&check, THEM, US);
        if moment == 2 {
            assert!(script.agent.selected(ONE).is_none());
            script.ask(ask);
        }
        script.sent();
        assert!(script.events.last().is_some_and(is_completed), "{moment}");
    }
    // The controlled side's wish counts for nothing.
    let mut script = Script::begun(controlling());
    let check = script.one();
    script.ask(Ask {
        nominates: true,
        ..ASK
    });
    script.answer(&check, THEM, US);
    script.sent();
    assert!(script.agent.selected(ONE).is_none());
}

// spec: ICE-7.3-2, ICE-7.3-3, ICE-7.3.1.4-2
#[test]
fn checks_before_the_description_count_if_they_were_from_the_other_side() {
    let mut script = Script::new(controlled());
    let ask = Ask {
        role: Some(Role::Controlling),
        nominates: true,
        ..ASK
    };
    script.ask(ask);
    let ours = script.agent.local_credentials().clone();
    let user = alloc::format!("{}:else", ours.ufrag);
    let key = Key::short_term(ours.pwd.expose());
    script.ask_as(
        Ask {
            from: "6.6.6.6:6",
            ..ask
        },
        &user,
        &key,
    );
    assert_eq!(script.sent().len(), 2);
    script.agent.set_remote(Instant::ZERO, remote()).unwrap();
    assert_eq!(script.agent.pairs.len(), 1);
    let check = script.one();
    let name: Username<'_> = parse(&check).find().unwrap();
    assert!(name.as_bytes().starts_with(b"them:"));
    script.answer(&check, THEM, US);
    script.sent();
    assert!(script.events.last().is_some_and(is_completed));
}

// spec: SEC-I-13, SEC-G-05
#[test]
fn early_checks_are_limited() {
    let mut script = Script::new(controlled());
    for n in 0..100 {
        let from: &'static str = alloc::format!("6.6.6.6:{}", 1000 + u16::from(n)).leak();
        script.ask(Ask {
            from,
            role: Some(Role::Controlling),
            id: n,
            ..ASK
        });
        script.sent();
    }
    assert_eq!(script.agent.early.len(), 32);
    assert_eq!(script.agent.stats().beyond_limit, 68);
}

// spec: SEC-I-02
#[test]
fn peer_reflexive_candidates_are_limited() {
    let mut script = Script::begun(controlled());
    for n in 0..100 {
        let from: &'static str = alloc::format!("6.6.6.{n}:9").leak();
        script.ask(Ask {
            from,
            role: Some(Role::Controlling),
            id: n,
            ..ASK
        });
        script.sent();
    }
    assert_eq!(script.agent.remotes.len(), 17);
}

// spec: ICE-8.1.1-2, ICE-8.1.2-2
#[test]
fn nothing_is_nominated_twice() {
    let mut script = Script::selected(controlling());
    script.signal("198.51.100.3:3000", 2_130_706_431);
    assert!(script.agent.pairs.len() == 1, "no more pairs are formed");
    script.ask(ASK);
    let answer = script.one();
    assert_eq!(code(&answer), None);
    let route = script.agent.route(ONE).unwrap();
    assert_eq!(
        script.agent.nominate(script.now, ONE, route),
        Err(NominateError::Nominated)
    );
}

// spec: ICE-8.1.1-3, ICE-12.1-1
#[test]
fn the_host_may_decide() {
    let config = AgentConfig {
        nomination: Nomination::Host,
        ..controlling()
    };
    let mut script = Script::begun(config);
    let route = Route::Datagram(script.at(THEM));
    let early = script.agent.nominate(script.now, ONE, route);
    assert_eq!(early, Err(NominateError::NotValid));
    let check = script.one();
    script.answer(&check, THEM, US);
    assert_eq!(script.wait(5000), Vec::<Vec<u8>>::new());
    assert_eq!(script.agent.valid_routes(ONE)[0].0, route);
    assert_eq!(script.agent.route(ONE), Some(route), "data may go already");
    script.agent.nominate(script.now, ONE, route).unwrap();
    assert!(nominates(&script.one()));
    let mut script = Script::begun(controlled());
    let refused = script.agent.nominate(script.now, ONE, route);
    assert_eq!(refused, Err(NominateError::NotControlling));
    script.one();
}

// spec: ICE-7.2.5.3.4-1
#[test]
fn a_failed_nomination_leads_to_the_next_pair_while_patience_lasts() {
    let mut script = Script::begun(controlling());
    script.signal("198.51.100.3:3000", 2_130_706_430);
    let first = script.one();
    script.answer(&first, THEM, US);
    let nomination = script.wait(50).remove(0);
    assert!(nominates(&nomination));
    script.answer_with(&nomination, THEM, Err(400), PWD);
    let second = script.wait(50).remove(0);
    let failed = Event::NominationFailed {
        component: ONE,
        generation: 0,
    };
    assert!(script.events.contains(&failed));
    assert!(!nominates(&second));
    script.answer(&second, "198.51.100.3:3000", US);
    let nomination = script.wait(50).remove(0);
    assert!(nominates(&nomination));
    script.answer(&nomination, "198.51.100.3:3000", US);
    script.none();
    let route = Route::Datagram(script.at("198.51.100.3:3000"));
    assert_eq!(script.agent.route(ONE), Some(route));
}

// spec: ICE-8.1.1-4
#[test]
fn an_aggressive_peer_ends_up_with_its_most_important_pair() {
    let mut script = Script::new(controlled());
    script.begin(Remote {
        ice2: false,
        ..remote()
    });
    script.signal("198.51.100.3:3000", 2_130_706_000);
    let ask = Ask {
        role: Some(Role::Controlling),
        nominates: true,
        ..ASK
    };
    script.ask(Ask {
        from: "198.51.100.3:3000",
        ..ask
    });
    script.ask(Ask { id: 2, ..ask });
    let mut requests: Vec<_> = script.wait(100);
    requests.retain(|s| is_request(s));
    for request in &requests {
        let id = parse(request).transaction_id();
        let Some(check) = script.agent.checks.get(&id) else {
            continue;
        };
        let from: &str = check.route.remote().to_string().leak();
        script.answer(request, from, US);
    }
    script.sent();
    let route = Route::Datagram(script.at(THEM));
    assert_eq!(script.agent.route(ONE), Some(route));
    // A less important one changes nothing any more.
    script.ask(Ask {
        from: "198.51.100.3:3000",
        id: 3,
        ..ask
    });
    for request in script.wait(100).iter().filter(|s| is_request(s)) {
        script.answer(request, "198.51.100.3:3000", US);
    }
    assert_eq!(script.agent.route(ONE), Some(route));
}

// spec: ICE-8.3.1-1
#[test]
fn three_seconds_after_the_end_unselected_candidates_are_released() {
    let mut script = Script::new(controlling());
    let spare = addr("192.0.2.9:1000");
    script.agent.gathering_done = false;
    let other = LocalCandidate {
        local_preference: 1,
        ..host(ONE, spare)
    };
    script
        .agent
        .add_local_candidate(Instant::ZERO, other)
        .unwrap();
    script.begin(remote());
    let check = script.one();
    script.answer(&check, THEM, US);
    let nomination = script.wait(50);
    let nomination = nomination.iter().find(|s| nominates(s)).unwrap();
    script.answer(nomination, THEM, US);
    script.wait(2999);
    assert!(script.actions.is_empty());
    script.wait(1);
    let base = Base::Host(spare);
    assert_eq!(script.actions, [Action::Release { base }]);
    // Checks there are no longer answered, on the selected candidate they are.
    script.ask(ASK);
    assert_eq!(script.sent().len(), 1);
}

// spec: ICE-5.1.1.4-2
#[test]
fn a_lost_address_takes_its_pairs_along() {
    let mut script = Script::selected(controlling());
    let base = Base::Host(addr(US));
    script.agent.remove_base(script.now, base);
    script.sent();
    let lost = Event::RouteLost {
        component: ONE,
        cause: RouteLoss::CandidateGone,
        generation: 0,
    };
    assert_eq!(script.events.last(), Some(&lost));
    assert_eq!(script.agent.route(ONE), None);
    assert_eq!(script.wait(100_000), Vec::<Vec<u8>>::new());
}

// spec: CON-5.2-1
#[test]
fn consent_can_be_withdrawn_with_proof_only() {
    let mut script = Script::selected(controlling());
    let ask = script.wait(6000).remove(0);
    script.answer_with(&ask, THEM, Err(403), "not the right password..");
    assert!(script.agent.route(ONE).is_some());
    script.answer_with(&ask, THEM, Err(403), PWD);
    assert_eq!(script.agent.route(ONE), None);
    script.none();
    let lost = Event::RouteLost {
        component: ONE,
        cause: RouteLoss::ConsentRevoked,
        generation: 0,
    };
    assert_eq!(script.events.last(), Some(&lost));
}

// spec: CON-5.1-1, CON-5.1-2, CON-5.1-3, CON-4, SEC-I-05
#[test]
fn consent_is_asked_for_once_each_time_and_any_answer_renews_it() {
    let mut script = Script::selected(controlling());
    let start = script.now;
    let mut asked = Vec::new();
    for _ in 0..200 {
        let next = script.agent.poll_timeout().unwrap();
        asked.extend(script.wait(next.duration_since(script.now).as_millis() as u64));
        if let Some(last) = asked.last().cloned() {
            script.answer(&last, THEM, US);
        }
        script.events.clear();
    }
    let took = script.now.duration_since(start).as_secs_f64() / asked.len() as f64;
    assert!((4.5..5.5).contains(&took), "{took}");
    let mut ids: Vec<_> = asked.iter().map(|s| parse(s).transaction_id()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), asked.len(), "never the same twice");
    // Data, requests and forgeries do not renew it; 30 s after the last answer it is over.
    script.agent.data_sent(script.now, ONE);
    let late = script.wait(29_000);
    script.ask(ASK);
    assert!(script.agent.route(ONE).is_some());
    script.wait(1_100);
    assert_eq!(script.agent.route(ONE), None);
    script.answer(late.last().unwrap(), THEM, US);
    assert_eq!(
        script.agent.route(ONE),
        None,
        "a late answer revives nothing"
    );
}

// spec: CON-5.1-3
#[test]
fn a_late_nomination_does_not_bring_back_a_pair_whose_consent_has_expired() {
    let nomination = Ask {
        role: Some(Role::Controlling),
        nominates: true,
        ..ASK
    };
    let mut script = Script::begun(controlled());
    let check = script.one();
    script.answer(&check, THEM, US);
    script.ask(nomination);
    script.sent();
    assert!(script.events.last().is_some_and(is_completed));
    script.wait(31_000);
    assert_eq!(script.agent.route(ONE), None);
    script.events.clear();
    script.ask(Ask {
        id: 2,
        ..nomination
    });
    script.sent();
    assert_eq!(script.agent.route(ONE), None);
    assert_eq!(script.events, []);
    assert!(script.agent.poll_timeout().is_none_or(|at| at > script.now));
}

// spec: CON-5-1
#[test]
fn a_pair_nominated_long_after_its_check_is_checked_again_first() {
    let mut script = Script::begun(controlled());
    let check = script.one();
    script.answer(&check, THEM, US);
    assert!(script.agent.route(ONE).is_some());
    script.wait(31_000);
    script.agent.data_sent(script.now, ONE);
    assert_eq!(script.agent.route(ONE), None, "no consent, no data");
    script.ask(Ask {
        role: Some(Role::Controlling),
        nominates: true,
        ..ASK
    });
    let sent = script.wait(50);
    let check = sent.iter().find(|s| is_request(s)).unwrap();
    assert!(script.agent.selected(ONE).is_none());
    script.answer(check, THEM, US);
    script.sent();
    assert!(script.events.last().is_some_and(is_completed));
    assert!(script.agent.route(ONE).is_some());
}

// spec: ICE-11-1
#[test]
fn data_puts_keep_alives_off() {
    let config = AgentConfig {
        consent: None,
        keep_alive: Duration::from_secs(1),
        ..controlling()
    };
    let mut script = Script::selected(config);
    script.wait(14_000);
    script.agent.data_sent(script.now, ONE);
    assert_eq!(script.wait(14_900), Vec::<Vec<u8>>::new());
    let sent = script.wait(200);
    assert_eq!(sent.len(), 1);
    let indication = parse(&sent[0]);
    assert!(!indication.has_integrity());
    assert_eq!(indication.attributes().count(), 0, "only FINGERPRINT");
    assert_eq!(indication.check_fingerprint(), Some(true));
}

// A host that restarts when a route is lost must not do so for one that is replaced already.
#[test]
fn a_route_lost_while_a_restart_is_under_way_carries_the_generation_before_it() {
    let mut script = Script::selected(controlling());
    script.agent.restart(script.now).unwrap();
    assert_eq!(script.agent.generation(), 1);
    script.wait(31_000);
    let lost = Event::RouteLost {
        component: ONE,
        cause: RouteLoss::ConsentExpired,
        generation: 0,
    };
    assert!(script.events.contains(&lost));
    assert_eq!(script.agent.route(ONE), None);
}

// spec: ICE-9-1, ICE-6.1.1-2, SEC-I-09, CON-5.1-4
#[test]
fn a_restart_keeps_data_flowing_until_the_new_pair_is_there() {
    let mut script = Script::selected(controlling());
    let before = script.agent.local_credentials().clone();
    let route = script.agent.route(ONE);
    script.agent.restart(script.now).unwrap();
    let after = script.agent.local_credentials().clone();
    assert!(before.ufrag != after.ufrag && before.pwd != after.pwd);
    assert_eq!(script.agent.route(ONE), route);
    assert_eq!(script.agent.role(), Role::Controlling);
    // Checks with the old credentials are answered, with the old password, and change nothing.
    let user = alloc::format!("{}:{UFRAG}", before.ufrag);
    let key = Key::short_term(before.pwd.expose());
    script.ask_as(ASK, &user, &key);
    let answer = script.one();
    assert!(parse(&answer).verify(&key).is_ok());
    // Consent goes on with the old credentials.
    let consent = script.wait(6000).remove(0);
    assert!(parse(&consent).verify(&Key::short_term(PWD)).is_ok());
    script.answer(&consent, THEM, US);

    let mut half = remote();
    half.credentials.pwd = "only the password is another".into();
    assert_eq!(
        script.agent.set_remote(script.now, half),
        Err(RemoteError::Credentials),
        "the other side must restart as well"
    );
    let pwd = "a new password of the other side";
    let new = Remote {
        credentials: Credentials {
            ufrag: "anew".into(),
            pwd: pwd.into(),
        },
        ..remote()
    };
    script.agent.local_gathering_done(script.now);
    script.begin(new);
    let check = script.one();
    assert_eq!(script.agent.route(ONE), route);
    script.answer_with(&check, THEM, Ok(addr(US)), pwd);
    let nomination = script.wait(50);
    script.answer_with(&nomination[0], THEM, Ok(addr(US)), pwd);
    script.none();
    assert!(script.events.last().is_some_and(is_completed));
    // After 30 s the old credentials are worth nothing.
    script.wait(30_000);
    let at = script.at(THEM);
    let mut buf = [0; 300];
    let len = Writer::new(
        &mut buf,
        MessageType::request(Method::BINDING),
        TransactionId([9; 12]),
    )
    .attribute(&Username::new(&user).unwrap())
    .message_integrity(&key)
    .fingerprint()
    .finish()
    .unwrap();
    let taken = script.agent.handle_datagram(script.now, at, &buf[..len]);
    assert_eq!(taken, Received::NotMine);
    assert!(script.agent.old.is_none());
}

#[test]
fn another_description_needs_a_restart() {
    let mut script = Script::begun(controlling());
    assert_eq!(script.agent.set_remote(script.now, remote()), Ok(()));
    let other = Remote {
        credentials: Credentials {
            ufrag: "else".into(),
            pwd: "quite another password of it".into(),
        },
        ..remote()
    };
    assert_eq!(
        script.agent.set_remote(script.now, other),
        Err(RemoteError::RestartFirst)
    );
    let mut short = remote();
    short.credentials.pwd = Secret::from("short");
    let mut script = Script::new(controlling());
    assert_eq!(
        script.agent.set_remote(script.now, short),
        Err(RemoteError::Credentials)
    );
    script.agent.close();
    assert_eq!(script.agent.restart(script.now), Err(RestartError));
    assert_eq!(
        script.agent.set_remote(script.now, remote()),
        Err(RemoteError::Closed)
    );
}

// spec: ICE-6.1.1-1
#[test]
fn roles_follow_from_who_is_lite() {
    for (own, theirs, offers, role) in [
        (false, false, true, Role::Controlling),
        (false, false, false, Role::Controlled),
        (false, true, true, Role::Controlling),
        (false, true, false, Role::Controlling),
        (true, false, true, Role::Controlled),
        (true, false, false, Role::Controlled),
        (true, true, true, Role::Controlling),
        (true, true, false, Role::Controlled),
    ] {
        let hint = if offers {
            Role::Controlling
        } else {
            Role::Controlled
        };
        let config = AgentConfig {
            lite: own,
            ..AgentConfig::new(hint)
        };
        let mut script = Script::new(config);
        let remote = Remote {
            lite: theirs,
            ..remote()
        };
        script.agent.set_remote(Instant::ZERO, remote).unwrap();
        assert_eq!(script.agent.role(), role, "{own} {theirs} {offers}");
    }
}

// spec: ICE-7.3.2-1, ICE-8.2-1, ICE-12.1.1-1, CON-L
#[test]
fn a_lite_agent_answers_and_follows_the_latest_nomination() {
    let config = AgentConfig {
        lite: true,
        ..controlled()
    };
    let mut script = Script::begun(config);
    script.none();
    let ask = Ask {
        role: Some(Role::Controlling),
        ..ASK
    };
    script.ask(ask);
    assert_eq!(script.sent().len(), 1);
    assert_eq!(script.agent.route(ONE), None);
    script.ask(Ask {
        nominates: true,
        ..ask
    });
    assert_eq!(script.sent().len(), 1);
    assert!(script.events.last().is_some_and(is_completed));
    let route = Route::Datagram(script.at(THEM));
    assert_eq!(script.agent.route(ONE), Some(route));
    script.ask(Ask {
        nominates: true,
        from: "198.51.100.7:7",
        priority: 5,
        id: 2,
        ..ask
    });
    script.sent();
    let route = Route::Datagram(script.at("198.51.100.7:7"));
    assert_eq!(script.agent.route(ONE), Some(route));
    assert_eq!(
        script.wait(100_000),
        Vec::<Vec<u8>>::new(),
        "no checks ever"
    );
    // A full agent that believes to be controlled must learn better.
    script.ask(ASK);
    assert_eq!(code(&script.one()), Some(487));
    assert_eq!(script.agent.role(), Role::Controlled);
}

// spec: ICE-8.2-1
#[test]
fn two_lite_agents_take_the_most_important_pair() {
    let config = AgentConfig {
        lite: true,
        ..controlling()
    };
    let mut script = Script::new(config);
    script.begin(Remote {
        lite: true,
        ..remote()
    });
    script.signal("198.51.100.3:3000", 100);
    script.none();
    assert!(script.events.is_empty());
    script.agent.end_of_remote_candidates(script.now);
    script.none();
    assert_eq!(
        script.events[1..],
        [Event::Completed { generation: 0 }, Event::ExchangeNeeded]
    );
    let route = Route::Datagram(script.at(THEM));
    assert_eq!(script.agent.route(ONE), Some(route));
}

// spec: ICE-6.1.2.5-1, TRK-10-3
#[test]
fn pairs_are_limited_over_all_streams_and_spread_evenly() {
    let config = AgentConfig {
        components: alloc::vec![1, 1, 1],
        max_remote: 1000,
        ..controlling()
    };
    let mut agent = Agent::new(config, [1; 32], Instant::ZERO);
    for stream in 0..3 {
        let at = SocketAddr::new("10.0.0.1".parse().unwrap(), 1000 + stream);
        let own = host(component(stream, 1), at);
        agent.add_local_candidate(Instant::ZERO, own).unwrap();
    }
    for stream in 0..3 {
        for n in 0..60 {
            let line = alloc::format!("candidate:{n} 1 udp {} 10.{stream}.1.{n} 9 typ host", n + 1);
            agent
                .add_remote_candidate(Instant::ZERO, stream, line.parse().unwrap())
                .unwrap();
        }
    }
    assert_eq!(agent.poll_action(), None);
    let count = |stream| {
        let pairs = agent.pairs.values();
        pairs.filter(|p| p.component.stream == stream).count()
    };
    let counts = [count(0), count(1), count(2)];
    assert_eq!(counts.iter().sum::<usize>(), 100);
    assert!(counts.iter().all(|n| (33..=34).contains(n)), "{counts:?}");
}

// spec: SEC-I-03, SEC-S-07
#[test]
fn check_datagrams_have_a_budget() {
    let config = AgentConfig {
        max_check_datagrams: 5,
        ..controlling()
    };
    let mut script = Script::begun(config);
    for n in 1..60 {
        script.signal(&alloc::format!("198.51.101.{n}:9"), 1000 + n);
    }
    let sent = script.wait(100_000);
    assert!((4..=5).contains(&sent.len()));
    assert!(script.events.contains(&FAILED[1]));
}

// spec: ICE-6.1.2.2-1, ICE-5.1.1.1-2
#[test]
fn only_candidates_that_fit_are_paired() {
    let mut script = Script::new(controlling());
    script.agent.gathering_done = false;
    for at in ["[2001:db8::1]:1000", "[fe80::1]:1000"] {
        let own = host(ONE, addr(at));
        script
            .agent
            .add_local_candidate(Instant::ZERO, own)
            .unwrap();
    }
    script.begin(remote());
    script.signal("[2001:db8::2]:2000", 5);
    script.signal("[fe80::2]:2000", 6);
    script.sent();
    let mut pairs: Vec<_> = script.agent.pairs.values().map(|pair| pair.route).collect();
    pairs.sort();
    let route = |a, b| Route::Datagram(FiveTuple::udp(addr(a), addr(b)));
    let mut expected = [
        route(US, THEM),
        route("[2001:db8::1]:1000", "[2001:db8::2]:2000"),
        route("[fe80::1]:1000", "[fe80::2]:2000"),
    ];
    expected.sort();
    assert_eq!(pairs, expected);
}

// spec: TRK-10-1
#[test]
fn candidates_are_paired_only_after_they_were_conveyed() {
    let config = AgentConfig {
        explicit_conveyance: true,
        ..controlling()
    };
    let mut script = Script::begun(config);
    script.none();
    assert!(script.agent.pairs.is_empty());
    script.agent.candidate_conveyed(script.now, ONE, addr(US));
    assert!(is_request(&script.one()));
}

// spec: TRK-12-1
#[test]
fn late_pairs_start_by_the_three_rules() {
    let mut script = Script::begun(controlling());
    let check = script.one();
    let state = |script: &Script| *script.states().last().unwrap();
    // Same foundation, less important: frozen.
    script.signal("198.51.100.3:3000", 100);
    script.agent.pair_new_remotes();
    script.agent.thaw_fresh();
    assert_eq!(state(&script), PairState::Frozen);
    // Topmost of its foundation: waiting.
    script.signal("198.51.100.4:3000", 2_130_706_432);
    script.agent.pair_new_remotes();
    script.agent.thaw_fresh();
    assert_eq!(state(&script), PairState::Waiting);
    // The foundation has worked: waiting.
    script.answer(&check, THEM, US);
    script.signal("198.51.100.5:3000", 50);
    script.agent.pair_new_remotes();
    script.agent.thaw_fresh();
    assert_eq!(state(&script), PairState::Waiting);
}

// spec: TRK-14-1, TRK-9-1
#[test]
fn after_the_end_of_candidates_none_is_taken() {
    let mut script = Script::begun(controlling());
    script.agent.end_of_remote_candidates(script.now);
    let line = "candidate:1 1 udp 5 10.0.0.1 9 typ host";
    let late = script
        .agent
        .add_remote_candidate(script.now, 0, line.parse().unwrap());
    assert_eq!(late, Err(CandidateError::Late));
    let own = host(ONE, addr("192.0.2.7:7"));
    let late = script.agent.add_local_candidate(script.now, own);
    assert_eq!(late, Err(CandidateError::Late));
    let mut script = Script::new(controlling());
    script.agent.gathering_done = false;
    let again = LocalCandidate {
        local_preference: 5,
        ..host(ONE, addr(US))
    };
    let again = script.agent.add_local_candidate(script.now, again);
    assert_eq!(again, Err(CandidateError::Redundant));
}

// spec: ICE-14.2-1
#[test]
fn the_longer_pacing_of_both_sides_counts() {
    for (ours, theirs, both) in [
        (20, Some(100), 100),
        (20, None, 50),
        (80, Some(20), 80),
        (1, Some(1), 5),
    ] {
        let config = AgentConfig {
            pacing: Duration::from_millis(ours),
            ..controlling()
        };
        let mut script = Script::new(config);
        let pacing = theirs.map(Duration::from_millis);
        script.begin(Remote { pacing, ..remote() });
        assert_eq!(script.agent.pacing(), Duration::from_millis(both));
    }
}

// spec: ICE-14.2-2
#[test]
fn agents_with_one_pacer_start_checks_five_milliseconds_apart() {
    let mut pacer = Pacer::new();
    let mut agents: Vec<Agent> = (0..3).map(|_| Script::begun(controlling()).agent).collect();
    let mut buf = [0; MAX_TRANSMIT];
    let mut times = Vec::new();
    for millis in 0..20 {
        let now = Instant::ZERO + Duration::from_millis(millis);
        for agent in &mut agents {
            agent.handle_timeout(now);
            while agent
                .poll_transmit_paced(&mut buf, Some(&mut pacer))
                .is_some()
            {
                times.push(millis);
            }
            assert!(agent.poll_timeout().is_none_or(|at| at > now));
        }
    }
    assert_eq!(times, [0, 5, 10]);
}

// spec: SEC-G-14
#[test]
fn a_host_that_never_drains_costs_no_more_than_the_outbox() {
    let mut script = Script::begun(controlled());
    for n in 0..2000_u32 {
        script.ask(Ask {
            role: Some(Role::Controlling),
            id: n as u8,
            ..ASK
        });
    }
    assert!(script.agent.outbox.len() <= MAX_OUTBOX);
    assert!(script.agent.events.len() < 10 && script.agent.actions.is_empty());
}

// spec: ICE-8.1.2-3, ICE-6.1.3-1, ICE-6.1.2.1-1
#[test]
fn a_failed_stream_can_be_removed_and_the_rest_completes() {
    let config = AgentConfig {
        components: alloc::vec![1, 1],
        ..controlling()
    };
    let mut script = Script::begun(config);
    let check = script.one();
    script.answer(&check, THEM, US);
    let nomination = script.wait(50);
    script.answer(&nomination[0], THEM, US);
    while script.now < Instant::ZERO + Duration::from_secs(45) {
        for ask in script.wait(1000) {
            script.answer(&ask, THEM, US);
        }
    }
    assert!(script.events.contains(&Event::StreamFailed {
        stream: 1,
        generation: 0
    }));
    assert_eq!(script.agent.state(), AgentState::Running);
    assert!(script.agent.route(ONE).is_some());
    script.agent.remove_stream(script.now, 1);
    script.sent();
    assert_eq!(script.agent.state(), AgentState::Completed);
    script.agent.remove_stream(script.now, 0);
    assert_eq!(script.agent.route(ONE), None);
    assert_eq!(script.wait(100_000), Vec::<Vec<u8>>::new());
}

// spec: ICE-7.2.1-1
#[test]
fn a_refused_permission_fails_its_pairs_only() {
    let relay = RelayId(1);
    let mut script = Script::new(controlling());
    script.agent.gathering_done = false;
    let relayed = LocalCandidate {
        kind: CandidateKind::Relayed,
        base: Base::Relay(relay),
        ..host(ONE, addr("203.0.113.9:9000"))
    };
    script
        .agent
        .add_local_candidate(Instant::ZERO, relayed)
        .unwrap();
    script.begin(remote());
    script.signal("198.51.100.2:2001", 5);
    script.sent();
    let peer = addr(THEM).ip();
    let wanted = Action::CreatePermission { relay, peer };
    assert_eq!(script.actions, [wanted], "one for both ports");
    script.agent.permission_failed(script.now, relay, peer);
    let failed = script
        .states()
        .iter()
        .filter(|s| **s == PairState::Failed)
        .count();
    assert_eq!((failed, script.agent.pairs.len()), (2, 4));
    script.agent.relay_lost(script.now, relay);
    assert_eq!(script.agent.pairs.len(), 2);
}

// spec: SEC-G-01, SEC-G-08
#[test]
fn time_that_stands_still_or_runs_out_is_survived() {
    let mut script = Script::selected(controlling());
    let end = Instant::from_nanos(i64::MAX);
    script.agent.handle_timeout(end);
    script.sent();
    script.agent.handle_timeout(Instant::ZERO);
    script.sent();
    assert_eq!(script.agent.route(ONE), None);
}

// spec: ICE-5.3-1
#[test]
fn credentials_are_long_random_and_different() {
    let agents = [1, 2].map(|seed| Agent::new(controlling(), [seed; 32], Instant::ZERO));
    let [a, b] = agents.each_ref().map(Agent::local_credentials);
    // Six bits for each character.
    assert!(a.ufrag.len() * 6 >= 24 && (4..=32).contains(&a.ufrag.len()));
    assert!(a.pwd.expose().len() * 6 >= 128 && a.pwd.expose().len() >= 22);
    assert!(a.ufrag != b.ufrag && a.pwd != b.pwd);
    assert!(!alloc::format!("{a:?} {:?}", agents[0]).contains(a.pwd.expose()));
}

// spec: ICE-5.2-1
#[test]
fn lite_agents_have_host_candidates_only() {
    let config = AgentConfig {
        lite: true,
        ..controlled()
    };
    let mut agent = Agent::new(config, [1; 32], Instant::ZERO);
    let mut add = |at: &str, kind| {
        let own = LocalCandidate {
            kind,
            ..host(ONE, addr(at))
        };
        agent.add_local_candidate(Instant::ZERO, own)
    };
    let first = add(US, CandidateKind::Host).unwrap();
    let second = add("[2001:db8::1]:1000", CandidateKind::Host).unwrap();
    let third = add("192.0.2.7:1000", CandidateKind::ServerReflexive);
    assert_eq!(third, Err(CandidateError::Invalid));
    assert_ne!(first.foundation, second.foundation);
    assert_eq!(first.priority, 2_130_706_431);
    assert!(second.priority < first.priority, "unique");
    assert_eq!(second.priority >> 24, 126);
}

// spec: ICE-6.1.2.2-2
#[test]
fn a_stream_has_as_many_components_as_both_sides_have() {
    let config = AgentConfig {
        components: alloc::vec![2],
        ..controlling()
    };
    let mut script = Script::begun(config);
    let second = LocalCandidate {
        component: component(0, 2),
        ..host(ONE, addr("192.0.2.1:1001"))
    };
    script.agent.gathering_done = false;
    script
        .agent
        .add_local_candidate(Instant::ZERO, second)
        .unwrap();
    let check = script.one();
    script.answer(&check, THEM, US);
    assert_eq!(
        script.wait(50),
        Vec::<Vec<u8>>::new(),
        "component 2 is missing"
    );
    script.agent.end_of_remote_candidates(script.now);
    let nomination = script.wait(50);
    script.answer(&nomination[0], THEM, US);
    script.sent();
    assert!(script.events.last().is_some_and(is_completed));
}

// spec: TRK-8-1
#[test]
fn nothing_fails_while_candidates_are_still_gathered() {
    let mut script = Script::new(controlling());
    script.agent.gathering_done = false;
    script.agent.set_remote(Instant::ZERO, remote()).unwrap();
    script.wait(100_000);
    assert_eq!(script.agent.state(), AgentState::Running);
    script.agent.local_gathering_done(script.now);
    assert_eq!(script.agent.state(), AgentState::Failed);
    script.sent();
    assert_eq!(script.events, FAILED);
}

// spec: TRK-10-2, TRK-13-1
#[test]
fn a_candidate_told_twice_leaves_the_check_under_way_alone() {
    let mut script = Script::begun(controlling());
    let check = script.one();
    let line = "candidate:h 1 udp 2130706431 198.51.100.2 2000 typ host";
    let again = script
        .agent
        .add_remote_candidate(script.now, 0, line.parse().unwrap());
    assert_eq!(again, Err(CandidateError::Redundant));
    assert_eq!(script.states(), [PairState::InProgress]);
    script.answer(&check, THEM, US);
    assert!(matches!(script.states()[0], PairState::Succeeded(_)));
}

// spec: ICE-7.2.5.2.3-1
#[test]
fn a_check_without_answer_is_sent_seven_times_and_fails_after_39_5_s() {
    let mut script = Script::begun(controlling());
    let sent = script.wait(39_499);
    assert_eq!(sent.len(), 7);
    assert_eq!(script.states(), [PairState::InProgress]);
    script.wait(1);
    assert_eq!(script.agent.state(), AgentState::Failed);
}
