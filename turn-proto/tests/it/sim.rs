//! The simulator's scenario for this crate, with few seeds.
//!
//! `SIM_SEEDS=10000 cargo test --release -p fuzz sim` runs many.

use fuzz::sim::seeds;

// spec: SEC-T-09, TURN-9-2, TURN-11.2-3, SEC-G-07, SEC-G-12, SEC-F-02
#[test]
fn clients_get_their_echo_back_once_the_faults_are_over() {
    seeds("turn", 60, fuzz::turn::sim_turn);
}
