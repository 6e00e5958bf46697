//! coturn: nonces of a five-tuple that grow stale after 60 to 600 s, checked before anything else;
//! protected errors but for those before authentication; RFC 5766 channels; permissions of 600 s
//! with a channel.

use core::time::Duration;

use stun_proto::auth::{AuthFailure, Credentials};
use turn_proto::Transport;
use turn_proto::client::{AllocateOptions, Cause, Event};
use turn_proto::wire;

use super::rig::Rig;
use super::{Habits, Unknown};
use crate::wired::{addr, at, ip};

pub(super) fn coturn(stale_nonce: u64) -> Habits {
    Habits {
        software: "Coturn-4.6.1 'Gorst'",
        fingerprint: true,
        nonce_life: Duration::from_secs(stale_nonce),
        nonce_uses: u32::MAX,
        nonce_each_time: false,
        nonce_first: true,
        protects_errors: true,
        lifetime: |asked| asked.unwrap_or(600).clamp(600, 3600),
        bound_permission: Duration::from_secs(600),
        channels: 0x4000..=0x7FFF,
        unknown: Unknown::Mismatch,
        wrong_user: 401,
        denied: [403, 403],
        installs_before_bad: false,
        refuses_dont_fragment: false,
        early_mismatch: true,
    }
}

// Traps U6 and T4: after a restart the nonce is wrong before the allocation is unknown.
// spec: TURN-8.3-1
#[test]
fn a_restart_is_noticed_in_one_pass() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut rig = Rig::allocated(coturn(600), transport);
        rig.bind("9.9.9.9:9");
        rig.server.restart();
        rig.server.log.clear();
        assert!(!rig.talks("9.9.9.9:9"));
        rig.run(60);
        // The proof of the path meets it first.
        assert_eq!(rig.cause(), Some(Cause::Code(437)));
        assert_eq!(rig.server.codes(wire::REFRESH), [438, 437]);
        assert_eq!(rig.client.poll_timeout(), None);
    }
}

// Trap U7: a ChannelBind without allocation is a 400; a Refresh tells what it means.
#[test]
fn a_400_for_a_channel_may_mean_that_the_allocation_is_gone() {
    let habits = Habits {
        unknown: Unknown::BadBind,
        ..coturn(600)
    };
    let mut rig = Rig::allocated(habits, Transport::Udp);
    rig.server.allocations.clear();
    rig.bind("9.9.9.9:9");
    rig.run(1);
    assert_eq!(rig.server.codes(wire::CHANNEL_BIND), [400]);
    assert_eq!(rig.server.codes(wire::REFRESH), [437]);
    assert_eq!(rig.cause(), Some(Cause::Code(437)));
}

// Traps U1 and U5: 437 comes before authentication and without integrity.
// spec: TURN-7.1-1
#[test]
fn an_address_with_an_old_allocation_needs_a_new_one() {
    let mut rig = Rig::allocated(coturn(600), Transport::Udp).starts_anew();
    rig.allocate(AllocateOptions::default());
    let [
        Event::AllocateFailed {
            cause,
            fresh_address,
            ..
        },
    ] = rig.events[..]
    else {
        panic!("{:?}", rig.events);
    };
    assert_eq!((cause, fresh_address), (Cause::Code(437), true));
}

// Trap U1: the answer that granted the allocation is lost, and the credentials meet 437 unprotected.
#[test]
fn a_lost_success_is_repeated() {
    let mut rig = Rig::new(coturn(600), Transport::Udp);
    // The second answer is the success.
    rig.loses = 2;
    rig.allocate(AllocateOptions::default());
    rig.loses = 0;
    rig.run(1);
    assert!(
        matches!(rig.events[..], [Event::Allocated { .. }]),
        "{:?}",
        rig.events
    );
    assert_eq!(rig.server.codes(wire::ALLOCATE), [401, 0, 0]);
}

// Traps U16 and U17: one forbidden address fails the whole request, and is no end of anything.
// spec: TURN-10-D1
#[test]
fn a_peer_that_is_forbidden_later_takes_no_other_with_it() {
    let mut rig = Rig::allocated(coturn(600), Transport::Udp);
    for peer in ["9.9.9.1", "9.9.9.2", "9.9.9.3"] {
        rig.permit(peer);
    }
    rig.server.forbidden.push(ip("9.9.9.2"));
    rig.run(3600);
    assert!(rig.talks("9.9.9.1:1") && rig.talks("9.9.9.3:3"));
    let failed = Event::PermissionFailed {
        peer: ip("9.9.9.2"),
        cause: Cause::Code(403),
    };
    assert_eq!(
        rig.events.iter().filter(|event| **event == failed).count(),
        1
    );
    assert_eq!(rig.cause(), None);
}

// Trap T3: nothing of SHA-256 is known, and 401 repeats for whoever insists on it.
// spec: STUN-9.2.2-1, 5389-10.2.2-1
#[test]
fn a_server_that_offers_no_algorithms_is_met_with_what_it_knows() {
    let mut rig = Rig::allocated(coturn(600), Transport::Udp);
    assert_eq!(rig.server.codes(wire::ALLOCATE), [401, 0]);
    assert_eq!(rig.server.complaints, Vec::<String>::new());
    // A stale nonce hides a wrong password at first.
    rig.close();
    let mut rig = Rig::with(coturn(600), Transport::Udp, |config| {
        config.credentials = Some(Credentials::new("alice", "wrong"));
    });
    rig.allocate(AllocateOptions::default());
    assert_eq!(rig.server.codes(wire::ALLOCATE), [401, 401]);
    let cause = Cause::Auth(AuthFailure::WrongCredentials);
    assert_eq!(rig.cause(), Some(cause));
}

// Traps U8 and T5: the nonce is stale when the allocation is given back.
// spec: TURN-8.3-1
#[test]
fn an_allocation_is_given_back_though_the_nonce_is_stale() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut rig = Rig::with(coturn(60), transport, |config| {
            // Which would renew the nonce.
            config.keep_alive = None;
            config.stream_keep_alive = None;
        });
        rig.allocate(AllocateOptions::default());
        rig.run(200);
        rig.close();
        let deletes: Vec<_> = rig
            .server
            .log
            .iter()
            .filter(|seen| seen.method == wire::REFRESH)
            .collect();
        assert!(
            deletes.iter().all(|seen| seen.lifetime == Some(0)),
            "{deletes:?}"
        );
        assert_eq!(rig.server.codes(wire::REFRESH), [438, 0]);
        assert!(rig.server.allocations.is_empty());
        assert_eq!(rig.events.last(), Some(&Event::Closed));
    }
}

// Trap U9: the permission of a channel lives longer there; the client does not rely on it.
#[test]
fn permissions_are_refreshed_in_time_for_every_server() {
    let mut rig = Rig::allocated(coturn(600), Transport::Udp);
    rig.bind("9.9.9.9:9");
    rig.run(299);
    assert_eq!(rig.server.codes(wire::CREATE_PERMISSION), [0]);
    let refreshed = rig
        .server
        .log
        .iter()
        .find(|seen| seen.method == wire::CREATE_PERMISSION);
    assert_eq!(refreshed.unwrap().at, at(240));
    assert!(rig.talks("9.9.9.9:9"));
    assert!(rig.client.is_permitted(addr("9.9.9.9:9").ip()));
}
