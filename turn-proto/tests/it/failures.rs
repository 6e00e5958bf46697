//! What goes wrong around the machines, as hosts on both sides see it.

use turn_proto::client::{AllocateOptions, Cause, Event};
use turn_proto::server::{DeleteReason, Event as ServerEvent, Server};
use turn_proto::wire;
use turn_proto::{Path, Transport};

use crate::wired::*;

fn ended(world: &World) -> Vec<DeleteReason> {
    let reason = |event: &ServerEvent| match event {
        ServerEvent::AllocationDeleted { reason, .. } => Some(*reason),
        _ => None,
    };
    world.events.iter().filter_map(reason).collect()
}

/// Requests on the wire from now on.
fn count_from_here(world: &mut World) {
    world.flights.clear();
}

fn over(transport: Transport) -> World {
    let mut world = World::new();
    let end = world.end(client_config(), transport, 40_000);
    world.allocate(end, AllocateOptions::default());
    world.bind(end, "9.9.9.9:9");
    assert!(world.talks(end, "9.9.9.9:9"));
    world
}

// spec: TURN-5-4
#[test]
fn after_a_restart_of_the_server_a_new_client_gets_a_new_allocation() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut world = over(transport);
        world.server = Server::new(server_config(), users(), [9; 32], world.now).unwrap();
        world.relays.clear();
        if let Path::Stream(id) = world.ends[0].path {
            // The connection went with the process.
            world.close_stream(id);
            world.step();
            assert_eq!(world.ends[0].cause(), Some(Cause::StreamClosed));
        } else {
            world.run(at(240));
            assert_eq!(world.ends[0].cause(), Some(Cause::Code(437)));
        }
        // To the new server it is as if nothing had ever been.
        assert_eq!(world.server.allocations(), 0);
        assert_eq!(ended(&world), []);
        let end = world.end(client_config(), transport, 40_001);
        world.allocate(end, AllocateOptions::default());
        world.bind(end, "9.9.9.9:9");
        assert!(world.talks(end, "9.9.9.9:9"));
    }
}

// spec: TURN-STR-4, STUN-6.2.2-3
#[test]
fn a_closed_connection_ends_the_allocation_on_both_sides_at_once() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut world = over(transport);
        let Path::Stream(id) = world.ends[0].path else {
            panic!()
        };
        // A request is under way when it happens.
        let now = world.now;
        world
            .client(0)
            .create_permission(now, ip("9.9.9.8"))
            .unwrap();
        world.close_stream(id);
        world.step();
        let lost = Event::AllocationLost {
            cause: Cause::StreamClosed,
        };
        assert_eq!(world.ends[0].events.last(), Some(&lost));
        assert_eq!(ended(&world), [DeleteReason::StreamClosed]);
        assert!(world.relays.is_empty());
        assert_eq!(world.deadline(), None);
    }
}

// spec: TURN-8.3-D1, STUN-6.2.2-2
#[test]
fn a_connection_that_dies_without_a_word_is_found_out_by_both_sides() {
    let mut world = over(Transport::Tcp);
    world.loses = Box::new(|_| true);
    world.run(at(24));
    assert_eq!(world.ends[0].cause(), None);
    // The client asks after 10 s of silence, and has no answer after another 15 s.
    world.run(at(26));
    assert_eq!(world.ends[0].cause(), Some(Cause::Timeout));
    world.run(at(700));
    assert_eq!(ended(&world).len(), 1);
    // The server's host is told to close the connection that is of no use.
    world.run(at(800));
    assert_eq!(world.ends[0].streams, []);
    assert_eq!(world.deadline(), None);
}

// spec: TURN-6-1, SEC-T-06, TURN-7.2-8
#[test]
fn when_the_ports_are_used_up_the_host_is_not_even_asked() {
    let mut config = server_config();
    config.ports = 50_000..=50_003;
    let mut world = World::with(config);
    for port in 1..=4 {
        let end = world.udp(port);
        world.allocate(end, AllocateOptions::default());
        world.ends[end].relayed();
    }
    let end = world.udp(5);
    world.allocate(end, AllocateOptions::default());
    let Some(Event::AllocateFailed {
        cause, retry_after, ..
    }) = world.ends[end].events.first()
    else {
        panic!("{:?}", world.ends[end].events);
    };
    assert_eq!(*cause, Cause::Code(508));
    assert!(retry_after.is_some_and(|after| after >= secs(60)));
    assert_eq!(world.relays.len(), 4);
    // IPv6 has ports of its own, and what is given back can be had again.
    let v6 = AllocateOptions {
        family: Some(wire::AddressFamily::V6),
        ..AllocateOptions::default()
    };
    let end = world.udp(6);
    world.allocate(end, v6);
    world.ends[end].relayed();
    let now = world.now;
    let given_back = world.ends[1].relayed();
    world.client(1).close(now);
    world.step();
    let end = world.udp(7);
    world.allocate(end, AllocateOptions::default());
    assert_eq!(world.ends[end].relayed(), given_back);
}

// spec: SEC-T-06, TURN-5-10
#[test]
fn full_tables_refuse_and_are_counted_and_empty_ones_grant_again() {
    let mut config = server_config();
    config.limits.allocations_per_user = 3;
    config.limits.allocations = 5;
    config.limits.permissions = 2;
    config.limits.channels = 1;
    let mut world = World::with(config);
    let mut ends = Vec::new();
    for port in 1..=3 {
        ends.push(world.udp(port));
        world.allocate(ends[ends.len() - 1], AllocateOptions::default());
    }
    let refused = |world: &mut World, port, code| {
        let end = world.udp(port);
        world.allocate(end, AllocateOptions::default());
        assert_eq!(world.ends[end].cause(), Some(Cause::Code(code)));
    };
    refused(&mut world, 4, 486);
    assert_eq!(world.server.stats().limited, 1);
    // Permissions and channels: one peer too many hears of it, the others live on.
    let end = ends[0];
    world.bind(end, "9.9.9.1:1");
    world.bind(end, "9.9.9.1:2");
    world.permit(end, "9.9.9.2");
    world.permit(end, "9.9.9.3");
    let no_room = Cause::Code(508);
    assert!(world.ends[end].saw(Event::ChannelFailed {
        peer: addr("9.9.9.1:2"),
        cause: no_room
    }));
    assert!(world.ends[end].saw(Event::PermissionFailed {
        peer: ip("9.9.9.3"),
        cause: no_room
    }));
    assert!(world.talks(end, "9.9.9.1:1") && world.talks(end, "9.9.9.2:2"));
    // What was refused is asked for again, and granted once there is room.
    let now = world.now;
    world.client(end).release_permission(now, ip("9.9.9.2"));
    world.run(at(400));
    assert!(world.talks(end, "9.9.9.3:3"));
    world.client(ends[1]).close(at(400));
    world.step();
    let again = world.udp(5);
    world.allocate(again, AllocateOptions::default());
    world.ends[again].relayed();
}

// spec: SEC-G-08, SEC-C-04, TURN-8.3-D1
#[test]
fn a_host_that_slept_for_hours_finds_everything_ended_and_makes_no_storm() {
    let mut world = over(Transport::Udp);
    for n in 1..100 {
        world.permit(0, &format!("9.9.8.{n}"));
    }
    count_from_here(&mut world);
    world.events.clear();
    world.ends[0].events.clear();
    world.wake(at(5 * 3600));
    assert_eq!(
        world.ends[0].events,
        [Event::AllocationLost {
            cause: Cause::Timeout
        }]
    );
    assert_eq!(world.flights.len(), 0);
    assert_eq!(world.client(0).poll_timeout(), None);
    // The server's host closes what there was; permissions and channels need no word of their own
    // but those whose time came first.
    assert_eq!(ended(&world), [DeleteReason::Expired]);
    assert!(world.relays.is_empty());
    assert_eq!(world.server.poll_timeout(), None);
}

// spec: SEC-G-08, SEC-C-04
#[test]
fn a_host_that_slept_for_minutes_takes_up_what_is_left() {
    for (slept, permissions_lived) in [(250, true), (400, false), (590, false)] {
        let mut world = over(Transport::Udp);
        world.permit(0, "9.9.9.8");
        count_from_here(&mut world);
        // Only the client's host slept; the server kept the time.
        let before = world.ends[0].events.len();
        while let Some(next) = world
            .server
            .poll_timeout()
            .filter(|next| *next <= at(slept))
        {
            world.server.handle_timeout(next);
        }
        world.wake(at(slept));
        let told = &world.ends[0].events[before..];
        let failed = told
            .iter()
            .filter(|event| matches!(event, Event::PermissionFailed { .. }))
            .count();
        assert_eq!(
            failed,
            if permissions_lived { 0 } else { 2 },
            "{slept} s: {told:?}"
        );
        assert!(
            world.talks(0, "9.9.9.9:9") && world.talks(0, "9.9.9.8:8"),
            "{slept} s"
        );
        // One request for each thing that was due, the permissions in one or two.
        let asked = world.requests(wire::REFRESH).len()
            + world.requests(wire::CREATE_PERMISSION).len()
            + world.requests(wire::CHANNEL_BIND).len();
        assert!(asked <= 5, "{slept} s: {asked} requests");
        assert_eq!(world.ends[0].cause(), None);
        assert_eq!(world.server.allocations(), 1);
    }
}

// spec: SEC-G-08
#[test]
fn a_clock_that_runs_back_stands_still_for_both_sides() {
    let mut world = over(Transport::Udp);
    world.run(at(100));
    let before = world.deadline();
    for earlier in [99, 50, 0] {
        // Timeouts, commands, data and requests with an earlier time.
        world.wake(at(earlier));
        assert_eq!(world.deadline(), before, "{earlier} s");
        assert!(world.talks(0, "9.9.9.9:9"));
        world.permit(0, &format!("9.9.9.{}", 10 + earlier));
        assert!(world.talks(0, &format!("9.9.9.{}:1", 10 + earlier)));
    }
    // What was granted meanwhile counts from the latest time there was.
    world.run(at(339));
    assert_eq!(world.requests(wire::CREATE_PERMISSION).len(), 3 + 1);
    world.run(at(340));
    assert!(world.requests(wire::CREATE_PERMISSION).len() > 4);
    world.run(at(4000));
    assert!(world.talks(0, "9.9.9.9:9"));
}
