//! Tests of the crate as its users see it.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "test code: a panic is a failure"
)]

mod allocations;
mod mutations;
mod sim;
mod sources;
mod vectors;
