//! The simulator's scenario for this crate, with few seeds.
//!
//! `SIM_SEEDS=10000 cargo test --release -p fuzz sim` runs many.

use fuzz::sim::seeds;

// spec: SEC-G-07, SEC-G-12
#[test]
fn every_request_ends_once_and_with_an_address_the_server_has_seen() {
    seeds("stun", 200, fuzz::binding::sim_stun);
}
