#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::string::String;

use super::*;

const HOME: NetworkKey = NetworkKey(1);
const HOUR: Duration = Duration::from_secs(3600);

fn at(hours: u32) -> Instant {
    Instant::ZERO + HOUR * hours
}

fn full() -> LadderConfig {
    LadderConfig {
        rungs: [
            Rung::Ordinary(Transport::Udp),
            Rung::Ordinary(Transport::Tls),
            Rung::Direct,
            Rung::Connect,
            Rung::Tunnel(Transport::Tls),
        ]
        .into(),
        ..LadderConfig::default()
    }
}

fn text(attempt: Attempt) -> String {
    alloc::format!("{}{}", attempt.rung, if attempt.other { "*" } else { "" })
}

/// What is tried when everything falls as `falls` say, and then fails.
fn walk(
    ladder: &mut AccessLadder,
    now: Instant,
    proxy: bool,
    others: bool,
    falls: &[Fall],
) -> String {
    let Some(mut climb) = ladder.climb(now, HOME, proxy, others) else {
        return "nothing".into();
    };
    let mut trace = text(climb.attempt());
    let mut falls = falls.iter().copied();
    while let Some(next) = ladder.failed(&mut climb, falls.next().unwrap_or(Fall::Failed)) {
        assert_eq!(next, climb.attempt());
        trace.push(' ');
        trace.push_str(&text(next));
    }
    trace
}

/// Remembers that this rung has worked.
fn works(ladder: &mut AccessLadder, now: Instant, network: NetworkKey, proxy: bool, rung: Rung) {
    let mut climb = ladder.climb(now, network, proxy, false).unwrap();
    while climb.attempt().rung != rung {
        ladder.failed(&mut climb, Fall::Failed).unwrap();
    }
    ladder.worked(now, &climb);
}

fn first(ladder: &mut AccessLadder, now: Instant, network: NetworkKey, proxy: bool) -> Rung {
    let climb = ladder.climb(now, network, proxy, false).unwrap();
    climb.attempt().rung
}

fn ladder() -> AccessLadder {
    AccessLadder::new(full()).unwrap()
}

// spec: W-2-1, E-3.1.0-1, SEED-2.1-1, T-5.2.2-1, PRI-2-1
#[test]
fn ordinary_access_comes_first_and_the_tunnel_last() {
    let mut ladder = ladder();
    assert_eq!(
        walk(&mut ladder, at(0), false, false, &[]),
        "ordinary/UDP ordinary/TLS direct tunnel/TLS"
    );
    assert_eq!(
        walk(&mut ladder, at(0), true, false, &[]),
        "ordinary/UDP ordinary/TLS connect tunnel/TLS"
    );
    let mut plain = AccessLadder::new(LadderConfig::default()).unwrap();
    assert_eq!(
        walk(&mut plain, at(0), false, false, &[]),
        "ordinary/TLS direct"
    );
    assert_eq!(
        walk(&mut plain, at(0), true, false, &[]),
        "ordinary/TLS connect"
    );
}

// spec: PRI-2-1
#[test]
fn the_host_may_edit_the_rungs() {
    let config = |rungs: &[Rung]| LadderConfig {
        rungs: rungs.into(),
        ..LadderConfig::default()
    };
    let mut only = AccessLadder::new(config(&[Rung::Connect])).unwrap();
    assert_eq!(walk(&mut only, at(0), true, false, &[]), "connect");
    assert_eq!(walk(&mut only, at(0), false, false, &[]), "nothing");
    for rungs in [&[][..], &[Rung::Direct, Rung::Connect, Rung::Direct]] {
        assert_eq!(
            AccessLadder::new(config(rungs)).unwrap_err(),
            LadderError::Rungs
        );
    }
    let none = LadderConfig {
        max_networks: 0,
        ..LadderConfig::default()
    };
    assert_eq!(AccessLadder::new(none).unwrap_err(), LadderError::Networks);
}

#[test]
fn a_proxy_that_forbids_one_p_cscf_is_asked_for_another_once() {
    let mut ladder = ladder();
    let forbidden = [Fall::Failed, Fall::Failed, Fall::Forbidden, Fall::Forbidden];
    assert_eq!(
        walk(&mut ladder, at(0), true, true, &forbidden),
        "ordinary/UDP ordinary/TLS connect connect* tunnel/TLS"
    );
    assert_eq!(
        walk(&mut ladder, at(0), true, false, &forbidden),
        "ordinary/UDP ordinary/TLS connect tunnel/TLS"
    );
}

// spec: PRI-2-2
#[test]
fn the_next_climb_begins_where_the_last_one_worked() {
    let mut ladder = ladder();
    works(&mut ladder, at(0), HOME, true, Rung::Connect);
    // That failing, everything else is tried, best first.
    assert_eq!(
        walk(&mut ladder, at(1), true, false, &[]),
        "connect ordinary/UDP ordinary/TLS tunnel/TLS"
    );
    // Which did not make it wrong: perhaps there was no network at all.
    assert_eq!(first(&mut ladder, at(2), HOME, true), Rung::Connect);
    // Without its proxy it does not apply; in another network nothing is known.
    let best = Rung::Ordinary(Transport::Udp);
    assert_eq!(first(&mut ladder, at(2), HOME, false), best);
    assert_eq!(first(&mut ladder, at(2), NetworkKey(2), true), best);
    ladder.forget(HOME);
    assert_eq!(first(&mut ladder, at(2), HOME, true), best);
}

// spec: PRI-2-2
#[test]
fn better_rungs_are_tried_again_after_a_day() {
    let mut ladder = ladder();
    works(&mut ladder, at(0), HOME, false, Rung::Direct);
    // Working again does not make the better ones wait longer.
    for hours in [1, 12, 23] {
        works(&mut ladder, at(hours), HOME, false, Rung::Direct);
    }
    let second = Duration::from_secs(1);
    assert_eq!(
        first(&mut ladder, at(24) - second, HOME, false),
        Rung::Direct
    );
    let best = Rung::Ordinary(Transport::Udp);
    assert_eq!(first(&mut ladder, at(24), HOME, false), best);
    // They were tried in vain: another day.
    works(&mut ladder, at(25), HOME, false, Rung::Direct);
    assert_eq!(first(&mut ladder, at(48), HOME, false), Rung::Direct);
    assert_eq!(first(&mut ladder, at(49), HOME, false), best);
    // A climb that fell back to the top has tried them as well.
    works(
        &mut ladder,
        at(50),
        HOME,
        false,
        Rung::Ordinary(Transport::Tls),
    );
    assert_eq!(
        first(&mut ladder, at(73), HOME, false),
        Rung::Ordinary(Transport::Tls)
    );
}

#[test]
fn the_networks_of_late_are_remembered() {
    let config = LadderConfig {
        max_networks: 3,
        ..full()
    };
    let mut ladder = AccessLadder::new(config).unwrap();
    for network in [1, 2, 3] {
        works(&mut ladder, at(0), NetworkKey(network), false, Rung::Direct);
    }
    // Used again, so it stays.
    assert_eq!(
        first(&mut ladder, at(0), NetworkKey(1), false),
        Rung::Direct
    );
    works(&mut ladder, at(0), NetworkKey(4), false, Rung::Direct);
    let known: Vec<_> = ladder.export(at(0)).map(|row| row.network.0).collect();
    assert_eq!(known, [4, 1, 3]);
}

// spec: PRI-2-2
#[test]
fn what_is_remembered_outlives_a_restart() {
    let mut ladder = ladder();
    works(&mut ladder, at(0), NetworkKey(1), false, Rung::Direct);
    works(&mut ladder, at(5), NetworkKey(2), true, Rung::Connect);
    let rows: Vec<_> = ladder.export(at(10)).collect();
    let row = |network, rung, age| Remembered {
        network: NetworkKey(network),
        rung,
        age: HOUR * age,
    };
    assert_eq!(rows, [row(2, Rung::Connect, 5), row(1, Rung::Direct, 10)]);

    // The clock of the new life begins where it likes.
    let mut again = self::ladder();
    again.import(at(0), rows.clone());
    assert_eq!(again.export(at(0)).collect::<Vec<_>>(), rows);
    assert_eq!(
        first(&mut again, at(13), NetworkKey(1), false),
        Rung::Direct
    );
    let best = Rung::Ordinary(Transport::Udp);
    assert_eq!(first(&mut again, at(14), NetworkKey(1), false), best);
    assert_eq!(
        first(&mut again, at(18), NetworkKey(2), true),
        Rung::Connect
    );

    // Rungs that are no longer wanted, and too many rows.
    let config = LadderConfig {
        rungs: [Rung::Direct].into(),
        max_networks: 2,
        ..LadderConfig::default()
    };
    let mut small = AccessLadder::new(config).unwrap();
    small.import(at(0), (0..9).map(|n| row(n, Rung::Direct, 0)).chain(rows));
    assert_eq!(small.export(at(0)).count(), 2);
    small.import(at(0), [row(50, Rung::Connect, 0)]);
    assert!(small.export(at(0)).all(|row| row.network != NetworkKey(50)));
}

// spec: E-3.1.0-2
#[test]
fn on_all_but_the_ordinary_ways_a_nat_is_assumed() {
    let flags: Vec<_> = full().rungs.iter().map(|rung| rung.assumes_nat()).collect();
    assert_eq!(flags, [false, false, true, true, true]);
}

// spec: SEED-2.1-3
#[test]
fn port_443_is_for_tls_only() {
    assert_eq!(Rung::Direct.transport(), Transport::Tls);
    assert_eq!(Rung::Connect.transport(), Transport::Tls);
}

#[test]
fn rungs_are_written_and_read() {
    for rung in full().rungs {
        assert_eq!(alloc::format!("{rung}").parse(), Ok(rung));
    }
    for bad in [
        "",
        "ordinary",
        "direct/TLS",
        "tunnel/",
        "connect/UDP",
        "ordinary/SCTP",
    ] {
        assert_eq!(bad.parse::<Rung>(), Err(NotARung), "{bad}");
    }
}
