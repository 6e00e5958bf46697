//! A day with each of them.

use core::time::Duration;

use turn_proto::Transport;
use turn_proto::client::Event;
use turn_proto::wire;

use super::coturn::coturn;
use super::pion::pion;
use super::rig::Rig;
use super::{Answered, Habits};
use crate::wired::at;

const DAY: u64 = 86_400;

/// An allocation with a channel and two permissions lives a day: no word is missing, and
/// nothing is asked for more often than the rules want.
fn lives_a_day(name: &str, habits: Habits, transport: Transport, loses: u32) {
    let life = if habits.nonce_uses == u32::MAX {
        habits.nonce_life
    } else {
        // No longer than it takes to use it up.
        Duration::from_secs(240)
    };
    let mut rig = Rig::allocated(habits, transport);
    rig.loses = loses;
    rig.bind("9.9.9.9:9");
    rig.permit("9.9.9.8");
    rig.permit("9.9.9.7");
    // The answers to these may have been lost.
    rig.run(3);
    let begun = rig.events.len();
    for half_minute in 1..=DAY / 30 {
        rig.run(half_minute * 30);
        for peer in ["9.9.9.9:9", "9.9.9.8:80", "9.9.9.7:70"] {
            assert!(
                rig.talks(peer),
                "{name}: {peer} after {} s",
                half_minute * 30
            );
        }
    }
    assert_eq!(
        rig.events.len(),
        begun,
        "{name}: {:?}",
        &rig.events[begun..]
    );
    let before = rig.server.log.clone();
    rig.close();
    assert_eq!(rig.events.last(), Some(&Event::Closed), "{name}");
    assert!(rig.server.allocations.is_empty(), "{name}");
    assert_eq!(rig.server.complaints, Vec::<String>::new(), "{name}");
    if loses == 0 {
        times_are_within_the_rules(name, &before, life);
    }
}

#[track_caller]
fn times_are_within_the_rules(name: &str, log: &[Answered], nonce_life: Duration) {
    let of = |method| {
        let granted = move |seen: &&Answered| seen.method == method && seen.code == 0;
        log.iter()
            .filter(granted)
            .map(|seen| seen.at)
            .collect::<Vec<_>>()
    };
    for (method, earliest, latest, most) in [
        // Well before the end of 600 s: 50 s after the last answer to anything, or on a stream on
        // which nothing came for 10 s.
        (wire::REFRESH, 9, 101, DAY / 10 + 1),
        (wire::CHANNEL_BIND, 479, 481, DAY / 480 + 1),
        // Two in one request, every 240 s; the one of the channel is refreshed with it each second time.
        (wire::CREATE_PERMISSION, 0, 241, 2 * DAY / 240 + 4),
    ] {
        let times = of(method);
        assert!(
            times.len() as u64 <= most,
            "{name}: {} x {method:?}",
            times.len()
        );
        let first = times.first().copied().unwrap_or(at(0));
        assert!(first <= at(latest), "{name}: {method:?} first at {first:?}");
        for pair in times.windows(2) {
            let pause = pair[1].duration_since(pair[0]).as_secs();
            assert!(
                (earliest..=latest).contains(&pause),
                "{name}: {method:?} after {pause} s"
            );
        }
    }
    // The end of a nonce is met by what is under way then, each once.
    let stale: Vec<_> = log.iter().filter(|seen| seen.code == 438).collect();
    assert!(
        stale.len() as u64 <= 3 * (DAY / nonce_life.as_secs() + 1),
        "{name}: {} stale nonces",
        stale.len()
    );
    let other = log
        .iter()
        .filter(|seen| ![0, 401, 438].contains(&seen.code));
    assert_eq!(other.count(), 0, "{name}");
}

// spec: TURN-8-1, TURN-10.3-1, STUN-9.2.5-4, SEC-S-09
#[test]
fn a_day_with_coturn() {
    for (name, nonce) in [
        ("nonces of a minute", 60),
        ("nonces of ten minutes", 600),
        ("stale at once", 7),
    ] {
        for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
            lives_a_day(name, coturn(nonce), transport, 0);
        }
    }
}

// spec: TURN-8-1, TURN-10.3-1
#[test]
fn a_day_with_pion() {
    for transport in [Transport::Udp, Transport::Tcp] {
        lives_a_day("pion", pion(), transport, 0);
    }
}

// Trap T18: a nonce may be used up before its time.
#[test]
fn a_day_with_nonces_that_are_used_up() {
    let habits = Habits {
        nonce_uses: 3,
        ..coturn(600)
    };
    lives_a_day("three uses", habits, Transport::Udp, 0);
}

// With such a server requests of the same instant make each other's nonces stale, until one of them
// gives up for a moment: no reason to lose the allocation.
// spec: SEC-S-09, TURN-8.3-D1
#[test]
fn a_day_with_nonces_that_replace_each_other() {
    for life in [60, 600] {
        let habits = Habits {
            nonce_each_time: true,
            ..coturn(life)
        };
        let mut rig = Rig::allocated(habits, Transport::Udp);
        for peer in ["9.9.9.9:9", "9.9.9.8:8", "9.9.9.7:7"] {
            rig.bind(peer);
        }
        rig.run(DAY);
        assert_eq!(rig.cause(), None, "nonces of {life} s");
        let asked = rig.server.log.len() as u64;
        // The path is proven every 50 s, with a nonce that is stale by then.
        assert!(
            asked < 6 * DAY / 100 + 2 * DAY / 50,
            "nonces of {life} s: {asked} requests"
        );
        for peer in ["9.9.9.9:9", "9.9.9.8:8", "9.9.9.7:7"] {
            assert!(rig.talks(peer), "nonces of {life} s");
        }
    }
}

// spec: TURN-5-9, STUN-6.2.1-1
#[test]
fn a_day_with_answers_that_get_lost() {
    for loses in [2, 3, 5] {
        lives_a_day("coturn", coturn(60), Transport::Udp, loses);
        lives_a_day("pion", pion(), Transport::Udp, loses);
    }
}
