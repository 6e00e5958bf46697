//! Tests of the crate from outside.
#![allow(clippy::arithmetic_side_effects, reason = "test code")]

mod client;
mod server_memory;
