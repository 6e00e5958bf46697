//! Every scenario.

use fuzz::sim::seeds;

#[test]
fn sim_turn() {
    seeds("turn", 30, fuzz::turn::sim_turn);
}
