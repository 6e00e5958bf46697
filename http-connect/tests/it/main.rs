//! Client and proxy against each other, against scripted peers, and against chance.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "test code"
)]

mod pair;
mod random;
mod reference;
mod sim;
mod traps;
mod wire;
