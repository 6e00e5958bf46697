//! Tests of the crate from outside.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::std_instead_of_alloc,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "test code"
)]

mod client;
mod failures;
mod fast_path;
mod scenarios;
mod scripted;
mod server_memory;
mod sim;
mod traps;
mod wired;
