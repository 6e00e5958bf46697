#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use super::*;

fn limiter(per_second: u16) -> RateLimiter {
    RateLimiter::new(RateLimit::new(per_second), &mut Rng::from_seed([7; 32]))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn allowed(limiter: &mut RateLimiter, now: Instant, from: IpAddr, asked: usize) -> usize {
    (0..asked)
        .filter(|_| limiter.allows(now, from, ANSWER))
        .count()
}

// spec: SEC-T-04, SEC-G-10
#[test]
fn ten_at_once_and_ten_a_second_per_network() {
    assert!(
        size_of::<Option<Bucket>>() * STRANGERS + size_of::<Option<Proof>>() * PROVEN <= 128 * 1024
    );
    let mut limiter = limiter(RateLimit::default().per_second);
    let mut now = Instant::ZERO;
    let from = ip("192.0.2.1");
    assert_eq!(allowed(&mut limiter, now, from, 1000), 10);
    for _ in 0..20 {
        now += Duration::from_millis(100);
        assert_eq!(allowed(&mut limiter, now, from, 1000), 1);
    }
    // Saved-up answers do not exceed a second's worth.
    now += Duration::from_secs(3600);
    assert_eq!(allowed(&mut limiter, now, from, 1000), 10);
}

// spec: SEC-T-04
#[test]
fn networks_are_ipv4_addresses_and_ipv6_halves() {
    let mut limiter = limiter(1);
    let now = Instant::ZERO;
    assert!(limiter.allows(now, ip("192.0.2.1"), ANSWER));
    assert!(limiter.allows(now, ip("192.0.2.2"), ANSWER));
    assert!(
        !limiter.allows(now, ip("::ffff:192.0.2.1"), ANSWER),
        "the same host"
    );
    assert!(
        limiter.allows(now, ip("::ffff:192.0.2.3"), ANSWER),
        "not one /64"
    );
    assert!(limiter.allows(now, ip("2001:db8::1"), ANSWER));
    assert!(
        !limiter.allows(now, ip("2001:db8::ffff:1"), ANSWER),
        "the same /64"
    );
    assert!(limiter.allows(now, ip("2001:db8:0:1::1"), ANSWER));
}

// spec: SEC-T-04
#[test]
fn a_flood_from_everywhere_gets_no_more_than_the_table_holds() {
    let mut limiter = limiter(10);
    let now = Instant::ZERO;
    let answered = (0..200_000_u32)
        .filter(|n| limiter.allows(now, Ipv4Addr::from(*n).into(), ANSWER))
        .count();
    assert!(answered <= STRANGERS * 10, "{answered}");
}

// spec: SEC-G-08
#[test]
fn strange_clocks_and_no_limit() {
    let from = ip("192.0.2.1");
    let mut limited = limiter(1);
    let late = Instant::from_nanos(1_000_000_000_000);
    assert!(limited.allows(late, from, ANSWER));
    assert!(
        !limited.allows(Instant::ZERO, from, ANSWER),
        "back in time is no time"
    );
    for nanos in [i64::MIN, 0, i64::MAX - 1, i64::MAX] {
        limited.allows(Instant::from_nanos(nanos), from, ANSWER);
    }
    assert_eq!(allowed(&mut limiter(0), late, from, 1000), 1000);
}

// spec: SEC-T-04
#[test]
fn longer_answers_cost_more() {
    let now = Instant::ZERO;
    let from = ip("192.0.2.1");
    let check = |bytes: usize, expected: usize| {
        let mut limiter = limiter(10);
        let sent = (0..100).filter(|_| limiter.allows(now, from, bytes));
        assert_eq!(sent.count(), expected, "{bytes}");
    };
    check(1, 10);
    check(100, 10);
    check(101, 5);
    check(600, 1);
    // No answer is too long for ever.
    check(100_000, 1);
}

#[test]
fn many_clients_behind_an_address_that_one_has_proven_are_answered() {
    let mut limiter = limiter(10);
    let mut now = Instant::ZERO;
    let (nat, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
    assert_eq!(allowed(&mut limiter, now, nat, 2000), 10);
    limiter.proven(now, nat);
    let mut answered = 10;
    let mut seconds = 0;
    while answered < 2000 {
        answered += allowed(&mut limiter, now, nat, 2000 - answered);
        now += Duration::from_secs(1);
        seconds += 1;
    }
    assert!(seconds <= 2, "{seconds}");
    assert_eq!(allowed(&mut limiter, now, other, 2000), 10);
}

#[test]
fn strangers_leave_those_alone_who_have_proven_themselves() {
    let mut limiter = limiter(10);
    let now = Instant::ZERO;
    let nat = ip("192.0.2.1");
    limiter.proven(now, nat);
    for n in 0..200_000_u32 {
        limiter.allows(now, Ipv4Addr::from(n | 0x2000_0000).into(), ANSWER);
    }
    assert_eq!(allowed(&mut limiter, now, nat, 2000), 1000);
}

#[test]
fn proof_lasts_for_ten_minutes() {
    let nat = ip("192.0.2.1");
    let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
    let mut limiter = limiter(10);
    limiter.proven(at(0), nat);
    assert_eq!(allowed(&mut limiter, at(599), nat, 2000), 1000);
    limiter.proven(at(599), nat);
    assert_eq!(allowed(&mut limiter, at(1198), nat, 2000), 1000);
    assert_eq!(allowed(&mut limiter, at(1199), nat, 2000), 10);
}
