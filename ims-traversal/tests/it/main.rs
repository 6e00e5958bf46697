//! The roles together, in memory: no sockets, and a clock that jumps.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::std_instead_of_alloc,
    unreachable_pub,
    reason = "test code"
)]

mod access;
mod eftf;
mod ue;
