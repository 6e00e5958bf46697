//! The simulator's scenario for this crate, with few seeds.
//!
//! `SIM_SEEDS=10000 cargo test --release -p fuzz sim` runs many.

use fuzz::sim::seeds;

// spec: PRH-4-1, PRH-7-4, SEC-G-07, SEC-G-12, SEC-F-02
#[test]
fn a_tunnel_carries_every_octet_once_in_order_through_faults() {
    seeds("connect", 15, fuzz::connect::sim_connect);
}
