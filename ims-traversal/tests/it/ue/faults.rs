use core::time::Duration;

use ims_traversal::ConnId;
use ims_traversal::sdp::Direction;
use ims_traversal::ue::{EndCause, UeConn, UeEvent};
use sip_outbound::wire::UriBuf;

use super::world::{ALICE, BOB, Place, World};

fn control(conn: UeConn) -> bool {
    matches!(conn, UeConn::Control(_))
}

// spec: PRI-3-3
#[test]
fn a_call_outlives_its_flow_and_ends_over_the_next() {
    for place in Place::ALL {
        let mut world = World::registered(place, |_| {});
        let calls = world.call();
        assert_eq!(world.registrations(BOB), 1);
        assert_eq!(world.cut(BOB, control), 1);
        world.assert_talk(calls);
        assert!(world.run(61, |w| w.registrations(BOB) == 2), "{place:?}");
        world.assert_talk(calls);
        let now = world.now;
        world.nodes[BOB].ue.hang_up(now, calls[BOB]).unwrap();
        assert!(world.run(5, |w| w.ended(ALICE).is_some() && w.ended(BOB).is_some()));
        assert_eq!(world.ended(BOB), Some(EndCause::HungUp));
        assert_eq!(
            world.ended(ALICE),
            Some(EndCause::RemoteHungUp),
            "{place:?}"
        );
        world.stop();
    }
}

#[test]
fn hanging_up_without_a_flow_waits_for_the_next() {
    let mut world = World::registered(Place::Only443, |_| {});
    let calls = world.call();
    world.cut(ALICE, control);
    let now = world.now;
    world.nodes[ALICE].ue.hang_up(now, calls[ALICE]).unwrap();
    assert_eq!(world.ended(ALICE), None);
    assert!(world.run(5, |w| w.ended(ALICE).is_some() && w.ended(BOB).is_some()));
    assert_eq!(world.ended(BOB), Some(EndCause::RemoteHungUp));
    world.stop();
}

#[test]
fn a_lost_relay_is_replaced_by_an_ice_restart() {
    for place in [Place::NoUdp, Place::Only443, Place::OnlyProxy] {
        let mut world = World::registered(place, |_| {});
        let calls = world.call();
        let cut = world.cut(BOB, |conn| !control(conn));
        assert_eq!(cut, 1);
        // Who notices offers anew, once consent or the relay is lost.
        assert!(
            world.run(60, |w| w.ways(ALICE) >= 2 && w.ways(BOB) >= 2),
            "{place:?}"
        );
        assert_eq!(world.ended(ALICE), None);
        world.assert_talk(calls);
        world.stop();
    }
}

/// The direction that was agreed on last.
fn direction(world: &World, user: usize) -> Option<Direction> {
    let mut events = world.nodes[user].events.iter().rev();
    events.find_map(|event| match event {
        UeEvent::Agreed { direction, .. } => Some(*direction),
        _ => None,
    })
}

fn refused(world: &World, user: usize) -> bool {
    let mut events = world.nodes[user].events.iter();
    events.any(|event| matches!(event, UeEvent::ChangeRefused { .. }))
}

#[test]
fn both_start_over_at_once() {
    for place in [Place::NoUdp, Place::Only443, Place::OnlyProxy] {
        let mut world = World::registered(place, |_| {});
        let calls = world.call();
        // With the server away for a moment, both gather at the same time.
        world.turn_down = true;
        for user in [ALICE, BOB] {
            assert_eq!(world.cut(user, |conn| !control(conn)), 1);
        }
        world.turn_down = false;
        let found = world.run(30, |w| w.ways(ALICE) >= 2 && w.ways(BOB) >= 2);
        assert!(found, "{:?} {:?}", world.ended(ALICE), world.ended(BOB));
        assert!(!refused(&world, ALICE) && !refused(&world, BOB));
        // Nothing is left to be said.
        world.run_for(10);
        world.assert_talk(calls);
        world.stop();
    }
}

#[test]
fn an_ordinary_change_does_not_meet_media_that_start_over() {
    let mut world = World::registered(Place::NoUdp, |_| {});
    let calls = world.call();
    world.turn_down = true;
    world.cut(BOB, |conn| !control(conn));
    world.run_for(1);
    let now = world.now;
    let alice = &mut world.nodes[ALICE].ue;
    let hold = alice.set_direction(now, calls[ALICE], Direction::SendOnly);
    hold.unwrap();
    world.settle();
    world.turn_down = false;
    let done = world.run(60, |w| {
        let found = w.ways(ALICE) >= 2 && w.ways(BOB) >= 2;
        found && direction(w, BOB) == Some(Direction::RecvOnly)
    });
    assert!(done, "{:?} {:?}", world.ended(ALICE), world.ended(BOB));
    assert!(!refused(&world, ALICE) && !refused(&world, BOB));
    world.assert_talk(calls);
    world.stop();
}

#[test]
fn a_change_that_is_lost_with_its_flow_takes_another() {
    let mut lost = 0;
    for conn in 0..2 {
        let mut world = World::with(Place::NoUdp, |config| {
            let agent = &mut config.access.agent;
            let second = UriBuf::parse("sips:pcscf1.ims.example").unwrap();
            agent.proxies.push(second);
            agent.flows = 2;
        });
        world.start(ALICE);
        world.start(BOB);
        assert!(world.run(60, |w| w.pcscf.binding_count() == 4));
        let calls = world.call();
        let now = world.now;
        let alice = &mut world.nodes[ALICE].ue;
        let hold = alice.set_direction(now, calls[ALICE], Direction::SendOnly);
        hold.unwrap();
        // Before it is sent.
        lost += world.cut(ALICE, |at| at == UeConn::Control(ConnId(conn)));
        let held = world.run(10, |w| direction(w, BOB) == Some(Direction::RecvOnly));
        assert!(held, "{conn} {:?}", world.nodes[ALICE].events);
        assert!(world.run(181, |w| w.registrations(ALICE) == 3));
        world.stop();
    }
    assert_eq!(lost, 2);
}

#[test]
fn servers_that_are_away_for_a_while_are_asked_again() {
    let mut world = World::registered(Place::Only443, |_| {});
    let calls = world.call();
    world.turn_down = true;
    world.cut(BOB, |conn| !control(conn));
    // 2 and 4 s; then the next attempt finds it.
    world.run_for(7);
    world.turn_down = false;
    assert!(world.run(60, |w| w.ways(ALICE) >= 2 && w.ways(BOB) >= 2));
    assert_eq!(world.pair(BOB), "relay relay TLS");
    world.assert_talk(calls);
    world.stop();

    // Not for ever: what is there is offered then, and leads nowhere.
    let mut world = World::registered(Place::Only443, |_| {});
    world.call();
    world.turn_down = true;
    world.cut(BOB, |conn| !control(conn));
    assert!(world.run(200, |w| w.ended(ALICE).is_some() && w.ended(BOB).is_some()));
    world.turn_down = false;
    world.stop();
}

#[test]
fn a_call_survives_the_loss_of_everything() {
    for place in [Place::Only443, Place::OnlyProxy] {
        let mut world = World::registered(place, |_| {});
        let calls = world.call();
        (world.turn_down, world.pcscf_down) = (true, true);
        assert_eq!(world.cut(BOB, |_| true), 2);
        world.run_for(5);
        (world.turn_down, world.pcscf_down) = (false, false);
        // Alice notices that nothing comes, and starts over as well.
        assert!(
            world.run(100, |w| w.registrations(BOB) == 2 && w.ways(BOB) >= 2),
            "{place:?} {:?} {:?}",
            world.ended(ALICE),
            world.ended(BOB)
        );
        world.run_for(5);
        world.assert_talk(calls);
        world.stop();
    }
}

#[test]
fn lost_media_end_the_call_when_told_so() {
    let mut world = World::registered(Place::Only443, |config| config.media_restarts = 0);
    world.call();
    world.cut(BOB, |conn| !control(conn));
    assert!(world.run(60, |w| w.ended(ALICE).is_some() && w.ended(BOB).is_some()));
    let causes = [world.ended(ALICE), world.ended(BOB)];
    let media = |cause: &Option<EndCause>| matches!(cause, Some(EndCause::Media(_)));
    assert!(causes.iter().any(media), "{causes:?}");
    world.stop();
}

#[test]
fn a_call_moves_to_another_network() {
    for place in [Place::Open, Place::OnlyProxy] {
        let mut world = World::registered(place, |_| {});
        let calls = world.call();
        world.assert_talk(calls);
        // Every socket and connection of the old network is of no use any more.
        world.nodes[ALICE].host = 77;
        let network = world.network(ALICE, 2);
        let now = world.now;
        world.nodes[ALICE].ue.network_changed(now, network);
        world.settle();
        assert!(
            world.run(60, |w| w.ways(ALICE) == 2 && w.ways(BOB) == 2),
            "{place:?} {:?}",
            world.nodes[ALICE].events
        );
        assert_eq!(world.registrations(ALICE), 2);
        world.assert_talk(calls);
        let now = world.now;
        world.nodes[ALICE].ue.hang_up(now, calls[ALICE]).unwrap();
        assert!(world.run(5, |w| w.ended(ALICE).is_some() && w.ended(BOB).is_some()));
        world.stop();
    }
}

#[test]
fn calls_that_cannot_be_ended_are_told_of_before_the_stop() {
    let mut world = World::registered(Place::Only443, |_| {});
    world.call();
    world.pcscf_down = true;
    world.cut(ALICE, control);
    let now = world.now;
    world.nodes[ALICE].ue.stop(now);
    let stopped = |w: &World| matches!(w.nodes[ALICE].events.last(), Some(UeEvent::Stopped));
    assert!(world.run(120, stopped));
    world.run_for(60);
    assert!(stopped(&world), "{:?}", world.nodes[ALICE].events.last());
    assert_eq!(world.ended(ALICE), Some(EndCause::HungUp));
}

#[test]
fn calls_under_way_end_with_the_flow_of_the_caller() {
    let mut world = World::registered(Place::Only443, |_| {});
    let now = world.now;
    let call = world.nodes[ALICE].ue.call(now, "sip:bob@ims.example");
    assert!(call.is_ok());
    assert!(world.run(30, |w| w.incoming(BOB).is_some()));
    world.cut(ALICE, control);
    world.run_for(1);
    assert_eq!(world.ended(ALICE), Some(EndCause::FlowLost));
    // The P-CSCF cancels at once: Bob's telephone does not ring for nobody (TS 24.229 5.2.8).
    assert_eq!(world.ended(BOB), Some(EndCause::Cancelled));
    world.run_for(60);
    world.stop();
}

#[test]
fn without_any_way_for_the_media_the_call_ends() {
    let mut world = World::registered(Place::Only443, |config| {
        config.media.session.turn_servers.clear();
        config.media.session.agent.patience = Duration::from_secs(5);
    });
    let now = world.now;
    world.nodes[ALICE]
        .ue
        .call(now, "sip:bob@ims.example")
        .unwrap();
    assert!(world.run(60, |w| w.incoming(BOB).is_some()));
    let his = world.incoming(BOB).unwrap();
    let now = world.now;
    world.nodes[BOB].ue.answer(now, his).unwrap();
    // Host candidates lead nowhere here.
    assert!(world.run(120, |w| w.ended(ALICE).is_some() && w.ended(BOB).is_some()));
    let causes = [world.ended(ALICE), world.ended(BOB)];
    let media = |cause: &Option<EndCause>| matches!(cause, Some(EndCause::Media(_)));
    assert!(causes.iter().any(media), "{causes:?}");
    assert!(
        !world.nodes[ALICE]
            .events
            .iter()
            .any(|event| matches!(event, UeEvent::Media { event, .. }
        if matches!(**event, ims_traversal::media::MediaEvent::Completed)))
    );
    world.stop();
}
