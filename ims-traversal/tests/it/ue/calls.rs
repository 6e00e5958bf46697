use std::collections::BTreeSet;

use ims_traversal::ladder::Rung;
use ims_traversal::media::MediaEvent;
use ims_traversal::sdp::{Direction, RtcpMux};
use ims_traversal::ue::{CallError, EndCause, UeError, UeEvent};
use sip_outbound::wire::StatusCode;
use stun_proto::Transport;

use super::world::{ALICE, BOB, Place, USERS, World};

// spec: SEED-2.1-2, SEED-2.1-4, F-5-1
#[test]
fn ues_register_call_talk_and_hang_up_in_every_network() {
    let ordinary = Rung::Ordinary(Transport::Tls);
    for (place, rung, pair) in [
        (Place::Open, ordinary, "host host"),
        (Place::NoUdp, ordinary, "relay relay TCP"),
        (Place::Only443, Rung::Direct, "relay relay TLS"),
        (Place::OnlyProxy, Rung::Connect, "relay relay TLS by proxy"),
    ] {
        let mut world = World::registered(place, |_| {});
        let calls = world.call();
        for user in [ALICE, BOB] {
            assert_eq!(world.rung(user), Some(rung), "{place:?}");
            assert_eq!(world.pair(user), pair, "{place:?}");
        }
        assert_eq!(world.datagrams > 0, place == Place::Open);
        world.assert_talk(calls);
        // Consent, permissions and bindings are kept up.
        world.run_for(400);
        world.assert_talk(calls);
        let now = world.now;
        world.nodes[ALICE].ue.hang_up(now, calls[ALICE]).unwrap();
        assert!(world.run(5, |w| w.ended(ALICE).is_some() && w.ended(BOB).is_some()));
        assert_eq!(world.ended(ALICE), Some(EndCause::HungUp));
        assert_eq!(world.ended(BOB), Some(EndCause::RemoteHungUp));
        assert!(!world.say(ALICE, calls[ALICE], b"late"));
        // Relays go with the call.
        assert!(world.run(5, |w| w.turn.allocations() == 0));
        world.stop();
    }
}

// spec: MUX-5761
#[test]
fn a_phone_without_rtcp_mux_gets_a_way_for_rtcp() {
    for place in [Place::Open, Place::OnlyProxy] {
        for without in [ALICE, BOB] {
            let mut world = World::registered(place, |config| {
                let user = config.access.agent.aor.as_uri().user();
                if user == Some(USERS[without]) {
                    config.set_rtcp_mux(RtcpMux::Never);
                }
            });
            let calls = world.call();
            world.assert_talk(calls);
            for node in &world.nodes {
                let found = node.events.iter().filter_map(|event| match event {
                    UeEvent::Media { event, .. } => match &**event {
                        MediaEvent::Selected { component, .. } => Some(component.component),
                        _ => None,
                    },
                    _ => None,
                });
                let found: BTreeSet<_> = found.collect();
                assert_eq!(found, BTreeSet::from([1, 2]), "{place:?}");
            }
            world.stop();
        }
    }
}

#[test]
fn a_call_is_put_on_hold_and_taken_back() {
    let mut world = World::registered(Place::Open, |_| {});
    let calls = world.call();
    let agreed = |w: &World, user: usize| {
        let mut events = w.nodes[user].events.iter().rev();
        events.find_map(|event| match event {
            UeEvent::Agreed { direction, .. } => Some(*direction),
            _ => None,
        })
    };
    let both =
        |hers, his| move |w: &World| (agreed(w, ALICE), agreed(w, BOB)) == (Some(hers), Some(his));
    assert!(both(Direction::SendRecv, Direction::SendRecv)(&world));
    let now = world.now;
    let hold = Direction::SendOnly;
    let alice = &mut world.nodes[ALICE].ue;
    alice.set_direction(now, calls[ALICE], hold).unwrap();
    assert!(world.run(5, both(Direction::SendOnly, Direction::RecvOnly)));
    // The way stays as it is.
    world.assert_talk(calls);
    let now = world.now;
    let alice = &mut world.nodes[ALICE].ue;
    let back = alice.set_direction(now, calls[ALICE], Direction::SendRecv);
    back.unwrap();
    assert!(world.run(5, both(Direction::SendRecv, Direction::SendRecv)));
    assert_eq!((world.ways(ALICE), world.ways(BOB)), (1, 1));
    world.assert_talk(calls);
    world.stop();
}

#[test]
fn both_put_the_other_on_hold_at_once() {
    let mut world = World::registered(Place::NoUdp, |_| {});
    let calls = world.call();
    let now = world.now;
    for user in [ALICE, BOB] {
        let ue = &mut world.nodes[user].ue;
        ue.set_direction(now, calls[user], Direction::SendOnly)
            .unwrap();
    }
    let idle = |w: &World, user: usize| {
        let mut events = w.nodes[user].events.iter().rev();
        let last = events.find_map(|event| match event {
            UeEvent::Agreed { direction, .. } => Some(*direction),
            _ => None,
        });
        last == Some(Direction::Inactive)
    };
    assert!(world.run(10, |w| idle(w, ALICE) && idle(w, BOB)));
    // The second offer is made when the first is answered, and nobody has refused one.
    world.run_for(10);
    for node in &world.nodes {
        let mut events = node.events.iter();
        assert!(!events.any(|event| matches!(event, UeEvent::ChangeRefused { .. })));
        let agreed = |event: &&UeEvent| matches!(event, UeEvent::Agreed { .. });
        assert_eq!(node.events.iter().filter(agreed).count(), 3);
    }
    world.stop();
}

#[test]
fn a_call_is_refused_given_up_or_too_much() {
    let mut world = World::registered(Place::Open, |config| config.calls.max_calls = 1);
    let now = world.now;
    let call = world.nodes[ALICE].ue.call(now, "sip:bob@ims.example");
    let call = call.unwrap();
    let more = world.nodes[ALICE].ue.call(now, "sip:bob@ims.example");
    assert_eq!(more, Err(UeError::Call(CallError::Full)));
    assert!(world.run(30, |w| w.incoming(BOB).is_some()));
    let his = world.incoming(BOB).unwrap();
    let now = world.now;
    let busy = StatusCode::BUSY_HERE;
    world.nodes[BOB].ue.reject(now, his, busy).unwrap();
    assert!(world.run(5, |w| w.ended(ALICE).is_some()));
    assert!(matches!(
        world.ended(ALICE),
        Some(EndCause::Refused { code, .. }) if code == busy
    ));
    assert_eq!(world.ended(BOB), Some(EndCause::HungUp));
    let gone = world.nodes[ALICE].ue.hang_up(now, call);
    assert_eq!(gone, Err(UeError::Call(CallError::Unknown)));

    // Before the INVITE is sent, and while it rings.
    for rings in [false, true] {
        world.nodes.iter_mut().for_each(|node| node.events.clear());
        let now = world.now;
        let call = world.nodes[ALICE].ue.call(now, "sip:bob@ims.example");
        if rings {
            assert!(world.run(30, |w| w.incoming(BOB).is_some()));
        }
        let now = world.now;
        world.nodes[ALICE].ue.hang_up(now, call.unwrap()).unwrap();
        assert!(world.run(5, |w| w.ended(ALICE).is_some()));
        assert_eq!(world.ended(ALICE), Some(EndCause::HungUp));
        assert_eq!(world.ended(BOB), rings.then_some(EndCause::Cancelled));
    }
    world.stop();
}

#[test]
fn messages_and_info_get_through() {
    let mut world = World::registered(Place::OnlyProxy, |_| {});
    let now = world.now;
    let alice = &mut world.nodes[ALICE].ue;
    let sent = alice.message(now, "sip:bob@ims.example", "text/plain", "hello");
    let sent = sent.unwrap();
    world.run_for(1);
    let delivered = world.nodes[ALICE].events.iter().any(|event| {
        matches!(event, UeEvent::Delivered { request, outcome: Ok(code) }
            if *request == sent && code.is_success())
    });
    assert!(delivered);
    let came = world.nodes[BOB].events.iter().any(|event| {
        matches!(event, UeEvent::Message { from, content_type, body }
            if from == "sip:alice@ims.example" && content_type == "text/plain" && &body[..] == b"hello")
    });
    assert!(came);
    let calls = world.call();
    let now = world.now;
    let dtmf = "application/dtmf-relay";
    let info = world.nodes[BOB].ue.info(now, calls[BOB], dtmf, "Signal=5");
    info.unwrap();
    world.run_for(1);
    assert!(world.nodes[ALICE].events.iter().any(|event| {
        matches!(event, UeEvent::Info { content_type, body, .. }
            if content_type == dtmf && &body[..] == b"Signal=5")
    }));
    // To nobody.
    let now = world.now;
    let alice = &mut world.nodes[ALICE].ue;
    let sent = alice.message(now, "sip:carol@ims.example", "text/plain", "x");
    assert!(sent.is_ok());
    world.run_for(40);
    assert!(world.nodes[ALICE].events.iter().any(|event| {
        matches!(event, UeEvent::Delivered { outcome: Ok(code), .. } if code.class() == 4)
    }));
    world.stop();
}

#[test]
fn stopping_ends_calls_first() {
    let mut world = World::registered(Place::Only443, |_| {});
    world.call();
    world.stop();
    for user in [ALICE, BOB] {
        assert!(world.ended(user).is_some());
    }
    let now = world.now;
    let alice = &mut world.nodes[ALICE].ue;
    let call = alice.call(now, "sip:bob@ims.example");
    assert_eq!(call, Err(UeError::NotRunning));
    let message = alice.message(now, "sip:bob@ims.example", "a/b", "");
    assert_eq!(message, Err(UeError::NotRunning));
    alice.stop(now);
    world.settle();
    assert!(matches!(
        world.nodes[ALICE].events.last(),
        Some(UeEvent::Stopped)
    ));
}

#[test]
fn it_does_not_matter_how_bytes_are_cut() {
    for piece in [1, 7, 100] {
        let mut world = World::with(Place::OnlyProxy, |_| {});
        world.piece = piece;
        world.start(ALICE);
        world.start(BOB);
        assert!(world.run(60, |w| w.pcscf.binding_count() == 2));
        let calls = world.call();
        world.assert_talk(calls);
        world.stop();
    }
}

#[test]
fn the_application_is_asked_for_the_proxys_password_by_control_and_media() {
    use http_connect::auth::Credentials;
    use ims_traversal::access::AccessEvent;
    use ims_traversal::media::MediaEvent;

    let mut world = World::with(Place::OnlyProxy, World::without_credentials);
    world.start(ALICE);
    let asked = |w: &World| {
        w.nodes[ALICE].events.iter().any(|event| {
            matches!(event, UeEvent::Access(event)
                if matches!(**event, AccessEvent::ProxyCredentials { .. }))
        })
    };
    assert!(world.run(60, asked));
    let right = || Some(Credentials::new("user", "pass"));
    let now = world.now;
    world.nodes[ALICE].ue.set_proxy_credentials(now, right());
    assert!(world.run(60, |w| w.pcscf.binding_count() == 1));
    // The media of its calls have the password from the beginning.
    let now = world.now;
    let call = world.nodes[ALICE].ue.call(now, "sip:bob@ims.example");
    assert!(call.is_ok());
    assert!(world.run(30, |w| w.nodes[ALICE].events.iter().any(|event| {
        matches!(event, UeEvent::Media { event, .. }
            if matches!(**event, MediaEvent::Connected { via_proxy: true, .. }))
    })));
    world.run_for(40);
    world.stop();

    // Whoever calls before that is asked for the media as well.
    let mut world = World::with(Place::OnlyProxy, |config| {
        let media = World::without_credentials;
        let access = config.access.proxy.clone();
        media(config);
        config.access.proxy = access;
    });
    world.start(ALICE);
    assert!(world.run(60, |w| w.pcscf.binding_count() == 1));
    let now = world.now;
    let call = world.nodes[ALICE].ue.call(now, "sip:bob@ims.example");
    assert!(call.is_ok());
    world.settle();
    assert!(world.nodes[ALICE].events.iter().any(|event| {
        matches!(event, UeEvent::Media { event, .. }
            if matches!(**event, MediaEvent::NeedCredentials { .. }))
    }));
    world.nodes[ALICE].ue.set_proxy_credentials(now, right());
    assert!(world.run(5, |w| w.nodes[ALICE].events.iter().any(|event| {
        matches!(event, UeEvent::Media { event, .. }
            if matches!(**event, MediaEvent::Connected { via_proxy: true, .. }))
    })));
    world.run_for(40);
    world.stop();
}

#[test]
fn the_same_seeds_tell_the_same_story() {
    let story = || {
        let mut world = World::registered(Place::Only443, |_| {});
        world.call();
        world.stop();
        let told = world
            .nodes
            .each_ref()
            .map(|node| format!("{:?}", node.events));
        (told, world.now)
    };
    let (a, b) = (story(), story());
    // TLS draws its own randomness; nothing that is told depends on it.
    assert_eq!(a.1, b.1);
    assert_eq!(a.0[ALICE].len(), b.0[ALICE].len());
}
