//! Every scenario.

use fuzz::sim::seeds;

#[test]
fn sim_turn() {
    seeds("turn", 30, fuzz::turn::sim_turn);
}

#[test]
fn sim_connect() {
    seeds("connect", 30, fuzz::connect::sim_connect);
}
