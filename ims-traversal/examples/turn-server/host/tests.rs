//! Tests of the host.
#![allow(clippy::unwrap_used, reason = "test code")]

use super::*;

mod live;
mod rig;
mod tls;

fn relay(text: &str) -> RelayAddress {
    RelayAddress {
        ip: text.parse().unwrap(),
        external: None,
    }
}

#[test]
fn workers_on_one_address_have_different_ports() {
    let one = [relay("192.0.2.1")];
    let parts: Vec<_> = (0..3)
        .map(|index| ports_of(&(49_153..=65_535), &one, 3, index).unwrap())
        .collect();
    assert_eq!(parts, [49_154..=54_613, 54_614..=60_073, 60_074..=65_533]);
    assert_eq!(ports_of(&(50_000..=50_003), &one, 3, 0), None);
    assert_eq!(
        ports_of(&(50_001..=50_001), &one, 1, 0),
        Some(50_001..=50_001)
    );
}

#[test]
fn no_two_workers_share_address_and_port() {
    let pools = [
        vec![relay("192.0.2.1"), relay("192.0.2.2"), relay("2001:db8::1")],
        vec![relay("192.0.2.1"), relay("192.0.2.2")],
        vec![
            relay("192.0.2.1"),
            relay("192.0.2.2"),
            relay("192.0.2.3"),
            relay("2001:db8::1"),
            relay("2001:db8::2"),
        ],
    ];
    for relays in pools {
        for workers in 1..9 {
            let mut seen = Vec::new();
            for index in 0..workers {
                let ports = ports_of(&(50_000..=59_999), &relays, workers, index).unwrap();
                for relay in relays_of(&relays, workers, index) {
                    for (ip, other) in &seen {
                        let other: &RangeInclusive<u16> = other;
                        let apart = other.end() < ports.start() || ports.end() < other.start();
                        assert!(*ip != relay.ip || apart, "{relays:?} {workers} {index}");
                    }
                    seen.push((relay.ip, ports.clone()));
                }
            }
        }
    }
}
