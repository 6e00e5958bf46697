//! Network simulator, contract checker, reference models and entry functions for fuzzing.
//!
//! See [`sim`] for how to run many seeds, and `cargo-fuzz/README.md` for fuzzing.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::field_reassign_with_default,
    clippy::large_enum_variant,
    clippy::needless_range_loop,
    clippy::wildcard_enum_match_arm,
    reason = "a test's support: its panics are findings"
)]

extern crate alloc;

#[cfg(feature = "stun")]
pub mod binding;
#[cfg(feature = "http")]
pub mod connect;
pub mod contract;
#[cfg(feature = "ice")]
pub mod ice;
#[cfg(any(feature = "http", feature = "turn"))]
mod pieces;
pub mod sim;
#[cfg(feature = "sip")]
pub mod sip;
#[cfg(feature = "stun")]
pub mod stun;
#[cfg(feature = "turn")]
pub mod turn;
