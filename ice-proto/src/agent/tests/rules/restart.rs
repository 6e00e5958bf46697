//! Restarts that the other side does not agree to.

use stun_proto::wire::Class;

use super::*;

/// Answers consent checks for so long; whether data could be sent all the time.
fn lives(script: &mut Script, pwd: &str, seconds: u64) -> bool {
    let mut alive = true;
    for _ in 0..seconds {
        for check in script.wait(1000) {
            if parse(&check).verify(&Key::short_term(pwd)).is_ok() {
                script.answer_with(&check, THEM, Ok(addr(US)), pwd);
            }
        }
        alive &= script.agent.route(ONE).is_some();
    }
    alive
}

/// A check with these credentials of this side is answered.
fn answers(script: &mut Script, ours: &Credentials) -> bool {
    let user = alloc::format!("{}:{UFRAG}", ours.ufrag);
    let key = Key::short_term(ours.pwd.expose());
    script.ask_as(ASK, &user, &key);
    let sent = script.sent();
    sent.iter()
        .any(|m| parse(m).class() == Class::Success && parse(m).verify(&key).is_ok())
}

#[test]
fn a_restart_without_answer_leaves_the_session_as_it_is() {
    let mut script = Script::selected(controlling());
    let before = script.agent.local_credentials().clone();
    script.agent.restart(script.now).unwrap();
    assert!(lives(&mut script, PWD, 120));
    assert!(answers(&mut script, &before));
    assert!(
        !script
            .events
            .iter()
            .any(|e| matches!(e, Event::RouteLost { .. }))
    );
}

#[test]
fn a_restart_that_is_refused_is_taken_back() {
    let mut script = Script::selected(controlling());
    let before = script.agent.local_credentials().clone();
    let selected = script.agent.selected(ONE);
    script.agent.restart(script.now).unwrap();
    lives(&mut script, PWD, 3);
    let added = LocalCandidate {
        local_preference: 100,
        ..host(ONE, addr("10.9.9.9:9"))
    };
    script.agent.add_local_candidate(script.now, added).unwrap();
    script.agent.rollback(script.now).unwrap();
    assert_eq!(script.agent.local_credentials(), &before);
    assert_eq!(script.agent.generation(), 0);
    assert_eq!(script.agent.state(), AgentState::Completed);
    assert_eq!(script.agent.selected(ONE), selected);
    script.sent();
    let base = Base::Host(addr("10.9.9.9:9"));
    assert!(script.actions.contains(&Action::Release { base }));
    assert!(lives(&mut script, PWD, 120));
    assert!(answers(&mut script, &before));
    assert_eq!(script.agent.rollback(script.now), Err(RollbackError));

    // The next one is none of those before.
    script.agent.restart(script.now).unwrap();
    assert_eq!(script.agent.generation(), 2);
}

#[test]
fn checks_go_on_when_a_restart_is_taken_back() {
    let mut script = Script::begun(controlling());
    script.sent();
    script.agent.restart(script.now).unwrap();
    script.agent.rollback(script.now).unwrap();
    let mut done = false;
    for _ in 0..40 {
        for check in script.wait(50) {
            script.answer(&check, THEM, US);
        }
        done |= script.events.iter().any(is_completed);
    }
    assert!(done && script.agent.route(ONE).is_some());
}

#[test]
fn a_restart_that_was_agreed_to_is_not_taken_back() {
    let mut script = Script::selected(controlling());
    script.agent.restart(script.now).unwrap();
    let mut new = remote();
    new.credentials = Credentials {
        ufrag: "anew".into(),
        pwd: "a new password of the other side".into(),
    };
    script.agent.set_remote(script.now, new).unwrap();
    assert_eq!(script.agent.rollback(script.now), Err(RollbackError));
}

// Gateways that know no restart answer with what they said before (rtpengine issue 786).
#[test]
fn an_answer_with_the_credentials_of_before_takes_the_restart_back() {
    let mut script = Script::selected(controlling());
    let before = script.agent.local_credentials().clone();
    script.agent.restart(script.now).unwrap();
    assert_eq!(script.agent.set_remote(script.now, remote()), Ok(()));
    assert_eq!(script.agent.local_credentials(), &before);
    assert_eq!(script.agent.state(), AgentState::Completed);
    assert!(lives(&mut script, PWD, 100));
}

// Gateways rewrite options in later offers (rtpengine issue 1411).
#[test]
fn other_options_with_the_same_credentials_are_no_restart() {
    let mut script = Script::selected(controlling());
    for (ice2, pacing) in [(false, None), (true, Some(20)), (true, None)] {
        let same = Remote {
            ice2,
            pacing: pacing.map(Duration::from_millis),
            ..remote()
        };
        assert_eq!(script.agent.set_remote(script.now, same), Ok(()));
        assert_eq!(script.agent.remote().unwrap().ice2, ice2);
    }
    assert!(lives(&mut script, PWD, 60));
}

#[test]
fn a_base_that_goes_during_a_restart_takes_the_route_along() {
    for back in [false, true] {
        let mut script = Script::selected(controlling());
        script.agent.restart(script.now).unwrap();
        script.agent.remove_base(script.now, Base::Host(addr(US)));
        script.sent();
        assert_eq!(script.agent.route(ONE), None);
        let lost = Event::RouteLost {
            component: ONE,
            cause: RouteLoss::CandidateGone,
            generation: 0,
        };
        assert!(script.events.contains(&lost));
        if back {
            script.agent.rollback(script.now).unwrap();
            assert_eq!(script.agent.route(ONE), None);
        }
        assert_eq!(script.wait(60_000), Vec::<Vec<u8>>::new());
    }
}
