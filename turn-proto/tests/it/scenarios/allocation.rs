//! Getting, keeping and giving back allocations.

use stun_proto::auth::{AuthFailure, Credentials};
use stun_proto::wire::Class;
use turn_proto::client::{
    AllocateOptions, Cause, ClientConfig, ClientError, Event, Redirects, Servers,
};
use turn_proto::server::{DeleteReason, Event as ServerEvent, Redirect, Server};
use turn_proto::wire::{self, AddressFamily, Lifetime};
use turn_proto::{Path, RelayProtocol, Transport};

use crate::wired::*;

const DAY: u64 = 86_400;

// spec: TURN-8-1, TURN-8.1-1, TURN-5-1
#[test]
fn scenario_01_an_allocation_lives_a_day_and_is_given_back() {
    let mut world = World::allocated();
    world.bind(0, "9.9.9.9:9");
    world.permit(0, "9.9.9.8");
    for minute in 1..=DAY / 60 {
        world.run(at(minute * 60));
        assert!(world.talks(0, "9.9.9.9:9"), "after {minute} min");
        assert!(world.talks(0, "9.9.9.8:5"), "after {minute} min");
        // Only the beginnings are looked at below.
        if minute > 60 {
            world.flights.clear();
        }
    }
    let refreshes = DAY / 540;
    assert_eq!(world.server.allocations(), 1);
    let told = world.ends[0].events.len();
    assert_eq!(told, 4, "{:?}", world.ends[0].events);
    let refreshed = world.events.iter();
    let refreshed = refreshed.filter(|e| matches!(e, ServerEvent::AllocationRefreshed { .. }));
    assert!((refreshes..=refreshes + 1).contains(&(refreshed.count() as u64)));
    let now = world.now;
    world.client(0).close(now);
    world.step();
    assert!(world.ends[0].saw(Event::Closed));
    assert_eq!(world.server.allocations(), 0);
    assert!(world.relays.is_empty());
    let ended = world.events.last().unwrap();
    let bytes = 4 * 2 * DAY / 60;
    assert!(
        matches!(ended, ServerEvent::AllocationDeleted {
            reason: DeleteReason::Client, to_peers, to_client, ..
        } if *to_peers == bytes && *to_client == bytes),
        "{ended:?}"
    );
    assert_eq!(world.deadline(), None);
}

/// Runs one Allocate to its end; what it came to.
#[track_caller]
fn refused(
    mut world: World,
    config: ClientConfig,
    transport: Transport,
    options: AllocateOptions,
) -> Event {
    let end = world.end(config, transport, 40_000);
    world.allocate(end, options);
    world.run(world.now + secs(50));
    *world.ends[end].events.last().expect("an event")
}

fn failed(event: Event) -> (Cause, Option<u64>, bool) {
    match event {
        Event::AllocateFailed {
            cause,
            retry_after,
            fresh_address,
            ..
        } => (
            cause,
            retry_after.map(|after| after.as_secs()),
            fresh_address,
        ),
        other => panic!("{other:?}"),
    }
}

// spec: TURN-7.2-10, TURN-7.2-3, TURN-7.2-7, TURN-7.2-4, 8016-3.1.2-1
#[test]
fn scenario_02_every_error_of_allocate_has_its_reaction() {
    let plain = AllocateOptions::default();
    let ask = |change: fn(&mut turn_proto::server::ServerConfig), transport, options| {
        let mut config = server_config();
        change(&mut config);
        failed(refused(
            World::with(config),
            client_config(),
            transport,
            options,
        ))
    };
    let udp = Transport::Udp;
    let code = |code| Cause::Code(code);
    // 300
    let mut world = World::new();
    let elsewhere = addr("192.0.2.77:3478");
    world.server.set_redirect(Some(Redirect {
        v4: Some(elsewhere),
        ..Redirect::default()
    }));
    let config = ClientConfig {
        redirects: Redirects::Protected,
        ..client_config()
    };
    let event = refused(world, config, udp, plain);
    let Event::AllocateFailed {
        alternate, cause, ..
    } = event
    else {
        panic!("{event:?}");
    };
    assert_eq!((alternate, cause), (Some(elsewhere), code(300)));
    // 401: wrong password, and nobody of that name.
    for (name, password) in [("alice", "wrong"), ("nobody", "secret")] {
        let config = ClientConfig {
            credentials: Some(Credentials::new(name, password)),
            ..client_config()
        };
        let event = refused(World::new(), config, udp, plain);
        let cause = Cause::Auth(AuthFailure::WrongCredentials);
        assert_eq!(failed(event), (cause, None, false));
    }
    // 403
    let got = ask(|config| config.relay_udp = false, udp, plain);
    assert_eq!(got, (code(403), None, false));
    // 405 and 420: asked again without, and granted.
    for options in [
        AllocateOptions {
            mobility: true,
            ..plain
        },
        AllocateOptions {
            dont_fragment: true,
            ..plain
        },
    ] {
        let event = refused(World::new(), client_config(), udp, options);
        let Event::Allocated {
            mobile,
            dont_fragment,
            ..
        } = event
        else {
            panic!("{event:?}");
        };
        assert!(!mobile && !dont_fragment);
    }
    // 437: the address had another client's allocation.
    let mut world = World::allocated();
    world.ends.clear();
    let event = refused(world, client_config(), udp, plain);
    assert_eq!(failed(event), (code(437), Some(0), true));
    // 438: nonces of before count no longer.
    let mut world = World::new();
    let end = world.udp(40_000);
    let options = AllocateOptions {
        stop_at_challenge: true,
        ..plain
    };
    world.allocate(end, options);
    world.server.rotate_nonce_key();
    world.server.rotate_nonce_key();
    let now = world.now;
    world.client(end).proceed(now).unwrap();
    world.step();
    world.ends[end].relayed();
    assert_eq!(world.errors(438), 1);
    // 440
    let v6 = AllocateOptions {
        family: Some(AddressFamily::V6),
        ..plain
    };
    let got = ask(|config| config.addresses_v6 = 0, udp, v6);
    assert_eq!(got, (code(440), None, false));
    // 442
    let tcp = AllocateOptions {
        protocol: RelayProtocol::Tcp,
        ..plain
    };
    let got = ask(|config| config.relay_tcp = false, Transport::Tcp, tcp);
    assert_eq!(got, (code(442), None, false));
    // 486
    let config = |limits: fn(&mut turn_proto::server::Limits)| {
        let mut config = server_config();
        limits(&mut config.limits);
        config
    };
    let mut world = World::with(config(|limits| limits.allocations_per_user = 1));
    let first = world.udp(1);
    world.allocate(first, plain);
    let event = refused(world, client_config(), udp, plain);
    assert_eq!(failed(event), (code(486), Some(60), false));
    // 508: no room at all, no socket, no port, no answer of the host.
    let mut world = World::with(config(|limits| limits.allocations = 1));
    let first = world.udp(1);
    world.allocate(first, plain);
    assert_eq!(
        failed(refused(world, client_config(), udp, plain)),
        (code(508), Some(60), false)
    );
    for opening in [Opening::Fails, Opening::Taken, Opening::Hangs] {
        let mut world = World::new();
        world.opening = opening;
        let event = refused(world, client_config(), udp, plain);
        assert_eq!(failed(event), (code(508), Some(60), false), "{opening:?}");
    }
    // Silence.
    let mut world = World::new();
    world.loses = Box::new(|_| true);
    let event = refused(world, client_config(), udp, plain);
    assert_eq!(failed(event), (Cause::Timeout, None, false));
}

// spec: TURN-8.3-1, TURN-5-4
#[test]
fn scenario_05_a_restarted_server_is_noticed_with_the_next_request() {
    let mut world = World::allocated();
    world.bind(0, "9.9.9.9:9");
    world.server = Server::new(server_config(), users(), [77; 32], world.now).unwrap();
    // Data vanishes; nobody can know why.
    assert!(!world.reaches(0, "9.9.9.9:9"));
    world.flights.clear();
    world.run(at(540));
    // The old nonce is stale, with a new one the allocation is unknown: in one pass.
    let codes: Vec<_> = world.flights.iter().map(|flight| flight.code).collect();
    assert_eq!(codes, [0, 438, 0, 437]);
    assert_eq!(world.ends[0].cause(), Some(Cause::Code(437)));
    assert_eq!(world.now, at(540));
    assert_eq!(world.client(0).poll_timeout(), None);
}

// spec: TURN-7.1-1
#[test]
fn scenario_06_three_addresses_are_tried_and_then_none_for_two_minutes() {
    let mut world = World::new();
    for port in 1..=4 {
        let end = world.udp(port);
        world.allocate(end, AllocateOptions::default());
        world.ends[end].relayed();
    }
    world.ends.clear();
    let server = server_addr();
    let mut servers = Servers::new();
    for port in 1..=3 {
        assert!(servers.may_ask(world.now, server.ip()), "{port}");
        let end = world.udp(port);
        servers.asked(world.now, server);
        world.allocate(end, AllocateOptions::default());
        let event = *world.ends[end].events.last().unwrap();
        assert_eq!(failed(event), (Cause::Code(437), Some(0), true));
        servers.note(world.now, server, &event);
    }
    world.run(at(119));
    assert!(!servers.may_ask(world.now, server.ip()));
    world.run(at(120));
    assert!(servers.may_ask(world.now, server.ip()));
    let end = world.udp(5);
    world.allocate(end, AllocateOptions::default());
    world.ends[end].relayed();
}

fn dual() -> AllocateOptions {
    AllocateOptions {
        additional_v6: true,
        ..AllocateOptions::default()
    }
}

// spec: TURN-7.2-9, TURN-8.1-1, TURN-8.2-1, TURN-7.3-3
#[test]
fn scenario_10_one_of_two_families_may_fail_or_be_given_back() {
    // One family is not there, or has no room.
    for (opening, relays_v6, code) in [
        (Opening::Works, false, 440),
        (Opening::FailsForV6, true, 508),
    ] {
        let mut config = server_config();
        config.addresses_v6 = u16::from(relays_v6);
        let mut world = World::with(config);
        world.opening = opening;
        let end = world.udp(40_000);
        world.allocate(end, dual());
        let refused = match world.ends[end].events[..] {
            [
                Event::Allocated {
                    refused,
                    additional: None,
                    ..
                },
            ] => refused,
            ref other => panic!("{other:?}"),
        };
        assert_eq!(refused, Some((AddressFamily::V6, code)));
        let now = world.now;
        let peer = ip("2001:db8::9");
        assert_eq!(
            world.client(end).create_permission(now, peer),
            Err(ClientError::Family)
        );
    }
    let mut world = World::new();
    let end = world.udp(40_000);
    world.allocate(end, dual());
    world.permit(end, "9.9.9.9");
    world.bind(end, "[2600::9]:9");
    assert!(world.reaches(end, "9.9.9.9:9"));
    assert!(world.reaches(end, "[2600::9]:9"));
    assert_eq!(world.relays.len(), 2);
    world.run(at(300));
    let now = world.now;
    world
        .client(end)
        .release_family(now, AddressFamily::V6)
        .unwrap();
    world.step();
    assert_eq!(world.relays.len(), 1);
    assert!(world.ends[end].saw(Event::FamilyReleased {
        family: AddressFamily::V6
    }));
    // The other family keeps its permission, and is refreshed on.
    assert!(world.reaches(end, "9.9.9.9:9"));
    assert!(!world.reaches(end, "[2600::9]:9"));
    assert_eq!(
        world.client(end).release_family(now, AddressFamily::V4),
        Err(ClientError::State)
    );
    world.run(at(3000));
    assert!(world.reaches(end, "9.9.9.9:9"));
    assert_eq!(world.ends[end].cause(), None);
}

// spec: TURN-7.2-11, TURN-7.2-5, SEC-T-08
#[test]
fn scenario_11_a_reserved_port_waits_thirty_seconds() {
    for (wait, granted) in [(29, true), (30, false)] {
        let mut world = World::new();
        let first = world.udp(1);
        let options = AllocateOptions {
            even_port: Some(true),
            ..AllocateOptions::default()
        };
        world.allocate(first, options);
        let even = world.ends[first].relayed();
        assert_eq!(even.port() % 2, 0);
        let token = match world.ends[first].events[..] {
            [
                Event::Allocated {
                    reservation: Some(token),
                    ..
                },
            ] => token,
            ref other => panic!("{other:?}"),
        };
        world.run(at(wait));
        let options = AllocateOptions {
            reservation: Some(token),
            ..AllocateOptions::default()
        };
        let second = world.udp(2);
        world.allocate(second, options);
        if granted {
            let odd = world.ends[second].relayed();
            assert_eq!((odd.ip(), odd.port()), (even.ip(), even.port() + 1));
            // For one use.
            let third = world.udp(3);
            world.allocate(third, options);
            assert_eq!(world.ends[third].cause(), Some(Cause::Code(508)));
        } else {
            assert_eq!(world.ends[second].cause(), Some(Cause::Code(508)));
        }
    }
}

/// Asks a server that sends everybody to `to`; where the client is told to go.
fn sent_to(to: &str, redirects: Redirects) -> Option<core::net::SocketAddr> {
    let mut world = World::new();
    world.server.set_redirect(Some(Redirect {
        v4: Some(addr(to)),
        ..Redirect::default()
    }));
    let config = ClientConfig {
        redirects,
        ..client_config()
    };
    let event = refused(world, config, Transport::Udp, AllocateOptions::default());
    match event {
        Event::AllocateFailed {
            alternate,
            cause: Cause::Code(300),
            ..
        } => alternate,
        other => panic!("{other:?}"),
    }
}

// spec: STUN-10-3, STUN-10-4, 8155-6-2, SEC-S-10
#[test]
fn scenario_19_redirects_end_and_never_go_in_circles() {
    let follow = |chain: &[&str]| {
        let (mut servers, mut followed) = (Servers::new(), 0);
        let now = at(0);
        servers.asked(now, server_addr());
        for next in chain {
            let Some(to) = sent_to(next, Redirects::Protected) else {
                break;
            };
            if !servers.follow(now, to) {
                break;
            }
            followed += 1;
            servers.asked(now, to);
        }
        followed
    };
    // A chain has an end.
    let chain = [
        "192.0.2.2:3478",
        "192.0.2.3:3478",
        "192.0.2.4:3478",
        "192.0.2.5:3478",
    ];
    assert_eq!(follow(&chain), 3);
    // Back to where it began, at once or by way of another.
    assert_eq!(follow(&["192.0.2.1:3478"]), 0);
    assert_eq!(
        follow(&["192.0.2.2:3478", "192.0.2.1:3478", "192.0.2.9:3478"]),
        1
    );
    // Not asked for, and to places that are no servers.
    assert_eq!(sent_to("192.0.2.2:3478", Redirects::Refuse), None);
    for strange in [
        "127.0.0.1:3478",
        "224.0.0.1:3478",
        "0.0.0.0:3478",
        "192.0.2.2:22",
    ] {
        assert_eq!(sent_to(strange, Redirects::Unprotected), None, "{strange}");
    }
    // Anycast: the unicast server grants what the anycast address did not.
    let unicast = sent_to("192.0.2.2:3478", Redirects::Protected);
    assert_eq!(unicast, Some(addr("192.0.2.2:3478")));
    let mut world = World::new();
    let end = world.udp(40_000);
    world.allocate(end, AllocateOptions::default());
    world.ends[end].relayed();
}

// spec: TURN-5-10, SEC-C-04
#[test]
fn scenario_23_after_a_quota_the_next_try_waits_a_minute() {
    let mut config = server_config();
    config.limits.allocations_per_user = 2;
    let mut world = World::with(config);
    let mut servers = Servers::new();
    let server = server_addr();
    for port in 1..=2 {
        let end = world.udp(port);
        world.allocate(end, AllocateOptions::default());
        world.ends[end].relayed();
    }
    let end = world.udp(3);
    world.allocate(end, AllocateOptions::default());
    let event = *world.ends[end].events.last().unwrap();
    assert_eq!(failed(event), (Cause::Code(486), Some(60), false));
    servers.note(world.now, server, &event);
    world.run(at(59));
    assert!(!servers.may_ask(world.now, server.ip()));
    // Whoever gives back makes room; another user had it all the time.
    let now = world.now;
    world.client(0).close(now);
    world.step();
    let bob = ClientConfig {
        credentials: Some(Credentials::new("bob", "password")),
        ..client_config()
    };
    let other = world.end(bob, Transport::Udp, 4);
    world.allocate(other, AllocateOptions::default());
    world.ends[other].relayed();
    world.run(at(62));
    assert!(servers.may_ask(world.now, server.ip()));
    let end = world.udp(5);
    world.allocate(end, AllocateOptions::default());
    world.ends[end].relayed();
}

// spec: TURN-7.2-2, TURN-5-9
#[test]
fn a_retransmitted_allocate_gets_the_answer_of_the_first() {
    let mut world = World::new();
    let end = world.udp(40_000);
    let (mut lost, success) = (0, wire::ALLOCATE);
    world.loses = Box::new(move |flight| {
        let this = flight.is(success, Class::Success);
        lost += usize::from(this);
        this && lost <= 3
    });
    world.allocate(end, AllocateOptions::default());
    world.run(at(20));
    let relayed = world.ends[end].relayed();
    let answers: Vec<_> = world
        .flights
        .iter()
        .filter(|f| f.is(success, Class::Success))
        .collect();
    assert_eq!(answers.len(), 4);
    for answer in &answers {
        let message = answer.message();
        let there: wire::XorRelayedAddress = message.find().unwrap();
        assert_eq!(there.0, relayed);
        // What is left of it, so that the client never believes too much.
        let left = 600 - answer.at.duration_since(at(0)).as_secs() as u32;
        let Lifetime(lifetime) = message.find().unwrap();
        assert!((left - 1..=600).contains(&lifetime), "{lifetime}");
    }
    assert_eq!(world.server.allocations(), 1);
    assert_eq!(world.relays.len(), 1);
    let Path::Datagram(path) = world.ends[end].path else {
        panic!()
    };
    assert_eq!(path.local.port(), 40_000);
}
