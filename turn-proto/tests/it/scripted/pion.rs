//! pion: errors without integrity, no answer at all without allocation, a wrong password is a 400,
//! lifetimes below ten minutes are granted, DONT-FRAGMENT is not known.

use core::time::Duration;

use stun_proto::auth::Credentials;
use turn_proto::Transport;
use turn_proto::client::{AllocateOptions, Cause, Event};
use turn_proto::wire;

use super::rig::Rig;
use super::{Habits, Unknown};
use crate::wired::{addr, at, ip};

pub(super) fn pion() -> Habits {
    Habits {
        software: "",
        fingerprint: false,
        nonce_life: Duration::from_secs(3600),
        nonce_uses: u32::MAX,
        nonce_each_time: false,
        nonce_first: true,
        protects_errors: false,
        lifetime: |asked| match asked {
            Some(asked) if asked <= 3600 => asked,
            _ => 600,
        },
        bound_permission: Duration::from_secs(300),
        channels: 0x4000..=0x7FFF,
        unknown: Unknown::Silence,
        wrong_user: 400,
        denied: [403, 401],
        installs_before_bad: true,
        refuses_dont_fragment: true,
        early_mismatch: false,
    }
}

// Trap T7: a wrong password is an unprotected 400. Believing it would let anybody on the way end the
// attempt; it is a hint for when nothing better comes.
// spec: STUN-9.2.5-6, TURN-7.2-1
#[test]
fn scenario_21_a_wrong_password_ends_in_silence_and_a_hint() {
    let hint = Cause::Integrity { code: Some(400) };
    let wrong = |transport| {
        Rig::with(pion(), transport, |config| {
            config.credentials = Some(Credentials::new("alice", "wrong"));
        })
    };
    let mut rig = wrong(Transport::Udp);
    rig.allocate(AllocateOptions::default());
    assert_eq!(rig.cause(), None);
    rig.run(40);
    assert_eq!(rig.cause(), Some(hint));
    // Strictly read, over a stream nothing better can come.
    let mut rig = wrong(Transport::Tcp);
    rig.client
        .allocate(at(0), AllocateOptions::default())
        .unwrap();
    rig.step();
    let lenient = Cause::Code(400);
    assert!(
        [Some(hint), Some(lenient)].contains(&rig.cause()),
        "{:?}",
        rig.cause()
    );
}

// Trap U2: whoever has no allocation hears nothing; the client finds out when it ends by itself.
// spec: TURN-8.3-D1
#[test]
fn a_server_that_lost_the_allocation_and_says_nothing_is_given_up_at_its_end() {
    let mut rig = Rig::allocated(pion(), Transport::Udp);
    rig.permit("9.9.9.9");
    rig.server.allocations.clear();
    rig.run(1000);
    assert_eq!(rig.cause(), Some(Cause::Timeout));
    assert_eq!(rig.client.poll_timeout(), None);
    let silent = rig.server.log.iter().filter(|seen| seen.at > at(0));
    assert_eq!(silent.count(), 0);
}

// Trap U2: errors after authentication come without integrity.
#[test]
fn unprotected_errors_are_understood() {
    let mut rig = Rig::allocated(pion(), Transport::Udp).starts_anew();
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

// Trap U2: a forbidden peer is a 401 for ChannelBind; the credentials are not wrong for that.
#[test]
fn a_401_about_a_peer_ends_nothing() {
    let mut rig = Rig::allocated(pion(), Transport::Udp);
    rig.server.forbidden.push(ip("9.9.9.2"));
    rig.bind("9.9.9.1:1");
    rig.bind("9.9.9.2:2");
    rig.run(3600);
    assert_eq!(rig.cause(), None);
    assert!(rig.talks("9.9.9.1:1"));
    assert!(!rig.client.is_permitted(ip("9.9.9.2")));
    let failed = |event: &&Event| matches!(event, Event::ChannelFailed { peer, .. } if *peer == addr("9.9.9.2:2"));
    assert!(rig.events.iter().find(failed).is_some());
}

// Trap U16: what stood before the bad address is installed although the answer is an error.
#[test]
fn a_batch_with_a_bad_address_is_asked_for_one_by_one() {
    let mut rig = Rig::allocated(pion(), Transport::Tcp);
    for peer in ["9.9.9.1", "9.9.9.2", "9.9.9.3"] {
        rig.permit(peer);
    }
    rig.server.forbidden.push(ip("9.9.9.2"));
    rig.run(3600);
    assert!(rig.talks("9.9.9.1:1") && rig.talks("9.9.9.3:3"));
    assert_eq!(rig.cause(), None);
}

// Trap U3: what is granted counts, however short.
// spec: TURN-7.3-2
#[test]
fn lifetimes_are_what_the_server_says() {
    for (asked, granted) in [(Some(30), 30), (Some(7200), 600), (None, 600)] {
        let mut rig = Rig::new(pion(), Transport::Udp);
        rig.allocate(AllocateOptions {
            lifetime: asked.map(Duration::from_secs),
            ..AllocateOptions::default()
        });
        let [Event::Allocated { lifetime, .. }] = rig.events[..] else {
            panic!("{:?}", rig.events);
        };
        assert_eq!(lifetime, Duration::from_secs(granted));
        rig.permit("9.9.9.9");
        for minute in 1..=120 {
            rig.run(minute * 60);
            assert!(rig.talks("9.9.9.9:9"), "{asked:?}, after {minute} min");
        }
    }
}

// Trap U18: DONT-FRAGMENT is refused, and the request made again without.
#[test]
fn what_the_server_does_not_know_is_left_out() {
    let mut rig = Rig::new(pion(), Transport::Tcp);
    rig.allocate(AllocateOptions {
        dont_fragment: true,
        ..AllocateOptions::default()
    });
    assert_eq!(rig.server.codes(wire::ALLOCATE), [401, 420, 0]);
    assert!(matches!(
        rig.events[..],
        [Event::Allocated {
            dont_fragment: false,
            ..
        }]
    ));
}
