//! Every scenario.

use fuzz::sim::seeds;
use fuzz::sip::Direction;

#[test]
fn sim_stun() {
    seeds("stun", 100, fuzz::binding::sim_stun);
}

#[test]
fn sim_turn() {
    seeds("turn", 30, fuzz::turn::sim_turn);
}

#[test]
fn sim_connect() {
    seeds("connect", 30, fuzz::connect::sim_connect);
}

#[test]
fn sim_ice() {
    seeds("ice", 30, fuzz::ice::sim_ice);
}

#[test]
fn sim_ice_restart() {
    seeds("ice restart", 300, fuzz::ice::sim_ice_restart);
}

// spec: OUT-4.4-1, OUT-4.4-2, OUT-7-2, SEC-P-11, SEC-P-12, SEC-P-15
#[test]
fn sim_sip() {
    seeds("sip", 30, fuzz::sip::sim_sip);
}

// spec: OUT-4.4-1, OUT-4.2.1-12
#[test]
fn sim_sip_hour() {
    seeds("sip hour", 2, fuzz::sip::sim_sip_hour);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes a minute without optimisation")]
fn sim_sip_week() {
    seeds("sip week", 1, fuzz::sip::sim_sip_week);
}

// spec: SIP-22.1-2
#[test]
fn sim_sip_password() {
    seeds("sip password", 4, fuzz::sip::sim_sip_password);
}

/// A registration survives a cut behind every single byte of it, in either direction; without
/// optimisation, behind some of them.
// spec: OUT-4.5-1, OUT-6-6
#[test]
fn sim_sip_cut() {
    let [up, down] = fuzz::sip::registration_bytes();
    let step = if cfg!(debug_assertions) { 23 } else { 1 };
    for (direction, bytes) in [(Direction::Up, up), (Direction::Down, down)] {
        for at in (0..=bytes).step_by(step) {
            let run = std::panic::catch_unwind(|| fuzz::sip::registration_cut(direction, at));
            assert!(run.is_ok(), "cut {direction:?} at {at} of {bytes}");
        }
    }
}
