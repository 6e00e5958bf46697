#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use super::*;

fn limiter(per_second: u16) -> RateLimiter {
    RateLimiter::new(RateLimit { per_second }, &mut Rng::from_seed([7; 32]))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn allowed(limiter: &mut RateLimiter, now: Instant, from: IpAddr, asked: usize) -> usize {
    (0..asked).filter(|_| limiter.allows(now, from)).count()
}

// spec: SEC-T-04, SEC-G-10
#[test]
fn ten_at_once_and_ten_a_second_per_network() {
    assert!(size_of::<Slot>() * SLOTS <= 128 * 1024);
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
    assert!(limiter.allows(now, ip("192.0.2.1")));
    assert!(limiter.allows(now, ip("192.0.2.2")));
    assert!(
        !limiter.allows(now, ip("::ffff:192.0.2.1")),
        "the same host"
    );
    assert!(limiter.allows(now, ip("::ffff:192.0.2.3")), "not one /64");
    assert!(limiter.allows(now, ip("2001:db8::1")));
    assert!(!limiter.allows(now, ip("2001:db8::ffff:1")), "the same /64");
    assert!(limiter.allows(now, ip("2001:db8:0:1::1")));
}

// spec: SEC-T-04
#[test]
fn a_flood_from_everywhere_gets_no_more_than_the_table_holds() {
    let mut limiter = limiter(10);
    let now = Instant::ZERO;
    let answered = (0..200_000_u32)
        .filter(|n| limiter.allows(now, Ipv4Addr::from(*n).into()))
        .count();
    assert!(answered <= SLOTS * 10, "{answered}");
}

// spec: SEC-G-08
#[test]
fn strange_clocks_and_no_limit() {
    let from = ip("192.0.2.1");
    let mut limited = limiter(1);
    let late = Instant::from_nanos(1_000_000_000_000);
    assert!(limited.allows(late, from));
    assert!(
        !limited.allows(Instant::ZERO, from),
        "back in time is no time"
    );
    for nanos in [i64::MIN, 0, i64::MAX - 1, i64::MAX] {
        limited.allows(Instant::from_nanos(nanos), from);
    }
    assert_eq!(allowed(&mut limiter(0), late, from, 1000), 1000);
}
