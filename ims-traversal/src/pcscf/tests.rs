#![allow(
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "test code"
)]

mod access;
mod calls;
mod core_side;
mod first_words;
mod hostile;
mod world;
