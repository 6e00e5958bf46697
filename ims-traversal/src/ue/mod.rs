//! The UE: calls.
#![allow(dead_code, reason = "grows")]
mod call;

pub use call::{CallConfig, CallId, Direction, EndCause};
