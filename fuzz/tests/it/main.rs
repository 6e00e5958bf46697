//! The scenarios with a modest number of seeds, and the corpora.
//!
//! `SIM_SEEDS=10000 cargo test --release -p fuzz sim` runs many seeds of each scenario,
//! `SIM_SEED=4711 cargo test -p fuzz sim_turn` one.

mod ops;
mod replay;
mod sim;
