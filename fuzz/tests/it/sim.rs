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

// Seed 208 and others: after a NAT has rebound, a restarted agent still shows its old
// server-reflexive candidate. It shares the foundation of the new one, whose checks therefore wait
// until those to the dead address have timed out, and one side may have given up by then.
#[test]
#[ignore = "known: a restart keeps server-reflexive candidates that a NAT has forgotten"]
fn sim_ice_restart() {
    seeds("ice restart", 300, fuzz::ice::sim_ice_restart);
}
