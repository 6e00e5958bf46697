//! The simulator's scenario for this crate, with few seeds.
//!
//! `SIM_SEEDS=10000 cargo test --release -p fuzz sim` runs many.

use fuzz::sim::seeds;

// spec: SEC-G-07, SEC-G-12
#[test]
fn peers_meet_exactly_where_their_nats_let_them() {
    seeds("ice", 20, fuzz::ice::sim_ice);
}
