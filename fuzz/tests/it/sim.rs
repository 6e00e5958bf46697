//! Every scenario.

use fuzz::sim::seeds;

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
